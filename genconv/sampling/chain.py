"""A chain's recipe: from what noise it starts, how far it goes, how hot it runs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from genconv.errors import UserError
from genconv.sampling.gibbs import GibbsResult, gibbs
from genconv.sampling.gradient import Generators, draw_noise
from genconv.sampling.langevin import LangevinResult, langevin
from genconv.sampling.schedule import Knots, value_at

__all__ = ["Chain"]


@dataclass(frozen=True)
class Chain:
    """Describes how images are drawn from an energy; a checkpoint carries the one it was made for.

    Attributes:
        steps: number of steps from noise to image.
        step_size: η, a number or knots (see `value_at`); of Langevin chains.
        temperature: T, a number or knots.
        start: `normal` for standard normal noise, `uniform` for noise in [-1, 1].
        gradient_clip: bound on every element of the gradient; null for the exact law.
        clamp: cut the chain into [-1, 1] after every step; of Langevin chains.
        sampler: `langevin` for any energy, `gibbs` for those that know their own conditionals.
    """

    steps: int = 100
    step_size: Knots = 0.01
    temperature: Knots = 1.0
    start: Literal["normal", "uniform"] = "normal"
    gradient_clip: float | None = None
    clamp: bool = False
    sampler: Literal["langevin", "gibbs"] = "langevin"

    def noise(
        self,
        n: int,
        shape: tuple[int, ...],
        *,
        generator: Generators = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return n starts (n, C, *space); `generator` as in `langevin`."""
        draw = torch.randn if self.start == "normal" else torch.rand
        x = draw_noise((n, *shape), generator, draw=draw, device=device)
        return x if self.start == "normal" else x * 2 - 1

    def run(
        self,
        energy: Callable[..., Tensor],
        x: Tensor,
        y: Tensor | None = None,
        *,
        project: Callable[[Tensor], Tensor] | None = None,
        generator: Generators = None,
        callback: Callable[[int, Tensor], None] | None = None,
        bf16: bool = False,
    ) -> LangevinResult | GibbsResult:
        """Run the chain from x; arguments as in `langevin`."""
        how = {
            "steps": self.steps,
            "temperature": self.temperature,
            "project": project,
            "generator": generator,
            "callback": callback,
            "bf16": bf16,
        }
        if self.sampler == "gibbs":
            return gibbs(energy, x, y, **how)
        return langevin(
            energy,
            x,
            y,
            step_size=self.step_size,
            gradient_clip=self.gradient_clip,
            clamp=(-1.0, 1.0) if self.clamp else None,
            **how,
        )

    def continued(self, steps: int) -> "Chain":
        """Return the chain that goes on for so many steps where this one ends."""
        return replace(
            self, steps=steps, step_size=_last(self.step_size), temperature=_last(self.temperature)
        )

    def after(self, step: int) -> "Chain":
        """Return what is left of the chain once so many steps are done."""
        return replace(
            self,
            steps=self.steps - step,
            step_size=_later(self.step_size, step),
            temperature=_later(self.temperature, step),
        )

    def time(self, step: int) -> float:
        """Return t, from 0 for noise to 1 for data, of a transport that has done so many steps."""
        # it ends at 1, and some chains go on from there
        return min(1.0, sum(value_at(self.step_size, done) for done in range(step)))

    def step_at(self, t: float) -> int:
        """Return how many steps take a transport to the time t, in [0, 1]."""
        done = 0.0
        for step in range(self.steps):
            # rounding must not cost a step
            if done >= t - 1e-6:
                return step
            done += value_at(self.step_size, step)
        return self.steps

    def at(
        self,
        steps: int | None = None,
        step_size: float | None = None,
        temperature: float | None = None,
    ) -> "Chain":
        """Return this chain longer, coarser or hotter.

        A longer chain goes on at the last values of its schedules. A schedule that is to end at
        another value keeps its form.

        Raises:
            UserError: a Gibbs chain is to get a step size.
        """
        if step_size is not None and self.sampler == "gibbs":
            raise UserError("a Gibbs chain has no step size; leave it out")
        return replace(
            self,
            steps=self.steps if steps is None else steps,
            step_size=_ending(self.step_size, step_size),
            temperature=_ending(self.temperature, temperature),
        )

    def stretched(self, steps: int) -> "Chain":
        """Return the chain that goes the same way in so many steps, longer or shorter ones.

        Where the steps are half as many they are twice as long, and schedules reach their knots
        after half as many: a transport arrives all the same.
        """
        ratio = steps / self.steps
        return replace(
            self,
            steps=steps,
            step_size=_stretched(self.step_size, ratio, 1 / ratio),
            temperature=_stretched(self.temperature, ratio, 1.0),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, from which `Chain(**values)` rebuilds it."""
        return asdict(self)


def _last(knots: Knots) -> float:
    return knots[-1][1] if isinstance(knots, list | tuple) else knots


def _later(knots: Knots, step: int) -> Knots:
    # knots before the first step remain, as values between them and the next depend on both
    return [(s - step, v) for s, v in knots] if isinstance(knots, list | tuple) else knots


def _stretched(knots: Knots, ratio: float, factor: float) -> Knots:
    if not isinstance(knots, list | tuple):
        return knots * factor
    return [(round(step * ratio), value * factor) for step, value in knots]


def _ending(knots: Knots, value: float | None) -> Knots:
    last = _last(knots)
    if value is None or value == last:
        return knots
    if last == 0 or not isinstance(knots, list | tuple):
        return value
    return [(step, v * value / last) for step, v in knots]
