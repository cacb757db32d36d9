"""Clips: GIFs, films and folders of frames, torn or hostile ones too, as tensors (C, T, H, W)."""

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from genconv.data.decode import MAX_PIXELS, open_image, to_tensor
from genconv.data.fit import fit, to_channels
from genconv.errors import UserError, sentence
from genconv.files import replacing
from genconv.progress import progress

__all__ = ["CLIPS", "av", "load_clips", "open_clip", "save_film"]

FILMS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
CLIPS = (".gif", *FILMS)
FRAMES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_FRAMES = 20_000
# bytes of a clip in memory, after it was made as small as was asked for
MAX_VALUES = 2_000_000_000


def load_clips(path: str | Path, *, size: int | None = None, channels: int | None = None) -> Tensor:
    """Load one clip, or a folder of several, whole, into memory.

    Args:
        path: a GIF, a film (MP4, MOV, AVI, MKV or WEBM; they need PyAV), a folder whose images are
            the frames of one clip, in the order of their names, numbers counted as such; or a
            folder of clips of any of these kinds, all cut to the length of the shortest.
        size: crop the middle square of every frame and resize it to size x size.
        channels: 1 for grey, 3 for RGB; None for grey where all is grey, and else RGB.

    Returns:
        uint8 (N, C, T, H, W).

    Raises:
        UserError: there is no clip, one is torn or hostile or too large, or sizes differ.
    """
    path = Path(path)
    if not path.is_dir():
        return open_clip(path, size=size, channels=channels)[None]
    inside = sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=_natural)
    frames = [p for p in inside if p.is_file() and p.suffix.lower() in FRAMES]
    clips = [p for p in inside if p.is_dir() or p.suffix.lower() in CLIPS]
    if frames and clips:
        raise UserError(f"{path} has both frames and clips; give a folder of one kind")
    if frames:
        named = progress(frames, f"decoding {path}")
        return _gather(path, map(open_image, named), size, channels)[None]
    if not clips:
        raise UserError(f"{path} has neither frames ({', '.join(FRAMES)}) nor clips")
    opened = [load_clips(p, size=size, channels=channels) for p in clips]
    length, wide = min(x.shape[2] for x in opened), max(x.shape[1] for x in opened)
    for p, x in zip(clips, opened, strict=True):
        if x.shape[3:] != opened[0].shape[3:]:
            (h, w), (h0, w0) = x.shape[3:], opened[0].shape[3:]
            raise UserError(
                f"{p} is {w}x{h} but {clips[0]} is {w0}x{h0}; give a size to crop and resize them"
            )
    return torch.cat([to_channels(x[:, :, :length], wide) for x in opened])


def open_clip(path: str | Path, *, size: int | None = None, channels: int | None = None) -> Tensor:
    """Decode one GIF or film.

    Nothing but the file itself is read, whatever it refers to, and sound is passed over.

    Returns:
        uint8 (C, T, H, W); see `load_clips`.

    Raises:
        UserError: the file is missing, torn or of another format; a frame has more than 50
            megapixels, or there are more than 20,000 of them; PyAV is not installed.
    """
    path = Path(path)
    read = _gif if path.suffix.lower() == ".gif" else _film
    if read is _film:
        # missed before the file is looked at
        av()
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    with warnings.catch_warnings():
        # Pillow's, of odd metadata
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file:
                frames = progress(read(file), f"decoding {path}", 0)
                return _gather(path, frames, size, channels)
        except UserError:
            raise
        except UnidentifiedImageError as error:
            raise _undecodable(path, "it is no GIF, or its beginning is broken") from error
        # hostile or torn bytes make decoders raise nearly anything
        except Exception as error:
            said = sentence(error) or type(error).__name__
            raise _undecodable(path, said) from error


def save_film(path: str | Path, frames: Sequence[Tensor], rate: int = 12) -> None:
    """Write uint8 (C, H, W) frames as an MP4 (H.264); the file appears whole or not at all.

    Sides are made even, as the format wants them, by one more row or column of white.

    Raises:
        UserError: PyAV is not installed.
    """
    library = av()
    with replacing(path) as part, library.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "16"})
        _, h, w = frames[0].shape
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = h + h % 2, w + w % 2
        for frame in frames:
            frame = torch.nn.functional.pad(frame, (0, w % 2, 0, h % 2), value=255)
            array = frame.expand(3, -1, -1).movedim(0, -1).contiguous().cpu().numpy()
            container.mux(stream.encode(library.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())


def av() -> Any:
    """Import PyAV.

    Raises:
        UserError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(
            "films are read and written by PyAV: pip install 'genconv[video]', or use a GIF"
        ) from error
    return av


def _gif(file: BinaryIO) -> Iterator[Tensor]:
    with Image.open(file, formats=("GIF",)) as image:
        _check(image.width, image.height)
        for place in range(MAX_FRAMES + 1):
            try:
                image.seek(place)
            except EOFError:
                return
            yield to_tensor(image)


def _film(file: BinaryIO) -> Iterator[Tensor]:
    # By its first bytes, and the one demuxer for them: a playlist named .mp4 would have FFmpeg open
    # whatever files and addresses it lists.
    head = file.read(12)
    file.seek(0)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        kind = "mov"
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        kind = "avi"
    elif head[:4] == b"\x1aE\xdf\xa3":
        kind = "matroska"
    else:
        raise ValueError("it is no MP4, MOV, AVI, MKV or WEBM film, or its beginning is broken")
    with av().open(file, format=kind) as container:
        if not container.streams.video:
            raise ValueError("it has sound but no pictures")
        for frame in container.decode(video=0):
            _check(frame.width, frame.height)
            yield torch.from_numpy(frame.to_ndarray(format="rgb24")).movedim(-1, 0)


def _check(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"its frames have {width}x{height} pixels, above {MAX_PIXELS:,}")


def _gather(path: Path, frames: Iterable[Tensor], size: int | None, channels: int | None) -> Tensor:
    """Fit frames (C, H, W) one by one and lay them out as (C, T, H, W)."""
    kept: list[Tensor] = []
    for frame in frames:
        frame = fit(frame[None], size, channels)[0].contiguous()
        kept.append(frame)
        if frame.shape[1:] != kept[0].shape[1:]:
            raise _undecodable(path, f"the size of its frames changes at frame {len(kept)}")
        if len(kept) > MAX_FRAMES:
            raise _undecodable(path, f"it has more than {MAX_FRAMES:,} frames")
        if 3 * frame[0].numel() * len(kept) > MAX_VALUES:
            raise _undecodable(path, "it does not fit into 2 GB; cut it, or give a smaller size")
    if not kept:
        raise _undecodable(path, "it has no frames")
    wide = max(len(frame) for frame in kept)
    return torch.cat([to_channels(frame[None], wide) for frame in kept]).movedim(0, 1).contiguous()


def _undecodable(path: Path, why: str) -> UserError:
    return UserError(f"cannot decode {path}: {why}; mend or remove it")


def _natural(path: Path) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)
    ]
