"""Purification: the chain it runs, and the derivative by which it is attacked."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from genconv.energy import Energy, GenerativeConvNet
from genconv.errors import UserError
from genconv.eval.attack import attack, margin
from genconv.eval.purify import Purified, likeliest
from genconv.sampling import Chain
from genconv.seeds import stream
from genconv.trained import Trained


class Gaussian(Energy):
    """|x - m|² / 2s², with one m for each class where asked for it."""

    def __init__(self, means, s=1.0):
        super().__init__()
        self.means = nn.Parameter(means)
        self.s, self.classes = s, len(means)

    def forward(self, x, y=None):
        m = self.means[0] if y is None else self.means[y]
        return (x - m).square().flatten(1).sum(1) / (2 * self.s**2)


def streams(n, what="test"):
    return [stream(0, what, i) for i in range(n)]


def purified(energy, chain, **how):
    return Purified(lambda x: x.flatten(1), Trained(energy, chain, (1, 2, 2), 0), **how)


CHAIN = Chain(steps=20, step_size=0.1, temperature=[(10, 0.0), (12, 0.3)])


def test_images_go_back_to_a_time_and_on_from_there():
    means, s, n = torch.full((1, 1, 2, 2), 0.2), 0.8, 4000
    still = replace(CHAIN, temperature=0.0)
    x = torch.full((1, 1, 2, 2), 0.5)
    found = purified(Gaussian(means, s), still, time=0.7, steps=3, runs=n).purify(x, streams(1))
    # the linear map of three noiseless steps, of t x + (1 - t) noise
    shrink = (1 - 0.1 / s**2) ** 3
    mean, spread = 0.2 + shrink * (0.7 * 0.5 - 0.2), shrink * 0.3
    assert found.shape == (n, 1, 2, 2)
    assert abs(found.mean().item() - mean) < 4 * spread / (4 * n) ** 0.5
    assert abs(found.std().item() / spread - 1) < 4 / (8 * n) ** 0.5


def test_at_the_image_itself_the_rest_of_the_chain_is_run():
    seen = []

    class Watched(Gaussian):
        def forward(self, x, y=None):
            seen.append(x.detach().clone())
            return super().forward(x, y)

    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    purified(Watched(torch.zeros(1, 1, 2, 2)), CHAIN, time=1.0, runs=2).purify(x, streams(3))
    assert len(seen) == 10
    assert torch.equal(seen[0], x.repeat_interleave(2, 0))


def test_a_chain_that_is_no_transport_goes_on_from_the_image():
    chain = Chain(steps=4, step_size=5.0, temperature=0.0)
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    energy = Gaussian(torch.zeros(1, 1, 2, 2), s=10.0)
    found = purified(energy, chain, time=0.5, steps=2, runs=1).purify(x, streams(2))
    torch.testing.assert_close(found, x * 0.95**2)


def test_the_derivative_of_a_gaussian_chain_is_its_linear_map():
    s = 0.7
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    defence = purified(Gaussian(torch.zeros(1, 1, 2, 2), s), CHAIN, time=0.5, runs=3)
    (gradient,) = torch.autograd.grad(defence(x, streams(2)).sum(), x)
    # 15 steps are left, the noise does not depend on x, and runs are averaged
    torch.testing.assert_close(gradient, torch.full_like(x, 0.5 * (1 - 0.1 / s**2) ** 15))


@pytest.mark.parametrize("how", [{}, {"clamp": True}, {"gradient_clip": 0.05}])
def test_the_derivative_is_that_of_the_unrolled_chain(how):
    torch.manual_seed(0)
    energy = GenerativeConvNet(channels=1, widths=(4, 8), strides=(1, 2)).double()
    chain = replace(CHAIN, **how)
    defence = purified(energy, chain, time=0.8, runs=2)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double() * 1.8 - 0.9
    x.requires_grad_()
    weights = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(2)).double()

    def unrolled(x):
        each = [g for g in streams(2) for _ in range(2)]

        def noise():
            return torch.stack(
                [torch.randn(1, 8, 8, generator=g, dtype=torch.float64) for g in each]
            )

        x = 0.8 * x.repeat_interleave(2, 0) + 0.2 * noise()
        for step in range(8, 20):
            (g,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
            if chain.gradient_clip is not None:
                g = g.clamp(-chain.gradient_clip, chain.gradient_clip)
            x = x - 0.1 * g
            heat = [0.0, 0.15, 0.3][min(max(step - 10, 0), 2)]
            if heat:
                x = x + (2 * 0.1 * heat) ** 0.5 * noise()
            if chain.clamp:
                x = x.clamp(-1, 1)
        return x

    expected = unrolled(x)
    (ours, theirs) = (
        torch.autograd.grad((end * weights).sum(), x)[0]
        for end in (defence.purify(x, streams(2)), expected)
    )
    torch.testing.assert_close(defence.purify(x, streams(2)), expected)
    torch.testing.assert_close(ours, theirs)
    assert all(p.grad is None for p in energy.parameters())


def test_straight_through_has_the_same_images_and_the_identity_for_a_derivative():
    energy = Gaussian(torch.zeros(1, 1, 2, 2), 0.7)
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact = purified(energy, CHAIN, time=0.5, runs=3)
    straight = replace(exact, derivative="straight")
    torch.testing.assert_close(straight(x, streams(2)), exact(x, streams(2)))
    (gradient,) = torch.autograd.grad(straight(x, streams(2)).sum(), x)
    torch.testing.assert_close(gradient, torch.ones_like(x))


def test_an_energy_takes_the_nearer_of_two_gaussians():
    means = torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1).expand(2, 1, 2, 2).clone()
    energy = Gaussian(means, 0.5)
    x = torch.rand(50, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = (x.mean((1, 2, 3)) > 0).long()
    logits = likeliest(energy)(x)
    assert torch.equal(logits.argmax(1), y)
    # and is fooled from a root mean square of |mean| on, which is where the border lies
    attacked = attack(
        lambda x, generator: likeliest(energy)(x), x, y, radius=0.2, generator=streams(50)
    )
    fooled = margin(likeliest(energy)(attacked), y) > 0
    assert torch.equal(fooled, x.mean((1, 2, 3)).abs() < 0.2)
    assert energy.means.requires_grad


def test_a_gibbs_chain_is_refused():
    with pytest.raises(UserError, match="a gibbs chain has no derivative"):
        purified(Gaussian(torch.zeros(1, 1, 2, 2)), Chain(sampler="gibbs"))
