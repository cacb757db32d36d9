"""The commands `reconstruct` and `interpolate`: what they find, measure and write."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import genconv.tasks.latent_command as command
from genconv.checkpoint import read
from genconv.data import load_images
from genconv.edit import main
from genconv.errors import UserError
from genconv.images import from_uint8, to_uint8
from genconv.tasks.latent import explain


@pytest.fixture
def edit(cooperative, tmp_path, capsys):
    """Run a task into a new folder; return its arrays, its report and its words."""

    def edit(task, *options, images="digits", out="out"):
        out = tmp_path / out
        options = [*map(str, options), "--out", str(out), "--device", "cpu"]
        main([task, str(cooperative), str(images), *options])
        assert not list(tmp_path.glob("*.part"))
        with np.load(out / "results.npz") as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file}
        return arrays, json.loads((out / "report.json").read_text()), capsys.readouterr().out

    return edit


def digits(split="test"):
    images = load_images("digits", split)
    return from_uint8(images.images), images.labels


def test_reconstructions_are_made_of_latent_vectors_and_measured(edit, cooperative, tmp_path):
    arrays, report, printed = edit("reconstruct", "-n", 5, "--starts", 3, "--against", "digits")
    trained, (truth, labels), (train, known) = read(cooperative, "cpu"), digits(), digits("train")
    truth, labels = truth[:5], labels[:5]
    expected = explain(trained, truth, range(5), 3, 0)
    torch.testing.assert_close(arrays["latent"], expected, atol=1e-5, rtol=1e-5)
    made = trained.generator(arrays["latent"])
    assert torch.equal(arrays["images"].movedim(-1, 1), to_uint8(made))
    assert arrays["revised"].shape == (5, 8, 8, 1)
    table = report["table"]
    mean = torch.stack([train[known == label].mean(0) for label in labels])
    for name, x in {"generator": made, "mean image of the class": mean}.items():
        error = float((x - truth).square().mean())
        assert table[name]["squared_error"] == pytest.approx(error, rel=1e-4)
        assert table[name]["psnr"] == pytest.approx(10 * np.log10(4 / error), abs=1e-3)
    assert table["4 principal components"]["squared_error"] < table["mean image"]["squared_error"]
    assert all(name.split()[0] in printed for name in table)
    with Image.open(tmp_path / "out" / "picture.png") as picture:
        assert picture.width > 100


def test_without_a_training_set_there_is_nothing_to_compare_with(edit):
    _, report, _ = edit("reconstruct", "-n", 2, "--starts", 1)
    assert list(report["table"]) == ["generator", "generator, revised by the energy"]


def test_ways_lead_from_image_to_image_and_their_energies_are_told(edit, cooperative):
    arrays, report, printed = edit("interpolate", "--pairs", 2, "--points", 3, "--starts", 2)
    trained, (truth, _) = read(cooperative, "cpu"), digits()
    z = arrays["latent"]
    torch.testing.assert_close(z, explain(trained, truth[:4], range(4), 2, 0), atol=1e-5, rtol=1e-5)
    way = torch.stack([z[::2], (z[::2] + z[1::2]) / 2, z[1::2]], 1)
    made = trained.generator(way.flatten(0, 1))
    assert arrays["images"].shape == arrays["generator"].shape == (2, 3, 8, 8, 1)
    off = arrays["generator"].movedim(-1, 2).flatten(0, 1).short() - to_uint8(made).short()
    assert off.abs().max() <= 1
    energies, e_data = trained.energy(made), trained.energy(truth)
    assert report["data"] == {
        "n": 300,
        "mean": pytest.approx(float(e_data.mean()), rel=1e-4),
        "percentile_95": pytest.approx(float(np.percentile(e_data, 95)), rel=1e-4),
    }
    row = report["table"]["generator"]
    assert row["highest"] == pytest.approx(float(energies.max()), rel=1e-3)
    assert row["mean"] == pytest.approx(float(energies.mean()), rel=1e-3)
    within = (energies <= report["data"]["percentile_95"]).float().mean()
    assert row["within"] == pytest.approx(float(within))
    revised = report["table"]["generator, revised by the energy"]
    assert revised["mean"] == pytest.approx(float(arrays["energies"].mean()), rel=1e-4)
    blend = (truth[0:4:2] + truth[1:4:2]) / 2
    blends = torch.stack([truth[0:4:2], blend, truth[1:4:2]], 1).flatten(0, 1)
    expected = float(trained.energy(blends).max())
    assert report["table"]["blended pixels"]["highest"] == pytest.approx(expected, rel=1e-4)
    assert "energies along 2 ways; of 300 images" in printed


def test_no_revision_leaves_what_the_generator_made(edit):
    arrays, report, _ = edit("interpolate", "--pairs", 1, "--revise", 0, "--starts", 1)
    assert torch.equal(arrays["images"], arrays["generator"])
    assert report["chain"]["steps"] == 0


def test_what_was_cut_short_goes_on(edit, cooperative, tmp_path, monkeypatch):
    options = ("-n", 6, "--starts", 2, "--batch-size", 4)
    whole = edit("reconstruct", *options, out="whole")[0]
    done, original = [], command.explain

    def cut(trained, x, numbers, starts, seed):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(numbers)
        return original(trained, x, numbers, starts, seed)

    with monkeypatch.context() as patch:
        patch.setattr(command, "explain", cut)
        with pytest.raises(KeyboardInterrupt):
            edit("reconstruct", *options)
    assert (tmp_path / "out.part").is_dir()
    with pytest.raises(UserError, match="begun with another starts"):
        edit("reconstruct", "-n", 6, "--starts", 3)
    again = edit("reconstruct", *options)[0]
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_out_of_memory_takes_smaller_bites_of_the_same_images(edit, monkeypatch):
    options = ("-n", 6, "--starts", 2, "--batch-size", 8)
    whole = edit("reconstruct", *options, out="whole")[0]["latent"]
    sizes, real = [], command.explain

    def scarce(trained, x, numbers, starts, seed):
        sizes.append(len(numbers))
        if len(numbers) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(trained, x, numbers, starts, seed)

    monkeypatch.setattr(command, "explain", scarce)
    torch.testing.assert_close(edit("reconstruct", *options)[0]["latent"], whole)
    assert sizes == [4, 2, 2, 2]


def test_one_image_file_will_do(edit, tmp_path):
    Image.new("L", (8, 8), 120).save(tmp_path / "a.png")
    _, report, _ = edit("reconstruct", "--starts", 1, images=tmp_path / "a.png")
    assert report["n"] == 1


@pytest.mark.parametrize(
    ("task", "options", "match"),
    [
        ("reconstruct", ("-n", 0), "-n must be at least 1"),
        ("reconstruct", ("--starts", 0), "--starts must be"),
        ("reconstruct", ("--revise", -1), "--revise must be"),
        ("reconstruct", ("--temperature", -1), "--temperature must be"),
        ("reconstruct", ("--against", "digit"), "did you mean 'digits'"),
        ("interpolate", ("--points", 1), "--points must be at least 2"),
        ("interpolate", ("--pairs", 200), "holds 300 images, and --pairs 200 needs 400"),
        ("interpolate", ("--step-size", "nan"), "--step-size must be"),
        ("interpolate", ("--step-size", 1e30), "have diverged; lower --step-size"),
    ],
)
def test_what_cannot_be_is_one_sentence(edit, tmp_path, task, options, match):
    with pytest.raises(UserError, match=match):
        edit(task, *options)
    assert not (tmp_path / "out").exists()


def test_an_energy_alone_explains_nothing(run, tmp_path):
    with pytest.raises(UserError, match="has no generator; cooperative training teaches one"):
        main(["reconstruct", str(run), "digits", "--out", str(tmp_path / "a")])


def test_what_is_there_is_kept(edit, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists; choose another --out or add --overwrite"):
        edit("reconstruct")
