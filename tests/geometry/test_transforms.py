"""Tests of the transforms for PyTorch Geometric."""

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


def relabeled(graph, seed):
    """Return the same graph with renumbered nodes and reordered edges."""
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(graph.num_nodes, generator=g)
    place = order.argsort()
    edges = torch.randperm(graph.num_edges, generator=g)
    return data.Data(
        x=graph.x[order], y=graph.y, edge_index=place[graph.edge_index][:, edges], edge_attr=graph.edge_attr[edges]
    )


def molecule(n=9, extra=3, seed=0):
    """Return a ring with chords, two kinds of nodes and two kinds of edges."""
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
    one, two = (CanonicalOrder()(relabeled(graph, s)) for s in (1, 2))
    assert one.keys() == two.keys()
    for key in ("x", "edge_index", "edge_attr", "y"):
        assert torch.equal(one[key], two[key]), key
    assert one.y.tolist() == [seed]


def described(graph):
    return str([graph[key].tolist() for key in ("x", "edge_index", "edge_attr")])


def test_only_isomorphic_graphs_become_the_same():
    """A change of one edge's kind, one node's kind, or one edge's place gives another graph under every numbering."""
    graphs = [molecule(extra=2) for _ in range(4)]
    graphs[1].edge_attr[[0, 11]] = 1 - graphs[1].edge_attr[[0, 11]]  # both directions of the first edge
    graphs[2].x[0] = 1 - graphs[2].x[0]
    graphs[3].edge_index[:, [0, 11]] = torch.tensor([[0, 2], [2, 0]])
    seen = [{described(CanonicalOrder()(relabeled(g, s))) for s in range(3)} for g in graphs]
    assert [len(s) for s in seen] == [1] * 4
    assert len(set.union(*seen)) == 4


def test_every_attribute_counts_and_moves_along():
    """Attributes of nodes, edges and graphs move along, and so do numbers of nodes."""
    n = 6
    ring = torch.tensor([[i, (i + 1) % n] for i in range(n)]).t()
    edges = torch.cat([ring, ring.flip(0)], 1)
    order, weight = torch.tensor([3, 1, 5, 0, 2, 4]), torch.tensor([1.0, 2, 1, 1, 1, 1] * 2)
    place, z, pos = order.argsort(), torch.tensor([6, 8, 7, 6, 6, 6]), torch.arange(n * 3).reshape(n, 3) / 7
    pair = torch.tensor([[1], [4]])
    one = data.Data(z=z, pos=pos, edge_index=edges, edge_weight=weight, edge_label_index=pair)
    other = data.Data(
        z=z[order],
        pos=pos[order],
        edge_index=place[edges].flip(1),
        edge_weight=weight.flip(0),
        edge_label_index=place[pair],
    )
    a, b = (CanonicalOrder()(g) for g in (one, other))
    for key in one.keys():  # noqa: SIM118
        assert torch.equal(a[key], b[key]), key
    assert a.z[a.edge_label_index[0]].tolist() == [8]
    assert torch.equal(a.pos[a.edge_label_index[1]], one.pos[[4]])


def test_graphs_with_no_order_are_refused():
    with pytest.raises(InputError, match="no tensor edge_index"):
        CanonicalOrder()(data.Data(x=torch.zeros(2, 1)))
    with pytest.raises(InputError, match="both ways with the same attributes"):
        CanonicalOrder()(graph(torch.zeros(3, 3)))
    both = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(InputError, match="both ways with the same attributes"):
        CanonicalOrder()(data.Data(num_nodes=2, edge_index=both, edge_attr=torch.tensor([1.0, 2.0])))
    with pytest.raises(InputError, match="x must be finite"):
        CanonicalOrder()(data.Data(x=torch.full((2, 1), float("nan")), edge_index=both))
    with pytest.raises(InputError, match="nodes from 0 to 1, got -1 to 1"):
        CanonicalOrder()(data.Data(num_nodes=2, edge_index=torch.tensor([[0, -1], [1, 0]])))
    with pytest.raises(InputError, match="is a batch"):
        CanonicalOrder()(data.Batch.from_data_list([molecule(), molecule()]))
    atom = CanonicalOrder()(
        data.Data(x=torch.ones(1, 2), edge_index=torch.zeros(2, 0, dtype=torch.long), edge_attr=torch.zeros(0, 3))
    )
    assert atom.edge_attr.shape == (0, 3)
    twice = data.Data(num_nodes=2, edge_index=torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]]))
    with pytest.raises(InputError, match="occurs twice"):
        CanonicalOrder()(twice)
    alone = CanonicalOrder()(data.Data(num_nodes=3, edge_index=torch.zeros(2, 0, dtype=torch.long)))
    assert alone.edge_index.shape == (2, 0)
