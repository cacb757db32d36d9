"""The judge against the functions that it stands on, and what it does with its verdicts."""

import csv

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger

from genconv.data import load_images
from genconv.energy import EnergyTransformer, GenerativeConvNet
from genconv.errors import UserError
from genconv.eval.classifier import SmallClassifier
from genconv.eval.features import extract
from genconv.eval.frechet import Moments, frechet_distance
from genconv.images import to_uint8
from genconv.sampling import Chain
from genconv.seeds import stream
from genconv.train import main
from genconv.training import EnergyMatching, Thinking
from genconv.training.judge import Judge
from tests.conftest import TINY


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    SmallClassifier(1, 10, 8).save(tmp_path / "network.safetensors")
    return tmp_path / "network.safetensors"


@pytest.fixture
def run(fit):
    def run(judge, steps, folder="run", resume=None, logger=False):
        torch.manual_seed(0)
        module = EnergyMatching(GenerativeConvNet(widths=(4,)), chain=Chain(steps=2, step_size=0.1))
        more = [judge] if judge else []
        how = {"logger": logger, "log_every_n_steps": 10, "guard": None}
        path = fit(module, steps, folder, resume, more=more, **how)
        return module, torch.load(path, weights_only=True)["global_step"]

    return run


def verdicts(judge, found):
    """Let the judge find these distances, whatever is drawn."""
    rest = iter(found)
    judge.distance = lambda *_: next(rest)
    return judge


def test_distance_is_that_of_samples_of_the_averages(run, network, tmp_path):
    judge = Judge(every=3, n=20, features=str(network))
    module, _ = run(judge, 3)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    module.load_state_dict(saved["state_dict"])
    chances = [stream(0, "judge", row) for row in range(20)]
    x = module.trained((1, 8, 8)).sample(20, generator=chances, bf16=True)
    classifier = SmallClassifier.load(network)
    moments = [
        Moments.of(extract(classifier, images, bar=False).features)
        for images in (to_uint8(x), load_images("digits", "test").images)
    ]
    assert judge.best == pytest.approx(frechet_distance(*moments), rel=1e-4)


def test_the_best_is_kept_and_too_long_a_training_ended(run, network, tmp_path):
    judge = verdicts(Judge(2, features=str(network), patience=2), [3.0, 1.0, 2.0, 1.0, 0.0])
    logger = CSVLogger(tmp_path, name="log", version="")
    _, steps = run(judge, 20, logger=logger)
    assert steps == 8
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 4
    with (tmp_path / "log" / "metrics.csv").open() as file:
        rows = [(r["step"], r["quality/distance"]) for r in csv.DictReader(file)]
    found = [(int(step), float(d)) for step, d in rows if d]
    assert found == [(2, 3.0), (4, 1.0), (6, 2.0), (8, 1.0)]


def test_a_resumed_judge_remembers(run, network, tmp_path):
    run(verdicts(Judge(2, features=str(network)), [3.0, 5.0]), 4)
    again = verdicts(Judge(2, features=str(network), patience=2), [4.0])
    run(again, 20, resume=tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert (again.best, again.since) == (3.0, 2)


def test_a_resumed_judge_does_not_compare_distances_of_another_kind(run, network, tmp_path):
    run(verdicts(Judge(2, features=str(network)), [3.0, 1.0]), 4)
    again = verdicts(Judge(2, n=500, features=str(network)), [4.0])
    run(again, 6, resume=tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert (again.best, again.since) == (4.0, 0)


def test_looking_changes_nothing(run, network):
    judged, _ = run(Judge(every=2, n=8, features=str(network)), 4, "judged")
    alone, _ = run(None, 4, "alone")
    for a, b in zip(judged.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_judged_is_said_before_training(run, tmp_path):
    for judge, sentence in [
        (Judge(every=2, features="nowhere.safetensors"), "nowhere"),
        (Judge(every=2, split="validation"), "split"),
    ]:
        with pytest.raises(UserError, match=sentence):
            run(judge, 2)
    assert not (tmp_path / "run" / "checkpoints").exists()
    with pytest.raises(UserError, match=r"judge\.n"):
        Judge(every=2, n=1)


def test_what_does_not_draw_from_noise_is_not_judged(fit, network):
    module = Thinking(EnergyTransformer(1, patch=4, width=16, depth=1))
    with pytest.raises(UserError, match="noise"):
        fit(module, 2, more=[Judge(every=2, features=str(network))])


def test_a_signal_does_not_wait_for_the_samples(run, network, tmp_path):
    class Interrupted(Judge):
        def distance(self, trainer, module, batch):
            trainer.should_stop = True
            return super().distance(trainer, module, batch)

    _, steps = run(Interrupted(every=2, n=4, features=str(network)), 6)
    assert steps == 2
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--judge.split", "validation"], "validation"),
        (["--judge.features", "nowhere.pt"], r"nowhere\.pt"),
        (["--judge.n", "1"], r"judge\.n"),
    ],
)
def test_the_command_refuses_before_it_writes(tmp_path, flags, sentence):
    with pytest.raises(UserError, match=sentence):
        main([*TINY, "--runs", str(tmp_path), "--judge.every", "2", *flags])
    assert not any(tmp_path.iterdir())
