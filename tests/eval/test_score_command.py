"""The scoring command: one row for every file, whatever it is and whatever happens meanwhile."""

import csv
import fcntl
import hashlib
import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genconv
from genconv.checkpoint import Trained, read, write
from genconv.data import load_images
from genconv.data.decode import open_image
from genconv.data.fit import fit
from genconv.energy import GenerativeConvNet
from genconv.errors import UserError, command
from genconv.eval import measuring, score_command
from genconv.eval.__main__ import main as evaluate
from genconv.eval.score_command import main, part
from genconv.eval.statistics import measure
from genconv.eval.table import original, visible
from genconv.images import save_png
from genconv.sampling import Chain


@pytest.fixture(scope="module", params=[1])
def checkpoint(request, tmp_path_factory):
    """An energy of small images, beside images to calibrate it on."""
    folder = tmp_path_factory.mktemp("energy")
    images = load_images("digits", "test").images[:60]
    np.savez(folder / "calibrate.npz", images=images.movedim(1, -1).numpy())
    return exported(folder, request.param)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of 30 digits in two folders."""
    folder = tmp_path_factory.mktemp("digits")
    for i, image in enumerate(load_images("digits", "train").images[:30]):
        save_png(folder / "ab"[i % 2] / f"{i:02d}.png", image)
    return folder


@pytest.fixture
def score(checkpoint, tmp_path, capsys):
    """Run the command and return the CSV."""

    def score(folder, *options, name="scores.csv"):
        out = tmp_path / name
        main(arguments(checkpoint, folder, out, *options))
        assert capsys.readouterr().out.endswith(f": {out}\n")
        return out

    return score


def exported(folder, channels):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        energy = GenerativeConvNet(channels, widths=(4, 8), strides=2, reference=1.0)
    write(Trained(energy, Chain(3, 0.01, 0.01), (channels, 8, 8), 0), folder)
    return folder


def arguments(checkpoint, folder, out, *options):
    fixed = ["--calibrate", checkpoint / "calibrate.npz", "--device", "cpu", "--batch-size", "4"]
    return list(map(str, [checkpoint, folder, "--csv", out, *fixed, *options]))


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width, height):
    """Return a complete black-and-white PNG."""
    packer, row = zlib.compressobj(1), bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row * 1000) for _ in range(height // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def encoded(image, form, **how):
    file = io.BytesIO()
    image.save(file, format=form, **how)
    return file.getvalue()


def zoo(folder):
    """Fill a folder with what users bring, and return what is to be said of each."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 30, 4), dtype=np.uint8)
    rgb, rgba = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    grey = Image.fromarray(noise[..., 0])
    deep = Image.fromarray((noise[..., 0].astype(np.uint16) << 8) + 7)
    png, jpeg = encoded(rgb, "PNG"), encoded(rgb, "JPEG")
    good = {
        "good.png": (png, "RGB"),
        "jpeg.png": (jpeg, "RGB"),
        "sub/UPPER.JPG": (jpeg, "RGB"),
        "no_suffix": (png, "RGB"),
        "cmyk.jpg": (encoded(rgb.convert("CMYK"), "JPEG"), "CMYK"),
        "deep.png": (encoded(deep, "PNG"), "I;16"),
        "palette.png": (encoded(rgb.convert("P"), "PNG"), "P"),
        "see-through.png": (encoded(rgb.convert("P"), "PNG", transparency=b"\0\x80" * 9), "P"),
        "alpha.webp": (encoded(rgba, "WEBP", lossless=True), "RGBA"),
        "animated.gif": (encoded(rgb.convert("P"), "GIF", save_all=True, append_images=[rgb]), "P"),
        "grey.bmp": (encoded(grey, "BMP"), "L"),
        "one_bit.tif": (encoded(grey.convert("1"), "TIFF"), "1"),
        # Pillow warns of this one
        "bad_exif.jpg": (encoded(rgb, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\0"), "RGB"),
    }
    bad = {
        "empty.png": (b"", "it is empty"),
        "torn.png": (png[: len(png) // 2], "truncated"),
        "torn.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "head.png": (png[:20], ""),
        "flipped.png": (png[:60] + b"\0\0\0\0" + png[64:], ""),
        "text.png": (b"hello", "it is not a PNG, JPEG,"),
        "notes.txt": (b"hello", "it is not a PNG, JPEG,"),
        "figure.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is not a PNG"),
        "float.tif": (encoded(grey.convert("F"), "TIFF"), "its pixels are floats"),
        "huge.png": (huge_png(30000, 30000), "it has several times the cap of 50,000,000 pixels"),
        # between Pillow's warning and its error
        "large.png": (huge_png(10000, 9000), "it has 10000x9000 pixels, above the cap"),
    }
    for name, (content, _) in {**good, **bad}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    errors = {name: error for name, (_, error) in bad.items()}
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inside.png").write_bytes(png)
    (folder / "plain_folder" / "deeper").mkdir(parents=True)
    (folder / "plain_folder" / "deeper" / "x.png").write_bytes(png)
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    (folder / "linked.png").symlink_to(folder / "good.png")
    os.mkfifo(folder / "pipe.png")
    for name in (".hidden.png", ".cache/x.png", "sub/.DS_Store"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(png)
    errors |= {
        "folder.png": "it is a folder",
        "loop": "it is a link to a folder, which is not followed",
        "nowhere.png": "it cannot be read: No such file",
        "pipe.png": "it is no regular file",
    }
    modes = {name: mode for name, (_, mode) in good.items()}
    modes |= dict.fromkeys(
        ("folder.png/inside.png", "plain_folder/deeper/x.png", "linked.png"), "RGB"
    )
    return modes, errors


@pytest.mark.parametrize("checkpoint", [1, 3], indirect=True)
def test_every_file_has_one_row_and_nothing_stands_for_a_failed_one(
    checkpoint, score, tmp_path, capsys
):
    """Faults 11 and 12: corrupt, empty, torn, misnamed, huge; CMYK, 16 bits, palette, alpha."""
    folder, out = tmp_path / "zoo", tmp_path / "scores.csv"
    modes, errors = zoo(folder)
    main(arguments(checkpoint, folder, out))
    flagged = sum(row["flag"] == "1" for row in table(out))
    assert capsys.readouterr().out == (
        f"{len(modes) + len(errors)} files: {len(modes)} scored, {flagged} of them flagged "
        f"(p <= 0.05), {len(errors)} failed; 3 hidden files and folders passed over: {out}\n"
    )
    rows = table(out)
    assert [row["path"] for row in rows] == sorted([*modes, *errors])
    trained = read(checkpoint, "cpu")
    for row in rows:
        path = folder / row["path"]
        numbers = [row["score_energy"], row["p_value"], row["flag"]]
        if path.is_file():
            assert row["sha1"] == hashlib.sha1(path.read_bytes()).hexdigest()
        if row["path"] in errors:
            assert row["status"] == "error"
            assert row["error"]
            assert errors[row["path"]].lower() in row["error"].lower()
            assert str(tmp_path) not in row["error"]
            assert " at 0x" not in row["error"]
            assert numbers == ["", "", ""]
        else:
            assert (row["status"], row["error"], row["mode"]) == ("ok", "", modes[row["path"]])
            assert (row["width"], row["height"]) == ("30", "24")
            image = fit(open_image(path)[None], 8, trained.shape[0])
            expected = measure(trained, image, ["energy"])["energy"]
            assert float(row["score_energy"]) == pytest.approx(float(expected), rel=1e-5)
    sizes = {row["path"]: (row["width"], row["height"]) for row in rows}
    assert sizes["large.png"] == ("10000", "9000")
    assert sizes["torn.png"] == ("30", "24")
    assert sizes["text.png"] == ("", "")


def test_a_huge_image_takes_no_memory(tmp_path):
    """Fault 12."""
    (tmp_path / "huge.png").write_bytes(huge_png(30000, 30000))
    code = (
        "import resource, sys, pathlib; from genconv.data.decode import decode_file\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); found = decode_file(pathlib.Path(sys.argv[1]))\n"
        "print(found.image is None, peak() - before)"
    )
    out = run([sys.executable, "-c", code, str(tmp_path / "huge.png")]).stdout.split()
    assert out[0] == "True"
    # in KiB; decoded it would be 900 MB
    assert int(out[1]) < 30_000


def environment():
    return os.environ | {"PYTHONPATH": str(Path(genconv.__file__).parents[1])}


def run(words, **how):
    return subprocess.run(words, env=environment(), capture_output=True, text=True, **how)


def test_an_archive_among_the_files_is_a_row_and_is_not_unpacked(score, tmp_path):
    """Fault 13: a zip bomb, and archives that would write elsewhere."""
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    save_png(folder / "a.png", torch.zeros(1, 8, 8, dtype=torch.uint8))
    with zipfile.ZipFile(folder / "bomb.png", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../escaped.png", bytes(1 << 25))
    with tarfile.open(folder / "links.tar", "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.add(folder / "a.png", "../escaped.png")
    rows = table(score(folder))
    assert [row["status"] for row in rows] == ["ok", "error", "error"]
    assert all("it is not a PNG" in row["error"] for row in rows[1:])
    assert sorted(path.name for path in (tmp_path / "in").rglob("*")) == [
        "a.png", "bomb.png", "links.tar", "side"
    ]  # fmt: skip


NAMES = [
    "=cmd|' /C calc'!A0.png", "+1.png", "-1.png", "@SUM(A1).png", "\ttab.png", " =1.png", "＝1.png",
    "'quoted.png", "a,b.png", 'say "hi".png', "two\nlines.png", "cr\r.png", "back\\slash.png",
    "\\n.png", "é.png", "語.png", os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"=\xff.png"),
    "semi;colon.png", "esc\x1b[31m.png", "\u2028.png", "\x85.png",
]  # fmt: skip


def test_names_are_safe_and_come_back(score, tmp_path):
    """Fault 20: not UTF-8, commas, line breaks, formulas."""
    folder = tmp_path / "names"
    folder.mkdir()
    for name in NAMES:
        save_png(folder / name, torch.zeros(1, 8, 8, dtype=torch.uint8))
    out = score(folder)
    text = out.read_bytes().decode("utf-8")
    assert len(text.splitlines()) == text.count("\n") == len(NAMES) + 1
    cells = [row["path"] for row in table(out)]
    assert [original(cell) for cell in cells] == sorted(NAMES)
    assert all(os.path.exists(folder / original(cell)) for cell in cells)
    for cell in cells:
        assert not cell.strip().startswith(("=", "+", "-", "@", "＝"))
        assert cell.isprintable()
    assert {row["status"] for row in table(out)} == {"ok"}


def test_visible_is_reversible_and_one_to_one():
    chance = random.Random(0)
    texts = {
        "".join(chance.choices("'=+ \\nux0dc\n\t\x00é\udc80\udcff,\"", k=chance.randrange(7)))
        for _ in range(20000)
    }
    assert [original(visible(text)) for text in texts] == list(texts)
    assert len({visible(text) for text in texts}) == len(texts)


def test_rows_mean_what_they_say(score, digits):
    out = score(digits, "--score", "typicality", "energy", "refine_distance", "--fpr", "0.2")
    rows, kept = table(out), json.loads(out.with_name("scores.csv.json").read_text())["kept"]
    assert list(rows[0]) == [
        *("path", "sha1", "status", "error", "width", "height", "mode"),
        *("score_typicality", "score_energy", "score_refine_distance", "p_value", "flag"),
    ]
    mean = np.mean(kept["validation"]["energy"])
    for row in rows:
        typicality = float(row["score_typicality"])
        assert typicality == pytest.approx(abs(float(row["score_energy"]) - mean), abs=1e-4)
        k = sum(score >= typicality for score in kept["scores"])
        assert float(row["p_value"]) == pytest.approx((k + 1) / (len(kept["scores"]) + 1), rel=1e-6)
        assert row["flag"] == str(int(float(row["p_value"]) <= 0.2))
    assert {row["flag"] for row in rows} == {"0", "1"}
    rate = sorted(float(row["p_value"]) for row in rows)[10]
    for row in table(score(digits, "--score", "typicality", "--fpr", rate, name="rim.csv")):
        assert row["flag"] == str(int(float(row["p_value"]) <= rate))


def test_about_the_promised_share_of_digits_is_flagged(score, tmp_path):
    images = load_images("digits", "all").images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    for i in order[:600].tolist():
        save_png(tmp_path / "belong" / f"{i}.png", images[i])
    np.savez(tmp_path / "rest.npz", images=images[order[600:]].movedim(1, -1).numpy())
    out = score(
        *(tmp_path / "belong", "--calibrate", tmp_path / "rest.npz"),
        *("--fpr", "0.1", "--batch-size", "256"),
    )
    flagged = sum(row["flag"] == "1" for row in table(out))
    # the calibration has chance of its own, half as much
    assert abs(flagged - 60) < 4 * (600 * 0.1 * 0.9 * 1.5) ** 0.5


def test_scores_do_not_depend_on_batches_or_broken_neighbours(score, digits, tmp_path):
    names = "--score", "energy", "refine_distance", "mahalanobis"
    whole = table(score(digits, *names))
    for size in (1, 7, 64):
        rows = table(score(digits, *names, "--batch-size", size, "--overwrite"))
        for row, other in zip(rows, whole, strict=True):
            for key in ("score_energy", "score_refine_distance", "score_mahalanobis"):
                assert float(row[key]) == pytest.approx(float(other[key]), rel=2e-4)
    copy = tmp_path / "copy"
    for row in whole:
        (copy / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        broken = row["path"] in ("a/02.png", "b/11.png")
        (copy / row["path"]).write_bytes(b"" if broken else (digits / row["path"]).read_bytes())
    for row, other in zip(table(score(copy, *names, "--overwrite")), whole, strict=True):
        assert (row == other) == (row["path"] not in ("a/02.png", "b/11.png"))


def test_what_was_cut_anywhere_goes_on_to_the_same_bytes(score, digits, monkeypatch):
    """Fault 19."""
    names = "--score", "energy", "refine_drop"
    out = score(digits, *names)
    whole = out.read_bytes()
    begun, original_measure = [], measure

    def spy(trained, images, wanted, *, first, **how):
        begun.append(first)
        return original_measure(trained, images, wanted, first=first, **how)

    monkeypatch.setattr(measuring, "measure", spy)
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in [0, 1, *ends[:10], ends[3] + 1, *range(50, len(whole), 190), len(whole) - 1]:
        out.write_bytes(whole[:cut])
        begun.clear()
        assert score(digits, *names).read_bytes() == whole
        # whole batches, beginning with the first that lacks a row; the calibration is kept
        rows = max(0, whole[:cut].count(b"\n") - 1)
        assert begun == list(range(rows // 4 * 4, 30, 4))
    assert score(digits, *names).read_bytes() == whole
    assert begun == [28]


def test_an_interrupt_leaves_whole_rows(score, digits, checkpoint, tmp_path, monkeypatch):
    """Fault 19, by Ctrl-C."""
    whole = score(digits, name="whole.csv").read_bytes()
    calls, original_rows = iter(range(3)), score_command.table_rows

    def cut(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original_rows(*args)

    with monkeypatch.context() as patch:
        patch.setattr(score_command, "table_rows", cut)
        with pytest.raises(KeyboardInterrupt):
            score(digits)
    assert (tmp_path / "scores.csv").read_bytes() == b"".join(whole.splitlines(True)[:13])
    assert score(digits).read_bytes() == whole


def test_the_closing_line_counts_earlier_rows_too(checkpoint, digits, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    options = arguments(checkpoint, digits, out, "--fpr", "0.3")
    main(options)
    first = capsys.readouterr().out
    assert first.startswith("30 files: 30 scored, ")
    out.write_bytes(b"".join(out.read_bytes().splitlines(True)[:14]))
    main(options)
    assert capsys.readouterr().out == first


@pytest.mark.slow
def test_kills_at_random_moments_lose_and_double_nothing(checkpoint, tmp_path, capsys):
    """Fault 19, by SIGKILL, ten times in a row."""
    folder, out = tmp_path / "many", tmp_path / "scores.csv"
    images = load_images("digits", "train").images
    for i in range(400):
        save_png(folder / f"{i}.png", images[i])
    (folder / "7.png").write_bytes(b"broken")
    words = "--batch-size", 3, "--score", "energy", "refine_distance"
    main(arguments(checkpoint, folder, tmp_path / "whole.csv", *words))
    whole = (tmp_path / "whole.csv").read_bytes()
    chance, killed = random.Random(0), 0
    words = [sys.executable, "-m", "genconv.eval", "score",
             *arguments(checkpoint, folder, out, *words)]  # fmt: skip
    for i in range(10):
        # the first one soon, while it still calibrates or has hardly begun
        target = (i + chance.random()) * len(whole) / 11
        process = subprocess.Popen(
            words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while process.poll() is None and (not out.exists() or out.stat().st_size < target):
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)
        process.kill()
        assert process.communicate()[1] == b""
        killed += process.returncode == -signal.SIGKILL
        assert whole.startswith(out.read_bytes())
    assert killed == 10
    assert target < len(out.read_bytes()) < len(whole)
    done = run(words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "400 files: 399 scored" in done.stdout
    assert out.read_bytes() == whole


@pytest.mark.parametrize("shards", [1, 3, 11])
def test_shards_join_to_the_whole(score, digits, shards):
    names = "--score", "energy", "refine_drop"
    whole = score(digits, *names).read_bytes()
    parts = [
        score(digits, *names, "--shard", f"{i}/{shards}", name=f"s{i}.csv").read_bytes()
        for i in range(shards)
    ]
    assert parts[0] + b"".join(p.split(b"\n", 1)[1] for p in parts[1:]) == whole


def test_shards_are_whole_batches_and_alike():
    for n in (1, 30, 1000):
        for size in (1, 7, 64):
            for shards in (1, 2, 5, 40):
                parts = [part(n, size, i, shards) for i in range(shards)]
                assert [row for rows in parts for row in rows] == list(range(n))
                assert all(rows.start % size == 0 for rows in parts if rows)
                assert max(map(len, parts)) <= (-(-n // size) // shards + 1) * size


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--fpr", "0.1"], r"another fpr \(0\.05, now 0\.1\)"),
        (["--seed", "1"], r"another seed \(0, now 1\)"),
        (["--batch-size", "5"], "another batch-size"),
        (["--score", "gradient"], "another score"),
        (["--shard", "0/2"], "another shard"),
        (["--calibrate", "digits"], "another calibrate"),
        (["--calibrate-split", "all"], "another calibrate-split"),
    ],
)
def test_the_table_of_another_job_is_not_touched(score, digits, options, named):
    out = score(digits)
    before = out.read_bytes(), out.with_name("scores.csv.json").read_bytes()
    with pytest.raises(UserError, match=named) as error:
        score(digits, *options)
    assert str(out) in str(error.value)
    assert (out.read_bytes(), out.with_name("scores.csv.json").read_bytes()) == before
    fresh = score(digits, *options, name="fresh.csv").read_bytes()
    assert score(digits, *options, "--overwrite").read_bytes() == fresh
    assert score(digits, *options).read_bytes() == fresh
    with pytest.raises(UserError, match="another"):
        score(digits)


def test_other_weights_or_files_are_another_job(score, digits, checkpoint, tmp_path):
    score(digits)
    with pytest.raises(UserError, match="another list of files"):
        score(digits / "a")
    trained = read(checkpoint, "cpu")
    with torch.no_grad():
        trained.energy.head.weight.add_(1)
    write(trained, tmp_path / "other")
    with pytest.raises(UserError, match="another energy"):
        main([str(tmp_path / "other"), *arguments(checkpoint, digits, tmp_path / "scores.csv")[1:]])


def test_what_is_not_ours_is_not_touched(score, digits, tmp_path):
    out = tmp_path / "scores.csv"
    out.write_text("my,own\n")
    with pytest.raises(UserError, match="does not say of which job"):
        score(digits)
    assert out.read_text() == "my,own\n"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0].replace(b'"flag"', b'"alarm"'), *lines[1:]], "does not begin"),
        (lambda lines: [*lines[:4], *lines[5:]], "row 4 of .* is not that of the file"),
        (lambda lines: [*lines, lines[-1]], "row 31 of .* is not that of the file"),
        (lambda lines: [*lines[:4], b"\xff\n", *lines[4:]], "line 5 of .* is no row"),
    ],
)
def test_a_table_that_was_changed_is_not_gone_on_with(score, digits, change, message):
    out = score(digits)
    out.write_bytes(b"".join(change(out.read_bytes().splitlines(True))))
    before = out.read_bytes()
    with pytest.raises(UserError, match=message):
        score(digits)
    assert out.read_bytes() == before


def test_one_process_at_a_time(score, digits):
    out = score(digits)
    whole = out.read_bytes()
    with out.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process writes"):
            score(digits)
        with pytest.raises(UserError, match="another process writes"):
            score(digits, "--overwrite", "--seed", "1")
    assert out.read_bytes() == whole
    assert score(digits).read_bytes() == whole


def test_a_full_disk_is_said_and_gone_on_after(score, digits):
    out = score(digits)
    whole, was = out.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    out.write_bytes(b"")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # within the last batch
    limit = len(whole) - 50
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, was[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*the same command goes on"):
            score(digits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)
    assert out.read_bytes() == whole[:limit]
    assert score(digits).read_bytes() == whole


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_chunk_and_not_the_scores(score, digits, monkeypatch, error):
    """Fault 10."""
    names = "--score", "energy", "refine_distance", "--batch-size", "16"
    whole = table(score(digits, *names))
    sizes, real = [], measure

    def scarce(*args, batch_size, **how):
        # an error that is still being handled holds on to what filled the memory
        assert sys.exc_info() == (None, None, None)
        sizes.append(batch_size)
        if batch_size > 4:
            raise error
        return real(*args, batch_size=batch_size, **how)

    monkeypatch.setattr(measuring, "measure", scarce)
    rows = table(score(digits, *names, "--overwrite"))
    # what the calibration found not to fit is not tried again
    assert sizes[:3] == [16, 8, 4]
    assert set(sizes[3:]) == {4}
    for row, other in zip(rows, whole, strict=True):
        assert row["path"] == other["path"]
        for key in ("score_energy", "score_refine_distance", "p_value"):
            assert float(row[key]) == pytest.approx(float(other[key]), rel=1e-5)


def test_no_memory_at_all_is_said_and_other_errors_are_not_hidden(score, digits, monkeypatch):
    """Fault 10, where halving does not help."""
    raised = torch.OutOfMemoryError("CUDA out of memory")

    def failing(*args, **how):
        raise raised

    monkeypatch.setattr(measuring, "measure", failing)
    with pytest.raises(UserError, match=r"no memory for one image of shape \(1, 8, 8\)"):
        score(digits)
    raised = RuntimeError("shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes"):
        score(digits)


def test_a_score_that_is_no_number_is_an_error(score, digits, monkeypatch):
    def odd(trained, images, wanted, *, first, **how):
        found = measure(trained, images, wanted, first=first, **how)
        if len(images) == 4 and first == 4 and how["seed"] == 0:
            found["energy"][1], found["energy"][2] = torch.nan, torch.inf
        return found

    monkeypatch.setattr(measuring, "measure", odd)
    rows = table(score(digits))
    assert [i for i, row in enumerate(rows) if row["status"] == "error"] == [5, 6]
    for row in rows[5:7]:
        assert row["error"] == "its score is not a finite number"
        assert (row["score_energy"], row["p_value"], row["flag"]) == ("", "", "")
        assert row["mode"] == "L"


@pytest.mark.parametrize("checkpoint", [3], indirect=True)
def test_one_grey_image_of_another_size(checkpoint, score, tmp_path):
    """Fault 23: grey, 28x28, alone."""
    image = torch.arange(28 * 28).view(1, 28, 28).remainder(256).to(torch.uint8)
    save_png(tmp_path / "one" / "grey.png", image)
    (row,) = table(score(tmp_path / "one"))
    trained = read(checkpoint, "cpu")
    expected = measure(trained, fit(image[None], 8, 3), ["energy"])["energy"]
    assert float(row["score_energy"]) == pytest.approx(float(expected), rel=1e-5)
    assert (row["status"], row["width"], row["mode"]) == ("ok", "28", "L")


def test_a_background_energy_is_of_use_and_needed(score, digits, checkpoint, tmp_path):
    with pytest.raises(UserError, match="background energy is needed"):
        score(digits, "--score", "ratio")
    assert not list(tmp_path.iterdir())
    rows = table(score(digits, "--score", "ratio", "--background", checkpoint))
    assert {float(row["score_ratio"]) for row in rows} == {0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--fpr", "0"], "--fpr must lie between 0 and 1"),
        (["--fpr", "nan"], "--fpr must lie between 0 and 1"),
        (["--fpr", "0.001"], r"cannot calibrate on .*, test: 60 calibration images cannot"),
        (["--shard", "4/4"], "--shard must be I/K"),
        (["--shard", "1"], "--shard must be I/K"),
        (["--score", "magic"], "no score 'magic'"),
        (["--score", "max_logit"], "need an energy with classes"),
        (["--calibrate", "cifar11"], "did you mean 'cifar10'"),
        (["--calibrate", "digits", "--calibrate-split", "val"], "no split 'val'"),
    ],
)
def test_wrong_options_are_named_and_leave_nothing(score, digits, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        score(digits, *options)
    assert not list(tmp_path.iterdir())


def test_wrong_folders_are_named(score, checkpoint, digits, tmp_path):
    """Fault 23: no folder, an empty one, only hidden files."""
    with pytest.raises(UserError, match=r"there is no folder .*gone"):
        score(tmp_path / "gone")
    with pytest.raises(UserError, match="is a file; give the folder"):
        score(digits / "a" / "00.png")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(UserError, match=r"there is no file in .*empty; give"):
        score(tmp_path / "empty")
    (tmp_path / "empty" / "below" / ".x.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no file in .*\(1 hidden ones were passed over\)"):
        score(tmp_path / "empty")
    with pytest.raises(UserError, match=r"would lie in .*; choose another --csv"):
        main(arguments(checkpoint, digits, digits / "a" / "scores.csv"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write .*choose another"):
        score(digits, name="file/scores.csv")


def test_energies_of_other_things_are_refused(checkpoint, digits, tmp_path):
    energy = GenerativeConvNet(1, dims=3, widths=(4,))
    write(Trained(energy, Chain(), (1, 4, 8, 8), 0), tmp_path / "video")
    with pytest.raises(UserError, match="square grey or RGB images"):
        main([str(tmp_path / "video"), *arguments(checkpoint, digits, tmp_path / "a.csv")[1:]])


def test_exit_codes(checkpoint, digits, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command(lambda: evaluate(["score", *arguments(checkpoint, tmp_path / "gone", "a.csv")]))
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: there is no folder")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"")
    # all rows are there: that all are errors is no failure
    command(
        lambda: evaluate(
            ["score", *arguments(checkpoint, tmp_path / "broken", tmp_path / "scores.csv")]
        )
    )
    assert "1 files: 0 scored, 0 of them flagged (p <= 0.05), 1 failed" in capsys.readouterr().out


def test_pillows_warnings_do_not_touch_the_filters(score, tmp_path):
    zoo(tmp_path / "zoo")
    before = list(warnings.filters)
    score(tmp_path / "zoo")
    assert list(warnings.filters) == before


@pytest.mark.slow
def test_memory_is_flat(score, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    (tmp_path / "one.jpg").write_bytes(encoded(Image.fromarray(noise), "JPEG"))
    (tmp_path / "many").mkdir()
    for i in range(3000):
        os.link(tmp_path / "one.jpg", tmp_path / "many" / f"{i}.jpg")
    resident, append = [], score_command.Table.append

    def spy(self, rows):
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
        append(self, rows)

    monkeypatch.setattr(score_command.Table, "append", spy)
    score(tmp_path / "many", "--batch-size", "50", "--score", "mahalanobis")
    assert len(resident) == 60
    # kept whole they would take 500 MB
    assert max(resident[10:]) - resident[10] < 30e6
