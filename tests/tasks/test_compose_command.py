"""The compose command: what it joins, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from genconv.checkpoint import Trained, read, write
from genconv.edit import main
from genconv.energy import Given, Mixture, Product, ResNetEnergy
from genconv.errors import UserError
from genconv.eval import SmallClassifier
from genconv.images import from_uint8, to_uint8
from genconv.sample import sample
from genconv.sampling import Chain, draw_noise
from genconv.seeds import stream
from genconv.tasks.balance import balance
from genconv.tasks.claims import Claim, Surest
from genconv.tasks.compose_command import start_energies
from genconv.tasks.constraints import class_of, hue, region
from genconv.tasks.stages import Staged


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A second energy, without classes, of the same images."""
    folder = tmp_path_factory.mktemp("other")
    torch.manual_seed(1)
    write(Trained(ResNetEnergy(3, widths=(4, 8)), Chain(5, 0.1, 0.01), (3, 8, 8), 0), folder)
    return folder


@pytest.fixture(scope="module")
def named(conditional, tmp_path_factory):
    """The conditional energy, whose classes have names."""
    folder = tmp_path_factory.mktemp("named")
    write(replace(read(conditional, "cpu"), names=("red", "green", "blue")), folder)
    return folder


@pytest.fixture
def draw(tmp_path):
    """Run the command and return its images."""

    def draw(*words):
        out = tmp_path / "a.npz"
        words = ["compose", *map(str, words), "-n", "3", "--out", str(out), "--device", "cpu"]
        main([*words, "--overwrite"])
        assert not list(tmp_path.glob("*.part"))
        with np.load(out) as file:
            assert list(file) == ["images"]
            return torch.from_numpy(file["images"]).movedim(-1, 1)

    return draw


def expected(folder, energy, seed=0):
    return sample(replace(read(folder, "cpu"), energy=energy), range(3), seed=seed)


def test_and_counts_the_base_once(draw, named):
    e = read(named, "cpu").energy
    red, green, base = Given(e, 0), Given(e, 1), Given(e, None)
    parts = f"{named}:red", f"{named}:green"
    found = draw(*parts)
    assert torch.equal(found, expected(named, Product([red, green], base=base)))
    assert torch.equal(draw(*parts, "--op", "and", "--base", named), found)
    assert torch.equal(draw(f"{named}:0", f"{named}:1"), found)
    bare = draw(*parts, "--base", "none")
    assert torch.equal(bare, expected(named, Product([red, green])))
    assert not torch.equal(bare, found)
    weighted = draw(*parts, "--weights", 2, 0.5)
    assert torch.equal(weighted, expected(named, Product([red, green], [2, 0.5], base)))


def test_or_is_balanced_from_the_noise_on(draw, named, capsys):
    trained = read(named, "cpu")
    parts = [Given(trained.energy, 0), Given(trained.energy, 2)]
    start = start_energies(trained, parts, 0)
    for weights in (None, [1.0, 3.0]):
        offsets = balance(trained, parts, weights, 0.01, start=start).offsets
        flags = ["--weights", *weights] if weights else []
        words = f"{named}:red", f"{named}:blue", "--op", "or", *flags
        found = draw(*words)
        energy = Mixture(parts, weights, offsets, 0.01)
        assert torch.equal(found, expected(named, energy))
        # what it prints gives the same again
        above = capsys.readouterr().out.split("--offsets ")[1].split(":")[0].split()
        again = draw(*words, "--offsets", *above)
        assert (again.float() - found.float()).abs().max() <= 1


def test_an_or_begins_where_all_are_alike_over_the_noise(named):
    trained = read(named, "cpu")
    parts = [Given(trained.energy, 0), Given(trained.energy, 2)]
    noise = torch.randn(4096, *trained.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        energies = torch.stack([part(noise) for part in parts])
    # the command's own noise has 256 images
    error = 5 * energies.std(1) / 16
    found = torch.tensor(start_energies(trained, parts, 0))
    assert ((found - energies.mean(1)).abs() < error).all()
    assert (energies.mean(1).abs() > error).any()
    moved = torch.tensor(start_energies(trained, parts, 0, [1.0, -2.0]))
    assert torch.allclose(moved - found, torch.tensor([1.0, -2.0]), atol=1e-5)


def test_offsets_move_the_boundary_of_an_or(draw, named):
    trained = read(named, "cpu")
    parts = [Given(trained.energy, 0), Given(trained.energy, 2)]
    means = start_energies(trained, parts, 0)
    energy = Mixture(parts, None, [means[0] + 50, means[1] - 50], 0.01)
    words = f"{named}:red", f"{named}:blue", "--op", "or", "--offsets", 50, -50
    found = draw(*words)
    assert torch.equal(found, expected(named, energy))
    # so far that all is red
    assert (found.float() - expected(named, parts[0]).float()).abs().max() <= 1


def test_not_is_the_first_and_none_of_the_others(draw, named):
    e = read(named, "cpu").energy
    red, green, blue, base = (Given(e, label) for label in (0, 1, 2, None))
    found = draw(f"{named}:red", f"{named}:green", f"{named}:blue", "--op", "not")
    assert torch.equal(found, expected(named, Product([red, green, blue], [1, -1, -1], base)))
    found = draw(f"{named}:red", f"{named}:green", "--op", "not", "--weights", 2, 0.5)
    assert torch.equal(found, expected(named, Product([red, green], [2, -0.5], base)))
    alone = draw(f"{named}:red", "--op", "not")
    assert torch.equal(alone, expected(named, Product([red], [-1], base)))


def test_this_rather_than_those(draw, named):
    e = read(named, "cpu").energy
    red, green, blue, base = (Given(e, label) for label in (0, 1, 2, None))
    found = draw(f"{named}:red", f"{named}:green/red/blue", "--weights", 2, 3)
    energy = Product([red, green, red, blue], [2, 3, -1.5, -1.5], base)
    assert torch.equal(found, expected(named, energy))


def test_weights_change_on_the_way(draw, named):
    trained = read(named, "cpu")
    red, green, base = (Given(trained.energy, label) for label in (0, 1, None))
    parts = f"{named}:red", f"{named}:green"
    found = draw(*parts, "--then", 0.4, 4, -1, "--then", 0.7, 0, 1)
    chain = trained.chain
    generators = [stream(0, "image", i) for i in range(3)]
    x = chain.noise(3, trained.shape, generator=generators)
    assert chain.steps == 3
    for step, weights in enumerate([None, [4, -1], [0, 1]]):
        one = replace(chain.after(step), steps=1)
        x = one.run(Product([red, green], weights, base), x, generator=generators).x
    assert torch.equal(found, to_uint8(x))
    plain = draw(*parts)
    assert not torch.equal(found, plain)
    assert torch.equal(draw(*parts, "--then", 1, 4, -1), plain)
    whole = expected(named, Product([red, green], [4, -1], base))
    assert torch.equal(draw(*parts, "--then", 0, 4, -1), whole)
    steps = []
    staged = Staged(**vars(trained), stages=((0.4, base), (0.7, base)))
    staged.sample(2, generator=generators[:2], callback=lambda step, x: steps.append(step))
    assert steps == [1, 2, 3]


def test_stages_keep_the_schedule_of_the_chain(named):
    trained = read(named, "cpu")
    chain = Chain(6, step_size=[(0, 0.01), (5, 0.3)], temperature=[(2, 0.0), (5, 0.1)])
    trained = replace(trained, energy=Given(trained.energy, 0), chain=chain, names=())
    staged = Staged(**vars(trained), stages=((0.34, trained.energy), (0.67, trained.energy)))
    whole, parts = (one.sample(3, generator=[stream(0, i) for i in range(3)])
                    for one in (trained, staged))  # fmt: skip
    assert torch.equal(whole, parts)


def test_redrawing_goes_back_to_the_noise_of_a_time(draw, named):
    trained = read(named, "cpu")
    red, green, base = (Given(trained.energy, label) for label in (0, 1, None))
    parts = f"{named}:red", f"{named}:green"
    found = draw(*parts, "--then", 0.4, 0, 1, "--redraw", 0.66)
    chain, last = trained.chain, Product([red, green], [0, 1], base)
    generators = [stream(0, "image", i) for i in range(3)]
    x = chain.noise(3, trained.shape, generator=generators)
    x = replace(chain, steps=1).run(Product([red, green], None, base), x, generator=generators).x
    x = chain.after(1).run(last, x, generator=generators).x
    t = 2 * chain.step_size
    noise = draw_noise(x.shape, generators)
    x = t * x.clamp(-1, 1) + (1 - t) * noise
    x = chain.after(2).run(last, x, generator=generators).x
    assert torch.equal(found, to_uint8(x))
    steps = []
    again = Staged(**vars(trained), redraw=0.66)
    again.sample(2, generator=generators[:2], callback=lambda step, x: steps.append(step))
    assert steps == [1, 2, 3, 4]


def test_of_several_draws_the_surest_is_kept(draw, named):
    trained = read(named, "cpu")
    red, green, blue, base = (Given(trained.energy, label) for label in (0, 1, 2, None))
    claims = ["--claim", f"{named}:red/green/blue", "--claim", f"{named}:blue/red"]
    found = draw(f"{named}:red", f"{named}:blue", "--draws", 4, *claims)
    generators = [stream(0, "image", i) for i in range(3)]
    composed = replace(trained, energy=Product([red, blue], base=base), names=())
    # one chain after another out of an image's own numbers
    x = torch.stack([composed.sample(3, generator=generators) for _ in range(4)])
    with torch.no_grad():
        e = [torch.stack([energy(one) for one in x]) for energy in (red, green, blue)]
    margin = torch.maximum(e[0] - torch.minimum(e[1], e[2]), e[2] - e[0])
    kept = margin.argmin(0)
    assert torch.equal(found, to_uint8(x[kept, torch.arange(3)]))
    assert len(set(kept.tolist())) > 1


def test_a_diverged_draw_is_never_the_surest(named):
    trained = read(named, "cpu")
    claim = Claim(Given(trained.energy, 0), [Given(trained.energy, 1)])
    spoilt = iter([(0, 1), (0, 2)])

    class Spoilt(Surest):
        def start(self, n, **how):
            x = super().start(n, **how)
            x[list(next(spoilt))] = torch.nan
            return x

    x = Spoilt(**vars(trained), claims=(claim,), draws=2).sample(4)
    assert x.flatten(1).isfinite().all(1).tolist() == [False, True, True, True]


def test_checkpoints_are_joined_by_the_chain_of_the_first(draw, named, other):
    a, b = read(other, "cpu").energy, read(named, "cpu").energy
    energy = Product([a, Given(b, 1)])
    assert torch.equal(draw(other, f"{named}:green"), expected(other, energy))
    assert torch.equal(
        draw(other, f"{named}:green", "--base", other),
        expected(other, Product([a, Given(b, 1)], base=a)),
    )


def test_energies_of_the_package_are_taken_by_their_names(draw):
    chain = read("digits", "cpu").chain.at(2)
    found = draw("digits", "--steps", 2)
    assert torch.equal(found, sample(replace(read("digits", "cpu"), chain=chain), range(3)))


def test_seed_and_chain_are_those_of_the_flags(draw, other):
    trained = read(other, "cpu")
    assert torch.equal(draw(other), sample(trained, range(3)))
    assert torch.equal(draw(other, "--seed", 4), sample(trained, range(3), seed=4))
    longer = replace(trained, chain=trained.chain.at(9, 0.05, 0.5))
    flags = ["--steps", 9, "--step-size", 0.05, "--temperature", 0.5]
    assert torch.equal(draw(other, *flags), sample(longer, range(3)))


def test_constraints_add_up(draw, other, tmp_path):
    image = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8)
    Image.fromarray(image.numpy()).save(tmp_path / "a.png")
    wish = f"region={tmp_path / 'a.png'}@1,2,4,8"
    target = image.movedim(-1, 0)
    found = draw(other, "--constraint", f"{wish}*9", "--steps", 60)
    error = (found.float() - target.float()).abs()
    assert error[..., 2:8, 1:4].max() < 40
    assert error[..., :2, :].mean() > 40
    mask = torch.zeros(8, 8)
    mask[2:8, 1:4] = 1
    function, e = region(target.float() / 127.5 - 1, mask), read(other, "cpu").energy
    at_once = draw(other, "--constraint", f"{wish}*2", "--constraint", f"{wish}*3")
    both = Product([e, lambda x: 5 * function(x)])
    assert (at_once.float() - expected(other, both).float()).abs().max() <= 1
    off = [
        hue((255, 0, 0))(from_uint8(draw(other, "--steps", 30, *flags))).mean()
        for flags in ([], ["--constraint", "hue=red"])
    ]
    assert off[1] < 0.2 * off[0]


def test_a_classifier_gets_what_it_is_asked_for(draw, other, tmp_path):
    torch.manual_seed(0)
    classifier = SmallClassifier(3, 4, 8).eval()
    torch.nn.init.normal_(classifier.head.weight)
    classifier.save(tmp_path / "four.safetensors")
    plain = draw(other, "--steps", 40)
    label = int(classifier(plain)[1].mean(0).argmin())
    wish = f"class={tmp_path / 'four.safetensors'}:{label}*300"
    wished = draw(other, "--steps", 40, "--constraint", wish)
    before, after = (classifier(images)[1].softmax(1)[:, label] for images in (plain, wished))
    assert (after > 2 * before).all()
    trained, function = read(other, "cpu"), class_of(classifier.logits, label)
    energy = Product([trained.energy, lambda x: 300 * function(x)]).requires_grad_(False)
    longer = replace(trained, energy=energy, chain=trained.chain.at(40))
    assert (wished.float() - sample(longer, range(3)).float()).abs().max() <= 1


def test_another_composition_does_not_go_on_with_the_rest_of_one(named, tmp_path, monkeypatch):
    import genconv.sample

    def cut(*args, **how):
        raise KeyboardInterrupt

    args = ["compose", f"{named}:red", f"{named}:blue", "--out", str(tmp_path / "a.npz")]
    with monkeypatch.context() as patch:
        patch.setattr(genconv.sample, "sample", cut)
        with pytest.raises(KeyboardInterrupt):
            main([*args, "--device", "cpu"])
    assert json.loads((tmp_path / "a.npz.part" / "job.json").read_text())["op"] == "and"
    with pytest.raises(UserError, match="another op"):
        main([*args, "--device", "cpu", "--op", "or"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{named}:pink"], "no class 'pink'; choose from red, green, blue"),
        (["{named}:3"], "no class '3'"),
        (["{other}:1"], "no classes"),
        (["{other}", "{run}"], "images .1, 8, 8., unlike"),
        (["nowhere"], "there is no nowhere"),
        (["nowhere:red"], "there is no nowhere"),
        (["{other}", "{other}", "--weights", "1"], "--weights: 2 energies need as many, not 1"),
        (["{named}:0", "--op", "not", "--weights", "1", "1"], "1 energies need as many, not 2"),
        (["{named}:0", "{named}:1", "--op", "or", "--weights", "1", "0"], "must be positive"),
        (["{named}:0", "--op", "or", "--offsets", "1", "2"], "--offsets: 1 energies need as many"),
        (["{named}:0/1", "--op", "or"], "only `and` knows one class rather"),
        (["{named}:0/9"], "no class '9'"),
        (["{named}:0", "--then", "0.5", "1", "2"], "--then: 1 energies need as many, not 2"),
        (["{named}:0", "--then", "0.5"], "--then: 1 energies need as many, not 0"),
        (["{named}:0", "--op", "or", "--then", "0.5", "1"], "have one weight"),
        (["{named}:0", "--redraw", "1.5"], "--redraw is a share"),
        (["{named}:0", "--then", "1.5", "1"], "--then begins with a share"),
        (["{named}:0", "--then", "0.5", "1", "--then", "0.4", "1"], "0 to 1 and rising"),
        (["{named}:0", "--draws", "2"], "keep which of the draws"),
        (["{named}:0", "--claim", "{named}:0/1"], "keep which of the draws"),
        (["{named}:0", "--draws", "0"], "--draws must be at least 1"),
        (["{named}:0", "--draws", "2", "--claim", "{named}:0"], "rather than what"),
        (["{named}:0", "--draws", "2", "--claim", "{named}"], "rather than what"),
        (["{named}:0", "--draws", "2", "--claim", "{named}:0/9"], "no class '9'"),
        (
            ["{named}:0", "--draws", "2", "--claim", "{named}:0/1", "--trajectory", "a.gif"],
            "shows one chain",
        ),
        (["{other}", "--op", "not"], "give --base"),
        (["{other}", "--weights", "0"], "all 0 leave nothing"),
        (["{other}", "--base", "{run}"], "--base .* is of images"),
        (["{other}", "--constraint", "hue=grey"], "grey and has no hue"),
        (["{other}", "--constraint", "hue=nocolour"], "unknown color specifier"),
        (["{other}", "--constraint", "smell=red"], "write hue=red"),
        (["{other}", "--constraint", "hue=red*much"], "write hue=red"),
        (["{run}", "--constraint", "hue=red"], "1 channels have no hue"),
        (["{other}", "--constraint", "region=nofile@0,0,2,2"], "cannot read the image nofile"),
        (["{other}", "--constraint", "region=nofile@0,0,2,9"], "not within 8x8"),
        (["{other}", "--constraint", "region=nofile"], "write hue=red"),
        (["{other}", "--constraint", "class=nofile:1"], "cannot read a classifier from nofile"),
        (["{other}", "--constraint", "class={grey}:1"], "for images with 1 channels"),
        (["{other}", "--constraint", "class={coloured}:9"], "knows the classes 0 to 3"),
        (["{other}", "--constraint", "class={coloured}"], "write hue=red"),
        (["{other}", "-n", "0"], "-n must be at least 1"),
    ],
)
def test_what_cannot_be_is_named(words, message, named, other, run, tmp_path, tmp_path_factory):
    files = {"named": named, "other": other, "run": run}
    for name, channels in (("grey", 1), ("coloured", 3)):
        files[name] = tmp_path_factory.mktemp("classifiers") / f"{name}.safetensors"
        SmallClassifier(channels, 4, 8).save(files[name])
    words = [word.format(**files) for word in words]
    with pytest.raises(UserError, match=message):
        main(["compose", *words, "--out", str(tmp_path / "a.npz"), "--device", "cpu"])
    assert not list(tmp_path.iterdir())
