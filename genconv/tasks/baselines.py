"""What needs no energy: classical recovery, to be beaten.

Where a method has a dial, it is turned to what is best on the truth, which favours the baseline.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genconv.data.holes import interpolated
from genconv.errors import UserError
from genconv.tasks.problems import Problem

__all__ = ["baselines", "restoration"]

TV_WEIGHTS = (0.03, 0.1, 0.2, 0.3, 0.5, 0.8)
BALANCES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)


def baselines(task: str, problem: Problem, measured: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return what classical methods make of measured images.

    Args:
        task: a name of `genconv.edit`.
        problem: what was measured.
        measured: (N, ...) m.
        truth: (N, C, *space), by which dials are turned.

    Returns:
        estimates (N, C, *space) by the name of the method.

    Raises:
        UserError: scikit-image is not installed.
    """
    return {
        "inpaint": _inpainted,
        "denoise": _denoised,
        "upscale": _upscaled,
        "colourise": _coloured,
        "deblur": _deblurred,
    }[task](problem, measured, truth)


def _inpainted(problem: Problem, measured: Tensor, truth: Tensor) -> dict[str, Tensor]:
    known = ~problem.missing
    space = tuple(range(2, measured.ndim))
    mean = (measured * known).sum(space, keepdim=True) / known.sum(space, keepdim=True)
    biharmonic = restoration().inpaint_biharmonic
    filled = _each(
        lambda x, hidden: biharmonic(x, hidden, channel_axis=0),
        measured,
        problem.missing[:, 0].numpy(),
    )
    return {
        "mean of the known pixels": torch.where(known, measured, mean),
        "straight lines along the first axis": interpolated(measured, problem.missing),
        "biharmonic (scikit-image)": filled,
    }


def _denoised(problem: Problem, measured: Tensor, truth: Tensor) -> dict[str, Tensor]:
    smooth = restoration().denoise_tv_chambolle

    def tried() -> Iterable[Tensor]:
        for weight in TV_WEIGHTS:
            yield _each(lambda x, w=weight: smooth(x, weight=2 * w, channel_axis=0), measured)

    return {"the noisy image": measured, "total variation (scikit-image)": _best(tried(), truth)}


def _upscaled(problem: Problem, measured: Tensor, truth: Tensor) -> dict[str, Tensor]:
    factor = truth.shape[-1] // measured.shape[-1]
    nearest = problem.seen(measured)
    if measured.ndim == 4:
        bicubic = F.interpolate(measured, scale_factor=factor, mode="bicubic")
        return {"nearest": nearest, "bicubic": bicubic}
    from scipy.ndimage import zoom

    def spline(x: np.ndarray) -> np.ndarray:
        scale = (1, *[factor] * (x.ndim - 1))
        return zoom(x, scale, order=3, mode="nearest", grid_mode=True)

    return {"nearest": nearest, "cubic spline": _each(spline, measured)}


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
