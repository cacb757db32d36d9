"""The export command."""

import json

import numpy as np
import pytest

from genconv import export, sample
from genconv.errors import UserError


def test_writes_weights_and_card(run, tmp_path, capsys):
    export.main([str(run), str(tmp_path / "new" / "digits")])
    folder = tmp_path / "new" / "digits"
    assert str(folder) in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["energy.json", "energy.safetensors"]
    card = json.loads((folder / "energy.json").read_text())
    assert card["format"] == 1
    assert card["energy"]["class"] == "genconv.energy.convnet.GenerativeConvNet"
    assert (card["shape"], card["updates"]) == ([1, 8, 8], 6)


@pytest.mark.parametrize("which", ["run", "conditional"])
def test_draws_the_same_images_as_the_checkpoint(request, tmp_path, which):
    checkpoint = request.getfixturevalue(which)
    export.main([str(checkpoint), str(tmp_path / "exported")])
    for name in (checkpoint, tmp_path / "exported"):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        sample.main([str(name), "-n", "5", "--out", str(out), "--device", "cpu"])
    one, other = (np.load(path)["images"] for path in sorted(tmp_path.glob("*.npz")))
    assert one.std() > 0
    assert np.array_equal(one, other)


def test_sampling_begun_from_the_checkpoint_goes_on_from_the_export(run, tmp_path, monkeypatch):
    export.main([str(run), str(tmp_path / "exported")])
    args = ["-n", "4", "--out", str(tmp_path / "a.npz"), "--device", "cpu"]

    def cut(*args, **how):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sample, "sample", cut)
        with pytest.raises(KeyboardInterrupt):
            sample.main([str(run), *args])
    sample.main([str(tmp_path / "exported"), *args])
    assert (tmp_path / "a.npz").exists()


def test_a_missing_checkpoint_makes_no_folder(tmp_path):
    with pytest.raises(UserError, match="there is no"):
        export.main([str(tmp_path / "nothing"), str(tmp_path / "new")])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError, match="cannot write"):
        export.main([str(run), str(tmp_path / "file" / "new")])
