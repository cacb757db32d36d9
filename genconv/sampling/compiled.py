"""Energy and gradient as one compiled function, for chains that are long and of one shape."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

__all__ = ["compile_gradient", "compiled_gradient"]

log = logging.getLogger(__name__)

# Every shape is compiled for itself, which takes from seconds to minutes. Training asks in this
# order for the sample grid's, the buffer's when it is filled, the few chains that begin anew in an
# update, and the update's own.
SHAPES = 4

_chosen: WeakKeyDictionary[nn.Module, set[Any]] = WeakKeyDictionary()


def compile_gradient(energy: nn.Module) -> None:
    """Let every chain of an energy compute its gradient by a function that `torch.compile` makes.

    Forward and backward pass become one graph, without the tape that autograd keeps between them;
    on a GPU it is replayed as a CUDA graph. The first four shapes of chains are compiled, when they
    are first seen; others go on as before, and so does all where compilation fails, after a line in
    the log.

    Args:
        energy: the very energy that `langevin` is given; one composed of it is another.
    """
    _chosen.setdefault(energy, set())


def compiled_gradient(
    energy: Callable[..., Tensor], x: Tensor, y: Tensor | None, bf16: bool
) -> tuple[Tensor, Tensor] | None:
    """Return what `energy_and_gradient` does, or None where nothing is compiled for it."""
    shapes = _chosen.get(energy) if isinstance(energy, nn.Module) else None
    if shapes is None:
        return None
    shape = (x.shape, y is None, bf16)
    if shape not in shapes and len(shapes) == SHAPES:
        return None
    shapes.add(shape)
    try:
        if x.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        energies, gradient = _function(x.device.type)(energy, x.detach(), y, bf16)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers raise everything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        log.warning("chains go on without compilation: %s", reason[0])
        del _chosen[energy]
        return None
    # the next replay of a CUDA graph writes over what this one returned
    return (energies.clone(), gradient.clone()) if x.is_cuda else (energies, gradient)


@cache
def _function(device: str) -> Callable[..., tuple[Tensor, Tensor]]:
    mode = "reduce-overhead" if device == "cuda" else None
    return torch.compile(_gradient, dynamic=False, mode=mode)


def _gradient(
    energy: Callable[..., Tensor], x: Tensor, y: Tensor | None, bf16: bool
) -> tuple[Tensor, Tensor]:
    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            energies = energy(x) if y is None else energy(x, y)
        return energies.sum(), energies

    # not autograd.grad, around which torch.compile breaks the graph
    gradient, energies = torch.func.grad(total, has_aux=True)(x)
    return energies, gradient
