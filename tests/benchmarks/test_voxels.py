"""What the table of voxels decides without the truth, against all that it could have decided."""

from itertools import product

import torch

from tests.benchmarks.voxels import likeliest, regressed


def test_no_other_body_has_a_larger_expected_iou():
    estimate = 2 * torch.rand(5, 1, 2, 2, 3, generator=torch.Generator().manual_seed(0)) - 1
    counted = torch.ones_like(estimate, dtype=torch.bool)
    counted[..., -1] = False
    found = likeliest(estimate, counted) > 0
    assert not found[~counted].any()
    for x, one, seen in zip(estimate, found, counted, strict=True):
        p = (1 + x[seen]) / 2

        def expected(body, p=p):
            return float((p * body).sum() / (body.sum() + (p * ~body).sum()))

        bodies = (torch.tensor(body) for body in product([False, True], repeat=len(p)))
        assert expected(one[seen]) >= max(expected(body) for body in bodies) - 1e-6


def test_the_regression_knows_what_depends_on_the_known():
    # the middle repeats the corner, smooth in what is known
    shell = torch.rand(300, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    missing = torch.zeros(1, 1, 3, 3, 3, dtype=torch.bool)
    missing[..., 1, 1, 1] = True
    shell[..., 1, 1, 1] = shell[..., 0, 0, 0]
    found = regressed(missing.expand(50, -1, -1, -1, -1), shell[:50], shell[50:])
    left = (found - shell[:50])[..., 1, 1, 1].square().mean()
    assert left < 0.3 * shell[:50, ..., 1, 1, 1].square().mean()
    assert torch.equal(found[..., 0, :, :], shell[:50, ..., 0, :, :])
