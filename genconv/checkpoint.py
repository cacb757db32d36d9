"""Trained energies on disk: what a checkpoint says of its energy, and how it is read safely."""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genconv.energy import Energy, build, describe
from genconv.errors import UserError
from genconv.files import replacing
from genconv.generator import Generator
from genconv.sampling import Chain, Generators
from genconv.whole import PREVIOUS, at_most, broken, newest

__all__ = ["CARD", "Trained", "load", "read", "write"]

PRETRAINED = Path(__file__).parent / "pretrained"
CARD, WEIGHTS, GENERATOR = "energy.json", "energy.safetensors", "generator.safetensors"
# what a checkpoint may hold, and the names of its weights there; folders have a file for each
KINDS = {"energy": Energy, "generator": Generator}
PREFIXES = {"energy": "energy.", "generator": "top_down."}
FORMAT = 1

Weights = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Trained:
    """A trained energy and what it takes to use it.

    Attributes:
        energy: in eval mode, with averaged weights where there are any.
        chain: how images are drawn from it.
        shape: (C, *space) of an image.
        updates: number of updates it was trained for.
        names: of the classes of a conditional energy, in the order of the labels, where known.
        generator: makes the images that chains begin with, where one was taught beside the energy.
        latent: how its latent vectors of given images are found, see `genconv.generator.infer`.
    """

    energy: Energy
    chain: Chain
    shape: tuple[int, ...]
    updates: int
    names: tuple[str, ...] = ()
    generator: Generator | None = None
    latent: Chain | None = None

    @property
    def classes(self) -> int | None:
        """Number of classes of a conditional energy."""
        return getattr(self.energy, "classes", None)

    @property
    def context(self) -> int | None:
        """Number of channels of the context that the energy takes, if it takes one."""
        return getattr(self.energy, "context", None)

    def at_size(self, space: int | Sequence[int]) -> "Trained":
        """Return the same energy for images of another size.

        Args:
            space: extents, one for each axis of the space, or one for all.

        Raises:
            UserError: there are more or fewer axes, or the energy does not take that size.
        """
        c, *own = self.shape
        space = [space] if isinstance(space, int) else list(space)
        space = space * len(own) if len(space) == 1 else space
        size = "x".join(map(str, space))
        if len(space) != len(own) or min(space, default=1) < 1:
            raise UserError(
                f"a size of {size} does not fit images of {'x'.join(map(str, own))}; "
                f"give {len(own)} numbers of at least 1, or one for all"
            )
        if self.generator is not None and tuple(space) != tuple(own):
            raise UserError(f"the generator makes images of {'x'.join(map(str, own))}, not {size}")
        device = next(self.energy.parameters()).device
        y = torch.zeros(1, dtype=torch.int64, device=device) if self.classes else None
        try:
            with torch.no_grad():
                self.energy(torch.zeros(1, c, *space, device=device), y)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{type(self.energy).__name__} does not take images of {size}: {_sentence(error)}"
            ) from error
        return replace(self, shape=(c, *space))

    def start(self, n: int, *, generator: Generators = None) -> Tensor:
        """Return where n chains begin: what the generator proposes in one pass, else noise.

        Args:
            n: number of chains.
            generator: of random numbers, see `genconv.sampling.langevin`.

        Returns:
            (n, C, *space) float32, on the energy's device.
        """
        device = next(self.energy.parameters()).device
        if self.generator is None:
            return self.chain.noise(n, self.shape, generator=generator, device=device)
        with torch.no_grad():
            return self.generator(self.generator.draw(n, generator=generator, device=device))

    def sample(
        self,
        n: int,
        y: Tensor | None = None,
        *,
        generator: Generators = None,
        callback: Callable[[int, Tensor], None] | None = None,
        bf16: bool = False,
    ) -> Tensor:
        """Draw n images by the chain, from noise or the generator's proposals.

        Args:
            n: number of images.
            y: (n,) their classes; by default those of a conditional energy take turns.
            generator: one for all, or one for each image; see `genconv.sampling.langevin`.
            callback: called after each step; see there.
            bf16: compute gradients in bfloat16.

        Returns:
            (n, C, *space) float32, about [-1, 1], on the energy's device.
        """
        device = next(self.energy.parameters()).device
        if y is None and self.classes:
            y = torch.arange(n, device=device) % self.classes
        x = self.start(n, generator=generator)
        return self.chain.run(
            self.energy, x, y, generator=generator, callback=callback, bf16=bf16
        ).x

    def label(self, name: str) -> int:
        """Return the label of a class, given as its name or number.

        Raises:
            UserError: this energy has no such class.
        """
        if name in self.names:
            return self.names.index(name)
        if not self.classes:
            raise UserError(f"there is no class {name!r}, as this energy has no classes")
        if not name.isdigit() or int(name) >= self.classes:
            known = ", ".join(self.names) if self.names else f"0 to {self.classes - 1}"
            raise UserError(f"there is no class {name!r}; choose from {known}")
        return int(name)

    def digest(self) -> str:
        """Return the SHA-256 of all weights, which names the energy in results."""
        sha = hashlib.sha256()
        weights = self.energy.state_dict()
        if self.generator is not None:
            made = self.generator.state_dict().items()
            weights |= {PREFIXES["generator"] + name: weight for name, weight in made}
        for name, weight in weights.items():
            sha.update(name.encode())
            sha.update(weight.cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def card(self) -> dict[str, Any]:
        """Return all but the weights as plain values."""
        card = {
            "format": FORMAT,
            "energy": describe(self.energy),
            "chain": self.chain.to_dict(),
            "shape": list(self.shape),
            "updates": self.updates,
            "names": list(self.names),
        }
        if self.generator is not None and self.latent is not None:
            card |= {"generator": describe(self.generator), "latent": self.latent.to_dict()}
        return card


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
    path = _found(Path(path))
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
        raise UserError(f"{path} is no genconv checkpoint: {_sentence(error)}") from error
    modules = {}
    for name, kind in kinds.items():
        try:
            empty[name].load_state_dict(weights[name], assign=True)
        except RuntimeError as error:
            raise UserError(
                f"the weights in {path} do not fit the {name} that it describes, "
                f"{card[name]['class']}: {_sentence(error)}"
            ) from error
        module = build(card[name], kind)
        module.load_state_dict(weights[name])
        modules[name] = module.requires_grad_(False).eval()
    try:
        modules = {name: module.to(device) for name, module in modules.items()}
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"there is no device {device!r} here: {_sentence(error)}") from error
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


def _found(path: Path) -> Path:
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


def _sentence(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return " ".join(str(error).split())[:300]
