"""Reports of a check, as numbers and as sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ._compare import Comparison
from ._inputs import Inputs, named_leaves, named_tensors

Status: TypeAlias = Literal["holds", "vacuous", "unresolved", "broken"]

_PASTE = 240  # most numbers that a witness prints


@dataclass(frozen=True)
class Witness:
    """Counter-example to a law: the smallest input and draw found to break it."""

    x: Inputs
    """Input."""
    g: Any
    """Group element, or another draw of the law."""
    comparison: Comparison
    """Difference between the two sides."""
    sides: tuple[Any, Any]
    """Left and right side of the law."""
    note: str = ""
    """Description of g in words, or an empty string."""

    @property
    def code(self) -> str:
        """Python code that builds the witness, to paste into a test."""
        lines = [_assignment(name, t) for name, t in named_tensors(self.x)]
        if self.g is not None:
            lines += _element_code(self.g)
        if self.note:
            lines[-1] += f"  # {self.note}"
        return "\n".join(lines)


@dataclass(frozen=True)
class LayerReport:
    """Comparison of one submodule's outputs on both sides of a law."""

    name: str
    """Name in the module, such as `encoder.0`."""
    kind: str
    """Name of the class."""
    lawful: bool | None
    """Whether the output obeys the law; None if it can't be compared."""


@dataclass(frozen=True)
class LawReport:
    """Result of `check`."""

    law: str
    """Name of the law."""
    formula: str
    """Law as a formula."""
    status: Status
    """`holds`, `vacuous` (nothing was compared), `unresolved` (rounding hides the answer) or `broken`."""
    worst: float
    """Largest residual over all trials, relative to the output's variation."""
    mean: float
    """Mean residual over all trials, relative to the output's variation."""
    tolerance: float
    """Largest accepted residual, relative to the output's variation."""
    resolution: float
    """Smallest relative residual that rounding does not hide."""
    varies: bool
    """Whether the output depends on the input."""
    moved: bool
    """Whether the two sides were different computations for some draw."""
    trials: int
    """Number of inputs and draws tried."""
    training: bool
    """Whether a module in training mode, which draws random numbers or uses batch statistics, broke the law."""
    comparison: Comparison
    """Difference between the two sides at the witness, or at the worst trial if there is no witness."""
    witness: Witness | None
    """Smallest counterexample found; None if the law is not broken or `explain` is off."""
    layers: list[LayerReport]
    """Submodules of a broken module in order of execution, up to the first that breaks the law."""

    @property
    def passed(self) -> bool:
        """True if the law holds non-vacuously."""
        return self.status == "holds"

    @property
    def culprit(self) -> str | None:
        """Name of the first submodule that breaks the law, or None if there is none."""
        return next((layer.name for layer in self.layers if layer.lawful is False), None)

    @property
    def sentence(self) -> str:
        """Result in one or more sentences."""
        if self.status == "holds":
            return (
                f"{self.law} holds: in {self.trials} trials {self.formula} up to {self.worst:.1e} of the output's "
                f"variation (tolerance {self.tolerance:.0e})."
            )
        if self.status == "vacuous":
            why = (
                "the output does not depend on the input"
                if self.moved
                else "no drawn group element or choice of samples changes this input"
            )
            return f"{self.law} holds only vacuously: {why}, so {self.formula} says nothing."
        if self.status == "unresolved":
            hidden = max(self.resolution, self.worst)
            what = (
                f"differences below {hidden:.1e} of the output's variation" if hidden else "whether the output varies"
            )
            return (
                f"{self.law} can't be decided: rounding hides {what} (tolerance {self.tolerance:.0e}); check in "
                "float64 throughout."
            )
        comparison = self.comparison
        if comparison.mismatch:
            how = comparison.mismatch
        elif comparison.nan:
            how = "NaN in the output"
        elif self.worst == float("inf"):
            how = "the two sides differ where the output does not vary with the input"
        else:
            how = f"the two sides differ by {self.worst:.2g} of the output's variation (tolerance {self.tolerance:.0e})"
        culprit = f" The first submodule to break it is {self.culprit!r}." if self.culprit else ""
        mode = (
            " The model is in training mode, where it draws random numbers or uses batch statistics; call model.eval() "
            "to check its behavior in evaluation mode."
            if self.training
            else ""
        )
        return f"{self.law} is broken: {how}, where {self.formula} was expected.{culprit}{mode}"

    def __str__(self) -> str:
        if self.witness is None:
            return self.sentence
        left, right = (_preview(side) for side in self.witness.sides)
        return "\n".join(
            [
                self.sentence,
                "",
                f"# smallest witness found{_size(self.witness.comparison)}",
                self.witness.code,
                f"# left side:  {left}",
                f"# right side: {right}",
            ]
        )


def _assignment(name: str, tensor: Tensor) -> str:
    target = name if name.isidentifier() else f"# {name}\nx"
    if tensor.numel() > _PASTE:
        return f"{target} = ...  # {tensor.dtype} of shape {tuple(tensor.shape)}, too large to print"
    dtype = "" if tensor.dtype in (torch.float32, torch.int64) else f", dtype={tensor.dtype}"
    return f"{target} = torch.tensor({_round_trip(tensor)}{dtype})"


def _round_trip(tensor: Tensor) -> str:
    """Return the shortest text that rebuilds the tensor exactly."""
    if tensor.dtype != torch.float32:
        return str(tensor.tolist())

    def shortest(value: Any) -> Any:
        if isinstance(value, list):
            return [shortest(v) for v in value]
        for digits in range(1, 10):
            short = float(f"{value:.{digits}g}")
            if torch.tensor(short, dtype=torch.float32).item() == value:
                return short
        return value

    return str(shortest(tensor.tolist()))


def _element_code(g: Any) -> list[str]:
    if isinstance(g, Tensor):
        return [_assignment("g", g)]
    if isinstance(g, tuple):
        parts = [_assignment("g", p).removeprefix("g = ") if isinstance(p, Tensor) else repr(p) for p in g]
        return [f"g = ({', '.join(parts)})"]
    return [f"g = {g!r}"]


def _preview(side: Any) -> str:
    values: list[str] = []
    for _, leaf in named_leaves(side):
        if not isinstance(leaf, Tensor):
            values.append(repr(leaf))
            continue
        flat = leaf.flatten()[:7].tolist()
        values += [f"{v:.6g}" if isinstance(v, int | float) else str(v) for v in flat]
        if len(values) > 6:
            break
    return f"[{', '.join(values[:6])}{', ...' if len(values) > 6 else ''}]"


def _size(comparison: Comparison) -> str:
    if comparison.kind != "residual" or comparison.relative == float("inf"):
        return ""
    return f", where the sides differ by {comparison.relative:.2g} of the output's variation"
