"""Whether chains in bfloat16 sample the law that chains in float32 sample."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genconv.checkpoint import read
from genconv.eval import Moments, frechet_distance
from genconv.images import from_uint8
from genconv.sample import sample
from genconv.trained import Trained
from tests.benchmarks.speed.clock import Row
from tests.benchmarks.speed.networks import Settings

__all__ = ["Law", "law", "laws"]

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Law:
    """Samples of one seed: their energies, in float32 whatever drew them, and their moments."""

    energies: Tensor
    moments: Moments

    @classmethod
    def of(cls, trained: Trained, n: int, seed: int, bf16: bool) -> "Law":
        """Draw n samples, in batches, each with a seed of its own."""
        images = torch.cat(
            [
                sample(trained, range(i, min(i + 250, n)), seed=seed, bf16=bf16)
                for i in range(0, n, 250)
            ]
        )
        x = from_uint8(images)
        device = next(trained.energy.parameters()).device
        with torch.no_grad():
            energies = torch.cat([trained.energy(part.to(device)).cpu() for part in x.split(250)])
        # of 8x8 pixels at most, which some hundred samples are enough for
        pooled = torch.nn.functional.adaptive_avg_pool2d(x, min(8, x.shape[-1]))
        return cls(energies.double(), Moments.of(pooled.flatten(1)))

    def apart(self, other: "Law") -> tuple[float, float]:
        """Return the gap of mean energies, in standard deviations of one, and the distance."""
        gap = (self.energies.mean() - other.energies.mean()).abs() / other.energies.std()
        return float(gap), frechet_distance(self.moments, other.moments)


def laws(trained: Trained, n: int) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Compare float32 with float32, and bfloat16 with float32, always of different seeds."""
    single = [Law.of(trained, n, seed, False) for seed in SEEDS]
    half = [Law.of(trained, n, seed, True) for seed in SEEDS]
    pairs = [(a, b) for a in range(len(SEEDS)) for b in range(len(SEEDS)) if a != b]
    yield "float32", [single[a].apart(single[b]) for a, b in pairs]
    yield "bfloat16", [half[a].apart(single[b]) for a, b in pairs]


def law(settings: Settings) -> list[Row]:
    """Give both comparisons as rows: energies, and Fréchet distances of pixels."""
    trained = read(settings.checkpoint, settings.device)
    found = dict(laws(trained, settings.n))
    rows = []
    for place, what in enumerate(["gap of mean energies, in std", "Fréchet distance of pixels"]):
        noise, ours = (
            torch.tensor([pair[place] for pair in found[name]]) for name in ("float32", "bfloat16")
        )
        rows.append(
            Row(
                "law of bfloat16 chains",
                settings.checkpoint,
                f"{what}, n = {settings.n}",
                "float32, other seeds",
                float(ours.mean()),
                float(noise.mean()),
                float(ours.mean() / noise.mean()),
                "",
                f"float32 against float32: {noise.min():.3g} to {noise.max():.3g}; "
                f"bfloat16 against it: {ours.min():.3g} to {ours.max():.3g}",
            )
        )
    return rows
