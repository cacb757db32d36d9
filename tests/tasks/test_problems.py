"""What is hidden, and how images are degraded."""

import pytest
import torch

from genconv.errors import UserError
from genconv.images import save_png
from genconv.tasks.measurement import Separable, shrinking
from genconv.tasks.problems import Problem, holes


def images(n=4, *shape):
    return torch.rand(n, *(shape or (1, 8, 8)), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_box_has_half_of_every_side():
    box = holes("box", 2, (8, 6))
    assert box.shape == (2, 1, 8, 6)
    expected = torch.zeros(8, 6, dtype=torch.bool)
    expected[2:6, 1:4] = True
    assert (box == expected).all()
    assert holes("box:0.25", 1, (8, 8)).sum() == 4
    assert holes("box", 1, (4, 4, 4)).sum() == 8
    assert holes("box", 1, (10,))[0, 0].nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


def test_frames_are_whole():
    frames = holes("frames:0.25", 1, (8, 4, 4))[0, 0]
    assert frames.flatten(1).all(1).tolist() == frames.flatten(1).any(1).tolist()
    assert frames[:, 0, 0].nonzero().flatten().tolist() == [3, 4]


def test_random_pixels_depend_on_seed_and_number_only():
    many = holes("random:0.3", 50, (8, 8), seed=1)
    assert many.double().mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(holes("random:0.3", 10, (8, 8), seed=1), many[:10])
    assert not torch.equal(holes("random:0.3", 50, (8, 8), seed=2), many)
    assert not torch.equal(many[0], many[1])


def test_white_pixels_of_a_file_are_missing(tmp_path):
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, :3] = 255
    save_png(tmp_path / "mask.png", mask)
    missing = holes(str(tmp_path / "mask.png"), 3, (8, 8))
    assert (missing == (mask > 0)).all()
    assert len(missing) == 3
    with pytest.raises(UserError, match=r"has shape \(8, 8\), but the images have \(4, 4\)"):
        holes(str(tmp_path / "mask.png"), 3, (4, 4))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("box:2", "a share between 0 and 1"),
        ("random:nan", "a share between 0 and 1"),
        ("frames:x", "a share between 0 and 1"),
        ("box:0.01", "hides none"),
        ("nowhere.png", "cannot open nowhere.png"),
    ],
)
def test_what_is_no_mask_is_named(mask, message):
    with pytest.raises(UserError, match=message):
        holes(mask, 2, (8, 8))


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
