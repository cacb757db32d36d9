"""What the machine can do, measured beside what the chain does with it."""

import statistics

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from genconv.energy import Energy
from genconv.sampling import langevin
from tests.benchmarks.speed.clock import OURS, Row, race, seconds
from tests.benchmarks.speed.networks import ETA, Settings, made, noise

__all__ = ["described", "flops", "hardware", "matmul_rate"]

SECTION = "share of the hardware"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def described(device: str) -> str:
    """Name what is timed on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    amx = "AMX" if torch.cpu._is_amx_tile_supported() else "no AMX"
    bf16 = "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else "no AVX512-BF16"
    name = torch.backends.cpu.get_cpu_capability()
    return f"{torch.get_num_threads()} thread(s) of a CPU, {name}, {bf16}, {amx}"


def matmul_rate(dtype: torch.dtype, device: str, n: int) -> float:
    """Return FLOP/s of a square matrix product, the best of some: what the hardware gives."""
    a = torch.randn(n, n, device=device).to(dtype)
    a @ a
    return 2 * n**3 / min(seconds(lambda: a @ a, device) for _ in range(5))


def flops(energy: Energy, x: Tensor) -> int:
    """Count the floating point operations of a gradient step, those of products only."""
    for parameter in energy.parameters():
        parameter.requires_grad_(False)
    x = x.detach().clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        # the counter asks autograd of every module's input, and may not ask of a leaf
        torch.autograd.grad(energy(x.clone()).sum(), x)
    for parameter in energy.parameters():
        parameter.requires_grad_(True)
    return counter.get_total_flops()


class Convolutions:
    """Every convolution of a network by itself, forward and input gradient, in bfloat16.

    The library's convolutions are at their best when nothing else is done between them; what a
    chain reaches of this rate is what activations, sums and Python leave of it.

    Args:
        energy: the network.
        x: images (N, C, H, W) that it is shown.
    """

    def __init__(self, energy: Energy, x: Tensor) -> None:
        self.calls: list[tuple[nn.Conv2d, Tensor, Tensor, Tensor]] = []
        hooks = [
            module.register_forward_hook(self._record)
            for module in energy.modules()
            if isinstance(module, nn.Conv2d)
        ]
        with torch.no_grad():
            energy(x)
        for hook in hooks:
            hook.remove()

    def _record(self, module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        like = {"dtype": torch.bfloat16, "device": output.device}
        layout = {"memory_format": torch.channels_last}
        x, y = (torch.randn(t.shape, **like).to(**layout) for t in (inputs[0], output))
        self.calls.append((module, x, y, module.weight.detach().to(torch.bfloat16).to(**layout)))

    def __call__(self) -> None:
        """Run all of them once."""
        with torch.no_grad():
            for module, x, y, weight in self.calls:
                how = (module.stride, module.padding, module.dilation)
                torch.conv2d(x, weight, None, *how)
                torch.ops.aten.convolution_backward(
                    y, x, weight, None, *how, False, [0, 0], 1, [True, False, False]
                )

    def flops(self) -> int:
        """Count their floating point operations."""
        with FlopCounterMode(display=False) as counter:
            self()
        return counter.get_total_flops()


def hardware(settings: Settings) -> list[Row]:
    """Give the chain's FLOP/s as shares of a matrix product's and of bare convolutions'."""
    device = settings.device
    n = 256 if settings.quick else 8192 if device == "cuda" else 2048
    rates = {name: matmul_rate(dtype, device, n) for name, dtype in PRECISIONS.items()}
    rows = [
        Row(
            SECTION,
            "-",
            f"matrix product of {n}x{n}, bfloat16",
            "the same in float32",
            rates["bfloat16"] / 1e9,
            rates["float32"] / 1e9,
            rates["bfloat16"] / rates["float32"],
            "GFLOP/s",
        )
    ]
    for network in settings.chains:
        energy, shape = made(network, settings)
        x = noise(settings.batch, shape, device)
        steps = 2 if network != "digits" else 20
        convolutions = Convolutions(energy, x)
        work, bare = flops(energy, x), convolutions.flops()

        def chain(energy: Energy = energy, x: Tensor = x, steps: int = steps) -> None:
            langevin(energy, x, steps=steps, step_size=ETA, temperature=1e-3, bf16=True)

        times = race({OURS: chain, "bare": convolutions}, device, settings.rounds)
        rate = [work * steps / t for t in times[OURS]]
        against = {
            "bfloat16 matrix product": [rates["bfloat16"]] * len(rate),
            "its convolutions alone, bfloat16": [bare / t for t in times["bare"]],
        }
        what = f"chain of {settings.batch}, {work / settings.batch / 1e6:.0f} MFLOP a step"
        for name, others in against.items():
            share = statistics.median(a / b for a, b in zip(rate, others, strict=True))
            mine, other = statistics.median(rate) / 1e9, statistics.median(others) / 1e9
            rows.append(Row(SECTION, network, what, name, mine, other, share, "GFLOP/s"))
    return rows
