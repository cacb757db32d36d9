"""The benchmark: `python -m genconv.eval ood CHECKPOINT --in cifar10 --out svhn --folder OUT`."""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import PIL
import torch
from rich.console import Console
from torch import Tensor

import genconv
from genconv.checkpoint import Trained, read
from genconv.errors import UserError
from genconv.eval.detection import Detection, average, detect
from genconv.eval.measuring import Measuring
from genconv.eval.ood_sets import (
    BUILT_IN,
    CONTROL,
    Set,
    controlled,
    load_inside,
    load_outside,
)
from genconv.eval.plots import plot_histograms, plot_roc, table
from genconv.eval.scores import SCORES, applicable, needed, score_all
from genconv.eval.statistics import Statistics
from genconv.files import replacing
from genconv.memory import Bites
from genconv.progress import progress

__all__ = ["main"]

RESAMPLES = 1000
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def measure_all(measuring: Measuring, sets: Sequence[Set], batch_size: int) -> list[Statistics]:
    """Measure every set, with one bar for all."""
    found: list[list[Statistics]] = [[] for _ in sets]
    work = [
        (place, first)
        for place, images in enumerate(sets)
        for first in range(0, len(images.images), batch_size)
    ]
    for place, first in progress(work, "measuring"):
        batch = sets[place].images[first : first + batch_size]
        found[place].append(measuring(batch, first))
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
    add("--folder", type=Path, required=True, help="where tables, pictures and ood.json go")
    add("--json", type=Path, help="another place for ood.json")
    return parser.parse_args(args)


def check(options: argparse.Namespace, trained: Trained, background: Trained | None) -> None:
    """Raise a UserError for what cannot be done, before anything long begins."""
    for flag, value, least in [
        ("-n", options.n, 2),
        ("--steps", options.steps, 1),
        ("--seed", options.seed, 0),
        ("--batch-size", options.batch_size, 1),
    ]:
        if value < least:
            raise UserError(f"{flag} must be at least {least}, not {value}")
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


def groups(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the sets over which numbers are averaged, by the name of the average."""
    near = [name for name in options.out if name in options.near]
    far = [name for name in options.out if name not in options.near]
    if not near:
        return {"all": far}
    return {"near": near} | ({"far": far} if far else {})


def protocol(
    options: argparse.Namespace,
    trained: Trained,
    background: Trained | None,
    sets: Sequence[Set],
    names: Sequence[str],
) -> dict[str, Any]:
    """Return all that the numbers depend on, as plain values; the first set is the validation."""
    energy = {"checkpoint": options.checkpoint, "weights_sha256": trained.digest()}
    other = {"checkpoint": options.background, "weights_sha256": background and background.digest()}
    described = [{"name": s.name, "split": s.split, "n": len(s.images)} for s in sets]
    return {
        "genconv": genconv.__version__,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "energy": {**energy, **trained.card()},
        "background": other if background else None,
        "validation": described[0],
        "in": described[1],
        "out": described[2:],
        "near": options.near,
        "n": options.n,
        "fit": "middle square, bicubic with antialiasing; grey by the ITU-R 601 luma",
        "control": options.control,
        "scores": list(names),
        "refine": trained.chain.continued(options.steps).to_dict(),
        "seed": options.seed,
        "resamples": RESAMPLES,
        "batch_size": options.batch_size,
    }


def _quantiles(values: Tensor) -> dict[str, float]:
    points = values.quantile(torch.tensor(QUANTILES, dtype=values.dtype)).tolist()
    return {f"{q:g}": point for q, point in zip(QUANTILES, points, strict=True)}


def main(args: list[str] | None = None) -> None:
    """Load, measure, score, and write down how well the scores tell the sets apart."""
    options = parse(args)
    trained = read(options.checkpoint, options.device)
    background = read(options.background, options.device) if options.background else None
    check(options, trained, background)
    names = options.scores or applicable(trained, background)
    inside, validation = load_inside(options, trained.shape)
    outside = [load_outside(name, inside.images, options) for name in options.out]
    sets = [
        replace(s, images=controlled(s.images, options.control))
        for s in (validation, inside, *outside)
    ]
    measuring = Measuring(
        trained, needed(names), options.seed, Bites(options.batch_size), background, options.steps
    )
    fitted, *measured = measure_all(measuring, sets, options.batch_size)
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
    how = protocol(options, trained, background, sets, names)
    publish(options, how, scores, results, averages)


def averaged(detections: Sequence[Detection | str]) -> dict[str, float] | str:
    """Return the average, or the first error: one of fewer sets would not compare."""
    for detection in detections:
        if isinstance(detection, str):
            return detection
    return average(detections)


def publish(
    options: argparse.Namespace,
    how: dict[str, Any],
    scores: dict[str, dict[str, Tensor]],
    results: dict[str, dict[str, Detection | str]],
    averages: dict[str, dict[str, dict[str, float] | str]],
) -> None:
    """Print the tables; write the pictures and the JSON."""
    console = Console(highlight=False, emoji=False)
    inside = how["in"]
    console.print(
        f"{inside['name']}: n {inside['n']}, scores fitted on {how['validation']['n']} others; "
        f"control {how['control'] or 'none'}; seed {how['seed']}",
        markup=False,
    )
    for told, rows in zip(how["out"], results.values(), strict=True):
        n, n_in = told["n"], inside["n"]
        title = f"{told['name']}: n {n}, prevalence {n / (n + n_in):.3f}"
        console.print(table(title, rows))
    if len(results) > 1:
        for group, rows in averages.items():
            console.print(table(f"average over sets: {group}", rows))
    drawn = {score: sets for score, sets in scores.items() if inside["name"] in sets}
    written = [options.json or options.folder / "ood.json"]
    if drawn:
        written += [options.folder / "histograms.png", options.folder / "roc.png"]
        plot_histograms(written[1], drawn, inside["name"])
        plot_roc(written[2], drawn, inside["name"])
    quantiles = {
        score: {name: _quantiles(values) for name, values in sets.items()}
        for score, sets in scores.items()
    }
    report = {
        "protocol": how,
        "sets": {name: _plain(rows) for name, rows in results.items()},
        "averages": {name: _plain(rows) for name, rows in averages.items()},
        "quantiles": quantiles,
    }
    with replacing(written[0]) as part:
        part.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    print("\n".join(f"wrote {path}" for path in written))


def _plain(rows: dict[str, Any]) -> dict[str, Any]:
    return {score: _plain_row(row) for score, row in rows.items()}


def _plain_row(row: Detection | dict[str, float] | str) -> dict[str, Any]:
    if isinstance(row, str):
        return {"error": row}
    return asdict(row) if isinstance(row, Detection) else row
