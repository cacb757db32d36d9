"""The generative ConvNet: a plain convolutional energy in one to three spatial dimensions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genconv.energy.convolution import CONVOLUTIONS
from genconv.energy.energy import Energy, widen
from genconv.energy.twice import SiLU
from genconv.errors import UserError

__all__ = ["GenerativeConvNet"]


class GenerativeConvNet(Energy):
    r"""Creates the energy of a plain convolutional network, the same for signals, images and video.

    .. math:: E(x) = \frac{\|x\|^2}{2 s^2} - \sum_u f_u(x)

    where f is a stack of convolutions and u runs over its last map. With classes there is an f for
    each, and without labels the energy answers for their mixture, E(x) = -log Σ_y exp(-E(x, y)): it
    is a classifier too, whose logits are -E(x, y). As nothing but the sum ties it to a size, an
    energy learnt on small images scores larger ones; every extent only has to be a multiple of the
    product of the strides.

    Args:
        channels: C of the input (N, C, *space).
        dims: number of spatial dimensions, 1 to 3.
        widths: output channels of each convolution.
        kernels: kernel size of each convolution, or one for all; a size is one number, or one for
            each axis, as [4, 16, 16] for a layer that is fully connected in a video's space and
            convolutional in its time.
        strides: stride of each convolution, or one for all, likewise.
        paddings: zeros around what each convolution sees, or one for all, likewise; half the kernel
            by default. Without any, a kernel as large as the map is a fully connected layer.
        reference: standard deviation s of the Gaussian reference measure; None leaves it out.
        scale: factor on the network's part, so that fresh weights already move a chain.
        silent: begin with a network's part that is 0 everywhere, for objectives without chains.
        classes: number of classes; None for an unconditional energy.

    Raises:
        UserError: there are not as many kernels, strides or paddings as widths.

    References:
        Xie, Lu, Zhu, Wu: A Theory of Generative ConvNet, 2016, https://arxiv.org/abs/1602.03264;
        Grathwohl et al. (classifiers): https://arxiv.org/abs/1912.03263
    """

    def __init__(
        self,
        channels: int = 1,
        dims: int = 2,
        widths: Sequence[int] = (64, 128, 128),
        kernels: int | Sequence[int | Sequence[int]] = 3,
        strides: int | Sequence[int | Sequence[int]] = 1,
        paddings: int | Sequence[int | Sequence[int]] | None = None,
        reference: float | None = None,
        scale: float = 1.0,
        silent: bool = False,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.classes = classes
        convolution = CONVOLUTIONS[dims]
        kernels, strides = (
            [v] * len(widths) if isinstance(v, int) else v for v in (kernels, strides)
        )
        sizes = [[k] * dims if isinstance(k, int) else k for k in kernels]
        if paddings is None:
            paddings = [[k // 2 for k in size] for size in sizes]
        elif isinstance(paddings, int):
            paddings = [paddings] * len(widths)
        for name, values in {"kernels": sizes, "strides": strides, "paddings": paddings}.items():
            if len(values) != len(widths):
                raise UserError(f"{len(widths)} widths need as many {name}, not {len(values)}")
        layers: list[nn.Module] = []
        for inputs, width, *shape in zip(
            [channels, *widths[:-1]], widths, sizes, strides, paddings, strict=True
        ):
            shape = [v if isinstance(v, int) else tuple(v) for v in shape]
            layers += [convolution(inputs, width, *shape), SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = convolution(widths[-1], classes or 1, 1, bias=False)
        if silent:
            nn.init.zeros_(self.head.weight)
        self.reference, self.scale = reference, scale

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the energies (N,) of a batch (N, C, *space)."""
        energies = self.by_class(x)
        if y is not None and self.classes:
            return energies.gather(1, y[:, None]).squeeze(1)
        return -torch.logsumexp(-energies, 1) if self.classes else energies.squeeze(1)

    def by_class(self, x: Tensor) -> Tensor:
        """Return the energies (N, K) for every class; K is 1 without classes."""
        responses = widen(self.head(self.features(x)))
        energies = -self.scale * responses.flatten(2).sum(2)
        if self.reference is not None:
            reference = widen(x).square().flatten(1).sum(1) / (2 * self.reference**2)
            energies = energies + reference[:, None]
        return energies
