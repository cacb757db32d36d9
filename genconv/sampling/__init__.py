"""Rooms that move x downhill with noise."""

from genconv.sampling.buffer import Draw, ReplayBuffer
from genconv.sampling.chain import Chain
from genconv.sampling.langevin import (
    Generators,
    LangevinInfo,
    LangevinResult,
    draw_noise,
    frozen,
    langevin,
)
from genconv.sampling.schedule import Knots, value_at

__all__ = [
    "Chain",
    "Draw",
    "Generators",
    "Knots",
    "LangevinInfo",
    "LangevinResult",
    "ReplayBuffer",
    "draw_noise",
    "frozen",
    "langevin",
    "value_at",
]
