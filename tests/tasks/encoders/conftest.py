"""One thread for all encoder tests."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """What is computed here is too small for two threads, which would wait for each other on a busy machine."""
    torch.set_num_threads(1)
