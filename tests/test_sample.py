"""The sampling command: what it draws, how it writes it, and how it goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genconv.sample
from genconv.checkpoint import Trained, read, write
from genconv.data import load_images
from genconv.energy import GenerativeConvNet
from genconv.errors import UserError
from genconv.images import to_uint8
from genconv.sample import main, sample
from genconv.sampling import Chain
from genconv.seeds import stream


@pytest.fixture
def draw(run, tmp_path, capsys):
    """Run the command into a new file and return its images."""

    def draw(*options, checkpoint=run, out="a.npz"):
        out = tmp_path / out
        main([str(checkpoint), "--out", str(out), "--device", "cpu", *map(str, options)])
        assert capsys.readouterr().out.endswith(f"images: {out}\n")
        assert not list(tmp_path.glob("*.part"))
        if out.suffix != ".npz":
            return out
        with np.load(out) as file:
            return dict(file)

    return draw


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def cut_after(monkeypatch, batches, error=KeyboardInterrupt):
    """Let a Ctrl-C come after so many batches."""
    rest, whole = iter(range(batches)), genconv.sample.sample

    def cut(*args, **how):
        if next(rest, None) is None:
            raise error
        return whole(*args, **how)

    monkeypatch.setattr(genconv.sample, "sample", cut)


def interrupted(monkeypatch, batches, *args):
    with monkeypatch.context() as patch:
        cut_after(patch, batches)
        with pytest.raises(KeyboardInterrupt):
            main(list(map(str, args)))


@pytest.mark.parametrize("which", ["run", "conditional"])
def test_images_depend_on_seed_and_number_only(draw, request, which):
    checkpoint = request.getfixturevalue(which)

    def images(*options):
        return draw(*options, "--overwrite", checkpoint=checkpoint)["images"]

    ten = images("-n", 10)
    assert len(np.unique(ten, axis=0)) == 10
    for batch_size in (1, 3, 7):
        assert np.array_equal(images("-n", 10, "--batch-size", batch_size), ten)
    assert np.array_equal(images("-n", 4), ten[:4])
    assert np.array_equal(images("-n", 13, "--batch-size", 5)[:10], ten)
    other = images("-n", 10, "--seed", 1)
    assert not any((other == image).all((1, 2, 3)).any() for image in ten)


def test_numbers_of_images_are_numbers_of_streams(trained):
    ten = sample(trained, range(10))
    assert torch.equal(sample(trained, range(6, 9)), ten[6:9])


def test_overrides_reach_the_chain(draw, run, monkeypatch):
    chains, whole = [], genconv.sample.sample

    def spy(trained, rows, **how):
        chains.append(trained.chain)
        return whole(trained, rows, **how)

    monkeypatch.setattr(genconv.sample, "sample", spy)
    own = read(run, "cpu").chain
    plain = draw("-n", 4)["images"]
    for options, chain in [
        ([], own),
        (["--steps", 9], own.at(steps=9)),
        (["--step-size", 0.5], own.at(step_size=0.5)),
        (["--temperature", 2.0], own.at(temperature=2.0)),
        (["--stretch", 9], own.stretched(9)),
        (["--stretch", 10, "--steps", 12], own.stretched(10).at(steps=12)),
        (["--steps", 7, "--step-size", 0.1, "--temperature", 0], own.at(7, 0.1, 0.0)),
    ]:
        images = draw("-n", 4, "--overwrite", *options)["images"]
        assert chains[-1] == chain
        assert np.array_equal(images, plain) == (options == [])
    assert own.at(temperature=2.0).temperature == [(2, 0.0), (4, 2.0)]


@pytest.mark.parametrize("which", ["run", "conditional"])
def test_a_chain_is_what_the_card_says(draw, request, which):
    checkpoint = request.getfixturevalue(which)
    trained, generators = read(checkpoint, "cpu"), [stream(3, "image", row) for row in range(2)]
    y = None if which == "run" else torch.tensor([0, 1])
    x = trained.chain.noise(2, trained.shape, generator=generators)
    x = trained.chain.run(trained.energy, x, y, generator=generators).x
    expected = (x * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    found = draw("-n", 2, "--seed", 3, checkpoint=checkpoint)["images"]
    assert np.array_equal(found, expected.numpy())


def test_npz_has_the_channel_last(draw, conditional):
    file = draw("-n", 3)
    assert list(file) == ["images"]
    assert (file["images"].dtype, file["images"].shape) == (np.uint8, (3, 8, 8, 1))
    file = draw("-n", 7, "--overwrite", checkpoint=conditional)
    assert file["images"].shape == (7, 8, 8, 3)
    assert file["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_label_is_that_of_all_images(draw, conditional):
    turns = draw("-n", 6, checkpoint=conditional)["images"]
    ones = draw("-n", 6, "--label", 1, "--overwrite", checkpoint=conditional)
    assert ones["labels"].tolist() == [1] * 6
    same = (ones["images"] == turns).all((1, 2, 3))
    assert same.tolist() == [False, True, False, False, True, False]


def test_png_is_a_grid(draw):
    images = draw("-n", 4)["images"]
    grid = pixels(draw("-n", 4, out="a.png"))
    assert grid.shape == (2 * 48 + 3 * 3, 2 * 48 + 3 * 3)
    for i in range(4):
        top, left = 3 + i // 2 * 51, 3 + i % 2 * 51
        assert np.array_equal(grid[top : top + 48 : 6, left : left + 48 : 6], images[i, ..., 0])


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_videos_become_a_moving_grid(draw, tmp_path, suffix):
    if suffix == ".mp4":
        pytest.importorskip("av")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        energy = GenerativeConvNet(3, dims=3, widths=(4,), strides=(2,))
    write(Trained(energy, Chain(2, 0.1, 0.01), (3, 5, 8, 8), 0), tmp_path / "energy")
    clips = draw("-n", 4, checkpoint=tmp_path / "energy")["images"]
    draw("-n", 4, checkpoint=tmp_path / "energy", out=f"a{suffix}")
    found = load_images(str(tmp_path / f"a{suffix}")).images[0].float()
    side = 2 * 96 + 3 * 6
    assert found.shape == (3, 5, side, side)
    tile = found[:, :, 6:102, 108:204].movedim(0, -1)[:, 6::12, 6::12]
    # palettes and films lose some
    assert (tile.numpy() - clips[1]).__abs__().mean() < 20


def test_anything_else_is_a_folder_of_pngs(draw):
    images = draw("-n", 11)["images"]
    folder = draw("-n", 11, out="new/pictures")
    assert names(folder) == [f"{i:02d}.png" for i in range(11)]
    for i, image in enumerate(images):
        assert np.array_equal(pixels(folder / f"{i:02d}.png"), image[..., 0])


def test_classes_have_folders(draw, conditional):
    images = draw("-n", 4, checkpoint=conditional)["images"]
    folder = draw("-n", 4, checkpoint=conditional, out="pictures")
    assert names(folder) == ["0/0.png", "0/3.png", "1/1.png", "2/2.png"]
    for path in folder.rglob("*.png"):
        assert np.array_equal(pixels(path), images[int(path.stem)])


def test_the_trajectory_is_a_film_that_ends_with_the_images(draw, trained, tmp_path):
    images = draw("-n", 4, "--trajectory", tmp_path / "a.gif")["images"]
    with Image.open(tmp_path / "a.gif") as film:
        assert film.size == (105, 105)
        frames = []
        for i in range(film.n_frames):
            film.seek(i)
            frames.append(np.asarray(film.convert("L")))
    assert len(frames) > trained.chain.steps - 1
    assert np.array_equal(frames[-1][3:51:6, 3:51:6], images[0, ..., 0])
    assert not np.array_equal(frames[0], frames[-1])


@pytest.mark.parametrize("out", ["a.npz", "pictures"])
@pytest.mark.parametrize("batches", [0, 2])
def test_what_was_cut_short_goes_on(draw, run, tmp_path, monkeypatch, batches, out):
    whole = draw("-n", 10, out="whole.npz")["images"]
    path = tmp_path / out
    args = run, "-n", 10, "--out", path, "--device", "cpu", "--batch-size", 3
    interrupted(monkeypatch, batches, *args)
    assert not path.exists()
    assert json.loads((tmp_path / f"{out}.part" / "job.json").read_text())["done"] == 3 * batches
    rows, original = [], genconv.sample.sample

    def spy(trained, wanted, **how):
        rows.extend(wanted)
        return original(trained, wanted, **how)

    monkeypatch.setattr(genconv.sample, "sample", spy)
    # the batch size may change in between
    found = draw("-n", 10, "--batch-size", 4, out=out)
    assert rows == list(range(3 * batches, 10))
    if path.is_dir():
        found = {"images": np.stack([pixels(path / f"{i}.png")[..., None] for i in range(10)])}
    assert np.array_equal(found["images"], whole)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["-n", "11"], r"another n \(10, now 11\)"),
        (["--seed", "1"], r"another seed \(0, now 1\)"),
        (["--steps", "6"], "another chain"),
        (["--size", "12"], "another shape"),
        (["--precision", "bf16"], r"another precision \(32, now bf16\)"),
    ],
)
def test_the_rest_of_another_job_is_not_touched(run, tmp_path, monkeypatch, option, named):
    args = [str(run), "-n", "10", "--out", str(tmp_path / "a.npz"), "--device", "cpu"]
    monkeypatch.setattr("genconv.precision.has_bfloat16", lambda device: True)
    interrupted(monkeypatch, 1, *args, "--batch-size", 3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "a.npz.part").iterdir()}
    with pytest.raises(UserError, match=named) as error:
        main([*args, *option])
    assert str(tmp_path / "a.npz.part") in str(error.value)
    assert {p.name: p.read_bytes() for p in (tmp_path / "a.npz.part").iterdir()} == before


def test_the_rest_of_other_weights_is_not_touched(run, conditional, tmp_path, monkeypatch):
    args = ["-n", "10", "--out", str(tmp_path / "a.npz"), "--device", "cpu"]
    interrupted(monkeypatch, 0, run, *args)
    with pytest.raises(UserError, match="another weights"):
        main([str(conditional), *args])


def test_a_kill_while_the_rest_is_removed_leaves_nothing_that_hinders(
    draw, run, tmp_path, monkeypatch
):
    expected = draw("-n", 4)["images"]
    unlink, gone = Path.unlink, []

    def killed(self, missing_ok=False):
        if self.parent.suffix == ".part" and not self.name.startswith("."):
            if gone:
                raise KeyboardInterrupt
            gone.append(self)
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            main([str(run), "-n", "4", "--out", str(tmp_path / "b.npz"), "--device", "cpu"])
    assert len(gone) == 1
    assert np.array_equal(draw("-n", 4, "--overwrite", out="b.npz")["images"], expected)


@pytest.mark.parametrize("out", ["a.npz", "a.png", "pictures"])
def test_what_exists_is_replaced_only_when_told(draw, run, tmp_path, out):
    draw("-n", 12, out=out)
    path = tmp_path / out

    def content():
        files = [path] if path.is_file() else sorted(path.iterdir())
        return {file.name: file.read_bytes() for file in files}

    before = content()
    with pytest.raises(UserError, match="add --overwrite") as error:
        main([str(run), "-n", "3", "--out", str(path), "--device", "cpu"])
    assert str(path) in str(error.value)
    assert content() == before
    assert [p.name for p in tmp_path.iterdir()] == [out]
    draw("-n", 3, "--seed", 1, "--overwrite", out=out)
    assert content() != before
    if path.is_dir():
        assert names(path) == ["0.png", "1.png", "2.png"]


def test_overwriting_a_folder_deletes_numbered_images_only(draw, conditional, tmp_path):
    folder = tmp_path / "pictures"
    kept = ["0/me.png", "3d/7.png", "me.png", "notes.txt"]
    for name in (*kept, "07.png", "5/7.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"old")
    draw("-n", 2, "--overwrite", checkpoint=conditional, out="pictures")
    assert names(folder) == sorted([*kept, "0/0.png", "1/1.png"])


def test_an_empty_folder_is_free(draw, tmp_path):
    (tmp_path / "pictures").mkdir()
    assert names(draw("-n", 2, out="pictures")) == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "0"], "-n must be at least 1"),
        (["-n", "-3"], "-n must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--stretch", "0"], "--stretch must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--step-size", "nan"], "--step-size must be at least 0"),
        (["--temperature", "-0.5"], "--temperature must be at least 0, not -0.5"),
        (["--label", "0"], "no classes"),
        (["--size", "0"], "a size of 0x0 does not fit images of 8x8"),
        (["--size", "8", "8", "8"], "give 2 numbers"),
        (["--trajectory", "a.mp4"], r"\.gif, not a\.mp4"),
        (["--out", "a.gif"], r"--out a\.gif is of videos .* images \(1, 8, 8\)"),
    ],
)
def test_wrong_options_are_named_and_leave_nothing(run, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        main([str(run), "--out", str(tmp_path / "a.npz"), "--device", "cpu", *options])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", ["-1", "3"])
def test_wrong_labels_are_named(conditional, tmp_path, label):
    with pytest.raises(UserError, match=rf"--label {label}: .* classes 0 to 2"):
        main([str(conditional), "--out", str(tmp_path / "a.npz"), "--label", label])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["-n", "many"], ["--precision", "16"], ["--colour"]])
def test_options_that_cannot_be_read_stop_with_2(run, options, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(run), *options])
    assert stop.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError, match="choose another --out") as error:
        main([str(run), "--out", str(tmp_path / "file" / "a.npz"), "--device", "cpu"])
    assert str(tmp_path / "file") in str(error.value)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no") as error:
        main([str(tmp_path / "nothing"), "--out", str(tmp_path / "a.npz")])
    assert str(tmp_path / "nothing") in str(error.value)


def test_out_of_memory_takes_smaller_bites_of_the_same_images(draw, monkeypatch):
    whole = draw("-n", 10, out="whole.npz")["images"]
    real, sizes = genconv.sample.sample, []

    def scarce(trained, rows, **how):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(trained, rows, **how)

    monkeypatch.setattr(genconv.sample, "sample", scarce)
    assert np.array_equal(draw("-n", 10, "--batch-size", 5)["images"], whole)
    assert sizes == [5, 3, 2, 2, 1, 2, 2, 1]


def test_images_of_another_size(draw, run):
    assert draw("-n", 3, "--size", 16)["images"].shape == (3, 16, 16, 1)
    wide = draw("-n", 3, "--size", 8, 24, "--overwrite")["images"]
    assert wide.shape == (3, 8, 24, 1)
    expected = sample(read(run, "cpu").at_size([8, 24]), range(3))
    assert np.array_equal(wide, expected.permute(0, 2, 3, 1))


def test_no_step_is_what_the_generator_proposes(draw, run, cooperative, tmp_path):
    images = draw("-n", 3, "--steps", 0, checkpoint=cooperative)["images"]
    trained = read(cooperative, "cpu")
    proposed = trained.start(3, generator=[stream(0, "image", i) for i in range(3)])
    assert torch.equal(torch.from_numpy(images).movedim(-1, 1), to_uint8(proposed))
    revised = draw("-n", 3, checkpoint=cooperative, out="b.npz")["images"]
    assert (revised != images).any(axis=(1, 2, 3)).all()
    out = str(tmp_path / "c.npz")
    with pytest.raises(UserError, match="--steps must be at least 1, not 0"):
        main([str(run), "--steps", "0", "--out", out])
    for flag, value in (("--stretch", "4"), ("--trajectory", "a.gif")):
        with pytest.raises(UserError, match=f"{flag} is about a chain"):
            main([str(cooperative), "--steps", "0", "--out", out, flag, value])
    with pytest.raises(UserError, match="the generator makes images of 8x8, not 16x16"):
        main([str(cooperative), "--size", "16", "--out", out])


def test_persistent_chains_are_those_of_the_checkpoint(draw, run):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    images = checkpoint["chains"][0]["buffer"]["images"]
    drawn = draw("--persistent", "-n", 5)["images"]
    assert np.array_equal(drawn, images[:5].movedim(1, -1).numpy())
    everything = draw("--persistent", "-n", len(images) + 1, out="b.npz")["images"]
    assert len(everything) == len(images)


def test_persistent_chains_cannot_be_changed_and_must_be_there(draw, run, conditional):
    with pytest.raises(UserError, match="leave out --step-size"):
        draw("--persistent", "--step-size", 0.1)
    with pytest.raises(UserError, match="holds no persistent chains"):
        draw("--persistent", checkpoint=conditional)
    with pytest.raises(UserError, match=r"^digits holds no persistent chains"):
        draw("--persistent", checkpoint="digits")


def test_bodies_are_rendered_and_images_are_not(draw, tmp_path):
    torch.manual_seed(0)
    energy = GenerativeConvNet(1, dims=3, widths=(4,), strides=(2,))
    write(Trained(energy, Chain(2, 0.1, 0.01), (1, 4, 4, 4), 0), tmp_path / "energy")
    draw("-n", 2, "--render", tmp_path / "a.png", checkpoint=tmp_path / "energy")
    assert pixels(tmp_path / "a.png").std() > 5
    for options, reason in [(["a.gif"], r"\.png, not a\.gif"), (["b.png"], "only bodies")]:
        with pytest.raises(UserError, match=reason):
            draw("--render", *options, out="b.npz")
    assert not (tmp_path / "b.npz").exists()


@pytest.mark.parametrize("out", ["", ".", "/"])
@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_place_without_a_name_is_refused(run, tmp_path, monkeypatch, out, flags):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="has no name of its own"):
        main([str(run), "-n", "1", "--device", "cpu", "--out", out, *flags])
    assert not list(tmp_path.iterdir())
