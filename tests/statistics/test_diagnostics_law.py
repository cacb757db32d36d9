"""R-hat and effective sample sizes where both are known: known answer 24."""

import pytest
import torch

from genconv.sampling import ess, langevin, r_hat
from tests.statistics.laws import gaussian, seeded


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("delta", [0.5, 2.0])
def test_r_hat_of_two_chains_that_are_apart(delta):
    # variance of the four halves' means: δ²/3
    x = normal(40_000, 2) + torch.tensor([0.0, delta])
    assert float(r_hat(x, ranks=False)) == pytest.approx((1 + delta**2 / 3) ** 0.5, rel=0.01)


def test_r_hat_of_a_chain_that_drifts():
    # halves are told apart: from 0 to δ on a line their means are δ/2 apart, each δ²/48 wider
    delta = 3.0
    x = normal(40_000, 1) + torch.linspace(0, delta, 40_000)[:, None]
    expected = (1 + (delta / 2) ** 2 / 2 / (1 + delta**2 / 48)) ** 0.5
    assert float(r_hat(x, ranks=False)) == pytest.approx(expected, rel=0.01)


def test_r_hat_is_one_where_chains_agree_and_ranks_see_width_too():
    x = normal(2000, 4)
    assert float(r_hat(x)) == pytest.approx(1, abs=0.005)
    wide = x * torch.tensor([1.0, 1.0, 1.0, 3.0])
    assert float(r_hat(wide, ranks=False)) == pytest.approx(1, abs=0.005)
    assert r_hat(wide) > 1.1
    # ranks do not ask in what units, or with what tails
    torch.testing.assert_close(r_hat(x.exp()), r_hat(x), rtol=0, atol=0.002)


@pytest.mark.parametrize("r", [-0.5, 0.0, 0.5, 0.9])
def test_ess_of_autoregressive_chains(r):
    # 40 coordinates are 40 estimates of τ = (1 + r) / (1 - r)
    noise = normal(2000, 4, 40)
    x = [noise[0]]
    for row in noise[1:]:
        x.append(r * x[-1] + (1 - r * r) ** 0.5 * row)
    tau = 8000 / ess(torch.stack(x))
    assert float(tau.mean()) == pytest.approx((1 + r) / (1 - r), rel=0.1)


def test_ess_of_langevin_is_that_of_the_process_it_is():
    # on N(0, s²) an unadjusted step is x' = r x + noise with r = 1 - η/s²
    variance, eta = 2.0, 0.4
    draws = []
    langevin(
        gaussian(variance),
        variance**0.5 * normal(4, 40),
        steps=2000,
        step_size=eta,
        generator=seeded(1),
        callback=lambda step, x: draws.append(x.clone()),
    )
    r = 1 - eta / variance
    tau = 8000 / ess(torch.stack(draws))
    assert float(tau.mean()) == pytest.approx((1 + r) / (1 - r), rel=0.1)
