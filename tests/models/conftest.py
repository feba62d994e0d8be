"""Every test of the models draws the same random numbers, and two threads are enough for what they compute."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(min(2, n_threads))
    torch.manual_seed(12)
    yield
    torch.set_num_threads(n_threads)
