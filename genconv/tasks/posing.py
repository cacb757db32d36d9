"""What a recovery command is asked: the images that it names, and what is measured of them."""

import argparse

from torch import Tensor

from genconv.data import load_images
from genconv.data.clips import CLIPS
from genconv.data.fit import fit
from genconv.data.holes import holes
from genconv.errors import UserError
from genconv.images import from_uint8
from genconv.tasks.measurement import Separable, blurring, greying, shrinking
from genconv.tasks.problems import Problem

__all__ = ["fitted", "load", "pose"]


def load(options: argparse.Namespace, shape: tuple[int, ...]) -> Tensor:
    """Load the images named on the command line, fitted to (C, *space), in [-1, 1]."""
    c, *space = shape
    if (options.images.lower().endswith(CLIPS) or options.images.startswith("clip:")) and (
        len(space) == 3
    ):
        # frames may be larger, and there may be more of them
        clips = load_images(options.images, size=space[-1], channels=c if c in (1, 3) else None)
        images = clips.images[:, :, : space[0]]
    else:
        images = load_images(options.images, options.split, root=options.root).images
    return fitted(images[: options.n], options.images, shape)


def fitted(images: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    """Fit uint8 images to (C, *space), in [-1, 1]."""
    c, *space = shape
    if images.shape[1:] == shape:
        return from_uint8(images)
    if images.ndim != 4 or len(space) != 2 or space[0] != space[1] or c not in (1, 3):
        raise UserError(
            f"{name} holds images of shape {tuple(images.shape[1:])}; "
            f"this task and energy need {shape}"
        )
    return from_uint8(fit(images, space[0], c))


def pose(
    task: str, options: argparse.Namespace, shape: tuple[int, ...]
) -> tuple[Problem, Tensor, Tensor | None]:
    """Return the problem, what was measured, and the truth where it is known."""
    c, *space = shape
    if task == "inpaint":
        images = load(options, shape)
        missing = holes(options.mask, len(images), tuple(space), options.seed)
        problem = Problem(shape, missing=missing)
        return problem, problem.degrade(images, options.seed), images if options.degrade else None
    small = shape
    if task == "denoise":
        problem = Problem(shape, options.noise, Separable([None] * len(shape)))
    elif task == "deblur":
        problem = Problem(shape, options.noise, blurring(shape, options.blur))
    elif task == "colourise":
        if c != 3:
            raise UserError(f"colourise needs an energy of RGB images, not of {c} channels")
        problem = Problem(shape, 0.0, greying(shape))
        small = (1, *space)
    else:
        if not space or any(side % options.factor for side in space):
            raise UserError(f"--factor {options.factor} divides not all sides of {tuple(space)}")
        problem = Problem(shape, 0.0, shrinking(shape, options.factor))
        small = (c, *(side // options.factor for side in space))
    if not options.degrade:
        return problem, load(options, small), None
    truth = load(options, shape)
    return problem, problem.degrade(truth, options.seed), truth
