"""Thinking: an energy taught so that descending it leads to the answer."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genconv.checkpoint import Trained
from genconv.energy import Energy, context_of
from genconv.errors import UserError
from genconv.sampling import Chain, Draw, Generators, Knots, ReplayBuffer, draw_noise
from genconv.seeds import derive, stream
from genconv.training.module import EnergyModule

__all__ = ["Thinking", "Thought", "calibration", "conceal", "unroll"]

# contexts are stored at a quarter of their size, as noise leaves [-1, 1]
REACH = 4.0


class Thinking(EnergyModule):
    r"""Creates the training of an energy E(x | c) through its own optimisation.

    A context c is an image x* that was spoilt, by noise or by a hole. A candidate begins as noise
    and descends

    .. math:: x_{t+1} = x_t - m η ∇E(x_t | c) + \sqrt{2 m η T}\, ξ

    for 1 to `k` steps; the loss is the squared error of where it ends, differentiated through the
    last `through` steps, and so through ∇E. Candidates are then put back into a replay buffer,
    from which most updates go on with them: thoughts come to be longer than `k`. The step size η is
    learnt; m, random for each image, and T keep the energy smooth around its paths.

    That teaches the gradient alone. The second term teaches the energy its level,

    .. math:: λ \left(\log E(x_t | c) - \log \tfrac{1}{2} |x_t - x^*|^2\right)^2

    so that the energy of an answer says how wrong it is. Both terms agree: the gradient of
    ½ E[|x - x*|² | c] points from the mean of the truths.

    Args:
        energy: one with a `context`, see `genconv.energy.EnergyTransformer`.
        chain: how answers are found; its step size is where η begins. Once trained they are found
            by the finest steps that training saw, η / jitter.
        noise: standard deviation of the noise in contexts, where black is -1 and white 1.
        hidden: share of the contexts that have a hole in place of the noise.
        k: most steps of an update.
        through: last steps that are differentiated; fewer truncate.
        jitter: m lies between 1 / jitter and jitter, geometrically.
        temperature: T in training.
        calibrate: λ.
        learn_step: whether η is learnt.
        buffer_size: number of candidates in the replay buffer.
        restart: share of the candidates that begin anew, in new contexts, at each update.
        lr: learning rate of Adam, a number or (update, value) knots.
        betas: decay rates of Adam's moments.
        seed: of contexts, candidates and the buffer.

    Raises:
        UserError: the energy takes no context, or a number makes no sense.

    Reference:
        Gladstone et al.: https://arxiv.org/abs/2507.02092
    """

    def __init__(
        self,
        energy: Energy,
        chain: Chain = Chain(steps=16, step_size=0.5, temperature=0.0),  # noqa: B008 - frozen
        noise: float = 0.4,
        hidden: float = 0.0,
        k: int = 3,
        through: int = 2,
        jitter: float = 2.0,
        temperature: float = 0.0,
        calibrate: float = 0.01,
        learn_step: bool = True,
        buffer_size: int = 512,
        restart: float = 0.5,
        lr: Knots = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        seed: int = 0,
    ) -> None:
        if not hasattr(energy, "context"):
            raise UserError(f"thinking needs an energy with a context, not {type(energy).__name__}")
        if not isinstance(chain.step_size, int | float) or not chain.step_size > 0:
            raise UserError(f"the step size must be one positive number, not {chain.step_size}")
        if not 1 <= through <= k or not jitter >= 1 or not 0 <= hidden <= 1 or not noise >= 0:
            raise UserError("thinking needs 1 <= through <= k, jitter >= 1, noise >= 0 and a share "
                            "hidden in [0, 1]")  # fmt: skip
        super().__init__(energy, chain, k, buffer_size, restart, False, lr, betas, False, seed)
        self.noise, self.hidden, self.through = noise, hidden, through
        self.jitter, self.temperature, self.calibrate = jitter, temperature, calibrate
        self.log_step = nn.Parameter(torch.tensor(math.log(chain.step_size)), learn_step)

    def learners(self) -> list[tuple[list[nn.Parameter], Knots]]:
        return [([self.log_step, *self.energy.parameters()], self.lr)]

    def trained(self, shape: tuple[int, ...]) -> Trained:
        """Return what there is so far, its chain with the learnt step size."""
        found = super().trained(shape)
        return replace(found, chain=replace(self.chain, step_size=self._finest(self.log_step)))

    def _finest(self, log_step: Tensor) -> float:
        return log_step.exp().item() / self.jitter

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> Tensor:
        draw = self._problems(batch[0])
        x, truth, context = unpacked(draw.x, batch[0].shape[1])
        # not from the device, which would have to be waited for; the same on all ranks
        chance = stream(self.seed, "steps", self.global_step)
        steps = int(torch.randint(1, self.k + 1, (), generator=chance))
        one = [len(x)] + [1] * (x.ndim - 1)
        m = draw_noise(one, self.generator, draw=torch.rand, device=x.device)
        thought = unroll(
            self.energy,
            x,
            context,
            steps=steps,
            step_size=self.log_step.exp() * self.jitter ** (2 * m - 1),
            temperature=self.temperature,
            through=self.through,
            generator=self.generator,
        )
        error = (thought.x - truth).square().mean()
        level = calibration(thought, truth)
        loss = error + self.calibrate * level
        self.buffer.write(draw, packed(self._restarted(thought.x.detach()), truth, context))
        self.log("psnr", 10 * torch.log10(4 / error.detach()), prog_bar=True)
        self.log_dict({"loss": loss, "loss/error": error, "loss/calibration": level})
        age = self.buffer.age.float()
        self.log_dict({"buffer/age": age.mean(), "buffer/oldest": age.max()})
        self.log("step_size", self.log_step.exp())
        return loss

    def drawn(
        self,
        n: int,
        batch: tuple[Tensor, Tensor | None],
        *,
        generator: Generators = None,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Return thoughts on a batch, a row each: the context, after 0, 1, 2, 4, ... steps, truth.

        As many rows as give n images or fewer.
        """
        chain = self.trained(tuple(batch[0].shape[1:])).chain
        shown = {2**i for i in range(chain.steps.bit_length())} | {chain.steps}
        truth = batch[0][: max(1, n // (3 + len(shown)))]
        context = self._spoilt(truth, generator)
        x = chain.noise(len(truth), truth.shape[1:], generator=generator, device=truth.device)
        row = [context[:, : truth.shape[1]], x]

        def look(step: int, x: Tensor) -> None:
            if callback is not None:
                callback(step, x)
            if step in shown:
                row.append(x.clone())

        chain.run(self.energy, x, context, generator=generator, callback=look)
        return torch.stack([*row, truth], 1).flatten(0, 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what every objective does; the card has the step size of the averaged weights."""
        super().on_save_checkpoint(checkpoint)
        step_size = self._finest(checkpoint["state_dict"]["log_step"])
        checkpoint["genconv"]["chain"]["step_size"] = step_size

    def _problems(self, x: Tensor) -> Draw:
        """Borrow candidates, with their truths and contexts, the fresh ones from images x."""
        noise = self.chain.noise(len(x), x.shape[1:], generator=self.generator, device=x.device)
        rows = packed(noise, x, self._spoilt(x, self.generator))
        if self.buffer is None:
            self.buffer = ReplayBuffer(
                self.buffer_size,
                tuple(rows.shape[1:]),
                restart=self.restart,
                seed=derive(self.seed, "buffer", self.global_rank),
                device=self.device,
            )
            self.buffer.fill(lambda n, y: rows[torch.arange(n, device=x.device) % len(rows)])
        draw = self.buffer.draw(len(x))
        draw.x[: draw.fresh] = rows[: draw.fresh]
        return draw

    def _spoilt(self, x: Tensor, generator: Generators) -> Tensor:
        """Return contexts (N, C + 1, *space) of images x, noisy or with a hole."""
        one = (len(x), *[1] * (x.ndim - 1))
        hole = draw_noise(one, generator, draw=torch.rand, device=x.device) < self.hidden
        noisy = x + self.noise * draw_noise(x.shape, generator, device=x.device)
        known = ~(conceal(x, generator) & hole)
        return context_of(torch.where(hole, x, noisy), known)


class Thought(NamedTuple):
    """The end `x` (N, C, *space) of an unrolled descent, and the differentiable steps to it.

    `visited` holds the places (N, C, *space), detached, from which those steps were taken, and
    `energies` their energies (N,).
    """

    x: Tensor
    visited: list[Tensor]
    energies: list[Tensor]


def unroll(
    energy: Callable[..., Tensor],
    x: Tensor,
    context: Tensor | None = None,
    *,
    steps: int,
    step_size: Tensor | float,
    temperature: float = 0.0,
    through: int | None = None,
    generator: Generators = None,
) -> Thought:
    r"""Run Langevin dynamics whose end still depends on the energy's parameters.

    .. math:: x' = x - η ∇E(x | c) + \sqrt{2 η T}\, ξ

    Args:
        energy: differentiable twice.
        x: (N, C, *space) start.
        context: (N, ...) handed to the energy in the place of a label; None for none.
        steps: number of steps.
        step_size: η, a number or a tensor that broadcasts to x; may need a gradient.
        temperature: T.
        through: the last steps that the end is a function of; all by default.
        generator: source of the noise.
    """
    through = steps if through is None else min(through, steps)
    visited, energies = [], []
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        for left in range(steps, 0, -1):
            learns = left <= through
            e = energy(x) if context is None else energy(x, context)
            (gradient,) = torch.autograd.grad(e.sum(), x, create_graph=learns)
            if learns:
                visited.append(x.detach())
                energies.append(e)
            eta = step_size if learns or isinstance(step_size, float) else step_size.detach()
            x = x - eta * gradient
            if temperature > 0:
                noise = draw_noise(x.shape, generator, dtype=x.dtype, device=x.device)
                x = x + (2 * temperature * torch.as_tensor(eta).detach()) ** 0.5 * noise
    return Thought(x, visited, energies)


def calibration(thought: Thought, truth: Tensor) -> Tensor:
    """Return the mean squared log of energy over ½|x - x*|², of all visited places."""
    pairs = zip(thought.visited, thought.energies, strict=True)
    logs = [
        (e.log() - ((x - truth).square().flatten(1).sum(1) / 2).clamp_min(1e-6).log())
        for x, e in pairs
    ]
    return torch.stack(logs).square().mean()


def conceal(x: Tensor, generator: Generators = None) -> Tensor:
    """Return bool (N, 1, *space), true in a box of each image, of a quarter of its sides to all."""
    n, _, *space = x.shape
    hidden = torch.ones(n, 1, *space, dtype=torch.bool, device=x.device)
    for axis, side in enumerate(space, 2):
        share, place = draw_noise((n, 2), generator, draw=torch.rand, device=x.device).unbind(1)
        wide = (side * (0.25 + 0.75 * share)).round()
        first = (place * (side - wide + 1)).floor()
        along = torch.arange(side, device=x.device) - first[:, None]
        within = (along >= 0) & (along < wide[:, None])
        hidden = hidden & within.view(n, *[side if a == axis else 1 for a in range(1, x.ndim)])
    return hidden


def packed(x: Tensor, truth: Tensor, context: Tensor) -> Tensor:
    """Return what a buffer of images can hold of candidates, truths and contexts."""
    return torch.cat([x, truth, context / REACH], 1)


def unpacked(rows: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return candidates, truths and contexts, up to the buffer's grey levels."""
    x, truth, context = rows.split([channels, channels, channels + 1], 1)
    context = REACH * context
    return x, truth, context_of(context[:, :-1], context[:, -1:] > 0.5)
