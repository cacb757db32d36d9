"""The optimiser of all that an objective teaches, and the schedule of its learning rates."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from genconv.sampling import Knots, value_at

__all__ = ["scheduled"]


def scheduled(
    learners: Sequence[tuple[list[nn.Parameter], Knots]],
    scale: Callable[[], float],
    *,
    kind: Literal["adam", "sgd"],
    betas: tuple[float, float],
    fused: bool,
) -> dict[str, Any]:
    """Return an optimiser and its schedule, as Lightning's `configure_optimizers` does.

    Args:
        learners: parameters that are taught, each list with its learning rate.
        scale: gives a factor on all rates, asked at every update.
        kind: Adam, or plain steps along the gradient.
        betas: decay rates of Adam's moments.
        fused: update all parameters in one kernel.
    """
    # the schedule holds the rate itself, so the optimiser's own is 1
    how = {"lr": 1.0, "fused": fused, "foreach": not fused}
    weights = [{"params": parameters} for parameters, _ in learners]
    if kind == "sgd":
        optimizer = torch.optim.SGD(weights, **how)
    else:
        optimizer = torch.optim.Adam(weights, betas=betas, **how)
    # or else Lightning will not clip the gradients of one that might unscale them, too
    optimizer._step_supports_amp_scaling = False
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, [lambda i, lr=lr: value_at(lr, i) * scale() for _, lr in learners]
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
