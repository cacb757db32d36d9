"""Voxels: an honest split, recovery beside what needs no energy, and a linear classifier.

    python -m tests.benchmarks.voxels split modelnet10.npz data/chairs --classes chair
    python -m tests.benchmarks.voxels recover runs/voxels data/chairs recovered
    python -m tests.benchmarks.voxels classify runs/voxels data/both

`split` leaves out bodies that occur twice before it shuffles the others, with a seed of its own,
and lays a fifth of them aside. `recover` runs `genconv.edit` on held-out bodies and prints
intersections over union: of the missing voxels, or of all where resolution was missing. What is
smooth is judged at the middle, at the threshold that is best on the truth, by the body of largest
expected IoU, which does not see the truth, and, where blocks were measured, by the voxels that are
largest in each block, as many of them as its mean says are solid. Where all bodies have one hole,
kernel ridge regression of the missing voxels on the known ones shows what needs no network.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genconv.checkpoint import read
from genconv.data import load_images
from genconv.data.holes import holes
from genconv.data.voxels import distinct
from genconv.energy import build, describe
from genconv.eval import activations, extract
from genconv.files import replacing
from genconv.images import from_uint8, to_uint8
from genconv.render import VIEWS, plot_voxels
from genconv.tasks.answers import overlapping
from genconv.tasks.baselines import baselines
from genconv.tasks.judging import intersection_over_union
from genconv.tasks.measurement import shrinking
from genconv.tasks.problems import Problem
from genconv.tasks.recover_command import main as edit

PROBLEMS = {
    "half of the voxels, at random": ("inpaint", "--mask", "random:0.5"),
    "half of the volume, a box": ("inpaint", "--mask", "box:0.8"),
    "half of the volume, a slab": ("inpaint", "--mask", "frames:0.5"),
    "x2": ("upscale", "--factor", "2"),
    "x4": ("upscale", "--factor", "4"),
}


def split(options):
    """Write train.npz and test.npz, without duplicates."""
    data = load_images(str(options.data), "all")
    once = distinct(data)
    # before classes are chosen, so that splits of one seed agree on what is held out, nearly
    order = torch.from_numpy(np.random.default_rng(options.seed).permutation(len(once)))
    if options.classes:
        wanted = torch.tensor([once.classes.index(name) for name in options.classes])
        order = order[torch.isin(once.labels[order], wanted)]
    test = len(order) // 5
    for name, rows in {"test": order[:test], "train": order[test:]}.items():
        arrays = {"images": once.images[rows].movedim(1, -1).numpy()}
        if once.labels is not None:
            arrays |= {"labels": once.labels[rows].numpy(), "class_names": np.array(once.classes)}
        with replacing(options.out / f"{name}.npz") as part, part.open("wb") as file:
            np.savez_compressed(file, **arrays)
    print(f"{len(data)} bodies, {len(order)} kept, {test} of them for the test: {options.out}")


def best_threshold(estimate, truth, counted):
    """The largest mean IoU that some threshold gives."""
    tried = torch.linspace(-0.95, 0.95, 39)
    return max(float(intersection_over_union(estimate - t, truth, counted).mean()) for t in tried)


def regressed(missing, truth, examples):
    """Kernel ridge regression of missing on known voxels, by Gaussian kernels.

    Width and ridge are the best of six on 72 of the training chairs, with the other 600.
    """
    known = ~missing[0, 0]
    seen, asked = (x[:, 0][:, known].numpy() for x in (examples, truth))
    distance = pairwise_distances(seen[:: max(1, len(seen) // 200)], metric="sqeuclidean")
    model = KernelRidge(alpha=0.3, kernel="rbf", gamma=2 / np.median(distance))
    mean = examples[:, 0][:, ~known].mean(0).numpy()
    model.fit(seen, examples[:, 0][:, ~known].numpy() - mean)
    found = truth.clone()
    found[:, 0][:, ~known] = torch.from_numpy(model.predict(asked) + mean).to(found)
    return found


def blocks(x, side):
    """Cut bodies (N, 1, D, H, W) into (N, places, side ** 3)."""
    for axis in (2, 4, 6):
        x = x.unflatten(axis, (-1, side))
    return x.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5).flatten(1, 4)


def as_many(estimate, truth, side):
    """The mean IoU if every block's largest voxels are solid, as many as are."""
    solid = blocks(truth, side) > 0
    rank = blocks(estimate, side).argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    chosen = rank < solid.sum(2, keepdim=True)
    both, either = chosen & solid, chosen | solid
    return float((both.flatten(1).sum(1) / either.flatten(1).sum(1)).mean())


def dialled(task, option, truth, examples, mean, picture):
    """IoU of what is smooth, by all ways to cut it; a picture of the first eight bodies."""
    shape = tuple(truth.shape[1:])
    if task == "inpaint":
        problem = Problem(shape, missing=holes(option, len(truth), shape[1:]))
    else:
        problem = Problem(shape, operator=shrinking(shape, int(option)))
    found = baselines(task, problem, problem.degrade(truth, 0), truth, examples)
    counted = problem.counted(len(truth))
    found["mean of the draws"] = mean
    names = ("mean of the draws", "linear", "cubic spline", "mean of the examples")
    rows = {}
    if task == "inpaint" and bool((problem.missing == problem.missing[:1]).all()):
        name = "kernel ridge regression"
        found[name] = regressed(problem.missing, truth, examples)
        rows[name] = float(intersection_over_union(found[name], truth, counted).mean())
        names += (name,)
    for name in names:
        if name in found:
            rows[f"{name}, best threshold"] = best_threshold(found[name], truth, counted)
            decided = intersection_over_union(overlapping(found[name], counted), truth, counted)
            rows[f"{name}, largest expected IoU"] = float(decided.mean())
            if task == "upscale":
                rows[f"{name}, as many"] = as_many(found[name], truth, int(option))
    columns = {
        "truth": truth,
        "observed": problem.seen(problem.degrade(truth, 0)),
        "energy": overlapping(mean, counted),
        "nearest": found["nearest example"],
    }
    plot_voxels(picture, {name: to_uint8(x) for name, x in columns.items()}, VIEWS[:1])
    return rows


def recover(options):
    """Recover held-out bodies in every way, and print one table."""
    data = str(options.data)
    truth = from_uint8(load_images(data, "test").images[: options.n])
    examples = from_uint8(load_images(data, "train").images)
    columns = {}
    for name in options.problems:
        task, flag, option = PROBLEMS[name]
        out = options.out / f"{task}_{option.replace(':', '_')}"
        args = [
            *(str(options.run), data, "--degrade", "--render", flag, option, "--out", str(out)),
            *("-n", str(options.n), "--draws", str(options.draws), "--examples", data),
            *("--precision", "bf16", "--batch-size", "16", *options.how),
        ]
        if not (out / "report.json").exists():
            edit(task, args)
        report = json.loads((out / "report.json").read_text())
        columns[name] = {method: row["iou"] for method, row in report["table"].items()}
        with np.load(out / "results.npz") as file:
            mean = torch.from_numpy(file["mean"]).movedim(-1, 1)
        columns[name] |= dialled(task, option, truth, examples, mean, out / "bodies.png")
    methods = list(dict.fromkeys(method for column in columns.values() for method in column))
    table = Table("IoU", *columns, title=f"{options.n} held-out bodies, {options.draws} draws")
    for method in methods:
        shown = (columns[name].get(method) for name in columns)
        table.add_row(method, *("-" if value is None else f"{value:.3f}" for value in shown))
    Console(width=140).print(table)


def accuracy(train, test, labels):
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    return classifier.fit(train, labels[0]).score(test, labels[1])


def classify(options):
    """Teach a linear classifier the energy's features, those of a fresh network, and voxels."""
    sets = [load_images(str(options.data), name) for name in ("train", "test")]
    labels = [one.labels.numpy() for one in sets]
    energy = read(options.run, "cpu").energy
    torch.manual_seed(options.seed)
    networks = {"the energy's features": energy, "a fresh network's": build(describe(energy))}
    features = {
        name: [extract(activations(net), one.images, batch_size=64).features for one in sets]
        for name, net in networks.items()
    }
    features["voxels"] = [one.images.flatten(1).double() / 255 for one in sets]
    share = np.bincount(labels[1]).max() / len(labels[1])
    print(f"{len(labels[0])} bodies to learn from, {len(labels[1])} to be told apart")
    print(f"always the more frequent class: {share:.1%}")
    for name, (train, test) in features.items():
        right = accuracy(train.numpy(), test.numpy(), labels)
        print(f"{name} ({train.shape[1]}): {right:.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    add = commands.add_parser("split")
    add.add_argument("data", type=Path, help="what load_images knows, with class names")
    add.add_argument("out", type=Path)
    add.add_argument("--classes", nargs="*", help="to be kept (all)")
    add.add_argument("--seed", type=int, default=0)
    add.set_defaults(do=split)
    add = commands.add_parser("recover")
    add.add_argument("run", type=Path)
    add.add_argument("data", type=Path)
    add.add_argument("out", type=Path)
    add.add_argument("-n", type=int, default=32)
    add.add_argument("--draws", type=int, default=4)
    add.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    add.add_argument("--how", nargs=argparse.REMAINDER, default=[], help="flags of genconv.edit")
    add.set_defaults(do=recover)
    add = commands.add_parser("classify")
    add.add_argument("run", type=Path)
    add.add_argument("data", type=Path)
    add.add_argument("--seed", type=int, default=0, help="of the fresh network")
    add.set_defaults(do=classify)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
