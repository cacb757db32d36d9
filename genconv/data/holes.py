"""What is missing of images, and the simplest guess at it."""

import torch
from torch import Tensor

from genconv.data.clips import CLIPS
from genconv.data.decode import open_image
from genconv.data.fit import resize
from genconv.data.load import load_images
from genconv.errors import UserError
from genconv.seeds import stream

__all__ = ["holes", "interpolated", "moved"]

# files of masks that have frames
MOVING = (*CLIPS, ".npz")


def holes(mask: str, n: int, space: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return bool (n, 1, *space), true where a pixel is missing.

    Args:
        mask: `box` or `box:SIDE`, a centred box of this share of every side (1/2); `frames` or
            `frames:SHARE`, the middle ones along the first spatial axis: frames of a video, rows of
            an image; `dropped` or `dropped:SHARE`, as many, but here and there; `random` or
            `random:SHARE`, single pixels; or a file, white where pixels are missing: an image,
            which hides the same of every frame of a video, or a clip (GIF, a film, an `.npz` or
            `clip:FOLDER`), which hides what moves. What is random is another in each image.
        n: number of images.
        space: of one image.
        seed: of random masks.

    Raises:
        UserError: there is no such mask, or it hides nothing or everything.
    """
    name, _, share = mask.partition(":")
    if name not in ("box", "frames", "dropped", "random"):
        missing = _drawn(mask, space).expand(n, 1, *space)
    else:
        part = _share(mask, share)
        if name == "random":
            rows = [torch.rand(space, generator=stream(seed, "mask", i)).lt(part) for i in range(n)]
            missing = torch.stack(rows)[:, None]
        elif name == "dropped":
            missing = torch.zeros(n, 1, *space, dtype=torch.bool)
            for i in range(n):
                order = torch.randperm(space[0], generator=stream(seed, "mask", i))
                missing[i, :, order[: round(space[0] * part)]] = True
        else:
            missing = torch.zeros(n, 1, *space, dtype=torch.bool)
            middle = [_middle(side, part) for side in (space if name == "box" else space[:1])]
            missing[(slice(None), slice(None), *middle)] = True
    if missing.all() or not missing.any():
        raise UserError(f"--mask {mask} hides {'all' if missing.all() else 'none'} of the images")
    return missing


def moved(missing: Tensor, seed: int) -> Tensor:
    """Put the holes of each image elsewhere, at a place of its own; over an edge they come back.

    Args:
        missing: bool (N, 1, *space).
        seed: of the places.
    """
    rows = []
    for i, one in enumerate(missing):
        generator = stream(seed, "moved", i)
        shifts = [int(torch.randint(side, (), generator=generator)) for side in one.shape[1:]]
        rows.append(one.roll(shifts, tuple(range(1, one.ndim))))
    return torch.stack(rows)


def _drawn(path: str, space: tuple[int, ...]) -> Tensor:
    if path.lower().endswith(MOVING) or path.startswith("clip:"):
        missing = _drawn_clip(path, space)
    else:
        missing = open_image(path).float().mean(0) > 127
        if missing.ndim < len(space):
            missing = missing.expand(space[0], *missing.shape)
    if missing.shape != space:
        raise UserError(
            f"the mask {path} has shape {tuple(missing.shape)}, but the images have {space}"
        )
    return missing


def _drawn_clip(path: str, space: tuple[int, ...]) -> Tensor:
    white = load_images(path, "all", channels=1).images
    if len(white) != 1 or white.ndim != 5:
        raise UserError(f"the mask {path} is not one clip")
    white = white.gt(127).byte() * 255
    if len(space) != 3 or white.shape[2] < space[0]:
        return white[0, 0] > 0
    # It may be larger and longer, as the clip itself may be. A pixel that is made of several is
    # known if all of them are.
    return resize(white[:, :, : space[0]], space[-1])[0, 0] > 0


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


def interpolated(x: Tensor, missing: Tensor) -> Tensor:
    """Fill what is missing by straight lines along the first spatial axis: in time, of a video.

    Before the first and after the last known value of a line that value is repeated; a line
    without any gets the mean of all that is known of its image.

    Args:
        x: (N, C, *space).
        missing: bool (N, 1, *space).

    Returns:
        (N, C, *space), x itself where nothing is missing.
    """
    length = x.shape[2]
    place = torch.arange(length, device=x.device).view(1, 1, -1, *[1] * (x.ndim - 3))
    before = torch.where(missing, -1, place).cummax(2).values
    after = torch.where(missing, length, place).flip(2).cummin(2).values.flip(2)
    some = (before >= 0) | (after < length)
    # at the ends of a line, both are the only neighbour
    first = torch.where(before >= 0, before, after).clamp(0, length - 1)
    last = torch.where(after < length, after, before).clamp(0, length - 1)
    a, b = (x.gather(2, i.expand(x.shape)) for i in (first, last))
    share = (place - first) / (last - first).clamp_min(1)
    known, rest = ~missing, tuple(range(2, x.ndim))
    mean = (x * known).sum(rest, keepdim=True) / known.sum(rest, keepdim=True).clamp_min(1)
    return torch.where(known, x, torch.where(some, a + share * (b - a), mean))
