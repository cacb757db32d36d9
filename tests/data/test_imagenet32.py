"""The published batches of downsampled ImageNet, real in layout, small in size."""

import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from genconv.data import load_images
from genconv.errors import UserError


def batch(n, seed=0):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (n, 3072), np.uint8)
    labels = rng.integers(1, 1001, n)
    return {"data": data, "labels": labels.tolist(), "mean": data.mean(0)}


def write(path, content, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("labels", [list, np.array, lambda v: [np.int64(i) for i in v]])
def test_pickles_of_every_protocol(tmp_path, protocol, labels):
    content = batch(5)
    write(tmp_path / "val_data", content | {"labels": labels(content["labels"])}, protocol)
    data = load_images("imagenet32", "val", root=tmp_path)
    assert data.shape == (3, 32, 32)
    assert np.array_equal(data.images.reshape(5, -1).numpy(), content["data"])
    assert (data.labels + 1).tolist() == content["labels"]
    assert torch.equal(load_images("imagenet32", "test", root=tmp_path).images, data.images)


def test_pickles_of_python_2(tmp_path):
    # what Python 2 and NumPy 1 wrote for {"data": zeros(1, 3072) but 200 first, "labels": [7]}
    raw = b"\xc8" + bytes(3071)
    (tmp_path / "val_data").write_bytes(
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00"
        + raw
        + b"tbU\x06labels]K\x07au."
    )
    data = load_images("imagenet32", "val", root=tmp_path)
    assert data.images.sum() == 200
    assert data.labels.tolist() == [6]


@pytest.mark.parametrize("suffix", ["", ".npz"])
def test_the_ten_batches_in_their_order(tmp_path, suffix):
    contents = [batch(2 + k % 3, seed=k) for k in range(1, 11)]
    for k, content in enumerate(contents, 1):
        path = tmp_path / "imagenet32" / f"train_data_batch_{k}{suffix}"
        if suffix:
            path.parent.mkdir(exist_ok=True)
            np.savez(path, **content)
        else:
            write(path, content)
    data = load_images("imagenet32", root=tmp_path)
    pixels = np.concatenate([content["data"] for content in contents])
    assert np.array_equal(data.images.reshape(len(data), -1).numpy(), pixels)
    assert data.labels.tolist() == [v - 1 for content in contents for v in content["labels"]]
    assert load_images("imagenet32", root=tmp_path, size=8, channels=1).shape == (1, 8, 8)


def test_missing_batches_are_listed_with_where_to_get_them(tmp_path):
    write(tmp_path / "train_data_batch_1", batch(2))
    with pytest.raises(UserError, match=r"no train_data_batch_2, .* sign in at image-net\.org"):
        load_images("imagenet32", root=tmp_path)
    with pytest.raises(UserError, match=r"no val_data .*imagenet32; .*Imagenet32"):
        load_images("imagenet32", "val", root=tmp_path)


class Canary:
    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "call",
    [
        lambda path: Canary(os.system, f"touch {path}"),
        lambda path: Canary(eval, f"__import__('os').mknod({str(path)!r})"),
        lambda path: Canary(os.mknod, str(path)),
        lambda path: Canary(Path.touch, path),
        lambda path: np.array([Canary(os.mknod, str(path))], dtype=object),
    ],
)
def test_a_malicious_pickle_never_runs(tmp_path, call, protocol):
    canary = tmp_path / "canary"
    raw = pickle.dumps(batch(2) | {"mean": call(canary)}, protocol)
    pickle.loads(raw)
    assert canary.exists(), "the canary must be able to sing"
    canary.unlink()
    (tmp_path / "val_data").write_bytes(raw)
    with pytest.raises(UserError, match=r"will not read .*val_data: it (asks for|holds)"):
        load_images("imagenet32", "val", root=tmp_path)
    assert not canary.exists()


def test_a_persistent_id_is_refused_in_one_line(tmp_path):
    (tmp_path / "val_data").write_bytes(b"Psome id\n.")
    with pytest.raises(UserError) as error:
        load_images("imagenet32", "val", root=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "state",
    [
        # BUILD would set attributes of whatever it is given, here of classes
        b"cnumpy\nndarray\n}(U\x05valueK\x01ub.",
        b"cnumpy\nndarray\nN}U\x09__class__K\x01s\x86b.",
        b"c_codecs\nencode\nN}U\x07__doc__K\x01s\x86b.",
        b"cnumpy\ndtype\nU\x01O\x85R.",
        b"c_codecs\nencode\nU\x01aU\x03hex\x86R.",
        b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x01O\x85RU\x01a\x86R.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"cnumpy\nndarray.tofile\n.",
    ],
)
def test_the_stand_ins_cannot_be_turned_into_tools(tmp_path, state):
    (tmp_path / "val_data").write_bytes(b"\x80\x04" + state)
    with pytest.raises(UserError, match="will not read"):
        load_images("imagenet32", "val", root=tmp_path)
    write(tmp_path / "val_data", batch(2))
    assert len(load_images("imagenet32", "val", root=tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((2, 3071), np.uint8)}, r"uint8 \(n, 3072\)"),
        ({"data": np.zeros((2, 3072), np.float32)}, r"uint8 \(n, 3072\)"),
        ({"data": [[0] * 3072] * 2}, r"uint8 \(n, 3072\)"),
        ({"labels": [0, 1]}, r"1\.\.1000"),
        ({"labels": [1, 1001]}, r"1\.\.1000"),
        ({"labels": np.array([1, 1001])}, r"1\.\.1000"),
        ({"labels": ["a", "b"]}, r"1\.\.1000"),
        ({"labels": [1]}, "2 integers"),
        ({"labels": None}, "no labels"),
    ],
)
def test_wrong_batches_are_named(tmp_path, change, message):
    write(tmp_path / "val_data", batch(2) | change)
    with pytest.raises(UserError, match=message) as error:
        load_images("imagenet32", "val", root=tmp_path)
    assert "val_data" in str(error.value)


def test_torn_and_foreign_pickles_are_refused(tmp_path):
    raw = pickle.dumps(batch(3))
    for torn in (b"", raw[:50], raw[: len(raw) // 2], raw[:-1], b"<html>404</html>"):
        (tmp_path / "val_data").write_bytes(torn)
        with pytest.raises(UserError, match=r"will not read .*val_data: .*download it again"):
            load_images("imagenet32", "val", root=tmp_path)
    for foreign in ([1, 2], OrderedDict(data=1)):
        write(tmp_path / "val_data", foreign)
        with pytest.raises(UserError, match="val_data"):
            load_images("imagenet32", "val", root=tmp_path)


def test_a_lying_array_is_refused(tmp_path):
    raw = pickle.dumps(batch(2), protocol=4)
    old = b"K\x02M\x00\x0c\x86"
    assert raw.count(old) == 1
    (tmp_path / "val_data").write_bytes(raw.replace(old, b"K\xffM\x00\x0c\x86"))
    with pytest.raises(UserError, match="will not read"):
        load_images("imagenet32", "val", root=tmp_path)


@pytest.mark.slow
def test_real_batches(tmp_path):
    source = os.environ.get("GENCONV_TEST_DATA")
    if not source:
        pytest.skip("GENCONV_TEST_DATA names no folder of packed real sets")
    unpack = [sys.executable, str(Path(source) / "unpack.py"), "tinyimagenet32_jpeg"]
    subprocess.run([*unpack, str(tmp_path), "--layout", "imagenet32"], check=True)
    root = tmp_path / "tinyimagenet32_jpeg"
    train, val = (load_images("imagenet32", split, root=root) for split in ("train", "val"))
    assert (len(train), len(val)) == (100_000, 10_000)
    assert train.labels.bincount().tolist() == [500] * 200
    assert val.labels.bincount().tolist() == [50] * 200
    # photographs: neighbours are alike along both axes, which a wrong layout would destroy
    x = val.images.float()
    for axis in (2, 3):
        near = (x.diff(dim=axis)).abs().mean()
        assert near < 0.6 * (x - x.roll(16, axis)).abs().mean()
