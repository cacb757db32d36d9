"""Quality against work: `python -m genconv.eval steps CHECKPOINT --data digits --folder OUT`."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, ScalarFormatter
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

import genconv
from genconv.checkpoint import Trained, read
from genconv.data import load_images
from genconv.errors import UserError, at_least
from genconv.eval.features import extract, load_extractor
from genconv.eval.frechet import Moments, frechet_distance
from genconv.files import replacing
from genconv.memory import Bites
from genconv.precision import affordable
from genconv.progress import progress
from genconv.sample import sample_in_bites

__all__ = ["Point", "main", "pick", "pixels"]

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2)
HALVES, RESAMPLES = 10, 10
SIDE = 8


@dataclass(frozen=True)
class Point:
    """What so many steps give.

    Attributes:
        steps: of the stretched chain.
        distance: Fréchet distance to the data, in units of that of two random halves of them.
        error: its standard error over samples, by the bootstrap.
        seconds: for 1,000 samples, on this machine.
    """

    steps: int
    distance: float
    error: float
    seconds: float


def pick(points: Sequence[Point], target: float | None = None) -> Point | None:
    """Return the cheapest point that will do, or None where none does.

    Args:
        points: in any order.
        target: distance that will do; by default that of the best, and its error and a tenth more.
    """
    best = min(points, key=lambda p: p.distance)
    enough = 1.1 * best.distance + best.error if target is None else target
    good = [p for p in points if p.distance <= enough]
    return min(good, key=lambda p: p.steps) if good else None


def pixels(images: Tensor) -> Tensor:
    """Return the pixels of uint8 images (N, C, *space), means of blocks where more than 8 a side.

    A covariance of thousands of pixels would need more samples than anyone draws.

    Returns:
        float64 (N, D).
    """
    size = [min(SIDE, side) for side in images.shape[2:]]
    return F.interpolate(images.float(), size=size, mode="area").flatten(1).double()


def measure(
    trained: Trained,
    steps: int,
    options: argparse.Namespace,
    features: Callable[[Tensor], Tensor],
    reference: Moments,
    floor: float,
) -> Point:
    """Draw samples in so many steps and measure them."""
    stretched = replace(trained, chain=trained.chain.stretched(steps))
    bites, begun = Bites(options.batch_size), time.perf_counter()
    images = torch.cat(
        [
            sample_in_bites(
                stretched,
                range(i, min(i + options.batch_size, options.n)),
                bites,
                seed=options.seed,
                bf16=options.precision == "bf16",
            )
            for i in progress(range(0, options.n, options.batch_size), f"{steps} steps")
        ]
    )
    seconds = time.perf_counter() - begun
    seen = features(images)
    order = np.random.default_rng(options.seed)
    again = [
        frechet_distance(
            Moments.of(seen[torch.from_numpy(order.integers(len(seen), size=len(seen)))]), reference
        )
        for _ in range(RESAMPLES)
    ]
    distance = frechet_distance(Moments.of(seen), reference)
    error = float(np.std(again, ddof=1))
    return Point(steps, distance / floor, error / floor, seconds * 1000 / options.n)


def between_halves(features: Tensor) -> float:
    """Return the mean Fréchet distance between two random halves of the data."""
    middle, found = len(features) // 2, []
    for seed in range(HALVES):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(features)))
        halves = features[order[:middle]], features[order[middle:]]
        found.append(frechet_distance(*(Moments.of(half) for half in halves)))
    return float(np.mean(found))


def plot(path: Path, points: Sequence[Point], chosen: Point | None) -> None:
    """Draw distance over steps, both logarithmic, and mark the choice."""
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    panel = figure.subplots()
    steps, distances = [p.steps for p in points], [p.distance for p in points]
    panel.errorbar(
        steps, distances, [p.error for p in points], fmt="o-", color="#0072B2", markersize=4
    )
    if chosen is not None:
        panel.plot(
            [chosen.steps], [chosen.distance], "o", color="#D55E00", label="picked", zorder=3
        )
    panel.axhline(1, color="#BBBBBB", linewidth=1, label="two halves of the data")
    panel.set(xscale="log", yscale="log", xlabel="Langevin steps", ylabel="Fréchet distance")
    panel.set_xticks(steps, [str(s) for s in steps], minor=False)
    # what a decade's ticks would leave bare
    panel.yaxis.set_major_locator(LogLocator(2))
    panel.yaxis.set_major_formatter(ScalarFormatter())
    panel.minorticks_off()
    panel.legend()
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)


def parse(args: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.eval steps",
        description="Measure samples of chains that go the same way in fewer, longer steps or in "
        "more, shorter ones, and pick the fewest that will do.",
    )
    add = parser.add_argument
    add("checkpoint", help="checkpoint, run folder, or exported folder")
    add("--data", required=True, help="images to compare with: a name, folder or .npz")
    add("--split", default="train", help="of the data (train)")
    add("--root", type=Path, default=Path("data"), help="where downloads lie or go (data)")
    add("--steps", type=int, nargs="+", help="numbers of steps (1/16 to twice the chain's own)")
    add("-n", type=int, default=1000, help="samples for each (1000)")
    add("--target", type=float, help="distance that will do, in units of two halves of the data "
        "(a tenth and one standard error more than the best)")  # fmt: skip
    add("--features", help="network of features, as load_extractor reads it (pixels, averaged to "
        "8 a side)")  # fmt: skip
    add("--seed", type=int, default=0, help="sample i starts from the same noise for all (0)")
    add("--batch-size", type=int, default=256, help="images at once (256)")
    add("--precision", choices=["32", "bf16"], default="32", help="of gradients")
    add("--device", help="cuda, cpu, ... (the first GPU, else the CPU)")
    add("--folder", type=Path, required=True, help="where steps.json and steps.png go")
    options = parser.parse_args(args)
    options.precision = affordable(options.precision, options.device)
    return options


def main(args: list[str]) -> None:
    """Measure, print the table and pick."""
    options = parse(args)
    at_least(options, n=2, seed=0, batch_size=1, steps=1)
    trained = read(options.checkpoint, options.device)
    c, *space = trained.shape
    square = len(space) == 2 and space[0] == space[1] and c in (1, 3)
    data = load_images(
        options.data,
        options.split,
        root=options.root,
        size=space[0] if square else None,
        channels=c if square else None,
    )
    if data.shape != trained.shape or len(data) < 4:
        raise UserError(
            f"{options.data} holds {len(data)} images of shape {data.shape}; this needs some of "
            f"{trained.shape}"
        )
    network = load_extractor(options.features) if options.features else None

    def features(images: Tensor) -> Tensor:
        if network is None:
            return pixels(images)
        return extract(network, images, device=options.device or "cpu").features

    real = features(data.images)
    reference, floor = Moments.of(real), between_halves(real)
    own = trained.chain.steps
    wanted = sorted(set(options.steps or [max(1, round(own * share)) for share in SHARES]))
    points = [measure(trained, steps, options, features, reference, floor) for steps in wanted]
    table = Table("steps", "distance / halves", "seconds for 1,000", title=f"n={options.n}")
    for p in points:
        table.add_row(str(p.steps), f"{p.distance:.2f} ± {p.error:.2f}", f"{p.seconds:.1f}")
    Console().print(table)
    chosen = pick(points, options.target)
    plot(options.folder / "steps.png", points, chosen)
    report = {
        "genconv": genconv.__version__,
        "weights": trained.digest(),
        "chain": trained.chain.to_dict(),
        "data": {"name": options.data, "split": options.split, "n": len(data)},
        "n": options.n,
        "seed": options.seed,
        "features": options.features or f"pixels averaged to {SIDE} a side",
        "between_halves": floor,
        "points": [asdict(p) for p in points],
        "target": options.target,
        "picked": chosen and chosen.steps,
    }
    with replacing(options.folder / "steps.json") as part:
        part.write_text(json.dumps(report, indent=2) + "\n")
    if chosen is None:
        best = min(points, key=lambda p: p.distance)
        raise UserError(
            f"no number of steps reaches --target {options.target:g}; the nearest is "
            f"{best.distance:.2f}, with {best.steps} steps"
        )
    print(
        f"{chosen.steps} steps will do: python -m genconv.sample {options.checkpoint} "
        f"--stretch {chosen.steps}"
    )
