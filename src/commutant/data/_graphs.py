"""Graph classification data of the TU collection, with the folds of the GIN paper if a data folder provides them."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._checks import one_of
from .._errors import InputError, require
from ._sources import Source, cache_home

_CLASSES = {
    "MUTAG": (63, 125),
    "PTC": (152, 192),
    "PROTEINS": (450, 663),
    "NCI1": (2053, 2057),
    "IMDBBINARY": (500, 500),
    "IMDBMULTI": (500, 500, 500),
}
"""Number of graphs of each class, smallest first."""
_NAMES_AT_PYG = {"PTC": "PTC_MR", "IMDBBINARY": "IMDB-BINARY", "IMDBMULTI": "IMDB-MULTI"}
GRAPHS = tuple(_CLASSES)


@dataclass(frozen=True)
class GraphData:
    """Labeled graphs with cross-validation folds.

    Args:
        graphs: PyG `Data` objects with one-hot node features `x`, `edge_index` and a label `y`.
        folds: Indices of the test graphs of each fold.
        classes: Number of classes.
        source: Origin of the data, in words.
    """

    graphs: list[Any]
    folds: list[Tensor]
    classes: int
    source: str


def graph_source(name: str) -> Source:
    """Return the source of a TU data set."""
    public = _NAMES_AT_PYG.get(name, name)
    cached = partial(Path.is_file, _cache() / public / "processed" / "data.pt")
    return Source(name, (f"tu-gin/{name}.zip",), f"TU collection {public}", "torch_geometric", "graphs", cached)


def graphs_unavailable(name: str, data_dir: str | None) -> str | None:
    """Return the reason why `load_graphs` would fail or would have to download, or None.

    This function does not access the network: a data set that is only online counts as unavailable until
    `load_graphs` or `commutant data NAME` has filled the cache.

    Args:
        name: Name of a data set, as for `load_graphs`.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.
    """
    one_of("name", name, _CLASSES)
    return graph_source(name).unavailable(data_dir)


def load_graphs(name: str, data_dir: str | None = None) -> GraphData:
    """Load a TU data set from a data folder if it is there, otherwise through PyG, which caches its downloads.

    Args:
        name: Name of the data set: `"MUTAG"`, `"PTC"`, `"PROTEINS"`, `"NCI1"`, `"IMDBBINARY"` or
            `"IMDBMULTI"`.
        data_dir: Data folder with `tu-gin/NAME.zip`, in the format and with the ten folds of the GIN paper; by default
            `$COMMUTANT_DATA`. Data from PyG get ten stratified folds, the same in every call.

    Raises:
        InputError: For an unknown name, a damaged copy, or a data set that is neither local nor downloadable.
    """
    one_of("name", name, _CLASSES)
    source = graph_source(name)
    folder = source.folder(data_dir)
    data = _from_pyg(name, source) if folder is None else _from_zip(name, folder / source.files[0])
    found = tuple(sorted(torch.bincount(torch.cat([graph.y for graph in data.graphs])).tolist()))
    if found != _CLASSES[name]:
        raise InputError(f"{data.source} has classes of {found} graphs, expected {_CLASSES[name]} for {name}")
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
    for label, node_tags, neighbors in raw:
        pairs = {(source, target) for target, near in enumerate(neighbors) for source in near}
        edges = sorted(pairs | {(target, source) for source, target in pairs})  # some lists name an edge once only
        x = torch.nn.functional.one_hot(torch.tensor([tags[t] for t in node_tags]), len(tags)).float()
        edge_index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).t().contiguous()
        graphs.append(data_class(x=x, edge_index=edge_index, y=torch.tensor([labels[label]])))
    return GraphData(graphs, folds, len(labels), f"{path.name} with the GIN folds")


def _from_pyg(name: str, source: Source) -> GraphData:
    selection = require("sklearn.model_selection", "evidence")
    public = _NAMES_AT_PYG.get(name, name)
    with source.downloading():
        graphs = list(require("torch_geometric.datasets", "graphs").TUDataset(str(_cache()), public))
    for graph in graphs:
        if graph.x is None:
            graph.x = torch.ones(graph.num_nodes, 1)
    y = torch.cat([graph.y for graph in graphs]).numpy()
    split = selection.StratifiedKFold(10, shuffle=True, random_state=0).split(y, y)
    folds = [torch.from_numpy(test) for _, test in split]
    return GraphData(graphs, folds, int(y.max()) + 1, f"{public} from the TU collection, stratified folds")


def _cache() -> Path:
    return cache_home() / "commutant"
