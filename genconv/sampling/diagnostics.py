"""Whether chains can be believed: their acceptance, their agreement, and what they are worth."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genconv.sampling.gradient import Generators
from genconv.sampling.mala import mala

__all__ = ["acceptance", "ess", "r_hat"]


def acceptance(
    energy: Callable[..., Tensor],
    x: Tensor,
    y: Tensor | None = None,
    *,
    step_size: float,
    temperature: float = 1.0,
    generator: Generators = None,
) -> Tensor:
    """Return the probability with which MALA would accept an unadjusted Langevin step from x.

    Near 1 the step is small enough for `langevin` to follow exp(-E(x) / T) closely; near 0 its
    chains follow another law, which depends on the step size.

    Args:
        energy: maps (N, C, *space), and labels where given, to energies (N,).
        x: (N, C, *space) where chains are; two gradients are computed there.
        y: (N,) labels handed to a class-conditional energy.
        step_size: η of the chain.
        temperature: T > 0 of the chain.
        generator: source of the step's noise; see `langevin`.

    Returns:
        (N,), each for one random step.
    """
    how = {"step_size": step_size, "temperature": temperature, "generator": generator}
    return mala(energy, x, y, steps=1, **how).info.acceptance


def r_hat(chains: Tensor, *, ranks: bool = True) -> Tensor:
    r"""Return the split R̂: how much wider all chains together are than each half of each alone.

    .. math:: \hat R^2 = \frac{n - 1}{n} + \frac{B}{n W}, \qquad
        \text{B/n the variance of means, W the mean of variances}

    It is 1 where chains agree; above 1.01 they have not run long enough, or found different modes.

    Args:
        chains: (draws, chains, ...), at least 4 draws.
        ranks: replace values by normal scores of their ranks, and take the larger of the R̂ of
            these and of their distances from the median, which also sees chains of different
            width (Vehtari et al. 2021); otherwise the classic R̂ of the values themselves.

    Returns:
        float64 (...); NaN where nothing moves.

    Raises:
        ValueError: there are fewer than 4 draws.

    References:
        Gelman, Rubin 1992; Vehtari et al. 2021, https://arxiv.org/abs/1903.08008
    """
    halves = _halves(chains)
    if not ranks:
        return _r_hat(halves)
    ordered = _pooled(halves).sort(-1).values
    middle = ordered.shape[-1] // 2
    far = (halves - (ordered[..., middle - 1] + ordered[..., middle]) / 2).abs()
    return torch.maximum(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(far)))


def ess(chains: Tensor) -> Tensor:
    r"""Return the effective sample size of the bulk: so many independent draws are worth as much.

    .. math:: N / τ, \qquad τ = 1 + 2 \sum_t ρ_t

    with the autocorrelations ρ of all split chains together, of rank-normalised values, summed as
    long as pairs of neighbours stay positive (Geyer 1992).

    Args:
        chains: (draws, chains, ...), at least 4 draws; N = draws x chains.

    Returns:
        float64 (...); NaN where nothing moves.

    Raises:
        ValueError: there are fewer than 4 draws.

    Reference:
        Vehtari et al. 2021, https://arxiv.org/abs/1903.08008
    """
    z = _normal_scores(_halves(chains))
    n, m = z.shape[:2]
    covariance = _autocovariance(z).mean(1)
    within = covariance[0] * n / (n - 1)
    rho = 1 - (within - covariance) / (covariance[0] + z.mean(0).var(0))
    rho[0] = 1
    even, odd = rho[: n // 2 * 2].unflatten(0, (-1, 2)).unbind(1)
    # the sum ends before the first pair that is not positive, and pairs may only fall; of the pair
    # at which it ends the first half still counts, once
    positive = (even + odd > 0).cumprod(0)
    positive[max(0, (n - 3) // 2) :] = 0
    last = torch.cat([torch.ones_like(positive[:1]), positive[:-1]]) - positive
    pairs = (even + odd).cummin(0).values * positive
    tau = -1 + 2 * pairs.sum(0) + (even.clamp(min=0) * last).sum(0)
    # chains that swing from side to side are worth more than N, within reason
    return n * m / tau.clamp(min=1 / math.log10(n * m))


def _halves(chains: Tensor) -> Tensor:
    """Cut each chain in two: (draws, chains, ...) to float64 (draws // 2, 2 chains, ...)."""
    draws = len(chains)
    if draws < 4:
        raise ValueError(f"a chain of {draws} draws says nothing of itself; take 4 or more")
    half = draws // 2
    return torch.cat([chains[:half], chains[draws - half :]], 1).double()


def _pooled(x: Tensor) -> Tensor:
    """Bring the draws of all chains to the end: (draws, chains, ...) to (..., draws * chains)."""
    return x.flatten(0, 1).movedim(0, -1).contiguous()


def _normal_scores(x: Tensor) -> Tensor:
    """Replace values by normal quantiles of their ranks among all chains' draws."""
    flat = _pooled(x)
    ordered = flat.sort(-1).values
    # ties share the mean of their ranks
    below, upto = (torch.searchsorted(ordered, flat, right=right) for right in (False, True))
    rank = (below + upto + 1) / 2
    scores = torch.special.ndtri((rank.double() - 0.375) / (flat.shape[-1] + 0.25))
    return scores.movedim(-1, 0).reshape(x.shape)


def _r_hat(x: Tensor) -> Tensor:
    n = len(x)
    return ((n - 1) / n + x.mean(0).var(0) / x.var(0).mean(0)).sqrt()


def _autocovariance(x: Tensor) -> Tensor:
    """Return Σ (x_i - m)(x_{i+t} - m) / n of each chain at every lag t, as x (draws, ...)."""
    n = len(x)
    spectrum = torch.fft.rfft(x - x.mean(0), 2 * n, dim=0)
    return torch.fft.irfft(spectrum.abs().square(), 2 * n, dim=0)[:n] / n
