"""What every energy promises, asked of all of them."""

import copy
import json

import pytest
import torch

from genconv.energy import (
    RBM,
    BoltzmannMachine,
    Energy,
    EnergyTransformer,
    GenerativeConvNet,
    ResNetEnergy,
    UNetEnergy,
    build,
    describe,
)
from genconv.errors import UserError

ENERGIES = {
    "convnet-1d": (lambda: GenerativeConvNet(2, dims=1, widths=(4, 8), strides=2), (2, 8)),
    "convnet-2d": (lambda: GenerativeConvNet(1, widths=(4, 8), strides=(1, 2)), (1, 8, 8)),
    "convnet-3d": (lambda: GenerativeConvNet(1, dims=3, widths=(4,), reference=0.5), (1, 4, 4, 4)),
    "convnet-classes": (
        lambda: GenerativeConvNet(3, widths=(4, 8), strides=2, reference=1.0, classes=3),
        (3, 8, 8),
    ),
    "convnet-connected": (
        lambda: GenerativeConvNet(
            3, 3, (4, 5), (3, [2, 4, 4]), (2, [1, 2, 2]), (1, [1, 0, 0]), reference=1.0
        ),
        (3, 4, 8, 8),
    ),
    "resnet": (lambda: ResNetEnergy(3, widths=(4, 8)), (3, 8, 8)),
    "resnet-spectral": (lambda: ResNetEnergy(3, widths=(4, 8), spectral=True), (3, 8, 8)),
    "resnet-classes": (lambda: ResNetEnergy(3, widths=(4, 8), classes=3), (3, 8, 8)),
    **{
        f"unet-{head}": (
            lambda head=head: UNetEnergy(3, width=8, multipliers=(1, 2), blocks=1, head=head),
            (3, 8, 8),
        )
        for head in ("dot", "l2", "local", "pooled")
    },
    "unet-classes": (
        lambda: UNetEnergy(3, width=8, multipliers=(1, 2), blocks=1, classes=3),
        (3, 8, 8),
    ),
    "unet-patch": (
        lambda: UNetEnergy(3, width=8, multipliers=(1, 2), blocks=1, patch=2, norm=False),
        (3, 8, 8),
    ),
    "unet-1d": (lambda: UNetEnergy(2, 1, width=8, multipliers=(1, 2), blocks=1), (2, 8)),
    "unet-3d": (
        lambda: UNetEnergy(1, 3, 8, (1, 2), blocks=1, patch=2, head="l2", classes=3),
        (1, 4, 4, 8),
    ),
    "transformer": (lambda: EnergyTransformer(3, patch=2, width=16, depth=2), (3, 8, 8)),
    "transformer-blind": (
        lambda: EnergyTransformer(3, patch=4, width=16, depth=1, blind=True),
        (3, 8, 8),
    ),
    "transformer-3d": (
        lambda: EnergyTransformer(1, dims=3, patch=2, width=24, depth=1, heads=2),
        (1, 4, 4, 4),
    ),
    "rbm": (lambda: RBM((1, 4, 4), 6), (1, 4, 4)),
    "rbm-gaussian": (lambda: RBM((3, 4, 4), 6, units="gaussian"), (3, 4, 4)),
    "boltzmann": (lambda: BoltzmannMachine((1, 4, 4)), (1, 4, 4)),
    "boltzmann-hidden": (lambda: BoltzmannMachine((2, 6), 3), (2, 6)),
}
# they tie every pixel to weights of its own
ONE_SIZE = (RBM, BoltzmannMachine)


@pytest.fixture(params=ENERGIES)
def case(request):
    make, shape = ENERGIES[request.param]
    torch.manual_seed(0)
    energy = make()
    # leave the zero starts behind: a fresh residual branch would hide its own mistakes
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    y = torch.tensor([0, 1, 2, 1]) if getattr(energy, "classes", None) else None
    if getattr(energy, "context", None):
        y = torch.randn(4, energy.context, *shape[1:])
    return energy.eval(), torch.randn(4, *shape), y


def test_gives_one_float32_number_for_each_image(case):
    energy, x, y = case
    assert energy(x, y).shape == (4,)
    with torch.autocast("cpu", torch.bfloat16):
        assert energy(x, y).dtype == torch.float32


def test_an_image_does_not_see_its_neighbours(case):
    energy, x, y = case
    alone = torch.cat([energy(x[i : i + 1], None if y is None else y[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(energy(x, y), alone, rtol=1e-5, atol=1e-5)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(energy(x, y)[1], x)
    assert gradient[1].norm() > 0
    assert gradient[[0, 2, 3]].abs().max() == 0


def test_gradient_is_that_of_finite_differences(case):
    energy, x, y = case
    energy, x = energy.double(), x[:2].double().requires_grad_()
    labels = None if y is None else y[:2]
    labels = labels.double() if labels is not None and labels.is_floating_point() else labels
    torch.autograd.gradcheck(lambda z: energy(z, labels), x, fast_mode=True)


def test_every_weight_learns_from_scores_and_from_energies(case):
    energy, x, y = case
    x.requires_grad_()
    (score,) = torch.autograd.grad(energy(x, y).sum(), x, create_graph=True)
    loss = score.square().mean() + energy(x, y).square().mean()
    loss.backward()
    for name, parameter in energy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_is_rebuilt_from_its_description_and_weights(case):
    energy, x, y = case
    again = build(json.loads(json.dumps(describe(energy))))
    again.load_state_dict(energy.state_dict())
    assert torch.equal(again.eval()(x, y), energy(x, y))


def test_a_copy_is_independent_and_describes_itself(case):
    energy, x, y = case
    before, twin = energy(x, y), copy.deepcopy(energy)
    assert describe(twin) == describe(energy)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(energy(x, y), before)


def test_reads_larger_images_than_it_was_made_for_or_says_that_it_cannot(case):
    energy, x, y = case
    larger = x.repeat(1, 1, *[2] * (x.ndim - 2))
    if isinstance(energy, ONE_SIZE):
        with pytest.raises(ValueError, match="takes images of shape"):
            energy(larger)
        return
    if getattr(energy, "context", None):
        y = y.repeat(1, 1, *[2] * (x.ndim - 2))
    assert energy(larger, y).shape == (4,)


@pytest.mark.parametrize("make", [ResNetEnergy, GenerativeConvNet])
def test_unconditional_energy_of_classes_is_their_mixture(make):
    energy = make(3, widths=(4, 8), classes=3).eval()
    x = torch.randn(4, 3, 8, 8)
    each = torch.stack([energy(x, torch.full((4,), c)) for c in range(3)], 1)
    torch.testing.assert_close(energy(x), -torch.logsumexp(-each, 1))


def test_energies_by_class_are_those_of_each_class(case):
    energy, x, y = case
    if y is None or getattr(energy, "context", None):
        return
    found = energy.by_class(x)
    assert found.shape == (4, 3)
    for label in range(3):
        torch.testing.assert_close(found[:, label], energy(x, torch.full((4,), label)))
    assert (found - found[:, :1])[:, 1:].abs().min() > 1e-5


def test_a_withheld_label_is_that_of_a_u_net_without_labels():
    torch.manual_seed(0)
    energy = UNetEnergy(3, width=8, multipliers=(1, 2), blocks=1, classes=3)
    for parameter in energy.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(4, 3, 8, 8)
    mixed = energy(x, torch.tensor([-1, 0, 2, -1]))
    torch.testing.assert_close(energy(x)[[0, 3]], mixed[[0, 3]])
    assert (energy(x) - mixed)[[1, 2]].abs().min() > 1e-4


def test_spectral_energy_is_1_lipschitz_per_layer():
    torch.manual_seed(0)
    energy = ResNetEnergy(3, widths=(4, 8), spectral=True)
    for _ in range(50):
        energy(torch.zeros(1, 3, 8, 8))
    weight = energy.eval().stem.weight.flatten(1)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, rel=1e-3)


def test_reference_adds_the_gaussian():
    with_reference = GenerativeConvNet(1, widths=(4,), reference=0.5)
    x = torch.randn(3, 1, 8, 8)
    without = GenerativeConvNet(1, widths=(4,))
    without.load_state_dict(with_reference.state_dict())
    gaussian = x.square().flatten(1).sum(1) / (2 * 0.25)
    torch.testing.assert_close(with_reference(x) - without(x), gaussian, rtol=1e-4, atol=1e-4)


def test_energies_of_parts_add_up():
    # a network that looks at one pixel at a time gives two images side by side the sum of both
    energy = GenerativeConvNet(1, widths=(4, 4), kernels=1, reference=1.0)
    a, b = torch.randn(2, 3, 1, 8, 8)
    both = energy(torch.cat([a, b], -1))
    torch.testing.assert_close(both, energy(a) + energy(b), rtol=1e-4, atol=1e-4)


def test_an_unknown_class_is_named_and_not_imported():
    with pytest.raises(UserError, match=r"os\.system"):
        build({"class": "os.system", "arguments": {"command": "true"}})
    with pytest.raises(UserError, match="cannot be built"):
        build({"class": describe(GenerativeConvNet())["class"], "arguments": {"depth": 3}})


def test_energies_made_of_energies_are_described_whole():
    class Sum(Energy):
        def __init__(self, terms):
            super().__init__()
            self.terms = torch.nn.ModuleList(terms)

        def forward(self, x, y=None):
            return sum(term(x) for term in self.terms)

    both = Sum([GenerativeConvNet(widths=(4,)), GenerativeConvNet(widths=(8,))])
    again = build(json.loads(json.dumps(describe(both))))
    assert [len(term.head.weight[0]) for term in again.terms] == [4, 8]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convnet_is_a_sum_over_places(dims):
    """A pattern that repeats has an energy that grows by as much with every repetition."""
    torch.manual_seed(0)
    energy = GenerativeConvNet(2, dims, (4, 8), (3, 5), (2, 1), reference=0.5).double()
    period = torch.randn(1, 2, *[4] * dims).double()

    def of(times):
        # along the last axis only
        x = period.repeat(1, 1, *[1] * (dims - 1), times)
        return energy(x).item()

    assert of(8) - of(7) == pytest.approx(of(7) - of(6), rel=1e-9)
    assert abs(of(7) - of(6)) > 1e-3
