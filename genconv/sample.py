"""The sampling command: `python -m genconv.sample runs/digits -n 100 --out digits.png`."""

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genconv.checkpoint import Trained, read
from genconv.data.clips import av
from genconv.errors import UserError, at_least, command
from genconv.gallery import MOVING, publish, tiled
from genconv.images import save_gif, to_uint8
from genconv.memory import Bites
from genconv.persistent import persistent_chains
from genconv.precision import affordable
from genconv.progress import progress
from genconv.ranks import ranks
from genconv.render import check_bodies
from genconv.sampling import compile_gradient
from genconv.seeds import stream
from genconv.unfinished import Unfinished, check_free

__all__ = ["add_flags", "main", "run", "sample"]


def labels_of(trained: Trained, rows: range, label: int | None = None) -> list[int] | None:
    """Return the classes of the images with the given numbers: `label`, or each in its turn."""
    if not trained.classes:
        return None
    return [row % trained.classes if label is None else label for row in rows]


def sample(
    trained: Trained,
    rows: range,
    *,
    seed: int = 0,
    label: int | None = None,
    bf16: bool = False,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Draw the images with the given numbers; the same ones whatever else is drawn beside them.

    Args:
        trained: energy, chain and shape.
        rows: numbers of the images; N of them.
        seed: of all images.
        label: class of all images; by default the classes of a conditional energy take turns.
        bf16: compute gradients in bfloat16.
        callback: see `genconv.sampling.langevin`.

    Returns:
        uint8 images (N, C, *space), on the CPU.

    Raises:
        UserError: a chain has left the numbers.
    """
    device = trained.device
    generators = [stream(seed, "image", row, device=device) for row in rows]
    labels = labels_of(trained, rows, label)
    y = None if labels is None else torch.tensor(labels, device=device)
    x = trained.sample(len(rows), y, generator=generators, callback=callback, bf16=bf16)
    if not x.isfinite().all():
        raise UserError("the chains have diverged; lower --step-size or --temperature")
    return to_uint8(x).cpu()


def sample_in_bites(trained: Trained, rows: range, bites: Bites, **how: Any) -> Tensor:
    """Draw the images with the given numbers, fewer at once when memory runs out.

    They are the same ones, as each has a seed of its own. Arguments and errors as in `sample`.
    """
    one = f"one image of shape {trained.shape}"
    return bites.rows(rows, lambda part: sample(trained, part, **how), one)


def film(trained: Trained, rows: range, path: Path, seconds: float = 6.0, **how: Any) -> None:
    """Write a GIF of the chains that lead to the given images; `how` as in `sample`."""
    frames, every = [], max(1, trained.chain.steps // 40)

    def record(step: int, x: Tensor) -> None:
        if step % every == 0 or step == trained.chain.steps:
            frames.append(tiled(to_uint8(x).cpu()))

    sample(trained, rows, callback=record, **how)
    # the last frame stays, to be looked at
    save_gif(path, frames + [frames[-1]] * 15, round(1000 * seconds / len(frames)))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every command that draws images."""
    parser.add_argument("-n", type=int, default=64, help="number of images (64)")
    parser.add_argument("--out", type=Path, default=Path("samples.png"),
                        help="FILE.npz (uint8 NHWC `images`), FILE.png (a grid of up to 1024), "
                        "FILE.gif or FILE.mp4 (a moving grid of up to 64 videos), or a folder "
                        "of PNGs (samples.png)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="image i depends on (seed, i) only (0)")
    parser.add_argument("--size", type=int, nargs="+",
                        help="one number for every axis, or one for each (as trained)")  # fmt: skip
    parser.add_argument("--steps", type=int, help="Langevin steps (the checkpoint's own); "
                        "0 for what a generator proposes in one pass")  # fmt: skip
    parser.add_argument("--stretch", type=int, metavar="STEPS",
                        help="go the same way in so many steps, longer or shorter ones, where "
                        "--steps stops earlier or goes on")  # fmt: skip
    parser.add_argument("--step-size", type=float, help="step size at the chain's end")
    parser.add_argument("--temperature", type=float, help="temperature at the chain's end")
    parser.add_argument("--batch-size", type=int, default=256, help="images at once (256)")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32", help="of gradients")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the gradient first: worth it for many images on a GPU",
    )
    parser.add_argument("--device", help="cuda, cpu, ... (the first GPU, else the CPU)")
    parser.add_argument("--trajectory", type=Path, help="FILE.gif of the first images' chains")
    parser.add_argument("--render", type=Path,
                        help="FILE.png of bodies of voxels, each from three sides")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def parse(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.sample", description="Draw images from a trained energy."
    )
    parser.add_argument("checkpoint", help="checkpoint, run folder, or exported folder")
    parser.add_argument("--label", type=int, help="class of all images, of a conditional energy")
    parser.add_argument("--persistent", action="store_true",
                        help="no new chains, but those of the run's replay buffer as they are, "
                        "-n of them at most")  # fmt: skip
    add_flags(parser)
    options = parser.parse_args(args)
    options.precision = affordable(options.precision, options.device)
    return options


def check(options: argparse.Namespace, trained: Trained, label: int | None = None) -> None:
    """Raise a UserError for what cannot be done."""
    # what a generator proposes is an image before the first step
    fewest = 1 if trained.generator is None else 0
    at_least(
        options, n=1, batch_size=1, steps=fewest, stretch=1, seed=0, step_size=0, temperature=0
    )
    if label is not None and not 0 <= label < (trained.classes or 0):
        raise UserError(
            f"--label {label}: this energy has "
            + (f"classes 0 to {trained.classes - 1}" if trained.classes else "no classes")
        )
    if options.out.suffix not in ("", ".npz", ".png", *MOVING):
        raise UserError(f"--out is a folder, .png, .gif, .mp4 or .npz, not {options.out}")
    if options.out.suffix in MOVING and len(trained.shape) != 4:
        raise UserError(
            f"--out {options.out} is of videos (C, T, H, W), and this energy of images "
            f"{trained.shape}; choose a .png, or --trajectory for the chains"
        )
    if options.out.suffix == ".mp4":
        # missed now, and not after the chains
        av()
    check_free(options.out, options.overwrite)
    for name in ("trajectory", "stretch"):
        if options.steps == 0 and getattr(options, name):
            raise UserError(f"--{name} is about a chain, of which --steps 0 leaves nothing")
    if options.trajectory and options.trajectory.suffix != ".gif":
        raise UserError(f"--trajectory writes a .gif, not {options.trajectory}")
    if options.render and options.render.suffix != ".png":
        raise UserError(f"--render writes a .png, not {options.render}")
    if options.render:
        check_bodies(trained.shape)


def run(
    options: argparse.Namespace,
    trained: Trained,
    label: int | None = None,
    about: dict[str, Any] | None = None,
) -> None:
    """Draw and publish images as the flags say, showing progress; resume what was cut short.

    Args:
        options: the values of `add_flags`.
        trained: what is drawn from.
        label: class of all images, of a conditional energy.
        about: plain values that the images depend on beside flags, weights and chain.

    Raises:
        UserError: a flag has a value that cannot be.
    """
    check(options, trained, label)
    chain = trained.chain.stretched(options.stretch) if options.stretch else trained.chain
    chain = chain.at(options.steps, options.step_size, options.temperature)
    trained = replace(trained, chain=chain)
    if options.size is not None:
        trained = trained.at_size(options.size)
    if options.compile:
        compile_gradient(trained.energy)
    c, *space = trained.shape
    job = {
        "weights": trained.digest(),
        "shape": list(trained.shape),
        "chain": json.loads(json.dumps(chain.to_dict())),
        "n": options.n,
        "seed": options.seed,
        "label": label,
        "precision": options.precision,
        # the generators of a GPU give other noise
        "device": trained.device.type,
        **(about or {}),
    }
    how = {"seed": options.seed, "label": label, "bf16": options.precision == "bf16"}
    bites, size, team = Bites(options.batch_size), options.batch_size, ranks()
    with ExitStack() as stack:
        # of several processes each draws every so many-th batch, and the first one writes them all
        work = None
        if team.first:
            work = stack.enter_context(Unfinished(options.out, job, (options.n, *space, c)))
        done = team.agree(work and work.done)
        rounds = range(done, options.n, size * team.world)
        for begin in progress(rounds, "sampling") if team.first else rounds:
            first = begin + team.rank * size
            rows = range(first, max(first, min(first + size, options.n)))
            drawn = sample_in_bites(trained, rows, bites, **how).numpy() if rows else None
            batches = team.gather((rows, drawn))
            if work is None:
                continue
            for rows, images in batches:
                if images is not None:
                    work.images[rows.start : rows.stop] = np.moveaxis(images, 1, -1)
            work.mark(min(begin + size * team.world, options.n))
        if work is None:
            return
        publish(work.images, labels_of(trained, range(options.n), label), options)
        work.remove()
    if options.trajectory is not None:
        film(trained, range(min(options.n, 64)), options.trajectory, **how)
    print(f"{options.n} images: {options.out}")


def take(options: argparse.Namespace, trained: Trained) -> None:
    """Publish the persistent chains of a run as images.

    Raises:
        UserError: there are none, or a flag asks to change them.
    """
    check(options, trained)
    changes = ["label", "size", "steps", "stretch", "step_size", "temperature", "trajectory"]
    for name in changes:
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise UserError(f"--persistent takes the chains as they are; leave out --{flag}")
    images = persistent_chains(options.checkpoint)[0][: options.n]
    publish(images.movedim(1, -1).numpy(), labels_of(trained, range(len(images))), options)
    print(f"{len(images)} images: {options.out}")


def main(args: list[str] | None = None) -> None:
    """Sample from the checkpoint that the command line names."""
    options = parse(args)
    trained = read(options.checkpoint, options.device)
    if options.persistent:
        take(options, trained)
    else:
        run(options, trained, options.label)


if __name__ == "__main__":
    command(main)
