"""Chains that are larger than the data: what is compared with the data are tiles of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genconv.errors import UserError

__all__ = ["canvas_shape", "draw_tiles"]


def canvas_shape(shape: tuple[int, ...], canvas: int | list[int]) -> tuple[int, ...]:
    """Return the shape (C, *space) of chains on a canvas, beside data of a shape (C, *space).

    Args:
        shape: of the data.
        canvas: extents of the chains, one number for every axis of the space or one for each.

    Raises:
        UserError: tiles of the data's size do not fill the canvas.
    """
    c, *space = shape
    sides = [canvas] * len(space) if isinstance(canvas, int) else canvas
    fits = [a > 0 and a % b == 0 for a, b in zip(sides, space, strict=False)]
    if len(sides) != len(space) or not all(fits):
        raise UserError(
            f"a canvas of {'x'.join(map(str, sides))} cannot be cut into tiles of "
            f"{'x'.join(map(str, space))}; change --model.canvas or --data.crop"
        )
    return c, *sides


def draw_tiles(x: Tensor, n: int, sides: Sequence[int], generator: torch.Generator) -> Tensor:
    """Cut images into tiles and draw n of these, none again before all were drawn.

    Tiles lie side by side, and not anywhere: an energy with strides sees the chain that it moved
    at the places from which it moved it, and so learns of the pattern that its strides leave.

    Args:
        x: (N, C, *space), every extent a multiple of its side.
        n: number of tiles.
        sides: extents of a tile, one for each axis of the space.
        generator: source of the order, on x's device.

    Returns:
        (n, C, *sides).
    """
    for axis, side in enumerate(sides):
        x = torch.cat(x.split(side, 2 + axis))
    order = torch.randperm(len(x), generator=generator, device=x.device)
    return x[order.repeat(-(-n // len(x)))[:n]]
