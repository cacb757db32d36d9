"""Measurements against dense linear algebra and against other programs' blurring and shrinking."""

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from genconv.tasks.measurement import Mask, Separable, blurring, greying, nearest, shrinking


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SHAPE = (3, 4, 6)
MEASUREMENTS = {
    "mask": (Mask(noise(1, *SHAPE[1:]) > 0), SHAPE),
    "shrinking": (shrinking(SHAPE, 2), SHAPE),
    "voxels": (shrinking((1, 4, 2, 4), 2), (1, 4, 2, 4)),
    "sequence": (shrinking((2, 9), 3), (2, 9)),
    "greying": (greying(SHAPE), SHAPE),
    "blurring": (blurring(SHAPE, 0.7), SHAPE),
    "identity": (Separable([None] * 3), SHAPE),
}


def dense(measurement, shape):
    """The matrix A, one column for each value of an image."""
    one = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).unflatten(1, shape)
    return measurement(one).flatten(1).T


@pytest.mark.parametrize("name", MEASUREMENTS)
@pytest.mark.parametrize("s", [0.0, 0.3])
def test_explains_as_dense_matrices_do(name, s):
    measurement, shape = MEASUREMENTS[name]
    a, x = dense(measurement, shape), noise(5, *shape, seed=1)
    y = measurement(x)
    torch.testing.assert_close(y.flatten(1), x.flatten(1) @ a.T)
    z = noise(*y.shape, seed=2) if s else y
    inverse = a.T @ torch.linalg.pinv(a @ a.T + s * torch.eye(len(a)).double())
    expected = (z.flatten(1) @ inverse.T).unflatten(1, shape)
    # the matrices themselves are float32
    torch.testing.assert_close(measurement.explain(z, s), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mask", "shrinking", "voxels", "sequence", "greying"])
def test_the_nearest_explanation_is_exact_and_least(name):
    measurement, shape = MEASUREMENTS[name]
    x, true = noise(5, *shape).float(), noise(5, *shape, seed=1).float()
    y = measurement(true)
    found = nearest(measurement, x, y)
    assert (measurement(found) - y).abs().max() < 1e-5
    # it has moved along rows of A only, at right angles to all that leaves y as it is
    away = true - found
    assert ((found - x) * away).flatten(1).sum(1).abs().max() < 1e-3
    assert away.flatten(1).norm(dim=1).min() > 0.1


def test_shrinking_takes_means_of_blocks():
    x = noise(2, 3, 8, 12).float()
    torch.testing.assert_close(shrinking((3, 8, 12), 4)(x), F.avg_pool2d(x, 4))
    x = noise(2, 1, 4, 8, 8).float()
    torch.testing.assert_close(shrinking((1, 4, 8, 8), 2)(x), F.avg_pool3d(x, 2))


@pytest.mark.parametrize("width", [0.6, 1.0, 3.0])
def test_blurring_is_that_of_scipy(width):
    x = noise(1, 1, 8, 8)
    # 3.0 reaches farther than the image, which mirrors itself again
    expected = torch.from_numpy(gaussian_filter(x[0, 0].numpy(), width, mode="reflect"))
    torch.testing.assert_close(blurring((1, 8, 8), width)(x)[0, 0], expected, rtol=1e-5, atol=1e-5)


def test_greying_is_the_luma():
    x = noise(2, 3, 4, 4)
    expected = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(greying((3, 4, 4))(x), expected)
    grey = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(greying((3, 4, 4))(grey), grey[:, :1])
