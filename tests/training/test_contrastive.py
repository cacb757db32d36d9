import math
from dataclasses import replace

import pytest
import torch

from genconv.energy import GenerativeConvNet, ResNetEnergy
from genconv.errors import UserError
from genconv.sampling import Chain, ReplayBuffer
from genconv.training import ContrastiveDivergence
from genconv.training.augment import augment
from genconv.training.contrastive import energy_pair, entropy, last_step


def module(energy, **how):
    """A module outside a trainer: all that `training_step` needs, and nothing logged."""
    module = ContrastiveDivergence(energy, **{"alpha": 0.0, "bf16_chains": False, **how})
    module.generator = torch.Generator().manual_seed(0)
    module.log = module.log_dict = lambda *args, **kwargs: None
    return module


def test_gradient_is_that_of_mean_energies():
    torch.manual_seed(0)
    energy = GenerativeConvNet(widths=(4, 8)).double()
    x = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    cd = module(energy, start="data", k=2, chain=Chain(step_size=0.1))
    negatives = cd.advance(x, None)
    assert all(p.grad is None for p in energy.parameters())
    cd.generator.manual_seed(0)
    cd.training_step((x, None), 0).backward()
    for name, parameter in energy.named_parameters():
        (positive,) = torch.autograd.grad(energy(x).mean(), parameter)
        (negative,) = torch.autograd.grad(energy(negatives).mean(), parameter)
        torch.testing.assert_close(
            parameter.grad, positive - negative, rtol=1e-6, atol=1e-9, msg=name
        )


def test_cd_k_has_its_known_gradient(quadratic):
    # E = (x - θ)²/2 at θ = 2, data around m: the expected gradient is (1 - (1 - η)^k)(θ - m)
    n, k, eta, m = 200_000, 3, 0.2, 0.5
    with torch.no_grad():
        quadratic.theta.fill_(2.0)
    x = m + torch.randn(n, 2, generator=torch.Generator().manual_seed(3))
    cd = module(quadratic, start="data", k=k, chain=Chain(step_size=eta))
    cd.training_step((x, None), 0).backward()
    expected = (1 - (1 - eta) ** k) * (2.0 - m)
    r = (1 - eta) ** k
    # the data's own noise cancels up to (1 - r); the steps add the rest
    spread = math.sqrt((1 - r) ** 2 + 2 * eta * sum((1 - eta) ** (2 * i) for i in range(k)))
    assert (quadratic.theta.grad - expected).abs().max() < 4 * spread / math.sqrt(n)


def test_regularisation_is_the_mean_square():
    energy = GenerativeConvNet(widths=(4,))
    x = torch.randn(4, 1, 8, 8)
    plain, regular = (
        module(energy, start="data", k=1, alpha=a, chain=Chain(step_size=0.0)).training_step(
            (x, None), 0
        )
        for a in (0.0, 0.5)
    )
    # without a step data and negatives are the same images
    torch.testing.assert_close(regular - plain, energy(x).square().mean())


def test_data_never_enter_the_buffer():
    cd = module(GenerativeConvNet(widths=(4,)), k=1, buffer_size=16, chain=Chain(step_size=0.0))
    cd.buffer = ReplayBuffer(16, (1, 8, 8), restart=0.0)
    cd.buffer.images.fill_(100)
    cd.training_step((torch.ones(8, 1, 8, 8), None), 0)
    assert (cd.buffer.images == 100).all()


def test_chains_of_a_conditional_energy_keep_to_their_classes():
    torch.manual_seed(0)
    energy = ResNetEnergy(1, widths=(4, 4), classes=2)
    cd = module(energy, k=1, buffer_size=16, chain=Chain(step_size=0.0, start="uniform"))
    cd.buffer = ReplayBuffer(16, (1, 8, 8), restart=0.0, classes=2)
    cd.buffer.images[::2], cd.buffer.images[1::2] = 0, 255
    end = cd.negatives(torch.zeros(4, 1, 8, 8), torch.tensor([1, 0, 0, 1]))
    assert torch.equal(end.mean((1, 2, 3)).sign(), torch.tensor([1.0, -1.0, -1.0, 1.0]))


def test_chains_that_do_not_divide_into_classes_are_fewer():
    energy = GenerativeConvNet(widths=(4,), classes=3)
    cd = module(energy, k=1, buffer_size=16, chain=Chain(step_size=0.0))
    cd.negatives(torch.zeros(4, 1, 4, 4), torch.arange(4) % 3)
    assert len(cd.buffer) == 15


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_restarted_that_is_none_is_refused(share):
    with pytest.raises(UserError, match="restart is a share between 0 and 1"):
        ContrastiveDivergence(GenerativeConvNet(widths=(4,)), restart=share)


def test_classification_adds_the_cross_entropy_of_the_energies():
    torch.manual_seed(0)
    energy = GenerativeConvNet(widths=(4, 8), classes=3)
    x, y = torch.randn(5, 1, 8, 8), torch.tensor([0, 2, 1, 1, 0])
    how = {"start": "data", "k": 1, "chain": Chain(step_size=0.0)}
    plain, joint = (
        module(energy, classify=weight, **how).training_step((x, y), 0) for weight in (0.0, 0.7)
    )
    each = torch.stack([energy(x, torch.full((5,), c)) for c in range(3)], 1)
    expected = (torch.logsumexp(-each, 1) + each[torch.arange(5), y]).mean()
    assert expected > 0.5
    torch.testing.assert_close(joint - plain, 0.7 * expected)
    with pytest.raises(UserError, match="classify needs an energy with classes"):
        module(GenerativeConvNet(widths=(4,)), classify=1.0)


def test_short_run_chains_begin_at_noise():
    cd = module(GenerativeConvNet(widths=(4,)), start="noise", k=1, chain=Chain(step_size=0.0))
    negatives = cd._negatives(torch.zeros(500, 1, 4, 4), None)
    assert negatives.std() == pytest.approx(1, abs=0.05)


def test_acceptance_is_logged_at_every_tenth_update_and_changes_nothing(quadratic, monkeypatch):
    def advance(step, **chain):
        cd = module(quadratic, start="data", k=2, chain=Chain(**{"step_size": 0.4, **chain}))
        figures = {}
        cd.log = lambda name, value, **how: figures.update({name: float(value)})
        monkeypatch.setattr(ContrastiveDivergence, "global_step", step)
        ends = [cd.advance(torch.zeros(20, 2), None) for _ in range(2)]
        return torch.stack(ends), figures

    end, figures = advance(9)
    assert 0.5 < figures["chain/acceptance"] < 1
    again, others = advance(8)
    assert torch.equal(end, again)
    assert "chain/acceptance" not in others
    # descent has no law to accept by, and a step too large for its temperature is not accepted
    assert "chain/acceptance" not in advance(9, temperature=0.0)[1]
    assert advance(9, step_size=1.9, temperature=1e-6)[1]["chain/acceptance"] < 0.5


def test_kl_term_reaches_the_weights_only_through_the_last_step(quadratic):
    x = torch.ones(3, 2)
    # the step that the chain goes on with
    chain = Chain(step_size=[(0, 0.9), (100, 0.25)], temperature=0.0)
    moved = last_step(quadratic, x, None, chain)
    torch.testing.assert_close(moved, 0.75 * x)
    (gradient,) = torch.autograd.grad(moved.sum(), quadratic.theta)
    torch.testing.assert_close(gradient, torch.full((2,), 3 * 0.25))
    moved = last_step(quadratic, x, None, replace(chain, gradient_clip=0.4))
    torch.testing.assert_close(moved, 0.9 * x)
    cd = module(quadratic, start="data", k=1, kl=1.0, chain=Chain(step_size=0.25, temperature=0.0))
    cd.training_step((x, None), 0).backward()
    # CD: -(1 - .75) ; KL: moved twice, .75² of x, times dmoved/dθ = .25
    torch.testing.assert_close(quadratic.theta.grad, torch.full((2,), -0.25 + 0.75**2 * 0.25))


def test_entropy_grows_by_the_log_of_a_scale():
    x = torch.randn(50, 3)
    torch.testing.assert_close(
        entropy(3 * x, 3 * x) - entropy(x, x), torch.tensor(math.log(3)), rtol=1e-3, atol=1e-3
    )
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(entropy(x, x), x)
    assert gradient.isfinite().all()
    # moving along it spreads the samples
    assert entropy(x + 0.01 * gradient, x + 0.01 * gradient) > entropy(x, x)


def test_entropy_is_rewarded(quadratic):
    x = torch.randn(20, 2)
    plain, rewarded = (
        module(quadratic, start="data", k=1, entropy=w, chain=Chain(step_size=0.0)).training_step(
            (x, None), 0
        )
        for w in (0.0, 0.5)
    )
    torch.testing.assert_close(rewarded - plain, -0.5 * entropy(x, x))


def test_entropy_teaches_the_samples_and_not_their_neighbours():
    x, others = torch.randn(9, 3, requires_grad=True), torch.randn(9, 3, requires_grad=True)
    entropy(x, others).backward()
    assert x.grad.abs().max() > 0
    assert others.grad is None


def test_noise_on_the_data_has_its_scale(quadratic):
    seen = []
    quadratic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    cd = module(quadratic, start="noise", k=1, noise=0.1, chain=Chain(step_size=0.1))
    cd.training_step((torch.full((500, 2), 7.0), None), 0)
    data = seen[-1][:500]
    assert data.mean() == pytest.approx(7, abs=4 * 0.1 / 1000**0.5)
    assert data.std() == pytest.approx(0.1, rel=0.1)


def test_restarted_chains_begin_at_noise_and_the_others_go_on():
    cd = module(GenerativeConvNet(widths=(4,)), k=1, chain=Chain(step_size=0.0, start="uniform"))
    cd.buffer = ReplayBuffer(16, (1, 8, 8), restart=0.25)
    cd.buffer.images.fill_(255)
    end = cd.negatives(torch.zeros(16, 1, 8, 8), None)
    fresh = (end.flatten(1) < 0.9).any(1)
    assert fresh.tolist() == [True] * 4 + [False] * 12


def test_one_pass_gives_both_energies(quadratic):
    data, chains = torch.randn(3, 2), torch.randn(5, 2)
    e_data, e_chains = energy_pair(quadratic, data, chains)
    torch.testing.assert_close(e_data, quadratic(data))
    torch.testing.assert_close(e_chains, quadratic(chains))


def test_augmentation_is_seeded_and_stays_in_range():
    x = torch.rand(64, 3, 16, 16) * 2 - 1
    a, b = (augment(x, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == x.shape
    assert a.abs().max() <= 1
    assert (a != x).flatten(1).any(1).all()
    # half of all images are flipped: a ramp then falls instead of rising
    ramp = torch.linspace(-0.5, 0.5, 16).expand(400, 1, 16, 16)
    rising = augment(ramp, torch.Generator().manual_seed(1))
    share = (rising[..., -1] > rising[..., 0]).float().mean((1, 2)).round().mean()
    assert share == pytest.approx(0.5, abs=0.1)
