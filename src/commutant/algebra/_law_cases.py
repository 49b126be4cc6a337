"""Test networks and drawn cases of the laws stated in this subpackage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..laws import (
    Action,
    Associativity,
    Commutativity,
    Draw,
    Euclidean,
    GraphPermutation,
    IdentityElement,
    Inputs,
    Invariance,
    Law,
    MatrixGroup,
    Rotation,
    SetPermutation,
    breaks,
    obeys,
)
from ._monoid import Monoid
from .elements import Element

MonoidClass = TypeVar("MonoidClass", bound=type[Monoid])
Case: TypeAlias = tuple[Law, Callable[..., Any], Inputs]
"""A law, the function under test and its inputs."""


def states_monoid_laws(
    element: Callable[[Draw], Element], make: Callable[[], Monoid] | None = None
) -> Callable[[MonoidClass], MonoidClass]:
    """State associativity, identity and commutativity (or its failure) of a monoid.

    Args:
        element: Function that draws one element.
        make: Function that builds the monoid; by default the class without arguments.
    """

    def decorate(subject: MonoidClass) -> MonoidClass:
        def case(draw: Draw, law: Callable[[Monoid], Law], operands: int) -> Case:
            monoid = (make or subject)()
            return law(monoid), monoid.op, lambda _: tuple(element(draw) for _ in range(operands))

        obeys("associativity", lambda draw: case(draw, lambda _: Associativity(), 3))(subject)
        obeys("identity element", lambda draw: case(draw, lambda monoid: IdentityElement(monoid.identity), 1))(subject)
        state = breaks if subject.commutative == "no" else obeys
        return state("commutativity", lambda draw: case(draw, lambda _: Commutativity(), 2))(subject)

    return decorate


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


def solve_recurrence(A: Tensor, b: Tensor) -> Tensor:
    """Solve a recurrence from the state zero."""
    from .linear_maps import linear_scan

    return linear_scan(A, b)


def _network(draw: Draw, inputs: int) -> nn.Module:
    """Build a small network that no symmetry of its inputs leaves invariant."""
    return draw.module(lambda: nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 4)))  # type: ignore[no-any-return]


def graph_average(draw: Draw) -> Case:
    """Average a network of flattened adjacency matrices over the frame of a weighted graph."""
    from ._graph_frames import graph_frame

    n = 4 + draw.size % 3
    net = _network(draw, n * n)

    def average(x: Tensor, edges: Tensor) -> Tensor:
        pairs = x.new_zeros(1, n, n)
        pairs[0, edges[0], edges[1]] = 1.0
        frame = graph_frame(pairs, x[None])
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
    kind: Literal["pca", "weighted"], action: Action | None = None, at_least: int = 1, **options: Any
) -> Callable[[Draw], Case]:
    """Return the case of a network of points in space, averaged over `pca_frame` or `weighted_frame`."""

    def case(draw: Draw) -> Case:
        from ._euclidean_frames import pca_frame, weighted_frame

        make = {"pca": pca_frame, "weighted": weighted_frame}[kind]
        average = _average(_network(draw, 3), lambda x: make(x, **options))
        return Invariance(action or Euclidean(3) * SetPermutation(1)), average, draw.normal(3, draw.size + at_least, 3)

    return case


def group_average(kind: Literal["whole", "lorentz", "minimal", "minimal-sets", "drawn"]) -> Callable[[Draw], Case]:
    """Return the case of a network of points, averaged over a frame that is not made of principal axes."""

    def case(draw: Draw) -> Case:
        from ._group_frames import gram_schmidt_frame, group_frame, lorentz_frame, random_frame, signed_permutations

        d = 4 if kind == "lorentz" else 3
        net = _network(draw, d)
        signed = MatrixGroup(signed_permutations(d)[[1, 9, 20]])
        actions: dict[str, tuple[Action, Callable[[Tensor], Any]]] = {
            "whole": (signed * SetPermutation(1), lambda x: group_frame(x, signed_permutations(d))),
            "lorentz": (MatrixGroup(_boost_and_rotation()) * SetPermutation(1), lorentz_frame),
            "minimal": (Rotation(d), lambda x: gram_schmidt_frame(x, "SO")),
            "minimal-sets": (SetPermutation(1), lambda x: gram_schmidt_frame(x, "SO")),
            "drawn": (Rotation(d), lambda x: random_frame(x, "SO", 2)),
        }
        action, make = actions[kind]
        return Invariance(action), _average(net, make), draw.normal(3, draw.size + 12, d)

    return case


def _boost_and_rotation() -> Float[Tensor, "2 4 4"]:
    """Return a boost along the first axis and a rotation of space."""
    boost, turn = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    half = torch.tensor(0.3, dtype=torch.float64)
    boost[:2, :2] = torch.stack([torch.stack([half.cosh(), half.sinh()]), torch.stack([half.sinh(), half.cosh()])])
    turn[1:, 1:] = torch.linalg.matrix_exp(torch.tensor([[0.0, 1, 0.4], [-1, 0, 0.7], [-0.4, -0.7, 0]]).double())
    return torch.stack([boost, turn])
