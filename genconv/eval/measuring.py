"""Measuring that takes smaller bites when memory runs out."""

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from genconv.checkpoint import Trained
from genconv.eval.statistics import Statistics, measure
from genconv.memory import Bites

__all__ = ["Measuring"]


@dataclass
class Measuring:
    """A way to measure that takes smaller bites when memory runs out, and the same numbers.

    Attributes:
        trained: the energy.
        wanted: names of statistics.
        seed: see `genconv.eval.statistics.measure`.
        bites: images at once.
        background: see `genconv.eval.statistics.measure`.
        steps: likewise.
    """

    trained: Trained
    wanted: Collection[str]
    seed: int
    bites: Bites
    background: Trained | None = None
    steps: int = 10

    def __call__(self, images: Tensor, first: int) -> Statistics:
        """Return the statistics of uint8 images (N, C, H, W), the first of which has this number.

        Raises:
            UserError: there is no memory for a single image.
        """
        return self.bites.take(
            lambda size: measure(
                self.trained,
                images,
                self.wanted,
                seed=self.seed,
                first=first,
                batch_size=size,
                steps=self.steps,
                background=self.background,
            ),
            f"one image of shape {self.trained.shape}",
        )
