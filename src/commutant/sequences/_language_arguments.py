"""Checks of the arguments of a language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._errors import InputError

_INSTEAD = {
    "position_ids": "a recurrence needs no positions; put one text in each row",
    "past_key_values": "pass the state of an earlier call as state=",
    "cache": "pass the state of an earlier call as state=",
    "output_attentions": "a recurrence has no attentions; leave it out",
}
_TAKEN = "input_ids, attention_mask, state, inputs_embeds, labels, use_cache, output_hidden_states and return_dict"


def check_others(others: dict[str, Any]) -> None:
    """Check that unsupported arguments are None or False, because the model would ignore any other value."""
    for name, value in others.items():
        if value is not None and value is not False:
            raise InputError(f"{name} is not an argument of the model: {_INSTEAD.get(name, f'it takes {_TAKEN}')}")


def check_tokens(ids: Any) -> None:
    """Check that tokens are integers `(batch, time)`."""
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.long, torch.int) or ids.dim() != 2 or not ids.shape[1]:
        raise InputError(f"input_ids must be integers (batch, time) with at least one token per row, got {_shown(ids)}")


def check_embeddings(given: Any, weight: Tensor) -> Tensor:
    """Check that embeddings have the features and dtype of the model's own, and return them."""
    width = weight.shape[1]
    if not isinstance(given, Tensor) or given.dim() != 3 or given.shape[2] != width or not given.shape[1]:
        raise InputError(
            f"inputs_embeds must be (batch, time, {width}) with at least one token per row, got {_shown(given)}"
        )
    if given.dtype != weight.dtype and not torch.is_autocast_enabled(given.device.type):
        raise InputError(f"inputs_embeds must be {weight.dtype} as the model's, got {given.dtype}; convert one of them")
    return given


def check_shapes(x: Tensor, mask: Any, labels: Any, state: Any, blocks: int) -> None:
    """Check that a mask, labels and a state fit embeddings `(batch, time, features)`."""
    shape = tuple(x.shape[:2])
    if mask is not None:
        _check_mask(mask, shape, state is not None)
    if labels is not None:
        if not isinstance(labels, Tensor) or tuple(labels.shape) != shape:
            raise InputError(f"labels must have the shape of the tokens, {shape}, got {_shown(labels)}")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise InputError(f"labels must be integers, got {labels.dtype}")
    if state is not None:
        check_state(state, blocks)
        if len(state[0][0]) != shape[0]:
            raise InputError(f"state must hold {shape[0]} rows, as many as the tokens, got {len(state[0][0])}")


def _check_mask(mask: Any, shape: tuple[int, ...], goes_on: bool) -> None:
    fits = isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[0] == shape[0]
    if not fits or mask.shape[1] < shape[1] or (mask.shape[1] > shape[1] and not goes_on):
        raise InputError(f"attention_mask must have the shape of the tokens, {shape}, got {_shown(mask)}")
    if mask.dtype != torch.bool and bool(((mask != 0) & (mask != 1)).any()):
        raise InputError(f"attention_mask must be 1 at tokens and 0 at padding, got {_odd(mask):g}")


def check_state(state: Any, blocks: int) -> None:
    """Check that a state is a list of one pair per block."""
    if not isinstance(state, list | tuple) or len(state) != blocks or any(len(part) != 2 for part in state):
        count = len(state) if isinstance(state, list | tuple) else type(state).__name__
        raise InputError(
            f"state must be the state returned by the model, one pair for each of its {blocks} blocks, got {count}"
        )


def check_generation(defaults: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Check for options of `generate` that a recurrence does not support."""
    ids = inputs[0] if inputs else options.get("inputs", options.get("input_ids"))
    if ids is not None and options.get("inputs_embeds") is None:
        check_tokens(ids)
    mask = options.get("attention_mask")
    if mask is not None and not isinstance(mask, Tensor):
        raise InputError(f"attention_mask must be a tensor (batch, time), got {_shown(mask)}")
    check_others({name: options.get(name) for name in _INSTEAD})
    config = options.get("generation_config") or (inputs[1] if len(inputs) > 1 else None) or defaults
    option = {name: options.get(name, getattr(config, name, None)) for name in ("guidance_scale", "use_cache")}
    if option["guidance_scale"] not in (None, 1) and option["use_cache"] is not False:
        raise InputError(
            f"guidance_scale={option['guidance_scale']} needs a cache of keys and values, which a recurrence does not "
            f"have; add use_cache=False"
        )


def _odd(mask: Tensor) -> float:
    """Return the first entry of a mask that is neither 0 nor 1."""
    return float(mask[(mask != 0) & (mask != 1)][0])


def _shown(value: Any) -> str:
    """Return the dtype and shape of a tensor, or the type of another value, for error messages."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
