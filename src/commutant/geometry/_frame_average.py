"""Frame averaging: any network made exactly invariant or equivariant, by the mean over a few poses of its input."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import Clouds, Frame, pca_frame, weighted_frame
from ..laws import (
    BatchIndependence,
    Draw,
    Equivariance,
    Euclidean,
    GradientEquivariance,
    Invariance,
    Law,
    Reflection,
    Rotation,
    SetPermutation,
    breaks,
    obeys,
)
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


_SINGLE = {torch.float32: 1e-2}  # as for the frames themselves


def _wrapped(law: Callable[[], Law], outputs: str = "scalars", group: str = "E(3)", few: int | None = None):  # type: ignore[no-untyped-def]
    """A law of a network of points and its average: one number, a point or a vector for each cloud or point."""

    def case(draw: Draw):  # type: ignore[no-untyped-def]
        width = 3 if outputs == "vectors" else 9 if outputs == "points" else 4
        net = draw.module(lambda: _Plain(width))
        average = FrameAverage(net, group, outputs=outputs, samples=few)
        return law(), average.train(few is not None), draw.normal(3, draw.size + 3, 3)

    return case


class _Plain(nn.Module):
    """A network of points with no symmetry but that of sets."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 16), nn.Linear(32, width)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inner(x))
        h = self.outer(torch.cat([h, h.mean(-2, keepdim=True).expand_as(h)], -1)).cumsum(-1).sin()
        return h.mean(-2) if h.shape[-1] == 4 else h.unflatten(-1, (-1, 3))[..., 0, :]


@obeys("invariance", _wrapped(lambda: Invariance(Euclidean(3) * SetPermutation(1))), tolerance=_SINGLE)
@obeys("equivariance of points", _wrapped(lambda: Equivariance(Euclidean(3)), "points"), tolerance=_SINGLE)
@obeys(
    "equivariance of vectors",
    _wrapped(lambda: Equivariance(Euclidean(3, reflect=False), Euclidean(3).on_vectors), "vectors", "SE(3)"),
    tolerance=_SINGLE,
)
@obeys("gradients turn too", _wrapped(lambda: GradientEquivariance(Euclidean(3))), tolerance={torch.float32: 0.1})
@obeys("batch independence", _wrapped(BatchIndependence), tolerance=_SINGLE)
@breaks("a frame drawn at random in place of all", _wrapped(lambda: Invariance(Rotation(3)), few=1))
@breaks("mirror images of a proper group", _wrapped(lambda: Invariance(Reflection(3)), group="SE(3)"))
class FrameAverage(nn.Module):
    """A network made exactly invariant or equivariant under a group of motions of space.

    `mean over g in F(X) of g net(g^{-1} X)`, where the frame F(X) holds a few elements of the group that move with the
    input. Called as the network is. Every argument answers to the group in its own way, by its *kind*:

    | kind | under x -> R x + t |
    | --- | --- |
    | `points` | R x + t |
    | `vectors` (`displacements`: also scaled with the cloud) | R x |
    | `pseudovectors` | det(R) R x |
    | `tensors` | R x R^T |
    | `scalars` | x, one row a point or a cloud |
    | `batch`, `mask`, `edges`, `edge scalars` | x: the layout, as in PyG |
    | `shared` | x, the same for all clouds |

    Gradients flow through the choice of the frame, so that forces of an invariant energy are exact and free of torque.
    Puny et al., "Frame Averaging for Invariant and Equivariant Network Design", ICLR 2022, equations 3 and 4; near
    degenerate clouds the weighted frames of Dym, Lawrence and Siegel, ICML 2024, take over smoothly.

    Use it for a backbone that has no symmetry, or only that of sets. A network costs `2^d` evaluations an input under
    E(d), half of that under SE(d); `signs="skew"` brings it down to one nearly always.

    Args:
        net: any module whose first axis is that of clouds, or of points with `batch`.
        group: `"E(3)"`, `"SE(3)"`, `"O(3)"`, `"SO(3)"` or `"T(3)"`, in any dimension.
        inputs: the kind of the first argument, or a mapping from names of the network's arguments to kinds. By
            default the first is `points`, and names of PyG mean what they mean there (`pos`, `vel`, `batch`, `mask`,
            `edge_index`, `edge_attr`); other tensors are `scalars`.
        outputs: the kind of every tensor of the output, or a mapping from its keys or positions to kinds.
        frames: `"pca"`, `"weighted"`, or a function `(points, clouds) -> Frame`.
        signs: of the axes, as in `commutant.algebra.pca_frame`.
        degenerate: where axes are not distinct: `"weighted"`, `"error"` or `"warn"`, as there.
        samples: frames drawn for each cloud in training; evaluation takes all.
        chunk: frames evaluated at a time.
        gradient: `"through"` the frame, or `"detach"`, which is faster and gives wrong forces.
        score: a module from the network's output to one number a row; the mean is then weighted by its softmax.

    Shapes:
        As the network's. Points are `(*lead, n, d)`, or `(points, d)` with `batch`. The network sees one leading axis.

    Raises:
        InputError: unknown names and kinds, arguments that do not fit the points, NaN.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> field = FrameAverage(net, "SE(3)", outputs="vectors")
        >>> field(torch.randn(4, 10, 3)).shape
        torch.Size([4, 10, 3])
    """

    def __init__(
        self,
        net: nn.Module,
        group: str = "E(3)",
        *,
        inputs: str | Mapping[str, str] | None = None,
        outputs: str | Mapping[Any, str] = "scalars",
        frames: Frames = "pca",
        signs: str = "all",
        degenerate: str = "weighted",
        samples: int | None = None,
        chunk: int | None = None,
        gradient: Literal["through", "detach"] = "through",
        score: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.net, self.score = net, score
        self.averaging = Averaging(
            net.forward, group, inputs, outputs, frames, signs, degenerate, samples, chunk, gradient
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output, averaged over frames; arguments as the network takes them, and `batch` or `mask`."""
        return self.averaging(self.net, self.training, self.score, args, kwargs)

    def extra_repr(self) -> str:
        return repr(self.averaging)


def symmetrize_(
    module: nn.Module,
    group: str = "E(3)",
    *,
    inputs: str | Mapping[str, str] | None = None,
    outputs: str | Mapping[Any, str] = "scalars",
    frames: Frames = "pca",
    signs: str = "all",
    degenerate: str = "weighted",
    samples: int | None = None,
    chunk: int | None = None,
    gradient: Literal["through", "detach"] = "through",
) -> nn.Module:
    """Make a module symmetric in place: its parameters, their names and its class's methods stay.

    For models whose class matters to what is around them (Hugging Face, Lightning): the module's class becomes a
    subclass of its own in which `forward` averages over frames. Arguments as for `FrameAverage`.

    Returns:
        The same module.

    Example:
        >>> net = symmetrize_(nn.Linear(2, 2, bias=False), "SO(2)", outputs="vectors")
        >>> isinstance(net, nn.Linear), list(net.state_dict())
        (True, ['weight'])
    """
    own = type(module)
    if isinstance(getattr(own, "averaging", None), Averaging):
        raise InputError(f"{own.__name__} is symmetrized already")
    averaging = Averaging(module.forward, group, inputs, outputs, frames, signs, degenerate, samples, chunk, gradient)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return averaging(partial(own.forward, self), self.training, None, args, kwargs)

    module.__class__ = type(f"Symmetrized{own.__name__}", (own,), {"forward": forward, "averaging": averaging})
    return module


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
        degenerate: str,
        samples: int | None,
        chunk: int | None,
        gradient: str,
    ) -> None:
        found = re.fullmatch(r"(T|O|SO|E|SE)\((\d+)\)", group)
        if found is None:
            raise InputError(f"group must be T(d), O(d), SO(d), E(d) or SE(d) for a number d, got {group!r}")
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
        self.frames, self.signs, self.degenerate = frames, signs, degenerate
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
        else:
            with torch.autocast(points.device.type, enabled=False):
                rows = [_as_rows(v, points, clouds) for v in directions]
                options: dict[str, Any] = {"clouds": clouds, "directions": torch.cat(rows, -2) if rows else None}
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
