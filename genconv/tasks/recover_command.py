"""The recovery commands: `python -m genconv.edit inpaint CHECKPOINT IMAGES --out DIR` and so on."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import genconv
from genconv.checkpoint import Trained, read
from genconv.data import load_images
from genconv.data.guess import guess
from genconv.energy import context_of
from genconv.errors import UserError, at_least
from genconv.files import replacing
from genconv.images import digest
from genconv.memory import Bites
from genconv.precision import affordable
from genconv.progress import progress
from genconv.render import check_bodies
from genconv.seeds import stream
from genconv.tasks.answers import ANSWERS, choose
from genconv.tasks.baselines import restoration
from genconv.tasks.judging import judge_all, show
from genconv.tasks.pictures import plot_coverage
from genconv.tasks.posing import fitted, pose
from genconv.tasks.problems import Problem
from genconv.tasks.recover import recover
from genconv.tasks.results import publish, render
from genconv.tasks.think import think
from genconv.unfinished import Unfinished, check_free

__all__ = ["main"]

KNOBS = ("mask", "start", "factor", "blur", "noise", "guidance", "returns")
ABOUT = {
    "inpaint": "Fill in what a mask hides.",
    "denoise": "Take white noise away.",
    "upscale": "Give images more pixels; every block of them keeps its mean.",
    "colourise": "Give grey images colours of the same grey.",
    "deblur": "Undo a Gaussian blur.",
}


def parse(task: str, args: list[str]) -> argparse.Namespace:
    """Read the command line of one task."""
    parser = argparse.ArgumentParser(
        prog=f"python -m genconv.edit {task}",
        description=f"{ABOUT[task]} Draws several answers for each image, and tells how they vary.",
    )
    add = parser.add_argument
    add("checkpoint", help="checkpoint, run folder, or exported folder")
    add("images", help="a data name, an image file, a folder of them, or an .npz")
    add("--out", type=Path, required=True, help="folder of results.npz, report.json and pictures")
    add("--degrade", action="store_true", help="IMAGES are the truth: degrade them first, and "
        "measure what is recovered beside classical methods")  # fmt: skip
    if task == "inpaint":
        add("--mask", default="box", help="box[:SHARE OF A SIDE], frames[:SHARE], dropped[:SHARE] "
            "(frames here and there), random[:SHARE], or an image file, white where pixels are "
            "missing (box:0.5)")  # fmt: skip
        add("--start", choices=["noise", "interpolation", "smooth", "grey"],
            default="noise", help="of the chains; interpolation is along the first spatial axis, "
            "time of a video, smooth along all, grey is 0 (noise)")  # fmt: skip
    if task == "upscale":
        add("--factor", type=int, default=2, help="in every spatial direction (2)")
    if task == "deblur":
        add("--blur", type=float, required=True, help="standard deviation in pixels")
    if task in ("denoise", "deblur"):
        add("--noise", type=float, required=True, help="standard deviation, where black is -1 and "
            "white 1: 2/255 of that of 8-bit levels")  # fmt: skip
    else:
        add("--guidance", type=float, default=1.0, help="less lets draws vary more and agree less "
            "with what is known; 0 is fast (1)")  # fmt: skip
    add("--returns", type=int, default=0, help="go the middle of a noiseless way so many times "
        "again: draws agree with what is known, and vary as much as they should (0)")  # fmt: skip
    add("--examples", metavar="IMAGES", help="with --degrade: compare with the nearest and the "
        "mean of these too; of a data name or folder those to train on")  # fmt: skip
    add("--render", action="store_true", help="draw bodies of voxels too: render.png")
    add("--split", default="test", help="of a data name or folder (test)")
    add("--root", type=Path, default=Path("data"), help="where downloads lie or go (data)")
    add("-n", type=int, default=64, help="images, the first of the set, at most (64)")
    add("--draws", type=int, default=8, help="answers for each image (8)")
    answers = "; ".join(f"{name}, {what}" for name, what in ANSWERS.items())
    add("--answer", choices=list(ANSWERS), default="mean", help=f"{answers} (mean)")
    add("--seed", type=int, default=0, help="draw d of image i depends on (seed, i, d) only (0)")
    add("--label", type=int, help="class of all images, of a conditional energy")
    add("--steps", type=int, help="Langevin steps, or how long to think (the checkpoint's own)")
    add("--step-size", type=float, help="step size at the chain's end")
    add("--temperature", type=float, help="temperature at the chain's end")
    add("--batch-size", type=int, default=256, help="draws at once (256)")
    add("--precision", choices=["32", "bf16"], default="32", help="of gradients")
    add("--device", help="cuda, cpu, ... (the first GPU, else the CPU)")
    add("--overwrite", action="store_true", help="replace what is in OUT")
    options = parser.parse_args(args)
    options.precision = affordable(options.precision, options.device)
    return options


def check(task: str, options: argparse.Namespace, trained: Trained) -> None:
    """Raise a UserError for what cannot be done, before anything long begins."""
    at_least(
        options,
        n=1,
        draws=1,
        batch_size=1,
        seed=0,
        steps=1,
        step_size=0,
        temperature=0,
        guidance=0,
        returns=0,
        factor=2,
    )
    for flag in ("noise", "blur"):
        value = getattr(options, flag, None)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{flag} must be positive, not {value}")
    if trained.context and task not in ("denoise", "inpaint"):
        raise UserError(
            f"{task} needs an energy of images alone; this one was taught to denoise and to inpaint"
        )
    chains = {"start": "noise", "guidance": 1.0, "returns": 0}
    for flag in chains if trained.context else ():
        if getattr(options, flag, chains[flag]) != chains[flag]:
            raise UserError(f"--{flag} is about chains from noise, and this energy thinks")
    if trained.classes and not 0 <= (-1 if options.label is None else options.label) < (
        trained.classes
    ):
        raise UserError(f"this energy needs --label, a class of 0 to {trained.classes - 1}")
    if options.label is not None and not trained.classes:
        raise UserError(f"--label {options.label}: this energy has no classes")
    check_free(options.out, options.overwrite)


def condition(
    trained: Trained, problem: Problem, measured: Tensor, rows: Tensor, options: Any
) -> Tensor | None:
    """Return what the energy is told of the images with these numbers: a context or labels."""
    device = trained.device
    if trained.context:
        seen = problem.seen(measured[rows])
        return context_of(seen, problem.known(rows)).to(device)
    return None if options.label is None else torch.full((len(rows),), options.label, device=device)


def draw(
    trained: Trained, problem: Problem, measured: Tensor, numbers: range, options: Any
) -> Tensor:
    """Return the draws with these numbers, (N, C, *space): number k is draw k % D of image k // D.

    Raises:
        UserError: a chain has left the numbers.
    """
    device = trained.device
    rows = torch.tensor([k // options.draws for k in numbers])
    y = condition(trained, problem, measured, rows, options)
    start = None
    if getattr(options, "start", "noise") != "noise":
        start = guess(measured[rows], problem.missing[rows], options.start).to(device)
    how = {
        "generator": [
            stream(options.seed, "recover", *divmod(k, options.draws), device=device)
            for k in numbers
        ],
        "bf16": options.precision == "bf16",
    }
    if trained.context:
        x = think(trained.energy, trained.chain, y, exact=problem.noise == 0, **how)
    else:
        x = recover(
            trained.energy,
            trained.chain,
            trained.shape,
            problem.measurement(rows, device),
            measured[rows].to(device),
            y,
            noise=problem.noise,
            guidance=getattr(options, "guidance", 0.0),
            returns=options.returns,
            start=start,
            **how,
        )
    if not x.isfinite().all():
        raise UserError("the chains have diverged; lower --step-size or --temperature")
    return x.cpu()


def draw_all(
    work: Unfinished, trained: Trained, problem: Problem, measured: Tensor, options: Any
) -> Tensor:
    """Return all draws (N, D, C, *space), showing progress; go on with what was cut short."""
    total, bites = len(work.images), Bites(options.batch_size)
    kept = work.images.view(np.float32)[..., 0]

    def drawn(numbers: range) -> Tensor:
        return draw(trained, problem, measured, numbers, options)

    for begin in progress(range(work.done, total, options.batch_size), "recovering"):
        numbers = range(begin, min(begin + options.batch_size, total))
        one = f"one draw of shape {trained.shape}"
        kept[begin : numbers.stop] = bites.rows(numbers, drawn, one).numpy()
        work.mark(numbers.stop)
    return torch.from_numpy(kept.copy()).unflatten(0, (len(measured), options.draws))


@torch.no_grad()
def energies_of(
    trained: Trained, problem: Problem, measured: Tensor, draws: Tensor, options: Any
) -> Tensor:
    """Return the energies (N, D) of draws (N, D, C, *space)."""
    rows = torch.arange(len(draws)).repeat_interleave(draws.shape[1])
    each = draws.flatten(0, 1)

    def some(part: range) -> Tensor:
        taken = slice(part.start, part.stop)
        y = condition(trained, problem, measured, rows[taken], options)
        return trained.energy(each[taken].to(trained.device), y).cpu()

    bites, one = Bites(options.batch_size), f"one image of shape {trained.shape}"
    return bites.rows(range(len(each)), some, one).unflatten(0, draws.shape[:2])


def main(task: str, args: list[str]) -> None:
    """Recover images, showing progress, and go on with what was cut short."""
    options = parse(task, args)
    trained = read(options.checkpoint, options.device)
    check(task, options, trained)
    chain = trained.chain.at(options.steps, options.step_size, options.temperature)
    trained = replace(trained, chain=chain)
    problem, measured, truth = pose(task, options, trained.shape)
    if truth is not None:
        # missed now, and not after the chains
        restoration()
    examples = None
    if options.examples is not None:
        if truth is None:
            raise UserError("--examples are to be compared with; add --degrade")
        examples = load_images(options.examples, "train", root=options.root).images
        examples = fitted(examples, options.examples, trained.shape)
    if options.render:
        check_bodies(trained.shape)
    job = {
        "task": task,
        "weights": trained.digest(),
        "chain": json.loads(json.dumps(chain.to_dict())),
        "images": options.images,
        # the same names may by then be of other pictures
        "hole": None if problem.missing is None else digest(problem.missing)[:12],
        "pixels": digest(measured)[:12],
        "split": options.split,
        "n": len(measured),
        "draws": options.draws,
        "answer": options.answer,
        "seed": options.seed,
        "label": options.label,
        "precision": options.precision,
        "device": trained.device.type,
        "degrade": options.degrade,
        **{name: getattr(options, name, None) for name in KNOBS},
    }
    # float32 as its bytes, since a projection is to be exact
    total = len(measured) * options.draws
    with Unfinished(options.out, job, (total, *trained.shape, 4)) as work:
        draws = draw_all(work, trained, problem, measured, options)
        energies = energies_of(trained, problem, measured, draws, options)
        report = {"genconv": genconv.__version__, "torch": torch.__version__, **job}
        if truth is not None:
            report |= judge_all(
                task, problem, measured, truth, draws, energies, options.seed, examples
            )
            if "coverage" in report:
                covered = {float(p): share for p, share in report["coverage"].items()}
                plot_coverage(options.out / "calibration.png", covered)
            show(task, report)
        chosen = choose(options.answer, draws, energies, problem.counted(len(draws)))
        publish(options.out, problem, measured, truth, draws, energies, options.answer, chosen)
        if options.render:
            render(options.out, problem, measured, truth, draws, options.answer, chosen)
        with replacing(options.out / "report.json") as part:
            part.write_text(json.dumps(report, indent=2) + "\n")
        work.remove()
    print(f"{len(measured)} images, {options.draws} draws of each: {options.out}")
