"""Bodies: .binvox files written here by hand, meshes whose voxels are known, and hostile bytes."""

import sys

import numpy as np
import pytest
import torch

from genconv.data import Images, load_images
from genconv.data.voxels import distinct, open_body
from genconv.errors import UserError


def binvox(solid, head="#binvox 1\ndim {} {} {}\ntranslate 0 0 0\nscale 1\ndata\n"):
    """Write bool (X, Y, Z) as the format's page says: y fastest, then z, in runs of up to 255."""
    x, y, z = solid.shape
    flat = [bool(solid[i, j, k]) for i in range(x) for k in range(z) for j in range(y)]
    out, at = bytearray(), 0
    while at < len(flat):
        end = at
        while end < len(flat) and flat[end] == flat[at] and end - at < 255:
            end += 1
        out += bytes([flat[at], end - at])
        at = end
    return head.format(x, z, y).encode() + bytes(out)


def body(seed=0, shape=(8, 8, 8)):
    return np.random.default_rng(seed).random(shape) < 0.1


@pytest.mark.parametrize("shape", [(8, 8, 8), (3, 4, 5)])
def test_binvox(tmp_path, shape):
    solid = body(shape=shape)
    (tmp_path / "a.binvox").write_bytes(binvox(solid))
    data = load_images(str(tmp_path / "a.binvox"))
    assert data.shape == (1, *shape)
    assert torch.equal(data.images[0, 0], torch.from_numpy(solid.astype(np.uint8) * 255))


def test_binvox_shrinks_by_blocks_that_are_solid_where_any_part_is(tmp_path):
    solid = np.zeros((8, 8, 8), bool)
    solid[5, 2, 7] = True
    (tmp_path / "a.binvox").write_bytes(binvox(solid))
    small = open_body(tmp_path / "a.binvox", 4)
    assert small[0].nonzero().tolist() == [[2, 1, 3]]
    for size in (3, 16):
        with pytest.raises(UserError, match=f"does not shrink to {size}"):
            open_body(tmp_path / "a.binvox", size)
    with pytest.raises(UserError, match="the side of a body"):
        open_body(tmp_path / "a.binvox", 0)


HEAD = "#binvox 1\ndim 8 8 8\ndata\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not begin"),
        (b"#binvox 2\ndim 8 8 8\ndata\n", "does not begin"),
        (b"#binvox 1\ndim 8 8\ndata\n", "does not begin"),
        (b"#binvox 1\ndim -8 8 8\ndata\n", "does not begin"),
        (b"#binvox 1\ndim 9999 9999 9999\ndata\n\1\1", "9999x9999x9999"),
        (b"#binvox 1\ndim 0 8 8\ndata\n", "0x8x8"),
        (HEAD.encode() + b"\1", "middle of a run"),
        (HEAD.encode() + b"\1\255", "hold 173 voxels, not 512"),
        (HEAD.encode() + b"\1\377" * 3, "hold 765 voxels, not 512"),
        (b"#binvox 1\n" + b"x\n" * 100_000, "does not begin"),
    ],
)
def test_hostile_binvox_is_one_sentence(tmp_path, data, reason):
    (tmp_path / "a.binvox").write_bytes(data)
    with pytest.raises(UserError, match=reason) as caught:
        open_body(tmp_path / "a.binvox")
    assert "a.binvox" in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        open_body(tmp_path / "b.binvox")


BOX = """OFF
8 6 0
0 0 0
2 0 0
2 1 0
0 1 0
0 0 1
2 0 1
2 1 1
0 1 1
4 3 2 1 0
4 4 5 6 7
4 0 1 5 4
4 1 2 6 5
4 2 3 7 6
4 3 0 4 7
"""


def test_the_surface_of_a_mesh_is_solid_and_the_longest_side_fills_the_grid(tmp_path):
    pytest.importorskip("trimesh")
    (tmp_path / "a.off").write_text(BOX)
    found = open_body(tmp_path / "a.off", 9)[0] > 0
    expected = torch.zeros(9, 9, 9, dtype=torch.bool)
    expected[:, 2:7, 2:7] = True
    expected[1:8, 3:6, 3:6] = False
    assert torch.equal(found, expected)
    assert load_images(str(tmp_path / "a.off")).shape == (1, 32, 32, 32)


@pytest.mark.parametrize(
    "text", ["", "hello", "OFF\n9999999999 1 0\n", "OFF\n1 0 0\n0 0 0\n", "OFF\n3 1 0\n0 0 0\n"]
)
def test_a_torn_mesh_is_one_sentence(tmp_path, text):
    pytest.importorskip("trimesh")
    (tmp_path / "a.off").write_text(text)
    with pytest.raises(UserError, match=r"cannot read .*a\.off"):
        open_body(tmp_path / "a.off")


def test_without_trimesh_the_mend_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    (tmp_path / "a.off").write_text(BOX)
    with pytest.raises(UserError, match=r"genconv\[voxels\]"):
        open_body(tmp_path / "a.off")


@pytest.mark.parametrize("place", ["{split}/{name}", "{name}/{split}"])
def test_folders_of_classes_as_ours_and_as_modelnet(tmp_path, place):
    solids = {("chair", 0): body(0), ("chair", 1): body(1), ("table", 0): body(2)}
    for split in ("train", "test"):
        for (name, i), solid in solids.items():
            file = tmp_path / "set" / place.format(split=split, name=name) / f"{i}.binvox"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(binvox(solid if split == "train" else ~solid))
    (tmp_path / "set" / "README.txt").write_text("hello")
    for _ in range(2):
        train = load_images(str(tmp_path / "set"), "train", root=tmp_path)
        assert train.classes == ("chair", "table")
        assert train.labels.tolist() == [0, 0, 1]
        expected = torch.from_numpy(np.stack(list(solids.values())))
        assert torch.equal(train.images[:, 0] > 0, expected)
        assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
    test = load_images(str(tmp_path / "set"), "test", root=tmp_path, size=4)
    assert test.shape == (1, 4, 4, 4)


def test_a_flat_folder_and_uneven_sides(tmp_path):
    for i, side in enumerate((4, 8)):
        (tmp_path / f"{i}.binvox").write_bytes(binvox(body(i, (side,) * 3)))
    with pytest.raises(UserError, match=r"1\.binvox is 8x8x8 but .*0\.binvox is 4x4x4"):
        load_images(str(tmp_path), root=tmp_path / "cache")
    data = load_images(str(tmp_path), root=tmp_path / "cache", size=4)
    assert (data.shape, data.labels) == ((1, 4, 4, 4), None)


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
def test_occupancies_in_a_file_are_black_and_white(tmp_path, dtype):
    solid = body()[None, ..., None].astype(dtype)
    np.savez(tmp_path / "a.npz", images=solid)
    found = load_images(str(tmp_path / "a.npz")).images
    assert torch.equal(found[0, 0], torch.from_numpy(body().astype(np.uint8) * 255))
    # one level above 1, and they are levels
    grey = solid.astype(np.uint8)
    grey[0, 0, 0, 0] = 2
    np.savez(tmp_path / "b.npz", images=grey)
    assert load_images(str(tmp_path / "b.npz")).images.max() == 2


def test_distinct_keeps_the_first_of_equals_and_the_order():
    images = torch.tensor([3, 1, 3, 2, 1], dtype=torch.uint8).view(5, 1, 1, 1, 1)
    data = distinct(Images(images, torch.tensor([0, 1, 1, 0, 0]), ("a", "b")))
    assert data.images.flatten().tolist() == [3, 1, 2]
    assert data.labels.tolist() == [0, 1, 0]
    assert data.classes == ("a", "b")
