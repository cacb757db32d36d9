"""When a callback's work is due: updates are counted, and an update may be of several batches."""

import pytorch_lightning as pl

__all__ = ["due", "ended"]


def ended(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Say whether a batch that has just been seen was the last of its update.

    Args:
        trainer: may gather the gradients of several batches (`accumulate_grad_batches`).
        batch_idx: as `on_train_batch_end` gets it.
    """
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch


def due(trainer: pl.Trainer, batch_idx: int, every: int) -> bool:
    """Say whether a batch ended an update that is a multiple of `every`, or training's last."""
    if not ended(trainer, batch_idx):
        return False
    if trainer.global_step % every == 0 or trainer.global_step == trainer.max_steps:
        return True
    return trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
