"""The benchmark as one HTML page, which needs no network, no script and no other file."""

import base64
import hashlib
import inspect
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from genconv.eval.detection import NUMBERS
from genconv.eval.scores import SCORES
from genconv.files import replacing
from genconv.images import grid, to_pil

__all__ = ["Extremes", "extremes", "write_report"]

TILES = 16
COLUMNS = 8
# of an image on the screen, in CSS pixels
SIDE = 48


@dataclass(frozen=True)
class End:
    """One end of a set: a PNG of n images and its width on the screen, first and last score."""

    title: str
    picture: bytes
    n: int
    width: int
    first: float
    last: float


@dataclass(frozen=True)
class Extremes:
    """The images of a set that a score holds for the most and the least typical.

    Attributes:
        name: of the set.
        ends: most typical first; empty where there is nothing to show.
        note: why there is nothing to show; "" where there is.
    """

    name: str
    ends: tuple[End, ...] = ()
    note: str = ""


def extremes(name: str, images: Tensor, scores: Tensor | None) -> Extremes:
    """Show both ends of a set, the most and the least typical images first.

    Args:
        name: of the set.
        images: uint8 (N, C, H, W).
        scores: (N,), larger = less typical; None where they are not finite.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        return Extremes(name, note=f"shapes of {tuple(images.shape[1:])} are not shown as pictures")
    if scores is None:
        return Extremes(name, note="not every image has a finite score")
    order = scores.argsort(stable=True)
    n = min(TILES, -(-len(order) // 2))
    ends = []
    columns = min(COLUMNS, n)
    # the browser magnifies, but small images would suffer from the white between them
    scale = max(1, 32 // images.shape[-1])
    for title, chosen in (("most typical", order[:n]), ("least typical", order.flip(0)[:n])):
        picture = png(grid(images[chosen], columns=columns, scale=scale))
        ends_at = float(scores[chosen[0]]), float(scores[chosen[-1]])
        ends.append(End(title, picture, n, SIDE * columns, *ends_at))
    return Extremes(name, tuple(ends))


def write_report(
    path: str | Path,
    outcome: Mapping[str, Any],
    shown: Sequence[Extremes],
    lead: str,
    pictures: Mapping[str, bytes],
) -> None:
    """Write the page; names are escaped, and a policy in it keeps any other script from running.

    Args:
        path: of the page.
        outcome: what `ood.json` holds.
        shown: the ends of each set.
        lead: name of the score that ordered them.
        pictures: PNGs by title.
    """
    how = outcome["protocol"]
    script = files("genconv.eval").joinpath("report.js").read_text("utf-8")
    sets = [{**told, "rows": outcome["sets"][told["name"]]} for told in how["out"]]
    columns = {told["name"]: told["rows"] for told in sets}
    if len(sets) > 1:
        columns |= {f"average: {name}": rows for name, rows in outcome["averages"].items()}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["data_uri"] = data_uri
    template = files("genconv.eval").joinpath("report.html.jinja").read_text("utf-8")
    page = environment.from_string(template).render(
        inside=how["in"],
        validation=how["validation"],
        control=how["control"],
        resamples=how["resamples"],
        columns=list(columns),
        overview=overview(how["scores"], list(columns.values())),
        sentences={name: inspect.getdoc(SCORES[name].function) for name in how["scores"]},
        sets=sets,
        numbers=NUMBERS,
        lead=lead,
        extremes=shown,
        pictures=pictures,
        protocol=flat(how),
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    # a name that is not UTF-8 is shown with Python's escapes
    with replacing(path) as part:
        part.write_text(page, "utf-8", errors="backslashreplace")


def overview(
    scores: Sequence[str], columns: Sequence[Mapping[str, Any]]
) -> dict[str, list[tuple[float | None, bool]]]:
    """Return each score's AUROC in every column, None for none, and whether it is the best."""
    aurocs = [[rows[score].get("auroc") for score in scores] for rows in columns]
    tops = [max((x for x in column if x is not None), default=None) for column in aurocs]
    return {
        score: [
            (column[i], column[i] is not None and column[i] == top)
            for column, top in zip(aurocs, tops, strict=True)
        ]
        for i, score in enumerate(scores)
    }


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return nested plain values as text under dotted keys."""
    out: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{above}{key}.")
        else:
            out[above + key] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
    return out


def png(image: Tensor) -> bytes:
    """Encode uint8 (C, H, W)."""
    file = io.BytesIO()
    to_pil(image).save(file, format="PNG", optimize=True)
    return file.getvalue()


def data_uri(picture: bytes) -> str:
    """Return a PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
