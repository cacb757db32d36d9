"""The draw of several of which energies are surest that it is what was asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genconv.energy import Energy
from genconv.sampling import Generators
from genconv.tasks.stages import Staged

__all__ = ["Claim", "Surest"]


@dataclass(frozen=True)
class Claim:
    r"""That images are this rather than one of those, as energies see it.

    Energies of classes that were taught as densities of the same images compare classes by

    .. math:: m(x) = E(x, a) - \min_b E(x, b) = \max_b \log \frac{p(b | x)}{p(a | x)} + c

    for rivals b that are as frequent as a, at temperature 1. The claim holds where m is negative.

    Attributes:
        energy: of what is claimed.
        rivals: energies of what it is not to be; one at least.
    """

    energy: Energy
    rivals: Sequence[Energy]

    def margin(self, x: Tensor) -> Tensor:
        """Return m (N,) of images x (N, C, *space); the less, the surer."""
        return self.energy(x) - torch.stack([rival(x) for rival in self.rivals]).amin(0)


@dataclass(frozen=True, kw_only=True)
class Surest(Staged):
    """A trained energy that draws each image several times and keeps the surest one.

    That is the draw whose worst claim has the least margin. Nothing but the energies judges; the
    law of what is kept leans to images of which they are sure. The energy that is sampled would be
    no judge: of two draws it prefers what is frequent, and not what was asked for.

    Attributes:
        claims: what is asked for; one at least where there are several draws.
        draws: of each image, each a whole chain; at least 1.
    """

    claims: tuple[Claim, ...] = ()
    draws: int = 1

    def run(
        self,
        x: Tensor,
        y: Tensor | None,
        generator: Generators,
        callback: Callable[[int, Tensor], None] | None,
        bf16: bool,
    ) -> Tensor:
        """Return where the surest chains end, the first of which begin at x (n, C, *space)."""
        kept = super().run(x, y, generator, callback, bf16)
        if self.draws == 1:
            return kept
        least = self._margin(kept)
        for _ in range(self.draws - 1):
            x = self.start(len(x), generator=generator)
            other = super().run(x, y, generator, callback, bf16)
            margin = self._margin(other)
            # nan is a chain that diverged
            better = (margin < least) | least.isnan()
            kept = torch.where(better.view(-1, *[1] * (x.ndim - 1)), other, kept)
            least = torch.where(better, margin, least)
        return kept

    @torch.no_grad()
    def _margin(self, x: Tensor) -> Tensor:
        return torch.stack([claim.margin(x) for claim in self.claims]).amax(0)
