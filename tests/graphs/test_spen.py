"""SPEN networks: what they can tell apart, and the graphs they take."""

from __future__ import annotations

import copy
import pickle

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GIN

from commutant import InputError
from commutant.graphs import SPEN, EgoNets, Neighborhoods


def data_of(graph, **more):
    edges = torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2)
    return Data(edge_index=torch.cat([edges, edges.flip(1)]).t(), num_nodes=graph.number_of_nodes(), **more)


def batch(k, *graphs):
    return Batch.from_data_list([EgoNets(k)(g) for g in graphs])


def network(*widths, seed=0, **options):
    torch.manual_seed(seed)
    return SPEN(*widths, **options).double().eval()


PRISM, UTILITY = nx.circular_ladder_graph(3), nx.complete_bipartite_graph(3, 3)  # 3-regular, with and without triangles
# 3-regular without triangles on 16 nodes: the first has 4-cycles
WITH_4_CYCLES, WITHOUT = nx.circular_ladder_graph(8), nx.moebius_kantor_graph()


def separates(model, k, a, b):
    out = model(batch(k, data_of(a), data_of(b)))
    return float((out[0] - out[1]).detach().abs().max() / out.detach().abs().max()) > 1e-9


def test_message_passing_gives_all_3_regular_graphs_the_same_output():
    torch.manual_seed(0)
    gin = GIN(1, 8, 3).double()
    means = [gin(torch.ones(6, 1).double(), data_of(g).edge_index).mean(0) for g in (PRISM, UTILITY)]
    torch.testing.assert_close(*means)


def test_triangles_are_seen_with_one_hop():
    assert separates(network(0, 8, 3, 1), 1, PRISM, UTILITY)


def test_mean_reinsertion_with_one_hop_is_blind_to_4_cycles():
    for layers in (1, 2, 3):
        for rooted in (False, True):
            assert not separates(network(0, 8, 3, layers, rooted=rooted, norm=False), 1, WITH_4_CYCLES, WITHOUT)


def test_4_cycles_are_seen_by_sums_by_two_hops_or_by_the_statistics_of_graph_norm():
    assert separates(network(0, 8, 3, 2, reinsertion="sum", norm=False), 1, WITH_4_CYCLES, WITHOUT)
    assert separates(network(0, 8, 3, 1, norm=False), 2, WITH_4_CYCLES, WITHOUT)
    assert separates(network(0, 8, 3, 1), 1, WITH_4_CYCLES, WITHOUT)  # pairs at distance 2 are fewer with 4-cycles


@pytest.mark.parametrize("level", ["graph", "node", "pair"])
def test_graphs_of_a_batch_are_computed_as_if_alone(level):
    graphs = [data_of(PRISM), data_of(nx.path_graph(1)), data_of(nx.star_graph(4)), data_of(nx.empty_graph(2))]
    for g in graphs:
        g.x = torch.randn(g.num_nodes, 3).double()
    model = network(3, 6, 2, 2, level=level, rooted=True)
    alone = torch.cat([model(batch(1, g)) for g in graphs])
    torch.testing.assert_close(model(batch(1, *graphs)), alone, rtol=0, atol=1e-12)


def test_a_single_node_has_no_nan():
    for k in (0, 1):
        out = network(0, 4, 2, 2)(EgoNets(k)(data_of(nx.empty_graph(1))))
        assert out.shape == (1, 2)
        assert out.isfinite().all()


def test_a_graph_without_nodes_in_a_batch():
    out = network(0, 4, 2)(batch(1, data_of(nx.path_graph(3)), data_of(nx.empty_graph(0))))
    assert out.shape == (2, 2)
    assert out.isfinite().all()


def test_directed_and_parallel_edges_count():
    model = network(0, 8, 3, 1)
    one_way = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
    both_ways = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 2, 0, 1]]), num_nodes=3)
    doubled = Data(edge_index=torch.tensor([[0, 1, 0], [1, 2, 1]]), num_nodes=3)
    out = model(batch(1, one_way, both_ways, doubled))
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(out[0], out[2])


def test_edge_features_reach_the_output():
    g = data_of(nx.path_graph(3), edge_attr=torch.randn(4, 2).double())
    changed = copy.copy(g)
    changed.edge_attr = g.edge_attr + torch.tensor([0.0, 1.0]).double()
    model = network(0, 8, 3, 1, edge_dim=2)
    assert not torch.allclose(model(batch(1, g)), model(batch(1, changed)))


def test_statistics_of_training_are_those_of_each_graph():
    model = network(0, 4, 2, 2).train()
    graphs = [data_of(PRISM), data_of(nx.star_graph(4))]
    torch.testing.assert_close(model(batch(1, *graphs))[:1], model(batch(1, graphs[0])), rtol=0, atol=1e-12)


def test_a_network_is_copied_saved_and_loaded():
    model, b = network(0, 4, 2, size_bins="log", rooted=True), batch(1, data_of(PRISM))
    other = network(0, 4, 2, size_bins="log", rooted=True, seed=1)
    other.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        torch.testing.assert_close(twin(b), model(b))


def test_the_input_of_the_first_layer():
    edges = torch.tensor([[0, 2, 0, 1], [1, 2, 1, 0]])  # a double edge, a loop, and one edge back
    g = Data(edge_index=edges, x=torch.tensor([[1.0], [2.0], [3.0]]), edge_attr=torch.tensor([1.0, 2.0, 4.0, 8.0]))
    made = EgoNets(1)(g)
    x = SPEN(1, 4, 2, edge_dim=1)._features(made, Neighborhoods.from_data(made))
    assert x[1].tolist() == [[1.0], [2.0], [3.0]]
    found = {tuple(p): row for p, row in zip(made.pair_index.t().tolist(), x[2].tolist(), strict=True)}
    assert found == {(0, 0): [0, 1, 0], (0, 1): [2, 0, 5], (1, 0): [1, 0, 8], (1, 1): [0, 1, 0], (2, 2): [1, 1, 2]}


@pytest.mark.parametrize("readout", ["mean", "sum"])
def test_the_readout_combines_the_ego_nets_of_each_graph(readout):
    model, b = network(0, 4, 2, readout=readout), batch(1, data_of(PRISM), data_of(nx.path_graph(2)))
    seen = []
    model.last.register_forward_hook(lambda _, inputs, out: seen.append(out[0]))
    model.mlp.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    model(b)
    egos, pooled = torch.nn.functional.elu(seen[0]), seen[1]
    wanted = torch.stack([getattr(egos[:6], readout)(0), getattr(egos[6:], readout)(0)])
    torch.testing.assert_close(pooled, wanted)


def test_dropout_acts_in_training_alone():
    model, b = network(0, 16, 2, dropout=0.5), batch(1, data_of(PRISM))
    assert torch.equal(model(b), model(b))
    model.train()
    assert not torch.equal(model(b), model(b))


def test_parameters_are_reinitialized():
    model, b = network(0, 4, 2), batch(1, data_of(PRISM))
    before = model(b)
    model.reset_parameters()
    assert not torch.allclose(model(b), before)


def test_it_learns_to_count_triangles():
    torch.manual_seed(0)
    graphs = [nx.gnp_random_graph(8, 0.4, seed=i) for i in range(40)]
    counts = torch.tensor([sum(nx.triangles(g).values()) / 3 for g in graphs])[:, None]
    model, b = SPEN(0, 16, 1, 1, readout="sum", norm=False), batch(1, *map(data_of, graphs))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        loss = (model(b) - counts).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * float(counts.var())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SPEN(-1, 4, 2), "in_channels must be a whole number of at least 0"),
        (lambda: SPEN(1, 0, 2), "hidden_channels must be a whole number of at least 1"),
        (lambda: SPEN(1, 4, 2, 0), "num_layers must be a whole number of at least 1"),
        (lambda: SPEN(1, 4, 2, level="edge"), "level must be one of graph, node, pair, got 'edge'"),
        (lambda: SPEN(1, 4, 2, readout="max"), "readout must be one of mean, sum"),
        (lambda: SPEN(2, 4, 2)(EgoNets(1)(data_of(PRISM))), "data.x must be a tensor, got NoneType"),
        (lambda: SPEN(2, 4, 2)(EgoNets(1)(data_of(PRISM, x=torch.ones(6, 3)))), r"data.x must have shape \(6, 2\)"),
        (lambda: SPEN(1, 4, 2)(EgoNets(1)(data_of(PRISM, x=torch.ones(6).long()))), "must be floating point"),
        (lambda: SPEN(0, 4, 2, edge_dim=1)(EgoNets(1)(data_of(PRISM))), "data.edge_attr must be a tensor"),
        (lambda: SPEN(0, 4, 2)(data_of(PRISM)), "apply commutant.graphs.EgoNets"),
        (lambda: SPEN(0, 4, 2, dropout=1.5), "dropout must be a probability between 0 and 1, got 1.5"),
        (lambda: SPEN(0, 4, 2, dropout="a"), "dropout must be a probability"),
        (
            lambda: SPEN(0, 4, 2).to("meta")(batch(1, data_of(PRISM))),
            "the graphs are on cpu and the network is on meta",
        ),
        (lambda: SPEN(0, 4, 2)(batch(1, data_of(PRISM)).to_dict()), "expected a PyG Data or Batch, got dict"),
    ],
)
def test_bad_input_is_refused(make, message, unchecked):
    with pytest.raises(InputError, match=message):
        make()
