"""A long run with NaN injected now and then: `python -m tests.faults.soak --minutes 120`.

Trains a config as the command does, and every `--gap` updates, or about that, spoils one thing: a
pixel of the batch, the loss, the gradient of a weight, a chain, or eight updates in a row, which
makes the guard go back. The run has to end in time, with finite weights, averages and moments, and
all injections counted. `--config digits_pcd` by default, as the one that diverges most easily; the
learning rates fall by a tenth at every return, not by half, or hours of this would end at nothing.
"""

import argparse
import random
import tempfile
from pathlib import Path

import torch

from genconv.train import main as train
from genconv.training import ContrastiveDivergence, EnergyMatching, EnergyModule

KINDS = ("batch", "loss", "gradient", "chain", "burst")
WEIGHTS = (3, 3, 3, 3, 1)


class Poison:
    """Decides what is spoilt in the update under way."""

    def __init__(self, gap: int, seed: int) -> None:
        self.gap, self.chance = gap, random.Random(seed)
        self.seen, self.next = 0, gap
        self.kind: str | None = None
        self.left = 0
        self.done = dict.fromkeys(KINDS, 0)

    def update(self) -> str | None:
        # in updates: on a slow machine seconds would hold too few of them to recover in
        self.seen += 1
        if self.left:
            self.left -= 1
        else:
            self.kind = None
        if self.kind is None and self.seen > self.next:
            self.kind = self.chance.choices(KINDS, WEIGHTS)[0]
            self.left = 7 if self.kind == "burst" else 0
            self.done[self.kind] += 1
            self.next = self.seen + self.gap * self.chance.uniform(0.5, 1.5)
        return self.kind


def inject(poison: Poison) -> None:
    for cls in (ContrastiveDivergence, EnergyMatching):

        def spoiled(self, batch, batch_idx, step=cls.training_step):
            kind, (x, y) = poison.update(), batch
            if kind == "batch":
                x[0].view(-1)[3] = torch.nan
            loss = step(self, (x, y), batch_idx)
            return loss * torch.nan if kind in ("loss", "burst") else loss

        cls.training_step = spoiled
    advance = EnergyModule.advance

    def lost(self, x, y):
        end = advance(self, x, y)
        if poison.kind == "chain":
            end[::9] = torch.nan
        return end

    EnergyModule.advance = lost

    def after_backward(self):
        if poison.kind == "gradient":
            next(self.energy.parameters()).grad.view(-1)[0] = torch.inf

    EnergyModule.on_after_backward = after_backward


def all_finite(state: object) -> bool:
    if isinstance(state, torch.Tensor):
        return bool(state.isfinite().all())
    if isinstance(state, dict):
        state = list(state.values())
    return all(map(all_finite, state)) if isinstance(state, list | tuple) else True


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=10, help="how long (10)")
    parser.add_argument("--gap", type=int, default=200, help="updates between injections (200)")
    parser.add_argument("--config", default="digits_pcd")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    poison = Poison(options.gap, options.seed)
    inject(poison)
    with tempfile.TemporaryDirectory() as runs:
        flags = ["--config", options.config, "--name", "soak", "--runs", runs]
        flags += ["--trainer.max_steps", "-1", "--checkpoint.every", "100", "--samples.every", "0"]
        flags += ["--guard.backoff", "0.9"]
        hours, minutes = divmod(options.minutes, 60)
        flags += ["--trainer.max_time", f"00:{hours:02d}:{minutes:02d}:00"]
        train([*flags, "--trainer.enable_progress_bar", "false"])
        saved = torch.load(Path(runs, "soak/checkpoints/last.ckpt"), weights_only=True)
    guard = saved["guard"]
    print(f"{saved['global_step']} updates; injected {poison.done}; skipped {guard['skipped']:g}, ")
    print(f"returns {guard['attempts']}, learning rates x {guard['lr_scale']:g}")
    parts = ("state_dict", "current_model_state", "optimizer_states", "chains")
    assert all(all_finite(saved[part]) for part in parts)
    single = sum(poison.done[kind] for kind in ("batch", "loss", "gradient"))
    # the end may have cut the last burst short
    assert single + 8 * (poison.done["burst"] - 1) <= guard["skipped"]
    assert guard["attempts"] >= poison.done["burst"] - 1
    print("all finite, all counted")


if __name__ == "__main__":
    main()
