"""Distances between the normal laws that two sets of features would follow."""

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor

from genconv.errors import UserError
from genconv.progress import progress

__all__ = ["Moments", "frechet_distance", "frechet_infinity"]

# rows in float64 at once, which bounds the memory beside features that are kept in float32
PIECE = 8192


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of features; those of shards add up to those of the whole.

    Attributes:
        n: number of rows they were taken of.
        mean: float64 (D,).
        covariance: float64 (D, D), with divisor n - 1; zeros where n = 1.
    """

    n: int
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Take the moments of features (N, D), N > 0, in float64, a piece at a time.

        Raises:
            UserError: the features have another shape, or are not finite.
        """
        if features.ndim != 2 or len(features) == 0:
            raise UserError(f"moments need features (N, D), not {tuple(features.shape)}")
        if len(features) > PIECE:
            return reduce(add, (cls.of(piece) for piece in features.split(PIECE)))
        features = features.double()
        mean = features.mean(0)
        if not torch.isfinite(mean).all():
            raise UserError("features are not finite; look for NaN in the images or the network")
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred / max(len(features) - 1, 1))

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of both sets together (Chan, Golub & LeVeque 1979).

        Nothing large is subtracted from anything large, as Σxxᵀ - n μμᵀ would, so digits last.

        Raises:
            UserError: the two are moments of different features.
        """
        self._check(other)
        n = self.n + other.n
        apart = other.mean - self.mean
        scatter = (
            self.covariance * (self.n - 1)
            + other.covariance * (other.n - 1)
            + torch.outer(apart, apart) * (self.n * other.n / n)
        )
        return Moments(n, self.mean + apart * (other.n / n), scatter / (n - 1))

    def _check(self, other: "Moments") -> None:
        if self.mean.shape != other.mean.shape:
            raise UserError(
                f"features of {len(self.mean)} and of {len(other.mean)} dimensions do not compare; "
                "extract both with the same network"
            )


def frechet_distance(a: Moments, b: Moments) -> float:
    r"""Return the squared Fréchet distance of the normal laws with these moments.

    .. math:: |μ_a - μ_b|^2 + \mathrm{tr}\left(Σ_a + Σ_b - 2 (Σ_a^{1/2} Σ_b Σ_a^{1/2})^{1/2}\right)

    Only of features of the Inception network of 2015 is it the FID (Heusel et al. 2017,
    arXiv:1706.08500). With N features of D dimensions it lies about D/N + D²/4N too high, so name
    both n beside it; where n < D the covariance is singular and the number means little. It may
    come out negative by rounding, about 1e-7 of the traces, as is honest for equal moments.

    Raises:
        UserError: either was taken of fewer than two rows, or they are of different features.
    """
    a._check(b)
    if min(a.n, b.n) < 2:
        raise UserError("a Fréchet distance needs two images or more on either side")
    return _distance(a, b, _root(a.covariance))


def frechet_infinity(
    features: Tensor,
    reference: Moments,
    *,
    points: int = 15,
    smallest: int | None = None,
    seed: int = 2020,
) -> float:
    """Extrapolate the Fréchet distance to infinitely many samples (Chong & Forsyth 2020).

    Distances of random subsets of N features, N evenly spaced from `smallest` to all, are
    regressed on 1/N; the intercept is free of the bias of finite N on this side (arXiv:1911.07023).

    Args:
        features: (N, D), of the samples.
        reference: moments of the data; their own bias remains.
        points: number of subsets.
        smallest: size of the smallest subset; a tenth of all by default (5000 of 50 000).
        seed: of the subsets.

    Raises:
        UserError: there are fewer than 20 features, or `smallest` and `points` do not fit them.
    """
    n = len(features)
    smallest = n // 10 if smallest is None else smallest
    if not 2 <= smallest < n or points < 2:
        raise UserError(
            f"{n} features give no {points} subsets of {smallest} and more; draw more samples"
        )
    root = _root(reference.covariance)
    order = np.random.RandomState(seed)
    sizes = np.linspace(smallest, n, points).astype(int)
    distances = []
    for size in progress(sizes, "subsets for infinity"):
        chosen = torch.from_numpy(order.permutation(n)[:size])
        moments = Moments.of(features[chosen.to(features.device)])
        moments._check(reference)
        distances.append(_distance(reference, moments, root))
    _, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)


def _distance(a: Moments, b: Moments, root: Tensor) -> float:
    # symmetric, unlike Σa Σb: eigenvalues are real, and a negative one is rounding
    product = root @ b.covariance @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    traces = a.covariance.trace() + b.covariance.trace()
    return float((a.mean - b.mean).square().sum() + traces - 2 * cross)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
