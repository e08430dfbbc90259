"""PyTorch on one thread: the arrays are small, and its results then don't depend on the machine."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
