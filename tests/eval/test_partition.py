"""Means of weights; the laws of annealing are checked in tests/statistics."""

import math
from itertools import pairwise

import pytest
import torch

from genconv.eval import log_mean_exp, schedule


def test_mean_of_weights_is_taken_without_overflow():
    log_w = torch.tensor([0.1, 0.7, -0.3, 0.4], dtype=torch.float64)
    expected = log_w.exp().mean().log().item()
    for shift in (0.0, 5000.0, -5000.0):
        found = log_mean_exp(log_w + shift)
        assert found.value == pytest.approx(expected + shift, abs=1e-9)
        assert found.low < found.value < found.high
        w = log_w.exp()
        assert found.effective == pytest.approx((w.sum() ** 2 / w.square().sum()).item())


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator, spread = torch.Generator().manual_seed(0), 0.5
    log_w = spread * torch.randn(300, 200, generator=generator, dtype=torch.float64)
    truth = spread**2 / 2
    found = [log_mean_exp(row, resamples=300) for row in log_w]
    covered = sum(one.low < truth < one.high for one in found) / len(found)
    assert 0.89 < covered < 0.99


def test_equal_weights_leave_no_doubt():
    found = log_mean_exp(torch.full((8,), 3.0))
    assert (found.low, found.value, found.high) == pytest.approx((3.0, 3.0, 3.0))
    assert found.effective == pytest.approx(8)


def test_schedule_goes_all_the_way_and_ever_more_slowly():
    betas = schedule(14_500)
    assert (len(betas), betas[0], betas[-1]) == (14_501, 0.0, 1.0)
    steps = [b - a for a, b in pairwise(betas)]
    assert min(steps) > 0
    assert sum(b <= 0.5 for b in betas) == 1451
    assert math.isclose(steps[0] / steps[-1], 0.5 / 1450 / (0.1 / 8700), rel_tol=1e-6)
    assert schedule(10)[-1] == 1.0
