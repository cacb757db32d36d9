"""Time that other processes do not spoil, and what is made of it."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["COMPILED", "OURS", "Fit", "Row", "compared", "compiled", "line", "race", "seconds"]

OURS, COMPILED = "genconv", "--compile"
# others that every comparison has
MAIN = ("plain", "torchebm")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        section: name of the table.
        network: on which both work.
        what: the work.
        against: what genconv is held against.
        ours: genconv's number.
        theirs: the other's.
        ratio: how many times as fast genconv is (median of rounds), or which share it reaches.
        unit: of both numbers.
        note: what else is to be known.
    """

    section: str
    network: str
    what: str
    against: str
    ours: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    unit: str = "ms"
    note: str = ""


@dataclass(frozen=True)
class Fit:
    """A straight line, seconds = offset + slope x, and the share R² of the variance it explains."""

    what: str
    x: tuple[float, ...]
    seconds: tuple[float, ...]
    offset: float
    slope: float
    r2: float


def clock(device: str) -> float:
    """Return seconds of this process, or of the GPU when it has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def seconds(work: Callable[[], object], device: str) -> float:
    """Return how long a call takes."""
    begin = clock(device)
    work()
    return clock(device) - begin


def race(runs: dict[str, Callable[[], object]], device: str, rounds: int) -> dict[str, list[float]]:
    """Let variants take turns; return the seconds of each in every round, after one for warmth."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds):
        # every other round backwards: what comes after a long run finds the machine as that left it
        for name, run in list(runs.items())[:: 1 if i % 2 == 0 else -1]:
            times[name].append(seconds(run, device))
    return times


def compared(
    section: str, network: str, what: str, times: dict[str, list[float]], per: float = 1
) -> list[Row]:
    """Return a row for each other variant, with milliseconds of one in `per` of its work."""
    ours = times[OURS]
    return [
        Row(
            section,
            network,
            what,
            name,
            1e3 * statistics.median(ours) / per,
            1e3 * statistics.median(theirs) / per,
            statistics.median(b / a for a, b in zip(ours, theirs, strict=True)),
        )
        for name, theirs in times.items()
        if name not in (OURS, COMPILED)
    ]


def compiled(
    section: str, network: str, what: str, times: dict[str, list[float]], per: float = 1
) -> list[Row]:
    """Return the rows of `COMPILED` against genconv without it and those that matter most."""
    named = {OURS: times[COMPILED], f"{OURS} without": times[OURS]}
    named |= {name: t for name, t in times.items() if name.startswith(MAIN)}
    return compared(section, network, f"{what}, {COMPILED}", named, per)


def line(what: str, x: Sequence[float], times: Sequence[float]) -> Fit:
    """Fit a straight line by least squares."""
    slope, offset = statistics.linear_regression(x, times)
    r2 = statistics.correlation(x, times) ** 2
    return Fit(what, tuple(x), tuple(times), offset, slope, r2)
