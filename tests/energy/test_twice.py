"""Layers in closed form against PyTorch's own, through both derivatives."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from genconv.energy.energy import CHANNELS_LAST
from genconv.energy.twice import GroupNorm, SiLU


def tensors(*shapes, seed=0, dtype=torch.double):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


def test_silu_by_finite_differences():
    (x,) = tensors((3, 7))
    assert gradcheck(SiLU(), x)
    assert gradgradcheck(SiLU(), x)


@pytest.mark.parametrize("space", [(6,), (3, 2), (2, 3, 2)])
def test_group_norm_through_both_derivatives(space):
    ours, theirs = GroupNorm(2, 6, dtype=torch.double), nn.GroupNorm(2, 6, dtype=torch.double)
    x, g, v, weight, bias = tensors((4, 6, *space), (4, 6, *space), (4, 6, *space), (6,), (6,))

    def found(layer, cotangents):
        layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
        inputs = (x, layer.weight, layer.bias)
        y = layer(x)
        first = torch.autograd.grad(y, inputs, g, create_graph=True)
        second = torch.autograd.grad(
            [f for f, c in zip(first, cotangents, strict=True) if c is not None],
            (g, x, layer.weight),
            [c for c in cotangents if c is not None],
        )
        return (y, *first, *second)

    # of the gradient of x alone, as energy matching asks it, and of all three
    for cotangents in [(v, None, None), (v, weight, bias), (None, weight, None)]:
        for a, b in zip(found(ours, cotangents), found(theirs, cotangents), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("space", [(5, 5), (5, 2, 3)])
@pytest.mark.parametrize("last", [False, True])
def test_half_precision_stays_close(space, last):
    x, g, v = tensors(*[(4, 8, *space)] * 3, dtype=torch.float32)
    layout = CHANNELS_LAST[x.ndim] if last else torch.contiguous_format
    results = []
    for layer, kind in [(nn.GroupNorm(2, 8), torch.float32), (GroupNorm(2, 8), torch.bfloat16)]:
        net = nn.Sequential(layer, nn.SiLU() if kind == torch.float32 else SiLU())
        z = x.detach().to(kind).contiguous(memory_format=layout).requires_grad_()
        (gz,) = torch.autograd.grad(net(z), z, g.to(kind), create_graph=True)
        assert gz.dtype == kind
        results.append(torch.autograd.grad(gz, z, v.to(kind))[0].float())
    exact, half = results
    # bfloat16 has 8 bits: each of a dozen roundings is up to .4 %
    assert (half - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("layer", [SiLU(), GroupNorm(1, 2)])
def test_a_third_derivative_is_refused(layer):
    (x,) = tensors((3, 2, 4), dtype=torch.float32)
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(first.square().sum(), x, create_graph=True)


def test_torch_func_sees_layers_that_it_knows():
    layer = torch.nn.Sequential(GroupNorm(1, 2), SiLU()).double()
    (x,) = tensors((1, 2, 3))
    gradient = torch.func.grad(lambda x: layer(x).square().sum())
    found = torch.func.jacrev(gradient)(x.detach())
    exact = torch.autograd.functional.hessian(lambda x: layer(x).square().sum(), x)
    torch.testing.assert_close(found, exact)
