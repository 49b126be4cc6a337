"""Sorted networks: what can be cut in many architectures, and what a step costs, beside `nvidia-modelopt`."""

from __future__ import annotations

import contextlib
import copy
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from commutant import InputError
from commutant.parameters import as_arguments
from commutant.weights import Menu, SortedModule

from .architectures import Architecture, everything

REPEATS = 60
WIDTHS = [0.25, 0.5, 1.0]


def nested_architectures() -> dict[str, Any]:
    rows = [_row(architecture) for architecture in everything()]
    able = [r for r in rows if r["cut"]]
    exact = sum(r["equal"] == "yes" for r in able)
    theirs = [r for r in rows if isinstance(r["modelopt"], int)]
    return {
        "name": "nested-architectures",
        "title": "Networks that can be nested",
        "description": "`SortedModule` with `width: auto` at 0.25, 0.5 and 1.0 on networks with random weights. "
        "*Groups*: outermost groups of channels or heads; *cut*: those that can be cut, each tested against the full "
        "network. *Equal*: outputs of the extracted module and of the one in place are equal bit by bit, and gradients "
        "to 1e-5, at both smaller sizes. *Smallest*: share of the parameters at 0.25. "
        '*modelopt*: widths that `nvidia-modelopt` can change after `convert(mode="autonas")`, with any multiple '
        "allowed.",
        "columns": ["family", "groups", "cut", "equal", "smallest", "seconds", "modelopt"],
        "rows": rows,
        "reading": f"{len(able)} of {len(rows)} networks can be nested; in {exact} of them outputs are equal bit by bit "
        f"and gradients to rounding. `nvidia-modelopt` finds a width to change in "
        f"{sum(r['modelopt'] > 0 for r in theirs)}.",
    }


def _row(architecture: Architecture) -> dict[str, Any]:
    torch.manual_seed(0)
    model, inputs = architecture.build().eval(), architecture.inputs()
    row: dict[str, Any] = {"name": architecture.name, "family": architecture.family, "modelopt": _rival(architecture)}
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            menu = Menu.product(width=WIDTHS)
            nested = SortedModule(model, inputs, {"width": "auto"}, menu, outputs=architecture.outputs)
        except InputError:
            return {**row, "groups": 0, "cut": 0, "equal": "–", "smallest": "–", "seconds": time.perf_counter() - start}
        seconds = time.perf_counter() - start
        outer = sum(not own for own in nested.spec.parents.values())
        equal = all(_agrees(nested, budget, inputs, architecture) for budget in list(menu)[:2])
    return {
        **row,
        "groups": outer,
        "cut": len(nested.dims["width"].sizes),
        "equal": "yes" if equal else "no",
        "smallest": nested.count(menu[0]) / nested.count(None),
        "seconds": seconds,
    }


def _agrees(nested: SortedModule, budget: Any, inputs: Any, architecture: Architecture) -> bool:
    """Return whether outputs are equal, and gradients nearly."""
    args, kwargs = as_arguments(inputs)
    small, found = nested.extract(budget), []
    nested.zero_grad()
    with nested.budget(**budget):
        for network in (nested, small):
            torch.manual_seed(0)
            out = network(*args, **kwargs)
            out = architecture.outputs(out) if architecture.outputs else out
            found.append([t for t in pytree.tree_leaves(out) if isinstance(t, Tensor) and t.is_floating_point()])
    if not all(torch.equal(a, b) for a, b in zip(*found, strict=True)):
        return False
    if any(t.requires_grad for t in found[0]):
        for own in found:
            torch.manual_seed(1)
            sum((t * torch.randn_like(t)).sum() for t in own if t.requires_grad).backward()  # type: ignore[union-attr]
    full = dict(nested.module.named_parameters())
    for key, p in small.named_parameters():
        if p.grad is not None:
            own = nested._cut(budget).sliced(key, full[key].grad)
            if not float((own - p.grad).abs().max()) <= 1e-5 * max(1.0, float(p.grad.abs().max())):
                return False
    return True


def _rival(architecture: Architecture) -> int | str:
    try:
        import modelopt.torch.nas as mtn
        from modelopt.torch.nas.autonas import AutoNASConfig
        from modelopt.torch.opt.dynamic import DynamicSpace
    except ImportError:
        return "–"
    torch.manual_seed(0)
    model = architecture.build().eval()
    try:
        with _at_most(30), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            every = _undivided(AutoNASConfig().model_dump())
            space = DynamicSpace(mtn.convert(model, mode=[("autonas", every)]))
            return sum(len(h.choices) > 1 for name, h in space.named_hparams(configurable=True) if "depth" not in name)
    except Exception as error:
        return 0 if "does not contain any configurable" in str(error) else "fails"


def _undivided(settings: Any) -> Any:
    """Return settings in which widths need not be multiples of 32."""
    if not isinstance(settings, dict):
        return settings
    return {name: 1 if name.endswith("divisor") else _undivided(value) for name, value in settings.items()}


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _mlp() -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(256, 1024), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Linear(1024, 1024), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


def _convolutions() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def nested_step() -> dict[str, Any]:
    rows = [_step("MLP, 4 x 1024", _mlp(), torch.randn(256, 256)),
            _step("three convolutions", _convolutions(), torch.randn(64, 3, 32, 32))]  # fmt: skip
    worst = max(r["full"] for r in rows)
    return {
        "name": "nested-step",
        "title": "Cost of a sorted network",
        "description": "A training step, forward and backward, on two threads; medians of "
        f"{REPEATS} repeats in turn. *Step*: seconds of the bare module. The next columns are times over it: *full*, "
        "the full network; *by budget*, the budget that keeps everything; *half*, half the channels of each layer; "
        "the same *extracted*. *Switch*: microseconds to choose another budget, here and in `nvidia-modelopt`. *Memory*: state of the family over that of the bare module.",
        "columns": ["step", "full", "by budget", "half", "half, extracted", "memory", "switch", "modelopt switch"],
        "rows": rows,
        "reading": f"The full network takes {worst:.2f} times the step of the bare module (bar 1.05), and another budget "
        f"is chosen in {max(r['switch'] for r in rows):.0f} microseconds.",
    }  # fmt: skip


def _step(name: str, model: nn.Module, x: Tensor) -> dict[str, Any]:
    nested = SortedModule(model, x[:2], {"width": "auto"}, Menu.product(width=WIDTHS))
    half = nested.extract({"width": 0.5})

    def at(budget: dict[str, float] | None) -> Tensor:
        nested.set_budget(budget)
        return nested(x)  # type: ignore[no-any-return]

    calls: dict[str, Callable[[], Any]] = {
        "bare": lambda: model(x), "full": lambda: at(None), "by budget": lambda: at({"width": 1.0}),
        "half": lambda: at({"width": 0.5}), "half, extracted": lambda: half(x),
    }  # fmt: skip
    seconds = _times(calls)
    start = time.perf_counter()
    for i in range(3000):
        nested.set_budget(nested.menu[i % 3])
    switch = (time.perf_counter() - start) / 3000
    own = {t.data_ptr(): t.nbytes for t in nested.state_dict().values()}
    plain = sum(t.nbytes for t in model.state_dict().values())
    ratios = {k: v / seconds["bare"] for k, v in seconds.items() if k != "bare"}
    return {"name": name, "step": seconds["bare"], **ratios, "switch": switch * 1e6,
            "memory": sum(own.values()) / plain, "modelopt switch": _switch(model)}  # fmt: skip


def _times(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(REPEATS + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            call().square().mean().backward()
            if repeat >= 3:
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(own) for name, own in found.items()}


def _switch(model: nn.Module) -> float | str:
    try:
        import modelopt.torch.nas as mtn
    except ImportError:
        return "–"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = mtn.convert(copy.deepcopy(model), mode="autonas")
    start = time.perf_counter()
    for _ in range(200):
        mtn.sample(other)
    return (time.perf_counter() - start) / 200 * 1e6


ALL = [nested_architectures, nested_step]
