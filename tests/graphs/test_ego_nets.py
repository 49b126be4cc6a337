"""Ego-nets, against breadth-first search."""

from __future__ import annotations

import pickle

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from commutant import InputError
from commutant.graphs import EgoNetData, EgoNets, Neighborhoods


def graph(edges, n, **more):
    return Data(edge_index=torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t(), num_nodes=n, **more)


def random_graph(n, edges, seed):
    generator = torch.Generator().manual_seed(seed)
    return Data(edge_index=torch.randint(0, n, (2, edges), generator=generator), num_nodes=n)


def members(data):
    return [part.tolist() for part in data.ego_index.split(data.ego_size.tolist())]


@pytest.mark.parametrize("direction", ["both", "out", "in"])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_an_ego_net_has_all_nodes_within_k_hops(k, direction):
    for seed in range(5):
        data = random_graph(9, 10, seed)
        network = nx.MultiDiGraph(data.edge_index.t().tolist())
        network.add_nodes_from(range(9))
        network = {"both": network.to_undirected, "out": network.copy, "in": network.reverse}[direction]()
        for root, found in enumerate(members(EgoNets(k, direction=direction)(data))):
            assert found[0] == root
            assert sorted(found) == sorted(nx.single_source_shortest_path_length(network, root, cutoff=k))


def test_pairs_are_those_that_share_an_ego_net():
    data = EgoNets(1)(random_graph(8, 9, 0))
    shared = {(i, j) for block in members(data) for i in block for j in block}
    assert sorted(shared) == [tuple(p) for p in data.pair_index.t().tolist()]
    at = 0
    for block in members(data):
        for i in block:
            for j in block:
                assert data.pair_index[:, data.ego_pair[at]].tolist() == [i, j]
                at += 1
    assert at == len(data.ego_pair)


def test_a_batch_holds_the_ego_nets_of_its_graphs():
    graphs = [EgoNets(1)(g) for g in (random_graph(5, 6, 0), graph([], 1), graph([], 0), random_graph(7, 9, 1))]
    batch = Batch.from_data_list(graphs)
    found, at, pairs = members(batch), 0, 0
    for g in graphs:
        assert found[at : at + g.num_nodes] == [[i + at for i in block] for block in members(g)]
        assert torch.equal(batch.pair_index[:, pairs : pairs + g.pair_index.shape[1]], g.pair_index + at)
        at, pairs = at + g.num_nodes, pairs + g.pair_index.shape[1]
    n = Neighborhoods.from_data(batch)
    assert torch.equal(n.pair_index[:, n.loops], torch.arange(13).expand(2, -1))
    assert torch.equal(n.pair_index[:, n.swap], n.pair_index.flip(0))
    assert torch.equal(n.pair_index[0, n.to_root], n.members)
    assert torch.equal(n.pair_index[1, n.to_root], n.owner)
    restored = batch.to_data_list()
    assert all(torch.equal(a.ego_pair, b.ego_pair) for a, b in zip(restored, graphs, strict=True))


def test_a_loader_batches_and_pickles_transformed_graphs():
    graphs = [EgoNets(1)(random_graph(5, 6, seed)) for seed in range(4)]
    (batch,) = DataLoader(graphs, batch_size=4)
    assert isinstance(pickle.loads(pickle.dumps(graphs[0])), EgoNetData)
    assert Neighborhoods.from_data(batch).count(1) == 20


def test_the_other_attributes_stay():
    data = Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([1]), name="a")
    out = EgoNets(1)(data)
    assert torch.equal(out.x, data.x)
    assert out.name == "a"
    assert out.y is not None
    assert "ego_index" not in data


def test_parallel_edges_loops_and_isolated_nodes():
    data = EgoNets(2)(graph([(0, 1), (0, 1), (1, 0), (2, 2)], 4))
    assert members(data) == [[0, 1], [1, 0], [2], [3]]


def test_a_graph_without_nodes():
    data = EgoNets(1)(graph([], 0))
    assert len(data.ego_index) == 0
    assert data.pair_index.shape == (2, 0)
    assert Neighborhoods.from_data(data).count(2) == 0


def test_a_hub_is_named():
    star = graph([(0, i) for i in range(1, 30)], 30)
    assert EgoNets(1, max_size=30)(star).ego_size.max() == 30
    with pytest.raises(InputError, match=r"node 0 has 30 nodes or more for k = 1, above max_size = 29"):
        EgoNets(1, max_size=29)(star)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EgoNets(-1), "k must be a whole number of at least 0"),
        (lambda: EgoNets(1.5), "k must be a whole number"),
        (lambda: EgoNets(1, max_size=0), "max_size must be a whole number of at least 1"),
        (lambda: EgoNets(1, direction="up"), "direction must be one of both, out, in, got 'up'"),
        (lambda: EgoNets(1)(graph([(0, 3)], 3)), "edge_index names node 3, but the graph has 3 nodes, 0 to 2"),
        (lambda: EgoNets(1)(graph([(0, -1)], 3)), "edge_index names node -1"),
        (lambda: EgoNets(1)(Data(x=torch.ones(2, 1))), "the graph has no edge_index"),
        (lambda: EgoNets(1)(Data(edge_index=torch.ones(2, 3))), "must hold integers of shape"),
        (lambda: EgoNets(1)(Data(edge_index=torch.ones(3, 2).long())), "must hold integers of shape"),
        (lambda: EgoNets(1)(HeteroData()), "takes a PyG Data, got HeteroData"),
        (lambda: EgoNets(1)(Batch.from_data_list([graph([(0, 1)], 2)])), "one graph at a time"),
        (lambda: Neighborhoods.from_data(graph([(0, 1)], 2)), "has no ego_index; apply"),
        (lambda: Neighborhoods.from_data(torch.ones(2)), "has no ego_index; apply"),
    ],
)
def test_bad_input_is_refused(make, message, unchecked):
    with pytest.raises(InputError, match=message):
        make()


def test_ego_nets_that_do_not_fit_the_graph_are_refused():
    data = EgoNets(1)(graph([(0, 1), (1, 2)], 3))
    fewer = data.clone()
    fewer.num_nodes = 2
    reordered = data.clone()
    reordered.ego_index = 2 - data.ego_index
    for wrong in (fewer, reordered):
        with pytest.raises(InputError, match="apply EgoNets after all transforms"):
            Neighborhoods.from_data(wrong)


def test_edges_are_found_among_the_pairs():
    data = EgoNets(0)(graph([(0, 1), (2, 2)], 3))
    assert Neighborhoods.from_data(data).find(data.edge_index).tolist() == [-1, 2]
    data = EgoNets(1)(graph([(1, 0), (2, 1)], 3))
    n = Neighborhoods.from_data(data)
    assert torch.equal(n.pair_index[:, n.find(data.edge_index)], data.edge_index)
