"""`python -m tests.benchmarks`: run what was asked for; print, write and draw it."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import genconv
from genconv.errors import at_least, command
from genconv.files import replacing
from tests.benchmarks.speed import __doc__ as about
from tests.benchmarks.speed.buffers import buffers
from tests.benchmarks.speed.chains import chains
from tests.benchmarks.speed.clock import Fit, Row
from tests.benchmarks.speed.growth import fits, memory
from tests.benchmarks.speed.hardware import described, hardware
from tests.benchmarks.speed.judging import features, scores
from tests.benchmarks.speed.law import law
from tests.benchmarks.speed.networks import Settings
from tests.benchmarks.speed.page import check_page, write_page
from tests.benchmarks.speed.picture import draw
from tests.benchmarks.speed.updates import matching, persistent

__all__ = ["main"]

PARTS = {
    "chains": chains,
    "hardware": hardware,
    "persistent": persistent,
    "matching": matching,
    "buffers": buffers,
    "features": features,
    "scores": scores,
    "memory": memory,
    "growth": fits,
    "law": law,
}


def parse(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="*", choices=PARTS, default=list(PARTS), help="parts (all)")
    add("--given", nargs="+", type=Path, default=[], metavar="FILE.json",
        help="earlier runs, whose numbers come first; `--only` alone runs nothing")  # fmt: skip
    add("--quick", action="store_true", help="tiny networks: does it run?")
    add("--rounds", type=int, default=5, help="turns of every variant (5)")
    add("--batch-size", type=int, default=64, help="images in a batch (64)")
    add("--k", type=int, default=20, help="Langevin steps of an update (20)")
    add("--threads", type=int, default=1, help="of the CPU (1)")
    add("--checkpoint", default="digits", help="the energy whose law is sampled (digits)")
    add("-n", type=int, default=1000, help="samples of it, three times in both precisions (1000)")
    add("--json", type=Path, help="FILE.json of all numbers")
    add("--picture", type=Path, help="FILE.png of the ratios and the lines")
    add("--page", type=Path, help="FILE.md, such as docs/speed.md, whose tables are written anew")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> None:
    """Time genconv."""
    options = parse(args)
    at_least(options, rounds=1, batch_size=1, k=1, threads=1, n=2)
    if options.page is not None:
        check_page(options.page)
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings(
        device,
        options.quick,
        1 if options.quick else options.rounds,
        8 if options.quick else options.batch_size,
        2 if options.quick else options.k,
        options.checkpoint,
        16 if options.quick else options.n,
    )
    hardware_name = described(device)
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    console.print(f"genconv {genconv.__version__}, torch {torch.__version__}, {hardware_name}")
    given = [json.loads(path.read_text()) for path in options.given]
    rows = [Row(**row) for part in given for row in part["rows"]]
    lines = [Fit(**fit) for part in given for fit in part["fits"]]
    for name in options.only:
        found = PARTS[name](settings)
        console.print(line_table(found) if name == "growth" else row_table(found))
        # seen while the rest is at work, also in a file
        console.file.flush()
        (lines if name == "growth" else rows).extend(found)
    if options.json is not None:
        report = {
            "genconv": genconv.__version__,
            "torch": torch.__version__,
            "hardware": hardware_name,
            "settings": asdict(settings),
            "rows": [asdict(row) for row in rows],
            "fits": [asdict(fit) for fit in lines],
        }
        with replacing(options.json) as part:
            part.write_text(json.dumps(report, indent=2) + "\n")
        print(f"wrote {options.json}")
    if options.picture is not None:
        draw(rows, lines, hardware_name, options.picture)
        print(f"wrote {options.picture}")
    if options.page is not None:
        title = f"{hardware_name}; genconv {genconv.__version__}, torch {torch.__version__}, "
        title += f"{settings.rounds} rounds, batches of {settings.batch}."
        write_page(rows, lines, title, options.page)
        print(f"wrote {options.page}")


def row_table(rows: list[Row]) -> Table:
    """Lay out rows of one section."""
    table = Table(title=rows[0].section, title_justify="left")
    for name in ("network", "what", "against"):
        table.add_column(name, overflow="fold")
    for name in ("genconv", "the other", "unit", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("note", overflow="fold")
    for row in rows:
        numbers = [f"{v:.4g}" if v is not None else "-" for v in (row.ours, row.theirs)]
        ratio = "-" if row.ratio is None else f"{row.ratio:.3g}"
        table.add_row(row.network, row.what, row.against, *numbers, row.unit, ratio, row.note)
    return table


def line_table(lines: list[Fit]) -> Table:
    """Lay out fitted lines."""
    table = Table(title="growth: seconds = offset + slope x", title_justify="left")
    for name in ("x", "from", "to", "offset, ms", "slope, ms per 1,000", "R²"):
        table.add_column(name, justify="right")
    for fit in lines:
        ends = (f"{fit.x[i]:,}" for i in (0, -1))
        numbers = (f"{1e3 * fit.offset:.3g}", f"{1e6 * fit.slope:.4g}", f"{fit.r2:.4f}")
        table.add_row(fit.what, *ends, *numbers)
    return table


if __name__ == "__main__":
    command(main)
