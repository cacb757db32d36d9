"""Wishes as functions: what they are zero on, and where their gradient leads."""

import pytest
import torch

from genconv.energy import Constraint, Product
from genconv.sampling import langevin
from genconv.tasks.constraints import class_of, hue, region


def plain(rgb, side=8):
    return torch.tensor(rgb, dtype=torch.float32)[None, :, None, None].expand(1, 3, side, side)


def test_hue_leaves_grey_and_its_own_colour_free_however_bright_and_pale():
    wish = hue((200, 40, 40))
    for rgb in [(0.3, 0.3, 0.3), (-1, -1, -1), (0.9, -0.2, -0.2), (0.5, 0.4, 0.4)]:
        assert wish(plain(rgb)).item() == pytest.approx(0, abs=1e-5)


def test_hue_is_half_the_squared_distance_to_the_allowed_colours():
    wish = hue((255, 0, 0), pool=1)
    # green less grey is (-1, 2, -1) / 3, along red less grey (2, -1, -1) / 3 by less than nothing
    assert wish(plain((0, 1, 0), 4)).item() == pytest.approx(16 / 2 * 6 / 9, rel=1e-5)
    # a mixture: yellow less grey is (1, 1, -2) / 3, half of whose length is along red
    along = (2 - 1 + 2) ** 2 / 9**2 * 9 / 6
    assert wish(plain((1, 1, 0), 4)).item() == pytest.approx(16 / 2 * (6 / 9 - along), rel=1e-5)


def test_hue_does_not_see_noise_within_its_squares():
    x = torch.randn(1, 3, 8, 8)
    x = x - torch.nn.functional.avg_pool2d(x, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert hue((0, 0, 255), pool=4)(x).item() == pytest.approx(0, abs=1e-6)


def test_a_chain_under_a_hue_turns_to_it():
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    end = langevin(hue((0, 0, 255)), x, steps=200, step_size=0.1, temperature=0.0).x
    chroma = torch.nn.functional.avg_pool2d(end - end.mean(1, keepdim=True), 4)
    blue = torch.tensor([-1.0, -1.0, 2.0]) / 6**0.5
    along = torch.einsum("nchw,c->nhw", chroma, blue)
    torch.testing.assert_close(chroma, along[:, None] * blue[:, None, None], atol=1e-4, rtol=0)
    assert along.min() > -1e-4


def test_region_is_a_known_gaussian():
    # prior N(0, 1) in all pixels, and the wish of weight 3 in some: mean 3/4 of the target there
    target, mask = torch.full((1, 4, 4), 0.8), torch.zeros(4, 4)
    mask[:2] = 1

    def prior(x):
        return x.square().flatten(1).sum(1) / 2

    energy = Product([prior, Constraint(region(target, mask), 3.0)])
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(5000, 1, 4, 4)
    x = langevin(energy, x, steps=60, step_size=0.1, generator=generator).x
    # unadjusted steps are wider by 1 / (1 - ηP/2)
    for part, mean, precision in [(x[:, :, :2], 0.6, 4.0), (x[:, :, 2:], 0.0, 1.0)]:
        variance = 1 / (precision * (1 - 0.1 * precision / 2))
        assert abs(part.mean() - mean) < 4 * (variance / part.numel()) ** 0.5
        assert abs(part.var() - variance) < 4 * variance * (2 / part.numel()) ** 0.5


def test_class_of_is_bayes_rule():
    # two Gaussian classes at ±1: their posterior under the wish of one is that class
    def logits(x):
        x = x.flatten(1)
        return torch.cat([-(x + 1).square() / 2, -(x - 1).square() / 2], 1)

    def both(x):
        return -torch.logsumexp(logits(x), 1)

    x = torch.randn(20, 1)
    left = Product([both, Constraint(class_of(logits, 1))])(x) - (x[:, 0] - 1).square() / 2
    torch.testing.assert_close(left, torch.zeros(20), atol=1e-5, rtol=0)
