"""Where drawn images go: one file of all, a picture, a moving picture, or a folder of PNGs."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genconv.data.clips import save_film
from genconv.files import replacing
from genconv.images import moving, save_gif, save_png, sheet
from genconv.render import plot_voxels

__all__ = ["MOVING", "publish", "tiled", "write_images"]

MOVING = (".gif", ".mp4")


def tiled(images: Tensor) -> Tensor:
    """Return a sheet of uint8 images (N, C, *space), each large enough to be seen."""
    return sheet(images, scale=max(1, 48 // images.shape[-1]))


def publish(images: np.ndarray, labels: list[int] | None, options: argparse.Namespace) -> None:
    """Write images, uint8 (n, *space, C), as the flags `out` and `render` say."""
    write_images(images, labels, options.out)
    if options.render is not None:
        first = torch.from_numpy(np.ascontiguousarray(images[:8])).movedim(-1, 1)
        plot_voxels(options.render, first)


def write_images(images: np.ndarray, labels: list[int] | None, out: Path) -> None:
    """Write images, uint8 (n, *space, C), as OUT.npz, one OUT.png, .gif or .mp4, or as PNGs."""
    if out.suffix == ".npz":
        named = {"images": images} if labels is None else {"images": images, "labels": labels}
        with replacing(out) as part, part.open("wb") as file:
            np.savez(file, **named)
    elif out.suffix == ".png":
        first = torch.from_numpy(np.ascontiguousarray(images[:1024])).movedim(-1, 1)
        save_png(out, tiled(first))
    elif out.suffix in MOVING:
        first = torch.from_numpy(np.ascontiguousarray(images[:64])).movedim(-1, 1)
        save = save_gif if out.suffix == ".gif" else save_film
        save(out, moving(first, scale=max(1, 96 // first.shape[-1])))
    else:
        out.mkdir(parents=True, exist_ok=True)
        # an earlier, longer job's images would lie among these
        for old in [*out.glob("*.png"), *out.glob("*/*.png")]:
            if old.stem.isdigit() and (old.parent == out or old.parent.name.isdigit()):
                old.unlink()
        digits = len(str(len(images) - 1))
        for i, image in enumerate(images):
            place = out if labels is None else out / str(labels[i])
            one = torch.from_numpy(image.copy()).movedim(-1, 0)
            if one.ndim != 3:
                one = sheet(one[None])
            save_png(place / f"{i:0{digits}d}.png", one)
