"""Rotations as flows, and the convolutions that commute with them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._checks import whole
from .._errors import InputError
from ._flows import ResamplingFlow


class RotationFlow(ResamplingFlow):
    """Rotations of an image about its center at constant angular velocity; states have an axis of orientations.

    Rotations by multiples of 90 degrees (`orientations=4`) are exact. Other angles use bilinear resampling, with zeros
    outside the image, and every step loses detail. A full turn in steps of 10 degrees destroys most of a fine texture.

    Args:
        angles: Angles in degrees per step, counterclockwise, each a multiple of 360 / orientations.
        orientations: Number of orientations of the state, the size of the group C_n.

    Raises:
        InputError: For angles that are not multiples of 360 / orientations, or fewer than one orientation.

    Example:
        >>> flow = RotationFlow([0, 90], orientations=4)
        >>> flow.transform(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [90], steps=1)
        tensor([[2., 4.],
                [1., 3.]])
    """

    domain_dims, space_dims = 2, 3

    def __init__(self, angles: Tensor | Sequence[float | int], orientations: int) -> None:
        if not isinstance(angles, Sequence | Tensor) or any(isinstance(a, str) for a in angles):
            raise InputError(f"angles must be a list of degrees, got {angles!r}")
        super().__init__([[float(a)] for a in angles])
        whole("orientations", orientations)
        self.orientations = orientations
        turns = self.generators * orientations / 360
        if (turns - turns.round()).abs().max() > 1e-6:
            raise InputError(f"angles must be multiples of 360 / {orientations} degrees, got {list(angles)}")

    def period(self, sizes: Sequence[int]) -> Tensor:
        """Return a full turn, in degrees."""
        return torch.tensor([360.0])

    def table(self, nu: Tensor, space: tuple[int, ...], pad: int) -> tuple[Tensor, Tensor | None]:
        """Return source indices (up to four neighbors) and weights of each grid point of the rotated, padded field."""
        index, weight = _rotation_table(nu[:, 0].double(), space[-2:], pad)
        if len(space) == 3:
            turn = (nu[:, 0] * self.orientations / 360).round().long()
            source = (torch.arange(self.orientations) - turn[:, None]) % self.orientations
            index = source[:, None, :, None, None] * space[1] * space[2] + index[:, :, None]
            weight = weight[:, :, None].expand(index.shape)
        return index, weight.float()

    def pad(self, x: Tensor, pad: int) -> Tensor:
        """Pad a field with zeros.

        Args:
            x: Field `(batch, channels, ..., height, width)`.
            pad: Number of grid points on each side.
        """
        return nn.functional.pad(x, [pad] * 4)

    def input_map(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Module:
        """Build the lifting convolution of C_n, which has one rotated kernel per orientation.

        Args:
            in_channels: Number of input channels.
            out_channels: Number of output channels, not counting orientations.
            kernel_size: Size of the kernel.
            bias: Whether to add a learned bias per channel.
        """
        return GroupConvolution(in_channels, out_channels, kernel_size, self.orientations, bias, lifting=True)

    def state_map(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Module:
        """Build the convolution of C_n on fields with an axis of orientations.

        Args:
            in_channels: Number of input channels, not counting orientations.
            out_channels: Number of output channels, not counting orientations.
            kernel_size: Size of the kernel.
            bias: Whether to add a learned bias per channel.
        """
        return GroupConvolution(in_channels, out_channels, kernel_size, self.orientations, bias, lifting=False)


def _rotation_table(degrees: Tensor, size: Sequence[int], pad: int) -> tuple[Tensor, Tensor]:
    """Return bilinear source indices `(angles, neighbors, *padded size)` of rotated images, and their weights."""
    height, width = size
    rows, columns = torch.meshgrid(
        torch.arange(-pad, height + pad).double(), torch.arange(-pad, width + pad).double(), indexing="ij"
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    y, x = (height - 1) / 2 - rows, columns - (width - 1) / 2  # y points up
    cos, sin = (t.view(-1, 1, 1) for t in (torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))))
    from_x, from_y = cos * x + sin * y, cos * y - sin * x
    row, column = (height - 1) / 2 - from_y, from_x + (width - 1) / 2
    row, column = (torch.where((t - t.round()).abs() < 1e-9, t.round(), t) for t in (row, column))
    index, weight = [], []
    for down, right in itertools.product((0, 1), repeat=2):
        r, c = row.floor() + down, column.floor() + right
        share = (1 - (row - r).abs()) * (1 - (column - c).abs())
        here = inside & (r >= 0) & (r < height) & (c >= 0) & (c < width)
        index.append((r.clamp(0, height - 1) * width + c.clamp(0, width - 1)).long())
        weight.append(torch.where(here, share, 0))
    indices, weights = torch.stack(index, 1), torch.stack(weight, 1)
    used = [k for k in range(4) if weights[:, k].any()] or [0]
    return indices[:, used], weights[:, used]


class GroupConvolution(nn.Module):
    """A convolution that commutes with the rotations of C_n by applying one kernel in n orientations.

    Args:
        in_channels: Number of input fields, not counting orientations.
        out_channels: Number of output fields, not counting orientations.
        kernel_size: Size of the square kernel.
        orientations: Number n of orientations.
        bias: Whether to add one learned bias per output field.
        lifting: Whether the input is an image, without an axis of orientations.

    Shapes:
        `(batch, in_channels, [orientations,] height, width)` to `(batch, out_channels, orientations, *smaller)`.
    """

    rotations: Tensor
    shares: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, orientations: int, bias: bool, lifting: bool
    ) -> None:
        super().__init__()
        self.lifting, self.orientations = lifting, orientations
        planes = 1 if lifting else orientations
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, planes, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight.view(out_channels, -1, kernel_size, kernel_size), a=math.sqrt(5))
        degrees = torch.arange(orientations).double() * 360 / orientations
        index, share = _rotation_table(degrees, (kernel_size, kernel_size), 0)
        self.register_buffer("rotations", index, persistent=False)
        self.register_buffer("shares", share.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the kernel in every orientation.

        Args:
            x: Padded field `(batch, in_channels, [orientations,] height, width)`.
        """
        out_channels, in_channels, planes, size, _ = self.weight.shape
        flat = self.weight.flatten(3)
        turned = (flat[..., self.rotations.flatten(2)] * self.shares.flatten(2).to(flat.dtype)).sum(-2)
        if not self.lifting:  # output orientation o reads input orientation p through plane p - o
            n = self.orientations
            turned = torch.stack([turned[:, :, :, o].roll(o, 2) for o in range(n)], 3)
        kernel = turned.permute(0, 3, 1, 2, 4).reshape(
            out_channels * self.orientations, in_channels * planes, size, size
        )
        bias = None if self.bias is None else self.bias.repeat_interleave(self.orientations)
        x = x if self.lifting else x.flatten(1, 2)
        return nn.functional.conv2d(x, kernel, bias).unflatten(1, (out_channels, self.orientations))
