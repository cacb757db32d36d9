"""Updates of the weights: persistent contrastive divergence, and energy matching."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from genconv.data import load_images
from genconv.energy import Energy
from genconv.images import from_uint8
from genconv.sampling import Chain, ReplayBuffer
from genconv.training import ContrastiveDivergence, EnergyMatching, EnergyModule
from tests.benchmarks.speed.clock import COMPILED, OURS, Row, compared, compiled, race
from tests.benchmarks.speed.networks import ETA, NOISE, Settings, made, noise
from tests.benchmarks.speed.peers import PLAIN, UPDATES, torchebm_name, torchebm_update

__all__ = ["LAYERS", "contrastive", "matching", "our_update", "persistent", "pytorchs_layers"]

CAPACITY = 1024
LR = 1e-3
LAYERS = "genconv with PyTorch's own layers"


@contextmanager
def pytorchs_layers(chosen: bool = True) -> Iterator[None]:
    """Differentiate layers by PyTorch's own formulas, as where a compiler looks on."""
    with (
        mock.patch("genconv.energy.twice.watched", return_value=chosen),
        mock.patch("genconv.energy.convolution.watched", return_value=chosen),
    ):
        yield


def our_update(module: EnergyModule, device: str) -> Callable[[Tensor], float]:
    """Return a module's update as the trainer would make it, at precision bf16-mixed."""
    module.to(device)
    module.generator = torch.Generator(device).manual_seed(0)
    # there is no trainer that would write figures down
    module.log = module.log_dict = lambda *args, **kwargs: None
    optimizer = module.configure_optimizers()["optimizer"]
    # its rate is 1, which a schedule multiplies
    for group in optimizer.param_groups:
        group["lr"] = module.lr

    def update(x: Tensor) -> float:
        with torch.autocast(device, torch.bfloat16):
            loss = module.training_step((x, None), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return update


def contrastive(energy: Energy, shape: tuple[int, ...], k: int, device: str) -> EnergyModule:
    """Return persistent contrastive divergence with a buffer of noise."""
    chain = Chain(step_size=ETA, temperature=NOISE**2 / (2 * ETA), start="uniform", clamp=True)
    module = ContrastiveDivergence(energy, chain=chain, k=k, bf16_chains=True)
    module.buffer = ReplayBuffer(CAPACITY, shape, device=device)
    return module


def persistent(settings: Settings) -> list[Row]:
    """Time updates of persistent contrastive divergence."""
    rows = []
    for network in settings.chains:
        device, k = settings.device, settings.k
        energy, shape = made(network, settings)
        x = noise(settings.batch, shape, device)
        update = our_update(contrastive(energy, shape, k, device), device)
        fast, _ = made(network, settings, compiled=True)
        faster = our_update(contrastive(fast, shape, k, device), device)
        runs: dict[str, Callable[[], object]] = {
            OURS: lambda update=update, x=x: update(x),
            COMPILED: lambda update=faster, x=x: update(x),
        }
        for name, (kind, chain) in UPDATES.items():
            peer = kind(made(network, settings)[0], chain, k, noise(CAPACITY, shape, device))
            runs[name] = lambda peer=peer, x=x: peer.update(x)
        theirs = torchebm_update(made(network, settings)[0], device, k, CAPACITY)
        if theirs is not None:
            runs[torchebm_name()] = lambda theirs=theirs, x=x: theirs(x)
        times = race(runs, device, settings.rounds)
        what = f"PCD update, K={k}, {settings.batch} images"
        for rows_of in (compared, compiled):
            rows += rows_of("training update", network, what, times)
        if theirs is None:
            rows.append(
                Row("training update", network, what, torchebm_name(), note="not installed")
            )
    return rows


def matching(settings: Settings) -> list[Row]:
    """Time transport updates from the same weights on the same images, noise and times.

    The straightforward way is float32 autograd twice. Both go on for as many updates, so that their
    losses can be compared too.
    """
    device, rounds = settings.device, 2 if settings.quick else max(10, settings.rounds)
    network = "flagship" if device == "cuda" else "unet"
    energy, shape = made(network, settings)
    images = from_uint8(load_images("shapes", "test", size=shape[-1]).images)
    batches = images.split(settings.batch)[: rounds + 1]
    module = EnergyMatching(energy, transport_updates=1 << 30, lr=LR)
    losses: dict[str, list[Tensor]] = {OURS: [], PLAIN: []}
    update = our_update(module, device)
    other, _ = made(network, settings)
    optimizer = torch.optim.Adam(other.parameters(), lr=LR, betas=(0.9, 0.95))
    generator = torch.Generator(device).manual_seed(0)

    def ours() -> None:
        x = batches[len(losses[OURS]) % len(batches)].to(device)
        losses[OURS].append(update(x))

    def straightforward() -> None:
        x1 = batches[len(losses[PLAIN]) % len(batches)].to(device)
        x0 = torch.randn(x1.shape, generator=generator, device=device)
        t = torch.rand(len(x1), generator=generator, device=device).view(-1, 1, 1, 1)
        x = ((1 - t) * x0 + t * x1).requires_grad_()
        with pytorchs_layers():
            (gradient,) = torch.autograd.grad(other(x).sum(), x, create_graph=True)
        loss = (gradient + x1 - x0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[PLAIN].append(loss.detach())

    layered = EnergyMatching(made(network, settings)[0], transport_updates=1 << 30, lr=LR)
    same = our_update(layered, device)

    def own_layers() -> None:
        with pytorchs_layers():
            same(batches[0].to(device))

    runs = {OURS: ours, PLAIN: straightforward, LAYERS: own_layers}
    times = race(runs, device, rounds)
    rows = compared("training update", network, f"energy matching, {settings.batch} images", times)
    # of the second half, as one batch is harder than another
    last = {name: [float(v) for v in v[len(v) // 2 :]] for name, v in losses.items()}
    mean = {name: statistics.mean(v) for name, v in last.items()}
    rows.append(
        Row(
            "training update",
            network,
            f"its loss, mean of updates {rounds // 2 + 1} on",
            PLAIN,
            mean[OURS],
            mean[PLAIN],
            mean[OURS] / mean[PLAIN],
            "",
            "equal losses: 1",
        )
    )
    return rows
