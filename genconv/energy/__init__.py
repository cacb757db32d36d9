"""Rooms that answer "how likely is x?"."""

from genconv.energy.convnet import GenerativeConvNet
from genconv.energy.energy import Energy, build, describe
from genconv.energy.resnet import ResNetEnergy
from genconv.energy.unet import UNetEnergy

__all__ = ["Energy", "GenerativeConvNet", "ResNetEnergy", "UNetEnergy", "build", "describe"]
