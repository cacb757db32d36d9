"""What thinking longer, choosing by energy, and knowing oneself are worth on noisy images.

python -m tests.benchmarks.thinking runs/thinking_cifar10_cpu runs/feedforward_cifar10_cpu \
    --data cifar10 --folder thinking
"""

import argparse
import json
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from genconv.checkpoint import Trained, read
from genconv.data import load_images
from genconv.energy import beginning, context_of
from genconv.files import replacing
from genconv.images import from_uint8, grid, save_png, to_uint8
from genconv.progress import progress
from genconv.sampling.gradient import energy_and_gradient
from genconv.seeds import stream
from genconv.tasks.answers import lowest
from genconv.tasks.judging import agreement
from genconv.tasks.think import think

SHOWN = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7")


def psnr(x: Tensor, truth: Tensor) -> float:
    """PSNR in dB of all values of all images."""
    return float(10 * torch.log10(4 / (x.clamp(-1, 1) - truth).square().mean()))


def thoughts(
    trained: Trained, context: Tensor, draws: int, steps: int, seed: int, batch: int = 128
) -> dict[int, Tensor]:
    """Return by the number of steps all answers (N, D, C, *space)."""
    chain, n = trained.chain.at(steps=steps), len(context)
    found: dict[int, list[Tensor]] = {}

    def look(step: int, x: Tensor) -> None:
        if step in SHOWN or step == steps:
            found.setdefault(step, []).append(x.clone())

    for rows in progress(torch.arange(n * draws).split(batch), "thinking"):
        generator = [stream(seed, "recover", *divmod(k, draws)) for k in rows.tolist()]
        think(trained.energy, chain, context[rows // draws], generator=generator, callback=look)
    return {step: torch.cat(parts).unflatten(0, (n, draws)) for step, parts in found.items()}


@torch.no_grad()
def energies_of(trained: Trained, draws: Tensor, context: Tensor) -> Tensor:
    """Return the energies (N, D) of draws (N, D, C, *space)."""
    parts = zip(draws.split(16), context.split(16), strict=True)
    d = draws.shape[1]
    return torch.cat(
        [trained.energy(x.flatten(0, 1), c.repeat_interleave(d, 0)).view(-1, d) for x, c in parts]
    )


def one_step(trained: Trained, truth: Tensor, context: Tensor, seed: int) -> tuple[float, float]:
    """Return the PSNR of one step of the size that is best on these very images, and that size.

    Fine steps are slow to leave where they begin; what more of them give beyond this is thought.
    """
    generator = [stream(seed, "recover", i, 0) for i in range(len(truth))]
    x = beginning(context, trained.chain.noise(len(truth), truth.shape[1:], generator=generator))
    parts = zip(x.split(128), context.split(128), strict=True)
    gradient = torch.cat([energy_and_gradient(trained.energy, *part)[1] for part in parts])
    sizes = [0.05 * i for i in range(2, 31)]
    return max((psnr(x - size * gradient, truth), size) for size in sizes)


def measure(trained: Trained, truth: Tensor, noise: float, options: argparse.Namespace) -> dict:
    """Return all numbers of one energy at one noise level."""
    noisy = truth.clone()
    for i, one in enumerate(noisy):
        one += noise * torch.randn(one.shape, generator=stream(options.seed, "noise", i))
    context = context_of(noisy)
    steps, draws = max(options.steps, trained.chain.steps), options.draws
    blind = trained.energy.arguments.get("blind", False)
    if blind:
        steps, draws = trained.chain.steps, 1
    found = thoughts(trained, context, draws, steps, options.seed)
    # of draws, the mean over them: that of one draw is what is to be expected of it
    by_steps = {
        step: sum(psnr(x[:, d], truth) for d in range(draws)) / draws for step, x in found.items()
    }
    out = {"noisy": psnr(noisy, truth), "psnr": by_steps, "choice": {}}
    out["one step"] = one_step(trained, truth, context, options.seed)
    counted = torch.ones_like(truth, dtype=torch.bool)
    for step, x in found.items():
        energies = energies_of(trained, x, context)
        wrong = (x.clamp(-1, 1) - truth[:, None]).square().flatten(2).sum(2)
        out["choice"][step] = {
            "one draw": by_steps[step],
            "first draw": psnr(x[:, 0], truth),
            "lowest energy": psnr(lowest(x, energies), truth),
            "least error": psnr(lowest(x, wrong), truth),
            "mean of draws": psnr(x.mean(1), truth),
            "better than the first draw": float(
                (wrong[torch.arange(len(x)), energies.argmin(1)] <= wrong[:, 0]).double().mean()
            ),
            "spearman": agreement(x, energies, truth, counted),
            "energy": float(energies.mean()),
            "half the squared error": float(wrong.mean() / 2),
        }
    return out


def plot_steps(path: Path, results: dict, unseen: list[float]) -> None:
    """Draw PSNR over steps, a line for each noise level, the feed-forward network dashed."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    panel = figure.subplots()
    for (noise, found), colour in zip(results.items(), COLOURS, strict=False):
        thought = found["thinking"]["psnr"]
        name = f"noise {noise}" + (", never trained on" if noise in unseen else "")
        panel.plot(list(thought), list(thought.values()), "o-", color=colour, markersize=3,
                   label=name)  # fmt: skip
        if "feed-forward" in found:
            (level,) = found["feed-forward"]["psnr"].values()
            panel.axhline(level, color=colour, linewidth=1, linestyle="--")
    panel.set_xscale("log", base=2)
    shown = list(thought)
    panel.set_xticks(shown, [str(step) for step in shown])
    panel.set_xlabel("steps of thought")
    panel.set_ylabel("PSNR, dB")
    panel.legend(frameon=False)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)


def picture(path: Path, trained: Trained, truth: Tensor, noise: float, seed: int) -> None:
    """Show thoughts step by step: noisy image, 1, 2, 3, 4, 6, 8, 16 steps, truth."""
    noisy = truth + noise * torch.randn(truth.shape, generator=stream(seed, "picture"))
    context = context_of(noisy)
    row = [noisy]

    def look(step: int, x: Tensor) -> None:
        if step in (1, 2, 3, 4, 6, 8, 16):
            row.append(x.clone())

    chain = trained.chain.at(steps=16)
    think(trained.energy, chain, context, generator=stream(seed, "look"), callback=look)
    images = torch.stack([*row, truth], 1).flatten(0, 1)
    save_png(path, grid(to_uint8(images), len(row) + 1, scale=2))


def show(results: dict) -> None:
    """Print the tables."""
    console = Console(width=110)
    for noise, found in results.items():
        table = Table("", *map(str, found["thinking"]["psnr"]), title=f"noise {noise}: PSNR, dB")
        table.add_row("thinking", *(f"{v:.2f}" for v in found["thinking"]["psnr"].values()))
        console.print(table)
        best, size = found["thinking"]["one step"]
        noisy = found["thinking"]["noisy"]
        line = f"noisy {noisy:.2f} dB; one step of size {size:.2f} {best:.2f} dB"
        if "feed-forward" in found:
            (level,) = found["feed-forward"]["psnr"].values()
            line += f"; feed-forward {level:.2f} dB"
        console.print(line)
        choice = found["thinking"]["choice"]
        table = Table("steps", *next(iter(choice.values())), title=f"noise {noise}: choosing")
        for step, row in choice.items():
            table.add_row(str(step), *(f"{v:.3f}" for v in row.values()))
        console.print(table)


def main() -> None:
    """Measure, print, and write `thinking.json`, `steps.png` and `thought.png`."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.thinking")
    parser.add_argument("thinking", help="run folder of an EnergyTransformer")
    parser.add_argument("feedforward", nargs="?", help="run folder of a blind one")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root", default="data")
    parser.add_argument("-n", type=int, default=256)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.4, 0.2])
    parser.add_argument("--unseen", type=float, nargs="*", default=[0.6, 0.8], help="likewise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("thinking"))
    options = parser.parse_args()
    runs = {"thinking": read(options.thinking, "cpu")}
    if options.feedforward:
        runs["feed-forward"] = read(options.feedforward, "cpu")
    for name, run in runs.items():
        size = sum(p.numel() for p in run.energy.parameters())
        print(f"{name}: {size} weights, {run.updates} updates, step size {run.chain.step_size:.3f}")
    truth = from_uint8(load_images(options.data, "test", root=options.root).images[: options.n])
    results = {
        noise: {name: measure(run, truth, noise, options) for name, run in runs.items()}
        for noise in (*options.noise, *options.unseen)
    }
    show(results)
    with replacing(options.folder / "thinking.json") as part:
        part.write_text(json.dumps(results, indent=2) + "\n")
    plot_steps(options.folder / "steps.png", results, options.unseen)
    place, noise = options.folder / "thought.png", options.noise[0]
    picture(place, runs["thinking"], truth[:6], noise, options.seed)


if __name__ == "__main__":
    main()
