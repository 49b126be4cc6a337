"""Inspection of the state that a callable can keep: its closure, its attributes and the globals that it uses."""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_ATOMS = (bool, int, float, complex, str, bytes, type(None))
_CLOSED = (types.ModuleType, type, types.CodeType, torch.dtype, torch.device, types.BuiltinFunctionType)
_OWN = ("_parameters", "_buffers", "_modules")  # hooks are skipped: most only record, and others change the values
_MOST = 4000  # largest number of values inspected
_LARGE = 1 << 20  # number of entries above which a tensor is not copied


def visible(root: Any) -> list[tuple[str, Any]]:
    """Return the values that a callable can reach and change, each with a readable name."""
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("the step", root)]
    while waiting and len(found) < _MOST:
        name, value = waiting.pop()
        if isinstance(value, _ATOMS):
            found.append((name, repr(value)))
            continue
        if id(value) in seen or isinstance(value, _CLOSED):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            found.append((name, _tensor(value)))
        elif isinstance(value, torch.Generator):
            found.append((name, _tensor(value.get_state())))
        elif type(value).__module__ == "numpy" and hasattr(value, "tobytes"):
            found.append((name, value.tobytes()))
        else:
            if isinstance(value, list | tuple | dict | set | frozenset):
                found.append((name, len(value)))
            waiting.extend(_parts(name, value))
    return found


def changed(before: list[tuple[str, Any]], after: list[tuple[str, Any]]) -> str | None:
    """Return the name of the first value that differs between two snapshots, or None."""
    for (name, was), (other, now) in itertools.zip_longest(before, after, fillvalue=("", None)):
        if name != other or not _same(was, now):
            return name or other
    return None


def overwritten(before: list[tuple[str, Any]], after: list[tuple[str, Any]]) -> list[str]:
    """Return the names of values that were replaced; one that was None or absent counts as a cache and is left out."""
    was, now = _by_name(before), _by_name(after)
    return [
        name
        for name, values in was.items()
        if len(now.get(name, ())) == len(values)
        and any(not _same(old, new) and not _absent(old) for old, new in zip(values, now[name], strict=True))
    ]


def _absent(value: Any) -> bool:
    return isinstance(value, str) and value == repr(None)


def _by_name(values: list[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, value in values:
        if not isinstance(value, int):  # skip lengths of containers
            found.setdefault(name, []).append(value)
    return found


def _tensor(value: Tensor) -> Any:
    if isinstance(value, nn.Parameter) or value.numel() > _LARGE:
        return (value, writes(value))
    return value.detach().clone()


def writes(value: Tensor) -> int:
    """Return how often a tensor was written in place, or 0 for an inference tensor, which keeps no count."""
    return 0 if value.is_inference() else value._version


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, tuple) and isinstance(b, tuple):
        return a[0] is b[0] and a[1] == b[1]
    return type(a) is type(b) and bool(a == b)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.FunctionType):
        for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield f"the variable {variable!r}", cell.cell_contents
            except ValueError:  # variable not bound yet
                continue
        yield f"a default of {value.__name__}", value.__defaults__
        for variable in value.__code__.co_names:
            outside = value.__globals__.get(variable)
            if isinstance(outside, (*_ATOMS, Tensor, list, dict, set)):
                yield f"the global variable {variable!r}", outside
    elif isinstance(value, types.MethodType):
        yield name, value.__self__
    elif isinstance(value, functools.partial):
        yield name, (value.func, *value.args, value.keywords)
    elif isinstance(value, dict):
        yield from ((f"{name}[{key!r}]", part) for key, part in list(value.items()))
    elif isinstance(value, list | tuple):
        yield from ((f"{name}[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, nn.Module):
        yield from _attributes(value)
        for kind in (value._buffers, value._modules):
            yield from ((f"the attribute {key!r} of {type(value).__name__}", part) for key, part in kind.items())
    elif hasattr(value, "__dict__"):
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    shared = {k: v for kind in type(value).__mro__ for k, v in vars(kind).items() if not k.startswith("__")}
    plain = {k: v for k, v in shared.items() if isinstance(v, int | float | list | dict | Tensor)}
    for key, part in {**plain, **vars(value)}.items():
        if not (isinstance(value, nn.Module) and (key in _OWN or key.endswith("_hooks"))):
            yield f"the attribute {key!r} of {type(value).__name__}", part
