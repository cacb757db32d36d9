"""What wishes that no training knew of do to the images of an energy of CIFAR-10.

    python -m tests.benchmarks.wishes runs/cifar10_cpu --data cifar10 --out wishes.png

Two small classifiers are trained first, of two seeds: by one the wish is expressed, by the other it
is judged, as an image may please a classifier without showing what it was asked for. The first is
kept as wishes.safetensors beside the picture, for `genconv.edit compose --constraint`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from genconv import read
from genconv.data import load_images
from genconv.energy import Constraint, Product
from genconv.eval import train_classifier
from genconv.images import from_uint8, grid, save_png
from genconv.sample import sample
from genconv.tasks.constraints import class_of, hue, region
from genconv.trained import Trained

RED = (255, 0, 0)


def wished(trained: Trained, wish, weight: float) -> Trained:
    """Return the energy with a wish."""
    energy = Product([trained.energy, Constraint(wish, weight)]).requires_grad_(False).eval()
    return replace(trained, energy=energy, names=())


def coloured(images: Tensor, rgb: tuple[int, int, int]) -> float:
    """Return the share of all colour, in squares, that is along `rgb`."""
    x = from_uint8(images)
    all_of_it = 16 * F.avg_pool2d(x - x.mean(1, keepdim=True), 4).square().sum()
    return float(1 - 2 * hue(rgb)(x).sum() / all_of_it)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3, help="of each classifier")
    parser.add_argument("--weights", type=float, nargs="+", default=[10.0, 40.0], help="of classes")
    parser.add_argument("--classes", nargs="+", default=["ship", "horse", "automobile"])
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
    asked.save(options.out.with_suffix(".safetensors"))
    for name, one in (("asked", asked), ("judge", judge)):
        right = one(test.images[:2000])[1].argmax(1) == test.labels[:2000]
        print(f"{name}: {right.double().mean():.1%} of 2,000 test images", flush=True)
    left = torch.zeros(trained.shape[1:])
    left[:, : trained.shape[2] // 2] = 1
    labels = [data.classes.index(name) for name in options.classes]
    rows = [
        ("no wish", trained, None),
        ("hue=red*5", wished(trained, hue(RED), 5.0), None),
        ("region*5", wished(trained, region(from_uint8(test.images[0]), left), 5.0), None),
    ]
    for weight in options.weights:
        for label in labels:
            wish = class_of(asked.logits, label)
            title = f"class of {data.classes[label]}*{weight:g}"
            rows.append((title, wished(trained, wish, weight), label))
    table = Table("wish", "asked sees", "judge sees", "along red", "levels off the given half")
    pictures = []
    for name, energy, label in rows:
        images = sample(energy, range(options.n), seed=options.seed, bf16=True)
        seen = [one(images)[1].argmax(1) for one in (asked, judge)]
        shares = [
            " ".join(
                f"{(s == i).double().mean():.0%}" for i in (labels if label is None else [label])
            )
            for s in seen
        ]
        off = (images.float() - test.images[0].float()).abs()[..., left.bool()]
        line = [name, *shares, f"{coloured(images, RED):.2f}", f"{off.median():.1f}"]
        table.add_row(*line)
        print(" | ".join(line), flush=True)
        pictures.append(images[:12])
    save_png(options.out, grid(torch.cat(pictures), 12, scale=2))
    Console().print(table)


if __name__ == "__main__":
    main()
