"""Features of images, and scores of how little they belong."""

import torch
from torch import Tensor

from genconv.eval import SmallClassifier, extract, measure
from genconv.images import from_uint8, to_uint8
from genconv.sampling import Chain
from genconv.trained import Trained
from tests.benchmarks.speed.clock import OURS, Row, compared, race
from tests.benchmarks.speed.networks import ETA, NOISE, Settings, made, noise
from tests.benchmarks.speed.peers import PLAIN, plain

__all__ = ["features", "scores"]

SECTION = "evaluation"


def features(settings: Settings) -> list[Row]:
    """Time the features behind feature distances, of the classifier that genconv trains."""
    device, n = settings.device, 64 if settings.quick else 512
    side = 8 if settings.quick else 32
    images = to_uint8(noise(n, (3, side, side), "cpu"))
    torch.manual_seed(0)
    classifier = SmallClassifier(3, 10, side).to(device).eval()

    def published() -> None:
        # pytorch-fid's loop: 50 at once, floats on the host, rows copied back one batch at a time
        rows = []
        with torch.no_grad():
            for batch in images.split(50):
                x = from_uint8(batch).to(device)
                rows.append(classifier.body(x).mean((2, 3)).cpu().numpy())

    times = race(
        {
            OURS: lambda: extract(classifier, images, device=device, bar=False),
            "like pytorch-fid (ours)": published,
        },
        device,
        settings.rounds,
    )
    return compared(SECTION, "classifier", f"features of {n} images", times)


def scores(settings: Settings) -> list[Row]:
    """Time four statistics of images: energy, gradient, and what ten Langevin steps change."""
    device, steps = settings.device, 10
    energy, shape = made("resnet", settings)
    chain = Chain(step_size=ETA, temperature=NOISE**2 / (2 * ETA))
    trained = Trained(energy.eval(), chain, shape, 0)
    images = to_uint8(noise(settings.batch, shape, "cpu"))
    wanted = ("energy", "gradient", "drop", "distance")

    def straightforward() -> dict[str, Tensor]:
        x = from_uint8(images).to(device).requires_grad_()
        energies = energy(x)
        (gradient,) = torch.autograd.grad(energies.sum(), x)
        end = plain(energy, x, steps)
        return {
            "energy": energies.detach().cpu(),
            "gradient": gradient.flatten(1).norm(dim=1).cpu(),
            "drop": (energies - energy(end)).detach().cpu(),
            "distance": (x - end).flatten(1).norm(dim=1).detach().cpu(),
        }

    times = race(
        {OURS: lambda: measure(trained, images, wanted, steps=steps), PLAIN: straightforward},
        device,
        settings.rounds,
    )
    return compared(SECTION, "resnet", f"OOD statistics of {len(images)} images", times)
