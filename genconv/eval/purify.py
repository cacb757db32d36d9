"""Energies as a defence: they lead attacked images back to the data, or classify them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genconv.energy import Energy
from genconv.errors import UserError
from genconv.sampling import Chain, draw_noise, frozen, value_at
from genconv.trained import Trained

__all__ = ["Purified", "likeliest"]


@dataclass(frozen=True)
class Purified:
    r"""A classifier that looks at what an energy's chain makes of an image.

    The image is put back to where a transport has it at the time t, with new noise,

    .. math:: x ← t\, x + (1 - t)\, ξ, \qquad ξ \sim N(0, I)

    and goes on from there. A chain that is no transport, whose first step is longer than the whole
    way, goes on from the image itself. The mean of several runs' logits decides.

    Attributes:
        classifier: images (M, C, *space) to logits (M, K).
        trained: the energy and its chain.
        time: t, from 0 for noise to 1 for the image itself.
        steps: so many from there; the rest of the chain by default.
        runs: chains for each image.
        derivative: what an attack is told about the chain: its own derivative, with the noise held
            fixed (`exact`), or that of the identity (`straight`), which is backward pass
            differentiable approximation.

    References:
        Hill et al.: https://arxiv.org/abs/2005.13525 (purification by long chains of an energy);
        Nie et al.: https://arxiv.org/abs/2205.07460 (with noise put on first)
    """

    classifier: Callable[[Tensor], Tensor]
    trained: Trained
    time: float = 0.75
    steps: int | None = None
    runs: int = 4
    derivative: Literal["exact", "straight"] = "exact"

    def __post_init__(self) -> None:
        if self.trained.chain.sampler != "langevin":
            raise UserError(f"a {self.trained.chain.sampler} chain has no derivative to attack by")
        chain = self.trained.chain
        if self.runs and not self.steps and chain.step_at(self.time) == chain.steps:
            raise UserError(
                f"nothing is left of a chain of {chain.steps} steps at time {self.time:g}; "
                f"give a smaller --time, or --length"
            )

    def purify(self, x: Tensor, generator: Sequence[torch.Generator]) -> Tensor:
        """Return `runs` purified images for each of x (N, C, *space), one after the other.

        Args:
            x: in [-1, 1].
            generator: one for each image.
        """
        each = [one for one in generator for _ in range(self.runs)]
        x = x.repeat_interleave(self.runs, 0)
        begin = self.trained.chain.step_at(self.time)
        t, rest = self.trained.chain.time(begin), self.trained.chain.after(begin)
        rest = rest.at(self.steps)
        noise = draw_noise(x.shape, each, dtype=x.dtype, device=x.device)
        start = t * x + (1 - t) * noise
        if self.derivative == "exact":
            return _Way.apply(start, self.trained.energy, rest, each)
        end = rest.run(self.trained.energy, start, generator=each).x
        return x + (end - x).detach()

    def __call__(self, x: Tensor, generator: Sequence[torch.Generator]) -> Tensor:
        """Return logits (N, K) of images (N, C, *space) in [-1, 1]."""
        logits = self.classifier(self.purify(x, generator))
        return logits.view(len(x), self.runs, -1).mean(1)


def likeliest(energy: Energy) -> Callable[[Tensor], Tensor]:
    """Return a classifier (N, C, *space) -> (N, K) by Bayes' rule: -E(x, y), classes alike.

    Args:
        energy: conditional.
    """

    def logits(x: Tensor) -> Tensor:
        with frozen(energy):
            return -energy.by_class(x)

    return logits


class _Way(torch.autograd.Function):
    """A chain as a function of where it begins, its noise held fixed.

    The way back keeps one image for each step, and no activations.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, energy: Energy, chain: Chain, generator: Sequence[torch.Generator]
    ) -> Tensor:
        visited = [x.detach().clone()]
        end = chain.run(
            energy, x, generator=generator, callback=lambda _, x: visited.append(x.clone())
        ).x
        ctx.visited, ctx.energy, ctx.chain = visited, energy, chain
        return end

    @staticmethod
    def backward(ctx: Any, *outside: Tensor) -> tuple[Tensor, None, None, None]:
        (v,), chain = outside, ctx.chain
        with frozen(ctx.energy), torch.enable_grad():
            for step in reversed(range(chain.steps)):
                x, after = ctx.visited[step].requires_grad_(), ctx.visited[step + 1]
                if chain.clamp:
                    v = v * (after.abs() < 1)
                (gradient,) = torch.autograd.grad(ctx.energy(x).sum(), x, create_graph=True)
                if chain.gradient_clip is not None:
                    gradient = gradient.clamp(-chain.gradient_clip, chain.gradient_clip)
                moved = x - value_at(chain.step_size, step) * gradient
                (v,) = torch.autograd.grad(moved, x, v)
        return v, None, None, None
