"""How good samples are: features of images, and numbers that are functions of features."""

from genconv.eval.classifier import SmallClassifier, train_classifier
from genconv.eval.features import Extractor, Features, extract, load_extractor
from genconv.eval.frechet import Moments, frechet_distance, frechet_infinity
from genconv.eval.quality import (
    MeanStd,
    Overlap,
    inception_score,
    kernel_distance,
    precision_recall_density_coverage,
)

__all__ = [
    "Extractor",
    "Features",
    "MeanStd",
    "Moments",
    "Overlap",
    "SmallClassifier",
    "extract",
    "frechet_distance",
    "frechet_infinity",
    "inception_score",
    "kernel_distance",
    "load_extractor",
    "precision_recall_density_coverage",
    "train_classifier",
]
