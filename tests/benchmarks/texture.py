"""How near a synthesis comes to its texture, in Gram matrices of random filters.

    python -m tests.benchmarks.texture runs/bark=bark.png --out row.png

Syntheses are new chains from noise, twice as large as the source (`--persistent` takes a run's own
chains instead). The features are those of Ustyuzhaninov et al. 2016
(https://arxiv.org/abs/1606.00021): one layer of random filters, never trained, at several scales.
The distance of two images is the mean over the scales of |G_a - G_b| / |G_b|, with G the Gram
matrix of the rectified responses; it is compared with that of the source's own 8x8 patches in
another order, and of Gaussian noise with the source's mean, covariance of colours and power
spectrum.

What is near may also be a copy: `newness` is the mean squared distance of the synthesis's patches
to the nearest of the source's, in variances of the source; that of its halves to each other stands
beside it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from genconv import read
from genconv.checkpoint import Trained
from genconv.data import load_images
from genconv.images import from_uint8, save_png, to_uint8
from genconv.persistent import persistent_chains
from genconv.sample import sample
from genconv.seeds import stream

SCALES, FILTERS, SIDE = 3, 64, 7


def grams(images: Tensor, mean: Tensor) -> list[Tensor]:
    """Return the Gram matrices of images, one (N, FILTERS, FILTERS) for each scale.

    Args:
        images: float (N, C, H, W).
        mean: (C,) colour that counts as 0.
    """
    c = images.shape[1]
    weight = torch.randn(FILTERS, c, SIDE, SIDE, generator=stream(0, "filters"))
    # of mean 0: otherwise drifts of brightness are most of a distance
    weight = weight - weight.mean((1, 2, 3), keepdim=True)
    weight = weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    x, out = images - mean.view(1, c, 1, 1), []
    for _ in range(SCALES):
        f = F.relu(F.conv2d(x, weight)).flatten(2)
        out.append(f @ f.mT / f.shape[2])
        x = F.avg_pool2d(x, 2)
    return out


def gram_distance(images: Tensor, source: Tensor) -> Tensor:
    """Return the distances (N,) of images (N, C, H, W) to a source (1, C, H', W')."""
    mean = source.mean((0, 2, 3))
    pairs = zip(grams(images, mean), grams(source, mean), strict=True)
    return torch.stack([(a - b).flatten(1).norm(dim=1) / b.norm() for a, b in pairs]).mean(0)


def shuffled(source: Tensor, generator: torch.Generator, side: int = 8) -> Tensor:
    """Put the source's patches (1, C, H, W) of side x side pixels in another order."""
    _, c, h, w = source.shape
    h, w = h // side, w // side
    patches = source[..., : h * side, : w * side].reshape(c, h, side, w, side)
    patches = patches.permute(1, 3, 0, 2, 4).reshape(h * w, c, side, side)
    patches = patches[torch.randperm(h * w, generator=generator)]
    return patches.view(h, w, c, side, side).permute(2, 0, 3, 1, 4).reshape(1, c, h * side, -1)


def spectrum_noise(source: Tensor, generator: torch.Generator) -> Tensor:
    """Draw Gaussian noise with the source's mean, power spectrum and cross-spectra of colours.

    It is the circular convolution of the centred source with white noise (Galerne et al. 2011).
    """
    mean = source.mean((2, 3), keepdim=True)
    white = torch.randn(source.shape[2:], generator=generator)
    white = white / white.numel() ** 0.5
    return mean + torch.fft.ifft2(torch.fft.fft2(source - mean) * torch.fft.fft2(white)).real


def nearest_patches(images: Tensor, source: Tensor, side: int = 12) -> Tensor:
    """Return the mean squared distance of each patch of images to the nearest of a source.

    Args:
        images: (N, C, H, W), of which every patch on a grid of side / 2 counts.
        source: (1, C, H', W'), of which every patch does.
        side: of the patches.
    """
    ours = F.unfold(images, side, stride=side // 2).mT.flatten(0, 1)
    theirs = F.unfold(source, side).mT[0]
    return torch.cdist(ours, theirs).amin(1).square() / ours.shape[1]


def newness(images: Tensor, source: Tensor) -> float:
    """Return how far patches are from the source's, in its variances; 0 for copies."""
    variance = source.var((2, 3), correction=0).mean()
    return (nearest_patches(images, source).mean() / variance).item()


def chosen_steps(trained: Trained, x: Tensor, tried: list[int]) -> int:
    """Return after how many steps a chain, which none of the syntheses is, is nearest to x."""
    chain, found = trained.chain.at(steps=max(tried)), {}

    def look(step: int, z: Tensor) -> None:
        if step in tried:
            found[step] = gram_distance(from_uint8(to_uint8(z)), x).item()

    generator = [stream(1, "image", 0)]
    replace(trained, chain=chain).sample(1, generator=generator, callback=look, bf16=True)
    return min(found, key=found.__getitem__)


def synthesised(run: str, x: Tensor, options: argparse.Namespace) -> tuple[Tensor, str]:
    """Return uint8 textures of twice the size, new or a run's own, and how they came."""
    if options.persistent:
        return persistent_chains(run)[0], "its own chains"
    trained = read(run).at_size(2 * options.size)
    steps = chosen_steps(trained, x, options.steps or [trained.chain.steps])
    trained = replace(trained, chain=trained.chain.at(steps=steps))
    return sample(trained, range(options.n), bf16=True), f"{steps} steps"


def measure(run: str, source: str, options: argparse.Namespace) -> tuple[Table, Tensor]:
    """Compare syntheses with their source; return a table and a row of pictures."""
    size = options.size
    image = load_images(source, size=size, channels=3).images[:1]
    x = from_uint8(image)
    made, how = synthesised(run, x, options)
    tiles = torch.cat([t for rows in made.split(size, 2) for t in rows.split(size, 3)])
    kinds = {
        f"synthesis, tiles of {size}": tiles,
        "synthesis, whole": made,
        "shuffled 8x8 patches": draws(shuffled, x, 4),
        "Gaussian, same spectrum": draws(spectrum_noise, x, 4),
    }
    distance = {name: gram_distance(from_uint8(images), x) for name, images in kinds.items()}
    distance["source, its halves"] = torch.cat([gram_distance(a, b) for a, b in halves(x)])
    bar = min(distance[name].mean() for name in list(kinds)[2:]) / 2
    apart = sum(newness(a, b) for a, b in halves(x)) / 4
    new = f"newness {newness(from_uint8(made), x):.3f} (a half to the other: {apart:.3f})"
    title = f"{Path(source).stem}: {how}, bar {bar:.3f}, {new}"
    table = Table("image", "Gram distance", "of the bar", "least and largest", title=title)
    for name, found in distance.items():
        ends = f"{found.min():.3f} {found.max():.3f}"
        table.add_row(name, f"{found.mean():.3f}", f"{found.mean() / bar:.2f}", ends)
    shown = list(kinds.values())[1:]
    return table, side_by_side([image, *(images[:1] for images in shown)])


def worth(source: Path, size: int) -> tuple[float, float]:
    """Return the bar of a source, and how far its halves are from each other, in bars."""
    x = from_uint8(load_images(str(source), size=size, channels=3).images[:1])
    baselines = [gram_distance(from_uint8(draws(f, x, 4)), x) for f in (shuffled, spectrum_noise)]
    bar = min(distance.mean().item() for distance in baselines) / 2
    return bar, max(gram_distance(a, b).item() for a, b in halves(x)) / bar


def halves(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return left and right, and top and bottom half, each beside the other, both ways round."""
    h, w = x.shape[2] // 2, x.shape[3] // 2
    pairs = [(x[..., :w], x[..., w:]), (x[..., :h, :], x[..., h:, :])]
    return pairs + [(b, a) for a, b in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="RUN=SOURCE, the texture as --data.name had it")
    parser.add_argument("--worth", type=Path, nargs="+", metavar="SOURCE",
                        help="say of which sources another half meets the bar")  # fmt: skip
    parser.add_argument("--size", type=int, default=64, help="as --data.size had it (64)")
    parser.add_argument("-n", type=int, default=2, help="new chains (2)")
    parser.add_argument("--steps", type=int, nargs="+",
                        help="of the chains; of several, those that bring another chain nearest "
                        "to the source (as trained)")  # fmt: skip
    parser.add_argument("--persistent", action="store_true", help="the run's own chains instead")
    parser.add_argument("--out", type=Path, help="FILE.png: source, synthesis, both baselines")
    options = parser.parse_args()
    found = {path.stem: worth(path, options.size) for path in options.worth or ()}
    for name, (bar, ratio) in sorted(found.items(), key=lambda item: item[1][1]):
        print(f"{name:20} bar {bar:.3f}, halves {ratio:.2f} of it")
    rows = []
    for pair in options.runs:
        table, row = measure(*pair.split("="), options)
        Console(width=100).print(table)
        rows.append(F.pad(row, (0, 0, 0, 4), value=255))
    if options.out and rows:
        save_png(options.out, torch.cat(rows, 1))


def draws(make, x: Tensor, n: int) -> Tensor:
    """Draw n images that `make` makes of x, as uint8."""
    return torch.cat([to_uint8(make(x, stream(0, "draw", i))) for i in range(n)])


def side_by_side(images: list[Tensor]) -> Tensor:
    """Lay images (1, C, H, W) of several sizes in a row, on one white canvas."""
    height = max(image.shape[2] for image in images)
    padded = [F.pad(i, (0, 4, 0, height - i.shape[2]), value=255) for i in images]
    return torch.cat(padded, 3)[0]


if __name__ == "__main__":
    main()
