"""torchebm's energy-matching loss on the network of a config, with all else as in the config.

    pip install -e ".[bench]"
    python -m genconv.train --config cifar10_cpu --model tests.benchmarks.rival.TorchEBM \\
        --name rival --trainer.precision 32-true

Its constants are those that the paper gives for images; its own defaults are for the plane.
"""

import torch
from torch import Tensor, nn
from torchebm.core import BaseModel
from torchebm.losses import EnergyMatchingLoss

from genconv.energy import Energy
from genconv.training import EnergyMatching


class Model(BaseModel):
    """An energy as torchebm wants it."""

    def __init__(self, energy: Energy, device: torch.device) -> None:
        super().__init__(device=device)
        self.energy = energy

    def forward(self, x: Tensor) -> Tensor:
        return self.energy(x)


class TorchEBM(EnergyMatching):
    """Teaches an energy by torchebm's loss: transport, then fresh chains of 200 steps."""

    _loss: tuple[nn.Module, ...] = ()

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> Tensor:
        x, _ = batch
        if not self._loss:
            # in a tuple, so that the energy is not saved twice
            self._loss = (self._made(x.device),)
        (teacher,) = self._loss
        if self.global_step >= self.transport_updates:
            teacher.lambda_cd = self.weight
        loss = teacher(x)
        self.log("loss", loss, prog_bar=True)
        return loss

    def _made(self, device: torch.device) -> nn.Module:
        return EnergyMatchingLoss(
            Model(self.energy, device),
            sigma=0.0,
            flow_weight_cutoff=1.0,
            lambda_cd=0.0,
            epsilon_max=0.01,
            cd_clamp=0.02,
            device=device,
        )
