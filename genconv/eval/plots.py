"""What people look at: how scores spread over sets, and how well they tell them apart."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text
from torch import Tensor

from genconv.eval.detection import NUMBERS, Detection, roc
from genconv.files import replacing

__all__ = ["plot_histograms", "plot_roc", "table"]

# Okabe and Ito's, which colour-blind readers can tell apart; after seven the line changes
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
BINS = 60

Scores = Mapping[str, Mapping[str, Tensor]]


def plot_histograms(path: str | Path, scores: Scores, inside: str) -> None:
    """Draw a panel for each score: where images of each set lie.

    The axis spans what in-distribution images take and at most as much again on either side. The
    outermost bins count all beyond, and may pass the upper edge: noise would flatten the rest.

    Args:
        path: of the PNG.
        scores: of each score and each set, finite (N,).
        inside: name of the in-distribution set, which every score has.
    """
    figure, panels = _panels(scores)
    for panel, (score, sets) in zip(panels, scores.items(), strict=True):
        low, high = np.quantile(sets[inside].numpy(), [0.001, 0.999])
        reach = (high - low) or 1.0
        everything = np.concatenate([values.numpy() for values in sets.values()])
        ends = max(low - reach, everything.min()), min(high + reach, everything.max())
        edges = np.linspace(ends[0], ends[1] if ends[1] > ends[0] else ends[0] + 1, BINS + 1)
        highest = 0.0
        for name, values in sets.items():
            counts, _ = np.histogram(np.clip(values.numpy(), edges[0], edges[-1]), edges)
            share = counts / counts.sum()
            highest = max(highest, (share if name == inside else share[1:-1]).max())
            if name == inside:
                panel.stairs(share, edges, fill=True, color="#BBBBBB", label=_label(name))
            else:
                panel.stairs(share, edges, label=_label(name), **_style(name, sets, inside))
        panel.set_title(score)
        panel.set_xlim(edges[0], edges[-1])
        panel.set_ylim(0, 1.1 * highest)
        panel.set_yticks([])
    figure.supxlabel("score: larger = more out of distribution; outermost bins count all beyond")
    figure.supylabel("share of images")
    _write(figure, panels, path)


def plot_roc(path: str | Path, scores: Scores, inside: str) -> None:
    """Draw a panel for each score: the share of each set rejected over that of the inside.

    Args:
        path: of the PNG.
        scores: of each score and each set, finite (N,).
        inside: name of the in-distribution set, which every score has.
    """
    figure, panels = _panels(scores)
    for panel, (score, sets) in zip(panels, scores.items(), strict=True):
        panel.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1)
        for name, values in sets.items():
            if name != inside:
                false, true = roc(sets[inside], values)
                # the line goes through every corner, or ties would be drawn too well
                panel.plot(
                    false.numpy(), true.numpy(), label=_label(name), **_style(name, sets, inside)
                )
        panel.set_title(score)
        panel.set_xlim(-0.01, 1.01)
        panel.set_ylim(-0.01, 1.01)
        panel.set_aspect("equal")
    figure.supxlabel(f"share of {_label(inside)} rejected")
    figure.supylabel("share of the others rejected")
    _write(figure, panels, path)


def table(title: str, rows: Mapping[str, Detection | Mapping[str, float] | str]) -> Table:
    """Lay out a line of numbers for each score; a sentence in their place goes below the table."""
    # a Text and no string, in which rich would look for markup and emoji
    out = Table(title=Text(title), title_justify="left", caption_justify="left")
    out.add_column("score", no_wrap=True)
    for head in ("AUROC", "AUPR\nout", "AUPR\nin", "FPR@95\nout pos.", "FPR@95\nin pos."):
        out.add_column(head, justify="right")
    missing = []
    for score, row in rows.items():
        if isinstance(row, str):
            missing.append(f"{score}: {row}")
            out.add_row(score, *["-"] * 5)
            continue
        numbers = asdict(row) if isinstance(row, Detection) else row
        first, *rest = (f"{numbers[name]:.3f}" for name in NUMBERS)
        if isinstance(row, Detection):
            low, high = row.intervals["auroc"]
            first += f" {low:.3f}-{high:.3f}"
        out.add_row(score, first, *rest)
    if missing:
        out.caption = Text("\n".join(missing))
    return out


def _panels(scores: Scores) -> tuple[Figure, list[Axes]]:
    columns = min(3, len(scores))
    rows = -(-len(scores) // columns)
    # a Figure of its own, and not pyplot's, which would keep it and ask for a screen
    figure = Figure(figsize=(1 + 3.2 * columns, 1.2 + 2.8 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for empty in panels[len(scores) :]:
        empty.remove()
    return figure, panels[: len(scores)]


def _style(name: str, sets: Mapping[str, Tensor], inside: str) -> dict[str, str]:
    place = [other for other in sets if other != inside].index(name)
    line = LINES[place // len(COLOURS) % len(LINES)]
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": line}


def _label(name: str) -> str:
    # a path is known by its end; a dollar would begin a formula, and `_` hide it from the legend
    short = name if len(name) <= 28 else "…" + name[-27:]
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


def _write(figure: Figure, panels: list[Axes], path: str | Path) -> None:
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)
