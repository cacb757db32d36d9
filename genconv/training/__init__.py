"""LightningModules, one objective a file, and the callbacks that watch them."""

from genconv.training.callbacks import EMA, SampleGrid, SaveLast, WholeCheckpointIO
from genconv.training.contrastive import ContrastiveDivergence
from genconv.training.energy_matching import EnergyMatching
from genconv.training.guard import Guard
from genconv.training.module import EnergyModule
from genconv.training.progress import UpdateBar
from genconv.training.recovery import RecoveryMatching

__all__ = [
    "EMA",
    "ContrastiveDivergence",
    "EnergyMatching",
    "EnergyModule",
    "Guard",
    "RecoveryMatching",
    "SampleGrid",
    "SaveLast",
    "UpdateBar",
    "WholeCheckpointIO",
]
