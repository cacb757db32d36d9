"""How others do it: our own few lines with the access patterns of published scripts, and torchebm.

None of it is their code. What is kept of each script is what costs time: what its chain asks
autograd for, where its buffer lies, and how often the host is asked. All take the same steps.
"""

import importlib.util
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tests.benchmarks.speed.networks import ETA, NOISE

__all__ = [
    "CHAINS",
    "UPDATES",
    "PLAIN",
    "Peer",
    "plain",
    "torchebm_chain",
    "torchebm_name",
    "torchebm_update",
]

PLAIN = "plain float32 loop"
CLIP = 0.01

Network = Callable[[Tensor], Tensor]
ChainOf = Callable[[Network, Tensor, int], Tensor]


def plain(energy: Network, x: Tensor, steps: int) -> Tensor:
    """The loop as one writes it down: float32, channels first, parameters not frozen."""
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        x = (x - ETA * gradient + NOISE * torch.randn_like(x)).clamp(-1, 1)
    return x.detach()


def igebm(energy: Network, x: Tensor, steps: int) -> Tensor:
    """rosinality/igebm-pytorch: `backward()`, which also collects gradients of all parameters."""
    x = x.detach().clone().requires_grad_()
    noise = torch.empty_like(x)
    for _ in range(steps):
        noise.normal_(0, NOISE)
        x.data.add_(noise.data)
        energy(x).sum().backward()
        x.grad.data.clamp_(-CLIP, CLIP)
        x.data.add_(x.grad.data, alpha=-ETA)
        x.grad.detach_()
        x.grad.zero_()
        x.data.clamp_(-1, 1)
    return x.detach()


def uvadlc(energy: nn.Module, x: Tensor, steps: int) -> Tensor:
    """UvA DL tutorial 8: parameters frozen; what comes out still asks for a gradient."""
    for parameter in energy.parameters():
        parameter.requires_grad_(False)
    x = igebm(energy, x, steps).requires_grad_()
    for parameter in energy.parameters():
        parameter.requires_grad_(True)
    return x


def jem(energy: Network, x: Tensor, steps: int) -> Tensor:
    """wgrathwohl/JEM: `autograd.grad` with `retain_graph=True`."""
    x = x.detach().clone().requires_grad_()
    for _ in range(steps):
        gradient = torch.autograd.grad(energy(x).sum(), [x], retain_graph=True)[0]
        x.data += -ETA * gradient + NOISE * torch.randn_like(x)
    return x.detach()


def item(energy: Network, x: Tensor, steps: int) -> Tensor:
    """m1balcerak/EnergyMatching: each sample's noise level by a Python loop with `.item()`."""
    time = torch.ones(len(x), device=x.device)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        scale = torch.tensor([NOISE if t.item() >= 1 else 0.0 for t in time], device=x.device)
        noise = scale.view(-1, 1, 1, 1) * torch.randn_like(x)
        x = (x - ETA * gradient.detach() + noise).clamp(-1, 1)
    return x.detach()


CHAINS: dict[str, ChainOf] = {
    PLAIN: plain,
    "like igebm-pytorch (ours)": igebm,
    "like UvA DL tutorial 8 (ours)": uvadlc,
    "like JEM (ours)": jem,
    "like EnergyMatching's sampler (ours)": item,
}


@dataclass
class Peer:
    """A network, its optimiser, and a buffer as a script keeps it, here a tensor.

    Attributes:
        energy: the network.
        steps: its chain.
        k: steps of an update.
        buffer: of float32 chains on the network's device.
    """

    energy: nn.Module
    steps: ChainOf
    k: int
    buffer: Tensor
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.energy.parameters(), lr=1e-4, betas=(0.0, 0.999))
        self.keep(self.buffer)

    def keep(self, chains: Tensor) -> None:
        """Put away what the buffer begins with."""

    def draw(self, n: int) -> Tensor:
        """Take n chains."""
        self.slots = torch.randperm(len(self.buffer))[:n].to(self.buffer.device)
        return self.buffer[self.slots]

    def write(self, x: Tensor) -> None:
        """Put them back."""
        self.buffer[self.slots] = x

    def update(self, data: Tensor) -> None:
        """Persistent CD with two forward passes."""
        negative = self.steps(self.energy, self.draw(len(data)), self.k)
        self.write(negative)
        self.learn(self.energy(data), self.energy(negative))

    def learn(self, positive: Tensor, negative: Tensor) -> None:
        """Step along the gradient of the regularised contrast of both energies."""
        loss = positive.mean() - negative.mean()
        loss = loss + positive.square().mean() + negative.square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Igebm(Peer):
    """A list of single images on the CPU, popped from its front."""

    def keep(self, chains: Tensor) -> None:
        self.images, self.size = list(chains.cpu()), len(chains)

    def draw(self, n: int) -> Tensor:
        fresh = int(n * 0.05)
        old = torch.stack(random.choices(self.images, k=n - fresh), 0)
        return torch.cat([old, torch.rand(fresh, *old.shape[1:])]).to(self.buffer.device)

    def write(self, x: Tensor) -> None:
        for image in x.detach().to("cpu"):
            self.images.append(image)
            if len(self.images) > self.size:
                self.images.pop(0)


class Uvadlc(Peer):
    """A list on the CPU that every batch rebuilds; data and fakes in one pass."""

    def keep(self, chains: Tensor) -> None:
        self.images, self.size = list(chains.cpu().chunk(len(chains))), len(chains)

    def draw(self, n: int) -> Tensor:
        fresh = int(n * 0.05)
        old = torch.cat(random.choices(self.images, k=n - fresh), 0)
        rand = torch.rand(fresh, *old.shape[1:]) * 2 - 1
        return torch.cat([rand, old]).detach().to(self.buffer.device)

    def write(self, x: Tensor) -> None:
        self.images = list(x.detach().to("cpu").chunk(len(x))) + self.images
        self.images = self.images[: self.size]

    def update(self, data: Tensor) -> None:
        negative = self.steps(self.energy, self.draw(len(data)), self.k)
        self.write(negative)
        self.learn(*self.energy(torch.cat([data, negative])).chunk(2))


class Jem(Peer):
    """A float32 tensor on the CPU, from and to which every batch is copied."""

    def keep(self, chains: Tensor) -> None:
        self.images = chains.cpu()

    def draw(self, n: int) -> Tensor:
        self.slots = torch.randint(0, len(self.images), (n,))
        old = self.images[self.slots]
        rand = torch.rand_like(old) * 2 - 1
        fresh = (torch.rand(n) < 0.05).float().view(-1, 1, 1, 1)
        return (fresh * rand + (1 - fresh) * old).to(self.buffer.device)

    def write(self, x: Tensor) -> None:
        self.images[self.slots] = x.cpu()


UPDATES: dict[str, tuple[type[Peer], ChainOf]] = {
    PLAIN: (Peer, plain),
    "like igebm-pytorch (ours)": (Igebm, igebm),
    "like UvA DL tutorial 8 (ours)": (Uvadlc, uvadlc),
    "like JEM (ours)": (Jem, jem),
}


def torchebm_name() -> str:
    """Return torchebm's name with its version; without one where it is not installed."""
    if importlib.util.find_spec("torchebm") is None:
        return "torchebm"
    return f"torchebm {importlib.import_module('torchebm').__version__}"


def torchebm_chain(energy: nn.Module, device: str) -> tuple[nn.Module, object] | None:
    """Return the network as a model of torchebm's, and its Langevin sampler, if installed."""
    if importlib.util.find_spec("torchebm") is None:
        return None
    core = importlib.import_module("torchebm.core")
    samplers = importlib.import_module("torchebm.samplers")

    class Model(core.BaseModel):
        def __init__(self) -> None:
            super().__init__(device=device)
            self.energy = energy

        def forward(self, x: Tensor) -> Tensor:
            return self.energy(x)

    model = Model()
    scale = NOISE / (2 * ETA) ** 0.5
    sampler = samplers.LangevinDynamics(
        model, step_size=ETA, noise_scale=scale, clamp=(-1.0, 1.0), device=device
    )
    return model, sampler


def torchebm_update(
    energy: nn.Module, device: str, k: int, buffer: int
) -> Callable[[Tensor], None] | None:
    """Return an update of torchebm's persistent contrastive divergence, if installed."""
    if (found := torchebm_chain(energy, device)) is None:
        return None
    model, sampler = found
    losses = importlib.import_module("torchebm.losses")
    loss_of = losses.PersistentContrastiveDivergence(
        model,
        sampler,
        k_steps=k,
        buffer_size=buffer,
        init_steps=0,
        energy_reg_weight=1.0,
        device=torch.device(device),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.0, 0.999))

    def update(x: Tensor) -> None:
        loss, _ = loss_of(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return update
