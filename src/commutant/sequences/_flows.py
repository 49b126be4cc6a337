"""Flows, which are one-parameter groups that move a field at every step, and translations as flows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .._checks import one_of, whole
from .._errors import InputError

Act: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]


class Flow:
    """A set V of generators and the action of their flows on fields, $\\psi_t(\\nu) = \\exp(t \\nu)$.

    This class takes any action, for use with `LiftToFlow`. `TranslationFlow` and `RotationFlow` also provide
    convolutions.

    Args:
        act: Function `act(field, nu, steps)` that moves a field `(..., channels, *space)` by `steps` steps of the flow
            of nu, a tensor `(d,)`. It runs under `torch.vmap` over the generators, so it must index by tensors, not by
            Python numbers.
        generators: The set V as rows, `(generators, d)`, without duplicates, in the order of the slices of a lifted
            state.

    Raises:
        InputError: For generators of the wrong shape, that are not finite or that repeat.

    Example:
        >>> ring = Flow(lambda f, nu, t: f.gather(-1, ((torch.arange(5) - t * nu[0]) % 5).expand(f.shape)), [[0], [1]])
        >>> ring.shift(torch.arange(5.0).expand(1, 2, 1, 5))[0, 1, 0]
        tensor([4., 0., 1., 2., 3.])
    """

    domain_dims: int | None = None
    """Number of axes of the input after its channels; None when unknown."""
    space_dims: int | None = None
    """Number of axes of a state after its channels; None when unknown."""

    def __init__(self, act: Act, generators: Tensor | Sequence[Any]) -> None:
        self.act = act
        self.generators = _rows(generators)

    def __len__(self) -> int:
        return self.generators.shape[0]

    def shift(self, h: Tensor, pad: int = 0) -> Tensor:
        """Move every slice of a lifted state `(batch, V, channels, *space)` one step along its own flow.

        Args:
            h: Lifted state `(batch, V, channels, *space)`.
            pad: Number of grid points by which the last axes are padded on both sides, as a convolution needs.
        """
        if pad:
            raise InputError(f"pad must be 0 for a {type(self).__name__}, which defines no boundary, got {pad}")
        nu = self.generators.to(h.device)
        return torch.vmap(lambda field, v: self.act(field, v, 1), in_dims=(1, 0), out_dims=1)(h, nu)

    def transform(self, x: Tensor, nu: Tensor | Sequence[Any], steps: int, lifted: bool = False) -> Tensor:
        """Move a field by several steps of one flow.

        Args:
            x: Field `(..., channels, *domain)`, or `(..., channels, *space)` when lifted.
            nu: Generator `(d,)`, which need not be in V.
            steps: Number of steps.
            lifted: Whether x is a field on the space of states rather than on the domain of inputs.
        """
        return self.act(x, torch.as_tensor(nu, device=x.device), steps)

    def index_of(self, wanted: Tensor, sizes: Sequence[int] = ()) -> Tensor:
        """Return the index of generators in V, `(...)`, or -1 for generators outside V.

        Args:
            wanted: Generators `(..., d)`.
            sizes: Sizes of the torus, on which generators repeat.
        """
        period = self.period(sizes)
        gap = wanted.unsqueeze(-2) - self.generators
        if period is not None:
            gap = gap - (gap / period).round() * period
        same = gap.abs().amax(-1) < 1e-6
        return torch.where(same.any(-1), same.to(torch.uint8).argmax(-1), -1)

    def period(self, sizes: Sequence[int]) -> Tensor | None:
        """Return the period of each entry of a generator, or None when no generator repeats.

        Args:
            sizes: Sizes of the space.
        """
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} generators)"


def _rows(generators: Tensor | Sequence[Any]) -> Tensor:
    try:
        rows = torch.as_tensor(generators)
    except (TypeError, ValueError) as error:
        raise InputError(f"generators must be numbers of shape (generators, d), got {generators!r}") from error
    if rows.dim() != 2 or 0 in rows.shape:
        raise InputError(f"generators must have shape (generators, d) and at least one row, got {tuple(rows.shape)}")
    if rows.is_floating_point() and not rows.isfinite().all():
        raise InputError(f"generators must be finite, got {rows[~rows.isfinite()][0].item()}")
    if len(rows.unique(dim=0)) != len(rows):
        raise InputError(f"generators must differ from each other, got {len(rows)} rows with duplicates")
    return rows


class ResamplingFlow(Flow):
    """Base class of flows that move a field by one gather from a table of source indices."""

    def __init__(self, generators: Tensor | Sequence[Any]) -> None:
        self.generators = _rows(generators)
        self._tables: dict[Any, tuple[Tensor, Tensor | None]] = {}

    def table(self, nu: Tensor, space: tuple[int, ...], pad: int) -> tuple[Tensor, Tensor | None]:
        """Return source indices `(moves, sources, *padded space)` of moves by nu, and weights (None if all are 1).

        Args:
            nu: Generators `(moves, d)`.
            space: Sizes of the space.
            pad: Number of grid points by which the space is padded on both sides.
        """
        raise NotImplementedError

    def shift(self, h: Tensor, pad: int = 0) -> Tensor:
        """Move every slice of a lifted state one step along its own flow, by one gather; see `Flow.shift`."""
        self._check(h, 3 + self.space_dims, f"a state (batch, {len(self)}, channels, *space)")  # type: ignore[operator]
        if h.shape[1] != len(self):
            raise InputError(f"the state must have {len(self)} slices, one per generator, got shape {tuple(h.shape)}")
        return self._move(h, self.generators, pad)

    def transform(self, x: Tensor, nu: Tensor | Sequence[Any], steps: int, lifted: bool = False) -> Tensor:
        """Move a field `(..., *space)` by several steps of the flow of nu; see `Flow.transform`."""
        dims = (self.space_dims if lifted else self.domain_dims) or 0
        self._check(x, dims, "a field (..., *space)")
        nu = torch.as_tensor(nu)
        return self._move(x.reshape(-1, 1, 1, *x.shape[x.dim() - dims :]), steps * nu[None], 0).reshape(x.shape)

    def _check(self, x: Tensor, dims: int, what: str) -> None:
        if x.dim() < dims:
            raise InputError(f"{type(self).__name__} moves {what}, got shape {tuple(x.shape)}")

    @torch.compiler.assume_constant_result
    def _kept(self, space: tuple[int, ...], pad: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Return the table of one step, cached by size."""
        key = (space, pad, device)
        if key not in self._tables:
            self._tables[key] = _to(self.table(self.generators, space, pad), device)
        return self._tables[key]

    def _move(self, h: Tensor, nu: Tensor, pad: int) -> Tensor:
        space = tuple(h.shape[3:])
        if nu is self.generators:
            index, weight = self._kept(space, pad, h.device)
        else:
            index, weight = _to(self.table(nu, space, pad), h.device)
        flat, out = h.flatten(3), index.shape[2:]
        total: Tensor | None = None
        for source in range(index.shape[1]):
            where = index[:, source].flatten(1)[None, :, None].expand(*flat.shape[:3], -1)
            part = flat.gather(3, where)
            if weight is not None:
                part = part * weight[:, source].flatten(1)[:, None].to(part.dtype)
            total = part if total is None else total + part
        assert total is not None
        return total.unflatten(3, out)


def _to(table: tuple[Tensor, Tensor | None], device: torch.device) -> tuple[Tensor, Tensor | None]:
    return table[0].to(device), None if table[1] is None else table[1].to(device)


class TranslationFlow(ResamplingFlow):
    """Translations at constant velocity on a ring, a torus or a box; states live on the same grid as the input.

    Args:
        velocities: Velocities in pixels per step, `(generators, d)` for d = 1, 2 or 3 axes, rows first.
        boundary: `"circular"` for a torus, or `"zero"` for a box padded with zeros; equivariance then holds only away
            from the border.
        interpolation: `"exact"` for whole velocities, or `"fourier"` for any velocity. Fourier shifts are exact for
            band-limited fields on a torus of odd size.

    Raises:
        InputError: For an unknown option, more than 3 axes, or fractional velocities without Fourier interpolation.

    Example:
        >>> flow = TranslationFlow([[0, 0], [0, 1]])
        >>> flow.transform(torch.arange(4.0).view(2, 2), [0, 1], steps=1)
        tensor([[1., 0.],
                [3., 2.]])
        >>> len(TranslationFlow.grid(2))
        25
    """

    def __init__(
        self,
        velocities: Tensor | Sequence[Any],
        boundary: str = "circular",
        interpolation: str = "exact",
    ) -> None:
        super().__init__(velocities)
        one_of("boundary", boundary, ("circular", "zero"))
        one_of("interpolation", interpolation, ("exact", "fourier"))
        if self.generators.shape[1] > 3:
            raise InputError(f"velocities must have 1 to 3 axes, got {self.generators.shape[1]}")
        if interpolation == "exact":
            _check_whole_pixels(self.generators)
        if interpolation == "fourier" and boundary == "zero":
            raise InputError("boundary must be 'circular' (a torus) for interpolation='fourier', got 'zero'")
        self.boundary, self.interpolation = boundary, interpolation
        self.domain_dims = self.space_dims = self.generators.shape[1]

    @classmethod
    def grid(cls, radius: int, dims: int = 2, **options: Any) -> TranslationFlow:
        """Build the flow of all whole velocities of at most `radius` along each axis.

        Args:
            radius: Largest velocity in pixels per step; 0 gives the plain convolutional RNN.
            dims: Number of axes.
            options: Further arguments of `TranslationFlow`.
        """
        whole("radius", radius, 0)
        return cls(list(itertools.product(range(-radius, radius + 1), repeat=dims)), **options)

    @classmethod
    def closed(cls, *sizes: int) -> TranslationFlow:
        """Build the flow of all velocities of a torus, for which every slice is exactly equivariant.

        Args:
            sizes: Sizes of the torus, one per axis.
        """
        return cls(list(itertools.product(*(range(n) for n in sizes))))

    def period(self, sizes: Sequence[int]) -> Tensor | None:
        """Return the sizes of the torus, or None for a box."""
        return torch.tensor(list(sizes)) if self.boundary == "circular" and sizes else None

    def table(self, nu: Tensor, space: tuple[int, ...], pad: int) -> tuple[Tensor, Tensor | None]:
        """Return the source index of each grid point of the moved, padded field."""
        index, inside = torch.zeros(len(nu), *[1] * len(space), dtype=torch.long), torch.tensor(True)
        for axis, size in enumerate(space):
            place = torch.arange(-pad, size + pad)
            source = place - nu[:, axis : axis + 1].long()
            shape = [len(nu)] + [1] * len(space)
            shape[axis + 1] = -1
            here = (place >= 0) & (place < size) & (source >= 0) & (source < size)
            index = index * size + (source % size).view(shape)
            inside = inside & here.view(shape)
        return index[:, None], None if self.boundary == "circular" else inside[:, None].float()

    def _move(self, h: Tensor, nu: Tensor, pad: int) -> Tensor:
        if self.interpolation == "exact":
            if nu is not self.generators:
                _check_whole_pixels(nu)
            return super()._move(h, nu, pad)
        axes = tuple(range(3, h.dim()))
        phase = torch.zeros(len(nu), *[1] * len(axes), dtype=torch.float64)
        for axis, dim in enumerate(axes):
            shape = [1] * (len(axes) + 1)
            shape[axis + 1] = -1
            turn = nu[:, axis].double().view(-1, *[1] * len(axes))
            phase = phase + turn * torch.fft.fftfreq(h.shape[dim], dtype=torch.float64).view(shape)
        turns = torch.polar(torch.ones_like(phase), -2 * math.pi * phase)[:, None].to(h.device)
        wide = h if h.dtype == torch.float64 else h.float()
        spectrum = torch.fft.fftn(wide, dim=axes)
        moved = torch.fft.ifftn(spectrum * turns.to(spectrum.dtype), dim=axes).real.to(h.dtype)
        return _pad_circular(moved, pad, len(axes)) if pad else moved

    def pad(self, x: Tensor, pad: int) -> Tensor:
        """Pad a field according to the boundary.

        Args:
            x: Field `(batch, channels, *space)`.
            pad: Number of grid points on each side.
        """
        mode = "circular" if self.boundary == "circular" else "constant"
        return nn.functional.pad(x, [pad, pad] * self.generators.shape[1], mode=mode)

    def input_map(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Module:
        """Build a convolution of padded inputs.

        Args:
            in_channels: Number of input channels.
            out_channels: Number of output channels.
            kernel_size: Size of the kernel.
            bias: Whether to add a learned bias per channel.
        """
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[self.generators.shape[1] - 1]
        return kind(in_channels, out_channels, kernel_size, bias=bias)

    state_map = input_map


def _check_whole_pixels(velocities: Tensor) -> None:
    fractional = velocities != velocities.round()
    if fractional.any():
        raise InputError(
            f"velocities must be whole pixels per step, got {velocities[fractional][0].item():g}; use "
            f"interpolation='fourier'"
        )


def _pad_circular(x: Tensor, pad: int, dims: int) -> Tensor:
    return nn.functional.pad(x.flatten(0, 1), [pad, pad] * dims, mode="circular").unflatten(0, x.shape[:2])
