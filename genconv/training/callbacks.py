"""What watches a run: pictures, and checkpoints that can be trusted."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from genconv.errors import UserError
from genconv.files import clear_litter, replacing
from genconv.images import save_png, sheet, to_uint8
from genconv.seeds import stream
from genconv.training.averaging import averaged
from genconv.training.distributed import full
from genconv.training.module import EnergyModule
from genconv.training.updates import due, ended
from genconv.whole import LAST, PREVIOUS, broken

__all__ = [
    "SampleGrid",
    "SaveLast",
    "WholeCheckpointIO",
    "stops_all",
    "unless_stopped",
]

log = logging.getLogger(__name__)


class SampleGrid(pl.Callback):
    """Draws images from noise with the averaged weights, always from the same seed.

    They lie in `samples/` of the run's folder.

    Args:
        every: updates between two grids; there is also one at the end. 0 draws none.
        n: images in a grid.
        columns: images in a row; the squarest grid by default.
        scale: side of the square that a pixel becomes.
        seed: of the noise.
        persistent: draw none, but show the first chains of the replay buffer.
    """

    def __init__(
        self,
        every: int = 1000,
        n: int = 64,
        columns: int | None = None,
        scale: int = 2,
        seed: int = 0,
        persistent: bool = False,
    ) -> None:
        self.every, self.n, self.columns, self.scale, self.seed = every, n, columns, scale, seed
        self.persistent = persistent

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: EnergyModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.every or not due(trainer, batch_idx, self.every):
            return
        if self.persistent and module.buffer is not None:
            self._show(trainer, module.buffer.images[: self.n])
            return
        with averaged(trainer, module):
            images = self._drawn(trainer, module, batch)
        # a signal may have come: the checkpoint is more urgent than the picture
        if images is not None:
            self._show(trainer, images)

    @pl.utilities.rank_zero_only
    def _show(self, trainer: pl.Trainer, images: Tensor) -> None:
        picture = sheet(images.cpu(), self.columns, scale=self.scale)
        name = f"step_{trainer.global_step:07d}.png"
        save_png(Path(trainer.default_root_dir, "samples", name), picture)

    @pl.utilities.rank_zero_only
    def _drawn(self, trainer: pl.Trainer, module: EnergyModule, batch: Any) -> Tensor | None:
        generator = stream(self.seed, "grid", device=module.device)
        x = unless_stopped(
            trainer,
            lambda go_on: module.drawn(self.n, batch, generator=generator, callback=go_on),
        )
        return None if x is None else to_uint8(x)


def unless_stopped(
    trainer: pl.Trainer, draw: Callable[[Callable[[int, Tensor], None]], Tensor]
) -> Tensor | None:
    """Return what is drawn, or None where a signal has come meanwhile.

    Args:
        trainer: knows of signals.
        draw: draws, and calls what it is given after each step.
    """

    def go_on(step: int, x: Tensor) -> None:
        if asked_to_stop(trainer):
            raise _Stopped

    try:
        return draw(go_on)
    except _Stopped:
        return None


class _Stopped(Exception):  # noqa: N818 - no error
    """A signal has come."""


def asked_to_stop(trainer: pl.Trainer) -> bool:
    """Say whether this process has had a signal, or training is to end for another reason."""
    signals = (c.signal for c in trainer.callbacks if isinstance(c, SaveLast))
    return trainer.should_stop or any(number is not None for number in signals)


def stops_all(trainer: pl.Trainer) -> bool:
    """Let a signal that has reached one rank stop all of them, and say whether one has."""
    stop = asked_to_stop(trainer)
    if trainer.world_size > 1:
        stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
    # never taken back: a signal may have come while the ranks asked each other
    trainer.should_stop |= stop
    return stop


class SaveLast(Checkpoint):
    """Writes `checkpoints/last.ckpt` into the run's folder; Ctrl-C and SIGTERM wait for it.

    What was there before stays beside it, as `previous.ckpt`. Weights that are not finite are never
    saved. After a signal the update under way is finished, saved and the run ends; a second signal
    ends it at once.

    Args:
        every: updates between two checkpoints; the last update is always saved.
        milestones: updates between checkpoints that are kept, as `step_N.ckpt`; null keeps none.
    """

    def __init__(self, every: int = 1000, milestones: int | None = None) -> None:
        for name, value in [("every", every), ("milestones", milestones)]:
            if value is not None and value < 1:
                raise UserError(f"checkpoint.{name} must be at least 1, not {value}")
        self.every, self.milestones = every, milestones
        self.signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        def stop(number: int, frame: FrameType | None) -> None:
            # not `should_stop`: the ranks agree on that, as one that left alone would be waited for
            self.signal = number
            signal.signal(number, signal.SIG_DFL)

        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, stop)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # not in teardown, which comes after Lightning has put back the handlers that it had found
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # a checkpoint in the middle of an update would forget the gradients gathered so far
        if not ended(trainer, batch_idx):
            return
        stop = stops_all(trainer)
        step, folder = trainer.global_step, Path(trainer.default_root_dir, "checkpoints")
        paths = []
        if self.milestones and step % self.milestones == 0:
            paths.append(folder / f"step_{step:07d}.ckpt")
        if stop or due(trainer, batch_idx, self.every):
            paths.append(folder / LAST)
        if paths and not all(full(p.isfinite().all()) for p in module.parameters()):
            log.warning("update %d is not saved: its weights are not finite", step)
            return
        for path in paths:
            trainer.save_checkpoint(path)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads tensors and plain values only."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write beside `path`, sync, read back, rename; keep what was `last` as `previous`.

        Raises:
            UserError: any of that failed, and `path` is what it was before.
        """
        path = Path(path)
        clear_litter(path)
        with replacing(path, path.with_name(PREVIOUS) if path.name == LAST else None) as part:
            try:
                with part.open("wb") as file:
                    torch.save(checkpoint, file)
            except RuntimeError as error:
                # torch's writer talks of positions where the disk was full
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
            if fault := broken(part):
                raise UserError(f"{path} was not written: what came back from the disk {fault}")

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; never run code from it, whatever `weights_only` says."""
        # not to the device that it was saved from, which need not exist here
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)
