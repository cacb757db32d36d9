"""Quality against steps."""

import json

import pytest
import torch
from torch.nn import functional as F

import genconv.sample
from genconv.data import load_images
from genconv.errors import UserError
from genconv.eval.__main__ import main
from genconv.eval.steps_command import Point, between_halves, pick, pixels

POINTS = [
    Point(5, 9.0, 0.5, 1),
    Point(20, 2.1, 0.1, 4),
    Point(40, 2.0, 0.1, 8),
    Point(80, 2.2, 0.1, 16),
]


def test_the_cheapest_that_will_do_is_picked():
    assert pick(POINTS).steps == 20
    assert pick(POINTS[::-1], 10).steps == 5
    assert pick(POINTS, 2.05).steps == 40
    assert pick(POINTS, 1.0) is None


def test_pixels_are_means_of_blocks():
    images = torch.randint(256, (3, 2, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    expected = F.avg_pool2d(images.double(), 2).flatten(1)
    torch.testing.assert_close(pixels(images), expected, rtol=0, atol=1e-3)
    assert torch.equal(pixels(images[..., :8, :8]), images[..., :8, :8].flatten(1).double())
    assert pixels(images[:, :, None]).shape == (3, 2 * 64)


def test_halves_of_one_law_are_near():
    one = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)).double()
    # D/N of either half for the means and half as much for the covariance, about
    assert 0 < between_halves(one) < 0.02


@pytest.fixture
def steps(run, tmp_path, capsys):
    def steps(*options):
        fixed = ["--data", "digits", "--device", "cpu", "-n", "60", "--folder", tmp_path / "out"]
        main(["steps", *map(str, [run, *fixed, *options])])
        report = json.loads((tmp_path / "out" / "steps.json").read_text())
        return report, capsys.readouterr().out

    return steps


def test_measures_stretched_chains_from_the_same_noise(steps, trained, tmp_path, monkeypatch):
    seen, whole = [], genconv.sample.sample

    def spy(trained, rows, **how):
        seen.append((trained.chain, rows, how["seed"]))
        return whole(trained, rows, **how)

    monkeypatch.setattr(genconv.sample, "sample", spy)
    report, printed = steps("--steps", 10, 2, "--batch-size", 40, "--seed", 3)
    assert [p["steps"] for p in report["points"]] == [2, 10]
    rows = [range(0, 40), range(40, 60)]
    chains = [trained.chain.stretched(n) for n in (2, 2, 10, 10)]
    assert seen == list(zip(chains, rows * 2, [3] * 4, strict=True))
    assert all(p["distance"] > 0 and p["error"] > 0 for p in report["points"])
    assert f"--stretch {report['picked']}" in printed
    assert (tmp_path / "out" / "steps.png").stat().st_size > 1000


def test_perfect_samples_are_as_near_as_halves(steps, monkeypatch):
    images = load_images("digits", "train").images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(
        genconv.sample, "sample", lambda trained, rows, **how: images[order[rows.start : rows.stop]]
    )
    report, _ = steps("--steps", 1, "-n", 748, "--batch-size", 1000)
    assert report["points"][0]["distance"] < 1
    (own,) = {p["steps"] for p in report["points"]}
    assert own == 1


def test_a_target_out_of_reach_is_said_and_all_is_written(steps, tmp_path):
    with pytest.raises(UserError, match=r"no number of steps reaches --target 0.001; the nearest"):
        steps("--steps", 2, "--target", 0.001)
    report = json.loads((tmp_path / "out" / "steps.json").read_text())
    assert report["picked"] is None
    assert len(report["points"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", 1], "-n must be at least 2"),
        (["--steps", 5, 0], "--steps must be at least 1"),
        (["--features", "nowhere.pt"], "no such file: nowhere.pt"),
        (["--data", "./nowhere"], "no such folder"),
    ],
)
def test_what_cannot_be_is_said_first(steps, monkeypatch, options, message):
    monkeypatch.setattr(genconv.sample, "sample", lambda *args, **how: pytest.fail("sampled first"))
    with pytest.raises(UserError, match=message):
        steps(*options)
