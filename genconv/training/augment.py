"""The augmentation of Improved CD, which sends buffered chains to other modes."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["augment"]


def augment(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Flip, zoom, shift and recolour each image at random.

    Args:
        x: (N, C, H, W) in [-1, 1].
        generator: source of the randomness, on x's device.

    Returns:
        Images of the same shape and range.

    Reference:
        Du et al.: Improved Contrastive Divergence Training of EBMs, https://arxiv.org/abs/2012.01316
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        noise = torch.rand((len(x), *shape), generator=generator, device=x.device)
        return low + (high - low) * noise

    zoom = uniform(0.7, 1.0)
    flip = (uniform(0, 1) < 0.5).float() * 2 - 1
    place = torch.zeros(len(x), 2, 3, device=x.device)
    place[:, 0, 0], place[:, 1, 1] = zoom * flip, zoom
    place[:, :, 2] = uniform(-1, 1, 2) * (1 - zoom)[:, None]
    where = F.affine_grid(place, list(x.shape), align_corners=False)
    x = F.grid_sample(x, where, padding_mode="reflection", align_corners=False)
    contrast, brightness = uniform(0.8, 1.2, 1, 1, 1), uniform(-0.2, 0.2, x.shape[1], 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean) * contrast + mean + brightness).clamp(-1, 1)
