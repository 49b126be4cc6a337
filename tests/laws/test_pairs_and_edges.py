"""Permutations of pairs of elements and of edges, also where sizes coincide."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.laws import (
    BatchPermutation,
    Equivariance,
    GraphPermutation,
    Invariance,
    SetPermutation,
    Sets,
    check,
    check_action,
    parse_input,
)

SETS = Equivariance(SetPermutation())
GRAPHS = Equivariance(GraphPermutation())
torch.manual_seed(0)
X, SQUARE, PAIRS = torch.randn(4, 5, 3), torch.randn(4, 5, 5), torch.rand(4, 5, 5)
NODES, EDGES = torch.randn(4, 3), torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
RING = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
LINEAR = nn.Linear(5, 5)


def adjacency(x, e):
    return torch.zeros(len(x), len(x)).index_put((e[0], e[1]), torch.ones(e.shape[1]))


LAWFUL = {
    "pairs in the input": (SETS, lambda x, a: a @ x, (X, PAIRS)),
    "pairs in the output": (SETS, lambda x: x @ x.mT, X),
    "pairs from square features": (SETS, lambda x: x @ x.mT, SQUARE),
    "square features": (SETS, lambda x: 2 * x, SQUARE),
    "layer on square features": (SETS, LINEAR, SQUARE),
    "features as many as elements beside others": (SETS, lambda x, h: x.sum(-1) + LINEAR(h).sum(-1), (X, SQUARE)),
    "pooled to as many features": (SETS, lambda x: LINEAR(nn.functional.pad(x, (0, 2))).sum(1), X),
    "covariances": (SETS, lambda x: x.mT @ x, SQUARE),
    "a product": (Equivariance(SetPermutation() * BatchPermutation()), lambda x: x @ x.mT, X),
    "drawn sizes": (
        SETS,
        lambda x: torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist"),
        parse_input("3x1..6x3"),
    ),
    "ragged sets": (SETS, lambda x, index: x @ x.T, Sets(X[0], torch.tensor([0, 0, 1, 1, 1]))),
    "pairs alone": (Equivariance(SetPermutation(pairs=True)), lambda a: a.mT @ a, PAIRS),
    "edges": (GRAPHS, lambda x, e: x[e[0]] - x[e[1]], (NODES, EDGES)),
    "edges and nodes": (GRAPHS, lambda x, e: (x[e[0]], x * 2), (NODES, EDGES)),
    "edges under any name": (GRAPHS, lambda x, e: {"edge_attr": x[e[0]], "other": x[e[1]]}, (NODES, EDGES)),
    "as many edges as nodes": (GRAPHS, lambda x, e: x[e[0]] - 2 * x[e[1]], (NODES, RING)),
    "as many nodes as edges": (GRAPHS, lambda x, e: x.index_add(0, e[1], x[e[0]]), (NODES, RING)),
    "pairs of nodes": (GRAPHS, adjacency, (NODES, EDGES)),
    "pairs of nodes with square features": (GRAPHS, lambda x, e: x @ x.T, (torch.randn(4, 4), EDGES)),
    "square features of nodes": (GRAPHS, lambda x, e: 2 * x, (torch.randn(4, 4), EDGES)),
}
BROKEN = {
    "pairs in the input": (SETS, lambda x, a: a @ x + 0.01 * x[:, :1], (X, PAIRS)),
    "pairs in the output": (SETS, lambda x: x @ x.mT + x[:, :1, :1], X),
    "one axis of pairs": (SETS, lambda x: (x @ x.mT).cumsum(2), X),
    "edges": (GRAPHS, lambda x, e: (x[e[0]] - x[e[1]]).cumsum(0), (NODES, EDGES)),
    "as many edges as nodes": (GRAPHS, lambda x, e: x[e[0]] + x[0], (NODES, RING)),
    "pairs of nodes": (GRAPHS, lambda x, e: adjacency(x, e).cumsum(1), (NODES, EDGES)),
}


@pytest.mark.parametrize(("law", "f", "x"), LAWFUL.values(), ids=LAWFUL.keys())
def test_lawful(law, f, x):
    report = check(law, f, x)
    assert report.passed, str(report)


@pytest.mark.parametrize(("law", "f", "x"), BROKEN.values(), ids=BROKEN.keys())
def test_broken(law, f, x):
    assert check(law, f, x).status == "broken"


def test_what_sizes_do_not_tell_is_asked_for():
    either = lambda x, a: x.sum((1, 2)) + a.sum((1, 2))  # noqa: E731
    with pytest.raises(InputError, match="pairs=True"):
        check(Invariance(SetPermutation()), either, (X, PAIRS))
    assert check(Invariance(SetPermutation(pairs=False)), either, (X, PAIRS)).passed
    fixed = nn.Linear(5, 5)
    with pytest.raises(InputError, match="fails on any other number of elements"):
        check(SETS, lambda x: fixed(x.mT).mT @ x.mT, X)


def test_an_own_subclass_keeps_its_action():
    class Backwards(SetPermutation):
        def act(self, g, x):
            return super().act(g.argsort(), x)

    law = Equivariance(SetPermutation(), Backwards())
    assert check(law, lambda x: 2 * x, X).status == "broken"


def test_axioms_with_pairs():
    assert check_action(SetPermutation(), (X, PAIRS)) == 0
    assert check_action(SetPermutation(pairs=True), PAIRS) == 0


def test_edge_features_of_pyg_data():
    data = pytest.importorskip("torch_geometric.data")
    graph = data.Data(x=NODES, edge_index=EDGES, edge_attr=torch.randn(5, 2))
    assert check(GRAPHS, lambda d: d.x[d.edge_index[0]] + d.edge_attr[:, :1], graph).passed
    assert check(GRAPHS, lambda d: data.Data(x=2 * d.x, edge_index=d.edge_index, level=3.5), graph).passed
    assert check(GRAPHS, lambda d: data.Data(x=d.x + d.x[0], edge_index=d.edge_index), graph).status == "broken"


@pytest.mark.parametrize(("corner", "status"), [(2.0, "holds"), (3.0, "broken")])
def test_a_function_of_two_elements_is_not_resized_to_one_which_it_would_broadcast(corner, status):
    weight = torch.tensor([[corner, 1.0], [1.0, 2.0]])  # commutes with the swap if both corners are equal
    generator = torch.Generator().manual_seed(0)
    elements, pairs = torch.randn(3, 2, 5, generator=generator), torch.randn(3, 2, 2, generator=generator)
    both = weight[:, None, :, None] * weight[None, :, None, :]
    of_elements = check(SETS, lambda x: torch.einsum("ik,bkl->bil", weight, x), elements)
    of_pairs = check(Equivariance(SetPermutation(pairs=True)), lambda x: torch.einsum("ijkl,bkl->bij", both, x), pairs)
    assert (of_elements.status, of_pairs.status) == (status, status)
