"""The ceiling of a budget: the same network as a velocity field that need not be a gradient.

    python -m genconv.train --config cifar10_cpu --name flow \\
        --model tests.benchmarks.flow.FlowMatching
    python -m tests.benchmarks.flow runs/flow -n 1000 --out flow.npz

The U-Net's map f(x) is taught to be the velocity itself, where energy matching teaches -∇E. An
update needs no second derivative, and a step of sampling no first one.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from genconv.checkpoint import read
from genconv.images import to_uint8
from genconv.progress import progress
from genconv.sampling import draw_noise
from genconv.training import EnergyMatching


class FlowMatching(EnergyMatching):
    """Teaches the map of a U-Net by |f(x_t) - (x1 - x0)|², with all else as in energy matching."""

    def training_step(self, batch, batch_idx):
        x1, _ = batch
        x0 = draw_noise(x1.shape, self.generator, device=x1.device)
        t = draw_noise((len(x1), 1, 1, 1), self.generator, draw=torch.rand, device=x1.device)
        f = self.energy.map((1 - t) * x0 + t * x1)
        loss = (f.float() - (x1 - x0)).square().mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def drawn(self, n, batch, *, generator=None, callback=None):
        noise = draw_noise((n, *batch[0].shape[1:]), generator, device=self.device)
        return flow(self.energy, noise)


@torch.no_grad()
def flow(net, x, steps=50):
    """Follow the velocity from noise (N, C, H, W) at t = 0 to images at t = 1, by Euler's steps."""
    for _ in range(steps):
        with torch.autocast(x.device.type, torch.bfloat16):
            velocity = net.map(x)
        x = x + velocity.float() / steps
    return x


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("flow.npz"))
    args = parser.parse_args()
    trained = read(args.checkpoint)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(args.n, *trained.shape, generator=generator).split(64)
    images = torch.cat([flow(trained.energy, x, args.steps) for x in progress(noise, "sampling")])
    np.savez(args.out, images=to_uint8(images).movedim(1, -1).numpy())


if __name__ == "__main__":
    main()
