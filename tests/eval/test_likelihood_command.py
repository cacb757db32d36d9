"""The likelihood command, against sums over all states."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch

from genconv.checkpoint import Trained, write
from genconv.data import load_images
from genconv.data.augment import binarise, dequantise
from genconv.energy import RBM, BoltzmannMachine, GenerativeConvNet
from genconv.errors import UserError
from genconv.eval.__main__ import main
from genconv.sampling import Chain
from genconv.seeds import stream

DIGITS = (1, 8, 8)
CHAIN = Chain(steps=50, sampler="gibbs")


def exported(energy, folder, shape=DIGITS):
    write(Trained(energy.eval(), CHAIN, shape, 0), folder)
    return folder


@pytest.fixture
def rbm():
    torch.manual_seed(0)
    rbm = RBM(DIGITS, 6)
    for parameter in rbm.parameters():
        parameter.data.normal_(std=0.4)
    return rbm


@pytest.fixture
def likelihood(tmp_path, capsys):
    """Run the command, and return its report and what it printed."""

    def likelihood(energy, *options, shape=DIGITS, data="digits"):
        file = tmp_path / "likelihood.json"
        folder = exported(energy, tmp_path / "energy", shape)
        main(
            ["likelihood", str(folder), "--data", str(data), "--device", "cpu"]
            + ["--json", str(file)]
            + [str(option) for option in options]
        )
        return json.loads(file.read_text()), capsys.readouterr().out

    return likelihood


def test_is_the_mean_log_probability(likelihood, rbm):
    report, printed = likelihood(rbm, "--binarise", "sample", "-n", 50, "--seed", 3)
    x = load_images("digits", "test").images[:50]
    x = binarise(x, "sample", stream(3, "binarise"))
    with torch.no_grad():
        log_p = -rbm(x).double() - rbm.log_partition()
    found = report["log_likelihood"]
    assert found["value"] == pytest.approx(log_p.mean().item(), abs=1e-4)
    assert found["low"] == found["value"] == found["high"]
    assert found["standard_error"] == pytest.approx(log_p.std().item() / 50**0.5, rel=1e-4)
    assert f"{found['value']:.2f}" in printed
    assert "exact" in printed
    assert report["data"] == {"data": "digits", "split": "test", "binarise": "sample", "n": 50}


def test_annealing_brackets_the_exact_number(likelihood, rbm):
    ask = partial(likelihood, rbm, "--binarise", "sample")
    exact, _ = ask()
    report, printed = ask("--anneal", "--reverse", "--steps", 300, "--runs", 200)
    truth, found = exact["log_z"]["value"], report["log_z"]
    width = found["high"] - found["low"]
    assert 0 < width < 0.5
    assert abs(found["value"] - truth) < width
    assert abs(found["above"] - truth) < 0.5
    assert found["effective"] > 50
    likely = report["log_likelihood"]
    assert likely["low"] < likely["value"] < likely["high"]
    assert likely["high"] - likely["low"] == pytest.approx(width, abs=1e-6)
    shift = report["log_likelihood"]["value"] - exact["log_likelihood"]["value"]
    assert shift == pytest.approx(truth - found["value"], abs=1e-6)
    assert "200 annealing runs of 300 steps" in printed
    again, _ = ask("--anneal", "--steps", 300, "--runs", 200)
    assert again["log_z"]["value"] == found["value"]


def test_gaussian_units_have_bits_per_dimension(likelihood):
    torch.manual_seed(0)
    rbm = RBM(DIGITS, 4, units="gaussian")
    report, printed = likelihood(rbm)
    x = dequantise(load_images("digits", "test").images, stream(0, "binarise"))
    with torch.no_grad():
        log_p = (-rbm(x).double() - rbm.log_partition()).mean().item()
    assert report["log_likelihood"]["value"] == pytest.approx(log_p, abs=1e-3)
    bits = -(log_p - 64 * math.log(127.5)) / 64 / math.log(2)
    assert report["log_likelihood"]["bits_per_dimension"] == pytest.approx(bits, abs=1e-5)
    assert f"{bits:.3f}" in printed


def test_other_shapes_come_from_arrays(likelihood, tmp_path):
    images = np.random.default_rng(0).choice(np.uint8([0, 255]), (5, 2, 2, 2, 1))
    np.savez(tmp_path / "voxels.npz", images=images)
    machine, shape = BoltzmannMachine((1, 2, 2, 2), 1), (1, 2, 2, 2)
    report, _ = likelihood(machine, shape=shape, data=tmp_path / "voxels.npz")
    assert -math.log(2**8) * 1.2 < report["log_likelihood"]["value"] < -math.log(2**8) / 1.2
    with pytest.raises(UserError, match=r"shape \(1, 8, 8\), not \(1, 2, 2, 2\)"):
        likelihood(machine, shape=shape, data="digits")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "grey pixels"),
        (("--runs", 1), "--runs must be at least 2"),
        (("--steps", 0), "--steps must be at least 10"),
        (("--binarise", "sample", "-n", 0), "-n must be at least 1"),
    ],
)
def test_says_what_cannot_be_done(likelihood, rbm, options, message):
    with pytest.raises(UserError, match=message):
        likelihood(rbm, *options)


def test_needs_a_way_to_the_partition_function_and_the_right_units(likelihood):
    with pytest.raises(UserError, match="GenerativeConvNet is out of reach"):
        likelihood(GenerativeConvNet(widths=(4,)), "--binarise", "sample")
    with pytest.raises(UserError, match="--binarise: the units of this machine are not binary"):
        likelihood(RBM(DIGITS, 4, units="gaussian"), "--binarise", "sample")
