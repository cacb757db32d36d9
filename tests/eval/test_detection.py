"""Detection numbers against closed forms (O1, O3) and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from genconv.errors import UserError
from genconv.eval import aupr, auroc, average, detect, fpr_at_95, roc
from genconv.eval.detection import NUMBERS

NAN = torch.tensor([float("nan"), 0.0])


def normal(n, seed=0, mean=0.0, std=1.0):
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(n, generator=generator, dtype=torch.float64)


def tied(seed, n, mean):
    return (normal(n, seed, mean) * 3).round()


def oracle(inside, outside):
    """The numbers as scikit-learn gives them, in the order of NUMBERS."""
    truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    scores = np.r_[inside.numpy(), outside.numpy()]

    def false_positives(truth, scores):
        false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
        return false[np.argmax(true >= 0.95 - 1e-12)]

    return [
        roc_auc_score(truth, scores),
        average_precision_score(truth, scores),
        average_precision_score(1 - truth, -scores),
        false_positives(truth, scores),
        false_positives(1 - truth, -scores),
    ]


@pytest.mark.parametrize(("delta", "tau"), [(1.0, 1.0), (1.0, 0.5), (0.5, 2.0)])
def test_two_normal_laws(delta, tau):
    inside, outside = normal(200_000, 1), normal(200_000, 2, delta, tau)
    assert auroc(inside, outside) == pytest.approx(norm.cdf(delta / (1 + tau**2) ** 0.5), abs=0.003)
    expected = 1 - norm.cdf(delta + tau * norm.ppf(0.05))
    assert fpr_at_95(inside, outside, "ood_positive") == pytest.approx(expected, abs=0.003)
    expected = norm.cdf((norm.ppf(0.95) - delta) / tau)
    assert fpr_at_95(inside, outside, "id_positive") == pytest.approx(expected, abs=0.003)


def test_the_two_conventions_are_as_far_apart_as_the_note_says():
    inside, outside = normal(200_000, 1), normal(200_000, 2, 1.0, 2.0)
    one = fpr_at_95(inside, outside, "ood_positive")
    other = fpr_at_95(inside, outside, "id_positive")
    assert one > other + 0.2


@pytest.mark.parametrize("sizes", [(200, 300), (1, 1), (1, 37), (20, 1), (40, 20)])
@pytest.mark.parametrize("draw", [tied, lambda seed, n, mean: normal(n, seed, mean)])
def test_equals_scikit_learn_with_and_without_ties(sizes, draw):
    inside, outside = draw(3, sizes[0], 0.0), draw(4, sizes[1], 0.7)
    found = detect(inside, outside, resamples=2)
    assert [getattr(found, name) for name in NUMBERS] == pytest.approx(oracle(inside, outside))
    assert auroc(inside, outside) == found.auroc
    assert aupr(inside, outside) == found.aupr_ood
    assert aupr(inside, outside, positive="id") == found.aupr_id
    assert fpr_at_95(inside, outside, "ood_positive") == found.fpr95_ood_positive
    assert fpr_at_95(inside, outside, "id_positive") == found.fpr95_id_positive
    assert (found.n_id, found.n_ood) == sizes
    assert found.prevalence == sizes[1] / sum(sizes)


def test_the_first_threshold_that_reaches_95_percent_counts():
    # 19 of 20 is 95 % exactly: the one positive below all negatives need not be found
    outside = torch.arange(1.0, 21)
    assert fpr_at_95(torch.full((7,), 1.5), outside, "ood_positive") == 0
    # 18 of 20 is not
    assert fpr_at_95(torch.full((7,), 2.5), outside, "ood_positive") == 1


def test_turned_scores_turn_the_auroc():
    inside, outside = tied(5, 300, 0.0), tied(6, 200, 0.5)
    assert auroc(inside, outside) + auroc(-inside, -outside) == pytest.approx(1, abs=1e-12)
    assert auroc(inside, outside) + auroc(outside, inside) == pytest.approx(1, abs=1e-12)


def test_only_the_order_counts():
    inside, outside = normal(300, 5), normal(200, 6, 0.5)
    a = detect(inside, outside, resamples=5)
    assert detect(inside.exp() * 7 - 3, outside.exp() * 7 - 3, resamples=5) == a


def test_differences_beyond_float32_count():
    inside = torch.ones(9, dtype=torch.float64)
    outside = inside + 1e-12
    assert auroc(inside, outside) == 1


def test_all_ties_and_chance():
    same = torch.ones(50)
    assert auroc(same, same[:20]) == 0.5
    assert aupr(same, same[:20]) == pytest.approx(20 / 70)
    inside, outside = normal(40_000, 7), normal(10_000, 8)
    assert aupr(inside, outside) == pytest.approx(0.2, abs=0.01)
    assert aupr(inside, outside, "id") == pytest.approx(0.8, abs=0.01)


def test_perfect_scores():
    found = detect(torch.zeros(30), torch.ones(20), resamples=20)
    assert [getattr(found, name) for name in NUMBERS] == [1, 1, 1, 0, 0]
    assert found.intervals["auroc"] == (1, 1)


def test_roc_goes_from_corner_to_corner_and_holds_the_auroc():
    inside, outside = tied(9, 100, 0.0), tied(10, 150, 1.0)
    false, true = roc(inside, outside)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert float(torch.trapezoid(true, false)) == pytest.approx(auroc(inside, outside))


def test_intervals_are_as_wide_as_theory_says():
    n = 1000
    inside, outside = normal(n, 11), normal(n, 12, 1.0)
    found = detect(inside, outside)
    # the placements' variances (DeLong 1988)
    above = (outside[:, None] > inside).double()
    error = (above.mean(0).var() / n + above.mean(1).var() / n).sqrt()
    low, high = found.intervals["auroc"]
    assert high - low == pytest.approx(2 * 1.96 * float(error), rel=0.1)
    assert low < found.auroc < high
    for name in NUMBERS:
        low, high = found.intervals[name]
        assert low <= getattr(found, name) <= high
        assert high - low > 0.01


def test_the_bootstrap_covers_the_truth():
    # binomial(150, .95): fewer than 133 or all 150 hits have a probability below 1 %
    truth = norm.cdf(1 / 2**0.5)
    hits = 0
    for seed in range(150):
        found = detect(normal(60, 2 * seed), normal(80, 2 * seed + 1, 1.0), resamples=300)
        low, high = found.intervals["auroc"]
        hits += low <= truth <= high
    assert 133 <= hits < 150


def test_one_seed_one_interval():
    inside, outside = normal(100, 13), normal(100, 14, 0.5)
    a = detect(inside, outside, resamples=50)
    assert detect(inside, outside, resamples=50) == a
    assert detect(inside, outside, resamples=50, seed=1).intervals != a.intervals


def test_an_average_counts_every_set_alike():
    small = detect(torch.zeros(10), torch.ones(5), resamples=2)
    large = detect(torch.zeros(10), torch.zeros(500), resamples=2)
    assert average([small, large])["auroc"] == 0.75
    assert average([small, large]).keys() == set(NUMBERS)


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        (torch.empty(0), torch.ones(3), "in-distribution scores must be one or more"),
        (torch.ones(3), torch.empty(0), "out-of-distribution scores must be one or more"),
        (torch.ones(3, 1), torch.ones(3), "in a row"),
        (NAN, torch.ones(3), "1 of 2 in-distribution scores are NaN"),
        (torch.ones(3), NAN, "1 of 2 out-of-distribution scores are NaN"),
    ],
)
def test_what_has_no_answer_is_refused(inside, outside, message):
    for function in (auroc, aupr, roc, detect):
        with pytest.raises(UserError, match=message):
            function(inside, outside)
    with pytest.raises(UserError, match=message):
        fpr_at_95(inside, outside, "id_positive")
    with pytest.raises(UserError, match="one set"):
        average([])
