"""From images to the features and logits that every quality number is a function of."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genconv.errors import UserError
from genconv.eval.classifier import SmallClassifier
from genconv.images import from_uint8
from genconv.progress import progress
from genconv.sampling import frozen

__all__ = ["Extractor", "Features", "activations", "extract", "load_extractor"]

Extractor = Callable[[Tensor], Tensor | tuple[Tensor, Tensor | None]]


class Features(NamedTuple):
    """What an extractor saw: float64 `features` (N, D) and `logits` (N, K) or None, on the CPU."""

    features: Tensor
    logits: Tensor | None


def extract(
    extractor: Extractor,
    images: Tensor,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    bar: bool = True,
) -> Features:
    """Show images to a network, batch by batch, in eval mode and without gradients.

    Every image is seen on its own, so `batch_size` is a matter of memory and speed alone, up to
    float32 rounding. Floats are refused rather than rounded: papers' numbers are those of images
    as they are stored, and truncating in place of rounding shifts 63 of 256 grey levels
    (`genconv.images.to_uint8` rounds).

    Args:
        extractor: maps uint8 (N, C, *space) to features (N, ...), or to features and logits (N, K),
            either of any float type. A module is moved to `device`; its flags are put back.
        images: uint8 (N, C, *space), N > 0, on any device.
        batch_size: images shown at once.
        device: where the network works.
        bar: show progress.

    Returns:
        Features, flattened to (N, D), and logits.

    Raises:
        UserError: the images have another form, or the network gives none of these.
    """
    if images.dtype != torch.uint8 or images.ndim < 3 or len(images) == 0:
        raise UserError(
            f"features need uint8 images (N, C, *space), not {images.dtype} of shape "
            f"{tuple(images.shape)}; turn floats in [-1, 1] into levels with images.to_uint8"
        )
    if isinstance(extractor, nn.Module):
        extractor.to(device)
    features, logits = [], []
    # TF32, which cuDNN takes unasked, would cost more digits than numbers are published with
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with frozen(extractor), torch.no_grad(), exact:
        starts = range(0, len(images), batch_size)
        for start in progress(starts, "extracting features") if bar else starts:
            batch = images[start : start + batch_size].to(device)
            seen = extractor(batch)
            pooled, scores = seen if isinstance(seen, tuple | list) else (seen, None)
            if not isinstance(pooled, Tensor) or len(pooled) != len(batch):
                raise UserError("an extractor must give one row of features for each image")
            features.append(pooled.flatten(1).double().cpu())
            if scores is not None:
                logits.append(scores.double().cpu())
    return Features(torch.cat(features), torch.cat(logits) if logits else None)


def activations(energy: nn.Module, cells: int = 2) -> Extractor:
    """Return an extractor of an energy's own features.

    Args:
        energy: it has `features`, which map images (N, C, *space) to a map (N, D, *space'): the
            last before the sum of a `GenerativeConvNet`, the coarsest of a `UNetEnergy`.
        cells: the map is averaged over so many parts of every axis, or fewer where it is smaller;
            1 forgets where a feature was.

    Raises:
        UserError: the energy has no `features`.
    """
    features = getattr(energy, "features", None)
    if features is None:
        raise UserError(f"{type(energy).__name__} has no `features` that could be looked at")

    def extractor(images: Tensor) -> Tensor:
        x = features(from_uint8(images))
        for axis in range(2, x.ndim):
            parts = x.tensor_split(min(cells, x.shape[axis]), axis)
            x = torch.stack([part.mean(axis) for part in parts], axis)
        return x

    return extractor


def load_extractor(path: str | Path) -> nn.Module:
    """Load a network that `extract` can use, onto the CPU.

    Args:
        path: a `.safetensors` file of `SmallClassifier`, or a `.pt` file of TorchScript whose
            module takes uint8 (N, C, H, W) and gives features or (features, logits). Neither can
            run Python code of its maker, as reading a `.pt2` of torch.export could.

    Raises:
        UserError: there is no such file, it is torn, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: {path}; it should hold the network that gives features")
    if path.suffix == ".safetensors":
        return SmallClassifier.load(path)
    if path.suffix == ".pt":
        return _load_script(path)
    raise UserError(f"{path} is neither .safetensors nor TorchScript (.pt); export the network")


def _load_script(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # TorchScript is on its way out, but it is the form in which published extractors come
            warnings.filterwarnings("ignore", r".*torch\.jit\.load")
            return torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{path} holds no TorchScript module: {first}") from error
