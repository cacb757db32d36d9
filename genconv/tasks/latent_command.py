"""What a generator adds: `python -m genconv.edit reconstruct` and `interpolate`."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import genconv
from genconv.checkpoint import Trained, read
from genconv.data import load_images
from genconv.errors import UserError, at_least
from genconv.files import replacing
from genconv.images import digest, to_uint8
from genconv.memory import Bites
from genconv.progress import progress
from genconv.tasks.judging import judge
from genconv.tasks.latent import between, class_means, explain, principal, revise
from genconv.tasks.pictures import plot_columns
from genconv.tasks.posing import load
from genconv.unfinished import Unfinished, check_free

__all__ = ["main"]

ABOUT = {
    "reconstruct": "Find the latent vectors that explain images, and show what is made of them.",
    "interpolate": "Go straight ways in latent space between pairs of images, revised by the "
    "energy.",
}
# energies of the data beyond which a way has left them
QUANTILE = 0.95


def parse(task: str, args: list[str]) -> argparse.Namespace:
    """Read the command line of one task."""
    parser = argparse.ArgumentParser(prog=f"python -m genconv.edit {task}", description=ABOUT[task])
    add = parser.add_argument
    add("checkpoint", help="checkpoint, run folder, or exported folder, of cooperative training")
    add("images", help="a data name, an image file, a folder of them, or an .npz")
    add("--out", type=Path, required=True, help="folder of results.npz, report.json, picture.png")
    if task == "reconstruct":
        add("-n", type=int, default=64, help="images, the first of the set, at most (64)")
        add("--against", metavar="DATA", help="compare with the class means and the principal "
            "components of this training set")  # fmt: skip
    else:
        add("--pairs", type=int, default=8, help="ways, from image 0 to 1, 2 to 3, ...; the "
            "energies of all images say where the data are (8)")  # fmt: skip
        add("--points", type=int, default=9, help="on each way, both ends included (9)")
    add("--split", default="test", help="of a data name or folder (test)")
    add("--root", type=Path, default=Path("data"), help="where downloads lie or go (data)")
    add("--starts", type=int, default=8, help="latent chains for each image, of which the best "
        "end counts (8)")  # fmt: skip
    add("--steps", type=int, help="steps of the latent chains (the checkpoint's own)")
    add("--step-size", type=float, help="step size at the latent chains' end")
    add("--revise", type=int, metavar="STEPS", help="Langevin steps by which the energy revises "
        "what the generator makes (the checkpoint's own)")  # fmt: skip
    add("--temperature", type=float, help="of these steps, 0 for a descent (the checkpoint's own)")
    add("--seed", type=int, default=0, help="start s of image i depends on (seed, i, s) only (0)")
    add("--batch-size", type=int, default=256, help="latent chains at once (256)")
    add("--device", help="cuda, cpu, ... (the first GPU, else the CPU)")
    add("--overwrite", action="store_true", help="replace what is in OUT")
    return parser.parse_args(args)


def explain_all(
    work: Unfinished, trained: Trained, images: Tensor, options: argparse.Namespace
) -> Tensor:
    """Return the latent vectors of all images, showing progress; go on with what was cut short."""
    device = trained.device
    kept = work.images.view(np.float32)[..., 0]
    most = max(1, options.batch_size // options.starts)
    bites = Bites(most)

    def explained(numbers: range) -> Tensor:
        x = images[numbers.start : numbers.stop].to(device)
        return explain(trained, x, numbers, options.starts, options.seed)

    for begin in progress(range(work.done, len(images), most), "explaining"):
        numbers = range(begin, min(begin + most, len(images)))
        z = bites.rows(numbers, explained, f"one image of shape {trained.shape}")
        if not z.isfinite().all():
            raise UserError("the latent chains have diverged; lower --step-size")
        kept[begin : numbers.stop] = z.cpu().numpy()
        work.mark(numbers.stop)
    return torch.from_numpy(kept.copy()).to(device)


def reconstruct(
    trained: Trained, truth: Tensor, z: Tensor, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Return a report, the arrays to be kept, and the columns of the picture."""
    made = trained.generator(z)
    revised = revise(trained, made, range(len(z)), options.seed).cpu()
    made = made.cpu()
    estimates = {"generator": made, "generator, revised by the energy": revised}
    if options.against:
        train = load_train(options, trained.shape)
        images = load_images(options.images, options.split, root=options.root)
        known = load_images(options.against, "train", root=options.root)
        if images.labels is not None and known.labels is not None:
            y = images.labels[: len(truth)]
            estimates["mean image of the class"] = class_means(train, known.labels, y)
        estimates["mean image"] = train.mean(0).expand_as(truth)
        estimates[f"{z.shape[1]} principal components"] = principal(train, truth, z.shape[1])
    counted = torch.ones_like(truth, dtype=torch.bool)
    table = {
        name: {
            "squared_error": float((x.clamp(-1, 1) - truth).square().mean()),
            **judge(x, truth, counted),
        }
        for name, x in estimates.items()
    }
    columns = {"image": truth, "generator": made, "revised": revised}
    return {"table": table}, {"images": made, "revised": revised, "truth": truth}, columns


def load_train(options: argparse.Namespace, shape: tuple[int, ...]) -> Tensor:
    """Load the training images of `--against`, in [-1, 1]."""
    of = {"images": options.against, "split": "train", "n": None, "root": options.root}
    return load(argparse.Namespace(**of), shape)


def interpolate(
    trained: Trained, images: Tensor, z: Tensor, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Return a report, the arrays to be kept, and the columns of the picture."""
    ends = images[: len(z)]
    made = trained.generator(between(z[::2], z[1::2], options.points).flatten(0, 1))
    # one noise for all points of a way, which so changes no faster than it has to
    streams = [i // options.points for i in range(len(made))]
    ways = {
        "generator": made,
        "generator, revised by the energy": revise(trained, made, streams, options.seed),
        "blended pixels": between(ends[::2], ends[1::2], options.points).flatten(0, 1).to(z.device),
    }
    data = torch.cat([trained.energy(x.to(z.device)).cpu() for x in images.split(256)])
    limit = data.quantile(QUANTILE)
    energies = {name: trained.energy(x).cpu() for name, x in ways.items()}
    table = {
        name: {
            "mean": float(e.mean()),
            "highest": float(e.max()),
            "within": float((e <= limit).double().mean()),
        }
        for name, e in energies.items()
    }
    report = {
        "data": {"n": len(data), "mean": float(data.mean()), "percentile_95": float(limit)},
        "table": table,
    }
    path, revised = (
        ways[name].cpu().unflatten(0, (-1, options.points))
        for name in ("generator", "generator, revised by the energy")
    )
    along = {f"{i / (options.points - 1):.3g}": revised[:, i] for i in range(options.points)}
    columns = {"from": ends[::2], **along, "to": ends[1::2]}
    kept = energies["generator, revised by the energy"].view(-1, options.points)
    return report, {"images": revised, "generator": path, "energies": kept}, columns


def show(task: str, report: dict[str, Any]) -> None:
    """Print what was measured."""
    if task == "reconstruct":
        heads = {"squared_error": "squared error\nper pixel", "psnr": "PSNR, dB", "ssim": "SSIM"}
        title = f"reconstruct, n={report['n']}"
    else:
        data = report["data"]
        heads = {"mean": "mean", "highest": "highest", "within": "within the\n95th percentile"}
        title = (
            f"energies along {report['n'] // 2} ways; of {data['n']} images: "
            f"mean {data['mean']:.2f}, 95th percentile {data['percentile_95']:.2f}"
        )
    table = Table("", *heads.values(), title=title)
    for name, row in report["table"].items():
        table.add_row(name, *("-" if row[key] is None else f"{row[key]:.4g}" for key in heads))
    Console().print(table)


def publish(out: Path, arrays: dict[str, Tensor], space: int) -> None:
    """Write results.npz: images as uint8 with the channel last, all else as it is.

    Args:
        out: folder.
        arrays: images (..., C, *space) and lists of numbers.
        space: number of spatial dimensions of an image.
    """

    def kept(x: Tensor) -> np.ndarray:
        return to_uint8(x).movedim(-space - 1, -1).numpy() if x.ndim > 2 else x.cpu().numpy()

    with replacing(out / "results.npz") as part, part.open("wb") as file:
        np.savez(file, **{name: np.ascontiguousarray(kept(x)) for name, x in arrays.items()})


def main(task: str, args: list[str]) -> None:
    """Explain images, showing progress, and go on with what was cut short."""
    options = parse(task, args)
    counts = {"n": 1, "pairs": 1, "points": 2, "starts": 1, "batch_size": 1, "steps": 1}
    at_least(options, **counts, revise=0, seed=0, step_size=0, temperature=0)
    trained = read(options.checkpoint, options.device)
    if trained.generator is None:
        raise UserError(
            f"{options.checkpoint} has no generator; cooperative training teaches one: "
            "python -m genconv.train --config digits_coop"
        )
    check_free(options.out, options.overwrite)
    latent = trained.latent.at(options.steps, options.step_size)
    chain = trained.chain.at(options.revise, None, options.temperature)
    trained = replace(trained, latent=latent, chain=chain)
    options.n = getattr(options, "n", None)
    images = load(options, trained.shape)
    if task == "interpolate":
        options.n = 2 * options.pairs
        if len(images) < options.n:
            raise UserError(
                f"{options.images} holds {len(images)} images, and --pairs {options.pairs} needs "
                f"{options.n}"
            )
    elif options.against:
        # missed now, and not after the chains
        load_train(options, trained.shape)
    job = {
        "task": task,
        "weights": trained.digest(),
        "latent": json.loads(json.dumps(latent.to_dict())),
        "chain": json.loads(json.dumps(chain.to_dict())),
        "images": options.images,
        "pixels": digest(images[: options.n])[:12],
        "split": options.split,
        "n": min(options.n, len(images)),
        "starts": options.starts,
        "seed": options.seed,
        "device": trained.device.type,
    }
    with Unfinished(options.out, job, (job["n"], trained.generator.latent, 4)) as work:
        z = explain_all(work, trained, images[: job["n"]], options)
        with torch.no_grad():
            answer = {"reconstruct": reconstruct, "interpolate": interpolate}[task]
            measured, arrays, columns = answer(trained, images, z, options)
        report = {"genconv": genconv.__version__, "torch": torch.__version__, **job, **measured}
        show(task, report)
        publish(options.out, {**arrays, "latent": z}, len(trained.shape) - 1)
        plot_columns(options.out / "picture.png", columns)
        with replacing(options.out / "report.json") as part:
            part.write_text(json.dumps(report, indent=2) + "\n")
        work.remove()
    print(f"{job['n']} images: {options.out}")
