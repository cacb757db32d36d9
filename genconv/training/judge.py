"""How good the samples are while training goes on, and the checkpoint that drew the best."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from genconv.data import ImageData, Images, load_images
from genconv.errors import UserError
from genconv.eval.features import extract
from genconv.eval.frechet import Moments, frechet_distance
from genconv.eval.quality_networks import Network, other, own
from genconv.images import to_uint8
from genconv.seeds import stream
from genconv.trained import Trained
from genconv.training import distributed
from genconv.training.averaging import averaged
from genconv.training.callbacks import stops_all, unless_stopped
from genconv.training.module import EnergyModule
from genconv.training.updates import due

__all__ = ["Judge"]

BEST = "best.ckpt"
# images at once
BITE = 256


class Judge(pl.Callback):
    """Measures the feature distance of fresh samples to held-out data, and keeps the best weights.

    The samples are drawn from noise by the averaged weights, always from the same seed, and the
    distance is that of `genconv.eval quality`: the Fréchet distance between features of a network.
    It is logged as `quality/distance`. `checkpoints/best.ckpt` is the checkpoint that had the
    smallest, and a training that went on for too long is ended.

    Args:
        every: updates between two measurements; there is also one at the end. 0 measures nothing.
        n: samples of each; distances of different n do not compare.
        split: the part of the data that samples are held against.
        features: the network: a file as of `genconv.eval quality --features`, or `train` for one
            that is trained on the labels of the training data, and kept.
        patience: measurements without a new best after which training ends; null trains on.
        seed: of the samples.
    """

    def __init__(
        self,
        every: int = 0,
        n: int = 1000,
        split: str = "test",
        features: str = "train",
        patience: int | None = None,
        seed: int = 0,
    ) -> None:
        if every and n < 2:
            raise UserError(f"judge.n must be at least 2, not {n}")
        self.every, self.n, self.split, self.features = every, n, split, features
        self.patience, self.seed = patience, seed
        self.best, self.since = float("inf"), 0
        self._held: Images | None = None
        self._network: Network | None = None
        self._reference: Moments | None = None

    def check(self, module: EnergyModule, data: ImageData) -> None:
        """Find the held-out images and the network, before anything is written.

        Raises:
            UserError: there are none, or the network does not take them; or what is taught draws
                no images from noise.
        """
        if not self.every:
            return
        if not module.draws:
            raise UserError(
                f"{type(module).__name__} teaches no way from noise; leave judge.every out"
            )
        self._held = load_images(
            data.name, self.split, root=data.root, size=data.size, channels=data.channels
        )
        if self.features != "train":
            self._network = other(Path(self.features))
            self._network.check(self._held.shape)
        elif data.data.labels is None:
            raise UserError(f"{data.name} has no labels to train on; give --judge.features FILE")

    def on_fit_start(self, trainer: pl.Trainer, module: EnergyModule) -> None:
        """Look at the held-out images.

        Raises:
            UserError: see `check`; or there are more processes than samples.
        """
        if not self.every:
            return
        if self.n < trainer.world_size:
            raise UserError(f"judge.n must be at least {trainer.world_size}, one for each process")
        data: ImageData = trainer.datamodule
        if self._held is None:
            self.check(module, data)
        if self._network is None:
            # one process trains it, as two networks would give two kinds of features
            if trainer.is_global_zero:
                where = {"data": data.name, "split": data.split, "root": Path(data.root)}
                self._network = own(Namespace(**where, device=str(module.device)), data.data)
            self._network = trainer.strategy.broadcast(self._network)
        self._reference = Moments.of(self._seen(self._held.images, module))

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: EnergyModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.every or not due(trainer, batch_idx, self.every):
            return
        # the checkpoint is more urgent
        if stops_all(trainer) or (distance := self.distance(trainer, module, batch)) is None:
            return
        for logger in trainer.loggers:
            logger.log_metrics({"quality/distance": distance}, trainer.global_step)
        self.since += 1
        if distance < self.best:
            self.best, self.since = distance, 0
            trainer.save_checkpoint(Path(trainer.default_root_dir, "checkpoints", BEST))
        elif self.patience is not None and self.since >= self.patience:
            trainer.should_stop = True

    def distance(self, trainer: pl.Trainer, module: EnergyModule, batch: Any) -> float | None:
        """Return the distance of n fresh samples, of which every process draws its share.

        A single process leaves it, and returns None, where a signal comes meanwhile.
        """
        trained = module.trained(tuple(batch[0].shape[1:]))
        rows = range(trainer.global_rank, self.n, trainer.world_size)
        seen = []
        with averaged(trainer, module):
            for first in range(0, len(rows), BITE):
                x = self._drawn(trainer, module, trained, rows[first : first + BITE])
                if x is None:
                    return None
                seen.append(self._seen(to_uint8(x.nan_to_num()), module))
        parts = distributed.gather({"features": torch.cat(seen)})
        features = torch.cat([part["features"] for part in parts])
        distance = frechet_distance(Moments.of(features), self._reference)
        # what all ranks do next hangs on it, to the last bit
        return trainer.strategy.broadcast(distance)

    def state_dict(self) -> dict[str, Any]:
        """Return the smallest distance, how many measurements ago it was, and of what kind."""
        return {"best": self.best, "since": self.since, "kind": self._kind}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was, if distances are still of that kind."""
        if state.get("kind") == self._kind:
            self.best, self.since = state["best"], state["since"]

    @property
    def _kind(self) -> list[Any]:
        # distances that differ in one of these do not compare
        return [self.n, self.split, self.features, self.seed]

    def _drawn(
        self, trainer: pl.Trainer, module: EnergyModule, trained: Trained, rows: range
    ) -> Tensor | None:
        chances = [stream(self.seed, "judge", row, device=module.device) for row in rows]
        how = {"generator": chances, "bf16": module.bf16_chains}
        if trainer.world_size > 1:
            # one that left the others would be waited for
            return trained.sample(len(rows), **how)
        return unless_stopped(
            trainer, lambda go_on: trained.sample(len(rows), callback=go_on, **how)
        )

    def _seen(self, images: Tensor, module: pl.LightningModule) -> Tensor:
        found = extract(self._network.extractor, images, device=module.device, bar=False)
        return found.features
