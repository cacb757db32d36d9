"""The average of the weights, by which a run is looked at and which checkpoints carry."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging

from genconv.training.distributed import full
from genconv.training.sharded import whole
from genconv.training.updates import ended

__all__ = ["EMA", "averaged"]


class EMA(WeightAveraging):
    """Keeps an exponential moving average of the weights; checkpoints carry it as `state_dict`.

    Early on the decay is (1 + n) / (10 + n) after n updates, so that fresh weights are forgotten.

    Args:
        decay: share of the average that an update keeps.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, module, stage)
        if (averages := self._average_model) is not None:
            # on the CPU: nobody has to wait for a GPU to say how many there are
            averages.n_averaged = averages.n_averaged.cpu()

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count an update in; PyTorch's own way of doing so waits for the device three times."""
        if not ended(trainer, batch_idx):
            return
        averages = self._average_model
        if n := int(averages.n_averaged):
            keep = min(self.decay, (1 + n) / (10 + n))
            both = list(averages.parameters()), list(module.parameters())
            torch._foreach_lerp_(*both, 1 - keep)
        else:
            for mine, its in zip(averages.parameters(), module.parameters(), strict=True):
                mine.copy_(its)
        # buffers, such as the vectors of spectral norm, are copied and not averaged
        for mine, its in zip(averages.module.buffers(), module.buffers(), strict=True):
            mine.copy_(its)
        averages.n_averaged += 1

    def state(self) -> dict[str, Any]:
        """Return the averages and how many they are of."""
        return self._average_model.state_dict()

    def put_back(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        self._average_model.load_state_dict(state)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the averages, put together where they are in shares."""
        super().on_save_checkpoint(trainer, module, checkpoint)
        averages = checkpoint["state_dict"].items()
        checkpoint["state_dict"] = {name: full(average) for name, average in averages}

    @contextmanager
    def averaged(self, module: pl.LightningModule) -> Iterator[None]:
        """Give the module its averaged weights for a while."""
        self._swap_models(module)
        try:
            yield
        finally:
            self._swap_models(module)


@contextmanager
def averaged(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[None]:
    """Give a module its averaged weights, where an average is kept, for a while.

    Every rank must do so: weights in shares take all of them to be put together.
    """
    averages = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]
    with averages[0].averaged(module) if averages else nullcontext(), whole(module):
        yield
