"""Speed of chains and updates beside the plain float32 loop, on one network.

    python -m tests.benchmarks.speed

Variants take turns, and a ratio is the median over rounds, so that a busy machine slows both
alike. On a CPU the time is that of the process, and one thread is the default: two threads that
spin for each other while another process runs would measure that process.
"""

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from genconv.energy import GenerativeConvNet, ResNetEnergy, UNetEnergy
from genconv.sampling import Chain, ReplayBuffer, langevin
from genconv.training import ContrastiveDivergence

NETWORKS = {
    # the shape of IGEBM's network, 1.29 M weights, 32x32
    "resnet": (lambda: ResNetEnergy(3, widths=(64, 128, 128)), (3, 32, 32)),
    "unet": (lambda: UNetEnergy(3, width=32, multipliers=(1, 2, 2), blocks=1), (3, 32, 32)),
    "digits": (
        lambda: GenerativeConvNet(1, widths=(32, 64, 128, 128), strides=(1, 2, 1, 2)),
        (1, 8, 8),
    ),
}
ETA, NOISE = 0.01, 0.005


def plain_steps(energy, x, steps):
    """The loop as published scripts have it: parameters not frozen, float32, channels first."""
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        x = (x - ETA * gradient + NOISE * torch.randn_like(x)).clamp(-1, 1)
    return x.detach()


def plain_update(energy, optimizer, chains, data, k):
    """Persistent CD with two forward passes, chains kept as float32."""
    slots = torch.randperm(len(chains))[: len(data)].to(data.device)
    negative = plain_steps(energy, chains[slots], k)
    chains[slots] = negative
    positive_energy, negative_energy = energy(data), energy(negative)
    loss = positive_energy.mean() - negative_energy.mean()
    loss = loss + positive_energy.square().mean() + negative_energy.square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def our_module(energy, shape, device, k):
    chain = Chain(step_size=ETA, temperature=NOISE**2 / (2 * ETA), start="uniform", clamp=True)
    module = ContrastiveDivergence(energy, chain=chain, k=k, bf16_chains=True).to(device)
    module.generator = torch.Generator(device).manual_seed(0)
    module.buffer = ReplayBuffer(1024, shape, device=device)
    module.log = module.log_dict = lambda *args, **kwargs: None
    return module


def clock(device):
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def seconds(work, device):
    begin = clock(device)
    work()
    return clock(device) - begin


def matmul_rate(dtype, device, n=2048):
    """FLOP/s of a square matrix product, what the hardware gives at best."""
    a = torch.randn(n, n, device=device).to(dtype)
    a @ a
    return 2 * n**3 / min(seconds(lambda: a @ a, device) for _ in range(5))


def compare(plain, ours, rounds, device):
    """Median seconds of both, and the median of their ratios."""
    plain(), ours()
    times = [(seconds(plain, device), seconds(ours, device)) for _ in range(rounds)]
    return (
        statistics.median(t for t, _ in times),
        statistics.median(t for _, t in times),
        statistics.median(a / b for a, b in times),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--k", type=int, default=20, help="Langevin steps of an update")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        # the plain loop keeps float32 as such
        hardware = torch.cuda.get_device_name()
    else:
        hardware = f"{args.threads} thread(s), {torch.backends.cpu.get_cpu_capability()}"
        hardware += ", AMX" if torch.cpu._is_amx_tile_supported() else ", no AMX"
    rates = {t: matmul_rate(t, device) for t in (torch.float32, torch.bfloat16)}
    table = Table(
        *("network", "what", "plain ms", "ours ms", "ratio"),
        title=f"{hardware}: matmul {rates[torch.float32] / 1e9:.0f} GFLOP/s float32, "
        f"{rates[torch.bfloat16] / 1e9:.0f} bfloat16; batch {args.batch_size}",
    )
    for name in args.networks:
        make, shape = NETWORKS[name]
        torch.manual_seed(0)
        x = (torch.rand(args.batch_size, *shape) * 2 - 1).to(device)
        plain, ours = make().to(device), make().to(device)
        chain = compare(
            lambda plain=plain, x=x: plain_steps(plain, x, 4),
            lambda ours=ours, x=x: langevin(
                ours, x, steps=4, step_size=ETA, temperature=1e-3, clamp=(-1, 1), bf16=True
            ),
            args.rounds,
            device,
        )
        table.add_row(name, "chain step", *(f"{v * 250:.1f}" for v in chain[:2]), f"{chain[2]:.2f}")
        chains = (torch.rand(1024, *shape) * 2 - 1).to(device)
        optimizer = torch.optim.Adam(plain.parameters(), lr=1e-4)
        module = our_module(ours, shape, device, args.k)
        our_optimizer = module.configure_optimizers()["optimizer"]

        def our_update(module=module, optimizer=our_optimizer, x=x):
            with torch.autocast(device, torch.bfloat16):
                loss = module.training_step((x, None), 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        update = compare(
            lambda plain=plain, optimizer=optimizer, chains=chains, x=x: plain_update(
                plain, optimizer, chains, x, args.k
            ),
            our_update,
            max(1, args.rounds // 2),
            device,
        )
        label = f"CD update, K={args.k}"
        table.add_row(name, label, *(f"{v * 1e3:.0f}" for v in update[:2]), f"{update[2]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
