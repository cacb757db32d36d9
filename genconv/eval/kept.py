"""Arrays that are made once and found again."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from genconv.data.arrays import read_npz
from genconv.errors import UserError
from genconv.files import replacing

__all__ = ["kept", "shelf"]

# a part of every place: raise it when an energy would draw, or a network see, other than before
VERSION = 1

Arrays = dict[str, np.ndarray]


def shelf(root: Path) -> Path:
    """Return the folder in which the quality command keeps what it makes."""
    return root / "cache" / f"quality-{VERSION}"


def kept(path: Path, names: Sequence[str], n: int, make: Callable[[], Arrays]) -> Arrays:
    """Read arrays of n rows from FILE.npz; where they are not whole, make them and write the file.

    The file's name must say all that the arrays depend on, so that none can be out of date; its
    checksums say whether it is torn.

    Args:
        path: FILE.npz.
        names: of arrays that may be in it; the first one must be.
        n: rows of each.
        make: gives the arrays.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        arrays = read_npz(path, names)
    except UserError:
        arrays = {}
    if names[0] not in arrays or any(len(array) != n for array in arrays.values()):
        arrays = make()
        try:
            with replacing(path) as part, part.open("wb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}; choose another --root"
            ) from error
    return arrays
