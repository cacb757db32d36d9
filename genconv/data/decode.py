"""From Pillow images to one tensor."""

import hashlib
import os
import stat
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from genconv.data.fit import fit, to_channels
from genconv.errors import UserError

__all__ = [
    "FORMATS", "MAX_PIXELS", "Decoded", "decode", "decode_file", "open_image", "stack", "to_tensor"
]  # fmt: skip

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 50_000_000
GREY = ("1", "L")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")

T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """What one file holds.

    Attributes:
        image: uint8 (C, H, W), see `to_tensor`; None where it cannot be had.
        width: in pixels, as the file says; None where it does not.
        height: likewise.
        mode: Pillow's name for the form of the file's pixels; "" where there are none.
        error: why there is no image, in words that name no path; "" where there is one.
        sha1: of the file's bytes; "" where they were not asked for, or cannot be read.
    """

    image: Tensor | None = None
    width: int | None = None
    height: int | None = None
    mode: str = ""
    error: str = ""
    sha1: str = ""


def decode(file: BinaryIO) -> Decoded:
    """Decode an open file; of an animation the first frame, a photograph upright as its EXIF says.

    Nothing is raised for what the bytes are: corrupt ones, formats other than `FORMATS` and more
    than 50 megapixels are said in `error`. Pillow may warn, and threads may call this; see to its
    warnings once, around them all, as `warnings.catch_warnings` is not for threads.
    """
    width = height = None
    mode = ""
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height, mode = image.width, image.height, image.mode
            if width * height <= MAX_PIXELS:
                return Decoded(to_tensor(ImageOps.exif_transpose(image)), width, height, mode)
        error = f"it has {width}x{height} pixels, above the cap of {MAX_PIXELS:,}"
    except UnidentifiedImageError:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        error = f"it is not a {known} image, or its beginning is broken"
    except Image.DecompressionBombError:
        error = f"it has several times the cap of {MAX_PIXELS:,} pixels"
    # hostile or torn bytes make Pillow's readers raise nearly anything
    except Exception as raised:
        error = " ".join(str(raised).split()) or type(raised).__name__
    return Decoded(None, width, height, mode, error)


def decode_file(path: Path) -> Decoded:
    """Decode whatever there is at a path, and take its SHA-1; see `decode`.

    Nothing is raised for what it is: `error` says it.
    """
    sha1 = hashlib.sha1(usedforsecurity=False)
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            os.scandir(path).close()
            linked = (
                "a link to a folder, which is not followed" if path.is_symlink() else "a folder"
            )
            return Decoded(error=f"it is {linked}")
        if not stat.S_ISREG(kind):
            # a pipe would be waited for
            return Decoded(error="it is no regular file")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha1.update(block)
            empty = file.tell() == 0
            file.seek(0)
            found = Decoded(error="it is empty") if empty else decode(file)
    except OSError as error:
        return Decoded(error=f"it cannot be read: {error.strerror}")
    return replace(found, sha1=sha1.hexdigest())


def open_image(path: str | Path) -> Tensor:
    """Decode one file; see `decode`.

    Returns:
        uint8 (C, H, W); see `to_tensor`.

    Raises:
        UserError: the file is corrupt, of another format than `FORMATS`, or above 50 megapixels.
    """
    with warnings.catch_warnings():
        # what Pillow warns of (size, odd metadata) is either checked here or of no account
        warnings.simplefilter("ignore")
        try:
            with Path(path).open("rb") as file:
                found = decode(file)
        except OSError as error:
            raise UserError(f"cannot open {path}: {error.strerror}; mend or remove it") from error
    if found.image is None:
        raise UserError(f"cannot decode {path}: {found.error}; mend or remove it")
    return found.image


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
