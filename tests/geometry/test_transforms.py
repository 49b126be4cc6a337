"""Transforms of PyTorch Geometric."""

import pytest
import torch

from commutant import InputError
from commutant.geometry import CanonicalOrder, InvariantCoordinates, StochasticFrame
from commutant.laws import Orthogonal

data = pytest.importorskip("torch_geometric.data")
R = Orthogonal(3).sample(torch.zeros(1, 3), torch.Generator().manual_seed(1)).float()


def graph(pos):
    return data.Data(pos=pos, edge_index=torch.tensor([[0, 1], [1, 2]]))


def test_a_drawn_pose_leads_back_and_is_one_of_the_frame():
    pos = torch.randn(6, 3)
    seen = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        found = StochasticFrame("E", generator)(graph(pos))
        back = found.fa_pos @ found.fa_rot[0].mT + pos.mean(0)
        assert torch.allclose(back, pos, atol=1e-5)
        other = StochasticFrame("E", torch.Generator().manual_seed(seed))(graph(pos @ R.mT + 3))
        assert torch.allclose(found.fa_pos.abs(), other.fa_pos.abs(), atol=1e-4)
        seen.add(tuple(found.fa_pos[0].sign().tolist()))
    assert len(seen) == 8


def test_transforms_are_composed_and_leave_their_input_alone():
    transforms = pytest.importorskip("torch_geometric.transforms")
    one = graph(torch.randn(5, 3))
    before = one.pos.clone()
    found = transforms.Compose([InvariantCoordinates(), StochasticFrame("SE")])(one)
    assert torch.equal(one.pos, before)
    assert "fa_pos" in found
    assert "fa_pos" not in one


def test_invariant_coordinates_of_a_graph():
    pos = torch.randn(9, 3).exp() * torch.tensor([3.0, 2.0, 1.0])
    one, two = (InvariantCoordinates()(graph(x)).pos for x in (pos, pos @ R.mT - 4))
    assert torch.allclose(one, two, atol=1e-3)
    assert torch.allclose(torch.pdist(one), torch.pdist(pos), atol=1e-3)
    with pytest.raises(InputError, match="no tensor pos"):
        InvariantCoordinates()(data.Data(x=torch.zeros(2, 1)))


def relabelled(graph, seed):
    """The same graph under other numbers, its edges in another order."""
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(graph.num_nodes, generator=g)
    place = order.argsort()
    edges = torch.randperm(graph.num_edges, generator=g)
    return data.Data(
        x=graph.x[order], y=graph.y, edge_index=place[graph.edge_index][:, edges], edge_attr=graph.edge_attr[edges]
    )


def molecule(n=9, extra=3, seed=0):
    """A ring with chords, two kinds of nodes and two kinds of edges."""
    g = torch.Generator().manual_seed(seed)
    ring = [(i, (i + 1) % n) for i in range(n)] + [(i, (i + n // 2) % n) for i in range(extra)]
    pairs = torch.tensor(ring).t()
    kind = torch.randint(0, 2, (pairs.shape[1],), generator=g)
    x = torch.nn.functional.one_hot(torch.randint(0, 2, (n,), generator=g)).float()
    attributes = torch.nn.functional.one_hot(torch.cat([kind, kind]), 2).float()
    return data.Data(x=x, y=torch.tensor([seed]), edge_index=torch.cat([pairs, pairs.flip(0)], 1), edge_attr=attributes)


@pytest.mark.parametrize("seed", range(8))
def test_isomorphic_graphs_become_the_same(seed):
    graph = molecule(seed=seed, extra=seed % 4)
    one, two = (CanonicalOrder()(relabelled(graph, s)) for s in (1, 2))
    assert one.keys() == two.keys()
    for key in ("x", "edge_index", "edge_attr", "y"):
        assert torch.equal(one[key], two[key]), key
    assert one.y.tolist() == [seed]


def test_another_edge_or_kind_makes_another_graph():
    graph = molecule(extra=2)
    other = molecule(extra=2)
    other.edge_attr[[0, 11]] = 1 - other.edge_attr[[0, 11]]  # both ways of the first edge
    one, two = (CanonicalOrder()(g) for g in (graph, other))
    assert not torch.equal(one.edge_attr, two.edge_attr) or not torch.equal(one.edge_index, two.edge_index)


def test_graphs_with_no_order_are_refused():
    with pytest.raises(InputError, match="no tensor edge_index"):
        CanonicalOrder()(data.Data(x=torch.zeros(2, 1)))
    with pytest.raises(InputError, match="not symmetric"):
        CanonicalOrder()(graph(torch.zeros(3, 3)))
    twice = data.Data(num_nodes=2, edge_index=torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]]))
    with pytest.raises(InputError, match="there twice"):
        CanonicalOrder()(twice)
    alone = CanonicalOrder()(data.Data(num_nodes=3, edge_index=torch.zeros(2, 0, dtype=torch.long)))
    assert alone.edge_index.shape == (2, 0)
