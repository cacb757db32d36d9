"""The training command: what it refuses, what a run leaves, and how it goes on."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import genconv
from genconv.checkpoint import read
from genconv.errors import UserError, command
from genconv.train import main
from genconv.training import EnergyMatching
from genconv.training.cli import DEFAULT, find_config, with_configs
from tests.conftest import TINY, TINY_COOPERATIVE, train

SIGNALS = signal.SIGINT, signal.SIGTERM


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.fixture(autouse=True)
def own_handlers():
    """What one run does to the signals is no other test's business."""
    before = handlers()
    # a shell's background job ignores Ctrl-C, and its children would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def checkpoint(runs, name="digits"):
    return torch.load(runs / name / "checkpoints" / "last.ckpt", weights_only=True)


def same(a, b):
    """Whether two checkpoints hold the same weights, averages, moments, chains and generators."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_training(a, b):
    keys = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "chains")
    for key in (*keys, "genconv", "ImageData", "global_step"):
        assert same(a[key], b[key]), key


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def refused(tmp_path, *args):
    with pytest.raises(UserError) as error:
        train(tmp_path / "runs", *args)
    assert not (tmp_path / "runs").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def stopped(capsys, *args):
    """What stderr says when the command ends with code 2 before it has written anything."""
    with pytest.raises(SystemExit) as stop:
        command(lambda: main([*args, "--runs", "runs"]))
    assert stop.value.code == 2
    assert not Path("runs").exists()
    return capsys.readouterr().err


def signal_at(monkeypatch, update, number=signal.SIGINT):
    """Send a signal from the middle of an update, counted from 1."""
    step = EnergyMatching.training_step

    def signalled(self, batch, batch_idx):
        if self.global_step == update - 1:
            os.kill(os.getpid(), number)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(EnergyMatching, "training_step", signalled)


def test_without_arguments_it_is_the_digits():
    args, name = with_configs([])
    assert (name, args) == (DEFAULT, ["--config", str(find_config("digits"))])
    assert yaml.safe_load(Path(args[1]).read_text())["data"]["name"] == "digits"


def test_the_command_takes_the_arguments_of_the_process(tmp_path, monkeypatch):
    argv = ["train.py", *TINY, "--runs", str(tmp_path), "--name", "mine"]
    monkeypatch.setattr(sys, "argv", argv)
    main()
    assert (tmp_path / "mine" / "checkpoints" / "last.ckpt").exists()


def test_configs_are_found_by_name_and_by_path(tmp_path):
    digits, mine = str(find_config("digits")), tmp_path / "mine.v2.yaml"
    mine.write_text("data: {name: digits}")
    for args, expected, name in [
        (["--config", "digits"], ["--config", digits], "digits"),
        (["--config=digits", "--name", "a"], ["--config", digits, "--name", "a"], "digits"),
        (["--config", str(mine)], ["--config", str(mine)], "mine.v2"),
        (
            ["--config", "digits", f"--config={mine}", "--seed_everything", "1"],
            ["--config", digits, "--config", str(mine), "--seed_everything", "1"],
            "mine.v2",
        ),
        (["--name", "a"], ["--config", digits, "--name", "a"], "digits"),
    ]:
        assert with_configs(args) == (expected, name)


def test_an_unknown_config_lists_the_known(tmp_path):
    with pytest.raises(UserError, match=r"no config 'digit'; .*digits"):
        main(["--config", "digit"])
    with pytest.raises(UserError, match=r"nothing\.yaml"):
        main([f"--config={tmp_path}/nothing.yaml"])


def test_the_run_is_named_after_the_last_config(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("trainer: {max_steps: 3}\ncheckpoint: {every: 5}\n")
    flags = "--runs", str(tmp_path / "runs"), "--trainer.max_steps", "2"
    main(["--config", "digits", f"--config={mine}", *TINY, *flags])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]
    config = yaml.safe_load((tmp_path / "runs" / "mine" / "config.yaml").read_text())
    # a later config adds to an earlier one, and flags have the last word
    assert config["checkpoint"]["every"] == 5
    assert config["model"]["init_args"]["weight"] == 0.02
    assert checkpoint(tmp_path / "runs", "mine")["global_step"] == 2


def test_flags_have_the_last_word_wherever_they_stand(tmp_path):
    main([*TINY, "--runs", str(tmp_path), "--trainer.max_steps", "1", "--config", "digits"])
    assert checkpoint(tmp_path)["global_step"] == 1


def test_a_run_leaves_what_it_promises(run, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["energy"]["init_args"]["widths"] == [4, 8]
    assert (config["name"], config["seed_everything"]) == ("digits", 0)
    metrics = rows(run / "metrics.csv")
    steps = [int(row["step"]) for row in metrics if row["loss"]]
    assert steps == list(range(6))
    # chains run once the transport is learnt
    assert [bool(row["energy/gap"]) for row in metrics if row["loss"]] == [False] * 2 + [True] * 4
    assert all(float(row["loss"]) > 0 for row in metrics if row["loss"])
    assert [path.stat().st_size > 0 for path in run.glob("events.out.tfevents.*")] == [True]
    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        "step_0000004.png",
        "step_0000006.png",
    ]
    for path in (run / "samples").iterdir():
        with Image.open(path) as picture:
            assert picture.size == (2 * 8 * 6 + 3 * 3,) * 2
            assert len(np.unique(np.asarray(picture))) > 10
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert read(run, "cpu").updates == 6


def test_says_what_to_do_next(tmp_path, capsys):
    train(tmp_path, "--trainer.max_steps", "1")
    out = capsys.readouterr().out
    assert "digits: 1,497 images 1x8x8 of digits, GenerativeConvNet with 344 weights" in out
    assert f"sample    python -m genconv.sample {tmp_path}/digits -n 100" in out
    assert f"--logdir {tmp_path}" in out


def test_says_to_take_the_chains_of_a_run_that_shows_them(tmp_path, capsys):
    train(tmp_path, "--trainer.max_steps", "1", "--samples.persistent", "true")
    assert f"genconv.sample {tmp_path}/digits --persistent --out" in capsys.readouterr().out


def test_the_same_run_again_is_the_same_bit_for_bit(run, tmp_path):
    train(tmp_path)
    assert_same_training(checkpoint(run.parent), checkpoint(tmp_path))


def test_its_config_runs_it_again_bit_for_bit(run, tmp_path):
    main(["--config", str(run / "config.yaml"), "--runs", str(tmp_path), "--name", "again"])
    assert_same_training(checkpoint(run.parent), checkpoint(tmp_path, "again"))
    first, again = (
        yaml.safe_load((folder / "config.yaml").read_text()) for folder in (run, tmp_path / "again")
    )
    assert again == first | {"name": "again", "runs": str(tmp_path)}


def test_another_seed_is_another_run(run, tmp_path):
    train(tmp_path, "--seed_everything", "1")
    before, after = (checkpoint(runs) for runs in (run.parent, tmp_path))
    for part in ("state_dict", "chains"):
        assert not same(before[part], after[part])
    assert before["genconv"] == after["genconv"]


def test_a_folder_in_use_is_not_touched(run):
    before = content(run)
    with pytest.raises(UserError, match="--ckpt_path last, or give this run another --name") as e:
        train(run.parent, "--trainer.max_steps", "9")
    assert str(run) in str(e.value)
    assert content(run) == before


def test_an_empty_folder_is_free(tmp_path):
    (tmp_path / "digits").mkdir()
    train(tmp_path, "--trainer.max_steps", "1")
    assert checkpoint(tmp_path)["global_step"] == 1


def test_resuming_without_a_checkpoint_is_refused(tmp_path):
    for path in ("last", str(tmp_path / "nothing.ckpt")):
        message = refused(tmp_path, "--ckpt_path", path)
        assert "no checkpoint" in message
        assert ("last.ckpt" if path == "last" else path) in message


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        (["--trainer.max_stepz", "3"], "max_stepz"),
        (["--model.energy.width", "[3]"], "width"),
        (["--model.energy", "NoNet"], "NoNet"),
        (["--model.k", "many"], "many"),
        (["--data.batch_size", "1.5"], "batch_size"),
        (["--sample.n", "1"], "sample.n"),
    ],
)
def test_a_wrong_flag_is_named(tmp_path, monkeypatch, capsys, flag, named):
    monkeypatch.chdir(tmp_path)
    error = stopped(capsys, *TINY, *flag)
    assert named in error.split("error: ")[-1]
    assert len(error.splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("data: {nam: digits}", "nam"),
        ("model: {class_path: genconv.training.EnergyMatching, init_args: {kk: 3}}", "kk"),
        ("trainer: {max_steps: often}", "often"),
        ("optimizer: adam", "optimizer"),
        ("a: [", "mine.yaml"),
        ("# nothing yet", "mine.yaml"),
    ],
)
def test_a_wrong_key_in_a_config_is_named(tmp_path, monkeypatch, capsys, text, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    error = stopped(capsys, "--config", "digits", "--config", "mine.yaml")
    assert named in error.split("error: ")[-1]
    assert len(error.splitlines()) <= 3


def test_missing_data_are_named_before_anything_is_written(tmp_path):
    assert "no data called 'digit'; did you mean" in refused(tmp_path, "--data.name", "digit")
    folder = str(tmp_path / "no" / "images")
    assert folder in refused(tmp_path, "--data.name", folder)


def test_an_energy_of_other_images_is_named_before_anything_is_written(tmp_path):
    message = refused(tmp_path, "--model.energy.channels", "3")
    assert "GenerativeConvNet" in message
    assert "(1, 8, 8)" in message
    assert "digits" in message


RESNET = """
model:
  class_path: genconv.training.ContrastiveDivergence
  init_args:
    energy: {class_path: genconv.energy.ResNetEnergy, init_args: {channels: 1, widths: [4]}}
    chain: {steps: 2, step_size: 0.1}
    k: 2
    buffer_size: 200
trainer: {accelerator: cpu, devices: 1, max_steps: 2, enable_progress_bar: false}
data: {name: digits, batch_size: 8}
samples: {n: 4}
"""


def test_a_buffer_smaller_than_a_batch_is_named_before_anything_is_written(tmp_path):
    message = refused(tmp_path, "--data.batch_size", "40")
    assert "buffer" in message
    assert "40" in message


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("trim", "10", "0 <= trim < 1"),
        ("unlabelled", "-0.1", "0 <= unlabelled <= 1"),
        ("unlabelled", "0.2", "has no energy of its own for images without a label"),
        ("energy.strides", "[1,2]", "widths need as many strides, not 2"),
        ("energy.kernels", "[3,3,3,3,3,3,3]", "widths need as many kernels, not 7"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_hours_have_gone(tmp_path, flag, value, words):
    config = ["--config", "digits_joint", f"--model.{flag}", value]
    with pytest.raises(UserError, match=words):
        main([*config, "--runs", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


def test_classes_need_labels_and_enough_classes(tmp_path):
    (tmp_path / "classes.yaml").write_text(RESNET)
    np.savez(tmp_path / "bare.npz", images=np.zeros((9, 8, 8, 1), np.uint8))

    def fit(*flags):
        config = ["--config", str(tmp_path / "classes.yaml")]
        main([*config, "--runs", str(tmp_path / "runs"), *flags])

    classes = "--model.energy.classes"
    with pytest.raises(UserError, match=r"bare\.npz has no labels"):
        fit(classes, "10", "--data.name", str(tmp_path / "bare.npz"))
    with pytest.raises(UserError, match="digits has 10 classes, the energy 9"):
        fit(classes, "9")
    assert not (tmp_path / "runs").exists()
    fit(classes, "10")
    assert read(tmp_path / "runs" / "classes", "cpu").energy.classes == 10


def test_a_longer_run_goes_on_bit_for_bit_and_keeps_its_metrics(tmp_path, monkeypatch):
    step = EnergyMatching.training_step
    # as dropout would, draw from the global generator
    monkeypatch.setattr(EnergyMatching, "training_step", lambda *a: step(*a) * torch.rand(()))
    # 1497 images are 2 batches of 500, so that the run passes epochs
    flags = "--data.batch_size", "500", "--model.buffer_size", "600"
    train(tmp_path / "a", *flags, "--trainer.max_steps", "3")
    first = (tmp_path / "a" / "digits" / "metrics.csv").read_bytes()
    train(tmp_path / "a", *flags, "--trainer.max_steps", "7", "--ckpt_path", "last")
    train(tmp_path / "b", *flags, "--trainer.max_steps", "7")
    assert_same_training(checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b"))
    folder = tmp_path / "a" / "digits"
    (old,) = folder.glob("metrics.until_resume_*.csv")
    assert old.read_bytes() == first
    steps = [
        [int(row["step"]) for row in rows(path) if row["loss"]]
        for path in (old, folder / "metrics.csv")
    ]
    assert steps == [[0, 1, 2], [3, 4, 5, 6]]


def test_resuming_twice_keeps_all_metrics(tmp_path):
    train(tmp_path, "--trainer.max_steps", "1")
    for steps in ("2", "3"):
        train(tmp_path, "--trainer.max_steps", steps, "--ckpt_path", "last")
    found = [len(rows(path)) for path in (tmp_path / "digits").glob("metrics*.csv")]
    assert len(found) == 3
    assert all(found)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("update", [1, 4])
def test_a_signal_waits_for_the_update_and_the_run_goes_on(
    run, tmp_path, monkeypatch, capsys, number, update
):
    with monkeypatch.context() as patch:
        signal_at(patch, update, number)
        with pytest.raises(SystemExit) as stop:
            train(tmp_path)
    assert stop.value.code == 128 + number
    assert "--ckpt_path last" in capsys.readouterr().out
    assert checkpoint(tmp_path)["global_step"] == update
    train(tmp_path, "--ckpt_path", "last")
    assert_same_training(checkpoint(tmp_path), checkpoint(run.parent))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_would_end_it_at_once(tmp_path, monkeypatch, number):
    seen, step = [], EnergyMatching.training_step

    def signalled(self, batch, batch_idx):
        before = signal.getsignal(number)
        os.kill(os.getpid(), number)
        seen.extend([before, signal.getsignal(number)])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(EnergyMatching, "training_step", signalled)
    with pytest.raises(SystemExit):
        train(tmp_path)
    waits, ends = seen
    assert callable(waits)
    assert waits is not ends
    assert ends in (signal.SIG_DFL, signal.default_int_handler)


def test_a_run_gives_the_signals_back(tmp_path):
    before = handlers()
    train(tmp_path, "--trainer.max_steps", "1")
    assert handlers() == before


def test_a_crash_gives_the_signals_back(tmp_path, monkeypatch):
    monkeypatch.setattr(EnergyMatching, "training_step", lambda *_: 1 / 0)
    before = handlers()
    with pytest.raises(ZeroDivisionError):
        train(tmp_path)
    assert handlers() == before


def test_a_crash_leaves_the_last_checkpoint_and_the_run_goes_on(run, tmp_path, monkeypatch):
    step = EnergyMatching.training_step

    def crash(self, batch, batch_idx):
        if self.global_step == 5:
            raise RuntimeError("out of memory")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(EnergyMatching, "training_step", crash)
        with pytest.raises(RuntimeError, match="out of memory"):
            train(tmp_path, "--checkpoint.every", "2")
    assert checkpoint(tmp_path)["global_step"] == 4
    train(tmp_path, "--ckpt_path", "last")
    assert_same_training(checkpoint(tmp_path), checkpoint(run.parent))


def test_milestones_are_kept(tmp_path):
    train(tmp_path, "--checkpoint.milestones", "2")
    names = sorted(path.name for path in (tmp_path / "digits" / "checkpoints").iterdir())
    assert names == ["last.ckpt", *(f"step_{i:07d}.ckpt" for i in (2, 4, 6))]


def test_a_checkpoint_of_another_energy_is_not_gone_on_with(run, tmp_path):
    last = str(run / "checkpoints" / "last.ckpt")
    message = refused(tmp_path, "--model.energy.widths", "[4, 9]", "--ckpt_path", last)
    assert "another energy" in message
    assert last in message


def test_a_generator_that_does_not_fit_is_named_before_anything_is_written(cooperative, tmp_path):
    def refusal(*args):
        with pytest.raises(UserError) as error:
            main([*TINY_COOPERATIVE, "--runs", str(tmp_path), *args])
        assert content(tmp_path) == {}
        return str(error.value)

    message = refusal("--model.generator.shape", "[1, 4, 4]")
    assert "images of shape (1, 4, 4), and those of digits have (1, 8, 8)" in message
    assert "multiples of 2" in refusal("--model.generator.shape", "[1, 7, 8]")
    last = str(cooperative / "checkpoints" / "last.ckpt")
    assert "another generator" in refusal("--model.generator.latent", "5", "--ckpt_path", last)


def test_the_commands_exit_codes(run, tmp_path):
    """One real process: a user sees one line, and code 2."""
    process = subprocess.run(
        [sys.executable, "-m", "genconv.train", *TINY, "--runs", str(run.parent)],
        cwd=Path(genconv.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    lines = [line for line in process.stderr.splitlines() if "Seed set to" not in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {run} is in use")
