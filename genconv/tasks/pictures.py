"""What people look at: before and after, how far the draws differ, and whether that is honest."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from genconv.files import replacing
from genconv.images import slices, to_uint8

__all__ = ["plot_columns", "plot_coverage", "plot_recovery"]

DRAWS = 4
CELL = 64


def plot_recovery(
    path: str | Path, truth: Tensor | None, seen: Tensor, draws: Tensor, rows: int = 8
) -> None:
    """Draw a row for each image: truth, what was seen of it, draws, their mean and their spread.

    Of a video it shows frames in place of images, a row for each, and of voxels cuts.

    Args:
        path: of the PNG.
        truth: (N, C, *space), or None where it is not known.
        seen: likewise, the measurement as images.
        draws: (N, D, C, *space).
        rows: images at most.
    """
    columns = {} if truth is None else {"truth": truth}
    columns["observed"] = seen
    columns |= {f"draw {d + 1}": draws[:, d] for d in range(min(DRAWS, draws.shape[1]))}
    columns["mean"] = draws.mean(1)
    if draws.shape[1] > 1:
        columns["spread"] = draws.std(1)
    plot_columns(path, columns, rows)


def plot_columns(path: str | Path, columns: Mapping[str, Tensor], rows: int = 8) -> None:
    """Draw columns of images under their names; one called `spread` in colours for its levels.

    Args:
        path: of the PNG.
        columns: (N, C, *space), by name.
        rows: images at most.
    """
    columns = {name: slices(x) if x.ndim == 5 else x for name, x in columns.items()}
    canvas = np.concatenate(
        [_column(images[:rows], name == "spread") for name, images in columns.items()], axis=1
    )
    high, wide = (length / 70 for length in canvas.shape[:2])
    figure = Figure(figsize=(wide, high + 0.25))
    panel = figure.add_axes((0, 0, 1, high / (high + 0.25)))
    panel.imshow(canvas)
    panel.axis("off")
    cell = canvas.shape[1] / len(columns)
    for place, name in enumerate(columns):
        panel.text((place + 0.5) * cell, -4, name, ha="center", fontsize=8)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)


def plot_coverage(path: str | Path, covered: Mapping[float, float]) -> None:
    """Draw the share of values that lie within the central bands of the draws, over the nominal.

    Args:
        path: of the PNG.
        covered: see `genconv.tasks.judging.coverage`.
    """
    figure = Figure(figsize=(3.6, 3.4), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1)
    panel.plot(list(covered), list(covered.values()), "o-", color="#0072B2", markersize=3)
    panel.set_xlabel("central band of the draws")
    panel.set_ylabel("true values within it")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.set_aspect("equal")
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)


def _column(images: Tensor, spread: bool) -> np.ndarray:
    """Stack images, of equal size and enlarged to be seen, with white between them."""
    planes = torch.stack([_plane(image) for image in images])
    if spread:
        widest = float(planes.mean(1).max()) or 1.0
        levels = (colormaps["magma"](planes.mean(1).numpy() / widest)[..., :3] * 255).astype(
            np.uint8
        )
    else:
        levels = to_uint8(planes).movedim(1, -1).numpy()
        levels = np.broadcast_to(levels[..., :3], (*levels.shape[:3], 3))
    scale = max(1, CELL // levels.shape[2])
    levels = levels.repeat(scale, 1).repeat(scale, 2)
    framed = np.pad(levels, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)
    return framed.reshape(-1, *framed.shape[2:])


def _plane(image: Tensor) -> Tensor:
    while image.ndim > 3:
        image = image[:, image.shape[1] // 2]
    image = image[:, None] if image.ndim == 2 else image
    # two channels have no colours
    return image if len(image) == 3 else image[:1]
