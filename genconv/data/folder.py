"""Folders of image files, decoded once and cached."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genconv.data.arrays import read_npz
from genconv.data.decode import open_image, stack
from genconv.data.image_set import Images
from genconv.errors import UserError
from genconv.files import replacing
from genconv.progress import progress

__all__ = ["PICTURES", "every_file", "listing", "load_folder", "load_once", "split_folder"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLITS = ("train", "val", "valid", "validation", "test")
# a part of every key: raise it when the same files would decode to other pixels
CACHE_VERSION = 1


def load_folder(
    folder: str | Path,
    split: str = "train",
    *,
    root: str | Path = "data",
    size: int | None = None,
    channels: int | None = None,
) -> Images:
    """Load `FOLDER/*.png` without labels, or `FOLDER/CLASS/*.png` with a label for every class.

    Where `FOLDER/SPLIT` exists it takes the place of FOLDER; a folder that is not split is its own
    "train" and "all". PNG, JPEG, WEBP, BMP, GIF and TIFF are read, in the order of their names, and
    hidden files passed over. The decoded pixels are cached under `root/cache`, so the next call
    reads one file.

    Args:
        folder: where the images lie.
        split: see above.
        root: folder of the cache.
        size: side of the square to crop and resize to; without it all must have one size.
        channels: 1 or 3; without it grey where every image is grey, otherwise RGB.

    Returns:
        images (N, C, H, W); labels number the class folders in the order of their names.

    Raises:
        UserError: there is no such split or no image, a file cannot be decoded, or sizes differ.
    """
    base = split_folder(Path(folder), split)
    files, labels, classes = listing(base, PICTURES)

    def decode(files: list[Path]) -> Tensor:
        named = ((str(file), open_image(file)) for file in files)
        total = len(files)
        return stack(progress(named, f"decoding {base}", total), total, size, channels)

    images = load_once(base, files, [size, channels], root, decode)
    return Images(images, labels, classes)


def load_once(
    base: Path,
    files: list[Path],
    settings: list[Any],
    root: str | Path,
    decode: Callable[[list[Path]], Tensor],
) -> Tensor:
    """Decode files, or read what that gave before, as long as they have not changed.

    Args:
        base: the folder above them.
        files: what is decoded.
        settings: plain values that the result depends on too.
        root: folder of the cache.
        decode: gives uint8 (N, C, *space).

    Raises:
        UserError: what `decode` raises; or the cache cannot be written.
    """
    key = [CACHE_VERSION, str(base.resolve()), *settings]
    for file in files:
        stat = file.stat()
        key.append([str(file.relative_to(base)), stat.st_mtime_ns, stat.st_size])
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    cache = Path(root) / "cache" / f"{base.resolve().name}-{digest}.npz"
    images = _cached(cache, len(files))
    if images is None:
        images = decode(files)
        try:
            with replacing(cache) as part, part.open("wb") as stream:
                np.savez(stream, images=images.numpy())
        except OSError as error:
            raise UserError(f"cannot write {cache}: {error}; choose another root") from error
    return images


def every_file(folder: Path) -> tuple[list[str], int]:
    """List all that lies below a folder, image or not, but for what is hidden.

    A folder is listed itself if it is named like an image, is a link (which is not followed), or
    cannot be read. Names that begin with a dot are passed over.

    Returns:
        paths below the folder, with slashes, sorted; number of hidden files and folders.

    Raises:
        UserError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is a file; give the folder that it is in"
            if folder.exists()
            else f"there is no folder {folder}"
        )
    found, hidden, rest = set(), 0, [""]
    while rest:
        above = rest.pop()
        try:
            with os.scandir(folder / above) as entries:
                for entry in entries:
                    path = f"{above}{entry.name}"
                    if entry.name.startswith("."):
                        hidden += 1
                        continue
                    below = entry.is_dir(follow_symlinks=False)
                    if below:
                        rest.append(path + "/")
                    if not below or entry.name.lower().endswith(PICTURES):
                        found.add(path)
        except OSError as error:
            if not above:
                raise UserError(f"cannot list {folder}: {error.strerror}") from error
            found.add(above[:-1])
    if not found:
        passed = f" ({hidden} hidden ones were passed over)" if hidden else ""
        raise UserError(f"there is no file in {folder}{passed}; give a folder of images")
    return sorted(found), hidden


def split_folder(folder: Path, split: str) -> Path:
    """Return FOLDER/SPLIT, or FOLDER where it is not split and that is all of it.

    Raises:
        UserError: there is no such split.
    """
    if (folder / split).is_dir():
        return folder / split
    present = [name for name in SPLITS if (folder / name).is_dir()]
    if present:
        raise UserError(f"{folder} has no split {split!r}; choose one of {', '.join(present)}")
    if split not in ("train", "all"):
        raise UserError(f"{folder} has no subfolder {split!r}; use split 'all' for the whole of it")
    return folder


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    )


def listing(
    base: Path, suffixes: Sequence[str]
) -> tuple[list[Path], Tensor | None, tuple[str, ...] | None]:
    """List the files of these kinds in a folder or in its class folders.

    Returns:
        files in the order of their names; their labels and the names of the classes, or None.

    Raises:
        UserError: there are none, or some lie beside the class folders.
    """
    flat = _files(base, suffixes)
    folders = sorted(d for d in base.iterdir() if d.is_dir() and not d.name.startswith("."))
    groups = [_files(folder, suffixes) for folder in folders]
    files = [file for group in groups for file in group]
    if flat and files:
        raise UserError(f"{base} has images both beside and inside class folders; choose one")
    if flat:
        return flat, None, None
    if not files:
        raise UserError(f"{base} has no images ({', '.join(suffixes)})")
    labels = torch.arange(len(groups)).repeat_interleave(
        torch.tensor([len(group) for group in groups])
    )
    return files, labels, tuple(folder.name for folder in folders)


def _cached(cache: Path, n: int) -> Tensor | None:
    try:
        images = read_npz(cache, ("images",)).get("images")
    except UserError:
        # missing or torn: decoding again is the mend
        return None
    if images is None or images.dtype != np.uint8 or images.ndim < 4 or len(images) != n:
        return None
    return torch.from_numpy(images)
