"""Measuring that takes smaller bites when memory runs out."""

import gc
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from genconv.checkpoint import Trained
from genconv.errors import UserError
from genconv.eval.statistics import Statistics, measure

__all__ = ["Measuring"]


@dataclass
class Measuring:
    """A way to measure that takes smaller bites when memory runs out, and the same numbers.

    Attributes:
        trained: the energy.
        wanted: names of statistics.
        seed: see `genconv.eval.statistics.measure`.
        background: likewise.
        chunk: images at once; whatever did not fit is halved for good.
    """

    trained: Trained
    wanted: Collection[str]
    seed: int
    background: Trained | None = None
    chunk: int = 256

    def __call__(self, images: Tensor, first: int) -> Statistics:
        """Return the statistics of uint8 images (N, C, H, W), the first of which has this number.

        Raises:
            UserError: there is no memory for a single image.
        """
        while (statistics := self._attempt(images, first)) is None:
            if self.chunk == 1:
                raise UserError(
                    f"there is no memory for one image of shape {self.trained.shape}; "
                    "free some, or choose another --device"
                )
            # here, and not where it was caught: the exception holds on to the tensors
            gc.collect()
            torch.cuda.empty_cache()
            self.chunk //= 2
        return statistics

    def _attempt(self, images: Tensor, first: int) -> Statistics | None:
        try:
            return measure(
                self.trained,
                images,
                self.wanted,
                seed=self.seed,
                first=first,
                batch_size=self.chunk,
                background=self.background,
            )
        except (MemoryError, torch.OutOfMemoryError):
            return None
        except RuntimeError as error:
            # the CPU's allocator has no exception of its own
            if "can't allocate memory" not in str(error):
                raise
            return None
