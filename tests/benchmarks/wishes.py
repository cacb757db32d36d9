"""What wishes that no training knew of do to the images of an energy of CIFAR-10.

    python -m tests.benchmarks.wishes runs/cifar10_cpu --data cifar10 --out wishes.png

Two small classifiers are trained first, of two seeds: by one the wish is expressed, by the other it
is judged, as an image may please a classifier without showing what it was asked for.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from genconv import read
from genconv.checkpoint import Trained
from genconv.data import load_images
from genconv.energy import Constraint, Product
from genconv.eval import train_classifier
from genconv.images import from_uint8, grid, save_png
from genconv.sample import sample
from genconv.tasks.constraints import class_of, hue, region
from genconv.tasks.stages import Staged


def logits_of(classifier):
    """Return the logits of a classifier as a function of images in [-1, 1], as energies take."""

    def logits(x: Tensor) -> Tensor:
        return classifier.head(classifier.body(x).float().mean((2, 3)))

    return logits


def wished(trained: Trained, wish, weight: float, begin: float = 0.0) -> Staged:
    """Return the energy with a wish from a share of the steps on."""
    energy = Product([trained.energy, Constraint(wish, weight)]).requires_grad_(False).eval()
    return Staged(**vars(replace(trained, names=())), stages=((begin, energy),))


def coloured(images: Tensor, rgb: tuple[int, int, int]) -> float:
    """Return the share of all colour, in squares, that is along `rgb`."""
    off = 2 * hue(rgb)(from_uint8(images)).sum()
    x = from_uint8(images)
    k = torch.nn.functional.avg_pool2d(x - x.mean(1, keepdim=True), 4)
    return float(1 - off / (16 * k.square().sum()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3, help="of each classifier")
    parser.add_argument("--out", type=Path, default=Path("wishes.png"))
    options = parser.parse_args()
    trained = read(options.checkpoint, "cpu")
    data = load_images(options.data, "train", root=options.root)
    test = load_images(options.data, "test", root=options.root)
    asked, judge = (
        train_classifier(
            data.images, data.labels, classes=len(data.classes), epochs=options.epochs, seed=seed
        ).requires_grad_(False)
        for seed in (0, 1)
    )
    with torch.inference_mode():
        for name, one in (("asked", asked), ("judge", judge)):
            right = one(test.images[:2000])[1].argmax(1) == test.labels[:2000]
            print(f"{name}: {right.double().mean():.1%} of 2,000 test images")
    given = from_uint8(test.images[0])
    left = torch.zeros(given.shape[1:])
    left[:, : given.shape[2] // 2] = 1
    red = (255, 0, 0)
    labels = [data.classes.index(name) for name in ("ship", "horse", "automobile")]
    rows = [
        ("no wish", trained, None),
        ("hue=red*2", wished(trained, hue(red), 2.0), None),
        ("region*5", wished(trained, region(given, left), 5.0), None),
        *(
            (
                f"class_of {data.classes[label]}*{weight:g}, from the half on",
                wished(trained, class_of(logits_of(asked), label), weight, 0.5),
                label,
            )
            for weight in (10.0, 40.0)
            for label in labels
        ),
    ]
    table = Table(
        "wish", "asked sees it", "judge sees it", "along red", "levels off the given half"
    )
    pictures = []
    for name, energy, label in rows:
        images = sample(energy, range(options.n), seed=options.seed, bf16=True)
        with torch.inference_mode():
            seen = [one(images)[1].argmax(1) for one in (asked, judge)]
        off = (images.float() - test.images[0].float()).abs()[..., left.bool()]
        shares = (
            [" ".join(f"{(s == i).double().mean():.0%}" for i in labels) for s in seen]
            if label is None
            else [f"{(s == label).double().mean():.0%}" for s in seen]
        )
        line = [name, *shares, f"{coloured(images, red):.2f}", f"{off.median():.1f}"]
        table.add_row(*line)
        print(" | ".join(line), flush=True)
        pictures.append(images[:12])
    save_png(options.out, grid(torch.cat(pictures), 12, scale=2))
    Console().print(table)


if __name__ == "__main__":
    main()
