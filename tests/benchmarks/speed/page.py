"""The numbers as Markdown, between two marks of a page whose words stay as they are."""

from itertools import groupby
from pathlib import Path

from genconv.errors import UserError
from genconv.files import replacing
from tests.benchmarks.speed.clock import Fit, Row

__all__ = ["BEGIN", "END", "check_page", "write_page"]

BEGIN, END = "<!-- numbers: python -m tests.benchmarks --page -->", "<!-- end of numbers -->"


def check_page(path: Path) -> None:
    """Raise a UserError if there is no such page, or it has no place for numbers."""
    if not path.is_file() or BEGIN not in (text := path.read_text()) or END not in text:
        raise UserError(f"{path} is no page with the lines {BEGIN} and {END}")


def write_page(rows: list[Row], lines: list[Fit], title: str, path: Path) -> None:
    """Put tables of all numbers into the page, in place of those that are there."""
    check_page(path)
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    parts = [BEGIN, title]
    for section, found in groupby(rows, key=lambda row: row.section):
        parts += [f"**{section[0].upper()}{section[1:]}**", _rows(list(found))]
    if lines:
        parts += ["**Growth**, seconds = offset + slope · x", _lines(lines)]
    with replacing(path) as part:
        part.write_text(before + "\n\n".join(parts) + f"\n\n{END}" + after)


def _rows(rows: list[Row]) -> str:
    table = ["| network | what | against | genconv | the other | | ratio |", "|---" * 7 + "|"]
    for row in rows:
        ours, theirs = ("-" if v is None else f"{v:.4g}" for v in (row.ours, row.theirs))
        ratio = f"**{row.ratio:.3g}**" if row.ratio is not None else row.note
        what = f"{row.what} ({row.note})" if row.note and row.ratio is not None else row.what
        cells = (row.network, what, row.against, ours, theirs, row.unit, ratio)
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table)


def _lines(lines: list[Fit]) -> str:
    table = ["| x | from | to | offset, ms | slope, ms per 1,000 | R² |", "|---" * 6 + "|"]
    for fit in lines:
        numbers = (f"{1e3 * fit.offset:.3g}", f"{1e6 * fit.slope:.4g}", f"{fit.r2:.4f}")
        table.append(f"| {fit.what} | {fit.x[0]:,} | {fit.x[-1]:,} | " + " | ".join(numbers) + " |")
    return "\n".join(table)
