"""Folders of image files."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from genconv.data import load_images
from genconv.data.decode import open_image
from genconv.data.folder import load_folder
from genconv.errors import UserError


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    image.save(path, **options)


def noise(seed=0, h=6, w=6):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def test_a_flat_folder_has_no_labels_and_keeps_the_order_of_names(tmp_path):
    for i in (2, 0, 1):
        save(tmp_path / "flat" / f"{i}.png", noise(i))
    (tmp_path / "flat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "flat" / "notes.txt").write_text("no image")
    data = load_images(str(tmp_path / "flat"), root=tmp_path)
    assert data.labels is None
    assert data.classes is None
    for i in range(3):
        assert np.array_equal(data.images[i].permute(1, 2, 0).numpy(), noise(i))


def test_class_folders_become_labels(tmp_path):
    for name, seeds in {"b": (1,), "a": (2, 3), "c": ()}.items():
        (tmp_path / name).mkdir()
        for seed in seeds:
            save(tmp_path / name / f"{seed}.png", noise(seed))
    data = load_folder(tmp_path, root=tmp_path / "root")
    assert data.classes == ("a", "b", "c", "root")[:3]
    assert data.labels.tolist() == [0, 0, 1]
    assert np.array_equal(data.images[2].permute(1, 2, 0).numpy(), noise(1))


def test_split_folders(tmp_path):
    save(tmp_path / "set" / "train" / "x" / "0.png", noise(0))
    save(tmp_path / "set" / "test" / "x" / "0.png", noise(1))
    save(tmp_path / "set" / "test" / "x" / "1.png", noise(2))
    assert len(load_folder(tmp_path / "set", "train", root=tmp_path)) == 1
    assert len(load_folder(tmp_path / "set", "test", root=tmp_path)) == 2
    with pytest.raises(UserError, match="no split 'val'; choose one of train, test"):
        load_folder(tmp_path / "set", "val", root=tmp_path)


def test_a_folder_without_splits_has_no_test_images(tmp_path):
    save(tmp_path / "set" / "0.png", noise(0))
    with pytest.raises(UserError, match="no subfolder 'test'"):
        load_folder(tmp_path / "set", "test", root=tmp_path)
    assert len(load_folder(tmp_path / "set", "all", root=tmp_path)) == 1


def test_empty_and_ambiguous_folders_are_refused(tmp_path):
    """Fault 23: an empty folder."""
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match="has no images"):
        load_folder(tmp_path / "set", root=tmp_path)
    save(tmp_path / "set" / "0.png", noise())
    save(tmp_path / "set" / "class" / "0.png", noise())
    with pytest.raises(UserError, match="both beside and inside"):
        load_folder(tmp_path / "set", root=tmp_path)


def test_the_first_odd_size_is_named_and_a_size_mends_it(tmp_path):
    for i in range(4):
        save(tmp_path / "set" / f"{i}.png", noise(i, 6, 6 if i < 2 else 9))
    with pytest.raises(UserError, match=r"2\.png is 9x6 but .*0\.png is 6x6; give a size"):
        load_folder(tmp_path / "set", root=tmp_path)
    assert load_folder(tmp_path / "set", root=tmp_path, size=4).shape == (3, 4, 4)


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "text"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_a_corrupt_file_is_named(tmp_path, damage, suffix):
    """Fault 11."""
    folder = tmp_path / "set"
    save(folder / f"a.{suffix}", noise(0, 40, 40))
    save(folder / f"b.{suffix}", noise(1, 40, 40))
    raw = (folder / f"b.{suffix}").read_bytes()
    damaged = {
        "empty": b"",
        "truncated": raw[: len(raw) // 2],
        "garbage": os.urandom(500),
        "text": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    }
    (folder / f"b.{suffix}").write_bytes(damaged[damage])
    with pytest.raises(UserError, match=rf"cannot decode .*b\.{suffix}: ."):
        load_folder(folder, root=tmp_path)
    assert not list(tmp_path.glob("cache/*"))


def test_more_than_fifty_megapixels_are_refused_before_decoding(tmp_path):
    """Fault 12."""
    Image.new("1", (10_000, 5_001)).save(tmp_path / "big.png")
    with pytest.raises(UserError, match=r"big\.png: it has 10000x5001 pixels, above the cap"):
        open_image(tmp_path / "big.png")
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def opened(path, image, **options):
    image.save(path, **options)
    return open_image(path)


def test_palettes_become_rgb(tmp_path):
    """Fault 11."""
    image = Image.fromarray(noise()).quantize(8)
    out = opened(tmp_path / "a.png", image)
    assert np.array_equal(out.permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))


def test_what_is_transparent_lies_on_white(tmp_path):
    """Fault 11."""
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (0, 255, 51)
    out = opened(tmp_path / "a.png", Image.fromarray(rgba))
    assert out[:, 0].T.tolist() == [[255, 255, 255], [200, 0, 0], [244, 204, 204]]
    grey = opened(tmp_path / "b.png", Image.fromarray(rgba[..., [0, 3]]))
    assert grey[0, 0].tolist() == [255, 200, 244]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    out = opened(tmp_path / "c.png", palette, transparency=0)
    assert out[:, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_rounded_to_eight(tmp_path, suffix):
    """Fault 11."""
    levels = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    out = opened(tmp_path / f"a.{suffix}", Image.fromarray(levels))
    assert out.tolist() == [[[0, 0, 1, 1, 128, 255]]]


def test_one_bit_cmyk_and_float_images(tmp_path):
    """Fault 11."""
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert opened(tmp_path / "a.png", bits).tolist() == [[[0, 255]]]
    cmyk = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert opened(tmp_path / "b.tif", cmyk)[:, 0, 0].tolist() == [255, 0, 0]
    with pytest.raises(UserError, match=r"c\.tif: its pixels are floats"):
        opened(tmp_path / "c.tif", Image.fromarray(np.zeros((2, 2), np.float32)))


def test_the_first_frame_and_the_upright_photograph(tmp_path):
    """Fault 11: animations."""
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    out = opened(tmp_path / "a.gif", first, save_all=True, append_images=[second])
    assert out[:, 0, 0].tolist() == [255, 0, 0]
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opened(tmp_path / "b.png", Image.new("L", (5, 3)), exif=exif).shape == (1, 5, 3)


def test_grey_and_colour_together_are_rgb(tmp_path):
    save(tmp_path / "set" / "0.png", noise(0), "L")
    grey = load_folder(tmp_path / "set", root=tmp_path)
    assert grey.shape == (1, 6, 6)
    save(tmp_path / "set" / "1.png", noise(1))
    save(tmp_path / "set" / "2.png", noise(2), "L")
    mixed = load_folder(tmp_path / "set", root=tmp_path)
    assert mixed.shape == (3, 6, 6)
    assert torch.equal(mixed.images[0, 2], grey.images[0, 0])
    assert np.array_equal(mixed.images[1].permute(1, 2, 0).numpy(), noise(1))


def test_the_cache_is_used_renewed_and_rebuilt(tmp_path, monkeypatch):
    folder = tmp_path / "set"
    for i in range(2):
        save(folder / f"{i}.png", noise(i))
    decoded = []
    monkeypatch.setattr(
        "genconv.data.folder.open_image", lambda path: decoded.append(path) or open_image(path)
    )

    def load(**options):
        decoded.clear()
        return load_folder(folder, root=tmp_path, **options).images

    images = load()
    assert len(decoded) == 2
    assert torch.equal(load(), images)
    assert decoded == []
    (cache,) = (tmp_path / "cache").iterdir()
    raw = bytearray(cache.read_bytes())
    raw[-300] ^= 1
    for torn in (bytes(raw), raw[:100], b""):
        cache.write_bytes(torn)
        assert torch.equal(load(), images)
        assert len(decoded) == 2
    assert load(size=3).shape[-1] == 3
    assert len(decoded) == 2
    os.utime(folder / "0.png", ns=(1, 1))
    load()
    assert len(decoded) == 2
