"""Flips, dequantisation and binarisation."""

import torch

from genconv.data.augment import binarise, dequantise, flip
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
