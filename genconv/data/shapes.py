"""Coloured shapes with known attributes, drawn on the fly: a set whose every factor is known."""

from dataclasses import dataclass, fields

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from genconv.data.image_set import check_split

__all__ = [
    "COLOURS",
    "SHAPES",
    "Attributes",
    "draw",
    "draw_shapes",
    "measure",
    "sample_attributes",
    "split_attributes",
]

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (220, 50, 50),
    "green": (50, 190, 70),
    "blue": (60, 90, 230),
    "yellow": (235, 215, 60),
    "magenta": (215, 70, 205),
    "cyan": (70, 210, 220),
}
SIDE = 32
OVERSAMPLING = 4
SPLITS = {"train": (20_000, 0), "test": (2_000, 1)}


@dataclass(frozen=True)
class Attributes:
    """What is drawn in N images; the attributes are independent of one another.

    Attributes:
        shape: int64 (N,), index into `SHAPES`.
        colour: int64 (N,), index into the keys of `COLOURS`.
        size: float32 (N,) in [5, 10], half the side of the shape's bounding square, in pixels.
        x: float32 (N,) in [11, 21], column of the square's centre; 0 is the left edge.
        y: float32 (N,) in [11, 21], row of the square's centre; 0 is the top edge.
        background: int64 (N,) in 40..56, the grey level behind the shape.
    """

    shape: Tensor
    colour: Tensor
    size: Tensor
    x: Tensor
    y: Tensor
    background: Tensor

    def __len__(self) -> int:
        return len(self.shape)


def sample_attributes(n: int, generator: torch.Generator) -> Attributes:
    """Draw n rows of attributes, each uniform over its range."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    return Attributes(
        shape=torch.randint(len(SHAPES), (n,), generator=generator),
        colour=torch.randint(len(COLOURS), (n,), generator=generator),
        size=uniform(5, 10),
        x=uniform(11, 21),
        y=uniform(11, 21),
        background=torch.randint(40, 57, (n,), generator=generator),
    )


def draw(attributes: Attributes) -> Tensor:
    """Draw every row of a table, antialiased by 4x4 supersampling.

    Returns:
        uint8 (N, 3, 32, 32); the same table gives the same images.
    """
    palette = list(COLOURS.values())
    out = torch.empty(len(attributes), SIDE, SIDE, 3, dtype=torch.uint8)
    rows = zip(*(getattr(attributes, f.name).tolist() for f in fields(Attributes)), strict=True)
    for i, (shape, colour, size, x, y, background) in enumerate(rows):
        canvas = Image.new("RGB", (SIDE * OVERSAMPLING,) * 2, (background,) * 3)
        # Pillow fills both ends of a span, hence one supersampled pixel less at right and bottom
        left, top = ((v - size) * OVERSAMPLING for v in (x, y))
        right, bottom = ((v + size) * OVERSAMPLING - 1 for v in (x, y))
        pen = ImageDraw.Draw(canvas)
        if SHAPES[shape] == "circle":
            pen.ellipse((left, top, right, bottom), fill=palette[colour])
        elif SHAPES[shape] == "square":
            pen.rectangle((left, top, right, bottom), fill=palette[colour])
        else:
            apex = ((left + right) / 2, top)
            pen.polygon([apex, (right, bottom), (left, bottom)], fill=palette[colour])
        pixels = bytearray(canvas.reduce(OVERSAMPLING).tobytes())
        out[i] = torch.frombuffer(pixels, dtype=torch.uint8).view(SIDE, SIDE, 3)
    return out.permute(0, 3, 1, 2).contiguous()


def draw_shapes(n: int, generator: torch.Generator) -> tuple[Tensor, Attributes]:
    """Draw n images of random attributes; give them, uint8 (N, 3, 32, 32), and the attributes."""
    attributes = sample_attributes(n, generator)
    return draw(attributes), attributes


def measure(images: Tensor) -> Attributes:
    """Read the attributes back from images, drawn or generated.

    The background is the median of the border, the colour that of the pixels farthest from it, and
    a pixel's place between the two says how much of it the shape covers. Area and centroid of that
    cover give size and position for each shape it might be; the nearest of the three drawings
    says which it is.

    Args:
        images: uint8 (N, 3, 32, 32).

    Returns:
        The table, on the CPU; on drawn images shape and colour are exact, size, x and y within
        half a pixel.
    """
    pixels = images.cpu().float()
    edges = (pixels[..., 0, :], pixels[..., -1, :], pixels[..., :, 0], pixels[..., :, -1])
    background = torch.cat(edges, dim=2).median(dim=2).values
    away = pixels - background[..., None, None]
    far = away.norm(dim=1, keepdim=True)
    core = (far > 0.8 * far.amax((2, 3), keepdim=True)).float()
    core_colour = (pixels * core).sum((2, 3)) / core.sum((2, 3)).clamp(min=1)
    palette = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    colour = torch.cdist(core_colour, palette).argmin(1)
    contrast = palette[colour] - background
    scale = contrast.square().sum(1).clamp(min=1)
    cover = (torch.einsum("nchw,nc->nhw", away, contrast) / scale[:, None, None]).clamp(0, 1)
    # what a generated background has of noise must not add up to area
    cover = torch.where(cover < 0.1, 0, cover)
    area = cover.sum((1, 2)).clamp(min=1)
    middles = torch.arange(SIDE) + 0.5
    x = torch.einsum("nhw,w->n", cover, middles) / area
    y = torch.einsum("nhw,h->n", cover, middles) / area
    grey = background.mean(1).round().long()
    # a circle of radius s has area pi s^2, a square 4 s^2, a triangle 2 s^2 and its centroid s/3
    # below the middle of its bounding square
    guesses = []
    for shape, (fill, drop) in enumerate(((torch.pi, 0.0), (4.0, 0.0), (2.0, 1 / 3))):
        size = (area / fill).sqrt()
        which = torch.full_like(colour, shape)
        guesses.append(Attributes(which, colour, size, x, y - drop * size, grey))
    errors = [(draw(guess).float() - pixels).square().mean((1, 2, 3)) for guess in guesses]
    best = torch.stack(errors).argmin(0)
    rows = torch.arange(len(images))
    return Attributes(
        *(
            torch.stack([getattr(g, f.name) for g in guesses])[best, rows]
            for f in fields(Attributes)
        )
    )


def split_attributes(split: str = "train") -> Attributes:
    """Give the attribute table of a split of the set, row i for image i."""
    check_split("shapes", split, (*SPLITS, "all"))
    parts = [
        sample_attributes(n, torch.Generator().manual_seed(seed))
        for key, (n, seed) in SPLITS.items()
        if split in (key, "all")
    ]
    return Attributes(
        *(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Attributes))
    )
