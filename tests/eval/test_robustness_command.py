"""Accuracy under attack."""

import json

import numpy as np
import pytest
import torch

import genconv.eval.robustness_command as command
from genconv.data import load_images
from genconv.errors import UserError
from genconv.eval import train_classifier
from genconv.eval.__main__ import main
from genconv.eval.robustness import Attempt, Outcome, doubts, survived, tried


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    images = load_images("digits", "train")
    model = train_classifier(
        images.images, images.labels, classes=10, epochs=4, batch_size=64, mirror=False
    )
    path = tmp_path_factory.mktemp("classifier") / "digits.safetensors"
    model.save(path)
    return path


@pytest.fixture
def robustness(run, classifier, tmp_path, capsys):
    def robustness(*options):
        fixed = [
            *("--data", "digits", "--classifier", classifier, "--device", "cpu", "-n", 30),
            *("--steps", 3, "--runs", 2, "--time", 0.05, "--radii", "8/255", 0.3),
            *("--folder", tmp_path / "out"),
        ]
        main(["robustness", *map(str, [run, *fixed, *options])])
        report = json.loads((tmp_path / "out" / "robustness.json").read_text())
        return report, capsys.readouterr().out

    return robustness


def test_attacks_harm_more_than_noise_and_more_with_the_radius(robustness, tmp_path):
    report, printed = robustness()
    rows = report["accuracy"]
    noise, attacked = rows["classifier, random noise"], rows["classifier, attacked"]
    assert report["radii"] == pytest.approx([0, 8 / 255, 0.3])
    assert noise[0] == attacked[0] > 0.8
    assert attacked[0] >= attacked[1] > attacked[2]
    assert attacked[2] < noise[2] - 0.2
    worst = rows["purified, worst of the three"]
    others = [row for name, row in rows.items() if name.startswith("purified") and row != worst]
    assert all(w <= min(column) for w, *column in zip(worst, *others, strict=True))
    # a Wilson interval of 30 images
    low, high = report["intervals"]["classifier, attacked"][0]
    assert low < attacked[0] <= high
    assert "8/255" in printed
    assert not any(name.startswith("energy") for name in rows)
    for picture in ("robustness.png", "attacked.png"):
        assert (tmp_path / "out" / picture).stat().st_size > 1000


def test_numbers_do_not_depend_on_the_batch(robustness):
    whole, _ = robustness("-n", 12)
    parts, _ = robustness("-n", 12, "--batch-size", 5)
    assert whole["accuracy"] == parts["accuracy"]


def test_a_conditional_energy_is_a_classifier_too(conditional, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    images = np.random.default_rng(0).integers(256, size=(30, 8, 8, 3), dtype=np.uint8)
    for split in ("train", "test"):
        np.savez(data / f"{split}.npz", images=images, labels=np.arange(30) % 3)
    flags = ["--data", data, "-n", 6, "--steps", 2, "--runs", 0, "--radii", 0.1]
    main(["robustness", *map(str, [conditional, *flags, "--root", tmp_path, "--folder", tmp_path])])
    rows = json.loads((tmp_path / "robustness.json").read_text())["accuracy"]
    assert rows["energy, attacked"][1] <= rows["energy, attacked"][0]
    assert "energy, random noise" in rows
    assert not any(name.startswith("purified") for name in rows)


def test_what_an_image_meets_is_its_own():
    asked = []

    def judged(x, generator):
        asked.append([g.initial_seed() for g in generator])
        return torch.stack([x.flatten(1).sum(1), torch.zeros(len(x))], 1)

    attempt = Attempt("classifier", "attacked", judged, judged)
    x, y = torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 0])
    clean = tried(attempt, x, y, 0.0, steps=2)
    assert torch.equal(clean.images, x)
    assert clean.right.tolist() == [True, False, True]
    found = tried(attempt, x, y, 0.1, steps=2)
    # radii are those of images in [0, 1], which are half as wide
    assert (found.images - x).abs().amax((1, 2, 3)).tolist() == pytest.approx([0.2] * 3)
    assert found.right.tolist() == [False] * 3
    seeds = asked[-1]
    tried(attempt, x[1:], y[1:], 0.1, steps=2, first=1)
    assert asked[-1] == seeds[1:]
    assert len(set(seeds)) == 3
    # neither the attack nor another radius knows what the judge will draw
    assert set(asked[1]) & set(seeds) == set()


def test_no_numbers_are_no_answer():
    def judged(x, generator):
        return torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0], [1.0, 0.0]])

    attempt = Attempt("purified", "attacked", judged, judged)
    clean = tried(attempt, torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64), 0.0)
    assert clean.right.tolist() == [False, False, True]


def test_who_is_fooled_stays_fooled():
    rights = [[True, True, False], [True, False, True], [True, True, True]]
    found = survived([Outcome(torch.tensor(right), torch.zeros(3)) for right in rights])
    assert [f.tolist() for f in found] == [
        [True, True, False],
        [True, False, False],
        [True, False, False],
    ]


def test_doubts_name_what_is_odd():
    sound = {
        "classifier, random noise": [0.9, 0.8, 0.7],
        "classifier, attacked": [0.9, 0.4, 0.0],
        "purified, attacked straight through": [0.9, 0.6, 0.1],
        "purified, attacked through the chain": [0.9, 0.5, 0.0],
    }
    assert doubts(sound, 0.1) == []
    masked = sound | {"classifier, attacked": [0.9, 0.9, 0.6]}
    first, second = doubts(masked, 0.1)
    assert first.startswith("classifier: 60% are right even at the largest radius")
    assert second == "classifier: random noise fools it more often than the attack does"
    exploding = sound | {"purified, attacked through the chain": [0.9, 0.8, 0.7]}
    assert any("it explodes" in doubt for doubt in doubts(exploding, 0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--radii", "8/0"], "--radii 8/0: give numbers above 0, as 0.03 or 8/255"),
        (["--radii", "-1"], "--radii -1: give numbers"),
        (["--time", 1.5], "--time must be at most 1"),
        (["--runs", -1], "--runs must be at least 0"),
        (["--runs", 0], "--runs 0 leaves nothing of an energy without classes"),
        (["--time", 0.8], "nothing is left of a chain of 5 steps at time 0.8"),
        (["--length", 0], "--length must be at least 1"),
        (["--data", "unlabelled.npz"], "without classes; this needs some of .1, 8, 8., with"),
        (["--classifier", "nowhere.safetensors"], "cannot read a classifier from nowhere"),
    ],
)
def test_what_cannot_be_is_said_first(robustness, monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(tmp_path)
    np.savez("unlabelled.npz", images=np.zeros((3, 8, 8, 1), np.uint8))
    monkeypatch.setattr(command, "tried", lambda *args, **how: pytest.fail("attacked first"))
    with pytest.raises(UserError, match=message):
        robustness(*options)
