"""The training command: `python -m genconv.train --config cifar10`."""

import logging
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ArgumentError
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from genconv.checkpoint import read
from genconv.data import ImageData
from genconv.energy import Energy, describe
from genconv.errors import UserError, command
from genconv.training import (
    EMA,
    EnergyModule,
    SampleGrid,
    SaveLast,
    UpdateBar,
    WholeCheckpointIO,
)

__all__ = ["TrainCLI", "main"]

CONFIGS = [Path(__file__).with_name("configs"), Path(__file__).parents[1] / "configs"]
DEFAULT = "digits"


class TrainCLI(LightningCLI):
    """Builds the parts of a run from configs and flags, in one folder `RUNS/NAME`."""

    def __init__(self, args: list[str]) -> None:
        args, name = with_configs(args)
        self.default_name = name
        super().__init__(
            EnergyModule,
            ImageData,
            subclass_mode_model=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            trainer_defaults={
                "max_epochs": -1,
                "log_every_n_steps": 10,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
            },
            args=args,
            parser_kwargs={"exit_on_error": False},
            auto_configure_optimizers=False,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default=self.default_name, help="name of the run")
        parser.add_argument("--runs", type=str, default="runs", help="folder of all runs")
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="checkpoint to resume from; `last` is the run's own newest",
        )
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(SampleGrid, "samples")
        parser.add_lightning_class_args(SaveLast, "checkpoint")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse, and answer a wrong key or value with one sentence instead of all flags."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            raise UserError(f"{_reason(error)}; --help lists every flag") from error

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.config.runs, self.config.name)

    @property
    def resume(self) -> Path | None:
        """The checkpoint that the run goes on from.

        Raises:
            UserError: there is none, or the folder is taken and this is no resumption.
        """
        path = self.config.ckpt_path
        if path is not None:
            path = self.folder / "checkpoints" / "last.ckpt" if path == "last" else Path(path)
            if not path.is_file():
                raise UserError(f"there is no checkpoint {path} to resume from")
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(
                f"{self.folder} is in use; go on with it by --ckpt_path last, "
                "or give this run another --name"
            )
        return path

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer with the loggers of the run's folder."""
        # All of them write only when the fit begins.
        kwargs["default_root_dir"] = str(self.folder)
        if self.config.trainer.logger is None:
            csv = CSVLogger(self.config.runs, name=self.config.name, version="")
            board = TensorBoardLogger(self.config.runs, name=self.config.name, version="")
            kwargs["logger"] = [csv, board]
        if self.config.trainer.enable_progress_bar is not False:
            kwargs["callbacks"] = [*(self.config_init.trainer.callbacks or []), UpdateBar()]
        kwargs["plugins"] = [*(self.config_init.trainer.plugins or []), WholeCheckpointIO()]
        return super().instantiate_trainer(**kwargs)


class SaveConfig(SaveConfigCallback):
    """Writes the resolved config into the run's folder."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.config_filename = str(Path(trainer.default_root_dir, "config.yaml").resolve())
        super().setup(trainer, pl_module, stage)


def with_configs(args: list[str]) -> tuple[list[str], str]:
    """Replace names of built-in configs by their paths; without any config take the default one.

    Returns:
        The arguments, and the name of the last config, after which the run is named.
    """
    args = [part for arg in args for part in _split(arg)]
    places = [i for i, arg in enumerate(args[:-1]) if arg in ("--config", "-c")]
    configs = [find_config(args[i + 1]) for i in places] or [find_config(DEFAULT)]
    flags = [arg for i, arg in enumerate(args) if i not in places and i - 1 not in places]
    # configs first: a flag has the last word, and needs to know the classes that it speaks of
    return [part for path in configs for part in ("--config", str(path))] + flags, configs[-1].stem


def find_config(name: str) -> Path:
    """Return the path of a config, given as a path or by the name of one that genconv brings.

    Raises:
        UserError: there is no such file, and no such name.
    """
    if Path(name).is_file():
        return _readable(Path(name))
    known = {path.stem: path for folder in CONFIGS for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise UserError(
            f"there is no config {name!r}; give a YAML file or one of {', '.join(known)}"
        )
    return known[name]


def _readable(path: Path) -> Path:
    try:
        if isinstance(yaml.safe_load(path.read_text()), dict):
            return path
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    raise UserError(f"{path} sets nothing; it must hold `key: value` lines")


def _reason(error: Exception) -> str:
    """Return the branch of a parser's error that says what is wrong, in one line."""
    noise = (
        "Does not validate",
        "Subtypes:",
        "Errors:",
        "- Expected a <class 'NoneType'>",
        "Given",
    )
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line.removeprefix("- ") for line in lines if not line.startswith(noise))


def _split(arg: str) -> list[str]:
    return arg.split("=", 1) if arg.startswith(("--config=", "--ckpt_path=")) else [arg]


def check_shapes(module: EnergyModule, data: ImageData) -> None:
    """Ask the energy for one image's number before anything is written.

    Raises:
        UserError: the energy does not take images of this shape.
    """
    y = torch.zeros(1, dtype=torch.int64) if module.classes else None
    if module.uses_buffer and module.buffer_size < data.batch_size * (module.classes or 1):
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
            energy = nn.Module.eval(module.energy)(torch.zeros(1, *data.shape), y)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{type(module.energy).__name__} cannot take images of shape {data.shape} "
            f"from {data.name}: {' '.join(str(error).split())}"
        ) from error
    finally:
        module.energy.train()
    if energy.shape != (1,):
        raise UserError(f"{type(module.energy).__name__} gives {tuple(energy.shape)}, not (N,)")


def check_same(energy: Energy, checkpoint: Path) -> None:
    """Raise a UserError if the checkpoint is broken or holds another energy."""
    ours, theirs = describe(energy), describe(read(checkpoint, "cpu").energy)
    if ours != theirs:
        raise UserError(
            f"{checkpoint} holds another energy than the config describes: {theirs}, not {ours}"
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
    cli = TrainCLI(args)
    resume = cli.resume
    if cli.trainer.is_global_zero:
        # The other ranks wait in `fit` for the data, and find them fetched and fitting.
        introduce(cli, resume)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resume, weights_only=True)
    stopped = next(c for c in cli.trainer.callbacks if isinstance(c, SaveLast)).signal
    if cli.trainer.is_global_zero:
        conclude(cli, args, stopped)
    if stopped:
        sys.exit(128 + stopped)


def introduce(cli: TrainCLI, resume: Path | None) -> None:
    """Say what will be trained; refuse what cannot be, before anything is written."""
    energy, data, folder = cli.model.energy, cli.datamodule, cli.folder
    data.prepare_data()
    check_shapes(cli.model, data)
    if resume:
        check_same(energy, resume)
        old = folder / "metrics.csv"
        if old.exists():
            # the logger begins a new file
            old.rename(folder / f"metrics.until_resume_{len(list(folder.glob('metrics.*')))}.csv")
    print(
        f"{cli.config.name}: {len(data.data):,} images {'x'.join(map(str, data.shape))} "
        f"of {data.name}, {type(energy).__name__} with "
        f"{sum(p.numel() for p in energy.parameters()):,} weights, "
        f"{cli.trainer.max_steps:,} updates on {cli.trainer.strategy.root_device}",
        flush=True,
    )


def conclude(cli: TrainCLI, args: list[str], stopped: int | None) -> None:
    """Say what there is now and what to type next."""
    if stopped:
        again = [arg for part in args for arg in _split(part)]
        while "--ckpt_path" in again:
            del again[(place := again.index("--ckpt_path")) : place + 2]
        again = shlex.join([*again, "--ckpt_path", "last"])
        print(f"stopped and saved; go on with\n  python -m genconv.train {again}")
        return
    print(
        f"trained: {cli.folder}\n"
        f"  pictures  {cli.folder / 'samples'}\n"
        f"  sample    python -m genconv.sample {cli.folder} -n 100 --out {cli.config.name}.png\n"
        f"  curves    tensorboard --logdir {cli.config.runs}"
    )


if __name__ == "__main__":
    # Classes of this file go into configs and checkpoints, and must not belong to __main__.
    from genconv import train

    command(train.main)
