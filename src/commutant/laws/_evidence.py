"""Trials of a check and the verdict on them, with a second look in float64 that separates rounding from breaks."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from .._errors import InputError
from ._actions import GroupElement
from ._compare import Comparison, Spread
from ._explore import enlarge, resample, way_of
from ._inputs import Inputs, map_tensors, named_tensors
from ._report import Status
from ._run import FunctionFailed, Run, double, lowest_precision, tolerance_of

_PAIRS = 4  # trials with a second input, to measure how much the output varies
_SIZES = (1.0, 0.1, 0.3, 3.0)
_PLAIN = 100.0  # multiple of the tolerance above which a break needs no second look if none is possible
_COARSE = 1e-2  # resolution above which a result in the lower precision is meaningless


def _check_sampler(inputs: Any) -> None:
    try:
        inspect.signature(inputs).bind(None)
    except ValueError:  # a built-in function without a signature
        return
    except TypeError as error:
        raise InputError(
            f"inputs must hold a tensor, or be a function that draws them from a torch.Generator, got a function that "
            f"does not accept exactly one argument ({error})"
        ) from None


@dataclass
class Evidence:
    """Trials of a check: inputs, draws, both sides, and the variation of the output."""

    run: Run
    limit: float = 0.0
    """Largest accepted residual."""
    dtype: torch.dtype = torch.float64
    """Lowest precision among inputs, outputs and parameters."""
    cases: list[tuple[Inputs, GroupElement]] = field(default_factory=list)
    """Input and draw of each trial."""
    sides: list[tuple[Any, Any]] = field(default_factory=list)
    """Left and right side of each trial."""
    others: list[Inputs] = field(default_factory=list)
    """Second inputs of the first trials."""
    spread: Spread = field(default_factory=Spread)
    """Variation of the output."""
    comparisons: list[Comparison] = field(default_factory=list)
    """Difference between the sides of each trial."""
    moved: bool = False
    """Whether some draw made the two sides different computations."""

    @classmethod
    def gather(
        cls, run: Run, inputs: Any, trials: int, generator: torch.Generator, tolerance: float | None
    ) -> Evidence:
        """Return the evidence of trials with drawn inputs and group elements."""
        e = cls(run)
        if _only_one_integer(inputs):
            raise InputError(
                "all integers of the example are equal, so no other input can be drawn from it; pass an example "
                "with several values, or a function that draws inputs"
            )
        sampled = callable(inputs) and not any(True for _ in named_tensors(inputs))
        if sampled:
            _check_sampler(inputs)
        for trial in range(trials):
            e._try(inputs, sampled, trial, trials, generator)
        e.dtype = lowest_precision(run, e.cases[0][0], e.sides[0])
        e.limit = tolerance_of(e.dtype) if tolerance is None else tolerance
        e._compare()
        if not e.varies:
            e._look_further(generator)
        return e

    def _try(self, inputs: Any, sampled: bool, trial: int, trials: int, generator: torch.Generator) -> None:
        run = self.run
        example = inputs(generator) if sampled else inputs
        explored = trial > 0 and not sampled
        x = resample(example, generator, way_of(trial), _size_of(trial)) if explored else example
        if trial == 0 or sampled:
            run.settle(x)
        g, moves = run.draw(x, generator, trial, trials)
        try:
            sides = run.sides(x, g)
        except FunctionFailed:
            if not explored:
                raise
            x, g, moves, sides = self._closer(example, generator, trial, trials)
        self.moved = self.moved or moves
        self.cases.append((x, g))
        self.sides.append(sides)
        if trial < _PAIRS:
            other = inputs(generator) if sampled else x
            if not _comparable(x, other):
                other = resample(x, generator, "kept" if sampled else way_of(trial + 2))
            self.others.append(other if self._vary(sides[0], other, g) else resample(x, generator))
            if other is not self.others[-1]:
                self._vary(sides[0], self.others[-1], g)

    def _closer(
        self, example: Inputs, generator: torch.Generator, trial: int, trials: int
    ) -> tuple[Inputs, GroupElement, bool, tuple[Any, Any]]:
        """Return a trial with an input nearer to the example, or the example itself, where f fails on the first."""
        x = resample(example, generator)
        g, moves = self.run.draw(x, generator, trial, trials)
        try:
            return x, g, moves, self.run.sides(x, g)
        except FunctionFailed:
            g, moves = self.run.draw(example, generator, trial, trials)
            return example, g, moves, self.run.sides(example, g)

    def _vary(self, left: Any, other: Inputs, g: GroupElement) -> bool:
        """Add the change of the left side on another input, and return whether f accepts that input."""
        if isinstance(left, BaseException):
            return True
        try:
            self.spread.add(left, self.run.value(other, g))
        except FunctionFailed:
            return False
        return True

    def _look_further(self, generator: torch.Generator) -> None:
        """Try inputs far away before the output is called constant, and zeros if the law is about constants."""
        (x, g), left = self.cases[0], self.sides[0][0]
        for _ in range(_PAIRS):
            try:
                self._vary(left, enlarge(x, generator), g)
            except InputError:
                break
        if self.run.law.about_constants and not isinstance(left, BaseException):
            self.spread.add(left, map_tensors(lambda _, t: torch.zeros_like(t), left))
        self._compare()

    def _compare(self) -> None:
        self.comparisons = [Comparison.of(*sides, self.spread, self.limit) for sides in self.sides]

    @property
    def varies(self) -> bool:
        """True if the output varies with the input in some trial."""
        return any(c.varies for c in self.comparisons)

    def measured(self, i: int, dtype: torch.dtype) -> Comparison:
        """Return the comparison of a trial, with noise measured by rounding in `dtype`."""
        noise = self.run.noise(*self.cases[i], self.sides[i], dtype, self.dtype is torch.float64)
        return Comparison.of(*self.sides[i], self.spread, self.limit, noise)

    def varies_beyond_noise(self) -> bool:
        """Return whether the output varies by more than rounding of the input explains."""
        if not self.varies or self.spread.constants:
            return self.varies
        order = [i for i in (1, 2, 3, 0) if i < len(self.cases)]  # the example itself comes last, as it may be special
        return any(isinstance(self.sides[i][0], BaseException) or self.measured(i, self.dtype).varies for i in order)

    def in_double(self, which: list[int]) -> Evidence | None:
        """Return the same trials in float64, those of `which` first, or None if the function fails in float64."""
        run = self.run.in_double()
        if run is None or self.dtype is torch.float64:
            return None
        e = Evidence(run, self.limit, torch.float64, moved=self.moved)
        order = which + [i for i in range(len(self.others)) if i not in which]
        try:
            for i in order:
                x, g = double(self.cases[i][0]), self.cases[i][1]
                e.cases.append((x, g))
                e.sides.append(run.sides(x, g))
                if i < len(self.others):
                    e._vary(e.sides[-1][0], double(self.others[i]), g)
        except (FunctionFailed, InputError):
            return None
        if any(isinstance(side, BaseException) for sides in e.sides for side in sides):
            return None
        e._compare()
        return e


@dataclass(frozen=True)
class Judgment:
    """Verdict of a check with the trial that shows it."""

    status: Status
    evidence: Evidence
    """Trials that led to the verdict, perhaps in float64."""
    worst: int
    """Position of the worst trial."""
    resolution: float
    """Smallest relative residual that rounding does not hide."""
    varies: bool
    """Whether the output depends on the input."""


def judge(e: Evidence) -> Judgment:
    """Decide whether the law holds, is broken, holds vacuously or is unresolved."""

    def verdict(status: Status, evidence: Evidence = e, worst: int | None = None, varies: bool = True) -> Judgment:
        if worst is None:
            worst = max(range(len(evidence.cases)), key=lambda i: evidence.comparisons[i].badness)
        return Judgment(status, evidence, worst, _resolution(e), varies)

    suspects = [i for i, c in enumerate(e.comparisons) if c.broken]
    pending = []
    for i in sorted(suspects, key=lambda i: -e.comparisons[i].badness):
        if e.comparisons[i].kind == "residual":
            e.comparisons[i] = e.measured(i, e.dtype)
        if e.comparisons[i].verdict == "broken":
            return verdict("broken", worst=i)
        if e.comparisons[i].broken:
            pending.append(i)
    if pending:
        undecided, found = _second_look(e, pending)
        if found is not None:
            return verdict("broken", *found)
        if undecided:
            return verdict("unresolved")
    if not e.moved:
        return verdict("vacuous", varies=e.varies)
    if not e.varies_beyond_noise():
        wider = e.in_double([])
        return verdict("unresolved" if wider is not None and wider.varies_beyond_noise() else "vacuous", varies=False)
    if _resolution(e) > e.limit:
        e.comparisons = [e.measured(i, e.dtype) for i in range(len(e.cases))]
    if _resolution(e) > e.limit:
        wider = e.in_double(list(range(len(e.cases)))) if _resolution(e) < _COARSE else None
        if wider is None or _resolution(wider) > e.limit:
            return verdict("unresolved")
        hidden = [i for i, c in enumerate(wider.comparisons) if c.broken and wider.measured(i, torch.float64).broken]
        if hidden:
            return verdict("broken", wider, hidden[0])
    return verdict("holds")


def _resolution(e: Evidence) -> float:
    """Return the median resolution of the trials, since single outputs may be large by chance."""
    return median(c.resolution for c in e.comparisons)


def _second_look(e: Evidence, pending: list[int]) -> tuple[bool, tuple[Evidence, int] | None]:
    """Look at the pending trials in float64; return whether any stays undecided, and a trial that breaks the law."""
    undecided = False
    wider = e.in_double(pending)
    for place, i in enumerate(pending):
        own = e.comparisons[i]
        if wider is None and e.dtype is not torch.float64:
            if own.verdict == "silent" and own.relative > _PLAIN * e.limit:
                return True, (e, i)
            undecided = True
            continue
        there, j = (e, i) if wider is None else (wider, place)
        c = there.comparisons[j]
        if wider is not None and c.broken:
            c = there.measured(j, torch.float64)
        if c.verdict == "silent":  # f may round to float32 inside
            c = there.measured(j, torch.float32)
        if c.verdict in ("broken", "silent"):
            return True, (there, j)
        if c.verdict == "rounding" or (own.verdict == "silent" and feels(e.cases[i][0])):
            undecided = True
        elif wider is not None:
            e.comparisons[i] = c
    return undecided, None


def feels(x: Inputs) -> bool:
    """Return whether x holds real or complex numbers, which rounding can change."""
    return any(t.is_floating_point() or t.is_complex() for _, t in named_tensors(x))


def _size_of(trial: int) -> float:
    """Return the scale of the input of a trial, 1 in the first trials, which measure the output's variation."""
    return _SIZES[(trial + trial // 4) % 4] if trial >= _PAIRS else 1.0  # each change of the input meets each scale


def _comparable(a: Inputs, b: Inputs) -> bool:
    """Return whether two inputs of the same shapes have different values and the same indices."""
    if a is b:
        return False
    floats, indices = (
        [[(n, t) for n, t in named_tensors(x) if (t.is_floating_point() or t.is_complex()) is real] for x in (a, b)]
        for real in (True, False)
    )
    if [(n, t.shape) for n, t in floats[0]] != [(n, t.shape) for n, t in floats[1]]:
        return False
    same = [n for n, _ in indices[0]] == [n for n, _ in indices[1]] and all(
        torch.equal(s, t) for (_, s), (_, t) in zip(*indices, strict=True)
    )
    if not floats[0]:
        return not same and [t.shape for _, t in indices[0]] == [t.shape for _, t in indices[1]]
    return same and not all(torch.equal(s, t) for (_, s), (_, t) in zip(*floats, strict=True))


def _only_one_integer(x: Any) -> bool:
    tensors = [t for _, t in named_tensors(x) if t.numel()]
    return bool(tensors) and all(
        not (t.is_floating_point() or t.is_complex()) and bool((t == t.flatten()[:1]).all()) for t in tensors
    )
