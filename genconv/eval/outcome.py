"""What the benchmark makes of its numbers: tables, pictures, `ood.json` and `report.html`."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import PIL
import torch
from rich.console import Console
from torch import Tensor

import genconv
from genconv.checkpoint import Trained
from genconv.eval.detection import Detection, average
from genconv.eval.ood_sets import Set
from genconv.eval.plots import plot_histograms, plot_roc, table
from genconv.eval.report import extremes, write_report
from genconv.files import replacing

__all__ = ["averaged", "groups", "protocol", "publish"]

# the score that orders the images shown, where nobody chose any
LEAD = "mahalanobis"
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def groups(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the sets over which numbers are averaged, by the name of the average."""
    near = [name for name in options.out if name in options.near]
    far = [name for name in options.out if name not in options.near]
    if not near:
        return {"all": far}
    return {"near": near} | ({"far": far} if far else {})


def protocol(
    options: argparse.Namespace,
    trained: Trained,
    background: Trained | None,
    sets: Sequence[Set],
    names: Sequence[str],
    resamples: int,
) -> dict[str, Any]:
    """Return all that the numbers depend on, as plain values; the first set is the validation."""
    energy = {"checkpoint": options.checkpoint, "weights_sha256": trained.digest()}
    other = {"checkpoint": options.background, "weights_sha256": background and background.digest()}
    described = [{"name": s.name, "split": s.split, "n": len(s.images)} for s in sets]
    return {
        "genconv": genconv.__version__,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "energy": {**energy, **trained.card()},
        "background": other if background else None,
        "validation": described[0],
        "in": described[1],
        "out": described[2:],
        "near": options.near,
        "n": options.n,
        "fit": "middle square, bicubic with antialiasing; grey by the ITU-R 601 luma",
        "control": options.control,
        "scores": list(names),
        "refine": trained.chain.continued(options.steps).to_dict(),
        "seed": options.seed,
        "resamples": resamples,
        "batch_size": options.batch_size,
    }


def _quantiles(values: Tensor) -> dict[str, float]:
    points = values.quantile(torch.tensor(QUANTILES, dtype=values.dtype)).tolist()
    return {f"{q:g}": point for q, point in zip(QUANTILES, points, strict=True)}


def averaged(detections: Sequence[Detection | str]) -> dict[str, float] | str:
    """Return the average, or the first error: one of fewer sets would not compare."""
    for detection in detections:
        if isinstance(detection, str):
            return detection
    return average(detections)


def publish(
    options: argparse.Namespace,
    how: dict[str, Any],
    sets: Sequence[Set],
    scores: dict[str, dict[str, Tensor]],
    results: dict[str, dict[str, Detection | str]],
    averages: dict[str, dict[str, dict[str, float] | str]],
) -> None:
    """Print the tables; write the pictures, the JSON and the page."""
    show(how, results, averages)
    inside, folder = how["in"]["name"], options.folder
    drawn = {score: found for score, found in scores.items() if inside in found}
    pictures = {}
    if drawn:
        pictures = {
            "How the scores spread": folder / "histograms.png",
            "ROC curves": folder / "roc.png",
        }
        histograms, curves = pictures.values()
        plot_histograms(histograms, drawn, inside)
        plot_roc(curves, drawn, inside)
    quantiles = {
        score: {name: _quantiles(values) for name, values in found.items()}
        for score, found in scores.items()
    }
    outcome = {
        "protocol": how,
        "sets": {name: _plain(rows) for name, rows in results.items()},
        "averages": {name: _plain(rows) for name, rows in averages.items()},
        "quantiles": quantiles,
    }
    path = options.json or folder / "ood.json"
    with replacing(path) as part:
        part.write_text(json.dumps(outcome, indent=2, allow_nan=False) + "\n")
    lead = LEAD if LEAD in how["scores"] and not options.scores else how["scores"][0]
    shown = [extremes(one.name, one.images, scores[lead].get(one.name)) for one in sets]
    page = folder / "report.html"
    write_report(page, outcome, shown, lead, {k: v.read_bytes() for k, v in pictures.items()})
    print("\n".join(f"wrote {written}" for written in (path, *pictures.values(), page)))


def show(
    how: dict[str, Any],
    results: dict[str, dict[str, Detection | str]],
    averages: dict[str, dict[str, dict[str, float] | str]],
) -> None:
    """Print the tables."""
    console = Console(highlight=False, emoji=False)
    inside = how["in"]
    console.print(
        f"{inside['name']}: n {inside['n']}, scores fitted on {how['validation']['n']} others; "
        f"control {how['control'] or 'none'}; seed {how['seed']}",
        markup=False,
    )
    for told, rows in zip(how["out"], results.values(), strict=True):
        n, n_in = told["n"], inside["n"]
        title = f"{told['name']}: n {n}, prevalence {n / (n + n_in):.3f}"
        console.print(table(title, rows))
    if len(results) > 1:
        for group, rows in averages.items():
            console.print(table(f"average over sets: {group}", rows))


def _plain(rows: dict[str, Any]) -> dict[str, Any]:
    return {score: _plain_row(row) for score, row in rows.items()}


def _plain_row(row: Detection | dict[str, float] | str) -> dict[str, Any]:
    if isinstance(row, str):
        return {"error": row}
    return asdict(row) if isinstance(row, Detection) else row
