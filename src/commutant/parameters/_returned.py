"""Selection of the part of a model's output to preserve: all but caches, or the part that the user selects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn


@contextlib.contextmanager
def selecting(model: nn.Module, outputs: Callable[[Any], Any] | None) -> Iterator[list[str]]:
    """Restrict a model's output while the context lasts; yield a list of notes on parts left out by default."""
    left_out: list[str] = []

    def hook(module: nn.Module, args: Any, found: Any) -> Any:
        return _without_caches(found, left_out) if outputs is None else outputs(found)

    handle = model.register_forward_hook(hook)
    try:
        yield left_out
    finally:
        handle.remove()


def _without_caches(found: Any, left_out: list[str]) -> Any:
    """Return an output without the key-value caches of transformers, which only the same weights read again."""
    named = found.items() if isinstance(found, Mapping) else enumerate(found) if isinstance(found, tuple | list) else ()
    caches = {name for name, value in named if _is_cache(value)}
    if not caches:
        return found
    left_out.append(f"the output {', '.join(map(repr, sorted(caches, key=str)))} is a cache and was left out")
    if isinstance(found, Mapping):
        return {name: value for name, value in found.items() if name not in caches}
    return tuple(value for place, value in enumerate(found) if place not in caches)


def _is_cache(value: Any) -> bool:
    return any(c.__module__.startswith("transformers.") and c.__name__.endswith("Cache") for c in type(value).__mro__)
