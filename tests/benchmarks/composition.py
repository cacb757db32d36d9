"""How many samples of composed attributes have them, as read from their pixels.

    python -m tests.benchmarks.composition runs/shapes_attribute -n 200

The energies are the classes of one conditional energy of the coloured shapes. An *and* of shapes
says which shape rather than which others, ends as that shape alone, and is redrawn so; the command
for it is

    python -m genconv.edit compose RUN:blue RUN:triangle/circle/square RUN:triangle \\
        --weights 2 1.3 0 --then 0.37 3 3 0 --then 0.89 0.3 0 1 --redraw 0.74

and with `--draws 2`, which keeps the draw of which the energies are surest,

        --draws 2 --claim RUN:blue/red/green/yellow/magenta/cyan --claim RUN:triangle/circle/square
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from genconv import read
from genconv.data.shape_sets import KINDS, clean, has
from genconv.data.shapes import SHAPES
from genconv.energy import Given, Mixture
from genconv.images import grid, save_png
from genconv.progress import progress
from genconv.sample import sample
from genconv.tasks.balance import balance
from genconv.tasks.claims import Claim, Surest
from genconv.tasks.compose_command import combine, rather, shared, start_energies

UNSEEN = [("red", "circle"), ("green", "square"), ("blue", "triangle")]
SEEN = [("blue", "circle"), ("red", "square"), ("green", "triangle")]
PLACED = [("circle", "left"), ("triangle", "right"), ("red", "left"), ("cyan", "right")]
TRIPLES = [("blue", "circle", "left"), ("green", "triangle", "right")]
UNSEEN_TRIPLES = [("red", "circle", "right"), ("blue", "triangle", "left")]
# the energy ends as that of the shape alone, which draws it as the data are
TURNS, REDRAW = (0.37, 0.89), 0.74
RATHER, OTHER, ALONE = (1.3, 3.0, 0.0), (2.0, 3.0, 0.3), (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Row:
    """A composition, the attributes counted in each share reported, and those claimed."""

    kind: str
    op: str
    parts: tuple[str, ...]
    claims: tuple[tuple[str, ...], ...]
    weights: tuple[float, ...] | None = None
    then: tuple[tuple[float, ...], ...] = ()
    asked: tuple[str, ...] = ()


def staged(names):
    """Return parts and their weights on the way: a shape rather than the others, then alone."""
    parts, weights = [], []
    for name in names:
        if name in SHAPES:
            parts += ["/".join([name, *(n for n in SHAPES if n != name)]), name]
            weights += [RATHER, ALONE]
        else:
            parts.append(name)
            weights.append(OTHER if any(n in SHAPES for n in names) else (2.0, 2.0, 1.0))
    return tuple(parts), tuple(zip(*weights, strict=True))


def rows(wanted):
    """List the compositions of the given kinds."""
    found = [
        Row("single", "and", (name,), ((name,),), (3.0,), ((3.0,), (1.0,)))
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
            parts, (first, *then) = staged(names)
            claims = (names, *((name,) for name in names))
            found.append(Row(kind, "and", parts, claims, first, tuple(then), names))
    for parts in [("red", "blue"), ("circle", "triangle")]:
        found.append(Row("or", "or", parts, tuple((p,) for p in parts)))
    for parts, weights, end, asked in [
        (("red",), (1.0,), (0.0,), ()),
        (("circle",), (1.0,), (0.0,), ()),
        (("circle", "red"), (3.0, 1.0), (1.0, 0.0), ("circle",)),
        (("square", "left"), (3.0, 2.0), (1.0, 0.0), ("square", "right")),
    ]:
        claims, then = tuple((p,) for p in parts), (weights, end)
        found.append(Row("not", "not", parts, claims, weights, then, asked))
    return [row for row in found if wanted is None or row.kind in wanted]


def claim(trained, name):
    """Claim that images have an attribute rather than another of its kind."""
    [kind] = (kind for kind in KINDS.values() if name in kind)
    energies = {other: Given(trained.energy, trained.label(other)) for other in kind}
    return Claim(energies.pop(name), list(energies.values()))


def compose(row, trained, seed, draws=1):
    """Compose the energies of a row, as the command does."""
    names, rivals = rather([f"run:{part}" for part in row.parts])
    parts = [Given(trained.energy, trained.label(name.split(":")[1])) for name in names]
    base = Given(trained.energy, None)
    if row.op == "or":
        start = start_energies(trained, parts, seed)
        found = balance(trained, parts, start=start, seed=seed, bf16=True)
        print(found, [c - s for c, s in zip(found.offsets, start, strict=True)], flush=True)
        return replace(trained, energy=Mixture(parts, None, found.offsets, 0.0), names=())
    first, *then = (
        combine(row.op, parts, shared("weights", weights, rivals), base)
        for weights in (row.weights, *row.then)
    )
    composed = replace(trained, energy=first, names=())
    return Surest(
        **vars(composed),
        stages=tuple(zip(TURNS, then, strict=True)),
        redraw=REDRAW,
        claims=tuple(claim(trained, name) for name in row.asked),
        draws=draws if row.asked else 1,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of the chain (its own)")
    parser.add_argument("--draws", type=int, default=1, help="of each image, the surest kept (1)")
    kinds = list(dict.fromkeys(row.kind for row in rows(None)))
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--pictures", type=Path, help="folder for a grid of each row")
    options = parser.parse_args()
    trained = read(options.checkpoint, "cpu")
    trained = replace(trained, chain=trained.chain.at(options.steps))
    table = Table(
        "kind", "composition", "weights", "share (and clean)", "clean", title=f"n={options.n}"
    )
    for row in progress(rows(options.kinds), "compositions"):
        composed = compose(row, trained, options.seed, options.draws)
        with torch.inference_mode():
            images = sample(composed, range(options.n), seed=options.seed, bf16=True)
        good = clean(images)
        shares = ", ".join(
            f"{' '.join(claim)} {found.double().mean():.1%} ({(found & good).double().mean():.1%})"
            for claim in row.claims
            for found in [has(images, *claim)]
        )
        title = f" {row.op} ".join(row.parts) if len(row.parts) > 1 else f"{row.op} {row.parts[0]}"
        weights = " then ".join(str(w) for w in (row.weights, *row.then) if w)
        line = [row.kind, title, weights, shares, f"{good.double().mean():.1%}"]
        table.add_row(*line)
        print(" | ".join(line), flush=True)
        if options.pictures:
            name = f"{row.kind}_{'_'.join(claim for claim, *_ in row.claims[-len(row.parts) :])}"
            picture = grid(images[:64], 16, scale=2)
            save_png(options.pictures / f"{name.replace(' ', '_')}.png", picture)
    Console().print(table)


if __name__ == "__main__":
    main()
