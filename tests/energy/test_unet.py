import copy
import itertools

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from genconv.energy import UNetEnergy
from genconv.energy.unet import Unpack
from genconv.training.contrastive import energy_pair
from genconv.training.energy_matching import transport_loss


@pytest.fixture
def pair():
    """The same network, once with checkpointed blocks, and images, noise, times and labels."""
    torch.manual_seed(0)
    plain = UNetEnergy(3, width=8, multipliers=(1, 2), blocks=1, classes=3)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    sparing = copy.deepcopy(plain)
    sparing.checkpoint = True
    batch = torch.rand(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.rand(4)
    return plain, sparing, batch, torch.tensor([0, 1, 2, -1])


def test_checkpointed_blocks_give_the_same_gradient_of_a_gradient(pair):
    plain, sparing, (x, noise, t), y = pair
    for energy in (plain, sparing):
        transport_loss(energy, noise, x, t, y).backward()
    for one, other in zip(plain.parameters(), sparing.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_checkpointed_blocks_keep_less(pair):
    kept = []
    for energy in pair[:2]:
        sizes = []

        def weigh(tensor, sizes=sizes):
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
            energy_pair(energy, *pair[2][:2], pair[3])
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_channels_become_patches(dims):
    x = torch.randn(2, 3 * 2**dims, *(2, 3, 4)[:dims])
    patches = Unpack(2)(x)
    if dims == 2:
        assert torch.equal(patches, F.pixel_shuffle(x, 2))
    corners = itertools.product(range(2), repeat=dims)
    for channel, corner in enumerate(corners):
        seen = patches[(slice(None), slice(None), *(slice(i, None, 2) for i in corner))]
        assert torch.equal(seen, x[:, channel :: 2**dims])


@pytest.mark.parametrize("head", ["dot", "l2", "local"])
@pytest.mark.parametrize("patch", [1, 2])
def test_a_stack_of_equal_images_has_as_many_times_their_energy(patch, head):
    """Weights that look along no third axis make a network of bodies one of images."""
    torch.manual_seed(0)
    how = {"width": 8, "multipliers": (1, 2), "blocks": 1, "patch": patch, "head": head}
    flat, deep = UNetEnergy(2, **how).double(), UNetEnergy(2, 3, **how).double()
    for weight in flat.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    with torch.no_grad():
        for (name, one), other in zip(flat.named_parameters(), deep.parameters(), strict=True):
            if name.startswith("to_map"):
                # every layer of a patch is alike
                one = one.unflatten(0, (-1, 1, patch**2)).repeat(1, patch, 1, *[1] * (one.ndim - 1))
                one = one.flatten(0, 2)
            if one.ndim == 4:
                other.zero_()
                other[:, :, other.shape[2] // 2] = one
            else:
                other.copy_(one)
    x = torch.randn(2, 2, 8, 4).double().requires_grad_()
    stack = x[:, :, None].repeat(1, 1, 4, 1, 1).detach().requires_grad_()
    energies, stacked = flat(x), deep(stack)
    torch.testing.assert_close(stacked, 4 * energies)
    (gradient,) = torch.autograd.grad(energies.sum(), x)
    (gradients,) = torch.autograd.grad(stacked.sum(), stack)
    torch.testing.assert_close(gradients.sum(2), 4 * gradient)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_second_derivatives_by_finite_differences(dims):
    torch.manual_seed(0)
    energy = UNetEnergy(1, dims, 4, (1, 2), blocks=1, patch=2, head="l2").double()
    names, weights = zip(*energy.named_parameters(), strict=True)
    weights = [(0.3 * torch.randn_like(w)).requires_grad_() for w in weights]
    x = torch.randn(2, 1, *[8] * dims).double().requires_grad_()

    def of(x, *weights):
        return functional_call(energy, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradgradcheck(of, (x, *weights), fast_mode=True)
