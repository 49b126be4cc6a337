import os

import pytest
import torch
from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton: its kernels run without a GPU
settings.register_profile(
    "commutant", deadline=None, derandomize=True, max_examples=8, suppress_health_check=list(HealthCheck)
)
settings.load_profile("commutant")


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Without the run-time check of annotations, as users run the library: its own errors must come through."""
    config = pytest.importorskip("jaxtyping").config
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
