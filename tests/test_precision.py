"""bfloat16 is asked for only where the device has it."""

import logging

import pytest
import torch

from genconv import precision
from genconv.eval import quality_command, steps_command
from genconv.precision import affordable, has_bfloat16
from genconv.sample import parse as parse_sample
from genconv.tasks import compose_command, recover_command
from genconv.training import EnergyMatching
from genconv.training.cli import TrainCLI
from tests.conftest import TINY

COMMANDS = {
    "sample": lambda flags: parse_sample(["a.ckpt", *flags]),
    "inpaint": lambda flags: recover_command.parse(
        "inpaint", ["a.ckpt", "digits", "--out", "out", *flags]
    ),
    "compose": lambda flags: compose_command.parse(["a.ckpt", *flags]),
    "steps": lambda flags: steps_command.parse(
        ["a.ckpt", "--data", "digits", "--folder", "out", *flags]
    ),
    "quality": lambda flags: quality_command.parse(["a.ckpt", "--data", "digits", *flags]),
}


@pytest.fixture(params=[True, False], ids=["bfloat16", "imitated"])
def real(request, monkeypatch):
    """A CPU that has bfloat16, and one that has not."""
    monkeypatch.setattr(precision, "has_onednn_bfloat16", lambda: request.param)
    return request.param


@pytest.mark.parametrize(
    ("onednn", "machine", "extension", "real"),
    [
        (True, "x86_64", True, True),
        (True, "x86_64", False, False),  # AVX-512, which is enough for PyTorch to try
        (True, "AMD64", False, False),
        (True, "aarch64", False, True),
        (False, "x86_64", True, False),
        (False, "arm64", False, False),
    ],
)
def test_instructions_for_it_are_what_counts(monkeypatch, onednn, machine, extension, real):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: extension)
    assert has_bfloat16("cpu") == real


def test_only_a_cpu_may_lack_it(real):
    assert has_bfloat16("cpu") == has_bfloat16("cpu:0") == real
    assert has_bfloat16("cuda")
    assert has_bfloat16("cuda:1")


def test_float32_takes_its_place_and_a_line_says_so(real, caplog):
    with caplog.at_level(logging.WARNING):
        assert affordable("bf16", "cpu") == ("bf16" if real else "32")
        assert affordable("bf16-mixed", "cpu") == ("bf16-mixed" if real else "32-true")
    assert len(caplog.records) == (0 if real else 2)


@pytest.mark.parametrize("name", ["32", "32-true", "16-mixed", "64"])
def test_others_stay_what_they_are(name, real, caplog):
    assert affordable(name, "cpu") == name
    assert not caplog.records


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_ask_first(command, real):
    flags = ["--precision", "bf16", "--device"]
    assert COMMANDS[command]([*flags, "cpu"]).precision == ("bf16" if real else "32")
    assert COMMANDS[command]([*flags, "cuda"]).precision == "bf16"


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_training_asks_first(real, tmp_path):
    cli = TrainCLI([*TINY, "--runs", str(tmp_path), "--trainer.precision", "bf16-mixed"])
    assert cli.trainer.precision == ("bf16-mixed" if real else "32-true")


def test_chains_of_training_ask_first(real, trained):
    assert EnergyMatching(trained.energy).bf16_chains == real
    assert not EnergyMatching(trained.energy, bf16_chains=False).bf16_chains
