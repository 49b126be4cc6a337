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
        blend: tuple[float, float],
        samples: int | None,
        chunk: int | None,
        gradient: str,
    ) -> None:
        found = re.fullmatch(r"(T|O|SO|E|SE|Lorentz)\(([1-9]\d*)\)", str(group))
        if found is None:
            raise InputError(
                f"group must be T(d), O(d), SO(d), E(d), SE(d) or Lorentz(d) for a number d, got {group!r}"
            )
        self.group, self.d = found.group(1), int(found.group(2))
        self.signature = inspect.signature(forward)
        names = [n for n, p in self.signature.parameters.items() if p.kind is not p.VAR_KEYWORD]
        first = names[0] if names else "input"
        given = {first: inputs} if isinstance(inputs, str) else dict(inputs or {})
        takes_all = any(p.kind is p.VAR_KEYWORD for p in self.signature.parameters.values())
        if not takes_all and (odd := [n for n in given if n.split("[")[0] not in (*names, "batch", "mask")]):
            raise InputError(f"the network has no argument {odd[0]!r}; it has {', '.join(names)}")
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
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be at least 1, and whole, got {value}")
        choices: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
            ("signs", signs, ("all", "skew", "softskew", "maxabs")),
            ("scale", scale, (None, "rms", "max")),
            ("degenerate", degenerate, ("weighted", "error", "warn")),
        )
        for name, choice, known in choices:
            if choice not in known:
                raise InputError(f"{name} must be one of {', '.join(map(str, known))}, got {choice!r}")
        if not callable(frames) and frames not in ("pca", "weighted"):
            raise InputError(f'frames must be "pca", "weighted" or a function of points and clouds, got {frames!r}')
        self.frames, self.signs, self.scale, self.degenerate = frames, signs, scale, degenerate
        self.blend, self.samples, self.chunk, self.gradient = blend, samples, chunk, gradient

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
        named: dict[str, str] = {}
        for name in arguments:
            named.setdefault(kinds[name], name)  # of several arguments of points, the first gives the frame
        if "points" not in named or not isinstance(points := arguments[named["points"]], Tensor):
            raise InputError(f"a tensor of points is needed, got {', '.join(arguments) or 'no arguments'}")
        if points.shape[-1:] != (self.d,):
            raise InputError(
                f"points must end in {self.d} coordinates for {self.group}({self.d}), got {tuple(points.shape)}"
            )
        layout |= {kind: arguments[named[kind]] for kind in ("batch", "mask") if kind in named}
        clouds = Clouds.of(points, layout.get("batch"), layout.get("mask"))
        proper = self.group in ("SO", "SE")
        polar = ("vectors", "displacements", *(("pseudovectors",) if proper else ()))
        turning = {n: v for n, v in arguments.items() if isinstance(v, Tensor) and kinds[n] in _TURNING}
        for name, value in turning.items():
            if name != named["points"]:
                self._fit(value, kinds[name], name)
        if any(kinds[n] not in (*polar, "points") for n in turning):
            self._refuse_lines(points, clouds)
        frame = self.frame(points, clouds, [v for n, v in turning.items() if kinds[n] in polar])
        if training and self.samples is not None:
            frame = frame.sample(self.samples)
        edges = arguments.get(named.get("edges", ""))
        pieces = []
        with same_dropout(clouds, training) as share:
            for part in frame.parts(self.chunk or len(frame)):
                copied = None if edges is None else part.copies.edges(edges)
                share(part.copies, None if copied is None else copied[1])
                seen = self._each(bound, lambda n, v: _seen(part, v, kinds[n], n, copied, edges))  # noqa: B023
                pieces.append(net(*seen.args, **seen.kwargs))
        out = pieces[0] if len(pieces) == 1 else _together(pieces)
        return self._averaged(frame, out, score, "batch" in named)

    def _fit(self, value: Tensor, kind: str, name: str) -> None:
        axes = (self.d,) * (2 if kind == "tensors" else 1)
        if tuple(value.shape[value.dim() - len(axes) :]) != axes or not value.is_floating_point():
            raise InputError(f"{name} is of kind {kind} and must end in {axes}, got {value.dtype} {tuple(value.shape)}")

    def _refuse_lines(self, points: Tensor, clouds: Clouds) -> None:
        """Around a line every turn leaves the points alone, and tensors or pseudovectors would see which is taken."""
        if self.d < 3 or self.group in ("T", "Lorentz"):
            return
        flat = clouds.here(clouds.flat(points)).detach().double()
        if self.group in ("E", "SE"):
            flat = flat - clouds.spread(clouds.mean(flat))
        spectrum = torch.linalg.eigvalsh(clouds.gram(flat))
        lines = (spectrum[:, -2] <= 1e-12 * spectrum[:, -1]) & (clouds.count(flat) > 0)
        if bool(lines.any()):
            raise InputError(
                f"the points of cloud {int(lines.nonzero()[0])} lie on a line or in one place: its tensors and "
                "pseudovectors can't be averaged exactly"
            )

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
                    options |= {"signs": self.signs, "degenerate": self.degenerate, "blend": self.blend}
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

    def _averaged(self, frame: Frame, out: Any, score: nn.Module | None, per_cloud: bool) -> Any:
        if isinstance(self.outputs, str):
            return _mean(frame, out, self.outputs, score, per_cloud, "the output")
        if not isinstance(out, Mapping | tuple | list):
            raise InputError(f"outputs names {list(self.outputs)}, and the network returns one {type(out).__name__}")
        items: dict[Any, Any] = dict(out) if isinstance(out, Mapping) else dict(enumerate(out))
        if odd := [key for key in self.outputs if key not in items]:
            raise InputError(f"the network returns no {odd[0]!r}; it returns {list(items)}")
        found = {
            key: _mean(frame, value, self.outputs.get(key, "scalars"), score, per_cloud, repr(key))
            for key, value in items.items()
        }
        return _like(out, found)


def _mean(frame: Frame, out: Any, kind: str, score: nn.Module | None, per_cloud: bool, name: str) -> Any:
    """The mean over frames of a tensor, or of every tensor of a nest of tuples and mappings."""
    if isinstance(out, Tensor):
        try:
            restored = frame.restore(out, kind)  # type: ignore[arg-type]
            return frame.pool(restored, _scores(frame, out, score), per_cloud=per_cloud)
        except InputError as error:
            raise InputError(f"{name} can't be averaged: {error}") from None
    if isinstance(out, Mapping | tuple | list):
        items: dict[Any, Any] = dict(out) if isinstance(out, Mapping) else dict(enumerate(out))
        return _like(out, {k: _mean(frame, v, kind, score, per_cloud, f"{name}, {k!r}") for k, v in items.items()})
    return out


def _like(out: Any, found: dict[Any, Any]) -> Any:
    """Values in the place of those of a mapping, tuple or list."""
    if isinstance(out, Mapping):
        return found if type(out) is dict else type(out)(**{str(k): v for k, v in found.items()})
    return type(out)(*found.values()) if hasattr(out, "_fields") else type(out)(found.values())


def _seen(
    frame: Frame, value: Any, kind: str, name: str, edges: tuple[Tensor, Tensor] | None, given: Tensor | None
) -> Any:
    """An argument as the network shall see it: turned by each frame, or copied for it."""
    copies, clouds = frame.copies, frame.clouds
    if kind == "batch":
        return copies.clouds.index
    if not isinstance(value, Tensor) or kind == "shared":
        return value
    if kind in ("edges", "edge scalars"):
        if edges is None or given is None:
            raise InputError(f"{name} needs an argument of kind edges beside it")
        if kind == "edge scalars" and len(value) != given.shape[1]:
            raise InputError(f"{name} must have {given.shape[1]} rows, one an edge, got shape {tuple(value.shape)}")
        return edges[0] if kind == "edges" else value[edges[1]]
    turns = kind in _TURNING
    own = value.dim() - (0 if not turns else 2 if kind == "tensors" else 1)  # axes before those that turn
    lead = clouds.lead if clouds.index is None else (clouds.number,)
    fits = tuple(value.shape[: len(lead)]) == lead
    if clouds.index is not None:
        of_points, of_clouds = len(value) == len(clouds.index), fits
    else:
        of_points, of_clouds = fits and not (turns and own == len(lead)), fits
    if of_points:
        return frame.canonicalize(value, kind) if turns else copies.of(clouds.flat(value))  # type: ignore[arg-type]
    if of_clouds:
        flat = value.reshape(clouds.number, *value.shape[len(lead) :])
        if kind == "points":
            flat = flat - frame.origin.to(flat.dtype)
        return frame.see(flat[frame.cloud], kind) if turns else flat[frame.cloud]  # type: ignore[arg-type]
    shape = (
        f"{len(clouds.index)} or {clouds.number} rows"
        if clouds.index is not None
        else f"a shape that begins with {lead}"
    )
    raise InputError(
        f"{name} must have {shape}, as the points do, or be of kind shared; got shape {tuple(value.shape)}"
    )


def _as_rows(value: Tensor, points: Tensor, clouds: Clouds) -> Float[Tensor, "*lead n k d"]:
    """Vectors of points or of clouds as rows of the points."""
    lead, d = points.shape[:-1], points.shape[-1]
    if value.shape[: len(lead)] == lead and value.dim() > len(lead):
        return value.reshape(*lead, -1, d)
    own = (clouds.number,) if clouds.ragged else tuple(lead[:-1])
    if tuple(value.shape[: len(own)]) != own:
        raise InputError(f"vectors must have a row for each point or cloud, got shape {tuple(value.shape)}")
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
    copies = frame.copies.clouds
    if not copies.ragged:
        if copies.weight is not None and rows.shape[:2] == copies.weight.shape:  # a row for each point
            rows = rows.flatten(2).mean(2) if rows.dim() > 2 else rows
            return copies.mean(rows)
        return rows.reshape(len(rows), -1).mean(1)
    rows = rows.reshape(len(rows), -1).mean(1)
    if len(rows) == len(frame):
        return rows
    return copies.mean(rows)


def _together(pieces: list[Any]) -> Any:
    first = pieces[0]
    if isinstance(first, Tensor):
        return torch.cat(pieces) if first.dim() else first
    if isinstance(first, Mapping):
        return _like(first, {k: _together([p[k] for p in pieces]) for k in first})
    if isinstance(first, tuple | list):
        return _like(first, {i: _together(list(p)) for i, p in enumerate(zip(*pieces, strict=True))})
    return first
