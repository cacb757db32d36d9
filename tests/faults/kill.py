"""Kill -9 at random moments of training and of scoring: `python -m tests.faults.kill --times 50`.

A tiny run is started, killed at a random moment and gone on with, again and again, in one folder;
moments are spread over beginnings, updates, saves, renames and ends. After every kill the run's
newest checkpoint has to be whole and none earlier than before; in the end weights, averages,
moments, chains and random numbers have to be, bit for bit, those of a run that was never killed.
The same for a table of scores, of which no row may be lost or doubled.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from genconv.data import load_images
from genconv.errors import command
from genconv.eval.score_command import main as score
from genconv.images import save_png
from genconv.train import main as train
from genconv.whole import broken, newest
from tests.conftest import TINY
from tests.test_train import assert_same_training
from tests.training.test_resume import differences

EVERY = 10


def start(work: Callable[[list[str]], None], words: list[str], said: Path) -> int:
    """Fork a process that does the work, imports done; what it complains of goes into a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child:
        return child
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 1
    try:
        command(lambda: work(words))
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def kill_at(
    work: Callable[[list[str]], None], words: list[str], seconds: float, said: Path
) -> bool:
    """Do the work, and kill it after so many seconds; whether it was killed before its end."""
    child, end = start(work, words, said), time.monotonic() + seconds
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.002)
    if not done[0]:
        os.kill(child, signal.SIGKILL)
        done = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(done[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run ended with {code}:\n{said.read_text()}")
    return code != 0


def finished(work: Callable[[list[str]], None], words: list[str], said: Path) -> float:
    """Do all the work; the seconds it took."""
    begin = time.monotonic()
    assert not kill_at(work, words, 3600, said)
    return time.monotonic() - begin


def updates(folder: Path) -> int:
    """Updates of the newest whole checkpoint; 0 where there is none at all."""
    if not any(folder.glob("[!.]*.ckpt")):
        return 0
    path = newest(folder)
    assert not broken(path)
    return torch.load(path, weights_only=True)["global_step"]


def training(home: Path, times: int, steps: int, chance: random.Random) -> str:
    def words(name: str) -> list[str]:
        flags = [*TINY, "--runs", str(home), "--name", name, "--samples.every", "0"]
        flags += ["--trainer.max_steps", str(steps), "--checkpoint.every", str(EVERY)]
        return [*flags, "--ckpt_path", "auto"]

    said = home / "said.txt"
    whole = finished(train, words("whole"), said)
    folder, kills, before, fallbacks = home / "killed" / "checkpoints", 0, 0, 0
    while kills < times:
        killed = kill_at(train, words("killed"), whole * chance.uniform(0.05, 1.0), said)
        fallbacks += "which was saved before it" in said.read_text()
        now = updates(folder)
        assert now >= before, f"went back from update {before} to {now}"
        assert now % EVERY == 0 or now == steps
        kills, before = kills + killed, now
        if not killed:
            assert now == steps
            # there and back again: the run begins anew, as long as there are kills left
            assert_equal(home)
            for path in sorted((home / "killed").rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            before = 0
    finished(train, words("killed"), said)
    assert_equal(home)
    return f"training: {kills} kills, {fallbacks} times the checkpoint before the last was taken"


def assert_equal(home: Path) -> None:
    one, two = (
        torch.load(newest(home / name / "checkpoints"), weights_only=True)
        for name in ("whole", "killed")
    )
    assert_same_training(one, two)
    assert list(differences(one["guard"], two["guard"])) == []


def scoring(home: Path, times: int, files: int, chance: random.Random) -> str:
    images = load_images("digits", "train").images
    for i in range(files):
        save_png(home / "files" / f"{i}.png", images[i % len(images)])
    checkpoint = str(home / "whole")

    def words(name: str) -> list[str]:
        flags = ["--calibrate", "digits", "--batch-size", "2", "--root", str(home)]
        table = ["--csv", str(home / name), "--score", "energy", "refine_distance"]
        return [checkpoint, str(home / "files"), *table, *flags]

    said = home / "said.txt"
    seconds = finished(score, words("whole.csv"), said)
    whole, out = (home / "whole.csv").read_bytes(), home / "killed.csv"
    kills, length = 0, 0
    while kills < times:
        killed = kill_at(score, words("killed.csv"), seconds * chance.uniform(0.05, 1.0), said)
        now = out.read_bytes() if out.exists() else b""
        assert whole.startswith(now)
        assert len(now) >= length
        kills, length = kills + killed, len(now)
        if not killed:
            assert now == whole
            out.unlink()
            length = 0
    finished(score, words("killed.csv"), said)
    assert out.read_bytes() == whole
    return f"scoring: {kills} kills"


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50, help="kills of each kind (50)")
    parser.add_argument("--steps", type=int, default=400, help="updates of the run (400)")
    parser.add_argument("--files", type=int, default=1000, help="files to score (1000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    # a pool of threads would not survive the fork, and the child would wait for it for ever
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as home:
        begin = time.monotonic()
        print(training(Path(home), options.times, options.steps, chance), flush=True)
        print(scoring(Path(home), options.times, options.files, chance), flush=True)
        print(f"nothing lost, nothing doubled; {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
