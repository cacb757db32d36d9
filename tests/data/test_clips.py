"""Clips: whatever kind of file they come in, and files that are no clips."""

import builtins
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import genconv.data.clips as clips_module
from genconv.data import load_images
from genconv.data.clips import load_clips, open_clip, save_film
from genconv.errors import UserError
from genconv.images import save_gif, save_png


def bars(t=5, c=3, h=8, w=12):
    """A clip (C, T, H, W) of few colours, which a palette keeps: frame i has i white columns."""
    clip = torch.zeros(c, t, h, w, dtype=torch.uint8)
    for i in range(t):
        clip[:, i, :, :i] = 255
        clip[0, i, : h // 2] = 255
    return clip


def frames(clip):
    return list(clip.unbind(1))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_is_read_frame_by_frame(tmp_path, channels):
    clip = bars(c=channels)
    save_gif(tmp_path / "a.gif", frames(clip))
    found = load_images(str(tmp_path / "a.gif"), channels=channels).images
    assert found.shape == (1, channels, 5, 8, 12)
    assert torch.equal(found[0], clip)


def test_a_film_is_read_as_it_was_written(tmp_path):
    pytest.importorskip("av")
    clip = bars(h=31, w=33).repeat_interleave(3, 2).repeat_interleave(3, 3)
    save_film(tmp_path / "a.mp4", frames(clip))
    found = load_images(str(tmp_path / "a.mp4")).images[0]
    # white up to even sides
    assert found.shape == (3, 5, 94, 100)
    # lossy
    assert (found[..., :93, :99].float() - clip.float()).abs().mean() < 12
    assert found[..., 93, :].min() > 150


def test_a_film_keeps_the_order_of_its_frames(tmp_path):
    pytest.importorskip("av")
    levels = torch.tensor([0, 200, 50, 250, 100], dtype=torch.uint8)
    save_film(tmp_path / "a.mp4", [v.expand(1, 16, 16) for v in levels])
    found = open_clip(tmp_path / "a.mp4", channels=1)[0].float().mean((1, 2))
    assert (found - levels).abs().max() < 6


def test_frames_of_a_folder_are_ordered_by_their_numbers(tmp_path):
    for i in (0, 1, 2, 9, 10, 11):
        save_png(tmp_path / "clip" / f"frame{i}.png", torch.full((1, 4, 6), i, dtype=torch.uint8))
    found = load_images(f"clip:{tmp_path / 'clip'}").images
    assert found.shape == (1, 1, 6, 4, 6)
    assert found[0, 0, :, 0, 0].tolist() == [0, 1, 2, 9, 10, 11]


def test_a_folder_of_clips_is_cut_to_the_shortest(tmp_path):
    save_gif(tmp_path / "set" / "a.gif", frames(bars(5)))
    for i in range(3):
        save_png(tmp_path / "set" / "b" / f"{i}.png", bars(3, c=1)[:, i])
    found = load_clips(tmp_path / "set")
    assert found.shape == (2, 3, 3, 8, 12)
    assert torch.equal(found[0], bars(5)[:, :3])
    save_gif(tmp_path / "set" / "c.gif", frames(bars(5, h=9)))
    with pytest.raises(UserError, match=r"c\.gif is 12x9 but .*a\.gif is 12x8; give a size"):
        load_clips(tmp_path / "set")
    assert load_clips(tmp_path / "set", size=4, channels=1).shape == (3, 1, 3, 4, 4)


def test_size_and_channels_apply_to_frames(tmp_path):
    save_gif(tmp_path / "a.gif", frames(bars()))
    assert load_images(str(tmp_path / "a.gif"), size=4, channels=1).shape == (1, 5, 4, 4)


def test_without_pyav_films_are_one_sentence_and_gifs_are_read(tmp_path, monkeypatch):
    real = builtins.__import__

    def blocked(name, *args):
        if name == "av":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.delitem(sys.modules, "av", raising=False)
    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(UserError, match=r"pip install 'genconv\[video\]'"):
        open_clip(tmp_path / "a.mp4")
    save_gif(tmp_path / "a.gif", frames(bars()))
    assert open_clip(tmp_path / "a.gif").shape == (3, 5, 8, 12)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no such file: .*a\.gif"):
        load_images(str(tmp_path / "a.gif"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has neither frames .* nor clips"):
        load_images(f"clip:{tmp_path / 'empty'}")
    save_png(tmp_path / "empty" / "a.png", bars()[:, 0])
    save_gif(tmp_path / "empty" / "a.gif", frames(bars()))
    with pytest.raises(UserError, match="both frames and clips"):
        load_images(f"clip:{tmp_path / 'empty'}")


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".avi"])
@pytest.mark.parametrize("kind", ["empty", "text", "png", "playlist", "noise"])
def test_hostile_files_end_in_one_sentence(tmp_path, suffix, kind):
    if suffix != ".gif":
        pytest.importorskip("av")
    path = tmp_path / f"a{suffix}"
    other = tmp_path / "secret.mp4"
    save_png(tmp_path / "p.png", bars()[:, 0])
    head = {".gif": b"GIF89a", ".mp4": b"\0\0\0\x18ftypisom", ".avi": b"RIFF\xff\xff\0\0AVI LIST"}
    path.write_bytes(
        {
            "empty": b"",
            "text": b"hello",
            "png": (tmp_path / "p.png").read_bytes(),
            "playlist": f"#EXTM3U\n#EXTINF:1,\nfile://{other}\n".encode(),
            "noise": head[suffix] + np.random.default_rng(0).bytes(4000),
        }[kind]
    )
    # a playlist is refused before FFmpeg follows it
    why = "it is no MP4.*" if (kind, suffix) == ("playlist", ".mp4") else ".*"
    with pytest.raises(UserError, match=f"cannot decode .*a\\{suffix}: {why}; mend or remove it"):
        load_images(str(path))


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_torn_files_raise_nothing_but_user_errors(tmp_path, suffix):
    if suffix == ".gif":
        save_gif(tmp_path / "whole.gif", frames(bars()))
    else:
        pytest.importorskip("av")
        save_film(tmp_path / "whole.mp4", frames(bars(h=32, w=32)))
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    path, generator = tmp_path / f"a{suffix}", np.random.default_rng(0)
    refused = []
    for trial in range(12):
        if trial < 4:
            data = whole[: len(whole) * trial // 4]
        else:
            data = bytearray(whole)
            for place in generator.integers(12, len(data), 20):
                data[place] = generator.integers(256)
        path.write_bytes(data)
        try:
            assert open_clip(path).dtype == torch.uint8
        except UserError as error:
            refused.append(str(error))
    assert refused
    assert all(str(path) in words for words in refused)


def test_caps(tmp_path, monkeypatch):
    save_gif(tmp_path / "a.gif", frames(bars()))
    for name, value, message in [
        ("MAX_FRAMES", 4, "more than 4 frames"),
        ("MAX_VALUES", 1000, "does not fit"),
        ("MAX_PIXELS", 90, "12x8 pixels, above 90"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(clips_module, name, value)
            with pytest.raises(UserError, match=message):
                open_clip(tmp_path / "a.gif")


def test_what_is_transparent_lies_on_white(tmp_path):
    first = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    first.paste((0, 0, 0, 0), (0, 0, 2, 4))
    second = Image.new("RGBA", (4, 4), (0, 0, 255, 255))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second], disposal=2)
    found = open_clip(tmp_path / "a.gif")
    assert found[:, 0, 0].T.tolist() == [[255] * 3, [255] * 3, [255, 0, 0], [255, 0, 0]]
    assert found[:, 1, 0, 0].tolist() == [0, 0, 255]
