"""What a recovery command leaves: arrays, and pictures to look at."""

from pathlib import Path

import numpy as np
from torch import Tensor

from genconv.files import replacing
from genconv.images import save_gif, save_png, to_uint8
from genconv.render import VIEWS, plot_voxels
from genconv.tasks.pictures import plot_recovery
from genconv.tasks.problems import Problem

__all__ = ["publish", "render"]


def render(
    out: Path,
    problem: Problem,
    measured: Tensor,
    truth: Tensor | None,
    draws: Tensor,
    answer: str,
    chosen: Tensor,
) -> None:
    """Draw bodies as `plot_recovery` does images, without their spread."""
    columns = {} if truth is None else {"truth": truth}
    columns |= {"observed": problem.seen(measured), "draw 1": draws[:, 0], answer: chosen}
    plot_voxels(out / "render.png", {k: to_uint8(x) for k, x in columns.items()}, VIEWS[:1])


def publish(
    out: Path,
    problem: Problem,
    measured: Tensor,
    truth: Tensor | None,
    draws: Tensor,
    energies: Tensor,
    answer: str,
    chosen: Tensor,
) -> None:
    """Write results.npz, the answers as pictures where they are such, and before and after.

    Images become PNGs, and videos in colours GIFs.
    """

    def last(x: Tensor, axis: int = 1) -> np.ndarray:
        return np.ascontiguousarray(x.movedim(axis, -1).numpy())

    mean = draws.mean(1)
    arrays = {
        "images": last(to_uint8(chosen)),
        "mean": last(mean),
        "draws": last(draws, 2),
        "energies": energies.numpy(),
        "measured": last(measured),
    }
    if draws.shape[1] > 1:
        arrays["std"] = last(draws.std(1))
    if truth is not None:
        arrays["truth"] = last(truth)
    with replacing(out / "results.npz") as part, part.open("wb") as file:
        np.savez(file, **arrays)
    wide = len(str(len(mean) - 1))
    for i, image in enumerate(to_uint8(chosen)):
        if image.ndim == 3 and len(image) in (1, 3):
            save_png(out / answer / f"{i:0{wide}d}.png", image)
        elif image.ndim == 4 and len(image) == 3:
            save_gif(out / answer / f"{i:0{wide}d}.gif", image.unbind(1))
    plot_recovery(out / "picture.png", truth, problem.seen(measured), draws)
