"""Recovery against Gaussians, whose conditional law given any linear measurement is known."""

import math

import pytest
import torch

from genconv.sampling import Chain
from genconv.tasks.measurement import Mask, Separable, blurring, greying, nearest, shrinking
from genconv.tasks.recover import hessian_product, recover

TEMPERATURE = 0.5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Gaussian:
    """E = T (x - μ)ᵀ P (x - μ) / 2 at temperature T, so that p is N(μ, P⁻¹)."""

    def __init__(self, shape, seed=0):
        self.shape, d = shape, math.prod(shape)
        g = generator(seed)
        rotation, _ = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))
        self.precision = (rotation * torch.linspace(0.5, 2, d)) @ rotation.T
        self.mean = torch.randn(d, generator=g, dtype=torch.float64)

    def __call__(self, x):
        away = x.flatten(1) - self.mean.to(x.dtype)
        return TEMPERATURE * (away @ self.precision.to(x.dtype) * away).sum(1) / 2


HOLE = torch.ones(1, 1, 4, 4, dtype=torch.bool)
HOLE[..., 1:3, 1:3] = False
FRAMES = torch.ones(1, 1, 3, 2, 2, dtype=torch.bool)
FRAMES[:, :, 1] = False
EXACT = {
    "a box is inpainted": (Mask(HOLE), (1, 4, 4)),
    "a missing frame is": (Mask(FRAMES), (1, 3, 2, 2)),
    "an image is upscaled": (shrinking((1, 4, 4), 2), (1, 4, 4)),
    "voxels are": (shrinking((1, 4, 2, 2), 2), (1, 4, 2, 2)),
    "a grey image gets colours": (greying((3, 2, 2)), (3, 2, 2)),
}


def dense(measurement, shape):
    one = torch.eye(math.prod(shape), dtype=torch.float64).unflatten(1, shape)
    return measurement(one).flatten(1).T


def draws(energy, measurement, noise, eta, n, steps):
    measured = measurement(torch.randn(1, *energy.shape, generator=generator(1)))
    chain = Chain(steps, eta / TEMPERATURE, TEMPERATURE)
    x = recover(
        energy,
        chain,
        energy.shape,
        measurement,
        measured.repeat(n, *[1] * (measured.ndim - 1)),
        noise=noise,
        generator=generator(2),
    )
    return x.flatten(1).double(), measured.flatten().double(), x


def check(x, mean, covariance, bias=0.0):
    """Mean within 5 standard errors, covariance within 5 of the largest and the bias allowed."""
    n, widest = len(x), covariance.diagonal().max()
    error = (x.mean(0) - mean).abs()
    assert (error <= 5 * (covariance.diagonal() / n).sqrt() + bias + 1e-5).all()
    assert (x.T.cov() - covariance).abs().max() < widest * (5 * math.sqrt(2 / n) + bias)


@pytest.mark.parametrize("name", EXACT)
def test_exact_measurements_leave_the_conditional_law(name):
    measurement, shape = EXACT[name]
    energy, eta = Gaussian(shape), 0.1
    x, measured, images = draws(energy, measurement, 0.0, eta, 10_000, steps=120)
    assert (measurement(images) - measured.view(measurement(images[:1]).shape)).abs().max() < 1e-5
    a = dense(measurement, shape)
    a = a[a.abs().sum(1) > 0]
    known = torch.linalg.pinv(a) @ measured[dense(measurement, shape).abs().sum(1) > 0]
    free = torch.linalg.svd(a)[2][len(a) :].T
    precision = free.T @ energy.precision @ free
    mean = known - free @ precision.inverse() @ free.T @ energy.precision @ (known - energy.mean)
    # unadjusted steps are a little too wide, by a known amount
    wide = precision @ (torch.eye(len(precision)) - eta / 2 * precision)
    check(x, mean, free @ wide.inverse() @ free.T)


@pytest.mark.parametrize("name", ["denoise", "deblur"])
def test_noisy_measurements_leave_the_posterior(name):
    shape, sigma = (1, 2, 4), 0.5
    measurement = blurring(shape, 0.8) if name == "deblur" else Separable([None] * 3)
    energy, eta = Gaussian(shape), 0.05
    x, measured, _ = draws(energy, measurement, sigma, eta, 10_000, steps=240)
    a = dense(measurement, shape)
    precision = energy.precision + a.T @ a / sigma**2
    seen = energy.precision @ energy.mean + a.T @ measured / sigma**2
    # a step of .05 is not short beside σ² = .25: an implicit step's law is narrower by a tenth
    check(x, precision.inverse() @ seen, precision.inverse(), bias=0.1)


def test_little_noise_is_as_stable_as_none():
    shape, sigma = (1, 2, 4), 1e-3
    x, measured, _ = draws(Gaussian(shape), Separable([None] * 3), sigma, eta=0.5, n=1000, steps=50)
    assert (x - measured).abs().max() < 5 * sigma


def test_the_known_goes_straight_from_noise_to_its_value():
    measurement, shape = shrinking((1, 4, 4), 2), (1, 4, 4)
    energy = Gaussian(shape)
    measured = measurement(torch.randn(3, *shape, generator=generator(1)))
    chain = Chain(15, 0.1, [(6, 0.0), (10, 0.1)])
    start = measurement(chain.noise(3, shape, generator=generator(2)))
    path = []
    recover(
        energy,
        chain,
        shape,
        measurement,
        measured,
        generator=generator(2),
        callback=lambda step, x: path.append(measurement(x.clone())),
    )
    for step, seen in enumerate(path, 1):
        t = min(1.0, step * 0.1)
        torch.testing.assert_close(seen, (1 - t) * start + t * measured, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 7])
def test_short_chains_arrive_too(steps):
    measurement, shape = Mask(HOLE), (1, 4, 4)
    measured = measurement(torch.randn(3, *shape, generator=generator(1)))
    x = recover(Gaussian(shape), Chain(steps, 0.01, 0.0), shape, measurement, measured)
    assert (measurement(x) - measured).abs().max() < 1e-5


def test_without_noise_in_the_chain_the_posterior_mode_of_the_way_is_found():
    # before arrival, E = 0 leaves each noise where it is, and the measurement draws it half-way:
    # with r² = 1 at the beginning and one step, s = σ² = 1
    shape = (1, 2, 2)
    identity = Separable([None] * 3)
    measured = torch.randn(3, *shape, generator=generator(1))
    start = Chain(1, 1.0, 0.0).noise(3, shape, generator=generator(2))
    x = recover(
        lambda x: 0 * x.flatten(1).sum(1),
        Chain(1, 1.0, 0.0),
        shape,
        identity,
        measured,
        noise=1.0,
        generator=generator(2),
    )
    torch.testing.assert_close(x, nearest(identity, start, measured, 1.0))
    torch.testing.assert_close(x, (start + measured) / 2)


def test_what_is_known_is_carried_to_the_rest_as_a_gaussian_would():
    # one noiseless step from t = 0 to 1, where r² = 1: it arrives at (I - P) x + P μ, J = I - P
    shape = (1, 4, 4)
    energy, measurement = Gaussian(shape), Mask(HOLE)
    measured = measurement(torch.randn(3, *shape, generator=generator(1)))
    chain = Chain(1, 1.0, 0.0)
    start = chain.noise(3, shape, generator=generator(2)).flatten(1).double()
    precision = TEMPERATURE * energy.precision
    arrival = start - (start - energy.mean) @ precision
    known = HOLE.flatten().double()
    w = (measured.flatten(1) - arrival) * known
    for guidance in (0.0, 1.0, 0.5):
        x = recover(
            energy,
            chain,
            shape,
            measurement,
            measured,
            guidance=guidance,
            generator=generator(2),
        )
        expected = arrival + guidance * (w - w @ precision)
        expected = torch.where(known > 0, measured.flatten(1).double(), expected)
        torch.testing.assert_close(x.flatten(1).double(), expected, rtol=1e-4, atol=1e-4)


def test_products_with_the_hessian():
    energy, x = Gaussian((1, 2, 4)), torch.randn(3, 1, 2, 4, generator=generator())
    w = torch.randn(3, 1, 2, 4, generator=generator(1))
    expected = TEMPERATURE * w.flatten(1).double() @ energy.precision
    found = hessian_product(energy, x, None, w).flatten(1).double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    flat = hessian_product(lambda x: x.flatten(1).sum(1), x, None, w)
    assert (flat == 0).all()


def flat(x):
    return 0 * x.flatten(1).sum(1)


ALL = Mask(torch.ones(1, 1, 1, 1, dtype=torch.bool))


@pytest.mark.parametrize("returns", [0, 3])
def test_returns_are_where_the_way_was(returns):
    # all is known: the straight line from noise to the values, of which every state's law is known
    measured = torch.full((50, 1, 20, 20), 3.0)
    chain = Chain(12, 0.1, [(11, 0.0), (12, 0.01)])
    seen = {}
    x = recover(
        flat,
        chain,
        (1, 20, 20),
        ALL,
        measured,
        guidance=0.0,
        returns=returns,
        generator=generator(),
        callback=lambda step, x: seen.update({step: x.clone()}),
    )
    assert torch.allclose(x, measured, atol=1e-5)
    times = [0.1 * i for i in range(1, 9)] + [0.1 * i for i in range(3, 9)] * returns
    assert list(seen) == list(range(1, len(times) + 5))
    for step, t in enumerate(times, 1):
        assert abs(seen[step].mean() - 3 * t) < 4 * (1 - t) / 20_000**0.5
        assert abs(seen[step].std() / (1 - t) - 1) < 4 / 40_000**0.5
    if returns:
        # of the noise at 0.7 that of the way before is (0.2 / 0.8) (1 - 0.8) / (1 - 0.2)
        a, b = seen[7] - 3 * 0.7, seen[13] - 3 * 0.7
        assert abs((a * b).mean() / 0.3**2 - 0.0625) < 4 / 20_000**0.5


def test_noisy_ways_do_not_return():
    steps = []
    recover(
        flat,
        Chain(12, 0.1, 0.5),
        (1, 4, 4),
        ALL,
        torch.zeros(2, 1, 4, 4),
        returns=3,
        callback=lambda step, x: steps.append(step),
    )
    assert steps == list(range(1, 13))
