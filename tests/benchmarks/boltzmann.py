"""An update of persistent contrastive divergence beside scikit-learn's BernoulliRBM.

    python -m tests.benchmarks.boltzmann

Both learn 784 binary units and as many hidden ones from the same batches, by one Gibbs step of as
many persistent chains as a batch has images. They take turns, and a ratio is the median over
rounds, so that a busy machine slows both alike; the time is that of the process, on one thread.
"""

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from sklearn.neural_network import BernoulliRBM
from threadpoolctl import threadpool_limits

from genconv.energy import RBM
from genconv.sampling import Chain
from genconv.training import ContrastiveDivergence

SHAPE = (1, 28, 28)


def ours(hidden, batch_size, bf16):
    """An update as `genconv.train` makes it, but for what Lightning logs."""
    torch.manual_seed(0)
    module = ContrastiveDivergence(
        RBM(SHAPE, hidden),
        Chain(sampler="gibbs", start="uniform"),
        k=1,
        alpha=0.0,
        buffer_size=batch_size,
        restart=0.0,
        lr=0.05,
        optimizer="sgd",
        bf16_chains=bf16,
    )
    module.generator = torch.Generator().manual_seed(0)
    module.log = module.log_dict = lambda *args, **kwargs: None
    optimizers = module.configure_optimizers()
    optimizer, scheduler = optimizers["optimizer"], optimizers["lr_scheduler"]["scheduler"]

    def update(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = module.training_step((x, None), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

    return update


def theirs(hidden, batch_size, dtype):
    """An update of scikit-learn's, by its public method."""
    rbm = BernoulliRBM(hidden, learning_rate=0.05, batch_size=batch_size, random_state=0)

    def update(x):
        rbm.partial_fit(((x.flatten(1) + 1) / 2).to(dtype).numpy())

    return update


def seconds(update, batches):
    begin = time.process_time()
    for x in batches:
        update(x)
    return (time.process_time() - begin) / len(batches)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--updates", type=int, default=50, help="of each, in a round")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.rand(args.batch_size, *SHAPE, generator=generator) < 0.13).float() * 2 - 1
        for _ in range(args.updates)
    ]
    size = args.hidden, args.batch_size
    contestants = {
        "scikit-learn, float64 (its default)": theirs(*size, torch.float64),
        "scikit-learn, float32": theirs(*size, torch.float32),
        "genconv, float32": ours(*size, False),
        "genconv, bfloat16": ours(*size, True),
    }
    with threadpool_limits(1):
        for update in contestants.values():
            seconds(update, batches[:5])
        rounds = [
            {name: seconds(update, batches) for name, update in contestants.items()}
            for _ in range(args.rounds)
        ]
    capability = torch.backends.cpu.get_cpu_capability()
    table = Table(
        *("", "ms an update", "of scikit-learn's float32"),
        title=f"784 x {args.hidden} units, batch {args.batch_size}, 1 thread, {capability}",
    )
    for name in contestants:
        took = statistics.median(one[name] for one in rounds)
        ratio = statistics.median(one[name] / one["scikit-learn, float32"] for one in rounds)
        table.add_row(name, f"{took * 1e3:.2f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
