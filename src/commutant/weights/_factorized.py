"""Linear layers cut to the coordinates that matter."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from .._checks import whole
from .._errors import InputError
from ._interaction_basis import InteractionBasis


def factorize(basis: InteractionBasis, ranks: Mapping[str, int]) -> nn.Module:
    r"""Return a copy of the network whose linear layers read fewer coordinates, as two smaller layers each.

    A layer `(outputs, inputs)` becomes one of `(k, inputs)`, which computes the first k coordinates of what it reads,
    and one of `(outputs, k)`; the other coordinates have their means. It has fewer parameters if
    k < outputs * inputs / (outputs + inputs). To first order, the mean squared change of the next coordinates is the
    sum of the strengths left out, `basis.bases[name].strengths[k:].sum()`, for the local basis. With `kind="pca"`, the
    directions of least variance are left out, as SliceGPT does.

    Args:
        basis: Fitted basis.
        ranks: Number of coordinates to keep, by the name of the layer.

    Raises:
        InputError: A name is no section of the basis, its module is no `nn.Linear`, or there are fewer coordinates.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        >>> basis = InteractionBasis(model, ["0", "2"]).fit([torch.randn(500, 8)])
        >>> factorize(basis, {"2": 3})[2]
        Sequential(
          (0): Linear(in_features=32, out_features=3, bias=False)
          (1): Linear(in_features=3, out_features=4, bias=True)
        )
    """
    if not isinstance(basis, InteractionBasis) or not basis.bases:
        raise InputError("factorize needs a fitted InteractionBasis; call fit(batches) first")
    if not isinstance(ranks, Mapping):
        raise InputError(f"ranks must be a mapping from layers to numbers of coordinates, got {ranks!r:.60}")
    small = copy.deepcopy(basis.places.model)
    for name, rank in ranks.items():
        if name not in basis.sections:
            raise InputError(f"{name!r} is no section of the basis; its sections are {', '.join(basis.sections)}")
        layer, own = small.get_submodule(name), basis.bases[name]
        if type(layer) is not nn.Linear:
            raise InputError(f"{name!r} must be an nn.Linear to be factorized, got {type(layer).__name__}")
        whole(f"the rank of {name!r}", rank)
        if rank > len(own.strengths):
            raise InputError(f"{name!r} has {len(own.strengths)} coordinates, so its rank can't be {rank}")
        weight = layer.weight.detach().double()
        down = own.directions[:, :rank].mT.to(weight)
        up = weight @ own.inverse[:rank].mT.to(weight)
        mean = own.mean.to(weight)
        offset = weight @ mean - up @ (down @ mean)
        if layer.bias is not None:
            offset = offset + layer.bias.detach()
        first, second = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features)
        parent, _, last = name.rpartition(".")
        pair = nn.Sequential(first, second).to(layer.weight.device, layer.weight.dtype)
        with torch.no_grad():
            for target, value in ((first.weight, down), (second.weight, up), (second.bias, offset)):
                target.copy_(value)
        setattr(small.get_submodule(parent), last, pair.train(layer.training))
    return small
