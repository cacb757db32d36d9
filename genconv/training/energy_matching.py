"""Energy matching: first learn the way from noise to data, then the energy around the data."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genconv.energy import Energy
from genconv.errors import UserError
from genconv.sampling import Chain, Knots, draw_noise
from genconv.training.contrastive import classification, energy_pair, needs_classes
from genconv.training.module import EnergyModule

__all__ = ["EnergyMatching", "pair_by_transport", "spread_times", "transport_loss"]


class EnergyMatching(EnergyModule):
    r"""Creates energy matching with negatives from a replay buffer.

    The transport phase teaches -∇E to point from noise x₀ to data x₁ everywhere on the straight
    lines between them, without any chain:

    .. math:: L = \|∇E(x_t) + x_1 - x_0\|^2, \quad x_t = (1-t)\,x_0 + t\,x_1, \quad t \sim U(0, 1)

    After `transport_updates` of these the contrastive phase adds λ (E(x⁺) - E(x⁻)), whose negatives
    are chains at the temperature ε with which the chain ends: near the data the energy comes to
    describe p(x) ∝ exp(-E(x)/ε), and long chains stay there.

    Args:
        energy: the energy to be taught.
        chain: how images are drawn, from noise at step 0; after 1 / step_size steps the transport
            has arrived.
        transport_updates: updates of the first phase.
        weight: λ of the contrastive phase.
        floor: lower bound on λ (E⁺ - E⁻), below which it teaches nothing; null for none.
        trim: share of the negatives, those of highest energy, that is left out.
        unlabelled: share of the labels withheld (-1) in the transport phase, from which a
            class-conditional energy learns E(x) without a label; the energy must know label -1.
        coupling: `independent` noise, or noise paired with the data of its batch by optimal
            `transport`, which straightens the way.
        k: Langevin steps of each update.
        buffer_size: number of chains in the replay buffer.
        restart: share of the chains that begin anew at each update, with the whole way from noise.
        lr: learning rate of Adam, a number or (update, value) knots.
        betas: decay rates of Adam's moments.
        bf16_chains: compute the chains' gradients in bfloat16; their state stays float32.
        seed: of the chains and the buffer.
        classify: weight of the cross-entropy of p(y|x) ∝ exp(-E(x, y)/ε), which makes an energy
            with classes a classifier as well.

    Reference:
        Balcerak et al.: Energy Matching, https://arxiv.org/abs/2504.10612, which runs fresh chains
        of 200 steps where this continues those of a buffer.
    """

    def __init__(
        self,
        energy: Energy,
        chain: Chain = Chain(  # noqa: B008 - frozen
            steps=150, step_size=0.01, temperature=[(75, 0.0), (100, 0.01)]
        ),
        transport_updates: int = 15_000,
        weight: float = 1e-3,
        floor: float | None = None,
        trim: float = 0.0,
        unlabelled: float = 0.0,
        coupling: Literal["independent", "transport"] = "independent",
        k: int = 20,
        buffer_size: int = 8192,
        restart: float = 0.05,
        lr: Knots = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        bf16_chains: bool = True,
        seed: int = 0,
        classify: float = 0.0,
    ) -> None:
        if not (0 <= trim < 1 and 0 <= unlabelled <= 1):
            raise UserError("trim and unlabelled are shares: 0 <= trim < 1, 0 <= unlabelled <= 1")
        if classify:
            needs_classes(energy)
            if not chain.continued(1).temperature > 0:
                raise UserError("classify needs a chain that ends at a temperature above 0")
        super().__init__(energy, chain, k, buffer_size, restart, True, lr, betas, bf16_chains, seed)
        self.transport_updates = transport_updates
        self.weight, self.floor, self.trim, self.coupling = weight, floor, trim, coupling
        self.unlabelled, self.classify = unlabelled, classify

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> Tensor:
        x, y = batch
        y = y if self.classes else None
        noise = draw_noise(x.shape, self.generator, device=x.device)
        if self.coupling == "transport":
            noise = pair_by_transport(noise, x)
        t = spread_times(len(x), self.generator, x.device)
        loss = transport_loss(self.energy, noise, x, t, self._withhold(y))
        self.log("loss/transport", loss, prog_bar=True)
        if self.global_step >= self.transport_updates:
            loss = loss + self._contrastive(x, y)
        if self.classify:
            temperature = self.chain.continued(1).temperature
            surprise, accuracy = classification(self.energy, x, y, temperature)
            loss = loss + self.classify * surprise
            self.log("accuracy", accuracy)
        self.log("loss", loss)
        return loss

    def _withhold(self, y: Tensor | None) -> Tensor | None:
        if y is None or not self.unlabelled:
            return y
        chance = draw_noise(y.shape, self.generator, draw=torch.rand, device=y.device)
        return y.masked_fill(chance < self.unlabelled, -1)

    def _contrastive(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        e_data, e_chains = energy_pair(self.energy, x, self.negatives(x, y), y)
        self.log_energies(e_data, e_chains)
        if self.trim:
            e_chains = e_chains.sort().values[: round(len(x) * (1 - self.trim))]
        loss = self.weight * (e_data.mean() - e_chains.mean())
        return loss if self.floor is None else loss.clamp_min(self.floor)


def transport_loss(
    energy: Callable[..., Tensor], x0: Tensor, x1: Tensor, t: Tensor, y: Tensor | None = None
) -> Tensor:
    """Return the mean squared error, per pixel, of -∇E(x_t) as the velocity x1 - x0.

    Args:
        energy: differentiable twice.
        x0: (N, C, *space) noise.
        x1: (N, C, *space) data.
        t: (N,) times in [0, 1].
        y: (N,) labels handed to a class-conditional energy.
    """
    t = t.view(-1, *[1] * (x0.ndim - 1))
    with torch.enable_grad():
        x = ((1 - t) * x0 + t * x1).requires_grad_()
        energies = energy(x) if y is None else energy(x, y)
        (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
    return (gradient + x1 - x0).square().mean()


def spread_times(
    n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Draw n times (n,), each uniform in [0, 1) and all evenly spread: a grid, shifted at random.

    Every batch sees the whole way, which takes noise from the loss.

    Reference:
        Kingma et al.: Variational Diffusion Models, https://arxiv.org/abs/2107.00630
    """
    shift = draw_noise((1,), generator, draw=torch.rand, device=device)
    return (shift + torch.arange(n, device=device) / n) % 1


def pair_by_transport(x0: Tensor, x1: Tensor) -> Tensor:
    """Reorder x0 so that Σ|x0_i - x1_i|² is least: minibatch optimal transport.

    Reference:
        Tong et al.: Improving and Generalizing Flow-Based Models, https://arxiv.org/abs/2302.00482
    """
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x1.flatten(1), x0.flatten(1)).square()
    _, order = linear_sum_assignment(cost.cpu().numpy())
    return x0[torch.as_tensor(order, device=x0.device)]
