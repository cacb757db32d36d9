"""The sets of the benchmark: those inside, those outside, and a pipeline for both."""

import argparse
import io
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from genconv.data import load_images
from genconv.data.decode import to_tensor
from genconv.data.fit import resize
from genconv.errors import UserError
from genconv.images import to_pil
from genconv.seeds import stream

__all__ = [
    "BUILT_IN",
    "CONTROL",
    "ENDS",
    "Set",
    "controlled",
    "load_inside",
    "load_outside",
    "split_of",
]

BUILT_IN = ("constant", "uniform", "interpolation")
ENDS = ("", ".npz")
CONTROL = r"(jpeg|resize)(\d*)"


@dataclass(frozen=True)
class Set:
    """Images under the name by which a table calls them, and the split they are of."""

    name: str
    split: str | None
    images: Tensor


def constant(n: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return images of one colour, every second of one grey."""
    levels = torch.randint(256, (n, shape[0]), generator=generator)
    levels[::2] = levels[::2, :1]
    return (
        levels.to(torch.uint8).view(n, shape[0], *[1] * (len(shape) - 1)).repeat(1, 1, *shape[1:])
    )


def uniform(n: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return images whose levels are drawn one by one."""
    return torch.randint(256, (n, *shape), generator=generator).to(torch.uint8)


def interpolation(n: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """Return means of two different images."""
    first = torch.randint(len(images), (n,), generator=generator)
    apart = torch.randint(1, len(images), (n,), generator=generator)
    second = (first + apart) % len(images)
    return ((images[first].int() + images[second].int() + 1) // 2).to(torch.uint8)


def controlled(images: Tensor, control: str | None) -> Tensor:
    """Send images through a pipeline: `jpeg75`, `resize16` or, to half their side, `resize`.

    How images were compressed or resampled before they came here is a shortcut by which sets can
    be told apart; what is left of a score when all went the same way is not owed to it.
    """
    if control is None:
        return images
    kind, number = re.fullmatch(CONTROL, control).groups()
    side = images.shape[-1]
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != side:
        raise UserError(f"--control {control} needs square pictures in grey or RGB")
    if kind == "resize":
        return resize(resize(images, int(number or max(1, side // 2))), side)
    with ThreadPoolExecutor() as pool:
        return torch.stack(list(pool.map(partial(_jpeg, quality=int(number or 75)), images)))


def _jpeg(image: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    to_pil(image).save(file, format="JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as opened:
        return to_tensor(opened)


def load_inside(options: argparse.Namespace, shape: Sequence[int]) -> tuple[Set, Set]:
    """Load the in-distribution images: those that are told from others, and those to fit on.

    Where both are of one split, or of a file without splits, they are disjoint halves of it.
    """
    name, generator = options.inside, stream(options.seed, "inside")
    one = options.in_split == options.validation or Path(name).is_file()
    images = _load(name, options.in_split, options.root, shape)
    if one:
        order = torch.randperm(len(images), generator=generator)
        half = len(images) // 2
        test, fit = images[order[:half]], images[order[half:]]
    else:
        test, fit = images, _load(name, options.validation, options.root, shape)
    if min(len(test), len(fit)) < 2:
        raise UserError(f"{name} has too few images; two are needed to test and two to fit")
    test, fit = _choose(test, options.n, generator), _choose(fit, options.n, generator)
    splits = (None, None) if Path(name).is_file() else (options.in_split, options.validation)
    return Set(name, splits[0], test), Set(f"{name} (validation)", splits[1], fit)


def load_outside(name: str, inside: Tensor, options: argparse.Namespace) -> Set:
    """Make a built-in set, or load `NAME` or `NAME:SPLIT`; by default the split is "test".

    See `split_of`.
    """
    n, shape = options.n, tuple(inside.shape[1:])
    generator = stream(options.seed, "outside", name)
    if name == "constant":
        return Set(name, None, constant(n, shape, generator))
    if name == "uniform":
        return Set(name, None, uniform(n, shape, generator))
    if name == "interpolation":
        return Set(name, None, interpolation(n, inside, generator))
    source, split = split_of(name)
    images = _choose(_load(source, split, options.root, shape), n, generator)
    return Set(name, None if Path(name).is_file() else split, images)


def split_of(name: str) -> tuple[str, str]:
    """Take `NAME:SPLIT` apart; the split is "test" without one, and all of a folder without it."""
    if not Path(name).exists() and (match := re.fullmatch(r"(.+):(\w+)", name)):
        return match[1], match[2]
    if Path(name).is_dir() and not any((Path(name) / f"test{end}").exists() for end in ENDS):
        return name, "all"
    return name, "test"


def _load(name: str, split: str, root: Path, shape: Sequence[int]) -> Tensor:
    square = len(shape) == 3 and shape[1] == shape[2]
    size, channels = shape[-1] if square else None, shape[0] if shape[0] in (1, 3) else None
    return load_images(name, split, root=root, size=size, channels=channels).images


def _choose(images: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return images[torch.randperm(len(images), generator=generator)[:n].sort().values]
