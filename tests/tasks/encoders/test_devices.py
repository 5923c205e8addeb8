from pathlib import Path

import pytest
import torch

from tasks.encoders.devices import best_device, inference_dtype


def test_a_network_runs_where_it_was_put() -> None:
    device = best_device()
    dtype = inference_dtype(device)
    layer = torch.nn.Linear(8, 8, device=device, dtype=dtype)
    assert layer(torch.ones(2, 8, device=device, dtype=dtype)).dtype == dtype


def test_a_cpu_without_bfloat16_computes_in_float32() -> None:
    """What the kernel says of this machine's CPU decides what is expected here."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    able = bool(flags & {"amx_bf16", "avx512_bf16"})
    assert inference_dtype(torch.device("cpu")) == (torch.bfloat16 if able else torch.float32)


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_older_gpus_compute_in_float32(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert inference_dtype(torch.device("cuda")) == dtype
