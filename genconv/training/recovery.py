"""Recovery matching: teach an energy that one step down it leads from a guess to the truth."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genconv.data.guess import Guess, guess
from genconv.data.holes import holes, moved
from genconv.energy import Energy
from genconv.errors import UserError
from genconv.sampling import Chain, Knots
from genconv.seeds import derive
from genconv.training.module import EnergyModule

__all__ = ["RecoveryMatching", "recovery_loss"]


class RecoveryMatching(EnergyModule):
    r"""Creates the energy whose gradient recovers what was missing.

    Holes are cut into the data x, and filled by a simple guess. From there, x₀, the missing pixels
    are to arrive at x by one step:

    .. math:: L = |∇E(x_0) + x - x_0|^2 / |x - x_0|^2

    over the missing pixels, for each image its own share: 1 is what the guess leaves.
    The minimum of the numerator is x₀ - ∇E(x₀) = E[x | x₀], the guess of least squared error. It is
    denoising score matching with a guess in place of noise, and needs no chains.
    `python -m genconv.edit inpaint --start interpolation` (or `smooth`, `grey`) takes the step.

    Where a part of the data themselves is hidden, by an object that is to be removed, say, the
    energy learns from the rest: what lies behind is neither seen nor counted, and the holes are
    that part itself, moved elsewhere.

    Args:
        energy: the energy to be taught; differentiable twice.
        chain: the step.
        masks: kinds of holes, see `genconv.data.holes.holes`; each update has the next of them.
        lr: learning rate of Adam, a number or (update, value) knots.
        betas: decay rates of Adam's moments.
        seed: of the holes.
        hidden: mask of the pixels that are never known, see `genconv.data.holes.holes`, in place of
            `masks`; of one image, or one clip, that is taken whole.
        start: the guess: `interpolation` by straight lines along the first spatial axis (time, of a
            video), `smooth`, along all axes, see `genconv.data.guess.smoothed`, or `grey`, which
            tells nothing but where the hole is.

    Reference:
        Vincent: A Connection Between Score Matching and Denoising Autoencoders, 2011
    """

    def __init__(
        self,
        energy: Energy,
        chain: Chain = Chain(steps=1, step_size=1.0, temperature=0.0),  # noqa: B008 - frozen
        masks: Sequence[str] = ("dropped:0.5", "random:0.5"),
        lr: Knots = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        seed: int = 0,
        hidden: str | None = None,
        start: Guess = "interpolation",
    ) -> None:
        super().__init__(energy, chain, 1, 1, 0.0, False, lr, betas, False, seed)
        self.masks, self.hidden, self.start = masks, hidden, start
        self._never: Tensor | None = None

    @property
    def uses_buffer(self) -> bool:
        return False

    @property
    def draws(self) -> bool:
        return False

    def prepare_data(self) -> None:
        """Look at the mask of what is hidden, before anything is written.

        Raises:
            UserError: there is none, or it does not fit the data.
        """
        data = getattr(self.trainer, "datamodule", None)
        if self.hidden is None or data is None:
            return
        if data.crop is not None or data.flip or len(data.data) > 1:
            raise UserError(
                "--model.hidden is a mask of one image, or one clip, as it is; "
                "leave out --data.crop and --data.flip"
            )
        holes(self.hidden, 1, data.shape[1:])

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> Tensor:
        x, y = batch
        seed = derive(self.seed, "holes", self.global_rank, self.global_step)
        if self.hidden is None:
            mask, never = self.masks[self.global_step % len(self.masks)], None
            missing = holes(mask, len(x), tuple(x.shape[2:]), seed).to(x.device)
        else:
            if self._never is None:
                self._never = holes(self.hidden, 1, tuple(x.shape[2:]))
            never = self._never.expand(len(x), *self._never.shape[1:])
            missing, never = moved(never, seed).to(x.device), never.to(x.device)
        y = y if self.classes else None
        loss = recovery_loss(self.energy, x, missing, y, never, self.start)
        self.log("loss", loss, prog_bar=True)
        return loss


def recovery_loss(
    energy: Energy,
    x: Tensor,
    missing: Tensor,
    y: Tensor | None = None,
    never: Tensor | None = None,
    start: Guess = "interpolation",
) -> Tensor:
    """Return the mean, over images, of the squared error as a share of what the guess leaves.

    Args:
        energy: differentiable twice.
        x: (N, C, *space) data.
        missing: bool (N, 1, *space).
        y: (N,) labels handed to a class-conditional energy.
        never: bool (N, 1, *space), where x is not the truth: neither seen nor counted.
        start: the guess, see `genconv.data.guess.guess`.
    """
    counted = missing
    if never is not None:
        missing, counted = missing | never, missing & ~never
    with torch.enable_grad():
        guessed = guess(x, missing, start).requires_grad_()
        energies = energy(guessed) if y is None else energy(guessed, y)
        (gradient,) = torch.autograd.grad(energies.sum(), guessed, create_graph=True)
    truth = x - guessed.detach()
    left = ((gradient + truth) * counted).square().flatten(1).sum(1)
    error = (truth * counted).square().flatten(1).sum(1)
    return (left / error.clamp_min(1e-12)).mean()
