"""Compiled chains are the chains that they stand for."""

import logging
import shutil

import pytest
import torch

from genconv.energy import GenerativeConvNet
from genconv.sampling import compile_gradient, compiled, langevin


def run(energy, n=3, bf16=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 8, 8, generator=generator)
    return langevin(energy, x, steps=4, step_size=0.1, generator=generator, bf16=bf16)


@pytest.fixture
def energy():
    torch.manual_seed(0)
    return GenerativeConvNet(widths=(4,), strides=2)


@pytest.fixture
def traced(monkeypatch):
    """The function without its compiler, and the shapes that it was called with."""
    seen = []

    def function(device):
        def call(energy, x, y, bf16):
            seen.append(len(x))
            return compiled._gradient(energy, x, y, bf16)

        return call

    monkeypatch.setattr(compiled, "_function", function)
    return seen


def test_chains_do_not_change(energy, traced):
    plain, half = run(energy), run(energy, bf16=True)
    compile_gradient(energy)
    torch.testing.assert_close(run(energy).x, plain.x)
    torch.testing.assert_close(run(energy).info.energy, plain.info.energy)
    # bfloat16 has 8 bits
    torch.testing.assert_close(run(energy, bf16=True).x, half.x, rtol=0, atol=5e-3)
    assert traced == [3] * 12


def test_the_first_four_shapes_are_compiled(energy, traced):
    compile_gradient(energy)
    for n in (3, 2, 4, 7, 1, 3):
        run(energy, n)
    assert sorted(set(traced)) == [2, 3, 4, 7]
    other = GenerativeConvNet(widths=(4,), strides=2)
    run(other, 5)
    assert 5 not in traced


def test_without_a_compiler_chains_go_on(energy, monkeypatch, caplog):
    def broken(device):
        raise RuntimeError("no compiler\nis here")

    monkeypatch.setattr(compiled, "_function", broken)
    plain = run(energy)
    compile_gradient(energy)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(run(energy).x, plain.x)
        run(energy)
    assert [record.getMessage() for record in caplog.records] == [
        "chains go on without compilation: no compiler"
    ]


def test_an_energy_that_is_gone_is_forgotten(energy):
    compile_gradient(energy)
    kept = len(compiled._chosen)
    del energy
    assert len(compiled._chosen) <= kept


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_compiler_itself(energy):
    plain = run(energy)
    compile_gradient(energy)
    torch.testing.assert_close(run(energy).x, plain.x)
    assert energy in compiled._chosen
