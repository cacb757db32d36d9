"""Convolutions that are cheap to differentiate twice, and safe in bfloat16 on the smallest maps."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from genconv.energy.twice import watched

__all__ = ["CONVOLUTIONS", "Conv1d", "Conv2d", "Conv3d"]


class _Convolution(nn.modules.conv._ConvNd):
    """Convolves, and is differentiated by the library's own kernels, also the second time.

    The second derivative by the weights is for PyTorch a convolution whose kernel is as large as
    the image. It is a gradient of weights like any other, and libraries have kernels for those.

    It convolves in float32 where PyTorch's bfloat16 gradient cannot be trusted: on the CPU the
    gradient of the weights (PyTorch 2.14, oneDNN) reads memory that nobody has written where an
    axis of the map is shorter than kernel or stride, as for a kernel of 3x3x3 on 2x2x2: not always
    NaN, which the guard would see, but now and then any number. Such maps are small, and float32
    costs little.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x (N, C, *space), in the type that autocast wants."""
        device, kind = x.device.type, x.dtype
        casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        # autocast leaves float64 alone
        if casts and kind != torch.float64:
            kind = torch.get_autocast_dtype(device)
        if device == "cpu" and kind == torch.bfloat16 and self._is_short(x):
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x.float(), self._weights(torch.float32)).to(kind)
        return self._convolve(x.to(kind), self._weights(kind if casts else None))

    def _weights(self, kind: torch.dtype | None) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias, in a type if one is given."""
        if kind is None:
            return self.weight, self.bias
        return self.weight.to(kind), None if self.bias is None else self.bias.to(kind)

    def _convolve(self, x: Tensor, weights: tuple[Tensor, Tensor | None]) -> Tensor:
        weight, bias = weights
        taught = torch.is_grad_enabled() and weight.requires_grad
        plain = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        if not taught or not plain or watched():
            return self._conv_forward(x, weight, bias)
        how = _How(self.stride, self.padding, self.dilation, self.groups)
        return _Convolve.apply(x, weight, bias, how)

    def _is_short(self, x: Tensor) -> bool:
        sizes = zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        return any(side < max(kernel, stride) for side, kernel, stride in sizes)


class _How(NamedTuple):
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        none = [0] * len(self.stride)
        return torch.convolution(x, weight, bias, *self[:3], False, none, self.groups)

    def gradients(
        self, g: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, ...]:
        """Return those of x, weight and bias that are wanted, of which g is that of the output."""
        none, sizes = [0] * len(self.stride), [len(weight)]
        return torch.ops.aten.convolution_backward(
            g, x, weight, sizes, *self[:3], False, none, self.groups, wanted
        )


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: _How) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return how.convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        wanted = tuple(_wanted(ctx, i) for i in range(3))
        return (*_ConvolveGradient.apply(g, *ctx.saved_tensors, ctx.how, wanted), None)


class _ConvolveGradient(Function):
    """Maps g, the gradient of the output, to those of x, weight and bias: linear in each."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, how: _How, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(g, x, weight)
        ctx.how = how
        ctx.set_materialize_grads(False)
        return how.gradients(g, x, weight, wanted)

    @staticmethod
    def backward(
        ctx: Any, v: Tensor | None, v_weight: Tensor | None, v_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        (g, x, weight), how = ctx.saved_tensors, ctx.how
        dg = dx = dw = None
        if v is not None:
            dg = how.convolve(v, weight, v_bias)
            dw = how.gradients(g, v, weight, (False, True, False))[1]
        elif v_bias is not None:
            dg = v_bias.view(-1, *[1] * (g.ndim - 2)).expand_as(g)
        if v_weight is not None:
            more = how.convolve(x, v_weight)
            dg = more if dg is None else dg + more
            dx = how.gradients(g, x, v_weight, (True, False, False))[0]
        return dg, dx, dw, None, None


def _wanted(node: Any, i: int) -> bool:
    """Say whether the gradient of a node's input i is asked for in this very pass.

    Energy matching asks for that of the image alone first, of weights that could have one.
    """
    if not node.needs_input_grad[i]:
        return False
    try:
        # as PyTorch's own `register_multi_grad_hook` asks
        return torch._C._will_engine_execute_node(node.next_functions[i][0])
    except RuntimeError:
        # of a leaf that `autograd.grad` is to give the gradient of
        return True


class Conv1d(_Convolution, nn.Conv1d):
    """Creates a convolution of signals (N, C, L), as `torch.nn.Conv1d` does."""


class Conv2d(_Convolution, nn.Conv2d):
    """Creates a convolution of images (N, C, H, W), as `torch.nn.Conv2d` does."""


class Conv3d(_Convolution, nn.Conv3d):
    """Creates a convolution of videos and bodies (N, C, D, H, W), as `torch.nn.Conv3d` does."""


CONVOLUTIONS = {1: Conv1d, 2: Conv2d, 3: Conv3d}
