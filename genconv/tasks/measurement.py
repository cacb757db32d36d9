"""What is known of an image: linear measurements y = A x, and the way back to the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Mask", "Measurement", "Separable", "blurring", "greying", "nearest", "shrinking"]

# ITU-R 601, as everywhere in genconv
LUMA = (0.299, 0.587, 0.114)


class Measurement(Protocol):
    r"""A linear map A from images (N, C, *space) to what is known of them.

    It answers two questions: what would be measured, and which image explains a measurement.
    `nearest` is all that a task needs, since

    .. math:: x + A^T (A A^T + s I)^{-1} (y - A x)

    is, for s = 0, the nearest image to x that measures exactly y (the projection), and for s > 0
    the minimum of |x' - x|² + |y - A x'|² / s (the proximal step of a noisy measurement).
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Return A x."""

    def explain(self, z: Tensor, s: float) -> Tensor:
        """Return Aᵀ (A Aᵀ + s I)⁻¹ z, an image; pseudo-inverse where s = 0."""


def nearest(measurement: Measurement, x: Tensor, y: Tensor, s: float = 0.0) -> Tensor:
    """Return the nearest image to x that explains y; see `Measurement`."""
    return x + measurement.explain(y - measurement(x), s)


@dataclass(frozen=True, eq=False)
class Mask:
    """Measures the known pixels, and gives 0 for the others.

    Attributes:
        known: bool, (N, C, *space) or what broadcasts to it.
    """

    known: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.known

    def explain(self, z: Tensor, s: float) -> Tensor:
        return z * self.known / (1 + s)


class Separable:
    """Applies one small matrix along each axis: blurring, shrinking and greying are such maps.

    Args:
        matrices: for each of the axes C, *space a matrix (out, in), or None to leave the axis.
    """

    def __init__(self, matrices: Sequence[Tensor | None]) -> None:
        self._axes = [
            (axis, *torch.linalg.svd(m.double(), full_matrices=False))
            for axis, m in enumerate(matrices, 1)
            if m is not None
        ]
        self._matrices = [(axis, m) for axis, m in enumerate(matrices, 1) if m is not None]

    def __call__(self, x: Tensor) -> Tensor:
        for axis, matrix in self._matrices:
            x = _along(x, axis, matrix)
        return x

    def explain(self, z: Tensor, s: float) -> Tensor:
        """Divide by the singular values, those of the whole being products of the axes'."""
        singular = z.new_ones(1)
        for axis, u, values, _ in self._axes:
            z = _along(z, axis, u.T)
            singular = singular * values.to(z).view(-1, *[1] * (z.ndim - 1 - axis))
        z = z * (singular / (singular.square() + s))
        for axis, _, _, vh in self._axes:
            z = _along(z, axis, vh.T)
        return z


def shrinking(shape: Sequence[int], factor: int) -> Separable:
    """Measure means of blocks of `factor` pixels in every spatial direction.

    Args:
        shape: (C, *space) of the images.
        factor: a divisor of every side.
    """
    matrices = [
        torch.eye(side // factor).repeat_interleave(factor, 1) / factor for side in shape[1:]
    ]
    return Separable([None, *matrices])


def greying(shape: Sequence[int]) -> Separable:
    """Measure the grey, 0.299 R + 0.587 G + 0.114 B, of images of this shape (3, *space)."""
    return Separable([torch.tensor([LUMA]), *[None] * (len(shape) - 1)])


def blurring(shape: Sequence[int], width: float) -> Separable:
    """Measure images blurred by a Gaussian, which goes on beyond the edges as in a mirror.

    Args:
        shape: (C, *space) of the images.
        width: standard deviation in pixels.
    """
    return Separable([None, *(_gaussian(side, width) for side in shape[1:])])


def _gaussian(side: int, width: float) -> Tensor:
    places = torch.arange(side, dtype=torch.float64)
    blur = torch.zeros(side, side, dtype=torch.float64)
    reach = int(4 * width + 0.5)
    weights = (-0.5 * (torch.arange(-reach, reach + 1) / width).square()).exp().double()
    for offset, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
        # half-sample symmetric: ... 1 0 | 0 1 2 ...
        beyond = (places.long() + offset) % (2 * side)
        mirrored = torch.minimum(beyond, 2 * side - 1 - beyond)
        blur[places.long(), mirrored] += weight
    return blur.float()


def _along(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    return (x.movedim(axis, -1) @ matrix.to(x).T).movedim(-1, axis)
