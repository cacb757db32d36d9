"""A trained energy and all that it takes to use it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genconv.energy import Energy, describe
from genconv.errors import UserError, sentence
from genconv.generator import Generator
from genconv.sampling import Chain, Generators

__all__ = ["FORMAT", "PREFIXES", "Trained"]

# of the card; a greater one is read by later versions only
FORMAT = 1
# of the names of weights in a checkpoint
PREFIXES = {"energy": "energy.", "generator": "top_down."}


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
    def device(self) -> torch.device:
        """Where the energy is, and its images are to be."""
        return next((p.device for p in self.energy.parameters()), torch.device("cpu"))

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
        device = self.device
        y = torch.zeros(1, dtype=torch.int64, device=device) if self.classes else None
        try:
            with torch.no_grad():
                self.energy(torch.zeros(1, c, *space, device=device), y)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{type(self.energy).__name__} does not take images of {size}: {sentence(error)}"
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
        device = self.device
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
        device = self.device
        if y is None and self.classes:
            y = torch.arange(n, device=device) % self.classes
        x = self.start(n, generator=generator)
        return self.run(x, y, generator, callback, bf16)

    def run(
        self,
        x: Tensor,
        y: Tensor | None,
        generator: Generators,
        callback: Callable[[int, Tensor], None] | None,
        bf16: bool,
    ) -> Tensor:
        """Return where the chains end that begin at x (n, C, *space); see `sample`."""
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
