"""Weights, moments and averages in shares, one on each device: `--trainer.strategy fsdp`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict
from torch.distributed.fsdp import (
    FSDPModule,
    FullyShardedDataParallel,
    OptimStateKeyType,
    fully_shard,
)

__all__ = ["Sharded", "whole"]


class Sharded(ModelParallelStrategy):
    """Creates fully sharded data parallelism (FSDP2) for energies.

    Between updates a device holds its share of the weights, of the optimiser's moments and of the
    averaged weights. An update begins by gathering the weights, once: its chain then takes all its
    steps without a word between devices, where gathering every layer as it is reached would do so
    at each of 20 to 60 steps. When its gradients are known they are averaged, and each device keeps
    its share of them too.

    FSDP2 hangs gathering and averaging on a module's forward and backward passes, which gradients
    of gradients, chains and compiled functions take in other ways; here both are done by hand.

    Reference:
        Rajbhandari et al.: ZeRO, https://arxiv.org/abs/1910.02054
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        # whole weights are read into whole networks, which are then cut up
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        """Cut up the networks and their averages, then make the optimiser of the shares."""
        self.accelerator.setup(trainer)
        self.model_to_device()
        averages = [c for c in trainer.callbacks if isinstance(c, WeightAveraging)]
        for network in (self.model, *(average._average_model.module for average in averages)):
            fully_shard(network, mesh=self.device_mesh["data_parallel"])
            network._get_fsdp_state()._lazy_init()
        self.barrier()
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Gather the weights, and make the loss."""
        self.model.unshard()
        return super().training_step(*args, **kwargs)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients, and keep this device's share of them and of the weights."""
        super().post_backward(closure_loss)
        # there is no public call for what FSDP2's own hooks do here
        for group in self.model._get_fsdp_state()._fsdp_param_groups:
            group.post_backward()
            group.finalize_backward()
        self.model.reshard()

    def load_checkpoint(self, path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the whole checkpoint, on every device."""
        return self.checkpoint_io.load_checkpoint(path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Read whole weights into networks that are not cut up yet."""
        ParallelStrategy.load_model_state_dict(self, checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Keep this device's share of the moments."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            if not state["state"]:
                continue
            named = FullyShardedDataParallel.rekey_optim_state_dict(
                state, OptimStateKeyType.PARAM_NAME, self.model
            )
            options = StateDictOptions(full_state_dict=True)
            set_optimizer_state_dict(self.model, optimizer, named, options=options)


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Gather a module's weights for a while, where they are in shares; a matter for all ranks."""
    if not isinstance(module, FSDPModule):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()
