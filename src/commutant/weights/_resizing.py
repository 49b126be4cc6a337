"""Modules with other widths: replaced parameters, and updated size attributes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from .._errors import InputError
from ._given import check_module, state_of

M = TypeVar("M", bound=nn.Module)


def resize(model: M, state: Mapping[str, Tensor]) -> M:
    """Return a copy of a module with the parameters and buffers of `state`, whose shapes may differ from its own.

    Use it to load a network that `FeatureMerger` or `commutant shrink` wrote into its original architecture.

    Args:
        model: Module to copy; not modified.
        state: Entries of the module's state dict. Entries that are tied to another one may be missing.

    Raises:
        InputError: The entries are not those of the module, or a tensor has another number of axes or is complex.
    """
    check_module(model, "model")
    state = state_of(state, "state")
    own = {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
    there = {id(v) for k, v in own.items() if k in state}
    odd = sorted(
        {k for k in state if k not in own} | {k for k, v in own.items() if k not in state and id(v) not in there}
    )
    if odd:
        raise InputError(
            f"{odd[0]!r} is in the {'parameters' if odd[0] in state else 'module'} only ({len(odd)} entries differ)"
        )
    small = copy.deepcopy(model)
    placed: dict[int, Tensor] = {}  # by the old tensor, so that ties are kept
    for key, old in own.items():
        if key in state:
            if state[key].dim() != old.dim() or (state[key].is_complex() and not old.is_complex()):
                got = f"{state[key].dtype} of shape {tuple(state[key].shape)}"
                raise InputError(f"{key!r} must be {old.dtype} with {old.dim()} axes as in the module, got {got}")
            value = state[key].detach().to(old.device, old.dtype).clone()
            made = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
            placed.setdefault(id(old), made)
    for key, old in own.items():
        path, _, name = key.rpartition(".")
        owner = small.get_submodule(path)
        places: dict[str, Any] = owner._parameters if name in owner._parameters else owner._buffers
        places[name] = placed[id(old)]
    for module in small.modules():
        declare(module)
    return small


def declare(module: Any) -> None:
    """Set the size attributes of a module of a known class to the sizes of its parameters."""
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()
        sizes = {name: value.shape for name, value in module.named_parameters()}
        module.input_size = sizes["weight_ih_l0"][1]
        module.hidden_size = sizes["weight_hh_l0"][0] // {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        module.proj_size = sizes["weight_hr_l0"][0] if module.proj_size else 0
        return
    if isinstance(module, nn.RNNCellBase):
        module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]
        return
    weight: Any = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return
    shape = weight.shape
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        if module.groups > 1:
            module.groups = module.groups * shape[0] // module.in_channels
        module.in_channels, module.out_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd):
        if module.groups > 1:
            module.groups = module.groups * shape[0] // module.out_channels
        module.in_channels, module.out_channels = shape[1] * module.groups, shape[0]
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = shape[0]
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = shape[0]
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        module.normalized_shape = tuple(shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = shape
    elif hasattr(module, "nf") and hasattr(module, "nx"):  # the Conv1D of transformers
        module.nx, module.nf = shape
    elif len(shape) == 2:
        for name, size in (("out_features", 0), ("in_features", 1), ("out_channels", 0), ("in_channels", 1)):
            if isinstance(getattr(module, name, None), int):
                setattr(module, name, shape[size])
