"""Adversarial images: `python -m genconv.eval robustness CHECKPOINT --data digits --folder OUT`."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

import genconv
from genconv.checkpoint import Trained, read
from genconv.data import Images, load_images
from genconv.errors import UserError, at_least
from genconv.eval.classifier import SmallClassifier
from genconv.eval.purify import Purified
from genconv.eval.quality_networks import own
from genconv.eval.quality_sources import fitting
from genconv.eval.robustness import Attempt, Outcome, attempts, doubts, survived, tried
from genconv.files import replacing
from genconv.images import from_uint8, grid, save_png, to_uint8
from genconv.memory import Bites
from genconv.progress import progress
from genconv.sampling import frozen
from genconv.seeds import stream

__all__ = ["main"]

SHOWN = 12


def radius(word: str) -> float:
    """Read a radius, as 0.03 or 8/255.

    Raises:
        UserError: it is none.
    """
    try:
        value = float(Fraction(word))
    except (ValueError, ZeroDivisionError):
        value = 0.0
    if value <= 0:
        raise UserError(f"--radii {word}: give numbers above 0, as 0.03 or 8/255")
    return value


def parse(args: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.eval robustness",
        description="Measure how many images are classified rightly when the worst small change is "
        "made to them: by a classifier, by the same classifier behind an energy that purifies what "
        "it sees, and by a conditional energy itself. Attacks know all of it, the chain included.",
    )
    add = parser.add_argument
    add("checkpoint", help="checkpoint, run folder, or exported folder")
    add("--data", required=True, help="images with classes: a name, folder or .npz")
    add("--split", default="test", help="of the data, to be attacked (test)")
    add("--classifier", type=Path, metavar="FILE", help="SmallClassifier .safetensors (one is "
        "trained on the data's train split, and kept)")  # fmt: skip
    add("--radii", nargs="+", default=["2/255", "4/255", "8/255", "16/255", "32/255"],
        metavar="R", help="largest changes, of values in [0, 1] (2/255 to 32/255)")  # fmt: skip
    add("--norm", choices=["linf", "l2"], default="linf", help="of the change (linf)")
    add("--steps", type=int, default=20, help="of an attack (20)")
    add("--time", type=float, default=0.75, help="to which images are put back to be purified, on "
        "the way from noise, 0, to images, 1 (0.75)")  # fmt: skip
    add("--length", type=int, help="steps of the chain from there (all that are left of it)")
    add("--runs", type=int, default=4, help="chains for each image; 0 for no purification, which "
        "takes most of the time (4)")  # fmt: skip
    add("-n", type=int, default=100, help="images, the first ones (100)")
    add("--seed", type=int, default=0, help="of chains and attacks (0)")
    add("--batch-size", type=int, default=100, help="images at once (100)")
    add("--root", type=Path, default=Path("data"), help="where downloads lie or go (data)")
    add("--device", help="cuda, cpu, ... (the first GPU, else the CPU)")
    add("--folder", type=Path, required=True, help="where robustness.json and pictures go")
    return parser.parse_args(args)


def check(options: argparse.Namespace, trained: Trained) -> None:
    """Raise a UserError for what cannot be done."""
    at_least(options, n=1, steps=1, runs=0, seed=0, batch_size=1, length=1, time=0)
    if options.time > 1:
        raise UserError(f"--time must be at most 1, where images are, not {options.time:g}")
    if len(trained.shape) != 3 or trained.context:
        raise UserError(
            f"{options.checkpoint} is no energy of images (C, H, W), which a classifier needs"
        )
    if not options.runs and not trained.classes:
        raise UserError("--runs 0 leaves nothing of an energy without classes to be measured")
    options.radii = dict(sorted((radius(word), word) for word in options.radii))
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {options.folder}: {error.strerror}") from error


def load(options: argparse.Namespace, trained: Trained) -> tuple[Images, SmallClassifier]:
    """Return what is attacked, and the classifier."""
    shape = trained.shape
    images = load_images(options.data, options.split, root=options.root, **fitting(shape))
    if images.labels is None or images.shape != shape:
        raise UserError(
            f"{options.data} holds images of shape {images.shape}"
            + ("" if images.labels is not None else " without classes")
            + f"; this needs some of {shape}, with classes"
        )
    if options.classifier:
        classifier = SmallClassifier.load(options.classifier)
        wide = classifier.arguments["channels"], classifier.arguments["classes"]
        if wide[0] != shape[0] or wide[1] <= int(images.labels.max()):
            raise UserError(f"{options.classifier} is for {wide[0]} channels and {wide[1]} classes")
    else:
        train = load_images(options.data, "train", root=options.root, **fitting(shape))
        how = argparse.Namespace(
            data=options.data, split="train", root=options.root, device=options.device
        )
        classifier = own(how, train).extractor
    return images, classifier


def main(args: list[str]) -> None:
    """Attack, print the table, and write down what was found."""
    options = parse(args)
    trained = read(options.checkpoint, options.device)
    options.device = str(trained.device)
    check(options, trained)
    images, classifier = load(options, trained)
    classifier = classifier.to(options.device)
    classes = classifier.arguments["classes"]
    purified = Purified(classifier.logits, trained, options.time, options.length, options.runs)
    x, y = (some[: options.n].to(options.device) for some in (images.images, images.labels))
    x, bites, radii = from_uint8(x), Bites(options.batch_size), [0.0, *options.radii]
    ways = attempts(classifier, purified, trained.classes == classes)
    if trained.classes and trained.classes != classes:
        print(f"not attacked itself: the energy has {trained.classes} classes, the data {classes}")
    how = {"norm": options.norm, "steps": options.steps, "seed": options.seed}

    def everywhere(attempt: Attempt, radius: float) -> Outcome:
        def work(size: int) -> Outcome:
            parts = [
                tried(attempt, x[i : i + size], y[i : i + size], radius, first=i, **how)
                for i in range(0, len(x), size)
            ]
            return Outcome(
                torch.cat([part.right for part in parts]),
                torch.cat([part.images for part in parts]),
            )

        return bites.take(work, f"one image of shape {trained.shape}")

    outcomes: list[list[Outcome]] = [[] for _ in ways]
    with frozen(classifier), frozen(trained.energy):
        pairs = [(place, radius) for place in range(len(ways)) for radius in radii]
        for place, radius in progress(pairs, "attacking"):
            outcomes[place].append(everywhere(ways[place], radius))
        picture = pictured(x[:SHOWN], ways, outcomes, purified, options.seed)
    save_png(options.folder / "attacked.png", picture)
    right = {
        f"{way.defence}, {way.attack}": torch.stack(
            [o.right for o in found] if way.target is None else survived(found)
        )
        for way, found in zip(ways, outcomes, strict=True)
    }
    if purified.runs:
        ways = [rows for name, rows in right.items() if name.startswith("purified")]
        right["purified, worst of the three"] = torch.stack(ways).all(0)
    publish(options, trained, classifier, right, radii, chance=1 / classes)


def pictured(
    x: Tensor,
    ways: Sequence[Attempt],
    outcomes: Sequence[Sequence[Outcome]],
    purified: Purified,
    seed: int,
) -> Tensor:
    """Lay out images, what attacks at the largest radius make of them, and the energy of that."""
    rows, n = [x.cpu()], len(x)
    for way, found in zip(ways, outcomes, strict=True):
        name = f"{way.defence}, {way.attack}"
        attacked = found[-1].images[:n]
        if name in ("classifier, attacked", "purified, attacked through the chain"):
            rows += [attacked]
            if purified.runs:
                generators = [stream(seed, "shown", i, device=x.device) for i in range(n)]
                with torch.no_grad():
                    once = replace(purified, runs=1).purify(attacked.to(x.device), generators)
                rows += [once.cpu()]
        elif name == "energy, attacked":
            rows += [attacked]
    return grid(to_uint8(torch.cat(rows)), n, scale=max(1, 48 // x.shape[-1]))


def publish(
    options: argparse.Namespace,
    trained: Trained,
    classifier: SmallClassifier,
    right: dict[str, Tensor],
    radii: Sequence[float],
    chance: float,
) -> None:
    """Print the table; write numbers and curves."""
    n = next(iter(right.values())).shape[1]
    rows = {name: found.double().mean(1).tolist() for name, found in right.items()}
    intervals = {
        name: [tuple(binomtest(int(k), n).proportion_ci(method="wilson")) for k in found.sum(1)]
        for name, found in right.items()
    }
    warnings = doubts(rows, chance)
    table = Table("", "clean", *options.radii.values(), title=f"accuracy, n={n}")
    for name, found in rows.items():
        table.add_row(name, *(f"{value:.1%}" for value in found))
    Console(highlight=False, emoji=False).print(table)
    for warning in warnings:
        print(f"doubtful: {warning}")
    plot(options.folder / "robustness.png", radii, rows, intervals, options.norm)
    report = {
        "genconv": genconv.__version__,
        "weights_sha256": trained.digest(),
        "chain": trained.chain.to_dict(),
        "time": options.time,
        "length": options.length,
        "runs": options.runs,
        "classifier": classifier.about,
        "data": {"name": options.data, "split": options.split, "n": n},
        "attack": {"norm": options.norm, "steps": options.steps, "seed": options.seed},
        "radii": list(radii),
        "accuracy": rows,
        "intervals": intervals,
        "doubts": warnings,
    }
    with replacing(options.folder / "robustness.json") as part:
        part.write_text(json.dumps(report, indent=2) + "\n")
    print(f"numbers and pictures: {options.folder}")


def plot(
    path: Path,
    radii: Sequence[float],
    rows: dict[str, list[float]],
    intervals: dict[str, list[tuple[float, float]]],
    norm: str,
) -> None:
    """Draw accuracy over the radius, with the 95 % intervals of every attacked defence."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    panel = figure.subplots()
    lines: dict[str, tuple[str, str]] = {
        "classifier, random noise": ("#999999", ":"),
        "classifier, attacked": ("#D55E00", "-"),
        "purified, the classifier attacked": ("#56B4E9", ":"),
        "purified, worst of the three": ("#0072B2", "-"),
        "energy, attacked": ("#009E73", "-"),
    }
    for name, (colour, line) in lines.items():
        if name in rows:
            panel.plot(radii, rows[name], line, color=colour, marker="o", markersize=3, label=name)
            if line == "-":
                low, high = zip(*intervals[name], strict=True)
                panel.fill_between(radii, low, high, color=colour, alpha=0.15, linewidth=0)
    panel.set(xlabel=f"largest change ({norm}), of values in [0, 1]", ylabel="accuracy")
    panel.set(ylim=(-0.02, 1.02))
    panel.legend(fontsize=8)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)
