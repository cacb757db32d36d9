"""Fréchet feature distances of sample files, beside a scale that says what they mean.

python -m tests.benchmarks.feature_distance --data cifar10 --features features.safetensors \
    --train-features samples.npz
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from genconv.data import load_images
from genconv.errors import UserError, command
from genconv.eval import Moments, extract, frechet_distance, load_extractor, train_classifier
from genconv.images import from_uint8, to_uint8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", nargs="*", metavar="SAMPLES.npz", help="`images` uint8 NHWC")
    parser.add_argument("--data", required=True, help="name or path that load_images knows")
    parser.add_argument("--root", default="data", help="folder of downloads")
    parser.add_argument("--features", required=True, help="classifier; written if it is trained")
    parser.add_argument("--train-features", action="store_true", help="train the classifier first")
    parser.add_argument("--no-mirror", action="store_true", help="train on digits or letters")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if not args.train_features and not Path(args.features).is_file():
        raise UserError(f"no such file: {args.features}; add --train-features to make it")
    samples = {name: load_images(name) for name in args.samples}
    train = load_images(args.data, "train", root=args.root)
    test = load_images(args.data, "test", root=args.root)
    if args.train_features:
        train_features(train, test, args)
    extractor = load_extractor(args.features)

    def features(images):
        return extract(extractor, images, device=args.device).features

    reference, held_out = Moments.of(features(train.images)), features(test.images)
    generator = torch.Generator().manual_seed(args.seed)
    held_out = held_out[torch.randperm(len(held_out), generator=generator)]
    noise = torch.randint(256, test.images.shape, dtype=torch.uint8, generator=generator)
    rows = {name: features(images.images) for name, images in samples.items()} | {
        "test split": held_out,
        "test split, 3x3 box blur": features(blur(test.images)),
        "test split, flat mean colours": features(flat(test.images)),
        "uniform noise": features(noise),
    }
    title = f"Fréchet feature distance to {Path(args.data).name} train, n={len(train)}"
    # few images lie farther away than many from the same law, so the floor is that of equal n
    table = Table("images", "n", "distance", "floor: as many test images", title=title)
    for name, seen in rows.items():
        floor = held_out[: len(seen)]
        numbers = [frechet_distance(Moments.of(x), reference) for x in (seen, floor)]
        of = "" if len(floor) == len(seen) else f" (n={len(floor)})"
        table.add_row(name, str(len(seen)), f"{numbers[0]:.4f}", f"{numbers[1]:.4f}{of}")
    console = Console()
    console.print(table)
    console.print(f"features: {args.features} {getattr(extractor, 'about', '')}", soft_wrap=True)


def train_features(train, test, args):
    if train.labels is None or test.labels is None:
        raise UserError(f"{args.data} has no labels, and a classifier needs them")
    classes = int(train.labels.max()) + 1
    start = time.perf_counter()
    model = train_classifier(
        train.images,
        train.labels,
        classes=classes,
        epochs=args.epochs,
        seed=args.seed,
        mirror=not args.no_mirror,
        device=args.device,
    )
    seconds = time.perf_counter() - start
    logits = extract(model, test.images, device=args.device).logits
    accuracy = float((logits.argmax(1) == test.labels).double().mean())
    model.about |= {"data": Path(args.data).name, "split": "train", "accuracy": accuracy}
    model.save(args.features)
    print(f"test accuracy {accuracy:.4f} after {seconds:.0f} s", file=sys.stderr)


def blur(images):
    x = F.pad(from_uint8(images), (1, 1, 1, 1), mode="replicate")
    return to_uint8(F.avg_pool2d(x, 3, stride=1))


def flat(images):
    return to_uint8(from_uint8(images).mean((2, 3), keepdim=True)).expand_as(images)


if __name__ == "__main__":
    command(main)
