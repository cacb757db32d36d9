"""The persistent chains of a run, which its checkpoint holds beside the energy."""

from pathlib import Path

import torch
from torch import Tensor

from genconv.checkpoint import found, newest
from genconv.errors import UserError

__all__ = ["persistent_chains"]


def persistent_chains(path: str | Path) -> tuple[Tensor, Tensor]:
    """Read the chains with which a run was going on when its checkpoint was written.

    Of a run on several processes these are the first one's.

    Args:
        path: a checkpoint or a run's folder, which `genconv.checkpoint.read` has found whole.

    Returns:
        The chains, uint8 (N, C, *space), and for how many updates each has gone on, int32 (N,).

    Raises:
        UserError: there are none: an exported folder has the energy only, and some objectives
            have no replay buffer.
    """
    file = found(path)
    if (file / "checkpoints").is_dir():
        file = newest(file / "checkpoints")
    if file.is_dir():
        raise UserError(f"{path} holds no persistent chains; give the run or its checkpoint")
    chains = torch.load(file, map_location="cpu", weights_only=True).get("chains")
    buffer = chains[0]["buffer"] if chains else None
    if buffer is None:
        raise UserError(f"{path} holds no persistent chains, as it was trained without a buffer")
    return buffer["images"], buffer["age"]
