"""Break genconv in every way on the list, and see a test fail each time.

    python -m tests.statistics.mutants                  # all of them: minutes
    python -m tests.statistics.mutants hmc momentum     # those whose file or name has such a word

The package is copied into a temporary folder, where one mutant at a time is applied; nothing here
changes. A test that cannot fail says nothing, and neither does a mutant that is not there: a text
that is not found exactly once stops the script.
"""

import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.statistics.mutations import MUTANTS
from tests.statistics.mutations.mutant import Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("genconv", "tests", "configs", "setup.cfg")
# imported once, here: a fork has them at once, where a new process would take seconds for each
SLOW = ("torch", "pytorch_lightning", "torchmetrics", "scipy.stats", "sklearn.metrics", "PIL.Image")
SECONDS = 120


def mutated(text: str, mutant: Mutant) -> str:
    """Return the file's text with the mistake in it.

    Raises:
        ValueError: the old text is not found exactly once, or stays.
    """
    found = text.count(mutant.old)
    if found != 1 or mutant.old == mutant.new:
        raise ValueError(f"{mutant.file}: {mutant.name}: {mutant.old!r} is found {found} times")
    return text.replace(mutant.old, mutant.new)


def run(folder: Path, tests: Iterable[str]) -> int:
    """Run tests of a copy in a process of their own; return pytest's exit code, -1 if it hangs."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
    code = 3
    try:
        signal.alarm(SECONDS)
        os.chdir(folder)
        with open("output.txt", "w") as output:
            os.dup2(output.fileno(), 1), os.dup2(output.fileno(), 2)
        for name in [n for n in sys.modules if n.split(".")[0] in ("genconv", "tests")]:
            del sys.modules[name]
        sys.path.insert(0, str(folder))
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *(f"tests/{t}" for t in tests)])
    finally:
        os._exit(code)


def main(words: list[str]) -> int:
    """Try the mutants that are asked for; return how many survived or broke."""
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.file} {m.name}" for w in words)]
    for mutant in chosen:
        mutated((ROOT / "genconv" / mutant.file).read_text(), mutant)
    for name in SLOW:
        importlib.import_module(name)
    left = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        # a mutant is killed by a test that is green without it
        if run(folder, dict.fromkeys(m.test for m in chosen)) != 0:
            print((folder / "output.txt").read_text())
            print("the tests fail before anything is broken")
            return len(chosen)
        for i, mutant in enumerate(chosen, 1):
            path = folder / "genconv" / mutant.file
            sound = path.read_text()
            path.write_text(mutated(sound, mutant))
            code = run(folder, [mutant.test])
            path.write_text(sound)
            verdict = {0: "SURVIVED", 1: "killed", -1: "killed (hung)"}.get(code, "BROKEN")
            print(f"{i:3}/{len(chosen)} {verdict:8} {mutant.file}: {mutant.name}", flush=True)
            if not verdict.startswith("killed"):
                print((folder / "output.txt").read_text()[-1000:] if verdict == "BROKEN" else "")
                left.append(mutant)
    print(f"{len(chosen) - len(left)} of {len(chosen)} killed")
    return len(left)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
