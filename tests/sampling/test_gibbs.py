"""The contract of `gibbs`; its law is checked in tests/statistics."""

import pytest
import torch

from genconv.energy import RBM, BoltzmannMachine, GenerativeConvNet
from genconv.errors import UserError
from genconv.images import to_uint8
from genconv.sampling import Chain, ReplayBuffer, gibbs

SHAPE = (1, 4, 4)
MACHINES = {
    "rbm": lambda: RBM(SHAPE, 6),
    "gaussian": lambda: RBM(SHAPE, 6, units="gaussian"),
    "general": lambda: BoltzmannMachine(SHAPE, 2),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=MACHINES)
def machine(request):
    torch.manual_seed(0)
    machine = MACHINES[request.param]()
    for parameter in machine.parameters():
        parameter.data.normal_()
    return machine


def test_leaves_no_trace_on_the_energy_and_the_start(machine):
    x = torch.rand(3, *SHAPE) * 2 - 1
    before = x.clone()
    result = gibbs(machine.train(), x, steps=2, generator=generator())
    assert machine.training
    assert all(p.requires_grad and p.grad is None for p in machine.parameters())
    assert torch.equal(x, before)
    assert not result.x.requires_grad
    assert (result.x.shape, result.x.dtype) == (x.shape, torch.float32)
    torch.testing.assert_close(result.info.movement, (result.x - x).flatten(1).norm(dim=1))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gives_the_same_in_every_grad_mode(machine, mode):
    expected = gibbs(machine, torch.ones(2, *SHAPE), steps=3, generator=generator())
    with mode():
        result = gibbs(machine, torch.ones(2, *SHAPE), steps=3, generator=generator())
    assert torch.equal(result.x, expected.x)
    machine(result.x).sum().backward()


def test_noise_comes_from_the_generator_only(machine):
    x = torch.ones(4, *SHAPE)
    state = torch.get_rng_state()
    first, second, other = (
        gibbs(machine, x, steps=3, generator=generator(seed)).x for seed in (7, 7, 8)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_generator_for_each_chain_frees_it_from_its_batch(machine):
    x = torch.ones(5, *SHAPE)
    whole = gibbs(machine, x, steps=3, generator=[generator(i) for i in range(5)]).x
    part = gibbs(machine, x[2:4], steps=3, generator=[generator(2), generator(3)]).x
    assert torch.equal(whole[2:4], part)


def test_callback_sees_every_step_and_projection_holds_what_is_known(machine):
    known = torch.zeros(SHAPE, dtype=torch.bool)
    known[..., :2] = True
    seen = []
    result = gibbs(
        machine,
        torch.ones(64, *SHAPE),
        steps=3,
        generator=generator(),
        project=lambda x: torch.where(known, 1.0, x),
        callback=lambda step, x: seen.append((step, x[..., :2].min().item())),
    )
    assert seen == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert result.x[..., 2:].std() > 0


def test_a_buffer_keeps_binary_states_exactly():
    rbm, buffer = MACHINES["rbm"](), ReplayBuffer(8, SHAPE)
    # so much depends on a pixel that a grey level more would tell
    rbm.weight.data.normal_(std=300)
    x = gibbs(rbm, torch.zeros(8, *SHAPE), steps=1, generator=generator()).x
    assert set(x.unique().tolist()) == {-1.0, 1.0}
    buffer.images = to_uint8(x)
    lent = buffer.draw(8)
    x = x[lent.slots]
    # what is lent is spread over a grey level, of which the next step makes nothing
    assert not torch.equal(lent.x, x)
    for near in (lent.x, 0.1 * x):
        moved, expected = (gibbs(rbm, z, steps=1, generator=generator()).x for z in (near, x))
        assert torch.equal(moved, expected)


def test_bf16_multiplies_only(machine):
    x = torch.ones(2000, *SHAPE)
    low, high = (
        gibbs(machine, x, steps=1, generator=generator(), bf16=bf16).x for bf16 in (True, False)
    )
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.mean(0), high.mean(0), rtol=0, atol=0.03)


def test_an_energy_without_conditionals_is_refused():
    with pytest.raises(UserError, match=r"GenerativeConvNet.*sampler: langevin"):
        Chain(sampler="gibbs").run(GenerativeConvNet(widths=(4,)), torch.zeros(1, *SHAPE))
