"""Command `commutant mask`: whether an attention mask can carry a data movement."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from .._checks import one_of
from .._errors import InputError, require
from ..permutations import (
    RoutingReport,
    causal_mask,
    full_mask,
    inverse_permutation_feasible,
    prefix_mask,
    routing_feasible,
    window_mask,
)
from ._check import load_model, said

INVERSE = "inverse-permutation"
_SPECS = "causal:N, full:N, prefix:N:P, window:N:W, a file (.npy, .pt), config.json:N or package.module:function:N"


def show_mask(spec: str, moves: str, layers: int | None, scratch: int, order: str, as_json: bool) -> int:
    """Print whether a mask can carry the moves, and return 1 if it can't."""
    grown, length = _mask_of(spec)
    if scratch and grown is None:
        raise InputError("--scratch needs a mask that can grow: causal:N, full:N, prefix:N:P or window:N:W")
    mask = grown(length + scratch) if grown else _fixed(spec)
    report = _asked(mask, moves, layers, scratch, order)
    fewest = None
    if not report.feasible and grown is not None and moves == INVERSE:
        enough = (s for s in range(scratch + 1, length + 1) if _asked(grown(length + s), moves, layers, s, order))
        fewest = next(enough, None)
    if as_json:
        found = {
            "mask": spec, "positions": report.length, "layers": report.layers, "moves": moves, "scratch": scratch,
            "feasible": report.feasible, "blocked": [list(move) for move in report.blocked],
            "fewest_scratch_tokens": fewest,
        }  # fmt: skip
        print(json.dumps(found))
    else:
        _print(spec, _told(moves, scratch, order, report), report, scratch, fewest)
    return 0 if report.feasible else 1


def _asked(mask: Any, moves: str, layers: int | None, scratch: int, order: str) -> RoutingReport:
    """Return whether the mask can carry the moves."""
    length = len(mask) if isinstance(mask, Tensor) else len(mask[0])
    if moves != INVERSE:
        return routing_feasible(mask, _pairs(moves, length, scratch), layers)
    one_of("order", order, ("PY", "YP"))
    if (length - scratch) % 2:
        raise InputError(
            f"an inverse permutation needs an even number of input positions, d of P and d of Y, got {length - scratch}"
        )
    return inverse_permutation_feasible(mask, (length - scratch) // 2, scratch, order, layers)  # type: ignore[arg-type]


def _print(spec: str, moves: str, report: RoutingReport, scratch: int, fewest: int | None) -> None:
    console = Console(highlight=False)
    added = f", the last {scratch} of them scratch tokens" if scratch else ""
    depth = "any number of layers" if report.layers is None else _count(report.layers, "layer")
    rows = [("mask", escape(f"{spec}: {report.length} positions{added}, {depth}")), ("moves", escape(moves))]
    if report.feasible:
        rows.append(("verdict", "[green]possible[/]: each destination can depend on its source"))
    else:
        source, destination = report.blocked[0]
        rows.append(("verdict", "[red]impossible[/], whatever the weights"))
        first = f"position {destination} can't depend on position {source}"
        rows.append(("blocked", f"{_count(len(report.blocked))}: {first}{', ...' * (len(report.blocked) > 1)}"))
        if fewest is not None:
            rows.append(("remedy", f"{_count(fewest, 'scratch token')} after the input: add --scratch {fewest}"))
    for name, text in rows:
        console.print(f"[dim]{name:<8}[/] {text}", soft_wrap=True)


def _told(moves: str, scratch: int, order: str, report: RoutingReport) -> str:
    """Return the moves in words."""
    if moves != INVERSE:
        n = report.length - scratch
        last = f" of the last {n}" if scratch else ""
        words = {"reverse": f"position i to position {n} - 1 - i{last}", "all": f"each position to each{last}"}
        return words.get(moves, moves)
    d = (report.length - scratch) // 2
    parts = "P, then PY" if order == "PY" else "PY, then P"
    return f"undo any permutation P of {d} rows: {parts} in, Y out at the last {d}"


def _pairs(moves: str, length: int, scratch: int) -> list[tuple[int, int]]:
    """Return the moves from the input; with scratch tokens after it, the output is as many last positions."""
    if moves == "reverse":
        return [(i, length - 1 - i) for i in range(length - scratch)]
    if moves == "all":
        return [(i, j) for i in range(length - scratch) for j in range(scratch, length)]
    try:
        pairs = [tuple(int(v) for v in pair.split(">")) for pair in moves.replace("->", ">").split(",")]
        return [(source, destination) for source, destination in pairs]
    except ValueError:
        raise InputError(
            f"--moves must be {INVERSE}, reverse, all, or pairs such as '0->3,4->1', got {moves!r}"
        ) from None


def _mask_of(spec: str) -> tuple[Callable[[int], Tensor] | None, int]:
    """Return the function from a length to a mask of a built-in kind, or None, and the length (0 for files)."""
    kind, *numbers = spec.split(":")
    known = {"causal": 1, "full": 1, "prefix": 2, "window": 2}
    if kind not in known:
        return None, 0
    if len(numbers) != known[kind] or not all(n.isdecimal() for n in numbers):
        raise InputError(f"mask {spec!r} must be one of {_SPECS}, with whole numbers")
    length, *more = (int(n) for n in numbers)
    makers: dict[str, Callable[[int], Tensor]] = {
        "causal": causal_mask, "full": full_mask,
        "prefix": lambda n: prefix_mask(n, *more), "window": lambda n: window_mask(n, *more),
    }  # fmt: skip
    return makers[kind], length


def _fixed(spec: str) -> Any:
    """Return the mask of a file, or the masks of a Hugging Face configuration or of a mask function."""
    path, _, count = spec.rpartition(":")
    if spec.endswith((".npy", ".pt")):
        return _from_file(Path(spec))
    if not count.isdecimal() or not path:
        raise InputError(f"mask {spec!r} must be one of {_SPECS}")
    if path.endswith(".json"):
        from ..permutations.huggingface import attention_masks

        return attention_masks(_configuration(Path(path)), int(count))
    from ..permutations import mask_of_function

    return mask_of_function(load_model(path), int(count))


def _configuration(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path} is no file; give the config.json of a Hugging Face model")
    configurations = require("transformers", "hf").AutoConfig

    try:
        return configurations.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a configuration of a Hugging Face model ({said(error)})") from None


def _from_file(path: Path) -> Tensor | list[Tensor]:
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False))
        found = torch.load(path, weights_only=True)
    except Exception as error:  # torch.load has exceptions of its own for damaged pickles
        why = said(error) if isinstance(error, OSError | ValueError) else "it holds more than a tensor, or is damaged"
        raise InputError(f"{path} can't be read as a mask ({why})") from None
    each = found if isinstance(found, list | tuple) and found else [found]
    if not all(isinstance(one, Tensor) for one in each):
        raise InputError(f"{path} must hold a tensor, or a list with one for each layer, got {type(found).__name__}")
    return found


def _count(n: int, noun: str = "move") -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
