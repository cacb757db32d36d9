"""Rooms that move x downhill with noise."""

from genconv.sampling.buffer import Draw, ReplayBuffer
from genconv.sampling.chain import Chain
from genconv.sampling.compiled import compile_gradient
from genconv.sampling.diagnostics import acceptance, ess, r_hat
from genconv.sampling.gibbs import GibbsInfo, GibbsResult, gibbs
from genconv.sampling.gradient import Generators, draw_noise, frozen
from genconv.sampling.hmc import MetropolisInfo, MetropolisResult, hmc
from genconv.sampling.langevin import LangevinInfo, LangevinResult, langevin
from genconv.sampling.mala import mala
from genconv.sampling.schedule import Knots, value_at

__all__ = [
    "Chain",
    "Draw",
    "Generators",
    "GibbsInfo",
    "GibbsResult",
    "Knots",
    "LangevinInfo",
    "LangevinResult",
    "MetropolisInfo",
    "MetropolisResult",
    "ReplayBuffer",
    "acceptance",
    "compile_gradient",
    "draw_noise",
    "ess",
    "frozen",
    "gibbs",
    "hmc",
    "langevin",
    "mala",
    "r_hat",
    "value_at",
]
