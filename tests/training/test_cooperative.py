"""Cooperative training: both gradients in closed form, and all that a run promises."""

import pytest
import torch

from genconv.checkpoint import read
from genconv.energy import GenerativeConvNet, ResNetEnergy
from genconv.errors import UserError
from genconv.generator import Generator
from genconv.sample import sample
from genconv.sampling import Chain
from genconv.training import Cooperative, Guard
from tests.training.test_resume import differences

CHAIN = Chain(steps=2, step_size=0.1, temperature=0.05)


def make(bad=(), **how):
    torch.manual_seed(0)
    generator = Generator((1, 8, 8), latent=4, widths=(8, 4))
    how = {"chain": CHAIN, "k": 2, "infer": 1, "lr": [(0, 1e-2), (30, 1e-3)], **how}
    module = Poisoned(GenerativeConvNet(widths=(4, 8)), generator, **how)
    module.bad = bad
    return module


class Poisoned(Cooperative):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * torch.nan if self.global_step in self.bad else loss


def alone(module):
    """Make a module that is in no trainer take an update."""
    module.generator = torch.Generator().manual_seed(0)
    module.log = module.log_dict = lambda *_, **__: None
    return module


def test_each_network_gets_the_gradient_of_its_own_loss(quadratic):
    """E = |x - θ|² / 2: one noiseless step revises g to g - η (g - θ)."""
    eta, sigma, n = 0.25, 0.5, 6
    torch.manual_seed(0)
    generator = Generator((1, 4, 2), latent=3, widths=(4,), noise=sigma)
    chain = Chain(1, eta, 0.0)
    module = alone(Cooperative(quadratic, generator, chain, k=1))
    with torch.no_grad():
        quadratic.theta.copy_(torch.tensor([0.3, -0.7]))
    x = torch.randn(n, 1, 4, 2)
    module.training_step((x, None), 0).backward()
    z = generator.draw(n, generator=torch.Generator().manual_seed(0))
    made = generator(z)
    revised = (made - eta * (made - quadratic.theta)).detach()
    # of E(x⁺) - E(x⁻) in θ, and of |x⁻ - g|² / 2σ² in the generator's weights
    expected = -(x.mean(0) - revised.mean(0)).sum((0, 1))
    torch.testing.assert_close(quadratic.theta.grad, expected)
    loss = (made - revised).square().flatten(1).sum(1).mean() / (2 * sigma**2)
    expected = torch.autograd.grad(loss, list(generator.parameters()))
    for parameter, gradient in zip(generator.parameters(), expected, strict=True):
        assert gradient.abs().max() > 0
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_lost_chain_teaches_the_generator_nothing(quadratic):
    generator = Generator((1, 4, 2), latent=3, widths=(4,))
    # every step triples the distance to θ, and then some
    module = alone(Cooperative(quadratic, generator, Chain(1, 1e6, 0.0), k=2))
    loss = module.training_step((torch.randn(6, 1, 4, 2), None), 0)
    loss.backward()
    assert loss.isfinite()
    assert module.signs["chains"] == 1
    assert all(p.grad.abs().max() == 0 for p in generator.parameters())


def test_latent_inference_corrects_what_was_proposed():
    grads = []
    for steps in (0, 3):
        module = alone(make(infer=steps))
        module.training_step((torch.randn(6, 1, 8, 8), None), 0).backward()
        grads.append(module.top_down.layers[0].weight.grad)
    assert not torch.equal(*grads)


# an epoch has 23 batches
@pytest.mark.parametrize("stop", [9, 23])
def test_stopped_and_resumed_equals_uninterrupted(stop, fit):
    whole = fit(make(), 26, "whole")
    half = fit(make(), stop, "half")
    torch.manual_seed(123)
    resumed = fit(make(), 26, "half", resume=half)
    a, b = (torch.load(path, weights_only=True) for path in (whole, resumed))
    a.pop("loops"), b.pop("loops")
    assert list(differences(a, b)) == []
    one, two = (sample(read(path, "cpu"), range(5)) for path in (whole, resumed))
    assert torch.equal(one, two)


def test_both_networks_are_averaged_and_each_has_its_own_rate(fit):
    path = fit(make(generator_lr=0.0), 4)
    saved = torch.load(path, weights_only=True)
    averaged, raw = saved["state_dict"], saved["current_model_state"]
    still, moved = "top_down.layers.0.weight", "energy.head.weight"
    assert torch.equal(raw[still], make().state_dict()[still])
    assert not torch.equal(raw[moved], make().state_dict()[moved])
    assert not torch.equal(raw[moved], averaged[moved])
    path = fit(make(lr=0.0), 4, "other")
    saved = torch.load(path, weights_only=True)
    averaged, raw = saved["state_dict"], saved["current_model_state"]
    assert torch.equal(raw[moved], make().state_dict()[moved])
    assert not torch.equal(raw[still], averaged[still])
    assert torch.equal(read(path, "cpu").generator.layers[0].weight, averaged[still])


def test_the_guard_skips_and_goes_back_with_both_networks(fit):
    seen = []
    module = make(bad={12, *range(20, 30)})
    module.on_train_batch_end = lambda *_: seen.append(
        {name: p.detach().clone() for name, p in module.named_parameters()}
    )
    fit(module, 30, guard=Guard(every=10))

    def same(a, b):
        return {torch.equal(seen[a][name], seen[b][name]) for name in seen[a]}

    # seen[i] is after i + 1 updates
    assert same(12, 11) == {True}
    assert same(13, 12) == {False}
    assert same(28, 19) == {True}
    # update 12 was skipped, so that the copy after 20 was not made: back to where the run began
    start = dict(make().named_parameters())
    back = [torch.equal(seen[29][name], start[name]) for name in start]
    assert all(back)


def test_classes_are_refused():
    with pytest.raises(UserError, match="without classes"):
        Cooperative(ResNetEnergy(1, widths=(4,), classes=3), Generator((1, 8, 8)))
