"""Conversion of outputs of any type to trees of tensors and constants, so that every part is compared."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from enum import Enum
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from ._inputs import is_graph_data, is_hetero_data, named_tensors

_CONSTANTS = (str, bytes, type(None), torch.dtype, torch.device, Enum)


def as_tree(out: Any) -> Any:
    """Return an output with numbers, arrays and dataclasses converted to tensors and dicts.

    Raises:
        InputError: If a part can't be compared, or if there is no tensor, array or number.
    """
    tree = _convert(out, "output")
    if not any(True for _ in named_tensors(tree)):
        raise InputError(f"the function must return tensors, arrays or numbers, got {type(out).__name__}")
    return tree


def _convert(out: Any, name: str) -> Any:
    if isinstance(out, Tensor):
        return _dense(out, name)
    if isinstance(out, np.ndarray | np.generic):
        return _array(np.asanyarray(out), name)
    if isinstance(out, Number) and not isinstance(out, Enum):
        return _number(out)
    if isinstance(out, _CONSTANTS):
        return out
    if is_hetero_data(out):
        return _convert(out.to_dict(), name)
    if is_graph_data(out):
        copy = out.clone()
        for key in list(out.keys()):
            copy[key] = _convert(out[key], f"{name}.{key}")
        return copy
    if isinstance(out, Mapping):
        return {key: _convert(part, f"{name}[{key!r}]") for key, part in out.items()}
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return type(out)(*(_convert(part, f"{name}.{field}") for field, part in zip(out._fields, out, strict=True)))
    if isinstance(out, set | frozenset):
        try:
            out = sorted(out)
        except TypeError:
            raise _refusal(out, name) from None
    if isinstance(out, tuple | list | deque | range):
        parts = [_convert(part, f"{name}[{i}]") for i, part in enumerate(out)]
        return tuple(parts) if isinstance(out, tuple) else parts
    if type(out).__module__ == "transformers.cache_utils" and hasattr(out, "layers"):
        layers = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in out.layers]
        return _convert(layers, name)
    if dataclasses.is_dataclass(out) and not isinstance(out, type):
        fields = [field.name for field in dataclasses.fields(out) if hasattr(out, field.name)]
        return {field: _convert(getattr(out, field), f"{name}.{field}") for field in fields}
    raise _refusal(out, name)


def _refusal(out: Any, name: str) -> InputError:
    return InputError(
        f"{name} is a {type(out).__name__}, which can't be compared; return tensors, arrays, numbers, or tuples, "
        "lists, dicts or dataclasses of them"
    )


def _dense(out: Tensor, name: str) -> Any:
    if out.is_meta:
        raise InputError(f"{name} is a tensor on the meta device, which holds no values to compare")
    if out.is_nested:
        return [_dense(part, f"{name}[{i}]") for i, part in enumerate(out.unbind())]
    if out.is_quantized:
        return out.dequantize()
    return out if out.layout == torch.strided else out.to_dense()


def _number(out: Any) -> Any:
    if isinstance(out, complex):
        return torch.tensor(out, dtype=torch.complex128)
    if isinstance(out, int):  # booleans too; numbers beyond int64 stay as they are
        return torch.tensor(out) if -(2**63) <= out < 2**63 else out
    return torch.tensor(float(out), dtype=torch.float64)


def _array(out: Any, name: str) -> Any:
    if isinstance(out, np.ma.MaskedArray) or out.dtype.kind == "V":
        raise _refusal(out, name)
    if out.dtype.kind in "OUS":
        return _convert(out.tolist(), name)
    if out.dtype.kind in "mM":
        out = out.view(np.int64)
    if out.dtype.kind in "fc" and out.dtype.itemsize > (8 if out.dtype.kind == "f" else 16):
        out = out.astype(np.float64 if out.dtype.kind == "f" else np.complex128)
    return torch.from_numpy(np.array(out, dtype=out.dtype.newbyteorder("="), order="C"))


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in float64, with complex numbers as pairs on a trailing axis."""
    if tensor.is_complex():
        return torch.view_as_real(tensor.detach().to(torch.complex128).resolve_conj())
    return tensor.detach().to(torch.float64)
