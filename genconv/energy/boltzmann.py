"""Boltzmann machines: energies of stochastic units, the hidden ones of which are summed out."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, pi, prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genconv.energy.energy import Energy, widen
from genconv.errors import UserError

__all__ = ["RBM", "BoltzmannMachine", "Path", "log_sum", "states"]

# 2^24 states take seconds to minutes; 2^14 at once take megabytes
LARGEST, AT_ONCE = 24, 1 << 14

Noise = Callable[..., Tensor]


@dataclass(frozen=True)
class Path:
    """A way from independent units, about which everything is known, to a machine.

    Attributes:
        at: maps β in [0, 1] to the machine there; a Gibbs step of `at(0)` draws from it exactly.
        log_z: log Z of `at(0)`.
        binary: whether images are black and white, so that p(x) is a probability and no density.
        exact: log Z of `at(1)`, or None where there are too many states to sum over.
    """

    at: Callable[[float], Energy]
    log_z: float
    binary: bool
    exact: Callable[[], float] | None


class RBM(Energy):
    r"""Creates a restricted Boltzmann machine; E(x) is the free energy of its visible units.

    With binary units v = (x + 1) / 2 in {0, 1} and hidden units h in {0, 1}

    .. math:: E(v, h) = -b·v - c·h - v^T W h, \qquad
        F(v) = -\log \sum_h e^{-E(v, h)} = -b·v - \sum_j \log(1 + e^{c_j + (W^T v)_j})

    and with Gaussian units v = (x - b) / σ, where E(v, h) = |v|² / 2 - c·h - vᵀW h,

    .. math:: F(v) = \frac{|v|^2}{2} - \sum_j \log(1 + e^{c_j + (W^T v)_j})

    Args:
        shape: (C, *space) of an image.
        hidden: number of hidden units.
        units: `binary`, for pixels of -1 and 1, or `gaussian`, for any.
        sigma: σ, standard deviation of a Gaussian unit given the hidden ones.

    References:
        Hinton: A Practical Guide to Training Restricted Boltzmann Machines, 2010;
        Welling et al. (Gaussian units): Exponential Family Harmoniums, 2004
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        hidden: int = 500,
        units: Literal["binary", "gaussian"] = "binary",
        sigma: float = 0.5,
    ) -> None:
        super().__init__()
        self.shape, self.units, self.sigma = tuple(shape), units, sigma
        self.weight = nn.Parameter(0.01 * torch.randn(prod(shape), hidden))
        self.visible_bias = nn.Parameter(torch.zeros(prod(shape)))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the free energies (N,) of a batch (N, C, *space), also between -1 and 1."""
        v = self._units(x)
        summed = F.softplus(self._field(v)).sum(1)
        if self.units == "binary":
            return -(widen(v) * self.visible_bias).sum(1) - summed
        return widen(v).square().sum(1) / 2 - summed

    def resample(
        self, x: Tensor, y: Tensor | None = None, *, noise: Noise, temperature: float = 1.0
    ) -> Tensor:
        """Draw h given x, then x given h (block Gibbs); binary units are rounded first."""
        v = self._units(x)
        v = (v > 0.5).to(v.dtype) if self.units == "binary" else v
        h = _coins(self._field(v) / temperature, noise)
        drive = widen(h.to(v.dtype) @ self.weight.T)
        if self.units == "binary":
            v = _coins((drive + self.visible_bias) / temperature, noise)
            return (v * 2 - 1).to(x.dtype).view_as(x)
        v = drive + temperature**0.5 * noise(drive.shape, draw=torch.randn)
        return (self.visible_bias + self.sigma * v).to(x.dtype).view_as(x)

    def hidden_energy(self, h: Tensor) -> Tensor:
        """Return -log Σ_v exp(-E(v, h)), or of the integral over x, for states h (N, hidden)."""
        drive = h @ self.weight.T
        if self.units == "binary":
            summed = F.softplus(drive + self.visible_bias).sum(1)
        else:
            # the volume is that of x
            summed = (drive.square() + log(2 * pi * self.sigma**2)).sum(1) / 2
        return -h @ self.hidden_bias - summed

    def log_partition(self) -> float:
        """Return log Z, summing over all states of the smaller side.

        Raises:
            UserError: there are more than 2^24.
        """
        machine = copy.deepcopy(self).double().cpu()
        visible, hidden = self.weight.shape
        if self.units == "binary" and visible < hidden:
            return log_sum(lambda v: machine(v.view(-1, *self.shape) * 2 - 1), visible)
        return log_sum(machine.hidden_energy, hidden)

    def path(self, mean: Tensor) -> Path:
        """Return the way to this machine from independent units with a mean image (C, *space).

        On the way the biases of the visible units move from those of the mean image to their own,
        while all else grows with β from nothing.
        """
        visible, hidden = self.weight.shape
        base = self._bias_of(mean)

        def at(beta: float) -> RBM:
            with torch.device("meta"):  # no weights are drawn to be thrown away
                machine = type(self)(**self.arguments).eval()
            machine.weight = _fixed(beta * self.weight)
            machine.hidden_bias = _fixed(beta * self.hidden_bias)
            machine.visible_bias = _fixed(torch.lerp(base, self.visible_bias, beta))
            return machine

        if self.units == "binary":
            log_z = F.softplus(base.double()).sum().item()
        else:
            log_z = visible / 2 * log(2 * pi * self.sigma**2)
        fewest = hidden if self.units == "gaussian" else min(visible, hidden)
        exact = self.log_partition if fewest <= LARGEST else None
        return Path(at, log_z + hidden * log(2), self.units == "binary", exact)

    def _units(self, x: Tensor) -> Tensor:
        x = _flat(x, self.shape)
        return (x + 1) / 2 if self.units == "binary" else (x - self.visible_bias) / self.sigma

    def _field(self, v: Tensor) -> Tensor:
        return widen(v @ self.weight) + self.hidden_bias

    def _bias_of(self, mean: Tensor) -> Tensor:
        mean = mean.flatten().to(self.weight)
        return _logit(mean) if self.units == "binary" else mean


class BoltzmannMachine(Energy):
    r"""Creates a general Boltzmann machine of few units, all of which are tied to all others.

    .. math:: E(s) = -a·s - \sum_{i<j} s_i W_{ij} s_j, \qquad s = (v, h) \in \{0, 1\}^{D+H}, \quad
        F(v) = -\log \sum_h e^{-E(v, h)}

    with v = (x + 1) / 2. The sum over the hidden states is taken term by term, so there can be
    only few hidden units; without any the machine is fully visible.

    Args:
        shape: (C, *space) of an image.
        hidden: number of hidden units.

    Raises:
        UserError: more than 14 hidden units.

    Reference:
        Ackley, Hinton, Sejnowski: A Learning Algorithm for Boltzmann Machines, 1985
    """

    def __init__(self, shape: Sequence[int] = (1, 4, 4), hidden: int = 0) -> None:
        super().__init__()
        if hidden > 14:
            raise UserError(
                f"{hidden} hidden units of a general Boltzmann machine have too many states; "
                "take 14 at most, or an RBM"
            )
        self.shape, self.hidden = tuple(shape), hidden
        units = prod(shape) + hidden
        # only what lies above the diagonal counts
        self.weight = nn.Parameter(0.01 * torch.randn(units, units))
        self.bias = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the free energies (N,) of a batch (N, C, *space), also between -1 and 1."""
        return -torch.logsumexp(-self._joint((_flat(x, self.shape) + 1) / 2), 1)

    def resample(
        self, x: Tensor, y: Tensor | None = None, *, noise: Noise, temperature: float = 1.0
    ) -> Tensor:
        """Draw h given x, then every pixel in its turn given all else."""
        v = ((_flat(x, self.shape) > 0) * 1.0).to(x.dtype)
        odds = -self._joint(v) / temperature
        # of a categorical variable: the number of cumulative shares that a uniform one exceeds
        shares = torch.softmax(odds, 1).cumsum(1)[:, :-1]
        which = (noise((len(v), 1)) > shares).sum(1)
        s = torch.cat([v, states(self.hidden).to(v)[which]], 1)
        ties = self._ties()
        for i, uniform in enumerate(noise(v.shape).unbind(1)):
            field = widen(s @ ties[:, i]) + self.bias[i]
            s[:, i] = (uniform < torch.sigmoid(field / temperature)).to(s.dtype)
        return (s[:, : v.shape[1]] * 2 - 1).view_as(x)

    def log_partition(self) -> float:
        """Return log Z, summing over all states of the visible units.

        Raises:
            UserError: there are more than 2^24.
        """
        machine = copy.deepcopy(self).double().cpu()
        return log_sum(lambda v: machine(v.view(-1, *self.shape) * 2 - 1), prod(self.shape))

    def path(self, mean: Tensor) -> Path:
        """Return the way to this machine from independent units with a mean image; see `RBM`."""
        base = torch.cat([_logit(mean.flatten().to(self.bias)), self.bias.new_zeros(self.hidden)])

        def at(beta: float) -> BoltzmannMachine:
            with torch.device("meta"):
                machine = type(self)(**self.arguments).eval()
            machine.weight = _fixed(beta * self.weight)
            machine.bias = _fixed(torch.lerp(base, self.bias, beta))
            return machine

        exact = self.log_partition if prod(self.shape) <= LARGEST else None
        return Path(at, F.softplus(base.double()).sum().item(), True, exact)

    def _ties(self) -> Tensor:
        upper = self.weight.triu(1)
        return upper + upper.T

    def _joint(self, v: Tensor) -> Tensor:
        """Return E(v, h) (N, 2^H) of visible states (N, D) and every hidden one."""
        d = v.shape[1]
        v, h, ties = widen(v), states(self.hidden).to(v), self._ties()
        own = [
            -(s * a).sum(1) - (s @ w * s).sum(1) / 2
            for s, a, w in [(v, self.bias[:d], ties[:d, :d]), (h, self.bias[d:], ties[d:, d:])]
        ]
        return own[0][:, None] + own[1] - widen(v @ ties[:d, d:] @ h.T)


def states(n: int, first: int = 0, last: int | None = None) -> Tensor:
    """Return the states (2^n, n) of n binary units as 0 and 1, or those from first up to last."""
    numbers = torch.arange(first, 1 << n if last is None else last)
    return (numbers[:, None] >> torch.arange(n)) & 1


def log_sum(energy: Callable[[Tensor], Tensor], n: int) -> float:
    """Return log Σ exp(-energy(s)) over all states s of n binary units, in float64.

    Args:
        energy: maps states (N, n), float64 of 0 and 1, to energies (N,).
        n: at most 24.

    Raises:
        UserError: there are more units.
    """
    if n > LARGEST:
        raise UserError(f"2^{n} states are too many to sum over; estimate log Z by annealing")
    with torch.no_grad():
        parts = [
            torch.logsumexp(-energy(states(n, i, min(i + AT_ONCE, 1 << n)).double()), 0)
            for i in range(0, 1 << n, AT_ONCE)
        ]
    return torch.logsumexp(torch.stack(parts), 0).item()


def _flat(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(x.shape[1:]) != shape:
        raise ValueError(
            f"this Boltzmann machine takes images of shape {shape}, not {tuple(x.shape[1:])}"
        )
    return x.flatten(1)


def _fixed(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x.detach(), requires_grad=False)


def _coins(field: Tensor, noise: Noise) -> Tensor:
    """Return 1 with probability sigmoid(field), else 0."""
    return (noise(field.shape) < torch.sigmoid(field)).to(field.dtype)


def _logit(mean: Tensor) -> Tensor:
    # no pixel is certain: an independent one that never changes could not become the machine's
    return torch.logit((mean + 1) / 2, eps=5e-3)
