"""Models made independent of the order of their input, and decoders with room to write after it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .._checks import check_features, is_whole, one_of, positive, whole
from .._errors import InputError
from ..algebra import inverse, soft_sort_matrix
from ._masks import is_hugging_face

Output: TypeAlias = Literal["whole", "elements"]


class Canonicalize(nn.Module):
    r"""Wrapper that sorts the elements before the model, so that the order of the input has no influence.

    With `output="whole"` the result is invariant, $f(Px) = f(x)$. With `output="elements"` the model returns one row
    for each element, which goes back to the element's place, $f(Px) = P f(x)$. Equal keys are told apart by the
    features, and elements that are equal in all of them share the mean of their outputs, or the first of whole
    numbers, so that both hold exactly. A key that is computed must not depend on the place of an element by rounding,
    as a matrix product may.

    The result jumps where two keys change their order. With a temperature the sort is soft: differentiable in the key,
    continuous, and invariant up to rounding, but elements are mixed.

    Args:
        model: Model of sequences, `(batch, n, features)` -> anything, or `(batch, n, ...)` for `output="elements"`. If
            its `forward` has an argument `valid`, it is told there which sorted positions hold an element.
        key: Feature to sort by, or a function (or module) from elements to keys, `(batch, n)`; it must treat each
            element alike.
        output: `"whole"` or `"elements"`.
        temperature: Temperature of a soft sort, in units of the key; None for a hard one.

    Shapes:
        `(batch, n, features)` -> that of the model

    Example:
        >>> model = Canonicalize(nn.Flatten(), key=0)
        >>> x = torch.rand(2, 5, 3)
        >>> bool(torch.equal(model(x), model(x[:, [3, 1, 4, 0, 2]])))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        key: int | Callable[[Tensor], Tensor] = 0,
        output: Output = "whole",
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        one_of("output", output, ("whole", "elements"))
        if not callable(key) and not is_whole(key):
            raise InputError(f"key must be the index of a feature or a function of the elements, got {key!r}")
        if temperature is not None:
            positive("temperature", temperature)
        self.model, self.key, self.output, self.temperature = model, key, output, temperature

    def forward(
        self, x: Float[Tensor, "batch n features"], valid: Bool[Tensor, "batch n"] | None = None
    ) -> Float[Tensor, "..."]:
        """Return the output of the model on sorted elements.

        Args:
            x: Elements, `(batch, n, features)`.
            valid: Whether a position holds an element, `(batch, n)`; the others come last, as zeros, which a model
                without an argument `valid` cannot tell from elements. Hard sort only.
        """
        check_features("x", x)
        if x.dim() != 3:
            raise InputError(f"x must have shape (batch, n, features), got {tuple(x.shape)}")
        fits = isinstance(valid, Tensor) and valid.dtype == torch.bool and valid.shape == x.shape[:2]
        if valid is not None and not fits:
            given = f"{valid.dtype} {tuple(valid.shape)}" if isinstance(valid, Tensor) else type(valid).__name__
            raise InputError(f"valid must be boolean of shape {tuple(x.shape[:2])}, got {given}")
        if valid is not None and self.temperature is not None:
            raise InputError("a soft sort takes sets of equal size; leave out valid, or use temperature=None")
        x = x + 0.0  # one zero, not two
        keys = self._keys(x)
        known = keys if valid is None else keys.masked_fill(~valid, 0)
        real = x if valid is None else x.masked_fill(~valid[..., None], 0)
        for name, bad in (("keys", known.isnan().any(1)), ("elements", real.isnan().flatten(1).any(1))):
            if bool(bad.any()):
                row = int(bad.nonzero()[0, 0])
                raise InputError(f"the {name} of row {row} of the batch are NaN, which has no place in an order")
        if self.temperature is not None:
            soft = soft_sort_matrix(-keys, self.temperature)  # descending scores are ascending keys
            out = self._called(soft @ x, torch.ones_like(keys, dtype=torch.bool))
            return out if self.output == "whole" else _back(soft.mT, out)
        order = sorting_order(keys, x, valid)
        ordered = x.gather(1, order[..., None].expand_as(x))
        held = torch.ones_like(order, dtype=torch.bool) if valid is None else valid.gather(1, order)
        ordered = ordered.masked_fill(~held[..., None], 0)
        out = self._called(ordered, held)
        if self.output == "whole":
            return out
        out = _shared_by_equals(ordered, out, held)
        place = inverse(order).reshape(*order.shape, *(1,) * (out.dim() - 2))
        return out.gather(1, place.expand(-1, -1, *out.shape[2:]))

    def _keys(self, x: Tensor) -> Tensor:
        if not callable(self.key):
            if not -x.shape[-1] <= self.key < x.shape[-1]:
                raise InputError(f"key must be a feature in 0..{x.shape[-1] - 1}, got {self.key}")
            return x[..., self.key]
        keys: Any = self.key(x)
        if isinstance(keys, Tensor) and keys.shape == (*x.shape[:2], 1):
            keys = keys[..., 0]
        if not isinstance(keys, Tensor) or keys.shape != x.shape[:2]:
            given = tuple(keys.shape) if isinstance(keys, Tensor) else type(keys).__name__
            raise InputError(f"key must return one number for each element, {tuple(x.shape[:2])}, got {given}")
        return keys

    def _called(self, ordered: Tensor, held: Tensor) -> Tensor:
        out = self.model(ordered, valid=held) if _takes_valid(self.model) else self.model(ordered)
        if self.output == "elements" and (not isinstance(out, Tensor) or out.shape[:2] != ordered.shape[:2]):
            given = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(
                f"with output='elements' the model must return {tuple(ordered.shape[:2])} rows, got {given}"
            )
        return out


def _takes_valid(model: Any) -> bool:
    """Return whether a model has an argument `valid`, also behind wrappers that take any keyword."""
    while True:
        try:
            parameters = inspect.signature(getattr(model, "forward", model)).parameters
        except (TypeError, ValueError):  # a traced module, or a function in C
            return False
        if "valid" in parameters:
            return parameters["valid"].kind is not inspect.Parameter.POSITIONAL_ONLY
        open_ = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        inner = next((getattr(model, n) for n in ("_orig_mod", "module", "func") if hasattr(model, n)), None)
        if not open_ or inner is None:
            return False
        model = inner


def sorting_order(keys: Tensor, x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the order by key, then by the features, `(batch, n)`; missing elements last.

    Args:
        keys: Keys, `(batch, n)`.
        x: Elements, `(batch, n, features)`.
        valid: Whether a position holds an element, or None.
    """
    columns = [*x.detach().unbind(-1)[::-1], keys.detach()]
    if valid is not None:
        columns.append((~valid).long())
    order = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    for column in columns:  # stable sorts, the most important one last
        order = order.gather(1, column.gather(1, order).argsort(dim=1, stable=True))
    return order


def _shared_by_equals(ordered: Tensor, out: Tensor, valid: Tensor) -> Tensor:
    """Return outputs in which equal elements, which no order tells apart, share the mean of theirs.

    Args:
        ordered: Sorted elements, `(batch, n, features)`.
        out: Outputs in this order, `(batch, n, ...)`.
        valid: Whether a sorted position holds an element, `(batch, n)`.
    """
    same = (ordered[:, 1:] == ordered[:, :-1]).all(-1) & (valid[:, 1:] == valid[:, :-1])
    if not bool(same.any()):
        return out
    group = nn.functional.pad((~same).long().cumsum(1), (1, 0))
    index = group.reshape(*group.shape, *(1,) * (out.dim() - 2)).expand_as(out)
    if not (out.is_floating_point() or out.is_complex()):
        first = nn.functional.pad(~same, (1, 0), value=True).long() * torch.arange(same.shape[1] + 1, device=out.device)
        start = first.cummax(1).values
        return out.gather(1, start.reshape(*start.shape, *(1,) * (out.dim() - 2)).expand_as(out))
    wide = out.double() if out.dtype == torch.float64 else out.float()
    total = torch.zeros_like(wide).scatter_add(1, index, wide)
    count = torch.zeros_like(wide).scatter_add(1, index, torch.ones_like(wide))
    return (total / count.clamp(min=1)).gather(1, index).to(out.dtype)


def _back(matrix: Tensor, out: Tensor) -> Tensor:
    return (matrix @ out.reshape(*out.shape[:2], -1)).reshape(out.shape)


class ScratchPad(nn.Module):
    """Wrapper that appends learned tokens to the input of a decoder, and returns its outputs there.

    A causal decoder can't move data to positions before its source. Tokens after the input give it room to write an
    answer that depends on all of the input at each position; `min_scratch` and `routing_feasible` tell how many are
    needed. An answer of d tokens is read with `read=d`, also where fewer scratch tokens suffice.

    Args:
        model: Hugging Face decoder, or a module from embeddings `(batch, length, features)` to `(batch, length, ...)`.
        scratch: Number of appended tokens.
        read: Number of last positions to return; by default `scratch`.
        features: Width of the embeddings; by default that of a Hugging Face model.
        learned: Whether the tokens are learned; zero vectors if not.

    Reference:
        Alur, Hays, Raghavan and Shah, "The Impossibility of Inverse Permutation Learning in Transformer Models", 2025,
        theorem 3.
    """

    tokens: Tensor

    def __init__(
        self,
        model: nn.Module,
        scratch: int,
        read: int | None = None,
        features: int | None = None,
        learned: bool = True,
    ) -> None:
        super().__init__()
        whole("scratch", scratch)
        read = scratch if read is None else read
        whole("read", read)
        self.model: Any = model
        self.read = read
        if features is None:
            if not is_hugging_face(model):
                raise InputError("features must be given for a module that is no Hugging Face model")
            hf: Any = model
            features = int(hf.get_input_embeddings().weight.shape[1])
        whole("features", features)
        tokens = torch.randn(scratch, features) * 0.02 if learned else torch.zeros(scratch, features)
        if learned:
            self.tokens = nn.Parameter(tokens)
        else:
            self.register_buffer("tokens", tokens)

    def forward(
        self, x: Tensor | None = None, attention_mask: Tensor | None = None, **options: Any
    ) -> Float[Tensor, "batch read *features"]:
        """Return the outputs at the last positions: logits, last hidden states, or what a module returns.

        Args:
            x: Token ids `(batch, length)` for a Hugging Face model, or embeddings `(batch, length, features)`. They may
                also be given as `input_ids` or `inputs_embeds`.
            attention_mask: Mask of a Hugging Face model, `(batch, length)`; rows must be padded on the left.
            options: Further arguments of the model. Those with an entry for each position must have them for the
                scratch tokens too.
        """
        for name in ("input_ids", "inputs_embeds"):
            x = options.pop(name) if x is None and name in options else x
        if not isinstance(x, Tensor):
            raise InputError(f"x must be a tensor of token ids or embeddings, got {type(x).__name__}")
        if "labels" in options:
            raise InputError("labels belong to the positions of the answer; compute the loss from the returned outputs")
        embedded = x.to(self.tokens.dtype) if x.is_floating_point() else self._embedded(x)
        if embedded.dim() != 3 or embedded.shape[-1] != self.tokens.shape[1]:
            raise InputError(
                f"x must be token ids (batch, length) or embeddings (batch, length, {self.tokens.shape[1]}), got "
                f"{tuple(x.shape)}"
            )
        tokens = self.tokens.to(embedded.dtype).expand(len(x), -1, -1)
        longer = torch.cat([embedded, tokens], 1)
        if attention_mask is not None:
            if not isinstance(attention_mask, Tensor) or attention_mask.dim() != 2 or not attention_mask.shape[1]:
                given = getattr(attention_mask, "shape", type(attention_mask).__name__)
                raise InputError(f"attention_mask must be a tensor of shape {tuple(embedded.shape[:2])}, got {given}")
            if attention_mask.shape != embedded.shape[:2] or not bool((attention_mask[:, -1] != 0).all()):
                raise InputError(
                    f"attention_mask must have shape {tuple(embedded.shape[:2])} and end with ones, since scratch "
                    "tokens follow the last token; pad on the left"
                )
            room = attention_mask.new_ones(len(x), len(self.tokens))
            options["attention_mask"] = torch.cat([attention_mask, room], 1)
            if "position_ids" in inspect.signature(self.model.forward).parameters:  # padding must not shift positions
                places = (options["attention_mask"].long().cumsum(1) - 1).clamp(min=0)
                options.setdefault("position_ids", places)
        if self.read > longer.shape[1]:
            raise InputError(f"read must be at most the length with scratch tokens, {longer.shape[1]}, got {self.read}")
        known = is_hugging_face(self.model)
        most = getattr(getattr(self.model, "config", None), "max_position_embeddings", None) if known else None
        if most is not None and longer.shape[1] > most:
            raise InputError(
                f"the model has {most} positions, and the input with {len(self.tokens)} scratch tokens takes "
                f"{longer.shape[1]}; shorten the input"
            )
        found = self.model(inputs_embeds=longer, **options) if known else self.model(longer, **options)
        if not isinstance(found, Tensor):
            logits = getattr(found, "logits", None)
            found = logits if logits is not None else getattr(found, "last_hidden_state", None)
        if not isinstance(found, Tensor) or found.shape[:2] != longer.shape[:2]:
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"the model must return an output at each position, {tuple(longer.shape[:2])}, got {given}"
            )
        return found[:, -self.read :]

    def _embedded(self, x: Tensor) -> Tensor:
        if not is_hugging_face(self.model):
            raise InputError(f"x must be embeddings in floating point for a module without embedding, got {x.dtype}")
        embedding: Any = self.model.get_input_embeddings()
        return embedding(x)
