"""What the quickstart must show, measured as a user would: on samples from the command."""

import os
from pathlib import Path

import numpy as np
import pytest

from genconv import read, sample, train
from tests.benchmarks.digits import measure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The quickstart's run: the one that CI has just trained, or one trained here."""
    if folder := os.environ.get("GENCONV_TEST_DIGITS"):
        return Path(folder)
    runs = tmp_path_factory.mktemp("runs")
    train.main(["--runs", str(runs)])
    return runs / "digits"


def draw(run, tmp_path, *flags):
    """Draw by the command; return levels on the digits' own scale, 0 to 16."""
    out = tmp_path / "samples.npz"
    sample.main([str(run), "--out", str(out), "--device", "cpu", *flags])
    return np.load(out)["images"].reshape(-1, 64) * (16 / 255)


def test_fresh_samples(quickstart, tmp_path):
    quality = measure(draw(quickstart, tmp_path, "-n", "2000"))
    print(quality)
    assert quality.distance <= 2
    assert quality.rarest >= 0.04
    assert quality.copies <= 0.03


def test_long_chains_stay_on_the_data(quickstart, tmp_path):
    steps = str(10 * read(quickstart, "cpu").chain.steps)
    samples = draw(quickstart, tmp_path, "-n", "1000", "--steps", steps, "--precision", "bf16")
    quality = measure(samples)
    print(quality)
    assert quality.distance <= 4
