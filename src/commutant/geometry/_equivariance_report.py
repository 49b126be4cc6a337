"""Report on how the features of a frozen model respond to known changes of its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .._checks import whole
from .._errors import InputError
from ._arguments import callable_given
from ._pose_codes import Retrieval, retrieval

_BATCH = 256
_RIDGES = torch.logspace(-6, 2, 17, dtype=torch.float64)


class Change(NamedTuple):
    """Inputs before and after a known change, for several views of each object."""

    before: Shaped[Tensor, "objects views ..."]
    """Inputs before the change."""
    after: Shaped[Tensor, "objects views ..."]
    """Inputs after the change."""
    code: Float[Tensor, "objects views code"]
    """Code of the change, such as a quaternion."""


class Movement(NamedTuple):
    """Effect of one kind of change on features, as shares of their variance on held-out objects.

    Features are first scaled to the same variance, so that none dominates.
    """

    unchanged: float
    """Share predicted by the features before the change: one for an invariant model, negative for large movements."""
    without_code: float
    """Share predicted by a linear map of the features before the change."""
    with_code: float
    """Share predicted by a linear map that depends linearly on the code of the change."""
    gain_error: float
    """Standard error of the gain over the held-out objects."""
    found_without: Retrieval
    """Retrieval of the true view among all changed views of its object, predicted without the code."""
    found: Retrieval
    """Retrieval of the true view among all changed views of its object, predicted with the code."""

    @property
    def gain(self) -> float:
        """Share of the variance that only the map with the code predicts.

        It is zero for an invariant model, for features that move unpredictably, and for a change that is always the
        same.
        """
        return self.with_code - self.without_code

    @property
    def explained(self) -> float:
        """Share of the movement that the map with the code predicts."""
        return 1 - (1 - self.with_code) / max(1 - self.unchanged, 1e-12)

    def verdict(self) -> str:
        """Return the result in words, such as invariant or equivariant."""
        if self.unchanged > 0.99:
            return "invariant"
        if self.explained > 0.9:
            return "equivariant, by a linear map"
        if self.gain > max(0.1 * (1 - self.without_code), 3 * self.gain_error):
            return "partly equivariant"
        return "nearly invariant" if self.unchanged > 0.9 else "moves, but not linearly"


@dataclass(frozen=True)
class EquivarianceReport:
    """Movements of a model's features for each kind of change, printed as a table."""

    movements: dict[str, Movement]
    """Movement for each kind of change, by name."""
    features: int
    """Number of features of the model."""

    def __str__(self) -> str:
        head = f"{'change':<16}{'unchanged':>10}{'without':>9}{'with':>7}{'gain':>7}{'MRR w/o':>9}{'with':>7}  verdict"
        lines = [
            f"Share of the variance of {self.features} features on held-out objects that is predicted by the features",
            "before the change, by a linear map of them, and by one that also reads the code of the change; then",
            "the mean reciprocal rank of the true view among those of its object, without and with the code:",
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
    """Measure the invariance and equivariance of a frozen model to known changes of its input, on held-out objects.

    A predictor `W(g) y` is fitted for each kind of change, by ridge regression on the products of features and code
    (SIE's predictor, fitted post hoc). Half of the objects are used for the fit, a quarter to select the ridge penalty,
    and a quarter for the report. The same fit without the code shows how much the code adds.

    Args:
        model: Model from a batch of inputs to features `(batch, features)`. Maps `(batch, channels, height, width)` and
            tokens `(batch, tokens, features)` are averaged. Outputs of Hugging Face models also work.
        changes: Changes by name; `commutant.data.single_changes` renders them for models of images.
        preprocess: Function applied to each batch of inputs; by default bytes become floats in [0, 1].
        components: Largest number of principal components of the features that are kept.

    Raises:
        InputError: If there are no changes, fewer than eight objects or two views, or if features are not finite, not
            one row per input, or constant.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x, code = torch.randn(40, 8, 6, generator=g), torch.randn(40, 8, 1, generator=g)
        >>> report = equivariance_report(nn.Identity(), {"scaling": Change(x, code * x, code)})
        >>> report.movements["scaling"].verdict()
        'equivariant, by a linear map'

    The predictor is that of Garrido, Najman and LeCun, ICML 2023; the report is ours.
    """
    callable_given(model, "model")
    if not isinstance(changes, Mapping) or not changes:
        raise InputError(
            f"changes must be a mapping that names at least one kind of change, got {type(changes).__name__}"
        )
    whole("components", components)
    movements, width = {}, 0
    modes = {m: m.training for m in model.modules()} if isinstance(model, nn.Module) else {}
    try:
        if isinstance(model, nn.Module):
            model.eval()
        for name, change in changes.items():
            _check(name, change)
            before, after = (_features(model, x, preprocess, name) for x in (change.before, change.after))
            width = before.shape[-1]
            movements[name] = _movement(before, after, change.code.detach().double().cpu(), components, name)
    finally:
        for module, training in modes.items():
            module.training = training
    return EquivarianceReport(movements, width)


def _check(name: str, change: Change) -> None:
    if not isinstance(change, tuple) or len(change) != 3 or not all(isinstance(part, Tensor) for part in change):
        raise InputError(f"{name} must be a Change of three tensors, got {type(change).__name__}")
    before, after, code = change
    if before.shape != after.shape or before.dim() < 3 or code.dim() != 3 or code.shape[:2] != before.shape[:2]:
        raise InputError(
            f"{name}: before and after must both be (objects, views, ...) and code (objects, views, code), got "
            f"{tuple(before.shape)}, {tuple(after.shape)} and {tuple(code.shape)}"
        )
    if len(before) < 8 or before.shape[1] < 2:
        raise InputError(f"{name}: at least 8 objects of 2 views are needed, got {len(before)} of {before.shape[1]}")
    if not bool(code.isfinite().all()):
        raise InputError(f"{name}: codes must be finite, got NaN or infinities")


@torch.no_grad()
def _features(
    model: Callable[[Any], Any], x: Tensor, preprocess: Callable[[Tensor], Any] | None, name: str
) -> Float[Tensor, "objects views features"]:
    rows = []
    for batch in x.flatten(0, 1).split(_BATCH):
        seen = preprocess(batch) if preprocess else batch.float() / 255 if batch.dtype == torch.uint8 else batch
        rows.append(_rows(model(seen)).double().cpu())
    found = torch.cat(rows)
    if len(found) != x.shape[0] * x.shape[1] or not found.shape[1] or not bool(found.isfinite().all()):
        raise InputError(f"{name}: the model must give one finite row of features for each input, got {found.shape}")
    return found.unflatten(0, x.shape[:2])


def _rows(out: Any) -> Tensor:
    for field in ("pooler_output", "last_hidden_state", "logits"):
        if not isinstance(out, Tensor) and getattr(out, field, None) is not None:
            out = getattr(out, field)
    if not isinstance(out, Tensor) or out.dim() not in (2, 3, 4):
        raise InputError(f"the model must give features, maps or tokens for each input, got {type(out).__name__}")
    return out.mean((2, 3)) if out.dim() == 4 else out.mean(1) if out.dim() == 3 else out


def _movement(before: Tensor, after: Tensor, code: Tensor, components: int, name: str) -> Movement:
    objects: Int[Tensor, " objects"] = torch.randperm(len(before), generator=torch.Generator().manual_seed(0))
    fitted, chosen, measured = objects.tensor_split((len(objects) // 2, 3 * len(objects) // 4))
    known = torch.cat([before[fitted], after[fitted]]).flatten(0, 1)
    center, deviation = known.mean(0), known.std(0)
    alive = (deviation > 1e-9 * known.abs().amax(0)) & (after[fitted].flatten(0, 1).std(0) > 1e-6 * deviation)
    if not bool(alive.any()):
        raise InputError(f"{name}: the features never vary, so there is nothing to report; pass inputs that differ")
    y, target = ((part - center)[..., alive] / deviation[alive] for part in (before, after))
    _, scale, axes = torch.linalg.svd(torch.cat([y[fitted], target[fitted]]).flatten(0, 1), full_matrices=False)
    axes = axes[scale > 1e-9 * scale[0]][:components].mT
    y, target = y @ axes, target @ axes
    one = torch.ones_like(y[..., :1])
    alone = torch.cat([one, y], -1)
    both = (torch.cat([one, code], -1)[..., :, None] * alone[..., None, :]).flatten(-2)
    plain, moved = (_ridge(x, target, fitted, chosen)[measured] for x in (alone, both))
    target, mean = target[measured], target[fitted].flatten(0, 1).mean(0)
    total = (target - mean).square().sum()
    # residual of each object, as a share of the total
    left = [(target - p).square().sum((1, 2)) / total * len(target) for p in (y[measured], plain, moved)]
    error = float((left[1] - left[2]).std() / len(target) ** 0.5)
    unchanged, without, known_code = (float(1 - part.mean()) for part in left)
    return Movement(unchanged, without, known_code, error, retrieval(plain, target), retrieval(moved, target))


def _ridge(
    x: Float[Tensor, "objects views inputs"], y: Float[Tensor, "objects views outputs"], fitted: Tensor, chosen: Tensor
) -> Float[Tensor, "objects views outputs"]:
    """Return predictions for all objects, with the ridge of least error on the chosen ones."""
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
