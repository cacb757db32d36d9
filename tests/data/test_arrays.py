"""Reading `.npz` files, good ones and hostile ones."""

import io
import pickle
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from numpy.lib import format as npy

from genconv.data import load_images
from genconv.data.arrays import read_npz
from genconv.errors import UserError


def write(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members.items():
            archive.writestr(f"{name}.npy", raw)


def header(shape, dtype="|u1"):
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(5, 6, 7, 3), (5, 6, 7, 1), (5, 2, 6, 7, 3)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_round_trip_with_the_channel_moved_first(tmp_path, shape, save):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    names = np.array(["a", "b", "c", "d", "e"])
    save(tmp_path / "a.npz", images=images, labels=np.arange(5, dtype=">i2"), class_names=names)
    data = load_images(str(tmp_path / "a.npz"))
    assert np.array_equal(np.moveaxis(data.images.numpy(), 1, -1), images)
    assert data.images.is_contiguous()
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == [0, 1, 2, 3, 4]
    assert data.classes == tuple("abcde")


def test_fortran_order_is_kept(tmp_path):
    images = np.asfortranarray(np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1))
    np.savez(tmp_path / "a.npz", images=images)
    data = load_images(str(tmp_path / "a.npz"))
    assert np.array_equal(data.images[:, 0].numpy(), images[..., 0])
    assert data.labels is None


def test_a_folder_of_splits(tmp_path):
    for n, split in enumerate(("train", "test"), 1):
        np.savez(tmp_path / f"{split}.npz", images=np.zeros((n, 4, 4, 1), np.uint8))
    assert len(load_images(str(tmp_path), "train")) == 1
    assert len(load_images(str(tmp_path), "test")) == 2
    with pytest.raises(UserError, match=r"no val\.npz; its splits: test, train"):
        load_images(str(tmp_path), "val")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.float32)}, "must be uint8"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, "channels, 1 to 4, last"),
        ({"images": np.zeros((2, 8, 8), np.uint8)}, "channels, 1 to 4, last"),
        ({"images": np.zeros((0, 8, 8, 1), np.uint8)}, "channels, 1 to 4, last"),
        ({"pictures": np.zeros((2, 8, 8, 1), np.uint8)}, "no array called 'images'"),
        ({"images": np.zeros((2, 4, 4, 1), np.uint8), "labels": np.zeros(3, int)}, "2 integers"),
        ({"images": np.zeros((2, 4, 4, 1), np.uint8), "labels": np.zeros(2)}, "2 integers"),
        ({"images": np.zeros((1, 4, 4, 1), np.uint8), "labels": np.array([-1])}, "negative"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        load_images(str(tmp_path / "a.npz"))
    assert "a.npz" in str(error.value)


def test_object_arrays_are_never_unpickled(tmp_path):
    canary = tmp_path / "canary"

    class Canary:
        def __reduce__(self):
            return open, (str(canary), "w")

    raw = header((1,), "|O") + pickle.dumps(np.array([Canary()], dtype=object))
    write(tmp_path / "a.npz", images=raw)
    with pytest.raises(UserError, match="not plain numbers"):
        load_images(str(tmp_path / "a.npz"))
    assert not canary.exists()


@pytest.mark.parametrize("shape", [(1 << 14, 256, 256, 3), (1 << 60, 8, 8, 3), (1, 4, 4, 3)])
def test_a_lying_header_allocates_nothing(tmp_path, shape):
    write(tmp_path / "a.npz", images=header(shape) + bytes(1000))
    tracemalloc.start()
    with pytest.raises(UserError, match="holds 1000 bytes"):
        load_images(str(tmp_path / "a.npz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_lying_archive_allocates_nothing(tmp_path):
    shape = (1 << 14, 256, 256, 3)
    path = tmp_path / "a.npz"
    write(path, images=header(shape) + bytes(1000))
    raw, claimed = path.read_bytes(), len(header(shape)) + np.prod(shape)
    at = raw.rindex(b"PK\x01\x02")
    # offset 24 of a directory entry is the size after inflation
    path.write_bytes(raw[: at + 24] + int(claimed).to_bytes(4, "little") + raw[at + 28 :])
    tracemalloc.start()
    with pytest.raises(UserError, match="more bytes than the file can hold"):
        load_images(str(path))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_bombs_and_archives_that_write_elsewhere_do_neither(tmp_path):
    """Fault 13: a zip bomb, `../x` in a zip, a link and `../x` in a tar."""
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    images = np.zeros((2, 4, 4, 1), np.uint8)
    np.savez(folder / "up.npz", images=images, **{"../escaped": images})
    assert load_images(str(folder / "up.npz")).images.shape == (2, 1, 4, 4)
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", bytes(1 << 26))
    with tarfile.open(folder / "links.npz", "w") as archive:
        link = tarfile.TarInfo("images.npy")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("../escaped.npy"))
    for name in ("bomb", "links"):
        tracemalloc.start()
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            load_images(str(folder / f"{name}.npz"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    assert sorted(path.name for path in (tmp_path / "in").rglob("*")) == [
        "bomb.npz", "links.npz", "side", "up.npz"
    ]  # fmt: skip


def test_a_long_header_is_refused(tmp_path):
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"1," * 30000 + b")}\n"
    write(tmp_path / "a.npz", images=b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text)
    with pytest.raises(UserError, match="cannot read"):
        load_images(str(tmp_path / "a.npz"))


def test_torn_and_flipped_files_are_refused_or_read_right(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=images)
    good, rng, refused = path.read_bytes(), np.random.default_rng(1), 0
    for trial in range(300):
        raw = bytearray(good)
        if trial < 30:
            raw = raw[: rng.integers(len(raw))]
        else:
            raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
        path.write_bytes(raw)
        try:
            found = read_npz(path, ("images",)).get("images")
        except UserError:
            refused += 1
        else:
            assert found is None or np.array_equal(found, images)
    assert refused > 200
