"""Conformal p-values: the definition, the promise, and what breaks it."""

import numpy as np
import pytest
import torch
from scipy import stats

from genconv.errors import UserError
from genconv.eval.calibration import Calibration, calibrate, check_rate, p_values, rounded


def normal(n, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return {"energy": torch.randn(n, generator=generator, dtype=torch.float64) + shift}


def test_p_is_the_share_that_scores_at_least_as_high():
    calibration = torch.tensor([1.0, 2.0, 2.0, 5.0], dtype=torch.float64)
    scores = torch.tensor([0.0, 1.0, 1.5, 2.0, 2.1, 5.0, 6.0], dtype=torch.float64)
    expected = [sum(c >= s for c in calibration.tolist()) + 1 for s in scores.tolist()]
    assert (p_values(calibration, scores) * 5).tolist() == expected == [5, 5, 4, 4, 2, 2, 1]


@pytest.mark.parametrize("name", ["energy", "typicality"])
def test_p_is_uniform_where_images_belong(name):
    # one draw from each of many calibrations: p-values that share one are not independent
    p = torch.cat([calibrate([name], normal(99, i))(normal(1, 10**6 + i))[1] for i in range(2000)])
    n = 99 if name == "energy" else 49
    k = np.rint(p.numpy() * (n + 1)).astype(int)
    assert p.numpy() == pytest.approx(k / (n + 1))
    assert 1 <= k.min() <= k.max() <= n + 1
    # the steps of p made continuous by chance
    u = (k - np.random.default_rng(0).random(len(k))) / (n + 1)
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    flagged = int((p <= 0.1).sum())
    assert stats.binomtest(flagged, len(p), 0.1).pvalue > 1e-3


def test_a_score_fitted_on_what_it_is_compared_with_would_break_the_promise():
    # two thirds of the p-values of five images are at stake, and the halves keep them honest
    def share(calibrated):
        draws = 4000
        p = [calibrated(normal(10, i))(normal(1, 10**6 + i))[1] for i in range(draws)]
        return float((torch.cat(p) <= 1 / 6).double().mean())

    def naive(statistics):
        own = calibrate(["typicality"], statistics)
        half = {"energy": statistics["energy"][::2]}
        scores = (half["energy"] - half["energy"].mean()).abs().sort().values
        return Calibration(own.names, half, scores)

    assert share(lambda s: calibrate(["typicality"], s)) == pytest.approx(1 / 6, abs=0.025)
    assert share(naive) > 1 / 6 + 0.05


def test_what_is_fitted_is_compared_with_the_other_half_and_the_rest_with_all():
    statistics = normal(20, 0)
    values = statistics["energy"]
    plain, fitted = (calibrate([name, "energy"], statistics) for name in ("energy", "typicality"))
    assert torch.equal(plain.scores, rounded(values).sort().values)
    expected = (values[1::2] - values[::2].mean()).abs()
    assert torch.equal(fitted.scores, rounded(expected).sort().values)
    scores, p = fitted(normal(3, 1))
    assert list(scores) == ["typicality", "energy"]
    assert torch.equal(p, p_values(fitted.scores, scores["typicality"]))


def test_strangers_are_found():
    calibration = calibrate(["energy"], normal(999, 0))
    assert float((calibration(normal(1000, 1, shift=6.0))[1] <= 0.01).double().mean()) > 0.99


def test_plain_values_bring_the_calibration_back():
    calibration = calibrate(["typicality"], normal(11, 0))
    again = Calibration.from_dict(calibration.to_dict())
    assert again.names == calibration.names
    assert torch.equal(again.scores, calibration.scores)
    assert torch.equal(again.validation["energy"], calibration.validation["energy"])


def test_rounding_keeps_seven_digits():
    values = torch.tensor([123456789.0, -0.00012345678, 0.0, torch.inf], dtype=torch.float64)
    assert rounded(values).tolist() == [123456800.0, -0.0001234568, 0.0, float("inf")]
    assert rounded(torch.tensor([torch.nan])).isnan().all()


def test_a_calibration_that_shows_nothing_is_refused():
    check_rate(0.05, 19)
    with pytest.raises(UserError, match=r"18 calibration images .* take 19 or more"):
        check_rate(0.05, 18)
    with pytest.raises(UserError, match="two finite numbers"):
        calibrate(["energy"], normal(3, 0))
    with pytest.raises(UserError, match="look for a diverged energy"):
        calibrate(["energy"], {"energy": torch.tensor([0.0, 1.0, torch.nan, 2.0])})
