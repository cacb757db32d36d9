"""Train, sample and use energy-based models of images."""

from genconv.checkpoint import load, read, write

__all__ = ["load", "read", "write"]
__version__ = "0.1.0"
