"""One answer from several draws."""

import torch
from torch import Tensor

__all__ = ["ANSWERS", "choose", "lowest", "overlapping"]

ANSWERS = {
    "mean": "the mean of the draws",
    "lowest": "the draw of lowest energy",
    "overlap": "of images that are black or white, such as bodies, that of largest expected "
    "intersection over union",
}


def choose(answer: str, draws: Tensor, energies: Tensor, counted: Tensor) -> Tensor:
    """Return the answer of a name of `ANSWERS`.

    Args:
        answer: the name.
        draws: (N, D, C, *space).
        energies: (N, D), of the draws.
        counted: bool (N, C, *space): what is asked for; the rest is known.

    Returns:
        (N, C, *space).
    """
    if answer == "lowest":
        return lowest(draws, energies)
    mean = draws.mean(1)
    return overlapping(mean, counted) if answer == "overlap" else mean


def lowest(draws: Tensor, energies: Tensor) -> Tensor:
    """Return of each image the draw (N, C, *space) whose energy (N, D) is lowest."""
    return draws[torch.arange(len(draws)), energies.argmin(1)]


def overlapping(mean: Tensor, counted: Tensor) -> Tensor:
    r"""Return images of black and white that overlap best, in the mean, with what may be true.

    If values were white (1) independently with probability p = (1 + mean) / 2, and else black (-1),
    then a set S of white values has, over the counted ones, the ratio

    .. math:: \frac{\sum_{i ∈ S} p_i}{|S| + \sum_{i ∉ S} p_i}

    of expected intersection to expected union. It is largest for the k values of largest p, for
    some k, which is another one for each image; where p is spread many below 1/2 are among them.

    Args:
        mean: (N, C, *space), cut into [-1, 1].
        counted: bool, likewise: others stay as they are.

    Returns:
        (N, C, *space), -1 and 1 where counted.
    """
    p = ((1 + mean.clamp(-1, 1)) / 2 * counted).flatten(1).double()
    ordered, order = p.sort(dim=1, descending=True, stable=True)
    both = ordered.cumsum(1)
    sizes = torch.arange(1, both.shape[1] + 1, device=p.device)
    best = (both / (sizes + p.sum(1, keepdim=True) - both)).argmax(1, keepdim=True)
    white = (order.argsort(1) <= best).view_as(mean)
    return torch.where(counted, torch.where(white, 1.0, -1.0), mean)
