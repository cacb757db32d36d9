"""The Inception network beside torch-fidelity's, on shared weights, and where weights come from."""

import hashlib

import pytest
import torch
from torch.nn import functional as F

import genconv.eval.inception_weights as weights
from genconv.errors import UserError, command
from genconv.eval import extract, load_inception
from genconv.eval.inception import Inception, resize_tf1
from genconv.eval.inception_weights import NAMES, SHA256, find_weights


def pictures(n, channels=3, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, size, size + 3), generator=generator).byte()


@pytest.fixture(scope="module")
def network():
    """Random weights under which no branch dies and no statistic is trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Inception().eval()
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                torch.nn.init.uniform_(module.weight, 0.8, 1.2)
                torch.nn.init.normal_(module.bias, 0, 0.1)
    return network


def test_features_and_logits_are_those_of_torch_fidelity(network, monkeypatch):
    import torch_fidelity.feature_extractor_inceptionv3 as theirs

    state = network.state_dict()
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *args, **how: state)
    oracle = theirs.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"])
    images = pictures(2)
    with torch.no_grad():
        expected = oracle(images)
    seen = extract(network, images)
    assert seen.features.shape == (2, 2048)
    assert seen.logits.shape == (2, 1008)
    # what is compared is no constant
    assert float((expected[0][0] - expected[0][1]).abs().mean() / expected[0].mean()) > 1e-2
    for ours, other in zip(seen, expected, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(ours, other.double(), rtol=1e-4, atol=1e-4 * scale)


def test_grey_images_are_seen_as_rgb(network):
    grey = pictures(1, channels=1, size=8)
    with torch.no_grad():
        assert torch.equal(network(grey)[0], network(grey.repeat(1, 3, 1, 1))[0])


@pytest.mark.parametrize("shape", [(8, 11), (32, 32), (299, 299), (400, 301)])
def test_trap_resize_is_exactly_that_of_tensorflow_1(shape):
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    x = pictures(2, size=400)[..., : shape[0], : shape[1]].float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(x, (299, 299), align_corners=False)
    assert torch.equal(resize_tf1(x, 299), expected)


def test_trap_resize_is_not_interpolate_with_antialiasing():
    x = pictures(1, size=32)[..., :32].float()
    x = F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    theirs = F.interpolate(x, (299, 299), mode="bilinear", antialias=True)
    assert (resize_tf1(x, 299) - theirs).abs().mean() > 2


def test_resize_by_hand():
    x = torch.tensor([[0.0, 4.0], [8.0, 12.0]])
    expected = [[0, 2, 4, 4], [4, 6, 8, 8], [8, 10, 12, 12], [8, 10, 12, 12]]
    assert resize_tf1(x, 4).tolist() == expected
    assert resize_tf1(x, 2).tolist() == x.tolist()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A torch.hub folder, and a file in place of the published one on a server that has it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    server = tmp_path / "server.pth"
    server.write_bytes(b"weights")
    monkeypatch.setattr(weights, "URL", server.as_uri())
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(b"weights").hexdigest())
    return tmp_path / "hub" / "checkpoints"


def test_the_checksum_is_that_of_the_published_names():
    assert all(SHA256.startswith(name[-12:-4]) for name in NAMES)
    assert weights.URL.endswith(NAMES[0])


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_there_are_taken(hub, monkeypatch, name):
    monkeypatch.setattr(weights, "URL", "file:///nowhere")
    hub.mkdir(parents=True)
    (hub / name).write_bytes(b"weights")
    assert find_weights() == hub / name


def test_weights_are_downloaded_once(hub, monkeypatch):
    assert find_weights().read_bytes() == b"weights"
    monkeypatch.setattr(weights, "URL", "file:///nowhere")
    assert find_weights() == hub / NAMES[0]


def test_torn_weights_are_downloaded_again(hub):
    hub.mkdir(parents=True)
    (hub / NAMES[0]).write_bytes(b"weigh")
    assert find_weights().read_bytes() == b"weights"


def test_a_wrong_download_is_not_kept(hub, tmp_path):
    (tmp_path / "server.pth").write_bytes(b"a page that asks for money")
    with pytest.raises(UserError, match="checksum"):
        find_weights()
    assert list(hub.iterdir()) == []


def test_fault_22_without_network_one_sentence_says_what_to_put_where(hub, monkeypatch, capsys):
    monkeypatch.setattr(weights, "URL", "http://127.0.0.1:9/" + NAMES[0])
    with pytest.raises(SystemExit) as stopped:
        command(load_inception)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in (str(hub), NAMES[0], "--weights", "--features"):
        assert word in said


def test_files_of_weights(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "own.pth")
    loaded = load_inception(tmp_path / "own.pth")
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save({"hostile": print}, tmp_path / "hostile.pth")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "own.pth").read_bytes()[:1000])
    for name, said in [
        ("other.pth", "does not fit"),
        ("hostile.pth", "more than tensors"),
        ("torn.pth", r"torn\.pth"),
        ("none.pth", "no such file"),
    ]:
        with pytest.raises(UserError, match=said):
            load_inception(tmp_path / name)
