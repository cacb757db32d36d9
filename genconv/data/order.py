"""The order of training batches: a pure function of seed and batch number."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genconv.errors import UserError
from genconv.seeds import stream

__all__ = ["BatchOrder", "IndexLoader"]


class BatchOrder:
    """Sampler of batches of indices; batch b is a pure function of (seed, b).

    Epoch e is one permutation of the set, drawn from (seed, e). Every rank takes every world-th
    index of it, cut into batches; what fills no batch is dropped. A set smaller than a batch on
    every rank is one batch per epoch.

    Iteration gives as many batches as an epoch has, from batch `served()` on, into the next epoch
    where need be, so that epochs cut short (`limit_train_batches`) lose nothing.

    Args:
        n: images in the set.
        batch_size: images per batch and rank.
        seed: at least 0.
        served: gives the number of batches already trained on; asked whenever an iteration begins.
        rank: this process among `world`.
        world: number of processes.

    Raises:
        UserError: `batch_size` is below 1, `seed` below 0, or there are more ranks than images.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        served: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {batch_size}")
        if seed < 0:
            raise UserError(f"seed must be at least 0, not {seed}")
        if n < world:
            raise UserError(f"{n} images cannot be shared by {world} processes; use fewer")
        self.n, self.seed, self.rank, self.world = n, seed, rank, world
        self.batch_size = min(batch_size, n // world)
        self.served = served

    def __len__(self) -> int:
        """Number of batches in an epoch, on this rank."""
        return self.n // self.world // self.batch_size

    def epoch(self, epoch: int) -> tuple[Tensor, ...]:
        """Give the batches of an epoch on this rank: int64 (batch_size,) each."""
        generator = stream(self.seed, "order", epoch)
        share = torch.randperm(self.n, generator=generator)[self.rank :: self.world]
        return share[: len(self) * self.batch_size].split(self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # asked here, not at the first batch: workers begin to fetch at once, Lightning later
        return self._from(self.served())

    def _from(self, first: int) -> Iterator[Tensor]:
        epoch, at = divmod(first, len(self))
        yield from self.epoch(epoch)[at:]
        yield from self.epoch(epoch + 1)[:at]


class _Indices(Dataset):
    """A set whose items are their own indices: images never travel through workers."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> int:
        return index

    def __getitems__(self, indices: Tensor) -> Tensor:
        return indices


def _deaf(worker: int) -> None:
    # a signal to the whole group is for the main process, which has a batch to finish
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_is(batch: Tensor) -> Tensor:
    return batch


def _named(batches: Iterator[Tensor]) -> Iterator[Tensor]:
    """Pass on what workers fetch; one that dies as it hands over a batch breaks the connection."""
    try:
        yield from batches
    except (ConnectionError, EOFError) as error:
        raise RuntimeError("DataLoader worker (pid unknown) is killed") from error


class IndexLoader(DataLoader):
    """Loader of the batches of a `BatchOrder`, as index tensors.

    Args:
        order: which batches.
        workers: number of worker processes.
    """

    def __init__(self, order: BatchOrder, workers: int = 0) -> None:
        super().__init__(
            _Indices(order.n),
            batch_sampler=order,
            num_workers=workers,
            collate_fn=_as_is,
            worker_init_fn=_deaf,
            # a loader without its own generator draws a seed from the global one at every epoch
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[Tensor]:
        batches = super().__iter__()
        if not self.num_workers:
            return batches
        return _named(batches)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the order asks `served` itself. Lightning resumes in mid-epoch if it is here."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing; see `state_dict`."""
