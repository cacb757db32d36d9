"""A progress bar over the updates of a run, where Lightning's begins anew with each epoch."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["UpdateBar"]


class UpdateBar(ProgressBar):
    """Shows the updates done, the time left, and the figures logged for the bar.

    Args:
        refresh: updates between two looks at the figures, each of which waits for the device.
    """

    def __init__(self, refresh: int = 20) -> None:
        super().__init__()
        self.refresh = refresh
        self._bar: Progress | None = None

    def disable(self) -> None:
        """Show nothing; Lightning calls this on every rank but the first."""
        self.refresh = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        super().on_train_start(trainer, module)
        if self.refresh:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=Console(stderr=True),
            )
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._task = self._bar.add_task("", total=total, figures="")
            self._bar.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._bar and trainer.global_step % self.refresh == 0:
            figures = self.get_metrics(trainer, module).items()
            text = "  ".join(f"{name} {value:.4g}" for name, value in figures)
            # between two updates that are logged the old figures stay
            new = {"figures": text} if text else {}
            self._bar.update(self._task, completed=trainer.global_step, **new)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop(trainer)

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        if self._bar:
            self._bar.update(self._task, completed=trainer.global_step)
            self._bar.stop()
            self._bar = None
