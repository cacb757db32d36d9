"""The traps in which published numbers have been caught, each closed by a test of its name.

That of the resize is in test_inception.py.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from genconv.checkpoint import Trained
from genconv.errors import UserError
from genconv.eval import (
    Features,
    Moments,
    extract,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall_density_coverage,
)
from genconv.eval.quality_features import Seen
from genconv.eval.quality_numbers import SPLITS, compare, warnings_of
from genconv.sample import sample


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(features, logits=None):
    rows = torch.arange(len(features))
    return Seen(len(features), Moments.of(features), features, rows, logits)


@pytest.mark.parametrize(
    ("share", "level"), [(0.999, 255), (0.5, 128), (-0.01, 0), (1.01, 255), (0.0, 0), (1.0, 255)]
)
def test_trap_levels_are_clamped_and_rounded(trained, monkeypatch, share, level):
    # torchmetrics' (share * 255).byte() makes 254, 127, 254 (around the corner) and 1 of the first
    monkeypatch.setattr(Trained, "sample", lambda *args, **how: torch.full((1, 1), share * 2 - 1))
    assert sample(trained, range(1)).item() == level


def test_trap_float32_is_not_what_distances_are_computed_in():
    x = (normal(100, 512) * 10).float()
    trace = float(Moments.of(x).covariance.trace())
    same = compare(seen(x), seen(x), published=True)["fid"].value
    assert abs(same) < 1e-6 * trace
    # what the same features would give in their own precision
    single = torch.cov(x.T)
    cross = torch.linalg.eigvals(single @ single).sqrt().real.sum()
    assert abs(float(2 * single.trace() - 2 * cross)) > 1e-4 * trace


@pytest.mark.parametrize(("n", "reference"), [(2047, 3000), (3000, 2047)])
def test_trap_fewer_images_than_2048_features_are_labelled(monkeypatch, n, reference):
    monkeypatch.setattr("genconv.eval.quality_numbers.frechet_distance", lambda a, b: 1.0)
    wide = [Moments(k, torch.zeros(2048), torch.zeros(2048, 2048)) for k in (n, reference)]
    sets = [Seen(m.n, m, torch.zeros(2, 2048), torch.arange(2), None) for m in wide]
    label = compare(*sets, published=True)["fid"].label
    assert label.startswith("FID-")
    assert label.endswith("(n = 2047 < 2048)")
    assert len(warnings_of(*sets)) == 1
    enough = [Seen(2048, m, torch.zeros(2, 2048), torch.arange(2), None) for m in wide]
    assert compare(*enough, published=True)["fid"].label == "FID-2048"
    assert warnings_of(*enough) == []


def test_trap_one_image_has_no_distance():
    with pytest.raises(UserError, match="two images"):
        frechet_distance(Moments.of(normal(1, 4)), Moments.of(normal(9, 4)))
    assert (
        "two images" in compare(seen(normal(1, 4)), seen(normal(9, 4)), published=True)["fid"].error
    )


def test_trap_covariances_have_the_divisor_n_minus_1():
    x = normal(10, 3)
    expected = np.cov(x.numpy(), rowvar=False, ddof=1)
    assert np.allclose(Moments.of(x).covariance.numpy(), expected, rtol=1e-12)


def test_trap_the_score_is_of_ten_shuffled_splits_and_its_std_has_their_number_as_divisor():
    logits = normal(1000, 10) * 3
    found = compare(seen(normal(1000, 4), logits), seen(normal(20, 4)), published=True)["is"]
    order = np.random.RandomState(2020).permutation(1000)
    p = logits.softmax(1).numpy()[order].reshape(10, 100, 10)
    scores = np.exp((p * np.log(p / p.mean(1, keepdims=True))).sum(2).mean(1))
    assert SPLITS == 10
    assert (found.value, found.std) == pytest.approx((scores.mean(), scores.std(ddof=0)), rel=1e-10)


def test_trap_precision_and_recall_are_not_swapped():
    real, fake = normal(300, 2), normal(300, 2) * 0.1
    numbers = compare(seen(fake), seen(real), published=True)
    # samples of one mode look right and cover little
    assert numbers["precision"].value > 0.9
    assert numbers["recall"].value < 0.3
    assert numbers["coverage"].value < 0.3


class Net(nn.Module):
    """A network for us and for the others: features, and logits that tell images apart."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 16, 3, 2), nn.Linear(16, 7)

    def forward(self, images):
        x = self.conv(images.float() / 127.5 - 1).relu().amax((2, 3)) * 3
        return x, self.head(x) * 5


class Pictures(Dataset):
    """A tensor as torch-fidelity takes it."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def pictures(n, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(256, (n, 3, 3, 3), generator=generator).byte()
    darker = (coarse * (1 - 0.2 * seed)).byte()
    return darker.repeat_interleave(4, -1).repeat_interleave(4, -2)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_numbers_equal_those_of_torch_fidelity():
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    net = Net().eval().requires_grad_(False)

    class Theirs(FeatureExtractorBase):
        def __init__(self, name, features_list, **how):
            super().__init__(name, features_list)

        def forward(self, images):
            found = dict(zip(("pool", "logits"), net(images), strict=True))
            return tuple(found[name] for name in self.features_list)

        @staticmethod
        def get_provided_features_list():
            return "pool", "logits"

        @staticmethod
        def can_be_compiled():
            return False

    torch_fidelity.register_feature_extractor("shared", Theirs)
    fake, real = pictures(150, 0), pictures(250, 1)
    expected = torch_fidelity.calculate_metrics(
        input1=Pictures(fake),
        input2=Pictures(real),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=5,
        kid_subset_size=100,
        feature_extractor="shared",
        feature_layer_isc="logits",
        feature_layer_fid="pool",
        feature_layer_kid="pool",
        feature_layer_prc="pool",
        cache=False,
        verbose=False,
    )
    a, b = (extract(net, images) for images in (fake, real))
    assert isinstance(a, Features)
    close = dict(rel=1e-4)
    distance = frechet_distance(Moments.of(a.features), Moments.of(b.features))
    assert distance == pytest.approx(expected["frechet_inception_distance"], **close)
    score = inception_score(a.logits)
    assert score.mean > 1.01
    assert score == pytest.approx(
        (expected["inception_score_mean"], expected["inception_score_std"]), **close
    )
    kernel = kernel_distance(a.features, b.features, subsets=5, size=100)
    assert kernel == pytest.approx(
        (
            expected["kernel_inception_distance_mean"],
            expected["kernel_inception_distance_std"],
        ),
        **close,
    )
    overlap = precision_recall_density_coverage(b.features, a.features)
    assert overlap[:2] == pytest.approx((expected["precision"], expected["recall"]), **close)
    assert 0 < overlap.precision < overlap.recall < 1
