"""Buffers that are constants of a network, such as masks and frequencies, and that permutations must preserve."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..parameters import PermutationSpec
from ._given import State
from ._slices import exposed

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_CLOSE = 1e-5  # largest relative difference of two constants that count as equal


@dataclass(frozen=True)
class Constants:
    """Buffers of two networks that some group moves, without running statistics.

    Attributes:
        codes: For each buffer, integers for the entries of the first and of the second network, equal for equal values.
        differ: Names of the real-valued buffers that differ between the networks; they also count as weights.
    """

    codes: dict[str, tuple[Int[Tensor, "..."], Int[Tensor, "..."]]]
    differ: frozenset[str]

    def entries(self, keys: Iterable[str]) -> list[tuple[str, Tensor, Tensor]]:
        """Return the name and the codes of both networks for some of the constants."""
        return [(key, *self.codes[key]) for key in keys]

    def same(self, spec: PermutationSpec, group: str) -> Bool[Tensor, "*outer n n"] | None:
        """Return whether all constants agree at each pair of indices of a group; None if it carries no constants.

        Other groups stay in place.
        """
        around = (*spec.parents[group], group)
        found = None
        for key, (a, b) in self.codes.items():
            for axis, label in enumerate(spec.axes[key]):
                if group in label.groups():
                    x, y = kinds_of_rows(*(exposed(t, spec.axes[key], around, axis) for t in (a, b)))
                    agree = x.unsqueeze(-1) == y.unsqueeze(-2)
                    found = agree if found is None else found & agree
        return found


def constants_of(spec: PermutationSpec, target: State, source: State) -> Constants:
    """Return the constants of two networks."""
    codes, differ = {}, set[str]()
    for key in spec.axes:
        moved = any(any(label.groups()) for label in spec.axes[key])
        if not moved or key not in spec.buffers or key.rpartition(".")[2] in _STATISTICS:
            continue
        a, b = (state[spec.name_in(state, key)].detach().cpu() for state in (target, source))
        if a.is_meta or b.is_meta:
            continue
        codes[key] = _codes(a, b)
        if a.is_floating_point() and b.is_floating_point() and min(a.element_size(), b.element_size()) > 1:
            same = torch.equal(*codes[key])
            if not same and bool(a.isfinite().all()) and bool(b.isfinite().all()):
                differ.add(key)
    return Constants(codes, frozenset(differ))


def _codes(a: Tensor, b: Tensor) -> tuple[Int[Tensor, "..."], Int[Tensor, "..."]]:
    """Return integers for the entries of two tensors, equal for equal values."""
    if a.is_complex() or b.is_complex():
        real, imaginary = (_codes(*(part(t.to(torch.complex128)) for t in (a, b))) for part in (torch.real, torch.imag))
        return tuple(x + y * (1 + max(int(t.max()) for t in real)) for x, y in zip(real, imaginary, strict=True))  # type: ignore[return-value]
    if a.is_floating_point() or b.is_floating_point():
        floats = [t for t in (a, b) if t.is_floating_point()]
        rough = max(_CLOSE, *(2 * torch.finfo(t.dtype).eps for t in floats))
        a, b = a.double(), b.double()
        finite = a[a.isfinite()].abs()
        floor = rough * 1e-3 * float(finite.max()) if finite.numel() else 0.0
        if a.shape == b.shape and torch.allclose(a, b, rtol=rough, atol=floor, equal_nan=True):
            b = a
        a, b = (torch.where(t.isnan(), torch.nan, t + 0.0).view(torch.long) for t in (a, b))  # one zero, one NaN
    numbers = torch.cat([a.flatten(), b.flatten()]).long().unique(return_inverse=True)[1]
    return numbers[: a.numel()].view(a.shape), numbers[a.numel() :].view(b.shape)


def kinds_of_rows(
    x: Int[Tensor, "*outer rest"], y: Int[Tensor, "*outer rest"]
) -> tuple[Int[Tensor, "*outer"], Int[Tensor, "*outer"]]:
    """Return an integer for every row of two tensors, equal for equal rows."""
    kinds = torch.cat([x.flatten(0, -2), y.flatten(0, -2)]).unique(dim=0, return_inverse=True)[1]
    first, second = kinds.split(kinds.shape[0] // 2)
    return first.view(x.shape[:-1]), second.view(y.shape[:-1])


def one_hot_rows(
    x: Int[Tensor, "*outer rest"], y: Int[Tensor, "*outer rest"]
) -> tuple[Float[Tensor, "*outer kinds"], Float[Tensor, "*outer kinds"]]:
    """Return vectors for the rows of two tensors whose inner product is 1 for equal rows and 0 otherwise."""
    first, second = kinds_of_rows(x, y)
    common = first[torch.isin(first, second)].unique()
    return (first.unsqueeze(-1) == common).double(), (second.unsqueeze(-1) == common).double()
