"""A CSV that grows by whole rows, one to a line, and survives a kill at any moment."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

from genconv.errors import UserError
from genconv.files import lock, replacing

__all__ = ["Table", "begun", "join", "original", "visible"]

HIDDEN = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
ESCAPE = re.compile(r"\\(?:[\\nrt]|x[0-9a-f]{2}|u[0-9a-f]{4})")
# what makes a spreadsheet compute, full-width forms too; the apostrophe, to tell it from ours
FORMULA = "=+-@＝＋－＠'"


def visible(text: str) -> str:
    r"""Make a name or message safe for one line of a CSV and for spreadsheets; see `original`.

    Control characters, line breaks and bytes that are not UTF-8 (which Python holds as lone
    surrogates) become Python's escapes, as `\n` and `\udcff`, and a backslash is doubled. What
    starts like a formula gets an apostrophe in front.
    """
    text = HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return "'" + text if text.lstrip().startswith(tuple(FORMULA)) else text


def original(cell: str) -> str:
    """Return the text that `visible` was given: a file's name as `open` takes it."""
    cell = cell.removeprefix("'")
    return ESCAPE.sub(lambda found: found[0].encode().decode("unicode_escape"), cell)


def begun(path: Path, job: dict[str, Any], overwrite: bool = False) -> Any:
    """Return what an earlier run of this job kept beside the table, or None where there is none.

    Raises:
        UserError: the table exists and is not of this job.
    """
    if overwrite or not path.exists():
        return None
    empty = path.stat().st_size == 0
    mend = "choose another --csv, or add --overwrite"
    try:
        beside = json.loads(_side(path).read_text())
        found, kept = beside["job"], beside["kept"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if empty:
            return None
        raise UserError(
            f"{path} exists, and {_side(path)} does not say of which job it is; {mend}"
        ) from error
    odd = [key for key in job if found.get(key) != job[key]]
    if odd and not empty:
        raise UserError(
            f"{path} was begun with another {odd[0]} ({found.get(odd[0])}, now {job[odd[0]]}); "
            f"{mend}"
        )
    return None if odd else kept


class Table:
    """A CSV that one process at a time appends to.

    FILE.csv.json beside it says what job its rows are of. A line that a kill tore is cut off; what
    `append` has returned from is on the disk.

    Args:
        path: FILE.csv.
        columns: the header.
        job: plain values that all rows depend on.
        kept: plain values to find again in `begun`.
        overwrite: throw away what is there.

    Raises:
        UserError: another process writes it, it is of another job or header, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        columns: Iterable[str],
        job: dict[str, Any],
        kept: Any = None,
        overwrite: bool = False,
    ) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; choose another") from error
        try:
            lock(self._file, "choose another --csv")
            if begun(path, job, overwrite) is None:
                self._file.truncate(0)
                with replacing(_side(path)) as part:
                    part.write_text(json.dumps({"job": job, "kept": kept}) + "\n")
            header = _line(columns)
            with path.open("rb") as file:
                first = file.readline()
                # only the last line can lack its end
                whole = sum(len(line) for line in chain([first], file) if line.endswith(b"\n"))
            self._file.truncate(whole)
            if whole == 0:
                self._write(header)
            elif first != header:
                raise UserError(f"{path} does not begin as it did; it was changed")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Table":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # closing also unlocks
        self._file.close()

    def rows(self) -> Iterator[list[str]]:
        """Give the rows that are there, cells as they are in the file.

        Raises:
            UserError: a line is no row.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    (row,) = csv.reader([line.decode()], strict=True)
                except (ValueError, csv.Error) as error:
                    raise UserError(
                        f"line {number} of {self.path} is no row; it was changed"
                    ) from error
                if number > 1:
                    yield row

    def append(self, rows: Iterable[Iterable[str | int | float]]) -> None:
        """Append rows; numbers are written shortest, strings quoted, as `visible` makes them.

        Raises:
            UserError: the disk is full, or fails.
        """
        self._write(b"".join(_line(row) for row in rows))

    def _write(self, lines: bytes) -> None:
        try:
            while lines:
                lines = lines[self._file.write(lines) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; the same command goes on from here"
            ) from error


def join(parts: Sequence[Path], path: Path, changes: dict[str, Any]) -> None:
    """Put tables that continue each other into one, with what lies beside it; delete them.

    Args:
        parts: the tables, in their order.
        path: FILE.csv; what was there is replaced.
        changes: what the job of the whole says otherwise than that of the first part.

    Raises:
        UserError: the whole cannot be written; then the parts are kept.
    """
    beside = json.loads(_side(parts[0]).read_text())
    beside["job"] |= changes
    # the table last: without it the other file says nothing
    with replacing(_side(path)) as part:
        part.write_text(json.dumps(beside) + "\n")
    with replacing(path) as part, part.open("wb") as file:
        for number, table in enumerate(parts):
            with table.open("rb") as rows:
                header = rows.readline()
                file.write(header if number == 0 else b"")
                shutil.copyfileobj(rows, file)
    for table in parts:
        table.unlink()
        _side(table).unlink()


def _side(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _line(row: Iterable[str | int | float]) -> bytes:
    cells = [visible(cell) if isinstance(cell, str) else cell for cell in row]
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()
