"""Experiments of `symbolic-synthesis`, far smaller than at any scale, and their data."""

from __future__ import annotations

import pytest
import torch

from commutant.papers.symbolic_synthesis.measures import (
    _by_information,
    _clusters,
    _planted,
    _ridge_fit,
    _same_partition,
    _tied_fit,
    planted,
)
from commutant.papers.symbolic_synthesis.models import Population, graphs, grids
from commutant.programs import GraphModule, TieMachine, search_states

TINY = {
    "population": {
        "graphs": 9, "steps": 20_000, "seeds": 2, "features": 32, "train": 16, "validation": 20, "noise": 0.2,
        "learning_rate": 1e-3, "batch_size": 8, "epochs": [16, 40],
    },
    "search": {"ports": [4], "applications": 3000},
    "ties": {"n": 8, "samples": 12, "noise": 0.3, "trials": 1, "max_cost": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("symbolic-synthesis", name, TINY[name])


def test_grids_show_what_their_labels_say():
    patches, label = grids(200, 0.0, torch.Generator().manual_seed(0))
    assert patches.shape == (200, 9, 64)
    bright = (patches.amax(2) - patches.amin(2)).view(200, 3, 3)
    same = (bright - bright[:, :, :1]).abs().amax((1, 2)) < 1e-5
    assert torch.equal(same, label > 0.5)
    assert 70 < int(label.sum()) < 130


def test_seeds_start_alike_for_all_graphs():
    torch.manual_seed(0)
    shapes = graphs(4, 12_000)
    assert len({g.certificate for g in shapes}) == 4
    net = Population(shapes, 3, 32)
    weight = net.encoders.patch.weight.view(4, 3, 64, 24)
    assert torch.equal(weight[0], weight[3])
    assert not torch.equal(weight[0, 0], weight[0, 1])
    x = grids(5, 0.2, torch.Generator().manual_seed(0))[0].expand(12, 5, 9, 64)
    net.eval()
    vectors = net.encoders(x)
    single = net.heads.select(4)
    assert isinstance(single, GraphModule)
    assert single.graph == shapes[1]
    torch.testing.assert_close(net(x)[4], single(vectors[4])[:, 0])


def test_fits_of_planted_maps():
    machine = TieMachine(6)
    pattern = machine.output(machine.run("(rotate (tie identity))"))
    x, y, weight = _planted(pattern, 50, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(y, x @ weight.T)
    torch.testing.assert_close(_tied_fit(pattern, x, y), weight)
    torch.testing.assert_close(_ridge_fit(x, y), weight, rtol=1e-3, atol=1e-3)
    assert _same_partition(_clusters(weight, 6, 0), pattern.labels)
    assert not _same_partition(pattern.labels, torch.zeros(6, 6))
    patterns = list(planted(6).values())
    assert _by_information(weight, patterns) == pattern


@pytest.mark.parametrize("n", [6, 8])
def test_planted_groups_are_those_of_short_programs(n):
    patterns = planted(n)
    classes = {name: p.classes for name, p in patterns.items()}
    wanted = {"cyclic": n, "dihedral": n // 2 + 1, "symmetric": 2, "torus": n, "halves": 8, "none": n * n}
    assert classes == wanted
    found = {f.output for f in search_states(TieMachine(n), max_cost=7)}
    assert set(patterns.values()) <= found
