"""The command `python -m genconv.edit compose red.ckpt circle.ckpt --op and`."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from genconv.checkpoint import Trained, read
from genconv.energy import Energy, Given, Mixture, Product
from genconv.energy.compose import mean_energies
from genconv.errors import UserError, at_least
from genconv.precision import affordable
from genconv.sample import add_flags, run
from genconv.sampling import Chain, value_at
from genconv.seeds import stream
from genconv.tasks.balance import balance
from genconv.tasks.claims import Claim, Surest
from genconv.tasks.constraints import constraint

__all__ = ["combine", "find", "main", "rather", "shared"]


def rather(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Write CHECKPOINT:CLASS/RIVAL/RIVAL out as CHECKPOINT:CLASS, CHECKPOINT:RIVAL, ...

    Returns:
        The names of all energies, and of each part how many rivals come behind it.
    """
    written, rivals = [], []
    for name in names:
        path, colon, label = name.rpartition(":")
        classes = label.split("/") if colon and not Path(name).exists() else [label]
        written += [f"{path}:{one}" for one in classes] if len(classes) > 1 else [name]
        rivals.append(len(classes) - 1)
    return written, rivals


def shared(flag: str, weights: Sequence[float] | None, rivals: Sequence[int]) -> list[float]:
    """Return the weights of all energies: a part's own, and of its rivals an equal share against.

    The rivals of a part stand in for the energy of everything, which it then does without.

    Args:
        flag: where the weights come from.
        weights: of the parts, 1 each by default.
        rivals: see `rather`.

    Raises:
        UserError: there are not as many weights as parts.
    """
    weights = [1.0] * len(rivals) if weights is None else weights
    if len(weights) != len(rivals):
        raise UserError(f"{flag}: {len(rivals)} energies need as many, not {len(weights)}")
    return [x for w, n in zip(weights, rivals, strict=True) for x in [w, *[-w / (n or 1)] * n]]


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
        plain = Path(name).exists() or ":" not in name
        path, _, label = (name, "", "") if plain else name.rpartition(":")
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
        UserError: there is nothing beside which `not` could be, or nothing at all.
    """
    if op == "or":
        return Mixture(energies, weights, offsets, temperature)
    if op == "not":
        if len(energies) == 1 and base is None:
            raise UserError("not of one energy needs the energy of everything; give --base")
        kept = len(energies) > 1
        weights = [
            w if kept and i == 0 else -w for i, w in enumerate(weights or [1.0] * len(energies))
        ]
    if base is None and weights is not None and not any(weights):
        raise UserError("weights that are all 0 leave nothing; give --base")
    return Product(energies, weights, base)


def parse(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.edit compose",
        description="Draw images from energies composed by and, or, not, and from constraints.",
    )
    part = "CHECKPOINT[:CLASS]"
    parser.add_argument("parts", nargs="+", metavar=part, help="CLASS is a name or a number; "
                        "CLASS/OTHER/... is this rather than those: its energy is compared with "
                        "their mean, not with that of everything")  # fmt: skip
    parser.add_argument("--op", choices=["and", "or", "not"], default="and",
                        help="not: the first and none of the others (and)")  # fmt: skip
    parser.add_argument("--weights", type=float, nargs="+", help="of the energies (1 each)")
    parser.add_argument("--then", type=float, nargs="+", action="append", default=[],
                        metavar=("SHARE", "WEIGHT"),
                        help="other weights once this share of the steps is done; may be given "
                        "several times")  # fmt: skip
    parser.add_argument("--redraw", type=float, metavar="SHARE",
                        help="at the end go back, with new noise, to where this share of the steps "
                        "was done, and on under the last weights")  # fmt: skip
    parser.add_argument("--draws", type=int, default=1, metavar="K",
                        help="draw each image K times and keep the one of which the energies are "
                        "surest that it is what --claim says (1)")  # fmt: skip
    parser.add_argument("--claim", action="append", default=[], metavar="CHECKPOINT:CLASS/OTHER",
                        help="what the images are to be, and rather than what; may be given "
                        "several times")  # fmt: skip
    parser.add_argument("--offsets", type=float, nargs="+",
                        help="of the energies of an or, above their means over the noise; a larger "
                        "one is seen more often (found by drawing a few images, so that shares are "
                        "those of the weights)")  # fmt: skip
    parser.add_argument("--base", metavar=part, help="energy of everything, which and/not count "
                        "once; `none` leaves it out (if all parts are classes of one checkpoint, "
                        "its energy without a class, else none)")  # fmt: skip
    parser.add_argument("--constraint", action="append", default=[], metavar="WISH",
                        help="hue=COLOUR, region=FILE@LEFT,TOP,RIGHT,BOTTOM or, of a classifier, "
                        "class=FILE.safetensors:LABEL, with *WEIGHT (5; 10 for a class) behind it; "
                        "may be given several times")  # fmt: skip
    add_flags(parser)
    options = parser.parse_args(args)
    options.precision = affordable(options.precision, options.device)
    return options


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
    device = trained.device
    generator = stream(seed, "offsets", device=device)
    noise = trained.chain.noise(256, trained.shape, generator=generator, device=device)
    means = mean_energies(energies, [noise] * len(energies))
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def main(args: list[str] | None = None) -> None:
    """Compose, then sample as `python -m genconv.sample` does."""
    options = parse(args)
    names, rivals = rather(options.parts)
    check(options, rivals)
    claimed, others = rather(options.claim)
    found, sources = find([*names, *claimed], options.device)
    energies, first = found[: len(names)], sources[0]
    constraints = [constraint(text, first.shape) for text in options.constraint]
    base = find_base(options, sources[: len(names)])
    heat = last_temperature(first.chain, options.temperature)

    def composed(weights: Sequence[float] | None, offsets: Sequence[float] | None) -> Energy:
        energy = combine(options.op, energies, weights, base, offsets, heat)
        energy = Product([energy, *constraints]) if constraints else energy
        return energy.requires_grad_(False).eval()

    weights = shared("--weights", options.weights, rivals)
    if options.op == "or":
        # as shares, whose sum is free
        weights = options.weights
    stages = [(share, shared("--then", then, rivals)) for share, *then in options.then]
    offsets = find_offsets(options, first, energies, heat) if options.op == "or" else None
    trained = replace(first, energy=composed(weights, offsets), names=())
    trained = Surest(
        **vars(trained),
        stages=tuple((share, composed(then, None)) for share, then in stages),
        redraw=options.redraw,
        claims=claims(found[len(names) :], others),
        draws=options.draws,
    )
    keys = ("parts", "op", "weights", "then", "redraw", "draws", "claim", "offsets", "base")
    about = {key: getattr(options, key) for key in (*keys, "constraint")}
    run(options, trained, about=about)


def claims(energies: Sequence[Energy], rivals: Sequence[int]) -> tuple[Claim, ...]:
    """Return the claims whose energies come one behind another, each before its rivals."""
    found = iter(energies)
    return tuple(Claim(next(found), [next(found) for _ in range(n)]) for n in rivals)


def check(options: argparse.Namespace, rivals: Sequence[int]) -> None:
    """Raise a UserError for what cannot be composed."""
    if options.op != "and" and any(rivals):
        raise UserError(f"--op {options.op}: only `and` knows one class rather than others")
    if options.op == "or" and min(options.weights or [1.0]) <= 0:
        raise UserError(f"--weights of or must be positive, not {min(options.weights)}")
    if options.op == "or" and options.then:
        raise UserError("--then: the energies of an `or` have one weight, their share")
    at_least(options, draws=1)
    if (options.draws > 1) != bool(options.claim):
        raise UserError("--draws above 1 and --claim need each other: keep which of the draws?")
    if options.draws > 1 and options.trajectory:
        raise UserError("--trajectory shows one chain of an image; leave out --draws and --claim")
    for claim, others in zip(options.claim, rather(options.claim)[1], strict=True):
        if others == 0:
            raise UserError(f"--claim {claim}: rather than what? Write CHECKPOINT:CLASS/OTHER")
    if options.redraw is not None and not 0 <= options.redraw <= 1:
        raise UserError(f"--redraw is a share of the steps, 0 to 1, not {options.redraw}")
    shares = [share for share, *_ in options.then]
    if shares != sorted(shares) or not all(0 <= share <= 1 for share in shares):
        raise UserError(f"--then begins with a share of the steps, 0 to 1 and rising, not {shares}")


def find_offsets(
    options: argparse.Namespace, trained: Trained, energies: Sequence[Energy], temperature: float
) -> list[float]:
    """Return the offsets of an `or`: those of the flag, or those found by drawing images."""
    given = start_energies(trained, energies, options.seed, options.offsets)
    if options.offsets is not None or len(energies) == 1:
        return given
    chain = trained.chain.stretched(options.stretch) if options.stretch else trained.chain
    chain = chain.at(options.steps, options.step_size, options.temperature)
    found = balance(
        replace(trained, chain=chain),
        energies,
        options.weights,
        temperature,
        start=given,
        seed=options.seed,
        bf16=options.precision == "bf16",
    )
    above = [f"{c - mean:.3f}" for c, mean in zip(found.offsets, given, strict=True)]
    shares = ", ".join(f"{share:.0%}" for share in found.shares)
    print(f"balanced by --offsets {' '.join(above)}: {shares}")
    return found.offsets


def last_temperature(chain: Chain, temperature: float | None) -> float:
    """Return the temperature at which a chain ends."""
    return value_at(chain.at(temperature=temperature).temperature, chain.steps)
