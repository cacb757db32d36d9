"""An energy-based transformer: how well does an answer fit what is known?"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genconv.energy.energy import Energy, widen

__all__ = ["EnergyTransformer", "beginning", "context_of"]

# how far thoughts are moved from what is known before they begin, so that they differ
STIR = 0.2


class EnergyTransformer(Energy):
    r"""Creates E(x | c), the energy of a candidate image x where an image c is known in part.

    One token for each patch sees the candidate and the context there; a bidirectional transformer
    makes of each a repaired patch f and a doubt v:

    .. math:: E(x | c) = \sum_{patches} \tfrac{1}{2} |x - f(x, c)|^2 + v(x, c), \qquad v > 0

    That is the form which the expected error ½ E[|x - x*|² | c] has for a truth x* that is known
    through c alone: a parabola about the posterior mean, and the variance that no answer avoids.
    Here the parabola's middle depends on the candidate, so that descending it is thinking: what the
    transformer makes of an answer changes with the answer. With `blind` it does not depend on it, a
    step of size 1 lands on f(c), and this is an ordinary feed-forward transformer.

    The context is an image of C + 1 channels: c where it is known and 0 elsewhere, and a last
    channel which is 1 where it is known. It is handed over in the place of a label; without one
    nothing is known. `genconv.energy.Given` closes over it.

    Args:
        channels: C of the candidates (N, C, *space).
        dims: number of spatial dimensions.
        patch: side of a patch, a divisor of every side of the images.
        width: length of a token, a multiple of `heads` and of 2 `dims`.
        depth: number of blocks.
        heads: number of attention heads.
        blind: leave the candidate out of the tokens.

    Attributes:
        context: C + 1, the channels of a context.

    Reference:
        Gladstone et al.: Energy-Based Transformers are Scalable Learners and Thinkers,
        https://arxiv.org/abs/2507.02092, whose head is a linear map of the tokens to one number.
    """

    def __init__(
        self,
        channels: int = 3,
        dims: int = 2,
        patch: int = 4,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        blind: bool = False,
    ) -> None:
        super().__init__()
        if width % heads or width % (2 * dims):
            raise ValueError(
                f"a width of {width} is no multiple of {heads} heads and of {2 * dims}"
            )
        self.channels, self.dims, self.patch, self.blind = channels, dims, patch, blind
        self.context = channels + 1
        size = patch**dims
        seen = self.context + (0 if blind else channels)
        self.embed = nn.Linear(seen * size, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.repair = nn.Linear(width, channels * size)
        self.doubt = nn.Linear(width, 1)
        # a fresh one answers with what is known
        for layer in (self.repair, self.doubt):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of candidates (N, C, *space) in contexts (N, C + 1, *space)."""
        return self.judge(x, y)[0]

    def judge(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the energies (N,) of candidates, and what they are held against.

        That is the repaired images f(x, c) (N, C, *space). A descent ends at x = f(x, c), so this
        is where it would end, seen from x, and may be taught without a second derivative.

        Raises:
            ValueError: the sides of the images are no multiples of the patch's.
        """
        if any(side % self.patch for side in x.shape[2:]):
            raise ValueError(f"sides of {tuple(x.shape[2:])} are no multiples of {self.patch}")
        if y is None:
            y = x.new_zeros(len(x), self.context, *x.shape[2:])
        tokens = self.embed(self._patches(y if self.blind else torch.cat([x, y], 1)))
        places = [side // self.patch for side in x.shape[2:]]
        tokens = tokens + positions(places, tokens.shape[-1], tokens.device).to(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        repaired = widen(y[:, : self.channels]) + self._images(widen(self.repair(tokens)), places)
        doubt = F.softplus(widen(self.doubt(tokens)))
        away = widen(x) - repaired
        return away.square().flatten(1).sum(1) / 2 + doubt.flatten(1).sum(1), repaired

    def _patches(self, x: Tensor) -> Tensor:
        """Cut (N, C, *space) into (N, patches, C · patch^dims)."""
        for axis in range(self.dims):
            x = x.unflatten(2 + 2 * axis, (-1, self.patch))
        places, inside = range(2, x.ndim, 2), range(3, x.ndim, 2)
        return x.permute(0, *places, 1, *inside).flatten(1 + self.dims).flatten(1, self.dims)

    def _images(self, patches: Tensor, places: list[int]) -> Tensor:
        """Undo `_patches`, of so many of them along each axis."""
        x = patches.unflatten(1, places).unflatten(-1, (self.channels, *[self.patch] * self.dims))
        along = [axis for i in range(self.dims) for axis in (1 + i, 2 + self.dims + i)]
        x = x.permute(0, 1 + self.dims, *along)
        for axis in range(self.dims):
            x = x.flatten(2 + axis, 3 + axis)
        return x


def context_of(image: Tensor, known: Tensor | None = None) -> Tensor:
    """Return the context (N, C + 1, *space) that tells an energy of what is known of images.

    Args:
        image: (N, C, *space); what it holds where nothing is known is not looked at.
        known: bool, (N, 1, *space) or what broadcasts to it; everywhere by default.
    """
    seen = torch.ones_like(image[:, :1])
    if known is not None:
        seen = seen * known
    return torch.cat([torch.where(seen > 0, image, 0.0), seen], 1)


def beginning(context: Tensor, noise: Tensor) -> Tensor:
    """Return where thoughts begin, (N, C, *space): near what is known, at noise where nothing is.

    Args:
        context: (N, C + 1, *space), see `context_of`.
        noise: (N, C, *space), standard normal; other noise begins another thought.
    """
    image, known = context[:, :-1], context[:, -1:] > 0
    return torch.where(known, image + STIR * noise, noise)


class Block(nn.Module):
    """Adds attention among all tokens, then a perceptron of each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend, self.think = nn.LayerNorm(width), nn.LayerNorm(width)
        # a bias of the keys would change nothing
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            # the second derivative of a GELU would be a quarter of all time
            nn.Linear(width, 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(self.attend(tokens)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        # written out, as fused attention cannot be differentiated twice
        affinity = torch.einsum("nihd,njhd->nhij", q, k) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("nhij,njhd->nihd", affinity.softmax(-1).to(v.dtype), v)
        tokens = tokens + self.out(mixed.flatten(-2))
        return tokens + self.perceptron(self.think(tokens))


def positions(places: list[int], width: int, device: torch.device | None = None) -> Tensor:
    """Return sines and cosines (patches, width) of the places of a grid, of any size.

    Every axis has its own share of the width, and wavelengths of 2π to 200π patches.
    """
    rates = torch.logspace(0, -2, width // (2 * len(places)), device=device)
    sides = [torch.arange(n, dtype=torch.float32, device=device) for n in places]
    axes = torch.meshgrid(*sides, indexing="ij")
    waves = [f(axis.flatten()[:, None] * rates) for axis in axes for f in (torch.sin, torch.cos)]
    return torch.cat(waves, 1)
