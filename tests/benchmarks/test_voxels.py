"""The regression that missing voxels are compared with."""

import torch

from tests.benchmarks.voxels import regressed


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
