"""Recurrent networks wired by a graph, in which nodes are units and edges are connections."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from .._checks import one_of, whole
from .._errors import InputError, require
from ._pruning import apply_masks

_CELLS: dict[str, tuple[type[nn.RNNBase], dict[str, Any], int]] = {
    "gru": (nn.GRU, {}, 3),
    "lstm": (nn.LSTM, {}, 4),
    "tanh": (nn.RNN, {"nonlinearity": "tanh"}, 1),
    "relu": (nn.RNN, {"nonlinearity": "relu"}, 1),
}


def dag_layers(edge_index: Int[Tensor, "2 edges"], num_nodes: int) -> Int[Tensor, "nodes"]:
    """Return the layer of each node of a directed acyclic graph, the length of the longest path that ends there.

    Args:
        edge_index: Edges from the nodes in row 0 to the nodes in row 1, `(2, edges)`.
        num_nodes: Number of nodes; nodes without edges are sources.

    Raises:
        InputError: For indices outside the graph, or a cycle.

    Example:
        >>> dag_layers(torch.tensor([[0, 1, 0], [1, 2, 2]]), 4)
        tensor([0, 1, 2, 0])
    """
    whole("num_nodes", num_nodes)
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise InputError(f"edge_index must have shape (2, edges), got {tuple(edge_index.shape)}")
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < num_nodes:
        raise InputError(
            f"edge_index must lie in 0..{num_nodes - 1}, got {int(edge_index.min())}..{int(edge_index.max())}"
        )
    children: list[list[int]] = [[] for _ in range(num_nodes)]
    waiting = torch.bincount(edge_index[1], minlength=num_nodes).tolist() if edge_index.numel() else [0] * num_nodes
    for parent, child in edge_index.T.tolist():
        children[parent].append(child)
    layer, ready = [0] * num_nodes, [v for v in range(num_nodes) if waiting[v] == 0]
    for parent in ready:  # grows during the loop, into a topological order
        for child in children[parent]:
            layer[child] = max(layer[child], layer[parent] + 1)
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    if len(ready) < num_nodes:
        raise InputError("edge_index must be acyclic, got a cycle; direct every edge from the lower to the higher node")
    return torch.tensor(layer)


def _edges(graph: Any) -> tuple[Tensor, int]:
    """Return the edges and the number of nodes of a networkx graph, a PyG `Data`, or a pair of both."""
    if isinstance(graph, tuple) and len(graph) == 2 and isinstance(graph[0], Tensor):
        edges, nodes = graph
    elif hasattr(graph, "edge_index"):
        edges, nodes = graph.edge_index, int(graph.num_nodes)
    elif hasattr(graph, "number_of_nodes"):
        place = {node: i for i, node in enumerate(graph.nodes)}
        pairs = [(place[u], place[v]) for u, v in graph.edges()]
        if not graph.is_directed():
            pairs = [(min(p), max(p)) for p in pairs]
        edges = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
        nodes = graph.number_of_nodes()
    else:
        raise InputError(
            f"graph must be a networkx graph, a PyG Data or a pair (edge_index, nodes), got {type(graph).__name__}"
        )
    if edges.dim() != 2 or edges.shape[0] != 2:
        raise InputError(f"edge_index must have shape (2, edges), got {tuple(edges.shape)}")
    return edges.long().unique(dim=1) if edges.numel() else edges.long().reshape(2, 0), nodes


class GraphRNN(nn.Module):
    """A recurrent network wired by a directed acyclic graph (Darji 2024, arXiv 2407.20601).

    Nodes are sorted into layers by the longest path that ends in them (`dag_layers`). Each layer of the graph becomes
    one recurrent layer with one unit per node, and masks keep only the graph's edges between layers. Undirected graphs
    are directed from lower to higher nodes. The masks follow torch's order of the gates; those of the thesis mix up the
    gates of GRU and LSTM.

    Args:
        graph: A networkx graph, a PyG `Data`, or a pair `(edge_index, number of nodes)`.
        input_size: Number of features of the input; every source reads all of them.
        cell: Recurrent cell, `"gru"`, `"lstm"`, `"tanh"` or `"relu"`.
        skip: Treatment of edges that skip layers. With `"concat"`, a layer reads every earlier layer along the graph's
            edges. The output holds the sinks (nodes that no other node reads) in their order. With `"sum"`, as in
            the thesis, every pair of layers further apart has its own recurrent layer, whose output is added. The
            output is then the last layer, and other sinks are unused.
        recurrent: Connections within a layer, `"dense"` (as in the thesis), or `"self"` for units that read only their
            own state.

    Raises:
        InputError: For an unknown option, a graph with a cycle or a size below 1.

    Shapes:
        x `(batch, time, input_size)` to `(batch, time, output_size)`.

    Example:
        >>> import networkx
        >>> net = GraphRNN(networkx.path_graph(4), 8)
        >>> net(torch.randn(2, 5, 8)).shape, net.num_layers
        (torch.Size([2, 5, 1]), 4)
    """

    def __init__(
        self, graph: Any, input_size: int, cell: str = "gru", skip: str = "concat", recurrent: str = "dense"
    ) -> None:
        super().__init__()
        one_of("cell", cell, _CELLS)
        one_of("skip", skip, ("concat", "sum"))
        one_of("recurrent", recurrent, ("dense", "self"))
        whole("input_size", input_size)
        edges, nodes = _edges(graph)
        self.skip = skip
        layers = dag_layers(edges, nodes)
        self.num_layers = int(layers.max()) + 1
        members = [(layers == i).nonzero().flatten() for i in range(self.num_layers)]
        adjacency = torch.zeros(nodes, nodes, dtype=torch.bool)
        adjacency[edges[1], edges[0]] = True  # rows read columns
        make = lambda width, mask: _masked(cell, width, mask, recurrent)  # noqa: E731
        self.layers = nn.ModuleList([make(input_size, torch.ones(len(members[0]), input_size, dtype=torch.bool))])
        self.skips = nn.ModuleDict()
        for i in range(1, self.num_layers):
            before = torch.cat(members[:i]) if skip == "concat" else members[i - 1]
            self.layers.append(make(len(before), adjacency[members[i]][:, before]))
            for s in range(i - 1) if skip == "sum" else ():
                mask = adjacency[members[i]][:, members[s]]
                if mask.any():
                    self.skips[f"{s}-{i}"] = make(len(members[s]), mask)
        order = torch.cat(members)
        sinks = ~adjacency.any(0)[order]
        last = torch.arange(nodes) >= nodes - len(members[-1])
        self.register_buffer("shown", (sinks if skip == "concat" else last).nonzero().flatten())
        if skip == "concat":  # order by nodes, not by layers
            self.shown = self.shown[order[self.shown].argsort()]
        self.output_size = len(self.shown)

    shown: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the states of the output nodes at every step, `(batch, time, output_size)`.

        Args:
            x: Input `(batch, time, input_size)`.
        """
        outputs: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            source = x if i == 0 else torch.cat(outputs, -1) if self.skip == "concat" else outputs[-1]
            out = layer(source)[0]
            for s in range(i - 1):
                if f"{s}-{i}" in self.skips:
                    out = out + self.skips[f"{s}-{i}"](outputs[s])[0]
            outputs.append(out)
        return torch.cat(outputs, -1)[..., self.shown]


def _masked(cell: str, width: int, mask: Tensor, recurrent: str) -> nn.RNNBase:
    kind, options, gates = _CELLS[cell]
    rnn: nn.RNNBase = kind(width, mask.shape[0], batch_first=True, **options)  # type: ignore[arg-type]
    masks = {} if mask.all() else {"weight_ih_l0": mask.repeat(gates, 1)}
    if recurrent == "self":
        masks["weight_hh_l0"] = torch.eye(mask.shape[0], dtype=torch.bool).repeat(gates, 1)
    apply_masks(rnn, masks)
    return rnn


def random_dag(kind: str, nodes: int, generator: torch.Generator, degree: float = 0.2) -> tuple[Tensor, int]:
    """Draw a random graph for `GraphRNN`, directed from lower to higher nodes.

    Args:
        kind: Distribution: `"ws"` (Watts-Strogatz, fully rewired), `"ba"` (Barabasi-Albert from isolated nodes, as in
            the networkx of the thesis) or `"er"` (Erdos-Renyi with as many edges as `"ws"`).
        nodes: Number of nodes, at least 3.
        generator: Source of randomness.
        degree: Number of neighbors per node in `"ws"`, as a fraction of the number of nodes; `"ba"` attaches each new
            node to half as many.

    Returns:
        The edges `(2, edges)` and the number of nodes.

    Raises:
        InputError: For an unknown distribution or fewer than 3 nodes.

    Example:
        >>> edges, nodes = random_dag("ba", 20, torch.Generator().manual_seed(0))
        >>> bool((edges[0] < edges[1]).all()), nodes
        (True, 20)
    """
    networkx = require("networkx", "graphs")
    one_of("kind", kind, ("ws", "ba", "er"))
    whole("nodes", nodes, 3)
    seed = int(torch.randint(0, 2**31, (), generator=generator))
    neighbors = max(2, int(degree * nodes))
    if kind == "ws":
        graph = networkx.connected_watts_strogatz_graph(nodes, neighbors, 1.0, tries=100, seed=seed)
    elif kind == "er":
        graph = networkx.gnm_random_graph(nodes, nodes * (neighbors // 2), seed=seed)
    else:
        m = max(1, neighbors // 2)
        first = networkx.empty_graph(m + 1)
        first.add_edges_from((i, m) for i in range(m))
        graph = networkx.barabasi_albert_graph(nodes, m, seed=seed, initial_graph=first)
    return _edges(graph)


def graph_features(graph: Any) -> dict[str, float]:
    """Return the properties of a graph that the thesis relates to accuracy.

    Variances over nodes (or edges) are sample variances. In a disconnected graph, paths are measured in the largest
    component. The density is that of the undirected graph.

    Args:
        graph: A networkx graph, a PyG `Data`, or a pair `(edge_index, number of nodes)`.

    Example:
        >>> import networkx
        >>> graph_features(networkx.path_graph(4))["sources"]
        1.0
    """
    networkx = require("networkx", "graphs")
    edges, nodes = _edges(graph)
    layers = dag_layers(edges, nodes)
    plain = networkx.Graph()
    plain.add_nodes_from(range(nodes))
    plain.add_edges_from(edges.T.tolist())
    core = plain.subgraph(max(networkx.connected_components(plain), key=len))
    heads = torch.bincount(edges[0], minlength=nodes) if edges.numel() else torch.zeros(nodes)
    found = {
        "layers": int(layers.max()) + 1,
        "nodes": nodes,
        "edges": edges.shape[1],
        "sources": int((layers == 0).sum()),
        "sinks": int((heads == 0).sum()),
        "diameter": networkx.diameter(core),
        "density": networkx.density(plain),
        "path_length": networkx.average_shortest_path_length(core),
    }
    for name, values in {
        "eccentricity": networkx.eccentricity(core),
        "degree": networkx.degree_centrality(plain),
        "closeness": networkx.closeness_centrality(plain),
        "betweenness": networkx.betweenness_centrality(plain),
        "edge_betweenness": networkx.edge_betweenness_centrality(plain),
    }.items():
        sample = torch.tensor(list(values.values()), dtype=torch.float64)
        found[f"{name}_mean"] = float(sample.mean()) if len(sample) else 0.0
        found[f"{name}_variance"] = float(sample.var()) if len(sample) > 1 else 0.0
    return {key: float(value) for key, value in found.items()}
