"""Balancing an or: wells whose shares are known in closed form."""

import math

import pytest
import torch
from torch import nn

from genconv.checkpoint import Trained
from genconv.energy import Energy, Mixture
from genconv.sampling import Chain
from genconv.tasks.balance import CLOSE, balance


class Well(Energy):
    """E(x) = k |x - m|² / 2 + a constant that says nothing about p(x)."""

    def __init__(self, middle, stiffness=1.0, constant=0.0):
        super().__init__()
        self.middle = nn.Parameter(torch.tensor(float(middle)))
        self.stiffness, self.constant = stiffness, constant

    def forward(self, x, y=None):
        d = (x - self.middle).flatten(1)
        return self.stiffness * d.square().sum(1) / 2 + self.constant


def trained_on(wells, steps=40):
    return Trained(wells[0], Chain(steps, 0.1, 0.0), (1, 1, 1), 0)


def share(offsets):
    """Return how often noise lies left of where |x + 1|² / 2 - c_0 = |x - 1|² / 2 + 7 - c_1."""
    edge = (7 + offsets[0] - offsets[1]) / 2
    return (1 + math.erf(edge / 2**0.5)) / 2


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_two_wells_get_their_shares(weights):
    wells = [Well(-1), Well(1, constant=7.0)]
    found = balance(trained_on(wells), wells, weights, start=[0.0, 0.0], n=256)
    wished = 0.5 if weights is None else 0.25
    assert abs(found.shares[0] - wished) <= CLOSE
    assert sum(found.shares) == pytest.approx(1)
    # the law of 256 draws: three standard errors beside what they were seen to be
    assert abs(share(found.offsets) - found.shares[0]) < 3 * 0.5 / 16


def test_three_unequal_wells():
    wells = [Well(-1), Well(0, 4.0, 1.0), Well(1, constant=-2.0)]
    found = balance(trained_on(wells), wells, start=[0.0, 0.0, 0.0], n=256)
    assert max(abs(s - 1 / 3) for s in found.shares) <= CLOSE
    # images of another seed fall as often into each
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(4000, 1, 1, 1, generator=generator)
    x = trained_on(wells).chain.run(Mixture(wells, None, found.offsets, 0.0), x).x
    energies = torch.stack([well(x) for well in wells])
    basin = (energies - torch.tensor(found.offsets)[:, None]).argmin(0)
    assert ((torch.bincount(basin, minlength=3) / 4000) - 1 / 3).abs().max() < CLOSE + 0.1


def test_one_seed_gives_one_balance():
    wells = [Well(-1), Well(1, constant=2.0)]
    how = {"start": [0.0, 0.0], "n": 16}
    found = balance(trained_on(wells, 5), wells, **how)
    assert found == balance(trained_on(wells, 5), wells, **how)
    assert found != balance(trained_on(wells, 5), wells, seed=1, **how)
