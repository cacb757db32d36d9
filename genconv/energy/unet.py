"""A convolutional U-Net that gives an image one number: the potential of energy matching."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from genconv.energy.convolution import CONVOLUTIONS
from genconv.energy.energy import Energy, widen
from genconv.energy.twice import GroupNorm, SiLU

__all__ = ["UNetEnergy"]

Head = Literal["dot", "l2", "local", "pooled"]


class UNetEnergy(Energy):
    r"""Creates a U-Net potential, purely convolutional and without a notion of time.

    With f(x) the image, or map, that the U-Net makes of x, the heads are

    - `dot`: E(x) = -<x, f(x)>
    - `l2`: E(x) = ½ |x - f(x)|²
    - `local`: E(x) = -Σ_u f_u(x), a sum of local energies f_u
    - `pooled`: E(x) = scale · w · SiLU(mean over u of f_u(x))

    With classes, every block scales and shifts its channels by the label, and E(x) without labels
    is an energy of its own, learnt from the images whose label is withheld (label -1).

    Args:
        channels: C of the input (N, C, *space).
        dims: number of spatial dimensions, 1 to 3.
        width: channels at full size.
        multipliers: width of each level, finest first, in multiples of `width`; each level but
            the first halves the image.
        blocks: residual blocks of each level, on the way down and again on the way up.
        patch: the finest level works on patches of this side; 2 is four times cheaper than 1 for
            images, eight times for bodies.
        head: how the map becomes a number.
        norm: group normalisation before every activation.
        scale: factor on the energy of the `pooled` and `local` heads.
        classes: number of classes; None for an unconditional energy.
        checkpoint: keep only what enters a block for its gradient, and compute the block again
            when the gradient is asked for: less memory, a third more time.

    Reference:
        Energy Matching, https://arxiv.org/abs/2504.10612, whose net also has attention and a
        transformer head.
    """

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        patch: int = 1,
        head: Head = "dot",
        norm: bool = True,
        scale: float = 1.0,
        classes: int | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.head, self.scale, self.classes = head, scale, classes
        self.checkpoint = checkpoint
        convolution = CONVOLUTIONS[dims]
        widths = [width * m for m in multipliers]
        self.stem = convolution(channels, width, patch + 2, stride=patch, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, h = [width], width
        for level, w in enumerate(widths):
            if level:
                self.down.append(convolution(h, h, 3, stride=2, padding=1))
                skips.append(h)
            for _ in range(blocks):
                self.down.append(Block(h, w, dims, norm, classes))
                skips.append(h := w)
        self.middle = Block(h, h, dims, norm, classes)
        for level, w in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(Block(h + skips.pop(), w, dims, norm, classes))
                h = w
            if level:
                self.up.append(Double(h, dims))
        self.last = activated(h, norm)
        maps = {"dot": channels, "l2": channels, "local": 1, "pooled": 4 * width}[head]
        self.to_map = nn.Sequential(
            convolution(h, maps * patch**dims, 3, padding=1, bias=head != "local"),
            Unpack(patch),
        )
        self.weights = nn.Linear(maps, 1, bias=False) if head == "pooled" else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch (N, C, *space); label -1 is that of no label."""
        f = widen(self.map(x, y))
        with torch.autocast(x.device.type, enabled=False):
            if self.head == "dot":
                return -(x * f).flatten(1).sum(1)
            if self.head == "l2":
                return (x - f).square().flatten(1).sum(1) / 2
            if self.weights is None:
                return -self.scale * f.flatten(1).sum(1)
            return self.scale * self.weights(F.silu(f.flatten(2).mean(2))).squeeze(1)

    def map(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return f(x), of which the head makes a number: (N, C, *space) for `dot` and `l2`."""
        y = self._label(x, y)
        *skips, h = self._descend(x, y)
        for layer in self.up:
            if isinstance(layer, Double):
                h = layer(h)
            else:
                h = self._block(layer, torch.cat([h, skips.pop()], 1), y)
        return self.to_map(self.last(h))

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the map in the middle, (N, D, *space'), the coarsest and widest of all."""
        return self._descend(x, self._label(x, y))[-1]

    def _label(self, x: Tensor, y: Tensor | None) -> Tensor | None:
        if self.classes and y is None:
            return torch.full((len(x),), -1, device=x.device)
        return y

    def _descend(self, x: Tensor, y: Tensor | None) -> list[Tensor]:
        """Return the maps that the way up begins with: each one's skip, and the middle."""
        maps = [h := self.stem(x)]
        for layer in self.down:
            maps.append(h := self._block(layer, h, y) if isinstance(layer, Block) else layer(h))
        return [*maps, self._block(self.middle, h, y)]

    def _block(self, block: "Block", h: Tensor, y: Tensor | None) -> Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            # without reentry, as a gradient of the gradient may be wanted
            return checkpoint(block, h, y, use_reentrant=False)
        return block(h, y)


def activated(width: int, norm: bool) -> nn.Sequential:
    """Return the (normalised) activation that comes before a convolution."""
    return nn.Sequential(
        GroupNorm(math.gcd(32, width // 4), width) if norm else nn.Identity(), SiLU()
    )


class Block(nn.Module):
    """Adds to its input two activated convolutions; a fresh block adds nothing.

    With classes, what enters the second activation is scaled and shifted by the label.
    """

    def __init__(
        self, before: int, width: int, dims: int, norm: bool, classes: int | None = None
    ) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[dims]
        self.branch = nn.Sequential(
            activated(before, norm),
            convolution(before, width, 3, padding=1),
            activated(width, norm),
            convolution(width, width, 3, padding=1),
        )
        nn.init.zeros_(self.branch[-1].weight)
        self.skip = nn.Identity() if before == width else convolution(before, width, 1)
        # row 0 is that of label -1; fresh classes are all alike
        self.modulation = nn.Embedding(classes + 1, 2 * width) if classes else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if self.modulation is None:
            return self.skip(x) + self.branch(x)
        first, convolution, (norm, activation), last = self.branch
        scale, shift = self.modulation(y + 1).view(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, 1)
        h = norm(convolution(first(x))) * (1 + scale) + shift
        return self.skip(x) + last(activation(h))


class Double(nn.Module):
    """Doubles the image, then smooths it."""

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.convolution = CONVOLUTIONS[dims](width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.interpolate(x, scale_factor=2.0))


class Unpack(nn.Module):
    """Lays the channels of every place out as a patch, as `PixelShuffle` does of images."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, *space) of x (N, C · patch^dims, *places)."""
        dims = x.ndim - 2
        x = x.unflatten(1, (-1, *[self.patch] * dims))
        along = [axis for i in range(dims) for axis in (2 + dims + i, 2 + i)]
        x = x.permute(0, 1, *along)
        for axis in range(2, 2 + dims):
            x = x.flatten(axis, axis + 1)
        return x
