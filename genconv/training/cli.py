"""The command line of training: configs by name, flags over configs, one folder for a run."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ArgumentError
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from genconv.data import ImageData
from genconv.errors import UserError
from genconv.precision import affordable
from genconv.sampling import compile_gradient
from genconv.training.averaging import EMA
from genconv.training.callbacks import SampleGrid, SaveLast, WholeCheckpointIO
from genconv.training.guard import Guard
from genconv.training.judge import Judge
from genconv.training.module import EnergyModule
from genconv.training.progress import UpdateBar
from genconv.training.sharded import Sharded
from genconv.whole import LAST, PREVIOUS, newest

__all__ = ["DEFAULT", "TrainCLI", "find_config", "split_flags", "with_configs"]

# in an installed package, in a checkout
CONFIGS = [Path(__file__).parents[i] / "configs" for i in (1, 2)]
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
            help="checkpoint to resume from; `last` is the run's own newest; `auto` is that too, "
            "and a beginning where there is none yet",
        )
        parser.add_argument(
            "--compile",
            type=bool,
            default=False,
            help="compile the gradient of the chains, see genconv.sampling.compile_gradient",
        )
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(Guard, "guard")
        parser.add_lightning_class_args(SampleGrid, "samples")
        # before the checkpoint, which is to know what was measured
        parser.add_lightning_class_args(Judge, "judge")
        parser.add_lightning_class_args(SaveLast, "checkpoint")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse, and answer a wrong key or value with one sentence instead of all flags."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            raise UserError(f"{_reason(error)}; --help lists every flag") from error
        seed = self.config.seed_everything
        if not 0 <= seed < 2**32:
            raise UserError(f"seed_everything is a number from 0 to 2**32 - 1, not {seed}")

    def instantiate_classes(self) -> None:
        """Build the parts, and answer values that a part refuses with one sentence."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            # jsonargparse takes a refusal for a wrong type, and lists all types and values
            if "Does not validate" not in str(error):
                raise
            raise UserError(_reason(error)) from error
        if self.config.compile and self.config.trainer.strategy == "fsdp":
            raise UserError(
                "fsdp puts the weights together anew in every update, and compiled gradients want "
                "them to stay where they are; leave out --compile or --trainer.strategy fsdp"
            )
        if self.config.compile:
            compile_gradient(self.model.energy)

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
        path, folder = self.config.ckpt_path, self.folder / "checkpoints"
        # hidden files, such as the lock, are no run
        used = self.folder.exists() and any(self.folder.glob("[!.]*"))
        begun = any((folder / name).exists() for name in (LAST, PREVIOUS))
        if path == "last" or (path == "auto" and begun):
            if not folder.is_dir():
                raise UserError(f"there is no checkpoint {folder / LAST} to resume from")
            return newest(folder)
        if path is not None and path != "auto":
            if not Path(path).is_file():
                raise UserError(f"there is no checkpoint {path} to resume from")
            return Path(path)
        # a run that was stopped before its first checkpoint begins anew without being asked
        if used and path != "auto":
            raise UserError(
                f"{self.folder} is in use; go on with it by --ckpt_path last, "
                "or give this run another --name"
            )
        return None

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
        if self.config.trainer.strategy == "fsdp":
            kwargs["strategy"] = Sharded()
        kwargs["plugins"] = [*(self.config_init.trainer.plugins or []), WholeCheckpointIO()]
        accelerator, precision = self.config.trainer.accelerator, self.config.trainer.precision
        if accelerator == "auto" and not torch.accelerator.is_available():
            accelerator = "cpu"
        if accelerator == "cpu" and precision is not None:
            kwargs["precision"] = affordable(str(precision), "cpu")
        return super().instantiate_trainer(**kwargs)


class SaveConfig(SaveConfigCallback):
    """Writes the resolved config into the run's folder."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.config_filename = str(Path(trainer.default_root_dir, "config.yaml").resolve())
        super().setup(trainer, pl_module, stage)


def split_flags(args: list[str]) -> list[str]:
    """Spell `--config=X` and `--ckpt_path=X` as two words."""
    pairs = ("--config=", "--ckpt_path=")
    return [part for a in args for part in (a.split("=", 1) if a.startswith(pairs) else [a])]


def with_configs(args: list[str]) -> tuple[list[str], str]:
    """Replace names of built-in configs by their paths; without any config take the default one.

    Returns:
        The arguments, and the name of the last config, after which the run is named.
    """
    args = split_flags(args)
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
        raise UserError(f"{path} is no YAML: {error}") from error
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
