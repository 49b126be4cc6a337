"""Networks conditioned on a graph: segments of a vector, tagged by its elements, pass messages along it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import check_features, whole
from .._errors import InputError
from ..kernels import edge_messages
from ._graph_machine import PortGraph
from ._stacked_linear import StackedLinear, packed_linear

if TYPE_CHECKING:
    import networkx
    from torch_geometric.data import Data


class GraphModules(nn.Module):
    r"""Several graph-conditioned modules at once, one for each graph, each with its own weights.

    All models run as batched products, which is several times faster than a loop. Model m computes what
    `GraphModule(graphs[m])` computes with its weights; `select(m)` returns that module. The weights are kept in the
    order of the numbers of nodes.

    Args:
        graphs: Graphs, as for `GraphModule`; repeat a graph for several seeds.
        features: Size of the vectors, divisible by 4, at least 8, and at least the elements of each graph.
        out_features: Size of the outputs.
        depth: Number of message-passing layers.
        dropout: Dropout on features of nodes and edges before each layer.

    Shapes: `(models, batch, features)` to `(models, batch, out_features)`.

    Raises:
        InputError: For a graph with more elements than features, or sizes that do not fit.
    """

    coordinate: Tensor
    codes: Tensor
    model: Tensor
    place: Tensor
    number: Tensor
    ends: Tensor
    node_starts: Tensor
    edge_starts: Tensor
    given: Tensor

    def __init__(
        self,
        graphs: Sequence[PortGraph | networkx.Graph | Data],
        features: int,
        out_features: int,
        *,
        depth: int = 3,
        dropout: int | float = 0.3,
    ) -> None:
        super().__init__()
        for name, value in (("features", features), ("out_features", out_features), ("depth", depth)):
            whole(name, value)
        if features % 4 or features < 8:
            raise InputError(f"features must be divisible by 4 and at least 8, got {features}")
        if not (isinstance(dropout, int | float) and 0 <= dropout < 1):
            raise InputError(f"dropout must be in [0, 1), got {dropout!r}")
        if not isinstance(graphs, Sequence) or not graphs:
            raise InputError(f"graphs must be a list of at least one graph, got {graphs!r:.60}")
        self.graphs = tuple(_as_port_graph(g) for g in graphs)
        for g in self.graphs:
            if g.elements > features:
                raise InputError(
                    f"a graph with {g.elements} nodes and edges needs at least as many features, got {features}"
                )
        self.features, self.out_features, self.depth, self.dropout = features, out_features, depth, float(dropout)
        # Models are kept in the order of their numbers of nodes, so that equal ones share a batched product.
        self.order = order = sorted(range(len(self.graphs)), key=lambda m: len(self.graphs[m].nodes))
        counts = [len(self.graphs[m].nodes) for m in order]
        self.sizes = sorted(set(counts))
        self.groups = [counts.count(n) for n in self.sizes]
        for name, table in _tables([self.graphs[m] for m in order], order, features).items():
            own = table.to(torch.get_default_dtype()) if table.is_floating_point() else table
            self.register_buffer(name, own, persistent=False)
        self.register_buffer("elements", torch.tensor(_elements(self.graphs)))
        models = len(order)
        self.layers = nn.ModuleList(StackedLinear(models, features, features) for _ in range(depth))
        self.readout = StackedLinear(models, features, out_features)

    def forward(self, x: Float[Tensor, "models batch features"]) -> Float[Tensor, "models batch o"]:
        """Return the outputs of all models.

        Args:
            x: Vectors, `(models, batch, features)`.

        Raises:
            InputError: For another shape or dtype.
        """
        check_features("x", x, self.readout.weight)
        models, d = len(self.graphs), self.features
        if x.dim() != 3 or x.shape[0] != models or x.shape[2] != d:
            raise InputError(f"x must be ({models}, batch, {d}), got {tuple(x.shape)}")
        batch = x.shape[1]
        # nodes and edges of all models, with the batch inside of a row: (nodes, batch * features)
        tables = (t.split([len(self.place), len(self.ends)]) for t in (self.model, self.coordinate, self.codes))
        node, edge = (
            (x.index_select(0, m).gather(2, i[:, None].expand(-1, batch, -1)) + code.to(x.dtype)[:, None]).flatten(1)
            for m, i, code in zip(*tables, strict=True)
        )
        dropout = self.dropout if self.training else 0.0
        for layer in cast(Iterable[StackedLinear], self.layers):
            node = edge_messages(node, edge.to(node.dtype), self.ends, self.node_starts, self.edge_starts, dropout)
            node = packed_linear(
                node.view(len(self.place) * batch, d), layer.weight, layer.bias, self.groups, self.sizes
            )
            node = node.view(len(self.place), batch * d)
        total = node.new_zeros(models, batch * d).index_add(0, self.place, node).view(models, batch, d)
        return self.readout(total / self.number[:, None, None]).index_select(0, self.given)

    def select(self, model: int) -> GraphModule:
        """Return a module with a copy of the weights of one model.

        Args:
            model: Number of the model.
        """
        whole("model", model, 0)
        if model >= len(self.graphs):
            raise InputError(f"model must be below {len(self.graphs)}, got {model}")
        with torch.random.fork_rng(devices=[]):  # its own weights are not used
            one = GraphModule(
                self.graphs[model], self.features, self.out_features, depth=self.depth, dropout=self.dropout
            )
        row = self.order.index(model)
        state = {k: v[row : row + 1] for k, v in self.state_dict().items() if k != "elements"}
        one.stacked.load_state_dict({**state, "elements": one.stacked.elements})
        return one.to(self.readout.weight).train(self.training)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        """Refuse the checkpoint of other graphs."""
        elements = state_dict.get(f"{prefix}elements")
        if elements is not None and elements.tolist() != _elements(self.graphs):
            arguments[-1].append(f"{prefix}elements: the checkpoint is of other graphs, or of another order of them")
            return
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Keep the codes exact to the dtype: a buffer would keep the rounding of a narrower one before."""
        super()._apply(fn, recurse)
        exact = _tables([self.graphs[m] for m in self.order], self.order, self.features)["codes"]
        self.codes = exact.to(self.codes)
        return self

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{len(self.graphs)} graphs, {self.features} -> {self.out_features}, dropout={self.dropout}"


class GraphModule(nn.Module):
    r"""Network on a vector, conditioned on a graph that a program built (Whitehouse 2023, G-SSNN).

    The vector is split into one segment for each node and edge, in the order in which they were created. Each element
    carries its segment, tiled to the full size, plus a sinusoidal code of its creation order and port. Then
    $n_v \leftarrow W (n_v + \sum_{e = uv} \mathrm{relu}(n_u + m_e)) + b$ (GINE) for `depth` layers, a mean over the
    nodes and a linear readout. Isomorphic graphs that were built differently give different functions.

    The published code counts each edge twice and drops a part of the vector; here every coordinate is used.

    Args:
        graph: Graph of a `GraphMachine`, or an undirected graph of networkx or PyG, whose nodes and then edges are
            created in the order in which it stores them.
        features: Size of the vector, divisible by 4, at least 8, and at least the number of nodes and edges.
        out_features: Size of the output.
        depth: Number of message-passing layers.
        dropout: Dropout on features of nodes and edges before each layer.

    Shapes: `(*batch, features)` to `(*batch, out_features)`.

    Raises:
        InputError: For a graph with more elements than features, or sizes that do not fit.

    Example:
        >>> from commutant.programs import GraphMachine, GraphModule
        >>> graph = GraphMachine().run("(push (add (connect identity)))").graph
        >>> GraphModule(graph, 96, 1)(torch.randn(8, 96)).shape
        torch.Size([8, 1])
    """

    def __init__(
        self,
        graph: PortGraph | networkx.Graph | Data,
        features: int,
        out_features: int,
        *,
        depth: int = 3,
        dropout: int | float = 0.3,
    ) -> None:
        super().__init__()
        self.stacked = GraphModules([graph], features, out_features, depth=depth, dropout=dropout)

    @property
    def graph(self) -> PortGraph:
        """Graph of the module."""
        return self.stacked.graphs[0]

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch o"]:
        """Return the outputs.

        Args:
            x: Vectors, `(*batch, features)`.

        Raises:
            InputError: For another size or dtype.
        """
        check_features("x", x, self.stacked.readout.weight)
        if not x.dim() or x.shape[-1] != self.stacked.features:
            raise InputError(f"x must be (*batch, {self.stacked.features}), got {tuple(x.shape)}")
        flat = x.reshape(1, x.numel() // x.shape[-1], x.shape[-1])
        return self.stacked(flat)[0].reshape(*x.shape[:-1], self.stacked.out_features)


def segments(elements: int, features: int) -> list[range]:
    """Return the coordinates of each element: equal segments, with the remainder in the first one.

    Args:
        elements: Number of nodes and edges.
        features: Size of the vector.
    """
    size, rest = features // elements, features % elements
    return [range(0, size + rest), *(range(rest + i * size, rest + (i + 1) * size) for i in range(1, elements))]


def _element_index(graph: PortGraph, features: int) -> Tensor:
    """Return the coordinate that each element carries at each position, `(elements, features)`, by id."""
    parts = [torch.tensor(s) for s in segments(graph.elements, features)]
    return torch.stack([s.repeat(-(-features // len(s)))[:features] for s in parts])


def _element_codes(graph: PortGraph, features: int) -> Tensor:
    """Return the codes of order and port of nodes and then edges, `(elements, features)`."""
    order = torch.tensor([*graph.nodes, *(e for e, *_ in graph.edges)], dtype=torch.float64)
    port = torch.tensor([*(0 for _ in graph.nodes), *(p + 1 for *_, p in graph.edges)], dtype=torch.float64)
    q = features // 4
    frequency = 10_000.0 ** (-torch.arange(q, dtype=torch.float64) / (q - 1))
    a, b = order[:, None] * frequency, port[:, None] * frequency
    return torch.cat([a.sin(), a.cos(), b.sin(), b.cos()], 1)


def _elements(graphs: Sequence[PortGraph]) -> list[list[int]]:
    """Return model, id, ends and port of all elements, which tell graphs apart, `(elements, 5)`."""
    rows = [[m, v, -1, -1, -1] for m, g in enumerate(graphs) for v in g.nodes]
    rows += [[m, e, min(a, b), max(a, b), p] for m, g in enumerate(graphs) for e, a, b, p in g.edges]
    return sorted(rows)


def _tables(graphs: Sequence[PortGraph], order: Sequence[int], features: int) -> dict[str, Tensor]:
    """Return the index tables of graphs that are given in another order."""
    index = [_element_index(g, features) for g in graphs]
    codes = [_element_codes(g, features) for g in graphs]
    starts = [0]
    for g in graphs:
        starts.append(starts[-1] + len(g.nodes))
    arcs = []
    for start, g in zip(starts, graphs, strict=False):
        row = {node: start + i for i, node in enumerate(g.nodes)}
        arcs += [(row[a], row[b]) for _, a, b, _ in g.edges]
    ends = torch.tensor(arcs, dtype=torch.long).reshape(-1, 2)
    nodes, edges = [torch.tensor([len(g.nodes) for g in graphs]), torch.tensor([len(g.edges) for g in graphs])]
    given = torch.tensor(order)
    return {
        "coordinate": torch.cat(
            [i[list(g.nodes)] for i, g in zip(index, graphs, strict=True)]
            + [i[[e for e, *_ in g.edges]] for i, g in zip(index, graphs, strict=True)]
        ),
        "codes": torch.cat(
            [c[:n] for c, n in zip(codes, nodes, strict=True)] + [c[n:] for c, n in zip(codes, nodes, strict=True)]
        ),
        "model": torch.cat([given.repeat_interleave(nodes), given.repeat_interleave(edges)]),
        "place": torch.arange(len(graphs)).repeat_interleave(nodes),
        "number": nodes,
        "ends": ends,
        "node_starts": torch.cat([nodes.new_zeros(1), nodes.cumsum(0)]),
        "edge_starts": torch.cat([edges.new_zeros(1), edges.cumsum(0)]),
        "given": given.argsort(),
    }


def _as_port_graph(graph: Any) -> PortGraph:
    if isinstance(graph, PortGraph):
        graph.check()
        return graph
    if hasattr(type(graph), "edge_index") or "edge_index" in getattr(graph, "__dict__", ()):
        return PortGraph.from_data(graph)
    if hasattr(graph, "is_multigraph"):
        return PortGraph.from_networkx(graph)
    raise InputError(
        f"a graph must be a PortGraph, an undirected networkx graph or PyG data, got {type(graph).__name__}"
    )
