"""Laws that are known exactly, and tests of samples against them."""

import math

import numpy as np
import torch
from scipy import stats


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(variance):
    """The energy of N(0, variance I)."""
    return lambda x: x.square().flatten(1).sum(1) / (2 * variance)


def check_mean(values, expected):
    """A z-test at 4 standard errors of the mean of independent values."""
    z = (values.mean() - expected) / (values.std() / math.sqrt(len(values)))
    assert abs(z) < 4, f"{float(values.mean()):.6g} is {float(z):.1f} SE from {expected:.6g}"


def check_moments(x, mean, variance):
    """A z-test at 4 standard errors of the mean and the variance of Gaussian samples."""
    n = x.numel()
    assert abs(x.mean() - mean) < 4 * math.sqrt(variance / n)
    assert abs(x.var() - variance) < 4 * variance * math.sqrt(2 / n)


class DoubleWell:
    """The law of E(x) = (x² - a)² / b on a line, by quadrature; lopsided by a slope."""

    def __init__(self, a=1.0, b=1.0, slope=0.3):
        self.a, self.b, self.slope = a, b, slope
        self.grid = np.linspace(-6, 6, 200_001)
        density = np.exp(-self(torch.from_numpy(self.grid)[:, None]).numpy())
        cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
        self._cdf = cdf / cdf[-1]

    def __call__(self, x):
        return ((x.square() - self.a).square() / self.b + self.slope * x).flatten(1).sum(1)

    def cdf(self, x):
        return np.interp(x, self.grid, self._cdf)

    def sample(self, n, seed=0):
        u = torch.rand(n, 1, generator=seeded(seed), dtype=torch.float64).numpy()
        return torch.from_numpy(np.interp(u, self._cdf, self.grid))


def p_value(x, cdf):
    """Kolmogorov-Smirnov of independent samples x (N, 1)."""
    return stats.kstest(x.flatten().double().numpy(), cdf).pvalue
