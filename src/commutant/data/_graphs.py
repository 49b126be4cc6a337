"""Graph classification data of the TU collection, with the folds of the GIN paper where they are at hand."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError, require

_GRAPHS = {"MUTAG": 188, "PTC": 344, "PROTEINS": 1113, "NCI1": 4110, "IMDBBINARY": 1000, "IMDBMULTI": 1500}
_PYG_HOST = "www.chrsmrrs.com"


@dataclass(frozen=True)
class GraphData:
    """Labelled graphs and test folds.

    Args:
        graphs: PyG `Data` objects with one-hot node features `x`, `edge_index` and a label `y`.
        folds: for each fold, the indices of its test graphs.
        classes: number of classes.
        source: where it came from, in words.
    """

    graphs: list[Any]
    folds: list[Tensor]
    classes: int
    source: str


def data_folder(data_dir: str | None) -> Path | None:
    """The local folder of data sets: the argument, or `COMMUTANT_DATA`, or none."""
    given = data_dir or os.environ.get("COMMUTANT_DATA")
    if not given:
        return None
    if not Path(given).is_dir():
        raise InputError(f"data folder {given} does not exist")
    return Path(given)


def graphs_unavailable(name: str, data_dir: str | None) -> str | None:
    """Why `load_graphs` would fail, or None."""
    folder = data_folder(data_dir)
    if folder is not None and (folder / "tu-gin" / f"{name}.zip").is_file():
        return None
    try:
        socket.create_connection((_PYG_HOST, 443), timeout=2).close()
        return None
    except OSError:
        return f"{name} is neither in a data folder (--data-dir, tu-gin/{name}.zip) nor can it be downloaded from here"


def load_graphs(name: str, data_dir: str | None = None) -> GraphData:
    """Load a TU data set from a local folder, or through PyG.

    Args:
        name: MUTAG, PTC, PROTEINS, NCI1, IMDBBINARY or IMDBMULTI.
        data_dir: holds `tu-gin/NAME.zip`, in the format and with the ten folds of the GIN paper.

    Raises:
        InputError: for an unknown name, and for a file with the wrong number of graphs.
    """
    if name not in _GRAPHS:
        raise InputError(f"unknown data set {name!r}; expected one of {', '.join(_GRAPHS)}")
    folder = data_folder(data_dir)
    path = None if folder is None else folder / "tu-gin" / f"{name}.zip"
    data = _from_zip(name, path) if path is not None and path.is_file() else _from_pyg(name)
    if len(data.graphs) != _GRAPHS[name]:
        raise InputError(f"{data.source} holds {len(data.graphs)} graphs of {name}, expected {_GRAPHS[name]}")
    return data


def _from_zip(name: str, path: Path) -> GraphData:
    data_class = require("torch_geometric.data", "graphs").Data
    try:
        with zipfile.ZipFile(path) as archive:
            lines = io.TextIOWrapper(archive.open(f"{name}/{name}.txt"), encoding="utf-8").read().splitlines()
            folds = [
                torch.tensor([int(v) for v in archive.read(f"{name}/10fold_idx/test_idx-{k}.txt").split()])
                for k in range(1, 11)
            ]
        count, cursor, raw = int(lines[0]), 1, []
        for _ in range(count):
            nodes, label = (int(v) for v in lines[cursor].split())
            rows = [[int(v) for v in line.split()] for line in lines[cursor + 1 : cursor + 1 + nodes]]
            raw.append((label, [r[0] for r in rows], [r[2 : 2 + r[1]] for r in rows]))
            cursor += 1 + nodes
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    tags = {tag: i for i, tag in enumerate(sorted({t for _, node_tags, _ in raw for t in node_tags}))}
    labels = {label: i for i, label in enumerate(sorted({label for label, *_ in raw}))}
    graphs = []
    for label, node_tags, neighbours in raw:
        pairs = {(source, target) for target, near in enumerate(neighbours) for source in near}
        edges = sorted(pairs | {(target, source) for source, target in pairs})  # some lists name an edge once only
        x = torch.nn.functional.one_hot(torch.tensor([tags[t] for t in node_tags]), len(tags)).float()
        edge_index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).t().contiguous()
        graphs.append(data_class(x=x, edge_index=edge_index, y=torch.tensor([labels[label]])))
    return GraphData(graphs, folds, len(labels), f"{path.name} with the GIN folds")


def _from_pyg(name: str) -> GraphData:
    datasets = require("torch_geometric.datasets", "graphs")
    selection = require("sklearn.model_selection", "evidence")
    public = {"PTC": "PTC_MR", "IMDBBINARY": "IMDB-BINARY", "IMDBMULTI": "IMDB-MULTI"}.get(name, name)
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "commutant"
    graphs = list(datasets.TUDataset(str(root), public))
    for graph in graphs:
        if graph.x is None:
            graph.x = torch.ones(graph.num_nodes, 1)
    y = torch.cat([graph.y for graph in graphs]).numpy()
    split = selection.StratifiedKFold(10, shuffle=True, random_state=0).split(y, y)
    folds = [torch.from_numpy(test) for _, test in split]
    return GraphData(graphs, folds, int(y.max()) + 1, f"{public} from the TU collection, stratified folds")
