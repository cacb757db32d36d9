"""Recovery: draw the images that an energy finds likely among those that explain a measurement."""

from collections.abc import Callable

from torch import Tensor

from genconv.sampling import Chain, Generators, value_at
from genconv.tasks.measurement import Measurement, nearest

__all__ = ["recover"]


def recover(
    energy: Callable[..., Tensor],
    chain: Chain,
    shape: tuple[int, ...],
    measurement: Measurement,
    measured: Tensor,
    y: Tensor | None = None,
    *,
    noise: float = 0.0,
    generator: Generators = None,
    callback: Callable[[int, Tensor], None] | None = None,
    bf16: bool = False,
) -> Tensor:
    r"""Draw images x from p(x | m), for a measurement m = A x + σ ξ.

    It is the chain that draws images from noise, and what was measured corrects each step. After
    arrival (see below) the correction is a projection onto {x: A x = m} where σ = 0, so that the
    chain is Langevin dynamics of the unknown rest, whose law is p(x | m) ∝ exp(-E(x) / T) there;
    where σ > 0 it is the implicit step of the added energy

    .. math:: \frac{T}{2 σ^2} |A x - m|^2, \quad\text{so that } x ← x + A^T (A A^T + s I)^{-1}
        (m - A x), \quad s = σ^2 / η T

    which no small σ makes unstable. The draws have the bias of the step size, as all of `langevin`.

    On the way from noise, time t = Σ η < 1, the chain of energy matching moves with the velocity v
    of a transport that would arrive at x + (1 - t) v. There it is the arrival that is corrected,
    with s = σ² / r², r² = (1 - t)² / (t² + (1 - t)²) being how uncertain it is, and the step is
    aimed at the corrected arrival. Known pixels so move along the straight line from their noise to
    their value, which is what the energy was taught to expect of them. To other energies this is
    one way of burning in; chains shorter than t = 1 are paced so that they arrive.

    Args:
        energy: see `genconv.sampling.langevin`.
        chain: how images are drawn from the energy.
        shape: (C, *space) of an image.
        measurement: A.
        measured: (N, ...) m, one for each image to draw; repeat it for several draws.
        y: (N,) labels handed to a class-conditional energy.
        noise: σ, in units where black is -1 and white 1.
        generator: see `langevin`.
        callback: see `langevin`.
        bf16: compute gradients in bfloat16.

    Returns:
        (N, C, *space) float32, about [-1, 1]; where σ = 0, A x = m up to rounding.

    Reference:
        Pokle et al.: Training-free Linear Image Inverses via Flows,
        https://arxiv.org/abs/2310.04432, whose correction this is with the identity in place of the
        arrival's Jacobian.
    """
    start = chain.noise(len(measured), shape, generator=generator, device=measured.device)
    correct = _Correction(chain, start, measurement, measured, noise)
    return chain.run(
        energy, start, y, project=correct, generator=generator, callback=callback, bf16=bf16
    ).x


class _Correction:
    """Corrects the chain's steps one after the other: it counts them, and keeps the state before.

    A chain that starts from `start` calls it once after every step.
    """

    def __init__(
        self, chain: Chain, start: Tensor, measurement: Measurement, measured: Tensor, noise: float
    ) -> None:
        self._chain, self._measurement, self._measured = chain, measurement, measured
        self._variance = noise**2
        self._before, self._step, self._time = start.clone(), 0, 0.0
        length = sum(value_at(chain.step_size, step) for step in range(chain.steps))
        self._pace = 1 / min(1.0, length) if length > 0 else 1.0

    def __call__(self, x: Tensor) -> Tensor:
        eta = value_at(self._chain.step_size, self._step)
        heat = value_at(self._chain.temperature, self._step)
        left = 1 - self._time
        # what rounding leaves of the way is none
        if left > 1e-6:
            x = self._aim(x, min(1.0, eta * self._pace / left), left)
        elif self._variance == 0:
            x = self._correct(x, 0.0)
        elif heat > 0:
            x = self._correct(x, self._variance / (eta * heat))
        self._step, self._time = self._step + 1, min(1.0, self._time + eta * self._pace)
        # the next step changes x in place
        self._before = x.clone()
        return x

    def _aim(self, x: Tensor, share: float, left: float) -> Tensor:
        arrival = self._before + (x - self._before) / share
        uncertain = left**2 / (left**2 + self._time**2)
        corrected = self._correct(arrival, self._variance / uncertain)
        return x + share * (corrected - arrival)

    def _correct(self, x: Tensor, s: float) -> Tensor:
        return nearest(self._measurement, x, self._measured, s)
