"""What it costs to lend chains and take them back."""

import os

import torch
from torch import Tensor

from genconv.sampling import ReplayBuffer
from tests.benchmarks.speed.clock import OURS, Row, compared, race, seconds
from tests.benchmarks.speed.networks import Settings, made, noise
from tests.benchmarks.speed.peers import UPDATES, Peer
from tests.benchmarks.speed.updates import contrastive, our_update

__all__ = ["buffers", "room_for", "turn"]

PUBLISHED, LARGE, TINY = 10_000, 100_000, 256


def turn(buffer: ReplayBuffer, x: Tensor) -> None:
    """Lend as many chains as there are images x, and take x back in their place."""
    buffer.write(buffer.draw(len(x)), x)


def room_for(size: int, shape: tuple[int, ...], device: str) -> bool:
    """Say whether so many uint8 images take less than half of the free memory."""
    if device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return size * torch.Size(shape).numel() < free / 2


def buffers(settings: Settings) -> list[Row]:
    """Time a draw and a write at the size of published buffers, and as a share of an update."""
    device = settings.device
    energy, shape = made("resnet", settings)
    x = noise(settings.batch, shape, device)
    size = TINY if settings.quick else PUBLISHED
    section, many = "replay buffer", 20
    buffer = ReplayBuffer(size, shape, device=device)
    runs = {OURS: lambda: [turn(buffer, x) for _ in range(many)]}
    for name, (kind, chain) in UPDATES.items():
        peer = kind(energy, chain, 1, noise(size, shape, device))

        def borrow(peer: Peer = peer) -> None:
            for _ in range(many):
                peer.draw(len(x))
                peer.write(x)

        runs[name] = borrow
    what = f"draw and write {len(x)} of {size:,}"
    rows = compared(section, "-", what, race(runs, device, settings.rounds), per=many)

    size = TINY if settings.quick else LARGE
    buffer = ReplayBuffer(size, shape, device=device)
    turn(buffer, x)
    ours = seconds(lambda: [turn(buffer, x) for _ in range(many)], device) / many
    update = our_update(contrastive(energy, shape, settings.k, device), device)
    update(x)
    whole = seconds(lambda: update(x), device)
    what = f"draw and write {len(x)} of {size:,}, as a share of an update"
    against = f"PCD update, K={settings.k}"
    rows.append(Row(section, "resnet", what, against, 1e3 * ours, 1e3 * whole, ours / whole))
    return rows
