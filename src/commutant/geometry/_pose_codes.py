"""Codes of the transformation between two views, and how well a representation knows it, beside what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._errors import InputError
from ._arguments import floats_given


def quaternion_code(
    first: Float[Tensor, "*batch 3 3"], second: Float[Tensor, "*batch 3 3"] | None = None
) -> Float[Tensor, "*batch 4"]:
    """The unit quaternion (x, y, z, w) of a rotation, or of the turn `first^T second` from one pose to another.

    The turn is that of the body: poses go from R to R g, so that `q(R g) = q(R) q(g)` up to sign. The sign is the one
    with w not negative; at half a turn it still jumps.

    Raises:
        InputError: matrices that are no rotations.

    Example:
        >>> quaternion_code(torch.eye(3)).abs().tolist()
        [0.0, 0.0, 0.0, 1.0]
    """
    for given in (first, *([] if second is None else [second])):
        floats_given("rotations", given)
        if given.shape[-2:] != (3, 3) or not given.isfinite().all():
            raise InputError(f"rotations must be finite and (..., 3, 3), got {tuple(given.shape)}")
    r = (first if second is None else first.mT @ second).double()
    off = (r.mT @ r - torch.eye(3, dtype=r.dtype, device=r.device)).abs()
    if r.numel() and (float(off.max()) > 1e-3 or float(torch.linalg.det(r).min()) < 0):
        raise InputError("rotations must be orthogonal with determinant one")
    symmetric = r + r.mT
    twist = torch.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1)
    trace = r.diagonal(dim1=-2, dim2=-1).sum(-1)
    upper = symmetric - torch.diag_embed(trace[..., None].expand(*trace.shape, 3))
    form = torch.cat([torch.cat([upper, twist[..., None]], -1),
                      torch.cat([twist, trace[..., None]], -1)[..., None, :]], -2)  # fmt: skip
    q = torch.linalg.eigh(form)[1][..., -1]  # stable everywhere, half turns included
    return (q * torch.where(q[..., 3:] < 0, -1.0, 1.0)).to(first.dtype)


def quaternion_product(
    first: Float[Tensor, "*#batch 4"], second: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """The product of quaternions (x, y, z, w): `R(p q) = R(p) R(q)`. Leading axes broadcast.

    Raises:
        InputError: not four numbers each.
    """
    floats_given("quaternions", first)
    floats_given("quaternions", second)
    pairs = zip(reversed(first.shape[:-1]), reversed(second.shape[:-1]), strict=False)
    if first.shape[-1:] != (4,) or second.shape[-1:] != (4,) or any(a != b and 1 not in (a, b) for a, b in pairs):
        raise InputError(
            f"quaternions must be (..., 4), leading axes must fit, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    (x, y, z, w), (a, b, c, e) = first.unbind(-1), second.unbind(-1)
    return torch.stack(
        [
            w * a + x * e + y * c - z * b,
            w * b - x * c + y * e + z * a,
            w * c + x * b - y * a + z * e,
            w * e - x * a - y * b - z * c,
        ],
        -1,
    )


def rotation_vector_code(
    first: Float[Tensor, "*batch 3 3"], second: Float[Tensor, "*batch 3 3"] | None = None
) -> Float[Tensor, "*batch 3"]:
    """The axis of a rotation times its angle in radians, in [0, pi]; of two poses as `quaternion_code`.

    Zero for no turn at all. At half a turn the sign jumps.

    Example:
        >>> rotation_vector_code(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])).tolist()[2] > 1.57
        True
    """
    for given in (first, *([] if second is None else [second])):
        floats_given("rotations", given)
    q = quaternion_code(first.double(), None if second is None else second.double())
    sine = q[..., :3].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, q[..., 3:])
    return (q[..., :3] * torch.where(sine > 0, angle / torch.where(sine > 0, sine, 1.0), 2.0)).to(first.dtype)


def hue_code(first: Float[Tensor, "*batch"], second: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The way from one hue to another around the circle, in [-1/2, 1/2)."""
    floats_given("hues", first)
    floats_given("hues", second)
    if first.shape != second.shape:
        raise InputError(f"hues must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    return (second - first + 0.5) % 1.0 - 0.5


class RotationScore(NamedTuple):
    """Share of the variance of a code that is predicted, by two formulas, and what a constant answer gets."""

    pooled: float
    """Around one mean of all components, as published."""
    per_component: float
    pooled_constant: float
    """Of the published formula; a constant answer gets zero by the other."""


def rotation_r2(predicted: Float[Tensor, "samples code"], code: Float[Tensor, "samples code"]) -> RotationScore:
    """`1 - residual / total`; the published formula gives credit for knowing the mean of each component alone.

    Example:
        >>> code = quaternion_code(torch.eye(3).expand(10, 3, 3)) + 0.1 * torch.arange(40).reshape(10, 4)
        >>> rotation_r2(code, code).pooled
        1.0
    """
    floats_given("predictions", predicted)
    floats_given("codes", code)
    if predicted.shape != code.shape or code.dim() != 2 or len(code) < 2:
        raise InputError(
            f"two codes (samples, code) of one shape are needed, got {tuple(predicted.shape)}, {tuple(code.shape)}"
        )
    p, y = predicted.detach().double(), code.detach().double()
    pooled, own = (y - y.mean()).square().sum(), (y - y.mean(0)).square().sum()
    left = (y - p).square().sum()
    if not bool(left.isfinite()) or not float(own) > 0:
        raise InputError("codes must vary, and codes and predictions be finite: there is no share of their variance")
    return RotationScore(float(1 - left / pooled), float(1 - left / own), float(1 - own / pooled))


class Retrieval(NamedTuple):
    """Mean reciprocal rank and hit rates of the right view among all of its object, and what chance gives."""

    mrr: float
    hits: dict[int, float]
    mrr_chance: float
    hits_chance: dict[int, float]


def retrieval(
    predicted: Float[Tensor, "objects views dim"],
    candidates: Float[Tensor, "objects views dim"],
    at: tuple[int, ...] = (1, 5, 10),
) -> Retrieval:
    """Where the right view stands among all views of its object, by cosine to the prediction.

    Views that are equally near stand in any order: the means over all orders are taken, so that where nothing can be
    told apart the result is that of chance.

    Args:
        predicted: for each object and view, what was predicted from some other view (from itself it is found for
            nothing).
        candidates: the views themselves.
        at: ranks of the hit rates.

    Example:
        >>> views = torch.randn(6, 4, 8)
        >>> retrieval(views, views).mrr
        1.0
    """
    floats_given("predictions", predicted)
    floats_given("candidates", candidates)
    if not isinstance(at, Sequence) or not all(isinstance(k, int) and k >= 1 for k in at):
        raise InputError(f"at must be ranks of at least 1, got {at!r}")
    if predicted.shape != candidates.shape or predicted.dim() != 3 or not predicted.numel():
        raise InputError(
            "predictions and candidates must be (objects, views, dim), of one shape and not empty, got "
            f"{tuple(predicted.shape)} and {tuple(candidates.shape)}"
        )
    if not (predicted.isfinite().all() and candidates.isfinite().all()):
        raise InputError("predictions and candidates must be finite, got NaN or infinities")
    p, c = (torch.nn.functional.normalize(t.detach().double(), dim=-1) for t in (predicted, candidates))
    cosine = p @ c.mT
    right = cosine.diagonal(dim1=-2, dim2=-1)[..., None]
    nearer = (cosine > right + 1e-12).sum(-1)
    alike = ((cosine - right).abs() <= 1e-12).sum(-1)
    views = cosine.shape[-1]
    harmonic = torch.cat([cosine.new_zeros(1), (1 / torch.arange(1, views + 1, dtype=torch.float64)).to(c).cumsum(0)])
    return Retrieval(
        float(((harmonic[nearer + alike] - harmonic[nearer]) / alike).mean()),
        {k: float(((k - nearer).double() / alike).clamp(0, 1).mean()) for k in at},
        sum(1 / i for i in range(1, views + 1)) / views,
        {k: min(k / views, 1.0) for k in at},
    )


def pose_error(
    predicted: Float[Tensor, "samples dim"],
    embeddings: Float[Tensor, "all dim"],
    poses: Float[Tensor, "all 4"],
    pose: Float[Tensor, "samples 4"],
) -> float:
    """`mean of 1 - (q . q')^2` between the right pose and that of the embedding nearest to the prediction.

    Zero for a perfect prediction; the sign of a quaternion does not matter. Two random rotations give 0.75.
    """
    given = {"predicted": predicted, "embeddings": embeddings, "poses": poses, "pose": pose}
    for name, value in given.items():
        floats_given(name, value, 2)
        if not len(value) or not bool(value.isfinite().all()):
            raise InputError(f"{name} must be finite and not empty, got shape {tuple(value.shape)}")
    whole = (len(predicted), embeddings.shape[1]), (len(embeddings), 4), (len(predicted), 4)
    if (tuple(predicted.shape), tuple(poses.shape), tuple(pose.shape)) != whole:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in given.items())
        raise InputError(f"a pose (x, y, z, w) is needed for each prediction and each embedding, got {shapes}")
    nearest = torch.cdist(predicted.double(), embeddings.double()).argmin(1)
    return float((1 - (poses[nearest].double() * pose.double()).sum(-1).square()).mean())
