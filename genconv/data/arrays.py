"""Arrays from `.npz` files, torn or hostile ones too: nothing is unpickled, no header believed."""

import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from genconv.data.image_set import Images
from genconv.errors import UserError

__all__ = ["load_arrays", "read_npz", "to_labels"]

BLOCK = 1 << 24
# deflate cannot do better than this, so a member that claims more is lying about its size
MAX_RATIO = 1032


def read_npz(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays called `names`, where present, without unpickling anything.

    Memory is allocated only for as many bytes as the archive can really hold, and its checksums
    are verified.

    Raises:
        UserError: the file is missing, torn, not an `.npz`, or holds an array that is not plain
            numbers or text, or whose header contradicts its size.
    """
    path = Path(path)
    out = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in names:
                if (info := members.get(f"{name}.npy")) is not None:
                    limit = info.compress_size
                    if info.compress_type == zipfile.ZIP_DEFLATED:
                        limit *= MAX_RATIO
                    elif info.compress_type != zipfile.ZIP_STORED:
                        raise ValueError(f"{name!r} is compressed by a method NumPy does not write")
                    if info.compress_size > path.stat().st_size or info.file_size > limit:
                        raise ValueError(f"{name!r} claims more bytes than the file can hold")
                    with archive.open(info) as stream:
                        out[name] = _read_npy(stream, info.file_size, name)
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    # zipfile meets hostile bytes with any of these (RuntimeError: encrypted members)
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        struct.error,
        zlib.error,
    ) as error:
        raise UserError(f"cannot read {path}: {error}; write it with numpy.savez") from error
    return out


def _read_npy(stream: IO[bytes], total: int, name: str) -> np.ndarray:
    """Read one `.npy` of exactly `total` bytes."""
    version = npy.read_magic(stream)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"{name!r} has the .npy version {version}, which no plain array needs")
    # NumPy refuses a header above 10,000 characters and parses literals only
    shape, fortran, dtype = read_header[version](stream)
    if dtype.kind not in "biufU":
        raise ValueError(f"{name!r} has dtype {dtype}, not plain numbers or text")
    size = math.prod(shape) * dtype.itemsize
    held = total - stream.tell()
    if min(shape, default=0) < 0 or size != held:
        raise ValueError(f"{name!r} has a header of shape {shape} {dtype}, but holds {held} bytes")
    out = np.empty(shape[::-1] if fortran else shape, dtype)
    view = memoryview(out.reshape(-1).view(np.uint8)) if size else memoryview(b"")
    done = 0
    while done < size:
        block = stream.read(min(BLOCK, size - done))
        if not block:
            raise EOFError(f"{name!r} ends early")
        view[done : done + len(block)] = block
        done += len(block)
    # the checksum is compared when the end is read
    if stream.read(1):
        raise ValueError(f"{name!r} goes on after its end")
    return out.T if fortran else out


def to_labels(labels: np.ndarray, n: int, where: str | Path) -> Tensor:
    """Turn an array into labels, int64 (n,), none of them negative.

    Raises:
        UserError: it has another shape or another kind of number.
    """
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{where}: labels must be {n} integers, not {labels.dtype} of shape {labels.shape}"
        )
    out = torch.from_numpy(labels.astype(np.int64))
    if n and int(out.min()) < 0:
        raise UserError(f"{where}: labels must not be negative; leave them out if there are none")
    return out


def load_arrays(path: str | Path) -> Images:
    """Load an `.npz` of images (N, H, W, C), videos (N, T, H, W, C) or voxels (N, D, H, W, C).

    Args:
        path: a file with `images`, uint8 levels 0..255, channel last, C = 1..4; `labels`, N
            integers from 0 on, and `class_names`, text, are optional. Images of nothing but 0 and
            1, booleans or uint8, are occupancies, and become 0 and 255.

    Returns:
        The set, channel first.

    Raises:
        UserError: see `read_npz`; or `images` is missing or of another dtype or shape.
    """
    arrays = read_npz(path, ("images", "labels", "class_names"))
    if "images" not in arrays:
        raise UserError(f"{path} has no array called 'images'")
    images, names = arrays["images"], arrays.get("class_names")
    if images.dtype not in (np.uint8, np.bool_):
        raise UserError(f"{path}: images must be uint8 (levels 0..255), not {images.dtype}")
    if images.ndim not in (4, 5) or not 1 <= images.shape[-1] <= 4 or 0 in images.shape:
        raise UserError(
            f"{path}: images must be (N, H, W, C), (N, T, H, W, C) or (N, D, H, W, C) "
            f"with the channels, 1 to 4, last, not {images.shape}"
        )
    if images.max() <= 1:
        # as levels they could not be told from black
        images = images.astype(np.uint8) * 255
    labels = arrays.get("labels")
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    labels = None if labels is None else to_labels(labels, len(tensor), path)
    classes = None
    if names is not None and names.ndim == 1 and names.dtype.kind == "U":
        classes = tuple(names.tolist())
    if labels is not None and classes is not None and int(labels.max()) >= len(classes):
        raise UserError(f"{path}: label {int(labels.max())} has no name in class_names")
    return Images(tensor, labels, classes)
