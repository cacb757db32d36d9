"""Wishes as functions of an image: small where they are fulfilled, to be used in a `Constraint`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["class_of", "hue", "region"]

Wish = Callable[[Tensor], Tensor]


def hue(rgb: Sequence[int], pool: int = 4) -> Wish:
    r"""Wish that whatever has a colour has that of `rgb`; grey stays free.

    .. math:: f(x) = \tfrac12 \sum_u |k_u|^2 - \max(0, <k_u, c>)^2

    where k is the image less its grey part, and c the direction of `rgb` less its grey part.

    Args:
        rgb: three levels 0..255, not all equal.
        pool: k is averaged over squares of this side, above which the noise of a young chain
            hardly shows; the sum is over pixels all the same.

    Returns:
        A function of (N, 3, H, W) in [-1, 1].
    """
    c = torch.tensor(rgb, dtype=torch.float32)
    c = c - c.mean()
    c = c / c.norm()

    def wish(x: Tensor) -> Tensor:
        k = F.avg_pool2d(x - x.mean(1, keepdim=True), pool)
        along = torch.einsum("nchw,c->nhw", k, c.to(x)).clamp_min(0)
        return (k.square().sum(1) - along.square()).sum((1, 2)) * (pool**2 / 2)

    return wish


def region(target: Tensor, mask: Tensor) -> Wish:
    """Wish that pixels are given ones: f(x) = ½ |mask · (x - target)|².

    Args:
        target: (C, *space) in [-1, 1].
        mask: (*space), 1 where the target counts, else 0.
    """

    def wish(x: Tensor) -> Tensor:
        return (mask.to(x) * (x - target.to(x))).square().flatten(1).sum(1) / 2

    return wish


def class_of(network: Callable[[Tensor], Tensor], label: int) -> Wish:
    """Wish that a classifier sees a class: f(x) = -log p(label | x).

    Args:
        network: maps (N, C, *space) in [-1, 1] to logits (N, K).
        label: the class.
    """

    def wish(x: Tensor) -> Tensor:
        return -network(x).float().log_softmax(1)[:, label]

    return wish
