"""The network of `digits_joint` taught to classify and nothing else, to be attacked like it.

python -m tests.benchmarks.plain runs/plain
python -m genconv.eval robustness runs/plain --data digits --runs 0
"""

import argparse
from pathlib import Path

import torch

from genconv.checkpoint import Trained, write
from genconv.data import load_images
from genconv.energy import GenerativeConvNet
from genconv.images import from_uint8
from genconv.progress import progress
from genconv.sampling import Chain
from genconv.training.contrastive import classification


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--updates", type=int, default=2600)
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation, in [-1, 1]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    data = load_images("digits", "train")
    energy = GenerativeConvNet(widths=(32, 64, 128, 128), strides=(1, 2, 1, 2), classes=10)
    optimiser = torch.optim.Adam(energy.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.updates)
    for _ in progress(range(options.updates), "cross-entropy"):
        rows = torch.randint(len(data), (128,))
        x = from_uint8(data.images[rows])
        x = x + options.noise * torch.randn_like(x)
        loss, right = classification(energy, x, data.labels[rows], temperature=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    print(f"loss {loss:.4f}, right {right:.1%}")
    write(Trained(energy.eval(), Chain(), (1, 8, 8), options.updates), options.out)


if __name__ == "__main__":
    main()
