import pytest
import torch

from genconv.energy import GenerativeConvNet, UNetEnergy
from genconv.errors import UserError
from genconv.sampling import Chain, ReplayBuffer
from genconv.training import EnergyMatching
from genconv.training.energy_matching import pair_by_transport, spread_times, transport_loss


def test_loss_of_a_known_field():
    # E = -v·x has velocity v; between 0 and v it is exact, between 0 and 0 it is off by v
    v = torch.tensor([3.0, 4.0])
    x0, x1 = torch.zeros(5, 2), v.expand(5, 2)
    energy = lambda x: -(x * v).sum(1)  # noqa: E731
    assert transport_loss(energy, x0, x1, torch.rand(5)).item() == pytest.approx(0)
    assert transport_loss(energy, x0, x0, torch.rand(5)).item() == pytest.approx(25 / 2)


def test_loss_looks_at_the_point_on_the_line():
    seen = []

    def energy(x):
        seen.append(x.detach().clone())
        return x.square().flatten(1).sum(1) / 2

    x0, x1 = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    loss = transport_loss(energy, x0, x1, torch.tensor([0.25, 1.0]))
    assert seen[0][:, 0, 0, 0].tolist() == [0.25, 1.0]
    # -∇E is -x where 1 is wanted
    assert loss.item() == pytest.approx((1.25**2 + 2**2) / 2)


def test_learns_the_way_between_two_gaussians(quadratic):
    # from N(0, I) to m: the best θ of -∇E = θ - x solves mean(θ - x_t - (x1 - x0)) = 0
    m = torch.tensor([2.0, -1.0])
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(quadratic.parameters(), lr=0.05)
    for _ in range(400):
        x0, t = torch.randn(256, 2, generator=generator), torch.rand(256, generator=generator)
        optimizer.zero_grad()
        transport_loss(quadratic, x0, m.expand(256, 2), t).backward()
        optimizer.step()
    torch.testing.assert_close(quadratic.theta.detach(), 1.5 * m, atol=0.1, rtol=0)


def test_times_are_uniform_each_and_evenly_spread_together():
    generator = torch.Generator().manual_seed(0)
    times = torch.stack([spread_times(8, generator) for _ in range(4000)])
    assert times.min() >= 0
    assert times.max() < 1
    # the moments of a uniform law, at every place of the batch
    torch.testing.assert_close(times.mean(0), torch.full((8,), 1 / 2), atol=0.02, rtol=0)
    torch.testing.assert_close(times.var(0), torch.full((8,), 1 / 12), atol=0.004, rtol=0)
    gaps = times.sort(1).values.diff(dim=1)
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 8), atol=1e-6, rtol=0)


def test_transport_pairs_each_image_with_its_own_noise():
    x1 = torch.randn(20, 1, 3, 3)
    order = torch.randperm(20)
    assert torch.equal(pair_by_transport(x1[order], x1), x1)
    x0 = torch.randn(20, 1, 3, 3)
    paired = pair_by_transport(x0, x1)
    assert torch.equal(paired.flatten(1).sum(1).sort().values, x0.flatten(1).sum(1).sort().values)
    assert (paired - x1).square().sum() < (x0 - x1).square().sum()


def test_labels_reach_the_energy_and_a_share_of_them_is_withheld():
    torch.manual_seed(0)
    energy = UNetEnergy(1, width=8, multipliers=(1,), blocks=1, classes=3)
    module = EnergyMatching(energy, unlabelled=0.25)
    module.generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat(1000)
    found = module._withhold(y)
    assert (found == -1).double().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(found[found >= 0], y[found >= 0])
    module.unlabelled = 0.0
    assert module._withhold(y) is y
    seen = []
    energy.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    module.log = lambda *args, **how: None
    module.training_step((torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 2, 1, 0])), 0)
    assert seen[0].tolist() == [0, 1, 2, 2, 1, 0]


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = EnergyMatching(
        GenerativeConvNet(widths=(4, 8)),
        chain=Chain(steps=5, step_size=0.1, temperature=0.0),
        transport_updates=3,
        k=2,
        buffer_size=64,
        restart=0.5,
        bf16_chains=False,
    )
    module.generator = torch.Generator().manual_seed(0)
    module.log = module.log_dict = lambda *args, **kwargs: None
    return module


def test_new_chains_travel_the_whole_way(module):
    x = module._new_chains(4, (1, 8, 8), None)
    module.generator.manual_seed(0)
    noise = module.chain.noise(4, (1, 8, 8), generator=module.generator)
    torch.testing.assert_close(x, module.chain.run(module.energy, noise).x)
    assert not torch.equal(x, noise)


def test_buffer_begins_settled(module):
    module.negatives(torch.zeros(8, 1, 8, 8), None)
    assert len(module.buffer) == 64
    # uniform noise, the bare buffer's start, would not be this narrow in energy
    settled = module.energy(module.buffer.images / 127.5 - 1)
    bare = module.energy(ReplayBuffer(64, (1, 8, 8)).images / 127.5 - 1)
    assert settled.mean() < bare.mean()


def test_contrastive_phase_is_floored_and_trimmed(module):
    x = torch.rand(16, 1, 8, 8)
    module.chain = Chain(steps=1, step_size=0.0)
    module.weight, module.buffer = 2.0, ReplayBuffer(64, (1, 8, 8), restart=0.0)
    state = module.buffer.state_dict()

    def loss(**how):
        module.buffer = ReplayBuffer.from_state_dict(state)
        for name, value in how.items():
            setattr(module, name, value)
        return module._contrastive(x)

    plain = loss()
    module.buffer = ReplayBuffer.from_state_dict(state)
    e_chains = module.energy(module.buffer.draw(16).x).sort().values
    torch.testing.assert_close(plain, 2 * (module.energy(x).mean() - e_chains.mean()))
    trimmed = loss(trim=0.25)
    torch.testing.assert_close(trimmed, 2 * (module.energy(x).mean() - e_chains[:12].mean()))
    floored = loss(trim=0.0, floor=plain.item() + 1)
    assert floored.item() == pytest.approx(plain.item() + 1)
    (gradient,) = torch.autograd.grad(floored, module.energy.head.weight)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize(("step", "contrastive"), [(0, False), (2, False), (3, True), (4, True)])
def test_the_second_phase_begins_at_its_update(module, monkeypatch, step, contrastive):
    monkeypatch.setattr(EnergyMatching, "global_step", step)
    logged = []
    module.log = lambda name, value, **how: logged.append((name, value.item()))
    module._contrastive = lambda x, y: torch.tensor(100.0)
    loss = module.training_step((torch.rand(16, 1, 8, 8), None), 0)
    expected = dict(logged)["loss/transport"] + 100 * contrastive
    assert loss.item() == pytest.approx(expected)


def test_classification_is_that_of_the_law_at_the_chains_temperature():
    torch.manual_seed(0)
    energy = GenerativeConvNet(widths=(4, 8), classes=3, scale=3.0)
    x, y = torch.randn(5, 1, 8, 8), torch.tensor([0, 2, 1, 1, 0])
    chain = Chain(steps=4, step_size=0.5, temperature=[(1, 0.0), (2, 0.2)])

    def loss(classify):
        matching = EnergyMatching(energy, chain, transport_updates=10, classify=classify)
        matching.generator = torch.Generator().manual_seed(0)
        matching.log = matching.log_dict = lambda *args, **kwargs: None
        return matching.training_step((x, y), 0)

    each = torch.stack([energy(x, torch.full((5,), c)) for c in range(3)], 1) / 0.2
    expected = (torch.logsumexp(-each, 1) + each[torch.arange(5), y]).mean()
    torch.testing.assert_close(loss(0.7) - loss(0.0), 0.7 * expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="classify needs an energy with classes"):
        EnergyMatching(GenerativeConvNet(widths=(4,)), classify=1.0)
    with pytest.raises(UserError, match="ends at a temperature above 0"):
        EnergyMatching(energy, Chain(temperature=0.0), classify=1.0)


def test_new_chains_made_ahead_are_used_in_their_order(monkeypatch):
    module = EnergyMatching(GenerativeConvNet(widths=(4, 8)), chain=Chain(steps=2, step_size=0.1))
    monkeypatch.setattr(EnergyMatching, "ahead", 8)
    made = []

    def settled(n, shape, y):
        made.append(n)
        first = 8.0 * (len(made) - 1)
        return (first + torch.arange(n)).view(-1, 1, 1, 1).expand(n, *shape)

    monkeypatch.setattr(module, "_settled", settled)
    taken = [module._new_chains(3, (1, 4, 4), None)[:, 0, 0, 0].tolist() for _ in range(3)]
    # the two that were left of the first eight were too few
    assert taken == [[0, 1, 2], [3, 4, 5], [8, 9, 10]]
    assert made == [8, 8]
    # as many as that, or chains of given classes, are made when they are wanted
    module._new_chains(8, (1, 4, 4), None)
    module._new_chains(2, (1, 4, 4), torch.tensor([0, 1]))
    assert made[2:] == [8, 2]
