"""Adversarial images: the worst that a small change of the pixels can do to a classifier."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from genconv.sampling import draw_noise

__all__ = ["Defence", "Norm", "attack", "margin", "within"]

# images in [-1, 1] and one generator for each of them to logits (N, K), differentiable by images
Defence = Callable[[Tensor, Sequence[torch.Generator]], Tensor]
Norm = Literal["linf", "l2"]


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return by how much the best wrong class is ahead of the right one: above 0, an error.

    Args:
        logits: (N, K); who has no finite ones is in error by infinity.
        y: (N,) right classes.
    """
    right = logits.gather(1, y[:, None]).squeeze(1)
    ahead = logits.scatter(1, y[:, None], -torch.inf).amax(1) - right
    return torch.where(logits.isfinite().all(1), ahead, torch.inf)


def within(moved: Tensor, x: Tensor, radius: float, norm: Norm) -> Tensor:
    """Return the images nearest to `moved` that are in the ball around x, cut into [-1, 1].

    Args:
        moved: (N, C, *space).
        x: (N, C, *space), in [-1, 1].
        radius: of the ball.
        norm: `linf`, the largest change of a value, or `l2`, the root of the sum of squares.
    """
    change = moved - x
    if norm == "linf":
        change = change.clamp(-radius, radius)
    else:
        change = change * (radius / _length(change).clamp_min(radius))
    # x is in the box, so that cutting comes nearer to it
    return (x + change).clamp(-1, 1)


def attack(
    defence: Defence,
    x: Tensor,
    y: Tensor,
    *,
    radius: float,
    norm: Norm = "linf",
    steps: int = 20,
    generator: Sequence[torch.Generator],
) -> Tensor:
    """Look for the change of at most `radius` that fools a classifier: projected gradient ascent.

    It climbs the margin, whose gradient does not vanish where a classifier is sure, from a random
    place on the ball's surface, in steps that shrink from the radius to nothing, and keeps the
    worst image that it has seen. A defence that draws random numbers is asked with new ones at
    every step: the gradients' mean is that of the expectation, which is what counts.

    Args:
        defence: see `Defence`.
        x: (N, C, *space) in [-1, 1].
        y: (N,) right classes.
        radius: largest change, in the norm, of values in [-1, 1]; 16 / 255 for what papers, whose
            images are in [0, 1], call 8 / 255.
        norm: see `within`.
        steps: gradients.
        generator: one for each image, on its device.

    Returns:
        (N, C, *space), in [-1, 1].

    References:
        Madry et al.: https://arxiv.org/abs/1706.06083; Athalye et al. (expectation over
        randomness): https://arxiv.org/abs/1802.00420
    """
    here = within(x + radius * _surface(x, norm, generator), x, radius, norm)
    worst, most = x, x.new_full((len(x),), -torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad():
            here = here.detach().requires_grad_()
            found = margin(defence(here, generator), y)
            (gradient,) = torch.autograd.grad(found.sum(), here)
        here, better = here.detach(), found.detach() > most
        worst = torch.where(_wide(better, x), here, worst)
        most = torch.where(better, found.detach(), most)
        if step < steps:
            # a chain that has left the numbers says nothing about where to go
            uphill = gradient.nan_to_num(0.0, 0.0, 0.0)
            uphill = uphill.sign() if norm == "linf" else uphill / _length(uphill).clamp_min(1e-30)
            here = within(here + (1 - step / steps) * radius * uphill, x, radius, norm)
    return worst


def _surface(x: Tensor, norm: Norm, generator: Sequence[torch.Generator]) -> Tensor:
    noise = draw_noise(x.shape, generator, dtype=x.dtype, device=x.device)
    return noise.sign() if norm == "linf" else noise / _length(noise)


def _length(x: Tensor) -> Tensor:
    return _wide(x.flatten(1).norm(dim=1), x)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
