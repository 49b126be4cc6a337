"""Attention masks: which inputs can reach which outputs, and which data movements a mask rules out."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .._checks import is_whole, one_of, positive, whole
from .._errors import InputError
from ..parameters import evaluating

Mask: TypeAlias = Bool[Tensor, "length length"] | Sequence[Bool[Tensor, "length length"]]
"""Whether a row attends to a column, for all layers or for each of them."""
Order: TypeAlias = Literal["PY", "YP"]
"""Whether the permutation comes before the permuted rows or after them."""


def causal_mask(length: int) -> Bool[Tensor, "length length"]:
    """Return the mask in which each position attends to itself and to earlier ones.

    Args:
        length: Number of positions.
    """
    whole("length", length)
    return torch.ones(length, length, dtype=torch.bool).tril()


def full_mask(length: int) -> Bool[Tensor, "length length"]:
    """Return the mask in which each position attends to all.

    Args:
        length: Number of positions.
    """
    whole("length", length)
    return torch.ones(length, length, dtype=torch.bool)


def prefix_mask(length: int, prefix: int) -> Bool[Tensor, "length length"]:
    """Return the mask of a prefix language model: causal, but the first positions attend to each other.

    Args:
        length: Number of positions.
        prefix: Number of positions that attend to each other.
    """
    whole("prefix", prefix, 0)
    if prefix > length:
        raise InputError(f"prefix must be at most the length, {length}, got {prefix}")
    mask = causal_mask(length)
    mask[:, :prefix] = True
    return mask


def window_mask(length: int, window: int) -> Bool[Tensor, "length length"]:
    """Return the mask in which each position attends to itself and to the `window - 1` positions before.

    Args:
        length: Number of positions.
        window: Number of positions that one attends to.
    """
    whole("window", window)
    return causal_mask(length).triu(1 - window)


def mask_of_function(mask_mod: Callable[[Any, Any, Any, Any], Any], length: int) -> Bool[Tensor, "length length"]:
    """Return the mask of a mask function of `torch.nn.attention.flex_attention`.

    Args:
        mask_mod: Function from batch, head, query and key to whether the query attends to the key.
        length: Number of positions.

    Raises:
        InputError: If it is no such function, or depends on the batch or head, of which the first eight are tried: fix
            them, as in `lambda b, h, q, k: mask_mod(0, 3, q, k)`, and ask for each.
    """
    whole("length", length)
    if not callable(mask_mod):
        raise InputError(f"mask_mod must be a function of batch, head, query and key, got {mask_mod!r:.60}")
    first = _evaluated(mask_mod, length, 0, 0)
    for batch, head in [*((0, h) for h in range(1, 8)), *((b, 0) for b in range(1, 8))]:
        try:
            other = _evaluated(mask_mod, length, batch, head)
        except InputError:  # a table of fewer heads or batches
            continue
        if not torch.equal(other, first):
            kind, number = ("head", head) if head else ("batch", batch)
            raise InputError(
                f"mask_mod differs between {kind} 0 and {kind} {number}; fix both, as in lambda b, h, q, k: "
                f"mask_mod({batch}, {head}, q, k), and ask for each"
            )
    return first


def _evaluated(mask_mod: Callable[[Any, Any, Any, Any], Any], length: int, batch: int, head: int) -> Tensor:
    place = torch.arange(length)
    b, h = torch.tensor(batch), torch.tensor(head)
    per_key = torch.vmap(mask_mod, in_dims=(None, None, None, 0))
    try:
        found = torch.vmap(per_key, in_dims=(None, None, 0, None))(b, h, place, place)
    except Exception as error:  # a function of the user may fail in any way
        why = f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
        raise InputError(f"mask_mod must work on tensors, as for flex_attention ({why})") from None
    if not isinstance(found, Tensor) or found.dtype != torch.bool or found.shape != (length, length):
        given = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"mask_mod must return one boolean for each query and key, got {given}")
    return found


def visible_inputs(mask: Mask, layers: int | None = None) -> Bool[Tensor, "length length"]:
    """Return which input positions (columns) the output at each position (rows) can depend on.

    It is the reach of the mask through all layers, with residual connections: an output at row i depends on input j
    only if a path of attended positions leads from i to j. The statement holds for any weights, any number of heads
    and any layers that act on each position alone (MLPs, norms).

    Args:
        mask: Whether a row attends to a column, `(length, length)`, or one mask for each layer.
        layers: Number of layers with this mask; None for as many as change anything. Of several masks, each is one
            layer, and `layers` must be None.

    Returns:
        Boolean matrix, `(length, length)`.

    Raises:
        InputError: If the mask is not square or has a row without any True, whose softmax would be NaN.

    Example:
        >>> visible_inputs(window_mask(5, 2), layers=2)[4]
        tensor([False, False,  True,  True,  True])
    """
    each = _checked(mask, layers)
    reach = torch.eye(each[0].shape[0], dtype=torch.bool, device=each[0].device)
    if layers is None and isinstance(mask, Tensor):
        while True:
            more = _through(each[0], reach)
            if torch.equal(more, reach):
                return reach
            reach = more
    for one in each if layers is None else itertools.repeat(each[0], layers):
        more = _through(one, reach)
        if layers is not None and torch.equal(more, reach):
            break
        reach = more
    return reach


def _through(mask: Tensor, reach: Tensor) -> Tensor:
    """Return the reach after one more layer: what is attended to, and the residual stream."""
    return reach | ((mask.double() @ reach.double()) > 0)


def _checked(mask: Mask, layers: int | None) -> list[Tensor]:
    each: list[Any] = list(mask) if isinstance(mask, list | tuple) else [mask]
    if layers is not None:
        whole("layers", layers)
        if not isinstance(mask, Tensor):
            raise InputError(f"the number of layers is that of the masks, {len(each)}, so layers can't be given")
    if not each:
        raise InputError("mask must be a tensor or a list with one for each layer, got an empty list")
    for i, one in enumerate(each):
        name = "mask" if len(each) == 1 else f"the mask of layer {i}"
        if not isinstance(one, Tensor) or one.dtype != torch.bool:
            given = one.dtype if isinstance(one, Tensor) else type(one).__name__
            remedy = "compare a matrix of ones with != 0, and one of 0 and -inf with == 0"
            if isinstance(one, np.ndarray):
                remedy = "convert it with torch.from_numpy"
            elif callable(one):
                remedy = "use mask_of_function"
            raise InputError(f"{name} must be a boolean tensor (True = attends), got {given}; {remedy}")
        if one.dim() != 2 or one.shape[0] != one.shape[1] or one.shape != each[0].shape or not one.numel():
            raise InputError(f"{name} must be square, and equal in size for all layers, got {tuple(one.shape)}")
        if not bool(one.any(1).all()):
            row = int((~one.any(1)).nonzero()[0, 0])
            raise InputError(
                f"{name} has no True in row {row}, whose softmax would be NaN; let it attend to itself, or invert a "
                "mask in which True means that a pair is left out"
            )
    return each


@dataclass(frozen=True)
class RoutingReport:
    """Answer to whether a mask can carry data from some positions to others.

    Attributes:
        feasible: Whether each destination can depend on its source.
        blocked: Moves (source, destination) that the mask rules out, whatever the weights.
        length: Number of positions.
        layers: Number of layers, or None for any number.
    """

    feasible: bool
    blocked: tuple[tuple[int, int], ...]
    length: int
    layers: int | None

    def __bool__(self) -> bool:
        return self.feasible

    def __str__(self) -> str:
        depth = "any number of layers" if self.layers is None else f"{self.layers} layer{'s' * (self.layers != 1)}"
        if self.feasible:
            return f"feasible: with {depth}, each destination can depend on its source"
        source, destination = self.blocked[0]
        more = f", and {len(self.blocked) - 1} more moves" if len(self.blocked) > 1 else ""
        return (
            f"impossible: with {depth}, the output at position {destination} can't depend on the input at position "
            f"{source}{more}, whatever the weights"
        )


def routing_feasible(mask: Mask, moves: Iterable[tuple[int, int]], layers: int | None = None) -> RoutingReport:
    """Return whether a mask lets data move from sources to destinations, and the moves that it rules out.

    A blocked move is impossible for any weights. A feasible one is possible in the sense that information can arrive;
    whether a network of a given width learns it is another question.

    Args:
        mask: Whether a row attends to a column, as in `visible_inputs`.
        moves: Pairs (source, destination) of positions.
        layers: Number of layers, as in `visible_inputs`.

    Example:
        >>> routing_feasible(causal_mask(4), [(0, 3), (3, 0)]).blocked
        ((3, 0),)
    """
    reach = visible_inputs(mask, layers)
    length = len(reach)
    if not isinstance(moves, Iterable):
        raise InputError(f"moves must be pairs (source, destination), got {moves!r:.60}")
    pairs = [_move(m) for m in moves]
    for s, d in pairs:
        if not (0 <= s < length and 0 <= d < length):
            raise InputError(f"moves must be positions in 0..{length - 1}, got ({s}, {d})")
    blocked = tuple((s, d) for s, d in pairs if not reach[d, s])
    depth = layers if isinstance(mask, Tensor) else len(mask)
    return RoutingReport(not blocked, blocked, length, depth)


def _move(given: object) -> tuple[int, int]:
    """Return a move after a check."""
    pair = tuple(given.tolist() if isinstance(given, Tensor) else given) if isinstance(given, Iterable) else ()
    if len(pair) != 2 or not all(is_whole(v) for v in pair):
        raise InputError(f"moves must be pairs (source, destination) of whole numbers, got {given!r:.60}")
    return int(pair[0]), int(pair[1])


def inverse_permutation_feasible(
    mask: Mask, d: int, scratch: int = 0, order: Order = "PY", layers: int | None = None
) -> RoutingReport:
    """Return whether a mask lets a network undo every permutation of d rows, with its output in the last d positions.

    Each output position needs all rows of the permuted Y, and all rows of P but one, which follows by exclusion.

    Args:
        mask: Whether a row attends to a column, for `2 d + scratch` positions, as in `visible_inputs`.
        d: Number of rows of the permutation.
        scratch: Number of scratch tokens after the input.
        order: "PY" if the permutation comes before the permuted rows, "YP" if it comes after them.
        layers: Number of layers, as in `visible_inputs`.

    Example:
        >>> [bool(inverse_permutation_feasible(causal_mask(6 + s), 3, s)) for s in range(4)]
        [False, False, True, True]
    """
    whole("d", d)
    whole("scratch", scratch, 0)
    one_of("order", order, ("PY", "YP"))
    reach, length = visible_inputs(mask, layers), 2 * d + scratch
    if len(reach) != length:
        raise InputError(f"mask must have 2 d + scratch = {length} positions, got {len(reach)}")
    first = {"PY": 0, "YP": d}[order]
    blocked = []
    for j in range(length - d, length):
        hidden = (~reach[j]).nonzero()[:, 0].tolist()
        of_p = [i for i in hidden if first <= i < first + d]
        of_y = [i for i in hidden if d - first <= i < 2 * d - first]
        blocked += [(i, j) for i in of_y + (of_p if len(of_p) > 1 else [])]
    depth = layers if isinstance(mask, Tensor) else len(mask)
    return RoutingReport(not blocked, tuple(blocked), length, depth)


def min_scratch(d: int, order: Order = "PY") -> int:
    """Return the fewest scratch tokens after the input with which a causal network can undo every permutation.

    For `[P; Y_P]` it is d - 1: the first of the last d positions must see the last row of Y_P. For `[Y_P; P]` all rows
    of Y_P are visible, but the first output position sees only `s + 1` rows of P; with d - 2 scratch tokens the missing
    row follows by exclusion.

    Args:
        d: Number of rows of the permutation.
        order: "PY" if the permutation comes before the permuted rows, "YP" if it comes after them.
    """
    whole("d", d)
    one_of("order", order, ("PY", "YP"))
    return d - 1 if order == "PY" else max(0, d - 2)


def causal_floor(d: int, scratch: int, variance: float = 0.25) -> float:
    r"""Return the least mean squared error of any causal network that undoes permutations with too few scratch tokens.

    The input is `[P; Y_P]` with scratch tokens after it, the output its last d positions. For uniform permutations, the
    share of visible rows is $v = \frac{1}{d} \sum_j \min(1, (s + j + 1) / d)$, and the error, summed over d
    features, is at least $d\, \mathrm{Var}(Y)\, (1 - v)$.

    Args:
        d: Number of rows, and of features of a row.
        scratch: Number s of scratch tokens.
        variance: Variance of an independent entry of Y; 1/4 for fair bits.
    """
    whole("d", d)
    whole("scratch", scratch, 0)
    positive("variance", variance)
    visible = sum(min(1.0, (scratch + j + 1) / d) for j in range(d)) / d
    return d * variance * (1 - visible)


@torch.no_grad()
def measured_visibility(
    model: Callable[[Tensor], Any] | nn.Module, x: Float[Tensor, "length features"], tolerance: float = 0.0
) -> Bool[Tensor, "length length"]:
    """Return which input positions (columns) change the output at each position (rows) of a given model.

    It replaces one position of the input at a time. It can miss a dependence that these inputs do not show, but never
    reports one that is not there; compare it with `visible_inputs` of the mask that the model is meant to have.

    Args:
        model: Function from inputs `(batch, length, features)` to outputs `(batch, length, ...)`; a Hugging Face model
            is called with `inputs_embeds`.
        x: Input, `(length, features)`.
        tolerance: Largest change that counts as none; above zero for kernels that depend on the batch.
    """
    if x.dim() != 2:
        raise InputError(f"x must have shape (length, features), got {tuple(x.shape)}")
    length = len(x)
    changed = x.repeat(length, 1, 1)
    place = torch.arange(length)
    changed[place, place] = -2 * x.roll(1, 0) - 1
    with evaluating(model) if isinstance(model, nn.Module) else contextlib.nullcontext():
        base, other = (_outputs(model, part) for part in (x.repeat(length, 1, 1), changed))
    if base.dim() < 2 or base.shape[:2] != (length, length):
        raise InputError(f"model must return an output at each position, ({length}, {length}, ...), got {base.shape}")
    difference = (base.double() - other.double()).reshape(length, length, -1).abs().amax(-1)
    if bool(difference.isnan().any()):
        raise InputError("the outputs of the model are NaN; check its mask for rows without any True")
    return (difference > tolerance).mT.contiguous()


def is_hugging_face(model: Any) -> bool:
    """Return whether a model is one of Hugging Face, which takes `inputs_embeds`."""
    return hasattr(model, "config") and hasattr(model, "get_input_embeddings")


def _outputs(model: Any, x: Tensor) -> Tensor:
    found = model(inputs_embeds=x) if is_hugging_face(model) else model(x)
    if not isinstance(found, Tensor):
        hidden = getattr(found, "last_hidden_state", None)
        found = hidden if hidden is not None else getattr(found, "logits", None)
    if not isinstance(found, Tensor):
        raise InputError("model must return a tensor, or an output with last_hidden_state or logits")
    return found
