"""Langevin dynamics: the one way in which genconv moves images downhill with noise."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from genconv.sampling.schedule import Knots, value_at

__all__ = ["LangevinInfo", "LangevinResult", "draw_noise", "frozen", "langevin"]

# convolutions read and write channels last; a chain laid out so is not rearranged at every step
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

Generators = torch.Generator | Sequence[torch.Generator] | None


class LangevinInfo(NamedTuple):
    """What a run of chains did, one number per chain; tensors, so that reading them is your choice.

    Attributes:
        energy: (N,) energies before the last step.
        gradient: (N,) norms of the energy gradient before the last step.
        movement: (N,) distances from where the chains began to where they ended.
    """

    energy: Tensor
    gradient: Tensor
    movement: Tensor


class LangevinResult(NamedTuple):
    """The chains' last state `x` (N, C, *space), float32, and `info` about the way there."""

    x: Tensor
    info: LangevinInfo


def langevin(
    energy: Callable[..., Tensor],
    x: Tensor,
    y: Tensor | None = None,
    *,
    steps: int,
    step_size: Knots,
    temperature: Knots = 1.0,
    gradient_clip: float | None = None,
    clamp: tuple[float, float] | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
    generator: Generators = None,
    callback: Callable[[int, Tensor], None] | None = None,
    bf16: bool = False,
) -> LangevinResult:
    r"""Run unadjusted Langevin dynamics in parallel chains.

    .. math:: x' = x - η ∇E(x) + \sqrt{2 η T}\, ξ, \qquad ξ \sim N(0, I)

    While it runs, an energy that is a module is in eval mode with frozen parameters; both are put
    back afterwards, also on error. It may be called inside `no_grad` and `inference_mode`, leaves
    no graph behind, and never waits for the device.

    Args:
        energy: maps (N, C, *space), and labels where given, to energies (N,).
        x: (N, C, *space) start of the chains; not changed.
        y: (N,) labels handed to a class-conditional energy.
        steps: number of steps.
        step_size: η, one number or (step, value) knots, see `genconv.sampling.value_at`.
        temperature: T, one number or knots; 0 is gradient descent. Papers that quote a gradient
            factor λ and a noise σ mean η = λ and T = σ² / 2λ.
        gradient_clip: bound on every element of the gradient, as in IGEBM; None for the exact law.
        clamp: range into which x is cut after each step.
        project: maps x to the nearest x that satisfies a constraint, after each step.
        generator: source of the noise, on x's device; None is PyTorch's global one. A sequence
            holds one generator for each chain, which makes a chain independent of its batch.
        callback: called after each step with the number of steps done and x, which the next step
            changes in place: copy what is to be kept.
        bf16: compute gradients in bfloat16 autocast; the chain itself stays float32.

    Returns:
        The chains' end and what happened on the way.
    """
    with frozen(energy), torch.inference_mode(False), torch.no_grad():
        # inference tensors cannot enter autograd; a clone made out here can
        start = x.to(torch.float32, copy=True) if x.dtype != torch.float64 else x.clone()
        y = y.clone() if y is not None else None
        if layout := CHANNELS_LAST.get(x.ndim):
            start = start.contiguous(memory_format=layout)
        x = start.clone()
        energies, gradient = x.new_zeros(len(x)), torch.zeros_like(x)
        for step in range(steps):
            eta, heat = value_at(step_size, step), value_at(temperature, step)
            energies, gradient = _energy_and_gradient(energy, x, y, bf16)
            if gradient_clip is not None:
                gradient = gradient.clamp(-gradient_clip, gradient_clip)
            x = x.sub_(gradient, alpha=eta)
            if heat > 0:
                x = x.add_(
                    draw_noise(x.shape, generator, dtype=x.dtype, device=x.device),
                    alpha=(2 * eta * heat) ** 0.5,
                )
            if clamp is not None:
                x = x.clamp_(*clamp)
            if project is not None:
                x = project(x)
            if callback is not None:
                callback(step + 1, x)
        info = LangevinInfo(energies, _norm(gradient), _norm(x - start))
    return LangevinResult(x.contiguous(), info)


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


def _energy_and_gradient(
    energy: Callable[..., Tensor], x: Tensor, y: Tensor | None, bf16: bool
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            energies = energy(x) if y is None else energy(x, y)
        (gradient,) = torch.autograd.grad(energies.sum(), x)
    return energies.detach(), gradient


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)
