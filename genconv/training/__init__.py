"""LightningModules, one objective a file, and the callbacks that watch them."""

from genconv.training.averaging import EMA
from genconv.training.callbacks import SampleGrid, SaveLast, WholeCheckpointIO
from genconv.training.contrastive import ContrastiveDivergence
from genconv.training.cooperative import Cooperative
from genconv.training.energy_matching import EnergyMatching
from genconv.training.guard import Guard
from genconv.training.module import EnergyModule
from genconv.training.progress import UpdateBar
from genconv.training.recovery import RecoveryMatching
from genconv.training.thinking import Thinking

__all__ = [
    "EMA",
    "ContrastiveDivergence",
    "Cooperative",
    "EnergyMatching",
    "EnergyModule",
    "Guard",
    "RecoveryMatching",
    "SampleGrid",
    "SaveLast",
    "Thinking",
    "UpdateBar",
    "WholeCheckpointIO",
]
