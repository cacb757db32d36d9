"""The recovery commands: what they draw, measure and write."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import genconv
import genconv.tasks.recover_command as command
from genconv.checkpoint import Trained, write
from genconv.data import load_images
from genconv.data.guess import smoothed
from genconv.data.holes import holes
from genconv.edit import main
from genconv.energy import EnergyTransformer, GenerativeConvNet, beginning, context_of
from genconv.errors import UserError
from genconv.images import from_uint8, save_gif, save_png, to_uint8
from genconv.sampling import Chain, langevin
from genconv.seeds import stream

DEGRADED = ("digits", "--degrade", "-n", 5, "--draws", 3)
NOISE = ("--noise", 0.5)


@pytest.fixture
def edit(run, tmp_path, capsys):
    """Run a task into a new folder; return its arrays, channel first, its report and its words."""

    def edit(task, *options, checkpoint=run, out="out"):
        out = tmp_path / out
        main([task, str(checkpoint), *map(str, options), "--out", str(out), "--device", "cpu"])
        assert not list(tmp_path.glob("*.part"))
        with np.load(out / "results.npz") as file:
            arrays = {key: torch.from_numpy(np.moveaxis(file[key], -1, 1)) for key in file}
        arrays["draws"] = arrays["draws"].transpose(1, 2)
        return arrays, json.loads((out / "report.json").read_text()), capsys.readouterr().out

    return edit


@pytest.fixture(scope="module")
def voxels(tmp_path_factory):
    """An exported energy of voxels, a plain bowl around 0.2, and an .npz of voxels."""
    folder = tmp_path_factory.mktemp("voxels")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        energy = GenerativeConvNet(1, dims=3, widths=(4,), strides=(2,))
    write(Trained(energy, Chain(4, 0.1, 0.01), (1, 4, 8, 8), 0), folder / "energy")
    levels = torch.randint(256, (3, 4, 8, 8, 1), generator=torch.Generator().manual_seed(0))
    np.savez(folder / "voxels.npz", images=levels.byte().numpy())
    return folder / "energy", folder / "voxels.npz"


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """An exported energy with a context, in which candidates and answers depend on all of it."""
    folder = tmp_path_factory.mktemp("thinker")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        energy = EnergyTransformer(1, patch=2, width=16, depth=1)
        for layer in (energy.repair, energy.doubt):
            torch.nn.init.normal_(layer.weight, std=0.05)
    write(Trained(energy, Chain(4, 0.5, 0.0), (1, 8, 8), 0), folder)
    return folder


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("inpaint", ()),
        ("inpaint", ("--mask", "random:0.4")),
        ("denoise", NOISE),
        ("upscale", ()),
        ("upscale", ("--factor", 4)),
        ("deblur", ("--blur", 1, "--noise", 0.05)),
    ],
)
def test_a_degraded_set_is_recovered_and_measured(edit, tmp_path, task, options):
    arrays, report, printed = edit(task, *DEGRADED, *options)
    truth = from_uint8(load_images("digits", "test").images[:5])
    assert torch.equal(arrays["truth"], truth)
    assert arrays["draws"].shape == (5, 3, 1, 8, 8)
    torch.testing.assert_close(arrays["mean"], arrays["draws"].mean(1))
    torch.testing.assert_close(arrays["std"], arrays["draws"].std(1))
    assert report["table"].keys() > {"mean of 3 draws", "one draw"}
    assert len(report["table"]) >= 4
    assert all(name.split()[0] in printed for name in report["table"])
    error = (arrays["mean"].clamp(-1, 1) - truth).square()
    if task == "inpaint":
        error = error[arrays["std"] > 1e-6]
    expected = 10 * torch.log10(4 / error.mean())
    assert report["table"]["mean of 3 draws"]["psnr"] == pytest.approx(float(expected), abs=1e-3)
    assert report["spread"] > 0
    assert list(report["coverage"]) == ["0.5"]
    pictures = {path.name for path in (tmp_path / "out").rglob("*.png")}
    assert pictures == {"picture.png", "calibration.png", *(f"{i}.png" for i in range(5))}


def test_known_pixels_stay_and_draws_differ_elsewhere(edit):
    arrays, _, _ = edit("inpaint", *DEGRADED)
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[2:6, 2:6] = True
    away = arrays["draws"] - arrays["truth"][:, None]
    assert away[..., ~hidden].abs().max() < 1e-6
    assert arrays["std"][..., hidden].min() > 0


def test_blocks_keep_their_means(edit):
    arrays, _, _ = edit("upscale", *DEGRADED)
    shrunk = F.avg_pool2d(arrays["draws"].flatten(0, 1), 2).unflatten(0, (5, 3))
    assert (shrunk - arrays["measured"][:, None]).abs().max() < 1e-5


@pytest.mark.parametrize("task", [("inpaint", "--mask", "random"), ("denoise", *NOISE)])
def test_draws_depend_on_seed_image_and_draw_only(edit, task):
    def draws(*options, out):
        return edit(*task, "digits", "--degrade", *map(str, options), out=out)[0]["draws"]

    many = draws("-n", 5, "--draws", 4, out="a")
    for i, options in enumerate([("--batch-size", 3), ("--batch-size", 1)]):
        again = draws("-n", 5, "--draws", 4, *options, out=f"b{i}")
        torch.testing.assert_close(again, many, rtol=0, atol=1e-5)
    fewer = draws("-n", 3, "--draws", 2, out="c")
    torch.testing.assert_close(fewer, many[:3, :2], rtol=0, atol=1e-5)
    other = draws("-n", 3, "--draws", 2, "--seed", 1, out="d")
    assert (other - fewer).abs().flatten(2).amax(2).min() > 0.01


def test_what_was_cut_short_goes_on(edit, run, tmp_path, monkeypatch):
    whole = edit("upscale", *DEGRADED, "--batch-size", 4)[0]["draws"]
    drawn, original = [], command.draw

    def cut(trained, problem, measured, numbers, options):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(numbers)
        return original(trained, problem, measured, numbers, options)

    args = ["upscale", run, *DEGRADED, "--batch-size", 4, "--out", tmp_path / "b"]
    with monkeypatch.context() as patch:
        patch.setattr(command, "draw", cut)
        with pytest.raises(KeyboardInterrupt):
            main([*map(str, args), "--device", "cpu"])
    assert not (tmp_path / "b").exists()
    with pytest.raises(UserError, match="another seed"):
        main([*map(str, args), "--device", "cpu", "--seed", "1"])
    monkeypatch.setattr(command, "draw", lambda *a: drawn.append(a[3]) or original(*a))
    again = edit("upscale", *DEGRADED, "--batch-size", 4, out="b")[0]["draws"]
    assert [n.start for n in drawn] == [0, 4, 8, 12]
    assert torch.equal(again, whole)


def test_out_of_memory_takes_smaller_bites_of_the_same_draws(edit, monkeypatch):
    whole = edit("upscale", *DEGRADED, "--batch-size", 4, out="whole")[0]["draws"]
    sizes, real = [], command.draw

    def scarce(trained, problem, measured, numbers, options):
        sizes.append(len(numbers))
        if len(numbers) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(trained, problem, measured, numbers, options)

    monkeypatch.setattr(command, "draw", scarce)
    again = edit("upscale", *DEGRADED, "--batch-size", 4)[0]["draws"]
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-5)
    assert sizes[0] == 4
    assert max(sizes[1:]) == 2


def test_a_rest_of_other_pixels_or_another_hole_is_not_gone_on_with(run, tmp_path, monkeypatch):
    pictures = torch.randint(256, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    holes = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    holes[0, :, :4], holes[1, :, 4:] = 255, 255
    save_png(tmp_path / "seen.png", pictures[0])
    save_png(tmp_path / "hole.png", holes[0])

    def cut(*args):
        raise KeyboardInterrupt

    args = ["inpaint", run, tmp_path / "seen.png", "--mask", tmp_path / "hole.png"]
    args = [*map(str, args), "--out", str(tmp_path / "out"), "--device", "cpu"]
    monkeypatch.setattr(command, "draw", cut)
    with pytest.raises(KeyboardInterrupt):
        main(args)
    save_png(tmp_path / "hole.png", holes[1])
    with pytest.raises(UserError, match="another hole"):
        main(args)
    save_png(tmp_path / "hole.png", holes[0])
    save_png(tmp_path / "seen.png", pictures[1])
    with pytest.raises(UserError, match="another pixels"):
        main(args)
    save_png(tmp_path / "seen.png", pictures[0])
    with pytest.raises(KeyboardInterrupt):
        main(args)


def test_images_of_the_world_have_no_table(edit, tmp_path):
    small = torch.randint(256, (1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    save_png(tmp_path / "small.png", small)
    arrays, report, printed = edit("upscale", tmp_path / "small.png", "--draws", 2)
    assert torch.equal(arrays["measured"], from_uint8(small)[None])
    assert "truth" not in arrays
    assert "table" not in report
    assert "PSNR" not in printed
    with Image.open(tmp_path / "out" / "mean" / "0.png") as image:
        assert image.size == (8, 8)


def test_a_mask_from_a_file(edit, tmp_path):
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[:, 3:5] = 255
    save_png(tmp_path / "mask.png", mask)
    arrays, _, _ = edit("inpaint", *DEGRADED, "--mask", tmp_path / "mask.png")
    moved = arrays["std"].amax((0, 1)) > 1e-6
    assert torch.equal(moved, mask[0] > 0)


def test_colours_have_the_grey_that_was_given(edit, conditional):
    shapes = ("shapes", "--degrade", "-n", 3, "--draws", 2, "--label", 1)
    arrays, report, _ = edit("colourise", *shapes, checkpoint=conditional)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    grey = (arrays["draws"] * luma).sum(2, keepdim=True)
    assert (grey - arrays["measured"][:, None]).abs().max() < 1e-5
    assert report["label"] == 1
    other, _, _ = edit("colourise", *shapes[:-1], 2, checkpoint=conditional, out="b")
    assert not torch.equal(other["draws"], arrays["draws"])


@pytest.mark.parametrize(
    ("task", "options"),
    [("inpaint", ("--mask", "frames")), ("upscale", ()), ("denoise", NOISE)],
)
def test_voxels_and_videos_are_recovered_alike(edit, voxels, task, options):
    checkpoint, images = voxels
    args = (images, "--degrade", "--draws", 2, *options)
    arrays, report, _ = edit(task, *args, checkpoint=checkpoint)
    draws, truth = arrays["draws"], arrays["truth"]
    assert draws.shape == (3, 2, 1, 4, 8, 8)
    assert len(report["table"]) == {"denoise": 5, "upscale": 6, "inpaint": 7}[task]
    if task == "inpaint":
        known = [0, 3]
        assert (draws[..., known, :, :] - truth[:, None, ..., known, :, :]).abs().max() < 1e-6
    if task == "upscale":
        shrunk = F.avg_pool3d(draws.flatten(0, 1), 2).unflatten(0, (3, 2))
        assert (shrunk - arrays["measured"][:, None]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("inpaint", ["--draws", 0], "--draws must be at least 1"),
        ("inpaint", ["-n", 0], "-n must be at least 1"),
        ("inpaint", ["--seed", -1], "--seed must be at least 0"),
        ("inpaint", ["--mask", "box:3"], "a share between 0 and 1"),
        ("inpaint", ["--label", 1], "this energy has no classes"),
        ("inpaint", ["--temperature", "nan"], "--temperature must be at least 0"),
        ("upscale", ["--guidance", -1], "--guidance must be at least 0"),
        ("upscale", ["--factor", 1], "--factor must be at least 2"),
        ("upscale", ["--factor", 3], "--factor 3 divides not all sides"),
        ("denoise", ["--noise", 0], "--noise must be positive"),
        ("deblur", ["--blur", -1, *NOISE], "--blur must be positive"),
        ("colourise", [], "needs an energy of RGB images"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(run, tmp_path, monkeypatch, task, options, message):
    monkeypatch.setattr(command, "draw", lambda *args: pytest.fail("drawn first"))
    args = [task, run, "digits", "--degrade", "--out", tmp_path / "a", "--device", "cpu", *options]
    with pytest.raises(UserError, match=message) as caught:
        main([*map(str, args)])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_conditional_energy_asks_for_a_class(conditional, tmp_path):
    with pytest.raises(UserError, match="needs --label, a class of 0 to 2"):
        main(["inpaint", str(conditional), "shapes", "--out", str(tmp_path / "a")])


def test_images_of_another_form_are_named(run, voxels, tmp_path):
    with pytest.raises(UserError, match=r"holds images of shape \(1, 4, 8, 8\)"):
        main(["inpaint", str(run), str(voxels[1]), "--out", str(tmp_path / "a")])


def test_what_exists_is_replaced_only_when_told(edit, run, tmp_path):
    edit("upscale", *DEGRADED)
    before = (tmp_path / "out" / "results.npz").read_bytes()
    with pytest.raises(UserError, match="add --overwrite"):
        edit("upscale", *DEGRADED, "--seed", 1)
    assert (tmp_path / "out" / "results.npz").read_bytes() == before
    edit("upscale", *DEGRADED, "--seed", 1, "--overwrite")
    assert (tmp_path / "out" / "results.npz").read_bytes() != before


def test_an_energy_with_a_context_thinks(edit, thinker):
    arrays, report, printed = edit("denoise", *DEGRADED, *NOISE, "--steps", 3, checkpoint=thinker)
    energy = genconv.load(thinker, "cpu")
    context = context_of(arrays["measured"])
    for d in range(3):
        generator = [stream(0, "recover", i, d) for i in range(5)]
        x = beginning(context, Chain().noise(5, (1, 8, 8), generator=generator))
        expected = langevin(energy, x, context, steps=3, step_size=0.5, temperature=0.0).x
        torch.testing.assert_close(arrays["draws"][:, d], expected)
        torch.testing.assert_close(arrays["energies"][:, d], energy(expected, context))
    assert -1 <= report["spearman"] <= 1
    assert "Spearman" in printed


def test_holes_are_filled_by_thought_and_what_is_known_stays(edit, thinker):
    arrays, _, _ = edit("inpaint", *DEGRADED, checkpoint=thinker)
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[2:6, 2:6] = True
    away = arrays["draws"] - arrays["truth"][:, None]
    assert away[..., ~hidden].abs().max() == 0
    assert away[..., hidden].abs().min() > 0
    # what is hidden is not looked at
    energy = genconv.load(thinker, "cpu")
    context = context_of(arrays["measured"] + 9.0 * hidden, ~hidden)
    torch.testing.assert_close(energy(arrays["draws"][:, 1], context), arrays["energies"][:, 1])


@pytest.mark.parametrize("who", ["run", "thinker"])
def test_the_answer_may_be_the_draw_of_lowest_energy(edit, who, request):
    args = {"checkpoint": request.getfixturevalue(who)}
    arrays, report, _ = edit("denoise", *DEGRADED, *NOISE, "--answer", "lowest", **args)
    best = arrays["energies"].argmin(1)
    chosen = arrays["draws"][torch.arange(5), best]
    assert torch.equal(arrays["images"], to_uint8(chosen))
    expected = 10 * torch.log10(4 / (chosen.clamp(-1, 1) - arrays["truth"]).square().mean())
    found = report["table"]["lowest energy of 3 draws"]["psnr"]
    assert found == pytest.approx(float(expected), abs=1e-3)


def test_what_it_was_not_taught_is_said(thinker, tmp_path):
    args = ["upscale", str(thinker), "digits", "--degrade", "--out", str(tmp_path / "a")]
    for flags in (["--start", "smooth"], ["--guidance", "0.5"], ["--returns", "2"]):
        with pytest.raises(UserError, match=f"{flags[0]} is about chains from noise"):
            main(["inpaint", *args[1:], *flags])
    with pytest.raises(UserError, match="taught to denoise and to inpaint"):
        main(args)


def test_a_clip_is_recovered_from_a_guess(edit, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        energy = GenerativeConvNet(3, dims=3, widths=(4,), silent=True)
    write(Trained(energy, Chain(1, 1.0, 0.0), (3, 6, 8, 8), 0), tmp_path / "energy")
    # 8 frames of 12x16, which grow lighter at an even pace
    frames = [torch.full((3, 12, 16), 20 * i, dtype=torch.uint8) for i in range(8)]
    save_gif(tmp_path / "a.gif", frames)
    options = ("--start", "interpolation", "--mask", "frames:0.5", "--degrade", "--draws", 1)
    arrays, report, words = edit(
        "inpaint", tmp_path / "a.gif", *options, checkpoint=tmp_path / "energy"
    )
    assert arrays["truth"].shape == (1, 3, 6, 8, 8)
    torch.testing.assert_close(arrays["mean"], arrays["truth"], rtol=0, atol=1e-5)
    assert report["start"] == "interpolation"
    assert "straight lines" in words
    options = ("--start", "smooth", *options[2:], "--overwrite")
    arrays, report, _ = edit(
        "inpaint", tmp_path / "a.gif", *options, checkpoint=tmp_path / "energy"
    )
    assert report["start"] == "smooth"
    expected = smoothed(arrays["truth"], holes("frames:0.5", 1, (6, 8, 8)))
    torch.testing.assert_close(arrays["mean"], expected, rtol=0, atol=1e-5)
    with Image.open(tmp_path / "out" / "picture.png") as picture:
        # frames, a row for each
        assert picture.height > 4 * 64


def test_bodies_are_compared_with_examples_and_rendered(edit, voxels, tmp_path):
    checkpoint, _ = voxels
    solid = torch.rand(6, 4, 8, 8, 1, generator=torch.Generator().manual_seed(0)) < 0.3
    np.savez(tmp_path / "bodies.npz", images=solid.numpy())
    bodies = tmp_path / "bodies.npz"
    args = (bodies, "--degrade", "-n", 2, "--draws", 2, "--examples", bodies, "--render")
    _, report, printed = edit("inpaint", *args, "--mask", "random", checkpoint=checkpoint)
    # they are among their own examples
    assert report["table"]["nearest example"]["iou"] == 1
    assert report["table"]["mean of the examples"]["iou"] < 1
    assert "IoU" in printed
    arrays, report, _ = edit("inpaint", *args, "--answer", "overlap", "--overwrite",
                             checkpoint=checkpoint)  # fmt: skip
    hidden = holes("box", 2, (4, 8, 8)).numpy()
    truth, found = (x.numpy() > 0 for x in (arrays["truth"], arrays["images"].float() - 127))
    assert (truth == found)[~hidden].all()
    both, either = (
        (f(truth, found) & hidden).sum((1, 2, 3, 4)) for f in (np.logical_and, np.logical_or)
    )
    iou = report["table"]["largest expected overlap"]["iou"]
    assert iou == pytest.approx((both / either).mean())
    assert report["answer"] == "overlap"
    with Image.open(tmp_path / "out" / "render.png") as image:
        assert image.width > image.height


def test_examples_and_renderings_need_what_they_are_of(edit, voxels, tmp_path):
    checkpoint, images = voxels
    with pytest.raises(UserError, match="--degrade"):
        edit("inpaint", images, "--examples", images, checkpoint=checkpoint)
    with pytest.raises(UserError, match="only bodies"):
        edit("inpaint", *DEGRADED, "--render")
    assert not (tmp_path / "out").exists()
