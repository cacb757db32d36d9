"""How many samples of composed attributes have them, as read from their pixels.

    python -m tests.benchmarks.composition runs/shapes_attribute -n 200

The energies are the classes of one conditional energy of the coloured shapes.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from genconv import read
from genconv.data.shape_sets import has, resized
from genconv.data.shapes import draw, measure
from genconv.energy import Given
from genconv.images import grid, save_png
from genconv.progress import progress
from genconv.sample import sample
from genconv.tasks.compose_command import combine, start_energies

UNSEEN = [("red", "circle"), ("green", "square"), ("blue", "triangle")]
SEEN = [("blue", "circle"), ("red", "square"), ("green", "triangle")]


@dataclass(frozen=True)
class Row:
    """A composition and the attributes that count in it: one list for each share reported."""

    kind: str
    op: str
    parts: tuple[str, ...]
    claims: tuple[tuple[str, ...], ...]
    weights: tuple[float, ...] | None = None
    offsets: tuple[float, ...] | None = None


def rows(wanted, weight):
    """List the compositions of the given kinds."""
    found = [
        Row("single", "and", (name,), ((name,),), (weight,))
        for name in ("circle", "square", "triangle", "red", "left")
    ]
    for kind, pairs in (("and", SEEN), ("unseen", UNSEEN)):
        for pair in pairs:
            found.append(Row(kind, "and", pair, (pair, pair[:1], pair[1:]), (weight, weight)))
    for parts, offsets in [
        (("red", "blue"), None),
        (("circle", "triangle"), None),
        (("circle", "triangle"), (3.0, 0.0)),
    ]:
        claims = tuple((p,) for p in parts)
        found.append(Row("or", "or", parts, claims, offsets=offsets))
    for parts, weights in [
        (("red",), (1.0,)),
        (("circle",), (1.0,)),
        (("circle", "red"), (3.0, 1.0)),
        (("square", "left"), (3.0, 2.0)),
    ]:
        found.append(Row("not", "not", parts, tuple((p,) for p in parts), weights))
    return [row for row in found if row.kind in wanted]


def clean(images):
    """Tell which images lie within 20 grey levels (root mean square) of a drawing."""
    images = resized(images).cpu()
    error = (draw(measure(images)).float() - images.float()).square().mean((1, 2, 3)).sqrt()
    return error < 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    kinds = ["single", "and", "unseen", "or", "not"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--weight", type=float, default=3.0, help="of each energy of an and")
    parser.add_argument("--no-base", action="store_true", help="plain sums")
    parser.add_argument("--pictures", type=Path, help="folder for a grid of each row")
    options = parser.parse_args()
    trained = read(options.checkpoint, "cpu")
    table = Table(
        "kind", "composition", "weights or offsets", "share", "clean", title=f"n={options.n}"
    )
    for row in progress(rows(options.kinds, options.weight), "compositions"):
        parts = [Given(trained.energy, trained.label(name)) for name in row.parts]
        base = None if options.no_base else Given(trained.energy, None)
        offsets = start_energies(trained, parts, options.seed, row.offsets)
        energy = combine(row.op, parts, row.weights, base, offsets)
        composed = replace(trained, energy=energy, names=())
        with torch.inference_mode():
            images = sample(composed, range(options.n), seed=options.seed, bf16=True)
        shares = ", ".join(
            f"{' '.join(claim)} {has(images, *claim).double().mean():.1%}" for claim in row.claims
        )
        title = f" {row.op} ".join(row.parts) if len(row.parts) > 1 else f"{row.op} {row.parts[0]}"
        line = [
            row.kind,
            title,
            str(row.weights or row.offsets or ""),
            shares,
            f"{clean(images).double().mean():.0%}",
        ]
        table.add_row(*line)
        print(" | ".join(line), flush=True)
        if options.pictures:
            picture = grid(images[:64], 16, scale=2)
            save_png(
                options.pictures
                / f"{row.kind}_{'_'.join(row.parts)}{'_offsets' * bool(row.offsets)}.png",
                picture,
            )
    Console().print(table)


if __name__ == "__main__":
    main()
