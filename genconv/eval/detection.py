"""How well scores tell in- from out-of-distribution images, in float64, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genconv.errors import UserError
from genconv.seeds import stream

__all__ = ["NUMBERS", "Detection", "aupr", "auroc", "average", "detect", "fpr_at_95", "roc"]

NUMBERS = ("auroc", "aupr_ood", "aupr_id", "fpr95_ood_positive", "fpr95_id_positive")
# replicates times images that are treated at once: 2 million doubles are 16 MB
CHUNK = 2_000_000


@dataclass(frozen=True)
class Detection:
    """How well a score, larger = more out of distribution, tells two sets of images apart.

    Attributes:
        n_id: number of in-distribution images.
        n_ood: number of images from elsewhere.
        prevalence: n_ood / (n_id + n_ood); either AUPR of a score that knows nothing is the share
            of its positives, so AUPRs compare at equal prevalence only.
        auroc: probability that an image from elsewhere has the larger score; a tie counts half.
        aupr_ood: average precision with the images from elsewhere as positives.
        aupr_id: average precision with the in-distribution images as positives.
        fpr95_ood_positive: see `fpr_at_95`.
        fpr95_id_positive: see `fpr_at_95`.
        intervals: for each number of `NUMBERS` the 2.5 % and 97.5 % points of its bootstrap.
    """

    n_id: int
    n_ood: int
    prevalence: float
    auroc: float
    aupr_ood: float
    aupr_id: float
    fpr95_ood_positive: float
    fpr95_id_positive: float
    intervals: dict[str, tuple[float, float]]


def auroc(id_scores: Tensor, ood_scores: Tensor) -> float:
    """Return the probability that an image from elsewhere has the larger score; ties count half.

    Args:
        id_scores: (N,), of in-distribution images.
        ood_scores: (M,), of images from elsewhere.

    Raises:
        UserError: either set is empty or has a NaN.
    """
    return _point(_rank(id_scores, ood_scores))["auroc"]


def aupr(id_scores: Tensor, ood_scores: Tensor, positive: Literal["ood", "id"] = "ood") -> float:
    """Return the average precision Σ (R_k - R_{k-1}) P_k over the distinct scores.

    It is no trapezoid, which overestimates (Davis & Goadrich 2006) and which some OOD papers take.

    Args:
        id_scores: (N,), of in-distribution images.
        ood_scores: (M,), of images from elsewhere.
        positive: the class that is to be found; "id" looks for it among the small scores.

    Raises:
        UserError: either set is empty or has a NaN.
    """
    return _point(_rank(id_scores, ood_scores))[f"aupr_{positive}"]


def fpr_at_95(
    id_scores: Tensor,
    ood_scores: Tensor,
    convention: Literal["ood_positive", "id_positive"],
) -> float:
    """Return the rate of false positives at the first threshold that finds 95 % of the positives.

    Papers mean different things by it, and the two numbers can differ by half.

    Args:
        id_scores: (N,), of in-distribution images.
        ood_scores: (M,), of images from elsewhere.
        convention: `ood_positive` is the share of in-distribution images that are rejected where
            95 % of the others are (OpenOOD v1.5, pytorch-ood); `id_positive` the share of the
            others that are accepted where 95 % of the in-distribution images are (ODIN, OpenOOD
            v1).

    Raises:
        UserError: either set is empty or has a NaN.
    """
    return _point(_rank(id_scores, ood_scores))[f"fpr95_{convention}"]


def roc(id_scores: Tensor, ood_scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of in- and of out-of-distribution images rejected as a threshold sinks.

    Args:
        id_scores: (N,), of in-distribution images.
        ood_scores: (M,), of images from elsewhere.

    Returns:
        false and true positive rates, float64 (K + 1,) for K distinct scores, from 0 to 1.

    Raises:
        UserError: either set is empty or has a NaN.
    """
    ranked = _rank(id_scores, ood_scores)
    false, true = (_rates(_count(part[None], ranked.n)[0]) for part in (ranked.id, ranked.ood))
    return false, true


def detect(
    id_scores: Tensor, ood_scores: Tensor, *, resamples: int = 1000, seed: int = 0
) -> Detection:
    """Compute all numbers and their intervals.

    Both sets are drawn anew with replacement, each in its own size, `resamples` times (the
    percentile bootstrap): an interval says what other images of the same sources would give, and
    nothing of other trainings.

    Args:
        id_scores: (N,), of in-distribution images.
        ood_scores: (M,), of images from elsewhere.
        resamples: number of bootstrap replicates, at least 1.
        seed: of the bootstrap.

    Raises:
        UserError: either set is empty or has a NaN.
    """
    ranked = _rank(id_scores, ood_scores)
    n_id, n_ood = len(ranked.id), len(ranked.ood)
    generator = stream(seed, "bootstrap")
    replicates = [
        _evaluate(*(_count(_redraw(part, m, generator), ranked.n) for part in ranked[:2]))
        for m in _split(resamples, max(1, CHUNK // (n_id + n_ood)))
    ]
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    intervals = {}
    for name in NUMBERS:
        low, high = torch.cat([r[name] for r in replicates]).quantile(ends).tolist()
        intervals[name] = (low, high)
    return Detection(
        n_id=n_id,
        n_ood=n_ood,
        prevalence=n_ood / (n_id + n_ood),
        **_point(ranked),
        intervals=intervals,
    )


def average(detections: Sequence[Detection]) -> dict[str, float]:
    """Return the mean of each of `NUMBERS` over sets, every set alike whatever its size.

    Raises:
        UserError: there are none.
    """
    if not detections:
        raise UserError("an average needs one set of images or more")
    return {name: sum(getattr(d, name) for d in detections) / len(detections) for name in NUMBERS}


class _Ranked(NamedTuple):
    """Ranks of either set's scores among all n distinct scores; 0 is the largest."""

    id: Tensor
    ood: Tensor
    n: int


def _rank(id_scores: Tensor, ood_scores: Tensor) -> _Ranked:
    parts = [part.detach().double().cpu() for part in (id_scores, ood_scores)]
    for name, part in zip(("in-distribution", "out-of-distribution"), parts, strict=True):
        if part.ndim != 1 or len(part) == 0:
            raise UserError(f"{name} scores must be one or more in a row, not {list(part.shape)}")
        if bad := int(part.isnan().sum()):
            raise UserError(
                f"{bad} of {len(part)} {name} scores are NaN; look for a diverged energy"
            )
    distinct, ranks = torch.unique(-torch.cat(parts), return_inverse=True)
    first, second = ranks.split([len(part) for part in parts])
    return _Ranked(first, second, len(distinct))


def _redraw(ranks: Tensor, times: int, generator: torch.Generator) -> Tensor:
    return ranks[torch.randint(len(ranks), (times, len(ranks)), generator=generator)]


def _count(ranks: Tensor, n: int) -> Tensor:
    """Turn ranks (B, N) into the number of each rank (B, n)."""
    counts = torch.zeros(len(ranks), n, dtype=torch.float64)
    return counts.scatter_add_(1, ranks, torch.ones_like(ranks, dtype=torch.float64))


def _rates(counts: Tensor) -> Tensor:
    reached = counts.cumsum(0) / counts.sum()
    return torch.cat([reached.new_zeros(1), reached])


def _split(total: int, most: int) -> list[int]:
    return [min(most, total - done) for done in range(0, total, most)]


def _point(ranked: _Ranked) -> dict[str, float]:
    counts = (_count(part[None], ranked.n) for part in ranked[:2])
    return {name: float(value) for name, value in _evaluate(*counts).items()}


def _evaluate(id_counts: Tensor, ood_counts: Tensor) -> dict[str, Tensor]:
    """Compute the numbers, each (B,), from counts (B, n) of each score, the largest first."""
    n_id, n_ood = id_counts.sum(1), ood_counts.sum(1)
    below = n_id[:, None] - id_counts.cumsum(1)
    ups, downs = (id_counts, ood_counts), (id_counts.flip(1), ood_counts.flip(1))
    return {
        "auroc": (ood_counts * (below + id_counts / 2)).sum(1) / (n_id * n_ood),
        "aupr_ood": _average_precision(ups[1], ups[0]),
        "aupr_id": _average_precision(downs[0], downs[1]),
        "fpr95_ood_positive": _false_positives(ups[1], ups[0]),
        "fpr95_id_positive": _false_positives(downs[0], downs[1]),
    }


def _average_precision(positives: Tensor, negatives: Tensor) -> Tensor:
    true, false = positives.cumsum(1), negatives.cumsum(1)
    # above the first drawn score of a replicate there is nothing, and no precision
    precision = true / (true + false).clamp(min=1)
    return (positives * precision).sum(1) / positives.sum(1)


def _false_positives(positives: Tensor, negatives: Tensor) -> Tensor:
    true = positives.cumsum(1)
    # in whole numbers, since 0.95 n in floating point may lie on either side of one
    found = 20 * true >= 19 * true[:, -1:]
    first = found.to(torch.int8).argmax(1, keepdim=True)
    false = negatives.cumsum(1)
    return (false.gather(1, first) / false[:, -1:]).squeeze(1)
