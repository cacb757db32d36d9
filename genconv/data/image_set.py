"""A set of images in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from genconv.errors import UserError

__all__ = ["Images", "check_split"]


@dataclass(frozen=True)
class Images:
    """A whole set of images: uint8 at rest, channel first.

    Attributes:
        images: uint8 (N, C, *space).
        labels: int64 (N,) in 0..K-1, or None where the set has none.
        classes: the K class names in the order of the labels, or None where they are not known.
    """

    images: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, *space) of one image."""
        return tuple(self.images.shape[1:])


def check_split(name: str, split: str, known: Sequence[str]) -> None:
    """Refuse a split that the set `name` does not have.

    Raises:
        UserError: `split` is not one of `known`.
    """
    if split not in known:
        raise UserError(f"{name} has no split {split!r}; choose one of {', '.join(known)}")
