"""Options of an average over frames, declared and validated in one place."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, get_type_hints

from .._checks import is_real, one_of, whole
from .._errors import InputError
from ..algebra import Frame
from ._arguments import OUTPUTS, split_kind

Frames: TypeAlias = Literal["pca", "weighted"] | Callable[..., Frame]
Inputs: TypeAlias = str | Mapping[str, str] | None
Outputs: TypeAlias = str | Mapping[Any, str]
Signs: TypeAlias = Literal["all", "skew", "softskew", "maxabs"]
Scale: TypeAlias = Literal["rms", "max"] | None
OnDegenerate: TypeAlias = Literal["weighted", "error", "warn"]
Gradient: TypeAlias = Literal["through", "detach"]
_GROUP = re.compile(r"(T|O|SO|E|SE|Lorentz)\(([1-9]\d*)\)")
_Callable = TypeVar("_Callable", bound=Callable[..., Any])


@dataclass(frozen=True)
class FrameOptions:
    """Options of an average over frames; `FrameAverage` documents each of them.

    Raises:
        InputError: If an option has a value that it cannot take.
    """

    group: str = "E(3)"
    _: KW_ONLY
    inputs: Inputs = None
    outputs: Outputs = "scalars"
    frames: Frames = "pca"
    signs: Signs = "all"
    scale: Scale = None
    on_degenerate: OnDegenerate = "weighted"
    blend: tuple[float, float] = (1e-3, 1e-2)
    samples: int | None = None
    chunk: int | None = None
    tuples: int = 4096
    gradient: Gradient = "through"

    def __post_init__(self) -> None:
        if _GROUP.fullmatch(str(self.group)) is None:
            raise InputError(
                f"group must be T(d), O(d), SO(d), E(d), SE(d) or Lorentz(d) for a number d, got {self.group!r}"
            )
        self._check_kinds()
        frames = self.frames
        if (not callable(frames) or isinstance(frames, type)) and frames not in ("pca", "weighted"):
            raise InputError(f'frames must be "pca", "weighted" or a function of points and clouds, got {frames!r}')
        if self.family == "T" and frames == "weighted":
            raise InputError(f'the group {self.group} has one frame, the mean; use frames="pca"')
        one_of("signs", self.signs, ("all", "skew", "softskew", "maxabs"))
        one_of("scale", self.scale, (None, "rms", "max"))
        one_of("on_degenerate", self.on_degenerate, ("weighted", "error", "warn"))
        one_of("gradient", self.gradient, ("through", "detach"))
        blend = self.blend
        pair = isinstance(blend, Sequence) and len(blend) == 2 and all(is_real(share) for share in blend)
        if not pair or not 0 <= blend[0] < blend[1]:
            raise InputError(f"blend must be two shares of the variance, the smaller one first, got {blend!r}")
        whole("tuples", self.tuples)
        for name, value in (("samples", self.samples), ("chunk", self.chunk)):
            if value is not None:
                whole(name, value)

    def _check_kinds(self) -> None:
        if not isinstance(self.inputs, str | Mapping | None) or not isinstance(self.outputs, str | Mapping):
            raise InputError(
                f"inputs and outputs must be kinds or mappings to kinds, got {self.inputs!r} and {self.outputs!r}"
            )
        for kind in [self.inputs] if isinstance(self.inputs, str) else (self.inputs or {}).values():
            split_kind(kind)
        if odd := [kind for kind in self.output_kinds if split_kind(kind)[1] not in OUTPUTS]:
            raise InputError(f"an output must be one of {', '.join(OUTPUTS)}, got {odd[0]!r}")

    @property
    def family(self) -> str:
        """Group without its dimension, such as `"SE"`."""
        return self._parts[0]

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return int(self._parts[1])

    @property
    def output_kinds(self) -> list[str]:
        """Kinds of all outputs that have one."""
        return [self.outputs] if isinstance(self.outputs, str) else list(self.outputs.values())

    @property
    def _parts(self) -> tuple[str, ...]:
        return _GROUP.fullmatch(str(self.group)).groups()  # type: ignore[union-attr]


class FrameKeywords(TypedDict, total=False):
    """Types of the keyword arguments that become `FrameOptions`, for editors and type checkers."""

    inputs: Inputs
    outputs: Outputs
    frames: Frames
    signs: Signs
    scale: Scale
    on_degenerate: OnDegenerate
    blend: tuple[float, float]
    samples: int | None
    chunk: int | None
    tuples: int
    gradient: Gradient


def list_options(function: _Callable) -> _Callable:
    """Name the options of `FrameOptions`, with their defaults, in the signature that `help` and notebooks show."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    hints = get_type_hints(FrameOptions)
    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(FrameOptions)
        if field.name not in signature.parameters
    ]
    function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return function
