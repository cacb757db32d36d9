"""Cooperative training: a generator proposes, the energy revises, and both learn from that."""

from typing import Any

import torch
from torch import Tensor, nn

from genconv.checkpoint import Trained
from genconv.energy import Energy
from genconv.errors import UserError
from genconv.generator import Generator, infer
from genconv.sampling import Chain, Knots
from genconv.training.contrastive import energy_pair
from genconv.training.module import EnergyModule

__all__ = ["Cooperative"]


class Cooperative(EnergyModule):
    r"""Creates the cooperative training of an energy E and a generator g (CoopNets).

    In each update the generator proposes g(z), z ~ N(0, I); k steps of Langevin dynamics under E
    revise the proposals to x⁻; the energy learns from data x⁺ against these, and the generator
    learns to make them at once:

    .. math:: L = E(x^+) - E(x^-) + α\,(E(x^+)^2 + E(x^-)^2) + \frac{|x^- - g(z)|^2}{2 σ^2}

    Here z is that of the proposal, from which x⁻ was made (the warm jump); with `infer` steps of
    Langevin dynamics under p(z | x⁻) it is first corrected.

    Args:
        energy: the energy to be taught, of images without classes.
        generator: the generator to be taught.
        chain: how the proposals of the generator are revised when images are drawn.
        latent: how latent vectors of given images are found, see `genconv.generator.infer`.
        k: Langevin steps of each update.
        infer: latent steps of each update, at the first step size of `latent` and temperature 1.
        alpha: α, weight of the squared energies, which keeps them near 0.
        lr: learning rate of the energy, a number or (update, value) knots.
        generator_lr: that of the generator.
        betas: decay rates of Adam's moments.
        bf16_chains: compute the chains' gradients in bfloat16; their state stays float32.
        seed: of proposals and chains.

    Raises:
        UserError: the energy has classes.

    Reference:
        Xie, Lu, Gao, Zhu, Wu: Cooperative Training of Descriptor and Generator Networks,
        https://arxiv.org/abs/1609.09408
    """

    def __init__(
        self,
        energy: Energy,
        generator: Generator,
        chain: Chain = Chain(steps=30, step_size=0.01, temperature=0.01),  # noqa: B008 - frozen
        latent: Chain = Chain(steps=300, step_size=0.01, temperature=0.0),  # noqa: B008 - frozen
        k: int = 30,
        infer: int = 0,
        alpha: float = 0.0,
        lr: Knots = 1e-3,
        generator_lr: Knots = 1e-3,
        betas: tuple[float, float] = (0.5, 0.999),
        bf16_chains: bool = False,
        seed: int = 0,
    ) -> None:
        # no buffer: the generator remembers where the chains were
        super().__init__(energy, chain, k, 0, 0.0, False, lr, betas, bf16_chains, seed)
        if self.classes:
            raise UserError("cooperative training needs an energy without classes")
        # `generator` is the random one here, as everywhere
        self.top_down, self.generator_lr = generator, generator_lr
        self.latent, self.infer, self.alpha = latent, infer, alpha

    @property
    def uses_buffer(self) -> bool:
        return False

    def trained(self, shape: tuple[int, ...]) -> Trained:
        return Trained(
            self.energy, self.chain, shape, self.global_step, (), self.top_down, self.latent
        )

    def learners(self) -> list[tuple[list[nn.Parameter], Knots]]:
        return [*super().learners(), (list(self.top_down.parameters()), self.generator_lr)]

    def training_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> Tensor:
        x, _ = batch
        z = self.top_down.draw(len(x), generator=self.generator, device=x.device)
        proposed = self.top_down(z)
        revised = self.advance(proposed.detach(), None)
        # where a chain is lost its proposal stands, from which there is nothing to learn
        lost = self.lost(revised).view(-1, *[1] * (x.ndim - 1))
        revised = torch.where(lost, proposed.detach(), revised)
        if self.infer:
            proposed = self.top_down(self._explain(revised, z))
        e_data, e_chains = energy_pair(self.energy, x, revised)
        contrast = e_data.mean() - e_chains.mean()
        contrast = contrast + self.alpha * (e_data.square().mean() + e_chains.square().mean())
        error = (revised - proposed).square()
        self.log_energies(e_data, e_chains)
        self.log("loss/generator", error.mean(), prog_bar=True)
        loss = contrast + error.flatten(1).sum(1).mean() / (2 * self.top_down.noise**2)
        self.log("loss", loss)
        return loss

    def _explain(self, x: Tensor, z: Tensor) -> Tensor:
        chain = Chain(self.infer, self.latent.step_size, 1.0)
        return infer(self.top_down, chain, x, z, generator=self.generator)[0]
