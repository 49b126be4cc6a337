"""The average of a function of clouds over frames: arguments by kind, copied for each frame, outputs turned back."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import Clouds, Frame, lorentz_frame, pca_frame, weighted_frame
from ._same_dropout import same_dropout

Frames: TypeAlias = Literal["pca", "weighted"] | Callable[..., Frame]
_CONVENTION = {
    "pos": "points",
    "vel": "vectors",
    "batch": "batch",
    "mask": "mask",
    "edge_index": "edges",
    "edge_attr": "edge scalars",
}
_TURNING = ("points", "displacements", "vectors", "pseudovectors", "tensors")
_KINDS = (*_TURNING, "scalars", "batch", "mask", "edges", "edge scalars", "shared")


class Averaging:
    """The average over frames of a function of clouds: what `FrameAverage` and `symmetrize_` share."""

    def __init__(
        self,
        forward: Callable[..., Any],
        group: str,
        inputs: str | Mapping[str, str] | None,
        outputs: str | Mapping[Any, str],
        frames: Frames,
        signs: str,
        scale: str | None,
        degenerate: str,
        samples: int | None,
        chunk: int | None,
        gradient: str,
    ) -> None:
        found = re.fullmatch(r"(T|O|SO|E|SE|Lorentz)\((\d+)\)", group)
        if found is None:
            raise InputError(
                f"group must be T(d), O(d), SO(d), E(d), SE(d) or Lorentz(d) for a number d, got {group!r}"
            )
        self.group, self.d = found.group(1), int(found.group(2))
        self.signature = inspect.signature(forward)
        names = [n for n, p in self.signature.parameters.items() if p.kind is not p.VAR_KEYWORD]
        first = names[0] if names else "input"
        given = {first: inputs} if isinstance(inputs, str) else dict(inputs or {})
        self.inputs = {**_CONVENTION, **given}
        if "points" not in (self.inputs[n] for n in (*names, *given) if n in self.inputs):
            self.inputs.setdefault(first, "points")
        self.outputs = outputs
        kinds = [outputs] if isinstance(outputs, str) else list(outputs.values())
        for kind in (*self.inputs.values(), *kinds):
            if kind not in _KINDS:
                raise InputError(f"kinds are {', '.join(_KINDS)}; got {kind!r}")
        if odd := [kind for kind in kinds if kind not in (*_TURNING, "scalars")]:
            raise InputError(f"an output is one of {', '.join((*_TURNING, 'scalars'))}, got {odd[0]!r}")
        if gradient not in ("through", "detach"):
            raise InputError(f'gradient must be "through" or "detach", got {gradient!r}')
        for name, value in (("samples", samples), ("chunk", chunk)):
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if not callable(frames) and frames not in ("pca", "weighted"):
            raise InputError(f'frames must be "pca", "weighted" or a function of points and clouds, got {frames!r}')
        self.frames, self.signs, self.scale, self.degenerate = frames, signs, scale, degenerate
        self.samples, self.chunk, self.gradient = samples, chunk, gradient

    def __repr__(self) -> str:
        frames = self.frames if isinstance(self.frames, str) else getattr(self.frames, "__name__", "frames")
        few = "" if self.samples is None else f", samples={self.samples}"
        return f"{self.group}({self.d}), frames={frames}{few}" + (", detached" if self.gradient == "detach" else "")

    def __call__(
        self,
        net: Callable[..., Any],
        training: bool,
        score: nn.Module | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        bound, layout = self._bind(args, kwargs)
        arguments: dict[str, Any] = {}
        self._each(bound, arguments.setdefault)
        kinds = {name: self.inputs.get(name, "scalars") for name in arguments}
        named = {kinds[name]: name for name in arguments}
        if "points" not in named or not isinstance(points := arguments[named["points"]], Tensor):
            raise InputError(f"a tensor of points is needed, got {', '.join(arguments) or 'no arguments'}")
        if points.shape[-1:] != (self.d,):
            raise InputError(
                f"points must end in {self.d} coordinates for {self.group}({self.d}), got {tuple(points.shape)}"
            )
        layout |= {kind: arguments[named[kind]] for kind in ("batch", "mask") if kind in named}
        clouds = Clouds.of(points, layout.get("batch"), layout.get("mask"))
        frame = self.frame(
            points, clouds, [v for n, v in arguments.items() if kinds[n] in ("vectors", "displacements")]
        )
        if training and self.samples is not None:
            frame = frame.sample(self.samples)
        edges = arguments.get(named.get("edges", ""))
        pieces = []
        with same_dropout(clouds) as share:
            for part in frame.parts(self.chunk or len(frame)):
                share(part.copies)
                copied = None if edges is None else part.copies.edges(edges)
                seen = self._each(bound, lambda n, v: _seen(part, v, kinds[n], n, copied))  # noqa: B023
                pieces.append(net(*seen.args, **seen.kwargs))
        out = pieces[0] if len(pieces) == 1 else _together(pieces)
        return self._averaged(frame, out, score)

    def frame(self, points: Tensor, clouds: Clouds, directions: Sequence[Tensor] = ()) -> Frame:
        """The frame of a batch of clouds; directions turn with them and settle what they leave open."""
        if callable(self.frames):
            frame = self.frames(points, clouds)
        elif self.group == "Lorentz":
            with torch.autocast(points.device.type, enabled=False):
                frame = lorentz_frame(points, clouds=clouds)
        else:
            with torch.autocast(points.device.type, enabled=False):
                rows = [_as_rows(v, points, clouds) for v in directions]
                options: dict[str, Any] = {"clouds": clouds, "directions": torch.cat(rows, -2) if rows else None}
                options["scale"] = self.scale
                if self.frames == "pca":
                    options |= {"signs": self.signs, "degenerate": self.degenerate}
                build = pca_frame if self.frames == "pca" or self.group == "T" else weighted_frame
                frame = build(points, self.group, **options)  # type: ignore[arg-type]
        return frame.detach() if self.gradient == "detach" else frame

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[inspect.BoundArguments, dict[str, Any]]:
        """The arguments of the network, and what only the frame needs: a layout that the network does not ask for."""
        parameters = self.signature.parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        own = {n for n in ("batch", "mask") if n in kwargs and n not in parameters and not takes_all}
        try:
            bound = self.signature.bind(*args, **{n: v for n, v in kwargs.items() if n not in own})
        except TypeError as error:
            raise InputError(f"the network can't be called like this: {error}") from None
        return bound, {n: kwargs[n] for n in own}

    def _each(self, bound: inspect.BoundArguments, change: Callable[[str, Any], Any]) -> inspect.BoundArguments:
        """The arguments with each one changed, those that stand for many taken one by one."""
        out = inspect.BoundArguments(self.signature, type(bound.arguments)())
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                out.arguments[name] = {n: change(n, v) for n, v in value.items()}
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                out.arguments[name] = tuple(change(f"{name}[{i}]" if i else name, v) for i, v in enumerate(value))
            else:
                out.arguments[name] = change(name, value)
        return out

    def _averaged(self, frame: Frame, out: Any, score: nn.Module | None) -> Any:
        if isinstance(out, Tensor):
            kind = self.outputs if isinstance(self.outputs, str) else "scalars"
            return frame.pool(frame.restore(out, kind), _scores(frame, out, score))  # type: ignore[arg-type]
        items = (
            dict(out) if isinstance(out, Mapping) else dict(enumerate(out)) if isinstance(out, tuple | list) else None
        )
        if items is None:
            raise InputError(
                f"the network must return tensors, or a tuple or mapping of them, got {type(out).__name__}"
            )
        found = {}
        for key, value in items.items():
            kind = self.outputs if isinstance(self.outputs, str) else self.outputs.get(key, "scalars")
            found[key] = (
                frame.pool(frame.restore(value, kind), _scores(frame, value, score))  # type: ignore[arg-type]
                if isinstance(value, Tensor)
                else value
            )
        if isinstance(out, Mapping):
            return type(out)(**{str(k): v for k, v in found.items()})
        return type(out)(*found.values()) if hasattr(out, "_fields") else type(out)(found.values())


def _seen(frame: Frame, value: Any, kind: str, name: str, edges: tuple[Tensor, Tensor] | None) -> Any:
    """An argument as the network shall see it: turned by each frame, or copied for it."""
    copies, clouds = frame.copies, frame.clouds
    if kind == "batch":
        return copies.clouds.index
    if not isinstance(value, Tensor) or kind == "shared":
        return value
    if kind in ("edges", "edge scalars"):
        if edges is None:
            raise InputError(f"{name} needs an argument of kind edges beside it")
        return edges[0] if kind == "edges" else value[edges[1]]
    turns = kind in _TURNING
    if clouds.index is not None:
        if len(value) == len(clouds.index):
            return frame.canonicalize(value, kind) if turns else copies.of(value)  # type: ignore[arg-type]
        if len(value) == clouds.number and kind != "points":
            return frame.see(value[frame.cloud], kind) if turns else value[frame.cloud]  # type: ignore[arg-type]
        shape = f"{len(clouds.index)} or {clouds.number} rows"
    elif tuple(value.shape[: len(clouds.lead)]) == clouds.lead:
        return frame.canonicalize(value, kind) if turns else copies.of(clouds.flat(value))  # type: ignore[arg-type]
    else:
        shape = f"a shape that begins with {clouds.lead}"
    raise InputError(
        f"{name} must have {shape}, as the points do, or be of kind shared; got shape {tuple(value.shape)}"
    )


def _as_rows(value: Tensor, points: Tensor, clouds: Clouds) -> Float[Tensor, "*lead n k d"]:
    """Vectors of points or of clouds as rows of the points."""
    lead, d = points.shape[:-1], points.shape[-1]
    if value.shape[: len(lead)] == lead:
        return value.reshape(*lead, -1, d)
    flat = clouds.spread(value.reshape(clouds.number, -1, d))
    return (
        flat.reshape(*lead, -1, d)
        if clouds.ragged
        else flat.expand(clouds.number, lead[-1], -1, d).reshape(*lead, -1, d)
    )


def _scores(frame: Frame, out: Tensor, score: nn.Module | None) -> Float[Tensor, " frames"] | None:
    """One number for each frame from what the network made of it."""
    if score is None:
        return None
    rows = score(out)
    rows = rows.reshape(len(rows), -1).mean(1)
    if len(rows) == len(frame):
        return rows
    copies = frame.copies.clouds
    return copies.total(rows) / copies.count(rows).clamp(min=1).to(rows.dtype)


def _together(pieces: list[Any]) -> Any:
    first = pieces[0]
    if isinstance(first, Tensor):
        return torch.cat(pieces)
    if isinstance(first, Mapping):
        return type(first)(**{str(k): _together([p[k] for p in pieces]) for k in first})
    if isinstance(first, tuple | list):
        parts = [_together(list(p)) for p in zip(*pieces, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first
