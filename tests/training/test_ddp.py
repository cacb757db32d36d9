"""Two processes on one machine: chains and random numbers of their own, weights in common."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import genconv
from tests.conftest import TINY

FLAGS = [*TINY, "--name", "two", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


def train(runs, *flags):
    done = subprocess.run(
        [sys.executable, "-m", "genconv.train", "--runs", str(runs), *FLAGS, *flags],
        env=os.environ
        | {"PYTHONPATH": str(Path(genconv.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    path = runs / "two" / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True), done.stdout


@pytest.mark.slow
def test_two_processes_train_and_resume(tmp_path):
    whole, said = train(tmp_path / "whole", "--trainer.max_steps", "6")
    assert said.count("trained:") == 1
    one, two = (share["buffer"]["images"] for share in whole["chains"])
    assert one.shape == two.shape
    assert (one != two).float().mean() > 0.5
    assert not torch.equal(whole["chains"][0]["generator"], whole["chains"][1]["generator"])
    train(tmp_path / "half", "--trainer.max_steps", "4")
    resumed, _ = train(tmp_path / "half", "--trainer.max_steps", "6", "--ckpt_path", "last")
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, resumed["state_dict"][name]), name
    for mine, theirs in zip(whole["chains"], resumed["chains"], strict=True):
        assert torch.equal(mine["buffer"]["images"], theirs["buffer"]["images"])
        assert torch.equal(mine["generator"], theirs["generator"])
