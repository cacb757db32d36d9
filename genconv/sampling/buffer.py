"""The replay buffer: chains that go on from one update to the next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genconv.images import from_uint8, to_uint8
from genconv.seeds import put_back

__all__ = ["Draw", "ReplayBuffer"]


@dataclass(frozen=True)
class Draw:
    """Chains lent by a buffer.

    Attributes:
        x: (n, C, *space) float32 in [-1, 1]; the first `fresh` rows are yours to fill with new
            starts, the others are where earlier chains stopped.
        y: (n,) class of each chain, or None for an unconditional buffer.
        slots: (n,) distinct places to which the chains must return.
        fresh: how many chains begin anew.
    """

    x: Tensor
    y: Tensor | None
    slots: Tensor
    fresh: int


class ReplayBuffer:
    """Keeps the ends of Langevin chains, one uint8 tensor, so that the next update continues them.

    A slot is one chain: what is drawn from it is written back to it. An exact share of all draws is
    restarted, so that no chain lives forever. All begin as uniform noise. It is no module and holds
    no registered buffer: DDP would copy rank 0's chains over every rank's, and weight averaging
    would average them.

    Args:
        capacity: number of chains.
        shape: (C, *space) of one image.
        restart: share of the drawn chains that begin anew.
        classes: number of classes; slot s then belongs to class s % classes for good.
        seed: of the generator that chooses slots and dequantises; give each rank its own.
        device: where the chains live.

    Raises:
        ValueError: a capacity, share or number of classes that makes no sense.

    Reference:
        Du, Mordatch: Implicit Generation and Modeling with EBMs, https://arxiv.org/abs/1903.08689
    """

    def __init__(
        self,
        capacity: int,
        shape: tuple[int, ...],
        *,
        restart: float = 0.05,
        classes: int | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 <= restart <= 1:
            raise ValueError(f"restart is a share in [0, 1], not {restart}")
        if capacity < 1 or capacity % (classes or 1):
            raise ValueError(f"a capacity of {capacity} does not divide into {classes} classes")
        self.restart, self.classes = restart, classes
        self.generator = torch.Generator(device).manual_seed(seed)
        self.images = torch.randint(
            256, (capacity, *shape), dtype=torch.uint8, generator=self.generator, device=device
        )
        self.age = torch.zeros(capacity, dtype=torch.int32, device=device)
        self.drawn = 0

    def __len__(self) -> int:
        return len(self.images)

    def fill(self, start: Callable[[int, Tensor | None], Tensor], chunk: int = 256) -> None:
        """Begin every chain at `start(n, y)` (n, C, *space), not at noise; `chunk` at a time."""
        for slots in torch.arange(len(self), device=self.images.device).split(chunk):
            y = slots % self.classes if self.classes else None
            self.images[slots] = to_uint8(start(len(slots), y))

    def draw(self, n: int, y: Tensor | None = None) -> Draw:
        """Lend n chains from distinct slots chosen at random.

        Args:
            n: number of chains.
            y: (n,) classes wanted of them; by default a class-conditional buffer mixes its classes.

        Raises:
            ValueError: more chains are wanted than a buffer of this capacity can lend.
        """
        device, kinds = self.images.device, self.classes or 1
        share = len(self) // kinds
        # Labels are not looked at, which would wait for the device: they might all be one class.
        if (n if y is not None else -(-n // kinds)) > share:
            raise ValueError(f"a buffer of {len(self)} chains cannot lend {n} at once")
        if y is None:
            # Counting up shares the classes out evenly, and needs no look at the device.
            y = torch.arange(self.drawn, self.drawn + n, device=device) % kinds
        # Rank within its class times the number of classes: distinct slots without a search.
        order = torch.randperm(share, generator=self.generator, device=device)
        member = torch.nn.functional.one_hot(y, kinds)
        rank = (member.cumsum(0) * member).sum(1) - 1
        slots = order[rank] * kinds + y
        fresh = int((self.drawn + n) * self.restart) - int(self.drawn * self.restart)
        self.drawn += n
        x = from_uint8(self.images[slots])
        noise = torch.rand(x.shape, generator=self.generator, device=device)
        x = x + (noise - 0.5) / 127.5
        return Draw(x, y if self.classes else None, slots, fresh)

    def write(self, draw: Draw, x: Tensor) -> None:
        """Put the ends `x` (n, C, *space) of drawn chains back into the slots they came from."""
        age = self.age[draw.slots] + 1
        age[: draw.fresh] = 0
        self.age[draw.slots] = age
        self.images[draw.slots] = to_uint8(x)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next draw depends on."""
        return {
            "images": self.images,
            "age": self.age,
            "generator": self.generator.get_state(),
            "drawn": self.drawn,
            "restart": self.restart,
            "classes": self.classes,
        }

    @classmethod
    def from_state_dict(
        cls, state: dict[str, Any], device: torch.device | str = "cpu", *, seed: int = 0
    ) -> "ReplayBuffer":
        """Rebuild the buffer that `state_dict` described.

        Args:
            state: of a buffer on any device.
            device: where the chains are to live.
            seed: of the generator, where that of the state is another kind of device's.
        """
        capacity, *shape = state["images"].shape
        buffer = cls(
            capacity,
            tuple(shape),
            restart=state["restart"],
            classes=state["classes"],
            seed=seed,
            device=device,
        )
        buffer.images.copy_(state["images"])
        buffer.age.copy_(state["age"])
        put_back(buffer.generator, state["generator"])
        buffer.drawn = state["drawn"]
        return buffer
