"""The top-down network that proposes images, and which latent vectors explain a given one."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from genconv.energy.convolution import CONVOLUTIONS
from genconv.energy.energy import Described, widen
from genconv.errors import UserError
from genconv.sampling import Chain, Generators, draw_noise

__all__ = ["Generator", "Posterior", "infer"]


class Generator(Described):
    r"""Creates a top-down network for one to three spatial dimensions.

    .. math:: x = g(z) + σ\, ε, \qquad z \sim N(0, I), \quad ε \sim N(0, I)

    A linear layer makes a small map of z, and each of the following stages doubles its sides; tanh
    keeps images within (-1, 1).

    Args:
        shape: (C, *space) of an image; every side is doubled once less than there are widths.
        latent: length of z.
        widths: channels of the maps, from the smallest to the largest.
        noise: σ, how far an image may lie from g(z); latent inference weighs it against |z|².

    Raises:
        UserError: the sides of an image are no such multiples, or another number is too small.

    Reference:
        Xie, Lu, Gao, Zhu, Wu: Cooperative Training of Descriptor and Generator Networks,
        https://arxiv.org/abs/1609.09408
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int = 32,
        widths: Sequence[int] = (128, 64),
        noise: float = 0.3,
    ) -> None:
        super().__init__()
        c, *space = shape
        if latent < 1 or min(widths, default=0) < 1 or not noise > 0:
            raise UserError("latent and widths of a generator are at least 1, its noise above 0")
        factor = 2 ** (len(widths) - 1)
        if any(side < 1 or side % factor for side in space) or len(space) not in CONVOLUTIONS:
            raise UserError(
                f"a generator with {len(widths)} widths makes no images of shape {tuple(shape)}: "
                f"it needs 1 to 3 sides that are multiples of {factor}"
            )
        convolution = CONVOLUTIONS[len(space)]
        base = [side // factor for side in space]
        self.latent, self.noise = latent, noise
        first = nn.Linear(latent, widths[0] * torch.Size(base).numel())
        layers: list[nn.Module] = [first, nn.Unflatten(1, (widths[0], *base)), nn.SiLU()]
        for before, width in pairwise(widths):
            convolved = convolution(before, width, 3, padding=1)
            layers += [nn.Upsample(scale_factor=2), convolved, nn.SiLU()]
        layers += [convolution(widths[-1], c, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Return images (N, C, *space) in (-1, 1) of latent vectors (N, latent)."""
        return widen(self.layers(z)).tanh()

    def draw(
        self, n: int, *, generator: Generators = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Draw n latent vectors (n, latent); `generator` as in `genconv.sampling.langevin`."""
        return draw_noise((n, self.latent), generator, device=device)


class Posterior(nn.Module):
    r"""Creates the energy of the latent vectors of given images, which any sampler takes.

    .. math:: E(z) = \tfrac12 |z|^2 + \frac{|x - g(z)|^2}{2 σ^2}, \quad\text{so that }
        p(z \mid x) ∝ \exp(-E(z))

    Args:
        network: g, from (N, d) to (N, C, *space).
        x: (N, C, *space), one image for each latent vector.
        noise: σ.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], x: Tensor, noise: float) -> None:
        super().__init__()
        self.network, self.x, self.noise = network, x, noise

    def forward(self, z: Tensor) -> Tensor:
        """Return the energies (N,) of latent vectors (N, d)."""
        error = (self.x - self.network(z)).square().flatten(1).sum(1)
        return z.square().sum(1) / 2 + error / (2 * self.noise**2)


def infer(
    network: Generator,
    latent: Chain,
    x: Tensor,
    z: Tensor | None = None,
    *,
    generator: Generators = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Look for latent vectors that explain images, by a chain in latent space.

    Args:
        network: g.
        latent: the chain: at temperature 1 it draws from p(z | x), at 0 it descends to a maximum.
        x: (N, C, *space).
        z: (N, latent) where the chains begin; drawn from the prior by default.
        generator: see `genconv.sampling.langevin`.
        callback: see there.

    Returns:
        z (N, latent) and its energies (N,), see `Posterior`: the least is the best of several.
    """
    if z is None:
        z = network.draw(len(x), generator=generator, device=x.device)
    posterior = Posterior(network, x, network.noise)
    z = latent.run(posterior, z, generator=generator, callback=callback).x
    with torch.no_grad():
        return z, posterior(z)
