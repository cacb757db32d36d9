"""Latent vectors of given images, the ways between them, and what is simpler than both."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genconv.checkpoint import Trained
from genconv.generator import infer
from genconv.seeds import stream

__all__ = ["between", "class_means", "explain", "principal", "revise"]


def explain(trained: Trained, x: Tensor, numbers: Sequence[int], starts: int, seed: int) -> Tensor:
    """Return the latent vectors that explain images best, of several that chains have found.

    Args:
        trained: has a generator.
        x: (N, C, *space).
        numbers: of the images; start s of image i depends on (seed, i, s) alone.
        starts: chains for each image, begun from as many draws of the prior.
        seed: of all starts.

    Returns:
        (N, latent), those of the largest p(z | x) up to its constant.
    """
    network, device = trained.generator, x.device
    generators = [
        stream(seed, "latent", i, s, device=device) for i in numbers for s in range(starts)
    ]
    repeated = x.repeat_interleave(starts, 0)
    z, energies = infer(network, trained.latent, repeated, generator=generators)
    # a chain that has left the numbers is no explanation
    energies = energies.nan_to_num(torch.inf).view(-1, starts)
    best = energies.argmin(1) + starts * torch.arange(len(x), device=device)
    return z[best]


def between(a: Tensor, b: Tensor, points: int) -> Tensor:
    """Return the straight ways from a to b.

    Args:
        a: (N, ...).
        b: likewise.
        points: on each way, both ends included.

    Returns:
        (N, points, ...).
    """
    t = torch.linspace(0, 1, points, device=a.device).view(1, -1, *[1] * (a.ndim - 1))
    return torch.lerp(a[:, None], b[:, None], t)


def revise(trained: Trained, x: Tensor, streams: Sequence[int], seed: int) -> Tensor:
    """Run the energy's chain from images x (N, C, *space).

    Args:
        trained: energy and chain.
        x: where the chains begin.
        streams: (N,) numbers; images of equal number are revised by equal noise.
        seed: of the noise.
    """
    generators = [stream(seed, "revise", i, device=x.device) for i in streams]
    return trained.chain.run(trained.energy, x, generator=generators).x


def class_means(train: Tensor, labels: Tensor, y: Tensor) -> Tensor:
    """Return for labels y (N,) the means (N, C, *space) of these classes of a training set."""
    return torch.stack([train[labels == label].mean(0) for label in y])


def principal(train: Tensor, x: Tensor, k: int) -> Tensor:
    """Return x as the mean and the first k principal components of a training set have it.

    No k numbers that an image is a linear function of do better on the training set.
    """
    mean = train.flatten(1).double().mean(0)
    _, _, axes = torch.linalg.svd(train.flatten(1).double() - mean, full_matrices=False)
    centred = x.flatten(1).double() - mean
    return (mean + centred @ axes[:k].T @ axes[:k]).view_as(x).float()
