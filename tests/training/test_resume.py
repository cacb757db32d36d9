"""A run that was stopped and resumed is, bit for bit, the run that was not."""

import pytest
import torch

from genconv.checkpoint import read
from genconv.energy import EnergyTransformer, GenerativeConvNet
from genconv.sample import sample
from genconv.sampling import Chain
from genconv.training import ContrastiveDivergence, EnergyMatching, Thinking

CHAIN = Chain(steps=4, step_size=0.1, temperature=[(1, 0.0), (2, 0.05)])


class Ahead(EnergyMatching):
    # as on a GPU, where it is 256
    ahead = 16


def matching(kind=EnergyMatching):
    torch.manual_seed(0)
    return kind(
        GenerativeConvNet(widths=(4, 8)),
        chain=CHAIN,
        transport_updates=6,
        k=2,
        buffer_size=128,
        lr=[(0, 1e-2), (30, 1e-3)],
    )


def ahead():
    return matching(Ahead)


def contrastive():
    torch.manual_seed(0)
    return ContrastiveDivergence(
        GenerativeConvNet(widths=(4, 8)),
        chain=CHAIN,
        k=2,
        buffer_size=128,
        noise=0.03,
        kl=1.0,
        entropy=0.1,
        augment=True,
        lr=1e-3,
        bf16_chains=True,
    )


def thinking():
    torch.manual_seed(0)
    return Thinking(
        EnergyTransformer(1, patch=4, width=16, depth=1),
        chain=Chain(steps=4, step_size=0.5, temperature=0.0),
        hidden=0.3,
        k=3,
        temperature=1e-3,
        buffer_size=128,
        lr=[(0, 1e-2), (30, 1e-3)],
    )


class Diverging(ContrastiveDivergence):
    bad = ()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * torch.nan if self.global_step in self.bad else loss


def diverging(bad):
    torch.manual_seed(0)
    energy = GenerativeConvNet(widths=(4, 8))
    lr = [(0, 1e-2), (9, 1e-3)]
    module = Diverging(energy, chain=CHAIN, k=2, buffer_size=128, lr=lr)
    module.bad = bad
    return module


def differences(a, b, path=""):
    """Yield the places where two nested states differ."""
    if isinstance(a, torch.Tensor):
        if not (a.dtype == b.dtype and torch.equal(a, b)):
            yield path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            yield from differences(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from differences(left, right, f"{path}/{i}")
    elif a != b:
        yield path


# An epoch has 23 batches: stops before and within the second phase, at an epoch's end, beyond it.
@pytest.mark.parametrize("stop", [3, 9, 23, 25])
@pytest.mark.parametrize("make", [matching, ahead, contrastive, thinking])
@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_and_resumed_equals_uninterrupted(make, stop, workers, fit):
    whole = fit(make(), 28, "whole", workers=workers)
    half = fit(make(), stop, "half", workers=workers)
    # the new process has drawn other random numbers by then
    torch.manual_seed(123)
    resumed = fit(make(), 28, "half", resume=half, workers=workers)
    a, b = (torch.load(path, weights_only=True) for path in (whole, resumed))
    # Lightning counts the epoch that begins at once twice; nothing depends on its counter
    a.pop("loops"), b.pop("loops")
    assert list(differences(a, b)) == []
    assert a["chains"][0]["buffer"]["drawn"] > 0
    assert (a["chains"][0]["spare"] is not None) == (make is ahead)
    one, two = (sample(read(path, "cpu"), range(5)) for path in (whole, resumed))
    assert torch.equal(one, two)


# Stops amid a window with skips, and after the run went back. (One that goes back later goes back
# to where it was resumed, at most: copies of the good state are no part of a checkpoint.)
@pytest.mark.parametrize(("stop", "bad"), [(15, {1, 12, 13, 16}), (23, {1, *range(13, 20)})])
def test_what_the_guard_did_is_resumed_too(stop, bad, fit):
    whole = fit(diverging(bad), 28, "whole")
    resumed = fit(diverging(bad), 28, "half", resume=fit(diverging(bad), stop, "half"))
    a, b = (torch.load(path, weights_only=True) for path in (whole, resumed))
    a.pop("loops"), b.pop("loops")
    assert list(differences(a, b)) == []
    assert a["guard"]["skipped"] == len(bad)
    assert a["guard"]["attempts"] == (len(bad) > 5)


def test_another_seed_is_another_run(fit):
    first = torch.load(fit(matching(), 8, "a"), weights_only=True)
    module = matching()
    module.seed = 1
    second = torch.load(fit(module, 8, "b"), weights_only=True)
    assert any("state_dict" in path for path in differences(first, second))
