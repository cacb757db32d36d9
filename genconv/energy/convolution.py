"""Convolutions that can be learnt in bfloat16 on maps smaller than their kernels, too."""

import torch
from torch import Tensor, nn

__all__ = ["CONVOLUTIONS", "Conv1d", "Conv2d", "Conv3d"]


class _Convolution(nn.modules.conv._ConvNd):
    """Convolves in float32 where PyTorch's bfloat16 gradient cannot be trusted.

    On the CPU the gradient of the weights (PyTorch 2.14, oneDNN) reads memory that nobody has
    written where an axis of the map is shorter than kernel or stride, as for a kernel of 3x3x3 on
    2x2x2: not always NaN, which the guard would see, but now and then any number. Such maps are
    small, and float32 costs little.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x (N, C, *space), in the type that autocast wants."""
        if x.device.type != "cpu" or not self._is_short(x):
            return super().forward(x)
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if kind != torch.bfloat16:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast("cpu", enabled=False):
            return self._conv_forward(x.float(), self.weight.float(), bias).to(kind)

    def _is_short(self, x: Tensor) -> bool:
        sizes = zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        return any(side < max(kernel, stride) for side, kernel, stride in sizes)


class Conv1d(_Convolution, nn.Conv1d):
    """Creates a convolution of signals (N, C, L), as `torch.nn.Conv1d` does."""


class Conv2d(_Convolution, nn.Conv2d):
    """Creates a convolution of images (N, C, H, W), as `torch.nn.Conv2d` does."""


class Conv3d(_Convolution, nn.Conv3d):
    """Creates a convolution of videos and bodies (N, C, D, H, W), as `torch.nn.Conv3d` does."""


CONVOLUTIONS = {1: Conv1d, 2: Conv2d, 3: Conv3d}
