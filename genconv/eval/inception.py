"""The Inception network of 2015, whose features and logits are behind FID, IS and KID."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genconv.data.fit import to_channels

__all__ = ["Inception", "resize_tf1"]

SIDE = 299

# outputs, side of the kernel (height and width where they differ), and a stride that is not 1;
# a list of them stands for convolutions beside each other
Convolution = tuple[int, int | tuple[int, int]] | tuple[int, int, int]
Branches = Mapping[str, Sequence[Convolution | list[Convolution]]]
Pool = Callable[[Tensor], Tensor]

ROW, COLUMN = (1, 7), (7, 1)
ENDS: list[Convolution] = [(384, (1, 3)), (384, (3, 1))]

# TensorFlow's mean leaves out what lies beyond the edge
mean = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
highest = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
shrink = partial(F.max_pool2d, kernel_size=3, stride=2)


def _at_35(pooled: int) -> Branches:
    return {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
        "branch_pool": [(pooled, 1)],
    }


def _at_17(narrow: int) -> Branches:
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(narrow, 1), (narrow, ROW), (192, COLUMN)],
        "branch7x7dbl": [
            (narrow, 1),
            (narrow, COLUMN),
            (narrow, ROW),
            (narrow, COLUMN),
            (192, ROW),
        ],
        "branch_pool": [(192, 1)],
    }


TO_17: Branches = {
    "branch3x3": [(384, 3, 2)],
    "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)],
    "branch_pool": [],
}
TO_8: Branches = {
    "branch3x3": [(192, 1), (320, 3, 2)],
    "branch7x7x3": [(192, 1), (192, ROW), (192, COLUMN), (192, 3, 2)],
    "branch_pool": [],
}
AT_8: Branches = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), ENDS],
    "branch3x3dbl": [(448, 1), (384, 3), ENDS],
    "branch_pool": [(192, 1)],
}
# in order and under the names of the published weights; that the last one pools by its maximum is
# an oddity of the graph of 2015, and part of what FID means
BLOCKS: dict[str, tuple[Branches, Pool]] = {
    "Mixed_5b": (_at_35(32), mean),
    "Mixed_5c": (_at_35(64), mean),
    "Mixed_5d": (_at_35(64), mean),
    "Mixed_6a": (TO_17, shrink),
    "Mixed_6b": (_at_17(128), mean),
    "Mixed_6c": (_at_17(160), mean),
    "Mixed_6d": (_at_17(160), mean),
    "Mixed_6e": (_at_17(192), mean),
    "Mixed_7a": (TO_8, shrink),
    "Mixed_7b": (AT_8, mean),
    "Mixed_7c": (AT_8, highest),
}


class Inception(nn.Module):
    """Inception v3 as TensorFlow published it on 2015-12-05 and FID has used it since.

    Szegedy et al. 2016 (arXiv:1512.00567) in the variant of Heusel et al. 2017 (arXiv:1706.08500).
    Modules bear the names of the PyTorch port, `pt_inception-2015-12-05`, so that its file loads.
    It differs from torchvision's Inception in weights, pooling, classes and the range of pixels:
    the two do not give the same numbers.
    """

    def __init__(self) -> None:
        """Build it with fresh weights; `genconv.eval.load_inception` gives the published ones."""
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, padding=0)
        width = 192
        for name, (branches, pool) in BLOCKS.items():
            block = _Block(width, branches, pool)
            self.add_module(name, block)
            width = block.width
        self.fc = nn.Linear(width, 1008)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled features and the logits without their bias, as IS takes them.

        Args:
            images: uint8 (N, 1 or 3, H, W) of any size; grey ones become RGB.

        Returns:
            float32 features (N, 2048) and logits (N, 1008).
        """
        x = (resize_tf1(to_channels(images, 3).float(), SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(shrink(x)))
        x = shrink(x)
        for name in BLOCKS:
            x = getattr(self, name)(x)
        features = x.mean((2, 3))
        return features, F.linear(features, self.fc.weight)


def resize_tf1(x: Tensor, side: int) -> Tensor:
    """Resize as TensorFlow 1 did: pixel i comes from i · n / side, the corners do not align.

    Neither PyTorch's `interpolate` nor Pillow has it, and FID of small images depends on it.

    Args:
        x: float32 (..., H, W).
        side: of the result.

    Returns:
        float32 (..., side, side).
    """
    for axis in (-1, -2):
        n = x.shape[axis]
        # the quotient is rounded to float32 before it is multiplied, as it was there
        place = torch.arange(side, device=x.device) * torch.tensor(n / side, dtype=torch.float32)
        low = place.long()
        share = place - low
        share = share if axis == -1 else share[:, None]
        start = x.index_select(axis, low)
        end = x.index_select(axis, (low + 1).clamp(max=n - 1))
        x = start + (end - start) * share
    return x


class _Convolution(nn.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        side: int | tuple[int, int],
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        height, width = (side, side) if isinstance(side, int) else side
        around = (height // 2, width // 2) if stride == 1 and padding is None else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, around, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu_()


class _Block(nn.Module):
    """Chains of convolutions, and a pooling, whose outputs are stacked."""

    def __init__(self, inputs: int, branches: Branches, pool: Pool) -> None:
        super().__init__()
        self._pool, self._chains, self.width = pool, {}, 0
        for name, chain in branches.items():
            width, links = inputs, []
            for number, link in enumerate(chain, 1):
                label = name if len(chain) == 1 else f"{name}_{number}"
                many = isinstance(link, list)
                beside = {label + end: c for end, c in zip("ab", link, strict=True)} if many else {}
                beside = beside or {label: link}
                for own, convolution in beside.items():
                    self.add_module(own, _Convolution(width, *convolution))
                width = sum(outputs for outputs, *_ in beside.values())
                links.append(list(beside))
            self._chains[name] = links
            self.width += width

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for name, links in self._chains.items():
            y = self._pool(x) if name == "branch_pool" else x
            for beside in links:
                y = torch.cat([getattr(self, own)(y) for own in beside], 1)
            seen.append(y)
        return torch.cat(seen, 1)
