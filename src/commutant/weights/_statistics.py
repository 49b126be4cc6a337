"""Running statistics of batch norm, estimated again from data."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .._errors import InputError
from ._given import batches_of, check_module


def reset_batchnorm_stats(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Estimate the running statistics of batch norms again, in place, as the plain mean over one pass of data.

    Interpolated statistics are not the statistics of the interpolated network. Use this on merged networks with batch
    norm. Dropout stays off during the pass.

    Args:
        model: Module to modify. Without batch norm nothing happens.
        batches: Batches of training data: tensors, tuples of arguments (the first is the input) or mappings of
            keywords.

    Returns:
        The model.

    Raises:
        InputError: There is no batch.
    """
    check_module(model, "model")
    batches = batches_of(batches)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return model
    measured = copy.deepcopy(model).eval()  # eval() may merge adapters into weights
    copies: list[Any] = [measured.get_submodule(name) for name, m in model.named_modules() if m in norms]
    for norm in copies:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    seen = 0
    with torch.no_grad():
        for batch in batches:
            call(measured, batch)
            seen += 1
        if not seen:
            raise InputError("no batch was given to estimate statistics from")
        for norm, own in zip(norms, copies, strict=True):
            for name, buffer in own.named_buffers():
                norm.get_buffer(name).copy_(buffer)
    return model


def call(model: nn.Module, batch: Any) -> Any:
    """Run a model on a batch: a tensor, a tuple whose first entry is the input, or a mapping of keywords."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch[0] if isinstance(batch, tuple | list) else batch)
