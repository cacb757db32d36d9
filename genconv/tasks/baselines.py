"""What needs no energy: classical recovery, to be beaten.

Where a method has a dial, it is turned to what is best on the truth, which favours the baseline.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genconv.data.guess import smoothed
from genconv.data.holes import interpolated
from genconv.errors import UserError
from genconv.tasks.measurement import nearest
from genconv.tasks.problems import Problem

__all__ = ["baselines", "restoration"]

TV_WEIGHTS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.8)
# its time grows with the cube of what is missing
BIHARMONIC = 4096
BALANCES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)


def baselines(
    task: str, problem: Problem, measured: Tensor, truth: Tensor, examples: Tensor | None = None
) -> dict[str, Tensor]:
    """Return what classical methods make of measured images.

    Args:
        task: a name of `genconv.edit`.
        problem: what was measured.
        measured: (N, ...) m.
        truth: (N, C, *space), by which dials are turned.
        examples: (M, C, *space), such as training images. Of them come the nearest one in what was
            measured, and their mean; without noise, both are corrected to measure exactly that.

    Returns:
        estimates (N, C, *space) by the name of the method.

    Raises:
        UserError: scikit-image is not installed.
    """
    methods = {
        "inpaint": _inpainted,
        "denoise": _denoised,
        "upscale": _upscaled,
        "colourise": _coloured,
        "deblur": _deblurred,
    }
    found = methods[task](problem, measured, truth)
    return found if examples is None else found | _remembered(problem, measured, examples)


def _remembered(problem: Problem, measured: Tensor, examples: Tensor) -> dict[str, Tensor]:
    rows = []
    for i, one in enumerate(measured):
        operator = problem.measurement([i], measured.device)
        distance = (operator(examples) - one).square().flatten(1).sum(1)
        both = torch.stack([examples[distance.argmin()], examples.mean(0)])
        rows.append(both if problem.noise else nearest(operator, both, one[None]))
    closest, mean = torch.stack(rows, 1)
    return {"nearest example": closest, "mean of the examples": mean}


def _inpainted(problem: Problem, measured: Tensor, truth: Tensor) -> dict[str, Tensor]:
    known = ~problem.missing
    space = tuple(range(2, measured.ndim))
    mean = (measured * known).sum(space, keepdim=True) / known.sum(space, keepdim=True)
    found = {
        "mean of the known pixels": torch.where(known, measured, mean),
        "straight lines along the first axis": interpolated(measured, problem.missing),
        "smooth along all axes": smoothed(measured, problem.missing),
    }
    if int(problem.missing.flatten(1).sum(1).max()) > BIHARMONIC:
        return found
    biharmonic = restoration().inpaint_biharmonic
    filled = _each(
        lambda x, hidden: biharmonic(x, hidden, channel_axis=0),
        measured,
        problem.missing[:, 0].numpy(),
    )
    return found | {"biharmonic (scikit-image)": filled}


def _denoised(problem: Problem, measured: Tensor, truth: Tensor) -> dict[str, Tensor]:
    smooth = restoration().denoise_tv_chambolle

    def tried() -> Iterable[Tensor]:
        for weight in TV_WEIGHTS:
            yield _each(lambda x, w=weight: smooth(x, weight=2 * w, channel_axis=0), measured)

    return {"the noisy image": measured, "total variation (scikit-image)": _best(tried(), truth)}


def _upscaled(problem: Problem, measured: Tensor, truth: Tensor) -> dict[str, Tensor]:
    factor = truth.shape[-1] // measured.shape[-1]
    seen = problem.seen(measured)
    if measured.ndim == 4:
        bicubic = F.interpolate(measured, scale_factor=factor, mode="bicubic")
        return {"nearest": seen, "bicubic": bicubic}
    from scipy.ndimage import zoom

    def spline(x: np.ndarray, order: int) -> np.ndarray:
        scale = (1, *[factor] * (x.ndim - 1))
        return zoom(x, scale, order=order, mode="nearest", grid_mode=True)

    return {
        "nearest": seen,
        "linear": _each(lambda x: spline(x, 1), measured),
        "cubic spline": _each(lambda x: spline(x, 3), measured),
    }


def _coloured(problem: Problem, measured: Tensor, truth: Tensor) -> dict[str, Tensor]:
    return {"grey": problem.seen(measured)}


def _deblurred(problem: Problem, measured: Tensor, truth: Tensor) -> dict[str, Tensor]:
    # with A's own boundaries, which favours it over scikit-image's, whose images are tori
    tried = (problem.operator.explain(measured, s) for s in BALANCES)
    return {"the blurred image": measured, "Wiener filter": _best(tried, truth)}


def _best(tried: Iterable[Tensor], truth: Tensor) -> Tensor:
    return min(tried, key=lambda x: float((x.clamp(-1, 1) - truth).square().mean()))


def _each(method: Callable[..., np.ndarray], images: Tensor, *more: np.ndarray) -> Tensor:
    rows = zip(images.double().numpy(), *more, strict=True)
    return torch.stack([torch.from_numpy(method(*row)) for row in rows]).float()


def restoration() -> Any:
    """Import `skimage.restoration`.

    Raises:
        UserError: scikit-image is not installed.
    """
    try:
        from skimage import restoration
    except ImportError as error:
        raise UserError(
            "the classical methods of the table need scikit-image: pip install 'genconv[edit]'"
        ) from error
    return restoration
