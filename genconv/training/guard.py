"""What stands between a diverging update and the weights: skip it, go back, or stop."""

import logging
import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from genconv.errors import DivergedError, UserError
from genconv.training.averaging import EMA
from genconv.training.distributed import norm_of
from genconv.training.module import EnergyModule
from genconv.training.updates import ended

__all__ = ["Guard"]

log = logging.getLogger(__name__)

REASONS = {
    "loss": "the loss is not finite",
    "gradient": "the gradient is not finite, or far from its usual size",
    "gap": "the energies of data and chains are far apart",
    "chains": "most chains have left the numbers",
}
WATCHED = ("gradient", "gap")
WINDOW = 10


class Guard(pl.Callback):
    r"""Skips updates that would spoil a run, and goes back when there are too many of them.

    An update is skipped, and changes neither weights nor moments, when the loss is not finite; when
    the norm of the gradient is not finite, 0, or further than a factor `spike` from its usual size,
    the geometric mean of the last hundred or so; when \|E⁺ - E⁻\| is as far above its own, or that
    of \|E⁺\| where this is larger; or when most chains were lost. (A single lost chain begins anew
    and costs nothing else.)

    This happens on the device, and the CPU looks every 10 updates. If `patience` of them were
    skipped it goes back: weights, their average, optimiser and buffer become those of `every` to 2
    `every` updates ago, copies of which are kept in memory; learning rates become `backoff` times
    what they were, for good; and the chains draw other random numbers. Neither the number of
    updates nor the order of the data is turned back. After `retries` returns, each less than 10
    `every` updates after the one before, the run has diverged.

    Args:
        spike: how many times its usual size is too much.
        patience: skipped updates, of 10, after which the run goes back.
        every: updates between two copies of the state; a multiple of 10.
        backoff: factor of the learning rates.
        retries: how often in a row the run may go back; 0 to stop at the first time.

    Raises:
        DivergedError: in training, when going back was no help.
    """

    def __init__(
        self,
        spike: float = 1000.0,
        patience: int = 5,
        every: int = 100,
        backoff: float = 0.5,
        retries: int = 4,
    ) -> None:
        for name, value, good in [
            ("spike", spike, spike > 1),
            ("patience", patience, 1 <= patience <= WINDOW),
            ("every", every, every > 0 and every % WINDOW == 0),
            ("backoff", backoff, 0 < backoff <= 1),
            ("retries", retries, retries >= 0),
        ]:
            if not good:
                raise UserError(f"guard.{name} cannot be {value}; --help says what it is")
        self.spike, self.patience, self.every = spike, patience, every
        self.backoff, self.retries = backoff, retries
        self.returns, self.attempts, self.last_return = 0, 0, 0
        self._copies: list[dict[str, Any]] = []
        self._loss = torch.zeros(())
        # What decides stays on the device: logs of the usual sizes and how many updates they are
        # of; skips of this window, by reason and together; skips of the run.
        self._state = {
            "usual": torch.zeros(len(WATCHED)),
            "seen": torch.zeros(len(WATCHED)),
            "window": torch.zeros(len(REASONS) + 1),
            "skipped": torch.zeros(()),
        }

    def on_train_start(self, trainer: pl.Trainer, module: EnergyModule) -> None:
        self._state = {key: value.to(module.device) for key, value in self._state.items()}
        self._copies = [self._copy(trainer, module)] * 2

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: EnergyModule, batch: Any, batch_idx: int
    ) -> None:
        module.signs.clear()

    def on_before_backward(self, trainer: pl.Trainer, module: EnergyModule, loss: Tensor) -> None:
        self._loss = loss.detach()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: EnergyModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradient = norm_of(module.parameters())
        skip = self._judge(trainer, self._loss, gradient, module.signs)
        if optimizer.param_groups[0].get("fused") and not isinstance(module, FSDPModule):
            # looked at on the device, as a GradScaler's would be
            optimizer.found_inf = skip
        elif skip:
            for parameter in module.parameters():
                parameter.grad = None
        self.log("guard/skipped", self._state["skipped"])
        self.log("guard/returns", float(self.attempts))

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: EnergyModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % WINDOW or not ended(trainer, batch_idx):
            return
        *by_reason, skips = self._state["window"].int().tolist()
        self._state["window"].zero_()
        if skips:
            named = [text for n, text in zip(by_reason, REASONS.values(), strict=True) if n]
            why = "; ".join(named)
            log.warning("%d of updates %d-%d skipped: %s", skips, step - WINDOW + 1, step, why)
        if skips >= self.patience:
            self._go_back(trainer, module, why)
        elif not skips and step % self.every == 0:
            self._copies = [self._copies[1], self._copy(trainer, module)]

    def _judge(
        self, trainer: pl.Trainer, loss: Tensor, gradient: Tensor, signs: dict[str, Tensor]
    ) -> Tensor:
        """Count an update in; return 1 if it is to be skipped, else 0."""
        state, none = self._state, torch.full_like(loss, torch.nan)
        sizes = torch.stack([gradient.float(), signs.get("gap", none).abs().float()])
        logs = sizes.clamp_min(1e-30).log()
        # A gap that was near 0 for a while says nothing of how large it may be: energies that are
        # sums over pixels open one of their own size, from 0, when their chains begin to move.
        least = torch.stack([torch.zeros_like(loss), signs.get("energies", none)]).float()
        usually = torch.fmax(sizes, least).clamp_min(1e-30).log()
        far, warm = math.log(self.spike), state["seen"] >= WINDOW
        above = ~(logs - state["usual"] < far) & warm
        below = ~(logs - state["usual"] > -far) & warm
        gradient_bad = above[0] | below[0] | ~gradient.isfinite() | (gradient == 0)
        gap_bad = above[1] | ~sizes[1].isfinite() if "gap" in signs else torch.zeros_like(above[1])
        # not `> 0.5`, which a NaN would pass
        chains_bad = ~(signs.get("chains", torch.zeros_like(loss)) <= 0.5)
        bad = torch.stack([~loss.isfinite(), gradient_bad, gap_bad, chains_bad]).float()
        if trainer.world_size > 1:
            # every rank has to skip what one of them skips
            bad = trainer.strategy.reduce(bad, reduce_op="max")
        skip = bad.amax()
        state["window"] += torch.cat([bad, skip[None]])
        state["skipped"] += skip
        # at first the mean of all so far, later of about the last hundred
        usual = state["usual"].lerp(usually, 1 / (1 + state["seen"]).clamp_max(100))
        counts = (skip == 0) & ~sizes.isnan()
        state["usual"] = torch.where(counts, usual, state["usual"])
        state["seen"] += counts
        return skip

    def _copy(self, trainer: pl.Trainer, module: EnergyModule) -> dict[str, Any]:
        """Return copies, on the CPU, of all that a return puts back."""
        return _on_cpu(
            {
                "weights": module.state_dict(),
                "averages": [average.state() for average in _averages(trainer)],
                "optimizer": trainer.optimizers[0].state_dict(),
                "buffer": None if module.buffer is None else module.buffer.state_dict(),
                "usual": self._state["usual"],
                "seen": self._state["seen"],
            }
        )

    def _go_back(self, trainer: pl.Trainer, module: EnergyModule, why: str) -> None:
        step = trainer.global_step
        if step - self.last_return > 10 * self.every:
            self.returns = 0
        if self.returns == self.retries:
            raise DivergedError(
                f"the run has diverged at update {step} and {self.retries} returns to an earlier "
                f"state, with learning rates down to {module.lr_scale:g} of the config's, did not "
                f"help: {why}; lower --model.lr or raise --model.k; docs/health.md says more"
            )
        self.returns, self.attempts, self.last_return = self.returns + 1, self.attempts + 1, step
        module.lr_scale *= self.backoff
        good = self._copies[0]
        self._copies = [good, good]
        module.load_state_dict(good["weights"])
        for average, state in zip(_averages(trainer), good["averages"], strict=True):
            average.put_back(state)
        (optimizer,) = trainer.optimizers
        rates = [group["lr"] * self.backoff for group in optimizer.param_groups]
        # a copy: an optimiser goes on in the very tensors that it is given
        optimizer.load_state_dict(_on_cpu(good["optimizer"]))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        module.return_to(good["buffer"], self.attempts)
        for key in ("usual", "seen"):
            self._state[key] = good[key].to(module.device, copy=True)
        log.warning("back to an earlier state, learning rates x %g", module.lr_scale)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: EnergyModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the counts: a resumed run has no more retries than the one that it goes on."""
        checkpoint["guard"] = {
            **self._state,
            "returns": self.returns,
            "attempts": self.attempts,
            "last_return": self.last_return,
            "lr_scale": module.lr_scale,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: EnergyModule, checkpoint: dict[str, Any]
    ) -> None:
        if (saved := checkpoint.get("guard")) is not None:
            self._state = {key: saved[key].clone() for key in self._state}
            self.returns, self.attempts = saved["returns"], saved["attempts"]
            self.last_return, module.lr_scale = saved["last_return"], saved["lr_scale"]


def _averages(trainer: pl.Trainer) -> list[EMA]:
    return [callback for callback in trainer.callbacks if isinstance(callback, EMA)]


def _on_cpu(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list | tuple) else state
