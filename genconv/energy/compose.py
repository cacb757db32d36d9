"""Energies made of energies: and, or, not, hotter, and any function as a constraint."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from genconv.energy.energy import Energy, widen

__all__ = ["Constraint", "Given", "Mixture", "Negation", "Product", "Tempered", "mean_energies"]

Function = Callable[..., Tensor]


class Given(Energy):
    """Creates E(x | y), with y the same always, as an energy of x alone.

    Args:
        energy: a conditional energy.
        label: the class; or, for an energy with a context, that of every x, (N, C + 1, *space), or
            of all of them, (1, C + 1, *space), which no file holds; None asks for E(x).
    """

    def __init__(self, energy: Energy, label: int | Tensor | None) -> None:
        super().__init__()
        self.energy = energy
        if isinstance(label, Tensor):
            self.register_buffer("label", label, persistent=False)
        else:
            self.label = label

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch; y is not looked at."""
        if self.label is None:
            return self.energy(x)
        if isinstance(self.label, Tensor):
            return self.energy(x, self.label.expand(len(x), *self.label.shape[1:]))
        return self.energy(x, torch.full((len(x),), self.label, device=x.device))


class Constraint(Energy):
    r"""Creates the energy weight · f(x) of any function: a wish that no training knew of.

    It multiplies p(x) by exp(-weight f(x)). In a file it cannot be written down, as a function is
    code.

    Args:
        function: maps (N, C, *space) to (N,), differentiable; small where the wish is fulfilled.
        weight: how strong the wish is.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], weight: float = 1.0) -> None:
        super().__init__()
        self.function, self.weight = function, weight

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch; y is not looked at."""
        return self.weight * widen(self.function(x))


class Product(Energy):
    r"""Creates *and*: a product of densities is a sum of energies.

    .. math:: E(x) = \sum_i w_i E_i(x) + (1 - \sum_i w_i)\, E_0(x)

    Without a `base` E₀ it is the plain product of experts Σ w_i E_i. What all experts know (that an
    image shows one shape on a dark ground) then counts once for each of them. Experts that are
    independent of each other for given x have p(x|a,b) ∝ p(x|a) p(x|b) / p(x): with the energy of
    everything as `base` that is this class with unit weights. A negative weight is *not*.

    Energies that were trained by transport need the base, or weights whose sum is 1: -E is the
    potential of a velocity, and only such sums of velocities are again one for the same noise.

    Args:
        energies: modules or plain functions, (N, C, *space) to (N,).
        weights: w_i, 1 each by default; an energy of weight 0 is not computed.
        base: E₀; None leaves its term out.

    References:
        Hinton: Training products of experts by minimizing contrastive divergence, 2002;
        Du, Li, Mordatch: Compositional visual generation with energy based models,
        https://arxiv.org/abs/2004.06030
    """

    def __init__(
        self,
        energies: Sequence[Function],
        weights: Sequence[float] | None = None,
        base: Function | None = None,
    ) -> None:
        super().__init__()
        self.parts = _parts(energies)
        self.weights = _numbers(weights, 1.0, self.parts, "weights")
        if base is None and not any(self.weights):
            raise ValueError("weights that are all 0 leave nothing of a product without a base")
        self.base = None if base is None else _part(base)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch (N, C, *space)."""
        weighted = zip(self.weights, self.parts, strict=True)
        terms = [w * _ask(part, x, y) for w, part in weighted if w != 0]
        rest = 1 - sum(self.weights)
        if self.base is not None and rest != 0:
            terms.append(rest * _ask(self.base, x, y))
        return torch.stack(terms).sum(0)


class Mixture(Energy):
    r"""Creates *or*: a sum of densities, each in its own basin.

    .. math:: E(x) = -T \log \sum_i w_i \exp(-(E_i(x) - c_i) / T)

    At temperature T the component i gets the share w_i if c_i = -T log Z_i, its free energy, which
    training leaves open. As log Z = -<E>/T + entropy, where <E> is the mean energy of the
    component's own samples, c_i = <E>_i is right up to T times the differences of entropy, which
    are none between components that are as diverse as one another. `mean_energies` finds them.

    Chains that come from noise and do not cross between the basins part where they are still noise:
    then <E>_i over the noise is where to begin, and shares follow c_i rather than w_i, which moves
    the boundary by T log w_i only; the larger c_i, the more of i.

    Args:
        energies: modules or plain functions, (N, C, *space) to (N,).
        weights: w_i > 0, of any sum; equal by default.
        offsets: c_i, 0 each by default.
        temperature: T, that of the chain at its end; 0 is the least of the energies.
    """

    def __init__(
        self,
        energies: Sequence[Function],
        weights: Sequence[float] | None = None,
        offsets: Sequence[float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.parts = _parts(energies)
        weights = _numbers(weights, 1 / len(self.parts), self.parts, "weights")
        if min(weights) <= 0:
            raise ValueError(f"the weights of a mixture must be positive, not {weights}")
        self.log_weights = [math.log(w) for w in weights]
        self.offsets = _numbers(offsets, 0.0, self.parts, "offsets")
        self.temperature = temperature

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch (N, C, *space)."""
        numbers = zip(self.parts, self.log_weights, self.offsets, strict=True)
        t = self.temperature
        terms = torch.stack([_ask(part, x, y) - c - t * w for part, w, c in numbers])
        return terms.amin(0) if t == 0 else -t * torch.logsumexp(-terms / t, 0)


class Negation(Energy):
    r"""Creates *not*: what is likely under an energy becomes unlikely.

    .. math:: -α E(x), \qquad\text{or with a margin}\qquad α T \log(1 + \exp((m - E(x)) / T))

    1/p(x)^α alone is no density: it is largest where an image is least like anything, and a chain
    falls for ever. Hence Du et al. only multiply it to another concept, with α < 1, as
    p(x|a, not b) ∝ p(x|a) / p(x|b)^α. The margin bounds it: where E(x) > m, x is already unlike it
    and is left in peace. For the ratio E = E_b - E_c to the energy of all that is not b this is the
    exact p(x|not b) ∝ p(x) (1 - P(b|x)), as P(b|x) = 1 / (1 + exp((E(x) - m) / T)) with m = T log
    P(b) / P(c); where b is rare, the energy of everything will do for E_c.

    Args:
        energy: module or plain function, (N, C, *space) to (N,).
        weight: α.
        margin: m; None is -α E.
        temperature: T, the width of the margin.

    Reference:
        Du, Li, Mordatch: https://arxiv.org/abs/2004.06030
    """

    def __init__(
        self,
        energy: Function,
        weight: float = 1.0,
        margin: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.part = _part(energy)
        self.weight, self.margin, self.temperature = weight, margin, temperature

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch (N, C, *space)."""
        energies = _ask(self.part, x, y)
        if self.margin is None:
            return -self.weight * energies
        t = self.temperature
        return self.weight * t * nn.functional.softplus((self.margin - energies) / t)


class Tempered(Energy):
    """Creates E(x) / T, the energy of p(x)^(1/T): T > 1 flattens, T < 1 sharpens.

    Args:
        energy: module or plain function, (N, C, *space) to (N,).
        temperature: T.
    """

    def __init__(self, energy: Function, temperature: float) -> None:
        super().__init__()
        self.part, self.temperature = _part(energy), temperature

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch (N, C, *space)."""
        return _ask(self.part, x, y) / self.temperature


@torch.no_grad()
def mean_energies(energies: Sequence[Function], samples: Sequence[Tensor]) -> list[float]:
    """Return the mean energy of each component's own samples, as offsets of a `Mixture`.

    Args:
        energies: K of them.
        samples: K batches (N, C, *space), one for each energy.
    """
    return [energy(x).mean().item() for energy, x in zip(energies, samples, strict=True)]


def _part(energy: Function) -> nn.Module:
    # a function has no weights to freeze, but takes part like a module that has
    return energy if isinstance(energy, nn.Module) else Constraint(energy)


def _parts(energies: Sequence[Function]) -> nn.ModuleList:
    if not energies:
        raise ValueError("there is nothing to compose")
    return nn.ModuleList(_part(energy) for energy in energies)


def _numbers(
    values: Sequence[float] | None, default: float, parts: nn.ModuleList, name: str
) -> list[float]:
    values = [default] * len(parts) if values is None else [float(v) for v in values]
    if len(values) != len(parts):
        raise ValueError(f"{len(parts)} energies need as many {name}, not {len(values)}")
    return values


def _ask(part: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    return part(x) if y is None else part(x, y)
