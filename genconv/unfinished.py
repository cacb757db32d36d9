"""Long work on its way to a file or folder, which goes on where it was cut short."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from genconv.errors import UserError
from genconv.files import lock, replacing

__all__ = ["Unfinished", "check_free", "part_of"]


def part_of(out: Path) -> Path:
    """Return the folder that holds what is not yet published as OUT."""
    return out.with_name(out.name + ".part")


def check_free(out: Path, overwrite: bool = False) -> None:
    """Raise a UserError if there is something at OUT that would be lost or mixed with new files."""
    if not out.name:
        raise UserError(f"--out {out} has no name of its own; name a file, or a folder to be made")
    taken = out.is_file() or (out.is_dir() and any(out.iterdir()))
    # killed while it was published, OUT has its .part beside it
    if taken and not overwrite and not part_of(out).exists():
        raise UserError(f"{out} exists; choose another --out or add --overwrite")


class Unfinished:
    """Images on their way to OUT, kept in the folder OUT.part until all are there.

    A batch counts only once `done` says so, so work that was cut short goes on where it stopped.

    Args:
        out: where the images will be published.
        job: all that the images depend on, as plain values.
        shape: (n, *space, C) of all images.

    Raises:
        UserError: OUT.part belongs to another job, or another process is at work on it.
    """

    def __init__(self, out: Path, job: dict[str, Any], shape: tuple[int, ...]) -> None:
        self.folder = part_of(out)
        self._job, self._images = self.folder / "job.json", self.folder / "images.npy"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise UserError(
                f"cannot write {self.folder}: {error.strerror}; choose another --out"
            ) from error
        try:
            lock(self._lock, "choose another --out")
            self._begin(job, shape)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> "Unfinished":
        return self

    def __exit__(self, *error: object) -> None:
        # closing also unlocks
        self._lock.close()

    def _begin(self, job: dict[str, Any], shape: tuple[int, ...]) -> None:
        if self._job.exists():
            try:
                found = json.loads(self._job.read_text())
                self.done = found.pop("done")
                self.images = np.lib.format.open_memmap(self._images, mode="r+")
            except (OSError, ValueError, KeyError, AttributeError) as error:
                raise UserError(f"{self.folder} is broken; delete it to begin anew") from error
            if odd := [key for key in job if found.get(key) != job[key]]:
                raise UserError(
                    f"{self.folder} was begun with another {odd[0]} ({found.get(odd[0])}, now "
                    f"{job[odd[0]]}); finish that one first, or delete the folder"
                )
        else:
            self.done = 0
            self.job = job
            self.images = np.lib.format.open_memmap(
                self._images, mode="w+", dtype=np.uint8, shape=shape
            )
            self._reserve()
            self.mark(0)
        self.job = job

    def _reserve(self) -> None:
        """Take the space now: a mapped file that finds the disk full later kills the process."""
        if hasattr(os, "posix_fallocate"):
            try:
                with self._images.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, self._images.stat().st_size)
            except OSError as error:
                raise UserError(f"cannot write {self._images}: {error.strerror}") from error

    def mark(self, done: int) -> None:
        """Record that the first `done` images are there."""
        self.images.flush()
        with replacing(self._job) as part:
            part.write_text(json.dumps({**self.job, "done": done}))
        self.done = done

    def remove(self) -> None:
        """Delete the folder."""
        del self.images
        # the job last would leave, after a kill, a folder that cannot be gone on with
        for path in (self._job, self._images, self.folder / "lock"):
            path.unlink()
        self.folder.rmdir()
