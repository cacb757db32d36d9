"""What a network sees in many images: looked at once, kept on disk, added up exactly."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import add
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genconv.eval.features import extract
from genconv.eval.frechet import Moments
from genconv.eval.kept import kept
from genconv.eval.quality_networks import Network
from genconv.eval.quality_sources import Source, blocks
from genconv.images import digest
from genconv.memory import Bites
from genconv.progress import progress
from genconv.seeds import stream

__all__ = ["MOST", "Looking", "Seen", "look"]

# of larger sets, which only ImageNet's sizes are, that many rows stay in memory
MOST = 50_000
# blocks whose moments are taken at once
TOGETHER = 16


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network saw in all images of a source.

    Attributes:
        n: number of images.
        moments: of all features.
        features: (N, D) of all images, or of `MOST` of them.
        rows: the numbers of these images.
        logits: (n, K) of all, or None.
    """

    n: int
    moments: Moments
    features: Tensor
    rows: Tensor
    logits: Tensor | None


class Looking:
    """Looks at blocks of images, or reads what was seen in them before.

    What was seen in a block is kept under the digests of its pixels and of the network: one file
    serves every name, split and number of images, and none can be stale.

    Args:
        network: the network.
        folder: where features are kept.
        batch_size: images at once, fewer where memory runs out.
        device: where the network works.
    """

    def __init__(
        self, network: Network, folder: Path, batch_size: int, device: torch.device | str
    ) -> None:
        self.network, self.bites, self.device = network, Bites(batch_size), device
        self.folder = folder / f"features-{network.sha256[:16]}"

    def __call__(self, source: Source, rows: range) -> Iterator[dict[str, np.ndarray]]:
        """Give features, and logits if there are any, of each block of images in turn."""
        for block in progress(blocks(rows), source.name):
            yield self._block(source.take(block))

    def _block(self, images: Tensor) -> dict[str, np.ndarray]:
        def see() -> dict[str, np.ndarray]:
            seen = self.bites.take(
                lambda size: extract(
                    self.network.extractor, images, batch_size=size, device=self.device, bar=False
                ),
                f"one image of shape {tuple(images.shape[1:])}",
            )
            return {
                name: _smallest(values)
                for name, values in seen._asdict().items()
                if values is not None
            }

        path = self.folder / f"{digest(images)[:32]}.npz"
        return kept(path, ["features", "logits"], len(images), see)


def look(looking: Looking, source: Source, seed: int) -> Seen:
    """Look at a whole source; `seed` chooses the rows that stay in memory of a very large one."""
    chosen = torch.arange(source.n)
    if source.n > MOST:
        order = torch.randperm(source.n, generator=stream(seed, "rows"))
        chosen = order[:MOST].sort().values
    stays = torch.zeros(source.n, dtype=torch.bool)
    stays[chosen] = True
    moments, features, logits, done = [], [], [], 0
    seen = looking(source, range(source.n))
    while group := list(islice(seen, TOGETHER)):
        rows = torch.from_numpy(np.concatenate([block["features"] for block in group]))
        moments.append(Moments.of(rows))
        features.append(rows[stays[done : done + len(rows)]])
        logits += [torch.from_numpy(block["logits"]) for block in group if "logits" in block]
        done += len(rows)
    return Seen(
        source.n,
        reduce(add, moments),
        torch.cat(features),
        chosen,
        torch.cat(logits) if logits else None,
    )


def _smallest(values: Tensor) -> np.ndarray:
    """Return float32 where it holds the very same numbers, as networks' outputs mostly do."""
    single = values.float()
    return (single if torch.equal(single.double(), values) else values).numpy()
