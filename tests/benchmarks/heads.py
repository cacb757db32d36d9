"""Heads and normalisation of the U-Net at equal CPU time: the table of docs/heads.md.

python -m tests.benchmarks.heads --data cifar10 --seconds 120
"""

import argparse
import copy
import time

import torch
from rich.console import Console
from rich.table import Table

from genconv.data import load_images
from genconv.energy import GenerativeConvNet, UNetEnergy
from genconv.images import from_uint8
from genconv.training.energy_matching import transport_loss

SMALL = {"width": 64, "multipliers": (1, 2, 2), "blocks": 1, "patch": 2}
NETWORKS = {
    "dot, no norm": lambda: UNetEnergy(**SMALL, norm=False),
    "l2, no norm": lambda: UNetEnergy(**SMALL, norm=False, head="l2"),
    "local, no norm": lambda: UNetEnergy(**SMALL, norm=False, head="local"),
    "pooled x1000, no norm": lambda: UNetEnergy(**SMALL, norm=False, head="pooled", scale=1000),
    "dot": lambda: UNetEnergy(**SMALL),
    "l2": lambda: UNetEnergy(**SMALL, head="l2"),
    "dot, width 48 (1, 2, 3)": lambda: UNetEnergy(
        width=48, multipliers=(1, 2, 3), blocks=1, patch=2
    ),
    "plain ConvNet": lambda: GenerativeConvNet(
        3, widths=(64, 128, 128, 256, 256), kernels=(4, 3, 4, 3, 4), strides=(2, 1, 2, 1, 2)
    ),
}


def teach(energy, images, seconds, batch_size=32, lr=1e-3):
    """Run the transport phase for so many seconds of process time; return averages and updates."""
    optimizer = torch.optim.Adam(energy.parameters(), lr=lr, betas=(0.9, 0.95))
    average, updates, begin = copy.deepcopy(energy), 0, time.process_time()
    while (spent := (time.process_time() - begin) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (updates + 1) / 30) * min(1, 3 * (1 - spent))
        x = from_uint8(images[torch.randint(len(images), (batch_size,))])
        with torch.autocast("cpu", torch.bfloat16):
            loss = transport_loss(energy, torch.randn_like(x), x, torch.rand(batch_size))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(energy.parameters(), 1.0)
        optimizer.step()
        keep = min(0.99, (1 + updates) / (10 + updates))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(energy.parameters()), 1 - keep)
        updates += 1
    return average, updates


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root", default="data")
    parser.add_argument("--seconds", type=float, default=120, help="CPU time of each network")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = load_images(args.data, "train", root=args.root).images
    test = from_uint8(load_images(args.data, "test", root=args.root).images[:512])
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(test.shape, generator=generator)
    t = torch.rand(len(test), generator=generator)
    table = Table("network", "weights", "updates", "test loss", title=f"{args.seconds:.0f} s each")
    for name in args.only:
        torch.manual_seed(0)
        energy = NETWORKS[name]()
        average, updates = teach(energy, train, args.seconds)
        parts = zip(noise.split(64), test.split(64), t.split(64), strict=True)
        loss = sum(transport_loss(average, *part).item() * len(part[0]) for part in parts)
        weights = sum(p.numel() for p in energy.parameters())
        table.add_row(name, f"{weights / 1e6:.2f} M", str(updates), f"{loss / len(test):.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
