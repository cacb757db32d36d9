"""Gibbs sampling: exact moves of an energy that knows its own conditional distributions."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genconv.errors import UserError
from genconv.sampling.gradient import Generators, draw_noise, frozen
from genconv.sampling.schedule import Knots, value_at

__all__ = ["GibbsInfo", "GibbsResult", "gibbs"]


class GibbsInfo(NamedTuple):
    """What a run of chains did, one number per chain.

    Attributes:
        movement: (N,) distances from where the chains began to where they ended.
    """

    movement: Tensor


class GibbsResult(NamedTuple):
    """The chains' last state `x` (N, C, *space), float32, and `info` about the way there."""

    x: Tensor
    info: GibbsInfo


def gibbs(
    energy: Callable[..., Tensor],
    x: Tensor,
    y: Tensor | None = None,
    *,
    steps: int,
    temperature: Knots = 1.0,
    project: Callable[[Tensor], Tensor] | None = None,
    generator: Generators = None,
    callback: Callable[[int, Tensor], None] | None = None,
    bf16: bool = False,
) -> GibbsResult:
    r"""Run Gibbs sampling in parallel chains: every step leaves p(x) exactly as it is.

    A step is the energy's own `resample(x, y, noise=..., temperature=...)`, which draws all of x
    anew, block by block, each from its conditional distribution given the others.
    `noise(shape, draw=torch.rand)` gives it random numbers, uniform or, with `torch.randn`, normal.

    Like `langevin` it may be called inside `no_grad` and `inference_mode`, leaves no graph behind
    and never waits for the device.

    Args:
        energy: offers `resample`.
        x: (N, C, *space) start of the chains; not changed.
        y: (N,) labels handed to a class-conditional energy.
        steps: number of steps.
        temperature: T of the joint distribution of all units, one number or knots.
        project: maps x to the nearest x that satisfies a constraint, after each step; with pixels
            put back, the chain samples the others given these.
        generator: see `genconv.sampling.langevin`. With a sequence a module computes in float64: in
            float32 a product of matrices rounds differently for another number of rows, and a coin
            that this turns over would make a chain depend on its batch.
        callback: called after each step with the number of steps done and x.
        bf16: multiply matrices in bfloat16.

    Raises:
        UserError: the energy does not know its conditionals.
    """
    resample = getattr(energy, "resample", None)
    if resample is None:
        raise UserError(
            f"{type(energy).__name__} does not know its conditional distributions, which Gibbs "
            "sampling needs; take a chain with sampler: langevin"
        )
    noise = partial(draw_noise, generator=generator, draw=torch.rand, device=x.device)
    with frozen(energy), torch.inference_mode(False), torch.no_grad():
        # inference tensors cannot enter autograd; a clone made out here can
        start = x.to(torch.float32, copy=True) if x.dtype != torch.float64 else x.clone()
        x, y = start, y.clone() if y is not None else None
        if isinstance(generator, Sequence) and isinstance(energy, nn.Module):
            x, resample = x.double(), copy.deepcopy(energy).double().resample
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            for step in range(steps):
                x = resample(x, y, noise=noise, temperature=value_at(temperature, step))
                if project is not None:
                    x = project(x)
                if callback is not None:
                    callback(step + 1, x)
        x = x.to(start.dtype)
        info = GibbsInfo((x - start).flatten(1).norm(dim=1))
    return GibbsResult(x, info)
