"""The networks that samples are judged by, each with what is said of it beside the numbers."""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genconv.data import Images, load_images
from genconv.errors import UserError
from genconv.eval.classifier import SmallClassifier, train_classifier
from genconv.eval.features import Extractor, extract, load_extractor
from genconv.eval.inception_weights import SHA256, find_weights, load_inception, sha256_of
from genconv.eval.kept import shelf
from genconv.eval.quality_sources import fitting
from genconv.images import digest

__all__ = ["Network", "inception", "other", "own"]


@dataclass(frozen=True)
class Network:
    """A network that gives features, and what is said of it.

    Attributes:
        extractor: see `genconv.eval.extract`.
        sha256: of its file.
        published: whether it is the Inception network of 2015, so that numbers are FID, IS, KID.
        about: plain values for the protocol.
    """

    extractor: Extractor
    sha256: str
    published: bool
    about: dict[str, Any]

    def check(self, shape: tuple[int, ...]) -> None:
        """Show the network one image (C, H, W), before anything long depends on it.

        Raises:
            UserError: it does not take such images.
        """
        try:
            extract(self.extractor, torch.zeros(1, *shape, dtype=torch.uint8), bar=False)
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1]
            raise UserError(
                f"{self.about['network']} does not take images of shape {shape}: {last}"
            ) from error


def inception(path: Path | None) -> Network:
    """Return the Inception network of 2015, or what has its form."""
    path = path or find_weights()
    extractor = load_inception(path)
    sha = sha256_of(path)
    about = {
        "network": "Inception v3 of 2015-12-05, PyTorch port: pool 2048, logits 1008 without bias"
        + ("" if sha == SHA256 else "; NOT the published weights, so these are no FID, IS or KID"),
        "sha256": sha,
        "resize": "bilinear of TensorFlow 1 to 299x299, in the network; (x - 128) / 128",
    }
    return Network(extractor, sha, sha == SHA256, about)


def other(path: Path) -> Network:
    """Return another network."""
    extractor = load_extractor(path)
    about = {"network": str(path), "sha256": sha256_of(path), "resize": "as the network does"}
    if isinstance(extractor, SmallClassifier):
        about |= {"network": f"{path}: SmallClassifier {extractor.about}", "resize": "none"}
    return Network(extractor, about["sha256"], False, about)


def own(options: argparse.Namespace, reference: Images) -> Network:
    """Return a classifier of the reference, trained where it is not kept yet."""
    if reference.labels is None:
        raise UserError(f"{options.data} has no labels to train on; give --features FILE")
    labels = hashlib.sha256(reference.labels.numpy().data).hexdigest()
    key = hashlib.sha256((digest(reference.images) + labels).encode()).hexdigest()[:16]
    path = shelf(options.root) / f"classifier-{key}.safetensors"
    try:
        SmallClassifier.load(path)
    except UserError:
        # not there, or torn
        model = train_classifier(
            reference.images,
            reference.labels,
            classes=int(reference.labels.max()) + 1,
            # grey pictures are mostly digits and letters, which have no mirror images
            mirror=reference.shape[0] == 3,
            device=options.device,
        )
        model.about |= {"data": Path(options.data).name, "split": options.split}
        if options.split != "test" and (accuracy := accuracy_of(model, options, reference.shape)):
            model.about["accuracy"] = accuracy
        model.save(path)
    return other(path)


def accuracy_of(
    model: SmallClassifier, options: argparse.Namespace, shape: tuple[int, ...]
) -> float | None:
    """Return the share of test images that a classifier knows, if there are any."""
    try:
        test = load_images(options.data, "test", root=options.root, **fitting(shape))
    except UserError:
        return None
    if test.labels is None:
        return None
    logits = extract(model, test.images, device=options.device).logits
    return float((logits.argmax(1) == test.labels).double().mean())
