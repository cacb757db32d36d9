"""The ratios as bars, and what grows as lines."""

from pathlib import Path

from matplotlib.figure import Figure

from genconv.files import replacing
from tests.benchmarks.speed.clock import Fit, Row

__all__ = ["draw"]

RACES = ("chain step", "training update", "evaluation")


def draw(rows: list[Row], lines: list[Fit], title: str, path: Path) -> None:
    """Write FILE.png: how many times as fast genconv is as each other way, and the fitted lines."""
    bars = [
        row for row in rows if row.section in RACES and row.ratio is not None and row.unit == "ms"
    ]
    figure = Figure(
        figsize=(9, 1.5 + 0.21 * len(bars) + (2.2 if lines else 0)), layout="constrained"
    )
    figure.suptitle(title, fontsize=9)
    heights = [max(1.0, 0.21 * len(bars)), *([2.0] if lines else [])]
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if bars:
        axes = parts[0].subplots()
        names = [f"{row.network}, {row.what}: {row.against}" for row in bars]
        axes.barh(range(len(bars)), [row.ratio for row in bars], color="tab:blue", height=0.7)
        axes.set_yticks(range(len(bars)), names, fontsize=6)
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel("how many times as fast genconv is", fontsize=8)
    if lines:
        for axis, fit in zip(parts[-1].subplots(1, len(lines)), lines, strict=True):
            axis.plot(fit.x, [1e3 * s for s in fit.seconds], "o", markersize=3)
            axis.plot(fit.x, [1e3 * (fit.offset + fit.slope * x) for x in fit.x], linewidth=1)
            axis.set_title(f"{fit.what}\nR² {fit.r2:.4f}", fontsize=7)
            axis.set_ylim(bottom=0)
            axis.tick_params(labelsize=6)
        parts[-1].supylabel("ms", fontsize=7)
    with replacing(path) as part, part.open("wb") as file:
        figure.savefig(file, format="png", dpi=110)
