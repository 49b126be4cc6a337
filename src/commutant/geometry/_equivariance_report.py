"""How the features of any frozen model move when what they see is changed in a known way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .._errors import InputError
from ._pose_codes import Retrieval, retrieval

_BATCH = 256
_RIDGES = torch.logspace(-6, 2, 17, dtype=torch.float64)


class Change(NamedTuple):
    """Inputs before and after a known change, in groups of one object each."""

    before: Shaped[Tensor, "objects views ..."]
    after: Shaped[Tensor, "objects views ..."]
    code: Float[Tensor, "objects views code"]
    """What was done, such as a quaternion."""


class Movement(NamedTuple):
    """What one kind of change does to features, as shares of their variance on objects not seen in the fit."""

    unchanged: float
    """Predicted by what they were before: one for an invariant model, negative where they move far."""
    without_code: float
    """Predicted by a linear map of what they were before."""
    with_code: float
    """Predicted by a linear map that depends linearly on the code of the change."""
    found_without: Retrieval
    """The right view among all changed ones of its object, by the prediction without the code."""
    found: Retrieval
    """The same with the code."""

    @property
    def gain(self) -> float:
        """What knowing the change adds: zero for an invariant model, and for one that moves without a rule."""
        return self.with_code - self.without_code

    def verdict(self) -> str:
        """In words: invariant, equivariant, partly, or neither."""
        if self.unchanged > 0.99:
            return "invariant"
        if self.with_code > 0.9 and self.gain > 0.05:
            return "equivariant, by a linear map"
        if self.gain > 0.05:
            return "in part equivariant"
        return "nearly invariant" if self.unchanged > 0.9 else "moves, by no linear rule"


@dataclass(frozen=True)
class EquivarianceReport:
    """The movements of a model's features, by kind of change; print it."""

    movements: dict[str, Movement]
    features: int
    components: int

    def __str__(self) -> str:
        head = f"{'change':<16}{'unchanged':>10}{'without':>9}{'with':>7}{'gain':>7}{'MRR w/o':>9}{'with':>7}  verdict"
        lines = [
            f"Share of the variance of {self.features} features ({self.components} principal components) on new "
            "objects that is predicted",
            "by what they were before, by a linear map of it, and by one that knows the change; and the mean",
            "reciprocal rank of the right view among those of its object, without and with knowing it:",
            "",
            head,
        ]
        for name, m in self.movements.items():
            lines.append(
                f"{name:<16}{m.unchanged:>10.3f}{m.without_code:>9.3f}{m.with_code:>7.3f}{m.gain:>7.3f}"
                f"{m.found_without.mrr:>9.3f}{m.found.mrr:>7.3f}  {m.verdict()}"
            )
        return "\n".join(lines)


def equivariance_report(
    model: nn.Module | Callable[[Any], Any],
    changes: Mapping[str, Change],
    *,
    preprocess: Callable[[Tensor], Any] | None = None,
    components: int = 64,
) -> EquivarianceReport:
    """How far a frozen model is invariant or equivariant to known changes of its input, on objects not fitted.

    For each kind of change a predictor `W(g) y` is fitted in closed form by ridge regression, linear in the products of
    features and code (SIE's predictor, after the fact), on half of the objects; a quarter chooses the ridge, and a
    quarter is measured. The same without the code shows how much of it is knowing the change.

    Args:
        model: from a batch of inputs to features: `(batch, features)`, maps `(batch, channels, height, width)` and
            tokens `(batch, tokens, features)`, which are averaged, or what Hugging Face models return.
        changes: by name; `commutant.data.single_changes` renders them for models of pictures.
        preprocess: of each batch of inputs; by default bytes become floats in [0, 1].
        components: of the features that are kept, the largest principal ones.

    Raises:
        InputError: fewer than four objects or two views, no changes, features that are not finite or not rows, or
            features that never vary.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x, code = torch.randn(40, 8, 6, generator=g), torch.randn(40, 8, 1, generator=g)
        >>> report = equivariance_report(nn.Identity(), {"scaling": Change(x, code * x, code)})
        >>> report.movements["scaling"].verdict()
        'equivariant, by a linear map'

    Garrido, Najman and LeCun, ICML 2023, for the predictor; the report is ours.
    """
    if not changes:
        raise InputError("changes must name at least one kind of change, got none")
    movements, width, kept = {}, 0, 0
    training = model.training if isinstance(model, nn.Module) else False
    try:
        if isinstance(model, nn.Module):
            model.eval()
        for name, change in changes.items():
            _check(name, change)
            before, after = (_features(model, x, preprocess, name) for x in (change.before, change.after))
            width = before.shape[-1]
            movements[name], kept = _movement(before, after, change.code.detach().double().cpu(), components, name)
    finally:
        if isinstance(model, nn.Module):
            model.train(training)
    return EquivarianceReport(movements, width, kept)


def _check(name: str, change: Change) -> None:
    before, after, code = change
    if before.shape != after.shape or before.dim() < 3 or code.dim() != 3 or code.shape[:2] != before.shape[:2]:
        raise InputError(
            f"{name}: before and after must have one shape (objects, views, ...) and code (objects, views, code), got "
            f"{tuple(before.shape)}, {tuple(after.shape)} and {tuple(code.shape)}"
        )
    if len(before) < 4 or before.shape[1] < 2:
        raise InputError(f"{name}: at least 4 objects of 2 views are needed, got {len(before)} of {before.shape[1]}")


@torch.no_grad()
def _features(
    model: Callable[[Any], Any], x: Tensor, preprocess: Callable[[Tensor], Any] | None, name: str
) -> Float[Tensor, "objects views features"]:
    rows = []
    for batch in x.flatten(0, 1).split(_BATCH):
        seen = preprocess(batch) if preprocess else batch.float() / 255 if batch.dtype == torch.uint8 else batch
        rows.append(_rows(model(seen)).double().cpu())
    found = torch.cat(rows)
    if len(found) != x.shape[0] * x.shape[1] or not bool(found.isfinite().all()):
        raise InputError(f"{name}: the model must give one finite row of features for each input, got {found.shape}")
    return found.unflatten(0, x.shape[:2])


def _rows(out: Any) -> Tensor:
    for field in ("pooler_output", "last_hidden_state", "logits"):
        if not isinstance(out, Tensor) and getattr(out, field, None) is not None:
            out = getattr(out, field)
    if not isinstance(out, Tensor) or out.dim() not in (2, 3, 4):
        raise InputError(f"the model must give features, maps or tokens for each input, got {type(out).__name__}")
    return out.mean((2, 3)) if out.dim() == 4 else out.mean(1) if out.dim() == 3 else out


def _movement(before: Tensor, after: Tensor, code: Tensor, components: int, name: str) -> tuple[Movement, int]:
    objects: Int[Tensor, " objects"] = torch.randperm(len(before), generator=torch.Generator().manual_seed(0))
    fitted, chosen, measured = objects.tensor_split((len(objects) // 2, 3 * len(objects) // 4))
    known = torch.cat([before[fitted], after[fitted]]).flatten(0, 1)
    centre = known.mean(0)
    _, scale, axes = torch.linalg.svd(known - centre, full_matrices=False)
    axes = axes[scale > 1e-9 * max(1.0, float(known.abs().max())) * len(known) ** 0.5][:components].mT
    if not axes.shape[1]:
        raise InputError(f"{name}: the features never vary, so there is nothing to report")
    y, target = ((part - centre) @ axes for part in (before, after))
    one = torch.ones_like(y[..., :1])
    alone = torch.cat([one, y], -1)
    both = (torch.cat([one, code], -1)[..., :, None] * alone[..., None, :]).flatten(-2)
    plain, moved = (_ridge(x, target, fitted, chosen)[measured] for x in (alone, both))
    share = lambda p: _share(p, target[measured], target[fitted].flatten(0, 1).mean(0))  # noqa: E731
    found = (retrieval(p, target[measured]) for p in (plain, moved))
    return Movement(share(y[measured]), share(plain), share(moved), *found), axes.shape[1]


def _share(predicted: Tensor, target: Tensor, mean: Tensor) -> float:
    return float(1 - (target - predicted).square().sum() / (target - mean).square().sum())


def _ridge(
    x: Float[Tensor, "objects views inputs"], y: Float[Tensor, "objects views outputs"], fitted: Tensor, chosen: Tensor
) -> Float[Tensor, "objects views outputs"]:
    """Predictions for all objects, with the ridge that serves the chosen ones best."""
    a, b = x[fitted].flatten(0, 1), y[fitted].flatten(0, 1)
    values, vectors = torch.linalg.eigh(a.mT @ a)
    inner = vectors.mT @ (a.mT @ b)
    best, least = inner, float("inf")
    for ridge in _RIDGES * values.mean():
        weight = vectors @ (inner / (values.clamp(min=0) + ridge)[:, None])
        error = float((x[chosen] @ weight - y[chosen]).square().sum())
        if error < least:
            best, least = weight, error
    return x @ best
