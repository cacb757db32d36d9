"""Any classification set of torchvision, by its name in any case."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genconv.data.decode import stack, to_tensor
from genconv.data.image_set import Images, check_split
from genconv.errors import UserError
from genconv.progress import progress

__all__ = ["SETS", "load_torchvision"]

# the sets with one label per image; asking for another must not first download gigabytes of it
SETS = (
    "CIFAR10",
    "CIFAR100",
    "Caltech101",
    "Caltech256",
    "Country211",
    "DTD",
    "EuroSAT",
    "FGVCAircraft",
    "FashionMNIST",
    "Flowers102",
    "Food101",
    "GTSRB",
    "Imagenette",
    "KMNIST",
    "MNIST",
    "OxfordIIITPet",
    "PCAM",
    "QMNIST",
    "RenderedSST2",
    "SEMEION",
    "STL10",
    "SUN397",
    "SVHN",
    "USPS",
)


def load_torchvision(
    name: str,
    split: str = "train",
    *,
    root: str | Path = "data",
    size: int | None = None,
    channels: int | None = None,
) -> Images:
    """Load a set, after torchvision has downloaded it into `root` where it is not there yet.

    Args:
        name: one of `SETS`, in any case.
        split: "train" or "test" and whatever else the set knows; a set without splits is its own
            "train" and "all".
        root: where the files lie or go, in the layout that torchvision expects.
        size: side of the square to crop and resize to; needed where images vary in size.
        channels: 1 or 3; without it as the set has them.

    Returns:
        images (N, C, H, W), labels (but for STL10's unlabelled split) and class names.

    Raises:
        UserError: the set is not known or has no such split, the download fails, or the images vary
            in size and none was given.
    """
    known = {own.lower(): own for own in SETS}
    if name.lower() not in known:
        raise UserError(f"torchvision has no classification set {name!r}: {', '.join(known)}")
    # here and not above, since torchvision takes seconds to import
    from torchvision import datasets

    build = getattr(datasets, known[name.lower()])
    data = _open(name, build, _arguments(name, build, split), Path(root))
    if len(data) == 0:
        raise UserError(f"{name} has no images in its split {split!r}")
    labels = torch.empty(len(data), dtype=torch.int64)
    pairs = progress(_pairs(name, data, labels), f"reading {name}", len(data))
    images = stack(pairs, len(data), size, channels)
    classes = getattr(data, "classes", None)
    # the unlabelled part of STL10 is labelled -1
    if int(labels.min()) < 0:
        return Images(images)
    return Images(images, labels, None if classes is None else tuple(str(c) for c in classes))


def _arguments(name: str, build: Any, split: str) -> dict[str, Any]:
    parameters = inspect.signature(build).parameters
    if "train" in parameters:
        check_split(name, split, ("train", "test"))
        return {"train": split == "train"}
    if "split" in parameters:
        return {"split": split}
    check_split(name, split, ("train", "all"))
    return {}


def _open(name: str, build: Any, arguments: dict[str, Any], root: Path) -> Any:
    try:
        return build(str(root), download=True, **arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"torchvision refuses {name}: {error}") from error
    except ImportError as error:
        raise UserError(f"{name} needs another package: {error}") from error
    # torchvision raises RuntimeError for torn archives and failed mirrors alike
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(
            f"cannot download {name}: {error}; put it, as torchvision lays it out, in {root}"
        ) from error


def _pairs(name: str, data: Any, labels: Tensor) -> Iterator[tuple[str, Tensor]]:
    for i in range(len(data)):
        image, label = data[i]
        labels[i] = int(label)
        yield f"{name} image {i}", to_tensor(image)
