"""The generator, and latent inference where the posterior is known in closed form."""

import pytest
import torch
from torch import nn

from genconv.energy import build, describe
from genconv.errors import UserError
from genconv.generator import Generator, Posterior, infer
from genconv.sampling import Chain


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """x = W z + b, whose p(z | x) is the normal law of mean C Wᵀ(x - b) / σ², covariance C."""

    latent, noise = 2, 0.5
    draw = Generator.draw

    def __init__(self):
        super().__init__()
        self.w, self.b = torch.tensor([[1.0, 0.4], [-0.3, 0.8], [0.2, 0.5]]), torch.ones(3)

    def forward(self, z):
        return z @ self.w.T + self.b

    def posterior(self, x):
        precision = torch.eye(2) + self.w.T @ self.w / self.noise**2
        covariance = precision.inverse()
        return (x - self.b) @ self.w @ covariance / self.noise**2, precision


X = torch.tensor([0.3, 1.4, -0.2])


def test_descent_ends_at_the_posterior_mean():
    network = Linear()
    x = X.expand(5, 3)
    z, energies = infer(network, Chain(300, 0.1, 0.0), x, generator=rng())
    mean, _ = network.posterior(x)
    torch.testing.assert_close(z, mean, atol=1e-5, rtol=0)
    expected = mean.square().sum(1) / 2 + (x - network(mean)).square().sum(1) / (2 * 0.5**2)
    torch.testing.assert_close(energies, expected)


def test_chains_at_temperature_one_draw_from_the_posterior():
    network, n, eta = Linear(), 20_000, 0.05
    x = X.expand(n, 3)
    z, _ = infer(network, Chain(100, eta, 1.0), x, generator=rng())
    mean, precision = network.posterior(X)
    # steps of length η widen the law by a known factor
    covariance = (precision - eta / 2 * precision @ precision).inverse()
    error = covariance.diag().div(n).sqrt()
    assert ((z.mean(0) - mean).abs() < 4.5 * error).all()
    assert ((z.T.cov() - covariance).abs() < 4.5 * covariance.diag().max() * (2 / n) ** 0.5).all()


def test_inference_begins_where_it_is_told_and_leaves_the_network_alone():
    network = Generator((1, 4, 4), latent=3, widths=(4, 4)).train()
    z = torch.randn(2, 3, generator=rng())
    x = network(z).detach()
    found, energies = infer(network, Chain(0, 0.1, 0.0), x, z)
    assert torch.equal(found, z)
    torch.testing.assert_close(energies, z.square().sum(1) / 2)
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_every_row_is_explained_by_itself():
    posterior = Posterior(Linear(), torch.stack([X, -X, 2 * X]), 0.5)
    z = torch.randn(3, 2, generator=rng())
    alone = [Posterior(Linear(), x[None], 0.5)(z[i][None]) for i, x in enumerate(posterior.x)]
    torch.testing.assert_close(posterior(z), torch.cat(alone))


@pytest.mark.parametrize("shape", [(1, 8), (3, 8, 12), (2, 4, 8, 8)])
def test_images_have_any_number_of_dimensions(shape):
    network = Generator(shape, latent=5, widths=(6, 4, 3))
    z = network.draw(7, generator=rng())
    assert z.shape == (7, 5)
    x = network(z)
    assert x.shape == (7, *shape)
    assert x.abs().max() < 1
    again = build(describe(network), Generator)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(z), x)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"shape": (1, 6, 8), "widths": (4, 4, 4)}, "multiples of 4"),
        ({"shape": (1, 0, 8)}, "multiples of 2"),
        ({"shape": (3,)}, "1 to 3 sides"),
        ({"shape": (1, 8, 8), "widths": ()}, "latent and widths"),
        ({"shape": (1, 8, 8), "latent": 0}, "latent and widths"),
        ({"shape": (1, 8, 8), "noise": 0.0}, "noise above 0"),
        ({"shape": (1, 8, 8), "noise": float("nan")}, "noise above 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, match):
    with pytest.raises(UserError, match=match):
        Generator(**arguments)


def test_a_generator_is_no_energy_and_no_energy_a_generator():
    described = describe(Generator((1, 8, 8)))
    with pytest.raises(UserError, match="no energy"):
        build(described)
    with pytest.raises(UserError, match="no generator 'genconv"):
        build({"class": "genconv.energy.convnet.GenerativeConvNet", "arguments": {}}, Generator)
