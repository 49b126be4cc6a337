import pytest
from jaxtyping import config


@pytest.fixture
def unchecked():
    """Without the run-time check of annotations, as users run the library: its own errors must come through."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
