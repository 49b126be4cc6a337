"""Molecules and families of graphs: read unchanged, and refused when their check fails."""

import gzip
import zipfile

import networkx as nx
import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.data import _expressivity, hard_graphs, hard_graphs_unavailable, load_molecules, molecules_unavailable


def test_the_molecules_of_ase_are_all_there():
    molecules = {m.name: m for m in load_molecules("g2")}
    assert molecules_unavailable("g2", None) is None
    assert len(molecules) == 162
    methane = molecules["CH4"]
    assert methane.elements.tolist() == [6, 1, 1, 1, 1]
    arms = methane.positions[1:] - methane.positions[0]
    assert torch.allclose(arms.norm(dim=1), torch.full((4,), 1.09, dtype=torch.float64), atol=0.02)
    assert sum(len(m.elements) == 1 for m in molecules.values()) > 5  # single atoms


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
    assert "DHFR" in molecules_unavailable("DHFR", str(tmp_path))
    with pytest.raises(InputError, match="DHFR is read from a data folder"):
        load_molecules("DHFR", str(tmp_path))


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(InputError, match=r"name must be one of g2, .* got 'qm9'"):
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
    np.savez(file, z=np.ones(3000), pos=np.ones((2999, 3)), ptr=np.arange(1001) * 3)
    with pytest.raises(InputError, match="molecule gdb 1000 has 3 atoms but not as many"):
        load_molecules("gdb1k", str(tmp_path))
    whole = file.read_bytes()
    file.write_bytes(whole[:200] + bytes(100) + whole[300:])
    with pytest.raises(InputError, match="gdb1k"):
        load_molecules("gdb1k", str(tmp_path))
    with pytest.raises(InputError, match=r"name must be one of g2, .* got 'qm9'"):
        molecules_unavailable("qm9", None)


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
    (folder / "sr16622.g6").write_bytes(nx.to_graph6_bytes(graphs[0], header=False) * 2)
    with pytest.raises(InputError, match="does not hold the 2 graphs of sr16"):
        hard_graphs("sr16", str(tmp_path))
    graphs[1].remove_edge(*next(iter(graphs[1].edges)))
    (folder / "sr16622.g6").write_bytes(b"".join(nx.to_graph6_bytes(g, header=False) for g in graphs))
    with pytest.raises(InputError, match="does not hold the 2 graphs of sr16"):
        hard_graphs("sr16", str(tmp_path))
    (folder / "sr16622.g6").write_bytes(b"\x00\x01\xff")
    with pytest.raises(InputError, match=r"sr16622\.g6 is damaged"):
        hard_graphs("sr16", str(tmp_path))


def test_pairs_and_connected_graphs_of_files(tmp_path, monkeypatch, deep):
    """Read files in the original formats: 600 pairs of two triangles and a ring of six, and 11117 connected graphs."""
    folder = tmp_path / "expressivity"
    folder.mkdir()
    triangles = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    both = [np.array(g.to_directed().edges).T for g in (triangles, nx.cycle_graph(6))]
    edges = np.concatenate(both * 600, 1).astype(np.int16)
    ends, nodes = np.arange(1201) * 12, np.arange(1201) * 6
    colors = np.tile(np.arange(6) % 2, 1200)[:, None].astype(np.int8)
    np.savez(folder / "exp.npz", x=colors, edge_index=edges, node_ptr=nodes, edge_ptr=ends)
    found = hard_graphs("exp", str(tmp_path))
    assert torch.equal(found[2][0], torch.from_numpy(nx.to_numpy_array(triangles)))
    assert torch.equal(found[3][0], torch.from_numpy(nx.to_numpy_array(nx.cycle_graph(6))))
    assert found[0][1].flatten().tolist() == [0, 1, 0, 1, 0, 1]
    edges[:, 5] = edges[:, 4]
    np.savez(folder / "exp.npz", x=colors, edge_index=edges, node_ptr=nodes, edge_ptr=ends)
    with pytest.raises(InputError, match="does not hold the 1200 graphs of exp"):
        hard_graphs("exp", str(tmp_path))
    path = folder / "graph8c.g6.gz"
    tree = nx.path_graph(8)
    path.write_bytes(gzip.compress(nx.to_graph6_bytes(tree, header=False)))
    with pytest.raises(InputError, match="does not hold the 11117 graphs of graph8c: it has 1 graphs"):
        hard_graphs("graph8c", str(tmp_path))
    count = 11_117 if deep else 50
    monkeypatch.setitem(_expressivity._COUNTS, "graph8c", count)
    lines = []
    pairs = [(i, j) for i in range(8) for j in range(i + 2, 8)]
    for code in range(count):  # connected, and different as they stand
        graph = tree.copy()
        graph.add_edges_from(pair for k, pair in enumerate(pairs) if code >> k & 1)
        lines.append(nx.to_graph6_bytes(graph, header=False))
    path.write_bytes(gzip.compress(b"".join(lines)))
    assert len(hard_graphs("graph8c", str(tmp_path))) == count
    alone = nx.to_graph6_bytes(nx.empty_graph(8), header=False)
    for last in (alone, lines[0]):
        path.write_bytes(gzip.compress(b"".join([*lines[:-1], last])))
        with pytest.raises(InputError, match=f"does not hold the {count} graphs"):
            hard_graphs("graph8c", str(tmp_path))


def test_hard_graphs_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match=r"name must be one of graph8c, .* got 'csl'"):
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
