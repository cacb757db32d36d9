"""The judge against the functions that it stands on, and what it does with its verdicts."""

import csv

import pytest
import pytorch_lightning as pl
import torch

from genconv.data import ImageData, load_images
from genconv.energy import GenerativeConvNet
from genconv.errors import UserError
from genconv.eval.classifier import SmallClassifier
from genconv.eval.features import extract
from genconv.eval.frechet import Moments, frechet_distance
from genconv.images import to_uint8
from genconv.sampling import Chain
from genconv.seeds import stream
from genconv.training import EMA, EnergyMatching, SaveLast, WholeCheckpointIO
from genconv.training.judge import Judge


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    SmallClassifier(1, 10, 8).save(tmp_path / "network.safetensors")
    return tmp_path / "network.safetensors"


@pytest.fixture
def run(tmp_path):
    def run(judge, steps, folder="run", resume=None, logger=False):
        torch.manual_seed(0)
        module = EnergyMatching(GenerativeConvNet(widths=(4,)), chain=Chain(steps=2, step_size=0.1))
        trainer = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            accelerator="cpu",
            logger=logger,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=10,
            default_root_dir=tmp_path / folder,
            callbacks=[EMA(0.9), *([judge] if judge else []), SaveLast()],
            plugins=[WholeCheckpointIO()],
        )
        data = ImageData("digits", batch_size=64)
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        return module, trainer.global_step

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
    logger = pl.loggers.CSVLogger(tmp_path, name="log", version="")
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
