"""ImageNet downsampled to 32x32 (Chrabaszcz et al. 2017), from its published batches."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from genconv.data.arrays import read_npz, to_labels
from genconv.data.image_set import Images, check_split
from genconv.errors import UserError

__all__ = ["load_imagenet32"]

FILES = {
    "train": [f"train_data_batch_{k}" for k in range(1, 11)],
    "val": ["val_data"],
}
CLASSES = 1000


def load_imagenet32(split: str = "train", *, root: str | Path = "data") -> Images:
    """Load the published batches, pickles or `.npz`, from `root/imagenet32` or from `root` itself.

    The pickles are read by an unpickler that knows plain arrays and calls nothing.

    Args:
        split: "train" (ten batches, 1,281,167 images) or "val" (50,000), which "test" means too,
            since the labels of the real test set were never published.
        root: see above.

    Returns:
        images (N, 3, 32, 32), labels 0..999 (one less than in the files).

    Raises:
        UserError: a batch is missing, torn, hostile, or not what was published.
    """
    check_split("imagenet32", split, ("train", "val", "test"))
    paths = _find(Path(root), FILES["val" if split == "test" else split])
    pixels, labels, n = np.empty((0, 3072), np.uint8), [], 0
    for path in paths:
        data, batch_labels = _read_batch(path)
        # grown in place, so that the peak is the whole set and one batch, not twice the set
        pixels.resize((n + len(data), 3072), refcheck=False)
        pixels[n:] = data
        labels.append(batch_labels)
        n += len(data)
    return Images(torch.from_numpy(pixels).view(n, 3, 32, 32), torch.cat(labels) - 1)


def _find(root: Path, names: list[str]) -> list[Path]:
    def find(folder: Path, name: str) -> Path | None:
        return next((p for p in (folder / name, folder / f"{name}.npz") if p.is_file()), None)

    home = root / "imagenet32"
    folder = root if not home.is_dir() and any(find(root, name) for name in names) else home
    paths = [find(folder, name) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        raise UserError(
            f"no {', '.join(missing)} (with or without .npz) in {folder}; sign in at "
            f'image-net.org, download "Imagenet32" (train and val) and unpack it there'
        )
    return [path for path in paths if path is not None]


def _read_batch(path: Path) -> tuple[np.ndarray, torch.Tensor]:
    """Give data, uint8 (n, 3072), and labels, int64 (n,) in 1..1000, of one file."""
    batch = read_npz(path, ("data", "labels")) if path.suffix == ".npz" else _unpickle(path)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        found = (
            f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        )
        raise UserError(f"{path}: data must be uint8 (n, 3072), not {found}; download it again")
    if isinstance(labels, list):
        if not all(type(label) is int and 1 <= label <= CLASSES for label in labels):
            raise UserError(f"{path}: labels must be integers in 1..{CLASSES}; download it again")
        labels = np.array(labels, np.int64)
    if not isinstance(labels, np.ndarray):
        raise UserError(f"{path} has no labels; download it again")
    labels = to_labels(labels, len(data), path)
    if len(data) and not 1 <= int(labels.min()) <= int(labels.max()) <= CLASSES:
        raise UserError(f"{path}: labels must lie in 1..{CLASSES}; download it again")
    return data, labels


class _Inert:
    """A stand-in for a name in a pickle.

    Each is a class with its own `__setstate__`, since the default one would let the pickle set any
    attribute of whatever object it gets hold of.
    """

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("it changes what it must not")


class _Bytes(_Inert):
    """Stands for `_codecs.encode`, by which old protocols spell bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes by {encoding!r}")
        return text.encode("latin1")


class _Dtype(_Inert):
    """Stands for `numpy.dtype`: a plain number and its byte order, nothing compound."""

    def __init__(self, name: str, *flags: Any) -> None:
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds {name}, not plain numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(_Inert):
    """Stands for `_reconstruct` and `numpy.ndarray`: empty, until its state brings the numbers."""

    value = np.empty(0)

    def __new__(cls, *arguments: Any) -> "_Array":
        return object.__new__(cls)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        # frombuffer and reshape check the size against the bytes that are really there
        array = np.frombuffer(raw, dtype.dtype)
        self.value = array.reshape(shape, order="F" if fortran else "C")


class _FromBuffer(_Inert):
    """Stands for `_frombuffer`, by which protocol 5 spells arrays."""

    def __new__(cls, raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> Any:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", raw))
        return array


class _Scalar(_Inert):
    """Stands for `scalar`: one number."""

    def __new__(cls, dtype: _Dtype, raw: bytes | str) -> Any:
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        return np.frombuffer(raw, dtype.dtype, count=1)[0].item()


KNOWN: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Bytes,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _FromBuffer),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return KNOWN[module, name]


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            # the first release was written by Python 2, whose strings need an encoding
            batch = _Unpickler(stream, encoding="latin1").load()
    # torn or hostile bytes make the unpickler raise nearly anything
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"will not read {path}: {reason}; download it again") from error
    if not isinstance(batch, dict):
        raise UserError(f"{path} holds no batch but a {type(batch).__name__}; download it again")
    return {k: v.value if isinstance(v, _Array) else v for k, v in batch.items()}
