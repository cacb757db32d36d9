"""Nothing that was saved is lost: faults that come while files are written, and afterwards."""

import fcntl
import os
import random
import resource
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import torch

from genconv.checkpoint import read
from genconv.errors import UserError
from genconv.sample import main as sample
from genconv.training import WholeCheckpointIO
from genconv.whole import newest
from tests.conftest import train

SAVE = WholeCheckpointIO().save_checkpoint


def number(folder):
    return torch.load(newest(folder), weights_only=True)["n"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def checkpoint(n):
    # of a size that takes several writes
    return {"n": n, "weights": torch.arange(300_000.0) + n}


def die_in_a_child(act):
    """Fork, act, and return the signal that ended the child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Fuse:
    """Sends a signal to its own process at the nth call of a function."""

    def __init__(self, owner, name, nth, kind, after=False):
        self.calls, self.nth, self.kind, self.after = 0, nth, kind, after
        self.real = getattr(owner, name)
        setattr(owner, name, self)

    def __get__(self, owner, cls):
        return lambda *args, **how: self(owner, *args, **how)

    def __call__(self, *args, **how):
        self.calls += 1
        if self.calls == self.nth and not self.after:
            os.kill(os.getpid(), self.kind)
        result = self.real(*args, **how)
        if self.calls == self.nth and self.after:
            os.kill(os.getpid(), self.kind)
        return result


def torn_write(kind):
    def save(content, file):
        file.write(b"PK\x03\x04 half of a checkpoint")
        file.flush()
        os.kill(os.getpid(), kind)

    torch.save = save


MOMENTS = {
    "amid the bytes": lambda kind: torn_write(kind),
    "before the sync": lambda kind: Fuse(os, "fsync", 1, kind),
    "before the reading back": lambda kind: Fuse(torch, "save", 1, kind, after=True),
    "before the first rename": lambda kind: Fuse(Path, "replace", 1, kind),
    "between the renames": lambda kind: Fuse(Path, "replace", 2, kind),
    "after the renames": lambda kind: Fuse(Path, "replace", 2, kind, after=True),
    "before the folder's sync": lambda kind: Fuse(os, "fsync", 2, kind),
}


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_while_saving_tears_nothing(tmp_path, moment, kind):
    """Faults 1 and 7: whatever the moment, the newest whole checkpoint is there and is found."""
    SAVE(checkpoint(1), tmp_path / "last.ckpt")
    SAVE(checkpoint(2), tmp_path / "last.ckpt")

    # made here: a pool of threads, if torch takes one to count, would not survive the fork
    content = checkpoint(3)

    def save():
        # as a second signal finds it
        signal.signal(kind, signal.SIG_DFL) if kind != signal.SIGKILL else None
        MOMENTS[moment](kind)
        SAVE(content, tmp_path / "last.ckpt")

    assert die_in_a_child(save) == -kind
    done = moment in ("after the renames", "before the folder's sync")
    assert number(tmp_path) == 3 if done else 2
    # and what was torn is cleared away by the next save
    SAVE(checkpoint(4), tmp_path / "last.ckpt")
    assert names(tmp_path) == ["last.ckpt", "previous.ckpt"]
    assert number(tmp_path) == 4


def test_the_temporary_file_is_on_the_same_device(tmp_path, monkeypatch):
    """Fault 1: a rename can be torn only where it is a copy, from one file system to another."""
    seen, save = [], torch.save
    monkeypatch.setattr(torch, "save", lambda x, file: (seen.append(file.name), save(x, file)))
    SAVE(checkpoint(1), tmp_path / "last.ckpt")
    assert [Path(path).parent for path in seen] == [tmp_path]


@pytest.mark.parametrize("room", [0, 1000, 40_000, 1_000_000])
def test_a_full_disk_is_named_and_changes_nothing(tmp_path, room):
    """Fault 2."""
    SAVE(checkpoint(1), tmp_path / "last.ckpt")
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, was[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*last\.ckpt: .* is kept"):
            SAVE(checkpoint(2), tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == ["last.ckpt"]
    assert number(tmp_path) == 1


@pytest.mark.parametrize("nth", [1, 2])
def test_a_rename_that_is_not_permitted_is_raised(tmp_path, monkeypatch, nth):
    """Fault 3: Lightning alone would stay silent, and there would be no checkpoint."""
    SAVE(checkpoint(1), tmp_path / "last.ckpt")
    calls, real = [], Path.replace

    def refused(self, target):
        calls.append(target)
        if len(calls) == nth:
            raise PermissionError(13, "Permission denied")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refused)
        with pytest.raises(UserError, match=r"cannot write .*last\.ckpt: Permission denied"):
            SAVE(checkpoint(2), tmp_path / "last.ckpt")
    assert number(tmp_path) == 1
    assert len(names(tmp_path)) == 1


def test_a_disk_that_gives_back_other_bytes_is_noticed(tmp_path, monkeypatch):
    """Fault 4: every checkpoint is read back before it takes the place of a good one."""
    SAVE(checkpoint(1), tmp_path / "last.ckpt")
    real = torch.save

    def rotten(content, file):
        real(content, file)
        file.seek(500_000)
        file.write(b"rot")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", rotten)
        with pytest.raises(UserError, match=r"was not written: .*checksum"):
            SAVE(checkpoint(2), tmp_path / "last.ckpt")
    assert number(tmp_path) == 1


@pytest.fixture
def twice(tmp_path):
    """A run with two checkpoints, of updates 4 and 6."""
    train(tmp_path, "--checkpoint.every", "4")
    return tmp_path / "digits"


def test_a_torn_or_flipped_last_gives_way_to_the_one_before(twice, caplog):
    """Fault 4: every damage is either noticed, or of bytes that mean nothing."""
    last = twice / "checkpoints" / "last.ckpt"
    raw, chance, noticed = last.read_bytes(), random.Random(0), 0
    good = read(twice, "cpu").digest()
    before = read(twice / "checkpoints" / "previous.ckpt", "cpu")
    assert before.updates == 4
    damages = [raw[: int(len(raw) * share)] for share in (0, 0.3, 0.999)]
    for _ in range(30):
        place, bit = chance.randrange(len(raw)), 1 << chance.randrange(8)
        damages.append(raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :])
    for damaged in damages:
        last.write_bytes(damaged)
        caplog.clear()
        found = read(twice, "cpu")
        if found.updates == 6:
            assert found.digest() == good
            continue
        noticed += 1
        assert found.digest() == before.digest()
        assert "last.ckpt" in caplog.text
        assert "previous.ckpt, which was saved before it" in caplog.text
    assert noticed > 25


def test_training_goes_on_from_the_one_before(twice, caplog, run):
    """Fault 4: `--ckpt_path last` falls back as well, and ends where it would have."""
    last = twice / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last.ckpt is torn; .*previous.ckpt was saved before it"):
        train(twice.parent, "--ckpt_path", str(last))
    train(twice.parent, "--ckpt_path", "last")
    assert "last.ckpt is torn; taking" in caplog.text
    assert read(twice, "cpu").digest() == read(run, "cpu").digest()


def test_nothing_whole_is_said(twice):
    """Fault 4."""
    folder = twice / "checkpoints"
    (folder / "last.ckpt").write_bytes(b"")
    (folder / "previous.ckpt").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"last\.ckpt is torn, and .*previous\.ckpt is no better"):
        read(twice, "cpu")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(UserError, match=r"last\.ckpt does not exist"):
        train(twice.parent, "--ckpt_path", "last")


def test_one_run_in_a_folder(twice, tmp_path):
    """Fault 21."""
    before = {path: path.read_bytes() for path in twice.rglob("*") if path.is_file()}
    with (twice / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"another process writes .*\.lock; wait for it"):
            train(tmp_path, "--ckpt_path", "last")
    assert {p: p.read_bytes() for p in twice.rglob("*") if p.is_file()} == before
    train(tmp_path, "--ckpt_path", "last", "--trainer.max_steps", "7")


def test_one_sampling_into_a_file(run, tmp_path):
    """Fault 21."""
    words = [str(run), "-n", "2", "--device", "cpu", "--out", str(tmp_path / "a.npz")]
    part = tmp_path / "a.npz.part"
    part.mkdir()
    with (part / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process writes"):
            sample(words)
    sample(words)
    assert names(tmp_path) == ["a.npz"]
