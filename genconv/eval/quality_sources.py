"""Where the images that are judged come from: chains, files, folders and data sets."""

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genconv.checkpoint import CARD, read
from genconv.data import Images, load_images
from genconv.errors import UserError
from genconv.eval.kept import kept, shelf
from genconv.eval.ood_sets import split_of
from genconv.images import digest
from genconv.memory import Bites
from genconv.sample import sample_in_bites

__all__ = ["BLOCK", "Source", "blocks", "held", "open_source"]

# images that are drawn, looked at and kept together; twice the 256 which genconv.sample draws at
# once, so that both draw the same batches
BLOCK = 512


@dataclass(frozen=True)
class Source:
    """Images by their numbers.

    Attributes:
        name: as the user gave it.
        n: how many.
        shape: (C, H, W).
        take: gives uint8 images (N, C, H, W), those with the given numbers.
        about: what they depend on, as plain values.
    """

    name: str
    n: int
    shape: tuple[int, ...]
    take: Callable[[range], Tensor]
    about: dict[str, Any]


def blocks(rows: range) -> list[range]:
    """Cut numbers of images into blocks."""
    return [range(a, min(a + BLOCK, rows.stop)) for a in range(rows.start, rows.stop, BLOCK)]


def held(name: str, split: str | None, images: Tensor) -> Source:
    """Make a source of images in memory."""
    if images.ndim != 4:
        raise UserError(f"{name} holds no pictures, but data of shape {tuple(images.shape[1:])}")
    about = {"source": name, "split": split, "n": len(images), "sha256": digest(images)}
    shape = tuple(images.shape[1:])
    return Source(name, len(images), shape, lambda rows: images[rows.start : rows.stop], about)


def open_source(
    name: str, options: argparse.Namespace, shape: tuple[int, ...] | None = None
) -> Source:
    """Open a checkpoint, whose images are drawn as they are asked for, or load images.

    Args:
        name: checkpoint, run folder or exported folder; a folder of images, an `.npz` or the name
            of a data set, with `:SPLIT` where it is not "test".
        options: the command's.
        shape: (C, H, W) to which a named data set is fitted; files stay as they are.

    Raises:
        UserError: there is no such thing, or it has fewer than `-n` images, or one alone.
    """
    path = Path(name)
    if path.suffix == ".ckpt" or (path / "checkpoints").is_dir() or (path / CARD).is_file():
        return _drawn(name, options)
    source, split = split_of(name)
    fitted = {} if shape is None or path.exists() else fitting(shape)
    images = load_images(source, split, root=options.root, **fitted).images
    n = len(images) if options.n is None else options.n
    if n > len(images):
        raise UserError(f"{name} has {len(images)} images, not {n}; leave -n out to take all")
    if n < 2:
        raise UserError(
            f"{name} is one image, and quality is of many: name a folder or an .npz "
            "(a grid is not cut into its images)"
        )
    return held(name, None if path.is_file() else split, images[:n])


def fitting(shape: tuple[int, ...]) -> dict[str, int | None]:
    """Return the arguments of `load_images` that make images of this shape, where any do."""
    channels, height, width = shape
    return {
        "size": height if height == width else None,
        "channels": channels if channels in (1, 3) else None,
    }


def load_reference(options: argparse.Namespace, shape: tuple[int, ...]) -> Images:
    """Load the data that samples are held against, fitted to their shape as for training.

    Raises:
        UserError: there are none, or they cannot be made of this shape.
    """
    images = load_images(options.data, options.split, root=options.root, **fitting(shape))
    if images.shape != shape:
        raise UserError(
            f"{options.data} has images of shape {images.shape} and the samples {shape}; "
            "compare images of one shape"
        )
    return images


def _drawn(name: str, options: argparse.Namespace) -> Source:
    trained = read(name, options.device)
    chain = trained.chain.at(options.steps, options.step_size, options.temperature)
    trained = replace(trained, chain=chain)
    if len(trained.shape) != 3:
        raise UserError(f"{name} draws no pictures, but data of shape {trained.shape}")
    job = {
        "weights_sha256": trained.digest(),
        "chain": json.loads(json.dumps(chain.to_dict())),
        "seed": options.seed,
        "precision": options.precision,
        # the generators of a GPU give other noise
        "device": torch.device(options.device).type,
    }
    whole = json.dumps([job, trained.card()["energy"]], sort_keys=True)
    key = hashlib.sha256(whole.encode()).hexdigest()[:16]
    folder = shelf(options.root) / f"samples-{key}"

    bites = Bites(options.batch_size)
    how = {"seed": options.seed, "bf16": options.precision == "bf16"}

    def draw(rows: range) -> Tensor:
        return sample_in_bites(trained, rows, bites, **how)

    def take(rows: range) -> Tensor:
        path = folder / f"{rows.start:07d}-{rows.stop:07d}.npz"
        found = kept(path, ["images"], len(rows), lambda: {"images": draw(rows).numpy()})
        return torch.from_numpy(found["images"])

    n = options.n or 50_000
    about = {
        "source": name,
        "n": n,
        **job,
        "weights": "averaged, where training kept an average",
        "updates": trained.updates,
        "classes": "in turn" if trained.classes else None,
        "levels": "clamped to [-1, 1], rounded to 256 levels",
    }
    return Source(name, n, trained.shape, take, about)
