"""A run so small that every test can have one."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# `pytest -n 2`: two processes whose threads wait for each other's cores take longer than one. Set
# before torch comes, and for the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from genconv.checkpoint import Trained, read, write
from genconv.energy import ResNetEnergy
from genconv.sampling import Chain

# Lightning 2.6.6 calls what jsonargparse 4.53 deprecates
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

TINY = [
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1"),
    *("--trainer.max_steps", "6", "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false"),
    *("--data.batch_size", "16"),
    *("--model.energy.widths", "[4, 8]", "--model.energy.strides", "[2, 2]"),
    *("--model.chain.steps", "5", "--model.chain.temperature", "[[2, 0.0], [4, 0.1]]"),
    *("--model.transport_updates", "2", "--model.k", "2", "--model.buffer_size", "32"),
    *("--model.lr", "0.01"),
    *("--samples.n", "4", "--samples.every", "4"),
]

TINY_COOPERATIVE = [
    *("--config", "digits_coop"),
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1"),
    *("--trainer.max_steps", "4", "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false"),
    *("--data.batch_size", "16"),
    *("--model.energy.widths", "[4, 8]", "--model.energy.strides", "[2, 2]"),
    *("--model.generator.latent", "4", "--model.generator.widths", "[8, 4]"),
    *("--model.chain.steps", "3", "--model.latent.steps", "5", "--model.k", "2"),
    *("--samples.n", "4", "--samples.every", "4"),
]


def train(runs: Path, *more: str) -> None:
    """Teach a tiny energy the digits, in this process, for 6 updates if not told otherwise."""
    from genconv.train import main

    main([*TINY, "--runs", str(runs), *more])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Give a test the same numbers whatever ran before it, and in whichever process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, to be read only."""
    runs = tmp_path_factory.mktemp("runs")
    train(runs)
    return runs / "digits"


@pytest.fixture(scope="session")
def trained(run: Path) -> Trained:
    """What that run taught."""
    return read(run, "cpu")


@pytest.fixture(scope="session")
def cooperative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with a generator, to be read only."""
    from genconv.train import main

    runs = tmp_path_factory.mktemp("cooperative")
    main([*TINY_COOPERATIVE, "--runs", str(runs)])
    return runs / "digits_coop"


@pytest.fixture(scope="session")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported energy of three classes."""
    folder = tmp_path_factory.mktemp("conditional")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        energy = ResNetEnergy(3, widths=(4, 8), classes=3)
        for embedding in energy.modules():
            # fresh classes are all alike
            if isinstance(embedding, torch.nn.Embedding):
                torch.nn.init.normal_(embedding.weight)
    write(Trained(energy, Chain(3, 0.1, 0.01, gradient_clip=1.0), (3, 8, 8), 0), folder)
    return folder


@pytest.fixture
def never_waits() -> Callable[[], AbstractContextManager[None]]:
    """Within it, whatever makes the CPU wait for the GPU is an error."""

    @contextmanager
    def watched() -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            try:
                torch.cuda.set_sync_debug_mode("error")
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")

    return watched
