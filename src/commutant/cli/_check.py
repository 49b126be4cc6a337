"""`commutant check`: check whether a user's own model obeys a law."""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._checks import one_of
from .._errors import CommutantError, InputError
from ..laws import (
    ACTIONS,
    Action,
    BatchIndependence,
    Causality,
    Equivariance,
    GradientEquivariance,
    Invariance,
    Law,
    LawReport,
    check,
    parse_input,
)

LAWS = ("invariance", "equivariance", "gradient-equivariance", "batch-independence", "causality")
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
_WITHOUT_SIZE = ("batch-permutation", "graph-permutation", "trivial", "square-symmetry")


def check_model(
    model: str,
    law: str,
    action: str | None,
    output_action: str | None,
    inputs: list[str],
    dtype: str,
    *,
    trials: int,
    seed: int,
    train: bool,
) -> int:
    """Run the check, print the report, and return 0 if the law holds and 1 if it is broken.

    Raises:
        InputError: The check raised an error, in the user's code or elsewhere, so that there is no verdict.
    """
    try:
        report = _report(model, law, action, output_action, inputs, dtype, trials, seed, train)
        text = str(report)
    except CommutantError:
        raise
    except KeyboardInterrupt:
        print("\ncommutant: stopped", file=sys.stderr)
        return 130
    except BaseException as error:  # an exception in the user's code is not a verdict
        raise InputError(f"{model} could not be checked: {said(error)}") from error
    _print(text)
    return 0 if report.passed else 1


def _report(
    model: str,
    law: str,
    action: str | None,
    output_action: str | None,
    inputs: list[str],
    dtype: str,
    trials: int,
    seed: int,
    train: bool,
) -> LawReport:
    one_of("--dtype", dtype, _DTYPES)
    stated = make_law(law, action, output_action, inputs)
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed must lie in 0..2**63 - 1, got {seed}")
    torch.manual_seed(seed)
    f = load_model(model)
    try:
        if isinstance(f, nn.Module):
            f = f.to(_DTYPES[dtype]).train(train)
    except (Exception, SystemExit) as error:
        raise InputError(f"{model} can't be used in {dtype}: {said(error)}") from error
    specs = inputs or [_default_input(f)]
    samplers = [parse_input(spec, _DTYPES[dtype]) for spec in specs]

    def draw(generator: torch.Generator) -> Any:
        try:
            drawn = [sampler(generator) for sampler in samplers]
        except Exception as error:
            raise InputError(f"input {' and '.join(specs)} can't be drawn: {said(error)}") from error
        return drawn[0] if len(drawn) == 1 else tuple(drawn)

    try:
        return check(stated, f, draw, trials=trials, generator=torch.Generator().manual_seed(seed))
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{model} failed on input {' and '.join(specs)}: {said(error)}") from error


def _print(text: str) -> None:
    """Print in any locale; a closed pipe does not change the exit code."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def said(error: BaseException) -> str:
    """Return an exception in one line."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def load_model(target: str) -> Callable[..., Any]:
    """Import `package.module:name`, or call `package.module:factory(literal, key=literal)`, and return the result."""
    module_name, _, expression = target.partition(":")
    if not expression or not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(f"model {target!r} must be given as package.module:name or package.module:factory(arguments)")
    if sys.path[:1] != [here := str(Path.cwd())]:  # kept, because a factory may import when it is called
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"can't import {module_name}: {error}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"can't import {module_name}: {said(error)}") from error
    try:
        tree = ast.parse(expression, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else None
        path = ast.unparse(call.func if call else tree)
        arguments = [ast.literal_eval(a) for a in call.args] if call else []
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords} if call else {}
        if not all(part.isidentifier() for part in path.split(".")) or "None" in keywords:
            raise ValueError
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise InputError(f"{expression!r} is not a name, or a name with literal arguments") from None
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise InputError(f"{module_name} has no {path!r}") from None
        except (Exception, SystemExit) as error:
            raise InputError(f"{module_name}:{path} can't be read: {said(error)}") from error
    if call is None and not isinstance(found, type):
        return _callable(target, found)
    try:
        return _callable(target, found(*arguments, **keywords))
    except TypeError as error:
        raise InputError(f"{path} could not be built: {error}; give its arguments as {path}(...)") from None
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} could not be built: {said(error)}") from error


def _callable(target: str, found: Any) -> Callable[..., Any]:
    if not callable(found) or isinstance(found, torch.Tensor):
        raise InputError(
            f"{target} is an object of type {type(found).__name__}, which can't be called; name a module or a function"
        )
    return found  # type: ignore[no-any-return]


def make_law(law: str, action: str | None, output_action: str | None, inputs: list[str]) -> Law:
    """Return the law named on the command line."""
    one_of("--law", law, LAWS)
    if output_action is not None and law not in ("equivariance", "gradient-equivariance"):
        raise InputError(f"--law {law} takes no --output-action")
    if law in ("batch-independence", "causality"):
        if action is not None:
            raise InputError(f"--law {law} takes no --action")
        return (
            BatchIndependence() if law == "batch-independence" else Causality(_element_axis("--law causality", inputs))
        )
    if action is None:
        raise InputError(f"--law {law} needs --action; expected one of {', '.join(ACTIONS)}")
    moved = _action(action, inputs)
    if law == "invariance":
        return Invariance(moved)
    output = None if output_action is None else _action(output_action, inputs)
    return (Equivariance if law == "equivariance" else GradientEquivariance)(moved, output)


def _action(name: str, inputs: list[str]) -> Action:
    one_of("--action", name, ACTIONS)
    kind = ACTIONS[name]
    if name in _WITHOUT_SIZE:
        return kind()
    if name in ("permutation", "time-shift"):
        return kind(_element_axis(f"--action {name}", inputs))  # type: ignore[call-arg]
    if not inputs:
        raise InputError(f"--action {name} acts on the last axis; give --input, such as 8x100x3")
    size = inputs[0].rpartition(":")[2].split("x")[-1]
    if inputs[0].startswith("ids:") or not size.isdigit():
        raise InputError(
            f"--action {name} acts on a last axis of one size with real numbers, got --input {inputs[0]}; expected "
            "sizes such as 8x100x3"
        )
    return kind(int(size))  # type: ignore[call-arg]


def _element_axis(what: str, inputs: list[str]) -> int:
    """Return the axis of elements or time: the second to last for features, the last for ids without features."""
    if not inputs:
        return 1
    kind, _, sizes = inputs[0].rpartition(":")
    if kind == "graph":
        raise InputError(f"{what} does not know the edges of --input {inputs[0]}; use --action graph-permutation")
    if kind == "sets" and not what.endswith("permutation"):
        raise InputError(f"{what} needs an axis of time, which --input {inputs[0]} does not have")
    axes = sizes.count("x") + 1 - (0 if kind.startswith("ids") else 1)
    return 1 if axes > 1 else 0


def _default_input(f: Any) -> str:
    """Return an input that fits the attributes of a module: ragged sets for a PyG aggregation, a width for a layer."""
    width = next(
        (v for n in ("in_channels", "in_features", "input_size") if isinstance(v := getattr(f, n, None), int)), None
    )
    if any(c.__name__ == "Aggregation" for c in type(f).__mro__):
        return f"sets:6x1..12x{width or 8}"
    if width is None:
        raise InputError("the input of the model is unknown; give --input with its shape, such as 8x100x3")
    return f"6x{width}"
