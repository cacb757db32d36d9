"""The data module: what a batch is, and that a resumed run sees what an uninterrupted one does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

import genconv
from genconv.data import ImageData, load_images
from genconv.errors import UserError
from genconv.images import from_uint8, to_uint8
from genconv.seeds import stream

# Lightning 2.6.6 itself trips over this with PyTorch 2.14, whenever it fits anything
pytestmark = pytest.mark.filterwarnings(
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"
)


class Recorder(LightningModule):
    """A model that keeps every batch it sees, and uses the global generator as dropout would."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append((self.trainer.current_epoch, batch_idx, x, y, torch.rand(())))
        return self.weight * x.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path, steps, **options):
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "default_root_dir": tmp_path,
        "max_epochs": -1,
        "max_steps": steps,
    }
    return Trainer(**settings | options)


def data(tmp_path, n=23, labels=True, **options):
    rng = np.random.default_rng(0)
    arrays = {"images": rng.integers(0, 256, (n, 4, 5, 3), np.uint8)}
    if labels:
        arrays["labels"] = np.arange(n) % 3
    np.savez(tmp_path / "set.npz", **arrays)
    return ImageData(str(tmp_path / "set.npz"), **{"batch_size": 5} | options)


def fit(tmp_path, steps, ckpt=None, save=None, module=None, **options):
    torch.manual_seed(0)
    model = Recorder()
    run = trainer(tmp_path, steps, **options)
    run.fit(model, datamodule=module, ckpt_path=ckpt, weights_only=True)
    if save is not None:
        run.save_checkpoint(save)
    return model.seen


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a[2], b[2])
        assert torch.equal(a[3], b[3])


# an epoch has 4 batches: in mid-epoch, exactly at its end, in the second epoch, at its end
@pytest.mark.parametrize("stop", [1, 3, 4, 6, 8])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(tmp_path, stop, workers):
    options = {"flip": True, "seed": 7, "workers": workers}
    whole = fit(tmp_path, 12, module=data(tmp_path, **options))
    assert [step[:2] for step in whole] == [(e, b) for e in range(3) for b in range(4)]
    path = tmp_path / "half.ckpt"
    first = fit(tmp_path, stop, save=path, module=data(tmp_path, **options))
    assert_same(first, whole[:stop])
    module = data(tmp_path, **options)
    second = fit(tmp_path, 12, ckpt=path, module=module)
    assert_same(second, whole[stop:])
    assert module.served == 12


@pytest.mark.parametrize("stop", [3, 4, 5, 8])
def test_resuming_from_lightnings_own_checkpoints(tmp_path, stop):
    whole = fit(tmp_path, 12, module=data(tmp_path))
    saver = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=1, save_top_k=-1)
    options = {"enable_checkpointing": True, "callbacks": [saver]}
    fit(tmp_path, 9, module=data(tmp_path), **options)
    path = tmp_path / "saved" / f"step={stop}.ckpt"
    # the folder is no longer empty, of which the callback of the second run would warn
    (tmp_path / "saved").rename(tmp_path / "kept")
    path = tmp_path / "kept" / path.name
    second = fit(tmp_path, 12, path, module=data(tmp_path), **options)
    assert_same(second, whole[stop:])
    # here Lightning's own counters go on too; saved after `fit` they call the rest a new epoch
    assert [step[:2] for step in second] == [step[:2] for step in whole[stop:]]


def test_the_resume_tests_can_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageData, "load_state_dict", lambda self, state: None)
    whole = fit(tmp_path, 6, module=data(tmp_path))
    fit(tmp_path, 3, save=tmp_path / "half.ckpt", module=data(tmp_path))
    second = fit(tmp_path, 6, tmp_path / "half.ckpt", module=data(tmp_path))
    assert not torch.equal(second[0][2], whole[3][2])


def test_epochs_cut_short_lose_no_batch(tmp_path):
    whole = fit(tmp_path, 12, module=data(tmp_path))
    short = fit(tmp_path, 12, module=data(tmp_path), limit_train_batches=3)
    assert [step[:2] for step in short] == [(e, b) for e in range(4) for b in range(3)]
    for a, b in zip(short, whole, strict=True):
        assert torch.equal(a[2], b[2])


def test_the_global_generator_is_left_to_the_model(tmp_path):
    with_noise = fit(tmp_path, 6, module=data(tmp_path, flip=True))
    without = fit(tmp_path, 6, module=data(tmp_path, dequantise=False))
    assert [s[4].item() for s in with_noise] == [s[4].item() for s in without]


def test_a_new_trainer_begins_at_the_first_batch(tmp_path):
    module = data(tmp_path)
    first = fit(tmp_path, 6, module=module)
    assert module.served == 6
    assert_same(fit(tmp_path, 6, module=module), first)


def batches(module):
    module.setup()
    return [module.on_after_batch_transfer(b, 0) for b in module.train_dataloader()]


def test_a_batch_is_the_images_it_names(tmp_path):
    module = data(tmp_path, dequantise=False)
    source = load_images(module.name)
    for index, (x, y) in zip(module.train_dataloader(), batches(module), strict=True):
        assert torch.equal(x, from_uint8(source.images[index]))
        assert torch.equal(y, source.labels[index])
    assert module.served == 0


def test_dequantisation_stays_within_its_level(tmp_path):
    noisy, plain = (batches(data(tmp_path, dequantise=on)) for on in (True, False))
    for (x, _), (z, _) in zip(noisy, plain, strict=True):
        assert not torch.equal(x, z)
        assert (x - z).abs().max() <= 0.5001 / 127.5


def test_flips_mirror_some(tmp_path):
    flipped, plain = (batches(data(tmp_path, flip=on, dequantise=False)) for on in (True, False))
    x, z = (torch.cat([x for x, _ in part]) for part in (flipped, plain))
    mirrored = (x == z.flip(-1)).all(3).all(2).all(1)
    assert 0 < mirrored.sum() < len(x)
    assert torch.equal(to_uint8(x[~mirrored]), to_uint8(z[~mirrored]))


def test_shape_and_classes_need_no_trainer(tmp_path):
    module = ImageData("digits", size=4, channels=3)
    module.setup()
    assert module.shape == (3, 4, 4)
    assert module.classes == 10
    assert data(tmp_path).classes == 3
    unlabelled = data(tmp_path, labels=False)
    assert unlabelled.classes is None
    assert batches(unlabelled)[0][1] is None


def test_a_set_smaller_than_a_batch_trains(tmp_path):
    seen = fit(tmp_path, 3, module=data(tmp_path, n=4, batch_size=100))
    assert [len(step[2]) for step in seen] == [4, 4, 4]


def test_generator_states_go_to_their_ranks(tmp_path, monkeypatch):
    module = data(tmp_path)
    batches(module)
    state = module.state_dict()
    own, other = state["generators"][0], torch.Generator().manual_seed(99).get_state()
    two = {"served": 8, "generators": [own, other]}

    def next_noise(rank, world):
        monkeypatch.setattr(ImageData, "_rank", rank)
        monkeypatch.setattr(ImageData, "_world", world)
        fresh = data(tmp_path)
        fresh.load_state_dict(two)
        assert fresh.served == 8
        _, _, generator = fresh._place(torch.device("cpu"))
        return torch.rand(3, generator=generator)

    def noise(generator):
        return torch.rand(3, generator=generator)

    assert torch.equal(next_noise(1, 2), noise(torch.Generator().manual_seed(99)))
    assert torch.equal(next_noise(0, 2), noise(torch.Generator().set_state(own)))
    # another number of ranks: the stream begins anew, by seed and rank
    assert torch.equal(next_noise(2, 3), noise(stream(0, "data", 2)))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_two_processes_share_the_set_and_resume(tmp_path):
    data(tmp_path, n=26)
    script = tmp_path / "ranks.py"
    script.write_text(TWO_RANKS.format(root=str(tmp_path)))
    out = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(Path(genconv.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    runs = {
        (name, rank): torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True)
        for name in ("whole", "second")
        for rank in (0, 1)
    }
    for rank in (0, 1):
        whole, second = runs["whole", rank], runs["second", rank]
        assert len(whole) == 6
        assert len(second) == 3
        assert all(torch.equal(a, b) for a, b in zip(second, whole[3:], strict=True))
    source = load_images(str(tmp_path / "set.npz")).images
    rows = {tuple(image.flatten().tolist()) for image in source}
    seen = [to_uint8(x) for rank in (0, 1) for x in runs["whole", rank][:2]]
    found = [tuple(image.flatten().tolist()) for x in seen for image in x]
    assert len(set(found)) == len(found) == 20
    assert sum(row in rows for row in found) >= 19


TWO_RANKS = """
import sys
from pathlib import Path
import torch
from pytorch_lightning import LightningModule, Trainer
from genconv.data import ImageData

root = Path({root!r})


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0])
        return self.weight * batch[0].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(steps, name, ckpt=None):
    model = Recorder()
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        default_root_dir=root, max_epochs=-1, max_steps=steps,
    )
    module = ImageData(str(root / "set.npz"), batch_size=5, seed=3)
    trainer.fit(model, datamodule=module, ckpt_path=ckpt, weights_only=True)
    trainer.save_checkpoint(root / (name + ".ckpt"))
    torch.save(model.seen, root / (name + str(trainer.global_rank) + ".pt"))


if __name__ == "__main__":
    fit(6, "whole")
    fit(3, "first")
    fit(6, "second", str(root / "first.ckpt"))
"""


def test_one_image_fills_a_batch_with_windows_of_its_own(tmp_path):
    module = data(tmp_path, n=1, batch_size=6, repeat=12, crop=[2, 3], dequantise=False)
    found = [x for x, _ in batches(module)]
    assert [x.shape for x in found] == [(6, 3, 2, 3)] * 2
    assert module.shape == (3, 2, 3)
    image = from_uint8(load_images(module.name).images[0])
    windows = [image[:, i : i + 2, j : j + 3] for i in range(3) for j in range(3)]
    assert all(any(torch.equal(x, w) for w in windows) for x in torch.cat(found))
    assert len(torch.cat(found).unique(dim=0)) > 1


def test_a_resumed_run_sees_the_windows_of_an_uninterrupted_one(tmp_path):
    options = {"n": 1, "repeat": 20, "crop": 3}
    whole = fit(tmp_path, 6, module=data(tmp_path, **options))
    path = tmp_path / "half.ckpt"
    fit(tmp_path, 2, save=path, module=data(tmp_path, **options))
    assert_same(fit(tmp_path, 6, ckpt=path, module=data(tmp_path, **options)), whole[2:])


@pytest.mark.parametrize("crop", [0, 5, [4, 6], [2], [2, 2, 2]])
def test_windows_that_cannot_be_cut_out_are_named(tmp_path, crop):
    with pytest.raises(UserError, match=r"images of 4x5 from .*; change --data\.crop"):
        _ = data(tmp_path, crop=crop).shape


def test_no_repetition_is_named(tmp_path):
    with pytest.raises(UserError, match="repeat must be at least 1, not 0"):
        data(tmp_path, repeat=0).prepare_data()
