"""What is measured of an image, where it is known, and that nothing beside it matters."""

import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from genconv.checkpoint import Trained, read
from genconv.energy import Energy, ResNetEnergy
from genconv.errors import UserError
from genconv.eval import STATISTICS, measure
from genconv.images import from_uint8, to_pil
from genconv.sampling import Chain

SPREAD = 0.25
ALWAYS = ("energy", "gradient", "drop", "distance", "complexity")


class Gaussian(Energy):
    """The energy of N(0, spread² I)."""

    def __init__(self, spread=SPREAD):
        super().__init__()
        self.spread = spread

    def forward(self, x, y=None):
        return x.square().flatten(1).sum(1) / (2 * self.spread**2)


class Drifting(Energy):
    """Would answer otherwise each time if it were left in training mode."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 1))

    def forward(self, x, y=None):
        return self.layers(x).squeeze(1)


def gaussian(shape=(1, 8, 8), **chain):
    return Trained(Gaussian().eval(), Chain(**{"temperature": 0.0, **chain}), shape, 0)


def noise(*shape, seed=0):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).byte()


def near(found, expected):
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-5)


def test_energy_and_gradient_of_a_normal_law():
    images = noise(20, 1, 8, 8)
    x = from_uint8(images).flatten(1)
    found = measure(gaussian(), images, ["energy", "gradient"])
    near(found["energy"], x.square().sum(1) / (2 * SPREAD**2))
    near(found["gradient"], x.norm(dim=1) / SPREAD**2)
    assert all(values.dtype == torch.float64 for values in found.values())
    near(measure(gaussian(), images, ["energy"])["energy"], found["energy"])


def test_refinement_runs_the_end_of_the_chain():
    images = noise(20, 1, 8, 8)
    x = from_uint8(images).flatten(1)
    chain = {"step_size": [(0, 9.0), (50, 0.01)], "temperature": [(0, 9.0), (50, 0.0)]}
    found = measure(gaussian(steps=99, **chain), images, ["drop", "distance"], steps=7)
    left = (1 - 0.01 / SPREAD**2) ** 7
    near(found["distance"], x.norm(dim=1) * (1 - left))
    near(found["drop"], x.square().sum(1) / (2 * SPREAD**2) * (1 - left**2))
    assert found.keys() == {"drop", "distance"}


def test_refinement_is_as_hot_as_the_chain_ends():
    images = torch.full((2000, 1, 8, 8), 128).byte()
    trained = gaussian(step_size=1e-4, temperature=[(0, 0.0), (9, 4.0)])
    found = measure(trained, images, ["distance"], steps=1)["distance"]
    assert float(found.square().mean()) == pytest.approx(64 * 2 * 1e-4 * 4, rel=0.02)


def test_an_image_and_its_number_decide_alone(trained):
    images = noise(13, *trained.shape)
    whole = measure(trained, images, ALWAYS, seed=5)
    parts = [
        measure(trained, images[a:b], ALWAYS, seed=5, first=a, batch_size=2)
        for a, b in [(0, 4), (4, 5), (5, 13)]
    ]
    for name in ALWAYS:
        near(torch.cat([part[name] for part in parts]), whole[name])
        near(measure(trained, images, [name], seed=5)[name], whole[name])


def test_every_image_and_seed_has_noise_of_its_own(trained):
    images = noise(1, *trained.shape).repeat(3, 1, 1, 1)
    drop = measure(trained, images, ["drop"], batch_size=2)["drop"]
    assert len(set(drop.tolist())) == 3
    again = measure(trained, images, ["drop"], batch_size=2)["drop"]
    assert again.equal(drop)
    assert not measure(trained, images, ["drop"], seed=1)["drop"].isclose(drop).any()


@pytest.mark.parametrize("name", ["energy", "gradient", "drop", "layers"])
def test_the_network_is_in_eval_mode_and_comes_back_as_it_was(name):
    energy = Drifting()
    trained = Trained(energy.train(), Chain(temperature=0.0), (1, 8, 8), 0)
    images = noise(50, 1, 8, 8)
    found = measure(trained, images, [name])[name]
    assert measure(trained, images, [name])[name].equal(found)
    assert energy.layers[1].training
    assert all(p.requires_grad and p.grad is None for p in energy.parameters())


def test_classes(conditional):
    trained = read(conditional, "cpu")
    images = noise(10, *trained.shape)
    found = measure(trained, images, (*STATISTICS[-2:], "energy"), batch_size=3)
    x = from_uint8(images)
    with torch.no_grad():
        logits = torch.stack([-trained.energy(x, torch.full((10,), y)) for y in range(3)], 1)
    near(found["max_logit"], logits.max(1).values)
    near(found["max_probability"], logits.softmax(1).max(1).values)
    near(found["energy"], -logits.logsumexp(1))
    assert found["max_probability"].max() < 1


class Layered(Energy):
    """w·x + |x|², beside weights that it does not use, and a bias, which is no matrix."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(64, 1), nn.Linear(3, 2)

    def forward(self, x, y=None):
        return self.used(x.flatten(1)).squeeze(1) + x.square().flatten(1).sum(1)


def test_layers_are_the_sizes_of_the_weights_gradients():
    images = noise(7, 1, 8, 8)
    trained = Trained(Layered().eval(), Chain(), (1, 8, 8), 0)
    with torch.inference_mode():
        found = measure(trained, images, ["layers"], batch_size=3)["layers"]
    assert found.shape == (7, 2)
    # ∂(w·x)/∂w = x
    near(found[:, 0], from_uint8(images).flatten(1).norm(dim=1).log())
    assert (found[:, 1] < -60).all()
    assert measure(gaussian(), images, ["layers"])["layers"].shape == (7, 0)


def test_layers_of_normalised_weights_and_of_a_mixture(conditional):
    energy = ResNetEnergy(3, (4, 8), spectral=True).eval()
    for trained in (read(conditional, "cpu"), Trained(energy, Chain(), (3, 8, 8), 0)):
        images = noise(3, 3, 8, 8)
        weights = [w for w in trained.energy.parameters() if w.ndim > 1]
        for row, image in zip(
            measure(trained, images, ["layers"])["layers"], images.split(1), strict=True
        ):
            for w in weights:
                w.requires_grad_()
            value = trained.energy(from_uint8(image))
            gradients = torch.autograd.grad(value.sum(), weights, materialize_grads=True)
            norms = torch.stack([gradient.norm() for gradient in gradients])
            near(row, norms.clamp(min=1e-30).log())


def spectrum(images):
    return measure(gaussian(tuple(images.shape[1:])), images, ["spectrum"])["spectrum"]


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 32), (2, 8, 16, 16), (1, 999)])
def test_the_spectrum_of_noise_is_flat(shape):
    images = noise(400, *shape)
    power = spectrum(images).exp().mean(0)
    assert len(power) == {32: 6, 16: 5, 999: 10}[shape[-1]]
    variance = float(from_uint8(images).square().mean())
    torch.testing.assert_close(power, torch.full_like(power, variance), rtol=0.2, atol=0)


def test_the_spectrum_of_a_wave_is_in_its_octave():
    x = torch.arange(32) * 2 * torch.pi
    for octave, frequency in [(1, 1 / 32), (2, 1 / 16), (2, 3 / 32), (4, 1 / 4), (5, 1 / 2)]:
        wave = (127.5 + 100 * (x * frequency).cos()).round().byte().expand(1, 3, 32, 32)
        assert spectrum(wave)[0].argmax() == octave
    # a constant is its mean, and below the rounding of levels there is nothing
    constant = spectrum(flat(1, 3, 32, 32))[0]
    assert constant[0].exp() == pytest.approx(32**2 * (77 / 127.5 - 1) ** 2, rel=1e-5)
    assert constant[1:].exp().tolist() == pytest.approx([(2 / 255) ** 2 / 12] * 5)


def test_background():
    images = noise(10, 1, 8, 8)
    other = replace(gaussian(), energy=Gaussian(1.0))
    found = measure(gaussian(), images, ["energy", "background"], background=other)
    near(found["energy"], found["background"] / SPREAD**2)


def flat(*shape):
    return torch.full(shape, 77).byte()


def bits(images):
    return measure(gaussian(tuple(images.shape[1:])), images, ["complexity"])["complexity"]


def size(image, **how):
    file = io.BytesIO()
    to_pil(image).save(file, **how)
    return 8 * file.tell() / image.numel()


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 32), (3, 8, 16, 16), (2, 32, 32), (1, 999)])
def test_noise_needs_eight_bits_a_dimension_and_a_constant_hardly_any(shape):
    assert 8 <= bits(noise(1, *shape)) < 10
    assert bits(flat(1, *shape)) < 0.7


def test_the_shorter_file_counts_and_both_are_whole():
    # PNG is at its best on rows that repeat, WebP on smooth colours
    repeated = noise(3, 8, 32).repeat(1, 4, 1)
    y = torch.linspace(0, 255, 32)
    smooth = torch.stack([y[:, None] + 0 * y, (y[:, None] + y) / 2, 0 * y[:, None] + y]).byte()
    for image, best in [(repeated, "PNG"), (smooth, "WEBP")]:
        png, webp = size(image, format="PNG"), size(image, format="WEBP", lossless=True)
        assert (png < webp) == (best == "PNG")
        assert abs(png - webp) > 0.1 * webp
        assert bits(image[None]) == pytest.approx(min(png, webp), rel=0.02)


def test_order_of_complexities_is_that_of_images():
    images = torch.cat([noise(3, 3, 16, 16), flat(3, 3, 16, 16)] * 10)
    assert (bits(images) > 4).equal(torch.tensor([True] * 3 + [False] * 3).repeat(10))


def test_no_images_have_no_numbers():
    found = measure(gaussian(), noise(0, 1, 8, 8), ALWAYS)
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(ALWAYS, (0,))


def test_an_infinite_energy_is_handed_on():
    trained = gaussian(step_size=1e30)
    assert not measure(trained, noise(2, 1, 8, 8), ["drop"])["drop"].isfinite().any()


@pytest.mark.parametrize(
    ("wanted", "images", "message"),
    [
        (["energy", "beauty"], noise(2, 1, 8, 8), "no statistic 'beauty'; known are energy, "),
        (["energy"], noise(2, 3, 8, 8), r"shape \(1, 8, 8\), not torch.uint8 of \(3, 8, 8\)"),
        (["energy"], noise(2, 1, 8, 8).float(), "uint8 images"),
        (["max_logit"], noise(2, 1, 8, 8), "an energy with classes"),
        (["background"], noise(2, 1, 8, 8), "a background energy is needed"),
    ],
)
def test_what_cannot_be_measured_is_refused(wanted, images, message):
    with pytest.raises(UserError, match=message):
        measure(gaussian(), images, wanted)


def test_a_background_of_another_shape_is_refused():
    other = Trained(ResNetEnergy(3, (4,)), Chain(), (3, 8, 8), 0)
    with pytest.raises(UserError, match=r"shape \(3, 8, 8\), the energy \(1, 8, 8\)"):
        measure(gaussian(), noise(2, 1, 8, 8), ["background"], background=other)


@pytest.mark.parametrize("name", ["complexity", "spectrum"])
def test_points_are_no_images(name):
    with pytest.raises(UserError, match=f"only images have a {name}, points have not"):
        measure(gaussian((2,)), noise(2, 2), [name])
