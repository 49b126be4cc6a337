"""REPAIR: the mean and standard deviation of each unit of a merged network, restored to those of its parents."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._errors import InputError
from ._given import batches_of, check_module, list_of_networks, shares_of, state_of
from ._merging import same_entries
from ._statistics import call

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NOISE = 1e-6  # smallest standard deviation relative to the root mean square; smaller ones are rounding
_MISSED = 0.05  # largest relative error of a standard deviation before a warning


def repair(
    merged: nn.Module,
    parents: Sequence[nn.Module],
    batches: Iterable[Any],
    weights: Sequence[float | int] | None = None,
    *,
    add_biases: bool = True,
) -> nn.Module:
    """Rescale the linear and convolutional units of a merged network to the statistics of its parents.

    The mean of two different units varies less than either, so deep merged networks lose their signal. For each layer,
    in the order in which the network runs them, the output of each unit is scaled and shifted. Its mean and standard
    deviation over the data become the weighted means of those of the parents; scale and shift are folded into the layer
    (REPAIR, Jordan et al., 2023). The projections of `nn.MultiheadAttention` count as layers too.

    For networks with batch norm use `reset_batchnorm_stats` instead. Recurrent layers, transposed convolutions and
    layers of other libraries are left as they are.

    Args:
        merged: Merged network, of the architecture of the parents; not modified.
        parents: Networks that were merged, aligned with each other.
        batches: Batches of training data, run through all networks once for every layer.
        weights: Weights of the parents in the merge; equal by default.
        add_biases: Whether layers without a bias get one. The result then has more entries than its parents and does
            not load into their architecture. If false, such layers are only scaled.

    Returns:
        A repaired copy. Units that do not vary keep their scale.

    Raises:
        InputError: There is no parent or no batch, or a layer shares its weight, is parametrized, is not reached by the
            data, or returns NaN or infinities.

    Warns:
        UserWarning: A layer that reads its own output can't be repaired exactly; the message names it.
    """
    check_module(merged, "merged")
    parents = list_of_networks(parents, "parents")  # type: ignore[assignment]
    if not parents:
        raise InputError("at least one parent is needed")
    for parent in parents:
        check_module(parent, "each parent")
        same_entries(state_of(merged), state_of(parent), 1)
    shares = shares_of(weights, len(parents))
    batches = list(batches_of(batches))
    if not batches:
        raise InputError("no batch was given to estimate statistics from")
    network = copy.deepcopy(merged)
    layers = _layers_of(network)
    own = [_moments(parent, layers, batches) for parent in parents]
    goals = {layer: _mean([m[layer] for m in own], shares) for layer in layers}
    order = list(_moments(network, layers, batches))
    for layer in order:
        _rescale(network, layer, _moments(network, [layer], batches)[layer], goals[layer], add_biases)
    reached = _moments(network, layers, batches)
    if missed := [layer for layer in order if reached[layer].misses(goals[layer])]:
        warnings.warn(
            f"the standard deviations of the units of {missed[0].name!r} ({len(missed)} of {len(order)} layers) differ "
            f"from those of their parents by more than {_MISSED:.0%}, as happens in layers that read their own output",
            stacklevel=2,
        )
    return network


@dataclass(frozen=True)
class _Layer:
    """Linear or convolutional layer, or the projection of attention to queries (0), keys (1) or values (2)."""

    name: str
    part: int | None = None

    def scale(self, network: nn.Module, factor: Tensor, shift: Tensor, add_biases: bool) -> None:
        """Multiply the outputs of this layer of a network by a factor and add a shift, unit by unit."""
        module: Any = network.get_submodule(self.name)
        weight: Any = getattr(module, "weight", None)
        bias, rows, units = "bias", slice(None), len(factor)
        if self.part is not None:
            bias, units = "in_proj_bias", 3 * module.embed_dim
            rows = slice(self.part * module.embed_dim, (self.part + 1) * module.embed_dim)
            weight = _projections(module)[self.part]
        weight.mul_(factor.to(weight).view(-1, *[1] * (weight.dim() - 1)))
        if getattr(module, bias) is None and add_biases:
            setattr(module, bias, nn.Parameter(weight.new_zeros(units)))
        if (own := getattr(module, bias)) is not None:
            own[rows] = (factor * own[rows].to(factor) + shift).to(own)


def _projections(module: nn.MultiheadAttention) -> Sequence[Tensor]:
    """Return the projection weights of queries, keys and values."""
    if module.in_proj_weight is not None:
        return module.in_proj_weight.chunk(3)
    return module.q_proj_weight, module.k_proj_weight, module.v_proj_weight


@dataclass
class _Moments:
    """Mean, standard deviation and root mean square of each unit's output, over samples and positions, in float64."""

    mean: Float[Tensor, " units"]
    spread: Float[Tensor, " units"]
    size: Float[Tensor, " units"]

    @property
    def varies(self) -> Bool[Tensor, " units"]:
        """True for the units whose output varies by more than rounding."""
        return self.spread > _NOISE * self.size

    def misses(self, goal: _Moments) -> bool:
        """Return whether the standard deviation of a unit that varies is far from its goal."""
        gap = (self.spread - goal.spread).abs() > _MISSED * goal.spread + _NOISE * goal.size
        return bool((gap & self.varies & goal.varies).any())


def _mean(moments: Sequence[_Moments], shares: Sequence[float]) -> _Moments:
    """Return the weighted mean of the moments of several networks."""
    parts = zip(*((m.mean, m.spread, m.size) for m in moments), strict=True)
    return _Moments(*(sum(s * own for s, own in zip(shares, part, strict=True)) for part in parts))  # type: ignore[arg-type]


def _layers_of(network: nn.Module) -> list[_Layer]:
    """Return all layers of a network that can be repaired.

    Raises:
        InputError: The weight of a layer is parametrized or shared, so that it can't be scaled.
    """
    layers, owner = [], dict[int, str]()
    for name, module in network.named_modules():
        weights: list[Any] = []
        if isinstance(module, nn.MultiheadAttention):
            layers += [_Layer(name, part) for part in range(3)]
            weights = [module.in_proj_weight] if module.in_proj_weight is not None else [
                module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]  # fmt: skip
        elif isinstance(module, _LAYERS):
            layers.append(_Layer(name))
            weights = [module.weight]
        for weight in weights:
            if parametrize.is_parametrized(module) or not isinstance(weight, nn.Parameter):
                raise InputError(f"the layer {name!r} is parametrized: fold its weight first (remove_parametrizations)")
            if owner.setdefault(id(weight), name) != name:
                raise InputError(
                    f"the layers {owner[id(weight)]!r} and {name!r} share a weight, which can't serve both"
                )
    return layers


def _rescale(network: nn.Module, layer: _Layer, found: _Moments, goal: _Moments, add_biases: bool) -> None:
    """Scale and shift the units of a layer from the moments found to the goal."""
    factor = torch.where(found.varies, goal.spread / torch.where(found.varies, found.spread, 1.0), 1.0)
    with torch.no_grad():
        layer.scale(network, factor, goal.mean - factor * found.mean, add_biases)


def _moments(model: nn.Module, layers: Sequence[_Layer], batches: Iterable[Any]) -> dict[_Layer, _Moments]:
    """Return the moments of some layers, in the order in which the model runs them."""
    model = copy.deepcopy(model).eval()  # eval() may merge adapters into weights
    sums: dict[_Layer, tuple[Tensor, Tensor, int]] = {}
    wanted = set(layers)

    def record(layer: _Layer, out: Tensor, axis: int) -> None:
        values = out.detach().double().movedim(axis, 0).flatten(1)
        if not bool(values.isfinite().all()):
            raise InputError(f"{layer.name!r} returns NaN or infinities on the data")
        total, squares, count = sums.get(layer, (torch.zeros(()), torch.zeros(()), 0))
        sums[layer] = (total.to(values) + values.sum(1), squares.to(values) + values.square().sum(1),
                       count + values.shape[1])  # fmt: skip

    def plain(name: str, module: Any, args: Any, kwargs: Any, out: Tensor) -> None:
        record(_Layer(name), out, -1 if isinstance(module, nn.Linear) else -len(module.kernel_size) - 1)

    def attention(name: str, module: Any, args: Any, kwargs: Any, out: Any) -> None:
        given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        biases = [None] * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
        for part, (key, weight, bias) in enumerate(
            zip(("query", "key", "value"), _projections(module), biases, strict=True)
        ):
            if _Layer(name, part) in wanted:
                record(_Layer(name, part), F.linear(given[key], weight, bias), -1)
        if (last := _Layer(f"{name}.out_proj".removeprefix("."))) in wanted:  # its module is never called
            record(last, out[0], -1)

    for name, module in model.named_modules():
        hook = attention if isinstance(module, nn.MultiheadAttention) else plain if _Layer(name) in wanted else None
        if hook is not None:
            module.register_forward_hook(partial(hook, name), with_kwargs=True)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it runs a layer's weights without its modules
    try:
        with torch.no_grad():
            for batch in batches:
                call(model, batch)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    if lost := [layer for layer in layers if layer not in sums]:
        raise InputError(f"batches must reach every layer, but never reached {lost[0].name!r}")
    found = {}
    for layer, (total, squares, count) in sums.items():
        mean, square = total / count, squares / count
        found[layer] = _Moments(mean, (square - mean.square()).clamp(min=0).sqrt(), square.sqrt())
    return found
