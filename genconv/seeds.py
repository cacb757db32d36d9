"""Independent random streams from one seed."""

import numpy as np
import torch

__all__ = ["derive", "put_back", "stream"]


def derive(seed: int, *place: int | str) -> int:
    """Return a seed for one purpose, process, epoch or image; no two places share a stream.

    Args:
        seed: the user's, at least 0.
        place: what the stream is for, as `derive(seed, "chains", rank)`.
    """
    words = [int.from_bytes(p.encode()) if isinstance(p, str) else p for p in place]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0])


def stream(seed: int, *place: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on `device`, seeded by `derive(seed, *place)`."""
    return torch.Generator(device).manual_seed(derive(seed, *place))


def put_back(generator: torch.Generator, state: torch.Tensor) -> None:
    """Let a generator go on from a state, or leave it where that is another kind of device's.

    Args:
        generator: on any device.
        state: what `get_state` of this or another generator returned.
    """
    if len(state) == len(generator.get_state()):
        generator.set_state(state.cpu())
