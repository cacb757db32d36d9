"""What is hidden, and how images are degraded."""

import pytest
import torch

from genconv.data.holes import holes
from genconv.tasks.measurement import Separable, shrinking
from genconv.tasks.problems import Problem


def images(n=4, *shape):
    return torch.rand(n, *(shape or (1, 8, 8)), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_degrading_leaves_the_truth_and_does_not_depend_on_the_batch():
    truth = images()
    before = truth.clone()
    problem = Problem((1, 8, 8), 0.5, Separable([None] * 3))
    noisy = problem.degrade(truth, seed=3)
    assert torch.equal(truth, before)
    assert (noisy - truth).std() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(problem.degrade(truth[:2], seed=3), noisy[:2])
    assert not torch.equal(problem.degrade(truth, seed=4), noisy)


def test_a_mask_is_of_each_image_its_own():
    missing = holes("random", 4, (8, 8))
    problem, truth = Problem((1, 8, 8), missing=missing), images()
    measured = problem.degrade(truth, seed=0)
    assert (measured[missing] == 0).all()
    assert torch.equal(measured[~missing], truth[~missing])
    one = problem.measurement(torch.tensor([2, 2]), "cpu")(truth[[2, 2]])
    assert torch.equal(one, measured[[2, 2]])
    assert problem.counted(4).sum() == missing.sum()


def test_the_observed_is_shown_in_full_size():
    problem = Problem((3, 4, 4), operator=shrinking((3, 4, 4), 2))
    small = images(2, 3, 2, 2)
    seen = problem.seen(small)
    assert seen.shape == (2, 3, 4, 4)
    assert torch.equal(seen[..., ::2, ::2], small)
    assert problem.counted(2).all()
