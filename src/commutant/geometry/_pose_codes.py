"""Codes of the transformation between two views, and metrics of their prediction with chance levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import is_whole
from .._errors import InputError
from ._arguments import floats_given


def quaternion_code(
    first: Float[Tensor, "*batch 3 3"], second: Float[Tensor, "*batch 3 3"] | None = None
) -> Float[Tensor, "*batch 4"]:
    """Return the unit quaternion (x, y, z, w) of a rotation, or of the rotation `first^T second` between two poses.

    Rotations act in the body frame: poses go from R to R g, so that `q(R g) = q(R) q(g)` up to sign. The sign is chosen
    so that w is non-negative; it jumps at half a turn.

    Args:
        first: Rotation matrices, or first poses, `(..., 3, 3)`.
        second: Second poses, `(..., 3, 3)`.

    Raises:
        InputError: If a matrix is not a rotation.

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
    if r.numel() and (float(off.max()) > 1e-3 or (least := float(torch.linalg.det(r).min())) < 0):
        wrong = "matrices that are not orthogonal" if float(off.max()) > 1e-3 else f"determinant {least:.3g}"
        raise InputError(f"rotations must be orthogonal with determinant one, got {wrong}")
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
    """Return the product of quaternions (x, y, z, w): `R(p q) = R(p) R(q)`.

    Args:
        first: Left factors, `(..., 4)`.
        second: Right factors, `(..., 4)`; leading axes broadcast.

    Raises:
        InputError: If the last axes do not hold four numbers, or leading axes do not broadcast.
    """
    floats_given("quaternions", first)
    floats_given("quaternions", second)
    pairs = zip(reversed(first.shape[:-1]), reversed(second.shape[:-1]), strict=False)
    if first.shape[-1:] != (4,) or second.shape[-1:] != (4,) or any(a != b and 1 not in (a, b) for a, b in pairs):
        raise InputError(
            f"quaternions must be (..., 4) and broadcast, got shapes {tuple(first.shape)} and {tuple(second.shape)}"
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
    """Return the axis of a rotation times its angle in radians, in [0, pi].

    The identity gives zero. The sign jumps at half a turn.

    Args:
        first: Rotation matrices, or first poses, `(..., 3, 3)`.
        second: Second poses, `(..., 3, 3)`; the code is then that of `first^T second`.

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
    """Return the shortest signed distance from one hue to another on the circle of length one, in [-1/2, 1/2).

    Args:
        first: Hues before the change, of any shape.
        second: Hues after the change, of the same shape.
    """
    floats_given("hues", first)
    floats_given("hues", second)
    if first.shape != second.shape:
        raise InputError(f"hues must have the same shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    return (second - first + 0.5) % 1.0 - 0.5


class RotationScore(NamedTuple):
    """Share of the variance of a code that is predicted, by two formulas, and the score of a constant prediction."""

    pooled: float
    """Share of the variance around one mean of all components, as published."""
    per_component: float
    """Share of the variance around the mean of each component; zero for a constant prediction."""
    pooled_constant: float
    """Pooled share that the best constant prediction reaches."""


def rotation_r2(predicted: Float[Tensor, "samples code"], code: Float[Tensor, "samples code"]) -> RotationScore:
    """Return the share of the variance of a code that is predicted, `1 - residual / total`.

    The published formula also gives credit for predicting the mean of each component.

    Args:
        predicted: Predicted codes, `(samples, code)`.
        code: True codes, `(samples, code)`.

    Example:
        >>> code = quaternion_code(torch.eye(3).expand(10, 3, 3)) + 0.1 * torch.arange(40).reshape(10, 4)
        >>> rotation_r2(code, code).pooled
        1.0
    """
    floats_given("predictions", predicted)
    floats_given("codes", code)
    if predicted.shape != code.shape or code.dim() != 2 or len(code) < 2:
        raise InputError(
            f"predicted and code must both be (samples, code), got {tuple(predicted.shape)} and {tuple(code.shape)}"
        )
    p, y = predicted.detach().double(), code.detach().double()
    pooled, own = (y - y.mean()).square().sum(), (y - y.mean(0)).square().sum()
    left = (y - p).square().sum()
    if not bool(left.isfinite()) or not float(own) > 0:
        raise InputError("codes must vary, and codes and predictions must be finite, got constant or non-finite ones")
    return RotationScore(float(1 - left / pooled), float(1 - left / own), float(1 - own / pooled))


class Retrieval(NamedTuple):
    """Mean reciprocal rank and hit rates of the true view among all views of its object, and their chance levels."""

    mrr: float
    """Mean reciprocal rank."""
    hits: dict[int, float]
    """Share of true views within the first k, by k."""
    mrr_chance: float
    """Mean reciprocal rank of a random order."""
    hits_chance: dict[int, float]
    """Hit rates of a random order, by k."""


def retrieval(
    predicted: Float[Tensor, "objects views features"],
    candidates: Float[Tensor, "objects views features"],
    at: tuple[int, ...] = (1, 5, 10),
) -> Retrieval:
    """Return retrieval metrics for the true view among all views of its object, by cosine similarity to the prediction.

    Ranks of tied views are averaged over all orders, so that identical views give the chance level.

    Args:
        predicted: Prediction of each view from another view of its object, `(objects, views, features)`.
        candidates: Representations of the views, `(objects, views, features)`.
        at: Values of k for the hit rates.

    Example:
        >>> views = torch.randn(6, 4, 8)
        >>> retrieval(views, views).mrr
        1.0
    """
    floats_given("predictions", predicted)
    floats_given("candidates", candidates)
    if not isinstance(at, Sequence) or not all(is_whole(k) and k >= 1 for k in at):
        raise InputError(f"at must be a sequence of ranks of at least 1, got {at!r}")
    if predicted.shape != candidates.shape or predicted.dim() != 3 or not predicted.numel():
        raise InputError(
            "predictions and candidates must have the same non-empty shape (objects, views, features), got "
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
    predicted: Float[Tensor, "samples features"],
    embeddings: Float[Tensor, "all features"],
    poses: Float[Tensor, "all 4"],
    pose: Float[Tensor, "samples 4"],
) -> float:
    """Return the mean of `1 - (q . q')^2` between the true pose and that of the embedding nearest to the prediction.

    A perfect prediction gives zero and a random rotation 0.75. The sign of a quaternion does not matter.

    Args:
        predicted: Predicted embeddings, `(samples, features)`.
        embeddings: Embeddings among which the nearest is taken, `(all, features)`.
        poses: Quaternions of the poses of `embeddings`, `(all, 4)`.
        pose: Quaternions of the true poses, `(samples, 4)`.
    """
    given = {"predicted": predicted, "embeddings": embeddings, "poses": poses, "pose": pose}
    for name, value in given.items():
        floats_given(name, value, 2)
        if not len(value) or not bool(value.isfinite().all()):
            raise InputError(f"{name} must be finite and not empty, got shape {tuple(value.shape)}")
    expected = (len(predicted), embeddings.shape[1]), (len(embeddings), 4), (len(predicted), 4)
    if (tuple(predicted.shape), tuple(poses.shape), tuple(pose.shape)) != expected:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in given.items())
        raise InputError(f"a pose (x, y, z, w) is needed for each prediction and each embedding, got {shapes}")
    nearest = torch.cdist(predicted.double(), embeddings.double()).argmin(1)
    return float((1 - (poses[nearest].double() * pose.double()).sum(-1).square()).mean())
