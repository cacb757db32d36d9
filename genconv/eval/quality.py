"""How good samples look, in numbers that are functions of features and logits alone."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genconv.errors import UserError
from genconv.progress import progress

__all__ = [
    "MeanStd",
    "Overlap",
    "inception_score",
    "kernel_distance",
    "precision_recall_density_coverage",
]


class MeanStd(NamedTuple):
    """A number's `mean` over splits or subsets, and its standard deviation `std` between them."""

    mean: float
    std: float


class Overlap(NamedTuple):
    """How far two sets of features cover each other; all but density lie in [0, 1]."""

    precision: float
    recall: float
    density: float
    coverage: float


def inception_score(
    logits: Tensor, splits: int = 10, *, seed: int = 2020, ddof: int = 0
) -> MeanStd:
    """Return exp(E KL(p(y|x) || p(y))): 1 for one look, up to K for K clear classes in balance.

    Salimans et al. 2016 (arXiv:1606.03498), in the protocol of torch-fidelity: shuffled with
    NumPy's generator, cut into splits, in float64.

    Args:
        logits: (N, K); of the Inception network's 1008 classes for numbers that compare.
        splits: parts whose scores are averaged.
        seed: of the shuffle.
        ddof: the divisor of the variance is splits - ddof; torchmetrics takes 1.

    Raises:
        UserError: there are fewer logits than splits, or no more splits than `ddof`.
    """
    n = len(logits)
    if logits.ndim != 2 or not ddof < splits <= n:
        raise UserError(
            f"logits of shape {tuple(logits.shape)} do not make {splits} splits with ddof {ddof}"
        )
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
    log_p = logits.double().cpu()[order].log_softmax(1)
    bounds = [n * i // splits for i in range(splits + 1)]
    scores = []
    for first, last in pairwise(bounds):
        part = log_p[first:last]
        log_mean = part.logsumexp(0) - np.log(len(part))
        scores.append(float((part.exp() * (part - log_mean)).sum(1).mean().exp()))
    return _mean_std(scores, ddof)


def kernel_distance(
    a: Tensor, b: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> MeanStd:
    """Return the unbiased squared MMD with the kernel (x·y/D + 1)³; it may be negative.

    Of Inception features it is the KID (Bińkowski et al. 2018, arXiv:1801.01401), and with the
    default seed it draws torch-fidelity's subsets when `a` are the samples and `b` the data.

    Args:
        a: features (N, D).
        b: features (M, D).
        subsets: random subsets of both that are compared.
        size: rows of a subset, without repetition; capped at N and at M, so that few samples
            give a number too: then all subsets hold the same rows and the std says nothing.
        seed: of the subsets.

    Raises:
        UserError: there are fewer than two rows, or the two differ in dimension.
    """
    _check(a, b, 2)
    a, b = a.cpu(), b.cpu()
    size = min(size, len(a), len(b))
    chance = np.random.RandomState(seed)
    values = []
    for _ in progress(range(subsets), "kernel distance"):
        x = a[torch.from_numpy(chance.choice(len(a), size, replace=False))].double()
        y = b[torch.from_numpy(chance.choice(len(b), size, replace=False))].double()
        xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
        # a row is no sample of the law of other rows: without the diagonals nothing is biased
        within = xx.sum() - xx.trace() + yy.sum() - yy.trace()
        values.append(float(within / (size * (size - 1)) - 2 * xy.mean()))
    return _mean_std(values, 0)


def precision_recall_density_coverage(
    real: Tensor, fake: Tensor, k: int = 3, *, chunk: int = 1024
) -> Overlap:
    """Compare the regions that the features of real and fake images fill.

    A region is the union of balls, one around each row, that reach to its k-th neighbour in the
    same set. Precision is the part of the fakes in the region of the real, recall the reverse
    (Kynkäänniemi et al. 2019, arXiv:1904.06991; the rim belongs to a ball, as in torch-fidelity).
    Density is the number of real balls around a fake over k, coverage the part of real balls that
    hold a fake (Naeem et al. 2020, arXiv:2002.09797; the rim does not belong, as in prdc), which
    makes identical sets 1 in all four.

    Args:
        real: features (N, D).
        fake: features (M, D).
        k: the neighbour that sets a ball's radius.
        chunk: rows compared with all others at once; memory is chunk · max(N, M) doubles.

    Raises:
        UserError: there are not more than k rows, or the two differ in dimension.
    """
    _check(real, fake, k + 1)
    centre = real.double().mean(0)
    # distances come from |x|² + |y|² - 2 x·y, which keeps its digits near the origin only
    real, fake = real.double() - centre, fake.double() - centre
    real_radius, fake_radius = _radii(real, k, chunk), _radii(fake, k, chunk)
    rim = 1e-10  # rounding of the products must not decide on which side of a rim a row lies
    inside_real = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    density = 0
    inside_fake, covered = [], []
    rows = list(zip(real.split(chunk), real_radius.split(chunk), strict=True))
    for row, radius in progress(rows, "overlap"):
        distance = _squared_distances(row, fake)
        inside_real |= (distance <= radius[:, None] * (1 + rim)).any(0)
        inside_fake.append((distance <= fake_radius * (1 + rim)).any(1))
        inner = distance < radius[:, None] * (1 - rim)
        density += int(inner.sum())
        covered.append(inner.any(1))
    return Overlap(
        precision=float(inside_real.double().mean()),
        recall=float(torch.cat(inside_fake).double().mean()),
        density=density / (k * len(fake)),
        coverage=float(torch.cat(covered).double().mean()),
    )


def _check(a: Tensor, b: Tensor, least: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UserError(
            f"features of shapes {tuple(a.shape)} and {tuple(b.shape)} do not compare; "
            "extract both with the same network"
        )
    if min(len(a), len(b)) < least:
        raise UserError(f"{len(a)} and {len(b)} features are too few; {least} are needed")


def _mean_std(values: list[float], ddof: int) -> MeanStd:
    return MeanStd(float(np.mean(values)), float(np.std(values, ddof=ddof)))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _radii(x: Tensor, k: int, chunk: int) -> Tensor:
    # the nearest neighbour of a row is the row itself
    rows = progress(x.split(chunk), "neighbours")
    nearest = [_squared_distances(row, x).topk(k + 1, dim=1, largest=False) for row in rows]
    return torch.cat([found.values[:, k] for found in nearest])


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    squares = x.square().sum(1)[:, None] + y.square().sum(1)
    return squares.addmm_(x, y.T, alpha=-2).clamp_(min=0)
