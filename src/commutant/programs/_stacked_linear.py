"""Linear layers of several models at once, whose models may have different numbers of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import check_features, whole
from .._errors import InputError


class StackedLinear(nn.Module):
    """Linear layers of several models as one batched product, in PyTorch's default initialization.

    Args:
        models: Number of models.
        in_features: Width of the input.
        out_features: Width of the output.

    Shapes: `(models, rows, in_features)` to `(models, rows, out_features)`.

    Raises:
        InputError: For sizes that are not positive whole numbers.
    """

    def __init__(self, models: int, in_features: int, out_features: int) -> None:
        super().__init__()
        for name, value in (("models", models), ("in_features", in_features), ("out_features", out_features)):
            whole(name, value)
        self.weight = nn.Parameter(torch.empty(models, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(models, 1, out_features))
        for part in (self.weight, self.bias):
            nn.init.uniform_(part, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))

    def forward(self, x: Float[Tensor, "models rows in_features"]) -> Float[Tensor, "models rows out_features"]:
        """Return the outputs of all models.

        Args:
            x: Inputs, `(models, rows, in_features)`.

        Raises:
            InputError: For another shape or dtype.
        """
        check_features("x", x, self.weight)
        models, width = self.weight.shape[:2]
        if x.dim() != 3 or x.shape[0] != models or x.shape[2] != width:
            raise InputError(f"x must be (models, rows, in_features) = ({models}, rows, {width}), got {tuple(x.shape)}")
        return torch.baddbmm(self.bias, x, self.weight)

    def extra_repr(self) -> str:
        """Return the sizes."""
        models, width, out = self.weight.shape
        return f"{models} models, {width} -> {out}"


def packed_linear(
    x: Float[Tensor, "rows in_features"],
    weight: Float[Tensor, "models in_features out_features"],
    bias: Float[Tensor, "models 1 out_features"],
    models: list[int],
    rows: list[int],
) -> Float[Tensor, "rows out_features"]:
    """Return $x W_m + b_m$ for the rows of each model m, which follow one another.

    Products are batched over neighbors with equally many rows, and write into parts of one tensor, also backward.

    Args:
        x: Rows of all models, `(rows, in_features)`.
        weight: Weights, `(models, in_features, out_features)`.
        bias: Biases, `(models, 1, out_features)`.
        models: Numbers of neighboring models with equally many rows; they add up to the models.
        rows: Number of rows of each model in a group, one for each entry of `models`. They may come several times,
            so that their sum divides the number of rows.
    """
    plain = len(models) == 1 or torch.is_autocast_enabled(x.device.type)
    if plain or torch.autograd.forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined]
        return torch.cat([torch.baddbmm(*part).flatten(0, 1) for part in _groups(x, models, rows, bias, x, weight)])
    return torch.ops.commutant.packed_linear(x, weight, bias, models, rows)


def _groups(x: Tensor, models: list[int], rows: list[int], *tensors: Tensor) -> Iterator[list[Tensor]]:
    """Yield the part of each group: of matrices a block of rows, as a stack; of stacks a block of matrices."""
    times = x.shape[0] // sum(number * each for number, each in zip(models, rows, strict=True))
    rows = [times * each for each in rows]
    sizes = [number * each for number, each in zip(models, rows, strict=True)]
    parts = [t.split(models if t.dim() == 3 else sizes) for t in tensors]
    for number, each, *group in zip(models, rows, *parts, strict=True):
        yield [t if t.dim() == 3 else t.view(number, each, t.shape[1]) for t in group]


_SCHEMA = "(Tensor x, Tensor weight, Tensor bias, int[] models, int[] rows) -> Tensor"


@torch.library.custom_op("commutant::packed_linear", mutates_args=(), schema=_SCHEMA)
def _forward(x: Tensor, weight: Tensor, bias: Tensor, models: list[int], rows: list[int]) -> Tensor:
    x = x.contiguous()
    out = x.new_empty(len(x), weight.shape[2])
    for b, own, w, result in _groups(x, models, rows, bias, x, weight, out):
        torch.baddbmm(b, own, w, out=result)
    return out


@_forward.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[2])  # `len` would fix the number


@torch.library.custom_op(
    "commutant::packed_linear_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor x, Tensor weight, int[] models, int[] rows) -> (Tensor, Tensor, Tensor)",
)
def _backward(
    gradient: Tensor, x: Tensor, weight: Tensor, models: list[int], rows: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    gradient, x = gradient.contiguous(), x.contiguous()
    results = x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(len(weight), 1, weight.shape[2])
    for g, own, w, d_x, d_weight, d_bias in _groups(x, models, rows, gradient, x, weight, *results):
        torch.bmm(g, w.mT, out=d_x)
        torch.bmm(own.mT, g, out=d_weight)
        torch.sum(g, 1, keepdim=True, out=d_bias)
    return results


@_backward.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(len(weight), 1, weight.shape[2])


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, models: list[int], rows: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by products that can be differentiated again."""
    found = [
        ((g @ w.mT).flatten(0, 1), own.mT @ g, g.sum(1, keepdim=True))
        for g, own, w in _groups(x, models, rows, gradient, x, weight)
    ]
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.models, ctx.rows = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    again = torch.is_grad_enabled()  # second derivatives
    found = _gradients if again else torch.ops.commutant.packed_linear_backward
    return (*found(gradient.contiguous(), x, weight, ctx.models, ctx.rows), None, None)


_forward.register_autograd(_differentiate, setup_context=_keep)
