"""The configs that genconv brings: each builds its parts, and they fit its data."""

import re
import sys
from pathlib import Path

import pytest
import torch

import genconv.training.cli as cli_module
from genconv.data import ImageData, load_images
from genconv.energy import Energy, build, describe
from genconv.sampling import value_at
from genconv.train import check_shapes
from genconv.training.cli import TrainCLI, find_config

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
SHAPES = {
    "digits": (1, 8, 8),
    "shapes": (3, 32, 32),
    "cifar10": (3, 32, 32),
    "imagenet32": (3, 32, 32),
    "mnist": (1, 28, 28),
    "data/chairs": (1, 32, 32, 32),
    "clip.gif": (3, 16, 32, 32),
    "clip128.gif": (3, 70, 128, 128),
    "occluded.gif": (3, 64, 32, 32),
}
ATTRIBUTES = "shapes:label=attribute,without=red-circle,without=green-square,without=blue-triangle"
SHAPES[ATTRIBUTES] = (3, 16, 16)
CLASSES = {
    ATTRIBUTES: 11,
    "digits": 10,
    "shapes": 3,
    "cifar10": 10,
    "imagenet32": 1000,
    "mnist": 10,
}
# a texture is the user's own image; what the energy sees of it is the config's business
TEXTURE = "texture.png"


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda path: path.stem)
def cli(request):
    """The parts of a run, none of which has yet read data or written anything."""
    # the machine of the test is not the one that the config is for
    with pytest.MonkeyPatch.context() as patch:
        # pytest's arguments are none of the command's
        patch.setattr(sys, "argv", ["genconv.train"])
        machine = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
        return TrainCLI(["--config", str(request.param), *machine])


def test_one_seed_is_that_of_all_parts(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["genconv.train"])
    cli = TrainCLI(["--trainer.accelerator", "cpu", "--seed_everything", "5"])
    assert (cli.model.seed, cli.datamodule.seed) == (5, 5)


def test_there_is_one_for_a_start():
    assert FOLDER / f"{cli_module.DEFAULT}.yaml" in CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_begins_with_what_it_is_for(path):
    text = path.read_text()
    assert re.match(r"# \S.{20,}", text)
    assert not re.search(r"^[^#]*:\s*/", text, re.MULTILINE)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_is_found_by_its_name(path):
    assert find_config(path.stem).read_text() == path.read_text()
    beside = Path(cli_module.__file__)
    assert any(find_config(path.stem).parent == folder for folder in cli_module.CONFIGS)
    # in an installed package, in a checkout
    assert cli_module.CONFIGS == [beside.parents[i] / "configs" for i in (1, 2)]


def test_is_a_run_that_ends(cli):
    assert cli.trainer.max_steps > 0
    assert cli.trainer.max_epochs == -1
    every = cli.config.checkpoint.every
    assert 0 < every <= cli.trainer.max_steps


def shape_of(cli):
    """Shape (C, *space) of an image of a batch, without reading any."""
    if cli.datamodule.name == TEXTURE:
        side = cli.datamodule.crop or cli.datamodule.size
        return 3, side, side
    return SHAPES[cli.datamodule.name]


def test_energy_takes_an_image_of_its_data(cli):
    shape = shape_of(cli)
    energy = cli.model.energy
    assert isinstance(energy, Energy)
    torch.manual_seed(0)
    y = torch.zeros(2, dtype=torch.int64) if cli.model.classes else None
    with torch.no_grad():
        assert energy.eval()(torch.randn(2, *shape), y).shape == (2,)
    assert cli.model.classes in (None, CLASSES.get(cli.datamodule.name))
    assert cli.datamodule.crop is not None or cli.datamodule.size in (None, shape[-1])
    assert cli.datamodule.channels in (None, shape[0])


def test_energy_is_rebuilt_from_its_description(cli):
    energy = cli.model.energy
    again = build(describe(energy))
    again.load_state_dict(energy.state_dict())
    x = torch.rand(1, *shape_of(cli)) * 2 - 1
    y = torch.zeros(1, dtype=torch.int64) if cli.model.classes else None
    with torch.no_grad():
        assert torch.equal(again.eval()(x, y), energy.eval()(x, y))


def test_schedules_are_in_order_and_within_the_run(cli):
    chain, steps = cli.model.chain, cli.trainer.max_steps
    for knots, end in [
        (chain.step_size, chain.steps),
        (chain.temperature, chain.steps),
        (cli.model.lr, steps),
    ]:
        assert all(value_at(knots, step) >= 0 for step in range(end))
        if not isinstance(knots, int | float):
            places = [step for step, _ in knots]
            assert places == sorted(set(places))
            assert places[-1] <= end
    assert getattr(cli.model, "transport_updates", 0) <= steps


def test_the_buffer_holds_a_batch_of_every_class(cli):
    if not cli.model.uses_buffer:
        pytest.skip("has no buffer")
    lent = cli.model.chains_lent(cli.datamodule.batch_size)
    assert cli.model.buffer_size >= lent * (cli.model.classes or 1)
    assert len(cli.model.chain_shape(shape_of(cli))) == len(shape_of(cli))


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_the_shapes_above_are_those_of_the_data(name):
    images = load_images(name, "train")
    assert images.shape == SHAPES[name]
    assert len(images.classes) == CLASSES[name]


def test_the_default_passes_the_checks_of_a_run(cli):
    if cli.datamodule.name != "digits":
        pytest.skip("reads no data but the digits")
    assert isinstance(cli.datamodule, ImageData)
    check_shapes(cli.model, cli.datamodule)
    assert cli.model.energy.training
