"""How good samples are, and how well an energy tells images that belong from others."""

from genconv.eval.classifier import SmallClassifier, train_classifier
from genconv.eval.detection import Detection, aupr, auroc, average, detect, fpr_at_95, roc
from genconv.eval.features import Extractor, Features, activations, extract, load_extractor
from genconv.eval.frechet import Moments, frechet_distance, frechet_infinity
from genconv.eval.inception import Inception
from genconv.eval.inception_weights import load_inception
from genconv.eval.partition import Estimate, anneal, log_mean_exp, schedule
from genconv.eval.quality import (
    MeanStd,
    Overlap,
    inception_score,
    kernel_distance,
    precision_recall_density_coverage,
)
from genconv.eval.scores import SCORES, Score, applicable, needed, score_all
from genconv.eval.statistics import STATISTICS, Statistics, measure

__all__ = [
    "SCORES",
    "STATISTICS",
    "Detection",
    "Estimate",
    "Extractor",
    "Features",
    "Inception",
    "MeanStd",
    "Moments",
    "Overlap",
    "Score",
    "SmallClassifier",
    "Statistics",
    "activations",
    "anneal",
    "applicable",
    "auroc",
    "aupr",
    "average",
    "detect",
    "extract",
    "fpr_at_95",
    "frechet_distance",
    "frechet_infinity",
    "inception_score",
    "kernel_distance",
    "load_extractor",
    "load_inception",
    "log_mean_exp",
    "measure",
    "needed",
    "precision_recall_density_coverage",
    "roc",
    "schedule",
    "score_all",
    "train_classifier",
]
