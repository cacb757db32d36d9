"""The same estimators as ArviZ has; what they mean is checked in tests/statistics."""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats

from genconv.sampling import acceptance, ess, r_hat


def chains(r, draws=400, n=4, seed=0):
    """AR(1) chains x' = r x + sqrt(1 - r²) ξ, from their law."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, n, generator=g, dtype=torch.float64)
    out = [noise[0]]
    for row in noise[1:]:
        out.append(r * out[-1] + (1 - r * r) ** 0.5 * row)
    return torch.stack(out)


CASES = {
    "independent": chains(0.0),
    "slow": chains(0.95),
    "swinging": chains(-0.6),
    "odd number of draws": chains(0.5, draws=101),
    "one chain": chains(0.5, n=1),
    "apart": chains(0.3) + torch.tensor([0.0, 0.0, 0.5, 3.0]),
    "of different width": chains(0.3) * torch.tensor([1.0, 1.0, 1.0, 4.0]),
    "heavy tails": chains(0.3) ** 5,
    "ties": (chains(0.9) * 2).round(),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_arviz(name):
    def arviz(function, method):
        return function(CASES[name].numpy(), method=method, chain_axis=1, draw_axis=0)

    expected = [arviz(array_stats.ess, "bulk")]
    found = [ess(CASES[name])]
    # ArviZ has no R-hat of one chain, whose halves can be compared all the same
    if CASES[name].shape[1] > 1:
        expected += [arviz(array_stats.rhat, "rank"), arviz(array_stats.rhat, "split")]
        found += [r_hat(CASES[name]), r_hat(CASES[name], ranks=False)]
    np.testing.assert_allclose([float(value) for value in found], expected, rtol=1e-10)


def test_every_coordinate_is_treated_alone():
    x = torch.stack([chains(0.0), chains(0.9, seed=1), chains(0.3, seed=2)], -1)
    for function in (r_hat, ess):
        whole = function(x.view(400, 4, 3, 1))
        assert whole.shape == (3, 1)
        assert whole.dtype == torch.float64
        alone = torch.stack([function(x[..., i]) for i in range(3)])
        torch.testing.assert_close(whole[:, 0], alone, rtol=1e-12, atol=0)


def test_what_does_not_move_has_no_number_and_what_is_too_short_is_refused():
    assert r_hat(torch.ones(10, 2)).isnan()
    assert ess(torch.ones(10, 2)).isnan()
    for function in (r_hat, ess):
        with pytest.raises(ValueError, match="3 draws"):
            function(torch.zeros(3, 2))


def test_acceptance_falls_with_the_step_and_costs_two_gradients():
    calls = []

    def energy(x):
        calls.append(len(x))
        return x.square().flatten(1).sum(1) / 2

    x = torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    small, large = (acceptance(energy, x, step_size=eta, generator=seeded()) for eta in (1e-4, 1.5))
    assert small.shape == (200,)
    assert (small > 0.99).all()
    assert large.mean() < 0.3
    assert calls == [200] * 4
    # on a parabola a colder chain is a warmer one on a smaller scale
    warm, cold = (
        acceptance(energy, x * t**0.5, step_size=0.3, temperature=t, generator=seeded())
        for t in (1.0, 0.01)
    )
    torch.testing.assert_close(cold, warm, rtol=1e-3, atol=1e-4)


def seeded():
    return torch.Generator().manual_seed(1)
