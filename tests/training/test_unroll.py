"""Descents against what is known of them in a bowl, and against the sampler's."""

import math

import pytest
import torch

from genconv.energy import EnergyTransformer
from genconv.sampling import langevin
from genconv.training.unroll import Thought, calibration, unroll


def test_the_end_of_a_descent_in_a_bowl_depends_on_all_as_it_must(quadratic):
    # E = a|x - θ|²/2: x_K - θ = (1 - ηa)^K (x_0 - θ)
    a, steps = quadratic.a, 4
    eta = torch.tensor(0.3, requires_grad=True)
    x0, target = torch.randn(5, 2), torch.randn(5, 2)
    thought = unroll(quadratic, x0, steps=steps, step_size=eta)
    left = (1 - 0.3 * a) ** steps
    torch.testing.assert_close(thought.x, left * x0)
    loss = (thought.x - target).square().sum()
    by_theta, by_eta = torch.autograd.grad(loss, [quadratic.theta, eta])
    away = left * x0 - target
    torch.testing.assert_close(by_theta, (2 * away * (1 - left)).sum(0))
    slope = -a * steps * (1 - 0.3 * a) ** (steps - 1)
    torch.testing.assert_close(by_eta, (2 * away * slope * x0).sum())


@pytest.mark.parametrize("through", [1, 2, 3])
def test_truncation_forgets_the_steps_before(quadratic, through):
    eta = torch.tensor(0.3, requires_grad=True)
    x0 = torch.randn(5, 2)
    thought = unroll(quadratic, x0, steps=3, step_size=eta, through=through)
    torch.testing.assert_close(thought.x, 0.7**3 * x0)
    (by_theta,) = torch.autograd.grad(thought.x.sum(), quadratic.theta, retain_graph=True)
    torch.testing.assert_close(by_theta, torch.full((2,), 5 * (1 - 0.7**through)))
    (by_eta,) = torch.autograd.grad(thought.x.sum(), eta)
    torch.testing.assert_close(by_eta, -through * 0.7**2 * x0.sum())
    assert len(thought.visited) == len(thought.energies) == through
    torch.testing.assert_close(thought.visited[-1], 0.7**2 * x0)
    torch.testing.assert_close(thought.energies[-1], (0.7**2 * x0).square().sum(1) / 2)


def test_of_the_first_order_only_energies_depend_on_parameters(quadratic):
    # E = |x - θ|²/2 at θ = 0, whose derivative by θ is -x
    eta = torch.tensor(0.3, requires_grad=True)
    x0 = torch.randn(5, 2)
    thought = unroll(quadratic, x0, steps=3, step_size=eta, through=2, second=False)
    torch.testing.assert_close(thought.x, 0.7**3 * x0)
    assert not thought.x.requires_grad
    for energies, x in zip(thought.energies, (0.7 * x0, 0.7**2 * x0), strict=True):
        learnt = [quadratic.theta, eta]
        by_theta, by_eta = torch.autograd.grad(energies.sum(), learnt, allow_unused=True)
        torch.testing.assert_close(by_theta, -x.sum(0))
        assert by_eta is None


def test_thoughts_in_training_are_those_of_the_sampler():
    torch.manual_seed(0)
    energy = EnergyTransformer(1, patch=2, width=16, depth=1)
    torch.nn.init.normal_(energy.repair.weight)
    x, context = torch.randn(3, 1, 4, 4), torch.randn(3, 2, 4, 4)
    seeded = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    for temperature in (0.0, 0.1):
        chain = {"steps": 3, "step_size": 0.2, "temperature": temperature}
        expected = langevin(energy, x, context, **chain, generator=seeded()).x
        thought = unroll(energy, x, context, **chain, generator=seeded())
        torch.testing.assert_close(thought.x.detach(), expected)


def test_noise_has_the_heat_of_each_step(quadratic):
    quadratic.a = 0.0
    eta = torch.tensor([0.1, 0.4]).repeat(5000)[:, None]
    x = unroll(quadratic, torch.zeros(10_000, 2), steps=2, step_size=eta, temperature=0.5).x
    variance = x.detach().view(-1, 2, 2).var((0, 2))
    torch.testing.assert_close(variance, 2 * 2 * 0.5 * torch.tensor([0.1, 0.4]), rtol=0.05, atol=0)


def test_an_energy_that_is_the_error_is_calibrated():
    x, truth = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    error = (x - truth).square().flatten(1).sum(1) / 2
    assert calibration(Thought(x, [x], [error]), truth).item() == pytest.approx(0, abs=1e-10)
    off = Thought(x, [x, x], [error * math.e, error / math.e**2])
    assert calibration(off, truth).item() == pytest.approx((1 + 4) / 2, rel=1e-5)
