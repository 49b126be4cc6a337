"""Learnable commutative operator of Ong and Velickovic (2022), a symmetrized GRU cell."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import check_features, whole
from .._errors import InputError
from ..algebra import Monoid
from ..laws import Associativity, BatchIndependence, Commutativity, IdentityElement, breaks, obeys
from ._law_cases import operands

_ROWS = 2048  # pairs per block on CPU, so that the gates of a block stay in cache


@obeys("commutativity", lambda draw: (Commutativity(), *operands(draw, lambda: BinaryGRU(8), 2, 8)))
@obeys("batch independence", lambda draw: (BatchIndependence(), *operands(draw, lambda: BinaryGRU(8), 2, 8)))
@breaks("associativity", lambda draw: (Associativity(), *operands(draw, lambda: BinaryGRU(8), 3, 8)))
@breaks(
    "identity element zero",
    lambda draw: (IdentityElement(torch.zeros_like), *operands(draw, lambda: BinaryGRU(8), 1, 8)),
)
class BinaryGRU(Monoid):
    """Learnable operator that is exactly commutative and approximately associative.

    $a \\circ b = \\tfrac12 (\\mathrm{GRU}(a, b) + \\mathrm{GRU}(b, a))$, where the first argument is the input of a GRU
    cell and the second its hidden state (Ong and Velickovic 2022, section 2.3, "Binary-GRU"). Use it where sum, mean or
    max cannot express the aggregation. `Conjugated` is exactly associative.

    The four products of the two cells are computed from a + b and a - b. This takes two thirds of the multiplications
    and makes commutativity exact, bit for bit.

    Args:
        channels: Width of the elements; the paper reports good results with 128 and poor ones with 16.

    Shapes:
        `op`: `(..., channels)` and `(..., channels)` to `(..., channels)`.

    Raises:
        InputError: If the operands do not have `channels` features.

    Example:
        >>> op = BinaryGRU(8)
        >>> a, b = torch.randn(5, 8), torch.randn(5, 8)
        >>> torch.equal(op(a, b), op(b, a))
        True
    """

    associative = "approximate"
    widen = False
    numbers = "real"

    def __init__(self, channels: int) -> None:
        super().__init__()
        whole("channels", channels)
        self.channels = channels
        self.weight_ih = nn.Parameter(torch.empty(3 * channels, channels))
        self.weight_hh = nn.Parameter(torch.empty(3 * channels, channels))
        self.bias_ih = nn.Parameter(torch.empty(3 * channels))
        self.bias_hh = nn.Parameter(torch.empty(3 * channels))
        self.empty = nn.Parameter(torch.empty(channels))
        """Learnable result of an empty set."""
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialize the parameters as `torch.nn.GRUCell` does; the value of the empty set starts at zero."""
        bound = 1 / math.sqrt(self.channels)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        nn.init.zeros_(self.empty)

    def op(self, a: Float[Tensor, "*a channels"], b: Float[Tensor, "*b channels"]) -> Float[Tensor, "*ab channels"]:
        check_features("a", a, self.weight_ih)
        check_features("b", b, self.weight_ih)
        if a.shape[-1:] != (self.channels,) or b.shape[-1:] != (self.channels,):
            raise InputError(
                f"BinaryGRU({self.channels}) combines elements of {self.channels} features, "
                f"got shapes {tuple(a.shape)} and {tuple(b.shape)}"
            )
        pairs = zip(reversed(a.shape), reversed(b.shape), strict=False)
        if a.shape != b.shape and any(m != n and 1 not in (m, n) for m, n in pairs):
            raise InputError(f"a and b must broadcast, got shapes {tuple(a.shape)} and {tuple(b.shape)}")
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if _can_fuse(a, b, *weights):
            a, b = torch.broadcast_tensors(a, b)
            out = _FusedBinaryGRU.apply(a.reshape(-1, self.channels), b.reshape(-1, self.channels), *weights)
            return out.reshape(a.shape)
        return binary_gru(a, b, *weights)

    def lift(self, x: Float[Tensor, "*shape"]) -> Tensor:
        if x.shape[-1:] != (self.channels,):
            raise InputError(f"BinaryGRU({self.channels}) takes {self.channels} features, got shape {tuple(x.shape)}")
        return x

    def identity(self, like: Tensor) -> Tensor:
        """Return the learnable value of the empty set, not an identity of `op` (see `commutant.algebra.Adjoin`).

        Args:
            like: Tensor whose shape and dtype the result has, `(..., channels)`.
        """
        return self.empty.to(like.dtype).expand(like.shape)

    def out_channels(self, in_channels: int) -> int:
        return self.channels

    def extra_repr(self) -> str:
        return f"{self.channels}"


def binary_gru(
    a: Float[Tensor, "*a channels"],
    b: Float[Tensor, "*b channels"],
    weight_ih: Float[Tensor, "gates channels"],
    weight_hh: Float[Tensor, "gates channels"],
    bias_ih: Float[Tensor, " gates"],
    bias_hh: Float[Tensor, " gates"],
) -> Float[Tensor, "*ab channels"]:
    """Return the symmetrized GRU cell in plain PyTorch, as a reference for the fused path and for use under transforms.

    Args:
        a: Left operands, `(..., channels)`.
        b: Right operands, `(..., channels)`; shapes broadcast.
        weight_ih: Input weights of the cell, `(3 channels, channels)`.
        weight_hh: Hidden weights of the cell, `(3 channels, channels)`.
        bias_ih: Input biases of the cell, `(3 channels,)`.
        bias_hh: Hidden biases of the cell, `(3 channels,)`.

    Example:
        >>> cell = torch.nn.GRUCell(4, 4)
        >>> a, b = torch.randn(2, 4), torch.randn(2, 4)
        >>> out = binary_gru(a, b, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
        >>> torch.allclose(out, (cell(a, b) + cell(b, a)) / 2, atol=1e-6)
        True
    """
    h = a.shape[-1]
    even_weight, odd_weight = _even_odd(weight_ih, weight_hh, h)
    even = nn.functional.linear(a + b, even_weight, (bias_ih + bias_hh)[: 2 * h])
    odd = nn.functional.linear(a - b, odd_weight)
    candidate = torch.cat([weight_ih[2 * h :], weight_hh[2 * h :]])
    bias = torch.cat([bias_ih[2 * h :], bias_hh[2 * h :]])
    input_a, hidden_a = nn.functional.linear(a, candidate, bias).chunk(2, -1)
    input_b, hidden_b = nn.functional.linear(b, candidate, bias).chunk(2, -1)
    reset_ab, update_ab = torch.sigmoid(even + odd).chunk(2, -1)
    reset_ba, update_ba = torch.sigmoid(even - odd).chunk(2, -1)
    new_ab = torch.tanh(input_a + reset_ab * hidden_b)
    new_ba = torch.tanh(input_b + reset_ba * hidden_a)
    return 0.5 * (torch.lerp(new_ab, b.to(new_ab.dtype), update_ab) + torch.lerp(new_ba, a.to(new_ba.dtype), update_ba))


def _even_odd(weight_ih: Tensor, weight_hh: Tensor, h: int) -> tuple[Tensor, Tensor]:
    """Return E and O with W_i a + W_h b = E (a + b) + O (a - b); swapping a and b negates the second term."""
    gates_ih, gates_hh = weight_ih[: 2 * h], weight_hh[: 2 * h]
    return 0.5 * (gates_ih + gates_hh), 0.5 * (gates_ih - gates_hh)


def _can_fuse(a: Tensor, b: Tensor, *weights: Tensor) -> bool:
    """Return whether the fused path can run: eager float32 or float64 on CPU, without transforms."""
    return (
        a.device.type == "cpu"
        and a.dtype == b.dtype == weights[0].dtype
        and a.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


class _FusedBinaryGRU(torch.autograd.Function):
    """Operator computed block by block: gates stay in cache, and backward computes them again."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, *weights)
        out = torch.empty_like(a)
        packed = _Packed(*weights)
        for start in range(0, a.shape[0], _ROWS):
            block = slice(start, start + _ROWS)
            x, y = a[block], b[block]
            _, z1, n1, _, z2, n2, _, _ = packed.gates(x, y)
            torch.add(torch.lerp(n1, y, z1), torch.lerp(n2, x, z2), out=out[block]).mul_(0.5)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, b, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative, differentiate the plain formula
            with torch.enable_grad():
                inputs = [t if t.requires_grad else t.detach().requires_grad_() for t in (a, b, *weights)]
                out = binary_gru(*inputs)
                return torch.autograd.grad(out, inputs, gradient, create_graph=True)
        packed = _Packed(*weights)
        grad_a, grad_b = torch.empty_like(a), torch.empty_like(b)
        for start in range(0, a.shape[0], _ROWS):
            block = slice(start, start + _ROWS)
            packed.backward(a[block], b[block], gradient[block], grad_a[block], grad_b[block])
        return grad_a, grad_b, *packed.weight_gradients()


class _Packed:
    """Weights in the layout of the blocks, and the accumulators of their gradients."""

    def __init__(self, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> None:
        self.h = h = weight_ih.shape[1]
        self.even, self.odd = (w.t().contiguous() for w in _even_odd(weight_ih, weight_hh, h))
        self.candidate = torch.cat([weight_ih[2 * h :], weight_hh[2 * h :]]).t().contiguous()
        self.gate_bias = (bias_ih + bias_hh)[: 2 * h]
        self.candidate_bias = torch.cat([bias_ih[2 * h :], bias_hh[2 * h :]])
        self.d_even, self.d_odd = torch.zeros_like(self.even), torch.zeros_like(self.odd)
        self.d_candidate = torch.zeros_like(self.candidate)
        self.d_gate_bias = torch.zeros_like(self.gate_bias)
        self.d_candidate_bias = torch.zeros_like(self.candidate_bias)

    def gates(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        h = self.h
        even = torch.addmm(self.gate_bias, a + b, self.even)
        odd = torch.mm(a - b, self.odd)
        one, two = (even + odd).sigmoid_(), even.sub_(odd).sigmoid_()
        from_a = torch.addmm(self.candidate_bias, a, self.candidate)
        from_b = torch.addmm(self.candidate_bias, b, self.candidate)
        n1 = torch.addcmul(from_a[:, :h], one[:, :h], from_b[:, h:]).tanh_()
        n2 = torch.addcmul(from_b[:, :h], two[:, :h], from_a[:, h:]).tanh_()
        return one[:, :h], one[:, h:], n1, two[:, :h], two[:, h:], n2, from_a[:, h:], from_b[:, h:]

    def backward(self, a: Tensor, b: Tensor, gradient: Tensor, grad_a: Tensor, grad_b: Tensor) -> None:
        h = self.h
        r1, z1, n1, r2, z2, n2, hidden_a, hidden_b = self.gates(a, b)
        half = 0.5 * gradient
        d_one, d_two = torch.empty(a.shape[0], 2 * h, dtype=a.dtype), torch.empty(a.shape[0], 2 * h, dtype=a.dtype)
        d_from_a, d_from_b = torch.empty_like(d_one), torch.empty_like(d_two)
        for r, z, n, hidden, x, d_gates, d_input, d_hidden in (
            (r1, z1, n1, hidden_b, b, d_one, d_from_a[:, :h], d_from_b[:, h:]),
            (r2, z2, n2, hidden_a, a, d_two, d_from_b[:, :h], d_from_a[:, h:]),
        ):
            d_z = torch.mul(half, x - n)
            torch.ops.aten.sigmoid_backward.grad_input(d_z, z, grad_input=d_gates[:, h:])
            d_n = torch.addcmul(half, half, z, value=-1)
            torch.ops.aten.tanh_backward.grad_input(d_n, n, grad_input=d_input)
            torch.mul(d_input, r, out=d_hidden)
            torch.ops.aten.sigmoid_backward.grad_input(d_input * hidden, r, grad_input=d_gates[:, :h])
        d_even, d_odd = d_one + d_two, d_one.sub_(d_two)
        d_sum, d_difference = d_even @ self.even.t(), d_odd @ self.odd.t()
        torch.addcmul(d_sum, half, z2, out=grad_a).add_(d_difference).addmm_(d_from_a, self.candidate.t())
        torch.addcmul(d_sum, half, z1, out=grad_b).sub_(d_difference).addmm_(d_from_b, self.candidate.t())
        self.d_even.addmm_((a + b).t(), d_even)
        self.d_odd.addmm_((a - b).t(), d_odd)
        self.d_candidate.addmm_(a.t(), d_from_a).addmm_(b.t(), d_from_b)
        self.d_gate_bias += d_even.sum(0)
        self.d_candidate_bias += d_from_a.sum(0) + d_from_b.sum(0)

    def weight_gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h = self.h
        d_even, d_odd = 0.5 * self.d_even.t(), 0.5 * self.d_odd.t()
        d_candidate = self.d_candidate.t()
        return (
            torch.cat([d_even + d_odd, d_candidate[:h]]),
            torch.cat([d_even - d_odd, d_candidate[h:]]),
            torch.cat([self.d_gate_bias, self.d_candidate_bias[:h]]),
            torch.cat([self.d_gate_bias, self.d_candidate_bias[h:]]),
        )
