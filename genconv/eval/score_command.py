"""Score every file of a folder: `python -m genconv.eval score CKPT FOLDER --csv scores.csv ...`."""

import argparse
import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from genconv.checkpoint import Trained, read
from genconv.data import load_images
from genconv.data.decode import Decoded, decode_file
from genconv.data.fit import fit
from genconv.data.folder import every_file
from genconv.errors import UserError, at_least, command
from genconv.eval.calibration import Calibration, calibrate, check_rate, rounded
from genconv.eval.measuring import Measuring
from genconv.eval.scores import SCORES, needed
from genconv.eval.shards import parse_shard, part
from genconv.eval.table import Table, begun, join, visible
from genconv.memory import Bites
from genconv.progress import progress
from genconv.ranks import ranks
from genconv.seeds import derive

__all__ = ["batches", "main"]

COLUMNS = ("path", "sha1", "status", "error", "width", "height", "mode")
READERS = min(4, os.cpu_count() or 1)
# a part of every job: raise it when the same files would get other rows
TABLE_VERSION = 1

EPILOG = """\
FILE.csv has one row, which is one line, for every file below FOLDER, sorted by path:
  path       below FOLDER. What is not UTF-8, control characters and backslashes are written as
             Python's escapes (\\udcff, \\n, \\\\), and what a spreadsheet would compute has an
             apostrophe in front; genconv.eval.table.original gives the true name back
  sha1       of the file's bytes
  status     ok or error; then `error` says why, and scores, p_value and flag are empty
  width, height, mode   as the file has them; what is scored is its middle square, resized
  score_*    larger = belongs less
  p_value    of the first score: (k + 1) / (n + 1), where k of the n calibration images score at
             least as high
  flag       1 where p_value <= --fpr; of images like the calibration set about this share has it

The same command again goes on where a run was cut short, and ends in the same bytes. Shards are
stretches of the table; when all are done, this joins them:
  (cat s0.csv; tail -qn +2 s1.csv s2.csv s3.csv) > scores.csv
"""


def batches(
    folder: Path, paths: list[str], rows: range, size: int, shape: tuple[int, ...]
) -> Iterator[tuple[int, list[Decoded]]]:
    """Read the rows in batches of this size; the next one is read while one is in use.

    Images are fitted to the energy's shape (C, H, H) at once, so that none is kept in full.
    """

    def look(path: Path) -> Decoded:
        found = decode_file(path)
        if found.image is None:
            return found
        return replace(found, image=fit(found.image[None], shape[-1], shape[0])[0])

    with ThreadPoolExecutor(READERS) as pool:

        def ask(start: int) -> list[Future[Decoded]]:
            names = paths[start : min(start + size, rows.stop)]
            return [pool.submit(look, folder / name) for name in names]

        starts = range(rows.start, rows.stop, size)
        ahead = [ask(start) for start in starts[:1]]
        try:
            for start in starts:
                ahead += [ask(start + size)] if start + size < rows.stop else []
                yield start, [future.result() for future in ahead.pop(0)]
        finally:
            pool.shutdown(cancel_futures=True)


def table_rows(
    names: list[str],
    found: list[Decoded],
    first: int,
    measuring: Measuring,
    calibration: Calibration,
    fpr: float,
) -> list[list[str | int | float]]:
    """Turn one batch of files, the first of which has this number, into rows."""
    # black stands where there is no image, so that numbers and sizes stay as they are whatever is
    # broken beside them; what is measured there is dropped
    blank = torch.zeros(measuring.trained.shape, dtype=torch.uint8)
    images = [blank if one.image is None else one.image for one in found]
    values = torch.full((len(found), len(calibration.names) + 1), torch.nan, dtype=torch.float64)
    if not all(one.error for one in found):
        scores, p = calibration(measuring(torch.stack(images), first))
        values = torch.stack([*scores.values(), rounded(p)], 1)
    rows = []
    for name, one, numbers in zip(names, found, values, strict=True):
        error = one.error
        if not error and not numbers.isfinite().all():
            error = "its score is not a finite number"
        *scores, p = numbers.tolist()
        given = [*scores, p, int(p <= fpr)]
        size = ["" if side is None else side for side in (one.width, one.height)]
        rows.append(
            [name, one.sha1, "error" if error else "ok", error, *size, one.mode]
            + ([""] * len(given) if error else given)
        )
    return rows


def calibrated(measuring: Measuring, names: list[str], options: argparse.Namespace) -> Calibration:
    """Measure the calibration set and hold the scores against it."""
    channels, size, _ = measuring.trained.shape
    name, split = options.calibrate, options.calibrate_split
    images = load_images(name, split, root=options.root, size=size, channels=channels).images
    parts = [
        measuring(images[start : start + options.batch_size], start)
        for start in progress(range(0, len(images), options.batch_size), f"measuring {name}")
    ]
    statistics = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    try:
        calibration = calibrate(names, statistics)
        check_rate(options.fpr, len(calibration.scores))
    except UserError as error:
        raise UserError(f"cannot calibrate on {name}, {split}: {error}") from error
    return calibration


def digest(trained: Trained) -> str:
    """Return a short digest of the weights and of all that the card says."""
    card = json.dumps(trained.card(), sort_keys=True) + trained.digest()
    return hashlib.sha256(card.encode()).hexdigest()[:16]


def parse(args: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.eval score",
        description="Give every image of a folder its scores, and flag those that do not belong.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("checkpoint", help="checkpoint, run folder, or exported folder")
    add("folder", type=Path, help="every file below it gets a row")
    add("--csv", type=Path, required=True,
        help="FILE.csv, not in FOLDER; FILE.csv.json beside it says what it is of")  # fmt: skip
    add("--calibrate", required=True, metavar="DATA",
        help="images that belong and were not trained on: a name, folder or .npz")  # fmt: skip
    add("--calibrate-split", default="test", metavar="SPLIT", help="(test)")
    add("--fpr", type=float, default=0.05,
        help="share of the images that belong which may be flagged (0.05)")  # fmt: skip
    add("--score", nargs="+", default=["energy"], metavar="SCORE",
        help=f"the first one flags: {', '.join(SCORES)} (energy)")  # fmt: skip
    add("--background", help="checkpoint of the energy with which `ratio` compares")
    add("--shard", default="0/1", metavar="I/K",
        help="only stretch I, from 0, of K of the table (0/1)")  # fmt: skip
    add("--batch-size", type=int, default=256, help="images at once (256)")
    add("--device", help="cuda, cpu, ... (the first GPU, else the CPU)")
    add("--root", type=Path, default=Path("data"), help="where downloads lie (data)")
    add("--seed", type=int, default=0, help="of the scores that run chains (0)")
    add("--overwrite", action="store_true", help="replace FILE.csv if it exists")
    return parser.parse_args(args)


def check(options: argparse.Namespace) -> tuple[int, int]:
    """Return shard and number of shards; raise a UserError for what cannot be done."""
    at_least(options, batch_size=1, seed=0)
    if not 0 < options.fpr < 1:
        raise UserError(f"--fpr must lie between 0 and 1, not {options.fpr:g}")
    shard, shards = parse_shard(options.shard)
    if options.csv.resolve().is_relative_to(options.folder.resolve()):
        raise UserError(
            f"{options.csv} would lie in {options.folder}, all of whose files get a row; "
            "choose another --csv"
        )
    return shard, shards


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse energies of anything but square images, grey or RGB."""
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise UserError(f"files become square grey or RGB images, but this energy takes {shape}")


def score(
    options: argparse.Namespace,
    table: Table,
    paths: list[str],
    rows: range,
    measuring: Measuring,
    calibration: Calibration,
) -> tuple[int, int]:
    """Write the rows that the table lacks; return how many of all failed and were flagged."""
    done, failed, flagged = rows.start, 0, 0
    for row in table.rows():
        if done == rows.stop or row[0] != visible(paths[done]):
            raise UserError(
                f"row {done - rows.start + 1} of {options.csv} is not that of the file whose turn "
                "it is; the table was changed: choose another --csv, or add --overwrite"
            )
        done, failed, flagged = done + 1, failed + (row[2] == "error"), flagged + (row[-1] == "1")
    size = options.batch_size
    # what was cut short is measured again as a whole batch: the size of a batch may show in the
    # last digits
    rest = range(done // size * size if done < rows.stop else rows.stop, rows.stop)
    with (
        warnings.catch_warnings(),
        closing(batches(options.folder, paths, rest, size, measuring.trained.shape)) as read_ahead,
    ):
        # Pillow's, of odd metadata and the like: what matters is an error already
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for start, found in progress(read_ahead, "scoring", -(-len(rest) // size)):
            names = paths[start : start + len(found)]
            batch = table_rows(names, found, start, measuring, calibration, options.fpr)
            batch = batch[max(0, done - start) :]
            table.append(batch)
            failed += sum(row[2] == "error" for row in batch)
            flagged += sum(row[-1] == 1 for row in batch)
    return failed, flagged


def main(args: list[str] | None = None) -> None:
    """Score a folder, showing progress, and go on with what was cut short.

    Processes that torchrun started do a stretch each, which the first of them joins.
    """
    options = parse(args)
    team = ranks()
    if team.world == 1:
        score_shard(options)
        return
    if options.shard != "0/1":
        raise UserError("torchrun shares the work out already; leave out --shard")
    if options.csv.exists() and not options.overwrite:
        raise UserError(f"{options.csv} exists; choose another --csv, or add --overwrite")
    parts = [
        options.csv.with_name(f"{options.csv.name}.{rank}of{team.world}")
        for rank in range(team.world)
    ]
    mine = {"csv": parts[team.rank], "shard": f"{team.rank}/{team.world}"}
    score_shard(argparse.Namespace(**{**vars(options), **mine}))
    team.wait()
    if team.first:
        join(parts, options.csv, {"shard": options.shard})
        print(f"joined {team.world} parts: {visible(str(options.csv))}")


def score_shard(options: argparse.Namespace) -> None:
    """Score one stretch of the table."""
    shard, shards = check(options)
    names = list(dict.fromkeys(options.score))
    wanted = needed(names)
    paths, hidden = every_file(options.folder)
    trained = read(options.checkpoint, options.device)
    check_shape(trained.shape)
    background = read(options.background, options.device) if options.background else None
    job = {
        "version": TABLE_VERSION,
        "energy": digest(trained),
        "background": background and digest(background),
        "list of files": hashlib.sha256(b"\0".join(map(os.fsencode, paths))).hexdigest()[:16],
        "score": names,
        "calibrate": options.calibrate,
        "calibrate-split": options.calibrate_split,
        "fpr": options.fpr,
        "seed": options.seed,
        "batch-size": options.batch_size,
        "shard": f"{shard}/{shards}",
        "device": trained.device.type,
    }
    measuring = Measuring(trained, wanted, options.seed, Bites(options.batch_size), background)
    kept = begun(options.csv, job, options.overwrite)
    if kept is None:
        # no file's chain sees the noise of a calibration image
        apart = replace(measuring, seed=derive(options.seed, "calibration"))
        kept = calibrated(apart, names, options).to_dict()
    rows = part(len(paths), options.batch_size, shard, shards)
    columns = [*COLUMNS, *(f"score_{name}" for name in names), "p_value", "flag"]
    with Table(options.csv, columns, job, kept, options.overwrite) as table:
        calibration = Calibration.from_dict(kept)
        failed, flagged = score(options, table, paths, rows, measuring, calibration)
    also = f"; {hidden} hidden files and folders passed over" if hidden else ""
    print(
        f"{len(rows)} files: {len(rows) - failed} scored, {flagged} of them flagged "
        f"(p <= {options.fpr:g}), {failed} failed{also}: {visible(str(options.csv))}"
    )


if __name__ == "__main__":
    command(main)
