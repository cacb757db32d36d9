"""Thinking: an energy taught so that descending it leads to the answer."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from genconv.checkpoint import Trained
from genconv.energy import Energy, beginning, context_of
from genconv.errors import UserError
from genconv.sampling import Chain, Draw, Generators, Knots, ReplayBuffer, draw_noise
from genconv.seeds import derive, stream
from genconv.training.module import EnergyModule
from genconv.training.unroll import calibration, unroll

__all__ = ["Thinking", "conceal"]

# contexts are stored at a quarter of their size, as noise leaves [-1, 1]
REACH = 4.0


class Thinking(EnergyModule):
    r"""Creates the training of an energy E(x | c) through its own optimisation.

    A context c is an image x* that was spoilt, by noise or by a hole. A candidate begins near what
    is known, see `genconv.energy.beginning`, and descends

    .. math:: x_{t+1} = x_t - m η ∇E(x_t | c) + \sqrt{2 m η T}\, ξ

    for 1 to `k` steps. Candidates are then put back into a replay buffer, from which most updates
    go on with them: thoughts come to be longer than `k`, and of random length even where `k` is 1.
    m, random for each image, and T keep the energy smooth around its paths.

    The descent ends where a candidate is what the energy makes of it, x = f(x, c). In the last
    `through` steps of an update, so at all places by which thoughts come, f is taught the truth,

    .. math:: |f(x_t, c) - x^*|^2

    which is the gradient of the error of the fixed point, with the inverse of I - ∂f/∂x left out:
    no second derivative. With `unrolled` the squared error of where the descent ends is added,
    differentiated through those steps, and so through ∇E, and η is learnt.

    Either teaches the gradient alone. Another term teaches the energy its level,

    .. math:: λ \left(\log E(x_t | c) - \log \tfrac{1}{2} |x_t - x^*|^2\right)^2

    so that the energy of an answer says how wrong it is. The terms agree: the gradient of
    ½ E[|x - x*|² | c] points from the mean of the truths.

    Args:
        energy: one with a `context`, see `genconv.energy.EnergyTransformer`.
        chain: how answers are found; its step size is η, or where it begins. Once trained they are
            found by the finest steps that training saw, η / jitter.
        noise: least and greatest standard deviation of the noise in contexts, where black is -1 and
            white 1; each context has its own, uniformly from between them.
        hidden: share of the contexts that have a hole in place of the noise.
        k: most steps of an update.
        through: last steps that are taught.
        unrolled: differentiate the descent itself.
        jitter: m lies between 1 / jitter and jitter, geometrically.
        temperature: T in training.
        calibrate: λ.
        buffer_size: number of candidates in the replay buffer.
        restart: share of the candidates that begin anew, in new contexts, at each update.
        lr: learning rate of Adam, a number or (update, value) knots.
        betas: decay rates of Adam's moments.
        seed: of contexts, candidates and the buffer.

    Raises:
        UserError: the energy takes no context, or a number makes no sense.

    Reference:
        Gladstone et al.: https://arxiv.org/abs/2507.02092, for the unrolled descent; Fung et al.:
        JFB, https://arxiv.org/abs/2103.12803, for fixed points without the inverse.
    """

    def __init__(
        self,
        energy: Energy,
        chain: Chain = Chain(steps=16, step_size=0.5, temperature=0.0),  # noqa: B008 - frozen
        noise: tuple[float, float] = (0.2, 0.5),
        hidden: float = 0.0,
        k: int = 1,
        through: int = 1,
        unrolled: bool = False,
        jitter: float = 2.0,
        temperature: float = 0.0,
        calibrate: float = 0.01,
        buffer_size: int = 512,
        restart: float = 0.3,
        lr: Knots = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        seed: int = 0,
    ) -> None:
        if not hasattr(energy, "context"):
            raise UserError(f"thinking needs an energy with a context, not {type(energy).__name__}")
        if not isinstance(chain.step_size, int | float) or not chain.step_size > 0:
            raise UserError(f"the step size must be one positive number, not {chain.step_size}")
        if not 1 <= through <= k or not jitter >= 1 or not 0 <= hidden <= 1:
            raise UserError("thinking needs 1 <= through <= k, jitter >= 1 and a share hidden in "
                            "[0, 1]")  # fmt: skip
        if not 0 <= noise[0] <= noise[1] < math.inf:
            raise UserError(f"noise is [least, greatest], not {list(noise)}")
        super().__init__(energy, chain, k, buffer_size, restart, False, lr, betas, False, seed)
        self.noise, self.hidden, self.through, self.unrolled = noise, hidden, through, unrolled
        self.jitter, self.temperature, self.calibrate = jitter, temperature, calibrate
        self.log_step = nn.Parameter(torch.tensor(math.log(chain.step_size)), unrolled)

    @property
    def draws(self) -> bool:
        return False

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
        repaired = []

        def judged(x: Tensor, context: Tensor) -> Tensor:
            energies, f = self.energy.judge(x, context)
            repaired.append(f)
            return energies

        thought = unroll(
            judged,
            x,
            context,
            steps=steps,
            step_size=self.log_step.exp() * self.jitter ** (2 * m - 1),
            temperature=self.temperature,
            through=self.through,
            second=self.unrolled,
            generator=self.generator,
        )
        taught = repaired[-len(thought.visited) :]
        aim = torch.stack([(f - truth).square().mean() for f in taught]).mean()
        error = (thought.x - truth).square().mean()
        level = calibration(thought, truth)
        loss = aim + self.calibrate * level + (error if self.unrolled else 0)
        # one that has left the numbers goes on from what is known
        lost = self.lost(thought.x.detach()).view(one)
        end = torch.where(lost, context[:, : x.shape[1]], thought.x.detach())
        self.buffer.write(draw, packed(end, truth, context))
        self.log("psnr", 10 * torch.log10(4 / error.detach()), prog_bar=True)
        self.log_dict({"loss": loss, "loss/aim": aim, "loss/calibration": level})
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
        """Return thoughts on a batch, a row each: what is known, 0, 1, 2, 4, ... steps on, truth.

        As many rows as give n images or fewer.
        """
        chain = self.trained(tuple(batch[0].shape[1:])).chain
        shown = {2**i for i in range(chain.steps.bit_length())} | {chain.steps}
        truth = batch[0][: max(1, n // (3 + len(shown)))]
        context = self._spoilt(truth, generator)
        noise = chain.noise(len(truth), truth.shape[1:], generator=generator, device=truth.device)
        x = beginning(context, noise)
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
        context = self._spoilt(x, self.generator)
        rows = packed(beginning(context, noise), x, context)
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
        least, greatest = self.noise
        share = draw_noise(one, generator, draw=torch.rand, device=x.device)
        level = least + (greatest - least) * share
        noisy = x + level * draw_noise(x.shape, generator, device=x.device)
        known = ~(conceal(x, generator) & hole)
        return context_of(torch.where(hole, x, noisy), known)


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
