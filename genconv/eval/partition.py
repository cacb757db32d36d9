"""Partition functions: what turns an energy into a probability, and a likelihood in nats."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from genconv.energy import Energy
from genconv.sampling import Chain, Generators

__all__ = ["Estimate", "anneal", "log_mean_exp", "schedule"]

GIBBS = Chain(steps=1, sampler="gibbs")


@dataclass(frozen=True)
class Estimate:
    """An estimate of log Z, in nats.

    Attributes:
        value: the estimate; of annealed importance sampling, which errs on the low side, the log
            of the mean weight.
        low: lower end of its 95 % interval.
        high: upper end.
        effective: number of runs that as many equal weights would be worth; few mean that the
            interval is not to be trusted.
    """

    value: float
    low: float
    high: float
    effective: float


def anneal(
    at: Callable[[float], Energy],
    x: Tensor,
    betas: Iterable[float],
    *,
    chain: Chain = GIBBS,
    generator: Generators = None,
) -> Tensor:
    r"""Run annealed importance sampling and return the log weights (N,), float64.

    .. math:: \log w = \sum_k E_{β_{k-1}}(x_{k-1}) - E_{β_k}(x_{k-1}), \qquad
        \mathbb{E}[w] = Z_{β_K} / Z_{β_0}

    where x_k is a step of a chain at β_k from x_{k-1}, and x_0 was drawn from the first energy. So
    the mean of w is unbiased, and that of log w is at most log Z_K - log Z_0, most likely.
    From the last energy to the first, with exact draws of the last, the signs turn, and the same
    bound comes from above.

    Args:
        at: maps β to the energy there.
        x: (N, C, *space) exact draws of the energy at the first β; N runs side by side.
        betas: from one end of the way to the other, the ends included.
        chain: one move; Gibbs by default, for energies that know their conditionals.
        generator: source of the randomness of the moves.

    Reference:
        Neal: Annealed Importance Sampling, 2001, https://arxiv.org/abs/physics/9803008
    """
    log_w = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    with torch.no_grad():
        for before, after in pairwise(map(at, betas)):
            log_w += before(x).double() - after(x).double()
            x = chain.run(after, x, generator=generator).x
    return log_w


def log_mean_exp(log_w: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Estimate log E[w] from log weights (N,), with a bootstrap interval over the runs.

    Args:
        log_w: of independent runs.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    log_w = log_w.double().cpu()
    n = len(log_w)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(n, (resamples, n), generator=generator)
    means = torch.logsumexp(log_w[rows], 1) - math.log(n)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    total = torch.logsumexp(log_w, 0)
    effective = (2 * total - torch.logsumexp(2 * log_w, 0)).exp().item()
    return Estimate(total.item() - math.log(n), low, high, effective)


def schedule(steps: int) -> list[float]:
    """Return steps + 1 values of β from 0 to 1, dense at the end, where the energy changes most.

    A tenth of the steps leads to .5, three tenths to .9, the others to 1.

    Reference:
        Salakhutdinov, Murray: On the Quantitative Analysis of Deep Belief Networks, 2008, whose
        14,500 are 500, 4,000 and 10,000.
    """
    a, b = round(0.1 * steps), round(0.4 * steps)
    parts = [(0.0, 0.5, a), (0.5, 0.9, b - a), (0.9, 1.0, steps - b)]
    return [lo + (hi - lo) * i / n for lo, hi, n in parts for i in range(n)] + [1.0]
