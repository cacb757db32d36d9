"""Trained energies on disk, good ones and hostile ones."""

import json
import pickle
import shutil
import zipfile

import pytest
import safetensors.torch
import torch
from pytorch_lightning import LightningModule, Trainer

import genconv
from genconv.checkpoint import Trained, load, read, write
from genconv.energy import GenerativeConvNet, UNetEnergy
from genconv.errors import UserError
from genconv.sampling import Chain
from genconv.trained import FORMAT

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def saved(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture
def exported(trained, tmp_path):
    write(trained, tmp_path / "exported")
    return tmp_path / "exported"


def altered(exported, **changes):
    card = json.loads((exported / "energy.json").read_text())
    (exported / "energy.json").write_text(json.dumps(card | changes))
    return exported


def refusal(path):
    """The one sentence that a user gets."""
    with pytest.raises(UserError) as error:
        load(path, "cpu")
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_the_averaged_weights_are_loaded(run, saved):
    energy = load(run / "checkpoints" / "last.ckpt", "cpu")
    averaged, raw = saved["state_dict"], saved["current_model_state"]
    for name, weight in energy.state_dict().items():
        assert torch.equal(weight, averaged[f"energy.{name}"])
        assert not torch.equal(weight, raw[f"energy.{name}"])


def test_tells_what_it_takes_to_use_it(trained):
    assert type(trained.energy) is GenerativeConvNet
    assert trained.chain == Chain(5, 0.025, [(2, 0.0), (4, 0.1)])
    assert (trained.shape, trained.updates) == ((1, 8, 8), 6)
    json.dumps(trained.card())


def test_every_form_gives_the_same_energy(run, trained, exported, tmp_path):
    write(read(exported, "cpu"), tmp_path / "again")
    expected = trained.energy(IMAGES)
    assert expected.std() > 0
    for path in (run, run / "checkpoints", exported, str(exported), tmp_path / "again"):
        if path == run / "checkpoints":
            path = path / "last.ckpt"
        found = read(path, "cpu")
        assert torch.equal(found.energy(IMAGES), expected)
        # JSON has lists where YAML's knots are tuples
        assert json.dumps(found.card()) == json.dumps(trained.card())
    assert sorted(path.name for path in exported.iterdir()) == [
        "energy.json",
        "energy.safetensors",
    ]


def test_loading_draws_no_random_numbers(run):
    before = torch.get_rng_state()
    load(run, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_loaded_is_in_eval_mode_where_it_is_asked_for(run, exported, conditional):
    for path in (run, exported, conditional):
        energy = genconv.load(path, device="cpu")
        assert not any(module.training for module in energy.modules())
        assert {p.device.type for p in energy.parameters()} == {"cpu"}
        assert {p.device.type for p in load(path, torch.device("meta")).parameters()} == {"meta"}


def test_the_device_is_the_gpu_where_there_is_one(run):
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert next(load(run).parameters()).device.type == expected


def test_an_untrained_energy_can_be_written(tmp_path):
    energy = GenerativeConvNet(2, widths=(4,), reference=0.5)
    with torch.no_grad():
        # views and shared strides do not fit into safetensors as they are
        energy.head.weight.set_(torch.randn(1, 1, 4, 1).permute(0, 2, 1, 3))
    write(Trained(energy, Chain(temperature=[(0, 1.0), (9, 0.1)]), (2, 8, 8), 0), tmp_path)
    found = read(tmp_path, "cpu")
    x = IMAGES.repeat(1, 2, 1, 1)
    assert torch.equal(found.energy(x), energy(x))
    assert found.chain.temperature == [[0, 1.0], [9, 0.1]]


def test_a_missing_file_is_named(tmp_path):
    assert "there is no" in refusal(tmp_path / "nothing.ckpt")


def test_a_folder_of_something_else_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no energy")
    assert "holds neither checkpoints/last.ckpt nor energy.json" in refusal(tmp_path)


def test_a_card_without_weights_is_refused(exported):
    (exported / "energy.safetensors").unlink()
    assert "is no genconv checkpoint" in refusal(exported)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_torn_checkpoints_are_refused(run, exported, tmp_path, share):
    for path in (run / "checkpoints" / "last.ckpt", exported / "energy.safetensors"):
        raw = path.read_bytes()
        torn = exported / "energy.safetensors" if path.parent == exported else tmp_path / "a.ckpt"
        torn.write_bytes(raw[: int(len(raw) * share)])
        refusal(exported if path.parent == exported else torn)


def test_random_bytes_are_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for length in (1, 10, 1000, 1000, 1000, 100_000):
        noise = torch.randint(256, (length,), generator=generator).to(torch.uint8)
        (tmp_path / "a.ckpt").write_bytes(bytes(noise.tolist()))
        refusal(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "1", '"genconv"', "{}", '{"format": 1}', "\udcff"]
)
def test_broken_cards_are_refused(exported, text):
    (exported / "energy.json").write_bytes(text.encode(errors="surrogateescape"))
    refusal(exported)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "new"},
        {"energy": None},
        {"energy": {"class": [], "arguments": {}}},
        {"energy": {"class": "genconv.energy.convnet.GenerativeConvNet", "arguments": []}},
        {"energy": {"class": "genconv.energy.convnet.GenerativeConvNet", "arguments": {"a": 1}}},
        {"energy": {"class": "genconv.energy.convnet.GenerativeConvNet", "arguments": {"dims": 9}}},
        {"chain": None},
        {"chain": {"stairs": 3}},
        {"shape": 3},
    ],
    ids=str,
)
def test_wrong_cards_are_refused(exported, changes):
    refusal(altered(exported, **changes))


@pytest.mark.parametrize(
    "content",
    [[], torch.zeros(3), 1, {}, {"state_dict": []}, {"state_dict": {}}, {"state_dict": {1: 2}}],
    ids=str,
)
def test_other_things_saved_by_torch_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    assert "is no genconv checkpoint" in refusal(tmp_path / "a.pt")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    class Other(LightningModule):
        def __init__(self):
            super().__init__()
            self.energy = torch.nn.Linear(2, 1)

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(Other())
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    assert "it has no 'genconv'" in refusal(tmp_path / "other.ckpt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_nothing_in_a_checkpoint_is_executed(tmp_path, saved, zipped, inside):
    canary = tmp_path / "canary"

    class Canary:
        def __reduce__(self):
            return open, (str(canary), "w")

    content = {**saved, "hyper_parameters": Canary()} if inside else Canary()
    if zipped or inside:
        torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    else:
        (tmp_path / "a.ckpt").write_bytes(pickle.dumps(content, protocol=2))
    assert "it was not read" in refusal(tmp_path / "a.ckpt")
    assert not canary.exists()


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("notes.txt", "no energy")
    refusal(tmp_path / "a.ckpt")


def test_weights_of_another_architecture_are_named(exported):
    card = json.loads((exported / "energy.json").read_text())
    card["energy"]["arguments"]["widths"] = [4, 16]
    message = refusal(altered(exported, energy=card["energy"]))
    assert "do not fit" in message
    assert "GenerativeConvNet" in message
    assert "features.2.weight" in message


def test_a_missing_weight_is_named(exported):
    weights = safetensors.torch.load_file(exported / "energy.safetensors")
    del weights["head.weight"]
    safetensors.torch.save_file(weights, exported / "energy.safetensors")
    assert "head.weight" in refusal(exported)


def test_a_newer_format_asks_for_an_update(exported):
    message = refusal(altered(exported, format=FORMAT + 1))
    assert f"format {FORMAT + 1}" in message
    assert "update genconv" in message


def test_an_unknown_energy_is_named_and_not_imported(exported):
    energy = {"class": "antigravity.Energy", "arguments": {}}
    assert "'antigravity.Energy'" in refusal(altered(exported, energy=energy))


def test_a_torn_export_leaves_the_old_one(trained, exported, monkeypatch, tmp_path):
    before = tmp_path / "before"
    shutil.copytree(exported, before)

    def torn(weights, path):
        path.write_bytes(b"torn")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", torn)
    with pytest.raises(OSError, match="disk full"):
        write(trained, exported)
    for path in before.iterdir():
        assert path.read_bytes() == (exported / path.name).read_bytes()
    assert len(list(exported.iterdir())) == 2


def test_another_size_is_sampled_by_the_same_energy(trained):
    larger = trained.at_size([12, 20])
    assert larger.energy is trained.energy
    assert larger.sample(2, generator=torch.Generator().manual_seed(0)).shape == (2, 1, 12, 20)
    assert trained.at_size(16).shape == trained.at_size([16]).shape == (1, 16, 16)


@pytest.mark.parametrize("space", [[4, 4, 4], 0, [8, -1], []])
def test_a_size_of_other_axes_is_named(trained, space):
    with pytest.raises(UserError, match="fit images of 8x8; give 2 numbers"):
        trained.at_size(space)


def test_a_size_that_the_energy_does_not_take_is_named():
    trained = Trained(UNetEnergy(1, width=8, multipliers=(1, 2), blocks=1), Chain(), (1, 8, 8), 0)
    assert trained.at_size(16).shape == (1, 16, 16)
    with pytest.raises(UserError, match="UNetEnergy does not take images of 9x9: "):
        trained.at_size(9)


def test_a_generator_comes_along(cooperative, tmp_path):
    found = read(cooperative, "cpu")
    saved = torch.load(cooperative / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, weight in found.generator.state_dict().items():
        assert torch.equal(weight, saved[f"top_down.{name}"])
    assert not any(p.requires_grad for p in found.generator.parameters())
    assert found.latent.steps == 5
    json.dumps(found.card())
    write(found, tmp_path / "exported")
    again = read(tmp_path / "exported", "cpu")
    assert json.dumps(again.card()) == json.dumps(found.card())
    assert again.digest() == found.digest()
    rng = [torch.Generator().manual_seed(0) for _ in range(2)]
    starts = [trained.start(3, generator=g) for trained, g in zip((found, again), rng, strict=True)]
    assert torch.equal(*starts)
    assert starts[0].shape == (3, 1, 8, 8)
    # what is drawn depends on both networks
    with torch.no_grad():
        again.generator.layers[0].weight[0] += 1
    assert again.digest() != found.digest()
    assert type(load(cooperative, "cpu")) is GenerativeConvNet


def test_an_energy_alone_leaves_no_generator_behind(cooperative, trained, tmp_path):
    write(read(cooperative, "cpu"), tmp_path)
    write(trained, tmp_path)
    assert read(tmp_path, "cpu").generator is None


def test_a_generator_makes_images_of_one_size(cooperative):
    found = read(cooperative, "cpu")
    assert found.at_size(8) == found
    with pytest.raises(UserError, match="makes images of 8x8, not 16x16"):
        found.at_size(16)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"generator": None}, "no genconv checkpoint"),
        ({"generator": {"class": "os.system", "arguments": {}}}, "no generator 'os.system'"),
        ({"latent": None}, "no genconv checkpoint"),
        ({"latent": {"paces": 1}}, "no genconv checkpoint"),
        ({"shape": [1, 4, 4]}, "makes images of (1, 8, 8)"),
    ],
)
def test_hostile_generators_are_refused(cooperative, tmp_path, changes, says):
    write(read(cooperative, "cpu"), tmp_path)
    assert says in refusal(altered(tmp_path, **changes))


def test_a_generator_of_other_sizes_or_without_weights_is_refused(cooperative, tmp_path):
    write(read(cooperative, "cpu"), tmp_path)
    card = json.loads((tmp_path / "energy.json").read_text())
    card["generator"]["arguments"]["latent"] = 10**9
    (tmp_path / "energy.json").write_text(json.dumps(card))
    assert "do not fit the generator" in refusal(tmp_path)
    (tmp_path / "generator.safetensors").write_bytes(b"torn")
    assert "generator.safetensors is broken" in refusal(tmp_path)
    (tmp_path / "generator.safetensors").unlink()
    assert "no genconv checkpoint" in refusal(tmp_path)
