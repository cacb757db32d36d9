"""The one way to name data: every kind of name, and every name that is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import datasets

import genconv
from genconv.data import Images, load_images
from genconv.errors import UserError


def test_digits_have_the_promised_splits_and_levels():
    train, test, everything = (load_images("digits", split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1497, 300, 1797)
    assert train.shape == (1, 8, 8)
    assert train.classes == tuple("0123456789")
    source = datasets.load_digits()
    expected = np.array([round(v * 255 / 16) for v in range(17)])[source.images.astype(int)]
    assert np.array_equal(everything.images[:, 0].numpy(), expected)
    assert torch.equal(test.images, everything.images[::6])
    assert torch.equal(test.labels, everything.labels[::6])
    assert everything.labels.tolist() == source.target.tolist()


def test_reading_images_imports_neither_torchvision_nor_lightning():
    code = (
        "import sys; from genconv.data import load_images; load_images('shapes', 'test');"
        "print([m for m in ('torchvision', 'pytorch_lightning', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(genconv.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "[]"


def test_an_unknown_name_is_answered_with_the_known_ones_and_the_nearest():
    with pytest.raises(UserError, match=r"did you mean 'cifar10'\? .*digits.*imagenet32"):
        load_images("cifr10")


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no such folder or file: .*nowhere"):
        load_images(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no such file: .*none\.npz"):
        load_images(str(tmp_path / "none.npz"))


@pytest.mark.parametrize("name", ["digits", "shapes", "imagenet32", "cifar10"])
def test_an_unknown_split_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="no split 'tset'"):
        load_images(name, "tset", root=tmp_path)


@pytest.mark.parametrize("name", ["digits", "npz", "folder"])
def test_size_and_channels_apply_to_every_source(name, tmp_path):
    rng = np.random.default_rng(0)
    if name == "npz":
        name = str(tmp_path / "a.npz")
        np.savez(name, images=rng.integers(0, 256, (3, 9, 7, 1), np.uint8))
    elif name == "folder":
        name = str(tmp_path / "folder")
        (tmp_path / "folder").mkdir()
        for i in range(3):
            array = rng.integers(0, 256, (9 + i, 7), np.uint8)
            Image.fromarray(array).save(tmp_path / "folder" / f"{i}.png")
    images = load_images(name, root=tmp_path, size=5, channels=3)
    assert isinstance(images, Images)
    assert images.shape == (3, 5, 5)
    assert images.images.dtype == torch.uint8
    assert torch.equal(images.images[:, 0], images.images[:, 2])


@pytest.mark.parametrize("name", ["one.png", "one.JPG", "one.webp"])
def test_one_file_is_a_set_of_one(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name, format={"JPG": "JPEG"}.get(name[-3:], name[4:]))
    images = load_images(str(tmp_path / name))
    assert images.shape == (3, 6, 9)
    assert len(images) == 1
    assert images.labels is None
    if name.endswith(".png"):
        assert np.array_equal(images.images[0].movedim(0, -1).numpy(), pixels)
    assert load_images(str(tmp_path / name), size=4, channels=1).shape == (1, 4, 4)
