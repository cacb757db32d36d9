import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from genconv.data import ImageData
from genconv.energy import Energy
from genconv.training import EMA, Guard, SaveLast, WholeCheckpointIO


class Quadratic(Energy):
    """E(x) = a |x - θ|² / 2, about which everything is known."""

    def __init__(self, size=2, a=1.0):
        super().__init__()
        self.a, self.theta = a, nn.Parameter(torch.zeros(size))

    def forward(self, x, y=None):
        return self.a * (x - self.theta).square().flatten(1).sum(1) / 2


@pytest.fixture
def quadratic():
    return Quadratic()


@pytest.fixture
def fit(tmp_path):
    """Train on digits, quietly, with the callbacks that genconv.train gives a run."""

    default = object()

    def fit(
        module,
        steps,
        folder="run",
        resume=None,
        workers=0,
        guard=default,
        every=1000,
        more=(),
        **how,
    ):
        guards = [Guard() if guard is default else guard] if guard is not None else []
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=tmp_path / folder,
            callbacks=[EMA(0.9), *guards, *more, SaveLast(every)],
            plugins=[WholeCheckpointIO()],
            **{"logger": False, "max_epochs": -1, **how},
        )
        data = ImageData("digits", batch_size=64, workers=workers)
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        return tmp_path / folder / "checkpoints" / "last.ckpt"

    return fit
