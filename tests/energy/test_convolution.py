"""Gradients of convolutions on small maps, in bfloat16."""

import pytest
import torch

from genconv.energy.convolution import CONVOLUTIONS

# space, kernel, stride, padding: on the CPU PyTorch's own gradient is wrong on each of these
SHORT = [
    ((3,), 3, 4, 1),
    ((12, 3), (4, 3), (2, 4), (2, 1)),
    ((2, 2, 2), 3, 1, 1),
    ((2, 4, 6), 3, 1, 1),
    ((4, 2, 2), 4, 2, 1),
    ((4, 6, 6), 5, 1, 2),
    ((2, 8, 8), (3, 8, 8), 1, (1, 0, 0)),
]
LONG = [((4, 4), 3, 1, 1), ((4, 4, 4), 3, 1, 1), ((8, 8), 4, 2, 1)]


def made(space, kernel, stride, padding):
    """A convolution, images and the gradient of what comes out, all exact in bfloat16."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = CONVOLUTIONS[len(space)](16, 32, kernel, stride, padding)
        x = torch.randn(4, 16, *space).bfloat16().float()
        g = torch.randn_like(layer(x)).bfloat16()
    for parameter in layer.parameters():
        parameter.data.copy_(parameter.data.bfloat16())
    return layer, x, g


def gradients(layer, x, g):
    """The layer's output, its gradients by x and weights, and those of their squares."""
    x = x.clone().requires_grad_()
    y = layer(x)
    gx, gw = torch.autograd.grad(y, (x, layer.weight), g.to(y.dtype), create_graph=True)
    again = torch.autograd.grad(gx.square().sum(), (layer.weight,))
    return [t.detach().double() for t in (y, gx, gw, *again)]


@pytest.mark.parametrize("shape", SHORT + LONG, ids=str)
def test_gradients_are_those_of_float64_whatever_lay_in_memory(shape):
    layer, x, g = made(*shape)
    for _ in range(3):
        # what a kernel that reads too far would find
        for size in (layer.weight.numel(), x.numel(), g.numel()):
            spoilt = torch.full((4, size), torch.nan)
            del spoilt
        with torch.autocast("cpu", torch.bfloat16):
            found = gradients(layer, x, g)
        expected = gradients(layer.double(), x.double(), g.double())
        layer.float()
        for ours, exact in zip(found, expected, strict=True):
            assert (ours - exact).abs().max() < 0.03 * exact.abs().max()


def test_what_comes_out_is_of_the_type_that_was_asked_for():
    layer, x, _ = made((2, 2, 2), 3, 1, 1)
    assert layer(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.float16):
        assert layer(x).dtype == torch.float16
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(
        layer.float()(x), torch.nn.functional.conv3d(x, layer.weight, layer.bias, padding=1)
    )
