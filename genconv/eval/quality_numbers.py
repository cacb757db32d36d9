"""The numbers of a comparison under names that say what they are numbers of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from genconv.errors import UserError
from genconv.eval.frechet import frechet_distance, frechet_infinity
from genconv.eval.quality import (
    MeanStd,
    inception_score,
    kernel_distance,
    precision_recall_density_coverage,
)
from genconv.eval.quality_features import Seen

__all__ = ["SETTINGS", "Number", "compare", "counted", "warnings_of"]

NEIGHBOUR, SUBSETS, SIZE, SPLITS = 3, 100, 1000, 10
SETTINGS = {
    "frechet": "float64, covariances with divisor n - 1",
    "score": f"{SPLITS} splits, shuffled with seed 2020; std between splits with divisor {SPLITS}",
    "kernel": f"(x·y/D + 1)³, unbiased, {SUBSETS} subsets of {SIZE} (or all, of fewer), seed 2020; "
    f"std between subsets with divisor {SUBSETS}",
    "overlap": f"precision, recall, density, coverage with neighbour {NEIGHBOUR}",
    "infinity": "15 subsets of a tenth to all of the samples, intercept over 1/n, seed 2020",
}
# FID, IS and KID mean the Inception network of 2015; of others the numbers have other names
NAMES = {
    "frechet": ("FID", "feature distance"),
    "infinity": ("FID-infinity", "feature distance-infinity"),
    "score": ("IS", "classifier score"),
    "kernel": ("KID", "kernel feature distance"),
}


@dataclass(frozen=True)
class Number:
    """A number, or a sentence that says why there is none.

    Attributes:
        label: its name with the number of samples, as `FID-50k`.
        value: the number.
        std: between splits or subsets, where there are any.
        error: why there is none.
    """

    label: str
    value: float | None = None
    std: float | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what there is as plain values."""
        return {name: value for name, value in vars(self).items() if value is not None}


def compare(
    fake: Seen,
    real: Seen,
    *,
    published: bool,
    infinity: bool = False,
    device: torch.device | str = "cpu",
) -> dict[str, Number]:
    """Hold what was seen in samples against what was seen in data.

    Args:
        fake: of the samples.
        real: of the data.
        published: whether the network is the Inception network of 2015.
        infinity: also extrapolate the Fréchet distance to infinitely many samples.
        device: where the overlap, the longest work, is counted.
    """
    found: dict[str, Number] = {}
    d = fake.features.shape[1]

    def note(kind: str, n: int, give: Callable[[], float | MeanStd]) -> None:
        name = NAMES[kind][0 if published else 1] if kind in NAMES else kind
        label = name if kind == "infinity" else f"{name}-{counted(n)}"
        if kind == "frechet" and (few := min(fake.n, real.n)) < d:
            label += f" (n = {few} < {d})"
        key = name.lower().replace(" ", "_").replace("-", "_")
        try:
            value = give()
        except UserError as error:
            found[key] = Number(label, error=str(error))
            return
        mean, std = value if isinstance(value, MeanStd) else (value, None)
        found[key] = Number(label, float(mean), std)

    note("frechet", fake.n, lambda: frechet_distance(fake.moments, real.moments))
    if infinity:
        note("infinity", fake.n, lambda: frechet_infinity(fake.features, real.moments))
    if fake.logits is not None:
        note("score", fake.n, lambda: inception_score(fake.logits, SPLITS))
    rows = len(fake.features)
    note(
        "kernel",
        rows,
        lambda: kernel_distance(fake.features, real.features, subsets=SUBSETS, size=SIZE),
    )
    try:
        sets = [seen.features.to(device) for seen in (real, fake)]
        overlap: Any = precision_recall_density_coverage(*sets, NEIGHBOUR)._asdict()
    except UserError as error:
        overlap = dict.fromkeys(("precision", "recall", "density", "coverage"), str(error))
    for name, value in overlap.items():
        label = f"{name}-{counted(rows)}"
        told = {"error": value} if isinstance(value, str) else {"value": value}
        found[name] = Number(label, **told)
    return found


def counted(n: int) -> str:
    """Write a number of images as labels have it: 50k, or 1234."""
    return str(n) if n % 1000 else f"{n // 1000}k"


def warnings_of(fake: Seen, real: Seen) -> list[str]:
    """Return what must be said beside the numbers."""
    d = fake.features.shape[1]
    return [
        f"{seen.n} {whose} are fewer than the {d} features: the covariance is singular, and the "
        "Fréchet distance lies far too high and means little"
        for whose, seen in (("samples", fake), ("reference images", real))
        if seen.n < d
    ]
