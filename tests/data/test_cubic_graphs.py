"""Random 3-regular graphs, against networkx."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from torch_geometric.utils import to_networkx

from commutant import InputError
from commutant.data import cubic_graphs, cycle_counts


@pytest.mark.parametrize("with_property", ["triangle", "four-cycle"])
def test_graphs_are_connected_3_regular_and_labeled(with_property):
    graphs = cubic_graphs(20, with_property, torch.Generator().manual_seed(0))
    assert sum(int(g.y) for g in graphs) == 10
    assert len({g.num_nodes for g in graphs}) > 1
    for data in graphs:
        g = to_networkx(data, to_undirected=True)
        assert nx.is_connected(g)
        assert {d for _, d in g.degree} == {3}
        triangles, squares = (sum(len(c) == k for c in nx.simple_cycles(g, 4)) for k in (3, 4))
        assert bool(data.y) == ((triangles if with_property == "triangle" else squares) > 0)
        assert with_property == "triangle" or triangles == 0


def test_the_same_seed_gives_the_same_graphs():
    first, second = (cubic_graphs(6, "triangle", torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a.edge_index, b.edge_index) for a, b in zip(first, second, strict=True))


def test_cycles_are_counted():
    assert cycle_counts(torch.from_numpy(nx.to_numpy_array(nx.petersen_graph()))) == [0, 0, 12, 10]
    assert cycle_counts(torch.from_numpy(nx.to_numpy_array(nx.path_graph(4)))) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: cubic_graphs(3, "triangle", g), "count must be even"),
        (lambda g: cubic_graphs(2, "four-cycle", g, sizes=(8,)), "at least 10"),
        (lambda g: cubic_graphs(2, "triangle", g, sizes=(4,)), "at least 6"),
        (lambda g: cubic_graphs(2, "triangle", g, sizes=(5,)), "even numbers"),
        (lambda g: cubic_graphs(2, "pentagon", g), "with_property must be one of"),
        (lambda g: cycle_counts(torch.ones(3, 3)), "symmetric without diagonal"),
        (lambda g: cycle_counts(torch.zeros(3, 3), 2), "longest must be a whole number of at least 3"),
    ],
)
def test_bad_input_is_refused(make, message, unchecked):
    with pytest.raises(InputError, match=message):
        make(torch.Generator())
