"""Rooms that move x downhill with noise."""

from genconv.sampling.buffer import Draw, ReplayBuffer
from genconv.sampling.chain import Chain
from genconv.sampling.langevin import LangevinInfo, LangevinResult, draw_noise, frozen, langevin
from genconv.sampling.schedule import Knots, schedule, value_at

__all__ = [
    "Chain",
    "Draw",
    "Knots",
    "LangevinInfo",
    "LangevinResult",
    "ReplayBuffer",
    "draw_noise",
    "frozen",
    "langevin",
    "schedule",
    "value_at",
]
