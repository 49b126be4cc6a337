"""Average of a function of clouds over frames, which copies the arguments and rotates the outputs back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import Clouds, Frame, lorentz_frame, pca_frame, weighted_frame
from ._arguments import (
    TURNING,
    as_rows,
    holds_indices,
    items_of,
    like,
    mean_over,
    seen_by,
    split_kind,
    together,
)
from ._frame_options import FrameOptions
from ._graph_data import graph_fields, graph_with, is_graph, number_of_graphs
from ._same_randomness import same_randomness

_CONVENTION = {
    "pos": "points",
    "vel": "point vectors",
    "batch": "batch",
    "mask": "mask",
    "edge_index": "edges",
    "edge_attr": "edge scalars",
}


class Averaging:
    """Average over frames of a function of clouds, shared by `FrameAverage` and `symmetrize_`.

    Args:
        forward: Function whose signature names the arguments.
        options: Group, kinds, and the choice of frames.
    """

    def __init__(self, forward: Callable[..., Any], options: FrameOptions) -> None:
        self.options, self.group, self.d = options, options.family, options.dimension
        self.signature = inspect.signature(forward)
        names = [n for n, p in self.signature.parameters.items() if p.kind is not p.VAR_KEYWORD]
        first = names[0] if names else "input"
        self.given = {first: options.inputs} if isinstance(options.inputs, str) else dict(options.inputs or {})
        self.inputs = {**_CONVENTION, **self.given}
        if "points" not in (split_kind(self.inputs[n])[1] for n in (*names, *self.given) if n in self.inputs):
            self.inputs.setdefault(first, "points")
        # above three dimensions, tuples of points need not average tensors over two empty directions
        tensors = any(split_kind(kind)[1] == "tensors" for kind in options.output_kinds)
        self.needs_spread = tensors and self.d > 3 and options.frames == "weighted"

    def __repr__(self) -> str:
        options = self.options
        frames = options.frames if isinstance(options.frames, str) else getattr(options.frames, "__name__", "frames")
        few = "" if options.samples is None else f", samples={options.samples}"
        return f"{options.group}, frames={frames}{few}" + (", detached" if options.gradient == "detach" else "")

    def __call__(
        self,
        net: Callable[..., Any],
        training: bool,
        score: nn.Module | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        exporting = torch.compiler.is_exporting()
        if exporting and training:
            raise InputError("a frame average can be exported in evaluation mode only; call model.eval() first")
        bound, layout = self._bind(args, kwargs)
        arguments: dict[str, Any] = {}
        self._each(bound, arguments.setdefault)
        kinds = self._kinds(arguments, layout)
        number = next((number_of_graphs(v) for v in bound.arguments.values() if is_graph(v)), None)
        points, clouds = self._clouds(arguments, kinds, layout, number)
        rows = self._directions(arguments, kinds, points, clouds)
        frame = self.frame(points, clouds, rows)
        if training and self.options.samples is not None:
            frame = frame.sample(self.options.samples)
        edges = {n: v for n, v in arguments.items() if kinds[n] == "edges" and isinstance(v, Tensor)}
        pieces = []
        several = training and len(frame) > len(torch.unique(frame.cloud))
        with same_randomness(clouds, several) as share:
            for part in [frame] if exporting else frame.parts(self.options.chunk or max(1, len(frame))):
                copied = {name: part.copies.edges(value) for name, value in edges.items()}
                share(part.copies, [behind for _, behind in copied.values()])
                view = partial(self._seen, part, kinds, points, copied, edges)
                seen = self._each(bound, view, part.copies.clouds)
                pieces.append(net(*seen.args, **seen.kwargs))
        out = pieces[0] if len(pieces) == 1 else together(pieces)
        return self._averaged(frame, out, score)

    def _kinds(self, arguments: dict[str, Any], layout: dict[str, Any]) -> dict[str, str]:
        """Return the kind of each argument."""
        known = (*arguments, *self.signature.parameters, "batch", "mask")
        if odd := [name for name in self.given if name.split("[")[0] not in known]:
            raise InputError(f"the network has no argument {odd[0]!r}; it has {', '.join(arguments)}")
        ragged = layout.get("batch") is not None or any(
            isinstance(v, Tensor) and self.inputs.get(n) == "batch" for n, v in arguments.items()
        )
        return {name: self._kind_of(name, value, ragged) for name, value in arguments.items()}

    def _clouds(
        self, arguments: dict[str, Any], kinds: dict[str, str], layout: dict[str, Any], number: int | None
    ) -> tuple[Tensor, Clouds]:
        """Return the points that give the frame, and the layout of their clouds."""
        named: dict[str, str] = {}
        for name, kind in kinds.items():
            # the first of several arguments of points gives the frame
            named.setdefault(kind if kind.startswith("cloud ") else split_kind(kind)[1], name)
        if "points" not in named or not isinstance(points := arguments[named["points"]], Tensor):
            raise InputError(f"at least one tensor of points is needed, got {', '.join(arguments) or 'no arguments'}")
        if points.shape[-1:] != (self.d,):
            raise InputError(
                f"points must end in {self.d} coordinates for {self.group}({self.d}), got {tuple(points.shape)}"
            )
        layout = layout | {kind: arguments[named[kind]] for kind in ("batch", "mask") if kind in named}
        return points, Clouds.of(points, layout.get("batch"), layout.get("mask"), number)

    def _directions(
        self, arguments: dict[str, Any], kinds: dict[str, str], points: Tensor, clouds: Clouds
    ) -> list[Tensor]:
        """Return the vectors that rotate with the points, with rows of points; check all arguments that rotate."""
        bases = {name: split_kind(kind)[1] for name, kind in kinds.items()}
        turning = {n: v for n, v in arguments.items() if isinstance(v, Tensor) and bases[n] in TURNING}
        for name, value in turning.items():
            if value is not points or bases[name] != "points":
                self._fit(value, bases[name], name)
        proper = self.group in ("SO", "SE")
        polar = ("vectors", "displacements", *(("pseudovectors",) if proper else ()))
        if self.needs_spread or any(bases[n] not in (*polar, "points") for n in turning):
            if torch.compiler.is_exporting():
                raise InputError("an average with tensors or pseudovectors among its inputs can't be exported")
            self._refuse_lines(points, clouds)
        return [as_rows(v, kinds[n], n, points, clouds) for n, v in turning.items() if bases[n] in polar]

    def _kind_of(self, name: str, value: Any, ragged: bool) -> str:
        """Return the kind of an argument; one without a kind is classified by its name, as in PyG."""
        if name in self.inputs:
            return self.inputs[name]
        if ragged and holds_indices(name, value):
            return "edges"
        return "edge scalars" if name.startswith("edge_") else "scalars"

    @staticmethod
    def _seen(
        frame: Frame,
        kinds: dict[str, str],
        points: Tensor,
        copied: Any,
        edges: dict[str, Tensor],
        name: str,
        value: Any,
    ) -> Any:
        return seen_by(frame, value, kinds[name], name, points, copied, edges)

    def _fit(self, value: Tensor, kind: str, name: str) -> None:
        axes = (self.d,) * (2 if kind == "tensors" else 1)
        if tuple(value.shape[value.dim() - len(axes) :]) != axes or not value.is_floating_point():
            raise InputError(f"{name} is of kind {kind} and must end in {axes}, got {value.dtype} {tuple(value.shape)}")

    def _refuse_lines(self, points: Tensor, clouds: Clouds) -> None:
        """Refuse clouds on a line: tensors and pseudovectors would depend on an arbitrary rotation about it."""
        if self.d < 3 or self.group in ("T", "Lorentz"):
            return
        flat = clouds.here(clouds.flat(points)).detach().double()
        if self.group in ("E", "SE"):
            flat = flat - clouds.spread(clouds.mean(flat))
        spectrum = torch.linalg.eigvalsh(clouds.gram(flat))
        lines = (spectrum[:, 1] <= 1e-12 * spectrum[:, -1]) & (clouds.count(flat) > 0)
        if bool(lines.any()):
            raise InputError(
                f"the points of cloud {int(lines.nonzero()[0])} are collinear or coincide, or have no extent in two "
                "directions: its tensors and pseudovectors can't be averaged exactly"
            )

    def frame(self, points: Tensor, clouds: Clouds, rows: Sequence[Tensor] = ()) -> Frame:
        """Return the frame of a batch of clouds; `rows` of vectors rotate with the points and break their ties."""
        options = self.options
        if callable(options.frames):
            frame = options.frames(points, clouds)
            if not isinstance(frame, Frame):
                raise InputError(f"frames must return a Frame, got {type(frame).__name__}")
        elif self.group == "Lorentz":
            with torch.autocast(points.device.type, enabled=False):
                frame = lorentz_frame(points, clouds=clouds)
        else:
            with torch.autocast(points.device.type, enabled=False):
                given: dict[str, Any] = {"clouds": clouds, "directions": torch.cat(list(rows), -2) if rows else None}
                given |= {"scale": options.scale, "tuples": options.tuples}
                if options.frames == "pca":
                    given |= {"signs": options.signs, "on_degenerate": options.on_degenerate, "blend": options.blend}
                build = pca_frame if options.frames == "pca" or self.group == "T" else weighted_frame
                frame = build(points, self.group, **given)  # type: ignore[arg-type]
        return frame.detach() if options.gradient == "detach" else frame

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[inspect.BoundArguments, dict[str, Any]]:
        """Return the arguments of the network, and a layout (`batch`, `mask`) that only the frame needs."""
        parameters = self.signature.parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        own = {n for n in ("batch", "mask") if n in kwargs and n not in parameters and not takes_all}
        try:
            bound = self.signature.bind(*args, **{n: v for n, v in kwargs.items() if n not in own})
        except TypeError as error:
            raise InputError(f"the network can't be called like this: {error}") from None
        return bound, {n: kwargs[n] for n in own}

    def _each(
        self, bound: inspect.BoundArguments, change: Callable[[str, Any], Any], clouds: Clouds | None = None
    ) -> inspect.BoundArguments:
        """Return the arguments with `change(name, value)` applied to each of them, also within graphs of PyG.

        Args:
            bound: The arguments.
            change: Function of the name and the value of an argument.
            clouds: Layout of the graphs that are put together again.
        """
        out = inspect.BoundArguments(self.signature, type(bound.arguments)())

        def changed(name: str, value: Any) -> Any:
            if not is_graph(value):
                return change(name, value)
            return graph_with(value, {n: change(n, v) for n, v in graph_fields(value).items()}, clouds)

        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                out.arguments[name] = {n: changed(n, v) for n, v in value.items()}
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                out.arguments[name] = tuple(changed(f"{name}[{i}]" if i else name, v) for i, v in enumerate(value))
            else:
                out.arguments[name] = changed(name, value)
        return out

    def _averaged(self, frame: Frame, out: Any, score: nn.Module | None) -> Any:
        scored, outputs = partial(_scores, frame, score), self.options.outputs
        if isinstance(outputs, str):
            return mean_over(frame, out, outputs, scored)
        if (items := items_of(out)) is None:
            raise InputError(f"outputs names {list(outputs)}, and the network returns one {type(out).__name__}")
        if odd := [key for key in outputs if key not in items]:
            raise InputError(f"the network returns no {odd[0]!r}; it returns {list(items)}")
        return like(out, {k: mean_over(frame, v, outputs.get(k, "scalars"), scored, repr(k)) for k, v in items.items()})


def _scores(frame: Frame, score: nn.Module | None, out: Tensor) -> Float[Tensor, " frames"] | None:
    """Return one number for each frame from the network's output in it; None without a score."""
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
