"""What training converges to, where that is known: known answer 17, and energy matching's optimum.

Implicit and denoising score matching and Tweedie's formula (21 to 23 of the list) are no functions
of genconv, and tests of them would test themselves. The regression that genconv does have is energy
matching's, whose optimum on Gaussians takes their place.
"""

import math

import pytest
import torch
from torch import nn

from genconv.energy import Energy
from genconv.sampling import Chain
from genconv.training import ContrastiveDivergence, EnergyMatching
from genconv.training.energy_matching import transport_loss
from tests.statistics.laws import check_mean, seeded


class Normal(Energy):
    """E(x) = λ |x - θ|² / 2, with λ and θ to be learnt."""

    def __init__(self, precision=1.0, theta=0.0):
        super().__init__()
        self.precision = nn.Parameter(torch.tensor(float(precision)))
        self.theta = nn.Parameter(torch.tensor(float(theta)))

    def forward(self, x, y=None):
        return self.precision * (x - self.theta).square().flatten(1).sum(1) / 2


class Table(Energy):
    """An energy for each of a few states, which are given as numbers in x (N, 1)."""

    def __init__(self, states):
        super().__init__()
        self.energies = nn.Parameter(torch.zeros(states))

    def forward(self, x, y=None):
        return self.energies[x[:, 0].long()]


def quiet(module, seed=0):
    """Outside of a trainer: all that `training_step` needs, and nothing logged."""
    module.generator = seeded(seed)
    module.log = module.log_dict = lambda *args, **kwargs: None
    return module


def test_energies_of_finitely_many_states_become_minus_log_p():
    p = torch.tensor([0.4, 0.3, 0.2, 0.06, 0.04])
    data = torch.repeat_interleave(torch.arange(5.0), (1000 * p).round().long())[:, None]
    everything = torch.arange(5.0)[:, None]

    def divergence(energy):
        q = (-energy(everything)).softmax(0).detach()
        return float((p * (p / q).log()).sum())

    def fit(negatives, rates):
        module = quiet(ContrastiveDivergence(Table(5), alpha=0.0))
        module._negatives = lambda x, y: negatives(module.energy, module.generator)
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            module.training_step((data, None), 0).backward()
            optimizer.step()
        return divergence(module.energy)

    def exact(energy, generator):
        # so many copies of each state that their share is the model's probability
        q = (-energy(everything)).softmax(0).detach()
        return torch.repeat_interleave(everything, (1e5 * q).round().long(), 0)

    chains = torch.zeros(2000, 1)

    def persistent(energy, generator):
        proposed = torch.randint(5, chains.shape, generator=generator).float()
        ratio = (energy(chains) - energy(proposed)).exp().detach()
        accept = torch.rand(len(chains), generator=generator) < ratio
        chains[accept] = proposed[accept]
        return chains.clone()

    assert divergence(Table(5)) > 0.2
    assert fit(exact, [2.0] * 200) < 1e-6
    assert fit(persistent, [1.0] * 200 + [0.1] * 200) < 1e-3


def test_persistent_chains_learn_the_energy_whose_biased_law_is_that_of_the_data():
    # data N(m, s²); chains of step η have variance 1 / (λ (1 - ηλ/2)), which equals s² at
    # λ = (1 - sqrt(1 - 2η/s²)) / η and not at 1/s²
    m, variance, eta = 0.1, 0.04, 0.012
    expected = (1 - math.sqrt(1 - 2 * eta / variance)) / eta
    assert expected * variance > 1.2
    module = quiet(
        ContrastiveDivergence(
            Normal(20.0, -0.2), Chain(step_size=eta), k=5, alpha=0.0, buffer_size=2000, restart=0.0
        )
    )
    rates = {"precision": 200.0, "theta": 0.005}
    optimizer = torch.optim.SGD(
        [{"params": [p], "lr": rates[name]} for name, p in module.energy.named_parameters()]
    )
    path = []
    for _ in range(400):
        x = m + variance**0.5 * torch.randn(500, 1, generator=module.generator)
        optimizer.zero_grad()
        module.training_step((x, None), 0).backward()
        optimizer.step()
        path.append([module.energy.precision.item(), module.energy.theta.item()])
    precision, theta = torch.tensor(path[200:]).mean(0).tolist()
    assert precision == pytest.approx(expected, rel=0.03)
    assert theta == pytest.approx(m, abs=0.01)


def test_optimum_of_energy_matching_between_two_gaussians():
    # From N(0, 1) to N(m, s²), -∇E = λ (θ - x) regresses x₁ - x₀ on x_t, so that
    #   λ = -Cov(x₁ - x₀, x_t) / Var(x_t) = (1 - s²)/2 / ((1 + s²)/3 + m²/12),  λ (θ - m/2) = m,
    # and what is left of the loss is Var(x₁ - x₀) - Cov²/Var(x_t).
    n, m, s2 = 200_000, 0.8, 0.3
    spread = (1 + s2) / 3 + m**2 / 12
    precision = (1 - s2) / 2 / spread
    energy = Normal(precision, m / 2 + m / precision)
    x = m + s2**0.5 * torch.randn(n, 1, generator=seeded(3))
    loss = quiet(EnergyMatching(energy)).training_step((x, None), 0)
    least = 1 + s2 - ((1 - s2) / 2) ** 2 / spread
    # residuals are nearly normal: the mean of n squares varies by sqrt(2/n) of itself
    assert abs(loss.item() / least - 1) < 4 * math.sqrt(2 / n)
    loss.backward()
    # at the optimum both gradients are means of residual times regressor, whose mean is 0
    assert abs(energy.theta.grad) < 4 * 2 * precision * math.sqrt(least / n)
    widest = math.sqrt(spread + (energy.theta.item() - m / 2) ** 2)
    assert abs(energy.precision.grad) < 4 * 2 * widest * math.sqrt(least / n)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_least_loss_of_energy_matching_at_one_time(t):
    # given x_t alone, x₁ - x₀ has variance s² / ((1-t)² + t² s²), which no energy can explain
    n, m, s2 = 200_000, 0.8, 0.3
    spread = (1 - t) ** 2 + t**2 * s2
    slope = (t * s2 - (1 - t)) / spread
    x0 = torch.randn(n, 1, generator=seeded(4))
    x1 = m + s2**0.5 * torch.randn(n, 1, generator=seeded(5))

    def best(x):
        return -(m * x + slope * (x - t * m).square() / 2).sum(1)

    loss = transport_loss(best, x0, x1, torch.full((n,), t))
    assert abs(loss.item() / (s2 / spread) - 1) < 4 * math.sqrt(2 / n)
    worse = transport_loss(lambda x: best(x) - 0.1 * x.sum(1), x0, x1, torch.full((n,), t))
    assert worse.item() - loss.item() == pytest.approx(0.01, rel=0.3)


def test_check_mean_can_fail():
    x = torch.randn(10_000, generator=seeded(6), dtype=torch.float64)
    check_mean(x, 0.0)
    with pytest.raises(AssertionError, match=r"SE from 0\.1"):
        check_mean(x, 0.1)
