"""Whatever bytes and words come in: a result, or a UserError of one line, and never a traceback.

`GENCONV_FUZZ=1200 pytest tests/faults/test_fuzz.py` takes some minutes and goes a hundred times
further.
"""

# ruff: noqa: PT017 - SystemExit has codes to look at, UserError lines
import io
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from genconv.checkpoint import read
from genconv.data import load_images
from genconv.data.arrays import load_arrays
from genconv.data.clips import save_film
from genconv.data.decode import decode_file
from genconv.errors import UserError
from genconv.eval.score_command import main as score
from genconv.images import save_gif
from genconv.sample import main as sample
from genconv.train import check_shapes
from genconv.training.cli import TrainCLI
from tests.conftest import TINY
from tests.data.test_voxels import binvox

N = int(os.environ.get("GENCONV_FUZZ", "12"))
# a failure is shown by its seed; nothing is kept in the checkout
COMMON = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


def examples(n):
    return settings(max_examples=n, **COMMON)


pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def one_line(work):
    """Do it; what it refuses, it refuses in one line."""
    try:
        return work()
    except UserError as error:
        assert "\n" not in str(error)
        return None


@st.composite
def damaged(draw, raw):
    """Bytes with some flipped, cut, doubled or put in."""
    raw = bytearray(raw)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(raw) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "double", "insert", "set"]))
        if kind == "cut":
            del raw[place : place + draw(st.integers(1, 1 + len(raw)))]
        elif kind == "double":
            raw[place:place] = raw[place : place + draw(st.integers(1, 64))]
        elif kind == "insert":
            raw[place:place] = draw(st.binary(max_size=16))
        elif raw:
            place = min(place, len(raw) - 1)
            bit = 1 << draw(st.integers(0, 7))
            raw[place] = raw[place] ^ bit if kind == "flip" else draw(st.integers(0, 255))
    return bytes(raw)


def npz(save):
    file = io.BytesIO()
    save(file, images=np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8, 1), labels=np.arange(4))
    return file.getvalue()


def picture(kind, **how):
    file = io.BytesIO()
    levels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    Image.fromarray(levels).save(file, format=kind, **how)
    return file.getvalue()


def batch():
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (3, 3072), dtype=np.uint8)
    return pickle.dumps({"data": data, "labels": [1, 2, 1000], "mean": data[0] / 1.0}, protocol=2)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    raw = npz(save)

    @examples(N)
    @given(damaged(raw))
    def check(content):
        (tmp_path / "a.npz").write_bytes(content)
        found = one_line(lambda: load_arrays(tmp_path / "a.npz"))
        assert found is None or found.images.dtype == torch.uint8

    check()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.filterwarnings("ignore")
def test_image_files(tmp_path, kind):
    raw = picture(kind)
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "a.png"

    @examples(max(3, N // 4))
    @given(damaged(raw))
    def check(content):
        path.write_bytes(content)
        found = decode_file(path)
        assert (found.image is None) == bool(found.error)
        one_line(lambda: load_images(str(tmp_path / "folder"), "train", root=tmp_path, size=8))

    check()


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".npz"])
@pytest.mark.filterwarnings("ignore")
def test_clips(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    frames = list((torch.arange(3 * 4 * 16 * 16) % 256).byte().view(4, 3, 16, 16))
    if suffix == ".npz":
        np.savez(path, images=torch.stack(frames)[None].movedim(2, -1).numpy())
    elif suffix == ".gif":
        save_gif(path, frames)
    else:
        pytest.importorskip("av")
        save_film(path, frames)
    raw = path.read_bytes()

    @examples(N)
    @given(damaged(raw))
    def check(content):
        path.write_bytes(content)
        found = one_line(lambda: load_images(str(path), root=tmp_path))
        assert found is None or found.images.dtype == torch.uint8

    check()


@pytest.mark.parametrize("suffix", [".binvox", ".off", ".obj", ".stl"])
@pytest.mark.filterwarnings("ignore")
def test_bodies(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".binvox":
        path.write_bytes(binvox(np.arange(64).reshape(4, 4, 4) % 3 == 0))
    else:
        pytest.importorskip("trimesh").creation.box().export(path)
    raw = path.read_bytes()

    @examples(N)
    @given(damaged(raw))
    def check(content):
        path.write_bytes(content)
        found = one_line(lambda: load_images(str(path), root=tmp_path, size=8))
        assert found is None or found.images.dtype == torch.uint8

    check()


def test_imagenet_batches(tmp_path):
    (tmp_path / "imagenet32").mkdir()

    @examples(N)
    @given(damaged(batch()))
    def check(content):
        (tmp_path / "imagenet32" / "val_data").write_bytes(content)
        one_line(lambda: load_images("imagenet32", "val", root=tmp_path))

    check()


def test_checkpoints(run, tmp_path):
    raw = (run / "checkpoints" / "last.ckpt").read_bytes()
    good = read(run, "cpu").digest()

    @examples(N)
    @given(damaged(raw))
    def check(content):
        (tmp_path / "a.ckpt").write_bytes(content)
        found = one_line(lambda: read(tmp_path / "a.ckpt", "cpu"))
        # what is read in spite of the damage is what was saved
        assert found is None or found.digest() == good

    check()


def test_cards_of_exported_energies(trained, tmp_path):
    trained_path = tmp_path / "exported"
    from genconv.checkpoint import write

    write(trained, trained_path)
    files = {path: path.read_bytes() for path in trained_path.iterdir()}

    @examples(N)
    @given(st.data())
    def check(data):
        path = data.draw(st.sampled_from(sorted(files)))
        for other, content in files.items():
            other.write_bytes(data.draw(damaged(content)) if other == path else content)
        one_line(lambda: read(trained_path, "cpu"))

    check()


SETTINGS = [
    "seed_everything", "name", "runs", "data.name", "data.batch_size", "data.size", "data.channels",
    "data.split", "data.seed", "data.workers", "model.k", "model.lr", "model.chain.steps",
    "model.chain.step_size", "model.chain.temperature", "model.chain.start", "model.buffer_size",
    "model.restart", "model.energy.widths", "model.energy.strides", "model.energy.channels",
    "model.energy", "model", "ema.decay", "guard.every", "guard.patience", "guard.spike",
    "samples.every", "checkpoint.every", "trainer.max_steps", "ckpt_path", "config", "nonsense",
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ["0", "-1", "1", "nan", "inf", "1e99", "null", "[]", "{}", "true", "a", "", "[[0, 1]]",
         "[4, -8]", "[4, 8]", "../..", "{a: b}", "[1, [2]]", "!!python/object:os.system", "\x00"]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8),
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_flags_of_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def begin(words):
        cli = TrainCLI([*TINY, *words])
        _ = cli.resume
        check_shapes(cli.model, cli.datamodule)

    @examples(max(5, N // 8))
    @given(st.lists(st.tuples(st.sampled_from(SETTINGS), VALUES), min_size=1, max_size=2))
    def check(flags):
        words = [word for key, value in flags for word in (f"--{key}", value)]
        # what a user asks to be shown ends the process by itself
        assume(not any(word.startswith(("--help", "--print", "-h")) for _, word in flags))
        try:
            one_line(lambda: begin(words))
        except SystemExit as stop:
            assert stop.code in (0, 2)

    check()
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("command", [sample, score])
@pytest.mark.filterwarnings("ignore")
def test_flags_of_sampling_and_scoring(run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    flags = [
        "--n", "--seed", "--label", "--steps", "--step-size", "--temperature", "--batch-size",
        "--precision", "--device", "--out", "--csv", "--calibrate", "--fpr", "--score", "--shard",
        "--root", "--calibrate-split", "--overwrite", "--background", "--trajectory",
    ]  # fmt: skip

    @examples(N)
    @given(st.lists(st.tuples(st.sampled_from(flags), VALUES), min_size=1, max_size=3))
    def check(chosen):
        # no command line holds a zero byte
        assume(not any("\0" in value for _, value in chosen))
        # small numbers only: a million images are no error
        assume(not any(value.lstrip("+-").isdigit() and len(value) > 3 for _, value in chosen))
        words = [word for pair in chosen for word in pair]
        first = [str(run), "-n", "2"] if command is sample else [str(run), str(tmp_path / "none")]
        try:
            one_line(lambda: command([*first, *words]))
        except SystemExit as stop:
            assert stop.code == 2

    check()
