import os

import pytest
from hypothesis import HealthCheck, settings

import annotated

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton: its kernels run without a GPU
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
settings.register_profile("default", max_examples=2, **QUIET)
settings.register_profile("deep", max_examples=8, **QUIET)


def pytest_addoption(parser):
    parser.addoption("--deep", action="store_true", help="run every case at full depth (`make test-deep`)")


def pytest_configure(config):
    settings.load_profile("deep" if config.getoption("deep") else "default")
    if not config.getoption("deep"):
        annotated.wrap_inner_functions_once()


def pytest_collection_modifyitems(config, items):
    if config.getoption("deep"):
        return
    left = [item for item in items if item.get_closest_marker("deep")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("deep")]


@pytest.fixture
def deep(request):
    """Whether this run goes to full depth; tests shrink sizes and repetitions where it does not."""
    return request.config.getoption("deep")


_SEEN = set()


@pytest.fixture(autouse=True)
def _annotations(request):
    """Check annotations at run time in the first case of each test, or in all at full depth: they double the time."""
    test = request.node.nodeid.split("[")[0]
    with annotated.unchecked(test in _SEEN and not request.config.getoption("deep")):
        yield
    _SEEN.add(test)


@pytest.fixture
def unchecked():
    """Without the run-time check of annotations, as users run the library: its own errors must come through."""
    with annotated.unchecked():
        yield
