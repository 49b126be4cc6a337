"""Comparison of the two sides of a law, relative to the variation of each part of the output."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from ._inputs import named_leaves
from ._outputs import wide

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest residual, relative to the variation of the output, that counts as rounding."""

_ROUNDING = 32.0  # accepted error of an output, in units in the last place of its largest value
_DEAD = 1000.0  # in float64, a channel is constant if it varies less than this multiple of its rounding error
_JUMP = 1e-2  # in float64, rounding that moves an output by a larger share of its variation shows a discontinuity
_DOUBTFUL = 32.0  # like _DEAD in lower precisions, where a second look in float64 decides

Verdict = Literal["ok", "broken", "rounding", "silent"]


def leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by name."""
    return dict(named_leaves(tree))


class Spread:
    """Variation of every number of an output with the input: the root mean square over pairs of inputs."""

    def __init__(self) -> None:
        self.constants = False
        """Whether a part that is not a tensor differed."""
        self._sums: dict[str, list[tuple[Tensor, int]]] = {}
        self._scales: dict[tuple[str, torch.Size], tuple[Tensor, Tensor]] = {}

    def add(self, a: Any, b: Any) -> None:
        """Add the difference between two outputs."""
        self._scales.clear()
        others = leaves(b)
        for name, s in leaves(a).items():
            t = others.get(name)
            if not (isinstance(s, Tensor) and isinstance(t, Tensor)):
                self.constants = self.constants or not _same_constant(s, t)
            elif s.shape == t.shape and s.numel():
                self._add(name, _differ(wide(s), wide(t)) / 2**0.5)

    def _add(self, name: str, difference: Tensor) -> None:
        sums = self._sums.setdefault(name, [])
        for i, (total, count) in enumerate(sums):
            if total.shape == difference.shape:
                sums[i] = torch.hypot(total, difference), count + 1
                return
        sums.append((difference, 1))

    def scale(self, name: str, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the variation of each number and of each channel of a part, in shapes that broadcast over `like`.

        The channel axis is unknown. The first result is therefore the smallest of the variations of the number itself
        and of its slices along every axis. The second is the smallest over the axes that may hold channels.
        """
        key = name, like.shape
        if key not in self._scales:
            self._scales[key] = self._scale(name, like)
        return self._scales[key]

    def _scale(self, name: str, like: Tensor) -> tuple[Tensor, Tensor]:
        entries = [(total / count**0.5, count) for total, count in self._sums.get(name, [])]
        if not entries:
            return like.new_zeros(()), like.new_zeros(())
        everything = _root_mean([(rms(values), count) for values, count in entries])
        tight = [values for values, _ in entries if values.shape == like.shape]
        coarse = []
        for axis in range(like.dim()):
            fitting = [
                (rms(values, axis), count)
                for values, count in entries
                if values.dim() == like.dim() and values.shape[axis] == like.shape[axis]
            ]
            if fitting:
                view = [1] * like.dim()
                view[axis] = -1
                tight.append(_root_mean(fitting).view(view))
                if axis in channel_axes(like):
                    coarse.append(tight[-1])
        return reduce(torch.minimum, tight or [everything]), reduce(torch.minimum, coarse or [everything])


def channel_axes(like: Tensor) -> list[int]:
    """Return the axes that may hold channels: the last, and the second where there are more than two."""
    return sorted({like.dim() - 1, 1}) if like.dim() > 2 else [1] if like.dim() == 2 else []


def rms(values: Tensor, axis: int | None = None) -> Tensor:
    """Return the root mean square of non-negative values, or of each slice along an axis, without overflow."""
    over = list(range(values.dim())) if axis is None else [i for i in range(values.dim()) if i != axis]
    if not over:
        return values
    largest = values.amax(over, keepdim=True)
    safe = torch.where(largest > 0, largest, 1.0)
    return ((values / safe).square().mean(over, keepdim=True).sqrt() * largest).squeeze(over)


def _root_mean(parts: list[tuple[Tensor, int]]) -> Tensor:
    total = sum(count for _, count in parts)
    return reduce(torch.hypot, [value * (count / total) ** 0.5 for value, count in parts])


def _largest(gap: Tensor, scale: Tensor, where: Tensor) -> float:
    where = where & (scale > 0)
    return float((gap[where] / scale[where]).max()) if bool(where.any()) else 0.0


def channel_max(tensor: Tensor) -> Tensor:
    """Return the largest value of the channel of each number, in a shape that broadcasts over the tensor."""
    axes = channel_axes(tensor)
    if not axes:
        return tensor.max()
    others = [[i for i in range(tensor.dim()) if i != axis] for axis in axes]
    return reduce(torch.minimum, [tensor.amax(over, keepdim=True) for over in others])


def channel_rms(tensor: Tensor) -> Tensor:
    """Return the root mean square of the channel of each number, in a shape that broadcasts over the tensor."""
    axes = channel_axes(tensor)
    if not axes:
        return rms(tensor)
    views = [[-1 if i == axis else 1 for i in range(tensor.dim())] for axis in axes]
    return reduce(torch.minimum, [rms(tensor, axis).view(view) for axis, view in zip(axes, views, strict=True)])


def _differ(s: Tensor, t: Tensor) -> Tensor:
    """Return |s - t|, with 0 where either is not finite and the largest number where the difference overflows."""
    difference = (s - t).abs()
    finite = s.isfinite() & t.isfinite()
    return torch.where(finite, difference.clamp(max=torch.finfo(torch.float64).max), 0.0)


@dataclass
class Noise:
    """Measured changes of the two sides under rounding of the input."""

    factor: float
    """Multiple of the measured change that still counts as rounding."""
    small: float
    """Variation below which an output may be constant except for rounding."""
    final: bool
    """Whether no higher precision is left for a second look."""
    most: dict[str, Tensor] = field(default_factory=dict)
    """Largest change of each number."""
    usual: dict[str, Tensor] = field(default_factory=dict)
    """Root mean square change of each channel, the smallest over the probes."""

    def add(self, sides: tuple[Any, Any], moved: tuple[Any, Any]) -> None:
        """Add the changes of the sides from an input to the same input with other roundings."""
        before, after = [leaves(side) for side in sides], [leaves(side) for side in moved]
        for name, s in before[0].items():
            four = [tree.get(name) for tree in (*before, *after)]
            if not all(isinstance(t, Tensor) and t.shape == s.shape for t in four) or not s.numel():
                continue
            left, right, left_moved, right_moved = (wide(t) for t in four if t is not None)
            change = torch.maximum(_differ(left, left_moved), _differ(right, right_moved))
            self.most[name] = torch.maximum(self.most.get(name, change), change)
            usual = channel_rms(change)
            self.usual[name] = torch.minimum(self.usual.get(name, usual), usual)


@dataclass(frozen=True)
class Comparison:
    """Difference between the two sides of a law, for one input and one draw."""

    relative: float
    """Largest difference over the output's variation; infinite if the sides differ in an output that does not vary."""
    resolution: float = 0.0
    """Smallest relative difference that rounding of the largest value does not hide."""
    nan: bool = False
    """Whether a side holds NaN."""
    mismatch: str | None = None
    """Description of different parts or shapes of the two sides, or None."""
    varies: bool = True
    """Whether the output varies with the input."""
    verdict: Verdict = "broken"
    """`rounding` if rounding of the input explains the difference, `silent` if the output ignores such rounding."""

    @classmethod
    def of(cls, left: Any, right: Any, spread: Spread, limit: float, noise: Noise | None = None) -> Comparison:
        """Return the comparison of two sides; without measured noise, any difference above the limit breaks the law."""
        for side in (left, right):
            if isinstance(side, Exception):
                first = next(iter(str(side).splitlines()), "")
                return cls(float("inf"), mismatch=f"one side raised {type(side).__name__}: {first}")
        a, b = leaves(left), leaves(right)
        if (mismatch := _mismatch(a, b)) is not None:
            return cls(float("inf"), mismatch=mismatch)
        parts = [
            _compare(name, s, b[name], spread, limit, noise)
            for name, s in a.items()
            if isinstance(s, Tensor) and s.numel()
        ]
        order: tuple[Verdict, ...] = ("broken", "silent", "rounding")
        verdicts = {part.verdict for part in parts}
        found: Verdict = next((verdict for verdict in order if verdict in verdicts), "ok")
        return cls(
            max((part.relative for part in parts if part.verdict == found), default=0.0),
            max((part.resolution for part in parts), default=0.0),
            any(part.nan for part in parts),
            None,
            spread.constants or any(part.varies for part in parts),
            found,
        )

    @property
    def broken(self) -> bool:
        """True if the sides differ by more than the limit."""
        return self.verdict != "ok"

    @property
    def kind(self) -> str:
        """Kind of the failure, which stays the same while a witness is made smaller."""
        return "mismatch" if self.mismatch else "nan" if self.nan else "residual"

    @property
    def badness(self) -> float:
        """Relative difference, infinite for NaN or different shapes."""
        return float("inf") if self.nan or self.mismatch else self.relative


def _mismatch(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    shapes = [
        sorted((name, tuple(t.shape)) for name, t in side.items() if isinstance(t, Tensor) and t.shape)
        for side in (a, b)
    ]
    if a.keys() != b.keys():
        return f"the left side holds {', '.join(a)}, the right side {', '.join(b)}"
    for name, s in a.items():
        t = b[name]
        if isinstance(s, Tensor) and isinstance(t, Tensor):
            if s.shape != t.shape:
                shown = [", ".join(str(shape) for _, shape in side) or "()" for side in shapes]
                return f"the left side has shape {shown[0]}, the right side {shown[1]}"
        elif not _same_constant(s, t):
            return f"{name} is {_short(s)} on the left side and {_short(t)} on the right"
    return None


def _same_constant(s: Any, t: Any) -> bool:
    return type(s) is type(t) and bool(s == t)


def _short(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]


def _compare(name: str, s: Tensor, t: Tensor, spread: Spread, limit: float, noise: Noise | None) -> Comparison:
    left, right = wide(s), wide(t)
    same = s == t if s.dtype == t.dtype and not s.is_complex() else left == right
    gap = torch.where(same, 0.0, (left - right).abs()).nan_to_num(nan=float("inf"), posinf=float("inf"))
    nan = bool(left.isnan().any() or right.isnan().any())
    whole = not (s.is_floating_point() or s.is_complex())
    if whole:
        gap = torch.where(same, 0.0, gap.clamp(min=1.0))  # float64 can't distinguish all integers
    eps = 0.0 if whole else torch.finfo(s.dtype).eps
    rounding = _ROUNDING if eps < 1e-6 else 1.0  # half precision rounds once, since it sums in float32
    tight, coarse = (scale.to(gap.device) for scale in spread.scale(name, left))
    size = torch.where(left.isfinite(), left.abs(), 0.0)
    floor, excused = rounding * eps * channel_max(size), rounding * eps * size
    alive, varying = tight > excused / rounding, coarse > floor / rounding
    jumps = torch.zeros_like(alive)
    if noise is not None and name in noise.most and noise.most[name].shape == gap.shape:
        most = channel_max(noise.most[name])
        live = (coarse > (_DEAD if noise.final else _DOUBTFUL) * noise.usual[name]) | (coarse > noise.small)
        varying = varying & live
        if noise.final:
            dead = ~live | (tight <= noise.small)  # includes numbers that are zero except for rounding
            alive, excused = alive & ~dead, torch.where(dead, torch.maximum(floor, noise.factor * most), excused)
            jumps = live & (most > _JUMP * coarse)
    else:
        most = torch.full_like(gap, -1.0)  # unmeasured
    alive, varying, tight, coarse, excused, most = (
        v.expand_as(gap) for v in (alive, varying, tight, coarse, excused, most)
    )
    over = (gap > excused) & (~alive | (gap > (0.0 if whole else limit) * tight))
    resolution = float((floor / coarse).expand_as(gap)[varying].max()) if bool(varying.any()) else 0.0
    beyond = over & ((gap > (0.0 if noise is None else noise.factor) * most) | jumps)
    verdict: Verdict = "ok"
    shown = torch.ones_like(over)
    kinds: tuple[tuple[Verdict, Tensor], ...] = (
        ("broken", beyond & (most != 0)),
        ("silent", beyond),
        ("rounding", over),
    )
    for kind, where in kinds:
        if bool(where.any()):
            shown, verdict = where, kind
            break
    worst = _largest(gap, coarse, varying & shown)
    if bool((over & shown & ~varying & ~alive).any()):
        worst = float("inf")
    elif worst <= limit and bool(over.any()):  # large only relative to the variation of the number itself
        worst = _largest(gap, tight, alive & over & shown) or float("inf")
    if nan:
        verdict = "broken"
    return Comparison(worst, resolution, nan, None, bool(varying.any()), verdict)
