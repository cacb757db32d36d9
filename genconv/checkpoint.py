"""Trained energies on disk: what a checkpoint says of its energy, and how it is read safely."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genconv.energy import Energy, build
from genconv.errors import UserError, sentence
from genconv.files import replacing
from genconv.generator import Generator
from genconv.sampling import Chain
from genconv.trained import FORMAT, PREFIXES, Trained
from genconv.whole import PREVIOUS, at_most, broken, newest

__all__ = ["CARD", "Trained", "found", "load", "read", "write"]

PRETRAINED = Path(__file__).parent / "pretrained"
CARD, WEIGHTS, GENERATOR = "energy.json", "energy.safetensors", "generator.safetensors"
# what a checkpoint may hold; folders have a file for each
KINDS = {"energy": Energy, "generator": Generator}

Weights = dict[str, dict[str, Tensor]]


def load(path: str | Path, device: torch.device | str | None = None) -> Energy:
    """Load a trained energy, frozen, in eval mode, with averaged (EMA) weights if there are any.

    Args:
        path: a checkpoint, a run's folder, a folder that `write` wrote, or the name of an energy
            that comes with the package, as `digits`. Nothing in it is executed: weights are read as
            plain tensors.
        device: where to; the first GPU, else the CPU, by default.

    Raises:
        UserError: the file is missing, broken, or of an energy that is not known here.
    """
    return read(path, device).energy


def read(path: str | Path, device: torch.device | str | None = None) -> Trained:
    """Load a trained energy together with its chain and image shape; see `load`."""
    path = found(path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if (path / "checkpoints").is_dir():
        path = newest(path / "checkpoints")
    try:
        card, weights = _read_folder(path) if path.is_dir() else _read_checkpoint(path)
        if card["format"] > FORMAT:
            raise UserError(f"{path} has format {card['format']}; update genconv to read it")
        kinds = {name: kind for name, kind in KINDS.items() if name == "energy" or name in card}
        with torch.device("meta"), at_most(sum(map(len, weights.values()))):
            # takes no memory, whatever sizes a stranger's card names
            empty = {name: build(card[name], kind) for name, kind in kinds.items()}
        chain = Chain(**card["chain"])
        latent = Chain(**card["latent"]) if "generator" in kinds else None
        shape, updates = tuple(card["shape"]), card["updates"]
        names = tuple(map(str, card.get("names", ())))
        if "generator" in kinds:
            made = empty["generator"](torch.zeros(1, empty["generator"].latent, device="meta"))
            if made.shape[1:] != shape:
                raise UserError(f"its generator makes images of {tuple(made.shape[1:])}")
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error
    except Exception as error:
        # whatever a stranger's file leads to is the file's fault
        raise UserError(f"{path} is no genconv checkpoint: {sentence(error)}") from error
    modules = {}
    for name, kind in kinds.items():
        try:
            empty[name].load_state_dict(weights[name], assign=True)
        except RuntimeError as error:
            raise UserError(
                f"the weights in {path} do not fit the {name} that it describes, "
                f"{card[name]['class']}: {sentence(error)}"
            ) from error
        # whoever asked goes on with the random numbers that they had
        with torch.random.fork_rng(devices=[]):
            module = build(card[name], kind)
        module.load_state_dict(weights[name])
        modules[name] = module.requires_grad_(False).eval()
    try:
        modules = {name: module.to(device) for name, module in modules.items()}
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"there is no device {device!r} here: {sentence(error)}") from error
    generator = modules.get("generator")
    return Trained(modules["energy"], chain, shape, updates, names, generator, latent)


def write(trained: Trained, folder: str | Path, *, half: bool = False) -> None:
    """Write `energy.safetensors` and `energy.json`, which hold no code, into a folder to share.

    A generator that was taught beside the energy comes along, as `generator.safetensors`. `load`
    and every command take the folder in place of a checkpoint.

    Args:
        trained: energy, chain and shape.
        folder: where to.
        half: round weights to float16, which halves the files; they are float32 again when read.

    Raises:
        UserError: a weight is beyond the range of float16.
    """
    folder, card = Path(folder), trained.card()
    for file, module in ((WEIGHTS, trained.energy), (GENERATOR, trained.generator)):
        if module is None:
            continue
        # a copy each, as one network may be in several parts of a composition
        weights = {
            name: w.detach().cpu().contiguous().clone() for name, w in module.state_dict().items()
        }
        if half:
            weights = {n: w.half() if w.is_floating_point() else w for n, w in weights.items()}
            if not all(w.isfinite().all() for w in weights.values()):
                raise UserError("a weight is beyond 65504, the range of float16; leave out --half")
        with replacing(folder / file) as part:
            safetensors.torch.save_file(weights, part)
    with replacing(folder / CARD) as part:
        part.write_text(json.dumps(card, indent=2) + "\n")


def found(path: str | Path) -> Path:
    """Return the path, or where an energy of that name lies in the package.

    Raises:
        UserError: there is neither.
    """
    path = Path(path)
    if path.exists():
        return path
    known = sorted(folder.name for folder in PRETRAINED.iterdir() if (folder / CARD).exists())
    if str(path) not in known:
        raise UserError(
            f"there is no {path}; give a checkpoint, an exported folder, "
            f"or a name of those that come with the package: {', '.join(known)}"
        )
    return PRETRAINED / path


def _read_folder(path: Path) -> tuple[dict[str, Any], Weights]:
    if not (path / CARD).exists():
        raise UserError(f"{path} holds neither checkpoints/last.ckpt nor {CARD}")
    card, weights = json.loads((path / CARD).read_text()), {}
    for name, file in (("energy", WEIGHTS), ("generator", GENERATOR)):
        # an earlier export may have left a generator that the card knows nothing of
        if name == "energy" or name in card:
            try:
                weights[name] = safetensors.torch.load_file(path / file)
            except safetensors.SafetensorError as error:
                raise UserError(f"{path / file} is broken: {error}") from error
    return card, weights


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], Weights]:
    # torch reads a flipped bit as it finds it
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped and (fault := broken(path)):
        before = path.with_name(PREVIOUS)
        mend = f"; {before} was saved before it" if before != path and before.exists() else ""
        raise UserError(f"{path} {fault}{mend}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is broken, or holds more than tensors and plain values; it was not read"
        ) from error
    weights = {
        part: {
            name[len(prefix) :]: w
            for name, w in checkpoint["state_dict"].items()
            if name.startswith(prefix)
        }
        for part, prefix in PREFIXES.items()
    }
    return checkpoint["genconv"], weights
