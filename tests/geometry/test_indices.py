"""Indices of points follow the copies of a cloud under any name of the argument, or are refused."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import pca_frame
from commutant.geometry import FrameAverage

data = pytest.importorskip("torch_geometric.data")

BATCH = torch.tensor([0, 0, 0, 1, 1, 1, 1])
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 6]])
BONDS = torch.tensor([[0, 3, 4], [2, 6, 6]])


def lengths(pos, edges, weight, batch):
    far = (pos[edges[0]] - pos[edges[1]]).norm(dim=-1) * weight
    return far.new_zeros(int(batch.max()) + 1).index_add(0, batch[edges[0]], far)


class TwoKinds(nn.Module):
    """Invariant network of two kinds of edges, which equals its average."""

    def forward(self, pos, edge_index, bond_index, edge_weight, bond_order, batch):
        return lengths(pos, edge_index, edge_weight, batch) + 7 * lengths(pos, bond_index, bond_order, batch)


@pytest.mark.parametrize("chunk", [None, 3])
def test_each_kind_of_edges_has_copies_of_its_own(chunk):
    """The two rows of edges in a batch of two clouds are not mistaken for values of clouds."""
    model = FrameAverage(TwoKinds(), "SE(3)", inputs={"bond_order": "edge scalars"}, chunk=chunk)
    pos, weight, order = torch.randn(7, 3).double(), torch.rand(6).double(), torch.rand(3).double()
    for bonds, values in ((BONDS, order), (torch.cat([BONDS, BONDS.flip(0)], 1), torch.rand(6).double())):
        given = (pos, EDGES, bonds, weight, values, BATCH)
        assert torch.allclose(model(*given), model.net(*given), atol=1e-10)


def test_values_that_may_belong_to_two_kinds_of_edges_are_refused():
    class Other(nn.Module):
        def forward(self, pos, edge_index, bond_index, strength, batch):
            return lengths(pos, edge_index, 1, batch) + lengths(pos, bond_index, strength, batch)

    model = FrameAverage(Other(), "SE(3)", inputs={"strength": "edge scalars"})
    pos = torch.randn(7, 3).double()
    given = (pos, EDGES, BONDS, torch.rand(3).double(), BATCH)
    assert torch.allclose(model(*given), model.net(*given), atol=1e-10)
    with pytest.raises(InputError, match="strength may belong to edge_index or bond_index"):
        model(pos, EDGES, EDGES.flip(0), torch.rand(6).double(), BATCH)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("face", torch.tensor([[0, 3], [1, 4], [2, 5]])),
        ("neighbors", torch.tensor([[1, 2], [0, 2], [0, 1], [4, 5], [3, 6], [6, 3], [4, 5]])),
        ("center_index", torch.tensor([0, 3])),
    ],
)
def test_other_indices_are_refused(name, value):
    body = {"forward": eval(f"lambda self, pos, {name}, batch: pos[{name}].sum()")}
    model = FrameAverage(type("Net", (nn.Module,), body)(), "SE(3)")
    with pytest.raises(InputError, match=f"{name} is taken for point indices by its name"):
        model(torch.randn(7, 3), value, BATCH)


def test_values_that_are_called_an_index_have_a_kind():
    class Species(nn.Module):
        def forward(self, pos, species_index, batch):
            return pos.new_zeros(int(batch.max()) + 1).index_add(0, batch, pos.sum(-1).sin() * species_index)

    pos, species = torch.randn(7, 3).double(), torch.arange(7)
    model = FrameAverage(Species(), "SE(3)", inputs={"species_index": "scalars"})
    shift = torch.randn(3).double()
    assert torch.allclose(model(pos, species, BATCH), model(pos + shift, species, BATCH), atol=1e-10)
    stacked = FrameAverage(StackedNeighbors(), "SE(3)")
    x, near = torch.randn(2, 4, 3).double(), torch.tensor([[[1], [0], [3], [2]], [[3], [2], [1], [0]]])
    assert torch.allclose(stacked(x, near), stacked.net(x, near), atol=1e-10)


class StackedNeighbors(nn.Module):
    """Distances to neighbors, given by their position within the cloud, which all copies share."""

    def forward(self, x, neighbor_index):
        there = x.gather(1, neighbor_index.expand(-1, -1, 3))
        return (x - there).norm(dim=-1).sum(-1)


def test_a_last_graph_without_points_has_a_row():
    class Sizes(nn.Module):
        def forward(self, graphs):
            return graphs.pos.new_zeros(graphs.num_graphs).index_add(0, graphs.batch, graphs.pos.square().sum(-1))

    for sizes in ((4, 3, 0), (4, 0, 3), (0, 2, 0)):
        graphs = data.Batch.from_data_list([data.Data(pos=torch.randn(n, 3), charge=torch.rand(1)) for n in sizes])
        assert torch.allclose(FrameAverage(Sizes(), "O(3)")(graphs), Sizes()(graphs), atol=1e-5)


def test_outputs_of_points_need_a_row_for_each():
    class Pooled(nn.Module):
        def forward(self, pos, batch):
            return pos.new_zeros(int(batch.max()) + 1, 3).index_add(0, batch, pos.tanh())

    pos = torch.randn(7, 3)
    for kind in ("point vectors", "point scalars"):
        with pytest.raises(InputError, match="56 rows are needed, one per point, got shape \\(16, 3\\)"):
            FrameAverage(Pooled(), outputs=kind)(pos, BATCH)
    frame = pca_frame(pos, batch=BATCH)
    with pytest.raises(InputError, match="one per point"):
        frame.pool(torch.ones(len(frame)), per_cloud=False)
