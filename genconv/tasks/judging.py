"""How good recovered images are, where the truth is known, and how honest their uncertainty."""

from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from genconv.images import to_uint8
from genconv.seeds import stream
from genconv.tasks.answers import lowest, overlapping
from genconv.tasks.baselines import baselines
from genconv.tasks.problems import Problem

__all__ = ["coverage", "intersection_over_union", "judge", "judge_all", "show"]


def judge(estimate: Tensor, truth: Tensor, counted: Tensor) -> dict[str, float | None]:
    """Measure an estimate, cut into [-1, 1].

    Args:
        estimate: (N, C, *space).
        truth: likewise.
        counted: bool, likewise: the values that PSNR is of.

    Returns:
        `psnr` in dB, of the squared error over all counted values of all images; `ssim` of whole
        images by a uniform window of 7 pixels (less where images are smaller), None where the space
        has neither two nor three dimensions; `iou`, where the truth is black and white alone, see
        `intersection_over_union`.
    """
    # float32 loses the variance of flat windows
    estimate, truth = estimate.double().clamp(-1, 1), truth.double()
    psnr = peak_signal_noise_ratio(estimate[counted], truth[counted], data_range=2.0)
    ssim = None
    reach = (min(7, *truth.shape[2:]) - 1) // 2
    if truth.ndim in (4, 5) and reach > 0:
        # SSIM compares brightness as ratios, so black has to be 0; its windows take much memory
        pairs = zip(((estimate + 1) / 2).split(8), ((truth + 1) / 2).split(8), strict=True)
        each = [
            structural_similarity_index_measure(
                *pair,
                gaussian_kernel=False,
                kernel_size=2 * reach + 1,
                data_range=1.0,
                reduction="none",
            ).reshape(-1)
            for pair in pairs
        ]
        ssim = torch.cat(each).mean()
    out = {"psnr": float(psnr), "ssim": ssim if ssim is None else float(ssim)}
    if bool((truth.abs() == 1).all()):
        out["iou"] = float(intersection_over_union(estimate, truth, counted).mean())
    return out


def intersection_over_union(estimate: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
    """Compare what is white, or solid: above 0, in the estimate and in the truth.

    Args:
        estimate: (N, C, *space).
        truth: likewise.
        counted: bool, likewise: the values that are compared.

    Returns:
        (N,) float64 in [0, 1]; 1 where neither has anything.
    """
    ours, theirs = ((x > 0) & counted for x in (estimate, truth))
    both, either = ((x.flatten(1).sum(1)).double() for x in (ours & theirs, ours | theirs))
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def coverage(draws: Tensor, truth: Tensor, counted: Tensor, seed: int) -> dict[float, float]:
    """Say how often the truth lies within the central bands of the draws.

    Were the truth one more draw, then of D draws the band from the j-th smallest to the j-th
    largest would hold it with probability (D + 1 - 2 j) / (D + 1): exactly, for any D. Images are
    compared as stored, on 256 levels, and the truth's rank among equal values is drawn: else
    saturated pixels would always lie within.

    Args:
        draws: (N, D, C, *space).
        truth: (N, C, *space).
        counted: bool, likewise.
        seed: of the ranks among equals.

    Returns:
        The share of the counted values within, for each nominal probability, ascending.

    Reference:
        Czado, Gneiting & Held: Predictive Model Assessment for Count Data, Biometrics 2009.
    """
    levels, true = to_uint8(draws).short(), to_uint8(truth).short()[:, None]
    below, equal = (levels < true).sum(1), (levels == true).sum(1)
    chance = torch.rand(below.shape, generator=stream(seed, "ties"))
    rank = (below + (chance * (equal + 1)).floor().long())[counted]
    d = draws.shape[1]
    return {
        (d + 1 - 2 * j) / (d + 1): float(((rank >= j) & (rank <= d - j)).double().mean())
        for j in range((d + 1) // 2, 0, -1)
        if d + 1 > 2 * j
    }


def agreement(draws: Tensor, energies: Tensor, truth: Tensor, counted: Tensor) -> float:
    """Return Spearman's rank correlation, over the images, of energy and squared error.

    It is the mean of those of each draw; where all energies are one, it is not a number.
    """
    wrong = ((draws.clamp(-1, 1) - truth[:, None]).square() * counted[:, None]).flatten(2).sum(2)
    pairs = zip(energies.T.numpy(), wrong.T.numpy(), strict=True)
    return sum(float(spearmanr(e, w).statistic) for e, w in pairs) / draws.shape[1]


def judge_all(
    task: str,
    problem: Problem,
    measured: Tensor,
    truth: Tensor,
    draws: Tensor,
    energies: Tensor,
    seed: int,
    examples: Tensor | None = None,
) -> dict[str, Any]:
    """Return the table, the coverage, the spread, and whether energies tell errors."""
    counted = problem.counted(len(truth))
    d = draws.shape[1]
    single = [judge(draws[:, i], truth, counted) for i in range(d)]
    table = {f"mean of {d} draws": judge(draws.mean(1), truth, counted)} if d > 1 else {}
    table["one draw"] = {
        name: None if single[0][name] is None else sum(one[name] for one in single) / d
        for name in single[0]
    }
    if d > 1:
        best = judge(lowest(draws, energies), truth, counted)
        table[f"lowest energy of {d} draws"] = best
    if bool((truth.abs() == 1).all()):
        table["largest expected overlap"] = judge(
            overlapping(draws.mean(1), counted), truth, counted
        )
    for name, estimate in baselines(task, problem, measured, truth, examples).items():
        table[name] = judge(estimate, truth, counted)
    out = {"table": table}
    if len(truth) > 2:
        out["spearman"] = agreement(draws, energies, truth, counted)
    if d > 1:
        out["spread"] = float(draws.std(1)[counted].mean())
        covered = coverage(draws, truth, counted, seed)
        out["coverage"] = {f"{nominal:.4g}": share for nominal, share in covered.items()}
    return out


def show(task: str, report: dict[str, Any]) -> None:
    """Print what was measured."""
    of = "missing pixels" if task == "inpaint" else "all pixels"
    titles = {"psnr": f"PSNR, dB\n{of}", "ssim": "SSIM", "iou": f"IoU\n{of}"}
    shown = [name for name in titles if all(name in row for row in report["table"].values())]
    table = Table("", *(titles[name] for name in shown), title=f"{task}, n={report['n']}")
    for name, row in report["table"].items():
        table.add_row(name, *("-" if row[k] is None else f"{row[k]:.3f}" for k in shown))
    console = Console()
    console.print(table)
    if "spearman" in report:
        console.print(f"energy against squared error: Spearman {report['spearman']:.2f}")
    if "coverage" in report:
        nominal = min(report["coverage"], key=lambda p: abs(float(p) - 0.9))
        console.print(
            f"the central {float(nominal):.1%} of the draws hold the truth in "
            f"{report['coverage'][nominal]:.1%}; mean spread {report['spread']:.3f}"
        )
