"""Chains that end under another energy than they began with."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from genconv.energy import Energy
from genconv.sampling import Generators
from genconv.trained import Trained

__all__ = ["Staged"]


@dataclass(frozen=True, kw_only=True)
class Staged(Trained):
    """A trained energy whose chain goes on under another one once some of its way is done.

    Attributes:
        later: the energy of the rest.
        turn: share of the steps, in [0, 1], after which it takes over.
    """

    later: Energy
    turn: float

    def run(
        self,
        x: Tensor,
        y: Tensor | None,
        generator: Generators,
        callback: Callable[[int, Tensor], None] | None,
        bf16: bool,
    ) -> Tensor:
        """Return where the chains end that begin at x (n, C, *space), under the later energy."""
        done = round(self.turn * self.chain.steps)

        def count(step: int, x: Tensor) -> None:
            if callback is not None:
                callback(done + step, x)

        how = {"generator": generator, "bf16": bf16}
        first = replace(self.chain, steps=done)
        x = first.run(self.energy, x, y, callback=callback, **how).x
        return self.chain.after(done).run(self.later, x, y, callback=count, **how).x
