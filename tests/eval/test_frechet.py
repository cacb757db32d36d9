"""Fréchet distances against closed forms (F1 to F7), and moments that merge."""

import numpy as np
import pytest
import torch

from genconv.errors import UserError
from genconv.eval import Moments, frechet_distance, frechet_infinity


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def spd(d, seed=0):
    x = normal(d, 2 * d, seed=seed)
    return x @ x.T / d + 0.1 * torch.eye(d, dtype=torch.float64)


def law(covariance, mean=None):
    d = len(covariance)
    return Moments(10**6, torch.zeros(d, dtype=torch.float64) if mean is None else mean, covariance)


def test_covariances_that_commute():
    basis = torch.linalg.qr(normal(8, 8)).Q
    a, b = normal(8, seed=1).exp(), normal(8, seed=2).exp()
    mean = normal(8, seed=3)
    expected = mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    left, right = law((basis * a) @ basis.T), law((basis * b) @ basis.T, mean)
    assert frechet_distance(left, right) == pytest.approx(float(expected), rel=1e-8)


def test_a_scaled_covariance():
    sigma = spd(12)
    expected = float((1.7 - 1) ** 2 * sigma.trace())
    assert frechet_distance(law(sigma), law(1.7**2 * sigma)) == pytest.approx(expected, rel=1e-8)


def test_a_covariance_carried_by_a_symmetric_map():
    sigma, t = spd(10), spd(10, seed=1)
    gap = t - torch.eye(10, dtype=torch.float64)
    expected = float((gap @ sigma @ gap).trace())
    assert frechet_distance(law(sigma), law(t @ sigma @ t)) == pytest.approx(expected, rel=1e-8)


def test_two_dimensions_by_hand():
    a, b = spd(2), spd(2, seed=1)
    cross = ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
    expected = float(a.trace() + b.trace() - 2 * cross)
    assert frechet_distance(law(a), law(b)) == pytest.approx(expected, rel=1e-8)


def test_symmetry_rotation_translation_and_scale():
    x, y = normal(400, 16), normal(300, 16, seed=1) @ spd(16)
    distance = frechet_distance(Moments.of(x), Moments.of(y))
    basis, shift = torch.linalg.qr(normal(16, 16, seed=2)).Q, normal(16, seed=3) * 10
    same = pytest.approx(distance, rel=1e-8)
    assert frechet_distance(Moments.of(y), Moments.of(x)) == same
    moved = Moments.of(x @ basis + shift), Moments.of(y @ basis + shift)
    assert frechet_distance(*moved) == same
    assert frechet_distance(Moments.of(3 * x), Moments.of(3 * y)) / 9 == same


def test_fewer_rows_than_dimensions_are_at_no_distance_from_themselves():
    moments = Moments.of(normal(100, 512))
    assert abs(frechet_distance(moments, moments)) < 1e-3


def test_bias_of_a_finite_sample_and_its_removal():
    d, n = 32, 500
    exact = law(torch.eye(d, dtype=torch.float64))
    draws = [normal(n, d, seed=seed) for seed in range(200)]
    biased = np.mean([frechet_distance(Moments.of(x), exact) for x in draws])
    assert biased == pytest.approx(d / n + d * (d + 1) / (4 * n), rel=0.03)
    many = normal(20_000, d, seed=99)
    assert abs(frechet_infinity(many, exact)) < 0.02
    assert frechet_distance(Moments.of(many[:2000]), exact) > 0.1


def test_infinity_keeps_a_true_distance_and_its_seed():
    exact = law(torch.eye(8, dtype=torch.float64))
    x = normal(5000, 8) + 1
    assert frechet_infinity(x, exact) == pytest.approx(8, abs=0.3)
    assert frechet_infinity(x, exact) == frechet_infinity(x, exact)
    assert frechet_infinity(x, exact) != frechet_infinity(x, exact, seed=1)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_shards_add_up_to_the_whole(offset):
    x = normal(1000, 16) @ spd(16) + offset
    parts = [Moments.of(part) for part in x.split([1, 2, 300, 697])]
    merged = parts[0] + parts[1] + parts[2] + parts[3]
    whole = Moments.of(x)
    assert merged.n == whole.n == 1000
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-6, atol=1e-9)
    expected = torch.from_numpy(np.cov(x.numpy(), rowvar=False))
    torch.testing.assert_close(whole.covariance, expected, rtol=1e-6, atol=1e-9)


def test_pieces_do_not_change_the_moments(monkeypatch):
    x = normal(1000, 8) @ spd(8) + 5
    whole = Moments.of(x)
    monkeypatch.setattr("genconv.eval.frechet.PIECE", 99)
    pieces = Moments.of(x)
    assert pieces.n == 1000
    torch.testing.assert_close(pieces.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(pieces.covariance, whole.covariance, rtol=1e-10, atol=1e-12)


def test_moments_are_float64_whatever_comes_in():
    x = (normal(500, 4) + 1e3).float()
    by_numpy = torch.from_numpy(np.cov(x.double().numpy().T))
    for features in (x, x.double()):
        torch.testing.assert_close(Moments.of(features).covariance, by_numpy, rtol=1e-12, atol=0)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="two images"):
        frechet_distance(Moments.of(normal(1, 4)), Moments.of(normal(5, 4)))
    with pytest.raises(UserError, match="same network"):
        frechet_distance(Moments.of(normal(5, 4)), Moments.of(normal(5, 3)))
    with pytest.raises(UserError, match="same network"):
        _ = Moments.of(normal(5, 4)) + Moments.of(normal(5, 3))
    with pytest.raises(UserError, match="features"):
        Moments.of(normal(5))
    with pytest.raises(UserError, match="finite"):
        Moments.of(normal(5, 4) / 0)
    with pytest.raises(UserError, match="more samples"):
        frechet_infinity(normal(10, 4), Moments.of(normal(5, 4)))
