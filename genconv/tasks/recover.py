"""Recovery: draw the images that an energy finds likely among those that explain a measurement."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from genconv.sampling import Chain, Generators, draw_noise, value_at
from genconv.tasks.measurement import Measurement, nearest

__all__ = ["recover"]

# between these times a way is gone again: before, all is noise; after, little is left to be chosen
FROM, BACK_TO = 0.75, 0.2


def recover(
    energy: Callable[..., Tensor],
    chain: Chain,
    shape: tuple[int, ...],
    measurement: Measurement,
    measured: Tensor,
    y: Tensor | None = None,
    *,
    noise: float = 0.0,
    guidance: float = 1.0,
    returns: int = 0,
    start: Tensor | None = None,
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

    On the way from noise, time t = Σ η < 1, the chain of energy matching is a transport that would
    arrive at x₁ = x - (1 - t) ∇E(x). There it is the arrival that is corrected, with s = σ² / r²,
    r² = (1 - t)² / (t² + (1 - t)²) being how uncertain it is, and the step aimed at it. Known
    pixels so move along the straight line from their noise to their value, which is what the energy
    was taught to expect of them. Where σ = 0 and the chain is noiseless, what was measured is first
    carried to the rest of the image, by the covariance of a Gaussian x₁:

    .. math:: x_1 ← x_1 + g\, \frac{(1-t)^2}{t\, r^2}\, J A^T (A A^T)^{-1} (m - A x_1), \quad
        J = ∂x_1/∂x = I - (1 - t) ∇^2 E

    without which the rest is painted for itself at first. Chains with noise on the way are not so
    corrected, as burning in is all that they do; those shorter than t = 1 are paced to arrive.

    Another way to make known and unknown agree is to go some of the way again: `returns` times
    from t = 0.75 back to s = 0.2,

    .. math:: x ← \frac{s}{t} x + \sqrt{(1-s)^2 - (s/t)^2 (1-t)^2}\; ξ

    which is where an image that is at t was at s, but for its noise. All that has been painted by
    then is known when the rest is painted anew, and the draws keep their variety, which the
    covariance of one Gaussian takes from images that come in kinds. Each costs half of the way.

    Args:
        energy: see `genconv.sampling.langevin`.
        chain: how images are drawn from the energy.
        shape: (C, *space) of an image.
        measurement: A.
        measured: (N, ...) m, one for each image to draw; repeat it for several draws.
        y: (N,) labels handed to a class-conditional energy.
        noise: σ, in units where black is -1 and white 1.
        guidance: g, of which 1 is theory: more makes draws agree with what was measured, less makes
            them vary; 0 saves two thirds of the time on the way.
        returns: how often a noiseless way is gone again.
        start: (N, C, *space) guesses, which the chain refines as images, not as noise on the way:
            each step is corrected by what was measured, and there is no guidance.
        generator: see `langevin`.
        callback: see `langevin`.
        bf16: compute gradients in bfloat16.

    Returns:
        (N, C, *space) float32, about [-1, 1]; where σ = 0, A x = m up to rounding.

    References:
        Pokle et al.: Training-free Linear Image Inverses via Flows,
        https://arxiv.org/abs/2310.04432, whose J is a network's; that of an energy is symmetric.
        Lugmayr et al.: RePaint, https://arxiv.org/abs/2201.09865, which returns in small jumps.
    """
    arrived = start is not None
    if start is None:
        start = chain.noise(len(measured), shape, generator=generator, device=measured.device)

    def curvature(x: Tensor, w: Tensor) -> Tensor:
        return hessian_product(energy, x, y, w, bf16)

    correct = _Correction(chain, start, measurement, measured, noise, guidance, curvature)
    if arrived:
        correct.arrive()
    how = {"generator": generator, "bf16": bf16}
    x, done = start, 0

    def go(x: Tensor, begin: int, end: int) -> Tensor:
        def count(step: int, x: Tensor) -> None:
            if callback is not None:
                callback(done + step, x)

        part = replace(chain.after(begin), steps=end - begin)
        return part.run(energy, x, y, project=correct, callback=count, **how).x

    back, turn = correct.loop() if returns and not arrived else (0, 0)
    for begin in [0] + [back] * returns if turn else []:
        if begin:
            x = correct.go_back(x, begin, draw_noise(x.shape, generator, device=x.device))
        x = go(x, begin, turn)
        done += turn - begin
    return go(x, turn, chain.steps)


def hessian_product(
    energy: Callable[..., Tensor], x: Tensor, y: Tensor | None, w: Tensor, bf16: bool = False
) -> Tensor:
    """Return ∇²E(x) w, by differentiating twice.

    Args:
        energy: see `genconv.sampling.langevin`.
        x: (N, C, *space).
        y: (N,) labels, or None.
        w: (N, C, *space).
        bf16: compute in bfloat16 autocast.
    """
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            energies = energy(x) if y is None else energy(x, y)
        (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
        along = (gradient * w).sum()
        if not along.requires_grad:
            return torch.zeros_like(w)
        (product,) = torch.autograd.grad(along, x, materialize_grads=True)
    return product


class _Correction:
    """Corrects the chain's steps one after the other: it counts them, and keeps the state before.

    A chain that starts from `start` calls it once after every step.
    """

    def __init__(
        self,
        chain: Chain,
        start: Tensor,
        measurement: Measurement,
        measured: Tensor,
        noise: float,
        guidance: float,
        curvature: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self._chain, self._measurement, self._measured = chain, measurement, measured
        self._variance, self._guidance, self._curvature = noise**2, guidance, curvature
        self._before, self._step, self._time = start.clone(), 0, 0.0
        etas = [value_at(chain.step_size, step) for step in range(chain.steps)]
        self._pace = 1 / min(1.0, sum(etas)) if sum(etas) > 0 else 1.0
        # before each step
        self._times = [self._pace * sum(etas[:step]) for step in range(chain.steps)]

    def loop(self) -> tuple[int, int]:
        """Return the steps to which, and before which, the way goes back; 0, 0 if it is noisy."""
        turn = next((i for i, t in enumerate(self._times) if t > FROM - 1e-6), 0)
        back = next(i for i, t in enumerate(self._times) if t > BACK_TO - 1e-6 or i == turn)
        noisy = any(value_at(self._chain.temperature, step) > 0 for step in range(turn))
        nowhere = noisy or back == turn or self._times[turn] >= 1
        return (0, 0) if nowhere else (back, turn)

    def go_back(self, x: Tensor, step: int, noise: Tensor) -> Tensor:
        """Return x as it was before a step, but for the noise."""
        time = self._times[step]
        share = time / self._time
        rest = (1 - time) ** 2 - (share * (1 - self._time)) ** 2
        x = share * x + rest**0.5 * noise
        self._step, self._time, self._before = step, time, x.clone()
        return x

    def arrive(self) -> None:
        """Take the start for the way's end."""
        self._time = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        eta = value_at(self._chain.step_size, self._step)
        heat = value_at(self._chain.temperature, self._step)
        left = 1 - self._time
        # what rounding leaves of the way is none
        if left > 1e-6:
            carry = self._guidance > 0 and heat == 0 and self._variance == 0
            x = self._aim(x, min(1.0, eta * self._pace / left), left, carry)
        elif self._variance == 0:
            x = self._correct(x, 0.0)
        elif heat > 0:
            x = self._correct(x, self._variance / (eta * heat))
        self._step, self._time = self._step + 1, min(1.0, self._time + eta * self._pace)
        # the next step changes x in place
        self._before = x.clone()
        return x

    def _aim(self, x: Tensor, share: float, left: float, carry: bool) -> Tensor:
        arrival = self._before + (x - self._before) / share
        uncertain = left**2 / (left**2 + self._time**2)
        aim = arrival
        if carry:
            w = self._correct(arrival, 0.0) - arrival
            # at t = 0 theory divides by 0
            strength = self._guidance * left**2 / max(self._time, share * left) / uncertain
            aim = arrival + strength * (w - left * self._curvature(self._before, w))
        return x + share * (self._correct(aim, self._variance / uncertain) - arrival)

    def _correct(self, x: Tensor, s: float) -> Tensor:
        return nearest(self._measurement, x, self._measured, s)
