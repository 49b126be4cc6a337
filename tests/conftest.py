import contextlib
import os

import jaxtyping
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import config as annotations

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
        jaxtyping.jaxtyped = _wrap_once  # the decorator that the import hook writes before every function


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
_MADE = set()  # code of the functions within functions that the current test has made
_wrap = jaxtyping.jaxtyped


def _wrap_once(**options):
    """Wrap a function within a function once in each test, and not where checks are off.

    Such a function is made anew in each call of the outer one, and to wrap it takes a hundred times as long as to call
    it: this was half the time of a check of a law.
    """

    def wrap(made):
        code = getattr(made, "__code__", None)
        if code is not None and "<locals>" in made.__qualname__ and (annotations.jaxtyping_disable or code in _MADE):
            return made
        _MADE.add(code)
        return _wrap(**options)(made)

    return wrap


@pytest.fixture(autouse=True)
def _annotations(request):
    """Check annotations at run time in the first case of each test, or in all at full depth: they double the time."""
    test = (request.node.path, getattr(request.node, "originalname", request.node.name))
    with _annotations_unchecked(test in _SEEN and not request.config.getoption("deep")):
        _MADE.clear()
        yield
    _SEEN.add(test)


@pytest.fixture
def unchecked():
    """Without the run-time check of annotations, as users run the library: its own errors must come through."""
    with _annotations_unchecked():
        yield


@contextlib.contextmanager
def _annotations_unchecked(off=True):
    before = annotations.jaxtyping_disable
    annotations.update("jaxtyping_disable", off)
    yield
    annotations.update("jaxtyping_disable", before)
