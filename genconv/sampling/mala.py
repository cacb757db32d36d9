"""The Metropolis-adjusted Langevin algorithm: Langevin steps, some refused, so the law is exact."""

from collections.abc import Callable

from torch import Tensor

from genconv.sampling.gradient import Generators
from genconv.sampling.hmc import MetropolisResult, trajectories
from genconv.sampling.schedule import Knots, value_at

__all__ = ["mala"]


def mala(
    energy: Callable[..., Tensor],
    x: Tensor,
    y: Tensor | None = None,
    *,
    steps: int,
    step_size: Knots,
    temperature: Knots = 1.0,
    generator: Generators = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> MetropolisResult:
    r"""Run Metropolis-adjusted Langevin dynamics, whose law is exactly exp(-E(x) / T) / Z.

    A step proposes what `langevin` would do,

    .. math:: x^* = x - η ∇E(x) + \sqrt{2 η T}\, ξ, \qquad ξ \sim N(0, I),

    and goes there with the probability

    .. math:: \min\left(1, \frac{e^{-E(x^*)/T} q(x | x^*)}{e^{-E(x)/T} q(x^* | x)}\right), \qquad
        q(b | a) ∝ e^{-|b - a + η ∇E(a)|^2 / 4 η T}.

    This is one leapfrog step of length ε = sqrt(2 η) from the momentum sqrt(T) ξ, and that ratio is
    its exp(-ΔH / T), which is how it is computed here: the two densities would be large numbers
    that nearly cancel. As in `hmc`, nothing may clamp or project.

    Args:
        energy: maps (N, C, *space), and labels where given, to energies (N,).
        x: (N, C, *space) start of the chains; not changed.
        y: (N,) labels handed to a class-conditional energy.
        steps: number of proposals, each of one gradient.
        step_size: η, one number or (step, value) knots, see `genconv.sampling.value_at`.
        temperature: T > 0, one number or knots.
        generator: source of the randomness; see `langevin`.
        callback: called after each step with the number of steps done and x.

    Returns:
        The chains' end and what happened on the way; an acceptance of .57 is a good one where x has
        many dimensions.

    Raises:
        ValueError: a temperature is not positive.

    References:
        Roberts, Tweedie: Exponential convergence of Langevin distributions, 1996; Roberts,
        Rosenthal: Optimal scaling of discrete approximations to Langevin diffusions, 1998
    """
    return trajectories(
        energy,
        x,
        y,
        steps=steps,
        length=lambda step: (2 * value_at(step_size, step)) ** 0.5,
        leapfrog_steps=1,
        temperature=temperature,
        persistence=0.0,
        generator=generator,
        callback=callback,
    )
