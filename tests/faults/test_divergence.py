"""Runs whose numbers go wrong, through the command that a user types."""

import csv

import pytest
import torch

from genconv.errors import command
from genconv.train import main
from genconv.training import EnergyMatching, EnergyModule
from tests.conftest import TINY, train


def checkpoint(runs):
    return torch.load(runs / "digits" / "checkpoints" / "last.ckpt", weights_only=True)


def assert_finite(saved):
    for part in ("state_dict", "current_model_state"):
        assert all(weight.isfinite().all() for weight in saved[part].values())
    (optimizer,) = saved["optimizer_states"]
    assert all(m["exp_avg"].isfinite().all() for m in optimizer["state"].values())


def figure(runs, name):
    with (runs / "digits" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def nan_in_the_batch(monkeypatch):
    step = EnergyMatching.training_step

    def spoiled(self, batch, batch_idx):
        x, y = batch
        if self.global_step == 3:
            x[5, 0, 2, 2] = torch.nan
        return step(self, (x, y), batch_idx)

    monkeypatch.setattr(EnergyMatching, "training_step", spoiled)


def nan_in_the_energies(monkeypatch):
    step = EnergyMatching.training_step

    def spoiled(self, batch, batch_idx):
        bad = self.global_step == 3
        return step(self, batch, batch_idx) + (torch.log(torch.tensor(-1.0)) if bad else 0)

    monkeypatch.setattr(EnergyMatching, "training_step", spoiled)


@pytest.mark.parametrize("inject", [nan_in_the_batch, nan_in_the_energies])
def test_a_single_nan_costs_one_update(tmp_path, monkeypatch, inject):
    """Fault 8: skipped, counted, and the run goes on."""
    inject(monkeypatch)
    train(tmp_path)
    assert_finite(checkpoint(tmp_path))
    assert figure(tmp_path, "guard/skipped") == [0, 0, 0, 1, 1, 1]


def test_a_chain_that_is_lost_costs_one_slot(tmp_path, monkeypatch):
    """Fault 8: it begins anew, is counted, and the update is taken all the same."""
    advance = EnergyModule.advance

    def spoiled(self, x, y):
        end = advance(self, x, y)
        end[7] = torch.nan if self.global_step == 3 else end[7]
        return end

    monkeypatch.setattr(EnergyModule, "advance", spoiled)
    train(tmp_path)
    assert_finite(checkpoint(tmp_path))
    assert figure(tmp_path, "chain/lost") == [0, 1, 0, 0]
    assert figure(tmp_path, "guard/skipped") == [0] * 6


def test_lasting_divergence_ends_with_a_code_of_its_own(tmp_path, monkeypatch, capsys):
    """Fault 9: after its retries the run ends with code 3, and `last` is finite."""
    step = EnergyMatching.training_step

    def spoiled(self, batch, batch_idx):
        return step(self, batch, batch_idx) * (torch.nan if self.global_step > 4 else 1)

    monkeypatch.setattr(EnergyMatching, "training_step", spoiled)
    flags = "--trainer.max_steps", "99", "--guard.retries", "2", "--checkpoint.every", "8"
    with pytest.raises(SystemExit) as stop:
        command(lambda: main([*TINY, "--runs", str(tmp_path), *flags]))
    assert stop.value.code == 3
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "diverged at update 30 and 2 returns to an earlier state" in line
    assert_finite(checkpoint(tmp_path))
    assert checkpoint(tmp_path)["global_step"] == 24


def test_without_a_guard_no_weights_that_are_not_finite_are_saved(tmp_path, monkeypatch, caplog):
    """Fault 9."""
    monkeypatch.setattr("genconv.training.guard.Guard.on_before_optimizer_step", lambda *_: None)
    nan_in_the_batch(monkeypatch)
    train(tmp_path, "--checkpoint.every", "2")
    assert_finite(checkpoint(tmp_path))
    assert checkpoint(tmp_path)["global_step"] == 2
    assert "update 6 is not saved: its weights are not finite" in caplog.text


def test_a_diverged_chain_is_never_an_image(run, tmp_path, monkeypatch):
    """Fault 8: sampling refuses, where black would look like an answer."""
    from genconv.errors import UserError
    from genconv.sample import main as sample

    words = [str(run), "-n", "2", "--device", "cpu", "--out", str(tmp_path / "a.npz")]
    with pytest.raises(UserError, match="the chains have diverged"):
        sample([*words, "--step-size", "inf"])
    assert not (tmp_path / "a.npz").exists()
