"""When annotations are checked at run time.

The import hook of jaxtyping wraps every function of the library. A function within a function is wrapped anew in each
call of the outer one, which takes a hundred times as long as to call it: it was half the time of a check of a law.
"""

import contextlib

import jaxtyping
from jaxtyping import config

_wrap = jaxtyping.jaxtyped
_MADE = set()  # code of the inner functions that the current test has made


def wrap_inner_functions_once():
    """Let a function within a function be wrapped once in each test, and not where checks are off."""
    jaxtyping.jaxtyped = _wrap_once  # the decorator that the hook writes before every function


def _wrap_once(**options):
    def wrap(made):
        code = getattr(made, "__code__", None)
        if code is not None and "<locals>" in made.__qualname__ and (config.jaxtyping_disable or code in _MADE):
            return made
        _MADE.add(code)
        return _wrap(**options)(made)

    return wrap


@contextlib.contextmanager
def unchecked(off=True):
    """Switch the checks off, or on, for one test."""
    before = config.jaxtyping_disable
    _MADE.clear()
    config.update("jaxtyping_disable", off)
    yield
    config.update("jaxtyping_disable", before)
