"""What scores mean: conformal p-values against images that belong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genconv.errors import UserError
from genconv.eval.scores import score_all
from genconv.eval.statistics import Statistics

__all__ = ["Calibration", "calibrate", "check_rate", "p_values", "rounded"]

DIGITS = 7


@dataclass(frozen=True)
class Calibration:
    """What the scores of new images are held against.

    Attributes:
        names: of the scores; the first one is calibrated.
        validation: statistics of the images on which scores are fitted.
        scores: ascending (n,), the first score of the images to compare with.
    """

    names: tuple[str, ...]
    validation: Statistics
    scores: Tensor

    def __call__(self, statistics: Statistics) -> tuple[dict[str, Tensor], Tensor]:
        """Return the scores of images, each (N,), and the p-values (N,) of the first score.

        Both are functions of the `rounded` scores, so that a table says all there is to know.
        """
        found = score_all(self.names, statistics, self.validation)
        found = {name: rounded(values) for name, values in found.items()}
        return found, p_values(self.scores, found[self.names[0]])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; `from_dict` inverts it exactly."""
        return {
            "names": list(self.names),
            "validation": {name: values.tolist() for name, values in self.validation.items()},
            "scores": self.scores.tolist(),
        }

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> "Calibration":
        """Rebuild what `to_dict` wrote down."""
        validation = {
            name: torch.tensor(values, dtype=torch.float64)
            for name, values in plain["validation"].items()
        }
        scores = torch.tensor(plain["scores"], dtype=torch.float64)
        return Calibration(tuple(plain["names"]), validation, scores)


def calibrate(names: Sequence[str], statistics: Statistics) -> Calibration:
    """Hold scores against images that belong.

    Every other image serves to fit those scores that have something to fit, as a mean or a slope.
    If the first score is one of them, it is compared with the other half only: to a score that
    was fitted on them, the first half are no strangers. Otherwise it is compared with all.

    Args:
        names: of the scores.
        statistics: of n images that belong and that the energy was not trained on.

    Raises:
        UserError: there are fewer than four images, or a statistic is not finite.
    """
    halves = [{name: values[i::2] for name, values in statistics.items()} for i in (0, 1)]
    first = names[0]
    scores, other = (score_all([first], statistics, half)[first] for half in halves)
    if not torch.equal(scores, other):
        scores = scores[1::2]
    return Calibration(tuple(names), halves[0], rounded(scores).sort().values)


def p_values(calibration: Tensor, scores: Tensor) -> Tensor:
    """Return (k + 1) / (n + 1), k of the n calibration scores being at least as large.

    If an image is exchangeable with the n, then P(p <= a) <= a for every a, whatever the score
    (Vovk et al. 2005; Bates et al. 2023, arXiv:2104.08279). The promise holds on average over
    calibration sets; one set of n gives a false alarm rate within about sqrt(a (1 - a) / n) of a.

    Args:
        calibration: ascending scores (n,).
        scores: (N,).

    Returns:
        float64 (N,), at least 1 / (n + 1).
    """
    n = len(calibration)
    return (n - torch.searchsorted(calibration, scores.contiguous()) + 1).double() / (n + 1)


def rounded(values: Tensor) -> Tensor:
    """Round float64 (N,) to 7 significant digits, beyond which float32 energies are noise."""
    found = [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
    return torch.tensor(found, dtype=torch.float64)


def check_rate(fpr: float, n: int) -> None:
    """Refuse a false alarm rate below what n calibration scores can resolve.

    Raises:
        UserError: no p-value could be as small as `fpr`.
    """
    if fpr * (n + 1) < 1:
        raise UserError(
            f"{n} calibration images cannot show a false alarm rate of {fpr:g}; "
            f"take {math.ceil(1 / fpr) - 1} or more, or a higher --fpr"
        )
