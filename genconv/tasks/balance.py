"""Offsets at which an *or* shows each of its energies as often as is wished."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from genconv.checkpoint import Trained
from genconv.energy import Energy, Mixture
from genconv.images import from_uint8
from genconv.progress import progress
from genconv.sample import sample
from genconv.seeds import derive

__all__ = ["Balance", "balance"]

ROUNDS = 8
CLOSE = 0.08


@dataclass(frozen=True)
class Balance:
    """Offsets of a mixture, and how often its energies were seen with them.

    Attributes:
        offsets: c_i of a `Mixture`.
        shares: of the chains that ended with energy i as the least of E_i - c_i.
    """

    offsets: list[float]
    shares: list[float]


def balance(
    trained: Trained,
    energies: Sequence[Energy],
    weights: Sequence[float] | None = None,
    temperature: float = 0.0,
    *,
    start: Sequence[float],
    seed: int = 0,
    n: int = 64,
    bf16: bool = False,
) -> Balance:
    r"""Draw a few images from the mixture, move the offsets, and draw again.

    Chains from noise choose a basin on their way, which no mean energy foretells. But the share s_i
    of the chains that end under energy i grows with its offset, so a root is sought where it can
    only be seen through noise:

    .. math:: c_i ← c_i + a\,(w_i - s_i)

    which is stochastic approximation; a doubles while all go on in their direction, and is halved
    when one of them has gone too far (as in Kesten's rule). Up to 8 rounds, which end as soon as
    all shares are within .08 of what is wished; the best round counts.

    Args:
        trained: chain and shape.
        energies: K of them, not changed.
        weights: wished shares, of any sum; equal by default.
        temperature: of the mixture.
        start: c_i to begin with.
        seed: of the images.
        n: images in a round.
        bf16: compute gradients in bfloat16.

    Reference:
        Robbins, Monro: A stochastic approximation method, 1951; Kesten: Accelerated stochastic
        approximation, 1958
    """
    wished = torch.tensor(weights or [1.0] * len(energies), dtype=torch.float64)
    wished = wished / wished.sum()
    device = trained.device
    offsets = torch.tensor(start, dtype=torch.float64)
    before, pace, best = torch.zeros_like(wished), 0.0, None
    for turn in progress(range(ROUNDS), "balancing"):
        mixture = Mixture(energies, weights, offsets.tolist(), temperature)
        mixed = replace(trained, energy=mixture, names=())
        images = sample(mixed, range(n), seed=derive(seed, "balance", turn), bf16=bf16)
        x = from_uint8(images).to(device)
        with torch.no_grad():
            found = torch.stack([energy(x) for energy in energies]).double().cpu()
        basin = (found - offsets[:, None]).argmin(0)
        shares = torch.bincount(basin, minlength=len(energies)) / n
        wrong = wished - shares
        if best is None or wrong.abs().max() < (wished - torch.tensor(best.shares)).abs().max():
            best = Balance(offsets.tolist(), shares.tolist())
        if wrong.abs().max() <= CLOSE:
            break
        if turn == 0:
            # what tells the energies apart where the chains end is an upper bound of a good pace
            pace = float((found - found.mean(0)).abs().mean())
        else:
            pace *= 0.5 if (wrong * before < 0).any() else 2.0
        offsets, before = offsets + pace * wrong, wrong
    assert best is not None
    return best
