"""The energies that come with the package."""

import pytest
import torch
import yaml

import genconv
from genconv.checkpoint import PRETRAINED
from genconv.errors import UserError
from genconv.sample import main, sample
from genconv.sampling import Chain
from tests.benchmarks.digits import measure

NAMES = [folder.name for folder in PRETRAINED.iterdir()]


def test_they_are_small():
    assert sum(file.stat().st_size for file in PRETRAINED.rglob("*.*")) < 2e6


@pytest.mark.parametrize("name", NAMES)
def test_each_is_the_energy_of_the_config_of_its_name(name):
    trained = genconv.read(name, "cpu")
    config = yaml.safe_load((PRETRAINED.parents[1] / "configs" / f"{name}.yaml").read_text())
    assert trained.chain == Chain(**config["model"]["init_args"]["chain"])
    assert trained.updates == config["trainer"]["max_steps"]


def test_digits_are_as_good_as_the_quickstart_promises():
    images = sample(genconv.read("digits", "cpu"), range(1000))
    quality = measure(images.flatten(1).numpy() / 255 * 16)
    assert quality.distance < 2
    assert quality.rarest > 0.03
    assert quality.copies < 0.03


def test_a_folder_of_that_name_is_meant_first(tmp_path, monkeypatch, trained):
    genconv.write(trained, tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert genconv.read("digits", "cpu").updates == trained.updates
    assert genconv.read(PRETRAINED / "digits", "cpu").updates != trained.updates


def test_commands_take_the_name(tmp_path):
    main(["digits", "-n", "2", "--steps", "2", "--device", "cpu", "--out", f"{tmp_path}/d.npz"])
    assert (tmp_path / "d.npz").exists()


def test_other_names_are_told_what_there_is():
    with pytest.raises(UserError, match=r"there is no digit; .* package: digits"):
        genconv.load("digit")


def test_half_as_large_is_nearly_the_same(trained, tmp_path):
    for half in (False, True):
        genconv.write(trained, tmp_path / str(half), half=half)
    whole, half = (genconv.load(tmp_path / str(half), "cpu") for half in (False, True))
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert half(x).dtype == torch.float32
    assert torch.allclose(whole(x), half(x), rtol=1e-2, atol=1e-3)
    assert not torch.equal(whole(x), half(x))
    size = (tmp_path / "True" / "energy.safetensors").stat().st_size
    assert 0 < size - 2 * sum(w.numel() for w in whole.parameters()) < 1000


def test_weights_beyond_the_range_are_not_written(trained, tmp_path):
    weight = next(trained.energy.parameters())
    kept = weight.clone()
    weight.view(-1)[0] = 1e5
    try:
        with pytest.raises(UserError, match="float16; leave out --half"):
            genconv.write(trained, tmp_path / "half", half=True)
        assert not (tmp_path / "half").exists()
    finally:
        weight.copy_(kept)
