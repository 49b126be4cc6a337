"""Molecules and families of graphs: read as they are, and refused when they are not what they must be."""

import zipfile

import networkx as nx
import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.data import hard_graphs, hard_graphs_unavailable, load_molecules, molecules_unavailable


def test_the_molecules_of_ase_are_all_there():
    molecules = {m.name: m for m in load_molecules("g2")}
    assert molecules_unavailable("g2", None) is None
    assert len(molecules) == 162
    methane = molecules["CH4"]
    assert methane.elements.tolist() == [6, 1, 1, 1, 1]
    arms = methane.positions[1:] - methane.positions[0]
    assert torch.allclose(arms.norm(dim=1), torch.full((4,), 1.09, dtype=torch.float64), atol=0.02)
    assert sum(len(m.elements) == 1 for m in molecules.values()) > 5  # atoms by themselves


def test_molecules_of_files(tmp_path):
    (tmp_path / "molecules").mkdir()
    ptr = np.arange(1001) * 3
    positions = np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32)
    np.savez(tmp_path / "molecules" / "gdb1k_3d.npz", z=np.tile([8, 1, 1], 1000), pos=positions, ptr=ptr)
    found = load_molecules("gdb1k", str(tmp_path))
    assert found[7].elements.tolist() == [8, 1, 1]
    assert torch.allclose(found[7].positions, torch.from_numpy(positions[21:24]).double())
    (tmp_path / "tu-text").mkdir()
    with zipfile.ZipFile(tmp_path / "tu-text" / "BZR.zip", "w") as archive:
        sizes = [1 + i % 4 for i in range(405)]
        rows = [(g, i) for g, size in enumerate(sizes, 1) for i in range(size)]
        archive.writestr("BZR/BZR_graph_indicator.txt", "\n".join(str(g) for g, _ in rows))
        archive.writestr("BZR/BZR_node_labels.txt", "\n".join(str(i) for _, i in rows))
        archive.writestr("BZR/BZR_node_attributes.txt", "\n".join(f" {g}.5, {i}, -1" for g, i in rows))
    found = load_molecules("BZR", str(tmp_path))
    assert [len(m.elements) for m in found] == sizes
    assert found[2].positions[1].tolist() == [3.5, 1.0, -1.0]


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(InputError, match="unknown molecules 'qm9'"):
        load_molecules("qm9")
    with pytest.raises(InputError, match="gdb1k is read from a data folder"):
        load_molecules("gdb1k", str(tmp_path))
    (tmp_path / "molecules").mkdir()
    file = tmp_path / "molecules" / "gdb1k_3d.npz"
    file.write_bytes(b"no numbers")
    with pytest.raises(InputError, match=r"gdb1k_3d\.npz is damaged"):
        load_molecules("gdb1k", str(tmp_path))
    np.savez(file, z=np.ones(2), pos=np.ones((2, 3)), ptr=np.array([0, 1, 2]))
    with pytest.raises(InputError, match="holds 2 molecules, expected 1000"):
        load_molecules("gdb1k", str(tmp_path))


def shrikhande():
    steps = [(1, 0), (0, 1), (1, 1)]
    graph = nx.Graph()
    for a in range(4):
        for b in range(4):
            for x, y in steps:
                graph.add_edge(4 * a + b, 4 * ((a + x) % 4) + (b + y) % 4)
    return graph


def test_strongly_regular_graphs_of_a_file(tmp_path):
    folder = tmp_path / "expressivity" / "sr"
    folder.mkdir(parents=True)
    rook = nx.line_graph(nx.complete_bipartite_graph(4, 4))
    graphs = [nx.convert_node_labels_to_integers(g) for g in (rook, shrikhande())]
    (folder / "sr16622.g6").write_bytes(b"".join(nx.to_graph6_bytes(g, header=False) for g in graphs))
    assert hard_graphs_unavailable("sr16", str(tmp_path)) is None
    found = hard_graphs("sr16", str(tmp_path))
    for (adjacency, features), graph in zip(found, graphs, strict=True):
        assert torch.equal(adjacency, torch.from_numpy(nx.to_numpy_array(graph)))
        assert features.shape == (16, 1)
    graphs[1].remove_edge(*next(iter(graphs[1].edges)))
    (folder / "sr16622.g6").write_bytes(b"".join(nx.to_graph6_bytes(g, header=False) for g in graphs))
    with pytest.raises(InputError, match="does not hold the 2 graphs of sr16"):
        hard_graphs("sr16", str(tmp_path))
    (folder / "sr16622.g6").write_bytes(b"\x00\x01\xff")
    with pytest.raises(InputError, match=r"sr16622\.g6 is damaged"):
        hard_graphs("sr16", str(tmp_path))


def test_hard_graphs_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="unknown graphs 'csl'"):
        hard_graphs("csl", str(tmp_path))
    with pytest.raises(InputError, match="exp is read from a data folder"):
        hard_graphs("exp", str(tmp_path))
    (tmp_path / "expressivity").mkdir()
    np.savez(tmp_path / "expressivity" / "exp.npz", x=np.ones((3, 1)))
    with pytest.raises(InputError, match=r"exp\.npz is damaged"):
        hard_graphs("exp", str(tmp_path))
    (tmp_path / "expressivity" / "graph8c.g6.gz").write_bytes(b"not compressed")
    with pytest.raises(InputError, match=r"graph8c\.g6\.gz is damaged"):
        hard_graphs("graph8c", str(tmp_path))
