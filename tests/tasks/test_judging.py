"""Numbers whose values are known."""

import pytest
import torch

from genconv.tasks.judging import agreement, coverage, intersection_over_union, judge


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_counts_what_is_counted():
    truth = torch.zeros(3, 1, 8, 8)
    estimate, counted = truth.clone(), torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    counted[..., :4] = True
    estimate[..., :4], estimate[..., 4:] = 0.2, 0.9
    # 20 log10(2 / 0.2)
    assert judge(estimate, truth, counted)["psnr"] == pytest.approx(20, abs=1e-4)
    # what lies beyond white is white
    estimate[..., :4] = 5
    assert judge(estimate, truth, counted)["psnr"] == pytest.approx(20 * 0.30103, abs=1e-4)


@pytest.mark.parametrize("shape", [(8, 8), (32, 32), (9, 8, 8), (4, 6)])
def test_ssim_of_flat_and_of_opposite_images_is_known(shape):
    truth = noise(2, 1, *shape).clamp(-1, 1)
    counted = torch.ones_like(truth, dtype=torch.bool)
    assert judge(truth, truth, counted)["ssim"] == pytest.approx(1, abs=1e-5)
    assert judge(-truth, truth, counted)["ssim"] < 0
    # levels .25 and .75 of 1: (2 a b + c) / (a² + b² + c) with c = .01²
    flat = torch.full_like(truth, 0.5)
    expected = (0.375 + 1e-4) / (0.0625 + 0.5625 + 1e-4)
    assert judge(-flat, flat, counted)["ssim"] == pytest.approx(expected, abs=1e-4)


def test_ssim_is_the_mean_over_images_however_many():
    generator = torch.Generator().manual_seed(0)
    truth, estimate = torch.rand(2, 19, 3, 9, 9, generator=generator) * 2 - 1
    counted = torch.ones_like(truth, dtype=torch.bool)
    each = [judge(*(x[i : i + 1] for x in (estimate, truth, counted)))["ssim"] for i in range(19)]
    assert judge(estimate, truth, counted)["ssim"] == pytest.approx(sum(each) / 19, abs=1e-9)


def test_a_sequence_has_no_ssim():
    truth = noise(2, 1, 9)
    assert judge(truth, truth * 0.9, torch.ones_like(truth, dtype=torch.bool))["ssim"] is None


def test_draws_of_the_law_of_the_truth_cover_it():
    draws, truth = 0.3 * noise(1000, 19, 1, 4), 0.3 * noise(1000, 1, 4, seed=1)
    counted = torch.ones_like(truth, dtype=torch.bool)
    found = coverage(draws, truth, counted, seed=0)
    assert list(found) == pytest.approx([0.1 * k for k in range(1, 10)])
    for nominal, share in found.items():
        assert share == pytest.approx(nominal, abs=0.03)
    narrow, wide = (coverage(scale * draws, truth, counted, 0) for scale in (0.5, 2.0))
    assert list(narrow.values())[-1] < 0.75
    assert list(wide.values())[-1] > 0.98


def test_saturated_pixels_do_not_flatter():
    # both are black for the most part: all but a few ranks are drawn among equals
    draws, truth = noise(2000, 9, 1, 4) - 2, noise(2000, 1, 4, seed=1) - 2
    found = coverage(draws, truth, torch.ones_like(truth, dtype=torch.bool), seed=0)
    for nominal, share in found.items():
        assert share == pytest.approx(nominal, abs=0.03)


def test_only_counted_values_count():
    draws, truth = 0.1 * noise(500, 9, 1, 2), 0.1 * noise(500, 1, 2, seed=1)
    truth[..., 1] = 1
    counted = torch.zeros_like(truth, dtype=torch.bool)
    counted[..., 0] = True
    assert list(coverage(draws, truth, counted, 0).values())[-1] == pytest.approx(0.8, abs=0.06)
    assert list(coverage(draws, truth, ~counted, 0).values())[-1] == 0


def test_the_order_of_energies_is_compared_with_that_of_errors():
    truth = torch.zeros(4, 1, 2, 2)
    sizes = torch.tensor([[0.1, 0.4], [0.2, 0.3], [0.3, 0.2], [0.4, 0.1]])
    draws = sizes[:, :, None, None, None].expand(4, 2, 1, 2, 2)
    everywhere = torch.ones_like(truth, dtype=torch.bool)
    assert agreement(draws, sizes.exp(), truth, everywhere) == pytest.approx(1)
    assert agreement(draws, -sizes, truth, everywhere) == pytest.approx(-1)
    # ranks 1 2 3 4 against 2 1 4 3
    swapped = torch.tensor([2.0, 1.0, 4.0, 3.0])[:, None]
    assert agreement(draws[:, :1], swapped, truth, everywhere) == pytest.approx(0.6)
    # what is not counted is not compared
    part = everywhere.clone()
    part[..., 0] = False
    wrong = draws.clone()
    wrong[..., 0] = 1 - wrong[..., 0]
    assert agreement(wrong, sizes, truth, part) == pytest.approx(1)


def test_intersection_over_union_is_of_what_is_counted_and_above_the_middle():
    truth, estimate = torch.full((3, 1, 2, 2, 2), -1.0), torch.full((3, 1, 2, 2, 2), -0.3)
    truth[0, 0, 0], estimate[0, 0, :, 0] = 1.0, 0.1
    estimate[1, 0, 0, 0, 0] = 0.1
    counted = torch.ones_like(truth, dtype=torch.bool)
    # 2 of 6; 0 of 1; nothing of nothing
    found = intersection_over_union(estimate, truth, counted)
    assert found.tolist() == pytest.approx([1 / 3, 0, 1])
    assert judge(estimate, truth, counted)["iou"] == pytest.approx(4 / 9)
    counted[:, :, :, 1] = False
    assert intersection_over_union(estimate, truth, counted).tolist() == pytest.approx([0.5, 0, 1])
    # grey images are neither
    assert "iou" not in judge(estimate, truth * 0.9, counted)
