"""The benchmark: `python -m genconv.eval ood CHECKPOINT --in cifar10 --out svhn --folder OUT`."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from genconv.checkpoint import Trained, read
from genconv.errors import UserError, at_least
from genconv.eval.detection import Detection, detect
from genconv.eval.measuring import Measuring
from genconv.eval.ood_sets import (
    BUILT_IN,
    CONTROL,
    Set,
    controlled,
    load_inside,
    load_outside,
)
from genconv.eval.outcome import averaged, groups, protocol, publish
from genconv.eval.scores import SCORES, applicable, needed, score_all
from genconv.eval.statistics import Statistics
from genconv.memory import Bites
from genconv.progress import progress
from genconv.ranks import Ranks, ranks

__all__ = ["main"]

RESAMPLES = 1000


def measure_all(
    measuring: Measuring, sets: Sequence[Set], batch_size: int, team: Ranks
) -> list[Statistics]:
    """Measure every set, with one bar for all; of several processes each takes some batches."""
    work = [
        (place, first)
        for place, images in enumerate(sets)
        for first in range(0, len(images.images), batch_size)
    ]
    mine = range(team.rank, len(work), team.world)
    measured: dict[int, Statistics] = {}
    for number in progress(mine, "measuring") if team.first else mine:
        place, first = work[number]
        measured[number] = measuring(sets[place].images[first : first + batch_size], first)
    found: list[list[Statistics]] = [[] for _ in sets]
    for number, part in sorted(chain(*(share.items() for share in team.gather(measured)))):
        found[work[number][0]].append(part)
    return [
        {name: torch.cat([part[name] for part in parts]) for name in measuring.wanted}
        for parts in found
    ]


def evaluate(
    names: Sequence[str], statistics: dict[str, Statistics], validation: Statistics
) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, str]]]:
    """Score every set in each way.

    Returns:
        scores by score and set, and a sentence where they are not finite: a chain that diverges on
        noise must not cost the other numbers.
    """
    scores: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    errors: dict[str, dict[str, str]] = {name: {} for name in names}
    for name in names:
        for key, measured in statistics.items():
            try:
                values = score_all([name], measured, validation)[name]
            except UserError as error:
                errors[name][key] = str(error)
                continue
            if bad := int((~torch.isfinite(values)).sum()):
                errors[name][key] = f"{bad} of {len(values)} images of {key} have no finite {name}"
            else:
                scores[name][key] = values
    return scores, errors


def parse(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.eval ood",
        description="Measure how well scores of a trained energy tell sets of images apart.",
    )
    add = parser.add_argument
    add("checkpoint", help="checkpoint, run folder, or exported folder")
    add("--in", dest="inside", required=True, metavar="NAME",
        help="in-distribution images: a name, folder or .npz, as for training")  # fmt: skip
    add("--in-split", default="test", help="its split that is told from others (test)")
    add("--validation", default="train", help="its split that scores are fitted on (train); if "
        "both are the same, they take a half each")  # fmt: skip
    add("--out", action="append", required=True, metavar="NAME[:SPLIT]",
        help="images from elsewhere, once for each set: a name, folder or .npz, or one of "
        f"{', '.join(BUILT_IN)}; each becomes of the energy's size and channels")  # fmt: skip
    add("--scores", nargs="+", metavar="SCORE",
        help=f"which of {', '.join(SCORES)} (all that this energy can give)")  # fmt: skip
    add("-n", type=int, default=2000, help="images of each set, at most (2000)")
    add("--near", nargs="+", default=[], metavar="NAME", help="sets to average as near; the "
        "others are far")  # fmt: skip
    add("--control", help="send all sets through one pipeline first: jpegQUALITY (jpeg75), or "
        "resizeSIDE, down and up again (resize: half the side)")  # fmt: skip
    add("--background", help="checkpoint of an energy for the score `ratio`")
    add("--steps", type=int, default=10, help="Langevin steps of the refine scores (10)")
    add("--root", type=Path, default=Path("data"), help="where downloads lie or go (data)")
    add("--seed", type=int, default=0, help="of choices, built-in sets, chains, intervals (0)")
    add("--batch-size", type=int, default=256, help="images at once (256)")
    add("--device", help="cuda, cpu, ... (the first GPU, else the CPU)")
    add("--folder", type=Path, required=True, help="where report.html, ood.json and pictures go")
    add("--json", type=Path, help="another place for ood.json")
    return parser.parse_args(args)


def check(options: argparse.Namespace, trained: Trained, background: Trained | None) -> None:
    """Raise a UserError for what cannot be done, before anything long begins."""
    at_least(options, n=2, steps=1, seed=0, batch_size=1)
    match = re.fullmatch(CONTROL, options.control or "jpeg")
    if not match or not 1 <= int(match[2] or 75) <= (100 if match[1] == "jpeg" else 1024):
        raise UserError(
            f"no control {options.control!r}; take jpeg75, or another quality of 1 to 100, or "
            "resize, or resize16 for a smallest side of 16"
        )
    if twice := [name for name in options.out if options.out.count(name) > 1]:
        raise UserError(f"--out {twice[0]} is given twice")
    if options.inside in options.out:
        raise UserError(
            f"--out {options.inside} is the in-distribution set; "
            f"name another split of it, as {options.inside}:train"
        )
    if odd := [name for name in options.near if name not in options.out]:
        raise UserError(f"--near {odd[0]} is none of the --out sets {', '.join(options.out)}")
    needed(options.scores or [])
    if lacking := set(options.scores or []) - set(applicable(trained, background)):
        raise UserError(
            f"the score {min(lacking)!r} needs "
            + ("--background" if "ratio" in lacking else "an energy with classes")
        )
    for folder in (options.folder, options.json.parent if options.json else options.folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error


def main(args: list[str] | None = None) -> None:
    """Load, measure, score, and write down how well the scores tell the sets apart."""
    options = parse(args)
    run(options, ranks())


def run(options: argparse.Namespace, team: Ranks) -> None:
    """Do what the flags say; of several processes all measure, and the first does the rest."""
    trained = read(options.checkpoint, options.device)
    background = read(options.background, options.device) if options.background else None
    check(options, trained, background)
    names = options.scores or applicable(trained, background)
    with team.first_alone():
        inside, validation = load_inside(options, trained.shape)
        outside = [load_outside(name, inside.images, options) for name in options.out]
    sets = [
        replace(s, images=controlled(s.images, options.control))
        for s in (validation, inside, *outside)
    ]
    measuring = Measuring(
        trained, needed(names), options.seed, Bites(options.batch_size), background, options.steps
    )
    fitted, *measured = measure_all(measuring, sets, options.batch_size, team)
    if not team.first:
        return
    statistics = {s.name: m for s, m in zip(sets[1:], measured, strict=True)}
    scores, errors = evaluate(names, statistics, fitted)
    results: dict[str, dict[str, Detection | str]] = {name: {} for name in options.out}
    pairs = [(name, score) for name in options.out for score in names]
    for name, score in progress(pairs, "bootstrap"):
        found = scores[score]
        missing = errors[score].get(inside.name) or errors[score].get(name)
        results[name][score] = missing or detect(
            found[inside.name], found[name], resamples=RESAMPLES, seed=options.seed
        )
    averages = {
        group: {score: averaged([results[name][score] for name in members]) for score in names}
        for group, members in groups(options).items()
    }
    how = protocol(options, trained, background, sets, names, RESAMPLES)
    publish(options, how, sets[1:], scores, results, averages)
