"""Boltzmann machines against sums over all their states."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from genconv.energy import RBM, BoltzmannMachine, Energy, boltzmann
from genconv.energy.boltzmann import states
from genconv.eval import anneal, log_mean_exp
from genconv.sampling import Chain, gibbs
from genconv.training import ContrastiveDivergence

SHAPE = (1, 2, 3)
GIBBS = Chain(sampler="gibbs", temperature=1.0, start="uniform")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random(machine, scale=1.0):
    for parameter in machine.double().parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=seeded()).double()
    return machine


def images(machine):
    """All images of a machine, (2^D, C, *space)."""
    return states(math.prod(machine.shape)).double().view(-1, *machine.shape) * 2 - 1


def law(machine):
    """p(x) of every image."""
    with torch.no_grad():
        return torch.softmax(-machine(images(machine)), 0)


def draw(machine, n):
    """Draw n images by their probabilities."""
    return images(machine)[torch.multinomial(law(machine), n, True, generator=seeded(1))]


def share(machine, x):
    """How often each image occurs."""
    places = (x.flatten(1) > 0).long() @ (1 << torch.arange(math.prod(machine.shape)))
    return torch.bincount(places, minlength=len(images(machine)))


def cd(machine, **how):
    """A training module outside a trainer, with nothing logged."""
    module = ContrastiveDivergence(machine, GIBBS, alpha=0.0, **how)
    module.generator = seeded(2)
    module.log = module.log_dict = lambda *args, **kwargs: None
    return module


def kernel(rbm, monkeypatch):
    """P(x' | x) of one Gibbs step, from the fields that the step itself computes."""
    x, every = images(rbm), states(len(rbm.hidden_bias)).double()
    total = torch.zeros(len(x), len(x), dtype=torch.float64)
    for h in every:
        fields = []

        def coins(field, noise, h=h, fields=fields):
            fields.append(field)
            return h.expand(len(field), -1) if len(fields) == 1 else torch.zeros_like(field)

        monkeypatch.setattr(boltzmann, "_coins", coins)
        rbm.resample(x, noise=None)
        up, down = (torch.sigmoid(field).detach() for field in fields)
        v = (x.flatten(1) + 1) / 2
        p_h = (up * h + (1 - up) * (1 - h)).prod(1)
        p_v = (down[0] * v + (1 - down[0]) * (1 - v)).prod(1)
        total += p_h[:, None] * p_v
    monkeypatch.undo()
    return total


MACHINES = {
    "rbm": lambda: RBM(SHAPE, 4),
    "visible": lambda: BoltzmannMachine(SHAPE),
    "general": lambda: BoltzmannMachine(SHAPE, 3),
}


@pytest.fixture(params=MACHINES)
def machine(request):
    return random(MACHINES[request.param](), 0.7)


def test_gradient_of_log_z_is_an_expectation():
    rbm = random(RBM(SHAPE, 4))
    v = (images(rbm).flatten(1) + 1) / 2
    with torch.no_grad():
        h = torch.sigmoid(rbm.hidden_bias + v @ rbm.weight)
        expected = torch.einsum("n,ni,nj->ij", law(rbm), v, h)
    step = 1e-5
    for i in range(6):
        for j in range(4):
            ends = []
            for sign in (1, -1):
                rbm.weight.data[i, j] += sign * step
                ends.append(rbm.log_partition())
                rbm.weight.data[i, j] -= sign * step
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
                expected[i, j].item(), abs=1e-8
            )


def test_log_z_is_the_same_from_either_side_and_from_both():
    rbm = random(RBM(SHAPE, 4))
    v, h = states(6).double(), states(4).double()
    with torch.no_grad():
        joint = v @ rbm.visible_bias[:, None] + h @ rbm.hidden_bias + v @ rbm.weight @ h.T
        expected = joint.flatten().logsumexp(0).item()
        from_visible = (-rbm(images(rbm))).logsumexp(0).item()
        from_hidden = (-rbm.hidden_energy(h)).logsumexp(0).item()
    assert from_visible == pytest.approx(expected, abs=1e-12)
    assert from_hidden == pytest.approx(expected, abs=1e-12)
    assert rbm.log_partition() == pytest.approx(expected, abs=1e-12)


def test_log_z_of_a_general_machine_is_the_sum_over_all_units():
    machine = random(BoltzmannMachine(SHAPE, 3))
    s = states(9).double()
    with torch.no_grad():
        pairs = (s @ machine.weight.triu(1) * s).sum(1)
        expected = (s @ machine.bias + pairs).logsumexp(0).item()
    assert machine.log_partition() == pytest.approx(expected, abs=1e-12)


def test_log_z_of_gaussian_units_is_an_integral():
    rbm = random(RBM((1, 1), 3, units="gaussian", sigma=0.4))
    x = torch.linspace(-8, 8, 40_001).double().view(-1, 1, 1)
    with torch.no_grad():
        integral = torch.trapezoid((-rbm(x)).exp(), x.flatten()).log().item()
    assert rbm.log_partition() == pytest.approx(integral, abs=1e-8)


def test_gibbs_kernel_keeps_p_in_detailed_balance(monkeypatch):
    rbm = random(RBM(SHAPE, 4))
    p, step = law(rbm), kernel(rbm, monkeypatch)
    torch.testing.assert_close(step.sum(1), torch.ones_like(p), rtol=0, atol=1e-14)
    torch.testing.assert_close(p @ step, p, rtol=0, atol=1e-14)
    flow = p[:, None] * step
    torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-14)


def test_gibbs_steps_stay_in_the_law_and_come_to_it(machine):
    n, p = 40_000, law(machine)
    for x, steps in [(draw(machine, n), 1), (torch.zeros(n, *SHAPE).double(), 30)]:
        x = gibbs(machine, x, steps=steps, generator=seeded(3)).x
        counts = share(machine, x)
        assert stats.chisquare(counts.numpy(), (n * p).numpy()).pvalue > 1e-3


def test_gaussian_units_come_to_their_mixture():
    rbm = random(RBM((1, 1), 2, units="gaussian", sigma=0.5))
    h, sigma = states(2).double(), 0.5
    with torch.no_grad():
        shares = torch.softmax(-rbm.hidden_energy(h), 0)
        centres = rbm.visible_bias + sigma * (h @ rbm.weight.T)[:, 0]
    n = 50_000
    x = gibbs(rbm, torch.zeros(n, 1, 1).double(), steps=60, generator=seeded(3)).x.flatten()

    def distribution(points):
        points = torch.as_tensor(points)[:, None]
        return (shares * torch.special.ndtr((points - centres) / sigma)).sum(1).numpy()

    assert stats.kstest(x.numpy(), distribution).pvalue > 1e-3


def test_temperature_is_that_of_the_joint_law():
    rbm, t = random(RBM(SHAPE, 4)), 2.0
    v, h = states(6).double(), states(4).double()
    with torch.no_grad():
        joint = v @ rbm.visible_bias[:, None] + h @ rbm.hidden_bias + v @ rbm.weight @ h.T
        p = torch.softmax((joint / t).logsumexp(1), 0)
    n = 100_000
    x = torch.zeros(n, *SHAPE).double()
    x = gibbs(rbm, x, steps=20, temperature=t, generator=seeded(3)).x
    assert stats.chisquare(share(rbm, x).numpy(), (n * p).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("k", [1, 3])
def test_cd_k_has_the_gradient_of_the_kernels_power(k, monkeypatch):
    rbm, n = random(RBM(SHAPE, 4)), 100_000
    x = images(rbm)[torch.randint(64, (n,), generator=seeded(4)) % 40]
    start = share(rbm, x).double() / n
    end = start @ torch.linalg.matrix_power(kernel(rbm, monkeypatch), k)
    cd(rbm, start="data", k=k).training_step((x, None), 0).backward()
    slopes = torch.func.vmap(
        torch.func.grad(lambda w, one: torch.func.functional_call(rbm, w, (one[None],))[0]),
        in_dims=(None, 0),
    )(dict(rbm.named_parameters()), images(rbm))
    for name, parameter in rbm.named_parameters():
        slope = slopes[name].detach().flatten(1)
        expected = (start - end) @ slope
        spread = (end @ slope.square() - (end @ slope).square()).sqrt()
        z = (parameter.grad.flatten() - expected) / (spread / n**0.5)
        assert z.abs().max() < 4, name


def test_exact_learning_and_persistent_chains_find_the_same_law():
    shape = (1, 2, 2)
    target = law(random(BoltzmannMachine(shape)))
    exact = BoltzmannMachine(shape).double()
    optimizer = torch.optim.LBFGS(exact.parameters(), max_iter=200, tolerance_change=1e-14)

    def divergence(machine):
        p = torch.log_softmax(-machine(images(machine)), 0)
        return (target * (target.log() - p)).sum()

    def closure():
        optimizer.zero_grad()
        loss = divergence(exact)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert divergence(exact).item() < 1e-9
    persistent = BoltzmannMachine(shape)
    module = cd(persistent, k=1, buffer_size=1000, restart=0.0, optimizer="sgd", lr=1.0)
    optimizer = module.configure_optimizers()["optimizer"]
    counts = (1000 * target).round().long()
    x = images(persistent).float().repeat_interleave(counts, 0)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / 600)
        optimizer.zero_grad()
        module.training_step((x[:1000], None), 0).backward()
        optimizer.step()
    assert divergence(persistent.double()).item() < 2e-3


class Normal(Energy):
    """E = a x² / 2, whose every step is a fresh draw."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(float(a)))

    def forward(self, x, y=None):
        return self.a * x.square().sum(1) / 2

    def resample(self, x, y=None, *, noise, temperature=1.0):
        return noise(x.shape, draw=torch.randn) / self.a.sqrt()


def test_annealing_finds_the_ratio_of_two_gaussians_from_both_sides():
    n, variance = 20_000, 4.0
    betas = [i / 20 for i in range(21)]
    expected = math.log(variance) / 2

    def at(beta):
        return Normal((1 - beta) + beta / variance)

    x = torch.randn(n, 1, generator=seeded(5))
    up = anneal(at, x, betas, generator=seeded(6))
    down = anneal(at, variance**0.5 * x, betas[::-1], generator=seeded(7))
    found = log_mean_exp(up)
    assert found.value == pytest.approx(expected, abs=0.01)
    assert found.low < expected < found.high
    assert -log_mean_exp(down).value == pytest.approx(expected, abs=0.01)
    error = 4 * up.std() / n**0.5
    assert up.mean() + error < expected < -down.mean() - error


@pytest.mark.parametrize("units", ["binary", "gaussian"])
def test_annealing_finds_the_log_z_that_is_summed(units):
    rbm = random(RBM(SHAPE, 5, units=units)).float()
    path = rbm.path(torch.linspace(-1, 1, 6).view(SHAPE))
    assert path.at(0.0).log_partition() == pytest.approx(path.log_z, abs=1e-5)
    assert path.at(1.0).log_partition() == pytest.approx(path.exact(), abs=1e-5)
    x = gibbs(path.at(0.0), torch.zeros(2000, *SHAPE), steps=1, generator=seeded(8)).x
    betas = [i / 100 for i in range(101)]
    found = log_mean_exp(anneal(path.at, x, betas, generator=seeded(9)))
    width = found.high - found.low
    assert width < 0.2
    assert found.value + path.log_z == pytest.approx(path.exact(), abs=width)


def test_annealing_finds_the_log_z_of_a_general_machine(machine):
    path = machine.path(torch.zeros(SHAPE))
    x = gibbs(path.at(0.0), torch.zeros(1000, *SHAPE).double(), steps=1, generator=seeded(8)).x
    betas = [i / 30 for i in range(31)]
    found = log_mean_exp(anneal(path.at, x, betas, generator=seeded(9)))
    assert found.value + path.log_z == pytest.approx(path.exact(), abs=found.high - found.low)
