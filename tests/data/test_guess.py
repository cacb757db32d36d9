"""The smoothest filling, against its own definition and where it is known."""

import pytest
import torch

from genconv.data.guess import guess, smoothed
from genconv.data.holes import holes, interpolated


def box(space, rim=3):
    missing = torch.zeros(1, 1, *space, dtype=torch.bool)
    missing[(..., *(slice(rim, side - rim) for side in space))] = True
    return missing


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bending(x, weights):
    """Σ (L x)², L the Laplacian of these weights, written with differences and no matrix."""
    laplacian = torch.zeros_like(x)
    for axis, weight in enumerate(weights):
        change = weight * x.diff(dim=2 + axis)
        zero = torch.zeros_like(change.narrow(2 + axis, 0, 1))
        laplacian = laplacian - torch.cat([zero, change, zero], 2 + axis).diff(dim=2 + axis)
    return laplacian.square().sum()


@pytest.mark.parametrize("space", [(20,), (11, 9), (9, 10, 11)])
def test_ramps_go_on(space):
    x = torch.zeros(2, 3, *space)
    for axis, side in enumerate(space):
        x += (1 + axis) * torch.arange(side).view(
            *[-1 if a == axis else 1 for a in range(len(space))]
        )
    x[1] = -2 * x[0] + 1
    missing = box(space).expand(2, 1, *space)
    found = smoothed(x, missing)
    assert torch.equal(found[~missing.expand_as(x)], x[~missing.expand_as(x)])
    torch.testing.assert_close(found, x, rtol=0, atol=0.02)


@pytest.mark.parametrize("mask", ["random:0.5", "box:0.5"])
@pytest.mark.parametrize("space", [(24,), (10, 8), (6, 7, 8)])
def test_no_change_of_what_is_missing_would_bend_it_less(space, mask):
    x, missing = noise(1, 2, *space).double(), holes(mask, 1, space)
    weights = []
    for axis in range(len(space)):
        pairs = missing.narrow(2 + axis, 0, space[axis] - 1) | missing.narrow(
            2 + axis, 1, space[axis] - 1
        )
        weights.append(
            1 / x.diff(dim=2 + axis)[~pairs.expand(1, 2, *pairs.shape[2:])].square().mean()
        )
    slopes = []
    for filled in (smoothed(x, missing), torch.where(missing, 0.0, x)):
        filled.requires_grad_()
        (slope,) = torch.autograd.grad(bending(filled, weights), filled)
        slopes.append(slope[missing.expand_as(x)].norm())
    assert slopes[0] < 1e-3 * slopes[1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_it_is_filled_along_the_axis_that_changes_least(axis):
    space = (9, 9, 9)
    still = noise(1, 1, *(1 if a == axis else 9 for a in range(3))).expand(1, 1, *space).clone()
    missing = holes("box:0.4", 1, space)
    error = (smoothed(still, missing) - still)[missing].square().mean()
    assert error < 1e-3 * still[missing].var()


def test_what_is_missing_is_never_looked_at():
    x, missing = noise(2, 3, 8, 6), holes("random:0.5", 2, (8, 6))
    other = torch.where(missing, 100.0, x)
    torch.testing.assert_close(smoothed(other, missing), smoothed(x, missing))


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_what_never_changes_stays(value):
    x = torch.full((1, 1, 6, 6, 6), value)
    for mask in ("random:0.9", "dropped:0.5", "box"):
        torch.testing.assert_close(smoothed(x, holes(mask, 1, (6, 6, 6))), x)


def test_single_known_pixels_have_no_neighbours_to_learn_from():
    x, missing = noise(1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    missing[..., ::3, ::3] = False
    found = smoothed(x, missing)
    assert found.isfinite().all()
    assert found.abs().max() < 3 * x[~missing].abs().max()


def test_a_guess_has_a_name():
    x, missing = noise(1, 1, 8, 8), holes("box", 1, (8, 8))
    assert torch.equal(guess(x, missing), interpolated(x, missing))
    assert torch.equal(guess(x, missing, "smooth"), smoothed(x, missing))


def test_grey_is_in_the_hole_alone():
    x, missing = noise(2, 3, 4, 5), holes("random:0.5", 2, (4, 5))
    found = guess(x, missing, "grey")
    hidden = missing.expand_as(x)
    assert (found[hidden] == 0).all()
    assert torch.equal(found[~hidden], x[~hidden])
