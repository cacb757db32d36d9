"""How well videos move, and how well they are recovered.

    python -m tests.benchmarks.video motion fire.npz --source fire_pot.gif --size 32
    python -m tests.benchmarks.video paste fire_pot.gif fire --size 32
    python -m tests.benchmarks.video recovery recovered/*

The first compares synthesised clips with the clip that their energy learnt: temporal power spectra
and histograms of the differences of successive frames, neither of which follows any motion, beside
those of a repeated frame, of the source's frames in shuffled order, and of the source's two halves.
The second pastes a ball into a clip that flies about in it, so that what lies behind it is known.
The third gathers the reports of `genconv.edit inpaint --degrade` into a table.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import wasserstein_distance

from genconv.data import load_images
from genconv.data.fit import fit
from genconv.files import replacing
from genconv.images import save_gif


def spectrum(clips):
    """Return the power (T // 2,) of each temporal frequency above 0, in squared grey levels.

    The mean over pixels and clips (N, C, T, H, W) of |FFT|² of what moves, Hann-windowed.
    """
    clips = clips.double()
    t = clips.shape[2]
    moving = clips - clips.mean(2, keepdim=True)
    window = torch.hann_window(t, periodic=False, dtype=torch.float64)
    power = torch.fft.rfft(moving * window.view(-1, 1, 1), dim=2).abs().square()
    return power.movedim(2, 0).flatten(1).mean(1)[1:] / window.square().sum()


def spectral_difference(clips, source):
    """Return Σ|P - P'| / ΣP', P' the source's: 0 for the same motion, 1 for none."""
    p, q = spectrum(clips), spectrum(source)
    return float((p - q).abs().sum() / q.sum())


def changes(clips):
    """Return all differences of successive frames, in grey levels."""
    return clips.short().diff(dim=2).flatten().numpy()


def change_difference(clips, source):
    """Return the Wasserstein distance, in grey levels, between histograms of `changes`."""
    levels = np.arange(-255, 256)
    counts = [np.bincount(changes(x).astype(int) + 255, minlength=511) for x in (clips, source)]
    return wasserstein_distance(levels, levels, *counts)


def windows(clip, length, step):
    """Cut a clip (C, T, H, W) into windows of this length, one every `step` frames."""
    return torch.stack(
        [clip[:, a : a + length] for a in range(0, clip.shape[1] - length + 1, step)]
    )


def motion(clips, source):
    """Return (spectral, histogram) differences to a source (C, T, H, W) by the name of a row.

    Args:
        clips: uint8 (N, C, T', H, W), synthesised.
        source: uint8 (C, T, H, W), T >= 2 T' if there is to be a row of its halves.
    """
    length = clips.shape[2]
    real = windows(source, length, length // 2)
    generator = torch.Generator().manual_seed(0)
    shuffled = source[:, torch.randperm(source.shape[1], generator=generator)]
    candidates = {
        "synthesised": (clips, real),
        "one frame, repeated": (real[:, :, :1].expand_as(real), real),
        "frames in shuffled order": (windows(shuffled, length, length // 2), real),
    }
    half = source.shape[1] // 2
    if half >= length:
        parts = (windows(part, length, length // 2) for part in source.split(half, 1)[:2])
        candidates["the source's first half, to its second"] = tuple(parts)
    return {
        name: (spectral_difference(*pair), change_difference(*pair))
        for name, pair in candidates.items()
    }


def ball(space, radius):
    """Return bool (T, H, W): a ball that flies about in a box, and is in it in every frame."""
    t, h, w = space
    time = torch.arange(t).view(-1, 1, 1)

    def bounced(begin, speed, side):
        free = side - 1 - 2 * radius
        return radius + free - ((begin + speed * time) % (2 * free) - free).abs()

    rows, columns = torch.arange(h).view(1, -1, 1), torch.arange(w).view(1, 1, -1)
    off = (rows - bounced(2.0, 0.61, h)) ** 2 + (columns - bounced(5.0, 0.93, w)) ** 2
    return off <= radius**2


def pasted(clip, radius):
    """Return a clip uint8 (3, T, H, W) with a striped ball in it, and its mask (1, T, H, W)."""
    mask = ball(tuple(clip.shape[1:]), radius)[None]
    stripes = torch.arange(clip.shape[2]).view(1, 1, -1, 1) // 2 % 2
    colours = torch.tensor([[60, 200, 90], [20, 60, 200]], dtype=torch.uint8)
    return torch.where(mask, colours[stripes[0]].movedim(-1, 0), clip), mask


def paste(options):
    """Write truth.npz, seen.npz and mask.gif."""
    clip = fit(load_images(options.clip, "all").images[:1], options.size, 3)[0]
    seen, mask = pasted(clip, options.radius * options.size)
    for name, x in {"truth": clip, "seen": seen}.items():
        with replacing(options.out / f"{name}.npz") as part, part.open("wb") as file:
            np.savez(file, images=x.movedim(0, -1)[None].numpy())
    save_gif(options.out / "mask.gif", list((mask.byte() * 255).unbind(1)))
    print(f"{mask.float().mean():.1%} of {options.clip} are hidden: {options.out}")


def recovered(folders):
    """Return {name of a folder of the command: {method: PSNR}}, the energy first."""
    found = {}
    for folder in folders:
        table = json.loads((Path(folder) / "report.json").read_text())["table"]
        # the first row is that of the mean of the draws, or of the one there is
        first, *others = (name for name in table if not name.startswith("lowest"))
        names = {"energy": first} | {name: name for name in others if name != "one draw"}
        found[str(folder)] = {name: table[row]["psnr"] for name, row in names.items()}
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    moves = commands.add_parser("motion")
    moves.add_argument("clips", help="an .npz of synthesised clips")
    moves.add_argument("--source", required=True, help="a clip, or an .npz of one")
    moves.add_argument("--size", type=int, required=True)
    fills = commands.add_parser("recovery")
    fills.add_argument("folders", nargs="+")
    pastes = commands.add_parser("paste")
    pastes.add_argument("clip", help="a clip, or an .npz of one")
    pastes.add_argument("out", type=Path, help="folder of truth.npz, seen.npz and mask.gif")
    pastes.add_argument("--size", type=int, required=True)
    pastes.add_argument("--radius", type=float, default=0.14, help="of the ball, in sides (.14)")
    options = parser.parse_args()
    if options.command == "paste":
        return paste(options)
    if options.command == "motion":
        clips = load_images(options.clips, "all").images
        source = load_images(options.source, "all").images[:1]
        table = Table("", "power spectrum", "frame differences, levels")
        for name, row in motion(clips, fit(source, options.size, clips.shape[1])[0]).items():
            table.add_row(name, *(f"{value:.3f}" for value in row))
    else:
        found = recovered(options.folders)
        # a method that would have taken too long for one clip has no number there
        methods = list(dict.fromkeys(method for row in found.values() for method in row))
        table = Table("PSNR, dB", *methods)
        for name, row in found.items():
            table.add_row(name, *(f"{row[m]:.2f}" if m in row else "" for m in methods))
    Console().print(table)


if __name__ == "__main__":
    main()
