"""Levels and pictures."""

import pytest
import torch
from PIL import Image

from genconv.images import from_uint8, grid, moving, save_gif, save_png, sheet, to_pil, to_uint8

LEVELS = torch.arange(256).to(torch.uint8)


def pictures(*shape):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_levels_survive_the_way_there_and_back():
    x = from_uint8(LEVELS)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(to_uint8(x), LEVELS)
    assert torch.equal(to_uint8(x.double()), LEVELS)


def test_values_outside_saturate():
    x = torch.tensor([-torch.inf, -100.0, -1.01, 1.01, 100.0, torch.inf])
    assert to_uint8(x).tolist() == [0, 0, 0, 255, 255, 255]


def test_values_between_go_to_the_nearest_level():
    x = from_uint8(LEVELS)
    for offset in (-0.49, 0.49):
        assert torch.equal(to_uint8(x + offset / 127.5), LEVELS)
    assert torch.equal(to_uint8(x[:-1] + 0.51 / 127.5), LEVELS[1:])


@pytest.mark.parametrize(
    ("n", "columns", "size"),
    [(1, None, (6, 5)), (9, None, (16, 13)), (5, None, (16, 9)), (5, 3, (11, 13)), (2, 8, (6, 9))],
)
def test_a_grid_is_as_large_as_its_tiles(n, columns, size):
    assert grid(pictures(n, 3, 4, 3), columns).shape == (3, *size)


def test_tiles_lie_row_by_row_on_white():
    images = pictures(5, 1, 4, 3)
    canvas = grid(images, columns=3, pad=2, scale=2)
    assert canvas.shape == (1, 2 * (8 + 2) + 2, 3 * (6 + 2) + 2)
    white = torch.ones(canvas.shape, dtype=torch.bool)
    for i, image in enumerate(images):
        top, left = 2 + i // 3 * 10, 2 + i % 3 * 8
        tile = canvas[:, top : top + 8, left : left + 6]
        for dy in (0, 1):
            for dx in (0, 1):
                assert torch.equal(tile[:, dy::2, dx::2], image)
        white[:, top : top + 8, left : left + 6] = False
    assert (canvas[white] == 255).all()


def test_a_sheet_has_a_row_of_slices_for_each_video():
    videos = pictures(3, 3, 16, 4, 5)
    frames = torch.cat([video[:, [0, 2, 4, 6, 8, 10, 12, 14]].movedim(1, 0) for video in videos])
    assert torch.equal(sheet(videos), grid(frames, 8))
    short = pictures(2, 1, 5, 4, 4)
    assert torch.equal(sheet(short), grid(short.movedim(2, 1).flatten(0, 1), 5))


def test_a_moving_grid_has_a_tile_for_each_video():
    videos = pictures(4, 3, 5, 6, 7)
    shown = moving(videos, scale=2)
    assert len(shown) == 5
    assert torch.equal(shown[3], grid(videos[:, :, 3], scale=2))


def test_a_sheet_of_images_is_a_grid_and_of_signals_rows():
    images = pictures(6, 3, 4, 4)
    assert torch.equal(sheet(images, 2, scale=3), grid(images, 2, scale=3))
    assert sheet(pictures(4, 1, 9)).shape == (1, 4 * 2 + 1, 11)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_keeps_every_pixel(tmp_path, channels, mode):
    image = pictures(channels, 5, 7)
    save_png(tmp_path / "new" / "a.png", image)
    with Image.open(tmp_path / "new" / "a.png") as found:
        assert (found.format, found.mode, found.size) == ("PNG", mode, (7, 5))
        assert found.tobytes() == image.permute(1, 2, 0).contiguous().numpy().tobytes()


def test_a_transposed_image_is_drawn_as_it_is_seen():
    image = pictures(3, 5, 7)
    assert to_pil(image.transpose(1, 2)).getpixel((1, 4)) == tuple(image[:, 1, 4].tolist())


def test_gif_shows_every_frame_for_ever(tmp_path):
    frames = [torch.full((1, 4, 6), level, dtype=torch.uint8) for level in (0, 90, 255, 255, 7)]
    save_gif(tmp_path / "a.gif", frames, milliseconds=50)
    shown = []
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.format, film.size, film.info["loop"]) == ("GIF", (6, 4), 0)
        for i in range(film.n_frames):
            film.seek(i)
            level = film.convert("L").getpixel((0, 0))
            shown += [level] * round(film.info["duration"] / 50)
    # equal neighbours may become one frame that stays longer
    assert shown == [0, 90, 255, 255, 7]
