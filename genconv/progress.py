"""The bar people watch while work is done."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

__all__ = ["progress"]

T = TypeVar("T")


def progress(work: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Go through `work` with a bar on stderr, which is left out where no one watches."""
    console = Console(stderr=True)
    yield from track(
        work, description, total, console=console, transient=True, disable=not console.is_terminal
    )
