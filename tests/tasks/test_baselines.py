"""Classical recovery, on images that it recovers."""

import pytest
import torch

from genconv.data.holes import holes
from genconv.tasks.baselines import baselines
from genconv.tasks.measurement import Separable, blurring, greying, shrinking
from genconv.tasks.problems import Problem


def ramps(n=2, side=16, channels=1):
    """Images that grow linearly along both axes."""
    t = torch.linspace(-0.8, 0.8, side)
    image = (t[:, None] + 0.2 * t).clamp(-1, 1)
    return image.expand(n, channels, side, side).clone()


def made(task, problem, truth):
    return baselines(task, problem, problem.degrade(truth, 0), truth)


def error(x, truth):
    return float((x - truth).square().mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_inpainting(channels):
    truth = ramps(channels=channels)
    missing = holes("box:0.25", 2, (16, 16))
    found = made("inpaint", Problem((channels, 16, 16), missing=missing), truth)
    mean, lines, smooth, biharmonic = found.values()
    torch.testing.assert_close(lines, truth)
    torch.testing.assert_close(smooth, truth, rtol=0, atol=1e-3)
    torch.testing.assert_close(biharmonic, truth, rtol=0, atol=1e-3)
    known = ~missing.expand_as(truth)
    assert torch.equal(mean[known], truth[known])
    assert mean[~known].abs().max() < 1e-5


def test_inpainting_voxels():
    truth = torch.linspace(-1, 1, 6)[:, None, None].expand(1, 1, 6, 6, 6).clone()
    missing = holes("box:0.4", 1, (6, 6, 6))
    found = made("inpaint", Problem((1, 6, 6, 6), missing=missing), truth)
    torch.testing.assert_close(found["biharmonic (scikit-image)"], truth, rtol=0, atol=1e-2)


def test_denoising():
    truth = ramps()
    noisy, smooth = made(
        "denoise", Problem((1, 16, 16), 0.3, Separable([None] * 3)), truth
    ).values()
    assert error(smooth, truth) < 0.25 * error(noisy, truth)


def test_upscaling():
    truth = ramps()
    found = made("upscale", Problem((1, 16, 16), operator=shrinking((1, 16, 16), 2)), truth)
    assert list(found) == ["nearest", "bicubic"]
    assert error(found["bicubic"], truth) < error(found["nearest"], truth)
    truth = torch.linspace(-1, 1, 8)[:, None, None].expand(1, 1, 8, 8, 8).clone()
    problem = Problem((1, 8, 8, 8), operator=shrinking((1, 8, 8, 8), 2))
    found = made("upscale", problem, truth)
    assert list(found) == ["nearest", "linear", "cubic spline"]
    assert error(found["cubic spline"], truth) < error(found["nearest"], truth)


def test_colours_and_blur():
    truth = ramps(channels=3)
    grey = made("colourise", Problem((3, 16, 16), operator=greying((3, 16, 16))), truth)["grey"]
    torch.testing.assert_close(grey, truth)
    problem = Problem((3, 16, 16), 0.02, blurring((3, 16, 16), 1.0))
    truth[..., 4:8, 4:8] = 0.9
    blurred, sharp = made("deblur", problem, truth).values()
    assert error(sharp, truth) < 0.8 * error(blurred, truth)


def test_the_nearest_example_and_their_mean_keep_what_was_measured():
    g = torch.Generator().manual_seed(0)
    examples = torch.rand(20, 1, 8, 8, generator=g) * 2 - 1
    truth = (examples[[7, 3]] + 0.01).clamp(-1, 1)
    missing = holes("random:0.5", 2, (8, 8))
    problem = Problem((1, 8, 8), missing=missing)
    measured = problem.degrade(truth, 0)
    found = baselines("inpaint", problem, measured, truth, examples)
    expected = torch.where(missing, examples[[7, 3]], truth)
    torch.testing.assert_close(found["nearest example"], expected)
    expected = torch.where(missing, examples.mean(0), truth)
    torch.testing.assert_close(found["mean of the examples"], expected)
    problem = Problem((1, 8, 8), operator=shrinking((1, 8, 8), 2))
    measured = problem.degrade(truth, 0)
    found = baselines("upscale", problem, measured, truth, examples)
    assert error(found["nearest example"], truth) < 1e-4
    for name in ("nearest example", "mean of the examples"):
        torch.testing.assert_close(problem.operator(found[name]), measured)
    # with noise what was measured is not to be kept
    noisy = Problem((1, 8, 8), 0.3, Separable([None] * 3))
    found = baselines("denoise", noisy, noisy.degrade(truth, 0), truth, examples)
    assert torch.equal(found["nearest example"], examples[[7, 3]])
