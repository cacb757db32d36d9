"""What an energy is, and how one is written down and rebuilt without pickling code."""

import inspect
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from genconv.errors import UserError

__all__ = ["CHANNELS_LAST", "Described", "Energy", "build", "describe", "widen"]

# the layout that convolutions read and write, by the number of axes of a batch
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Described(nn.Module):
    """Remembers the arguments of its constructor, plain values, so that a file can name it.

    Attributes:
        arguments: of the constructor, defaults included, by name.
    """

    arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Described":
        self = super().__new__(cls)
        # Without arguments this is copy or pickle at work, which restore `arguments` themselves.
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
        bound.apply_defaults()
        object.__setattr__(self, "arguments", dict(list(bound.arguments.items())[1:]))
        return self


class Energy(Described, ABC):
    """Answers how likely x is: `p(x) ∝ exp(-E(x))`, so low energy means likely.

    A subclass implements `forward(x, y=None)`. It takes a batch (N, C, *space), float32 with data
    in [-1, 1], and class labels (N,) int64 where the energy is conditional; it returns float32
    energies (N,), each a function of its own row only. The arguments of the constructor must be
    plain values (numbers, strings, lists, other energies): they are what checkpoints store.

    An energy that knows more may offer it, and whoever needs it looks for the method by its name:
    `resample(x, y, *, noise, temperature)`, an exact move (`genconv.sampling.gibbs`), and
    `path(mean)`, a way to its partition function (`genconv.eval.likelihood_command`).
    """

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch (N, C, *space)."""

    def by_class(self, x: Tensor) -> Tensor:
        """Return the energies (N, K) of a batch (N, C, *space) for every class, where it has any.

        The classes' differences classify, p(y|x) ∝ exp(-E(x, y)), and their sum is the mixture's
        p(x) ∝ Σ_y exp(-E(x, y)). An energy that knows a shorter way than to be asked K times takes
        it.
        """
        every = torch.arange(self.classes, device=x.device)
        energies = self(x.repeat_interleave(len(every), 0), every.repeat(len(x)))
        return energies.view(len(x), len(every))


Kind = TypeVar("Kind", bound=Described)


def describe(module: Described) -> dict[str, Any]:
    """Write a module down as JSON-able `{"class": ..., "arguments": {...}}`, without weights.

    Raises:
        UserError: a function is among its arguments.
    """
    cls = type(module)
    arguments = {name: _plain(value) for name, value in module.arguments.items()}
    return {"class": f"{cls.__module__}.{cls.__qualname__}", "arguments": arguments}


def build(description: dict[str, Any], kind: type[Kind] = Energy) -> Kind:
    """Rebuild what `describe` wrote down, with fresh weights.

    Only classes that are already imported are found: a file from a stranger can name an energy,
    but not make Python import one.

    Args:
        description: see `describe`.
        kind: the class must be one of these.

    Raises:
        UserError: the class is not known here, or its arguments have changed.
    """
    known = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in _subclasses(kind)}
    name, arguments = description["class"], description["arguments"]
    if name not in known:
        what = kind.__name__.lower()
        raise UserError(f"no {what} {name!r} is imported; import the module that defines it first")
    try:
        return known[name](**{key: _rebuilt(value) for key, value in arguments.items()})
    except TypeError as error:
        raise UserError(f"{name} cannot be built from this checkpoint: {error}") from error


def widen(x: Tensor) -> Tensor:
    """Return x in float32 at least: sums over pixels lose their digits in bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _subclasses(cls: type) -> list[type]:
    return [cls] + [below for sub in cls.__subclasses__() for below in _subclasses(sub)]


def _plain(value: Any) -> Any:
    if isinstance(value, Energy):
        return describe(value)
    if isinstance(value, Tensor):
        raise UserError("a context is data, which no description holds; give it with the images")
    if callable(value):
        raise UserError(f"{value!r} is code, which no file holds; make it a subclass of Energy")
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _rebuilt(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"class", "arguments"}:
        return build(value)
    return [_rebuilt(item) for item in value] if isinstance(value, list) else value
