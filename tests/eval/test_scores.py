"""Scores are larger out of distribution, read only what they say, and mend what they should."""

import inspect

import pytest
import torch
from scipy.stats import chi2, f
from sklearn.covariance import LedoitWolf

from genconv.checkpoint import Trained, read
from genconv.energy import Energy
from genconv.errors import UserError
from genconv.eval import (
    SCORES,
    STATISTICS,
    Score,
    applicable,
    auroc,
    measure,
    needed,
    score_all,
)
from genconv.images import to_uint8
from genconv.sampling import Chain

WIDE = {"layers": (5,), "spectrum": (3,)}


def statistics(n=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(n, *WIDE.get(name, ()), generator=generator, dtype=torch.float64)
        for name in STATISTICS
    }


def score(name, s, validation=None):
    return score_all([name], s, validation or s)[name]


def of(**values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


@pytest.mark.parametrize("name", SCORES)
def test_a_score_reads_only_what_it_needs_and_gives_a_number_for_each_image(name):
    only = {key: value for key, value in statistics().items() if key in SCORES[name].needs}
    part = {key: value[:7] for key, value in only.items()}
    found = score(name, part, only)
    assert found.shape == (7,)
    assert found.dtype == torch.float64
    assert found.isfinite().all()
    # no image's score depends on those beside it
    alone = score(name, {key: value[3:4] for key, value in only.items()}, only)
    torch.testing.assert_close(alone, found[3:4])
    for key in only:
        with pytest.raises(UserError, match=f"'{key}' was not measured"):
            score(name, {k: v for k, v in only.items() if k != key}, only)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_names_what_it_is(name):
    assert inspect.getdoc(SCORES[name].function)
    assert isinstance(SCORES[name], Score)


@pytest.mark.parametrize(
    ("name", "statistic"),
    [
        ("energy", "energy"),
        ("gradient", "gradient"),
        ("complexity", "energy"),
        ("ratio", "energy"),
        ("refine_drop", "drop"),
        ("refine_distance", "distance"),
        ("ensemble", "gradient"),
        ("ensemble", "drop"),
    ],
)
def test_more_of_it_is_more_out_of_distribution(name, statistic):
    s = statistics()
    more = {**s, statistic: s[statistic] + 1}
    assert (score(name, more, s) > score(name, s)).all()


def test_values():
    s = of(energy=[3.0, 9.0], background=[1.0, 10.0], max_probability=[0.9, 0.4], max_logit=[5, 2])
    validation = of(energy=[2.0, 6.0], background=[0, 0], max_probability=[1, 1], max_logit=[1, 1])
    names = ("energy", "typicality", "ratio", "max_probability", "max_logit")
    found = score_all(names, s, validation)
    assert {name: values.tolist() for name, values in found.items()} == {
        "energy": [3.0, 9.0],
        "typicality": [1.0, 5.0],
        "ratio": [2.0, -1.0],
        "max_probability": [-0.9, -0.4],
        "max_logit": [-5.0, -2.0],
    }
    assert tuple(found) == names


def test_what_complexity_explains_is_taken_away():
    v = statistics()
    validation = {**v, "energy": 3 * v["complexity"] + 100 + 0.1 * v["drop"]}
    other = {"complexity": v["gradient"] * 5, "energy": 3 * v["gradient"] * 5 + 100}
    left = score("complexity", other, validation)
    assert left.std() < 0.1
    # a constant complexity explains nothing
    flat = {**v, "complexity": torch.ones(50, dtype=torch.float64)}
    assert score("complexity", v, flat).equal(v["energy"])


def test_complexity_slope_is_that_of_least_squares():
    v = statistics()
    line = torch.stack([v["complexity"], torch.ones(50)], 1)
    slope = torch.linalg.lstsq(line, v["energy"][:, None]).solution[0, 0]
    torch.testing.assert_close(score("complexity", v), v["energy"] - slope * v["complexity"])


def test_an_ensemble_does_not_ask_for_units():
    s, validation = statistics(seed=1), statistics()
    found = score("ensemble", s, validation)
    for name, factor, shift in [("gradient", 7.0, 3.0), ("drop", 0.01, -5.0)]:
        scaled, fitted = ({**part, name: part[name] * factor + shift} for part in (s, validation))
        torch.testing.assert_close(score("ensemble", scaled, fitted), found)
    torch.testing.assert_close(score("ensemble", validation).mean(), torch.tensor(0.0).double())


def test_mahalanobis_is_that_of_scikit_learn_in_any_units():
    s, validation = statistics(seed=1), statistics()
    rows, fitted = (torch.cat([part["layers"], part["spectrum"]], 1) for part in (s, validation))
    centre, spread = fitted.mean(0), fitted.std(0)
    rows, fitted = ((part - centre) / spread for part in (rows, fitted))
    oracle = LedoitWolf().fit(fitted.numpy())
    expected = torch.from_numpy(oracle.mahalanobis(rows.numpy())).sqrt()
    found = score("mahalanobis", s, validation)
    torch.testing.assert_close(found, expected)
    scaled = [{**part, "layers": part["layers"] * 1e3 - 1e4} for part in (s, validation)]
    torch.testing.assert_close(score("mahalanobis", *scaled), found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "statistic"), [("fisher", "layers"), ("spectrum", "spectrum")])
def test_a_distance_is_of_its_own_statistic_and_goes_up_either_way(name, statistic):
    s, validation = statistics(20_000, seed=1), statistics(20_000)
    # shrinkage vanishes, and squared distances of standard normal rows follow a chi²
    k = WIDE[statistic][0]
    assert score(name, s, validation).square().mean() == pytest.approx(k, rel=0.02)
    centre = {statistic: validation[statistic].mean(0, keepdim=True)}
    for step in (3.0, -3.0):
        away = {statistic: centre[statistic] + step}
        assert score(name, away, validation) > score(name, centre, validation) + 1


@pytest.mark.parametrize("name", ["fisher", "spectrum", "mahalanobis"])
def test_distances_pass_over_what_does_not_vary_and_need_few_images(name):
    s, validation = statistics(seed=1), statistics(4)
    for part in (s, validation):
        for statistic in WIDE:
            part[statistic][:, 0] = 1.0
            part[statistic][:, 1] = part[statistic][:, 2]
    found = score(name, s, validation)
    assert found.isfinite().all()
    assert (found < 1e3).all()


class Normal(Energy):
    """The energy of N(0, spread² I)."""

    def __init__(self, spread: float):
        super().__init__()
        self.spread = spread

    def forward(self, x, y=None):
        return x.square().flatten(1).sum(1) / (2 * self.spread**2)


def test_the_likelihood_paradox_and_what_mends_it():
    d, tau2, spread = 64, 0.8, 0.2
    trained = Trained(Normal(spread), Chain(), (1, 8, 8), 0)
    generator = torch.Generator().manual_seed(0)
    inside, validation, outside = (
        measure(
            trained,
            to_uint8(s * torch.randn(20_000, 1, 8, 8, generator=generator)),
            ["energy"],
            batch_size=5000,
        )
        for s in (spread, spread, spread * tau2**0.5)
    )
    names = ("energy", "typicality")
    a, b = (score_all(names, part, validation) for part in (inside, outside))
    # outside lies in the middle, and is likelier than what the energy was made for
    expected = f.cdf(tau2, d, d)
    assert expected == pytest.approx(0.187, abs=5e-4)
    assert auroc(a["energy"], b["energy"]) == pytest.approx(expected, abs=0.006)
    # E = chi²/2 around d/2; integrate P(|inside - d/2| < |outside - d/2|)
    quantile = torch.arange(0.5, 20_000) / 20_000
    apart = abs(tau2 * chi2.ppf(quantile, d) - d)
    expected = (chi2.cdf(d + apart, d) - chi2.cdf(d - apart, d)).mean()
    assert expected == pytest.approx(0.68, abs=0.005)
    assert auroc(a["typicality"], b["typicality"]) == pytest.approx(expected, abs=0.012)


def test_applicable_scores(trained, conditional):
    plain = applicable(trained)
    assert not {"ratio", "max_logit", "max_probability"} & set(plain)
    assert {"energy", "typicality", "ensemble"} <= set(plain)
    assert set(applicable(trained, trained)) == {*plain, "ratio"}
    assert set(applicable(read(conditional, "cpu"))) == {*plain, "max_logit", "max_probability"}
    images = torch.zeros(3, *trained.shape, dtype=torch.uint8)
    found = score_all(plain, *[measure(trained, images, needed(plain))] * 2)
    assert found.keys() == set(plain)


def test_needs_add_up():
    assert needed(["energy", "ratio", "refine_drop"]) == {"energy", "background", "drop"}
    assert needed([]) == set()
    with pytest.raises(UserError, match="no score 'beauty'; choose from energy, "):
        needed(["energy", "beauty"])


@pytest.mark.parametrize("values", [[1.0], [1.0, float("nan")], [1.0, float("inf")], []])
def test_a_broken_validation_is_refused(values):
    with pytest.raises(UserError, match="energy of validation images must be two finite"):
        score("typicality", of(energy=[1.0, 2.0]), of(energy=values))


def test_one_broken_image_stays_alone():
    found = score("typicality", of(energy=[1.0, float("nan")]), of(energy=[1.0, 2.0]))
    assert found.isnan().tolist() == [False, True]
