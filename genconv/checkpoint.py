"""Trained energies on disk: what a checkpoint says of its energy, and how it is read safely."""

import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from genconv.energy import Energy, build, describe
from genconv.errors import UserError
from genconv.files import replacing
from genconv.sampling import Chain

__all__ = ["Trained", "load", "read", "write"]

CARD, WEIGHTS = "energy.json", "energy.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """A trained energy and what it takes to use it.

    Attributes:
        energy: in eval mode, with averaged weights where there are any.
        chain: how images are drawn from it.
        shape: (C, *space) of an image.
        updates: number of updates it was trained for.
    """

    energy: Energy
    chain: Chain
    shape: tuple[int, ...]
    updates: int

    def card(self) -> dict[str, Any]:
        """Return all but the weights as plain values."""
        return {
            "format": FORMAT,
            "energy": describe(self.energy),
            "chain": self.chain.to_dict(),
            "shape": list(self.shape),
            "updates": self.updates,
        }


def load(path: str | Path, device: torch.device | str | None = None) -> Energy:
    """Load a trained energy in eval mode, with averaged (EMA) weights where there are any.

    Args:
        path: a checkpoint, a run's folder, or a folder that `write` wrote. Nothing in it is
            executed: weights are read as plain tensors.
        device: where to; the first GPU, else the CPU, by default.

    Raises:
        UserError: the file is missing, broken, or of an energy that is not known here.
    """
    return read(path, device).energy


def read(path: str | Path, device: torch.device | str | None = None) -> Trained:
    """Load a trained energy together with its chain and image shape; see `load`."""
    path = Path(path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if (path / "checkpoints" / "last.ckpt").exists():
        path = path / "checkpoints" / "last.ckpt"
    if not path.exists():
        raise UserError(f"there is no {path}; give a checkpoint or an exported folder")
    try:
        card, weights = _read_folder(path) if path.is_dir() else _read_checkpoint(path)
        if card["format"] > FORMAT:
            raise UserError(f"{path} has format {card['format']}; update genconv to read it")
        energy = build(card["energy"])
        chain = Chain(**card["chain"])
        shape, updates = tuple(card["shape"]), card["updates"]
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no genconv checkpoint: {_sentence(error)}") from error
    try:
        energy.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"the weights in {path} do not fit the energy that it describes, "
            f"{card['energy']['class']}: {_sentence(error)}"
        ) from error
    return Trained(energy.to(device).eval(), chain, shape, updates)


def write(trained: Trained, folder: str | Path) -> None:
    """Write `energy.safetensors` and `energy.json`, which hold no code, into a folder to share.

    `load` and every command take the folder in place of a checkpoint.
    """
    folder = Path(folder)
    weights = {
        name: w.detach().cpu().contiguous() for name, w in trained.energy.state_dict().items()
    }
    with replacing(folder / WEIGHTS) as part:
        safetensors.torch.save_file(weights, part)
    with replacing(folder / CARD) as part:
        part.write_text(json.dumps(trained.card(), indent=2) + "\n")


def _read_folder(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if not (path / CARD).exists():
        raise UserError(f"{path} holds neither checkpoints/last.ckpt nor {CARD}")
    try:
        return json.loads((path / CARD).read_text()), safetensors.torch.load_file(path / WEIGHTS)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path / WEIGHTS} is broken: {error}") from error


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is broken, or holds more than tensors and plain values; it was not read"
        ) from error
    prefix = "energy."
    weights = {
        name[len(prefix) :]: w
        for name, w in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    return checkpoint["genconv"], weights


def _sentence(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return " ".join(str(error).split())[:300]
