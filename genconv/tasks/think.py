"""Thinking: descend the energy of candidates in a context, from what is known to an answer."""

from collections.abc import Callable

import torch
from torch import Tensor

from genconv.energy import beginning
from genconv.sampling import Chain, Generators

__all__ = ["think"]


def think(
    energy: Callable[..., Tensor],
    chain: Chain,
    context: Tensor,
    *,
    exact: bool = False,
    generator: Generators = None,
    callback: Callable[[int, Tensor], None] | None = None,
    bf16: bool = False,
) -> Tensor:
    """Draw an answer x in each context by the chain of E(x | c), which begins near what is known.

    Args:
        energy: maps candidates (N, C, *space) and contexts to energies (N,).
        chain: how far to think, and how.
        context: (N, C + 1, *space), see `genconv.energy.EnergyTransformer`.
        exact: what is known is without noise: after every step known pixels are put back.
        generator: see `genconv.sampling.langevin`.
        callback: see `langevin`.
        bf16: compute gradients in bfloat16.

    Returns:
        (N, C, *space) float32, about [-1, 1].
    """
    image, known = context[:, :-1], context[:, -1:] > 0
    noise = chain.noise(len(context), image.shape[1:], generator=generator, device=context.device)
    return chain.run(
        energy,
        beginning(context, noise),
        context,
        project=(lambda x: torch.where(known, image, x)) if exact else None,
        generator=generator,
        callback=callback,
        bf16=bf16,
    ).x
