"""Ego-nets, against breadth-first search."""

from __future__ import annotations

import pickle

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from commutant import InputError
from commutant.graphs import SPEN, EgoNets, Neighborhoods


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
    assert torch.equal(pickle.loads(pickle.dumps(graphs[0])).ego_pair, graphs[0].ego_pair)
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
        (lambda: EgoNets(1)(Data(edge_index=torch.ones(2, 3))), "must be a dense tensor of integers of shape"),
        (lambda: EgoNets(1)(Data(edge_index=torch.ones(3, 2).long())), "must be a dense tensor of integers of shape"),
        (lambda: EgoNets(1)(HeteroData()), "takes a PyG Data, got HeteroData"),
        (lambda: EgoNets(1)(Batch.from_data_list([graph([(0, 1)], 2)])), "one graph at a time"),
        (lambda: Neighborhoods.from_data(graph([(0, 1)], 2)), "has no ego_size; apply"),
        (lambda: Neighborhoods.from_data(torch.ones(2)), "expected a PyG Data or Batch, got Tensor"),
        (lambda: Neighborhoods.from_data({"ego_size": torch.ones(2)}), "expected a PyG Data or Batch, got dict"),
        (
            lambda: EgoNets(1)(Data(edge_index=torch.ones(2, 3).bool(), num_nodes=2)),
            "must be a dense tensor of integers",
        ),
        (lambda: EgoNets(1)(graph([], -2)), "num_nodes must be a whole number of at least 0, got -2"),
        (lambda: EgoNets(1)(graph([], 2.5)), "num_nodes must be a whole number"),
        (lambda: EgoNets(1)(graph([(0, 1)], 2, pair_index=torch.zeros(2, 1))), "an attribute pair_index of its own"),
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
        with pytest.raises(InputError, match="apply EgoNets last, after all transforms"):
            Neighborhoods.from_data(wrong)


def test_edges_are_found_among_the_pairs():
    data = EgoNets(0)(graph([(0, 1), (2, 2)], 3))
    assert Neighborhoods.from_data(data).find(data.edge_index).tolist() == [-1, 2]
    data = EgoNets(1)(graph([(1, 0), (2, 1)], 3))
    n = Neighborhoods.from_data(data)
    assert torch.equal(n.pair_index[:, n.find(data.edge_index)], data.edge_index)


class Tagged(Data):
    """Graph of a user who counts tags himself."""

    def __inc__(self, key, value, *args, **kwargs):
        return 3 if key == "tag" else super().__inc__(key, value, *args, **kwargs)


def test_a_class_of_the_user_keeps_its_rules_for_batches():
    tagged = Tagged(edge_index=torch.tensor([[0], [1]]), num_nodes=2, tag=torch.tensor([0, 2]))
    batch = Batch.from_data_list([EgoNets(1)(tagged), EgoNets(1)(tagged)])
    assert batch.tag.tolist() == [0, 2, 3, 5]
    assert Neighborhoods.from_data(batch).entries.max() == 7


def test_ego_nets_survive_a_dict():
    made = EgoNets(1)(graph([(0, 1), (1, 2)], 3))
    batch = Batch.from_data_list([Data.from_dict(made.to_dict()), made])
    n = Neighborhoods.from_data(batch)
    assert torch.equal(n.pair_index[:, n.entries][0], n.members.repeat_interleave(n.blocks.sizes[n.owner]))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_small_integers_lose_no_edge(dtype):
    n = 100
    path = Data(edge_index=torch.stack([torch.arange(n - 1), torch.arange(1, n)]).to(dtype), num_nodes=n)
    assert bool((Neighborhoods.from_data(EgoNets(1)(path)).find(path.edge_index) >= 0).all())


def test_nodes_that_do_not_exist_are_not_found():
    n = Neighborhoods.from_data(EgoNets(1)(graph([(0, 1), (1, 2), (2, 3)], 4)))
    assert n.find(torch.tensor([[0, -1, 4], [6, 1, 0]])).tolist() == [-1, -1, -1]


def test_edges_that_came_later_are_refused():
    stale = EgoNets(1)(graph([(0, 1), (1, 2), (2, 3)], 4))
    stale.edge_index = torch.cat([stale.edge_index, torch.tensor([[0], [3]])], 1)
    with pytest.raises(InputError, match="no ego-net holds the edge from node 0 to node 3; apply EgoNets last"):
        SPEN(0, 4, 1, 1)(stale)


def test_neighborhoods_made_for_inference_serve_in_training():
    data = EgoNets(1)(graph([(0, 1), (1, 2)], 3))
    with torch.inference_mode():
        n = Neighborhoods.from_data(data)
    x = torch.randn(n.count(2), 2, requires_grad=True)
    n.sum_over_pairs(x).sum().backward()
    assert x.grad is not None
