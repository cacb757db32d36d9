"""Kill -9 at random moments of training and of scoring: `python -m tests.faults.kill --times 50`.

A tiny run is started, killed at a random moment and gone on with, again and again, in one folder;
moments are spread over imports, updates, saves, renames and the end. After every kill the run's
newest checkpoint has to be whole and none earlier than before; in the end weights, averages,
moments, chains and random numbers have to be, bit for bit, those of a run that was never killed.
The same for a table of scores, of which no row may be lost or doubled.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from genconv.checkpoint import broken, newest
from genconv.data import load_images
from genconv.images import save_png
from tests.conftest import TINY
from tests.test_train import assert_same_training
from tests.training.test_resume import differences

EVERY = 10


def start(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def kill_at(words: list[str], seconds: float) -> tuple[bool, bytes]:
    """Run, and kill after so many seconds; whether it was killed, and what it complained of."""
    process = start(words)
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run ended with {process.returncode}:\n{said.decode()}")
    return process.returncode != 0, said


def finished(words: list[str]) -> float:
    """Run to the end; the seconds it took."""
    begin = time.monotonic()
    killed, _ = kill_at(words, 3600)
    assert not killed
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
        return ["genconv.train", *flags, "--ckpt_path", "auto"]

    whole = finished(words("whole"))
    folder, kills, before, fallbacks = home / "killed" / "checkpoints", 0, 0, 0
    while kills < times:
        # most of it is imports: kill there too, but more often in what comes after
        killed, said = kill_at(words("killed"), whole * chance.uniform(0.3, 1.0))
        fallbacks += b"which was saved before it" in said
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
    finished(words("killed"))
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
        return ["genconv.eval", "score", checkpoint, str(home / "files"), *table, *flags]

    seconds = finished(words("whole.csv"))
    whole, out = (home / "whole.csv").read_bytes(), home / "killed.csv"
    kills, length = 0, 0
    while kills < times:
        killed, _ = kill_at(words("killed.csv"), seconds * chance.uniform(0.2, 1.0))
        now = out.read_bytes() if out.exists() else b""
        assert whole.startswith(now)
        assert len(now) >= length
        kills, length = kills + killed, len(now)
        if not killed:
            assert now == whole
            out.unlink()
            length = 0
    finished(words("killed.csv"))
    assert out.read_bytes() == whole
    return f"scoring: {kills} kills"


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50, help="kills of each kind (50)")
    parser.add_argument("--steps", type=int, default=400, help="updates of the run (400)")
    parser.add_argument("--files", type=int, default=1000, help="files to score (1000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as home:
        begin = time.monotonic()
        print(training(Path(home), options.times, options.steps, chance), flush=True)
        print(scoring(Path(home), options.times, options.files, chance), flush=True)
        print(f"nothing lost, nothing doubled; {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
