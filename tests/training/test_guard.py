"""The guard skips what would spoil a run, goes back, and stops; and costs a healthy run nothing."""

import csv
import logging
from itertools import pairwise

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger

from genconv.energy import GenerativeConvNet
from genconv.errors import DivergedError, UserError
from genconv.sampling import Chain
from genconv.training import ContrastiveDivergence, EnergyMatching, Guard
from tests.training.test_resume import differences

CHAIN = Chain(steps=4, step_size=0.1, temperature=0.05)


class Poisoned(ContrastiveDivergence):
    """Hands over a loss times `factor` at the updates `at`, counted from 0."""

    def __init__(self, at=(), factor=torch.nan, seed=0):
        torch.manual_seed(0)
        energy = GenerativeConvNet(widths=(4, 8))
        super().__init__(energy, chain=CHAIN, k=2, buffer_size=128, lr=1e-3, seed=seed)
        self.at, self.factor = at, factor

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * self.factor if self.global_step in self.at else loss


class Fused(Poisoned):
    """As on a GPU: the optimiser itself looks at the verdict."""

    def configure_optimizers(self):
        made = super().configure_optimizers()
        made["optimizer"] = torch.optim.Adam(self.energy.parameters(), lr=1e-3, fused=True)
        made["optimizer"]._step_supports_amp_scaling = False
        made.pop("lr_scheduler")
        return made


def state(module):
    (optimizer,) = module.trainer.optimizers
    moments = optimizer.state_dict()["state"]
    return torch.cat(
        [p.detach().flatten() for p in module.energy.parameters()]
        + [m[key].flatten() for m in moments.values() for key in ("exp_avg", "exp_avg_sq", "step")]
    )


def watched(module, seen):
    """Record weights and moments after every update."""
    module.on_train_batch_end = lambda *_: seen.append(state(module).clone())
    return module


@pytest.mark.parametrize("make", [Poisoned, Fused])
@pytest.mark.parametrize("factor", [torch.nan, torch.inf, 0.0, 1e6, 1e-6])
def test_a_bad_update_changes_nothing_and_the_next_one_goes_on(make, factor, fit):
    seen = []
    module = watched(make(at={12}, factor=factor), seen)
    path = fit(module, 15)
    changed = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert changed == [i != 11 for i in range(14)]
    assert seen[-1].isfinite().all()
    guard = torch.load(path, weights_only=True)["guard"]
    assert guard["skipped"] == 1
    assert guard["seen"].tolist() == [14, 14]


@pytest.mark.parametrize(
    ("energies", "gap", "skipped"),
    [
        (600.0, 500.0, 0),  # sums over pixels, whose chains begin to move: a texture's opening
        (600.0, 7e5, 1),
        (1e-3, 0.9, 0),
        (1e-3, 9.0, 1),
        (torch.nan, 0.9, 0),  # by its own usual size, where there is no other
        (torch.nan, 9.0, 1),
    ],
)
def test_a_gap_is_far_beside_its_own_size_and_that_of_the_energies(energies, gap, skipped, fit):
    module = Poisoned()
    log_energies = module.log_energies

    def log(data, chains):
        log_energies(data, chains)
        value = gap if module.global_step == 12 else 5e-3
        module.signs.update(gap=torch.tensor(value), energies=torch.tensor(energies))

    module.log_energies = log
    path = fit(module, 15)
    assert torch.load(path, weights_only=True)["guard"]["skipped"] == skipped


def test_the_first_updates_may_grow_in_any_way_that_is_finite(fit):
    path = fit(Poisoned(at={3, 5}, factor=1e6), 8)
    assert torch.load(path, weights_only=True)["guard"]["skipped"] == 0


def test_clipping_and_mixed_precision_go_with_an_optimiser_that_skips(fit):
    module = Fused(at={1})
    how = {"precision": "bf16-mixed", "gradient_clip_val": 0.1}
    path = fit(module, 3, **how)
    assert torch.load(path, weights_only=True)["guard"]["skipped"] == 1


def test_a_healthy_run_is_the_same_with_and_without(fit):
    def weights(guard):
        return torch.load(fit(Poisoned(), 12, f"{guard}", guard=guard), weights_only=True)

    a, b = weights(Guard()), weights(None)
    a.pop("guard"), a.pop("loops"), b.pop("loops")
    a["callbacks"] = b["callbacks"] = None
    assert list(differences(a, b)) == []


def test_lost_chains_begin_anew_and_the_others_are_untouched(fit):
    module = Poisoned()
    fit(module, 2)
    x = torch.rand(6, 1, 8, 8)
    x[1, 0, 3, 3], x[2, 0, 0, 0], x[4] = torch.nan, -torch.inf, 11.0
    logged = {}
    module.log = lambda name, value: logged.update({name: value})
    before = module.generator.get_state()
    end = module._restarted(x)
    assert logged["chain/lost"] == 3
    assert module.signs["chains"] == 0.5
    for i in (0, 3, 5):
        assert torch.equal(end[i], x[i])
    lost = end[[1, 2, 4]]
    assert lost.abs().max() < 6
    assert 0.7 < lost.std() < 1.3
    assert len(set(lost[:, 0, 0, 0].tolist())) == 3
    assert torch.equal(module.generator.get_state(), before)
    # as often as it is asked in one update, but not in the next
    assert torch.equal(module._restarted(x), end)


def test_the_buffer_takes_back_no_lost_chain(fit, monkeypatch):
    module = Poisoned()
    fit(module, 2)
    advance = module.advance

    def spoiled(x, y):
        end = advance(x, y)
        end[5] = torch.nan
        return end

    monkeypatch.setattr(module, "advance", spoiled)
    monkeypatch.setattr(module, "log", lambda *_: None)
    monkeypatch.setattr(module, "log_dict", lambda *_: None)
    written = []
    monkeypatch.setattr(module.buffer, "write", lambda draw, x: written.append(x))
    ends = module.negatives(torch.zeros(64, 1, 8, 8), None)
    assert ends.isfinite().all()
    assert torch.equal(written[0], ends)


def test_most_chains_lost_is_a_reason(fit, caplog):
    module = Poisoned()
    advance = module.advance
    module.advance = lambda x, y: advance(x, y) * (torch.nan if module.global_step == 4 else 1)
    path = fit(module, 10)
    assert torch.load(path, weights_only=True)["guard"]["skipped"] == 1
    assert "1 of updates 1-10 skipped: most chains have left the numbers" in caplog.text


def test_goes_back_to_what_was_good(fit):
    seen = []
    module = watched(Poisoned(at=range(30, 40)), seen)
    buffers = {}
    guard = Guard(every=10)
    go_back = guard._go_back

    def spy(trainer, module, why):
        before = module.buffer.generator.get_state()
        go_back(trainer, module, why)
        buffers["after"] = module.buffer.images.clone()
        buffers["good"] = guard._copies[0]["buffer"]["images"]
        assert not torch.equal(module.buffer.generator.get_state(), before)

    guard._go_back = spy
    path = fit(module, 42, guard=guard)
    # copies were made at 20 and 30; the bad updates are 31 to 40, seen at 40
    assert torch.equal(seen[39], seen[19])
    assert torch.equal(buffers["after"], buffers["good"])
    assert not torch.equal(seen[40], seen[20]), "the same numbers were drawn again"
    saved = torch.load(path, weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.5e-3)
    kept = saved["guard"]
    assert (kept["attempts"], kept["lr_scale"], kept["skipped"].item()) == (1, 0.5, 10)


def test_the_average_goes_back_too(fit):
    averages = []
    module = Poisoned(at=range(20, 30))

    def record(*_):
        average = module.trainer.callbacks[0]._average_model
        averages.append(torch.cat([p.detach().flatten() for p in average.module.parameters()]))

    module.on_train_batch_end = record
    guard = Guard(every=10)
    fit(module, 31, guard=guard)
    assert not torch.equal(averages[19], averages[9])
    assert torch.equal(averages[29], averages[9])


def test_twice_back_to_one_state_is_twice_the_same_state(fit):
    seen = []
    module = watched(Poisoned(at=[*range(20, 30), *range(34, 40)]), seen)
    fit(module, 40, guard=Guard(every=10))
    assert not torch.equal(seen[33], seen[29])
    assert torch.equal(seen[39], seen[29])


@pytest.mark.parametrize("retries", [0, 2])
def test_stops_when_going_back_is_no_help(fit, retries, tmp_path):
    module = Poisoned(at=range(10, 1000))
    with pytest.raises(DivergedError, match=f"at update {20 + 10 * retries} and {retries} returns"):
        fit(module, 200, guard=Guard(retries=retries), every=10)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    for weights in (saved["state_dict"], saved["current_model_state"]):
        assert all(weight.isfinite().all() for weight in weights.values())


def test_the_state_is_copied_once_for_an_update_of_several_batches(fit, monkeypatch):
    taken, copy = [], Guard._copy

    def spy(self, trainer, module):
        taken.append(trainer.global_step)
        return copy(self, trainer, module)

    monkeypatch.setattr(Guard, "_copy", spy)
    fit(Poisoned(), 20, guard=Guard(every=10), accumulate_grad_batches=2)
    assert taken == [0, 10, 20]


def test_old_returns_are_forgiven(fit):
    at = [*range(10, 20), *range(30, 40)]
    with pytest.raises(DivergedError):
        fit(Poisoned(at=at), 40, "a", guard=Guard(retries=1))
    at = [*range(10, 20), *range(130, 140)]
    fit(Poisoned(at=at), 140, "b", guard=Guard(retries=1, every=10))


def test_a_resumed_run_has_no_more_retries(fit):
    path = fit(Poisoned(at=range(10, 1000)), 25, guard=Guard(retries=1))
    with pytest.raises(DivergedError, match="at update 30"):
        fit(Poisoned(at=range(10, 1000)), 100, resume=path, guard=Guard(retries=1))


def test_the_log_and_the_figures_say_what_happened(fit, tmp_path, caplog):
    logger = CSVLogger(tmp_path, name="log", version="")
    with caplog.at_level(logging.WARNING):
        fit(Poisoned(at={2, *range(10, 15)}), 21, logger=logger, log_every_n_steps=1)
    assert "1 of updates 1-10 skipped: the loss is not finite" in caplog.text
    assert "5 of updates 11-20 skipped" in caplog.text
    assert "back to an earlier state, learning rates x 0.5" in caplog.text
    with (tmp_path / "log" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    skipped = [float(row["guard/skipped"]) for row in rows if row["guard/skipped"]]
    assert skipped == [0, 0, *[1] * 8, 2, 3, 4, 5, *[6] * 7]
    # written down with the next update's figures
    assert float(rows[-2]["guard/returns"]) == 0
    assert float(rows[-1]["guard/returns"]) == 1


def test_transport_has_no_gap_and_the_contrastive_phase_begins_one(fit):
    torch.manual_seed(0)
    energy = GenerativeConvNet(widths=(4, 8))
    module = EnergyMatching(energy, chain=CHAIN, transport_updates=4, k=2, buffer_size=128)
    guard = torch.load(fit(module, 6), weights_only=True)["guard"]
    assert guard["seen"].tolist() == [6, 2]
    assert guard["skipped"] == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [("spike", 1.0), ("patience", 0), ("patience", 11), ("every", 15), ("backoff", 0.0),
     ("backoff", 2.0), ("retries", -1), ("spike", float("nan"))],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(setting, value):
    with pytest.raises(UserError, match=rf"guard\.{setting}"):
        Guard(**{setting: value})
