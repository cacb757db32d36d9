"""Flips and dequantisation."""

import torch

from genconv.data.augment import dequantise, flip
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
