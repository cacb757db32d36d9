"""The quality command: what it draws, keeps, shares out, calls its numbers, and refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genconv.eval.inception_weights as weights
import genconv.eval.quality_command as quality_command
import genconv.eval.quality_features as quality_features
import genconv.eval.quality_networks as quality_networks
from genconv.data import load_images
from genconv.errors import UserError, command
from genconv.eval import (
    Moments,
    SmallClassifier,
    extract,
    frechet_distance,
    frechet_infinity,
    inception_score,
    kernel_distance,
    load_extractor,
    precision_recall_density_coverage,
)
from genconv.eval.__main__ import main
from genconv.eval.kept import shelf
from genconv.eval.quality_features import Looking, look
from genconv.eval.quality_sources import held
from genconv.images import save_png
from genconv.sample import sample

N = 1100  # three blocks


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A file of random weights whose features differ from image to image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SmallClassifier(1, 10, 8).eval()
        torch.nn.init.normal_(model.head.weight, 0, 10)
    model.about = {"data": "noise"}
    path = tmp_path_factory.mktemp("network") / "features.safetensors"
    model.save(path)
    return path


@pytest.fixture(autouse=True)
def few_subsets(monkeypatch):
    """A hundred would take most of the time."""
    monkeypatch.setattr("genconv.eval.quality_numbers.SUBSETS", 3)


@pytest.fixture
def judge(network, tmp_path, capsys):
    """Run the command, and return its report and what it printed."""

    def judge(*sources, features=network, root="root", data="digits"):
        options = [] if features is None else ["--features", features]
        words = ["quality", "--data", data, "--device", "cpu", *options]
        path = tmp_path / "report.json"
        path.unlink(missing_ok=True)
        main([str(word) for word in [*words, "--root", tmp_path / root, "--json", path, *sources]])
        report = json.loads(path.read_text()) if path.exists() else None
        return report, capsys.readouterr()

    return judge


@pytest.fixture
def looks(monkeypatch):
    """Numbers of images that the network was shown."""
    shown, whole = [], extract

    def spy(extractor, images, **how):
        shown.append(len(images))
        return whole(extractor, images, **how)

    monkeypatch.setattr("genconv.eval.quality_features.extract", spy)
    return shown


def noise(*shape, seed=0):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).byte()


def write(path, images):
    np.savez(path, images=images.movedim(1, -1).numpy())
    return path


def values(report, which=0):
    numbers = report["results"][which]["numbers"]
    return {name: number.get("value") for name, number in numbers.items()}


def kept(tmp_path, kind, root="root"):
    return sorted(shelf(tmp_path / root).glob(f"{kind}-*/*.npz"))


def test_numbers_are_those_of_the_library(judge, network, trained, run):
    report, told = judge(run, "-n", 600, "--infinity")
    real, extractor = load_images("digits", "train").images, load_extractor(network)
    fake = sample(trained, range(600))
    a, b = extract(extractor, fake), extract(extractor, real)
    overlap = precision_recall_density_coverage(b.features, a.features, 3)
    score = inception_score(a.logits)
    assert score.mean > 1.001
    expected = {
        "feature_distance": frechet_distance(Moments.of(a.features), Moments.of(b.features)),
        "feature_distance_infinity": frechet_infinity(a.features, Moments.of(b.features)),
        "classifier_score": score.mean,
        "kernel_feature_distance": kernel_distance(a.features, b.features, subsets=3).mean,
        **overlap._asdict(),
    }
    assert values(report) == pytest.approx(expected, rel=1e-6)
    std = report["results"][0]["numbers"]["classifier_score"]["std"]
    assert std == pytest.approx(score.std, rel=1e-4)
    assert f"{expected['feature_distance']:.4g}" in told.out


def test_protocol_is_beside_the_numbers(judge, network, run, trained):
    report, told = judge(run, "-n", 20, "--seed", 3, "--steps", 4)
    about = report["results"][0]["samples"]
    assert about["weights_sha256"] == trained.digest()
    assert about["chain"] == json.loads(json.dumps(trained.chain.at(steps=4).to_dict()))
    assert (about["n"], about["seed"], about["updates"]) == (20, 3, trained.updates)
    how = report["protocol"]
    assert how["reference"]["source"] == "digits"
    assert (how["reference"]["split"], how["reference"]["n"]) == ("train", 1497)
    assert len(how["reference"]["sha256"]) == len(how["extractor"]["sha256"]) == 64
    assert how["extractor"]["resize"] == "none"
    assert "divisor 10" in how["settings"]["score"]
    assert "seed 0" in judge(run, "-n", 20)[1].out
    for word in ("n 20", "seed 3", "averaged", "'start': 'normal'", how["extractor"]["sha256"]):
        assert word in told.out


def test_samples_are_those_of_the_sampling_command(judge, run, tmp_path):
    from genconv.sample import main as draw

    judge(run, "-n", N, "--seed", 1)
    draw([str(run), "-n", str(N), "--seed", "1", "--out", str(tmp_path / "a.npz")])
    found = [np.load(path)["images"] for path in kept(tmp_path, "samples")]
    assert [len(images) for images in found] == [512, 512, 76]
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(np.concatenate(found), np.moveaxis(file["images"], -1, 1))


def test_checkpoint_file_folder_and_name_give_the_same_numbers(judge, run, trained, tmp_path):
    drawn, _ = judge(run, "-n", 30)
    images = sample(trained, range(30))
    for i, image in enumerate(images):
        save_png(tmp_path / "folder" / f"{i:02d}.png", image)
    others, _ = judge(write(tmp_path / "a.npz", images), tmp_path / "folder")
    assert values(others, 0) == values(others, 1) == values(drawn)
    named, _ = judge("digits:test")
    packed = write(tmp_path / "test.npz", load_images("digits", "test").images)
    assert values(named) == values(judge(packed)[0])
    assert named["results"][0]["samples"]["split"] == "test"


def test_batches_and_shards_do_not_matter(judge, run, looks, monkeypatch):
    whole = values(judge(run, "-n", N)[0])
    other = values(judge(run, "-n", N, "--batch-size", 37, root="batches")[0])
    assert other == pytest.approx(whole, rel=1e-6, abs=1e-6)
    looks.clear()
    for i in range(3):
        report, told = judge(run, "-n", N, "--shard", f"{i}/3", root="shards")
        assert report is None
        assert f"part {i} of 3: 2 blocks" in told.out
    # all of the work was done, none of it twice, and none is left
    assert sum(looks) == 1497 + N
    monkeypatch.setattr("genconv.sample.sample", None)
    assert values(judge(run, "-n", N, root="shards")[0]) == whole
    assert sum(looks) == 1497 + N


def test_what_was_cut_short_goes_on(judge, run, looks, monkeypatch, tmp_path):
    whole = values(judge(run, "-n", N, root="whole")[0])
    drawn, original, left = [], sample, iter(range(3))

    def cut(trained, rows, **how):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(trained, rows, **how)

    def spy(trained, rows, **how):
        drawn.extend(rows)
        return original(trained, rows, **how)

    # the third batch of 256 is in the second block
    monkeypatch.setattr("genconv.sample.sample", cut)
    with pytest.raises(KeyboardInterrupt):
        judge(run, "-n", N)
    assert len(kept(tmp_path, "samples")) == 1
    monkeypatch.setattr("genconv.sample.sample", spy)
    looks.clear()
    assert values(judge(run, "-n", N)[0]) == whole
    assert drawn == list(range(512, N))
    assert sum(looks) == N - 512
    # fewer are some of those, and another seed is other images
    drawn.clear()
    judge(run, "-n", 512)
    assert drawn == []
    judge(run, "-n", 20, "--seed", 1)
    assert drawn == list(range(20))


def test_features_are_kept_by_what_is_in_the_images(judge, network, looks, tmp_path):
    data = load_images("digits", "train").images.clone()
    before, _ = judge("digits:test", data=write(tmp_path / "data.npz", data))
    assert sum(looks) == 300 + 1497
    same, _ = judge("digits:test", data=write(tmp_path / "renamed.npz", data))
    assert sum(looks) == 300 + 1497
    assert values(same) == values(before)
    # what changed under the same name is seen anew, and nothing else is
    data[600] = 255 - data[600]
    changed, _ = judge("digits:test", data=write(tmp_path / "data.npz", data))
    assert sum(looks) == 300 + 1497 + 512
    assert values(changed) != values(before)
    assert changed["protocol"]["reference"]["split"] is None
    assert changed["protocol"]["reference"]["sha256"] != before["protocol"]["reference"]["sha256"]
    other = SmallClassifier(1, 10, 8)
    other.save(tmp_path / "other.safetensors")
    judge("digits:test", data=tmp_path / "data.npz", features=tmp_path / "other.safetensors")
    assert sum(looks) == 2 * (300 + 1497) + 512


def test_torn_features_are_seen_again(judge, looks, tmp_path):
    before, _ = judge("digits:test")
    files = kept(tmp_path, "features")
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:500])
    files[1].write_bytes(b"")
    looks.clear()
    assert values(judge("digits:test")[0]) == values(before)
    assert len(looks) == 2


def test_float32_features_are_kept_as_such_and_others_are_not_rounded(tmp_path):
    from genconv.eval.quality_features import _smallest

    assert _smallest(torch.tensor([0.5, 1 / 3]).double()).dtype == np.float32
    assert _smallest(torch.tensor([0.5, 1 / 3], dtype=torch.float64)).dtype == np.float64


def test_rows_of_a_very_large_set_are_chosen_and_its_moments_are_of_all(
    judge, network, monkeypatch
):
    images = load_images("digits", "train").images
    whole = values(judge("digits:test")[0])
    monkeypatch.setattr("genconv.eval.quality_features.MOST", 400)
    monkeypatch.setattr("genconv.eval.quality_features.TOGETHER", 2)
    capped = values(judge("digits:test")[0])
    assert capped["feature_distance"] == pytest.approx(whole["feature_distance"], rel=1e-6)
    assert capped["coverage"] > whole["coverage"]
    looking = Looking(quality_networks.other(network), Path("none"), 256, "cpu")
    monkeypatch.setattr(looking, "_block", pixels_of)
    seen = look(looking, held("digits", "train", images), 0)
    assert (seen.n, len(seen.features), len(seen.rows)) == (1497, 400, 400)
    assert len(seen.rows.unique()) == 400
    assert torch.equal(seen.features, images[seen.rows].flatten(1).float())
    torch.testing.assert_close(seen.moments.mean, images.flatten(1).double().mean(0))


def test_out_of_memory_looks_at_fewer_images_at_once(network, tmp_path, monkeypatch):
    images = load_images("digits", "test").images[:50]
    source = held("digits", "test", images)
    extract, sizes = quality_features.extract, []

    def short(extractor, images, *, batch_size, **how):
        sizes.append(batch_size)
        if batch_size > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return extract(extractor, images, batch_size=batch_size, **how)

    whole = look(Looking(quality_networks.other(network), tmp_path / "a", 64, "cpu"), source, 0)
    monkeypatch.setattr(quality_features, "extract", short)
    seen = look(Looking(quality_networks.other(network), tmp_path / "b", 64, "cpu"), source, 0)
    assert sizes == [64, 32, 16]
    torch.testing.assert_close(seen.features, whole.features)


def pixels_of(images):
    return {"features": images.flatten(1).float().numpy()}


def test_only_the_published_network_gives_fid(judge, network, monkeypatch):
    other, told = judge("digits:test", "--infinity")
    assert not any(word in told.out for word in ("FID", "IS-", "KID"))
    assert other["results"][0]["numbers"]["feature_distance"]["label"] == "feature distance-300"
    published = replace(quality_networks.other(network), published=True)
    monkeypatch.setattr(quality_command, "inception", lambda path: published)
    report, told = judge("digits:test", "--infinity", features=None)
    labels = [number["label"] for number in report["results"][0]["numbers"].values()]
    assert labels == [
        *("FID-300", "FID-infinity", "IS-300", "KID-300"),
        *("precision-300", "recall-300", "density-300", "coverage-300"),
    ]
    assert list(values(report).values()) == list(values(other).values())
    assert list(report["results"][0]["numbers"])[:4] == ["fid", "fid_infinity", "is", "kid"]


def test_weights_of_another_inception_give_no_fid(network, monkeypatch):
    monkeypatch.setattr(quality_networks, "load_inception", lambda path: None)
    found = quality_networks.inception(network)
    assert not found.published
    assert "NOT the published weights" in found.about["network"]


def test_fault_22_without_inception_weights_other_networks_go_on(
    judge, run, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "URL", "http://127.0.0.1:9/weights.pth")
    with pytest.raises(SystemExit) as stopped:
        command(lambda: judge(run, features=None))
    assert stopped.value.code == 2
    assert "--weights" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()
    assert judge("digits:test")[0] is not None


def test_what_is_to_be_judged_is_asked_for_before_the_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    monkeypatch.setattr(weights, "URL", "http://127.0.0.1:9/weights.pth")
    with pytest.raises(UserError, match=r"no data called .nowhere"):
        main(["quality", "nowhere", "--data", "digits"])


def test_a_classifier_is_trained_on_the_reference_once(judge, monkeypatch, tmp_path, capsys):
    calls, train = [], quality_networks.train_classifier

    def quick(*args, **how):
        calls.append(how["mirror"])
        return train(*args, **{**how, "epochs": 1})

    monkeypatch.setattr(quality_networks, "train_classifier", quick)
    report, _ = judge("digits:test", features="train")
    again, told = judge("digits:test", features="train")
    assert calls == [False]
    assert values(again) == values(report)
    (path,) = shelf(tmp_path / "root").glob("classifier-*.safetensors")
    assert str(path) in told.out
    model, test = SmallClassifier.load(path), load_images("digits", "test")
    known = extract(model, test.images).logits.argmax(1) == test.labels
    assert model.about["accuracy"] == float(known.double().mean())
    # a user may name the file that was kept
    assert values(judge("digits:test", features=path)[0]) == values(report)
    path.write_bytes(b"torn")
    judge("digits:test", features="train")
    assert calls == [False, False]
    unlabelled = write(tmp_path / "unlabelled.npz", noise(20, 1, 8, 8))
    with pytest.raises(UserError, match="no labels"):
        judge(unlabelled, features="train", data=unlabelled)


def test_nearest_neighbours_of_a_copy_begin_with_its_original(judge, tmp_path):
    real = load_images("digits", "train").images
    copies = write(tmp_path / "copies.npz", torch.cat([real[[700, 3]], noise(10, 1, 8, 8)]))
    judge(copies, "--neighbours", tmp_path / "pictures" / "near.png")
    with Image.open(tmp_path / "pictures" / "near.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (10 * 68 + 4, 10 * 68 + 4)
    for row, number in enumerate((700, 3)):
        for column in (0, 2):
            top, left = 4 + 68 * row, 4 + 68 * column
            tile = pixels[top : top + 64 : 8, left : left + 64 : 8]
            assert np.array_equal(tile, real[number, 0].numpy())
    assert pixels[4:68, 72:136].min() == 255


def test_a_number_that_cannot_be_had_does_not_cost_the_others(judge, tmp_path):
    report, told = judge(write(tmp_path / "a.npz", noise(3, 1, 8, 8)))
    numbers = report["results"][0]["numbers"]
    assert "splits" in numbers["classifier_score"]["error"]
    assert "4 are needed" in numbers["precision"]["error"]
    assert "value" in numbers["feature_distance"]
    assert "precision-3: 3 and 1497" in told.out.replace("1497 and 3", "3 and 1497")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "1"], "-n must be at least 2"),
        (["-n", "301"], "digits:test has 300 images, not 301"),
        (["--batch-size", "0"], "--batch-size must be"),
        (["--temperature", "nan"], "--temperature must be"),
        (["--shard", "3/3"], "--shard must be I/K"),
        (["--weights", "file.pth"], "--weights are the Inception"),
        (["--split", "tset"], "no split 'tset'"),
        (["--data", "cifra10"], "did you mean 'cifar10'"),
        (["--features", "none.pt"], r"no such file: none\.pt"),
        (["--features", "train", "--shard", "0/2"], "run once with --features train"),
        (["--device", "cuda:99"], "there is no device 'cuda:99'"),
    ],
)
def test_what_cannot_be_done_is_said(judge, tmp_path, words, said):
    with pytest.raises(UserError, match=said):
        judge("digits:test", *words)
    assert not (tmp_path / "report.json").exists()


def test_sources_that_do_not_fit(judge, tmp_path, run):
    coloured = write(tmp_path / "coloured.npz", noise(5, 3, 9, 9))
    films = write(tmp_path / "films.npz", noise(5, 3, 4, 9, 9))
    with pytest.raises(UserError, match="compare images of one shape"):
        judge("digits:test", coloured)
    with pytest.raises(UserError, match="holds no pictures"):
        judge(films)
    with pytest.raises(UserError, match="no such folder or file"):
        judge(tmp_path / "none")
    with pytest.raises(UserError, match=r"alone\.npz is one image, and quality is of many"):
        judge(write(tmp_path / "alone.npz", noise(1, 3, 9, 9)))
    with pytest.raises(UserError, match=r"does not take images of shape \(3, 9, 9\)"):
        judge(coloured, data=coloured)
    with pytest.raises(UserError, match="is a folder; name a file"):
        judge("digits:test", "--neighbours", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        judge("digits:test", "--neighbours", tmp_path / "file" / "a.png")
