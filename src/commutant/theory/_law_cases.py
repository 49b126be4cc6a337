"""Laws of the kernels of wide networks, each with the case that its test draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from ..algebra import Activation
from ..laws import Draw, Equivariance, Invariance, Law, Orthogonal, SetPermutation, obeys
from .kernels._empirical import empirical_ntk
from .kernels._kernel_maps import Chain, Dense, KernelState, plain_network
from .kernels._wide_kernel import wide_kernel

Case: TypeAlias = tuple[Law, Callable[..., Any], Any]
Kernel: TypeAlias = Callable[[Chain, Tensor, Tensor], Tensor]
"""Function from a network, row inputs and column inputs to the kernel between them."""


def _rotated(kernel: Kernel) -> Callable[[Draw], Case]:
    """Return the case of the kernel of inputs with themselves, which stays the same when all of them are rotated."""

    def case(draw: Draw) -> Case:
        net, width = _relu_network(draw), 1 + draw.width
        return (
            Invariance(Orthogonal(width)),
            lambda x: kernel(net, x, x),
            lambda g: torch.randn(draw.size, width, generator=g).to(draw.dtype),
        )

    return case


def _reordered(kernel: Kernel) -> Callable[[Draw], Case]:
    """Return the case of the kernel of inputs with other, fixed inputs, which follows the order of the inputs."""

    def case(draw: Draw) -> Case:
        net, others = _relu_network(draw), draw.normal(3, draw.width)
        return (
            Equivariance(SetPermutation(0)),
            lambda x: kernel(net, x, others),
            lambda g: torch.randn(draw.size + 1, draw.width, generator=g).to(draw.dtype),
        )

    return case


def _reordered_empirical(draw: Draw) -> Case:
    """Return the case of the empirical tangent kernel of inputs with other, fixed inputs."""
    width = 1 + draw.width
    net = draw.module(lambda: nn.Sequential(nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, 2)))
    others = draw.normal(3, width)
    return (
        Equivariance(SetPermutation(0)),
        lambda x: empirical_ntk(net, x, others),
        lambda g: torch.randn(draw.size + 1, width, generator=g).to(draw.dtype),
    )


def _relu_network(draw: Draw) -> Chain:
    return plain_network(Activation("relu", kinks=(0.0,)), 1 + draw.size % 4, Dense(0.1, 1.5))


def _tangent(net: Chain, rows: Tensor, columns: Tensor) -> Tensor:
    return cast(Tensor, net(KernelState.of_inputs(rows, columns)).tangent)


def _wide(net: Chain, rows: Tensor, columns: Tensor) -> Tensor:
    return wide_kernel(net, rows, None if columns is rows else columns)


obeys("order of the inputs", _reordered_empirical)(empirical_ntk)
obeys("turning the inputs", _rotated(_tangent))(plain_network)
obeys("order of the inputs", _reordered(_tangent))(plain_network)
obeys("turning the inputs", _rotated(_wide))(wide_kernel)
obeys("order of the inputs", _reordered(_wide))(wide_kernel)
