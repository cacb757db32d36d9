"""A Boltzmann machine goes through every command as any other energy does."""

import csv
import json

import numpy as np
import pytest
import torch

from genconv.checkpoint import read
from genconv.energy import RBM, GenerativeConvNet
from genconv.errors import UserError
from genconv.eval.__main__ import main as evaluate
from genconv.sample import main as sample
from genconv.sampling import Chain
from genconv.train import main as train
from genconv.training import ContrastiveDivergence

DIGITS = [
    *("--config", "rbm_mnist", "--data.name", "digits", "--data.batch_size", "50"),
    *("--model.energy.shape", "[1, 8, 8]", "--model.energy.hidden", "12"),
    *("--model.chain.steps", "20", "--model.lr", "0.05"),
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1"),
    *("--trainer.enable_progress_bar", "false", "--samples.every", "0"),
]


def teach(runs, name, updates, *more):
    steps = ["--trainer.max_steps", str(updates), "--runs", str(runs), "--name", name]
    train([*DIGITS, *steps, *more])
    return runs / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs):
    """300 updates, 2 seconds."""
    return teach(runs, "whole", 300)


def state(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_learns_by_persistent_chains_of_black_and_white(run):
    checkpoint = state(run)
    assert set(checkpoint["chains"][0]["buffer"]["images"].unique().tolist()) == {0, 255}
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"chain/movement", "energy/gap", "gradient"} <= rows[0].keys()
    assert "chain/gradient" not in rows[0]


def test_stopped_and_resumed_equals_uninterrupted(run, runs):
    teach(runs, "half", 130)
    half = teach(runs, "half", 300, "--ckpt_path", "last")
    a, b = state(run), state(half)
    assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])
    images = [part["chains"][0]["buffer"]["images"] for part in (a, b)]
    assert torch.equal(*images)


def test_draws_images_whatever_the_batch(run, tmp_path, capsys):
    for size in ("7", "16"):
        out = str(tmp_path / f"{size}.npz")
        sample([str(run), "-n", "16", "--batch-size", size, "--out", out, "--device", "cpu"])
    a, b = (np.load(tmp_path / f"{size}.npz")["images"] for size in ("7", "16"))
    assert np.array_equal(a, b)
    assert set(np.unique(a)) == {0, 255}
    with pytest.raises(UserError, match="a Gibbs chain has no step size"):
        sample([str(run), "--step-size", "0.1", "--out", str(tmp_path / "c.npz")])


def test_knows_digits_from_noise(run, tmp_path):
    evaluate(
        [
            *("ood", str(run), "--in", "digits", "--out", "uniform", "-n", "100"),
            *("--device", "cpu", "--folder", str(tmp_path)),
            *("--scores", "energy", "gradient", "refine_distance"),
        ]
    )
    rows = json.loads((tmp_path / "ood.json").read_text())["sets"]["uniform"]
    assert rows["energy"]["auroc"] > 0.99


def test_says_how_likely_digits_are(run, tmp_path):
    file = tmp_path / "likelihood.json"
    options = ["--data", "digits", "--binarise", "sample", "--device", "cpu", "--json", str(file)]
    evaluate(["likelihood", str(run), *options])
    found = json.loads(file.read_text())["log_likelihood"]["value"]
    rbm, x = read(run, "cpu").energy, torch.zeros(1, 8, 8)
    # 64 fair coins have -44.4 nats; what independent pixels would have is close to -31
    assert -31 < found < -15
    assert rbm.path(x).exact is not None


def test_plain_steps_follow_the_gradient():
    rbm = RBM((1, 2, 2), 3)
    module = ContrastiveDivergence(rbm, lr=[(0, 0.5), (1, 0.0)], optimizer="sgd")
    parts = module.configure_optimizers()
    before = rbm.weight.detach().clone()
    rbm(torch.ones(1, 1, 2, 2)).sum().backward()
    parts["optimizer"].step()
    torch.testing.assert_close(rbm.weight, before - 0.5 * rbm.weight.grad)


def test_the_gradient_through_a_step_needs_a_langevin_chain():
    with pytest.raises(UserError, match="kl needs a Langevin chain"):
        ContrastiveDivergence(RBM((1, 2, 2), 3), Chain(sampler="gibbs"), kl=1.0)
    assert ContrastiveDivergence(GenerativeConvNet(widths=(4,)), kl=1.0).kl == 1.0
