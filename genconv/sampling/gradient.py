"""What every sampler stands on: a frozen energy, its gradient, and noise from generators."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from genconv.energy.energy import CHANNELS_LAST
from genconv.sampling.compiled import compiled_gradient

__all__ = ["Generators", "copied", "draw_noise", "energy_and_gradient", "frozen", "norm"]

Generators = torch.Generator | Sequence[torch.Generator] | None


@contextmanager
def frozen(energy: Callable[..., Tensor]) -> Iterator[None]:
    """Hold a module in eval mode without parameter gradients; put back every flag afterwards.

    Parametrised weights, such as spectrally normalised ones, are computed once for all steps.
    """
    modules = list(energy.modules()) if isinstance(energy, nn.Module) else []
    parameters = list(energy.parameters()) if isinstance(energy, nn.Module) else []
    training = [module.training for module in modules]
    learning = [parameter.requires_grad for parameter in parameters]
    try:
        with ExitStack() as stack:
            for module in modules:
                module.training = False
            for parameter in parameters:
                parameter.requires_grad_(False)
            stack.enter_context(parametrize.cached())
            yield
    finally:
        for module, flag in zip(modules, training, strict=True):
            module.training = flag
        for parameter, flag in zip(parameters, learning, strict=True):
            parameter.requires_grad_(flag)


def copied(x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return a chain's own copy of its start, in float32 at least, and of its labels.

    Call it outside of inference mode, whose tensors cannot enter autograd; the copies can.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
    # a chain laid out as convolutions want it is not rearranged at every step
    if layout := CHANNELS_LAST.get(x.ndim):
        x = x.contiguous(memory_format=layout)
    return x, y.clone() if y is not None else None


def draw_noise(
    shape: Sequence[int],
    generator: Generators = None,
    *,
    draw: Callable[..., Tensor] = torch.randn,
    **kind: Any,
) -> Tensor:
    """Draw noise (N, *shape) from one generator, or row by row from a sequence of N of them.

    Args:
        shape: of the noise, batch first.
        generator: see `langevin`.
        draw: `torch.randn` or `torch.rand`.
        kind: dtype and device.
    """
    if isinstance(generator, Sequence):
        return torch.stack([draw(tuple(shape[1:]), generator=g, **kind) for g in generator])
    return draw(tuple(shape), generator=generator, **kind)


def energy_and_gradient(
    energy: Callable[..., Tensor], x: Tensor, y: Tensor | None = None, bf16: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the energies (N,) of x and their gradient (N, C, *space), without a graph.

    Args:
        energy: see `langevin`.
        x: (N, C, *space).
        y: (N,) labels, or None.
        bf16: compute both in bfloat16 autocast; otherwise not, also inside of autocast.
    """
    if (found := compiled_gradient(energy, x, y, bf16)) is not None:
        return found
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            energies = energy(x) if y is None else energy(x, y)
        (gradient,) = torch.autograd.grad(energies.sum(), x)
    return energies.detach(), gradient


def norm(x: Tensor) -> Tensor:
    """Return the length (N,) of each row of x (N, C, *space)."""
    return x.flatten(1).norm(dim=1)
