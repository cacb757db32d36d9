"""Sample quality: `python -m genconv.eval quality CHECKPOINT|SAMPLES --data cifar10 -n 50000`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

import genconv
from genconv.errors import UserError, at_least, command
from genconv.eval.kept import shelf
from genconv.eval.quality_features import MOST, Looking, Seen, look
from genconv.eval.quality_networks import Network, inception, other, own
from genconv.eval.quality_numbers import SETTINGS, Number, compare, warnings_of
from genconv.eval.quality_sources import (
    BLOCK,
    Source,
    blocks,
    held,
    load_reference,
    open_source,
)
from genconv.eval.shards import parse_shard, part
from genconv.files import replacing
from genconv.images import grid, save_png
from genconv.precision import affordable
from genconv.ranks import Ranks, ranks

__all__ = ["main"]

EPILOG = """\
The first run downloads the Inception network's weights (91 MB) once; where there is no network,
docs/quality.md says which file to put where. Samples, and what was seen in images, are kept in
ROOT/cache: a run that was cut short goes on where it stopped, and another -n, reference or
network begins with what is there. With --shard I/K a process only does its part of the drawing and
looking; when all have, the same command without --shard gives the numbers.
"""


def parse(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.eval quality",
        description="Measure how good samples are: FID, IS, KID, precision, recall, density, "
        "coverage.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sources", nargs="+", metavar="SAMPLES",
        help="checkpoint, run folder or exported folder; .npz or folder of images; or the name of "
        "a data set, as cifar10:test")  # fmt: skip
    add("--data", required=True, metavar="NAME",
        help="reference images: a name, folder or .npz, as for training")  # fmt: skip
    add("--split", default="train", help="of the reference (train)")
    add("-n", type=int, help="number of samples (50000 of a checkpoint, else all there are)")
    add("--infinity", action="store_true", help="also extrapolate FID to infinitely many samples")
    add("--weights", type=Path, help="the Inception network's file (torch.hub's, or downloaded)")
    add("--features", metavar="FILE",
        help="another network: TorchScript .pt, or SmallClassifier .safetensors; `train` trains "
        "one on the labels of the reference and keeps it. Its numbers are not FID")  # fmt: skip
    add("--json", type=Path, help="FILE.json of numbers and protocol")
    add("--neighbours", type=Path, metavar="FILE.png",
        help="picture of the first samples, each with the reference images nearest to it in "
        "features")  # fmt: skip
    add("--shard", default="0/1", metavar="I/K", help="only part I, from 0, of K (0/1)")
    add("--seed", type=int, default=0, help="of drawn images, as in genconv.sample (0)")
    add("--steps", type=int, help="Langevin steps (the checkpoint's own)")
    add("--step-size", type=float, help="step size at the chain's end")
    add("--temperature", type=float, help="temperature at the chain's end")
    add("--precision", choices=["32", "bf16"], default="32", help="of the chain's gradients")
    add("--batch-size", type=int, default=256, help=f"images at once, at most {BLOCK} (256)")
    add("--device", help="cuda, cpu, ... (the first GPU, else the CPU)")
    add("--root", type=Path, default=Path("data"), help="where downloads lie or go (data)")
    options = parser.parse_args(args)
    options.precision = affordable(options.precision, options.device)
    return options


def check(options: argparse.Namespace) -> tuple[int, int]:
    """Return shard and number of shards; raise a UserError for what cannot be done."""
    at_least(options, n=2, batch_size=1, steps=1, seed=0, step_size=0, temperature=0)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"there is no device {options.device!r} here") from error
    if options.weights and options.features:
        raise UserError("--weights are the Inception network's; leave them or --features out")
    shard, shards = parse_shard(options.shard)
    if shards > 1 and options.features == "train":
        raise UserError(
            "--shard needs a network that is there; run once with --features train and a small -n, "
            "then name the file that it keeps"
        )
    for path in (options.json, options.neighbours):
        if path is not None:
            if path.is_dir():
                raise UserError(f"{path} is a folder; name a file in it")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"cannot make the folder {path.parent}: {error.strerror}"
                ) from error
    return shard, shards


def open_all(options: argparse.Namespace) -> list[Source]:
    """Open the sources, all of whose images must have one shape."""
    sources: list[Source] = []
    for name in options.sources:
        sources.append(open_source(name, options, sources[0].shape if sources else None))
        if sources[-1].shape != sources[0].shape:
            raise UserError(
                f"{name} has images of shape {sources[-1].shape} and {sources[0].name} of "
                f"{sources[0].shape}; compare images of one shape"
            )
    return sources


def neighbours(path: Path, source: Source, fake: Seen, real: Seen, images: torch.Tensor) -> None:
    """Draw the first ten samples, and to the right of each its eight nearest reference images."""
    first = source.take(blocks(range(source.n))[0])[:10]
    apart = torch.cdist(fake.features[: len(first)].double(), real.features.double())
    nearest = apart.topk(min(8, len(real.features)), largest=False).indices
    gap = torch.full_like(first[:1], 255)
    rows = [
        torch.cat([one[None], gap, images[real.rows[near]]])
        for one, near in zip(first, nearest, strict=True)
    ]
    scale = max(1, 64 // first.shape[-1])
    save_png(path, grid(torch.cat(rows), columns=len(rows[0]), scale=scale))


def main(args: list[str] | None = None) -> None:
    """Draw, look, compare, and say what the numbers are of."""
    options = parse(args)
    run(options, ranks())


def run(options: argparse.Namespace, team: Ranks) -> None:
    """Do what the flags say, or a process's part of it and, in the first one, what is left."""
    if team.world > 1:
        if options.shard != "0/1":
            raise UserError("torchrun shares the work out already; leave out --shard")
        options.shard = f"{team.rank}/{team.world}"
    shard, shards = check(options)
    options.batch_size = min(options.batch_size, BLOCK)
    # what may be missing is asked for before anything long
    network = None
    with team.first_alone():
        sources = open_all(options)
        if options.features is None:
            network = inception(options.weights)
        elif options.features != "train":
            network = other(Path(options.features))
        images = load_reference(options, sources[0].shape)
    network = network or own(options, images)
    network.check(images.shape)
    # a file has no splits
    split = None if Path(options.data).is_file() else options.split
    reference = held(options.data, split, images.images)
    folder = shelf(options.root)
    looking = Looking(network, folder, options.batch_size, options.device)
    if shards > 1:
        done = 0
        for source in (reference, *sources):
            done += sum(1 for _ in looking(source, part(source.n, BLOCK, shard, shards)))
        print(f"part {shard} of {shards}: {done} blocks of up to {BLOCK} images are in {folder}")
        if team.world == 1:
            return
        team.wait()
        if not team.first:
            return
    real = look(looking, reference, options.seed)
    results = []
    for source in sources:
        fake = look(looking, source, options.seed)
        warnings = warnings_of(fake, real)
        numbers = compare(
            fake,
            real,
            published=network.published,
            infinity=options.infinity,
            # float64 is for CPUs and CUDA
            device=options.device if options.device.startswith("cuda") else "cpu",
        )
        results.append((source, numbers, warnings))
        if options.neighbours is not None and source is sources[0]:
            neighbours(options.neighbours, source, fake, real, images.images)
    publish(options, protocol(reference, network), results)


def protocol(reference: Source, network: Network) -> dict[str, Any]:
    """Return all that the numbers depend on but the samples, as plain values."""
    return {
        "genconv": genconv.__version__,
        "torch": torch.__version__,
        "reference": reference.about,
        "extractor": network.about,
        "levels": "uint8",
        "settings": SETTINGS,
        "most rows in memory": MOST,
    }


def publish(
    options: argparse.Namespace,
    how: dict[str, Any],
    results: Sequence[tuple[Source, dict[str, Number], list[str]]],
) -> None:
    """Print the tables with their protocol; write the JSON."""
    console = Console(highlight=False, emoji=False)
    for source, numbers, warnings in results:
        reference = " ".join(filter(None, (how["reference"][key] for key in ("source", "split"))))
        title = f"{source.name} against {reference}"
        table = Table("", "value", "std", title=Text(title), title_justify="left")
        for number in numbers.values():
            value, std = ("-" if x is None else f"{x:.4g}" for x in (number.value, number.std))
            table.add_row(number.label, value, std)
        console.print(table)
        for sentence in [f"{n.label}: {n.error}" for n in numbers.values() if n.error]:
            console.print(sentence, markup=False, soft_wrap=True)
        console.print(f"samples: {told(source.about)}", markup=False, soft_wrap=True)
        for sentence in warnings:
            print(f"warning: {source.name}: {sentence}", file=sys.stderr)
    for name in ("reference", "extractor"):
        console.print(f"{name}: {told(how[name])}", markup=False, soft_wrap=True)
    if options.json is not None:
        report = {
            "protocol": how,
            "results": [
                {
                    "samples": source.about,
                    "numbers": {key: number.to_dict() for key, number in numbers.items()},
                    "warnings": warnings,
                }
                for source, numbers, warnings in results
            ],
        }
        with replacing(options.json) as file:
            file.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    for path in (options.json, options.neighbours):
        if path is not None:
            print(f"wrote {path}")


def told(about: dict[str, Any]) -> str:
    """Write plain values as one line."""
    return ", ".join(f"{key} {value}" for key, value in about.items() if value is not None)


if __name__ == "__main__":
    command(main)
