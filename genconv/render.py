"""Bodies of voxels, drawn with matplotlib as solid cubes from several sides."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from genconv.errors import UserError
from genconv.files import replacing

__all__ = ["VIEWS", "check_bodies", "faces", "plot_voxels"]

# azimuth and elevation in degrees: what looks to -y is seen from the front, the side and behind
VIEWS = ((-60.0, 25.0), (-5.0, 15.0), (130.0, 35.0))
COLOUR = "#5B8DB8"
# how bright a face is by the axis that it looks along
LIGHT = (0.78, 0.58, 1.0)


def plot_voxels(
    path: str | Path,
    bodies: Tensor | Mapping[str, Tensor],
    views: Sequence[tuple[float, float]] = VIEWS,
    rows: int = 8,
) -> None:
    """Draw a row for each body: from every side, and so for every column of `bodies`.

    A voxel is solid where its level is above the middle, 128, which stands for 0. The last spatial
    axis points up.

    Args:
        path: of the PNG.
        bodies: uint8 (N, 1, D, H, W), or several of them by the title of their column.
        views: (azimuth, elevation) of each view, in degrees.
        rows: bodies at most.

    Raises:
        UserError: these are no bodies.
    """
    columns = bodies if isinstance(bodies, Mapping) else {"": bodies}
    for x in columns.values():
        check_bodies(tuple(x.shape[1:]))
    n = min(rows, *(len(x) for x in columns.values()))
    wide = len(columns) * len(views)
    figure = Figure(figsize=(1.1 * wide, 1.1 * n + 0.2))
    panels = figure.subplots(n, wide, squeeze=False)
    figure.subplots_adjust(0, 0, 1, 1 - 0.2 / (1.1 * n + 0.2), 0, 0)
    for j, (name, x) in enumerate(columns.items()):
        for i in range(n):
            solid = (x[i, 0] > 128).numpy()
            for k, view in enumerate(views):
                _draw(panels[i, j * len(views) + k], solid, *view)
        panels[0, j * len(views) + len(views) // 2].set_title(name, fontsize=8, pad=2)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)


def check_bodies(shape: tuple[int, ...]) -> None:
    """Raise a UserError unless this is the shape (1, D, H, W) of a body of voxels."""
    if len(shape) != 4 or shape[0] != 1:
        raise UserError(f"only bodies (1, D, H, W) can be rendered, not images {shape}")


def faces(solid: np.ndarray, azimuth: float, elevation: float) -> tuple[np.ndarray, np.ndarray]:
    """Project the faces that can be seen, those furthest away first.

    Seen from infinitely far away, cubes of one size hide each other in the order of the depth of
    their centres, so that painting them in this order needs no other test.

    Args:
        solid: bool (D, H, W).
        azimuth: of the viewer, in degrees, about the last axis.
        elevation: of the viewer, in degrees, in (-90, 90).

    Returns:
        corners (F, 4, 2) on the plane of the picture, and the axis (F,) that each face looks along.
    """
    a, e = np.radians(azimuth), np.radians(elevation)
    towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    up = np.cross(towards, right)
    padded = np.pad(solid, 1)
    centre = (np.array(solid.shape) - 1) / 2
    corners, axes, depths = [], [], []
    for axis in range(3):
        sign = 1 if towards[axis] > 0 else -1
        # a face between two solid voxels is never seen
        bare = solid & ~np.roll(padded, -sign, axis)[1:-1, 1:-1, 1:-1]
        middle = np.argwhere(bare) - centre
        step = np.eye(3)
        u, v = step[(axis + 1) % 3] / 2, step[(axis + 2) % 3] / 2
        face = middle[:, None] + sign * step[axis] / 2 + np.stack([-u - v, u - v, u + v, v - u])
        corners.append(np.stack([face @ right, face @ up], -1))
        axes.append(np.full(len(middle), axis))
        depths.append(middle @ towards)
    order = np.argsort(np.concatenate(depths), kind="stable")
    return np.concatenate(corners)[order], np.concatenate(axes)[order]


def _draw(panel: Axes, solid: np.ndarray, azimuth: float, elevation: float) -> None:
    corners, axes = faces(solid, azimuth, elevation)
    colours = np.array(LIGHT)[axes][:, None] * np.array(to_rgb(COLOUR))
    panel.add_collection(
        PolyCollection(corners, facecolors=colours, edgecolors=colours * 0.8, linewidths=0.15)
    )
    reach = 0.62 * max(solid.shape)
    panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    panel.axis("off")
