"""What is measured of a batch of images, by this program or by the world."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genconv.data.decode import open_image
from genconv.errors import UserError
from genconv.seeds import stream
from genconv.tasks.measurement import Mask, Measurement

__all__ = ["Problem", "holes"]


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


def holes(mask: str, n: int, space: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return bool (n, 1, *space), true where a pixel is missing.

    Args:
        mask: `box` or `box:SIDE`, a centred box of this share of every side (1/2); `frames` or
            `frames:SHARE`, the middle ones along the first spatial axis: frames of a video, rows of
            an image; `random` or `random:SHARE`, single pixels, others in each image; or an image
            file, white where pixels are missing.
        n: number of images.
        space: of one image.
        seed: of random masks.

    Raises:
        UserError: there is no such mask, or it hides nothing or everything.
    """
    name, _, share = mask.partition(":")
    if name not in ("box", "frames", "random"):
        missing = _drawn(mask, space).expand(n, 1, *space)
    else:
        part = _share(mask, share)
        if name == "random":
            rows = [torch.rand(space, generator=stream(seed, "mask", i)).lt(part) for i in range(n)]
            missing = torch.stack(rows)[:, None]
        else:
            missing = torch.zeros(n, 1, *space, dtype=torch.bool)
            middle = [_middle(side, part) for side in (space if name == "box" else space[:1])]
            missing[(slice(None), slice(None), *middle)] = True
    if missing.all() or not missing.any():
        raise UserError(f"--mask {mask} hides {'all' if missing.all() else 'none'} of the images")
    return missing


def _drawn(path: str, space: tuple[int, ...]) -> Tensor:
    missing = open_image(path).float().mean(0) > 127
    if missing.shape != space:
        raise UserError(
            f"the mask {path} has shape {tuple(missing.shape)}, but the images have {space}"
        )
    return missing


def _share(mask: str, share: str) -> float:
    try:
        part = float(share or 0.5)
    except ValueError:
        part = 0.0
    if not 0 < part < 1:
        raise UserError(f"--mask {mask}: what follows the colon is a share between 0 and 1")
    return part


def _middle(side: int, part: float) -> slice:
    wide = round(side * part)
    return slice((side - wide) // 2, (side - wide) // 2 + wide)
