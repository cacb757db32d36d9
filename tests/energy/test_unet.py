import copy

import pytest
import torch

from genconv.energy import UNetEnergy
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
