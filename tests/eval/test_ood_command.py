"""The benchmark command, from sets of images to tables, pictures and JSON."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import genconv.eval.ood_command as command
from genconv.data import load_images
from genconv.errors import UserError
from genconv.eval import SCORES, auroc, measure, measuring, score_all
from genconv.eval.__main__ import main
from genconv.eval.detection import NUMBERS
from genconv.eval.ood_sets import constant, controlled, interpolation, uniform
from genconv.images import save_png

CHEAP = ("--scores", "energy", "typicality", "refine_drop")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randint(256, shape, generator=generator(seed)).byte()


@pytest.fixture
def benchmark(run, tmp_path, monkeypatch, capsys):
    """Run the command, and return its report and what it printed."""
    monkeypatch.setattr(command, "RESAMPLES", 20)

    def benchmark(*options, checkpoint=run, data="digits", folder="out"):
        folder = tmp_path / folder
        main(
            ["ood", str(checkpoint), "--in", str(data), "--device", "cpu", "-n", "40"]
            + ["--root", str(tmp_path / "root"), "--folder", str(folder)]
            + [str(option) for option in options]
        )
        report = json.loads((folder / "ood.json").read_text())
        return report, capsys.readouterr().out

    return benchmark


def test_all_of_it(benchmark, tmp_path, trained):
    out = ["uniform", "constant", "interpolation", "digits:train"]
    report, printed = benchmark(
        *[word for name in out for word in ("--out", name)], "--near", "interpolation"
    )
    assert list(report["sets"]) == out
    labelled = {"ratio", "max_probability", "max_logit"}
    for rows in report["sets"].values():
        assert list(rows) == [name for name in SCORES if name not in labelled]
        for row in rows.values():
            assert (row["n_id"], row["n_ood"], row["prevalence"]) == (40, 40, 0.5)
            assert all(0 <= row[name] <= 1 for name in NUMBERS)
            assert all(row["intervals"][name][0] <= row["intervals"][name][1] for name in NUMBERS)
    assert report["sets"]["uniform"]["mahalanobis"]["auroc"] > 0.95
    far = [report["sets"][name]["energy"] for name in out if name != "interpolation"]
    for name in NUMBERS:
        assert report["averages"]["far"]["energy"][name] == pytest.approx(
            sum(row[name] for row in far) / 3
        )
        assert report["averages"]["near"]["energy"][name] == pytest.approx(
            report["sets"]["interpolation"]["energy"][name]
        )
    for title in ("digits: n 40", "digits:train: n 40, prevalence 0.500", "near", "far"):
        assert title in printed
    assert f"{report['sets']['constant']['energy']['auroc']:.3f}" in printed
    for picture in ("histograms.png", "roc.png"):
        with Image.open(tmp_path / "out" / picture) as image:
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert f'data-value="{report["sets"]["constant"]["energy"]["auroc"]}"' in page
    assert page.count("data:image/png;base64,") == 2 + 2 * (1 + len(out))
    assert "images by <code>mahalanobis</code>" in page
    how = report["protocol"]
    assert how["energy"]["weights_sha256"] in page
    assert how["energy"]["updates"] == trained.updates
    assert len(how["energy"]["weights_sha256"]) == 64
    assert how["refine"]["steps"] == 10
    assert how["refine"]["temperature"] == 0.1
    assert how["in"] == {"name": "digits", "split": "test", "n": 40}
    assert how["validation"] == {"name": "digits (validation)", "split": "train", "n": 40}
    assert how["out"][3] == {"name": "digits:train", "split": "train", "n": 40}
    assert how["control"] is None


def test_numbers_are_those_of_the_library(benchmark, tmp_path, trained):
    outside = noise(30, 1, 8, 8)
    np.savez(tmp_path / "noise.npz", images=outside.movedim(1, -1).numpy())
    report, _ = benchmark("--out", tmp_path / "noise.npz", *CHEAP, "-n", "5000", "--seed", "3")
    sets = [load_images("digits", split).images for split in ("train", "test")] + [outside]
    names, needs = CHEAP[1:], ("energy", "drop")
    fitted, *rest = (measure(trained, images, needs, seed=3) for images in sets)
    a, b = (score_all(names, s, fitted) for s in rest)
    (rows,) = report["sets"].values()
    for name in names:
        assert rows[name]["auroc"] == pytest.approx(auroc(a[name], b[name]), abs=1e-6)
        assert (rows[name]["n_id"], rows[name]["n_ood"]) == (300, 30)
        median = report["quantiles"][name]["digits"]["0.5"]
        assert median == pytest.approx(float(a[name].quantile(0.5)), rel=1e-5)


def test_one_seed_one_report_whatever_the_batches_and_the_other_sets(benchmark):
    a, _ = benchmark("--out", "uniform", "--out", "constant", *CHEAP)
    b, _ = benchmark("--out", "constant", *CHEAP, "--batch-size", "7")
    for name in NUMBERS:
        assert b["sets"]["constant"]["energy"][name] == pytest.approx(
            a["sets"]["constant"]["energy"][name], abs=1e-6
        )
    c, _ = benchmark("--out", "constant", *CHEAP, "--seed", "1")
    assert c["quantiles"] != b["quantiles"]
    assert b["averages"].keys() == {"all"}


def test_folders_and_files_of_any_size_and_colour(benchmark, tmp_path):
    """Fault 23: sets of another size and colour than the energy's."""
    for i, image in enumerate(noise(5, 3, 20, 31)):
        save_png(tmp_path / "flat" / f"{i}.png", image)
        save_png(tmp_path / "split" / "test" / f"{i}.png", image)
        save_png(tmp_path / "split" / "train" / f"{i}.png", 255 - image)
    (tmp_path / "packed").mkdir()
    for name in ("packed/test.npz", "packed/more.npz", "one.npz"):
        np.savez(tmp_path / name, images=noise(6, 16, 16, 3).numpy())
    names = ["flat", "split", "split:train", "packed", "packed:more", "one.npz"]
    options = [word for name in names for word in ("--out", tmp_path / name)]
    report, _ = benchmark(*options, "--scores", "energy")
    told = report["protocol"]["out"]
    assert [part["split"] for part in told] == ["all", "test", "train", "test", "more", None]
    assert [part["n"] for part in told] == [5, 5, 5, 6, 6, 6]
    _, flat, split, other, *_ = report["quantiles"]["energy"].values()
    assert flat == split != other


def test_one_source_is_cut_in_disjoint_halves(benchmark, tmp_path, monkeypatch):
    np.savez(tmp_path / "all.npz", images=noise(30, 8, 8, 1).numpy())
    sets = []
    whole = command.measure_all
    monkeypatch.setattr(
        command, "measure_all", lambda t, s, *a, **how: sets.extend(s[:2]) or whole(t, s, *a, **how)
    )
    options = ("--out", "constant", "--scores", "energy", "-n", "9000")
    report, _ = benchmark(*options, data=tmp_path / "all.npz")
    benchmark(*options, "--in-split", "all", "--validation", "all")
    for one, other, n in [(*sets[:2], 30), (*sets[2:], 1797)]:
        assert len(one.images) + len(other.images) == n
        assert abs(len(one.images) - len(other.images)) <= 1
        rows = [{bytes(image.numpy().tobytes()) for image in part.images} for part in (one, other)]
        # a digit may have a twin
        assert len(rows[0] & rows[1]) < 0.01 * n
    assert report["protocol"]["in"]["split"] is None


def test_classes_and_a_background(benchmark, conditional):
    labelled = ["ratio", "max_probability", "max_logit", "energy"]
    report, _ = benchmark(
        *("--out", "uniform", "--background", conditional, "--scores", *labelled),
        checkpoint=conditional,
    )
    rows = report["sets"]["uniform"]
    assert list(rows) == labelled
    # an energy over itself is no news
    assert rows["ratio"]["auroc"] == 0.5
    assert report["protocol"]["background"]["checkpoint"] == str(conditional)


def test_constants_are_constant_and_half_of_them_grey():
    images = constant(40, (3, 8, 8), generator())
    assert images.shape == (40, 3, 8, 8)
    assert images.dtype == torch.uint8
    assert (images == images[:, :, :1, :1]).all()
    grey = (images[:, :1] == images).flatten(1).all(1)
    assert grey[::2].all()
    assert not grey[1::2].any()
    assert len(images.flatten(1).unique(dim=0)) > 30


def test_uniform_noise_takes_every_level():
    images = uniform(40, (3, 8, 8), generator())
    assert images.dtype == torch.uint8
    assert len(images.unique()) == 256
    assert images.float().mean() == pytest.approx(127.5, abs=4)


def test_interpolations_are_means_of_two_different_images():
    images = torch.eye(16, dtype=torch.uint8).mul(200).view(16, 1, 4, 4)
    mixed = interpolation(300, images, generator()).flatten(1)
    assert mixed.dtype == torch.uint8
    assert ((mixed == 100).sum(1) == 2).all()
    assert ((mixed == 0).sum(1) == 14).all()
    # levels beyond 127 must not wrap around
    bright = torch.tensor([250, 253]).byte().view(2, 1, 1, 1)
    assert interpolation(5, bright, generator()).unique().tolist() == [252]


def test_jpeg_control_is_what_pillow_writes():
    images = noise(3, 3, 16, 16)
    file = io.BytesIO()
    array = images[1].movedim(0, -1).numpy()
    Image.fromarray(array).save(file, format="JPEG", quality=75, subsampling=2)
    with Image.open(file) as opened:
        expected = np.asarray(opened)
    assert (controlled(images, "jpeg75")[1].movedim(0, -1).numpy() == expected).all()
    assert controlled(images, "jpeg").equal(controlled(images, "jpeg75"))
    assert not controlled(images, "jpeg10").equal(controlled(images, "jpeg75"))
    assert controlled(images[:, :1], "jpeg75").shape == (3, 1, 16, 16)
    assert controlled(images, None) is images


def test_resize_control_goes_down_and_up():
    images = noise(3, 3, 16, 16)
    small = F.interpolate(images.float(), size=(8, 8), mode="bicubic", antialias=True)
    small = small.round().clamp(0, 255)
    expected = F.interpolate(small, size=(16, 16), mode="bicubic", antialias=True)
    assert controlled(images, "resize").equal(expected.round().clamp(0, 255).byte())
    assert controlled(images, "resize8").equal(controlled(images, "resize"))
    assert not controlled(images, "resize12").equal(controlled(images, "resize"))


def test_a_control_needs_square_pictures():
    for shape in [(2, 3, 4, 8, 8), (2, 2, 8, 8), (2, 3, 8, 9), (2, 3)]:
        with pytest.raises(UserError, match="square pictures"):
            controlled(noise(*shape), "jpeg75")


def test_a_control_takes_a_shortcut_away(benchmark, tmp_path):
    # the outside are the inside themselves, but compressed
    images = controlled(load_images("digits", "test").images, "jpeg20")
    np.savez(tmp_path / "squeezed.npz", images=images.movedim(1, -1).numpy())
    options = ("--out", tmp_path / "squeezed.npz", "--scores", "complexity", "-n", "300")
    plain, _ = benchmark(*options)
    same, printed = benchmark(*options, "--control", "jpeg20")
    (plain,), (rows,) = plain["sets"].values(), same["sets"].values()
    assert abs(plain["complexity"]["auroc"] - 0.5) > 0.1
    assert abs(rows["complexity"]["auroc"] - 0.5) < 0.05
    assert same["protocol"]["control"] == "jpeg20"
    assert "control jpeg20" in printed


def test_what_is_not_finite_costs_its_own_cell_only(benchmark, monkeypatch):
    whole = measure

    def diverging(trained, images, *args, **how):
        found = whole(trained, images, *args, **how)
        if (images == images[..., :1, :1]).all():
            found["drop"][3] = float("nan")
        return found

    monkeypatch.setattr(measuring, "measure", diverging)
    report, printed = benchmark("--out", "constant", "--out", "uniform", *CHEAP)
    sentence = "1 of 40 images of constant have no finite refine_drop"
    assert report["sets"]["constant"]["refine_drop"] == {"error": sentence}
    assert report["averages"]["all"]["refine_drop"] == {"error": sentence}
    assert report["sets"]["uniform"]["refine_drop"]["n_ood"] == 40
    assert report["sets"]["constant"]["energy"]["n_ood"] == 40
    assert f"refine_drop: {sentence}" in " ".join(printed.split())
    assert "constant" not in report["quantiles"]["refine_drop"]


def test_without_one_finite_number_there_is_a_report_all_the_same(benchmark, monkeypatch, tmp_path):
    def broken(trained, images, wanted, **how):
        return {name: torch.full((len(images),), float("inf")).double() for name in wanted}

    monkeypatch.setattr(measuring, "measure", broken)
    report, _ = benchmark("--out", "constant", "--scores", "energy", "typicality")
    rows = report["sets"]["constant"]
    assert all("the energy of validation images" in row["error"] for row in rows.values())
    assert not list((tmp_path / "out").glob("*.png"))


def test_json_goes_where_it_is_told(benchmark, tmp_path):
    benchmark("--out", "constant", *CHEAP)
    before = (tmp_path / "out" / "ood.json").read_bytes()
    benchmark("--out", "uniform", *CHEAP, "--json", tmp_path / "else" / "x.json")
    assert (tmp_path / "out" / "ood.json").read_bytes() == before
    assert list(json.loads((tmp_path / "else" / "x.json").read_text())["sets"]) == ["uniform"]


def test_names_are_no_markup_emoji_or_formula(benchmark, tmp_path):
    for name in ("_[red]:smile:$a_$b^", "x" * 60):
        save_png(tmp_path / name / "0.png", noise(1, 8, 8))
    names = [path.name for path in sorted(tmp_path.iterdir()) if path.is_dir()]
    options = [word for name in names for word in ("--out", tmp_path / name)]
    _, printed = benchmark(*options, "--scores", "energy")
    assert "[red]:smile:$a_$b^" in "".join(printed.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", 1], "-n must be at least 2, not 1"),
        (["--seed", -1], "--seed must be at least 0"),
        (["--steps", 0], "--steps must be at least 1"),
        (["--batch-size", 0], "--batch-size must be at least 1"),
        (["--scores", "beauty"], "no score 'beauty'; choose from energy"),
        (["--scores", "energy", "ratio"], "'ratio' needs --background"),
        (["--scores", "max_logit"], "'max_logit' needs an energy with classes"),
        (["--near", "svhn"], "--near svhn is none of the --out sets"),
        (["--out", "uniform"], "--out uniform is given twice"),
        (["--out", "digits"], "--out digits is the in-distribution set"),
        (["--out", "digts"], "did you mean 'digits'"),
        (["--out", "./nowhere"], "no such folder or file"),
        (["--out", "digits:middle"], "no split 'middle'"),
        (["--in-split", "middle"], "no split 'middle'"),
        (["--control", "gif"], "no control 'gif'; take jpeg75"),
        (["--control", "jpeg101"], "no control 'jpeg101'"),
        (["--control", "resize0"], "no control 'resize0'"),
        (["--background", "./nowhere"], "there is no nowhere"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(benchmark, monkeypatch, options, message):
    monkeypatch.setattr(command, "measure_all", lambda *args, **how: pytest.fail("measured first"))
    with pytest.raises(UserError, match=message) as caught:
        benchmark("--out", "uniform", *options)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_measured(
    benchmark, monkeypatch, tmp_path
):
    monkeypatch.setattr(command, "measure_all", lambda *args, **how: pytest.fail("measured first"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make the folder .*file"):
        benchmark("--out", "uniform", folder="file")
    with pytest.raises(UserError, match=r"cannot make the folder .*file"):
        benchmark("--out", "uniform", "--json", tmp_path / "file" / "x.json")


def test_too_few_images_to_cut(benchmark, tmp_path):
    np.savez(tmp_path / "three.npz", images=noise(3, 8, 8, 1).numpy())
    with pytest.raises(UserError, match="too few images"):
        benchmark("--out", "uniform", data=tmp_path / "three.npz")
