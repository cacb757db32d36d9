"""What all objectives share: an energy, its chains, and all that a resumed run needs."""

from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from genconv.checkpoint import Trained
from genconv.energy import Energy
from genconv.errors import UserError
from genconv.precision import has_bfloat16
from genconv.sampling import (
    Chain,
    Generators,
    GibbsResult,
    Knots,
    LangevinResult,
    ReplayBuffer,
)
from genconv.seeds import derive, put_back, stream
from genconv.training import distributed
from genconv.training.optimizer import scheduled
from genconv.training.probe import probe

__all__ = ["EnergyModule"]

# a pixel further out than this was not led there: data lie within 1, noise within 6
FAR = 10.0


class EnergyModule(pl.LightningModule):
    """Creates the part of training that does not depend on the objective.

    A subclass implements `training_step`; `negatives` gives it samples of the model.

    Args:
        energy: the energy to be taught.
        chain: how images are drawn from it, starting from noise.
        k: steps of each update, at the chain's last step size and temperature.
        buffer_size: number of chains in the replay buffer; with classes, as many for each.
        restart: share of the chains that begin anew at each update.
        settle: run a new chain to its end before it enters the buffer, not enter it as noise.
        lr: learning rate, a number or (update, value) knots.
        betas: decay rates of Adam's moments.
        bf16_chains: compute the chains' gradients in bfloat16, on devices that have it; their state
            stays float32.
        seed: of the chains and the buffer.
        optimizer: `adam`, or `sgd`, plain steps along the gradient.
    """

    def __init__(
        self,
        energy: Energy,
        chain: Chain,
        k: int,
        buffer_size: int,
        restart: float,
        settle: bool,
        lr: Knots,
        betas: tuple[float, float],
        bf16_chains: bool,
        seed: int,
        optimizer: Literal["adam", "sgd"] = "adam",
    ) -> None:
        super().__init__()
        if not 0 <= restart <= 1:
            raise UserError(f"restart is a share between 0 and 1, not {restart}")
        self.energy, self.chain, self.k = energy, chain, k
        self.buffer_size, self.restart, self.settle = buffer_size, restart, settle
        self.lr, self.betas, self.lr_scale = lr, betas, 1.0
        self.optimizer = optimizer
        self.bf16_wanted, self.seed = bf16_chains, seed
        self.shape: tuple[int, ...] | None = None
        self.names: tuple[str, ...] = ()
        # Both come to be in training, on its device, and not here: weight averaging copies the
        # module before it starts, and the copy has no use for chains.
        self.buffer: ReplayBuffer | None = None
        self.generator: torch.Generator | None = None
        # new chains that have run and wait for their turn, where they are made ahead
        self.spare: Tensor | None = None
        # what the divergence guard looks at, of the update under way
        self.signs: dict[str, Tensor] = {}
        self._resumed: dict[str, Any] | None = None

    @property
    def classes(self) -> int | None:
        """Number of classes of a conditional energy."""
        return getattr(self.energy, "classes", None)

    def trained(self, shape: tuple[int, ...]) -> Trained:
        """Return what there is so far, for images of a shape (C, *space)."""
        return Trained(self.energy, self.chain, shape, self.global_step, self.names)

    def drawn(
        self,
        n: int,
        batch: tuple[Tensor, Tensor | None],
        *,
        generator: Generators = None,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Return images (n, C, *space) to be looked at while training goes on.

        Args:
            n: number of images.
            batch: the last one.
            generator: source of all randomness.
            callback: see `genconv.sampling.langevin`.
        """
        trained = self.trained(tuple(batch[0].shape[1:]))
        return trained.sample(n, generator=generator, callback=callback, bf16=self.bf16_chains)

    @property
    def bf16_chains(self) -> bool:
        """Whether the chains' gradients are computed in bfloat16."""
        return self.bf16_wanted and has_bfloat16(self.device)

    @property
    def uses_buffer(self) -> bool:
        """Whether the negatives come from the replay buffer."""
        return True

    @property
    def draws(self) -> bool:
        """Whether images come from noise by the chain of what is taught."""
        return True

    def chain_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape (C, *space) of the chains that go with data of a shape."""
        return shape

    def chains_lent(self, batch: int) -> int:
        """Return how many chains of the buffer an update with so many images continues."""
        return batch

    def negatives(
        self, x: Tensor, y: Tensor | None, augment: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Continue as many chains from the buffer as there are images, and put them back.

        Args:
            x: (N, C, *space) data, of which only the shape matters.
            y: (N,) labels; a conditional energy gets chains of the same classes.
            augment: changes the images from which chains resume.

        Returns:
            The chains' ends (N, C, *space).
        """
        shape = tuple(x.shape[1:])
        buffer = self._buffer(shape)
        draw = buffer.draw(len(x), y if self.classes else None)
        start = draw.x if augment is None else augment(draw.x)
        if draw.fresh:
            labels = draw.y[: draw.fresh] if draw.y is not None else None
            start[: draw.fresh] = self._new_chains(draw.fresh, shape, labels)
        end = self._restarted(self.advance(start, draw.y))
        buffer.write(draw, end)
        age = buffer.age.float()
        self.log_dict({"buffer/age": age.mean(), "buffer/oldest": age.max()})
        return end

    def advance(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Run the k steps of an update from x (N, C, *space), and log how they went."""
        end, info = self._run(self.chain.continued(self.k), x, y)
        self.log_dict(
            {
                # the energies are logged beside those of the data
                **{f"chain/{k}": v.mean() for k, v in info._asdict().items() if k != "energy"},
                # a chain that sits at the walls of the range has left the data
                "chain/saturated": (end.abs() >= 1).float().mean(),
            }
        )
        # at the updates that are logged by default: two gradients of a few chains in ten updates
        if (self.global_step + 1) % 10 == 0:
            # noise of its own, so that looking at the chains does not change them
            place = ("probe", self.global_rank, self.global_step)
            generator = stream(self.seed, *place, device=end.device)
            y = y if self.classes else None
            accepted = probe(self.energy, self.chain.continued(1), end, y, generator)
            if accepted is not None:
                self.log("chain/acceptance", accepted)
        return end

    def lost(self, x: Tensor) -> Tensor:
        """Say which chains x (N, C, *space) have left the numbers, as bool (N,), and log it."""
        # not `> FAR`, which a NaN would pass; and nothing here waits for the device
        lost = ~(x.abs().flatten(1).amax(1) <= FAR)
        self.signs["chains"] = lost.float().mean()
        self.log("chain/lost", lost.float().sum())
        return lost

    def _restarted(self, x: Tensor) -> Tensor:
        """Return chains x, those that have left the numbers begun anew from noise."""
        lost = self.lost(x)
        # a stream that nothing else draws from: a lost chain changes no other random number
        generator = stream(self.seed, "lost", self.global_rank, self.global_step, device=x.device)
        noise = self.chain.noise(len(x), tuple(x.shape[1:]), generator=generator, device=x.device)
        return torch.where(lost.view(-1, *[1] * (x.ndim - 1)), noise, x)

    def log(self, name: str, value: Any, **how: Any) -> None:
        """Log as Lightning does, but only in updates whose figures will be written down.

        Lightning takes half a millisecond for each figure: more, in all, than a small energy takes
        for an update.
        """
        every = self.trainer.log_every_n_steps
        if every and (self.global_step + 1) % every == 0:
            super().log(name, value, **how)

    def log_energies(self, data: Tensor, chains: Tensor) -> None:
        """Log the mean energies of data and chains, and their gap in standard deviations too."""
        gap = data.mean() - chains.mean()
        self.signs["gap"] = gap.detach()
        self.log_dict(
            {
                "energy/data": data.mean(),
                "energy/chains": chains.mean(),
                "energy/gap": gap,
                "energy/gap_std": gap / data.std().clamp_min(1e-12),
            }
        )
        self.log("gap", gap, prog_bar=True, logger=False)

    def _run(self, chain: Chain, x: Tensor, y: Tensor | None) -> LangevinResult | GibbsResult:
        y = y if self.classes else None
        return chain.run(self.energy, x, y, generator=self.generator, bf16=self.bf16_chains)

    @property
    def ahead(self) -> int:
        """How many new chains are run at once, the least.

        A step of 12 chains takes a GPU as long as one of 256 (docs/speed.md), so there those of the
        next updates are made too; k steps with newer weights follow when their turn has come.
        Filling the buffer ran as many together, so that they fit in the memory.
        """
        return 1 if self.device.type == "cpu" else min(256, self.buffer_size)

    def _new_chains(self, n: int, shape: tuple[int, ...], y: Tensor | None) -> Tensor:
        if self.settle and y is None and n < self.ahead:
            if self.spare is None or len(self.spare) < n:
                self.spare = self._settled(self.ahead, shape, None)
            taken, self.spare = self.spare.tensor_split([n])
            return taken
        if self.settle:
            return self._settled(n, shape, y)
        return self.chain.noise(n, shape, generator=self.generator, device=self.device)

    def _settled(self, n: int, shape: tuple[int, ...], y: Tensor | None) -> Tensor:
        x = self.chain.noise(n, shape, generator=self.generator, device=self.device)
        return self._run(self.chain, x, y).x

    def _buffer(self, shape: tuple[int, ...]) -> ReplayBuffer:
        if self.buffer is None:
            kinds, seed = self.classes, derive(self.seed, "buffer", self.global_rank)
            size = self.buffer_size - self.buffer_size % (kinds or 1)
            self.buffer = ReplayBuffer(
                size, shape, restart=self.restart, classes=kinds, seed=seed, device=self.device
            )
            self.buffer.fill(lambda n, y: self._new_chains(n, shape, y))
        return self.buffer

    def learners(self) -> list[tuple[list[nn.Parameter], Knots]]:
        """Return the parameters that are taught, those of each network with its learning rate."""
        return [(list(self.energy.parameters()), self.lr)]

    def configure_optimizers(self) -> dict[str, Any]:
        return scheduled(
            self.learners(),
            lambda: self.lr_scale,
            kind=self.optimizer,
            betas=self.betas,
            # fused where waiting costs: it can skip an update on the device, as the guard may ask
            fused=self.device.type == "cuda",
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.log("gradient", distributed.norm_of(self.parameters()))

    def on_fit_start(self) -> None:
        data = getattr(self.trainer.datamodule, "data", None)
        self.names = (data.classes or ()) if self.classes and data is not None else ()
        self.generator = stream(self.seed, "chains", self.global_rank, device=self.device)
        if self._resumed is not None:
            if self._resumed["buffer"] is not None:
                self.buffer = ReplayBuffer.from_state_dict(
                    self._resumed["buffer"],
                    self.device,
                    seed=derive(self.seed, "buffer", self.global_rank),
                )
            put_back(self.generator, self._resumed["generator"])
            # of checkpoints from before there were any: none
            if (spare := self._resumed.get("spare")) is not None:
                self.spare = spare.to(self.device)

    def return_to(self, buffer: dict[str, Any] | None, attempt: int) -> None:
        """Put an earlier buffer back, and draw other random numbers than in earlier attempts."""
        self.generator = stream(self.seed, "chains", self.global_rank, attempt, device=self.device)
        self.buffer, self.spare = None, None
        if buffer is not None:
            self.buffer = ReplayBuffer.from_state_dict(buffer, self.device)
            place = ("buffer", self.global_rank, attempt)
            self.buffer.generator.manual_seed(derive(self.seed, *place))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.shape = tuple(batch[0].shape[1:])
        # Only now: the loader's iterator has just drawn from the global generator.
        if self._resumed is not None:
            distributed.set_rng_state(self._resumed["rng"])
            self._resumed = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what Lightning does not: every rank's chains and random number generators."""
        checkpoint["genconv"] = self.trained(self.shape or ()).card()
        checkpoint["chains"] = distributed.gather(
            {
                "buffer": self.buffer.state_dict() if self.buffer is not None else None,
                "generator": self.generator.get_state() if self.generator is not None else None,
                "rng": distributed.rng_state(),
                "spare": self.spare.clone() if self.spare is not None else None,
            }
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = distributed.own_share(checkpoint["chains"])
