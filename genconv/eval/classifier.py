"""A small classifier whose features judge images where the Inception network is out of reach."""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genconv.data.augment import flip
from genconv.errors import UserError
from genconv.files import replacing
from genconv.images import from_uint8
from genconv.precision import has_bfloat16
from genconv.progress import progress

__all__ = ["SmallClassifier", "train_classifier"]

WIDTHS = (32, 64, 128)
FORMAT = "genconv.SmallClassifier/1"


class SmallClassifier(nn.Module):
    """A residual network of half a million parameters for images of 8x8 to 64x64.

    Fréchet and kernel distances between its features are called feature distances, never FID or
    KID: only the Inception network of 2015 gives numbers that compare with those of papers.

    Attributes:
        about: plain values that travel with the weights: data, split, accuracy, epochs, seed.
    """

    def __init__(self, channels: int = 3, classes: int = 10, size: int = 32) -> None:
        """Build it with fresh weights.

        Args:
            channels: of the images.
            classes: number of logits.
            size: side of the images; the first stride is chosen so that about 16x16 positions
                remain, which bounds the work whatever the size.
        """
        super().__init__()
        self.arguments = {"channels": channels, "classes": classes, "size": size}
        self.about: dict[str, Any] = {}
        stride = max(1, round(size / 16))
        side = 3 if stride == 1 else 2 * stride
        narrow, middle, wide = WIDTHS
        self.body = nn.Sequential(
            _conv(channels, narrow, side, stride),
            _conv(narrow, middle),
            nn.MaxPool2d(2),
            _Residual(middle),
            _conv(middle, wide),
            nn.MaxPool2d(2),
            _Residual(wide),
        )
        self.head = nn.Linear(wide, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled features and the logits of images.

        Args:
            images: uint8 (N, C, H, W).

        Returns:
            float32 features (N, 128) and logits (N, classes).
        """
        features = self._features(from_uint8(images))
        return features, self.head(features).float()

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of float images (N, C, H, W) in [-1, 1]."""
        return self.head(self._features(x)).float()

    def _features(self, x: Tensor) -> Tensor:
        return self.body(x.contiguous(memory_format=torch.channels_last)).float().mean((2, 3))

    def save(self, path: str | Path) -> None:
        """Write weights, arguments and `about` as one safetensors file, whole or not at all.

        Raises:
            UserError: the folder cannot be written to.
        """
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        metadata = {
            "format": FORMAT,
            "arguments": json.dumps(self.arguments),
            "about": json.dumps(self.about),
        }
        with replacing(path) as part:
            part.write_bytes(safetensors.torch.save(weights, metadata))

    @classmethod
    def load(cls, path: str | Path) -> "SmallClassifier":
        """Read what `save` wrote, onto the CPU and in eval mode.

        Raises:
            UserError: there is no such file, it is torn, or something else than such a classifier.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"cannot read a classifier from {path}: {error}") from error
        if metadata.get("format") != FORMAT:
            raise UserError(
                f"{path} holds no SmallClassifier; train one with genconv.eval.train_classifier"
            )
        try:
            self = cls(**json.loads(metadata["arguments"]))
            self.load_state_dict(weights)
            self.about = json.loads(metadata["about"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{path} does not fit SmallClassifier: {error}") from error
        return self.eval()


def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    epochs: int = 10,
    seed: int = 0,
    batch_size: int = 256,
    learning_rate: float = 0.2,
    mirror: bool = True,
    device: torch.device | str = "cpu",
) -> SmallClassifier:
    """Train a `SmallClassifier` on random shifts and mirrors; one seed gives one network on a CPU.

    SGD with Nesterov momentum on a one-cycle schedule (Smith & Topin 2019), in bfloat16 autocast
    where the device has it. Ten epochs of CIFAR-10 take about six minutes of one CPU core that has,
    and end near 83 % of the test split.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,) in 0..classes-1.
        classes: number of classes.
        epochs: passes over the images.
        seed: of the first weights, the order, the shifts and the mirrors; PyTorch's global
            generator is neither read nor moved.
        batch_size: images a step; the last, smaller batch of an epoch is left out.
        learning_rate: peak of the cycle.
        mirror: flip half of the images left to right; False for digits and letters.
        device: where to train.

    Returns:
        The network in eval mode, on `device`.

    Raises:
        UserError: the images or labels have another form.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise UserError(
            f"a classifier needs uint8 images (N, C, H, W), not {images.dtype} "
            f"of shape {tuple(images.shape)}"
        )
    if len(labels) != len(images) or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UserError(f"a classifier needs one label in 0..{classes - 1} for each image")
    n, channels, *space = images.shape
    batch_size = min(batch_size, n)
    # layers draw their first weights from the global generator, and it must come out as it went in
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SmallClassifier(channels, classes, max(space))
    model = model.to(device, memory_format=torch.channels_last).train()
    images, labels = images.to(device), labels.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    bf16 = has_bfloat16(device)
    steps = epochs * (n // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=max(steps, 2), pct_start=0.25
    )
    order = torch.empty(0, dtype=torch.int64, device=device)
    for _ in progress(range(steps), "training the classifier"):
        if len(order) < batch_size:
            order = torch.randperm(n, generator=generator, device=device)
        batch, order = order[:batch_size], order[batch_size:]
        x = _shift(images[batch], max(space) // 8, generator)
        x = flip(x, generator) if mirror else x
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            _, logits = model(x)
        loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.about = {"epochs": epochs, "seed": seed, "n": n}
    return model.eval()


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_conv(width, width), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def _conv(inputs: int, outputs: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    padding = (side - stride + 1) // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _shift(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    n, c, h, w = images.shape
    padded = F.pad(images, (reach, reach, reach, reach))
    offset = torch.randint(2 * reach + 1, (2, n, 1), generator=generator, device=images.device)
    rows = offset[0] + torch.arange(h, device=images.device)
    columns = offset[1] + torch.arange(w, device=images.device)
    image = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    channel = torch.arange(c, device=images.device).view(1, c, 1, 1)
    return padded[image, channel, rows.view(n, 1, h, 1), columns.view(n, 1, 1, w)]
