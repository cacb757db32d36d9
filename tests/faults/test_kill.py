"""A few of the kills of `python -m tests.faults.kill`."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_three_kills_lose_nothing():
    """Fault 1: nor later, amid anything else; and fault 19."""
    words = "--times", "3", "--steps", "100", "--files", "200"
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kill", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "nothing lost, nothing doubled" in done.stdout, done.stderr
