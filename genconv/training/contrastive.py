"""Contrastive divergence: lower the energy of data, raise that of the model's own samples."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from genconv.energy import Energy
from genconv.errors import UserError
from genconv.sampling import Chain, Knots, draw_noise, frozen
from genconv.training.augment import augment
from genconv.training.canvas import canvas_shape, draw_tiles
from genconv.training.module import EnergyModule

__all__ = [
    "ContrastiveDivergence",
    "classification",
    "energy_pair",
    "entropy",
    "last_step",
    "needs_classes",
]


class ContrastiveDivergence(EnergyModule):
    r"""Creates (persistent) contrastive divergence, the literal recipe of generative ConvNets.

    .. math:: L = E(x^+) - E(x^-) + α\,(E(x^+)^2 + E(x^-)^2)

    The negatives x⁻ are ends of k steps of a chain, Langevin's or Gibbs's, from `buffer`
    (persistent CD), `noise` (short-run MCMC) or `data` (CD-k). Improved CD adds `kl` times the
    gradient through the sampler, which CD neglects, and `entropy` times an estimate of the samples'
    entropy, which spreads them. `classify` times the cross-entropy of p(y|x) ∝ exp(-E(x, y)) makes
    an energy with classes a classifier as well: a joint energy of images and labels.

    Args:
        energy: the energy to be taught.
        chain: how images are drawn from it, starting from noise.
        start: where the chains of an update begin.
        k: steps of the chain in each update.
        alpha: α, weight of the squared energies, which keeps them near 0.
        noise: standard deviation of Gaussian noise added to the data.
        kl: weight of the gradient through the last step, of Langevin chains.
        entropy: weight of the entropy estimate.
        augment: flip, shift, scale and recolour the images that chains resume from the buffer.
        buffer_size: number of chains in the replay buffer.
        restart: share of the chains that begin anew at each update.
        lr: learning rate, a number or (update, value) knots.
        betas: decay rates of Adam's moments.
        bf16_chains: compute the chains' gradients in bfloat16; their state stays float32.
        seed: of the chains and the buffer.
        optimizer: `adam`, or `sgd`, by which Boltzmann machines learn.
        canvas: extents of the persistent chains where these are larger than the data, one number
            for every axis or one for each; null for chains as large as the data. Every update
            then continues all chains of the buffer, and compares the data with tiles of them.
        classify: weight of the cross-entropy; the data have to have labels.

    References:
        Du, Mordatch: https://arxiv.org/abs/1903.08689; Nijkamp et al. (short-run):
        https://arxiv.org/abs/1904.09770; Du et al. (improved CD): https://arxiv.org/abs/2012.01316;
        Grathwohl et al. (joint energies): https://arxiv.org/abs/1912.03263
    """

    def __init__(
        self,
        energy: Energy,
        chain: Chain = Chain(  # noqa: B008 - frozen
            steps=1000, step_size=10.0, temperature=1.25e-6, start="uniform", clamp=True
        ),
        start: Literal["buffer", "noise", "data"] = "buffer",
        k: int = 60,
        alpha: float = 1.0,
        noise: float = 0.0,
        kl: float = 0.0,
        entropy: float = 0.0,
        augment: bool = False,
        buffer_size: int = 10_000,
        restart: float = 0.05,
        lr: Knots = 1e-4,
        betas: tuple[float, float] = (0.0, 0.999),
        bf16_chains: bool = False,
        seed: int = 0,
        optimizer: Literal["adam", "sgd"] = "adam",
        canvas: int | list[int] | None = None,
        classify: float = 0.0,
    ) -> None:
        if classify:
            needs_classes(energy)
        if kl and chain.sampler != "langevin":
            raise UserError(f"kl needs a Langevin chain, not sampler: {chain.sampler}")
        if canvas is not None and (start != "buffer" or getattr(energy, "classes", None)):
            raise UserError("a canvas needs start: buffer, and an energy without classes")
        super().__init__(
            energy, chain, k, buffer_size, restart, False, lr, betas, bf16_chains, seed, optimizer
        )
        self.start, self.alpha, self.noise = start, alpha, noise
        self.kl, self.entropy, self.augment = kl, entropy, augment
        self.canvas, self.classify = canvas, classify

    @property
    def uses_buffer(self) -> bool:
        return self.start == "buffer"

    def chain_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.canvas is None else canvas_shape(shape, self.canvas)

    def chains_lent(self, batch: int) -> int:
        return batch if self.canvas is None else self.buffer_size

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> Tensor:
        x, y = batch
        y = y if self.classes else None
        if self.noise:
            x = x + self.noise * draw_noise(x.shape, self.generator, device=x.device)
        negative = self._negatives(x, y)
        e_data, e_chains = energy_pair(self.energy, x, negative, y)
        gap = e_data.mean() - e_chains.mean()
        loss = gap + self.alpha * (e_data.square().mean() + e_chains.square().mean())
        if self.kl or self.entropy:
            moved = last_step(self.energy, negative, y, self.chain)
            with frozen(self.energy):
                energies = self.energy(moved) if y is None else self.energy(moved, y)
            loss = loss + self.kl * energies.mean() - self.entropy * entropy(moved, negative)
        if self.classify:
            surprise, accuracy = classification(self.energy, x, y)
            loss = loss + self.classify * surprise
            self.log("accuracy", accuracy)
        self.log("loss", loss)
        self.log_energies(e_data, e_chains)
        return loss

    def _negatives(self, x: Tensor, y: Tensor | None) -> Tensor:
        if self.uses_buffer:
            recolour = (lambda z: augment(z, self.generator)) if self.augment else None
            if self.canvas is None:
                return self.negatives(x, y, recolour)
            like = x.new_empty(self.buffer_size, *self.chain_shape(tuple(x.shape[1:])))
            chains = self.negatives(like, None, recolour)
            return draw_tiles(chains, len(x), x.shape[2:], self.generator)
        if self.start == "data":
            return self.advance(x, y)
        shape = tuple(x.shape[1:])
        noise = self.chain.noise(len(x), shape, generator=self.generator, device=x.device)
        return self.advance(noise, y)


def energy_pair(
    energy: Energy, data: Tensor, chains: Tensor, y: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the energies (N,) of data and (M,) of chains, found in one pass.

    Args:
        energy: asked for both.
        data: (N, C, *space).
        chains: (M, C, *space).
        y: (N,) classes of the data, and of the chains, which are then as many.
    """
    both = torch.cat([data, chains])
    energies = energy(both) if y is None else energy(both, torch.cat([y, y]))
    return energies[: len(data)], energies[len(data) :]


def needs_classes(energy: Energy) -> None:
    """Raise a UserError for an energy that cannot classify."""
    if not getattr(energy, "classes", None):
        raise UserError("classify needs an energy with classes; give model.energy.classes")


def classification(
    energy: Energy, x: Tensor, y: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of p(y|x) ∝ exp(-E(x, y)/T), and the share of right guesses.

    Args:
        energy: with classes.
        x: (N, C, *space).
        y: (N,) labels.
        temperature: T.
    """
    energies = energy.by_class(x)
    right = (energies.detach().argmin(1) == y).float().mean()
    return F.cross_entropy(-energies / temperature, y), right


def last_step(energy: Energy, x: Tensor, y: Tensor | None, chain: Chain) -> Tensor:
    """Take a noiseless step from x, as the chain goes on, whose end depends on the parameters."""
    x = x.detach().requires_grad_()
    energies = energy(x) if y is None else energy(x, y)
    (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
    if chain.gradient_clip is not None:
        gradient = gradient.clamp(-chain.gradient_clip, chain.gradient_clip)
    return x - chain.continued(1).step_size * gradient


def entropy(x: Tensor, others: Tensor) -> Tensor:
    """Estimate an entropy, up to constants, by the mean log distance to the nearest neighbour.

    Args:
        x: (N, C, *space), which gets the gradient.
        others: (N, C, *space) the same samples as neighbours; row i is not its own.

    Reference:
        Kozachenko, Leonenko: Sample estimate of the entropy of a random vector, 1987
    """
    distance = torch.cdist(x.flatten(1), others.detach().flatten(1))
    own = torch.eye(len(x), dtype=torch.bool, device=x.device)
    nearest = distance.masked_fill(own, torch.inf).amin(1)
    return nearest.clamp_min(1e-6).log().mean()
