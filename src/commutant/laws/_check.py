"""The checker of laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._checks import check_tolerance, whole
from .._errors import InputError
from ._actions import Action, GroupElement
from ._compare import Comparison
from ._evidence import Evidence, feels, judge
from ._inputs import Inputs, is_hetero_data, named_leaves, named_tensors, source_of
from ._laws import Function, Law
from ._layers import first_break
from ._outputs import wide
from ._report import LawReport, Witness
from ._run import FunctionFailed, Run
from ._witness import shrink


def check(
    law: Law,
    f: Function,
    inputs: Inputs | Callable[[torch.Generator], Inputs],
    *,
    trials: int = 16,
    generator: torch.Generator | None = None,
    tolerance: float | None = None,
    explain: bool = True,
) -> LawReport:
    """Check whether `f` obeys a law on inputs like the given ones.

    Every part of the output is compared: tensors, arrays, numbers and strings, in tuples, dicts or dataclasses. The
    residual is relative to the variation of each part with the input, so a large constant or a large channel hides no
    break. A law that holds only because the output is constant is *vacuous*. NaN on either side breaks any law. A
    difference that rounding of the input could explain is decided in float64; if this is impossible, the law is
    *unresolved*. Dropout and sampling use the same random numbers on both sides. The buffers of a module are restored
    after every call.

    Args:
        law: Law to check.
        f: Module or any callable. Inputs in a tuple are its positional arguments, inputs in a dict its keyword
            arguments.
        inputs: Example of an input, or a function that draws an input from a `torch.Generator`, to vary sizes too.
            Further inputs of the shape of an example are drawn, with other values, scales, sums and signs and with
            token ids that occur in it.
        trials: Number of inputs and group elements to try.
        generator: Source of all random draws, on the CPU. None means a generator seeded with 0, so that a check gives
            the same result each time. Random numbers inside `f` are seeded with `generator.initial_seed()`.
        tolerance: Largest accepted residual, relative to the output's variation; by default 1e-10 in float64, 1e-4 in
            float32, 1e-2 in float16 and 5e-2 in bfloat16.
        explain: Whether to search for a small counterexample and the first submodule that breaks a broken law, which
            may take hundreds of calls.

    Returns:
        Report whose `passed` is True only if the law holds and is not vacuous.

    Raises:
        InputError: If the law, the function and the inputs do not fit together.

    Example:
        >>> from commutant.laws import Invariance, SetPermutation
        >>> check(Invariance(SetPermutation()), lambda x: x.sum(1), torch.randn(4, 5, 3)).status
        'holds'
        >>> check(Invariance(SetPermutation()), lambda x: x[:, 0], torch.randn(4, 5, 3)).status
        'broken'
    """
    _validate(law, f, inputs, trials, tolerance)
    generator = source_of(generator)
    run = Run(law, f, generator.initial_seed())
    try:
        evidence = Evidence.gather(run, inputs, trials, generator, tolerance)
        verdict = judge(evidence)
    except FunctionFailed as failed:
        raise failed.error from None
    witness, layers, run = None, [], verdict.evidence.run
    if verdict.status == "broken" and explain:
        witness = _smallest_witness(verdict.evidence, verdict.worst)
        if run.module is run.original and witness.comparison.kind != "mismatch":
            limit = verdict.evidence.limit
            layers = first_break(
                run.law, run.original, witness.x, witness.g, run.frozen, lambda a, b: _close(a, b, limit)
            )
    comparisons, worst = evidence.comparisons, verdict.evidence.comparisons[verdict.worst]
    return LawReport(
        law=repr(law),
        formula=law.formula,
        status=verdict.status,
        worst=worst.relative,
        mean=sum(c.relative for c in comparisons) / len(comparisons),
        tolerance=evidence.limit,
        resolution=verdict.resolution,
        varies=verdict.varies,
        moved=evidence.moved,
        trials=trials,
        training=verdict.status == "broken" and run.training(verdict.evidence.cases[verdict.worst][0]),
        comparison=worst if witness is None else witness.comparison,
        witness=witness,
        layers=layers,
    )


def assert_law(
    law: Law, f: Function, inputs: Inputs | Callable[[torch.Generator], Inputs], **options: Any
) -> LawReport:
    """Check a law in a test: raise AssertionError with the report and its witness unless the law holds.

    Args:
        law: Law to check.
        f: Module or any callable.
        inputs: Example of an input, or a function that draws an input from a `torch.Generator`.
        options: Further arguments of `check`.

    Returns:
        Report of the check.

    Example:
        >>> from commutant.laws import Commutativity
        >>> assert_law(Commutativity(), torch.add, (torch.randn(4), torch.randn(4))).status
        'holds'
    """
    report = check(law, f, inputs, **options)
    if not report.passed:
        raise AssertionError(str(report))
    return report


def _validate(law: Any, f: Any, inputs: Any, trials: Any, tolerance: Any) -> None:
    given = f"check({', '.join(type(part).__name__ for part in (law, f, inputs))})"
    if isinstance(law, type) and issubclass(law, Law):
        raise InputError(f"the law is the class {law.__name__}; make an instance, such as {law.__name__}(...)")
    if not isinstance(law, Law):
        meant = "an action; wrap it in a law, such as Invariance(action)" if isinstance(law, Action) else "no law"
        raise InputError(f"check takes (law, f, inputs) in this order, got {given}, where the first is {meant}")
    if isinstance(f, type):
        raise InputError(f"f is the class {f.__name__}; make an instance, such as {f.__name__}(...)")
    if not callable(f) or isinstance(f, Tensor):
        raise InputError(f"check takes (law, f, inputs) in this order, got {given}, where the second can't be called")
    whole("trials", trials)
    check_tolerance(tolerance)
    if callable(inputs) and not any(True for _ in named_tensors(inputs)):
        return
    if is_hetero_data(inputs):
        raise InputError("inputs of type HeteroData are not supported; give its tensors as a tuple or dict")
    if not any(True for _ in named_tensors(inputs)):
        raise InputError(f"inputs must hold at least one tensor, got {type(inputs).__name__}")
    for name, leaf in named_leaves(inputs):
        if isinstance(leaf, np.ndarray):
            raise InputError(f"input {name} is a NumPy array, which no action can move; give torch.from_numpy(...)")


def _smallest_witness(evidence: Evidence, worst: int) -> Witness:
    run, found = evidence.run, evidence.comparisons[worst]
    # well above the tolerance, so that the difference at the witness is easy to see
    enough = min(found.relative / 2, max(0.1, 10 * evidence.limit))

    def compare(y: Inputs, h: GroupElement) -> Comparison:
        sides = run.sides(y, h)
        c = Comparison.of(*sides, evidence.spread, evidence.limit)
        if c.kind == "residual" and c.broken and c.relative >= enough:
            noise = run.noise(y, h, sides, evidence.dtype, evidence.dtype is torch.float64)
            c = Comparison.of(*sides, evidence.spread, evidence.limit, noise)
        return c

    def breaks(y: Inputs, h: GroupElement) -> bool:
        c = compare(y, h)
        if c.kind != found.kind:
            return False
        return c.kind != "residual" or (c.verdict in certain and c.relative >= enough)

    certain = {"broken", found.verdict} | (set() if feels(evidence.cases[worst][0]) else {"silent"})
    x, g = shrink(run.law, *evidence.cases[worst], breaks)
    return Witness(x, g, compare(x, g), run.sides(x, g), run.law.describe(g))


def _close(a: Any, b: Any, limit: float) -> bool:
    for (_, s), (_, t) in zip(named_tensors(a), named_tensors(b), strict=False):
        if s.shape != t.shape:
            return False
        if not s.numel():
            continue
        left, right = wide(s), wide(t)
        scale = float(left.std()) if left.numel() > 1 else float(left.abs().max())
        if not float((left - right).abs().max()) <= max(10 * limit * scale, 1e-12):
            return False
    return True
