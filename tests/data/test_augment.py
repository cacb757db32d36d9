"""Crops, flips, dequantisation and binarisation."""

import pytest
import torch

from genconv.data.augment import binarise, crop, dequantise, flip
from genconv.images import from_uint8, to_uint8

LEVELS = torch.arange(256).to(torch.uint8).repeat(200, 1).view(200, 1, 16, 16)


def seeded():
    return torch.Generator().manual_seed(0)


def test_half_of_the_images_are_mirrored_and_none_otherwise_changed():
    out = flip(LEVELS, seeded())
    mirrored = (out == LEVELS.flip(-1)).all((1, 2, 3))
    assert (mirrored | (out == LEVELS).all((1, 2, 3))).all()
    assert 70 < mirrored.sum() < 130
    assert torch.equal(out, flip(LEVELS, seeded()))


def test_noise_fills_a_level_and_no_more():
    x = dequantise(LEVELS, seeded())
    noise = (x - from_uint8(LEVELS)) * 127.5
    assert x.dtype == torch.float32
    assert noise.abs().max() <= 0.5001
    assert abs(noise.mean()) < 0.01
    assert abs(noise.var() - 1 / 12) < 0.002
    assert torch.equal(x, dequantise(LEVELS, seeded()))
    assert (to_uint8(x) != LEVELS).float().mean() < 1e-3


@pytest.mark.parametrize("space", [(9,), (7, 9), (4, 7, 9)])
def test_a_crop_is_a_window_and_every_place_is_as_likely(space):
    sides = [2, 3, 4][-len(space) :]
    # every pixel says where it is
    images = torch.arange(2 * torch.Size(space).numel()).view(1, 2, *space).expand(4000, 2, *space)
    out = crop(images, sides, seeded())
    assert out.shape == (4000, 2, *sides)
    corners = torch.stack(torch.unravel_index(out[:, 0].flatten(1)[:, 0], space), 1)
    for i in range(20):
        window = tuple(slice(a, a + s) for a, s in zip(corners[i].tolist(), sides, strict=True))
        assert torch.equal(out[i], images[(i, slice(None), *window)])
    for axis, (extent, side) in enumerate(zip(space, sides, strict=True)):
        share = corners[:, axis].bincount() / len(corners)
        assert len(share) == extent - side + 1
        # five standard deviations of a share of 4000 draws are at most 0.04
        torch.testing.assert_close(share, torch.full_like(share, 1 / len(share)), atol=0.04, rtol=0)
    assert torch.equal(out, crop(images, sides, seeded()))


def test_pixels_are_white_as_often_as_they_are_bright():
    x = binarise(LEVELS, "sample", seeded())
    assert x.dtype == torch.float32
    white = ((x.flatten(1) + 1) / 2).mean(0)
    p = torch.arange(256) / 255
    spread = (p * (1 - p) / 200).sqrt()
    assert ((white - p).abs() <= 4 * spread).all()
    assert torch.equal(x, binarise(LEVELS, "sample", seeded()))


def test_a_threshold_divides_the_levels_in_halves():
    x = binarise(LEVELS, "threshold", seeded())[0].flatten()
    assert torch.equal(x, torch.tensor([-1.0] * 128 + [1.0] * 128))
