"""Convolutions against PyTorch's own, through both derivatives."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from genconv.energy.convolution import CONVOLUTIONS, _Convolve, _How

THEIRS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
HOW = [{}, {"stride": 2, "padding": 1}, {"groups": 2, "bias": False}, {"dilation": 2}]


def pair(dims, how):
    """Return our layer and PyTorch's with the same weights, and an image, in float64."""
    torch.manual_seed(0)
    ours, theirs = (kind[dims](4, 6, 3, **how).double() for kind in (CONVOLUTIONS, THEIRS))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, torch.randn(2, 4, *[5] * dims, dtype=torch.double, requires_grad=True)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("how", HOW)
def test_both_derivatives_are_those_of_pytorch(dims, how):
    ours, theirs, x = pair(dims, how)

    def found(layer, all_of_them):
        """Return the first gradient, of the image alone or of all, and the gradients of that."""
        y = layer(x)
        inputs = (x, *layer.parameters())
        g = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
        g.requires_grad_()
        asked = inputs if all_of_them else (x,)
        first = torch.autograd.grad(y, asked, g, create_graph=True)
        loss = sum((part.sin() * part).sum() for part in first)
        return (y, *first, *torch.autograd.grad(loss, (g, *inputs), materialize_grads=True))

    for all_of_them in (False, True):
        pairs = zip(found(ours, all_of_them), found(theirs, all_of_them), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b)


def test_by_finite_differences():
    layer, _, x = pair(2, {"stride": 2, "padding": 1})
    weights = dict(layer.named_parameters())

    def shown(x, *values):
        return torch.func.functional_call(layer, dict(zip(weights, values, strict=True)), (x,))

    assert gradcheck(shown, (x, *weights.values()))
    assert gradgradcheck(shown, (x, *weights.values()))


def test_weights_get_no_gradient_that_nobody_asked_for(monkeypatch):
    layer, _, x = pair(2, {})
    asked = []
    made = _How.gradients
    monkeypatch.setattr(_How, "gradients", lambda self, *a: asked.append(a[-1]) or made(self, *a))
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    assert asked == [(True, False, False)]
    gradient.square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    assert (False, True, False) in asked


def test_a_frozen_one_is_left_to_pytorch(monkeypatch):
    layer, _, x = pair(2, {})
    monkeypatch.setattr(_Convolve, "apply", None)
    layer.requires_grad_(False)
    assert torch.autograd.grad(layer(x).sum(), x)[0].shape == x.shape
