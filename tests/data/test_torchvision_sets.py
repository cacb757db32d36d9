"""Sets of torchvision, without a network."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from genconv.data import load_images
from genconv.data.torchvision_sets import SETS
from genconv.errors import UserError


def test_every_listed_set_exists():
    assert [name for name in SETS if not hasattr(datasets, name)] == []


def test_cifar10_in_torchvisions_layout_needs_no_network(tmp_path, monkeypatch):
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    rng, sums = np.random.default_rng(0), {}

    def put(name, content):
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        sums[name] = hashlib.md5(raw).hexdigest()

    batches = {}
    for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list:
        data = rng.integers(0, 256, (2, 3072), np.uint8)
        batches[name] = data
        put(name, {"data": data, "labels": rng.integers(0, 10, 2).tolist()})
    put("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    for attribute in ("train_list", "test_list"):
        names = [name for name, _ in getattr(datasets.CIFAR10, attribute)]
        monkeypatch.setattr(datasets.CIFAR10, attribute, [[name, sums[name]] for name in names])
    meta = datasets.CIFAR10.meta | {"md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)

    train, test = (load_images("CIFAR10", split, root=tmp_path) for split in ("train", "test"))
    expected = np.concatenate([batches[f"data_batch_{k}"] for k in range(1, 6)])
    assert np.array_equal(train.images.reshape(10, -1).numpy(), expected)
    assert np.array_equal(test.images.reshape(2, -1).numpy(), batches["test_batch"])
    assert train.classes == tuple(f"class {i}" for i in range(10))
    assert train.labels.shape == (10,)


@pytest.mark.parametrize("name", ["cifar10", "mnist", "svhn"])
@pytest.mark.parametrize("failure", [URLError("no route to host"), RuntimeError("mirror down")])
def test_a_failed_download_says_what_goes_where(tmp_path, monkeypatch, name, failure):
    def fail(self):
        raise failure

    monkeypatch.setattr(getattr(datasets, name.upper()), "download", fail)
    with pytest.raises(UserError, match=f"cannot download {name}: .*put it.* in {tmp_path}"):
        load_images(name, root=tmp_path)


class BySplit:
    """A set that takes `split`, has grey images of several sizes, and calls its names `classes`."""

    classes = ("x", "y")

    def __init__(self, root, split="train", transform=None, download=False):
        if split not in ("train", "extra"):
            raise ValueError(f"Unknown value '{split}' for argument split.")
        self.n = 3 if split == "train" else 2

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return Image.new("L", (8 + i, 8), 10 * i), i % 2


class WithoutSplits(BySplit):
    def __init__(self, root, download=False):
        super().__init__(root)


class Unlabelled(WithoutSplits):
    def __getitem__(self, i):
        return Image.new("L", (8, 8)), -1


def test_sets_that_take_a_split(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "SVHN", BySplit)
    data = load_images("svhn", "extra", root=tmp_path, size=4)
    assert len(data) == 2
    assert data.labels.tolist() == [0, 1]
    assert data.images.amax((1, 2, 3)).tolist() == [0, 10]
    with pytest.raises(UserError, match=r"svhn image 1 is 9x8 .* give a size"):
        load_images("svhn", root=tmp_path)
    with pytest.raises(UserError, match="refuses svhn: Unknown value 'test'"):
        load_images("svhn", "test", root=tmp_path)


def test_sets_without_splits_or_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "SVHN", WithoutSplits)
    assert len(load_images("svhn", "all", root=tmp_path, size=4)) == 3
    with pytest.raises(UserError, match="no split 'test'"):
        load_images("svhn", "test", root=tmp_path)
    monkeypatch.setattr(datasets, "SVHN", Unlabelled)
    assert load_images("svhn", root=tmp_path).labels is None


@pytest.mark.slow
def test_real_pictures_of_cifar10(tmp_path):
    source = os.environ.get("GENCONV_TEST_DATA")
    if not source:
        pytest.skip("GENCONV_TEST_DATA names no folder of packed real sets")
    unpack = [sys.executable, str(Path(source) / "unpack.py"), "cifar10_jpeg_q75"]
    subprocess.run([*unpack, str(tmp_path)], check=True)
    train = load_images(str(tmp_path / "cifar10_jpeg_q75"), "train")
    assert train.images.shape == (50_000, 3, 32, 32)
    assert train.labels.bincount().tolist() == [5000] * 10
    assert train.classes is None or len(train.classes) == 10
    # the published mean of the three channels, which JPEG hardly moves
    mean = train.images.double().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=0.003)
