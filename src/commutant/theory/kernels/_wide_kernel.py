"""Kernels of wide networks between many inputs, by a table where the kernel depends on angles alone."""

from __future__ import annotations

from typing import Literal, cast

import numpy.polynomial.chebyshev as chebyshev
import torch
from jaxtyping import Float
from torch import Tensor

from ..._checks import one_of
from ..._errors import InputError
from ...algebra import geometric_mean
from ._kernel_maps import KernelMap, KernelState, need_inputs, need_map, need_width

_BLOCK = 384  # rows and columns of a tile
_CELLS = 1024  # cells of the table, with a cubic in each
_ORDER = 24  # order of the polynomials that the table is built from
_CHECKS = 33  # points at which the table is compared with the network
_MISS = 1e-10  # largest error of the table, relative to the largest value
_SAME = 2e-15  # 1 - cosine that rounding leaves of identical inputs


def wide_kernel(
    network: KernelMap,
    rows: Float[Tensor, "rows features"],
    columns: Float[Tensor, "columns features"] | None = None,
    *,
    get: Literal["tangent", "kernel"] = "tangent",
) -> Float[Tensor, "rows columns"]:
    """Return the kernel of a wide network between all rows and columns, in float64.

    Memory use is little more than the size of the result. For inputs of equal norm, or homogeneous networks (piecewise
    linear without biases), the kernel is a function of the angle alone. The whole network is then tabulated once, and
    each pair is a lookup. Otherwise the kernel is computed tile by tile through all layers. Inputs that require
    gradients get them, at the cost of storing every layer.

    Args:
        network: Map of kernels, such as `infinite_width(module)` or `plain_network(...)`.
        rows: Standardized inputs, `(rows, features)`.
        columns: Other inputs, `(columns, features)`, or None for the rows again, which costs half as much.
        get: `"tangent"` for the neural tangent kernel, `"kernel"` for that of the Gaussian process of the outputs.

    Raises:
        InputError: For a network that is not a map of kernels; for inputs of different width or not finite; for a
            gradient at a zero input of an activation with a kink.

    Example:
        >>> from commutant.algebra import Activation
        >>> from commutant.theory import Dense, plain_network
        >>> net = plain_network(Activation("relu"), 3, Dense(0.0, 2.0, bias_rate=1.0, weight_rate=1.0))
        >>> wide_kernel(net, torch.tensor([[2**0.5, 0.0], [0.5**0.5, 1.5**0.5]])).round(decimals=5)
        tensor([[6.0000, 3.5322],
                [3.5322, 6.0000]], dtype=torch.float64)
    """
    one_of("get", get, ("tangent", "kernel"))
    need_map(network)
    for x in (rows, rows if columns is None else columns):
        need_inputs(x)
    KernelState.of_inputs(rows[:1], rows[:1] if columns is None else columns[:1], tangent=False)  # widths
    need_width(network, rows.shape[1])
    if torch.is_grad_enabled() and (rows.requires_grad or (columns is not None and columns.requires_grad)):
        return _differentiable(network, rows, columns, get)
    left = _Side(rows)
    right = left if columns is None else _Side(columns)
    out = torch.empty(len(rows), len(right.unit), dtype=torch.float64, device=rows.device)
    table = _table(network, left, right, get) if out.numel() > 2 * _CELLS else None
    for i in range(0, len(left.unit), _BLOCK):
        for j in range(i if columns is None else 0, len(right.unit), _BLOCK):
            one, two = slice(i, i + _BLOCK), slice(j, j + _BLOCK)
            tile = out[one, two]
            if table is not None:
                table.fill(tile, left.unit[one] @ right.unit[two].T)
                if table.scaled:
                    tile.mul_(left.norm[one, None]).mul_(right.norm[two])
            else:
                _through(network, left, right, one, two, tile, get, same=columns is None and i == j)
            if columns is None and i == j:
                if table is not None:
                    tile.diagonal().copy_(table.at_one * (left.square[one] if table.scaled else 1.0))
                tile.copy_(tile.triu() + tile.triu(1).T)
            elif columns is None:
                out[two, one] = tile.T
    return out


def _differentiable(network: KernelMap, rows: Tensor, columns: Tensor | None, get: str) -> Tensor:
    """Return the kernel by the layers themselves, without a table and without writing in place."""

    def watched(x: Tensor) -> Tensor:
        x = x.clone()
        if x.requires_grad:
            x.register_hook(_need_finite)
        return x

    left = watched(rows)
    right = left if columns is None else watched(columns)
    return _read(network(KernelState.of_inputs(left, right, tangent=get == "tangent")), get)


def _need_finite(gradient: Tensor | None) -> None:
    if gradient is not None and not bool(torch.isfinite(gradient).all()):
        row = int((~torch.isfinite(gradient)).any(1).nonzero()[0])
        raise InputError(f"the gradient of a wide kernel is not finite at input {row}: omit or detach it")


class _Side:
    """Inputs as unit vectors and mean squares $|x|^2 / n$."""

    def __init__(self, x: Tensor) -> None:
        self.eps = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
        x = x.to(torch.float64)
        self.square, self.mean = x.square().mean(1), x.mean(1)
        self.norm = self.square.sqrt()
        length = x.norm(dim=1, keepdim=True)
        self.unit = x / torch.where(length > 0, length, 1.0)


def _state(
    left: Tensor, right: Tensor, kernel: Tensor, get: str, means: tuple[Tensor, Tensor] | None = None
) -> KernelState:
    zero = torch.zeros_like(kernel) if get == "tangent" else None
    left_mean, right_mean = (torch.zeros_like(left), torch.zeros_like(right)) if means is None else means
    return KernelState(kernel, left, right, left_mean, right_mean, zero, gaussian=False)


def _read(state: KernelState, get: str) -> Tensor:
    return cast(Tensor, state.tangent) if get == "tangent" else state.kernel


def _through(
    network: KernelMap, left: _Side, right: _Side, one: slice, two: slice, tile: Tensor, get: str, *, same: bool
) -> None:
    cosine = left.unit[one] @ right.unit[two].T
    cosine = torch.where(1 - cosine.abs() < _SAME, cosine.sign(), cosine)
    # the mean that the closed forms take, so that identical inputs have an angle of exactly zero
    kernel = cosine * geometric_mean(left.square[one, None], right.square[None, two])
    if same:
        kernel.diagonal().copy_(left.square[one])
    means = left.mean[one], right.mean[two]
    tile.copy_(_read(network(_state(left.square[one], right.square[two], kernel, get, means)), get))


def _sees_means(network: KernelMap, q: Tensor, get: str) -> bool:
    """Return whether a network normalizes its inputs, so that its kernel depends on more than norms and angles."""
    mean, kernel = q.sqrt() / 2, q[None] / 2
    without, within = (_read(network(_state(q, q, kernel, get, m)), get) for m in (None, (mean, mean)))
    return not torch.equal(without, within)


class _Table:
    """Function of the cosine, tabulated by cubics in $\\sqrt{1 - |\\rho|}$, in which kernels with kinks are smooth."""

    def __init__(self, coefficients: Tensor, *, scaled: bool) -> None:
        self.coefficients, self.scaled, self.at_one = coefficients, scaled, coefficients[0, 0]

    def fill(self, out: Tensor, cosine: Tensor) -> None:
        """Write the function at the cosines."""
        at = self._place(cosine)
        cell = at.to(torch.int32).clamp_(max=_CELLS - 1)
        at -= cell
        cell = cell.flatten()
        a = self.coefficients
        value = a[3].index_select(0, cell).view_as(at)
        for k in (2, 1, 0):
            value.mul_(at).add_(a[k].index_select(0, cell).view_as(at))
        out.copy_(value)

    @staticmethod
    def _place(cosine: Tensor) -> Tensor:
        """Return positions in the table, from 0 at a cosine of 1 to the number of cells at -1."""
        half = _CELLS / 2
        root = torch.nn.functional.threshold(1 - cosine.abs(), _SAME, 0.0).sqrt_().mul_(half)
        return torch.where(cosine < 0, _CELLS - root, root)


def _table(network: KernelMap, left: _Side, right: _Side, get: str) -> _Table | None:
    """Return the table of a network for these inputs, or None if the kernel depends on norms or it is inexact."""
    sizes = torch.cat([left.square, right.square])
    # to the precision of the inputs: rows normalized in float32 have one norm to 1e-7
    equal = bool((sizes - sizes[0]).abs().max() <= 8 * max(left.eps, right.eps) * sizes[0])
    if not equal and not network.homogeneous:
        return None
    q = sizes[:1] if equal else torch.ones_like(sizes[:1])
    if _sees_means(network, q, get):
        return None

    def values(place: Tensor) -> Tensor:
        return _read(network(_state(q, q.expand(len(place)), (q * _cosine(place))[None], get)), get)[0]

    # a few panels of high order first: an activation without closed forms is integrated at 200 cosines, not 4096
    half = [0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2]
    ends = torch.tensor([*half, *(1 - h for h in reversed(half[1:-1])), 1.0], dtype=torch.float64) * _CELLS
    nodes = torch.from_numpy(chebyshev.chebpts1(_ORDER))
    low, high = ends[:-1, None], ends[1:, None]
    found = values(((low + high) / 2 + (high - low) / 2 * nodes).flatten().to(q.device)).cpu().view(len(low), _ORDER)
    series = torch.linalg.solve(torch.from_numpy(chebyshev.chebvander(nodes.numpy(), _ORDER - 1)), found.T)

    def resampled(place: Tensor) -> Tensor:
        panel = (torch.searchsorted(ends, place, right=True) - 1).clamp(0, len(low) - 1)
        at = (2 * place - low[panel, 0] - high[panel, 0]) / (high - low)[panel, 0]
        return (torch.from_numpy(chebyshev.chebvander(at.numpy(), _ORDER - 1)) * series.T[panel]).sum(-1)

    cells = torch.arange(_CELLS, dtype=torch.float64)
    inside = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0 - 1e-9], dtype=torch.float64)  # the last in the cell's panel
    cubics = (
        resampled((cells[:, None] + inside).flatten()).view(_CELLS, 4) @ torch.linalg.inv(torch.linalg.vander(inside)).T
    )
    cubics[0, 0] = values(torch.zeros(1, dtype=torch.float64, device=q.device))[0].cpu()
    table = _Table(cubics.T.contiguous().to(q.device), scaled=not equal)
    middle = torch.linspace(0.3, _CELLS - 0.3, _CHECKS, dtype=torch.float64, device=q.device)
    exact, read = values(middle), torch.empty_like(middle)
    table.fill(read, _cosine(middle))
    return table if float((read - exact).abs().max()) <= _MISS * float(exact.abs().max()) else None


def _cosine(place: Tensor) -> Tensor:
    """Return the cosines at positions in the table."""
    negative = place > _CELLS / 2
    root = torch.where(negative, _CELLS - place, place) / (_CELLS / 2)
    return torch.where(negative, root.square() - 1, 1 - root.square())
