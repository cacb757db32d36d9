"""Recovery matching: teach an energy that one step down it leads from a guess to the truth."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genconv.data.holes import holes, interpolated
from genconv.energy import Energy
from genconv.sampling import Chain, Knots
from genconv.seeds import derive
from genconv.training.module import EnergyModule

__all__ = ["RecoveryMatching", "recovery_loss"]


class RecoveryMatching(EnergyModule):
    r"""Creates the energy whose gradient recovers what was missing.

    Holes are cut into the data x, and filled along the first spatial axis (in time, of a video) by
    straight lines. From there, x₀, the missing pixels are to arrive at x by one step:

    .. math:: L = |∇E(x_0) + x - x_0|^2 / |x - x_0|^2

    over the missing pixels, for each image its own share: 1 is what the straight lines leave.
    The minimum of the numerator is x₀ - ∇E(x₀) = E[x | x₀], the guess of least squared error. It is
    denoising score matching with interpolation in place of noise, and needs no chains.
    `python -m genconv.edit inpaint --start interpolation` takes the step.

    Args:
        energy: the energy to be taught; differentiable twice.
        chain: the step.
        masks: kinds of holes, see `genconv.data.holes.holes`; each update has the next of them.
        lr: learning rate of Adam, a number or (update, value) knots.
        betas: decay rates of Adam's moments.
        seed: of the holes.

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
    ) -> None:
        super().__init__(energy, chain, 1, 1, 0.0, False, lr, betas, False, seed)
        self.masks = masks

    @property
    def uses_buffer(self) -> bool:
        return False

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> Tensor:
        x, y = batch
        mask = self.masks[self.global_step % len(self.masks)]
        seed = derive(self.seed, "holes", self.global_rank, self.global_step)
        missing = holes(mask, len(x), tuple(x.shape[2:]), seed).to(x.device)
        loss = recovery_loss(self.energy, x, missing, y if self.classes else None)
        self.log("loss", loss, prog_bar=True)
        return loss


def recovery_loss(energy: Energy, x: Tensor, missing: Tensor, y: Tensor | None = None) -> Tensor:
    """Return the mean, over images, of the squared error as a share of what straight lines leave.

    Args:
        energy: differentiable twice.
        x: (N, C, *space) data.
        missing: bool (N, 1, *space).
        y: (N,) labels handed to a class-conditional energy.
    """
    with torch.enable_grad():
        guess = interpolated(x, missing).requires_grad_()
        energies = energy(guess) if y is None else energy(guess, y)
        (gradient,) = torch.autograd.grad(energies.sum(), guess, create_graph=True)
    left = (gradient + x - guess.detach()) * missing
    error = (x - guess.detach()).square().flatten(1).sum(1).clamp_min(1e-12)
    return (left.square().flatten(1).sum(1) / error).mean()
