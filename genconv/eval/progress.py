"""The bar people watch while numbers are made."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

__all__ = ["progress"]

T = TypeVar("T")


def progress(work: Sequence[T], description: str) -> Iterator[T]:
    """Go through `work` with a bar on stderr, which is left out where no one watches."""
    console = Console(stderr=True)
    yield from track(
        work, description, console=console, transient=True, disable=not console.is_terminal
    )
