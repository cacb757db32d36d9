r"""SiLU and group normalisation that are cheap to differentiate twice.

Energy matching teaches a gradient, so training differentiates every layer twice. PyTorch has fused
kernels for the first derivative of these two, and strings the second together from dozens of small
operations, whose results all stay in memory. Here it is written out in closed form.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from genconv.energy.energy import CHANNELS_LAST

__all__ = ["GroupNorm", "SiLU", "watched"]

aten = torch.ops.aten


class SiLU(nn.Module):
    """Creates x · sigmoid(x), as `torch.nn.SiLU` does."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, in its shape and type."""
        return F.silu(x) if watched() else _SiLU.apply(x)


class GroupNorm(nn.GroupNorm):
    """Creates group normalisation, as `torch.nn.GroupNorm` does."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x (N, C, *space), standardised in every group and affine in every channel."""
        if watched():
            return super().forward(x)
        kind = x.dtype
        if x.device.type == "cpu":
            return _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        # only the CPU has kernels for activations and weights of different types, or channels last
        layout = CHANNELS_LAST.get(x.ndim)
        last = layout is not None and x.is_contiguous(memory_format=layout)
        wide = torch.promote_types(kind, self.weight.dtype)
        x = x.to(wide, memory_format=torch.contiguous_format).contiguous()
        y = _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return y.to(kind, memory_format=layout if last else torch.contiguous_format)


def watched() -> bool:
    """Say whether torch.compile or torch.func looks on, which knows PyTorch's own layers best."""
    # torch.func has no public call for it; PyTorch's own `Function.apply` asks this one
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


class _SiLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return aten.silu(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return _SiLUGradient.apply(g, *ctx.saved_tensors)


class _SiLUGradient(Function):
    """Maps g and x to g f'(x), f being SiLU."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(g, x)
        return aten.silu_backward(g, x)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor]:
        _refuse_graph()
        g, x = ctx.saved_tensors
        # f'' = s' (2 + x (1 - 2 s)), where s is the sigmoid and s' = s (1 - s)
        s = x.sigmoid()
        factor = torch.rsub(s, 1, alpha=2).mul_(x).add_(2).mul_(g).mul_(v)
        return aten.silu_backward(v, x), aten.sigmoid_backward(factor, s)


class _GroupNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        n, c = x.shape[:2]
        y, mean, rstd = aten.native_group_norm(
            x, weight, bias, n, c, x.numel() // (n * c), groups, eps
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return (*_GroupNormGradient.apply(g, *ctx.saved_tensors), None, None)


class _GroupNormGradient(Function):
    r"""Maps g, the gradient of the output, to those of x, weight and bias.

    With z the standardised x, σ its deviation and <·> the mean over a group, the first one is
    A(w g), where A is the Jacobian of z, which is symmetric:

    .. math:: A p = (p - <p> - z <p z>) / σ
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = _gradients(g, x, weight, mean, rstd)
        ctx.save_for_backward(g, x, weight, mean, rstd, found[0])
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    def backward(
        ctx: Any, v: Tensor | None, v_weight: Tensor | None, v_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        _refuse_graph()
        g, x, weight, *moments, aw = ctx.saved_tensors  # aw is A(w g)
        v = torch.zeros_like(g) if v is None else v
        av = _gradients(v, x, torch.ones_like(weight), *moments)[0]
        wide = torch.promote_types(weight.dtype, torch.float32)
        mean, rstd = (m.to(wide) for m in moments)
        n, groups = mean.shape
        width, places = x.shape[1] // groups, x[0, 0].numel()

        def means(t: Tensor, weight: Tensor | float = 1.0) -> Tensor:
            """Return the mean over each group (N, groups) of t, weighted by channel."""
            t = t.flatten(2).sum(2, dtype=wide) * weight
            return t.view(n, groups, width).sum(2) / (width * places)

        def each(t: Tensor) -> Tensor:
            """Return what belongs to a group (N, groups), or a channel (C,), at every place."""
            t = t.repeat_interleave(width, 1) if t.ndim == 2 else t
            return t.to(x.dtype).view(*t.shape, *[1] * (x.ndim - 2))

        w = weight.to(wide)
        vz = (means(v * x) - mean * means(v)) * rstd
        wgz = (means(g * x, w) - mean * means(g, w)) * rstd
        # <v, A w g> depends on x by z, whose Jacobian is A, and by σ, whose gradient is z / size
        pull = means(g * av, w) * rstd.square()
        dx = torch.addcmul(each(pull * mean), x, each(-pull))
        dx = dx.addcmul_(av, each(-wgz * rstd)).addcmul_(aw, each(-vz * rstd))
        dg, dw = av * each(weight), (g * av).flatten(2).sum((0, 2), dtype=wide).to(weight.dtype)
        if v_weight is not None:
            dx = dx + _gradients(g, x, v_weight, *moments)[0]
            dg = dg + torch.addcmul(each(-mean * rstd), x, each(rstd)) * each(v_weight)
        if v_bias is not None:
            dg = dg + each(v_bias)
        return dg, dx, dw, None, None


def _gradients(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return A(weight g), and the gradients of weight and bias."""
    layout = CHANNELS_LAST.get(x.ndim)
    last = layout is not None and x.device.type == "cpu" and x.is_contiguous(memory_format=layout)
    # the kernel wants both in the layout of x
    g = g.contiguous(memory_format=layout if last else torch.contiguous_format)
    n, c = x.shape[:2]
    return aten.native_group_norm_backward(
        g, x, mean, rstd, weight, n, c, x.numel() // (n * c), mean.shape[1], [True] * 3
    )


def _refuse_graph() -> None:
    """Raise rather than lose a third derivative in silence."""
    if torch.is_grad_enabled():
        raise RuntimeError("SiLU and GroupNorm of genconv are differentiated twice, not more often")
