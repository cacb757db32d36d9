"""The simplest guesses at what is missing, from which an energy starts."""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from genconv.data.holes import interpolated

__all__ = ["Guess", "guess", "smoothed"]

Guess = Literal["interpolation", "smooth", "grey"]

# no change is less than what rounding to 8-bit levels leaves of it, in the range [-1, 1]
ROUNDING = (2 / 255) ** 2 / 6


def guess(x: Tensor, missing: Tensor, kind: Guess = "interpolation") -> Tensor:
    """Fill what is missing: `interpolated`, `smoothed`, or grey, which is 0.

    The arguments are theirs. No pixel of a black and white image is grey, so that an energy sees
    where the hole is.
    """
    if kind == "grey":
        return x.masked_fill(missing, 0.0)
    return (interpolated if kind == "interpolation" else smoothed)(x, missing)


def smoothed(x: Tensor, missing: Tensor) -> Tensor:
    r"""Fill what is missing by the smoothest that fits to what is known: a thin plate.

    Of all fillings it is that of least |L x|², for each image its own

    .. math:: L = \sum_a D_a^T D_a / v_a,

    with D_a the differences of neighbours along axis a, and v_a their mean square where both are
    known. So a clip in which little moves is filled along time, and one that flickers along space.

    Args:
        x: (N, C, *space).
        missing: bool (N, 1, *space).

    Returns:
        (N, C, *space), x itself where nothing is missing.
    """
    start = interpolated(x, missing)
    rows = zip(start.double().cpu().numpy(), missing[:, 0].cpu().numpy(), strict=True)
    filled = torch.from_numpy(np.stack([_thin_plate(*row) for row in rows]))
    return torch.where(missing, filled.to(x), x)


def _thin_plate(start: np.ndarray, missing: np.ndarray) -> np.ndarray:
    flat, hidden = start.reshape(len(start), -1), missing.ravel()
    if not hidden.any():
        return start
    changes = _differences(missing.shape)
    v = [_mean_square(d, flat, hidden) for d in changes]
    # where no neighbours are known along an axis, it is like the others
    v = np.nan_to_num(v, nan=np.nanmean(v) if np.isfinite(v).any() else 1.0)
    plate = sum((d.T @ d) / (a / v.max()) for d, a in zip(changes, v, strict=True)).tocsc()
    ours = plate[:, hidden]
    matrix = (ours.T @ ours).tocsr()
    inverse = sparse.diags(1 / matrix.diagonal())
    filled = flat.copy()
    for values in filled:
        target = -ours.T @ (plate @ np.where(hidden, 0.0, values))
        values[hidden] = sparse.linalg.cg(
            matrix, target, values[hidden], rtol=1e-4, maxiter=1000, M=inverse
        )[0]
    return filled.reshape(start.shape)


def _mean_square(difference: sparse.csr_matrix, flat: np.ndarray, hidden: np.ndarray) -> float:
    known = abs(difference) @ hidden == 0
    found = np.square(difference @ flat.T)[known]
    return max(found.mean(), ROUNDING) if found.size else np.nan


@lru_cache(maxsize=2)
def _differences(space: tuple[int, ...]) -> list[sparse.csr_matrix]:
    """Return the differences of neighbours along each axis, as matrices of flattened images."""
    found = []
    for axis, side in enumerate(space):
        along = sparse.diags([-np.ones(side - 1), np.ones(side - 1)], [0, 1], (side - 1, side))
        before, after = np.prod(space[:axis], dtype=int), np.prod(space[axis + 1 :], dtype=int)
        found.append(sparse.kron(sparse.kron(sparse.eye(before), along), sparse.eye(after), "csr"))
    return found
