"""Chains whose energy changes on the way."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from genconv.energy import Energy
from genconv.sampling import Generators
from genconv.trained import Trained

__all__ = ["Staged"]


@dataclass(frozen=True, kw_only=True)
class Staged(Trained):
    """A trained energy whose chain goes on under other ones as it gets on.

    Attributes:
        stages: shares of the steps, in [0, 1] and in order, and the energy from there on.
    """

    stages: tuple[tuple[float, Energy], ...]

    def run(
        self,
        x: Tensor,
        y: Tensor | None,
        generator: Generators,
        callback: Callable[[int, Tensor], None] | None,
        bf16: bool,
    ) -> Tensor:
        """Return where the chains end that begin at x (n, C, *space), under the last energy."""
        steps = self.chain.steps
        begins = [0, *(round(share * steps) for share, _ in self.stages)]
        energies = [self.energy, *(energy for _, energy in self.stages)]
        for begin, end, energy in zip(begins, [*begins[1:], steps], energies, strict=True):

            def count(step: int, x: Tensor, begin: int = begin) -> None:
                if callback is not None:
                    callback(begin + step, x)

            part = replace(self.chain.after(begin), steps=end - begin)
            x = part.run(energy, x, y, generator=generator, callback=count, bf16=bf16).x
        return x
