import pytest
import torch

from genconv.energy import EnergyTransformer, Given, Product, beginning, context_of, describe
from genconv.errors import UserError
from genconv.sampling import langevin


@pytest.fixture
def energy():
    torch.manual_seed(0)
    energy = EnergyTransformer(2, patch=2, width=16, depth=2)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return energy


@pytest.fixture
def context():
    return context_of(torch.randn(3, 2, 4, 6), torch.rand(3, 1, 4, 6) > 0.5)


def test_a_fresh_one_answers_with_what_is_known(context):
    x = torch.randn(3, 2, 4, 6)
    energies = EnergyTransformer(2, patch=2, width=16)(x, context)
    expected = (x - context[:, :2]).square().flatten(1).sum(1) / 2 + 6 * torch.log(torch.tensor(2))
    torch.testing.assert_close(energies, expected)


def test_a_context_is_an_image_and_where_it_is_known():
    image, known = torch.randn(2, 3, 4, 4), torch.rand(2, 1, 4, 4) > 0.5
    image[~known.expand_as(image)] = torch.nan
    context = context_of(image, known)
    assert torch.equal(context[:, 3:] > 0, known)
    assert torch.equal(context[:, :3], torch.where(known, image, 0))
    whole = torch.randn(2, 3, 4, 4)
    assert torch.equal(context_of(whole), torch.cat([whole, torch.ones(2, 1, 4, 4)], 1))


def test_thoughts_begin_near_what_is_known_and_at_noise_elsewhere(context):
    noise = torch.randn(3, 2, 4, 6)
    start, known = beginning(context, noise), (context[:, 2:] > 0).expand(-1, 2, -1, -1)
    torch.testing.assert_close(start[known], (context[:, :2] + 0.2 * noise)[known])
    assert torch.equal(start[~known], noise[~known])


def test_without_a_context_nothing_is_known(energy):
    x = torch.randn(3, 2, 4, 6)
    nothing = context_of(torch.randn(3, 2, 4, 6), torch.zeros(3, 1, 4, 6, dtype=torch.bool))
    assert torch.equal(energy(x), energy(x, nothing))


def test_patches_are_the_squares_of_the_image():
    energy = EnergyTransformer(2, patch=2, width=16)
    x = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    patches = energy._patches(x)
    assert patches.shape == (1, 6, 8)
    for place in range(6):
        i, j = divmod(place, 3)
        square = x[0, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        assert torch.equal(patches[0, place], square.flatten())
    assert torch.equal(energy._images(patches, [2, 3]), x)


def test_the_energy_is_the_distance_to_what_a_candidate_is_held_against(energy, context):
    x = torch.randn(3, 2, 4, 6)
    energies, repaired = energy.judge(x, context)
    assert torch.equal(energy(x, context), energies)
    moved = context.clone()
    moved[:, :2] += 1
    doubt = energies - (x - repaired).square().flatten(1).sum(1) / 2
    assert (doubt > 0).all()
    assert (energy.judge(x + 1, context)[1] - repaired).abs().max() > 1e-3
    assert (energy.judge(x, moved)[1] - repaired).abs().mean() > 0.3


def test_places_differ_and_attention_reaches_everywhere(energy, context):
    x = torch.randn(3, 2, 4, 6)
    # the same patches elsewhere are another image
    assert (energy(x.roll(2, -1), context.roll(2, -1)) - energy(x, context)).abs().min() > 1e-4
    corner = x.clone()
    corner[..., :2, :2] += 1
    gradients = []
    for z in (x, corner):
        z.requires_grad_()
        gradients.append(torch.autograd.grad(energy(z, context).sum(), z)[0])
    assert (gradients[0] - gradients[1])[..., 2:, 4:].abs().max() > 1e-5


def test_a_blind_one_steps_at_once_to_an_answer_that_no_candidate_moves(context):
    torch.manual_seed(0)
    energy = EnergyTransformer(2, patch=2, width=16, blind=True)
    torch.nn.init.normal_(energy.repair.weight)
    ends = [
        langevin(energy, torch.randn(3, 2, 4, 6), context, steps=n, step_size=1.0, temperature=0.0)
        for n in (1, 1, 3)
    ]
    for other in ends[1:]:
        torch.testing.assert_close(other.x, ends[0].x, atol=1e-5, rtol=0)


def test_weights_see_through_two_derivatives():
    torch.manual_seed(0)
    energy = EnergyTransformer(1, patch=2, width=8, depth=1, heads=2).double()
    for layer in (energy.repair, energy.doubt):
        torch.nn.init.normal_(layer.weight)
    context = context_of(torch.randn(1, 1, 2, 4)).double()
    x = torch.randn(1, 1, 2, 4).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: energy(z, context).sum(), x, fast_mode=True)


def test_what_is_given_makes_an_energy_of_images_alone(energy, context):
    x = torch.randn(3, 2, 4, 6)
    each = Given(energy, context)
    assert torch.equal(each(x), energy(x, context))
    first = Given(energy, context[:1])
    torch.testing.assert_close(first(x), energy(x, context[[0, 0, 0]]))
    both = Product([each, first])
    torch.testing.assert_close(both(x), each(x) + first(x))
    alone = langevin(each, x, steps=3, step_size=0.1, temperature=0.0).x
    told = langevin(energy, x, context, steps=3, step_size=0.1, temperature=0.0).x
    torch.testing.assert_close(alone, told)
    with pytest.raises(UserError, match="a context is data"):
        describe(each)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="no multiple of 4 heads"):
        EnergyTransformer(width=18)
    with pytest.raises(ValueError, match="no multiples of 4"):
        EnergyTransformer(width=16)(torch.zeros(1, 3, 8, 6))
