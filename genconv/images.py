"""Images as tensors: float32 in [-1, 1] inside, uint8 at rest, and the pictures people look at."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from genconv.files import replacing

__all__ = [
    "digest",
    "from_uint8",
    "grid",
    "moving",
    "save_gif",
    "save_png",
    "sheet",
    "slices",
    "to_pil",
    "to_uint8",
]

SLICES = 8


def digest(images: Tensor) -> str:
    """Return the SHA-256 of images, on the CPU, with their shape."""
    sha = hashlib.sha256(repr(tuple(images.shape)).encode())
    sha.update(images.contiguous().numpy().data)
    return sha.hexdigest()


def from_uint8(x: Tensor) -> Tensor:
    """Map uint8 levels 0..255 to float32 in [-1, 1]; `to_uint8` inverts it exactly."""
    return x.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Map floats in [-1, 1] to the nearest of 256 levels; values outside saturate."""
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def grid(
    images: Tensor, columns: int | None = None, pad: int | None = None, scale: int = 1
) -> Tensor:
    """Tile images, row by row, onto one white canvas.

    Args:
        images: uint8 (N, C, H, W) with C = 1 or 3.
        columns: tiles in a row; the squarest grid by default.
        pad: white pixels between tiles; half a magnified pixel by default, 1 at least.
        scale: every pixel becomes a square of this side, so that 8x8 digits can be seen.

    Returns:
        uint8 (C, H', W').
    """
    n, c, h, w = images.shape
    columns = min(n, columns or round(n**0.5))
    pad = max(1, scale // 2) if pad is None else pad
    rows = -(-n // columns)
    images = images.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    h, w = h * scale, w * scale
    canvas = images.new_full((c, rows * (h + pad) + pad, columns * (w + pad) + pad), 255)
    for i, image in enumerate(images):
        top, left = pad + (i // columns) * (h + pad), pad + (i % columns) * (w + pad)
        canvas[:, top : top + h, left : left + w] = image
    return canvas


def sheet(images: Tensor, columns: int | None = None, scale: int = 1) -> Tensor:
    """Lay out what has one to three spatial dimensions, so that it can be looked at.

    Images become a `grid`. A video is a row of frames, and a body of voxels a row of cuts: at most
    8, evenly spaced along the first spatial axis. A signal is one row of pixels, a square high.

    Args:
        images: uint8 (N, C, *space) with C = 1 or 3.
        columns: see `grid`; where N is the number of rows this has no effect.
        scale: see `grid`.

    Returns:
        uint8 (C, H', W').
    """
    if images.ndim == 3:
        return grid(images[:, :, None], 1, scale=scale)
    if images.ndim == 5:
        columns = min(SLICES, images.shape[2])
        images = slices(images)
    return grid(images, columns, scale=scale)


def slices(images: Tensor) -> Tensor:
    """Take up to 8 slices, evenly spaced along the first spatial axis, out of each image.

    Args:
        images: (N, C, D, H, W); frames of a video, cuts of a body.

    Returns:
        (N * min(8, D), C, H, W), those of an image one after the other.
    """
    depth = images.shape[2]
    n = min(SLICES, depth)
    shown = [round((i + 0.5) * depth / n - 0.5) for i in range(n)]
    return images[:, :, shown].movedim(2, 1).flatten(0, 1)


def moving(images: Tensor, columns: int | None = None, scale: int = 1) -> list[Tensor]:
    """Lay out videos, or bodies of voxels, as a grid that moves along the first spatial axis.

    Args:
        images: uint8 (N, C, T, H, W) with C = 1 or 3.
        columns: see `grid`.
        scale: see `grid`.

    Returns:
        T frames, uint8 (C, H', W').
    """
    return [grid(frame, columns, scale=scale) for frame in images.unbind(2)]


def to_pil(image: Tensor) -> Image.Image:
    """Turn a uint8 (C, H, W) tensor, C = 1 or 3, into a Pillow image."""
    array = image.permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)


def save_png(path: str | Path, image: Tensor) -> None:
    """Write a uint8 (C, H, W) tensor as PNG; the file appears whole or not at all."""
    with replacing(path) as part:
        to_pil(image).save(part, format="PNG")


def save_gif(path: str | Path, frames: Sequence[Tensor], milliseconds: int = 80) -> None:
    """Write uint8 (C, H, W) frames as an endless GIF; the file appears whole or not at all."""
    first, *rest = (to_pil(frame) for frame in frames)
    with replacing(path) as part:
        first.save(
            part, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0
        )
