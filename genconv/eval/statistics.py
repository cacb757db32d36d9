"""What is measured of every image once, so that every score of it is cheap."""

import io
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from genconv.checkpoint import Trained
from genconv.energy import Energy
from genconv.errors import UserError
from genconv.images import from_uint8, to_pil
from genconv.sampling import frozen, langevin
from genconv.seeds import stream

__all__ = ["CLASSES_ONLY", "STATISTICS", "Statistics", "measure"]

Statistics = dict[str, Tensor]

CLASSES_ONLY = ("max_probability", "max_logit")
STATISTICS = (
    "energy", "gradient", "drop", "distance", "layers", "complexity", "spectrum", "background",
    *CLASSES_ONLY,
)  # fmt: skip
# what can be had without any energy
OF_IMAGES = ("complexity", "spectrum")
# variance of what rounding to 256 levels did to values in [-1, 1]: no power below it is real
ROUNDING = (2 / 255) ** 2 / 12


def measure(
    trained: Trained,
    images: Tensor,
    wanted: Collection[str],
    *,
    seed: int = 0,
    first: int = 0,
    batch_size: int = 256,
    steps: int = 10,
    background: Trained | None = None,
) -> Statistics:
    """Measure images in one pass, on the device of the energy, in eval mode and frozen.

    - `energy`: E(x); of a class-conditional energy that of the mixture, -log Σ_y exp(-E(x, y))
    - `gradient`: |∇E(x)|
    - `drop`, `distance`: E(x) - E(x_K) and |x - x_K| after K Langevin steps from x, at the step
      size and temperature with which the energy's own chain ends
    - `layers`: for every matrix of weights w of the energy log |∂E(x)/∂w|, (N, L)
    - `complexity`: bits per dimension of the image, losslessly as PNG or WebP, whichever is shorter
    - `spectrum`: log of the mean power of the image's frequencies in each octave, (N, B); the
      first is its mean
    - `background`: E(x) of another energy
    - `max_probability`, `max_logit`: the largest of p(y|x) and of -E(x, y), with classes only

    An image's numbers depend on the image and its number alone, up to float32 rounding, whatever
    is measured beside it and by how many processes.

    Args:
        trained: energy, chain and shape.
        images: uint8 (N, C, *space) of the energy's shape.
        wanted: which of `STATISTICS`.
        seed: of the Langevin noise; image i has a stream of its own.
        first: number of the first image.
        batch_size: images at once; a matter of memory and speed.
        steps: K.
        background: the energy for `background`; of the same shape.

    Returns:
        for each wanted name float64, (N,) if not said otherwise, on the CPU.

    Raises:
        UserError: a name is not known or not to be had, or the images have another form.
    """
    wanted = set(wanted)
    _check(trained, images, wanted, background)
    if len(images) == 0:
        return {name: torch.empty(0, dtype=torch.float64) for name in wanted}
    found: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        measured: Statistics = {}
        if wanted - {*OF_IMAGES, "background", "layers"}:
            numbers = range(first + start, first + start + len(batch))
            measured |= _measure_energy(trained, batch, wanted, seed, numbers, steps)
        if "background" in wanted:
            measured["background"] = _energies(background.energy, batch)
        if "layers" in wanted:
            measured["layers"] = _layers(trained.energy, batch)
        if "complexity" in wanted:
            measured["complexity"] = _complexity(batch)
        if "spectrum" in wanted:
            measured["spectrum"] = _spectrum(batch)
        for name in wanted:
            found[name].append(measured[name].cpu())
    return {name: torch.cat([part.double() for part in parts]) for name, parts in found.items()}


def _check(trained: Trained, images: Tensor, wanted: set[str], background: Trained | None) -> None:
    if unknown := sorted(wanted - set(STATISTICS)):
        raise UserError(f"no statistic {unknown[0]!r}; known are {', '.join(STATISTICS)}")
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != trained.shape:
        raise UserError(
            f"this energy takes uint8 images of shape {trained.shape}, not {images.dtype} of "
            f"{tuple(images.shape[1:])}; load them with its size and channels"
        )
    if wanted & set(CLASSES_ONLY) and not getattr(trained.energy, "classes", None):
        raise UserError(f"{' and '.join(CLASSES_ONLY)} need an energy with classes")
    if (odd := sorted(wanted & set(OF_IMAGES))) and images.ndim < 3:
        raise UserError(f"only images have a {odd[0]}, points have not")
    if "background" in wanted:
        if background is None:
            raise UserError("a background energy is needed; give the checkpoint of one")
        if background.shape != trained.shape:
            raise UserError(
                f"the background energy takes images of shape {background.shape}, "
                f"the energy {trained.shape}"
            )


def _measure_energy(
    trained: Trained, images: Tensor, wanted: set[str], seed: int, numbers: range, steps: int
) -> Statistics:
    energy = trained.energy
    x = from_uint8(images.to(_device(energy)))
    found: Statistics = {}
    with frozen(energy), torch.no_grad():
        if "gradient" in wanted:
            # one step of no length: energies and gradients where the images are
            info = langevin(energy, x, steps=1, step_size=0.0, temperature=0.0).info
            found["energy"], found["gradient"] = info.energy, info.gradient
        elif wanted & {"energy", "drop"}:
            found["energy"] = energy(x)
        if wanted & {"drop", "distance"}:
            generators = [stream(seed, "refine", i, device=x.device) for i in numbers]
            refined = trained.chain.continued(steps).run(energy, x, generator=generators)
            found["distance"] = refined.info.movement
            if "drop" in wanted:
                found["drop"] = found["energy"].double() - energy(refined.x).double()
        if wanted & set(CLASSES_ONLY):
            logits = -energy.by_class(x)
            found["max_logit"] = logits.amax(1)
            found["max_probability"] = logits.double().softmax(1).amax(1)
    return found


def _layers(energy: Energy, images: Tensor) -> Tensor:
    weights = [w for w in energy.parameters() if w.ndim > 1]
    norms = torch.zeros(len(images), len(weights), dtype=torch.float64)
    # one image at a time, as gradients of weights add up over a batch, and frozen anew for each,
    # as parametrised weights belong to one graph
    for row, image in zip(norms, images.split(1), strict=True):
        with frozen(energy), torch.inference_mode(False), torch.enable_grad():
            for w in weights:
                w.requires_grad_()
            value = energy(from_uint8(image.to(_device(energy)))).sum()
            gradients = torch.autograd.grad(value, weights, allow_unused=True) if weights else ()
        row.copy_(torch.tensor([0.0 if g is None else g.norm() for g in gradients]))
    # a dead layer has no gradient, and 0 no logarithm
    return norms.clamp(min=1e-30).log()


def _energies(energy: Energy, images: Tensor) -> Tensor:
    with frozen(energy), torch.no_grad():
        return energy(from_uint8(images.to(_device(energy))))


def _device(energy: Energy) -> torch.device:
    return next((p.device for p in energy.parameters()), torch.device("cpu"))


def _complexity(images: Tensor) -> Tensor:
    # Pillow's coders let go of the interpreter lock
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return torch.tensor(list(pool.map(_bits_per_dimension, images.cpu())), dtype=torch.float64)


def _spectrum(images: Tensor) -> Tensor:
    x = from_uint8(images.cpu()).double()
    space = tuple(range(2, x.ndim))
    power = torch.fft.fftn(x, dim=space, norm="ortho").abs().square().mean(1)
    waves = torch.meshgrid(
        *(torch.fft.fftfreq(side).double() for side in x.shape[2:]), indexing="ij"
    )
    octave = torch.stack(waves).square().sum(0).sqrt().log2().floor()
    bands = [power[:, octave == band].mean(1) for band in octave.unique()]
    return torch.stack(bands, 1).add(ROUNDING).log()


def _bits_per_dimension(image: Tensor) -> float:
    # a video's frames lie below each other; channels that are no colours lie there too
    rows = image if len(image) in (1, 3) else image[None]
    picture = to_pil(rows.reshape(len(rows), -1, image.shape[-1]))
    sizes = []
    for how in ({"format": "PNG"}, {"format": "WEBP", "lossless": True, "exact": True}):
        file = io.BytesIO()
        picture.save(file, **how)
        sizes.append(file.tell())
    return 8 * min(sizes) / image.numel()
