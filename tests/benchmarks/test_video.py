"""The statistics of motion, on motions that are known."""

import json
import math

import pytest
import torch

from tests.benchmarks.video import (
    change_difference,
    motion,
    recovered,
    spectral_difference,
    spectrum,
)


def swing(frequency, t=16, n=3, seed=0):
    """Pixels that swing at one temporal frequency, each with a phase of its own."""
    generator = torch.Generator().manual_seed(seed)
    phase = 2 * math.pi * torch.rand(n, 1, 1, 6, 6, generator=generator)
    time = torch.arange(t).view(1, 1, -1, 1, 1)
    wave = torch.sin(2 * math.pi * frequency * time / t + phase)
    return (128 + 100 * wave).round().to(torch.uint8)


def test_power_lies_at_the_frequency_of_the_motion():
    for frequency in (2, 5):
        assert int(spectrum(swing(frequency)).argmax()) + 1 == frequency


def test_the_same_motion_at_other_places_has_no_difference():
    assert spectral_difference(swing(3), swing(3, seed=1)) < 0.2
    assert change_difference(swing(3), swing(3, seed=1)) < 4
    assert spectral_difference(swing(6), swing(3)) > 1
    assert change_difference(swing(6), swing(3)) > 15
    still = torch.zeros(2, 1, 16, 6, 6, dtype=torch.uint8)
    assert spectral_difference(still, swing(3)) == pytest.approx(1.0)


def test_the_baselines_move_otherwise_than_the_source():
    source = swing(4, t=48, n=1)[0]
    rows = motion(torch.stack([source[:, :16], source[:, 16:32]]), source)
    ours, still, shuffled, halves = rows.values()
    for measure in (0, 1):
        assert ours[measure] < 0.2 * min(still[measure], shuffled[measure])
        assert halves[measure] < 0.2 * min(still[measure], shuffled[measure])


def test_recovered_clips_stand_beside_every_method(tmp_path):
    lines = "straight lines along the first axis"
    for rows in (
        {"mean of 2 draws": 3.0, "one draw": 2.0, lines: 1.0},
        {"one draw": 3.0, lines: 1.0},
    ):
        table = {name: {"psnr": value, "ssim": 0.5} for name, value in rows.items()}
        (tmp_path / "report.json").write_text(json.dumps({"table": table}))
        assert recovered([tmp_path]) == {str(tmp_path): {"energy": 3.0, lines: 1.0}}
