"""What a GPU does is what a CPU does: energies, their derivatives, chains and whole runs."""

import pytest
import torch

from genconv.energy import GenerativeConvNet, ResNetEnergy, UNetEnergy
from genconv.sampling import langevin
from genconv.train import main
from genconv.training.energy_matching import transport_loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ENERGIES = {
    "unet": (lambda: UNetEnergy(3, width=32, multipliers=(1, 2), blocks=1), (3, 16, 16)),
    "unet3d": (
        lambda: UNetEnergy(1, dims=3, width=32, multipliers=(1, 2), blocks=1, patch=2),
        (1, 8, 8, 8),
    ),
    "resnet": (lambda: ResNetEnergy(3, widths=(16, 32), spectral=True), (3, 16, 16)),
    "convnet": (
        lambda: GenerativeConvNet(3, dims=3, widths=(8, 16), kernels=(3, 3), strides=(2, 1)),
        (3, 8, 8, 8),
    ),
}


def made(name):
    """Return an energy none of whose layers is zero, as fresh ones are, and images."""
    torch.manual_seed(0)
    build, shape = ENERGIES[name]
    energy = build().eval()
    for weight in energy.parameters():
        if weight.ndim > 1 and not weight.any():
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return energy, torch.randn(2, 8, *shape)


def near(a, b, share):
    assert (a.cpu().float() - b.cpu().float()).norm() <= share * b.cpu().float().norm()


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    # products of 10 bits are a GPU's, and a CPU has none
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("bf16", [False, True])
def test_chains_end_where_those_of_a_cpu_do(name, bf16):
    energy, (x, _) = made(name)
    how = {"steps": 5, "step_size": 0.01, "temperature": 0.0}
    there = langevin(energy, x, **how).x
    here = langevin(energy.cuda(), x.cuda(), **how, bf16=bf16).x
    # spectral norms are products in bfloat16 too: 6 % on an H200
    near(here.cpu() - x, there - x, 0.1 if bf16 else 1e-3)


@pytest.mark.parametrize("name", ["unet", "unet3d"])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_gradients_of_energy_matching_are_those_of_a_cpu(name, bf16, last):
    energy, (x0, x1) = made(name)
    t = torch.rand(len(x0))
    transport_loss(energy, x0, x1, t).backward()
    there = [p.grad for p in energy.parameters() if p.grad is not None]
    energy.zero_grad()
    energy.cuda()
    if last:
        layout = torch.channels_last if x0.ndim == 4 else torch.channels_last_3d
        energy, x1 = energy.to(memory_format=layout), x1.to(memory_format=layout)
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        transport_loss(energy, x0.cuda(), x1.cuda(), t.cuda()).backward()
    here = [p.grad for p in energy.parameters() if p.grad is not None]
    joined = [torch.cat([g.flatten().cpu() for g in part]) for part in (here, there)]
    near(*joined, 0.05 if bf16 else 1e-3)


def test_a_run_with_both_phases_goes_on_and_draws(tmp_path):
    flags = [
        *("--data.batch_size", "16", "--trainer.enable_progress_bar", "false"),
        *("--config", "cifar10", "--data.name", "shapes", "--runs", str(tmp_path)),
        *("--model.energy.width", "32", "--model.energy.blocks", "1"),
        *("--model.transport_updates", "2", "--model.buffer_size", "64", "--model.k", "2"),
        *("--model.chain.steps", "5", "--model.chain.temperature", "0.01"),
        *("--model.lr", "1.0e-4", "--samples.every", "2", "--samples.n", "4"),
    ]
    main([*flags, "--trainer.max_steps", "4"])
    main([*flags, "--trainer.max_steps", "6", "--ckpt_path", "last"])
    assert (tmp_path / "cifar10" / "samples" / "step_0000006.png").exists()
