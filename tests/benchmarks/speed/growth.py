"""How time and memory grow with the work: in straight lines, or not at all."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from genconv.sampling import ReplayBuffer, langevin
from genconv.training.energy_matching import transport_loss
from tests.benchmarks.speed.buffers import room_for, turn
from tests.benchmarks.speed.clock import Fit, Row, line, race
from tests.benchmarks.speed.networks import ETA, Settings, made, noise
from tests.benchmarks.speed.updates import LAYERS, pytorchs_layers

__all__ = ["chain_peak", "fits", "matching_peak", "memory"]

STEPS = (5, 40)


def fits(settings: Settings) -> list[Fit]:
    """Time chains and buffers of several sizes, and fit lines."""
    device, quick = settings.device, settings.quick
    energy, shape = made("resnet", settings)
    side = shape[-1]

    def chain(n: int, size: int, steps: int) -> Callable[[], object]:
        x = noise(n, (3, size, size), device)
        return lambda: langevin(
            energy, x, steps=steps, step_size=ETA, temperature=1e-3, clamp=(-1, 1), bf16=True
        )

    few, most = (2, 8) if quick else (16, 128)
    sweeps: dict[str, dict[float, Callable[[], object]]] = {
        "chains": {n: chain(n, side, 2) for n in (few, most // 4, most // 2, most)},
        "steps": {n: chain(few, side, n) for n in (1, 4, 8, 16)},
        "pixels of an image": {
            size**2: chain(few, size, 2) for size in (side // 2, side, side * 3 // 2, side * 2)
        },
    }
    found = [_fitted(what, sweep, settings) for what, sweep in sweeps.items()]
    return [*found, _buffer_fit(settings, shape)]


def _buffer_fit(settings: Settings, shape: tuple[int, ...]) -> Fit:
    sizes = (256, 512, 1024) if settings.quick else (1000, 10_000, 100_000, 300_000, 1_000_000)
    x = noise(settings.batch, shape, settings.device)
    runs: dict[float, Callable[[], object]] = {}
    for size in sizes:
        # the largest alone would take 3 GB
        if room_for(2 * size, shape, settings.device):
            buffer = ReplayBuffer(size, shape, device=settings.device)
            runs[size] = lambda buffer=buffer: turn(buffer, x)
    return _fitted("images in the buffer", runs, settings)


def _fitted(what: str, runs: dict[float, Callable[[], object]], settings: Settings) -> Fit:
    named = {str(x): run for x, run in runs.items()}
    times = race(named, settings.device, settings.rounds)
    # the least, as what disturbs only adds
    return line(what, list(runs), [min(times[name]) for name in named])


def chain_peak(steps: int, device: str, quick: bool) -> int:
    """Return the bytes that a process has needed at most when its chain has ended."""
    torch.set_num_threads(1)
    settings = Settings(device, quick, 1, 8 if quick else 64, 1, "", 0)
    energy, shape = made("resnet", settings)
    x = noise(settings.batch, shape, device)
    langevin(energy, x, steps=steps, step_size=ETA, temperature=1e-3, bf16=True)
    return _most(device)


def matching_peak(own: bool, device: str, quick: bool) -> int:
    """Return the same of a transport loss, with PyTorch's own layers or those in closed form."""
    torch.set_num_threads(1)
    settings = Settings(device, quick, 1, 8 if quick else 256, 1, "", 0)
    energy, shape = made("unet", settings)
    x0, x1 = noise(settings.batch, shape, device), noise(settings.batch, shape, device)
    t = torch.rand(settings.batch, device=device)
    with pytorchs_layers(own):
        with torch.autocast(device, torch.bfloat16):
            loss = transport_loss(energy, x0, x1, t)
        loss.backward()
    return _most(device)


def _most(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # in kilobytes, but on macOS in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def memory(settings: Settings) -> list[Row]:
    """Compare the memory of short and long chains, and of layers, each in a process of its own."""

    def measured(name: str, what: object) -> float:
        how = f"{what}, {settings.device!r}, {settings.quick}"
        program = f"from {__name__} import {name}; print({name}({how}))"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout.split()[-1]) / 1e6

    short, long = (measured("chain_peak", steps) for steps in STEPS)
    closed, own = (measured("matching_peak", layers) for layers in (False, True))
    what = f"most of a process, {STEPS[1]} steps", f"{STEPS[0]} steps"
    loss = f"most of a process, transport loss of {8 if settings.quick else 256} images"
    return [
        Row("memory", "resnet", *what, long, short, long / short, "MB", "flat: 1"),
        Row("memory", "unet", loss, LAYERS, closed, own, own / closed, "MB", "more than 1: saved"),
    ]
