"""MALA and HMC against closed forms: known answers 7 to 11."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from genconv.sampling import hmc, langevin, mala
from genconv.sampling.hmc import leapfrog
from tests.statistics.laws import DoubleWell, check_mean, check_moments, gaussian, p_value, seeded

CHAINS = 100_000
NORMAL = gaussian(1.0)


def normal(*shape, seed=5):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def test_ratio_of_mala():
    # on N(0, 1) the proposal density turns E(y) - E(x) into η/4 of twice it
    eta, x = 0.8, 2 * normal(1000, 1)
    y = langevin(NORMAL, x, steps=1, step_size=eta, generator=seeded()).x
    expected = (-eta / 4 * (y.square() - x.square())).clamp(max=0).exp().flatten()
    found = mala(NORMAL, x, steps=1, step_size=eta, generator=seeded()).info.acceptance
    assert 0.2 < (found < 1).double().mean() < 0.8
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_proposal_of_mala_is_a_step_of_langevin():
    x = normal(1000, 3)
    how = {"steps": 1, "step_size": 0.3, "temperature": 0.5}
    proposed = langevin(NORMAL, x, **how, generator=seeded()).x
    result = mala(NORMAL, x, **how, generator=seeded())
    moved = result.info.movement > 0
    assert 0.1 < moved.double().mean() < 1
    torch.testing.assert_close(result.x[moved], proposed[moved])


@pytest.mark.parametrize(("eta", "expected"), [(0.1, 0.99288), (0.4, 0.94321), (1.0, 0.78365)])
def test_acceptance_of_mala(eta, expected):
    assert 1 - 2 / math.pi * math.atan(eta**1.5 / math.sqrt(8)) == pytest.approx(expected, abs=1e-5)
    result = mala(NORMAL, normal(CHAINS, 1), steps=1, step_size=eta, generator=seeded())
    check_mean(result.info.acceptance, expected)
    # and that share of the chains has moved
    check_mean((result.info.movement > 0).double(), expected)


def test_leapfrog_on_an_oscillator():
    eps, steps = 0.3, 40
    q, p = normal(50, 1), normal(50, 1, seed=6)

    def invariant(q, p):
        return q.square() * (1 - eps**2 / 4) + p.square()

    for length in (1, 2, steps):
        q1, p1, energies, gradient = leapfrog(NORMAL, q, p, q, step_size=eps, steps=length)
        torch.testing.assert_close(invariant(q1, p1), invariant(q, p), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(energies, NORMAL(q1))
        torch.testing.assert_close(gradient, q1)
    # the phase advances by the angle whose cosine is 1 - ε²/2
    angle = steps * math.acos(1 - eps**2 / 2)
    expected = math.cos(angle) * q + math.sin(angle) * p / math.sqrt(1 - eps**2 / 4)
    torch.testing.assert_close(q1, expected, rtol=1e-10, atol=1e-10)


def test_leapfrog_undoes_itself_and_keeps_volume():
    well, how = DoubleWell(), {"step_size": 0.2, "steps": 7}

    def gradient(x):
        return 4 * (x.square() - 1) * x + 0.3

    q, p = normal(50, 1), normal(50, 1, seed=6)
    there = leapfrog(well, q, p, gradient(q), **how)
    back = leapfrog(well, there[0], -there[1], there[3], **how)
    torch.testing.assert_close(back[0], q, rtol=0, atol=1e-10)
    torch.testing.assert_close(-back[1], p, rtol=0, atol=1e-10)
    # the Jacobian by central differences, four starts for each of the 50
    h = 1e-5
    q4 = torch.cat([q + h, q - h, q, q])
    p4 = torch.cat([p, p, p + h, p - h])
    q4, p4, *_ = leapfrog(well, q4, p4, gradient(q4), **how)
    rows = torch.stack([q4, p4], 1).view(4, 50, 2)
    by_q, by_p = (rows[0] - rows[1]) / (2 * h), (rows[2] - rows[3]) / (2 * h)
    determinant = by_q[:, 0] * by_p[:, 1] - by_q[:, 1] * by_p[:, 0]
    torch.testing.assert_close(determinant, torch.ones_like(determinant), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("eps", "steps"), [(0.5, 3), (1.2, 2), (1.9, 5)])
def test_acceptance_of_hmc(eps, steps):
    q, p = normal(CHAINS, 1), normal(CHAINS, 1, seed=6)
    q1, p1, *_ = leapfrog(NORMAL, q, p, q, step_size=eps, steps=steps)
    gap = ((q1.square() + p1.square() - q.square() - p.square()) / 2).flatten()
    check_mean((-gap).exp(), 1.0)
    kick, drift = np.array([[1, 0], [-eps / 2, 1]]), np.array([[1, eps], [0, 1]])
    one = kick @ drift @ kick
    stretch = np.linalg.svd(np.linalg.matrix_power(one, steps), compute_uv=False).max()
    expected = 4 / math.pi * math.atan(1 / stretch)
    result = hmc(NORMAL, q, steps=1, step_size=eps, leapfrog_steps=steps, generator=seeded())
    check_mean(result.info.acceptance, expected)
    check_mean((result.info.movement > 0).double(), expected)


EXACT = {
    "mala": partial(mala, steps=12, step_size=0.15),
    "hmc": partial(hmc, steps=5, step_size=0.45, leapfrog_steps=3),
    "persistent": partial(hmc, steps=12, step_size=0.5, leapfrog_steps=1, persistence=0.8),
}


@pytest.mark.parametrize("name", EXACT)
def test_law_is_kept(name):
    # chains that begin in the law stay in it, although many of their proposals fail
    well = DoubleWell()
    result = EXACT[name](well, well.sample(CHAINS), generator=seeded(1))
    assert 0.3 < result.info.acceptance.mean() < 0.95
    assert result.info.movement.mean() > 0.5
    assert p_value(result.x, well.cdf) > 1e-3


def test_law_is_not_kept_without_the_test():
    well = DoubleWell()
    x = langevin(well, well.sample(CHAINS), steps=12, step_size=0.05, generator=seeded(1)).x
    assert p_value(x, well.cdf) < 1e-6


@pytest.mark.parametrize("name", EXACT)
def test_law_is_found_from_elsewhere(name):
    x = EXACT[name](NORMAL, 3 * normal(20_000, 1) + 1, steps=60, generator=seeded(1)).x
    assert p_value(x, stats.norm.cdf) > 1e-3


@pytest.mark.parametrize("name", EXACT)
def test_draws_of_few_chains_after_thinning(name):
    kept, thinned = [], 12
    x = torch.zeros(100, 1, dtype=torch.float64)
    EXACT[name](
        NORMAL,
        x,
        steps=600,
        generator=seeded(3),
        callback=lambda i, x: kept.append(x) if i > 100 and i % thinned == 0 else None,
    )
    assert p_value(torch.cat(kept), stats.norm.cdf) > 1e-3


@pytest.mark.parametrize("name", EXACT)
def test_temperature_widens_the_law(name):
    start = normal(20_000, 1) / 2
    x = EXACT[name](NORMAL, start, temperature=0.25, generator=seeded(1)).x
    check_moments(x, 0, 0.25)
    # a schedule that ends there leads there too, also with momenta from warmer times
    cooling = [(0, 4.0), (20, 0.25)]
    x = EXACT[name](NORMAL, 4 * start, steps=70, temperature=cooling, generator=seeded(2)).x
    check_moments(x, 0, 0.25)


def test_momentum_that_persists_carries_a_chain_further():
    # without rejection the kept momentum moves ballistically where fresh ones diffuse
    flat = lambda x: (0 * x).sum(1)  # noqa: E731
    how = {"steps": 20, "step_size": 1.0, "leapfrog_steps": 1}
    start = torch.zeros(CHAINS, 1, dtype=torch.float64)
    for kappa in (0.0, 0.8, 1.0):
        x = hmc(flat, start, persistence=kappa, generator=seeded(1), **how).x
        lags = range(1, 20)
        check_moments(x, 0, 20 + 2 * sum((20 - lag) * kappa**lag for lag in lags))


def test_momentum_turns_round_at_a_rejection():
    # in a box a particle that keeps its momentum goes to and fro, and so stays uniform
    def box(x):
        return torch.where(x.abs() > 1, torch.inf, 0 * x).sum(1)

    start = torch.rand(CHAINS, 1, generator=seeded(), dtype=torch.float64) * 2 - 1
    how = {"steps": 40, "step_size": 0.05, "leapfrog_steps": 1, "persistence": 1.0}
    x = hmc(box, start, generator=seeded(1), **how).x
    assert x.abs().max() <= 1
    assert p_value(x, stats.uniform(-1, 2).cdf) > 1e-3
    # those that did not turn would lean on the wall for ever
    later = hmc(box, x, generator=seeded(2), **how).x
    assert ((later - x).abs() > 0.01).double().mean() > 0.95
