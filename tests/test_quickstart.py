"""What the quickstart must show, measured as a user would: on samples from the command."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from genconv import read, sample, train
from genconv.eval import Moments, frechet_distance

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The quickstart's run: the one that CI has just trained, or one trained here."""
    if folder := os.environ.get("GENCONV_TEST_DIGITS"):
        return Path(folder)
    runs = tmp_path_factory.mktemp("runs")
    train.main(["--runs", str(runs)])
    return runs / "digits"


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def halves(digits):
    """Fréchet distance between two random halves of the real digits, the unit of the bars."""
    distances = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(digits.data))
        middle = len(order) // 2
        distances.append(distance(digits.data[order[:middle]], digits.data[order[middle:]]))
    return np.mean(distances)


def distance(a, b):
    return frechet_distance(*(Moments.of(torch.from_numpy(x)) for x in (a, b)))


def draw(run, tmp_path, *flags):
    """Draw by the command; return levels on the digits' own scale, 0 to 16."""
    out = tmp_path / "samples.npz"
    sample.main([str(run), "--out", str(out), "--device", "cpu", *flags])
    return np.load(out)["images"].reshape(-1, 64) * (16 / 255)


def test_fresh_samples(run, digits, halves, tmp_path):
    samples = draw(run, tmp_path, "-n", "2000")
    classes = SVC(gamma=0.001).fit(digits.data, digits.target).predict(samples)
    assert np.bincount(classes, minlength=10).min() >= 0.04 * 2000
    assert distance(samples, digits.data) <= 2 * halves
    neighbours = NearestNeighbors(n_neighbors=2).fit(digits.data)
    own = neighbours.kneighbors(digits.data)[0][:, 1]
    nearest = neighbours.kneighbors(samples, 1)[0][:, 0]
    assert (nearest < np.percentile(own, 1)).mean() <= 0.03


def test_long_chains_stay_on_the_data(run, digits, halves, tmp_path):
    steps = str(10 * read(run, "cpu").chain.steps)
    samples = draw(run, tmp_path, "-n", "1000", "--steps", steps, "--precision", "bf16")
    assert distance(samples, digits.data) <= 4 * halves
