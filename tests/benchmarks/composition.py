"""How many samples of composed attributes have them, as read from their pixels.

    python -m tests.benchmarks.composition runs/shapes_attribute -n 200

The energies are the classes of one conditional energy of the coloured shapes.
"""

import argparse
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from genconv import read
from genconv.data.shape_sets import KINDS, has, resized
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


def rows(wanted):
    """List the compositions of the given kinds."""
    found = []
    for name in itertools.chain(KINDS["shape"], ("red", "green", "blue"), KINDS["side"]):
        found.append(Row("single", "and", (name,), ((name,),)))
    for kind, pairs in (("and", SEEN), ("unseen", UNSEEN)):
        found += [Row(kind, "and", pair, (pair, pair[:1], pair[1:])) for pair in pairs]
    for parts in (("red", "circle", "left"), ("green", "triangle", "right")):
        kind = "unseen" if parts[:2] in UNSEEN else "and"
        found.append(Row(kind, "and", parts, (parts, *((p,) for p in parts))))
    for parts in (("red", "blue"), ("circle", "triangle"), ("left", "right")):
        found.append(Row("or", "or", parts, tuple((p,) for p in parts)))
    for parts in (("circle", "red"), ("green", "triangle"), ("left", "square")):
        found.append(Row("not", "not", parts, ((parts[0],), parts[1:])))
    for name in ("circle", "red", "left"):
        found.append(Row("not", "not", (name,), ((name,),)))
    return [row for row in found if row.kind in wanted]


def weights_of(row, options):
    """Colour and side are decided early, shape late and by few pixels: it weighs more."""
    if row.op == "or":
        return None
    negated = row.parts[1:] or row.parts
    if row.op == "not":
        return [options.negation] * len(negated)
    return [options.shape if p in KINDS["shape"] else options.weight for p in row.parts]


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
    parser.add_argument("--kinds", nargs="+", default=["single", "and", "unseen", "or", "not"])
    parser.add_argument("--weight", type=float, default=2.0, help="of colours and sides")
    parser.add_argument("--shape", type=float, default=4.0, help="weight of shapes")
    parser.add_argument("--negation", type=float, default=2.0, help="weight of what is negated")
    parser.add_argument("--no-base", action="store_true", help="plain sums")
    parser.add_argument("--pictures", type=Path, help="folder for a grid of each row")
    options = parser.parse_args()
    trained = read(options.checkpoint, "cpu")
    table = Table("kind", "composition", "weights", "share", "clean", title=f"n={options.n}")
    for row in progress(rows(options.kinds), "compositions"):
        parts = [Given(trained.energy, trained.label(name)) for name in row.parts]
        weights = weights_of(row, options)
        base = None if options.no_base else Given(trained.energy, None)
        offsets = start_energies(trained, parts, options.seed) if row.op == "or" else None
        energy = combine(row.op, parts, weights, base, offsets)
        composed = replace(trained, energy=energy, names=())
        with torch.inference_mode():
            images = sample(composed, range(options.n), seed=options.seed, bf16=True)
        shares = ", ".join(
            f"{' '.join(claim)} {has(images, *claim).double().mean():.1%}" for claim in row.claims
        )
        title = f" {row.op} ".join(row.parts) if len(row.parts) > 1 else f"{row.op} {row.parts[0]}"
        line = [row.kind, title, str(weights or ""), shares, f"{clean(images).double().mean():.0%}"]
        table.add_row(*line)
        print(" | ".join(line), flush=True)
        if options.pictures:
            picture = grid(images[:64], 16, scale=2)
            save_png(options.pictures / f"{row.kind}_{'_'.join(row.parts)}.png", picture)
    Console().print(table)


if __name__ == "__main__":
    main()
