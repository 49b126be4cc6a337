"""Evaluation of the sides of a law, with the same random numbers in each call and without lasting changes."""

from __future__ import annotations

import copy
import random
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import InputError
from ._actions import GroupElement
from ._compare import TOLERANCE, Noise
from ._explore import perturb
from ._inputs import Inputs, map_tensors, named_tensors
from ._laws import Function, Law
from ._outputs import as_tree, wide

_DRAWS = 8
_FACTOR = 8.0  # in half precision, two probes may miss most of the rounding error
_REPEATS = 8  # calls after which an output that never changed counts as deterministic


class FunctionFailed(Exception):
    """Failure of the function under test on an input."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Run:
    """Law of a function, ready to be evaluated."""

    def __init__(self, law: Law, f: Function, seed: int) -> None:
        self.law, self.seed = law, seed
        self.original = f
        owner = getattr(f, "__self__", None)  # of a method of a module
        self.module = f if isinstance(f, nn.Module) else owner if isinstance(owner, nn.Module) else None
        self.f = self._call(f)
        self._failure: BaseException | None = None
        self._settled = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Seed all random numbers, and restore them and the module's buffers afterwards."""
        modules = [] if self.module is None else list(self.module.modules())
        buffers = [(m, name, b, b.clone()) for m in modules for name, b in m._buffers.items() if b is not None]
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        try:
            self._seed(bool(devices))
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
            for i, state in enumerate(devices):
                torch.cuda.set_rng_state(state, i)
            with torch.no_grad():
                for module, name, buffer, old in buffers:
                    module._buffers[name] = buffer.copy_(old)

    def _seed(self, devices: bool) -> None:
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)
        torch.default_generator.manual_seed(self.seed)  # torch.manual_seed is slow where there are other devices
        if devices:
            torch.cuda.manual_seed_all(self.seed)

    def _call(self, f: Function) -> Function:
        def frozen_call(*args: Any, **kwargs: Any) -> Any:
            with self.frozen():  # f gets copies, which it may change in place
                try:
                    out = f(*_copy(list(args)), **_copy(kwargs))
                except (Exception, SystemExit) as error:
                    self._failure = error
                    raise
            return as_tree(out)

        frozen_call.__wrapped__ = f  # type: ignore[attr-defined]
        frozen_call.freeze = self._call  # type: ignore[attr-defined]
        return frozen_call

    def settle(self, x: Inputs) -> None:
        """Let the law find out the meaning of the axes of inputs and outputs."""
        if not self._settled:
            law = self._evaluate(lambda: self.law.settle(self.f, x))
            self._settled, self.law = law is not self.law, law

    def draw(self, x: Inputs, generator: torch.Generator, trial: int, trials: int) -> tuple[GroupElement, bool]:
        """Return a draw of the law and whether it changes anything; a neutral element is drawn again a few times."""

        def attempt() -> tuple[GroupElement, bool]:
            for _ in range(_DRAWS):
                g = self.law.draw_for(x, generator, trial, trials)
                if self.law.moves(x, g):
                    return g, True
            return g, False

        return self._evaluate(attempt)  # type: ignore[no-any-return]

    def sides(self, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        """Return both sides, or twice the exception that f raised on one of them although it accepts x."""
        try:
            left, right = _detached(self._evaluate(lambda: self.law.sides(self.f, x, g)))
        except FunctionFailed as failed:
            self._evaluate(lambda: self.law.plain(self.f, x))
            return failed.error, failed.error
        return left, right

    def value(self, x: Inputs, g: GroupElement) -> Any:
        """Return the left side."""
        return _detached(self._evaluate(lambda: self.law.value(self.f, x, g)))

    def _evaluate(self, compute: Any) -> Any:
        self._failure = None
        try:
            return compute()
        except (Exception, SystemExit) as error:
            if error is self._failure:
                raise FunctionFailed(error) from error
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.law!r} does not fit this input and output: {type(error).__name__}: {error} (the "
                "function itself did not fail)"
            ) from error

    def noise(self, x: Inputs, g: GroupElement, sides: tuple[Any, Any], dtype: torch.dtype, final: bool) -> Noise:
        """Measure the changes of the two sides under rounding of the input in `dtype`."""
        eps = torch.finfo(dtype).eps
        size = max(largest(x), largest(x) ** 2, largest(sides))
        noise = Noise(max(tolerance_of(dtype) / (4 * eps), _FACTOR), 1e4 * eps * size, final)
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(2):
            try:
                noise.add(sides, self.sides(perturb(x, eps, generator), g))
            except (FunctionFailed, InputError):
                break
        return noise

    def in_double(self) -> Run | None:
        """Return the same run with the module in float64, or None if the module can't be copied."""
        f = self.original
        try:
            if isinstance(f, nn.Module):
                f = copy.deepcopy(f).double()
            elif self.module is not None:
                f = types.MethodType(f.__func__, copy.deepcopy(self.module).double())  # type: ignore[attr-defined]
            elif isinstance(f, types.FunctionType):
                f = _function_in_double(f)
        except Exception:  # a module may refuse to be copied in many ways
            return None
        return Run(self.law, f, self.seed)

    def training(self, x: Inputs) -> bool:
        """Return whether a module in training mode draws random numbers or uses batch statistics."""
        stages = [] if self.module is None else [m for m in self.module.modules() if m.training]
        if any(isinstance(stage, nn.modules.batchnorm._BatchNorm) for stage in stages):
            return True
        return bool(stages) and self._random(x)

    def _random(self, x: Inputs) -> bool:
        """Return whether repeated calls on one input give different outputs."""
        try:
            with self.frozen():  # seeded once, so that each call draws other numbers
                first, *others = (as_tree(self.law.plain(self.original, _copy(x))) for _ in range(_REPEATS))
        except (Exception, SystemExit):  # the law found a counterexample, whatever f does with this input alone
            return False
        return any(not _same(first, other) for other in others)


def double(x: Inputs) -> Inputs:
    """Return inputs with real and complex numbers in double precision."""

    def widen(_: str, tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(torch.complex128)
        return tensor.double() if tensor.is_floating_point() else tensor

    return map_tensors(widen, x)


def _function_in_double(f: types.FunctionType) -> types.FunctionType:
    """Return the function with the modules and tensors of its closure and globals in float64."""

    def widen(value: Any) -> Any:
        if isinstance(value, nn.Module):
            return copy.deepcopy(value).double()
        return double(value) if isinstance(value, Tensor) else value

    cells = tuple(types.CellType(widen(cell.cell_contents)) for cell in f.__closure__ or ())
    names = {name: widen(f.__globals__[name]) for name in f.__code__.co_names if name in f.__globals__}
    twin = types.FunctionType(f.__code__, {**f.__globals__, **names}, f.__name__, f.__defaults__, cells or None)
    twin.__kwdefaults__ = f.__kwdefaults__
    return twin


def largest(x: Any) -> float:
    """Return the largest finite absolute value in a tree."""
    tensors = [wide(t) for _, t in named_tensors(x) if t.numel()]
    return max((float(torch.where(t.isfinite(), t.abs(), 0.0).max()) for t in tensors), default=0.0)


def lowest_precision(run: Run, x: Inputs, sides: tuple[Any, Any]) -> torch.dtype:
    """Return the dtype with the largest tolerance among inputs, outputs and parameters."""
    tensors = [t for tree in (x, *sides) for _, t in named_tensors(tree)]
    if run.module is not None:
        tensors += list(run.module.parameters())
    dtypes = {t.dtype.to_real() if t.is_complex() else t.dtype for t in tensors}
    return max((d for d in dtypes if d.is_floating_point), key=tolerance_of, default=torch.float64)


def tolerance_of(dtype: torch.dtype) -> float:
    """Return the tolerance of a dtype: by default eight times its rounding error."""
    return TOLERANCE.get(dtype, 8 * torch.finfo(dtype).eps)


def _same(a: Any, b: Any) -> bool:
    pairs = zip(named_tensors(a), named_tensors(b), strict=False)
    return all(
        s.shape == t.shape and torch.allclose(wide(s), wide(t), rtol=0.0, atol=0.0, equal_nan=True)
        for (_, s), (_, t) in pairs
    )


def _copy(x: Inputs) -> Inputs:
    return map_tensors(lambda _, t: t.clone(), x)


def _detached(x: Any) -> Any:
    return map_tensors(lambda _, t: t.detach(), x)
