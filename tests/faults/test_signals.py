"""Signals to a command, and to its worker processes, wherever they find it."""

import gc
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch

import genconv.eval.measuring
import genconv.sample
from genconv.checkpoint import Trained
from genconv.data import load_images
from genconv.errors import UserError, command
from genconv.eval.score_command import main as score
from genconv.images import save_png
from genconv.training import EnergyMatching
from tests.conftest import train
from tests.test_train import assert_same_training, own_handlers  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def workers_gone():
    """Leave no loader's process: one killed later raises an error in whatever test is under way."""
    yield
    # an error and the frames of its traceback hold one another, and the loader
    gc.collect()
    assert not multiprocessing.active_children()


def checkpoint(runs):
    return torch.load(runs / "digits" / "checkpoints" / "last.ckpt", weights_only=True)


def raise_at(monkeypatch, owner, name, nth, number):
    """Send a signal to this process amid the nth call of a function."""
    real, calls = getattr(owner, name), []

    def signalled(*args, **how):
        calls.append(1)
        if len(calls) == nth:
            os.kill(os.getpid(), number)
        return real(*args, **how)

    monkeypatch.setattr(owner, name, signalled)
    return calls


def code(main, *words):
    with pytest.raises(SystemExit) as stop:
        command(lambda: main(list(map(str, words))))
    return stop.value.code


SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "expected"), SIGNALS)
def test_a_grid_gives_way_to_the_checkpoint(run, tmp_path, monkeypatch, number, expected):
    """Fault 6: inside the Langevin steps of a sample grid, which may take longer than the grace."""
    real, steps = Trained.sample, []

    def slow(self, n, *args, callback, **how):
        def count(step, x):
            steps.append(step)
            if step == 2:
                os.kill(os.getpid(), number)
            callback(step, x)

        return real(self, n, *args, callback=count, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Trained, "sample", slow)
        with pytest.raises(SystemExit) as stop:
            train(tmp_path)
    assert stop.value.code == expected
    assert steps == [1, 2]
    assert not (tmp_path / "digits" / "samples").exists()
    assert checkpoint(tmp_path)["global_step"] == 4
    train(tmp_path, "--ckpt_path", "auto")
    assert_same_training(checkpoint(tmp_path), checkpoint(run.parent))


def test_auto_begins_and_goes_on(run, tmp_path, monkeypatch):
    """Fault 6: one command to start and to be requeued, as schedulers want it."""
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "metrics.csv").write_text("of a run that was killed at once\n")
    train(tmp_path, "--ckpt_path", "auto", "--trainer.max_steps", "2")
    train(tmp_path, "--ckpt_path", "auto")
    assert_same_training(checkpoint(tmp_path), checkpoint(run.parent))


@pytest.mark.parametrize(("number", "expected"), SIGNALS)
def test_sampling_stops_and_goes_on(run, tmp_path, monkeypatch, number, expected):
    """Fault 6: in the second batch; the first is kept, and the lock is given back."""
    words = [run, "-n", 6, "--batch-size", 2, "--device", "cpu"]
    genconv.sample.main([*map(str, words), "--out", str(tmp_path / "whole.npz")])
    with monkeypatch.context() as patch:
        raise_at(patch, genconv.sample, "sample", 2, number)
        assert code(genconv.sample.main, *words, "--out", tmp_path / "a.npz") == expected
    calls = raise_at(monkeypatch, genconv.sample, "sample", 99, number)
    genconv.sample.main([*map(str, words), "--out", str(tmp_path / "a.npz")])
    assert len(calls) == 2
    a, b = (np.load(tmp_path / name)["images"] for name in ("a.npz", "whole.npz"))
    assert np.array_equal(a, b)


def test_scoring_stops_and_goes_on(run, tmp_path, monkeypatch):
    """Fault 6: SIGTERM amid scoring exits with 143, and the same command ends in the same bytes."""
    images = load_images("digits", "test").images
    for i in range(8):
        save_png(tmp_path / "folder" / f"{i}.png", images[i])
    words = [run, tmp_path / "folder", "--calibrate", "digits", "--batch-size", 2]
    words += ["--root", tmp_path, "--device", "cpu"]
    score([*map(str, words), "--csv", str(tmp_path / "whole.csv")])
    batches = -(-len(images) // 2)
    with monkeypatch.context() as patch:
        raise_at(patch, genconv.eval.measuring, "measure", batches + 3, signal.SIGTERM)
        assert code(score, *words, "--csv", tmp_path / "a.csv") == 143
    rows = (tmp_path / "a.csv").read_bytes()
    assert rows.count(b"\n") == 5
    score([*map(str, words), "--csv", str(tmp_path / "a.csv")])
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def to_workers(monkeypatch, number, also_main):
    """Send a signal to the loader's processes, as to a whole group, in the middle of update 3."""
    step = EnergyMatching.training_step

    def signalled(self, batch, batch_idx):
        if self.global_step == 2:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, number)
            if also_main:
                os.kill(os.getpid(), number)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(EnergyMatching, "training_step", signalled)


def test_a_signal_to_the_whole_group_is_saved_too(run, tmp_path, monkeypatch):
    """Fault 6: workers leave the signal to the main process, which needs them for its batch."""
    with monkeypatch.context() as patch:
        to_workers(patch, signal.SIGTERM, also_main=True)
        with pytest.raises(SystemExit) as stop:
            train(tmp_path, "--data.workers", "1")
    assert stop.value.code == 143
    assert checkpoint(tmp_path)["global_step"] == 3
    train(tmp_path, "--ckpt_path", "last")
    assert_same_training(checkpoint(tmp_path), checkpoint(run.parent))


@pytest.mark.parametrize("kind", [ConnectionResetError, EOFError])
def test_a_worker_killed_as_it_hands_over_a_batch_is_no_traceback(tmp_path, monkeypatch, kind):
    def broken(*args, **how):
        raise kind

    fetching = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    monkeypatch.setattr(fetching, "_try_get_data", broken)
    with pytest.raises(UserError, match=r"^DataLoader worker \(pid.*--ckpt_path last"):
        train(tmp_path, "--data.workers", "1")


def test_a_killed_worker_is_named_and_the_run_goes_on(run, tmp_path, monkeypatch):
    """Fault 18: as the kernel does it when memory runs out."""
    flags = "--data.workers", "1", "--checkpoint.every", "1"
    with monkeypatch.context() as patch:
        to_workers(patch, signal.SIGKILL, also_main=False)
        with pytest.raises(UserError, match=r"DataLoader worker \(pid.*--ckpt_path last") as error:
            train(tmp_path, *flags, "--trainer.max_steps", "99")
    assert "\n" not in str(error.value)
    train(tmp_path, "--ckpt_path", "last")
    assert_same_training(checkpoint(tmp_path), checkpoint(run.parent))
