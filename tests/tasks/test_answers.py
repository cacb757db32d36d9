"""What is answered from several draws, against all that could have been answered."""

from itertools import product

import pytest
import torch

from genconv.tasks.answers import ANSWERS, choose, overlapping


def test_no_other_body_has_a_larger_expected_overlap():
    estimate = 2 * torch.rand(5, 1, 2, 2, 3, generator=torch.Generator().manual_seed(0)) - 1
    counted = torch.ones_like(estimate, dtype=torch.bool)
    counted[..., -1] = False
    found = overlapping(estimate, counted)
    assert torch.equal(found[~counted], estimate[~counted])
    assert set(found[counted].tolist()) == {-1.0, 1.0}
    for x, one, seen in zip(estimate, found > 0, counted, strict=True):
        p = (1 + x[seen]) / 2

        def expected(body, p=p):
            return float((p * body).sum() / (body.sum() + (p * ~body).sum()))

        bodies = (torch.tensor(body) for body in product([False, True], repeat=len(p)))
        assert expected(one[seen]) >= max(expected(body) for body in bodies) - 1e-6


def test_each_name_has_its_answer():
    draws = torch.tensor([[-1.0, -1.0, 1.0], [-0.5, 0.5, -0.6]]).view(2, 3, 1, 1, 1)
    energies = torch.tensor([[2.0, 1.0, 3.0], [0.2, 0.1, 0.0]])
    counted = torch.ones(2, 1, 1, 1, dtype=torch.bool)
    found = {name: choose(name, draws, energies, counted).flatten().tolist() for name in ANSWERS}
    # a value that is alone overlaps now and then if it is white, and never if it is black
    expected = {"mean": [-1 / 3, -0.2], "lowest": [-1.0, -0.6], "overlap": [1.0, 1.0]}
    assert found == {name: pytest.approx(values) for name, values in expected.items()}
