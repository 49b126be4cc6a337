"""Frames from whole groups, random draws, Gram-Schmidt and the Lorentz group, instead of principal axes."""

from __future__ import annotations

from itertools import permutations, product

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from .._checks import whole
from .._errors import InputError
from ._axes import right_handed, spectrum
from ._clouds import Clouds
from ._euclidean_frames import FrameGroup, properties_of
from ._frame import Frame
from ._point_tuples import completed


def signed_permutations(d: int) -> Float[Tensor, "elements d d"]:
    """Return the `2^d d!` matrices that permute coordinates and flip their signs, the symmetries of the cube.

    Args:
        d: Number of coordinates.
    """
    whole("d", d)
    eye = torch.eye(d, dtype=torch.float64)
    return torch.stack([
        eye[list(p)] * torch.tensor(s, dtype=torch.float64)[:, None]
        for p in permutations(range(d))
        for s in product((1.0, -1.0), repeat=d)
    ])  # fmt: skip


def group_frame(
    x: Float[Tensor, "*lead n d"], matrices: Float[Tensor, "elements d d"], *, clouds: Clouds | None = None
) -> Frame:
    """Return all elements of a finite matrix group as the frame of every cloud, which gives group averaging.

    Args:
        x: Points, `(*lead, n, d)`, or `(points, d)` with `clouds`.
        matrices: All elements of the group, each once, `(elements, d, d)`.
        clouds: Layout of x if it is not stacked.

    Raises:
        InputError: If the matrices are singular, repeated or not closed under products.
    """
    clouds = Clouds.fitting(x, clouds=clouds)
    if not isinstance(matrices, Tensor):
        raise InputError(f"matrices must be a tensor, got {type(matrices).__name__}")
    group = matrices.double().to(x.device)
    if group.dim() != 3 or not len(group) or group.shape[1:] != (x.shape[-1],) * 2:
        raise InputError(f"matrices must be (elements, {x.shape[-1]}, {x.shape[-1]}), got {tuple(matrices.shape)}")
    if not bool(group.isfinite().all()):
        raise InputError("the matrices of a group must be finite, got NaN or infinities")
    if float(torch.linalg.det(group).abs().min()) < 1e-9 or (
        len(group) > 1 and float(torch.pdist(group.flatten(1)).min()) < 1e-6
    ):
        raise InputError("the matrices of a group must be invertible and distinct")
    products = (group[:, None] @ group).flatten(0, 1).flatten(1)
    if float(torch.cdist(products, group.flatten(1)).amin(1).max()) > 1e-6:
        raise InputError("the matrices do not form a group, since a product of two of them is missing; add it")
    number = clouds.number
    elements = len(group)
    whole = group.repeat_interleave(number, 0)
    cloud = torch.arange(number, device=x.device).repeat(elements)
    weight = torch.full((len(cloud),), 1 / elements, dtype=torch.float64, device=x.device)
    return _plain(clouds, x, whole, cloud, weight, inverse=torch.linalg.inv(group).repeat_interleave(number, 0))


def random_frame(
    x: Float[Tensor, "*lead n d"],
    group: FrameGroup,
    number: int,
    *,
    generator: torch.Generator | None = None,
    clouds: Clouds | None = None,
) -> Frame:
    """Return uniformly drawn elements of a group, as a baseline whose average is exact only in expectation.

    For the Euclidean groups the origin is the mean.

    Args:
        x: Points, `(*lead, n, d)`, or `(points, d)` with `clouds`.
        group: Group, as for `pca_frame`, except `"T"`.
        number: Number of elements for each cloud.
        generator: Source of the draws; by default torch's global generator.
        clouds: Layout of x if it is not stacked.
    """
    centered, proper = _turning(group)
    whole("number", number)
    clouds = Clouds.fitting(x, clouds=clouds)
    total, d = number * clouds.number, x.shape[-1]
    device = x.device if generator is None else generator.device
    q, r = torch.linalg.qr(torch.randn(total, d, d, generator=generator, device=device, dtype=torch.float64))
    q = (q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).to(x.device)
    q = right_handed(q) if proper else q
    cloud = torch.arange(clouds.number, device=x.device).repeat(number)
    weight = torch.full((total,), 1 / number, dtype=torch.float64, device=x.device)
    origin = clouds.mean(clouds.flat(x).double()) if centered else None
    return _plain(clouds, x, q, cloud, weight, origin=origin, exact=False)


def gram_schmidt_frame(
    x: Float[Tensor, "*lead n d"], group: FrameGroup = "SE", *, clouds: Clouds | None = None
) -> Frame:
    """Return one frame element per cloud, by Gram-Schmidt on the first linearly independent points in stored order.

    This is the smallest frame for clouds with labeled points, such as backbone atoms or landmarks. It depends on the
    order of the points and is therefore not invariant to permutations. Lin et al., ICML 2024.

    Args:
        x: Stacked points, `(*lead, n, d)`.
        group: Group, as for `pca_frame`, except `"T"`.
        clouds: Layout of x, which must be stacked and without a mask.

    Raises:
        InputError: If a cloud does not span enough dimensions; the message names its index.
    """
    centered, proper = _turning(group)
    clouds = Clouds.fitting(x, clouds=clouds)
    if clouds.ragged or clouds.weight is not None:
        raise InputError("minimal frames need stacked clouds without a mask")
    points, d = clouds.flat(x).double(), x.shape[-1]
    origin = clouds.mean(points) if centered else points.new_zeros(len(points), d)
    rows = points - origin[:, None]
    size = rows.detach().square().sum(-1).amax(-1) if rows.shape[1] else rows.new_zeros(len(rows))
    basis: list[Tensor] = []
    for _ in range(d - 1 if proper else d):
        left = rows
        for q in basis:
            left = left - (left * q[:, None]).sum(-1, keepdim=True) * q[:, None]
        there = left.detach().square().sum(-1) > 1e-12 * size[:, None]
        if not bool(there.any(1).all()):
            cloud = int((~there.any(1)).nonzero()[0])
            raise InputError(f"the points of cloud {cloud} span only {len(basis)} dimensions, too few for {group}({d})")
        first = there.double().argmax(1)
        picked = left[torch.arange(len(left), device=x.device), first]
        basis.append(picked / picked.norm(dim=-1, keepdim=True))
    if proper:
        basis.append(completed(basis) if basis else points.new_ones(len(points), 1))
    frame = torch.stack(basis, -1)
    ones = frame.new_ones(len(frame))
    return _plain(clouds, x, frame, torch.arange(len(frame), device=x.device), ones, origin=origin)


def lorentz_frame(
    x: Float[Tensor, "*lead n d"],
    *,
    batch: Int[Tensor, " n"] | None = None,
    mask: Shaped[Tensor, "*lead n"] | None = None,
    clouds: Clouds | None = None,
    proper: bool = False,
) -> Frame:
    """Return frames of sets of momenta under the Lorentz group without time reversal.

    The axes diagonalize both `sum p p^T` and the metric `diag(1, -1, ..., -1)`; a frame holds all signs of the spatial
    axes. The axes do not depend on the order of the momenta, and exist for massless momenta too. Energies must be
    positive. A boost by rapidity y costs about y digits: the error in float64 is 1e-10 at y = 5 and 1e-6 at y = 7.

    Args:
        x: Momenta with the energy first, `(*lead, n, d)`, or `(points, d)` with `batch`.
        batch: Index of the set of each momentum, `(points,)`; sorted or not.
        mask: True for valid momenta, or their weights, `(*lead, n)`.
        clouds: Known layout of the momenta, used instead of `batch` and `mask`.
        proper: Whether to exclude spatial reflections.

    Raises:
        InputError: If momenta do not span all dimensions, or their axes are not distinct; the message names the set.
    """
    clouds = Clouds.fitting(x, batch, mask, clouds)
    points, d = clouds.flat(x).double(), x.shape[-1]
    if d < 2:
        raise InputError(f"momenta need energy and at least one more component, got {d}")
    outer = clouds.gram(points)
    size = outer.diagonal(dim1=-2, dim2=-1).sum(-1)
    outer = outer / torch.where(size > 0, size, 1.0)[:, None, None]
    least = torch.linalg.eigvalsh(outer.detach())[:, 0]
    if bool((flat := least < 1e-13).any()):
        raise InputError(f"the momenta of cloud {int(flat.nonzero()[0])} do not span {d} dimensions")
    root = torch.linalg.cholesky(outer)
    metric = -torch.ones(d, dtype=torch.float64, device=x.device)
    metric[0] = 1.0
    form = root.mT @ (metric[:, None] * root)
    scale = form.detach().abs().amax((-1, -2))
    values, vectors = spectrum(form / scale[:, None, None])
    gap = (values[:, :-1] - values[:, 1:]).detach().amin(-1) / values.detach().abs().amax(-1)
    if bool((close := gap < 1e-9).any()):
        raise InputError(f"the axes of the momenta of cloud {int(close.nonzero()[0])} are not distinct")
    axes = root @ vectors / (values.abs() * scale[:, None]).sqrt()[:, None]
    forward = torch.where(axes.detach()[:, 0, 0] < 0, -1.0, 1.0)
    axes = torch.cat([axes[..., :1] * forward[:, None, None], axes[..., 1:]], -1)
    turns = torch.tensor(list(product((1.0, -1.0), repeat=d - 1)), dtype=torch.float64, device=x.device)
    turns = torch.cat([turns.new_ones(len(turns), 1), turns], 1)
    if proper:
        axes = right_handed(axes)
        turns = turns[turns.prod(1) > 0]
    frames = (axes[:, None] * turns[:, None]).flatten(0, 1)
    inverse = metric[:, None] * frames.mT * metric  # eta Lambda^T eta
    cloud = torch.arange(clouds.number, device=x.device).repeat_interleave(len(turns))
    weight = torch.full((len(cloud),), 1 / len(turns), dtype=torch.float64, device=x.device)
    return _plain(clouds, x, frames, cloud, weight, inverse=inverse, gap=gap)


def _turning(group: str) -> tuple[bool, bool]:
    if group == "T":
        raise InputError("group must be O, SO, E or SE, got 'T', which has one frame; use pca_frame")
    return properties_of(group)


def _plain(
    clouds: Clouds,
    x: Tensor,
    rotation: Tensor,
    cloud: Tensor,
    weight: Tensor,
    *,
    origin: Tensor | None = None,
    inverse: Tensor | None = None,
    gap: Tensor | None = None,
    exact: bool = True,
) -> Frame:
    ones = torch.ones(clouds.number, dtype=torch.float64, device=x.device)
    origin = x.new_zeros(clouds.number, x.shape[-1], dtype=torch.float64) if origin is None else origin
    return Frame(rotation, weight, cloud, origin, ones, ones if gap is None else gap, ones, clouds, exact, inverse)
