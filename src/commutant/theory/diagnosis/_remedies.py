"""Remedies for findings, tried on a copy of the network before they are recommended."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import remove_weight_norm
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..._errors import InputError
from ._autoscale import autoscale_
from ._findings import Finding
from ._initialize import critical_
from ._record import NORMS

_LARGE = 20_000_000  # parameters, above which no copies are made
_BY_HAND = "critical_(model) or autoscale_(model, x)"


Cures: TypeAlias = dict[str, tuple[Callable[[nn.Module, int], Any], int]]


def with_tested_remedies(
    found: list[Finding], model: nn.Module, x: Any, look: Callable[[nn.Module], list[Finding]]
) -> list[Finding]:
    """Fill in empty remedies with the first initialization that removes the finding from a copy of the network."""
    if all(f.remedy for f in found):
        return found
    others = (
        "skips around its layers" if any(isinstance(m, NORMS) for m in model.modules()) else "normalization or skips"
    )
    if sum(p.numel() for p in model.parameters()) > _LARGE:
        return _filled(found, {}, f"{_BY_HAND} (not tried, as the model is large); {others} often help")
    left: dict[str, set[str]] = {}
    for name, (cure, draws) in _cures(model, x).items():
        left[name] = set()
        for seed in range(draws):
            try:
                cured = _copy(model)
            except Exception:  # a user's module may fail in any way
                return _filled(found, {}, f"{_BY_HAND} (not tried, as the model cannot be copied); {others} often help")
            try:
                cure(cured, seed)
                left[name] |= {f.what for f in look(cured) if f.severe}
            except InputError:
                del left[name]
                break
        if name in left and not left[name]:
            break
    return _filled(found, left, f"neither critical_ nor autoscale_ removes this (tried on copies); {others} often help")


def _copy(model: nn.Module) -> nn.Module:
    """Return a deep copy, including weights computed in the last pass, which copy.deepcopy refuses."""
    kept = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor) and not v.is_leaf]
    return copy.deepcopy(model, {id(v): v.detach().clone() for v in kept})


def _filled(found: list[Finding], left: dict[str, set[str]], otherwise: str) -> list[Finding]:
    best = sorted(left, key=lambda name: len(left[name]))  # a stable sort keeps the first of equals
    out = []
    for f in found:
        cure = next((name for name in best if f.what not in left[name]), None)
        remedy = f.remedy or (
            otherwise if cure is None else f"{cure}; on a copy of the network, this removes the problem"
        )
        if not f.remedy and cure is not None and left[cure]:
            remedy += f" and {', '.join(sorted(left[cure]))} remain{'s' if len(left[cure]) == 1 else ''}"
        out.append(dataclasses.replace(f, remedy=remedy))
    return out


def _cures(model: nn.Module, x: Any) -> Cures:
    """Return the remedies to try, each with the number of draws after which success is unlikely to be chance."""

    def critical(cured: nn.Module, seed: int) -> None:
        critical_(cured, generator=torch.Generator(next(cured.parameters()).device).manual_seed(seed))

    def scaled(cured: nn.Module, seed: int) -> None:
        autoscale_(cured, x, generator=torch.Generator().manual_seed(seed))

    def first_critical(cured: nn.Module, seed: int) -> None:
        for part, remove in _weight_norms(cured):
            remove(part)
        critical(cured, seed)

    cures: Cures = {"critical_(model)": (critical, 2), "autoscale_(model, x)": (scaled, 1)}
    if _weight_norms(model):
        cures["critical_(model) before weight_norm is applied to its layers"] = (first_critical, 2)
    return cures


def _weight_norms(model: nn.Module) -> list[tuple[nn.Module, Callable[[nn.Module], Any]]]:
    """Return the layers under weight normalization, each with the function that removes it."""
    out: list[tuple[nn.Module, Callable[[nn.Module], Any]]] = []
    for part in model.modules():
        chain = getattr(part, "parametrizations", {})
        if list(chain) == ["weight"] and any(isinstance(step, _WeightNorm) for step in chain["weight"]):
            out.append((part, _plain))
        elif any(isinstance(hook, WeightNorm) for hook in part._forward_pre_hooks.values()):
            out.append((part, remove_weight_norm))
    return out


def _plain(layer: nn.Module) -> None:
    """Undo a parametrization of the weight; torch's own removal would break the layer that this one was copied from."""
    weight = cast(Tensor, layer.weight)
    del layer._modules["parametrizations"]
    layer.__class__ = type(layer).__bases__[0]
    layer.register_parameter("weight", nn.Parameter(weight.detach().clone()))
