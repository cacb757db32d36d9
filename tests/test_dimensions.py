"""Signals, images and bodies go the same way: data, training, sampling, recovery, files."""

import numpy as np
import pytest
import torch

from genconv.checkpoint import Trained, read, write
from genconv.data.holes import holes
from genconv.energy import GenerativeConvNet, UNetEnergy
from genconv.eval import activations, extract
from genconv.images import sheet, to_uint8
from genconv.sample import sample
from genconv.sampling import Chain
from genconv.tasks.problems import Problem
from genconv.tasks.recover import recover
from genconv.training import ContrastiveDivergence, EnergyMatching

CHAIN = Chain(steps=4, step_size=0.25, temperature=[(3, 0.0), (4, 0.01)])


@pytest.fixture(params=[1, 2, 3])
def space(request):
    """Extents that no two axes share."""
    return (8, 12, 4)[: request.param]


ENERGIES = {
    "convnet": lambda dims: GenerativeConvNet(
        2, dims, widths=(4, 8), strides=(1, 2), reference=1.0
    ),
    "unet": lambda dims: UNetEnergy(2, dims, width=4, multipliers=(1, 2), blocks=1, head="l2"),
}


@pytest.fixture(params=ENERGIES)
def energy(request, space):
    torch.manual_seed(0)
    energy = ENERGIES[request.param](len(space))
    # fresh residual branches end in zeros, behind which nothing learns at first
    with torch.no_grad():
        for weight in energy.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return energy


@pytest.mark.parametrize("objective", [ContrastiveDivergence, EnergyMatching])
def test_every_weight_learns_and_chains_come_back(objective, energy, space):
    how = {"transport_updates": 0} if objective is EnergyMatching else {}
    module = objective(energy, CHAIN, k=2, buffer_size=8, bf16_chains=False, **how)
    module.generator = torch.Generator().manual_seed(0)
    module.log = module.log_dict = lambda *args, **kwargs: None
    module._log_acceptance = lambda *args: None
    x = torch.rand(4, 2, *space, generator=torch.Generator().manual_seed(1)) * 2 - 1
    module.training_step((x, None), 0).backward()
    for name, weight in energy.named_parameters():
        # the same constant everywhere pulls nowhere: transport leaves biases of the end alone
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().max() > 0, name
    assert module.buffer.images.shape == (8, 2, *space)
    assert int((module.buffer.age > 0).sum()) > 0


def test_a_trained_energy_is_written_drawn_from_and_looked_at(energy, space, tmp_path):
    write(Trained(energy, CHAIN, (2, *space), 1), tmp_path)
    trained = read(tmp_path, "cpu")
    images = sample(trained, range(3))
    assert images.shape == (3, 2, *space)
    assert torch.equal(sample(trained, range(1, 2)), images[1:2])
    assert sheet(images[:, :1]).ndim == 3
    larger = trained.at_size([2 * side for side in space])
    assert sample(larger, range(1)).shape == (1, 2, *(2 * side for side in space))
    seen = extract(activations(trained.energy), images, bar=False).features
    assert seen.shape == (3, 8 * 2 ** len(space))


def test_what_is_known_stays_and_the_rest_is_drawn(energy, space):
    truth = torch.rand(3, 2, *space, generator=torch.Generator().manual_seed(1)) * 2 - 1
    problem = Problem((2, *space), missing=holes("random:0.5", 3, space))
    x = recover(
        energy,
        CHAIN,
        (2, *space),
        problem.measurement(range(3), "cpu"),
        problem.degrade(truth, 0),
        generator=torch.Generator().manual_seed(0),
    )
    known = ~problem.missing.expand_as(truth)
    torch.testing.assert_close(x[known], truth[known])
    assert (to_uint8(x)[~known] != to_uint8(truth)[~known]).double().mean() > 0.9


def test_features_are_means_over_parts_of_every_axis(energy, space):
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, 2, *space), dtype=np.uint8)
    )
    with torch.no_grad():
        last = energy.features(images.float() / 127.5 - 1)
    first = last[(slice(None), slice(None), *(slice(side // 2) for side in last.shape[2:]))]
    seen = extract(activations(energy), images, bar=False).features
    seen = seen.view(2, 8, *[2] * len(space))
    corner = seen[(slice(None), slice(None), *[0] * len(space))]
    expected = first.flatten(2).mean(2).double()
    torch.testing.assert_close(corner, expected, rtol=1e-5, atol=1e-6)
    whole = extract(activations(energy, 1), images, bar=False).features
    torch.testing.assert_close(whole, last.flatten(2).mean(2).double(), rtol=1e-5, atol=1e-6)
