"""Chains whose energy changes on the way."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from genconv.energy import Energy
from genconv.sampling import Generators, draw_noise
from genconv.trained import Trained

__all__ = ["Staged"]


@dataclass(frozen=True, kw_only=True)
class Staged(Trained):
    r"""A trained energy whose chain goes on under other ones as it gets on.

    A chain that redraws goes part of its way a second time, under the last energy only, from

    .. math:: x ← t\, x + (1 - t)\, ξ, \qquad ξ \sim N(0, I)

    which is where the image x was at time t of a transport, but for its noise. What earlier
    energies have exaggerated is drawn anew by the last one, and what still shows at t remains.

    Attributes:
        stages: shares of the steps, in [0, 1] and in order, and the energy from there on.
        redraw: share of the steps at which the second way begins; None for no second way.

    Reference:
        Meng et al.: SDEdit, https://arxiv.org/abs/2108.01073
    """

    stages: tuple[tuple[float, Energy], ...] = ()
    redraw: float | None = None

    def run(
        self,
        x: Tensor,
        y: Tensor | None,
        generator: Generators,
        callback: Callable[[int, Tensor], None] | None,
        bf16: bool,
    ) -> Tensor:
        """Return where the chains end that begin at x (n, C, *space), under the last energy."""
        steps, done = self.chain.steps, 0
        begins = [0, *(round(share * steps) for share, _ in self.stages)]
        energies = [self.energy, *(energy for _, energy in self.stages)]

        def go(x: Tensor, begin: int, end: int, energy: Energy) -> Tensor:
            def count(step: int, x: Tensor) -> None:
                if callback is not None:
                    callback(done + step, x)

            part = replace(self.chain.after(begin), steps=end - begin)
            return part.run(energy, x, y, generator=generator, callback=count, bf16=bf16).x

        for begin, end, energy in zip(begins, [*begins[1:], steps], energies, strict=True):
            x = go(x, begin, end, energy)
            done += end - begin
        if self.redraw is None:
            return x
        begin = round(self.redraw * steps)
        t = self.chain.time(begin)
        noise = draw_noise(x.shape, generator, device=x.device)
        return go(t * x.clamp(-1, 1) + (1 - t) * noise, begin, steps, energies[-1])
