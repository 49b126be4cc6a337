"""Experiments of `spen`, far smaller than at any scale."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from commutant.papers.spen.models import GNNAK, SubgraphNetwork, rooted_ego_nets

TINY = {"train": 4, "test": 2, "epochs": 1, "batch_size": 2, "learning_rate": 1e-3, "channels": 2}


@pytest.mark.parametrize("name", ["triangles", "four-cycles", "counts"])
def test_an_experiment_on_regular_graphs_gives_what_its_claims_read(name, measured):
    measured("spen", name, TINY)


def test_memory_grows_with_the_graph(measured):
    sizes = {"sizes": [20, 100, 400, 1000, 10_000], "global_sizes": [100, 200, 400]}
    found = measured("spen", "memory", sizes)
    assert found["one-hop@400"] < found["two-hops@400"] < found["global@400"]


def path(n):
    there = torch.arange(n - 1)
    return Data(
        x=torch.randn(n, 3), edge_index=torch.stack([torch.cat([there, there + 1]), torch.cat([there + 1, there])])
    )


@pytest.mark.parametrize("kind", ["ngnn", "sswl"])
def test_graphs_of_a_batch_do_not_change_a_subgraph_network(kind):
    model = SubgraphNetwork(kind, 2, 4, 2).eval()
    alone = torch.cat([model(Batch.from_data_list([path(n)])) for n in (2, 5)])
    torch.testing.assert_close(model(Batch.from_data_list([path(2), path(5)])), alone)


def test_graphs_of_a_batch_do_not_change_gnn_ak():
    model, graphs = GNNAK(3, 4, 2).eval(), [rooted_ego_nets(path(n)) for n in (2, 5)]
    alone = torch.cat([model(Batch.from_data_list([g])) for g in graphs])
    torch.testing.assert_close(model(Batch.from_data_list(graphs)), alone)
