"""Pruning of recurrent layers by masks that survive training bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._checks import one_of
from .._errors import InputError
from ._layers import ParallelRecurrence

_KINDS = {"i2h": ("weight_ih",), "h2h": ("weight_hh",), "both": ("weight_ih", "weight_hh")}
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


class Mask(nn.Module):
    """Parametrization that keeps masked weights exactly zero in the forward pass.

    Args:
        mask: Boolean tensor of the shape of the weight, True where it is kept.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight where the mask is True, else zero; masked weights get no gradient.

        Args:
            weight: Unmasked weight.
        """
        return torch.where(self.mask, weight, 0)


@dataclass(frozen=True)
class _Matrix:
    """One weight matrix of a recurrent layer."""

    module: nn.Module
    name: str
    gates: int

    @property
    def weight(self) -> Tensor:
        return getattr(self.module, self.name).detach()

    @property
    def mask(self) -> Tensor:
        existing = _mask_of(self.module, self.name)
        return torch.ones_like(self.weight, dtype=torch.bool) if existing is None else existing.mask


def _mask_of(module: nn.Module, name: str) -> Mask | None:
    if not parametrize.is_parametrized(module, name):
        return None
    return next((p for p in module.parametrizations[name] if isinstance(p, Mask)), None)  # type: ignore[union-attr,index]


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        given = f"the class {model.__name__}; call it" if isinstance(model, type) else type(model).__name__
        raise InputError(f"model must be an nn.Module, got {given}")


def _matrices(model: nn.Module, which: str) -> list[_Matrix]:
    _check_module(model)
    one_of("which", which, _KINDS)
    every = [_Matrix(module, *found) for module in model.modules() for found in _weights(module, _KINDS[which])]
    found = [matrix for matrix in every if matrix.weight.numel()]
    if every and not found:
        raise InputError(
            f"which={which!r} was given, but {type(model).__name__} has no {which} weights, because the recurrence of "
            f"{type(every[0].module).__name__} has no parameters; use which='i2h'"
        )
    if not found:
        raise InputError(
            f"model must hold a recurrent layer (nn.RNN, nn.GRU, nn.LSTM, their cells, ParaGRU ...), but "
            f"{type(model).__name__} holds no recurrent layer"
        )
    return found


def _weights(module: nn.Module, kinds: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    if isinstance(module, nn.RNNBase):
        for name in module._flat_weights_names:
            if name.startswith(kinds):
                yield name, _GATES[module.mode]
    elif isinstance(module, nn.RNNCellBase):
        for name in kinds:
            yield name, module.weight_hh.shape[0] // module.hidden_size  # type: ignore[operator,misc]
    elif isinstance(module, ParallelRecurrence):
        for layer in range(module.num_layers):
            for name in (kind + suffix for kind in kinds for suffix in module._suffixes(layer)):
                rows = getattr(module, name).shape[0]
                yield name, rows // module.hidden_size if name.startswith("weight_ih") else rows


def apply_masks(module: nn.Module, masks: dict[str, Tensor]) -> None:
    """Set masks on weights of one module by name, replacing masks that exist."""
    for name, mask in masks.items():
        existing = _mask_of(module, name)
        if existing is None:
            parametrize.register_parametrization(module, name, Mask(mask))
        else:
            existing.mask.copy_(mask)
    if isinstance(module, nn.RNNBase) and "_flat_weights" in module.__dict__:
        # torch's recurrent layers cache a list of weights at construction; a property rebuilds it at every read
        # (parametrize has given the module its own class)
        del module.__dict__["_flat_weights"]
        type(module)._flat_weights = property(_flat_weights, lambda _module, _value: None)  # type: ignore[assignment]


def _flat_weights(module: nn.RNNBase) -> list[Any]:
    return [getattr(module, name) for name in module._flat_weights_names]


def prune_recurrent(
    model: nn.Module,
    amount: float | int,
    which: str = "both",
    scope: str = "global",
    criterion: str = "magnitude",
    *,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Remove the smallest weights of every recurrent layer in a model, in place, by masks that survive training.

    Exactly `round(amount * n)` of the n weights of each scope are removed; ties are broken by position. Weights that
    are pruned already stay pruned and count toward the amount. Pruning again by the same amount changes nothing, and by
    a larger amount only adds to the mask. Biases and other layers are not changed. The masks are parametrizations
    (`torch.nn.utils.parametrize`): a masked weight is exactly zero in every forward pass, whatever the optimizer does,
    and `state_dict` keeps the mask. `bake` makes the masks permanent.

    The method is from *Investigating Sparsity in Recurrent Neural Networks* (Darji 2024, arXiv 2407.20601). The masks
    follow torch's order of the gates; those of the thesis do not.

    Args:
        model: Module that holds `nn.RNN`, `nn.GRU`, `nn.LSTM`, their cells or layers of `commutant.sequences`.
        amount: Share of the weights to remove, between 0 and 1.
        which: Weights to prune, `"i2h"` (input to hidden), `"h2h"` (hidden to hidden) or `"both"`.
        scope: Set within which weights are ranked: the whole model (`"global"`, as in the thesis), each `"layer"`, or
            each `"gate"` of each matrix.
        criterion: Ranking of weights, by `"magnitude"`, or `"random"` as a control.
        generator: Source of randomness for the random criterion.

    Returns:
        The same model.

    Raises:
        InputError: For a model without recurrent layers, an amount outside 0 to 1 or weights that are not finite.

    Example:
        >>> rnn = prune_recurrent(torch.nn.GRU(8, 16), 0.9, "h2h")
        >>> round(recurrent_sparsity(rnn, "h2h"), 2)
        0.9
    """
    if not isinstance(amount, int | float) or not 0 <= amount <= 1:
        raise InputError(f"amount must be a number between 0 and 1, got {amount!r}")
    one_of("scope", scope, ("global", "layer", "gate"))
    one_of("criterion", criterion, ("magnitude", "random"))
    matrices = _matrices(model, which)
    for matrix in matrices:
        if not matrix.weight.isfinite().all():
            raise InputError(
                f"model must have finite recurrent weights, but {matrix.name} of {type(matrix.module).__name__} holds "
                f"NaN or infinity"
            )
    scores = [_scores(matrix, criterion, generator) for matrix in matrices]
    masks = [torch.ones_like(score, dtype=torch.bool) for score in scores]
    for group in _groups(matrices, scope):
        flat = torch.cat([scores[i].view(rows, -1)[r].flatten() for i, rows, r in group])
        keep = torch.ones_like(flat, dtype=torch.bool)
        keep[flat.argsort(stable=True)[: round(amount * flat.numel())]] = False
        parts = keep.split([scores[i].numel() // rows for i, rows, _ in group])
        for (i, rows, r), part in zip(group, parts, strict=True):
            masks[i].view(rows, -1)[r] = part
    for matrix, mask in zip(matrices, masks, strict=True):
        apply_masks(matrix.module, {matrix.name: mask & matrix.mask})
    return model


def _scores(matrix: _Matrix, criterion: str, generator: torch.Generator | None) -> Tensor:
    if criterion == "magnitude":
        score = matrix.weight.abs().double()
    else:
        score = torch.rand(matrix.weight.shape, generator=generator, dtype=torch.float64).to(matrix.weight.device)
    return torch.where(matrix.mask, score, -1).contiguous()  # weights that are pruned already rank first


def _groups(matrices: Sequence[_Matrix], scope: str) -> list[list[tuple[int, int, int]]]:
    """Return the groups that are ranked together, as lists of (matrix, number of row blocks, block)."""
    if scope == "gate":
        return [[(i, m.gates, gate)] for i, m in enumerate(matrices) for gate in range(m.gates)]
    if scope == "global":
        return [[(i, 1, 0) for i in range(len(matrices))]]
    layers: dict[tuple[int, str], list[tuple[int, int, int]]] = {}
    for i, m in enumerate(matrices):
        suffix = m.name.removeprefix("weight_ih").removeprefix("weight_hh")
        layers.setdefault((id(m.module), suffix), []).append((i, 1, 0))
    return list(layers.values())


def diagonalize_recurrent(model: nn.Module) -> nn.Module:
    """Keep only the diagonal of each gate's hidden-to-hidden matrix, in place, so that each unit reads its own state.

    An LSTM or GRU loses little accuracy after a few epochs of retraining, because its memory is in the cell. A plain
    RNN loses more. A diagonal recurrence could be trained in parallel over time.

    Args:
        model: Module that holds recurrent layers, see `prune_recurrent`.

    Returns:
        The same model.

    Raises:
        InputError: For a model without recurrent layers, or a recurrence that is diagonal already.

    Example:
        >>> rnn = diagonalize_recurrent(torch.nn.LSTM(8, 16))
        >>> int((rnn.weight_hh_l0 != 0).sum())
        64
    """
    for matrix in _matrices(model, "h2h"):
        rows, columns = matrix.weight.shape
        if rows != matrix.gates * columns:
            raise InputError(
                f"model must have square hidden-to-hidden matrices, but {matrix.name} of "
                f"{type(matrix.module).__name__} is diagonal already, or has no diagonal"
            )
        eye = torch.eye(columns, dtype=torch.bool, device=matrix.weight.device).repeat(matrix.gates, 1)
        apply_masks(matrix.module, {matrix.name: eye & matrix.mask})
    return model


def recurrent_sparsity(model: nn.Module, which: str = "both") -> float:
    """Return the share of recurrent weights that are exactly zero.

    Args:
        model: Module that holds recurrent layers, see `prune_recurrent`.
        which: Weights to count, `"i2h"`, `"h2h"` or `"both"`.
    """
    weights = [matrix.weight for matrix in _matrices(model, which)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def bake(model: nn.Module) -> nn.Module:
    """Make masks permanent, in place, by turning masked weights into plain parameters with zeros.

    Args:
        model: Module that was pruned.

    Returns:
        The same model.
    """
    _check_module(model)
    for module in model.modules():
        names = [name for name in getattr(module, "parametrizations", {}) if _mask_of(module, name) is not None]
        if names:  # copies of a module share its parametrized class, which must keep the masks of the copies
            shared = type(module)
            own = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
            module.__class__ = type(shared.__name__, shared.__bases__, own)
        for name in names:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        if names and isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
            module._flat_weights = _flat_weights(module)
            module.flatten_parameters()
    return model


def pruning_curve(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    amounts: Sequence[float | int],
    which: str = "both",
    retrain: Callable[[nn.Module], Any] | None = None,
    **options: Any,
) -> list[dict[str, float]]:
    """Prune copies of a trained model by each amount, and evaluate them before and after retraining with fixed masks.

    Args:
        model: Trained module, which is not changed.
        evaluate: Function from a model to a score.
        amounts: Shares to prune, each between 0 and 1.
        which: Weights to prune, see `prune_recurrent`.
        retrain: Function that trains a model in place, or None.
        options: Further arguments of `prune_recurrent`.

    Returns:
        One dictionary per amount, with `amount`, `sparsity`, `score` and, if retrained, `retrained`.

    Raises:
        InputError: For functions or amounts of the wrong type, and as `prune_recurrent`.
    """
    for name, function in (("evaluate", evaluate), ("retrain", retrain)):
        if not callable(function) and (name == "evaluate" or function is not None):
            raise InputError(f"{name} must be a function of a model, got {function!r}")
    if not isinstance(amounts, Sequence) or isinstance(amounts, str):
        raise InputError(f"amounts must be a list of shares between 0 and 1, got {amounts!r}")
    rows = []
    for amount in amounts:
        pruned = prune_recurrent(copy.deepcopy(model), amount, which, **options)
        row = {"amount": float(amount), "sparsity": recurrent_sparsity(pruned, which), "score": float(evaluate(pruned))}
        if retrain is not None:
            retrain(pruned)
            row["retrained"] = float(evaluate(pruned))
        rows.append(row)
    return rows
