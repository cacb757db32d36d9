"""How many steps of a run's chains a Metropolis test would accept."""

import torch
from torch import Tensor

from genconv.energy import Energy
from genconv.sampling import Chain, acceptance

__all__ = ["probe"]

# chains whose step is put to the test
FEW = 16


def probe(
    energy: Energy, chain: Chain, x: Tensor, y: Tensor | None, generator: torch.Generator
) -> Tensor | None:
    """Return the mean acceptance, 0-dim, of a step from the first few of x (N, C, *space).

    Args:
        energy: of the chains.
        chain: whose step size and temperature are constant.
        x: where the chains are.
        y: (N,) their classes, of a conditional energy.
        generator: of the noise.

    Returns:
        None where there is nothing to be tested: an exact move, or a descent.
    """
    if chain.sampler != "langevin" or not chain.temperature > 0:
        return None
    return acceptance(
        energy,
        x[:FEW],
        y if y is None else y[:FEW],
        step_size=chain.step_size,
        temperature=chain.temperature,
        generator=generator,
    ).mean()
