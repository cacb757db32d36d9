"""Langevin against closed forms: unadjusted steps have a known, biased law on Gaussians.

With E = x²/2s² a step is x' = r x + σ ξ, r = 1 - η/s², σ² = 2 η T, whose law is Gaussian for ever.
"""

import pytest
import torch
from scipy import stats

from genconv.sampling import langevin
from tests.statistics.laws import check_moments, gaussian, p_value, seeded

CHAINS = 200_000


def run(energy, x, seed=0, **how):
    return langevin(energy, x, generator=seeded(seed), **how).x.double()


def test_stationary_variance_has_the_bias_of_its_step_size():
    s2, eta = 1.5, 0.6
    expected = s2 / (1 - eta / (2 * s2))
    assert expected == pytest.approx(1.875)
    x = run(gaussian(s2), torch.zeros(CHAINS, 1), steps=60, step_size=eta)
    check_moments(x, 0, expected)


def test_stationary_covariance_of_a_correlated_gaussian():
    covariance = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    precision, eta = covariance.inverse(), 0.3

    def energy(x):
        return (x @ precision.to(x.dtype) * x).sum(1) / 2

    one = torch.eye(2, dtype=torch.float64)
    expected = (precision @ (one - eta / 2 * precision)).inverse()
    # the linear map of one noiseless step, read off the sampler itself
    step = langevin(energy, one, steps=1, step_size=eta, temperature=0.0).x
    fixed = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(500):
        fixed = step.T @ fixed @ step + 2 * eta * one
    torch.testing.assert_close(fixed, expected, rtol=1e-10, atol=1e-10)
    x = run(energy, torch.zeros(CHAINS, 2), steps=60, step_size=eta)
    assert (x.T.cov() - expected).abs().max() < 0.02 * expected.max()


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_law_after_a_few_steps(steps):
    s2, eta, start = 2.0, 0.25, 3.0
    r, noise = 1 - eta / s2, 2 * eta
    x = run(gaussian(s2), torch.full((CHAINS, 1), start), steps=steps, step_size=eta)
    check_moments(x, r**steps * start, noise * (1 - r ** (2 * steps)) / (1 - r * r))


def test_published_step_and_noise_map_to_a_temperature():
    s2, factor, sigma = 1.0, 0.2, 0.3
    temperature = sigma**2 / (2 * factor)
    r = 1 - factor / s2
    x = run(
        gaussian(s2),
        torch.zeros(CHAINS, 1),
        steps=80,
        step_size=factor,
        temperature=temperature,
    )
    check_moments(x, 0, sigma**2 / (1 - r * r))


def test_flat_energy_diffuses():
    eta, steps = 0.125, 8
    x = run(lambda x: (0 * x).sum(1), torch.zeros(CHAINS, 1), steps=steps, step_size=eta)
    check_moments(x, 0, steps * 2 * eta)


def test_clamping_a_flat_energy_leaves_mass_at_the_walls():
    sigma = 0.2
    x = run(
        lambda x: (0 * x).sum(1),
        torch.zeros(20_000, 1),
        steps=400,
        step_size=sigma**2 / 2,
        clamp=(-1, 1),
    )
    # a chain at a wall stays there with probability a half: 12 % of all in the long run
    assert (x.abs() == 1).double().mean() == pytest.approx(0.12, abs=0.02)


def test_reflecting_a_flat_energy_leaves_it_uniform():
    def reflected(x):
        # into the zigzag of period 4 that is the identity on [-1, 1]
        return 1 - ((x + 1) % 4 - 2).abs()

    x = run(
        lambda x: (0 * x).sum(1),
        torch.zeros(CHAINS, 1),
        steps=100,
        step_size=0.2**2 / 2,
        project=reflected,
    )
    assert x.abs().max() <= 1
    assert p_value(x, stats.uniform(-1, 2).cdf) > 1e-3


def test_annealing_finds_the_weights_of_two_modes_and_a_short_run_does_not():
    def energy(x):
        modes = -(x - torch.tensor([-2.5, 2.5])).square() / 2 + torch.tensor([0.3, 0.7]).log()
        return -torch.logsumexp(modes, 1)

    n, steps = 10_000, 1200
    cooling = [(0, 4.0), (steps // 2, 1.0)]
    noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(1))
    annealed = run(energy, noise, steps=steps, step_size=0.1, temperature=cooling)
    short = run(energy, noise, steps=30, step_size=0.1)
    assert (annealed > 0).double().mean() == pytest.approx(0.70, abs=0.02)
    assert (short > 0).double().mean() < 0.6
