"""Fitting images to a wanted size and number of channels, defined once for every source."""

import torch
import torch.nn.functional as F
from torch import Tensor

from genconv.errors import UserError

__all__ = ["fit", "resize", "to_channels"]

# images are treated so many at a time, since the float copies are several times their uint8 size
CHUNK = 1024


def fit(images: Tensor, size: int | None = None, channels: int | None = None) -> Tensor:
    """Apply `resize` and `to_channels`, each where it is asked for.

    Args:
        images: uint8 (N, C, *space).
        size: side of the square, or None to leave the space as it is.
        channels: 1 or 3, or None to leave them as they are.

    Returns:
        uint8 (N, channels, *space'); `images` itself where nothing changes.
    """
    if channels is not None:
        images = to_channels(images, channels)
    return images if size is None else resize(images, size)


def resize(images: Tensor, size: int) -> Tensor:
    """Crop the middle square and resize it, antialiased (bicubic).

    Only the last two axes change: a video keeps its frames, a voxel grid its depth.

    Args:
        images: uint8 (N, C, ..., H, W).
        size: side of the result in pixels, at least 1.

    Returns:
        uint8 (N, C, ..., size, size).

    Raises:
        UserError: the images have no height and width, or `size` is below 1.
    """
    if images.ndim < 4:
        raise UserError(f"data of shape {tuple(images.shape)} have no height and width to resize")
    if size < 1:
        raise UserError(f"size must be at least 1, not {size}")
    *lead, h, w = images.shape
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    images = images[..., top : top + side, left : left + side]
    if side == size:
        return images.contiguous()
    flat = images.reshape(-1, 1, side, side)
    out = flat.new_empty(len(flat), 1, size, size)
    for a in range(0, len(flat), CHUNK):
        part = F.interpolate(
            flat[a : a + CHUNK].float(), size=(size, size), mode="bicubic", antialias=True
        )
        out[a : a + CHUNK] = part.round_().clamp_(0, 255)
    return out.reshape(*lead, size, size)


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Turn grey into RGB by repetition, or RGB into grey by the ITU-R 601 luma, as Pillow does.

    Args:
        images: uint8 (N, C, *space), C = 1 or 3 unless it is `channels` already.
        channels: 1 or 3.

    Returns:
        uint8 (N, channels, *space).

    Raises:
        UserError: there is no such conversion.
    """
    have = images.shape[1]
    if channels not in (1, 3):
        raise UserError(f"channels must be 1 (grey) or 3 (RGB), not {channels}")
    if have == channels:
        return images
    if have == 1:
        return images.repeat_interleave(3, dim=1)
    if have != 3:
        raise UserError(f"cannot turn {have} channels into {channels}: only 1 and 3 convert")
    out = images.new_empty(len(images), 1, *images.shape[2:])
    for a in range(0, len(images), CHUNK):
        red, green, blue = images[a : a + CHUNK].to(torch.int32).unbind(1)
        # Pillow's fixed-point weights, so that a grey image is the same whoever made it grey
        out[a : a + CHUNK, 0] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return out
