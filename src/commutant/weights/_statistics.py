"""Statistics of a merged network's units: batch norm reset, and REPAIR for what has none."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._errors import InputError
from ._given import state_of
from ._merging import same_entries

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def reset_batchnorm_stats(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Estimate running statistics afresh, as the plain mean over one pass; dropout stays off. Changes the model.

    Interpolated statistics are not those of the interpolated network: for a network with batch norm this is most of
    what a merge needs.

    Args:
        model: with batch norm; without any it is returned as it is.
        batches: of training data: tensors, tuples of arguments (the first is the input) or mappings of keywords.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return model
    modes, momenta = [(m, m.training) for m in model.modules()], [m.momentum for m in norms]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    seen = 0
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            for batch in batches:
                call(model, batch)
                seen += 1
        if not seen:
            raise InputError("no batch was given to estimate statistics from")
    except BaseException:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                norm.get_buffer(name).copy_(buffer)
        raise
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model


def repair(
    merged: nn.Module,
    parents: Sequence[nn.Module],
    batches: Sequence[Any],
    weights: Sequence[float | int] | None = None,
) -> nn.Module:
    """REPAIR (Jordan et al., 2023): give every linear and convolutional unit the mean and spread of its parents.

    The mean of two units that are not quite alike varies less than either; deep networks lose their signal that way.
    For each layer, from the input on, the merged unit's output is scaled and shifted so that its mean and standard
    deviation over the data are the weighted means of those of the parents; the scale is folded into the layer.
    Networks with batch norm are better served by `reset_batchnorm_stats`. Transposed convolutions are left as they are.

    Args:
        merged: of the architecture of the parents; stays as it is.
        parents: aligned with each other.
        batches: of training data, run through all networks twice.
        weights: of the parents in the merge; equal by default.

    Returns:
        A repaired copy. Units that do not vary keep their scale.
    """
    if not parents:
        raise InputError("at least one parent is needed")
    shares = [1 / len(parents)] * len(parents) if weights is None else [float(w) for w in weights]
    if len(shares) != len(parents) or not abs(sum(shares) - 1) <= 1e-6:
        raise InputError(
            f"as many weights as parents are needed, that sum to one, got {shares} for {len(parents)} parents"
        )
    for parent in parents:
        same_entries(state_of(merged), state_of(parent), 1)
    batches = list(batches)
    if not batches:
        raise InputError("no batch was given to estimate statistics from")
    network = copy.deepcopy(merged)
    names = [name for name, module in network.named_modules() if isinstance(module, _LAYERS)]
    _simple(network, names)
    goals = [_moments(parent, names, batches) for parent in parents]
    for name in names:
        mean, spread = _moments(network, [name], batches)[name]
        goal_mean = sum(s * g[name][0] for s, g in zip(shares, goals, strict=True))
        goal_spread = sum(s * g[name][1] for s, g in zip(shares, goals, strict=True))
        scale = torch.where(spread > 1e-12, goal_spread / spread.clamp(min=1e-12), torch.ones_like(spread))
        layer: Any = network.get_submodule(name)
        with torch.no_grad():
            layer.weight.mul_(scale.to(layer.weight).view(-1, *[1] * (layer.weight.dim() - 1)))
            old = 0 if layer.bias is None else layer.bias
            bias = goal_mean + scale * (old - mean)
            if layer.bias is None:
                layer.bias = nn.Parameter(bias.to(layer.weight))
            else:
                layer.bias.copy_(bias)
    return network


def _simple(network: nn.Module, names: Sequence[str]) -> None:
    """Refuse layers whose weight can't be scaled by itself."""
    owner: dict[int, str] = {}
    for name in names:
        layer = network.get_submodule(name)
        if parametrize.is_parametrized(layer) or not isinstance(layer.weight, nn.Parameter):
            raise InputError(f"the layer {name!r} is parametrized: fold its weight first (remove_parametrizations)")
        if owner.setdefault(id(layer.weight), name) != name:
            raise InputError(
                f"the layers {owner[id(layer.weight)]!r} and {name!r} share a weight, which can't serve both"
            )


def _moments(model: nn.Module, names: Sequence[str], batches: Iterable[Any]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard deviation of each unit's output, over samples and positions, in float64."""
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: Any, out: Tensor) -> None:
            axis = -1 if isinstance(module, nn.Linear) else -len(module.kernel_size) - 1  # type: ignore[arg-type]
            values = out.detach().double().movedim(axis, 0).flatten(1)
            total, squares, count = sums.get(name, (0, 0, 0))
            sums[name] = (total + values.sum(1), squares + values.square().sum(1), count + values.shape[1])

        return record

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    if len(sums) < len(names):
        raise InputError(f"the data never reached {sorted(set(names) - set(sums))[0]!r}")
    return {
        name: (total / count, (squares / count - (total / count).square()).clamp(min=0).sqrt())
        for name, (total, squares, count) in sums.items()
    }


def call(model: nn.Module, batch: Any) -> Any:
    """Run a model on a batch: a tensor, the input among a tuple's entries, or keywords."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch[0] if isinstance(batch, tuple | list) else batch)
