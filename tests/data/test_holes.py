"""What is hidden, and straight lines across it."""

import numpy as np
import pytest
import torch

from genconv.data.holes import holes, interpolated, moved
from genconv.errors import UserError
from genconv.images import save_gif, save_png


def test_a_box_has_half_of_every_side():
    box = holes("box", 2, (8, 6))
    assert box.shape == (2, 1, 8, 6)
    expected = torch.zeros(8, 6, dtype=torch.bool)
    expected[2:6, 1:4] = True
    assert (box == expected).all()
    assert holes("box:0.25", 1, (8, 8)).sum() == 4
    assert holes("box", 1, (4, 4, 4)).sum() == 8
    assert holes("box", 1, (10,))[0, 0].nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


def test_frames_are_whole():
    frames = holes("frames:0.25", 1, (8, 4, 4))[0, 0]
    assert frames.flatten(1).all(1).tolist() == frames.flatten(1).any(1).tolist()
    assert frames[:, 0, 0].nonzero().flatten().tolist() == [3, 4]


def test_random_pixels_depend_on_seed_and_number_only():
    many = holes("random:0.3", 50, (8, 8), seed=1)
    assert many.double().mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(holes("random:0.3", 10, (8, 8), seed=1), many[:10])
    assert not torch.equal(holes("random:0.3", 50, (8, 8), seed=2), many)
    assert not torch.equal(many[0], many[1])


def test_white_pixels_of_a_file_are_missing(tmp_path):
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, :3] = 255
    save_png(tmp_path / "mask.png", mask)
    missing = holes(str(tmp_path / "mask.png"), 3, (8, 8))
    assert (missing == (mask > 0)).all()
    assert len(missing) == 3
    with pytest.raises(UserError, match=r"has shape \(8, 8\), but the images have \(4, 4\)"):
        holes(str(tmp_path / "mask.png"), 3, (4, 4))


def flying(t=6, side=8):
    """A mask (T, H, W) of a bar that moves on by one row in every frame."""
    mask = torch.zeros(t, side, side, dtype=torch.bool)
    for i in range(t):
        mask[i, i, 2:5] = True
    return mask


@pytest.mark.parametrize("kind", ["mask.gif", "mask.npz", "clip:frames"])
def test_white_pixels_of_a_clip_are_missing_frame_by_frame(tmp_path, kind):
    mask = flying()
    white = mask.byte()[:, None] * 255
    save_gif(tmp_path / "mask.gif", list(white))
    np.savez(tmp_path / "mask.npz", images=white.numpy()[None].transpose(0, 1, 3, 4, 2))
    for i, frame in enumerate(white):
        save_png(tmp_path / "frames" / f"{i}.png", frame)
    name = kind.replace("clip:", f"clip:{tmp_path}/")
    name = name if name.startswith("clip:") else str(tmp_path / name)
    assert torch.equal(holes(name, 2, (6, 8, 8)), mask.expand(2, 1, -1, -1, -1))
    # as a clip, it may be longer
    assert torch.equal(holes(name, 1, (4, 8, 8))[0, 0], mask[:4])
    # and larger: whatever touches a pixel hides it
    half = holes(name, 1, (6, 4, 4))[0, 0]
    blocks = mask.unflatten(1, (4, 2)).unflatten(3, (4, 2)).any(4).any(2)
    assert half[blocks].all()
    # a far one does not
    assert not half[4:, 0].any()
    with pytest.raises(UserError, match=r"has shape \(6, 8, 8\), but the images have \(7, 8, 8\)"):
        holes(name, 1, (7, 8, 8))
    with pytest.raises(UserError, match=r"but the images have \(8, 8\)"):
        holes(name, 1, (8, 8))


def test_an_image_hides_the_same_of_every_frame(tmp_path):
    mask = flying()[2]
    save_png(tmp_path / "mask.png", mask.byte()[None] * 255)
    assert torch.equal(holes(str(tmp_path / "mask.png"), 1, (3, 8, 8))[0, 0], mask.expand(3, 8, 8))


def test_holes_move_as_they_are():
    missing = flying()[None, None].repeat(30, 1, 1, 1, 1)
    found = moved(missing, 0)
    assert torch.equal(found, moved(missing, 0))
    assert torch.equal(found[:7], moved(missing[:7], 0))
    whole = torch.fft.fftn(missing.double(), dim=(2, 3, 4)).abs()
    # a shift changes phases alone
    torch.testing.assert_close(torch.fft.fftn(found.double(), dim=(2, 3, 4)).abs(), whole)
    assert len({tuple(row.flatten().tolist()) for row in found}) > 20


def test_holes_move_along_every_axis_and_anywhere():
    missing = torch.zeros(200, 1, 3, 4, 5, dtype=torch.bool)
    missing[..., 1, 2, 3] = True
    places = moved(missing, 1).nonzero()[:, 2:]
    assert len(places) == 200
    assert len({tuple(place) for place in places.tolist()}) > 50


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("box:2", "a share between 0 and 1"),
        ("random:nan", "a share between 0 and 1"),
        ("frames:x", "a share between 0 and 1"),
        ("box:0.01", "hides none"),
        ("nowhere.png", "cannot open nowhere.png"),
        ("nowhere.gif", "nowhere.gif"),
        ("nowhere.npz", "no such file: nowhere.npz"),
    ],
)
def test_what_is_no_mask_is_named(mask, message):
    with pytest.raises(UserError, match=message):
        holes(mask, 2, (8, 8))


def test_dropped_frames_are_whole_and_others_in_each_image():
    dropped = holes("dropped:0.5", 20, (8, 3, 2), seed=1)
    assert (dropped.flatten(3).all(3) == dropped.flatten(3).any(3)).all()
    frames = dropped[:, 0, :, 0, 0]
    assert frames.sum(1).tolist() == [4] * 20
    assert len({tuple(row) for row in frames.tolist()}) > 10
    assert torch.equal(holes("dropped:0.5", 5, (8, 3, 2), seed=1), dropped[:5])


@pytest.mark.parametrize("space", [(9,), (9, 4), (9, 3, 2)])
@pytest.mark.parametrize("mask", ["random:0.6", "dropped:0.6", "frames:0.5"])
def test_lines_are_those_of_numpy(space, mask):
    x = torch.rand(3, 2, *space, generator=torch.Generator().manual_seed(0)).double()
    missing = holes(mask, 3, space, seed=2)
    found = interpolated(x, missing)
    known = ~missing.expand_as(x)
    assert torch.equal(found[known], x[known])
    lines = [v.movedim(2, -1).flatten(0, -2).numpy() for v in (x, known, found)]
    places, compared = np.arange(space[0]), 0
    for true, seen, line in zip(*lines, strict=True):
        if seen.any():
            expected = np.interp(places, places[seen], true[seen])
            np.testing.assert_allclose(line, expected, atol=1e-12)
            compared += 1
    assert compared > 4


def test_what_is_missing_is_never_looked_at():
    x = torch.rand(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    missing = holes("random:0.5", 2, (6, 4))
    other = torch.where(missing, 100.0, x)
    torch.testing.assert_close(interpolated(other, missing), interpolated(x, missing))


def test_a_line_without_anything_known_has_the_mean():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    missing = torch.zeros(1, 1, 3, 4, dtype=torch.bool)
    missing[..., 1] = True
    found = interpolated(x, missing)
    assert torch.equal(found[0, 0, :, 1], x[~missing].mean().expand(3))
