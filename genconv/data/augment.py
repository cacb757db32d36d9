"""What happens to a training batch between memory and the model."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from genconv.images import from_uint8

__all__ = ["binarise", "crop", "dequantise", "flip"]


def crop(images: Tensor, sides: Sequence[int], generator: torch.Generator) -> Tensor:
    """Cut one window out of every image, at a place that is uniform over all that fit.

    Args:
        images: (N, C, *space), any dtype.
        sides: extents of the window, one for each axis of the space.
        generator: source of the places, on the images' device.

    Returns:
        (N, C, *sides).
    """
    n, c, *space = images.shape
    ones = [1] * len(space)
    rows = torch.arange(n, device=images.device).view(n, 1, *ones)
    channels = torch.arange(c, device=images.device).view(1, c, *ones)
    places = []
    for axis, (extent, side) in enumerate(zip(space, sides, strict=True)):
        # indices, not slices: the device need not tell where the windows are
        first = torch.randint(extent - side + 1, (n,), generator=generator, device=images.device)
        place = first[:, None] + torch.arange(side, device=images.device)
        places.append(place.view(n, 1, *ones[:axis], side, *ones[axis + 1 :]))
    return images[(rows, channels, *places)]


def binarise(
    images: Tensor, how: Literal["threshold", "sample"], generator: torch.Generator
) -> Tensor:
    """Make every pixel black or white.

    Args:
        images: uint8 (N, C, *space).
        how: `threshold`: white from level 128 on; `sample`: white with probability level / 255, as
            likelihoods on binarised MNIST are published (Salakhutdinov & Murray 2008).
        generator: source of the coins of `sample`, on the images' device.

    Returns:
        float32 (N, C, *space) of -1 and 1.
    """
    if how == "threshold":
        white = images >= 128
    else:
        coins = torch.rand(images.shape, generator=generator, device=images.device)
        white = coins * 255 < images
    return white.float() * 2 - 1


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image left to right with probability 1/2.

    Args:
        images: (N, C, ..., W), any dtype.
        generator: source of the N coins, on the images' device.
    """
    coins = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(coins.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)


def dequantise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Spread every grey level over its own width, so that the density of images is finite.

    x = from_uint8(u) + (ε - 1/2) / 127.5 with ε uniform in [0, 1) (Theis et al. 2016); rounding
    with `to_uint8` gives u back, but for float rounding at the very edge of a level.

    Args:
        images: uint8 (N, C, *space).
        generator: source of the noise, on the images' device.

    Returns:
        float32 (N, C, *space) in [-1, 1], up to half a level outside at black and white.
    """
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    return from_uint8(images) + (noise - 0.5) / 127.5
