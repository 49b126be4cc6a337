"""What holds for tests and for the examples in docstrings: the same numbers at every run, in any order."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)
