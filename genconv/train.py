"""The training command: `python -m genconv.train --config cifar10`."""

import logging
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn

from genconv.checkpoint import read
from genconv.data import ImageData
from genconv.energy import Energy
from genconv.errors import UserError, command
from genconv.files import lock
from genconv.ranks import leave_at_exit
from genconv.training import EnergyMatching, EnergyModule, SaveLast
from genconv.training.cli import TrainCLI, split_flags
from genconv.training.judge import Judge

__all__ = ["main"]


def check_shapes(module: EnergyModule, data: ImageData) -> None:
    """Ask the energy for one image's number before anything is written.

    Raises:
        UserError: the energy does not take images of this shape.
    """
    y = torch.zeros(1, dtype=torch.int64) if module.classes else None
    lent = module.chains_lent(data.batch_size)
    if module.uses_buffer and module.buffer_size < lent * (module.classes or 1):
        raise UserError(
            f"a buffer of {module.buffer_size} chains is too small for batches of {data.batch_size}"
            + (f" from {module.classes} classes" if module.classes else "")
            + "; raise --model.buffer_size"
        )
    if module.classes and data.classes is None:
        raise UserError(f"{data.name} has no labels, which a class-conditional energy needs")
    if module.classes and data.classes > module.classes:
        raise UserError(f"{data.name} has {data.classes} classes, the energy {module.classes}")
    try:
        with torch.no_grad():
            for shape in {data.shape, module.chain_shape(data.shape)}:
                energy = nn.Module.eval(module.energy)(torch.zeros(1, *shape), y)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{type(module.energy).__name__} cannot take images of shape {data.shape} "
            f"from {data.name}: {error}"
        ) from error
    finally:
        module.energy.train()
    if isinstance(module, EnergyMatching) and module.unlabelled:
        check_unlabelled(module.energy, data.shape)
    if energy.shape != (1,):
        raise UserError(f"{type(module.energy).__name__} gives {tuple(energy.shape)}, not (N,)")
    if (generator := module.trained(data.shape).generator) is not None:
        with torch.no_grad():
            made = generator(torch.zeros(1, generator.latent))
        if made.shape[1:] != data.shape:
            raise UserError(
                f"the generator makes images of shape {tuple(made.shape[1:])}, and those of "
                f"{data.name} have {data.shape}; give --model.generator.shape"
            )


def check_unlabelled(energy: Energy, shape: tuple[int, ...]) -> None:
    """Raise a UserError for an energy that has no E(x) of its own for label -1."""
    try:
        with torch.no_grad():
            energy(torch.zeros(1, *shape), torch.tensor([-1]))
    except (IndexError, RuntimeError) as error:
        raise UserError(
            f"--model.unlabelled: {type(energy).__name__} has no energy of its own for images "
            "without a label; UNetEnergy with classes has"
        ) from error


def check_same(module: EnergyModule, data: ImageData, checkpoint: Path) -> None:
    """Raise a UserError if the checkpoint is broken, or of other networks or other images."""
    trained = read(checkpoint, "cpu")
    ours, theirs = module.trained(data.shape).card(), trained.card()
    for part in ("energy", "generator"):
        if ours.get(part) != theirs.get(part):
            raise UserError(
                f"{checkpoint} holds another {part} than the config describes: "
                f"{theirs.get(part)}, not {ours.get(part)}"
            )
    if trained.shape != data.shape:
        raise UserError(
            f"{checkpoint} was trained on images of shape {trained.shape}, and those of "
            f"{data.name} have {data.shape}; give the --data.* flags that it was trained with"
        )


def main(args: list[str] | None = None) -> None:
    """Train, and say what to do next."""
    # Lightning 2.6.6 asks torch >= 2.14 in a way that torch finds old
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*", FutureWarning)
    warnings.filterwarnings("ignore", ".*is not empty", UserWarning)
    warnings.filterwarnings("ignore", "LightningCLI's args parameter", UserWarning)
    warnings.filterwarnings("ignore", ".*smaller than the logging interval", UserWarning)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    args = sys.argv[1:] if args is None else args
    leave_at_exit()  # Lightning does so with NCCL only
    cli = TrainCLI(args)
    resume = cli.resume
    with ExitStack() as stack:
        if cli.trainer.is_global_zero:
            # The other ranks wait in `fit` for the data, and find them fetched and fitting.
            introduce(cli, resume)
            stack.enter_context(sole_writer(cli.folder))
        fit(cli, resume)
    stopped = next(c for c in cli.trainer.callbacks if isinstance(c, SaveLast)).signal
    if cli.trainer.is_global_zero:
        conclude(cli, args, stopped)
    if stopped:
        sys.exit(128 + stopped)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Take a run's folder, set earlier metrics aside; a UserError if another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose other --runs") from error
    with file:
        lock(file, "wait for it, or give this run another --name")
        old = folder / "metrics.csv"
        if old.exists():
            # the logger begins a new file
            old.rename(folder / f"metrics.until_resume_{len(list(folder.glob('metrics.*')))}.csv")
        yield


def fit(cli: TrainCLI, resume: Path | None) -> None:
    """Train, from the checkpoint on if there is one."""
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resume, weights_only=True)
    except RuntimeError as error:
        if not re.match(r"DataLoader worker .* (killed|exited)", str(error)):
            raise
        raise UserError(
            f"{error}; did memory run out? Go on by --ckpt_path last, with fewer --data.workers"
        ) from error


def introduce(cli: TrainCLI, resume: Path | None) -> None:
    """Say what will be trained; refuse what cannot be, before anything is written."""
    energy, data = cli.model.energy, cli.datamodule
    data.prepare_data()
    check_shapes(cli.model, data)
    for callback in cli.trainer.callbacks:
        if isinstance(callback, Judge):
            callback.check(cli.model, data)
    if resume:
        check_same(cli.model, data, resume)
    print(
        f"{cli.config.name}: {len(data.data):,} images {'x'.join(map(str, data.shape))} "
        f"of {data.name}, {type(energy).__name__} with "
        f"{sum(p.numel() for p in cli.model.parameters()):,} weights, "
        f"{cli.trainer.max_steps:,} updates on {cli.trainer.strategy.root_device}",
        flush=True,
    )


def conclude(cli: TrainCLI, args: list[str], stopped: int | None) -> None:
    """Say what there is now and what to type next."""
    if stopped:
        again = split_flags(args)
        while "--ckpt_path" in again:
            del again[(place := again.index("--ckpt_path")) : place + 2]
        again = shlex.join([*again, "--ckpt_path", "last"])
        print(f"stopped and saved; go on with\n  python -m genconv.train {again}")
        return
    # where a run shows its own chains, new ones are something else
    which = "--persistent" if cli.config.samples.persistent else "-n 100"
    pictures = f"  pictures  {cli.folder / 'samples'}\n" if cli.config.samples.every else ""
    print(
        f"trained: {cli.folder}\n"
        f"{pictures}"
        f"  sample    python -m genconv.sample {cli.folder} {which} --out {cli.config.name}.png\n"
        f"  curves    tensorboard --logdir {cli.config.runs}"
    )


if __name__ == "__main__":
    command(main)
