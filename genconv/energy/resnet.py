"""The residual energy of IGEBM, with spectral normalisation and classes where wanted."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from genconv.energy.convolution import Conv2d
from genconv.energy.energy import Energy, widen

__all__ = ["ResNetEnergy"]


class ResNetEnergy(Energy):
    """Creates the residual energy of Du and Mordatch.

    Each stage has two blocks and halves the image. With classes, every convolution in a block is
    scaled and shifted by its class. Without labels, a class-conditional energy answers for the
    mixture of its classes, E(x) = -log Σ_y exp(-E(x, y)).

    Args:
        channels: C of the input (N, C, H, W).
        widths: channels of each stage.
        classes: number of classes; None for an unconditional energy.
        spectral: constrain every layer to spectral norm 1. The power iteration moves on only in
            training mode, so a chain, which runs in eval mode, sees one energy throughout.

    Reference:
        Implicit Generation and Modeling with Energy-Based Models, https://arxiv.org/abs/1903.08689
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (128, 256, 256),
        classes: int | None = None,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        norm = spectral_norm if spectral else nn.Identity()
        self.classes = classes
        self.stem = norm(Conv2d(channels, widths[0], 3, padding=1))
        self.blocks = nn.ModuleList()
        for before, width in zip([widths[0], *widths], widths, strict=False):
            self.blocks.append(Block(before, width, classes, norm, halve=True))
            self.blocks.append(Block(width, width, classes, norm, halve=False))
        self.head = norm(nn.Linear(widths[-1], 1, bias=False))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch (N, C, H, W)."""
        if self.classes and y is None:
            return -torch.logsumexp(-self.by_class(x), 1)
        h = F.leaky_relu(self.stem(x), 0.2)
        for block in self.blocks:
            h = block(h, y)
        h = widen(F.relu(h)).flatten(2).sum(2)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(h).squeeze(1)


class Block(nn.Module):
    """Adds two convolutions to their input, then halves the image if it is told to."""

    def __init__(
        self, before: int, width: int, classes: int | None, norm: nn.Module, halve: bool
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                norm(Conv2d(before, width, 3, padding=1)),
                norm(Conv2d(width, width, 3, padding=1)),
            ]
        )
        # a zero start for the branch: a fresh block is nearly the identity
        if isinstance(norm, nn.Identity):
            nn.init.normal_(self.convolutions[1].weight, std=1e-5)
        self.skip = nn.Identity() if before == width else norm(Conv2d(before, width, 1, bias=False))
        self.modulations = nn.ModuleList(Modulation(classes, width) for _ in range(2))
        self.halve = halve

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = F.leaky_relu(self.modulations[0](self.convolutions[0](x), y), 0.2)
        h = self.modulations[1](self.convolutions[1](h), y)
        h = F.leaky_relu(h + self.skip(x), 0.2)
        return F.avg_pool2d(h, 2) if self.halve else h


class Modulation(nn.Module):
    """Scales and shifts every channel by its image's class; does nothing without classes."""

    def __init__(self, classes: int | None, width: int) -> None:
        super().__init__()
        self.scale = nn.Embedding(classes, width) if classes else None
        self.shift = nn.Embedding(classes, width) if classes else None
        if classes:
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        if self.scale is None or self.shift is None:
            return x
        return x * self.scale(y)[..., None, None] + self.shift(y)[..., None, None]
