"""Further inputs drawn around an example, within the ranges that the example shows to be valid."""

from __future__ import annotations

import torch
from torch import Tensor

from ._inputs import Inputs, map_tensors, named_tensors

_WAYS = ("negated", "flipped", "shifted", "kept")


def resample(x: Inputs, generator: torch.Generator, way: str = "kept", size: float = 1.0) -> Inputs:
    """Draw another input of the same shapes, with real numbers shuffled, rescaled entry by entry and then changed.

    Signs and sums change only where a tensor has both signs; values within [-1, 1] stay there. If the input holds no
    real numbers, integers are treated as token ids and drawn from the values of the example. Otherwise they are
    treated as indices and kept. Masks, which hold at most two values, are shuffled.

    Args:
        x: Example.
        generator: Source of the random draws.
        way: Change after rescaling, one of the names that `way_of` returns.
        size: Factor applied to real numbers.
    """
    only_integers = not any(t.is_floating_point() or t.is_complex() for _, t in named_tensors(x))

    def draw(_: str, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return _floats(tensor, generator, way, size)
        if tensor.is_complex():
            return torch.view_as_complex(_floats(torch.view_as_real(tensor).contiguous(), generator, way, size))
        if only_integers and tensor.numel():
            return _integers(tensor, generator, way)
        return tensor

    return map_tensors(draw, x)


def way_of(trial: int) -> str:
    """Return the name of the change that a trial makes to its input; all changes take turns."""
    return _WAYS[(trial - 1) % len(_WAYS)]


def _floats(tensor: Tensor, generator: torch.Generator, way: str, size: float) -> Tensor:
    device = generator.device

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(tensor.shape, generator=generator, device=device, dtype=torch.float64)
        return drawn.to(tensor) * (high - low) + low

    if not tensor.numel() or not bool(tensor.isfinite().all()):
        return tensor  # infinities are a mask, which stays
    if not bool(tensor.any()):
        return torch.randn(tensor.shape, generator=generator, device=device).to(tensor)
    order = torch.randperm(tensor.numel(), generator=generator, device=device).to(tensor.device)
    shuffled = tensor.flatten()[order].reshape(tensor.shape)
    largest = tensor.abs().max()
    out = shuffled * uniform(0.5, 1.5) * size
    if bool((tensor > 0).any()) and bool((tensor < 0).any()):
        if way == "negated":
            out = -out
        elif way == "flipped":
            out = out * (uniform(0.0, 1.0) < 0.5).to(tensor).mul(2).sub(1)
        elif way == "shifted":
            center = torch.randn((), generator=generator, device=device, dtype=torch.float64)
            out = out + center.to(tensor) * (tensor.abs() / largest).square().mean().sqrt() * largest
    return out.clamp(-1, 1) if bool(largest <= 1) else out


def _integers(tensor: Tensor, generator: torch.Generator, way: str) -> Tensor:
    values = tensor.unique()
    if way in ("negated", "shifted") or values.numel() <= 2:  # a mask keeps its counts
        order = torch.randperm(tensor.numel(), generator=generator, device=generator.device).to(tensor.device)
        return tensor.flatten()[order].reshape(tensor.shape)
    drawn = torch.randint(values.numel(), tensor.shape, generator=generator, device=generator.device)
    return values[drawn.to(tensor.device)]


def enlarge(x: Inputs, generator: torch.Generator) -> Inputs:
    """Draw an input far from x, with indices shuffled too, for functions whose output seems constant."""

    def shuffle(_: str, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() or tensor.is_complex() or not tensor.numel():
            return tensor
        return tensor.flatten()[torch.randperm(tensor.numel(), generator=generator).to(tensor.device)].view_as(tensor)

    return map_tensors(shuffle, resample(x, generator, "flipped", 30.0))


def perturb(x: Inputs, relative: float, generator: torch.Generator) -> Inputs:
    """Change every real or complex number of x by a random sign times a relative amount, as rounding does."""

    def change(_: str, tensor: Tensor) -> Tensor:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        double = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
        sign = torch.randint(0, 2, tensor.shape, generator=generator).to(double).mul(2).sub(1)
        return (double * (1 + 2 * relative * sign)).to(tensor.dtype)

    return map_tensors(change, x)
