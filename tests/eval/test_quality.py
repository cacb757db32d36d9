"""Inception score, kernel distance and overlap against known answers (F8 to F10)."""

import math

import numpy as np
import pytest
import torch

from genconv.errors import UserError
from genconv.eval import inception_score, kernel_distance, precision_recall_density_coverage


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def balanced(n, classes):
    return torch.eye(classes, dtype=torch.float64).repeat(n // classes, 1)


def test_clear_balanced_classes_score_their_number():
    assert inception_score(balanced(1000, 10) * 1e3, splits=1).mean == pytest.approx(10, rel=1e-8)


def test_one_look_scores_one():
    mean, std = inception_score(normal(1, 10).repeat(1000, 1))
    assert mean == pytest.approx(1, rel=1e-8)
    assert std == pytest.approx(0, abs=1e-8)


def test_smoothed_labels():
    c, eps = 10, 0.1
    p = balanced(1000, c) * (1 - eps - eps / (c - 1)) + eps / (c - 1)
    expected = c * math.exp((1 - eps) * math.log(1 - eps) + eps * math.log(eps / (c - 1)))
    assert expected == pytest.approx(5.79955, abs=1e-5)
    assert inception_score(p.log(), splits=1).mean == pytest.approx(expected, rel=1e-8)


def test_score_is_that_of_shuffled_splits_with_either_divisor():
    logits = normal(103, 7) * 2
    p = np.exp(logits.numpy())
    p = (p / p.sum(1, keepdims=True))[np.random.RandomState(2020).permutation(103)]
    scores = []
    for i in range(5):
        part = p[i * 103 // 5 : (i + 1) * 103 // 5]
        scores.append(np.exp((part * np.log(part / part.mean(0))).sum(1).mean()))
    assert inception_score(logits, 5) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-10)
    assert inception_score(logits, 5, ddof=1).std == pytest.approx(np.std(scores, ddof=1))
    assert np.std(scores, ddof=1) > 1.1 * np.std(scores)


def test_samples_sorted_by_class_are_shuffled_before_they_are_split():
    logits = balanced(1000, 10) * 1e3
    by_class = logits[logits.argmax(1).argsort(stable=True)]
    assert inception_score(by_class).mean > 9


def test_float32_logits_are_scored_in_float64():
    logits = (normal(500, 10) * 5).float()
    assert inception_score(logits) == inception_score(logits.double())


def test_kernel_distance_of_opposite_points():
    ones = torch.ones(50, 16)
    mean, std = kernel_distance(ones, -ones, subsets=3, size=20)
    # k = (1 + 1)³ within, (-1 + 1)³ between: 8 + 8 - 0
    assert mean == 16
    assert std == 0


def test_kernel_distance_is_unbiased():
    values = [
        kernel_distance(normal(100, 8, seed=s), normal(100, 8, seed=1000 + s), subsets=1).mean
        for s in range(300)
    ]
    error = np.std(values, ddof=1) / len(values) ** 0.5
    assert abs(np.mean(values)) < 3 * error
    # with the diagonals left in, the mean would be near this
    assert 30 * error < 2 / 100 * ((1 + 1) ** 3 - 1)


def test_kernel_distance_by_its_definition_and_seed():
    x, y = normal(40, 5), normal(30, 5, seed=1) + 0.5
    kernel = lambda u, v: float((u @ v / 5 + 1) ** 3)  # noqa: E731
    xx = np.mean([kernel(u, v) for i, u in enumerate(x[:30]) for v in x[:30][i + 1 :]])
    yy = np.mean([kernel(u, v) for i, u in enumerate(y) for v in y[i + 1 :]])
    xy = np.mean([kernel(u, v) for u in x[:30] for v in y])
    mean, std = kernel_distance(x[:30], y, subsets=2)
    assert mean == pytest.approx(xx + yy - 2 * xy, rel=1e-10)
    assert std == pytest.approx(0, abs=1e-12)
    assert np.isfinite(kernel_distance(x, y)).all()
    assert kernel_distance(x, y, size=10) == kernel_distance(x, y, size=10)
    assert kernel_distance(x, y, size=10) != kernel_distance(x, y, size=10, seed=1)


def test_identical_sets_overlap_wholly_and_far_ones_not_at_all():
    x = normal(300, 16)
    assert precision_recall_density_coverage(x, x.clone()) == pytest.approx((1, 1, 1, 1))
    assert precision_recall_density_coverage(x, x + 100) == (0, 0, 0, 0)


def test_rounding_does_not_decide_ties():
    for seed in range(20):
        x = normal(101, 777, seed=seed)
        shuffled = x[torch.randperm(101, generator=torch.Generator().manual_seed(seed))]
        for chunk in (1, 7, 1000):
            overlap = precision_recall_density_coverage(x, shuffled, chunk=chunk)
            assert overlap == (1, 1, 1, 1)


def test_overlap_by_its_definition_in_chunks_of_any_size():
    real, fake = normal(130, 6), normal(170, 6, seed=1) * 1.3 + 0.3
    k = 4

    def radii(x):
        return np.sort(np.linalg.norm(x[:, None] - x, axis=-1), axis=1)[:, k]

    r, f = real.numpy(), fake.numpy()
    distance = np.linalg.norm(r[:, None] - f, axis=-1)
    inside = distance < radii(r)[:, None]
    expected = (
        inside.any(0).mean(),
        (distance < radii(f)).any(1).mean(),
        inside.sum() / (k * len(f)),
        inside.any(1).mean(),
    )
    assert min(expected) > 0
    assert len(set(expected)) == 4
    for chunk in (1, 7, 64, 1000):
        assert precision_recall_density_coverage(real, fake, k, chunk=chunk) == pytest.approx(
            expected, rel=1e-12
        )


def test_overlap_of_features_far_from_the_origin():
    real, fake = normal(200, 8), normal(200, 8, seed=1)
    near = precision_recall_density_coverage(real, fake)
    assert precision_recall_density_coverage(real + 1e6, fake + 1e6) == near


def test_the_rim_belongs_to_precision_and_not_to_density():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    fake = torch.tensor([[4.0], [5.0], [6.0], [7.0]])
    precision, recall, density, coverage = precision_recall_density_coverage(real, fake, k=1)
    assert (precision, recall) == (0.25, 0.25)
    assert (density, coverage) == (0, 0)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(UserError, match="splits"):
        inception_score(normal(5, 10))
    with pytest.raises(UserError, match="ddof"):
        inception_score(normal(50, 10), splits=1, ddof=1)
    with pytest.raises(UserError, match="too few"):
        kernel_distance(normal(1, 4), normal(5, 4))
    with pytest.raises(UserError, match="same network"):
        kernel_distance(normal(5, 3), normal(5, 4))
    with pytest.raises(UserError, match="4 are needed"):
        precision_recall_density_coverage(normal(3, 4), normal(5, 4))
