"""The contract of `mala` and `hmc`; their law is checked in tests/statistics."""

from functools import partial

import pytest
import torch

from genconv.energy import GenerativeConvNet
from genconv.sampling import hmc, mala


def quadratic(x):
    return x.square().flatten(1).sum(1) / 2


SAMPLERS = {
    "mala": partial(mala, step_size=0.1),
    "hmc": partial(hmc, step_size=0.4, leapfrog_steps=3),
    "hmc-persistent": partial(hmc, step_size=0.4, leapfrog_steps=1, persistence=0.7),
}


@pytest.fixture(params=SAMPLERS)
def sampler(request):
    return SAMPLERS[request.param]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return GenerativeConvNet(1, widths=(4, 8))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_leaves_no_trace_on_the_energy(sampler, net):
    net.train()
    seen = []
    handle = net.register_forward_hook(
        lambda *_: seen.append((net.training, any(p.requires_grad for p in net.parameters())))
    )
    x = torch.randn(3, 1, 8, 8)
    before = x.clone()
    result = sampler(net, x, steps=2)
    handle.remove()
    assert set(seen) == {(False, False)}
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.equal(x, before)
    assert not any(tensor.requires_grad for tensor in (result.x, *result.info))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gives_the_same_in_every_grad_mode(sampler, net, mode):
    expected = sampler(net, torch.ones(2, 1, 8, 8), steps=3, generator=generator())
    with mode():
        result = sampler(net, torch.ones(2, 1, 8, 8), steps=3, generator=generator())
    assert torch.equal(result.x, expected.x)
    net(result.x).sum().backward()


def test_noise_comes_from_the_generator_only(sampler):
    x = torch.zeros(4, 2)
    state = torch.get_rng_state()
    first, second, other = (
        sampler(quadratic, x, steps=5, generator=generator(s)).x for s in (7, 7, 8)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_generator_for_each_chain_frees_it_from_its_batch(sampler):
    x = torch.zeros(5, 1, 8, 8)
    whole = sampler(quadratic, x, steps=5, generator=[generator(i) for i in range(5)]).x
    part = sampler(quadratic, x[2:4], steps=5, generator=[generator(2), generator(3)]).x
    assert torch.equal(whole[2:4], part)


def test_info_describes_the_state_that_is_returned(sampler):
    x = torch.ones(6, 3)
    result = sampler(quadratic, x, steps=7, generator=generator())
    torch.testing.assert_close(result.info.energy, quadratic(result.x))
    torch.testing.assert_close(result.info.gradient, result.x.norm(dim=1))
    torch.testing.assert_close(result.info.movement, (result.x - x).norm(dim=1))
    assert result.info.acceptance.shape == (6,)
    assert (result.info.acceptance > 0).all()
    assert (result.info.acceptance <= 1).all()


def test_an_energy_is_computed_once_for_each_state(sampler):
    calls = []

    def energy(x):
        calls.append(1)
        return quadratic(x)

    sampler(energy, torch.zeros(4, 2), steps=10)
    assert len(calls) == 1 + 10 * sampler.keywords.get("leapfrog_steps", 1)


def test_a_rejected_chain_stays_where_it_is(sampler):
    # a well so steep that no proposal survives
    result = sampler(lambda x: quadratic(x) * 1e6, torch.ones(5, 2), steps=4, generator=generator())
    assert torch.equal(result.x, torch.ones(5, 2))
    assert (result.info.acceptance == 0).all()
    torch.testing.assert_close(result.info.energy, torch.full((5,), 1e6))
    torch.testing.assert_close(result.info.gradient, torch.full((5,), 2**0.5 * 1e6))


@pytest.mark.parametrize("forbidden", [torch.inf, torch.nan])
def test_never_goes_where_the_energy_is_infinite_or_no_number(sampler, forbidden):
    def half(x):
        return torch.where(x[:, 0] < 0, forbidden, quadratic(x))

    result = sampler(half, torch.ones(500, 2), steps=30, generator=generator())
    assert (result.x[:, 0] >= 0).all()
    assert result.x[:, 0].min() < 0.1
    assert result.info.acceptance.isfinite().all()


def test_labels_reach_the_energy(sampler):
    targets = torch.tensor([[-30.0], [30.0]])
    x = sampler(
        lambda x, y: (x - targets[y]).square().sum(1) / 2,
        torch.tensor([[30.0], [-30.0]]),
        torch.tensor([1, 0]),
        steps=20,
    ).x
    assert torch.equal(x.sign(), torch.tensor([[1.0], [-1.0]]))


def test_callback_sees_every_step(sampler):
    seen = []
    result = sampler(
        quadratic, torch.zeros(2, 1), steps=3, callback=lambda i, x: seen.append((i, x))
    )
    assert [i for i, _ in seen] == [1, 2, 3]
    assert torch.equal(seen[-1][1], result.x)
    assert result.x.dtype == torch.float32


def test_keeps_to_float32_under_autocast(sampler, net):
    x = torch.randn(4, 1, 8, 8)
    expected = sampler(net, x, steps=3, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        result = sampler(net, x, steps=3, generator=generator())
    assert torch.equal(result.x, expected.x)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), [(0, 1.0), (9, 0.0)]])
def test_refuses_a_temperature_that_has_no_law(sampler, temperature):
    with pytest.raises(ValueError, match="temperatures above 0"):
        sampler(quadratic, torch.zeros(1, 1), steps=1, temperature=temperature)


@pytest.mark.parametrize("wrong", [{"leapfrog_steps": 0}, {"persistence": 1.1}])
def test_refuses_what_makes_no_sense(wrong):
    with pytest.raises(ValueError, match="leapfrog_steps is at least 1 and persistence a share"):
        hmc(quadratic, torch.zeros(1, 1), steps=1, step_size=0.1, **wrong)
