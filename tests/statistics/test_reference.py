"""A generative ConvNet without its network is its Gaussian reference, in every dimension."""

import pytest
import torch

from genconv.energy import GenerativeConvNet
from genconv.sampling import Chain
from genconv.training import ContrastiveDivergence

# Xie et al. 2016: one grey level wide, on [-1, 1]
STEP, HEAT, S = 0.045, 1 / 127.5**2, 1.0
SHAPES = {1: (3, 512), 2: (3, 24, 24), 3: (3, 8, 8, 8)}


@pytest.fixture(params=SHAPES)
def energy(request):
    torch.manual_seed(0)
    return GenerativeConvNet(3, request.param, (4, 8), 3, (2, 1), reference=S)


def shape_of(energy):
    return SHAPES[energy.arguments["dims"]]


def test_chains_sample_the_reference(energy):
    torch.nn.init.zeros_(energy.head.weight)
    chain = Chain(steps=200, step_size=STEP, temperature=HEAT, start="uniform")
    generator = torch.Generator().manual_seed(0)
    x = chain.noise(8, shape_of(energy), generator=generator)
    x = chain.run(energy, x, generator=generator).x
    # x' = (1 - h) x + sqrt(2 h s^2 T) xi with h = step / s^2 has this variance in the long run
    expected = S**2 * HEAT / (1 - STEP / (2 * S**2))
    # 12,000 pixels: the variance's relative standard deviation is 1.3 %
    assert x.var().item() == pytest.approx(expected, rel=0.05)
    assert abs(x.mean().item()) < 5 * (expected / x.numel()) ** 0.5


def test_one_persistent_chain_in_every_slot(energy):
    """The texture configs' arguments: no chain is left out, none begins anew."""
    module = ContrastiveDivergence(
        energy,
        chain=Chain(steps=9, step_size=STEP, temperature=HEAT, start="uniform"),
        k=3,
        alpha=0.0,
        buffer_size=4,
        restart=0.0,
    )
    module.generator = torch.Generator().manual_seed(0)
    module.log = module.log_dict = lambda *args, **kwargs: None
    x = torch.rand(4, *shape_of(energy)) * 2 - 1
    for age in range(1, 4):
        loss = module.training_step((x, None), 0)
        assert module.buffer.age.tolist() == [age] * 4
    loss.backward()
    assert all(p.grad.isfinite().all() for p in energy.parameters())
    assert sum(p.grad.abs().sum() for p in energy.parameters()) > 0
