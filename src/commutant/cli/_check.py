"""`commutant check`: a law on a user's own model."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._errors import InputError
from ..laws import (
    ACTIONS,
    Action,
    BatchIndependence,
    Equivariance,
    GradientEquivariance,
    Invariance,
    Law,
    check,
    parse_input,
)

LAWS = ("invariance", "equivariance", "gradient-equivariance", "batch-independence")
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    """Run the check and print the report; the exit code is 0 only where the law holds."""
    if dtype not in _DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(_DTYPES)}")
    torch.manual_seed(seed)
    f = load_model(model)
    if isinstance(f, nn.Module):
        f = f.to(_DTYPES[dtype]).train(train)
    samplers = [parse_input(spec, _DTYPES[dtype]) for spec in inputs or [_default_input(f)]]

    def draw(generator: torch.Generator) -> Any:
        drawn = [sampler(generator) for sampler in samplers]
        return drawn[0] if len(drawn) == 1 else tuple(drawn)

    try:
        report = check(make_law(law, action, output_action, inputs), f, draw, trials=trials, seed=seed)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{model} failed on input {' and '.join(inputs) or _default_input(f)}: {type(error).__name__}: {error}"
        ) from error
    print(report)
    return 0 if report.passed else 1


def load_model(target: str) -> Callable[..., Any]:
    """Import `package.module:name`, or call `package.module:factory(literal, key=literal)`."""
    module_name, _, expression = target.partition(":")
    if not expression:
        raise InputError(f"model {target!r} must be given as package.module:name or package.module:factory(arguments)")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise InputError(f"can't import {module_name}: {error}") from None
    finally:
        sys.path.pop(0)
    try:
        tree = ast.parse(expression, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else None
        path = ast.unparse(call.func if call else tree)
        arguments = [ast.literal_eval(a) for a in call.args] if call else []
        keywords = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg} if call else {}
    except (SyntaxError, ValueError):
        raise InputError(f"{expression!r} is not a name, or a name with literal arguments") from None
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise InputError(f"{module_name} has no {path!r}")
        found = getattr(found, part)
    if call is None and not isinstance(found, type):
        return found  # type: ignore[no-any-return]
    try:
        return found(*arguments, **keywords)  # type: ignore[no-any-return]
    except TypeError as error:
        raise InputError(f"{path} could not be built: {error}; give its arguments as {path}(...)") from None
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise InputError(f"{path} could not be built: {type(error).__name__}: {first}") from error


def make_law(law: str, action: str | None, output_action: str | None, inputs: list[str]) -> Law:
    """The law named on the command line."""
    if law not in LAWS:
        raise InputError(f"unknown law {law!r}; expected one of {', '.join(LAWS)}")
    if law == "batch-independence":
        return BatchIndependence()
    if action is None:
        raise InputError(f"--law {law} needs --action; expected one of {', '.join(ACTIONS)}")
    moved = _action(action, inputs)
    if law == "invariance":
        return Invariance(moved)
    output = None if output_action is None else _action(output_action, inputs)
    return (Equivariance if law == "equivariance" else GradientEquivariance)(moved, output)


def _action(name: str, inputs: list[str]) -> Action:
    if name not in ACTIONS:
        raise InputError(f"unknown action {name!r}; expected one of {', '.join(ACTIONS)}")
    kind = ACTIONS[name]
    sizes = inputs[0].rpartition(":")[2].split("x") if inputs else []
    if name in ("permutation", "time-shift"):
        return kind(0 if len(sizes) == 2 else 1)  # type: ignore[call-arg]
    if name in ("batch-permutation", "graph-permutation", "trivial"):
        return kind()
    if not sizes:
        raise InputError(f"--action {name} acts on the last axis; give --input, such as 8x100x3")
    return kind(int(sizes[-1].split("..")[-1]))  # type: ignore[call-arg]


def _default_input(f: Any) -> str:
    """What a module says about its own input: PyG aggregations take ragged sets, layers a width."""
    width = next(
        (v for n in ("in_channels", "in_features", "input_size") if isinstance(v := getattr(f, n, None), int)), None
    )
    if any(c.__name__ == "Aggregation" for c in type(f).__mro__):
        return f"sets:6x1..12x{width or 8}"
    if width is None:
        raise InputError("the model does not say what input it takes; give --input, such as 8x100x3")
    return f"6x{width}"
