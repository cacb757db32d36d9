"""Langevin steps, beside everyone else's on the same network."""

from collections.abc import Callable

from genconv.sampling import langevin
from tests.benchmarks.speed.clock import COMPILED, OURS, Row, compared, compiled, race
from tests.benchmarks.speed.networks import ETA, NOISE, Settings, made, noise
from tests.benchmarks.speed.peers import CHAINS, torchebm_chain, torchebm_name

__all__ = ["chains"]

SECTION = "chain step"


def chains(settings: Settings) -> list[Row]:
    """Time a few steps of every variant, and give those of one."""
    rows = []
    for network in settings.chains:
        energy, shape = made(network, settings)
        fast, _ = made(network, settings, compiled=True)
        x = noise(settings.batch, shape, settings.device)
        steps = 2 if network != "digits" else 20
        how = {
            "steps": steps,
            "step_size": ETA,
            "temperature": NOISE**2 / (2 * ETA),
            "clamp": (-1.0, 1.0),
        }
        runs: dict[str, Callable[[], object]] = {
            OURS: lambda energy=energy, x=x, how=how: langevin(energy, x, bf16=True, **how),
            COMPILED: lambda energy=fast, x=x, how=how: langevin(energy, x, bf16=True, **how),
            "genconv in float32": lambda energy=energy, x=x, how=how: langevin(energy, x, **how),
        }
        for name, chain in CHAINS.items():
            runs[name] = lambda c=chain, e=energy, x=x, n=steps: c(e, x, n)
        if (found := torchebm_chain(energy, settings.device)) is not None:
            sampler = found[1]
            runs[torchebm_name()] = lambda s=sampler, x=x, n=steps: s.sample(x=x.clone(), n_steps=n)
        times = race(runs, settings.device, settings.rounds)
        what = f"step of {settings.batch} chains"
        for rows_of in (compared, compiled):
            rows += rows_of(SECTION, network, what, times, per=steps)
        if found is None:
            rows.append(Row(SECTION, network, "step", torchebm_name(), note="not installed"))
    return rows
