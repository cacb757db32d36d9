"""Extraction: batches, modes, dtypes, files, and agreement with torchmetrics on one network."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from genconv.errors import UserError
from genconv.eval import (
    Moments,
    SmallClassifier,
    extract,
    frechet_distance,
    inception_score,
    kernel_distance,
    load_extractor,
)
from genconv.images import from_uint8, to_uint8


class Net(nn.Module):
    """A random network with what goes wrong in train mode."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, 2)
        self.norm = nn.BatchNorm2d(12)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.drop(self.norm(self.conv(images.float() / 127.5 - 1)).relu())
        features = x.mean((2, 3))
        return features, self.head(features) * 10


class Part(nn.Module):
    """One of the two outputs, as metrics of torchmetrics want it."""

    num_features = 12

    def __init__(self, net, which):
        super().__init__()
        self.net, self.which = net, which

    def forward(self, images):
        return self.net(images)[self.which]


def pictures(n, seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=generator)
    return (noise // (1 + seed)) + 20 * seed


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def test_batch_size_does_not_matter(net):
    net.train()
    whole = extract(net, pictures(50), batch_size=50)
    assert whole.features.shape == (50, 12)
    assert whole.logits.shape == (50, 5)
    for size in (1, 7, 49, 1000):
        seen = extract(net, pictures(50), batch_size=size)
        torch.testing.assert_close(seen.features, whole.features, rtol=0, atol=1e-6)
        torch.testing.assert_close(seen.logits, whole.logits, rtol=0, atol=1e-5)


def test_output_is_float64_without_graph_and_the_network_is_left_as_it_was(net):
    net.train()
    net.head.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seen = extract(net, pictures(5))
    assert seen.features.dtype == seen.logits.dtype == torch.float64
    assert not seen.features.requires_grad
    assert net.training
    assert not net.head.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_tf32_is_off_while_a_network_looks(net):
    def spy(images):
        cudnn = torch.backends.cudnn
        flags.append((cudnn.enabled, cudnn.allow_tf32, cudnn.deterministic))
        return images.float()

    flags, before = [], (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32)
    extract(spy, pictures(1))
    assert flags == [(True, False, True)]
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32) == before


def test_a_network_of_features_alone(net):
    seen = extract(Part(net, 0), pictures(5))
    assert seen.logits is None
    assert torch.equal(seen.features, extract(net, pictures(5)).features)
    maps = extract(lambda images: images.float(), pictures(5))
    assert maps.features.shape == (5, 3 * 8 * 8)


def test_floats_are_refused_because_truncation_shifts_grey_levels(net):
    levels = torch.arange(256, dtype=torch.uint8)
    floats = from_uint8(levels)
    truncated = ((floats + 1) / 2 * 255).byte()
    assert (truncated != levels).sum() > 0
    assert torch.equal(to_uint8(floats), levels)
    with pytest.raises(UserError, match="to_uint8"):
        extract(net, from_uint8(pictures(5)))


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (3, 8)])
def test_other_shapes_are_refused(net, shape):
    with pytest.raises(UserError, match=r"N, C, \*space"):
        extract(net, torch.zeros(shape, dtype=torch.uint8))


def test_an_extractor_that_loses_rows_is_refused():
    with pytest.raises(UserError, match="one row"):
        extract(lambda images: images[:1].float(), pictures(5))


def test_torchscript_files(net, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")
        torch.jit.script(net.train()).save(tmp_path / "net.pt")
    expected = extract(net, pictures(20))
    seen = extract(load_extractor(tmp_path / "net.pt"), pictures(20))
    torch.testing.assert_close(seen.features, expected.features, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(seen.logits, expected.logits, rtol=1e-6, atol=1e-5)


def test_classifier_files(tmp_path):
    model = SmallClassifier(3, 4, 8).eval()
    model.save(tmp_path / "features.safetensors")
    loaded = load_extractor(tmp_path / "features.safetensors")
    expected = extract(model, pictures(5)).features
    assert torch.equal(extract(loaded, pictures(5)).features, expected)


def test_files_that_hold_no_network(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_extractor(tmp_path / "none.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    (tmp_path / "torn.pt").write_bytes(b"torn")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"weights\.pt holds no TorchScript"):
        load_extractor(tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"torn\.pt holds no TorchScript"):
        load_extractor(tmp_path / "torn.pt")
    with pytest.raises(UserError, match=r"torn\.safetensors"):
        load_extractor(tmp_path / "torn.safetensors")
    with pytest.raises(UserError, match="neither"):
        load_extractor(tmp_path / "net.onnx")


@pytest.mark.filterwarnings("ignore:.*will save all extracted features:UserWarning")
def test_frechet_and_kernel_distance_equal_torchmetrics(net):
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    real, fake = pictures(300), pictures(200, seed=1)
    net.eval()
    a, b = extract(net, fake).features, extract(net, real).features
    fid = FrechetInceptionDistance(Part(net, 0), normalize=False)
    # with subsets as large as the set, torchmetrics' shuffles cannot matter
    kid = KernelInceptionDistance(Part(net, 0), subsets=2, subset_size=200, normalize=False)
    for metric, truth in ((fid, real), (kid, real[:200])):
        with torch.no_grad():
            metric.update(truth, real=True)
            metric.update(fake, real=False)
    ours = frechet_distance(Moments.of(a), Moments.of(b))
    assert ours > 1e-3
    assert ours == pytest.approx(float(fid.compute()), rel=1e-4)
    assert kernel_distance(a, b[:200], subsets=2).mean == pytest.approx(
        float(kid.compute()[0]), rel=1e-4
    )


@pytest.mark.filterwarnings("ignore:.*will save all extracted features:UserWarning")
def test_inception_score_equals_torchmetrics_but_for_its_divisor(net, monkeypatch):
    from torchmetrics.image.inception import InceptionScore

    net.eval()
    metric = InceptionScore(Part(net, 1), splits=5, normalize=False)
    with torch.no_grad():
        metric.update(pictures(100))
    order = np.random.RandomState(2020).permutation(100)
    monkeypatch.setattr(torch, "randperm", lambda n: torch.from_numpy(order))
    mean, std = (float(value) for value in metric.compute())
    logits = extract(net, pictures(100)).logits
    assert mean > 1.001
    assert inception_score(logits, 5, ddof=1) == pytest.approx((mean, std), rel=1e-4)
    assert inception_score(logits, 5).std == pytest.approx(std * (4 / 5) ** 0.5, rel=1e-4)
