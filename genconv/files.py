"""Files that appear whole or not at all, and have one writer at a time."""

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from genconv.errors import UserError

__all__ = ["clear_litter", "lock", "replacing"]


@contextmanager
def replacing(path: str | Path, previous: str | Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced and renamed over `path`.

    On an error, or a kill at any moment, `path` keeps what it held before. The temporary file lies
    in the same folder because a rename across file systems is a copy, and a copy can be torn.

    Args:
        path: the file.
        previous: a name, in the same folder, under which what `path` held before is kept.

    Raises:
        UserError: the folder cannot be made or written to, or the disk is full or fails.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        # mkstemp's files are private; what we publish is as readable as any other new file
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        _sync(part)
        if previous is not None and path.exists():
            path.replace(previous)
        part.replace(path)
        # the new name is an entry of the folder, which has to reach the disk too
        _sync(path.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise UserError(
            f"cannot write {path}: {error.strerror}; what was there before is kept"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def clear_litter(path: str | Path) -> None:
    """Delete temporary files that killed writers of `path` left; none may be at work."""
    path = Path(path)
    for part in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        part.unlink(missing_ok=True)


def lock(file: IO[Any], mend: str) -> None:
    """Lock an open file until it is closed, or the process ends in whatever way.

    Raises:
        UserError: another process holds the lock; `mend` says what to do.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process writes {file.name}; {mend}") from error
    except OSError:
        # a file system without locks; there is nothing to ask
        return


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
