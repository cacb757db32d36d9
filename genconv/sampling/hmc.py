"""Hamiltonian Monte Carlo: long moves along the energy, accepted so that the law is exact."""

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

__all__ = ["MetropolisInfo", "MetropolisResult", "hmc", "leapfrog", "trajectories"]


class MetropolisInfo(NamedTuple):
    """What a run of exact chains did, one number per chain.

    Attributes:
        energy: (N,) energies of the last state.
        gradient: (N,) norms of the energy gradient there.
        movement: (N,) distances from where the chains began to where they ended.
        acceptance: (N,) probability with which a proposal was accepted, the mean over all steps.
    """

    energy: Tensor
    gradient: Tensor
    movement: Tensor
    acceptance: Tensor


class MetropolisResult(NamedTuple):
    """The chains' last state `x` (N, C, *space), float32, and `info` about the way there."""

    x: Tensor
    info: MetropolisInfo


def hmc(
    energy: Callable[..., Tensor],
    x: Tensor,
    y: Tensor | None = None,
    *,
    steps: int,
    step_size: Knots,
    leapfrog_steps: int = 10,
    temperature: Knots = 1.0,
    persistence: float = 0.0,
    generator: Generators = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> MetropolisResult:
    r"""Run Hamiltonian Monte Carlo in parallel chains, whose law is exactly exp(-E(x) / T) / Z.

    Each step draws a momentum p ~ N(0, T I), follows L leapfrog steps of length ε from (x, p) to
    (x*, p*), and goes there with the probability

    .. math:: \min\left(1, e^{-ΔH/T}\right), \qquad H(x, p) = E(x) + |p|^2 / 2

    and else stays. It handles the energy, generators and grad modes as `langevin` does, and costs L
    gradients a step. Clamping or projecting would break the law: for a constraint, give an energy
    that is infinite where x may not go, as such proposals are never accepted.

    Args:
        energy: maps (N, C, *space), and labels where given, to energies (N,).
        x: (N, C, *space) start of the chains; not changed.
        y: (N,) labels handed to a class-conditional energy.
        steps: number of proposals.
        step_size: ε, one number or (step, value) knots, see `genconv.sampling.value_at`.
        leapfrog_steps: L.
        temperature: T > 0, one number or knots.
        persistence: share κ of the momentum that a step keeps, p' = κ p + sqrt(1 - κ²) ξ; it turns
            round where a proposal is rejected. With L = 1 and κ near 1 this is underdamped Langevin
            dynamics, made exact.
        generator: source of the randomness; see `langevin`.
        callback: called after each step with the number of steps done and x.

    Returns:
        The chains' end and what happened on the way.

    Raises:
        ValueError: a temperature is not positive, there is no leapfrog step, or κ is not in [0, 1].

    References:
        Duane et al.: Hybrid Monte Carlo, 1987; Horowitz: A generalized guided Monte Carlo
        algorithm, 1991; Neal: MCMC using Hamiltonian dynamics, https://arxiv.org/abs/1206.1901
    """
    return trajectories(
        energy,
        x,
        y,
        steps=steps,
        length=lambda step: value_at(step_size, step),
        leapfrog_steps=leapfrog_steps,
        temperature=temperature,
        persistence=persistence,
        generator=generator,
        callback=callback,
    )


def trajectories(
    energy: Callable[..., Tensor],
    x: Tensor,
    y: Tensor | None,
    *,
    steps: int,
    length: Callable[[int], float],
    leapfrog_steps: int,
    temperature: Knots,
    persistence: float,
    generator: Generators,
    callback: Callable[[int, Tensor], None] | None,
) -> MetropolisResult:
    """Run `hmc` with a leapfrog step of `length(step)`."""
    values = [t for _, t in temperature] if isinstance(temperature, list | tuple) else [temperature]
    if not min(values) > 0:
        raise ValueError(f"an exact sampler needs temperatures above 0, not {temperature}")
    if leapfrog_steps < 1 or not 0 <= persistence <= 1:
        raise ValueError(
            f"leapfrog_steps is at least 1 and persistence a share in [0, 1], not {leapfrog_steps} "
            f"and {persistence}"
        )
    with frozen(energy), torch.inference_mode(False), torch.no_grad():
        start, y = copied(x, y)
        x, momentum = start, torch.zeros_like(start)
        # found once for each state: a rejected proposal leaves them as they are
        energies, gradient = energy_and_gradient(energy, x, y)
        accepted = x.new_zeros(len(x))
        kind = {"dtype": x.dtype, "device": x.device}
        for step in range(steps):
            heat = value_at(temperature, step)
            noise = draw_noise(x.shape, generator, **kind)
            # momenta are kept for T = 1, so that a schedule does not make them hot or cold
            keep = persistence if step else 0.0
            momentum = keep * momentum + (1 - keep**2) ** 0.5 * noise
            p = heat**0.5 * momentum
            x_new, p_new, energies_new, gradient_new = leapfrog(
                energy, x, p, gradient, y, step_size=length(step), steps=leapfrog_steps
            )
            # element by element: the two sums of squares alone would lose the digits of their gap
            kinetic = ((p_new - p) * (p_new + p)).flatten(1).sum(1) / 2
            ratio = -(energies_new - energies + kinetic) / heat
            # NaN where a trajectory has left the numbers: never accepted
            accepted += ratio.clamp(max=0).exp().nan_to_num(0)
            accept = draw_noise((len(x),), generator, draw=torch.rand, **kind).log() < ratio
            wide = accept.view(-1, *[1] * (x.ndim - 1))
            x, gradient = torch.where(wide, x_new, x), torch.where(wide, gradient_new, gradient)
            momentum = torch.where(wide, p_new, -p) / heat**0.5
            energies = torch.where(accept, energies_new, energies)
            if callback is not None:
                callback(step + 1, x)
        info = MetropolisInfo(energies, norm(gradient), norm(x - start), accepted / max(steps, 1))
    return MetropolisResult(x.contiguous(), info)


def leapfrog(
    energy: Callable[..., Tensor],
    x: Tensor,
    p: Tensor,
    gradient: Tensor,
    y: Tensor | None = None,
    *,
    step_size: float,
    steps: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Follow Hamilton's equations: half a kick, then drifts and kicks in turn, half a kick.

    The map keeps volume, and undoes itself if the momentum is turned round.

    Args:
        energy: see `hmc`.
        x: (N, C, *space) places.
        p: (N, C, *space) momenta, of mass 1.
        gradient: (N, C, *space) gradient of the energy at x.
        y: (N,) labels, or None.
        step_size: ε.
        steps: L, at least 1.

    Returns:
        places, momenta, energies (N,) and gradients at the end.
    """
    p = p - step_size / 2 * gradient
    for left in reversed(range(steps)):
        x = x + step_size * p
        energies, gradient = energy_and_gradient(energy, x, y)
        p = p - (step_size if left else step_size / 2) * gradient
    return x, p, energies, gradient
