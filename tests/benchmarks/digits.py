"""How good samples of digits are, in numbers that need no network.

    python -m tests.benchmarks.digits runs/digits --steps 60 120 1200

Fréchet distances are in pixel space, to all real digits, in units of the mean distance between two
random halves of these: a perfect sampler has about 1 or less.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from genconv import read
from genconv.eval import Moments, frechet_distance
from genconv.progress import progress
from genconv.sample import sample


@dataclass(frozen=True)
class Quality:
    """Distance in units of halves, share of the rarest class, share of near copies."""

    distance: float
    rarest: float
    copies: float


def distance(a, b):
    return frechet_distance(*(Moments.of(torch.from_numpy(x)) for x in (a, b)))


def measure(samples):
    """Compare samples (n, 64), on the digits' own scale of 0 to 16, with the real digits.

    The class is what an SVM trained on the real digits sees; a near copy lies closer to a real
    digit than 99 % of the real ones lie to their nearest neighbour.
    """
    real, labels = load_digits(return_X_y=True)
    halves = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(real))
        middle = len(order) // 2
        halves.append(distance(real[order[:middle]], real[order[middle:]]))
    classes = SVC(gamma=0.001).fit(real, labels).predict(samples)
    neighbours = NearestNeighbors(n_neighbors=2).fit(real)
    own = neighbours.kneighbors(real)[0][:, 1]
    nearest = neighbours.kneighbors(samples, 1)[0][:, 0]
    return Quality(
        distance=distance(samples, real) / np.mean(halves),
        rarest=np.bincount(classes, minlength=10).min() / len(samples),
        copies=(nearest < np.percentile(own, 1)).mean(),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--steps", type=int, nargs="+", help="lengths of the chain")
    parser.add_argument("-n", type=int, default=2000)
    args = parser.parse_args()
    trained = read(args.checkpoint)
    table = Table("steps", "distance / halves", "rarest class", "near copies", title=f"n={args.n}")
    for steps in args.steps or [trained.chain.steps]:
        longer = replace(trained, chain=trained.chain.at(steps=steps))
        rows = [range(i, min(i + 500, args.n)) for i in range(0, args.n, 500)]
        images = torch.cat([sample(longer, r) for r in progress(rows, f"{steps} steps")])
        q = measure(images.double().numpy().reshape(len(images), -1) * (16 / 255))
        table.add_row(str(steps), f"{q.distance:.2f}", f"{q.rarest:.1%}", f"{q.copies:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
