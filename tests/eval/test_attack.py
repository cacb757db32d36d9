"""Attacks find what is known to be the worst, and stay within what is allowed."""

import math

import pytest
import torch

from genconv.eval.attack import attack, margin, within
from genconv.seeds import stream


def streams(n, what="test"):
    return [stream(0, what, i) for i in range(n)]


def linear(w, b):
    """Two classes, w x + b against 0: the margin of class 0 is -(w x + b)."""

    def defence(x, generator):
        z = x.flatten(1) @ w + b
        return torch.stack([z, torch.zeros_like(z)], 1)

    return defence


def test_margins_are_above_zero_for_errors_alone():
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0], [0.0, 0.0, -1.0]])
    found = margin(logits, torch.tensor([1, 2, 0]))
    assert found.tolist() == [-1.0, 1.0, 0.0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_who_has_no_numbers_is_in_error(bad):
    logits = torch.tensor([[bad, 0.0], [0.0, bad], [1.0, 0.0]])
    for y in (0, 1):
        assert margin(logits, torch.full((3,), y))[:2].tolist() == [torch.inf] * 2


def test_what_makes_a_defence_give_no_numbers_is_the_worst():
    def fragile(x, generator):
        z = x.flatten(1).sum(1)
        z = torch.where(z > 0.5, torch.nan, 10 + z)
        return torch.stack([z, torch.zeros_like(z)], 1)

    def upwards(x, generator):
        return -fragile(x, generator)

    x, y = torch.zeros(3, 1, 2, 2), torch.ones(3, dtype=torch.int64)
    worst = attack(upwards, x, y, radius=0.5, steps=10, generator=streams(3))
    assert upwards(worst, None)[:, 0].isnan().any()


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_the_worst_of_a_linear_classifier_is_its_dual_norm(norm, dual):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3 * 4 * 4, generator=generator)
    x = torch.rand(6, 3, 4, 4, generator=generator) - 0.5
    y = torch.arange(6) % 2
    defence, radius = linear(w, 0.3), 0.2
    before = margin(defence(x, None), y)
    attacked = attack(defence, x, y, radius=radius, norm=norm, steps=20, generator=streams(6))
    # far from the edges of [-1, 1] the margin grows by the radius times the dual norm, for every x
    assert attacked.abs().max() < 1
    growth = margin(defence(attacked, None), y) - before
    torch.testing.assert_close(growth, torch.full((6,), radius * w.norm(dual)), rtol=2e-3, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nothing_leaves_the_ball_nor_the_range(norm):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 1, 5, 5, generator=generator).mul(2).sub(1)
    x[0] = 1.0
    far = x + torch.randn(x.shape, generator=generator)
    near = within(far, x, 0.3, norm)
    size = (near - x).flatten(1).norm(dim=1, p=math.inf if norm == "linf" else 2)
    assert (size <= 0.3 + 1e-6).all()
    assert near.abs().max() <= 1
    # what is allowed already is left where it is
    torch.testing.assert_close(within(near, x, 0.3, norm), near, rtol=0, atol=1e-6)
    assert torch.equal(within(x, x, 0.3, norm), x)


def test_accuracy_on_two_gaussians_is_as_the_normal_law_says():
    n, d, distance, radius = 4000, 16, 0.8, 0.1
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    direction = torch.ones(d) / d**0.5
    spread = 0.15
    x = (1 - 2 * y)[:, None] * direction * distance / 4
    x = x + spread * torch.randn(n, d, generator=generator)
    # class 0 is at +distance / 4 along the direction; Bayes' rule is the sign of that coordinate
    attacked = attack(
        linear(direction, 0.0), x, y, radius=radius, norm="l2", steps=10, generator=streams(n)
    )
    right = margin(linear(direction, 0.0)(attacked, None), y) < 0
    expected = torch.special.ndtr(torch.tensor((distance / 4 - radius) / spread)).item()
    error = (expected * (1 - expected) / n) ** 0.5
    assert abs(right.double().mean().item() - expected) < 4 * error


def test_a_random_defence_is_attacked_in_the_mean():
    w = torch.tensor([1.0, -2.0, 0.5, 0.25])

    def noisy(x, generator):
        # each single gradient points anywhere, their mean along w
        noise = torch.stack([torch.randn(4, generator=g) for g in generator])
        z = (x * (w + 3 * noise)).sum(1)
        return torch.stack([z, torch.zeros_like(z)], 1)

    x, y = torch.zeros(400, 4), torch.zeros(400, dtype=torch.int64)
    attacked = attack(noisy, x, y, radius=0.5, norm="l2", steps=60, generator=streams(400))
    # class 0 is right, so z has to fall
    assert (attacked @ w).mean() < -0.2 * 0.5 * w.norm()


def test_the_worst_image_on_the_way_is_kept():
    seen = []

    def wavy(x, generator):
        z = (30 * x).sin().sum((1, 2, 3))
        seen.append(-z.detach())
        return torch.stack([z, torch.zeros_like(z)], 1)

    x, y = torch.zeros(5, 1, 3, 3), torch.zeros(5, dtype=torch.int64)
    worst = attack(wavy, x, y, radius=0.5, steps=7, generator=streams(5))
    on_the_way = torch.stack(seen)
    wavy(worst, None)
    torch.testing.assert_close(seen[-1], on_the_way.amax(0))
    assert (on_the_way[-1] < on_the_way.amax(0)).any()


def test_an_image_is_attacked_alike_in_any_batch():
    x = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    y = torch.zeros(4, dtype=torch.int64)
    defence = linear(torch.linspace(-1, 1, 9), 0.0)
    whole = attack(defence, x, y, radius=0.1, steps=0, generator=streams(4))
    alone = attack(defence, x[2:3], y[2:3], radius=0.1, steps=0, generator=streams(4)[2:3])
    assert torch.equal(whole[2:3], alone)


def test_gradients_that_are_no_numbers_leave_the_image_in_range():
    def broken(x, generator):
        z = (x * 0).sum((1, 2, 3)).sqrt() / 0.0
        return torch.stack([z, torch.zeros_like(z)], 1)

    x = torch.zeros(2, 1, 2, 2)
    y = torch.zeros(2, dtype=torch.int64)
    found = attack(broken, x, y, radius=0.1, steps=3, generator=streams(2))
    assert found.isfinite().all()
    assert (found - x).abs().max() <= 0.1
