"""Where bfloat16 is worth asking for."""

import logging
import platform

import torch

__all__ = ["affordable", "has_bfloat16"]

log = logging.getLogger(__name__)

X86 = ("x86_64", "AMD64")


def has_bfloat16(device: torch.device | str | None = None) -> bool:
    """Return whether a device multiplies in bfloat16 without great loss of time.

    Most CPUs only imitate it: products took 20 times as long as in float32 on one with AVX2, and 4
    times as long on one with AVX-512 but not the extension for bfloat16.

    Args:
        device: None is the first GPU, else the CPU.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not str(device).startswith("cpu"):
        return True
    return has_onednn_bfloat16()


def has_onednn_bfloat16() -> bool:
    """Return whether oneDNN has a bfloat16 product for this CPU, made of instructions for it."""
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    # on x86 PyTorch's own question is content with AVX-512, which oneDNN imitates bfloat16 on;
    # whoever has AMX has AVX512-BF16 too
    return platform.machine() not in X86 or torch.cpu._is_avx512_bf16_supported()


def affordable(precision: str, device: torch.device | str | None = None) -> str:
    """Return a precision, or float32 in place of a bfloat16 that the device only imitates.

    Args:
        precision: `bf16` or `32` of a command's `--precision`, or a name of Lightning's.
        device: as in `has_bfloat16`.
    """
    if not precision.startswith("bf16") or has_bfloat16(device):
        return precision
    log.warning("this CPU has no bfloat16 of its own (AVX512-BF16): float32 takes its place")
    return "32-true" if "-" in precision else "32"
