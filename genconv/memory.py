"""Work in bites, which become smaller when memory runs out."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from genconv.errors import UserError

__all__ = ["Bites"]

T = TypeVar("T")


@dataclass
class Bites:
    """How much is taken at once; whatever did not fit into memory is halved for good.

    Attributes:
        size: images at once.
    """

    size: int

    def take(self, work: Callable[[int], T], what: str) -> T:
        """Return `work(size)`, called again with half the size as long as memory runs out.

        Args:
            work: does all of it, `size` at a time, and gives the same whatever the size.
            what: name of one image, for the error.

        Raises:
            UserError: there is no memory for one.
        """
        while True:
            try:
                return work(self.size)
            except (MemoryError, torch.OutOfMemoryError):
                pass
            except RuntimeError as error:
                # the CPU's allocator has no exception of its own
                if "can't allocate memory" not in str(error):
                    raise
            if self.size == 1:
                raise UserError(
                    f"there is no memory for {what}; free some, or choose another --device"
                )
            # here, and not where it was caught: the exception holds on to the tensors
            gc.collect()
            torch.cuda.empty_cache()
            self.size = -(-self.size // 2)

    def rows(self, rows: range, work: Callable[[range], Tensor], what: str) -> Tensor:
        """Return `work(part)` (len(part), ...) of all parts of some rows, one behind another.

        Args:
            rows: numbers of images, at least one.
            work: takes some of them, and gives each the same whichever it comes with.
            what: as in `take`.

        Raises:
            UserError: there is no memory for one.
        """
        return self.take(
            lambda size: torch.cat([work(rows[i : i + size]) for i in range(0, len(rows), size)]),
            what,
        )
