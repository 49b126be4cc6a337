"""Search for the kinks of elementwise functions, by bisection on the jumps of their derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._errors import InputError

_RANGE, _STEP = 20.0, 1 / 16
_FINE = 8e-5  # spacing of the fine grid, on which only values are computed
_CLUSTERS = 128  # number of narrow features above which a function counts as rough everywhere
_MOST = 64  # number of kinks above which a function is refused
_BESIDE = 1e-9  # distance from a kink at which its two sides are evaluated
_WIDTH = 1e-13  # width at which bisection stops


def find_kinks(f: Callable[[Tensor], Tensor]) -> tuple[float, ...]:
    """Return the points of [-20, 20] at which f or its first or second derivative jumps, in ascending order.

    Every interval of a grid is halved repeatedly, and the half with the larger change is kept. The change of a smooth
    function vanishes with the interval, while a jump stays. The grid is finer where function values, taken at 12500
    points per unit, change unlike their neighbors. A narrow smooth feature is returned as a set of points that are
    denser around it. Features narrower than 1e-4 that do not change the function elsewhere are missed; pass these as
    `kinks`.

    Args:
        f: Elementwise function of real numbers, differentiable by autograd where it is smooth.

    Raises:
        InputError: If f has NaN or infinite values, or more than 64 kinks.

    Example:
        >>> find_kinks(torch.nn.functional.hardswish)
        (-3.0, 3.0)
    """
    if not callable(f):
        raise InputError(f"f must be a function of tensors, got {f!r}")
    # avoids round numbers, where kinks are common, since a kink at a node could belong to either interval
    grid = torch.arange(-_RANGE - 0.377 * _STEP, _RANGE + _STEP, _STEP, dtype=torch.float64)
    narrow = _narrow_places(f)
    inside = [torch.linspace(low, high, 257, dtype=torch.float64) for low, high in narrow]
    grid = torch.cat([grid, *inside]).unique()
    values = derivatives(f, grid, 2)
    if not bool(torch.isfinite(values[0]).all()):
        bad = grid[~torch.isfinite(values[0])]
        where = float(bad[bad.abs().argmin()])
        raise InputError(
            f"{name_of(f)} gives {float(values[0][grid == where])} at {where:.3g}; "
            "Gaussian expectations need a function that is finite on the whole line"
        )
    found: set[float] = set()
    for order in range(3):
        found |= set(_jumps(f, grid, values[order], order))
        if len(found) > _MOST:
            raise InputError(f"{name_of(f)} has more than {_MOST} kinks between -20 and 20, too many to integrate over")
    for low, high in narrow:
        if not any(low <= kink <= high for kink in found):
            found |= set(_graded(low, high))
    return tuple(sorted(found))


def _narrow_places(f: Callable[[Tensor], Tensor]) -> list[tuple[float, float]]:
    """Return intervals in which values change unlike their neighbors, or none if this is so everywhere."""
    z = torch.arange(-_RANGE - 0.377 * _FINE, _RANGE + _FINE, _FINE, dtype=torch.float64)
    with torch.no_grad():
        values = real_values(f, z)
    if not bool(torch.isfinite(values).all()):
        return []  # reported by the search on the coarse grid or by the quadrature
    change = values.diff()
    beside = (change[:-2] + change[2:]) / 2
    usual = 0.1 * (change[:-2].abs() + change[2:].abs()) + 1e-11 * (1 + values[1:-2].abs())
    odd = ((change[1:-1] - beside).abs() > usual).nonzero().flatten() + 1
    if not len(odd):
        return []
    ends = (odd.diff() > 8).nonzero().flatten()
    first, last = odd[torch.nn.functional.pad(ends + 1, (1, 0))], torch.cat([odd[ends], odd[-1:]])
    if len(first) > _CLUSTERS:
        return []
    return list(zip((z[first] - 2 * _FINE).tolist(), (z[last] + 3 * _FINE).tolist(), strict=True))


def _graded(low: float, high: float) -> list[float]:
    """Return points within and around a narrow feature, at doubling distances from it."""
    width, steps = high - low, 0
    while width * 2**steps < _STEP:
        steps += 1
    away = [width * (2**k - 1) for k in range(steps + 1)]
    return [low + width * k / 4 for k in (1, 2, 3)] + [low - d for d in away] + [high + d for d in away]


def real_values(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return f at float64 points, after a check that it is elementwise and real."""
    try:
        values = f(z.clone())  # f may change it in place
    except InputError:
        raise
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{name_of(f)} fails on a tensor of numbers ({error})") from error
    if not isinstance(values, Tensor) or values.shape != z.shape:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"{name_of(f)} must be elementwise, but it gave {got} for points of shape {tuple(z.shape)}")
    if values.is_complex():
        raise InputError(f"{name_of(f)} must be real, but it gave {values.dtype}; pass its real or imaginary part")
    return values.to(torch.float64)


def name_of(f: object) -> str:
    """Return the name of a function for a message."""
    return str(getattr(f, "name", getattr(f, "__name__", type(f).__name__)))


def jumps_of(f: Callable[[Tensor], Tensor], kinks: tuple[float, ...]) -> list[tuple[float, float]]:
    """Return the kinks at which f itself jumps, each with the height of the jump."""
    at = torch.tensor(kinks, dtype=torch.float64)
    above, below = real_values(f, at + _BESIDE).detach(), real_values(f, at - _BESIDE).detach()
    high = (above - below).abs() > 1e-6 * (1 + above.abs())
    return [(kinks[i], float(above[i] - below[i])) for i in range(len(kinks)) if high[i]]


def derivatives(f: Callable[[Tensor], Tensor], z: Tensor, order: int) -> list[Tensor]:
    """Return f, f' ... at the points z by autograd, zero where autograd has no derivative (hardsigmoid's second)."""
    z = z.detach().clone().requires_grad_()
    with torch.enable_grad():
        out = [real_values(f, z)]
        for _ in range(order):
            out.append(_derivative(out[-1], z))
    return [value.detach() for value in out]


def mean_bend(f: Callable[[Tensor], Tensor], z: Tensor, kinks: tuple[float, ...]) -> Tensor:
    """Return f'' at the points z `(points,)`: at a kink the mean of both sides, or zero where f or f' jumps."""
    borders = torch.tensor(kinks, dtype=torch.float64, device=z.device)
    step = 1e-7 * z.abs().clamp(min=1.0)
    at_kink = ((z[:, None] - borders).abs() < step[:, None] / 2).any(-1)
    if not bool(at_kink.any()):
        return derivatives(f, z, 2)[2]
    left, right = derivatives(f, z - step, 2), derivatives(f, z + step, 2)
    smooth = torch.ones_like(at_kink)
    for a, b in zip(left[:2], right[:2], strict=True):
        smooth &= (a - b).abs() < 1e-4 * (1 + a.abs() + b.abs())
    sides = torch.where(smooth, (left[2] + right[2]) / 2, 0.0)
    return torch.where(at_kink, sides, derivatives(f, z, 2)[2])


def _derivative(values: Tensor, z: Tensor) -> Tensor:
    if not values.requires_grad:
        return torch.zeros_like(z)
    try:
        (slope,) = torch.autograd.grad(values.sum(), z, create_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        slope = None
    return torch.zeros_like(z) if slope is None else slope


def _jumps(f: Callable[[Tensor], Tensor], grid: Tensor, values: Tensor, order: int) -> list[float]:
    """Return the kinks of one order of derivative: intervals whose change does not vanish under bisection."""
    low, high, left, right = grid[:-1], grid[1:], values[:-1], values[1:]
    first = (right - left).abs()
    while float((high - low).max()) > _WIDTH:
        middle = (low + high) / 2
        center = derivatives(f, middle, order)[order]
        keep = (center - left).abs() >= (right - center).abs()
        low, left = torch.where(keep, low, middle), torch.where(keep, left, center)
        high, right = torch.where(keep, middle, high), torch.where(keep, center, right)
    last = (right - left).abs()
    # the change of a smooth function has shrunk with the interval, by 1e-12, down to rounding
    real = (last > 1e-5 * first) & (last > 1e-9 * (1 + left.abs()))
    return [round(float(z), 11) + 0.0 for z in ((low + high) / 2)[real]]
