"""Transformation-invariant coordinates keep distances, forget the pose, and warn where signs are in doubt."""

import itertools
import math

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import pca_frame
from commutant.geometry import (
    FrameAverage,
    MDSCoordinates,
    RoutingCoordinates,
    TransformEquivariant,
    TransformInvariant,
    classical_mds,
    landmark_mds,
)
from commutant.laws import Orthogonal, Rotation

R = Orthogonal(3).sample(torch.zeros(1, 3), torch.Generator().manual_seed(2))
SHIFT = torch.tensor([5.0, -3.0, 40.0], dtype=torch.float64)


def clouds(number=60, n=40, dtype=torch.float64):
    """Return elongated and skewed clouds, whose axes and signs are clear."""
    stretch = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    return (torch.randn(number, n, 3, dtype=torch.float64).exp() * stretch).to(dtype)


def moved(x, s=2.5):
    return s * x @ R.to(x).mT + SHIFT.to(x)


@pytest.mark.parametrize("sign", ["maxabs", "skew", "softskew"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-3)])
def test_strict_invariance_and_distances(sign, dtype, tolerance):
    x = clouds(dtype=dtype)
    order = torch.randperm(x.shape[1])
    coordinates = MDSCoordinates(signs=sign, on_degenerate="ignore")
    frame = pca_frame(x.double(), signs=sign)
    clear = torch.minimum(frame.gap, frame.margin) > 0.02
    assert int(clear.sum()) > 30
    h, g = coordinates(x), coordinates(moved(x)[:, order])
    assert float((h[:, order] - g)[clear].abs().max()) < tolerance
    distances = [torch.cdist(y.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist") for y in (x, h)]
    ratio = distances[1] / distances[0]
    ratio = ratio[:, ~torch.eye(40, dtype=torch.bool)]
    assert float((ratio / ratio.mean(1, keepdim=True) - 1).abs().max()) < (1e-12 if dtype == torch.float64 else 1e-3)
    assert torch.allclose(h.sum(1), torch.zeros(60, 3, dtype=dtype), atol=1e-3)
    assert torch.allclose(h.double().square().sum(-1).mean(1), torch.ones(60).double(), atol=1e-5)
    gram = h.double().mT @ h.double()
    assert float((gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))).abs().max()) < 1e-3
    assert bool((gram.diagonal(dim1=-2, dim2=-1).diff(dim=-1) <= 0).all())
    again = coordinates(h)
    assert float((again - h)[clear].abs().max()) < tolerance


def test_sign_consistency_table():
    """The signs of a bare eigensolver are stable under some changes and random under others."""
    x = clouds(40)
    order = torch.randperm(40)

    def flips(coordinates, y, order=None):
        a, b = coordinates(x), coordinates(y)
        a = a if order is None else a[:, order]
        return float(((a * b).sum(1) < 0).double().mean())

    unruled, ruled = (MDSCoordinates(signs=s, on_degenerate="ignore") for s in (None, "maxabs"))
    assert 0.2 < flips(unruled, x @ R.mT) < 0.8
    assert flips(unruled, x[:, order], order) < 0.05
    squared = lambda y: torch.cdist(y, y).square()  # noqa: E731
    by_gram = lambda y: classical_mds(squared(y), 3).coordinates  # noqa: E731
    assert flips(by_gram, x @ R.mT) < 0.1
    assert 0.2 < flips(by_gram, x[:, order], order) < 0.8
    assert flips(ruled, x @ R.mT) < 0.02
    assert flips(ruled, x[:, order], order) < 0.02


def test_both_routes_agree():
    x = clouds(20)
    squared = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    from_points = MDSCoordinates(on_degenerate="ignore")(x)
    from_distances = MDSCoordinates(3, from_distances=True, on_degenerate="ignore")(squared)
    assert torch.allclose(from_points, from_distances, atol=1e-8)
    found = classical_mds(squared, 3)
    assert float((found.values[:, 3:].abs().amax(1) / found.values[:, 0]).max()) < 1e-10
    assert float(found.negative.max()) < 1e-10


def test_the_nearest_neighbors_stay_the_same():
    x = clouds(10)
    h = MDSCoordinates(on_degenerate="ignore")(x)
    nearest = [torch.cdist(y, y).topk(6, largest=False).indices[..., 1:].sort().values for y in (x, h)]
    assert torch.equal(*nearest)


def test_chirality():
    x = clouds(20)
    mirror = x * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    proper, improper = (MDSCoordinates(group=g, on_degenerate="ignore") for g in ("SO", "O"))
    turned = x @ Rotation(3).sample(x, torch.Generator().manual_seed(0)).mT
    assert torch.allclose(proper(x), proper(turned), atol=1e-9)
    assert float((proper(x) - proper(mirror)).abs().amax((1, 2)).min()) > 0.1
    assert torch.allclose(improper(x), improper(mirror), atol=1e-9)


def test_indexed_and_masked_clouds():
    x = clouds(3, 12)
    whole = MDSCoordinates(on_degenerate="ignore")(x)
    order = torch.randperm(36)
    batch = torch.arange(3).repeat_interleave(12)
    indexed = MDSCoordinates(on_degenerate="ignore")(x.flatten(0, 1)[order], batch[order])
    assert torch.allclose(indexed, whole.flatten(0, 1)[order], atol=1e-10)
    padded = torch.cat([x, torch.full((3, 2, 3), torch.inf, dtype=torch.float64)], 1)
    mask = torch.ones(3, 14, dtype=torch.bool)
    mask[:, 12:] = False
    masked = MDSCoordinates(on_degenerate="ignore")(torch.where(mask[..., None], padded, 7.0), mask=mask)
    assert torch.allclose(masked[:, :12], whole, atol=1e-10)


def test_the_equivariant_form_of_each_output():
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    x = clouds(8)
    point, vector = TransformEquivariant(net), TransformEquivariant(net, outputs="vectors")
    assert torch.allclose(moved(point(x)), point(moved(x)), atol=1e-9)
    assert torch.allclose(vector(x) @ R.mT, vector(moved(x)), atol=1e-9)


def test_only_axes_in_doubt_are_averaged():
    net, calls = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3)).double(), []
    net.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    model, average = TransformInvariant(net), FrameAverage(net, scale="rms")
    x = clouds(10)
    model(x)
    assert 10 <= calls[-1] <= 14
    symmetric = torch.cat([x, 2 * x.mean(1, keepdim=True) - x], 1)
    assert torch.allclose(model(symmetric), average(symmetric), atol=1e-10), "all signs where no rule can tell"
    assert torch.allclose(model(symmetric), model(moved(symmetric)), atol=1e-8)


@pytest.mark.parametrize(
    "x",
    [
        torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3))),
        torch.cat([torch.eye(3), -torch.eye(3)]) * torch.tensor([1.0, 2.0, 3.0]),
        torch.stack([(torch.arange(5) * 2 * math.pi / 5).cos(), (torch.arange(5) * 2 * math.pi / 5).sin()], -1),
    ],
    ids=["cube", "centrally symmetric", "pentagon"],
)
def test_doubtful_clouds_are_said_to_be_doubtful(x):
    with pytest.warns(UserWarning, match="ambiguous for 1 of 1"):
        MDSCoordinates()(x.double())
    with pytest.raises(InputError, match="ambiguous"):
        MDSCoordinates(on_degenerate="error")(x.double())


def test_coordinates_are_not_invariant_to_shear_and_not_continuous():
    x = clouds(5)
    shear = torch.eye(3, dtype=torch.float64)
    shear[0, 1] = 0.7
    coordinates = MDSCoordinates(on_degenerate="ignore")
    assert float((coordinates(x) - coordinates(x @ shear)).abs().max()) > 0.05
    ahead, behind = (
        torch.tensor([[[-1 - e, 0.3], [1 + f, 0.3], [0.0, -0.5], [0.0, 0.1]]], dtype=torch.float64)
        for e, f in ((0, 0.04), (0.04, 0))
    )
    assert float((coordinates(ahead) - coordinates(behind)).abs().max()) > 1, "an axis flips within a step of 0.04"


def test_small_clouds():
    assert MDSCoordinates()(torch.randn(2, 1, 3)).tolist() == [[[0.0] * 3]] * 2
    assert MDSCoordinates()(torch.ones(1, 4, 3)).abs().sum() == 0
    two = MDSCoordinates(on_degenerate="ignore")(torch.tensor([[1.0, 1.0], [3.0, 1.0]]))
    assert sorted(two[:, 0].tolist()) == [-1.0, 1.0]
    assert two[:, 1].abs().max() < 1e-6
    assert MDSCoordinates()(torch.zeros(2, 0, 3)).shape == (2, 0, 3)


def test_distances_of_no_points_are_said_to_be_so():
    graph = torch.tensor([[0, 1, 1, 1], [1, 0, 2, 2], [1, 2, 0, 2], [1, 2, 2, 0]], dtype=torch.float64)
    assert float(classical_mds(graph, 3).negative) < 1e-9, "square roots of distances in a tree embed"
    assert float(classical_mds(graph.square(), 3).negative) > 0.01
    cycle = torch.tensor([[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]], dtype=torch.float64)
    assert float(classical_mds(cycle.square(), 2).negative) > 0.01


def test_distances_of_any_precision_and_kind():
    x = torch.randn(40, 3) * 100
    found = classical_mds(torch.cdist(x, x).square(), 3).coordinates
    assert torch.allclose(torch.cdist(found, found), torch.cdist(x, x), atol=0.5)
    hops = torch.tensor([[0, 1, 4], [1, 0, 1], [4, 1, 0]])
    assert classical_mds(hops, 1).coordinates[:, 0].abs().tolist() == pytest.approx([1, 0, 1], abs=1e-6)
    many = torch.stack([torch.cdist(x, x).square().double() * 1e8, torch.rand(40, 40).double()])
    with pytest.raises(InputError, match="symmetric"):
        classical_mds(many, 3)
    square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]).double().requires_grad_()
    squared = (square[:, None] - square).square().sum(-1)
    (gradient,) = torch.autograd.grad(torch.pdist(classical_mds(squared, 2).coordinates).sin().sum(), square)
    expected = torch.autograd.grad(torch.pdist(square).sin().sum(), square)[0]
    assert torch.allclose(gradient, expected, atol=1e-8)


def test_landmarks():
    x = torch.randn(5000, 3, dtype=torch.float64)
    marks = x[:12]
    squared = lambda a, b: (a[:, None] - b).square().sum(-1)  # noqa: E731
    found = landmark_mds(squared(marks, marks), squared(x, marks), 3)
    assert torch.allclose(torch.cdist(found[:50], found[50:90]), torch.cdist(x[:50], x[50:90]), atol=1e-9)
    flat = marks * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    with pytest.raises(InputError, match="do not span 3"):
        landmark_mds(squared(flat, flat), squared(x, flat), 3)


def test_gradients_reach_the_points():
    x = clouds(1, 6).requires_grad_()
    coordinates = MDSCoordinates(on_degenerate="ignore")
    assert torch.autograd.gradcheck(lambda y: coordinates(y).sin().sum(), (x,), atol=1e-5)
    y = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z: torch.pdist(classical_mds((z[:, None] - z).square().sum(-1), 3).coordinates).sin().sum(),
        (y,),
        atol=1e-5,
    )


def test_routes_of_a_solver_do_not_depend_on_the_pose():
    def solver(x):
        """Return a nearest-neighbor tour by a measure that depends on the pose."""
        tours = []
        for points in x:
            left, tour = set(range(1, len(points))), [0]
            while left:
                step = (points - points[tour[-1]]) * torch.tensor([1.0, 0.4], dtype=points.dtype) + 0.1 * points
                tour.append(min(left, key=lambda j: float(step[j].norm())))
                left.remove(tour[-1])
            tours.append(tour)
        return tours

    x = torch.rand(20, 12, 2, dtype=torch.float64)
    angle = torch.tensor(1.0)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]).double()
    coordinates = RoutingCoordinates(on_degenerate="ignore")
    pose = coordinates(x)
    assert pose.amin() >= 0
    assert pose.amax() <= 1
    other = 10 * x @ turn.mT + 5
    frame = pca_frame(x, signs="maxabs")
    clear = (torch.minimum(frame.gap, frame.margin) > 1e-3).tolist()
    same = [a == b for a, b, ok in zip(solver(pose), solver(coordinates(other)), clear, strict=True) if ok]
    assert all(same)
    assert len(same) > 15
    assert solver(x) != solver(other)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MDSCoordinates(0), "components must be a whole number of at least 1"),
        (lambda: MDSCoordinates(signs="left"), "signs must be"),
        (lambda: MDSCoordinates(group="SU"), "group must be"),
        (lambda: MDSCoordinates(from_distances=True), "needs components"),
        (lambda: MDSCoordinates(on_degenerate="hope"), "on_degenerate must be"),
        (lambda: MDSCoordinates(4)(torch.randn(5, 3)), "components must be at most 3"),
        (lambda: MDSCoordinates(scale="mean")(torch.randn(5, 3)), "scale must be"),
        (lambda: MDSCoordinates()(torch.full((5, 3), torch.nan)), "finite"),
        (lambda: MDSCoordinates(2, from_distances=True)(torch.rand(4, 4)), "symmetric"),
        (lambda: classical_mds(torch.rand(4, 3), 2), "must be"),
        (lambda: classical_mds(torch.eye(3) - 1, 2), "must be not negative"),
        (lambda: classical_mds(torch.tensor(1.0), 2), "must be"),
        (lambda: landmark_mds(torch.zeros(2, 3, 3), torch.rand(5, 3), 2), "between must be"),
        (lambda: landmark_mds(torch.zeros(3, 3), torch.full((5, 3), torch.nan), 2), "finite"),
        (lambda: RoutingCoordinates(signs=None), "signs must be"),
        (lambda: TransformInvariant(nn.Linear(3, 3), "Lorentz(4)"), "group must be"),
        (lambda: classical_mds(torch.ones(3, 3), 2), "zero on the diagonal"),
        (lambda: classical_mds(torch.zeros(3, 3), 0), "at least 1"),
        (lambda: landmark_mds(torch.zeros(3, 3), torch.rand(5, 4), 2), "one distance per landmark"),
    ],
)
def test_bad_input_is_named(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()
