"""The small classifier learns, repeats itself, and survives its file."""

import pytest
import safetensors.torch
import torch

from genconv.errors import UserError
from genconv.eval import SmallClassifier, classifier, extract, train_classifier
from genconv.eval.classifier import _shift


def stripes(n, seed=0, size=16, channels=3):
    """Noisy stripes across (0), upright (1), or none (2): mirrors and shifts keep the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    wave = (torch.arange(size) % 4 // 2 * 60).float()
    across = wave[:, None].expand(size, size)
    pattern = torch.stack([across, across.T, torch.full((size, size), 30.0)])[labels]
    noise = torch.rand(n, channels, size, size, generator=generator) * 120
    return (pattern[:, None] + noise).to(torch.uint8), labels


def trained(seed=0, **options):
    images, labels = stripes(240)
    options = {"epochs": 6, "batch_size": 48, "learning_rate": 0.1} | options
    return train_classifier(images, labels, classes=3, seed=seed, **options)


@pytest.fixture(scope="module")
def model():
    return trained()


def test_it_learns(model):
    images, labels = stripes(150, seed=1)
    logits = extract(model, images).logits
    assert (logits.argmax(1) == labels).double().mean() > 0.9
    assert not model.training


def test_one_seed_is_one_network_and_the_global_generator_stands_still(model):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = trained()
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    other = trained(seed=1, epochs=1)
    assert not torch.equal(model.head.weight, other.head.weight)


@pytest.mark.parametrize("had", [True, False])
def test_it_learns_in_bfloat16_only_where_that_is_quick(had, monkeypatch):
    seen, forward = set(), SmallClassifier.forward
    monkeypatch.setattr(classifier, "has_bfloat16", lambda device: had)

    def watched(self, x):
        seen.add(torch.is_autocast_enabled("cpu"))
        return forward(self, x)

    monkeypatch.setattr(SmallClassifier, "forward", watched)
    trained(epochs=1)
    assert seen == {had}


@pytest.mark.parametrize("size", [8, 13, 28, 32, 48, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_and_channels(size, channels):
    model = SmallClassifier(channels, 7, size).eval()
    images, _ = stripes(2, size=size, channels=channels)
    features, logits = model(images)
    assert features.shape == (2, 128)
    assert logits.shape == (2, 7)
    assert features.dtype == logits.dtype == torch.float32
    assert 2e5 < sum(p.numel() for p in model.parameters()) < 6e5


def test_a_file_gives_the_same_network_and_what_is_known_of_it(model, tmp_path):
    path = tmp_path / "features.safetensors"
    model.about |= {"data": "stripes", "split": "train", "accuracy": 0.97}
    model.save(path)
    loaded = SmallClassifier.load(path)
    assert loaded.about == model.about
    assert loaded.about["seed"] == 0
    assert loaded.about["epochs"] == 6
    assert not loaded.training
    images, _ = stripes(10)
    assert torch.equal(loaded(images)[1], model(images)[1])


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="holds no SmallClassifier"):
        SmallClassifier.load(path)
    model = SmallClassifier(3, 10, 8)
    model.arguments["classes"] = 11
    model.save(path)
    with pytest.raises(UserError, match="does not fit"):
        SmallClassifier.load(path)
    with pytest.raises(UserError, match="cannot read"):
        SmallClassifier.load(tmp_path / "none.safetensors")


def test_shifts_move_whole_images_onto_black():
    images = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).repeat(200, 2, 1, 1)
    moved = _shift(images, 1, torch.Generator().manual_seed(0))
    padded = torch.zeros(2, 10, 10, dtype=torch.uint8)
    padded[:, 1:9, 1:9] = images[0]
    windows = {
        (i, j): padded[:, i : i + 8, j : j + 8].flatten().tolist()
        for i in range(3)
        for j in range(3)
    }
    seen = {
        where for image in moved for where, w in windows.items() if image.flatten().tolist() == w
    }
    assert seen == set(windows)
    assert all(image.flatten().tolist() in windows.values() for image in moved)


def test_images_without_the_right_labels_are_refused():
    images, labels = stripes(12)
    for wrong in (labels[:5], labels + 1, labels - 1):
        with pytest.raises(UserError, match=r"0\.\.2"):
            train_classifier(images, wrong, classes=3)
    with pytest.raises(UserError, match="uint8"):
        train_classifier(images.float(), labels, classes=3)
