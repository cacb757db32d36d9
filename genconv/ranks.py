"""Processes that torchrun started with one command, which share its work out."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

__all__ = ["Ranks", "leave_at_exit", "ranks"]

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Counts this process among those that work on the same command.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def agree(self, value: T) -> T:
        """Return what the first process has."""
        return self.gather(value)[0]

    def gather(self, value: T) -> list[T]:
        """Return what every process has, in their order."""
        if self.world == 1:
            return [value]
        values: list[T | None] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until all are here."""
        self.gather(None)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process through before the others, so that files are fetched once."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


def ranks() -> Ranks:
    """Join the processes that torchrun started; where it has not there is only this one.

    Each takes the GPU of its local rank as the one that `cuda` means. If one of them fails,
    torchrun ends the others. The group lasts as long as the process.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return Ranks()
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        # what goes about is images and figures on their way to a file; one may wait long for others
        distributed.init_process_group("gloo", timeout=timedelta(days=7))
        leave_at_exit()
    return Ranks(distributed.get_rank(), world)


def leave_at_exit() -> None:
    """Leave the group, should there be one by then, before the interpreter ends.

    Otherwise gloo's threads are still running when it ends, and abort about one process in three,
    whose work was done.
    """
    atexit.register(lambda: distributed.is_initialized() and distributed.destroy_process_group())
