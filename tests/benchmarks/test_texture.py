"""The texture benchmark against closed forms."""

import pytest
import torch

from tests.benchmarks.texture import gram_distance, halves, newness, shuffled, spectrum_noise


def image(seed=0, side=96):
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_distance_to_itself_is_none():
    assert gram_distance(image(), image()).tolist() == [0.0]


@pytest.mark.parametrize("contrast", [0.5, 0.9, 2.0])
def test_contrast_counts_squared(contrast):
    x = image()
    mean = x.mean((2, 3), keepdim=True)
    distance = gram_distance(mean + contrast * (x - mean), x).item()
    assert distance == pytest.approx(abs(contrast**2 - 1), rel=1e-4)


def test_brightness_does_not_count_and_neighbours_do_not_matter():
    x, other = image(), image(1)
    assert gram_distance(x + 0.3, x).item() == pytest.approx(0, abs=1e-4)
    both = gram_distance(torch.cat([other, 2 * other]), x)
    torch.testing.assert_close(both[:1], gram_distance(other, x))


def test_two_draws_of_noise_are_near_and_smooth_noise_is_far():
    x = image(side=192)
    smooth = torch.nn.functional.avg_pool2d(x, 3, 1, 1) * 3
    assert gram_distance(image(1, 192), x) < 0.25
    assert gram_distance(smooth, x) > 0.5


def test_halves_of_a_tiled_image_are_alike():
    x = image(side=32).repeat(1, 1, 2, 2)
    pairs = halves(x)
    assert len(pairs) == 4
    assert all(torch.equal(a, b) and a.shape != x.shape for a, b in pairs)


def test_shuffling_keeps_every_patch():
    x = image(side=32)
    out = shuffled(x, torch.Generator().manual_seed(0))

    def patches(z):
        return {tuple(p.flatten().tolist()) for r in z[0].split(8, 1) for p in r.split(8, 2)}

    assert patches(out) == patches(x)
    assert not torch.equal(out, x)


def test_noise_has_the_spectrum_of_the_source():
    x = image(side=32).cumsum(3)
    x = x - x.mean((2, 3), keepdim=True)
    draws = torch.cat([spectrum_noise(x, torch.Generator().manual_seed(i)) for i in range(400)])
    power = torch.fft.fft2(draws).abs().square().mean(0)
    expected = torch.fft.fft2(x[0]).abs().square()
    ratio = power / expected
    ratio = ratio[expected > 1e-3]
    # |white|^2 has mean 1 and standard deviation 1 (sqrt 2 where it is real): 400 draws give 5 %
    assert ratio.mean().item() == pytest.approx(1, abs=0.02)
    assert (ratio - 1).abs().max() < 0.45
    a, b = torch.fft.fft2(draws)[:, 0], torch.fft.fft2(draws)[:, 1]
    exact = torch.fft.fft2(x[0, 0]) * torch.fft.fft2(x[0, 1]).conj()
    cross = (a * b.conj()).mean(0) / exact
    # one noise for all colours: their cross-spectra keep their phases
    known = exact.abs() > 1e-1
    assert cross.real[known].mean().item() == pytest.approx(1, abs=0.02)
    assert cross.imag[known].abs().max() < 0.05


def test_copies_are_not_new_and_other_noise_is():
    x = image(side=64)
    copy = x.roll((5, 9), (2, 3))[..., 12:40, 12:40]
    assert newness(copy, x) == pytest.approx(0, abs=1e-5)
    # the mean is as near to any other patch of noise as can be, at one variance
    assert newness(x[:, :, :12, :12] * 0, x) == pytest.approx(1, abs=0.2)
    # of noise no patch is like another: |a - b|^2 is two variances, less for the nearest of many
    assert 1 < newness(image(1, 64), x) < 2
    assert newness(3 * copy, 3 * image(1, 64)) == pytest.approx(
        newness(copy, image(1, 64)), rel=0.01
    )
