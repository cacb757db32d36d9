"""What is measured of a batch of images, by this program or by the world."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genconv.seeds import stream
from genconv.tasks.measurement import Mask, Measurement

__all__ = ["Problem"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Some images to be recovered from m = A x + σ ξ.

    Attributes:
        shape: (C, *space) of an image.
        noise: σ, in units where black is -1 and white 1.
        operator: A of all images; None where it is a mask, of each image its own.
        missing: bool (N, 1, *space), the pixels that nobody knows; None where A is no mask.
    """

    shape: tuple[int, ...]
    noise: float = 0.0
    operator: Measurement | None = None
    missing: Tensor | None = None

    def measurement(self, rows: Sequence[int] | Tensor, device: torch.device | str) -> Measurement:
        """Return the A of the images with these numbers."""
        return self.operator or Mask(~self.missing[rows].to(device))

    def degrade(self, truth: Tensor, seed: int) -> Tensor:
        """Measure images (N, C, *space); the noise of image i depends on (seed, i) alone."""
        # A may be the identity
        measured = self.measurement(range(len(truth)), truth.device)(truth).clone()
        for i, one in enumerate(measured if self.noise else []):
            one += self.noise * torch.randn(one.shape, generator=stream(seed, "noise", i))
        return measured

    def seen(self, measured: Tensor) -> Tensor:
        """Show m as images (N, C, *space), large pixels for small images, grey for no colour."""
        for axis, (side, whole) in enumerate(zip(measured.shape[1:], self.shape, strict=True), 1):
            measured = measured.repeat_interleave(whole // side, axis)
        return measured

    def known(self, rows: Sequence[int] | Tensor) -> Tensor | None:
        """Return bool (n, 1, *space), the known pixels of these images; None if all are."""
        return None if self.missing is None else ~self.missing[rows]

    def counted(self, n: int) -> Tensor:
        """Return bool (n, C, *space): the values that errors are measured on."""
        if self.missing is None:
            return torch.ones(n, *self.shape, dtype=torch.bool)
        return self.missing.expand(n, *self.shape)
