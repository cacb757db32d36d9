"""The average of the weights against its recurrence, and how it is lent."""

from types import SimpleNamespace

import pytest
import torch

from genconv.energy import GenerativeConvNet
from genconv.sampling import Chain
from genconv.training import EMA, EnergyMatching


@pytest.fixture
def module():
    torch.manual_seed(0)
    return EnergyMatching(GenerativeConvNet(widths=(4,)), chain=Chain(steps=2, step_size=0.1))


def test_average_is_the_recurrence(fit, module):
    weights = []
    module.on_train_batch_end = lambda *_: weights.append(
        module.energy.head.weight.detach().clone()
    )
    path = fit(module, 5)
    average = weights[0]
    for n, weight in enumerate(weights[1:], 1):
        keep = min(0.9, (1 + n) / (10 + n))
        average = keep * average + (1 - keep) * weight
    checkpoint = torch.load(path, weights_only=True)
    torch.testing.assert_close(checkpoint["state_dict"]["energy.head.weight"], average)
    raw = checkpoint["current_model_state"]["energy.head.weight"]
    torch.testing.assert_close(raw, weights[-1])
    assert not torch.equal(raw, average)


def test_an_update_of_several_batches_is_counted_once(fit, module):
    checkpoint = torch.load(fit(module, 4, accumulate_grad_batches=3), weights_only=True)
    (counted,) = (n for key, n in checkpoint["averaging_state"].items() if key == "n_averaged")
    assert counted == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_averaging_never_waits_for_the_device(module, never_waits):
    ema = EMA()
    ema.setup(None, module.cuda(), "fit")
    trainer = SimpleNamespace(accumulate_grad_batches=1, is_last_batch=False)
    with never_waits():
        for update in range(3):
            ema.on_train_batch_end(trainer, module, None, None, update)
    assert ema.state()["n_averaged"] == 3


def test_averaged_lends_the_averages_and_takes_them_back(module):
    ema = EMA()
    ema.setup(None, module, "fit")
    raw = module.energy.head.weight
    with torch.no_grad():
        raw.fill_(3.0)
    before = raw.clone()
    with ema.averaged(module):
        averaged = module.energy.head.weight.detach().clone()
    assert not torch.equal(averaged, before)
    assert torch.equal(module.energy.head.weight, before)
