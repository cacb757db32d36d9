"""Two processes on one machine: chains and random numbers of their own, weights in common."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import genconv
from genconv.checkpoint import read
from genconv.data import load_images
from genconv.eval.classifier import SmallClassifier
from genconv.eval.features import extract
from genconv.eval.frechet import Moments, frechet_distance
from genconv.images import to_uint8
from genconv.seeds import stream
from tests.conftest import TINY

# what is registered first runs last
SPOILT = """
import atexit
import sys
from pathlib import Path

import torch

from genconv.train import main
from genconv.training import EnergyMatching

step = EnergyMatching.training_step
atexit.register(lambda: print("still in a group:", torch.distributed.is_initialized()))


def spoilt(self, batch, batch_idx):
    loss = step(self, batch, batch_idx)
    if self.global_rank == 1 and self.global_step == 12:
        # all that the other rank hears of it comes through the guard
        self.signs["chains"] = torch.ones(())
    if self.global_rank == 1 and 20 <= self.global_step < 28:
        return loss * torch.nan
    return loss


def keep(self):
    torch.save(self.energy.state_dict(), Path(__file__).with_name(f"rank{self.global_rank}.pt"))


EnergyMatching.training_step, EnergyMatching.on_train_end = spoilt, keep
main(sys.argv[1:])
"""
FLAGS = [*TINY, "--name", "two", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


def train(runs, *flags, program=("-m", "genconv.train")):
    done = subprocess.run(
        [sys.executable, *program, "--runs", str(runs), *FLAGS, *flags],
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
def test_two_processes_judge_the_samples_that_one_would(tmp_path):
    flags = ["--judge.every", "4", "--judge.n", "7", "--data.root", str(tmp_path / "data")]
    checkpoint, _ = train(tmp_path, "--trainer.max_steps", "4", *flags)
    (state,) = [s for name, s in checkpoint["callbacks"].items() if name.startswith("Judge")]
    trained = read(tmp_path / "two" / "checkpoints" / "best.ckpt")
    x = trained.sample(7, generator=[stream(0, "judge", row) for row in range(7)], bf16=True)
    (network,) = (tmp_path / "data").rglob("classifier-*.safetensors")
    network = SmallClassifier.load(network)
    moments = [
        Moments.of(extract(network, images, bar=False).features)
        for images in (to_uint8(x), load_images("digits", "test").images)
    ]
    assert state["best"] == pytest.approx(frechet_distance(*moments), rel=1e-3)


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


@pytest.mark.slow
def test_what_one_process_has_spoilt_both_skip_and_both_go_back(tmp_path):
    (tmp_path / "spoilt.py").write_text(SPOILT)
    flags = ("--trainer.max_steps", "35", "--samples.every", "0")
    saved, said = train(tmp_path, *flags, program=[str(tmp_path / "spoilt.py")])
    assert said.count("still in a group: False") == 2
    one, two = (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1))
    for name, weight in one.items():
        assert weight.isfinite().all()
        assert torch.equal(weight, two[name]), name
    assert saved["guard"]["skipped"] == 9
    assert saved["guard"]["attempts"] == 1
    assert saved["guard"]["lr_scale"] == 0.5
