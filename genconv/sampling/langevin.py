"""Langevin dynamics: the one way in which genconv moves images downhill with noise."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from genconv.sampling.gradient import (
    Generators,
    copied,
    draw_noise,
    energy_and_gradient,
    frozen,
    norm,
)
from genconv.sampling.schedule import Knots, value_at

__all__ = ["LangevinInfo", "LangevinResult", "langevin"]


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
        start, y = copied(x, y)
        x = start.clone()
        energies, gradient = x.new_zeros(len(x)), torch.zeros_like(x)
        for step in range(steps):
            eta, heat = value_at(step_size, step), value_at(temperature, step)
            energies, gradient = energy_and_gradient(energy, x, y, bf16)
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
        info = LangevinInfo(energies, norm(gradient), norm(x - start))
    return LangevinResult(x.contiguous(), info)
