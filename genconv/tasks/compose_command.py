"""The command `python -m genconv.edit compose red.ckpt circle.ckpt --op and`."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageColor, UnidentifiedImageError
from torchvision.transforms.functional import pil_to_tensor

from genconv.checkpoint import Trained, read
from genconv.energy import Constraint, Energy, Given, Mixture, Product
from genconv.energy.compose import mean_energies
from genconv.errors import UserError
from genconv.images import from_uint8
from genconv.sample import add_flags, run
from genconv.sampling import Chain, value_at
from genconv.seeds import stream
from genconv.tasks.constraints import Wish, hue, region

__all__ = ["combine", "find", "main"]

WEIGHTS = {"hue": 5.0, "region": 5.0}


def find(
    names: Sequence[str], device: torch.device | str | None = None
) -> tuple[list[Energy], list[Trained]]:
    """Read energies named as CHECKPOINT or CHECKPOINT:CLASS; a checkpoint is read once.

    Returns:
        The energies as functions of images alone, and the checkpoints that they come from.

    Raises:
        UserError: there is no such checkpoint or class, or images of one have another shape.
    """
    known: dict[str, Trained] = {}
    energies, sources = [], []
    for name in names:
        path, _, label = (name, "", "") if Path(name).exists() else name.rpartition(":")
        path = path or name
        trained = known[path] = known.get(path) or read(path, device)
        if trained.shape != next(iter(known.values())).shape:
            raise UserError(f"{path} is of images {trained.shape}, unlike {names[0]}")
        conditional = trained.classes or label
        given = Given(trained.energy, trained.label(label) if label else None)
        energies.append(given if conditional else trained.energy)
        sources.append(trained)
    return energies, sources


def combine(
    op: str,
    energies: Sequence[Energy],
    weights: Sequence[float] | None,
    base: Energy | None,
    offsets: Sequence[float] | None = None,
    temperature: float = 0.0,
) -> Energy:
    """Compose energies by `and`, `or` or `not`, which is the first and none of the others.

    Args:
        op: the word.
        energies: one at least; `not` of one is what `base` has beside it.
        weights: see `Product` and `Mixture`; `not` subtracts those of what it negates.
        base: see `Product`.
        offsets: of a mixture.
        temperature: of a mixture.

    Raises:
        UserError: there are too few or too many of something.
    """
    if weights is not None and len(weights) != len(energies):
        raise UserError(f"--weights: {len(energies)} energies need as many, not {len(weights)}")
    if op == "or":
        if weights is not None and min(weights) <= 0:
            raise UserError(f"--weights of or must be positive, not {min(weights)}")
        return Mixture(energies, weights, offsets, temperature)
    if op == "not":
        if len(energies) == 1 and base is None:
            raise UserError("not of one energy needs the energy of everything; give --base")
        kept = len(energies) > 1
        weights = [
            w if kept and i == 0 else -w for i, w in enumerate(weights or [1.0] * len(energies))
        ]
    return Product(energies, weights, base)


def constraint(text: str, shape: tuple[int, ...]) -> Constraint:
    """Read a constraint written as `hue=COLOUR` or `region=FILE@L,T,R,B`, and `*WEIGHT` behind it.

    Raises:
        UserError: it cannot be read, or does not fit images of this shape (C, H, W).
    """
    kind, _, rest = text.partition("=")
    value, _, weight = rest.partition("*")
    try:
        number = float(weight) if weight else WEIGHTS[kind]
        wish = {"hue": _hue, "region": _region}[kind](value, shape)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"--constraint {text}: {error}; write hue=red, hue=#C03030*5 or "
            "region=FILE@LEFT,TOP,RIGHT,BOTTOM"
        ) from error
    return Constraint(wish, number)


def _hue(value: str, shape: tuple[int, ...]) -> Wish:
    rgb = ImageColor.getrgb(value)[:3]
    if len(set(rgb)) == 1:
        raise ValueError(f"{value} is grey and has no hue")
    if shape[0] != 3:
        raise ValueError(f"images with {shape[0]} channels have no hue")
    return hue(rgb)


def _region(value: str, shape: tuple[int, ...]) -> Wish:
    path, _, box = value.rpartition("@")
    left, top, right, bottom = (int(number) for number in box.split(","))
    c, h, w = shape
    if not (0 <= left < right <= w and 0 <= top < bottom <= h):
        raise ValueError(f"the box {box} is not within {w}x{h} pixels")
    try:
        with Image.open(path) as image:
            target = pil_to_tensor(image.convert("RGB" if c == 3 else "L"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"--constraint region={value}: cannot read the image {path}") from error
    if target.shape != shape:
        raise ValueError(f"{path} has {target.shape[2]}x{target.shape[1]} pixels, not {w}x{h}")
    mask = torch.zeros(h, w)
    mask[top:bottom, left:right] = 1
    return region(from_uint8(target), mask)


def parse(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.edit compose",
        description="Draw images from energies composed by and, or, not, and from constraints.",
    )
    part = "CHECKPOINT[:CLASS]"
    parser.add_argument("parts", nargs="+", metavar=part, help="CLASS is a name or a number")
    parser.add_argument("--op", choices=["and", "or", "not"], default="and",
                        help="not: the first and none of the others (and)")  # fmt: skip
    parser.add_argument("--weights", type=float, nargs="+", help="of the energies (1 each)")
    parser.add_argument("--offsets", type=float, nargs="+",
                        help="of the energies of an or, above their means over the noise; a larger "
                        "one is seen more often (0 each)")  # fmt: skip
    parser.add_argument("--base", metavar=part, help="energy of everything, which and/not count "
                        "once; `none` leaves it out (if all parts are classes of one checkpoint, "
                        "its energy without a class, else none)")  # fmt: skip
    parser.add_argument("--constraint", action="append", default=[], metavar="WISH",
                        help="hue=COLOUR or region=FILE@LEFT,TOP,RIGHT,BOTTOM, with *WEIGHT "
                        "(5) behind it; may be given several times")  # fmt: skip
    add_flags(parser)
    return parser.parse_args(args)


def find_base(options: argparse.Namespace, sources: Sequence[Trained]) -> Energy | None:
    """Return the energy of everything: what --base says, or a conditional one without a class."""
    if options.base == "none":
        return None
    if options.base:
        [energy], [source] = find([options.base], options.device)
        if source.shape != sources[0].shape:
            raise UserError(f"--base {options.base} is of images {source.shape}, unlike the parts")
        return energy
    alone = sources[0].classes and all(source is sources[0] for source in sources)
    return Given(sources[0].energy, None) if alone else None


def start_energies(
    trained: Trained,
    energies: Sequence[Energy],
    seed: int,
    offsets: Sequence[float] | None = None,
) -> list[float]:
    """Return the mean energies of the noise from which the chains come, plus offsets.

    Raises:
        UserError: there are not as many offsets as energies.
    """
    offsets = offsets or [0.0] * len(energies)
    if len(offsets) != len(energies):
        raise UserError(f"--offsets: {len(energies)} energies need as many, not {len(offsets)}")
    device = next(trained.energy.parameters()).device
    generator = stream(seed, "offsets", device=device)
    noise = trained.chain.noise(256, trained.shape, generator=generator, device=device)
    means = mean_energies(energies, [noise] * len(energies))
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def main(args: list[str] | None = None) -> None:
    """Compose, then sample as `python -m genconv.sample` does."""
    options = parse(args)
    energies, sources = find(options.parts, options.device)
    first = sources[0]
    constraints = [constraint(text, first.shape) for text in options.constraint]
    offsets = None
    if options.op == "or":
        offsets = start_energies(first, energies, options.seed, options.offsets)
    energy = combine(
        options.op,
        energies,
        options.weights,
        find_base(options, sources),
        offsets,
        last_temperature(first.chain, options.temperature),
    )
    if constraints:
        energy = Product([energy, *constraints])
    about = {
        name: getattr(options, name)
        for name in ("parts", "op", "weights", "offsets", "base", "constraint")
    }
    trained = replace(first, energy=energy.requires_grad_(False).eval(), names=())
    run(options, trained, about=about)


def last_temperature(chain: Chain, temperature: float | None) -> float:
    """Return the temperature at which a chain ends."""
    return value_at(chain.at(temperature=temperature).temperature, chain.steps)
