"""Arguments of networks on clouds: kinds, levels (rows of points or of clouds), and copies for each frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import Clouds, Frame

TURNING = ("points", "displacements", "vectors", "pseudovectors", "tensors")
OUTPUTS = (*TURNING, "scalars")
_LAYOUT = ("batch", "mask", "edges", "edge scalars", "shared")
_LEVELS = ("point", "cloud")


def split_kind(kind: Any) -> tuple[str | None, str]:
    """Return the level (`point`, `cloud` or None) and the base of a kind such as `"cloud scalars"`.

    Raises:
        InputError: If the kind is unknown.
    """
    level, _, base = kind.partition(" ") if isinstance(kind, str) else ("", "", "")
    if level in _LEVELS and base in OUTPUTS:
        return level, base
    if kind not in (*OUTPUTS, *_LAYOUT):
        known = f"{', '.join((*OUTPUTS, *_LAYOUT))}, the first six optionally prefixed with point or cloud"
        raise InputError(f"kind must be one of {known}; got {kind!r}")
    return None, kind


def module_given(net: Any, name: str = "net") -> Any:
    """Return `net` if it is a module.

    Raises:
        InputError: If it is a class instead of an instance, or no module.
    """
    if isinstance(net, nn.Module):
        return net
    if isinstance(net, type):
        raise InputError(f"{name} must be a module, got the class {net.__name__}; pass {net.__name__}(...)")
    raise InputError(f"{name} must be a torch.nn.Module, got {type(net).__name__}")


def callable_given(net: Any, name: str = "net") -> Any:
    """Return `net` if it can be called and is no class.

    Raises:
        InputError: If it is a class instead of an instance, or cannot be called.
    """
    return net if callable(net) and not isinstance(net, type) else module_given(net, name)


def floats_given(name: str, value: Any, dims: int | None = None) -> None:
    """Check that `value` is a floating-point tensor, with `dims` axes if given."""
    if not isinstance(value, Tensor):
        raise InputError(f"{name} must be a tensor, got {type(value).__name__}")
    if not value.is_floating_point() or (dims is not None and value.dim() != dims):
        wanted = "floating-point numbers" if dims is None else f"floating-point numbers with {dims} axes"
        raise InputError(f"{name} must be a tensor of {wanted}, got {value.dtype} {tuple(value.shape)}")


def check_pairs(z: Any, g: Any, features: int, code_features: int) -> None:
    """Check that z is `(batch, features)` and g `(batch, code_features)`."""
    floats_given("z", z)
    floats_given("g", g)
    if z.dim() != 2 or z.shape[1] != features or tuple(g.shape) != (len(z), code_features):
        raise InputError(
            f"z must be (batch, {features}) and g (batch, {code_features}), got {tuple(z.shape)} and {tuple(g.shape)}"
        )


def belongs_to(value: Tensor, kind: str, name: str, points: Tensor, clouds: Clouds) -> str:
    """Return `"point"` or `"cloud"`: the level to which the rows of `value` belong.

    Raises:
        InputError: If the number of rows fits neither level, or fits both and the kind does not say which.
    """
    level, base = split_kind(kind)
    level = "point" if value is points else level
    turning = 0 if base not in TURNING else 2 if base == "tensors" else 1
    own = tuple(value.shape[: value.dim() - turning])
    if clouds.index is None:
        lead, each = clouds.lead, tuple(points.shape[:-1])
        fits = {"point": own[: len(each)] == each, "cloud": own[: len(lead)] == lead}
        shapes = {"point": f"a shape that begins with {each}", "cloud": f"a shape that begins with {lead}"}
        if fits["point"]:
            fits["cloud"] = level == "cloud"
    else:
        rows = own[0] if own else -1
        fits = {"point": rows == len(clouds.index), "cloud": rows == clouds.number}
        shapes = {"point": f"{len(clouds.index)} rows", "cloud": f"{clouds.number} rows"}
    if level is None and all(fits.values()):
        if not clouds.one_each:
            raise InputError(
                f"{name} has {own[0]} rows, which is the number of points and of clouds; set its kind to "
                f'"point {base}" or "cloud {base}"'
            )
        return "point"
    chosen = [at for at, there in fits.items() if there and level in (None, at)]
    if not chosen:
        wanted = shapes[level] if level else " or ".join(dict.fromkeys(shapes.values()))
        raise InputError(
            f"{name} must have {wanted} to match the points, or be of kind shared; got shape {tuple(value.shape)}"
        )
    return chosen[0]


def seen_by(
    frame: Frame,
    value: Any,
    kind: str,
    name: str,
    points: Tensor,
    edges: dict[str, tuple[Tensor, Tensor]],
    given: dict[str, Tensor],
) -> Any:
    """Return an argument rotated into each frame, or copied for each frame.

    Args:
        frame: Frames of all clouds.
        value: The argument.
        kind: Kind of the argument.
        name: Name of the argument.
        points: The points whose frames are taken.
        edges: Copied edges, and the edge behind each copy, by name of the argument.
        given: Arguments of kind edges, by name.
    """
    copies, clouds = frame.copies, frame.clouds
    if kind == "batch":
        return copies.clouds.index
    if not isinstance(value, Tensor) or kind == "shared":
        return value
    if kind in ("edges", "edge scalars"):
        if kind == "edges":
            return edges[name][0]
        own = _edges_of(name, value, given)
        rows = given[own].shape[1]
        if not value.dim() or len(value) != rows:
            raise InputError(f"{name} must have {rows} rows, one per edge, got shape {tuple(value.shape)}")
        return value[edges[own][1]]
    base = split_kind(kind)[1]
    turns = base in TURNING
    if belongs_to(value, kind, name, points, clouds) == "point":
        return frame.canonicalize(value, base) if turns else copies.of(clouds.flat(value))  # type: ignore[arg-type]
    flat = value.reshape(clouds.number, *value.shape[1 if clouds.ragged else len(clouds.lead) :])
    if base == "points":
        flat = flat - frame.origin.to(flat.dtype).reshape(-1, *(1,) * (flat.dim() - 2), flat.shape[-1])
    return frame.see(flat[frame.cloud], base) if turns else flat[frame.cloud]  # type: ignore[arg-type]


def holds_indices(name: str, value: Any) -> bool:
    """Return whether a tensor holds indices of points, judged by its name as in PyG.

    Raises:
        InputError: If it holds indices and its shape is not `(2, edges)`.
    """
    if not isinstance(value, Tensor) or not ("index" in name or "neighbo" in name or name == "face"):
        return False
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        return False
    if value.dim() != 2 or len(value) != 2:
        raise InputError(
            f"{name} is taken for point indices by its name and must have shape (2, edges), got {tuple(value.shape)}; "
            f'if it holds other values, set its kind, such as "scalars" or "shared"'
        )
    return True


def _edges_of(name: str, value: Tensor, given: dict[str, Tensor]) -> str:
    """Return the name of the edges to which values belong, judged by the start of their name or by their number."""
    if not given:
        raise InputError(f"{name} needs an argument of kind edges, got none")
    if alike := [edges for edges in given if name.startswith(edges.removesuffix("_index"))]:
        return max(alike, key=len)
    fits = [n for n, edges in given.items() if value.dim() and edges.shape[1] == len(value)]
    if len(given) > 1 and len(fits) != 1:
        raise InputError(f"{name} may belong to {' or '.join(given)}; start its name with the name of its edges")
    return fits[0] if fits else next(iter(given))


def as_rows(value: Tensor, kind: str, name: str, points: Tensor, clouds: Clouds) -> Float[Tensor, "*lead n k d"]:
    """Return vectors of points or of clouds with a row for each point."""
    lead, d = points.shape[:-1], points.shape[-1]
    if belongs_to(value, kind, name, points, clouds) == "point":
        return value.reshape(*lead, -1, d)
    flat = clouds.spread(value.reshape(clouds.number, -1, d))
    return (
        flat.reshape(*lead, -1, d)
        if clouds.ragged
        else flat.expand(clouds.number, lead[-1], -1, d).reshape(*lead, -1, d)
    )


def mean_over(
    frame: Frame, out: Any, kind: str, scored: Callable[[Tensor], Tensor | None], name: str = "the output"
) -> Any:
    """Return the mean over frames of a tensor, or of every tensor in nested tuples and mappings."""

    def mean(value: Tensor, name: str) -> Tensor:
        level, base = split_kind(kind)
        try:
            restored = frame.restore(value, base)  # type: ignore[arg-type]
            return frame.pool(restored, scored(value), per_cloud=None if level is None else level == "cloud")
        except InputError as error:
            raise InputError(f"{name} can't be averaged: {error}") from None

    return each_tensor(out, mean, name)


def each_tensor(out: Any, change: Callable[[Tensor, str], Any], name: str) -> Any:
    """Return nested tuples and mappings with `change(tensor, name)` in place of every tensor."""
    if isinstance(out, Tensor):
        return change(out, name)
    if (items := items_of(out)) is None:
        return out
    return like(out, {k: each_tensor(v, change, f"{name}, {k!r}") for k, v in items.items()})


def items_of(out: Any) -> dict[Any, Any] | None:
    """Return the values of a mapping, tuple or list by key or position; None for anything else."""
    if isinstance(out, dict) or hasattr(out, "keys"):
        return dict(out)
    return dict(enumerate(out)) if isinstance(out, tuple | list) else None


def like(out: Any, found: dict[Any, Any]) -> Any:
    """Return a mapping, tuple or list of the type of `out` with the values `found`."""
    if isinstance(out, dict) or hasattr(out, "keys"):
        return found if type(out) is dict else type(out)(**{str(k): v for k, v in found.items()})
    return type(out)(*found.values()) if hasattr(out, "_fields") else type(out)(found.values())


def together(pieces: list[Any]) -> Any:
    """Concatenate the outputs of several calls along the first axis."""
    first = pieces[0]
    if isinstance(first, Tensor):
        return torch.cat(pieces) if first.dim() else first
    if (items := items_of(first)) is None:
        return first
    return like(first, {k: together([(items_of(p) or {})[k] for p in pieces]) for k in items})
