"""The search for the recipe of cifar10_cpu: one change at a time, at equal CPU time.

    python -m tests.benchmarks.recipe --data cifar10 --seconds 90 --seeds 0 1

Every row is the base with one change, and is taught by the transport phase alone. The number is the
transport error per pixel of 512 test images, at noise and times that are the same for all rows:
lower is better, and an energy that knows nothing has about 1.3.
"""

import argparse
import copy
import statistics
import time
from dataclasses import dataclass, field, replace

import torch
from rich.console import Console
from rich.table import Table

from genconv.data import load_images
from genconv.energy import UNetEnergy
from genconv.images import from_uint8
from genconv.precision import has_bfloat16
from genconv.training.energy_matching import pair_by_transport, transport_loss

NETWORK = {"width": 48, "multipliers": (1, 2, 3), "blocks": 1, "patch": 2}


@dataclass(frozen=True)
class Recipe:
    """What one row teaches, and how."""

    network: dict = field(default_factory=dict)
    batch_size: int = 32
    lr: float = 1e-3
    betas: tuple = (0.9, 0.95)
    coupled: bool = False
    times: str = "uniform"
    bf16: bool = has_bfloat16("cpu")  # where it is imitated all rows are float32


BASE = Recipe()
ROWS = {
    "base: dot, group norm, width 48 (1, 2, 3)": BASE,
    "head l2": Recipe({"head": "l2"}),
    "head local": Recipe({"head": "local"}),
    "head pooled x 1000": Recipe({"head": "pooled", "scale": 1000}),
    "no norm": Recipe({"norm": False}),
    "wider and shorter: 64 (1, 2)": Recipe({"width": 64, "multipliers": (1, 2)}),
    "narrower and longer: 32 (1, 2, 4, 8)": Recipe({"width": 32, "multipliers": (1, 2, 4, 8)}),
    "narrower and deeper: 32 (1, 2, 4), 2 blocks": Recipe(
        {"width": 32, "multipliers": (1, 2, 4), "blocks": 2}
    ),
    "more of it at the bottom: 48 (1, 2, 4)": Recipe({"multipliers": (1, 2, 4)}),
    "patches of 4x4, width 96 (1, 2)": Recipe({"width": 96, "multipliers": (1, 2), "patch": 4}),
    "pixels, width 24 (1, 2, 4)": Recipe({"width": 24, "multipliers": (1, 2, 4), "patch": 1}),
    "batch 16": replace(BASE, batch_size=16),
    "batch 64": replace(BASE, batch_size=64),
    "rate 5e-4": replace(BASE, lr=5e-4),
    "rate 2e-3": replace(BASE, lr=2e-3),
    "betas .9, .99": replace(BASE, betas=(0.9, 0.99)),
    "noise paired by optimal transport (another task)": replace(BASE, coupled=True),
    "times stratified": replace(BASE, times="stratified"),
    "times logit-normal": replace(BASE, times="logit-normal"),
    "float32": replace(BASE, bf16=False),
    "l2, times spread": Recipe({"head": "l2"}, times="spread"),
    "l2, times spread, batch 16": Recipe({"head": "l2"}, batch_size=16, times="spread"),
}


def draw_times(n, kind):
    if kind == "stratified":
        return (torch.randperm(n) + torch.rand(n)) / n
    if kind == "spread":
        return (torch.arange(n) / n + torch.rand(1)) % 1
    return torch.randn(n).sigmoid() if kind == "logit-normal" else torch.rand(n)


def teach(energy, images, seconds, recipe):
    """Run the transport phase for so many seconds of process time; return averages and updates."""
    optimizer = torch.optim.Adam(energy.parameters(), lr=recipe.lr, betas=recipe.betas)
    average, updates, begin = copy.deepcopy(energy), 0, time.process_time()
    while (spent := (time.process_time() - begin) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min(1, (updates + 1) / 30) * min(1, 3 * (1 - spent))
        x = from_uint8(images[torch.randint(len(images), (recipe.batch_size,))])
        noise = torch.randn_like(x)
        if recipe.coupled:
            noise = pair_by_transport(noise, x)
        times = draw_times(len(x), recipe.times)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            loss = transport_loss(energy, noise, x, times)
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
    parser.add_argument("--seconds", type=float, default=90, help="CPU time of each row and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", help="rows whose names begin so")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = load_images(args.data, "train", root=args.root).images
    test = from_uint8(load_images(args.data, "test", root=args.root).images[:512])
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(test.shape, generator=generator)
    t = torch.rand(len(test), generator=generator)
    table = Table("change", "weights", "updates", *(f"seed {s}" for s in args.seeds), "mean")
    names = [n for n in ROWS if not args.only or n.startswith(tuple(args.only))]
    for name in names:
        losses, made = [], []
        for seed in args.seeds:
            torch.manual_seed(seed)
            energy = UNetEnergy(**NETWORK | ROWS[name].network)
            average, updates = teach(energy, train, args.seconds, ROWS[name])
            parts = zip(noise.split(64), test.split(64), t.split(64), strict=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=BASE.bf16):
                loss = sum(transport_loss(average, *part).item() * len(part[0]) for part in parts)
            losses.append(loss / len(test))
            made.append(updates)
            print(f"{name}, seed {seed}: {updates} updates, {losses[-1]:.4f}", flush=True)
        weights = sum(p.numel() for p in energy.parameters())
        table.add_row(
            *(name, f"{weights / 1e6:.2f} M", str(round(statistics.mean(made)))),
            *(f"{loss:.4f}" for loss in [*losses, statistics.mean(losses)]),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
