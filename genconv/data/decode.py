"""From Pillow images to one tensor."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from genconv.data.fit import fit, to_channels
from genconv.errors import UserError

__all__ = ["FORMATS", "MAX_PIXELS", "open_image", "stack", "to_tensor"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 50_000_000
GREY = ("1", "L")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")

T = TypeVar("T")


def open_image(path: str | Path) -> Tensor:
    """Decode one file; of an animation the first frame, a photograph upright as its EXIF says.

    Returns:
        uint8 (C, H, W); see `to_tensor`.

    Raises:
        UserError: the file is corrupt, of another format than `FORMATS`, or above 50 megapixels.
    """
    try:
        with warnings.catch_warnings():
            # what Pillow warns of (size, odd metadata) is either checked here or of no account
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        f"{path} has {image.width}x{image.height} pixels, above the cap of "
                        f"{MAX_PIXELS:,}; shrink it first"
                    )
                return to_tensor(ImageOps.exif_transpose(image))
    except (UserError, KeyboardInterrupt):
        raise
    # hostile or torn bytes make Pillow's readers raise nearly anything
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot decode {path}: {reason}; mend or remove it") from error


def to_tensor(image: Image.Image) -> Tensor:
    """Turn a Pillow image of any mode into grey or RGB.

    Black-and-white and 8-bit grey stay grey; 16-bit grey is rounded to 8 bits; what is transparent
    lies on white; palettes, CMYK and the other colour spaces become RGB.

    Returns:
        uint8 (C, H, W), C = 1 or 3.

    Raises:
        ValueError: the mode has no fixed range (floats), or its levels pass 16 bits.
    """
    if image.mode in DEEP or image.mode == "I":
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("its grey levels are outside 0..65535")
        return torch.from_numpy(((levels + 128) // 257).astype(np.uint8))[None]
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose range nobody knows")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        grey = image.mode in ("L", "LA", "La")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("L" if grey else "RGB")
    elif image.mode in GREY:
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def stack(
    images: Iterable[tuple[str, Tensor]], n: int, size: int | None, channels: int | None
) -> Tensor:
    """Fit n images and lay them out in one tensor.

    Args:
        images: n pairs of a name, for errors, and uint8 (C, H, W), C = 1 or 3.
        n: how many, at least 1.
        size: see `fit`; without it all must have one size.
        channels: see `fit`; without it grey where every image is grey, otherwise RGB.

    Returns:
        uint8 (n, C, H, W).

    Raises:
        UserError: an image differs in size from the first.
    """
    out, first = torch.empty(0), ""
    for i, (name, image) in enumerate(images):
        image = fit(image[None], size, channels)
        if i == 0:
            out, first = image.new_empty(n, *image.shape[1:]), name
        if image.shape[2:] != out.shape[2:]:
            (h, w), (h0, w0) = image.shape[2:], out.shape[2:]
            raise UserError(
                f"{name} is {w}x{h} but {first} is {w0}x{h0}; give a size to crop and resize them"
            )
        if image.shape[1] > out.shape[1]:
            out = to_channels(out, 3)
        out[i] = to_channels(image, out.shape[1])[0]
    return out
