"""Descents that may be differentiated, through which an energy of answers is taught."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from genconv.sampling import Generators, draw_noise

__all__ = ["Thought", "calibration", "unroll"]


class Thought(NamedTuple):
    """The end `x` (N, C, *space) of an unrolled descent, and the differentiable steps to it.

    `visited` holds the places (N, C, *space), detached, from which those steps were taken, and
    `energies` their energies (N,).
    """

    x: Tensor
    visited: list[Tensor]
    energies: list[Tensor]


def unroll(
    energy: Callable[..., Tensor],
    x: Tensor,
    context: Tensor | None = None,
    *,
    steps: int,
    step_size: Tensor | float,
    temperature: float = 0.0,
    through: int | None = None,
    second: bool = True,
    generator: Generators = None,
) -> Thought:
    r"""Run Langevin dynamics whose end, or energies, still depend on the energy's parameters.

    .. math:: x' = x - η ∇E(x | c) + \sqrt{2 η T}\, ξ

    Args:
        energy: differentiable twice, or once where `second` is false.
        x: (N, C, *space) start.
        context: (N, ...) handed to the energy in the place of a label; None for none.
        steps: number of steps.
        step_size: η, a number or a tensor that broadcasts to x; may need a gradient.
        temperature: T.
        through: the last steps that are differentiable; all by default.
        second: whether the end is a function of the parameters; else only the energies are.
        generator: source of the noise.
    """
    through = steps if through is None else min(through, steps)
    visited, energies = [], []
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        for left in range(steps, 0, -1):
            learns = left <= through
            if not second:
                x = x.detach().requires_grad_()
            e = energy(x) if context is None else energy(x, context)
            (gradient,) = torch.autograd.grad(
                e.sum(), x, create_graph=learns and second, retain_graph=learns
            )
            if learns:
                visited.append(x.detach())
                energies.append(e)
            eta = step_size if learns or isinstance(step_size, float) else step_size.detach()
            x = x - eta * gradient
            if temperature > 0:
                noise = draw_noise(x.shape, generator, dtype=x.dtype, device=x.device)
                x = x + (2 * temperature * torch.as_tensor(eta).detach()) ** 0.5 * noise
    return Thought(x if second else x.detach(), visited, energies)


def calibration(thought: Thought, truth: Tensor) -> Tensor:
    """Return the mean squared log of energy over ½|x - x*|², of all visited places."""
    pairs = zip(thought.visited, thought.energies, strict=True)
    logs = [
        (e.log() - ((x - truth).square().flatten(1).sum(1) / 2).clamp_min(1e-6).log())
        for x, e in pairs
    ]
    return torch.stack(logs).square().mean()
