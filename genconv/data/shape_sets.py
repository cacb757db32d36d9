"""Sets of coloured shapes: all of them, those with an attribute, and labels of any kind."""

from dataclasses import fields

import torch
from torch import Tensor
from torch.nn import functional as F

from genconv.data.fit import resize
from genconv.data.image_set import Images
from genconv.data.shapes import COLOURS, SHAPES, SIDE, Attributes, draw, measure, split_attributes
from genconv.errors import UserError

__all__ = ["ATTRIBUTES", "KINDS", "clean", "has", "load_shapes", "resized"]

KINDS = {"shape": SHAPES, "colour": tuple(COLOURS), "side": ("left", "right")}
ATTRIBUTES = tuple(name for names in KINDS.values() for name in names)


def load_shapes(split: str = "train", options: str = "") -> Images:
    """Draw the set: 20,000 images for "train", 2,000 for "test", "all" the one after the other.

    Args:
        split: which part.
        options: separated by commas, as in `shapes:label=attribute,without=red-circle`:
            `shape=S`, `colour=C`, `side=S` keep the images with this attribute;
            `without=A-B` leaves out those that have all of the named attributes;
            `label=shape` (the default), `colour` or `side` says what the labels are, and
            `label=attribute` gives each image one of its attributes, drawn at random, as if
            whoever labelled it had looked at nothing else.

    Returns:
        images (N, 3, 32, 32) with labels 0..K-1 and the K class names, which for
        `label=attribute` are `ATTRIBUTES`; `split_attributes` has all that is drawn.

    Raises:
        UserError: an option is not known, or leaves no image.
    """
    table = split_attributes(split)
    keep = torch.ones(len(table), dtype=torch.bool)
    kind = "shape"
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key == "label" and value in (*KINDS, "attribute"):
            kind = value
        elif key == "without" and all(name in ATTRIBUTES for name in value.split("-")):
            keep &= ~torch.stack([_has(table, name) for name in value.split("-")]).all(0)
        elif value in KINDS.get(key, ()):
            keep &= _has(table, value)
        else:
            raise UserError(
                f"shapes:{options}: {option!r} is not understood; there are "
                + ", ".join(f"{k}={'|'.join(names)}" for k, names in KINDS.items())
                + ", without=A-B with any of these, and label=shape|colour|side|attribute"
            )
    if not keep.any():
        raise UserError(f"shapes:{options} leaves no image of {split!r}")
    table = Attributes(*(getattr(table, f.name)[keep] for f in fields(Attributes)))
    if kind != "attribute":
        return Images(draw(table), _labels(table, kind), KINDS[kind])
    first = [ATTRIBUTES.index(names[0]) for names in KINDS.values()]
    labels = torch.stack([_labels(table, k) + n for k, n in zip(KINDS, first, strict=True)])
    chosen = torch.randint(len(KINDS), (len(table),), generator=torch.Generator().manual_seed(2))
    return Images(draw(table), labels[chosen, torch.arange(len(table))], ATTRIBUTES)


def has(images: Tensor, *names: str) -> Tensor:
    """Tell which images have all of the named attributes, by looking at their pixels.

    Args:
        images: uint8 (N, 3, S, S), drawn or generated; another side than 32 is resized.
        names: of `ATTRIBUTES`.

    Returns:
        bool (N,).
    """
    table = measure(resized(images))
    return torch.stack([_has(table, name) for name in names]).all(0)


def clean(images: Tensor) -> Tensor:
    r"""Tell which images are drawings, and not caricatures of them.

    .. math:: |x - d| \le \tfrac15\, |d - b|

    where d is the drawing that `measure` reads from x, and b its background alone: what no drawing
    explains of an image is a fifth of what there is to explain, at most. So small shapes are judged
    as strictly as large ones, and so is noise around them.

    Args:
        images: uint8 (N, 3, S, S), drawn or generated.

    Returns:
        bool (N,).
    """
    table = measure(resized(images))
    drawn = resize(draw(table), images.shape[-1]).float()
    error = (images.cpu().float() - drawn).flatten(1).norm(dim=1)
    shape = (drawn - table.background[:, None, None, None]).flatten(1).norm(dim=1)
    return error <= shape / 5


def resized(images: Tensor) -> Tensor:
    """Bring images to 32x32, uint8; bicubic, unlike nearest, keeps circles apart from squares."""
    if images.shape[-1] == SIDE:
        return images
    images = F.interpolate(images.float(), (SIDE, SIDE), mode="bicubic")
    return images.round().clamp(0, 255).to(torch.uint8)


def _has(table: Attributes, name: str) -> Tensor:
    kind = next(kind for kind, names in KINDS.items() if name in names)
    return _labels(table, kind) == KINDS[kind].index(name)


def _labels(table: Attributes, kind: str) -> Tensor:
    return (table.x >= SIDE / 2).long() if kind == "side" else getattr(table, kind)
