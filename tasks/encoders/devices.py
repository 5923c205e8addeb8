"""Where a network runs, and in which number format: decided by each worker for the hardware that it was given."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """A CUDA GPU that this process may use, else Apple's GPU (MPS), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it: CUDA capability 8.0 or later, CPUs with AMX or AVX512-BF16.

    Everywhere else float32: emulated bfloat16 is 2 to 5 times slower than that.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("amx_bf16") or able.get("avx512_bf16") else torch.float32
    return torch.float32
