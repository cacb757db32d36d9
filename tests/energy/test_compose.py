"""Composed energies against closed forms: products, mixtures, negations of Gaussians."""

import math

import pytest
import torch
from torch import nn

from genconv.checkpoint import Trained, read, write
from genconv.energy import (
    Constraint,
    Energy,
    Given,
    Mixture,
    Negation,
    Product,
    ResNetEnergy,
    Tempered,
    UNetEnergy,
)
from genconv.energy.compose import mean_energies
from genconv.errors import UserError
from genconv.sampling import Chain, frozen, langevin

CHAINS = 20_000


class Gaussian(Energy):
    """E(x) = (x - m)' P (x - m) / 2 + constant."""

    def __init__(self, mean, precision, constant=0.0):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))
        self.precision = nn.Parameter(torch.tensor(precision))
        self.constant = constant

    def forward(self, x, y=None):
        d = x - self.mean
        return (d @ self.precision * d).sum(1) / 2 + self.constant


A = ([1.0, -1.0], [[2.0, 0.6], [0.6, 1.0]])
B = ([-0.5, 2.0], [[0.5, -0.1], [-0.1, 0.4]])


def check_law(energy, mean, precision, eta=0.2, temperature=1.0, steps=100):
    """Compare chains with the Gaussian that unadjusted steps have as their law.

    With precision P a step is x' = (I - ηP)(x - m) + m + noise, whose stationary covariance is
    T (P (I - ηP/2))⁻¹; tolerances are four standard errors.
    """
    mean, precision = torch.tensor(mean).double(), torch.tensor(precision).double()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(CHAINS, 2, generator=generator)
    x = langevin(
        energy, start, steps=steps, step_size=eta, temperature=temperature, generator=generator
    ).x.double()
    expected = temperature * (precision @ (torch.eye(2) - eta / 2 * precision)).inverse()
    variance = expected.diagonal()
    assert ((x.mean(0) - mean).abs() < 4 * (variance / CHAINS).sqrt()).all()
    # the variance of an empirical covariance of Gaussians
    noise = ((variance[:, None] * variance + expected**2) / CHAINS).sqrt()
    assert ((x.T.cov() - expected).abs() < 4 * noise).all()


def natural(*terms):
    """Add up precisions and precision-weighted means of (weight, (mean, precision))."""
    p = sum(w * torch.tensor(precision) for w, (_, precision) in terms)
    h = sum(w * torch.tensor(precision) @ torch.tensor(mean) for w, (mean, precision) in terms)
    return torch.linalg.solve(p, h).tolist(), p.tolist()


def test_product_of_gaussians():
    check_law(Product([Gaussian(*A), Gaussian(*B)]), *natural((1, A), (1, B)))


def test_an_energy_of_weight_0_is_not_computed():
    def never(x):
        raise AssertionError("computed all the same")

    a, x = Gaussian(*A), torch.randn(3, len(A[0]))
    torch.testing.assert_close(Product([a, never], [1, 0])(x), a(x))
    torch.testing.assert_close(Product([never], [0], base=a)(x), a(x))


def test_weighted_product_of_gaussians():
    energy = Product([Gaussian(*A), Gaussian(*B)], [0.5, 1.5])
    check_law(energy, *natural((0.5, A), (1.5, B)))


def test_independent_attributes_over_a_base_are_each_met_and_nothing_is_counted_twice():
    # p(u) p(v | a) and p(u | b) p(v) over p(u) p(v): exactly p(u | b) p(v | a)
    plain, a, b = ([0.0, 0.0], [1.0, 1.0]), ([0.0, 3.0], [1.0, 4.0]), ([-2.0, 0.0], [3.0, 1.0])

    def diagonal(law):
        return Gaussian(law[0], torch.diag(torch.tensor(law[1])).tolist())

    energy = Product([diagonal(a), diagonal(b)], base=diagonal(plain))
    check_law(energy, [-2.0, 3.0], [[3.0, 0.0], [0.0, 4.0]])
    three = Product([diagonal(a), diagonal(b), diagonal(plain)], base=diagonal(plain))
    x = torch.randn(9, 2)
    torch.testing.assert_close(three(x), energy(x))


def test_negation_divides_by_a_power():
    energy = Product([Gaussian(*A), Negation(Gaussian(*B), 0.7)])
    check_law(energy, *natural((1, A), (-0.7, B)))
    x = torch.randn(9, 2)
    torch.testing.assert_close(energy(x), Product([Gaussian(*A), Gaussian(*B)], [1, -0.7])(x))


def test_negation_with_a_margin_takes_away_one_of_two_modes():
    # p(x | not b) of a mixture is its other component, exactly, from the ratio of the two
    b, c = Gaussian(*B), Gaussian(*A)
    log_odds = math.log(0.3 / 0.7) + (torch.logdet(b.precision) - torch.logdet(c.precision)) / 2
    both = Mixture([b, c], [0.3, 0.7], [torch.logdet(e.precision).item() / 2 for e in (b, c)])
    ratio = Product([b, c], [1, -1])
    x = 3 * torch.randn(50, 2)
    left = Product([both, Negation(ratio, margin=log_odds.item())])(x) - c(x)
    torch.testing.assert_close(left, left[:1].expand(50), atol=1e-4, rtol=0)


def test_negation_with_a_margin_leaves_the_unlike_in_peace():
    negation = Negation(Gaussian(*A), 2.0, margin=4.0, temperature=0.5)
    near, far = torch.tensor([A[0]]), torch.tensor([[30.0, 30.0]])
    assert negation(near).item() == pytest.approx(8, abs=0.01)
    assert negation(far).item() == pytest.approx(0, abs=1e-6)
    moved = langevin(negation, far, steps=5, step_size=1.0, temperature=0.0).x
    assert torch.equal(moved, far)


def test_tempered_gaussian_is_wider():
    mean, precision = A
    check_law(Tempered(Gaussian(*A), 2.5), mean, (torch.tensor(precision) / 2.5).tolist())
    # the same as a hotter chain
    x = torch.randn(9, 2)
    torch.testing.assert_close(Tempered(Gaussian(*A), 2.5)(x), Gaussian(*A)(x) / 2.5)


def test_constraint_multiplies_the_density():
    line = Constraint(lambda x: (x[:, 0] - 2).square() / 2, 3.0)
    law = ([2.0, 0.0], [[3.0, 0.0], [0.0, 0.0]])
    check_law(Product([Gaussian(*A), line]), *natural((1, A), (1, law)))


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_mixture_is_the_density_of_a_mixture(temperature):
    weights = [0.25, 0.75]
    parts = [Gaussian(*A, 3.0), Gaussian(*B, -1.0)]
    laws = [
        torch.distributions.MultivariateNormal(e.mean, precision_matrix=e.precision / temperature)
        for e in parts
    ]
    # log Z of exp(-E / T)
    free = [
        e.constant
        - temperature * torch.logdet(2 * torch.pi * temperature * e.precision.inverse()).item() / 2
        for e in parts
    ]
    x = 2 * torch.randn(50, 2)
    # where the densities themselves are no numbers of float32 any more, they are of float64
    logs = [law.log_prob(x).double() for law in laws]
    density = sum(w * log.exp() for w, log in zip(weights, logs, strict=True))
    energy = Mixture(parts, weights, free, temperature)(x)
    torch.testing.assert_close(-energy / temperature, density.log().float(), atol=1e-4, rtol=1e-4)


def test_mixture_without_temperature_is_the_least_energy():
    a, b = Gaussian(*A), Gaussian(*B, 7.0)
    x = torch.randn(20, 2)
    expected = torch.minimum(a(x), b(x) - 7)
    torch.testing.assert_close(Mixture([a, b], offsets=[0, 7], temperature=0.0)(x), expected)


def test_own_mean_energies_balance_components_whatever_their_constants():
    # both have the same entropy, one lies 40 lower
    a, b = Gaussian([-1.2, 0.0], A[1]), Gaussian([1.2, 0.0], A[1], -40.0)
    generator = torch.Generator().manual_seed(0)
    laws = [
        torch.distributions.MultivariateNormal(e.mean, precision_matrix=torch.tensor(A[1]))
        for e in (a, b)
    ]
    samples = [
        law.loc + torch.randn(50_000, 2, generator=generator) @ law.scale_tril.T for law in laws
    ]
    offsets = mean_energies([a, b], samples)
    assert offsets[0] - offsets[1] == pytest.approx(40, abs=0.05)
    start = 2 * torch.randn(10_000, 2, generator=generator)
    how = {"steps": 400, "step_size": 0.1, "generator": generator}
    x = langevin(Mixture([a, b], [0.3, 0.7], offsets), start, **how).x
    inside = torch.distributions.Normal(0, laws[0].covariance_matrix[0, 0].sqrt()).cdf(
        torch.tensor(1.2)
    )
    expected = (0.7 * inside + 0.3 * (1 - inside)).item()
    assert (x[:, 0] > 0).double().mean().item() == pytest.approx(expected, abs=0.025)
    without = langevin(Mixture([a, b], [0.3, 0.7]), start[:500], **how).x
    assert (without[:, 0] > 0).double().mean() > 0.9


def test_chains_from_noise_part_by_weight_zero_temperature_and_the_noise_offsets():
    a, b = Gaussian([-3.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]), Gaussian(*B, 5.0)
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    offsets = mean_energies([a, b], [noise] * 2)
    x = langevin(
        Mixture([a, b], offsets=offsets, temperature=0.0),
        noise,
        steps=150,
        step_size=0.1,
        temperature=0.0,
    ).x
    near_a = (x - a.mean).norm(dim=1) < 0.1
    near_b = (x - b.mean).norm(dim=1) < 0.5
    assert (near_a | near_b).all()
    assert 0.3 < near_a.double().mean() < 0.7


def test_given_is_a_class_and_without_a_label_everything():
    torch.manual_seed(0)
    energy = UNetEnergy(3, width=8, multipliers=(1, 2), blocks=1, classes=3)
    for parameter in energy.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(Given(energy, 2)(x), energy(x, torch.full((4,), 2)))
    torch.testing.assert_close(Given(energy, None)(x), energy(x, torch.full((4,), -1)))
    each = torch.stack([Given(energy, label)(x) for label in (None, 0, 1, 2)])
    assert torch.pdist(each).min() > 1e-4


def test_frozen_reaches_the_parts_and_puts_them_back():
    a = Gaussian(*A).train()
    composed = Product([Mixture([a, Gaussian(*B)]), lambda x: x.sum(1), Tempered(Given(a, 0), 2)])

    def energy_of(module):
        return [m.training for m in module.modules()] + [
            p.requires_grad for p in module.parameters()
        ]

    before = energy_of(composed)
    assert all(before)
    with frozen(composed):
        assert not any(energy_of(composed))
        assert not a.mean.requires_grad
    assert energy_of(composed) == before


def conditional():
    torch.manual_seed(0)
    return ResNetEnergy(3, widths=(4, 8), classes=3)


COMPOSED = {
    "and": lambda e: Product([Given(e, 0), Given(e, 1)], [1, 2], base=Given(e, None)),
    "or": lambda e: Mixture([Given(e, 0), Given(e, 2)], [1, 2], [0.5, 1.5], 0.1),
    "not": lambda e: Product([Given(e, 0), Negation(Given(e, 1), 0.5, margin=1.0)]),
    "hot": lambda e: Tempered(Given(e, 2), 3.0),
}


@pytest.mark.parametrize("make", COMPOSED.values(), ids=COMPOSED)
def test_a_composition_travels_in_a_file(make, tmp_path):
    energy, x = make(conditional()).eval(), torch.randn(4, 3, 8, 8)
    write(Trained(energy, Chain(3, 0.01), (3, 8, 8), 0), tmp_path)
    again = read(tmp_path, "cpu")
    assert torch.equal(again.energy(x), energy(x))
    assert again.classes is None
    assert again.sample(2, generator=torch.Generator().manual_seed(0)).shape == (2, 3, 8, 8)


def test_a_function_does_not_travel(tmp_path):
    energy = Product([conditional(), lambda x: x.flatten(1).sum(1)])
    with pytest.raises(UserError, match="make it a subclass of Energy"):
        write(Trained(energy, Chain(), (3, 8, 8), 0), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a: Product([]), "nothing to compose"),
        (lambda a: Product([a], [1, 2]), "1 energies need as many weights"),
        (lambda a: Product([a, a], [0, 0]), "leave nothing"),
        (lambda a: Mixture([a, a], offsets=[1]), "2 energies need as many offsets"),
        (lambda a: Mixture([a, a], [1, 0]), "must be positive"),
    ],
)
def test_wrong_numbers_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(Gaussian(*A))
