"""Latent vectors and the ways between them."""

import torch

from genconv.checkpoint import Trained
from genconv.sampling import Chain
from genconv.tasks.latent import between, class_means, explain, principal, revise
from tests.test_generator import rng


class Folded(torch.nn.Module):
    """g(z) = z² - 1 has two explanations of every image; where a chain begins decides."""

    latent, noise = 1, 0.1

    def draw(self, n, *, generator=None, device="cpu"):
        return torch.cat([torch.randn(1, 1, generator=g) for g in generator])

    def forward(self, z):
        # one of them is better
        return torch.where(z > 0, z.square() - 1, z.square() - 0.5)


def energy(x):
    return 50 * x.square().flatten(1).sum(1)


def trained(network, steps=300):
    return Trained(energy, Chain(20, 0.01, 0.0), (1,), 0, (), network, Chain(steps, 0.002, 0.0))


def test_the_best_of_several_starts_counts():
    x = torch.tensor([[-0.9]]).repeat(6, 1)
    few = explain(trained(Folded()), x, range(6), 1, 0)
    many = explain(trained(Folded()), x, range(6), 12, 0)
    assert (few < 0).any()
    assert (many > 0).all()
    torch.testing.assert_close(many.square() - 1, x, atol=0.06, rtol=0)


def test_a_lost_start_is_no_explanation():
    class Lost(Folded):
        def forward(self, z):
            return torch.where(z < 0, torch.nan, z)

    z = explain(trained(Lost()), torch.full((4, 1), 0.5), range(4), 12, 0)
    torch.testing.assert_close(z, torch.full((4, 1), 0.5 / 1.01), atol=1e-3, rtol=0)


def test_starts_depend_on_the_numbers_alone():
    x = torch.full((4, 1), -0.9)
    whole = explain(trained(Folded(), 1), x, range(4), 3, 0)
    rest = explain(trained(Folded(), 1), x[2:], range(2, 4), 3, 0)
    torch.testing.assert_close(rest, whole[2:])
    assert not torch.equal(explain(trained(Folded(), 1), x, range(4), 3, 1), whole)


def test_ways_are_straight_and_hold_both_ends():
    a, b = torch.randn(2, 3, 1, 4, generator=rng())
    way = between(a, b, 5)
    assert way.shape == (3, 5, 1, 4)
    assert torch.equal(way[:, 0], a)
    torch.testing.assert_close(way[:, -1], b)
    torch.testing.assert_close(way[:, 1], 0.75 * a + 0.25 * b)


def test_images_of_one_way_are_revised_by_one_noise():
    bowl = Trained(energy, Chain(5, 0.01, 0.1), (1,), 0)
    x = torch.zeros(4, 1)
    end = revise(bowl, x, [0, 0, 1, 1], 0)
    assert torch.equal(end[0], end[1])
    assert torch.equal(end[2], end[3])
    assert end[0] != end[2]


def test_the_mean_of_every_class():
    train = torch.tensor([1.0, 3.0, 10.0]).view(3, 1, 1, 1)
    labels, y = torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1])
    assert class_means(train, labels, y).flatten().tolist() == [10, 2, 10]


def test_principal_components_hold_what_lies_in_their_plane():
    axes = torch.randn(2, 9, generator=rng())
    train = (1 + torch.randn(50, 2, generator=rng(1)) @ axes).view(50, 1, 3, 3)
    torch.testing.assert_close(principal(train, train, 2), train, atol=1e-5, rtol=1e-5)
    left = (principal(train, train, 1) - train).square().sum() / 49
    smallest = torch.linalg.eigvalsh(train.flatten(1).T.cov())[-2]
    torch.testing.assert_close(left, smallest, rtol=1e-4, atol=0)
