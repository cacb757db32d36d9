"""The likelihood of images: `python -m genconv.eval likelihood CHECKPOINT --data mnist`."""

import argparse
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from genconv.checkpoint import Trained, read
from genconv.data import load_images
from genconv.data.augment import binarise, dequantise
from genconv.energy.boltzmann import Path as Way
from genconv.errors import UserError, at_least
from genconv.eval.partition import Estimate, anneal, log_mean_exp, schedule
from genconv.files import replacing
from genconv.progress import progress
from genconv.sampling import Generators, gibbs
from genconv.seeds import stream

__all__ = ["main"]


def parse(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.eval likelihood",
        description="Measure the mean log-likelihood, in nats, of images under a trained energy "
        "that knows a way to its partition function (Boltzmann machines do): exactly where the "
        "states can be summed over, by annealed importance sampling elsewhere.",
    )
    add = parser.add_argument
    add("checkpoint", help="checkpoint, run folder, or exported folder")
    add("--data", required=True, help="images: a name, folder or .npz, as for training")
    add("--split", default="test", help="which of them (test)")
    add("--binarise", choices=["threshold", "sample"], help="make grey images black and white, as "
        "in training: by a threshold, or white with the probability of the grey level")  # fmt: skip
    add("-n", type=int, help="images, the first ones (all)")
    add("--runs", type=int, default=100, help="annealing runs, side by side (100)")
    add("--steps", type=int, default=10_000, help="steps of a run (10000)")
    add("--anneal", action="store_true", help="anneal even where log Z can be summed exactly")
    add("--reverse", action="store_true", help="anneal back from samples of the energy's own chain "
        "too, which bounds log Z from above where the chain has converged")  # fmt: skip
    add("--seed", type=int, default=0, help="of binarisation, runs and intervals (0)")
    add("--batch-size", type=int, default=1000, help="images at once (1000)")
    add("--root", type=Path, default=Path("data"), help="where downloads lie or go (data)")
    add("--device", help="cuda, cpu, ... (the first GPU, else the CPU)")
    add("--json", type=Path, help="FILE.json for all numbers")
    return parser.parse_args(args)


def check(options: argparse.Namespace, trained: Trained) -> None:
    """Raise a UserError for what cannot be done."""
    at_least(options, n=1, runs=2, steps=10, seed=0, batch_size=1)
    if not hasattr(trained.energy, "path"):
        raise UserError(
            f"the partition function of {type(trained.energy).__name__} is out of reach; "
            "a likelihood needs a Boltzmann machine"
        )


def prepared(options: argparse.Namespace, trained: Trained, way: Way, images: Tensor) -> Tensor:
    """Return images as the machine takes them, float32 in [-1, 1].

    Raises:
        UserError: a machine of binary units is to say how likely grey images are, or the reverse.
    """
    generator = stream(options.seed, "binarise")
    if options.binarise:
        if not way.binary:
            raise UserError("--binarise: the units of this machine are not binary; leave it out")
        return binarise(images, options.binarise, generator)
    if not way.binary:
        return dequantise(images, generator)
    if not torch.isin(images, torch.tensor([0, 255], dtype=torch.uint8)).all():
        raise UserError(
            f"{options.data} has grey pixels, and the units of this machine are binary; "
            "add --binarise sample or --binarise threshold, as in training"
        )
    return binarise(images, "threshold", generator)


def partition(
    options: argparse.Namespace, trained: Trained, way: Way
) -> tuple[Estimate, float | None]:
    """Return log Z, and the estimate from above if asked for."""
    if way.exact and not options.anneal:
        log_z = way.exact()
        return Estimate(log_z, log_z, log_z, math.inf), None
    betas, shape = schedule(options.steps), (options.runs, *trained.shape)
    device = trained.device

    def run(x: Tensor, betas: list[float], title: str, generator: Generators) -> Estimate:
        watched = progress(betas, title, len(betas))
        return log_mean_exp(anneal(way.at, x, watched, generator=generator), seed=options.seed)

    generator = stream(options.seed, "annealing", device=device)
    start = gibbs(way.at(0.0), torch.zeros(shape, device=device), steps=1, generator=generator).x
    found = run(start, betas, "annealing", generator)
    ends = {key: getattr(found, key) + way.log_z for key in ("value", "low", "high")}
    above = None
    if options.reverse:
        generator = stream(options.seed, "reverse", device=device)
        x = trained.sample(options.runs, generator=generator)
        above = way.log_z - run(x, betas[::-1], "annealing back", generator).value
    return replace(found, **ends), above


def main(args: list[str] | None = None) -> None:
    """Measure, and say how sure it is."""
    options = parse(args)
    trained = read(options.checkpoint, options.device)
    check(options, trained)
    fitting = {}
    if len(trained.shape) == 3:
        fitting = {"channels": trained.shape[0], "size": trained.shape[-1]}
    images = load_images(options.data, options.split, root=options.root, **fitting).images
    images = images[: options.n]
    if tuple(images.shape[1:]) != trained.shape:
        raise UserError(
            f"{options.data} has images of shape {tuple(images.shape[1:])}, not {trained.shape}"
        )
    device = trained.device
    # any mean serves; this one is close to what the machine has learnt
    way = trained.energy.path(images.float().mean(0).to(device) / 127.5 - 1)
    x = prepared(options, trained, way, images)
    log_z, above = partition(options, trained, way)
    with torch.no_grad():
        parts = [trained.energy(part.to(device)).double() for part in x.split(options.batch_size)]
    publish(options, trained, way, -torch.cat(parts).cpu(), log_z, above)


def publish(
    options: argparse.Namespace,
    trained: Trained,
    way: Way,
    unnormalised: Tensor,
    log_z: Estimate,
    above: float | None,
) -> None:
    """Print the table; write the JSON."""
    n, mean = len(unnormalised), unnormalised.mean().item()
    error = unnormalised.std().item() / n**0.5 if n > 1 else None
    report = {
        "energy": {"checkpoint": options.checkpoint, "weights_sha256": trained.digest()},
        "data": {key: getattr(options, key) for key in ("data", "split", "binarise")} | {"n": n},
        "seed": options.seed,
        "log_z": asdict(log_z) | {"above": above},
        "log_likelihood": {
            "value": mean - log_z.value,
            # a larger log Z is a smaller likelihood
            "low": mean - log_z.high,
            "high": mean - log_z.low,
            "standard_error": error,
        },
    }
    exact = math.isinf(log_z.effective)
    if exact:
        report["log_z"] |= {"effective": None, "method": "summed over all states"}
    else:
        report["log_z"]["method"] = f"{options.runs} annealing runs of {options.steps} steps"
    if not way.binary:
        d = math.prod(trained.shape)
        nats = mean - log_z.value - d * math.log(127.5)
        report["log_likelihood"]["bits_per_dimension"] = -nats / d / math.log(2)
    table = Table("", "nats", "95 %", title=f"{options.data}, {options.split}: n {n}")
    for name, key in [("log Z", "log_z"), ("log-likelihood", "log_likelihood")]:
        found = report[key]
        interval = "exact" if exact else f"{found['low']:.2f} to {found['high']:.2f}"
        table.add_row(name, f"{found['value']:.2f}", interval)
    console = Console(highlight=False, emoji=False)
    console.print(table)
    print(f"log Z: {report['log_z']['method']}", end="")
    print("" if exact else f", worth {log_z.effective:.0f} equal ones")
    if above is not None:
        print(f"annealing back from samples: log Z {above:.2f}, log-likelihood {mean - above:.2f}")
    if error is not None:
        print(f"standard error of the mean over images: {error:.2f}")
    if not way.binary:
        print(f"bits per dimension: {report['log_likelihood']['bits_per_dimension']:.3f}")
    if options.json:
        with replacing(options.json) as part:
            part.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
