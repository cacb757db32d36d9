"""State that each rank has of its own, in a checkpoint that only rank 0 writes."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

__all__ = ["full", "gather", "norm_of", "own_share", "rng_state", "set_rng_state"]

log = logging.getLogger(__name__)


def full(tensor: Tensor) -> Tensor:
    """Put together what is in shares on several ranks, all of which must ask; else return it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def norm_of(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of the gradient of all parameters together, 0-dim."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return full(torch.nn.utils.get_total_norm(gradients))


def gather(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Collect one state from every rank; a list of one where there is one process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, state)
    return states


def own_share(states: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Pick this rank's state; None, and a line in the log, if the number of ranks has changed."""
    running = distributed.is_available() and distributed.is_initialized()
    rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if running else (0, 1)
    if len(states) != ranks:
        log.warning(
            "the checkpoint holds the state of %d processes and this run has %d: "
            "chains and random numbers begin anew",
            len(states),
            ranks,
        )
        return None
    return states[rank]


def rng_state() -> dict[str, Any]:
    """Return the state of torch's global generators, which dropout and loaders draw from."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` returned."""
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
