"""Test networks and drawn cases of the laws stated in this subpackage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..laws import (
    Action,
    Associativity,
    BatchIndependence,
    Causality,
    Commutativity,
    Draw,
    Equivariance,
    Euclidean,
    GraphPermutation,
    IdentityElement,
    Inputs,
    Invariance,
    Law,
    MatrixGroup,
    Reflection,
    Rotation,
    SetPermutation,
    breaks,
    obeys,
)
from ._affine import DiagonalAffine, MatrixAffine
from ._all_but_one import all_but_one
from ._bernoulli_sums import ConditionalBernoulli, poisson_binomial
from ._equivariant_linear import PermutationEquivariantLinear
from ._equivariant_maps import equivariant_basis
from ._euclidean_frames import pca_frame, weighted_frame
from ._graph_frames import graph_frame
from ._group_frames import gram_schmidt_frame, group_frame, lorentz_frame, random_frame, signed_permutations
from ._kalman import ScalarKalman
from ._library import Adjoin, KSmallest, LogSumExp, Max, Min, Product, Sum
from ._monoid import Monoid
from ._paths import tour_lower_bound
from ._planar import convex_hull
from .elements import Element
from .linear_maps import linear_scan

Case: TypeAlias = tuple[Law, Callable[..., Any], Inputs]
"""A law, the function under test and its inputs."""


def _state_monoid_laws(
    subject: type[Monoid], element: Callable[[Draw], Element], make: Callable[[], Monoid] | None = None
) -> None:
    """State associativity, identity and commutativity (or its failure) of a monoid.

    Args:
        subject: Class of the monoid.
        element: Function that draws one element.
        make: Function that builds the monoid; by default the class without arguments.
    """

    def case(draw: Draw, law: Callable[[Monoid], Law], operands: int) -> Case:
        monoid = (make or subject)()
        return law(monoid), monoid.op, lambda _: tuple(element(draw) for _ in range(operands))

    obeys("associativity", lambda draw: case(draw, lambda _: Associativity(), 3))(subject)
    obeys("identity element", lambda draw: case(draw, lambda monoid: IdentityElement(monoid.identity), 1))(subject)
    state = breaks if subject.commutative == "no" else obeys
    state("commutativity", lambda draw: case(draw, lambda _: Commutativity(), 2))(subject)


def numbers(draw: Draw) -> Tensor:
    """Draw real numbers."""
    return draw.normal(draw.size, draw.width)


def pairs_of_numbers(draw: Draw) -> Element:
    """Draw a pair of tensors of real numbers, such as slopes and shifts."""
    return numbers(draw), numbers(draw)


def matrix_maps(draw: Draw) -> Element:
    """Draw affine maps with square matrices of width 2 or 3."""
    width = 2 + draw.width % 2
    return draw.normal(draw.size, width, width), draw.normal(draw.size, width)


def filtering_elements(draw: Draw) -> Element:
    """Draw elements of `ScalarKalman`, C and J not negative."""
    return numbers(draw), numbers(draw), numbers(draw).abs(), numbers(draw), numbers(draw).abs()


def sorted_triples(draw: Draw) -> Tensor:
    """Draw three sorted values for every feature."""
    return draw.normal(draw.size, draw.width, 3).sort(-1).values


def optional_numbers(draw: Draw) -> Element:
    """Draw numbers of which about half are absent, as `Adjoin` takes them."""
    present = draw.normal(draw.size) > 0
    return torch.where(present[:, None], numbers(draw), 0.0), present


def recurrence(draw: Draw) -> tuple[Tensor, Tensor]:
    """Draw the maps and shifts of a diagonal linear recurrence."""
    shape = (draw.size + 1, draw.size + 1, draw.width)
    return draw.normal(*shape).clamp(-1, 1), draw.normal(*shape)


def _network(draw: Draw, inputs: int) -> nn.Module:
    """Build a small network that no symmetry of its inputs leaves invariant."""
    return draw.module(lambda: nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 4)))  # type: ignore[no-any-return]


def graph_average(draw: Draw, make_frame: Callable[[Tensor, Tensor], Any]) -> Case:
    """Average a network of flattened adjacency matrices over the frame of a weighted graph."""
    n = 4 + draw.size % 3
    net = _network(draw, n * n)

    def average(x: Tensor, edges: Tensor) -> Tensor:
        pairs = x.new_zeros(1, n, n)
        pairs[0, edges[0], edges[1]] = 1.0
        frame = make_frame(pairs, x[None])
        return frame.pool(net(frame.canonicalize(pairs, "pairs").flatten(1))) + x.sum()

    path = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    features = torch.arange(n).remainder(2)[:, None].to(draw.dtype)
    return Invariance(GraphPermutation()), average, (features, torch.cat([path, path.flip(0)], 1))


def _average(net: nn.Module, make_frame: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """Return the average of a network of points over the frames of each cloud."""

    def average(x: Tensor) -> Tensor:
        frame = make_frame(x)
        return frame.pool(net(frame.canonicalize(x)).mean(1).cumsum(-1).sin())  # type: ignore[no-any-return]

    return average


def euclidean_average(
    make_frame: Callable[[Tensor], Any], action: Action | None = None, at_least: int = 1
) -> Callable[[Draw], Case]:
    """Return the case of a network of points in space, averaged over frames of isometries."""
    return point_average(make_frame, lambda: action or Euclidean(3) * SetPermutation(1), at_least)


def point_average(
    make_frame: Callable[[Tensor], Any], make_action: Callable[[], Action], at_least: int = 12, dim: int = 3
) -> Callable[[Draw], Case]:
    """Return the case of a network of points, averaged over a frame."""

    def case(draw: Draw) -> Case:
        average = _average(_network(draw, dim), make_frame)
        return Invariance(make_action()), average, draw.normal(3, draw.size + at_least, dim)

    return case


def boost_and_rotation() -> Float[Tensor, "2 4 4"]:
    """Return a boost along the first axis and a rotation of space."""
    boost, turn = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    half = torch.tensor(0.3, dtype=torch.float64)
    boost[:2, :2] = torch.stack([torch.stack([half.cosh(), half.sinh()]), torch.stack([half.sinh(), half.cosh()])])
    turn[1:, 1:] = torch.linalg.matrix_exp(torch.tensor([[0.0, 1, 0.4], [-1, 0, 0.7], [-0.4, -0.7, 0]]).double())
    return torch.stack([boost, turn])


def marginals_of_pairs(draw: Draw) -> Case:
    """Draw the logits of subsets of two elements."""

    def marginals(logits: Tensor) -> Tensor:
        return ConditionalBernoulli(logits, 2).marginals()

    return Equivariance(SetPermutation()), marginals, draw.normal(3, 3 + draw.size)


def sum_of_maps(draw: Draw) -> Case:
    """Draw a combination of all equivariant maps from pairs to pairs."""
    m, basis = 2 + draw.size % 4, equivariant_basis(2, 2)
    total = torch.einsum("e,eijkl->ijkl", draw.normal(len(basis)), torch.stack([e.dense(m, draw.dtype) for e in basis]))
    action = SetPermutation(pairs=True)
    return Equivariance(action), lambda x: torch.einsum("ijkl,bkl->bij", total, x), draw.normal(2, m, m)


def layer_on_pairs_and_nodes(draw: Draw) -> Case:
    """Draw an equivariant layer between pairs and nodes of two blocks."""
    m, channels = 2 + draw.size % 5, 7 + draw.width
    layer = draw.module(lambda: PermutationEquivariantLinear({2: channels, 1: channels}, {2: 3, 1: 2}))

    def apply(pairs: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        out = layer({2: pairs, 1: nodes})
        return out[2], out[1]

    x = draw.normal(2, m, m, channels), draw.normal(2, m, channels)
    return Equivariance(SetPermutation(pairs=True)), apply, x


def layer_on_rows(draw: Draw) -> Case:
    """Draw an equivariant layer from pairs to pairs, with an action that moves the rows and not the columns."""
    m = 3 + draw.size % 4
    layer = draw.module(lambda: PermutationEquivariantLinear({2: draw.width}, {2: draw.width}))
    return Equivariance(SetPermutation(pairs=False)), lambda x: layer({2: x})[2], draw.normal(2, m, m, draw.width)


_SINGLE = {torch.float32: 1e-2}  # rounding of points divided by the gap, which may be 1e-3, rotates the axes

_state_monoid_laws(DiagonalAffine, pairs_of_numbers)
_state_monoid_laws(MatrixAffine, matrix_maps)
_state_monoid_laws(ScalarKalman, filtering_elements)
_state_monoid_laws(Sum, numbers)
_state_monoid_laws(Max, numbers)
_state_monoid_laws(Min, numbers)
_state_monoid_laws(LogSumExp, numbers)
_state_monoid_laws(KSmallest, sorted_triples, lambda: KSmallest(3))
_state_monoid_laws(Product, pairs_of_numbers, lambda: Product(Sum(), Max()))
_state_monoid_laws(Adjoin, optional_numbers, lambda: Adjoin(Sum()))
obeys("batch independence", lambda draw: (BatchIndependence(), linear_scan, recurrence(draw)))(linear_scan)
obeys("causality", lambda draw: (Causality(), linear_scan, recurrence(draw)))(linear_scan)
breaks("mirror images of a proper group", euclidean_average(lambda x: pca_frame(x, "SE"), Reflection(3), at_least=4))(
    pca_frame
)
obeys("invariance under a rule of signs", euclidean_average(lambda x: pca_frame(x, signs="skew")), tolerance=_SINGLE)(
    pca_frame
)
obeys(
    "invariance of the proper group",
    euclidean_average(lambda x: pca_frame(x, "SE"), Euclidean(3, reflect=False)),
    tolerance=_SINGLE,
)(pca_frame)
obeys("invariance", euclidean_average(pca_frame), tolerance=_SINGLE)(pca_frame)
obeys("invariance", euclidean_average(weighted_frame), tolerance=_SINGLE)(weighted_frame)
obeys(
    "invariance under relabeling",
    lambda draw: graph_average(draw, graph_frame),
    tolerance={torch.float32: 1e-3},
)(graph_frame)
obeys(
    "invariance under the group",
    point_average(
        lambda x: group_frame(x, signed_permutations(3)),
        lambda: MatrixGroup(signed_permutations(3)[[1, 9, 20]]) * SetPermutation(1),
    ),
    tolerance={torch.float32: 1e-2},
)(group_frame)
breaks("invariance under rotations", point_average(lambda x: random_frame(x, "SO", 2), lambda: Rotation(3)))(
    random_frame
)
breaks(
    "invariance to the order of points",
    point_average(lambda x: gram_schmidt_frame(x, "SO"), lambda: SetPermutation(1)),
)(gram_schmidt_frame)
obeys(
    "invariance under rotations",
    point_average(lambda x: gram_schmidt_frame(x, "SO"), lambda: Rotation(3)),
    tolerance={torch.float32: 1e-2},
)(gram_schmidt_frame)
obeys(
    "invariance under boosts and turns",
    point_average(lorentz_frame, lambda: MatrixGroup(boost_and_rotation()) * SetPermutation(1), dim=4),
    tolerance={torch.float32: 5e-2, torch.float64: 1e-7},
)(lorentz_frame)
obeys("equivariance", sum_of_maps)(equivariant_basis)
obeys("equivariance", layer_on_pairs_and_nodes)(PermutationEquivariantLinear)
breaks("equivariance to permutations of the rows alone", layer_on_rows)(PermutationEquivariantLinear)
obeys(
    "invariance to order", lambda draw: (Invariance(SetPermutation()), poisson_binomial, draw.normal(3, 2 + draw.size))
)(poisson_binomial)
obeys(
    "equivariance to order",
    lambda draw: (Equivariance(SetPermutation(0)), partial(all_but_one, Sum()), draw.normal(2 + draw.size, draw.width)),
)(all_but_one)
obeys("equivariance to order", marginals_of_pairs)(ConditionalBernoulli)


def vertices_of_hulls(draw: Draw) -> tuple[Law, Any, Tensor]:
    """Return which points are vertices of their hull, and the points."""

    def vertices(x: Tensor) -> Tensor:
        hull = convex_hull(x)
        seen = x.new_zeros(len(x), x.shape[1] + 1)
        return seen.scatter(1, torch.where(hull < 0, x.shape[1], hull), 1)[:, : x.shape[1], None]

    return Equivariance(SetPermutation()), vertices, draw.normal(3, 4 + draw.size, 2)


def bounds_of_tours(draw: Draw) -> tuple[Law, Any, Tensor]:
    """Return the bound of the shortest tour through points, and the points."""

    def bound(x: Tensor) -> Tensor:
        return tour_lower_bound(torch.cdist(x.double(), x.double()))

    return Invariance(SetPermutation() * Euclidean(2)), bound, draw.normal(3, 4 + draw.size % 5, 2)


obeys("equivariance to order", vertices_of_hulls)(convex_hull)
obeys("invariance to order and motions", bounds_of_tours, tolerance=_SINGLE)(tour_lower_bound)
