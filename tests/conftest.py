import os

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton: its kernels run without a GPU
settings.register_profile(
    "commutant", deadline=None, derandomize=True, max_examples=8, suppress_health_check=list(HealthCheck)
)
settings.load_profile("commutant")


@pytest.fixture
def unchecked():
    """Without the run-time check of annotations, as users run the library: its own errors must come through."""
    config = pytest.importorskip("jaxtyping").config
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
