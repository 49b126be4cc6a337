"""What holds for tests and for the examples in docstrings: the same numbers at every run, in any order."""

import gc

import pytest
import torch

gc.disable()  # what is imported stays to the end: looking through it for garbage takes a tenth of the time


def pytest_collection_finish():  # noqa: D103
    gc.freeze()
    gc.enable()


def pytest_sessionfinish():  # noqa: D103
    gc.unfreeze()  # libraries complain at the end of what is left


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)
