"""Wishes as functions of an image: small where they are fulfilled, to be used in a `Constraint`."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image, ImageColor, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from genconv.energy import Constraint
from genconv.errors import UserError
from genconv.eval.classifier import SmallClassifier
from genconv.images import from_uint8

__all__ = ["class_of", "constraint", "hue", "region"]

Wish = Callable[[Tensor], Tensor]
WEIGHTS = {"hue": 5.0, "region": 5.0, "class": 10.0}


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


def constraint(text: str, shape: tuple[int, ...]) -> Constraint:
    """Read `hue=COLOUR`, `region=FILE@L,T,R,B` or `class=FILE:LABEL`, and `*WEIGHT` behind it.

    Raises:
        UserError: it cannot be read, or does not fit images of this shape (C, H, W).
    """
    kind, _, rest = text.partition("=")
    value, _, weight = rest.partition("*")
    try:
        number = float(weight) if weight else WEIGHTS[kind]
        wish = {"hue": _hue, "region": _region, "class": _class}[kind](value, shape)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"--constraint {text}: {error}; write hue=red, hue=#C03030*5, "
            "region=FILE@LEFT,TOP,RIGHT,BOTTOM or class=FILE.safetensors:LABEL"
        ) from error
    return Constraint(wish, number)


def _hue(value: str, shape: tuple[int, ...]) -> Wish:
    rgb = ImageColor.getrgb(value)[:3]
    if len(set(rgb)) == 1:
        raise ValueError(f"{value} is grey and has no hue")
    if shape[0] != 3:
        raise ValueError(f"images with {shape[0]} channels have no hue")
    return hue(rgb)


def _region(value: str, shape: tuple[int, ...]) -> Wish:
    path, _, box = value.rpartition("@")
    left, top, right, bottom = (int(number) for number in box.split(","))
    c, h, w = shape
    if not (0 <= left < right <= w and 0 <= top < bottom <= h):
        raise ValueError(f"the box {box} is not within {w}x{h} pixels")
    try:
        with Image.open(path) as image:
            target = pil_to_tensor(image.convert("RGB" if c == 3 else "L"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"--constraint region={value}: cannot read the image {path}") from error
    if target.shape != shape:
        raise ValueError(f"{path} has {target.shape[2]}x{target.shape[1]} pixels, not {w}x{h}")
    mask = torch.zeros(h, w)
    mask[top:bottom, left:right] = 1
    return region(from_uint8(target), mask)


def _class(value: str, shape: tuple[int, ...]) -> Wish:
    path, _, label = value.rpartition(":")
    if not path:
        raise ValueError(f"{label} has no label behind it")
    classifier = SmallClassifier.load(path).requires_grad_(False)
    channels, classes = (classifier.arguments[name] for name in ("channels", "classes"))
    if len(shape) != 3 or channels != shape[0]:
        raise ValueError(f"{path} is for images with {channels} channels, not for {shape}")
    if not 0 <= int(label) < classes:
        raise ValueError(f"{path} knows the classes 0 to {classes - 1}")
    return class_of(lambda x: classifier.to(x.device).logits(x), int(label))
