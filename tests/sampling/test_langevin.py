"""The contract of `langevin`; its law is checked in tests/statistics."""

import pytest
import torch

from genconv.energy import GenerativeConvNet, ResNetEnergy
from genconv.sampling import langevin


def quadratic(x):
    return x.square().flatten(1).sum(1) / 2


@pytest.fixture
def net():
    torch.manual_seed(0)
    return GenerativeConvNet(1, widths=(4, 8))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_leaves_no_trace_on_the_energy(net):
    net.train()
    net.head.weight.requires_grad_(False)
    x = torch.randn(3, 1, 8, 8)
    before = x.clone()
    result = langevin(net, x, steps=2, step_size=0.1)
    assert net.training
    assert net.features.training
    assert not net.head.weight.requires_grad
    assert net.features[0].weight.requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(x, before)
    assert not any(tensor.requires_grad for tensor in (result.x, *result.info))


def test_restores_the_energy_after_an_error(net):
    net.train()

    def fail(step, x):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        langevin(net, torch.randn(2, 1, 8, 8), steps=1, step_size=0.1, callback=fail)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


def test_runs_in_eval_mode_with_frozen_parameters(net):
    seen = []
    handle = net.register_forward_hook(
        lambda *_: seen.append((net.training, any(p.requires_grad for p in net.parameters())))
    )
    langevin(net.train(), torch.randn(2, 1, 8, 8), steps=2, step_size=0.1)
    handle.remove()
    assert seen == [(False, False)] * 2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gives_the_same_in_every_grad_mode(net, mode):
    expected = langevin(net, torch.ones(2, 1, 8, 8), steps=3, step_size=0.1, generator=generator())
    with mode():
        x = torch.ones(2, 1, 8, 8)
        result = langevin(net, x, steps=3, step_size=0.1, generator=generator())
    assert torch.equal(result.x, expected.x)
    # what comes out can enter a loss, whatever mode it was made in
    net(result.x).sum().backward()


def test_noise_comes_from_the_generator_only():
    x = torch.zeros(4, 2)
    torch.manual_seed(0)
    first = langevin(quadratic, x, steps=3, step_size=0.1, generator=generator(7)).x
    state = torch.get_rng_state()
    second = langevin(quadratic, x, steps=3, step_size=0.1, generator=generator(7)).x
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    other = langevin(quadratic, x, steps=3, step_size=0.1, generator=generator(8)).x
    assert not torch.equal(first, other)


def test_a_generator_for_each_chain_frees_it_from_its_batch():
    x = torch.zeros(5, 1, 8, 8)
    whole = langevin(
        quadratic, x, steps=3, step_size=0.1, generator=[generator(i) for i in range(5)]
    ).x
    part = langevin(
        quadratic, x[2:4], steps=3, step_size=0.1, generator=[generator(2), generator(3)]
    ).x
    assert torch.equal(whole[2:4], part)


def test_without_temperature_it_is_gradient_descent():
    x = torch.ones(2, 3)
    result = langevin(quadratic, x, steps=2, step_size=0.5, temperature=0.0)
    torch.testing.assert_close(result.x, x / 4)
    torch.testing.assert_close(result.info.energy, torch.full((2,), 3 * 0.25 / 2))
    torch.testing.assert_close(result.info.gradient, torch.full((2,), 0.75**0.5))
    torch.testing.assert_close(result.info.movement, torch.full((2,), (3 * 0.75**2) ** 0.5))


def test_schedules_give_each_step_its_own_values():
    x = torch.ones(1, 1)
    result = langevin(quadratic, x, steps=2, step_size=[(0, 0.5), (1, 0.1)], temperature=0.0)
    torch.testing.assert_close(result.x, torch.tensor([[0.5 * 0.9]]))
    # noise at the first step only: 0.1 times the gradient is all that the second one adds
    seen = []
    how = {"steps": 2, "step_size": 0.1, "temperature": [(0, 1.0), (1, 0.0)]}
    langevin(quadratic, x, **how, callback=lambda i, x: seen.append(x.item()))
    assert seen[0] != pytest.approx(0.9)
    assert seen[1] == pytest.approx(0.9 * seen[0])


def test_clips_each_element_of_the_gradient():
    x = torch.tensor([[5.0, 0.01, -5.0]])
    x = langevin(quadratic, x, steps=1, step_size=1.0, temperature=0.0, gradient_clip=0.03).x
    torch.testing.assert_close(x, torch.tensor([[4.97, 0.0, -4.97]]))


def test_clamps_then_projects_after_each_step():
    seen = []

    def project(x):
        seen.append(x.abs().max().item())
        return x * 0 + 7

    result = langevin(
        quadratic, torch.full((2, 3), 9.0), steps=3, step_size=0.1, clamp=(-1, 1), project=project
    )
    assert seen == [1.0] * 3
    assert (result.x == 7).all()


def test_callback_sees_every_step():
    steps = []
    langevin(
        quadratic, torch.zeros(1, 1), steps=3, step_size=0.1, callback=lambda i, x: steps.append(i)
    )
    assert steps == [1, 2, 3]


def test_bf16_keeps_the_chain_in_float32(net):
    x = torch.randn(8, 1, 8, 8)
    seen = set()
    handle = net.features[0].register_forward_hook(lambda m, i, output: seen.add(output.dtype))
    low = langevin(net, x, steps=5, step_size=0.01, temperature=0.0, bf16=True)
    handle.remove()
    assert seen == {torch.bfloat16}
    assert low.x.dtype == low.info.energy.dtype == torch.float32
    high = langevin(net, x, steps=5, step_size=0.01, temperature=0.0)
    torch.testing.assert_close(low.x - x, high.x - x, rtol=0.05, atol=1e-3)
    assert not torch.equal(low.x, high.x)


def test_spectral_norm_stands_still_during_a_chain():
    energy = ResNetEnergy(1, widths=(4, 4), spectral=True).train()
    before = {name: buffer.clone() for name, buffer in energy.named_buffers()}
    langevin(energy, torch.randn(2, 1, 8, 8), steps=3, step_size=0.1)
    assert before
    assert all(torch.equal(before[name], buffer) for name, buffer in energy.named_buffers())


def test_labels_reach_the_energy():
    targets = torch.tensor([[-3.0], [3.0]])
    x = langevin(
        lambda x, y: (x - targets[y]).square().sum(1) / 2,
        torch.zeros(2, 1),
        torch.tensor([1, 0]),
        steps=200,
        step_size=0.1,
        temperature=0.0,
    ).x
    torch.testing.assert_close(x, torch.tensor([[3.0], [-3.0]]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_never_waits_for_the_device(net, never_waits):
    net = net.cuda()
    x = torch.randn(8, 1, 8, 8, device="cuda")
    langevin(net, x, steps=2, step_size=0.01, bf16=True)
    with never_waits():
        langevin(net, x, steps=10, step_size=0.01, bf16=True)
