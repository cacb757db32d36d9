"""Checkpoints that want to do more than be read, or hold something else than they should."""

import json
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from genconv.checkpoint import Trained, read, write
from genconv.energy import UNetEnergy
from genconv.errors import UserError
from genconv.sampling import Chain
from tests.conftest import train


@pytest.fixture
def saved(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def as_last(saved, runs):
    folder = runs / "digits" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(saved, folder / "last.ckpt")
    return str(folder / "last.ckpt")


class Command:
    """Unpickled, it would call the shell."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


PLACES = ["callbacks", "optimizer_states", "chains", "genconv", "state_dict", "hyper_parameters"]


@pytest.mark.parametrize("place", PLACES)
def test_no_part_of_a_checkpoint_is_run_when_training_goes_on(saved, tmp_path, place):
    """Fault 15: a canary in every place, for every way in."""
    canary = tmp_path / "canary"
    path = as_last({**saved, place: Command(canary)}, tmp_path)
    with pytest.raises(UserError, match="was not read") as error:
        train(tmp_path, "--ckpt_path", "last")
    assert path in str(error.value)
    with pytest.raises(UserError, match="was not read"):
        read(path, "cpu")
    assert not canary.exists()


def test_lightnings_instantiator_is_not_asked(saved, tmp_path):
    """Fault 15: Lightning below 2.6.6 imported and called what this key names."""
    canary = tmp_path / "canary"
    parameters = {"_instantiator": "os.system", "command": f"touch {canary}"}
    as_last({**saved, "hyper_parameters": parameters}, tmp_path)
    read(tmp_path / "digits", "cpu")
    train(tmp_path, "--ckpt_path", "last")
    assert not canary.exists()


def test_an_unknown_global_is_not_imported(saved, tmp_path):
    """Fault 15: `weights_only` is not to be talked out of, not by the environment either."""
    path = as_last({**saved, "extra": np.random.default_rng(0)}, tmp_path)
    for name in ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", ""):
        with pytest.MonkeyPatch.context() as patch:
            if name:
                patch.setenv(name, "1")
            with pytest.raises(UserError, match="was not read"):
                read(path, "cpu")


@pytest.mark.parametrize("size", [10**6, 10**9])
def test_a_card_of_giant_layers_allocates_nothing(trained, tmp_path, size):
    """Fault 15: the sizes that a card names are held against the weights that are there."""
    write(trained, tmp_path)
    card = json.loads((tmp_path / "energy.json").read_text())
    card["energy"]["arguments"]["widths"] = [size, size]
    (tmp_path / "energy.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"do not fit|size .* overflowed"):
        read(tmp_path, "cpu")


def test_a_card_of_endless_layers_does_not_take_for_ever(tmp_path):
    energy = UNetEnergy(1, width=4, multipliers=(1,), blocks=1)
    write(Trained(energy, Chain(), (1, 8, 8), 0), tmp_path)
    card = json.loads((tmp_path / "energy.json").read_text())
    card["energy"]["arguments"]["blocks"] = 10**9
    (tmp_path / "energy.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="many more layers than its"):
        read(tmp_path, "cpu")
    # and other networks are built as before
    assert sum(1 for _ in UNetEnergy(1, width=4, blocks=40).parameters()) > 300


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(saved, tmp_path):
    """Fault 15: with checksums that are right, so that only the sizes contradict each other."""
    path = Path(as_last({**saved, "extra": torch.zeros(77, dtype=torch.uint8)}, tmp_path))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = [name for name in members if name.endswith("data.pkl")]
    # number 77 becomes number 10^9, of elements
    assert members[pickled].count(b"K\x4d") >= 1
    members[pickled] = members[pickled].replace(b"K\x4d", b"J" + (10**9).to_bytes(4, "little"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError):
        read(path, "cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_other_images_are_named(run, saved, tmp_path):
    """Fault 17: the energy would take images of any size, but its chains are of one."""
    images = np.zeros((40, 16, 16, 1), np.uint8)
    np.savez(tmp_path / "other.npz", images=images)
    as_last(saved, tmp_path)
    with pytest.raises(UserError, match=r"images of shape \(1, 8, 8\).*\(1, 16, 16\)"):
        train(tmp_path, "--ckpt_path", "last", "--data.name", str(tmp_path / "other.npz"))


def test_a_newer_format_and_other_weights_are_named_when_training_goes_on(saved, tmp_path):
    """Fault 17."""
    as_last({**saved, "genconv": {**saved["genconv"], "format": 99}}, tmp_path / "a")
    with pytest.raises(UserError, match="format 99; update genconv"):
        train(tmp_path / "a", "--ckpt_path", "last")
    weights = dict(saved["state_dict"])
    weights["energy.head.weight"] = torch.zeros(3, 3)
    as_last({**saved, "state_dict": weights}, tmp_path / "b")
    with pytest.raises(UserError, match=r"do not fit .*head\.weight"):
        train(tmp_path / "b", "--ckpt_path", "last")
