"""The networks that are timed, and what the benchmark may cost."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genconv.energy import Energy, GenerativeConvNet, ResNetEnergy, UNetEnergy
from genconv.sampling import compile_gradient

__all__ = ["ETA", "NOISE", "NETWORKS", "Settings", "made", "noise"]

# step size and noise of all chains
ETA, NOISE = 0.01, 0.005

NETWORKS: dict[str, tuple[Callable[[], Energy], tuple[int, ...]]] = {
    # the shape of IGEBM's network, 1.29 M weights
    "resnet": (lambda: ResNetEnergy(3, widths=(64, 128, 128)), (3, 32, 32)),
    "unet": (lambda: UNetEnergy(3, width=32, multipliers=(1, 2, 2), blocks=1), (3, 32, 32)),
    # those of the configs `digits` and `cifar10`
    "digits": (
        lambda: GenerativeConvNet(1, widths=(32, 64, 128, 128), strides=(1, 2, 1, 2)),
        (1, 8, 8),
    ),
    "flagship": (lambda: UNetEnergy(3, width=64, multipliers=(1, 2, 2, 2)), (3, 32, 32)),
}
# the same, but for a test that all of it runs
TINY: dict[str, tuple[Callable[[], Energy], tuple[int, ...]]] = {
    "resnet": (lambda: ResNetEnergy(3, widths=(4, 8)), (3, 8, 8)),
    "unet": (lambda: UNetEnergy(3, width=8, multipliers=(1, 2), blocks=1), (3, 8, 8)),
    "digits": (lambda: GenerativeConvNet(1, widths=(4, 8), strides=(1, 2)), (1, 8, 8)),
    "flagship": (lambda: UNetEnergy(3, width=8, multipliers=(1, 2), blocks=1), (3, 8, 8)),
}


@dataclass(frozen=True)
class Settings:
    """What is timed, and how long.

    Attributes:
        device: `cpu` or `cuda`.
        quick: tiny networks, to see that all of it runs.
        rounds: turns of every variant.
        batch: images in a batch.
        k: Langevin steps of an update.
        checkpoint: the energy of which bfloat16 and float32 samples are compared.
        n: how many of them.
    """

    device: str
    quick: bool
    rounds: int
    batch: int
    k: int
    checkpoint: str
    n: int

    @property
    def chains(self) -> tuple[str, ...]:
        """Names of the networks whose chains and updates are timed."""
        return ("resnet", "flagship") if self.device == "cuda" else ("resnet", "digits")


def made(name: str, settings: Settings, compiled: bool = False) -> tuple[Energy, tuple[int, ...]]:
    """Build a network, always with the same weights, and the shape of its images."""
    build, shape = (TINY if settings.quick else NETWORKS)[name]
    torch.manual_seed(0)
    energy = build().to(settings.device)
    # which takes its time, also for a tiny one
    if compiled and not settings.quick:
        compile_gradient(energy)
    return energy, shape


def noise(n: int, shape: tuple[int, ...], device: str) -> Tensor:
    """Return images (n, *shape) of uniform noise."""
    return (torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1).to(device)
