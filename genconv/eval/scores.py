"""How little an image belongs, in one number: larger = more out of distribution."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from genconv.checkpoint import Trained
from genconv.errors import UserError
from genconv.eval.statistics import CLASSES_ONLY, Statistics

__all__ = ["SCORES", "Score", "applicable", "needed", "score_all"]


@dataclass(frozen=True)
class Score:
    """A way to turn what was measured of images into one number for each.

    Attributes:
        function: maps the statistics of N images, and those of in-distribution validation images,
            to scores (N,), larger = more out of distribution.
        needs: names of the statistics that it reads.
    """

    function: Callable[[Statistics, Statistics], Tensor]
    needs: tuple[str, ...]


def energy(s: Statistics, validation: Statistics) -> Tensor:
    """E(x); with classes -logsumexp of the logits (Liu et al. 2020, arXiv:2010.03759)."""
    return s["energy"]


def gradient(s: Statistics, validation: Statistics) -> Tensor:
    """|∇E(x)|: small where probability has mass around it (JEM, arXiv:1912.03263)."""
    return s["gradient"]


def typicality(s: Statistics, validation: Statistics) -> Tensor:
    """|E(x) - mean E|: too likely is untypical too (Nalisnick et al. 2019, arXiv:1906.02994)."""
    return (s["energy"] - validation["energy"].mean()).abs()


def complexity(s: Statistics, validation: Statistics) -> Tensor:
    """E(x) - a L(x), L the bits per dimension of a lossless file (Serrà et al., arXiv:1909.11480).

    An energy's temperature is arbitrary, so where the paper has a = D ln 2 the slope a is here
    that of the least squares line through E over L of validation images.
    """
    return s["energy"] - _slope(validation["complexity"], validation["energy"]) * s["complexity"]


def ratio(s: Statistics, validation: Statistics) -> Tensor:
    """E(x) - E_background(x), a likelihood ratio (Ren et al. 2019, arXiv:1906.02845)."""
    return s["energy"] - s["background"]


def refine_drop(s: Statistics, validation: Statistics) -> Tensor:
    """E(x) - E(x_K): how far downhill a short chain goes from x."""
    return s["drop"]


def refine_distance(s: Statistics, validation: Statistics) -> Tensor:
    """|x - x_K|: how far a short chain goes from x."""
    return s["distance"]


def max_probability(s: Statistics, validation: Statistics) -> Tensor:
    """-max p(y|x) (Hendrycks & Gimpel 2017, arXiv:1610.02136)."""
    return -s["max_probability"]


def max_logit(s: Statistics, validation: Statistics) -> Tensor:
    """Min over y of E(x, y) (Hendrycks et al. 2022, arXiv:1911.11132)."""
    return -s["max_logit"]


def ensemble(s: Statistics, validation: Statistics) -> Tensor:
    """Mean of typicality, gradient, complexity and refine_drop, each standardised on validation.

    One of each kind: level, slope, level for its complexity, and what a chain makes of it. They
    were chosen before any number was seen.
    """
    members = [typicality, gradient, complexity, refine_drop]
    return torch.stack(
        [_standardised(member(s, validation), member(validation, validation)) for member in members]
    ).mean(0)


def fisher(s: Statistics, validation: Statistics) -> Tensor:
    """Distance of the sizes of ∂E/∂w, layer by layer, from those of validation images.

    The gradient with respect to the weights is what an image would teach the energy. Of its Fisher
    information only the size in each layer is kept (Dauncey et al. 2024, arXiv:2403.01485).
    """
    return _distance(s["layers"], validation["layers"])


def spectrum(s: Statistics, validation: Statistics) -> Tensor:
    """Distance of an image's power spectrum, in octaves, from those of validation images.

    No energy has a part in it: it is what the scores of an energy are to be held against.
    """
    return _distance(s["spectrum"], validation["spectrum"])


def mahalanobis(s: Statistics, validation: Statistics) -> Tensor:
    """Distance of gradients by layer and spectrum together: what the energy and the image say.

    It is the typicality of many statistics at once, under a normal law in place of the kernel
    density of Morningstar et al. (DoSE, arXiv:2006.09273).
    """
    here, there = (torch.cat([part["layers"], part["spectrum"]], 1) for part in (s, validation))
    return _distance(here, there)


SCORES: dict[str, Score] = {
    "energy": Score(energy, ("energy",)),
    "gradient": Score(gradient, ("gradient",)),
    "typicality": Score(typicality, ("energy",)),
    "complexity": Score(complexity, ("energy", "complexity")),
    "ratio": Score(ratio, ("energy", "background")),
    "refine_drop": Score(refine_drop, ("drop",)),
    "refine_distance": Score(refine_distance, ("distance",)),
    "max_probability": Score(max_probability, ("max_probability",)),
    "max_logit": Score(max_logit, ("max_logit",)),
    "ensemble": Score(ensemble, ("energy", "gradient", "complexity", "drop")),
    "fisher": Score(fisher, ("layers",)),
    "spectrum": Score(spectrum, ("spectrum",)),
    "mahalanobis": Score(mahalanobis, ("layers", "spectrum")),
}


def applicable(trained: Trained, background: Trained | None = None) -> tuple[str, ...]:
    """Return the names of the scores that this energy can give, in the order of `SCORES`."""
    lacking = set() if getattr(trained.energy, "classes", None) else set(CLASSES_ONLY)
    lacking |= {"background"} if background is None else set()
    return tuple(name for name, score in SCORES.items() if not lacking & set(score.needs))


def needed(names: Iterable[str]) -> set[str]:
    """Return the names of the statistics that these scores read.

    Raises:
        UserError: there is no such score.
    """
    names = list(names)
    if unknown := [name for name in names if name not in SCORES]:
        raise UserError(f"no score {unknown[0]!r}; choose from {', '.join(SCORES)}")
    return {statistic for name in names for statistic in SCORES[name].needs}


def score_all(
    names: Iterable[str], statistics: Statistics, validation: Statistics
) -> dict[str, Tensor]:
    """Score images in several ways.

    Args:
        names: which of `SCORES`.
        statistics: of N images, from `measure`.
        validation: of in-distribution images that are not among them.

    Returns:
        for each name float64 (N,); NaN where a statistic is NaN.

    Raises:
        UserError: a score is not known or its statistics were not measured, or the validation
            images are fewer than two or have statistics that are not finite.
    """
    names = list(names)
    for statistic in sorted(needed(names)):
        if statistic not in statistics or statistic not in validation:
            raise UserError(f"the statistic {statistic!r} was not measured; measure it for both")
        values = validation[statistic]
        if len(values) < 2 or not torch.isfinite(values).all():
            raise UserError(
                f"the {statistic} of validation images must be two finite numbers or more; "
                "look for a diverged energy, or take more images"
            )
    return {name: SCORES[name].function(statistics, validation) for name in names}


def _slope(x: Tensor, y: Tensor) -> Tensor:
    spread = (x - x.mean()).square().sum()
    # where x does not vary it explains nothing
    return ((x - x.mean()) * y).sum() / spread if spread > 0 else torch.zeros_like(spread)


def _standardised(scores: Tensor, validation: Tensor) -> Tensor:
    spread = validation.std()
    return (scores - validation.mean()) / (spread if spread > 0 else 1)


def _distance(rows: Tensor, validation: Tensor) -> Tensor:
    """Return Mahalanobis distances (N,) of rows (N, K) from those of validation images."""
    centre, spread = validation.mean(0), validation.std(0)
    scale = torch.where(spread > 0, spread, 1)
    rows, validation = (rows - centre) / scale, (validation - centre) / scale
    # shrunk towards the identity, as K may be of the order of the number of images (Ledoit & Wolf)
    covariance, _ = ledoit_wolf(validation.numpy(), assume_centered=True)
    inverse = torch.linalg.pinv(torch.from_numpy(covariance), rtol=1e-9, hermitian=True)
    return ((rows @ inverse) * rows).sum(1).clamp(min=0).sqrt()
