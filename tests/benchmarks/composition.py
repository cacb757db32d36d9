"""How many samples of composed attributes have them, as read from their pixels.

    python -m tests.benchmarks.composition runs/shapes_attribute -n 200

The energies are the classes of one conditional energy of the coloured shapes. An *and* of shapes
says which shape rather than which others, and the command for it is

    python -m genconv.edit compose RUN:blue RUN:triangle/circle/square --weights 2 1.3 --later 2 4
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from genconv import read
from genconv.data.shape_sets import KINDS, has, resized
from genconv.data.shapes import SHAPES, draw, measure
from genconv.energy import Given, Mixture
from genconv.images import grid, save_png
from genconv.progress import progress
from genconv.sample import sample
from genconv.tasks.balance import balance
from genconv.tasks.compose_command import combine, rather, shared, start_energies
from genconv.tasks.stages import Staged

UNSEEN = [("red", "circle"), ("green", "square"), ("blue", "triangle")]
SEEN = [("blue", "circle"), ("red", "square"), ("green", "triangle")]
PLACED = [("circle", "left"), ("triangle", "right"), ("red", "left"), ("cyan", "right")]
TRIPLES = [("blue", "circle", "left"), ("green", "triangle", "right")]
UNSEEN_TRIPLES = [("red", "circle", "right"), ("blue", "triangle", "left")]
# a shape rather than the others, and the more so once the noise has gone
EARLY, LATE = {"shape": 1.3, "colour": 2.0, "side": 2.0}, {"shape": 4.0, "colour": 2.0, "side": 2.0}


@dataclass(frozen=True)
class Row:
    """A composition and the attributes that count in it: one list for each share reported."""

    kind: str
    op: str
    parts: tuple[str, ...]
    claims: tuple[tuple[str, ...], ...]
    weights: tuple[float, ...] | None = None
    later: tuple[float, ...] | None = None


def kind_of(name):
    return next(kind for kind, names in KINDS.items() if name in names)


def against(name):
    """Write a shape with the others as its rivals."""
    return "/".join([name, *(n for n in SHAPES if n != name)]) if name in SHAPES else name


def rows(wanted):
    """List the compositions of the given kinds."""
    found = [
        Row("single", "and", (name,), ((name,),), (3.0,))
        for name in ("circle", "square", "triangle", "red", "left")
    ]
    groups = {
        "pair": SEEN,
        "unseen": UNSEEN,
        "placed": PLACED,
        "triple": TRIPLES,
        "unseen triple": UNSEEN_TRIPLES,
    }
    for kind, group in groups.items():
        for names in group:
            early, late = (
                tuple(weights[kind_of(name)] for name in names) for weights in (EARLY, LATE)
            )
            claims = (names, *((name,) for name in names))
            found.append(Row(kind, "and", tuple(map(against, names)), claims, early, late))
    for parts in [("red", "blue"), ("circle", "triangle")]:
        found.append(Row("or", "or", parts, tuple((p,) for p in parts)))
    for parts, weights in [
        (("red",), (1.0,)),
        (("circle",), (1.0,)),
        (("circle", "red"), (3.0, 1.0)),
        (("square", "left"), (3.0, 2.0)),
    ]:
        found.append(Row("not", "not", parts, tuple((p,) for p in parts), weights))
    return [row for row in found if wanted is None or row.kind in wanted]


def compose(row, trained, seed):
    """Compose the energies of a row, as the command does."""
    names, rivals = rather([f"run:{part}" for part in row.parts])
    parts = [Given(trained.energy, trained.label(name.split(":")[1])) for name in names]
    base = Given(trained.energy, None)
    if row.op == "or":
        start = start_energies(trained, parts, seed)
        found = balance(trained, parts, start=start, seed=seed, bf16=True)
        print(found, [c - s for c, s in zip(found.offsets, start, strict=True)], flush=True)
        return replace(trained, energy=Mixture(parts, None, found.offsets, 0.0), names=())
    energies = [
        combine(row.op, parts, shared("weights", weights, rivals), base)
        for weights in (row.weights, row.later)
        if weights
    ]
    first = replace(trained, energy=energies[0], names=())
    return Staged(**vars(first), later=energies[1], turn=1 / 3) if row.later else first


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
    kinds = list(dict.fromkeys(row.kind for row in rows(None)))
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--pictures", type=Path, help="folder for a grid of each row")
    options = parser.parse_args()
    trained = read(options.checkpoint, "cpu")
    table = Table("kind", "composition", "weights", "share", "clean", title=f"n={options.n}")
    for row in progress(rows(options.kinds), "compositions"):
        composed = compose(row, trained, options.seed)
        with torch.inference_mode():
            images = sample(composed, range(options.n), seed=options.seed, bf16=True)
        shares = ", ".join(
            f"{' '.join(claim)} {has(images, *claim).double().mean():.1%}" for claim in row.claims
        )
        title = f" {row.op} ".join(row.parts) if len(row.parts) > 1 else f"{row.op} {row.parts[0]}"
        weights = " then ".join(str(w) for w in (row.weights, row.later) if w)
        line = [row.kind, title, weights, shares, f"{clean(images).double().mean():.0%}"]
        table.add_row(*line)
        print(" | ".join(line), flush=True)
        if options.pictures:
            name = f"{row.kind}_{'_'.join(claim for claim, *_ in row.claims[-len(row.parts) :])}"
            picture = grid(images[:64], 16, scale=2)
            save_png(options.pictures / f"{name.replace(' ', '_')}.png", picture)
    Console().print(table)


if __name__ == "__main__":
    main()
