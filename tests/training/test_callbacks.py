import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from genconv.energy import GenerativeConvNet
from genconv.errors import UserError
from genconv.images import sheet
from genconv.sampling import Chain, ReplayBuffer
from genconv.training import EMA, EnergyMatching, SampleGrid, SaveLast, WholeCheckpointIO
from genconv.training.callbacks import stops_all


@pytest.fixture
def module():
    torch.manual_seed(0)
    return EnergyMatching(GenerativeConvNet(widths=(4,)), chain=Chain(steps=2, step_size=0.1))


def test_grids_come_from_one_seed_and_leave_the_run_alone(fit, module, tmp_path):
    trainer_free = torch.load(fit(module, 4, "without"), weights_only=True)
    torch.manual_seed(0)
    again = EnergyMatching(GenerativeConvNet(widths=(4,)), chain=Chain(steps=2, step_size=0.1))
    trainer = pl.Trainer(
        max_steps=4,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path / "with",
        callbacks=[EMA(0.9), SampleGrid(every=3, n=4), SaveLast(every=2, milestones=2)],
        plugins=[WholeCheckpointIO()],
    )
    from genconv.data import ImageData

    trainer.fit(again, datamodule=ImageData("digits", batch_size=64))
    names = sorted(p.name for p in (tmp_path / "with" / "samples").iterdir())
    assert names == ["step_0000003.png", "step_0000004.png"]
    folder = tmp_path / "with" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == [
        "last.ckpt",
        "previous.ckpt",
        "step_0000002.ckpt",
        "step_0000004.ckpt",
    ]
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    for name, weight in trainer_free["state_dict"].items():
        assert torch.equal(weight, checkpoint["state_dict"][name]), name


class Counted(pl.Callback):
    def __init__(self):
        self.saved, self.batches = [], 0

    def on_save_checkpoint(self, trainer, module, checkpoint):
        self.saved.append(trainer.global_step)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.batches += 1


def test_an_update_of_several_batches_is_drawn_and_saved_once(fit, module, tmp_path, monkeypatch):
    drawn, counted = [], Counted()
    monkeypatch.setattr(SampleGrid, "_show", lambda self, trainer, x: drawn.append(len(x)))
    grid = SampleGrid(every=2, n=3)
    fit(module, 5, every=2, more=[grid, counted], accumulate_grad_batches=3)
    assert counted.batches == 15
    assert drawn == [3] * 3  # updates 2, 4 and 5
    assert counted.saved == [2, 4, 5]


@pytest.mark.parametrize(("accumulate", "updates"), [(1, 46), (5, 10)])
def test_the_last_update_of_the_last_epoch_is_saved(fit, module, accumulate, updates):
    # 23 batches an epoch: with five to an update, the fifth is of three
    how = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    path = fit(module, -1, more=[SampleGrid(every=0), counted := Counted()], **how)
    assert counted.saved == [updates]
    assert torch.load(path, weights_only=True)["global_step"] == updates


def test_a_checkpoint_of_a_gpu_is_read_without_one(tmp_path, monkeypatch):
    io = WholeCheckpointIO()
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:7")
        io.save_checkpoint({"a": torch.arange(3)}, tmp_path / "last.ckpt")
    assert io.load_checkpoint(tmp_path / "last.ckpt")["a"].tolist() == [0, 1, 2]


def test_a_failed_save_keeps_the_old_checkpoint_and_says_so(tmp_path):
    io = WholeCheckpointIO()
    io.save_checkpoint({"a": 1}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({"a": lambda: None}, tmp_path / "last.ckpt")
    assert io.load_checkpoint(tmp_path / "last.ckpt") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_grid_of_persistent_chains_draws_none(tmp_path):
    buffer = ReplayBuffer(3, (1, 8, 8), seed=0)
    module = SimpleNamespace(buffer=buffer)
    trainer = SimpleNamespace(
        global_step=5, max_steps=9, accumulate_grad_batches=1, default_root_dir=tmp_path
    )
    SampleGrid(every=5, n=2, scale=1, persistent=True).on_train_batch_end(
        trainer, module, None, None, 0
    )
    with Image.open(tmp_path / "samples" / "step_0000005.png") as picture:
        shown = torch.from_numpy(np.array(picture))[None]
    assert torch.equal(shown, sheet(buffer.images[:2]))


def test_a_signal_while_the_ranks_ask_each_other_is_not_forgotten():
    asked = []

    def reduce(stop, all):
        asked.append(stop)
        if len(asked) == 1:
            # both ranks have said no, and hear of it before they have each other's answer
            os.kill(os.getpid(), signal.SIGTERM)
        return stop

    last = SaveLast()
    trainer = SimpleNamespace(
        callbacks=[last],
        should_stop=False,
        world_size=2,
        strategy=SimpleNamespace(reduce_boolean_decision=reduce),
    )
    last.on_train_start(trainer, None)
    try:
        assert not stops_all(trainer)
        # a rank that left by itself would leave the others waiting
        assert not trainer.should_stop
        assert stops_all(trainer)
        assert trainer.should_stop
    finally:
        last.on_train_end(trainer, None)
    assert asked == [False, True]
    assert last.signal == signal.SIGTERM


@pytest.mark.parametrize("setting", ["every", "milestones"])
def test_checkpoints_at_no_update_are_refused(setting):
    with pytest.raises(UserError, match=rf"checkpoint\.{setting} must be at least 1, not 0"):
        SaveLast(**{setting: 0})
