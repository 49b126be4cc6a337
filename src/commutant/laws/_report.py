"""What a check found, in figures and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ._inputs import Inputs, named_tensors

Status: TypeAlias = Literal["holds", "vacuous", "unresolved", "broken"]

_ROUNDING = 32.0  # roundings of the largest output value that an honest computation may be off by
_PASTE = 240  # numbers that a witness prints in full


@dataclass(frozen=True)
class Comparison:
    """How far apart the two sides of a law are, for one input and one group element."""

    relative: float
    """Largest difference over the output's variation (infinite where the output does not vary but the sides differ)."""
    resolution: float
    """The smallest relative difference that rounding of the largest value would let one see."""
    nan: bool
    mismatch: str | None
    varies: bool

    @classmethod
    def of(cls, left: Any, right: Any, *, scale: dict[str, Tensor]) -> Comparison:
        for side in (left, right):
            if isinstance(side, Exception):
                said = f"one side raised {type(side).__name__}: {side}"
                return cls(float("inf"), 0.0, False, said, True)
        a, b = list(named_tensors(left)), list(named_tensors(right))
        if [t.shape for _, t in a] != [t.shape for _, t in b]:
            shapes = [", ".join(str(tuple(t.shape)) for _, t in side) for side in (a, b)]
            return cls(float("inf"), 0.0, False, f"the left side has shape {shapes[0]}, the right {shapes[1]}", True)
        if [name for name, _ in a] != [name for name, _ in b]:
            names = [", ".join(name for name, _ in side) for side in (a, b)]
            return cls(float("inf"), 0.0, False, f"the left side holds {names[0]}, the right {names[1]}", True)
        worst, resolution, nan, varies = 0.0, 0.0, False, False
        for (name, s), (_, t) in zip(a, b, strict=True):
            if not s.numel():
                continue
            nan = nan or bool(s.isnan().any() or t.isnan().any())
            wide = torch.complex128 if s.is_complex() else torch.float64
            s_wide, t_wide = s.to(wide), t.to(wide)
            difference = torch.where(s_wide == t_wide, 0.0, (s_wide - t_wide).abs())
            gap = channel_max(difference.nan_to_num(nan=float("inf"), posinf=float("inf")))
            size = scale.get(name, torch.zeros(()))
            if size.numel() != gap.numel():  # sizes vary from draw to draw: one scale for the whole tensor
                gap, size = gap.max()[None], size.square().mean().sqrt()[None]
            finite = channel_max(torch.where(s_wide.isfinite(), s_wide.abs(), 0.0))
            eps = torch.finfo(s.dtype).eps if s.dtype.is_floating_point or s.dtype.is_complex else 0.0
            rounding = _ROUNDING if eps < 1e-6 else 1.0  # half precision rounds once, what it sums is wider
            floor = rounding * eps * (finite if finite.numel() == gap.numel() else finite.max()[None])
            alive = size > floor / rounding
            varies = varies or bool(alive.any())
            if bool((gap[~alive] > floor.expand_as(gap)[~alive]).any()) or (eps == 0.0 and bool((gap > 0).any())):
                worst = float("inf")
            if bool(alive.any()):
                worst = max(worst, float((gap[alive] / size[alive]).max()))
                resolved = float((floor.expand_as(gap)[alive] / size[alive]).max())
                resolution = max(resolution, resolved)
        return cls(worst, resolution, nan, None, varies)

    @property
    def kind(self) -> str:
        """What sort of failure this is; a witness is shrunk within one sort."""
        return "mismatch" if self.mismatch else "nan" if self.nan else "residual"

    def allowed(self, tolerance: float) -> float:
        return max(tolerance, self.resolution)

    @property
    def badness(self) -> float:
        return float("inf") if self.nan or self.mismatch else self.relative


@dataclass(frozen=True)
class Witness:
    """The smallest input and group element found that break the law, with the two sides there."""

    x: Inputs
    g: Any
    comparison: Comparison
    sides: tuple[Any, Any]

    note: str = ""
    """What g is, in words, where the figures do not say it."""

    @property
    def code(self) -> str:
        """Lines of Python that build the witness, to paste into a test."""
        lines = [_assignment(name, t) for name, t in named_tensors(self.x)]
        if self.g is not None:
            lines += _element_code(self.g)
        if self.note:
            lines[-1] += f"  # {self.note}"
        return "\n".join(lines)


@dataclass(frozen=True)
class LayerReport:
    """What one submodule did with a lawful input."""

    name: str
    kind: str
    lawful: bool | None
    """None where its output can't be compared."""


@dataclass(frozen=True)
class LawReport:
    """The result of `check`."""

    law: str
    formula: str
    status: Status
    worst: float
    """Largest residual over all trials, relative to the output's variation."""
    mean: float
    tolerance: float
    resolution: float
    """The smallest relative residual that rounding lets one see."""
    varies: bool
    moved: bool
    trials: int
    training: bool
    witness: Witness | None
    layers: list[LayerReport]
    """The submodules in order of execution up to the first that breaks the law, for a broken module."""

    @property
    def passed(self) -> bool:
        """True where the law holds, and not only vacuously."""
        return self.status == "holds"

    @property
    def culprit(self) -> str | None:
        """The submodule that first breaks the law, where one could be named."""
        return next((layer.name for layer in self.layers if layer.lawful is False), None)

    @property
    def sentence(self) -> str:
        """The result as a person would say it."""
        if self.status == "holds":
            return (
                f"{self.law} holds: in {self.trials} trials {self.formula} up to {self.worst:.1e} of the output's "
                f"variation (tolerance {self.tolerance:.0e})."
            )
        if self.status == "vacuous":
            why = (
                "the output does not depend on the input"
                if not self.varies
                else "no drawn group element or choice changes this input"
            )
            return f"{self.law} holds only vacuously: {why}, so {self.formula} says nothing."
        if self.status == "unresolved":
            return (
                f"{self.law} can't be decided: rounding hides differences below {self.resolution:.1e} of the output's "
                f"variation (tolerance {self.tolerance:.0e}); check in float64."
            )
        assert self.witness is not None
        comparison = self.witness.comparison
        if comparison.mismatch:
            how = comparison.mismatch
        elif comparison.nan:
            how = "NaN in the output"
        elif self.worst == float("inf"):
            how = "the two sides differ although the output does not vary with the input"
        else:
            how = f"the two sides differ by {self.worst:.2g} of the output's variation (tolerance {self.tolerance:.0e})"
        culprit = f" The first submodule to break it is {self.culprit!r}." if self.culprit else ""
        mode = (
            " The module is in training mode; .eval() turns its dropout and batch statistics off."
            if self.training
            else ""
        )
        return f"{self.law} is broken: {how}, where {self.formula} was expected.{culprit}{mode}"

    def __str__(self) -> str:
        if self.witness is None:
            return self.sentence
        left, right = (_preview(side) for side in self.witness.sides)
        return "\n".join(
            [
                self.sentence,
                "",
                "# smallest witness found",
                self.witness.code,
                f"# left side:  {left}",
                f"# right side: {right}",
            ]
        )


def channel_max(tensor: Tensor) -> Tensor:
    """The maximum over all axes but the last; over all of a tensor without an axis of channels."""
    return tensor.flatten(0, -2).amax(0) if tensor.dim() > 1 else tensor.max()[None]


def _assignment(name: str, tensor: Tensor) -> str:
    target = name if name.isidentifier() else f"# {name}\nx"
    if tensor.numel() > _PASTE:
        return f"{target} = ...  # {tensor.dtype} of shape {tuple(tensor.shape)}, too large to print"
    dtype = "" if tensor.dtype in (torch.float32, torch.int64) else f", dtype={tensor.dtype}"
    return f"{target} = torch.tensor({_round_trip(tensor)}{dtype})"


def _round_trip(tensor: Tensor) -> str:
    """Digits enough to rebuild the tensor exactly, and no more."""
    if tensor.dtype != torch.float32:
        return str(tensor.tolist())

    def shortest(value: Any) -> Any:
        if isinstance(value, list):
            return [shortest(v) for v in value]
        for digits in range(1, 10):
            short = float(f"{value:.{digits}g}")
            if torch.tensor(short, dtype=torch.float32).item() == value:
                return short
        return value

    return str(shortest(tensor.tolist()))


def _element_code(g: Any) -> list[str]:
    if isinstance(g, Tensor):
        return [_assignment("g", g)]
    if isinstance(g, tuple):
        parts = [_assignment("g", p).removeprefix("g = ") if isinstance(p, Tensor) else repr(p) for p in g]
        return [f"g = ({', '.join(parts)})"]
    return [f"g = {g!r}"]


def _preview(side: Any) -> str:
    values = torch.cat([t.flatten().double() for _, t in named_tensors(side)] or [torch.empty(0)])
    shown = ", ".join(f"{v:.6g}" for v in values[:6].tolist())
    return f"[{shown}{', ...' if values.numel() > 6 else ''}]"
