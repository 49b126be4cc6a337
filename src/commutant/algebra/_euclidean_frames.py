"""Frames of clouds of points under rotations, reflections, translations and scalings.

The axes of a cloud are the eigenvectors of its covariance. Their signs are arbitrary, and so is their basis where
eigenvalues are equal. A frame holds all signs, or those that a rule chooses where a statistic distinguishes them. Where
the gap between two eigenvalues closes, their axes become one block, whose bases come from tuples of points. Each tuple
gives one basis, weighted by the volume that the tuple spans, since a tuple of volume zero determines no basis. Weights
change smoothly between open and closed gaps, so the average is continuous.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from .._checks import check_generator, one_of, whole
from .._errors import InputError
from ._axes import NOTHING, Axes, principal_axes, vanishing
from ._clouds import Clouds
from ._exporting import exporting
from ._frame import Frame
from ._point_tuples import tuple_bases

FrameGroup: TypeAlias = Literal["T", "O", "SO", "E", "SE"]
"""Translations (T), orthogonal maps (O), rotations (SO), Euclidean motions (E), Euclidean motions without reflections
(SE)."""
SignRule: TypeAlias = Literal["all", "skew", "softskew", "maxabs"]
Degenerate: TypeAlias = Literal["weighted", "error", "warn"]

_GROUPS, _SIGNS, _DEGENERATE = get_args(FrameGroup), get_args(SignRule), get_args(Degenerate)


def pca_frame(
    x: Float[Tensor, "*lead n d"],
    group: FrameGroup = "E",
    *,
    batch: Int[Tensor, " n"] | None = None,
    mask: Shaped[Tensor, "*lead n"] | None = None,
    clouds: Clouds | None = None,
    signs: SignRule = "all",
    on_degenerate: Degenerate = "weighted",
    blend: tuple[float, float] = (1e-3, 1e-2),
    directions: Float[Tensor, "*lead n k d"] | None = None,
    scale: Literal["rms", "max"] | None = None,
    tuples: int = 4096,
    generator: torch.Generator | None = None,
) -> Frame:
    """Return the principal axes of clouds as frames: `2^d` elements for E(d) and O(d), half for SE(d) and SO(d).

    Args:
        x: Points, `(*lead, n, d)`, or `(points, d)` with `batch`.
        group: Group. The origin is the mean for `"E"` and `"SE"`, and zero for `"O"` and `"SO"`; `"T"` only translates.
        batch: Index of the cloud of each point, `(points,)`; sorted or not.
        mask: True for valid points, or their weights, `(*lead, n)`.
        clouds: Known layout of the points, used instead of `batch` and `mask`.
        signs: Signs of each axis: `"all"` for both, or a rule that chooses one. A rule takes the sign of the third
            moment (`"skew"`), of `sum h|h|` (`"softskew"`), or of the coordinate of largest magnitude (`"maxabs"`).
            Both signs are used where the statistic is too small. The other axes determine the last axis of a proper
            group.
        on_degenerate: Behavior for close eigenvalues: change smoothly to weighted frames (`"weighted"`), raise an error
            (`"error"`), or warn and use the axes of the solver (`"warn"`).
        blend: Two gaps, as shares of the variance: axes are merged below the first and distinct above the second. The
            same numbers apply to the statistic of a sign.
        directions: Further vectors of each point that rotate with it, such as velocities, `(*lead, n, k, d)`; their
            directions help to choose axes that the points leave undetermined.
        scale: Size by which clouds are also divided: the root mean square (`"rms"`) or largest (`"max"`) distance from
            the origin, or None.
        tuples: Largest number of tuples of points for a degenerate cloud, which bounds the cost of large symmetric
            clouds. If a cloud has more, this many are drawn, with a warning, and `frame.exact` is False.
        generator: Source of the drawn tuples; by default they are the same in each call.

    Raises:
        InputError: For unknown names, mismatched shapes, NaN, or degenerate clouds with `on_degenerate="error"`.

    Example:
        >>> frame = pca_frame(torch.randn(10, 5, 3), "SE")
        >>> len(frame), frame.canonicalize(torch.randn(10, 5, 3)).shape
        (40, torch.Size([40, 5, 3]))
    """
    centered, proper = properties_of(group)
    one_of("signs", signs, _SIGNS)
    one_of("on_degenerate", on_degenerate, _DEGENERATE)
    if not isinstance(blend, Sequence) or len(blend) != 2 or not 0 <= blend[0] < blend[1]:
        raise InputError(f"blend must be two shares of the variance, the smaller one first, got {blend}")
    clouds = Clouds.fitting(x, batch, mask, clouds)
    rows = _unit_rows(clouds, directions, x)
    axes = principal_axes(clouds, x, centered, signs, proper, blend, rows is not None)
    if group == "T":
        d = x.shape[-1]
        still = torch.eye(d, dtype=torch.float64, device=x.device).expand(clouds.number, d, d)
        return _finished(clouds, axes, [(still, still.new_ones(clouds.number), _all(clouds, x))], scale, True)
    if on_degenerate != "weighted" and exporting():
        if on_degenerate == "error":
            raise InputError('on_degenerate="error" can\'t be exported; use "weighted", or "warn" for plain axes')
        axes = replace(axes, open=torch.ones_like(axes.open))
    elif on_degenerate != "weighted":
        nothing = vanishing(axes.values.detach()) if rows is None else torch.zeros_like(axes.open, dtype=torch.bool)
        doubtful = ((axes.open < 1) & ~nothing).any(-1).nonzero().flatten().tolist()
        if doubtful and on_degenerate == "error":
            more = f", nor are those of {len(doubtful) - 1} more" if len(doubtful) > 1 else ""
            raise InputError(
                f"the principal axes of cloud {doubtful[0]} are not distinct (gap {float(axes.gap[doubtful[0]]):.2g} "
                f'of its variance, {blend[1]:g} needed){more}; use on_degenerate="weighted"'
            )
        if doubtful:
            text = f"the principal axes of {len(doubtful)} clouds are not distinct, so their frames are discontinuous"
            warnings.warn(text, stacklevel=2)
        axes = replace(axes, open=(~nothing).to(axes.open))
    return _by_blocks(clouds, axes, rows, proper, scale, tuples, generator)


def weighted_frame(
    x: Float[Tensor, "*lead n d"],
    group: FrameGroup = "E",
    *,
    batch: Int[Tensor, " n"] | None = None,
    mask: Shaped[Tensor, "*lead n"] | None = None,
    clouds: Clouds | None = None,
    directions: Float[Tensor, "*lead n k d"] | None = None,
    scale: Literal["rms", "max"] | None = None,
    tuples: int = 4096,
    generator: torch.Generator | None = None,
) -> Frame:
    """Return a frame that is continuous in the cloud: one element for each tuple of d - 1 points, weighted by volume.

    In three dimensions it has n (n - 1) elements of SE(3), or twice as many of E(3). `pca_frame` uses these elements
    only for degenerate clouds. Dym, Lawrence and Siegel, ICML 2024.

    Args:
        x: Points, `(*lead, n, d)`, or `(points, d)` with `batch`.
        group: Group of the frame, as for `pca_frame`, except `"T"`.
        batch: Index of the cloud of each point, `(points,)`; sorted or not.
        mask: True for valid points, or their weights, `(*lead, n)`.
        clouds: Known layout of the points, used instead of `batch` and `mask`.
        directions: Further vectors of each point that rotate with it, `(*lead, n, k, d)`.
        scale: Size by which clouds are also divided: the root mean square (`"rms"`) or largest (`"max"`) distance from
            the origin, or None.
        tuples: Largest number of tuples for a cloud; if it has more, this many are drawn, with a warning.
        generator: Source of the drawn tuples; by default they are the same in each call.
    """
    centered, proper = properties_of(group)
    if group == "T":
        raise InputError("the group T has one frame, the mean; use pca_frame")
    clouds = Clouds.fitting(x, batch, mask, clouds)
    rows = _unit_rows(clouds, directions, x)
    axes = principal_axes(clouds, x, centered, "all", proper, (0.0, 1.0), rows is not None)
    cut = torch.zeros_like(axes.open)
    if rows is None:  # tuples need one point less than there are axes, so two axes without extent are separated
        nothing = vanishing(axes.values.detach())
        cut[:, 1:-1] = (nothing[:, 2:] & ~nothing[:, 1:-1]).to(cut)
    axes = replace(axes, open=cut)
    return _by_blocks(clouds, axes, rows, proper, scale, tuples, generator)


def properties_of(group: str) -> tuple[bool, bool]:
    """Return whether a group translates, and whether it excludes reflections."""
    one_of("group", group, _GROUPS)
    return group in ("T", "E", "SE"), group in ("SO", "SE")


def _all(clouds: Clouds, x: Tensor) -> Tensor:
    return torch.arange(clouds.number, device=x.device)


def _unit_rows(clouds: Clouds, directions: Tensor | None, x: Tensor) -> Tensor | None:
    """Return further directions `(clouds, n, k, d)` divided by their root mean square."""
    if directions is None:
        return None
    if not isinstance(directions, Tensor):
        raise InputError(f"directions must be a tensor, got {type(directions).__name__}")
    if directions.shape[:-2] != x.shape[:-1] or directions.shape[-1] != x.shape[-1]:
        raise InputError(
            f"directions must be {(*x.shape[:-1], 'k', x.shape[-1])}, k per point, got {tuple(directions.shape)}"
        )
    rows = clouds.here(clouds.flat(directions)).double()
    size = clouds.mean(rows.square().sum((-1, -2)))
    unit = clouds.spread(torch.where(size > 0, size, 1.0).sqrt())
    return rows / unit.reshape(*unit.shape, 1, 1)


def _by_blocks(
    clouds: Clouds,
    axes: Axes,
    rows: Tensor | None,
    proper: bool,
    scale: str | None,
    tuples: int,
    generator: torch.Generator | None,
) -> Frame:
    """Return the frames for each combination of open and closed gaps, for the clouds with weight on it."""
    whole("tuples", tuples)
    check_generator(generator)
    d = axes.values.shape[1]
    state = axes.open.detach()
    if exporting():
        return _by_all_blocks(clouds, axes, rows, proper, scale, tuples)
    points = clouds.points_of(axes.points)
    each = 1 if rows is None else 1 + rows.shape[-2]
    seen = [[w for w, there in ((True, (s > 0).any()), (False, (s < 1).any())) if there] for s in state.unbind(1)]
    pieces, sampled = [], 0
    for way in product(*seen):
        share = axes.open.new_ones(clouds.number)
        for k, is_open in enumerate(way):
            share = share * (axes.open[:, k] if is_open else 1 - axes.open[:, k])
        cuts = [0, *(k + 1 for k, is_open in enumerate(way) if is_open), d]
        widest = max(stop - start for start, stop in pairwise(cuts))
        fits = _permutations_of(points * each, widest - 1) <= tuples
        for exact, lies in ((True, (share > 0) & fits), (False, (share > 0) & ~fits)):
            if not bool(lies.any()):
                continue
            chosen = lies.nonzero().flatten()
            matrices, weights = _joined(
                [_block(clouds, axes, rows, chosen, cut, tuples, exact, generator) for cut in pairwise(cuts)], proper
            )
            weights = weights * share[chosen][:, None]
            sampled += 0 if exact else len(chosen)
            kept = (weights.detach() > 0).flatten().nonzero().flatten()
            cloud = chosen[:, None].expand(weights.shape)
            pieces.append((matrices.flatten(0, 1)[kept], weights.flatten()[kept], cloud.flatten()[kept]))
    if sampled:
        text = f"{sampled} symmetric clouds have too many tuples of points: {tuples} are drawn, so averages are inexact"
        warnings.warn(text, stacklevel=4)
    if not pieces:
        none = axes.values.new_zeros(0)
        pieces.append((none.reshape(0, d, d), none, none.long()))
    return _finished(clouds, axes, pieces, scale, not sampled)


def _by_all_blocks(
    clouds: Clouds, axes: Axes, rows: Tensor | None, proper: bool, scale: str | None, tuples: int
) -> Frame:
    """Return the frames for all combinations of open and closed gaps, in a form that `torch.export` can trace."""
    d = axes.values.shape[1]
    every = torch.arange(clouds.number, device=axes.values.device)
    pieces = []
    for way in product((True, False), repeat=d - 1):
        cuts = [0, *(k + 1 for k, is_open in enumerate(way) if is_open), d]
        if max(stop - start for start, stop in pairwise(cuts)) > 3:
            raise InputError(f"frames of tuples can be exported in up to 3 dimensions, got {d}")
        blocks = [_block(clouds, axes, rows, every, cut, tuples, True, None) for cut in pairwise(cuts)]
        matrices, weights = _joined(blocks, proper)
        for k, is_open in enumerate(way):
            weights = weights * (axes.open[:, k] if is_open else 1 - axes.open[:, k])[:, None]
        cloud = every[:, None].expand(weights.shape)
        pieces.append((matrices.flatten(0, 1), weights.flatten(), cloud.flatten()))
    rotation, weight, cloud = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    kept = (weight > 0).nonzero()[:, 0]
    return _finished(clouds, axes, [(rotation[kept], weight[kept], cloud[kept])], scale, True)


def _permutations_of(n: Int[Tensor, " clouds"], k: int) -> Float[Tensor, " clouds"]:
    """Return the number of ordered k-tuples of n things."""
    out = torch.ones(n.shape, dtype=torch.float64, device=n.device)
    for i in range(k):
        out = out * (n - i).clamp(min=0)
    return out


def _block(
    clouds: Clouds,
    axes: Axes,
    rows: Tensor | None,
    chosen: Tensor,
    cut: tuple[int, int],
    most: int,
    exact: bool,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return bases of one block of axes of some clouds, with weights and determinants (1 or -1)."""
    start, stop = cut
    basis = axes.vectors[chosen, :, start:stop]
    if stop - start == 1:
        up = axes.plus[chosen, start]
        return torch.stack([basis, -basis], 1), torch.stack([up, 1 - up], 1), up.new_tensor([1.0, -1.0])
    spread = axes.spread[chosen]
    near = clouds.padded(axes.points, chosen) / torch.where(spread > 0, spread, 1.0)[:, None, None]
    counts = clouds.padded(clouds.weights_of(axes.points), chosen)
    if rows is not None:
        near = torch.cat([near, clouds.padded(rows, chosen).flatten(1, 2)], 1)
        counts = torch.cat([counts, counts.repeat_interleave(rows.shape[-2], 1)], 1)
    inner = near @ basis
    large = inner.detach().square().sum(-1, keepdim=True) > NOTHING
    matrices, weights, hands = tuple_bases(torch.where(large, inner, 0.0), counts, most, exact, generator)
    return basis[:, None] @ matrices, weights, hands


def _joined(blocks: list[tuple[Tensor, Tensor, Tensor]], proper: bool) -> tuple[Tensor, Tensor]:
    """Return all combinations of the elements of blocks, with determinant one if the group is proper."""
    matrices, weights, hands = blocks[0]
    for more, other, turns in blocks[1:]:
        first = torch.arange(weights.shape[1], device=weights.device).repeat_interleave(other.shape[1])
        second = torch.arange(other.shape[1], device=weights.device).repeat(weights.shape[1])
        matrices = torch.cat([matrices[:, first], more[:, second]], -1)
        weights, hands = weights[:, first] * other[:, second], hands[first] * turns[second]
    if proper:
        right = (hands > 0).nonzero().flatten()
        matrices, weights = matrices[:, right], weights[:, right]
    return matrices, weights / weights.sum(1, keepdim=True)


def _finished(
    clouds: Clouds, axes: Axes, pieces: list[tuple[Tensor, Tensor, Tensor]], scale: str | None, exact: bool
) -> Frame:
    one_of("scale", scale, (None, "rms", "max"))
    size = torch.ones_like(axes.spread)
    if scale is not None:
        square = clouds.largest(axes.points.square().sum(-1))
        size = axes.spread if scale == "rms" else torch.where(square > 0, square, 1.0).sqrt()
        size = torch.where(axes.spread > 0, size, 1.0)
    rotation, weight, cloud = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    if not exporting() and (clouds.ragged or clouds.weight is not None or not axes.points.numel()):
        kept = (clouds.count(axes.points) > 0)[cloud]
        rotation, weight, cloud = rotation[kept], weight[kept], cloud[kept]
    return Frame(rotation, weight, cloud, axes.origin, size, axes.gap, axes.margin, clouds, exact)
