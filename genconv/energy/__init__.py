"""Rooms that answer "how likely is x?"."""

from genconv.energy.boltzmann import RBM, BoltzmannMachine
from genconv.energy.compose import Constraint, Given, Mixture, Negation, Product, Tempered
from genconv.energy.convnet import GenerativeConvNet
from genconv.energy.energy import Energy, build, describe
from genconv.energy.resnet import ResNetEnergy
from genconv.energy.transformer import EnergyTransformer, beginning, context_of
from genconv.energy.unet import UNetEnergy

__all__ = [
    "RBM",
    "BoltzmannMachine",
    "Constraint",
    "Energy",
    "EnergyTransformer",
    "GenerativeConvNet",
    "Given",
    "Mixture",
    "Negation",
    "Product",
    "ResNetEnergy",
    "Tempered",
    "UNetEnergy",
    "beginning",
    "build",
    "context_of",
    "describe",
]
