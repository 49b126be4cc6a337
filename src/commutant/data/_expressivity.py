"""Families of graphs that are hard to distinguish, read from a data folder and checked for their properties."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import one_of
from .._errors import InputError, MissingExtraError, require
from ._sources import Source

_FILES = {
    "graph8c": "expressivity/graph8c.g6.gz",
    "exp": "expressivity/exp.npz",
    "sr16": "expressivity/sr/sr16622.g6",
    "sr25": "expressivity/sr/sr251256.g6",
    "sr26": "expressivity/sr/sr261034.g6",
    "sr28": "expressivity/sr/sr281264.g6",
    "sr29": "expressivity/sr/sr291467.g6",
}
_KINDS = {"sr16": (16, 6, 2, 2), "sr25": (25, 12, 5, 6), "sr26": (26, 10, 3, 4), "sr28": (28, 12, 6, 4),
          "sr29": (29, 14, 6, 7)}  # fmt: skip
"""Nodes, degree, common neighbors of adjacent nodes, common neighbors of other pairs."""
FAMILIES = tuple(_FILES)
_COUNTS = {"graph8c": 11_117, "exp": 1200, "sr16": 2, "sr25": 15, "sr26": 10, "sr28": 4, "sr29": 41}


def hard_graphs_unavailable(name: str, data_dir: str | None) -> str | None:
    """Return the reason why `hard_graphs` would fail, or None.

    Args:
        name: Name of a family, as for `hard_graphs`.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.
    """
    one_of("name", name, _FILES)
    try:
        require("networkx", "graphs")
    except MissingExtraError as error:
        return str(error)
    return family_source(name).unavailable(data_dir)


def family_source(name: str) -> Source:
    """Return the source of a family of graphs."""
    return Source(name, (_FILES[name],))


def hard_graphs(name: str, data_dir: str | None = None) -> list[tuple[Float[Tensor, "n n"], Float[Tensor, "n f"]]]:
    """Return the adjacency matrix and the node features of each graph of a family.

    Args:
        name: Name of the family. `"graph8c"` holds all connected graphs on 8 nodes. `"exp"` holds 600 pairs of graphs
            that color refinement cannot distinguish, with one binary feature; the graphs of a pair are adjacent in the
            list. `"sr16"`, `"sr25"`, `"sr26"`, `"sr28"` and `"sr29"` each hold all strongly regular graphs with the
            same parameters. All families but `"exp"` have one constant feature, equal to 1.
        data_dir: Data folder with the files; by default `$COMMUTANT_DATA`.

    Raises:
        InputError: If the name is unknown, or the file is missing or fails a check. The checks are the number of
            distinct graphs, connectedness (graph8c), equal degrees within pairs (exp) and strong regularity (sr).
    """
    missing = hard_graphs_unavailable(name, data_dir)
    folder = family_source(name).folder(data_dir)
    if missing or folder is None:
        raise InputError(str(missing))
    path = folder / _FILES[name]
    try:
        graphs = _exp(path) if name == "exp" else _graph6(path)
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, IndexError, OSError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if len(graphs) != _COUNTS[name] or not _is_family(name, [a for a, _ in graphs]):
        raise InputError(
            f"{path} does not hold the {_COUNTS[name]} graphs of {name}: it has {len(graphs)} graphs, or wrong ones"
        )
    return graphs


def _graph6(path: Path) -> list[tuple[Tensor, Tensor]]:
    nx = require("networkx", "graphs")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        graphs = [nx.from_graph6_bytes(line) for line in raw.split()]
    except nx.NetworkXError as error:
        raise ValueError(str(error)) from None
    found = [torch.from_numpy(nx.to_numpy_array(g)) for g in graphs]
    return [(a, torch.ones(len(a), 1, dtype=torch.float64)) for a in found]


def _exp(path: Path) -> list[tuple[Tensor, Tensor]]:
    with np.load(path) as data:
        x, edges, nodes, ends = (data[n] for n in ("x", "edge_index", "node_ptr", "edge_ptr"))
    out = []
    for i in range(len(nodes) - 1):
        n = int(nodes[i + 1] - nodes[i])
        adjacency = torch.zeros(n, n, dtype=torch.float64)
        source, target = torch.from_numpy(edges[:, ends[i] : ends[i + 1]].astype(np.int64))
        adjacency[source, target] = 1.0
        out.append((adjacency, torch.from_numpy(x[nodes[i] : nodes[i + 1]]).double()))
    return out


def _is_family(name: str, graphs: list[Tensor]) -> bool:
    if not all(torch.equal(a, a.mT) and not bool(a.diagonal().any()) for a in graphs):
        return False
    if name == "exp":
        pairs = zip(graphs[::2], graphs[1::2], strict=True)
        return all(torch.equal(a.sum(0).sort().values, b.sum(0).sort().values) for a, b in pairs)
    nodes = _KINDS[name][0] if name in _KINDS else 8
    if any(len(a) != nodes for a in graphs) or len({a.numpy().tobytes() for a in graphs}) != len(graphs):
        return False
    whole, eye = torch.stack(graphs), torch.eye(nodes, dtype=torch.float64)
    if name == "graph8c":
        return bool((torch.linalg.matrix_power(whole + eye, 7) > 0).all())
    _, degree, joined, apart = _KINDS[name]
    return torch.equal(whole @ whole, degree * eye + joined * whole + apart * (1 - eye - whole))
