"""The checker: does a function obey a law, how closely, and if not, what is the smallest counter-example?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import InputError
from ._actions import GroupElement
from ._inputs import Inputs, call, map_tensors, named_tensors, resample
from ._laws import Function, Law
from ._layers import first_break
from ._report import Comparison, LawReport, Status, Witness

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""The largest residual, relative to how much the output varies, that counts as rounding."""

_TRAINING_STAGES = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
_SHRINK_CALLS = 300


def check(
    law: Law,
    f: Function,
    inputs: Inputs | Callable[[torch.Generator], Inputs],
    *,
    trials: int = 16,
    seed: int = 0,
    tolerance: float | None = None,
    explain: bool = True,
) -> LawReport:
    """Check whether `f` obeys a law, on inputs like the given ones.

    The residual is measured against how much the output varies when the input does, so a broken law can't hide behind a
    large constant, and a law that holds only because the output is constant is called vacuous instead of held. NaN on
    either side breaks any law. Random stages (dropout, sampling) see the same random numbers on both sides, and a
    module's buffers are put back after every call.

    Args:
        law: what to check.
        f: a module or any callable; a tuple of inputs is given as positional, a dict as keyword arguments.
        inputs: an example, or a function that draws one (to vary sizes too). Around an example, further inputs of the
            same shape are drawn.
        trials: how many inputs and group elements to try.
        seed: of everything drawn.
        tolerance: largest accepted residual relative to the output's variation; by default 1e-10 in float64, 1e-4 in
            float32, 5e-2 in bfloat16.
        explain: look for the smallest counter-example and the first layer that breaks a broken law, which may take
            hundreds of calls.

    Returns:
        A `LawReport`; `report.passed` is True only where the law holds and is not vacuous.

    Example:
        >>> from commutant.laws import Invariance, SetPermutation
        >>> check(Invariance(SetPermutation()), lambda x: x.sum(1), torch.randn(4, 5, 3)).status
        'holds'
        >>> check(Invariance(SetPermutation()), lambda x: x[:, 0], torch.randn(4, 5, 3)).status
        'broken'
    """
    if trials < 1:
        raise InputError(f"trials must be at least 1, got {trials}")
    generator = torch.Generator().manual_seed(seed)
    run = _Frozen(law, f, seed)
    cases: list[tuple[Inputs, GroupElement]] = []
    results: list[tuple[Any, Any]] = []
    spread: dict[str, list[Tensor]] = {}
    moved = False
    for trial in range(trials):
        x = _draw_inputs(inputs, trial, generator)
        g = law.draw(x, generator)
        moved = moved or law.moves(x, g)
        sides = run.sides(x, g)
        cases.append((x, g))
        results.append(sides)
        if trial < 4:
            other = inputs(generator) if _is_sampler(inputs) else x
            if other is x or not _same_shapes(x, other):
                other = resample(x, generator)
            _add_spread(spread, sides[0], run.sides(other, g)[0])
    scale = {name: _mean_square(values).sqrt() for name, values in spread.items()}
    comparisons = [Comparison.of(*sides, scale=scale) for sides in results]
    limit = tolerance if tolerance is not None else _tolerance(cases[0][0], results[0], f)

    def breaks(comparison: Comparison) -> bool:
        return comparison.nan or comparison.mismatch is not None or comparison.relative > comparison.allowed(limit)

    broken = [i for i, comparison in enumerate(comparisons) if breaks(comparison)]
    worst = max(range(len(cases)), key=lambda i: comparisons[i].badness)
    varies = any(c.varies for c in comparisons)
    status: Status
    if broken:
        status = "broken"
    elif not moved or not varies:
        status = "vacuous"
    elif max(c.resolution for c in comparisons) > limit:
        status = "unresolved"
    else:
        status = "holds"
    witness, layers = None, []
    if broken and explain:
        x, g = cases[worst]

        def compare(y: Inputs, h: GroupElement) -> Comparison:
            return Comparison.of(*run.sides(y, h), scale=scale)

        x, g = _shrink(law, x, g, lambda y, h: breaks(c := compare(y, h)) and c.kind == comparisons[worst].kind)
        witness = Witness(x, g, compare(x, g), run.sides(x, g), law.describe(g))
        layers = (
            first_break(law, f, x, g, run.frozen, lambda a, b: _close(a, b, limit))
            if run.module and witness.comparison.kind != "mismatch"
            else []
        )
    return LawReport(
        law=repr(law),
        formula=law.formula,
        status=status,
        worst=comparisons[worst].relative,
        mean=sum(c.relative for c in comparisons) / len(comparisons),
        tolerance=limit,
        resolution=max(c.resolution for c in comparisons),
        varies=varies,
        moved=moved,
        trials=trials,
        training=_trains(run.module),
        witness=witness,
        layers=layers,
    )


def assert_law(
    law: Law, f: Function, inputs: Inputs | Callable[[torch.Generator], Inputs], **options: Any
) -> LawReport:
    """`check` for tests: raise AssertionError with the report, witness included, unless the law holds.

    Example:
        >>> from commutant.laws import Commutativity
        >>> assert_law(Commutativity(), torch.add, (torch.randn(4), torch.randn(4))).status
        'holds'
    """
    report = check(law, f, inputs, **options)
    if not report.passed:
        raise AssertionError(str(report))
    return report


class _Frozen:
    """Evaluate the sides of a law with the same random numbers each time, leaving the module as it was."""

    def __init__(self, law: Law, f: Function, seed: int) -> None:
        self.law, self.seed = law, seed
        self.module = f if isinstance(f, nn.Module) else None
        self.f = self._call(f)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        modules = [] if self.module is None else list(self.module.modules())
        buffers = [(m, name, b, b.clone()) for m in modules for name, b in m._buffers.items() if b is not None]
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            try:
                yield
            finally:
                with torch.no_grad():
                    for module, name, buffer, old in buffers:
                        module._buffers[name] = buffer.copy_(old)

    def _call(self, f: Function) -> Function:
        def frozen_call(*args: Any, **kwargs: Any) -> Any:
            with self.frozen():  # what f changes in place are copies
                return _as_tensors(f(*_copy(list(args)), **_copy(kwargs)))

        frozen_call.__wrapped__ = f  # type: ignore[attr-defined]
        frozen_call.freeze = self._call  # type: ignore[attr-defined]
        return frozen_call

    def sides(self, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        """Both sides, or the exception that one of them raised on an input that f itself takes."""
        try:
            left, right = self.law.sides(self.f, x, g)
        except InputError:
            raise
        except Exception as error:
            try:
                call(self.f, x)
            except Exception:
                raise error from None
            return error, error
        return map_tensors(lambda _, t: t.detach(), left), map_tensors(lambda _, t: t.detach(), right)


def _trains(module: nn.Module | None) -> bool:
    stages = () if module is None else (m for m in module.modules() if isinstance(m, _TRAINING_STAGES))
    return any(stage.training for stage in stages)


def _is_sampler(inputs: Any) -> bool:
    return callable(inputs) and not any(True for _ in named_tensors(inputs))


def _draw_inputs(inputs: Any, trial: int, generator: torch.Generator) -> Inputs:
    if _is_sampler(inputs):
        return inputs(generator)
    if not any(True for _ in named_tensors(inputs)):
        raise InputError(f"inputs must hold at least one tensor, got {type(inputs).__name__}")
    return inputs if trial == 0 else resample(inputs, generator)


def _same_shapes(a: Inputs, b: Inputs) -> bool:
    shapes = [[(name, t.shape) for name, t in named_tensors(x) if t.is_floating_point()] for x in (a, b)]
    indices = [[t for _, t in named_tensors(x) if t.dtype in (torch.int64, torch.int32)] for x in (a, b)]
    return shapes[0] == shapes[1] and all(torch.equal(s, t) for s, t in zip(*indices, strict=False))


def _add_spread(spread: dict[str, list[Tensor]], a: Any, b: Any) -> None:
    for (name, s), (_, t) in zip(named_tensors(a), named_tensors(b), strict=False):
        if s.shape != t.shape or not s.numel():
            continue
        difference = (_wide(s) - _wide(t)).abs()
        square = torch.where(difference.isfinite(), difference, 0.0).square() / 2
        spread.setdefault(name, []).append(square.flatten(0, -2).mean(0) if square.dim() > 1 else square.mean()[None])


def _mean_square(values: list[Tensor]) -> Tensor:
    if len({v.numel() for v in values}) == 1:
        return torch.stack(values).mean(0)
    return torch.stack([v.mean() for v in values]).mean()[None]


def _copy(x: Inputs) -> Inputs:
    return map_tensors(lambda _, t: t.clone(), x)


def _as_tensors(out: Any) -> Any:
    """Numbers and arrays as tensors, so that a model that returns them is judged by what it returns."""
    if isinstance(out, int | float | complex):
        return torch.tensor(out, dtype=torch.complex128 if isinstance(out, complex) else torch.float64)
    if isinstance(out, np.ndarray):
        return torch.from_numpy(out)
    if not any(True for _ in named_tensors(out)):
        raise InputError(f"the function must return tensors, arrays or numbers, got {type(out).__name__}")
    return out


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _tolerance(x: Inputs, sides: tuple[Any, Any], f: Function) -> float:
    tensors = [t for tree in (x, *sides) for _, t in named_tensors(tree)]
    if isinstance(f, nn.Module):
        tensors += list(f.parameters())
    dtypes = {t.dtype.to_real() if t.is_complex() else t.dtype for t in tensors} & TOLERANCE.keys()
    return max((TOLERANCE[dtype] for dtype in dtypes), default=TOLERANCE[torch.float64])


def _close(a: Any, b: Any, limit: float) -> bool:
    pairs = list(zip(named_tensors(a), named_tensors(b), strict=False))
    for (_, s), (_, t) in pairs:
        if s.shape != t.shape:
            return False
        scale = float(_wide(s).std()) if s.numel() > 1 else float(_wide(s).abs().max()) if s.numel() else 1.0
        if s.numel() and not float((_wide(s) - _wide(t)).abs().max()) <= max(10 * limit * scale, 1e-12):
            return False
    return True


def _shrink(
    law: Law, x: Inputs, g: GroupElement, breaks: Callable[[Inputs, GroupElement], bool]
) -> tuple[Inputs, GroupElement]:
    """Take the first simpler candidate that still breaks the law, until none does."""
    calls = 0
    progress = True
    while progress and calls < _SHRINK_CALLS:
        progress = False
        for y, h in _candidates(law, x, g):
            calls += 1
            try:
                if breaks(y, h):
                    x, g, progress = y, h, True
                    break
            except Exception:  # a smaller input need not be a valid one
                pass
            if calls >= _SHRINK_CALLS:
                break
    return x, g


def _candidates(law: Law, x: Inputs, g: GroupElement) -> Iterator[tuple[Inputs, GroupElement]]:
    yield from law.shrink(x, g)
    if isinstance(x, Tensor):
        for dim in range(x.dim() - 1):
            for size in (x.shape[dim] // 2, x.shape[dim] - 1):
                if 0 < size < x.shape[dim]:
                    yield x.narrow(dim, 0, size), g
    for digits in (0, 1, 2):
        rounded = map_tensors(partial(_rounded, digits), x)
        pairs = list(zip(named_tensors(rounded), named_tensors(x), strict=True))
        changed = any(not torch.equal(s, t) for (_, s), (_, t) in pairs)
        if changed and not any(bool(s.isnan().any()) for (_, s), _ in pairs):
            yield rounded, g


def _rounded(digits: int, _: str, tensor: Tensor) -> Tensor:
    # adding zero turns -0.0 into 0.0
    return tensor.round(decimals=digits) + 0.0 if tensor.dtype in (torch.float32, torch.float64) else tensor
