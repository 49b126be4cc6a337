"""The machine whose programs build graphs with ports (Whitehouse 2023)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._checks import is_whole, whole
from .._errors import InputError
from ..algebra import graph_certificate
from ._machine import Machine

if TYPE_CHECKING:
    import networkx
    from torch_geometric.data import Data


@dataclass(frozen=True)
class PortGraph:
    """Undirected graph whose edges occupy one port, of the same number, at both of their ends.

    Nodes and edges share one count of ids: each has the number of elements that existed before it.

    Args:
        nodes: Ids of the nodes, ascending.
        edges: `(id, smaller end, larger end, port)` of each edge, by ascending id.
    """

    nodes: tuple[int, ...] = (0,)
    edges: tuple[tuple[int, int, int, int], ...] = ()

    @cached_property
    def links(self) -> Mapping[tuple[int, int], tuple[int, int]]:
        """Edge and node at the other end, for each occupied `(node, port)`."""
        ends = ((a, b, e, p) for e, *pair, p in self.edges for a, b in (pair, pair[::-1]))
        return {(a, p): (e, b) for a, b, e, p in ends}

    def check(self) -> None:
        """Raise InputError unless ids are dense, edges join two nodes, and no port is occupied twice."""
        whole_ = all(is_whole(v) for v in self.nodes) and all(len(e) == 4 and all(map(is_whole, e)) for e in self.edges)
        if not whole_:
            raise InputError("a graph must have whole numbers as nodes and (id, end, end, port) as edges")
        ids = sorted([*self.nodes, *(e for e, *_ in self.edges)])
        if not self.nodes or ids != list(range(len(ids))):
            raise InputError(
                f"a graph must have at least one node, and its ids must be 0 .. {len(ids) - 1}, got {ids!r:.60}"
            )
        taken: set[tuple[int, int]] = set()
        for e, a, b, port in self.edges:
            if a == b or a not in self.nodes or b not in self.nodes:
                raise InputError(f"the ends of an edge must be two nodes, got {a} and {b} for edge {e}")
            if port < 0 or taken & {(a, port), (b, port)}:
                raise InputError(f"port {port} of edge {e} must not be negative, and must be free at both ends")
            taken |= {(a, port), (b, port)}

    @property
    def elements(self) -> int:
        """Number of nodes and edges."""
        return len(self.nodes) + len(self.edges)

    @cached_property
    def isolated(self) -> bool:
        """True if the newest node has no edge and is not alone."""
        newest = self.nodes[-1]
        return len(self.nodes) > 1 and not any(newest in edge[1:3] for edge in self.edges[::-1])

    @cached_property
    def adjacency(self) -> Tensor:
        """Adjacency matrix of the simple graph without ports, `(nodes, nodes)`, boolean."""
        place = {node: i for i, node in enumerate(self.nodes)}
        matrix = torch.zeros(len(self.nodes), len(self.nodes), dtype=torch.bool)
        for _, a, b, _ in self.edges:
            matrix[place[a], place[b]] = matrix[place[b], place[a]] = True
        return matrix

    @cached_property
    def certificate(self) -> bytes:
        """Canonical form of the simple graph; see `commutant.algebra.graph_certificate`."""
        return graph_certificate(self.adjacency)

    def to_networkx(self) -> networkx.MultiGraph:
        """Return a networkx multigraph whose edges have the attributes `id` and `port`."""
        import networkx

        graph = networkx.MultiGraph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from((a, b, {"id": e, "port": p}) for e, a, b, p in self.edges)
        return graph

    def to_data(self) -> Data:
        """Return a PyG graph with both directions of each edge, and the ids and ports of the elements."""
        from torch_geometric.data import Data

        place = {node: i for i, node in enumerate(self.nodes)}
        arcs = [(place[a], place[b], e, p) for e, *pair, p in self.edges for a, b in (pair, pair[::-1])]
        table = torch.tensor(arcs, dtype=torch.long).reshape(-1, 4)
        return Data(
            edge_index=table[:, :2].T.contiguous(),
            edge_id=table[:, 2],
            port=table[:, 3],
            node_id=torch.tensor(self.nodes),
            num_nodes=len(self.nodes),
        )

    @classmethod
    def from_data(cls, data: Data) -> PortGraph:
        """Return the graph of PyG data: that of `to_data`, or any undirected one as `from_networkx` takes it.

        Args:
            data: PyG data with `edge_index`, both directions of each edge.
        """
        from torch_geometric.utils import is_undirected

        try:
            ends: Any = data.edge_index
            count = data.num_nodes
        except (AttributeError, KeyError):
            ends = count = None
        fits = isinstance(ends, Tensor) and ends.dim() == 2 and ends.shape[0] == 2 and ends.dtype == torch.int64
        if not fits or not isinstance(count, int):
            given = f"{ends.dtype} {tuple(ends.shape)}" if isinstance(ends, Tensor) else type(data).__name__
            raise InputError(f"expected PyG Data with an int64 edge_index (2, edges) and num_nodes, got {given}")
        if ends.numel() and not (int(ends.min()) >= 0 and int(ends.max()) < count):
            raise InputError(f"edge_index must lie in 0..{count - 1}, got {int(ends.min())} to {int(ends.max())}")
        if ends.numel() and not is_undirected(ends, num_nodes=count):
            raise InputError("expected undirected PyG data; use torch_geometric.utils.to_undirected")
        pairs = ends.T.tolist()
        if all(hasattr(data, name) for name in ("node_id", "edge_id", "port")):
            ids = data.node_id.tolist()
            table = zip(data.edge_id.tolist(), pairs, data.port.tolist(), strict=True)
            known = {e: (e, *sorted((ids[a], ids[b])), p) for e, (a, b), p in table}
            graph = cls(tuple(ids), tuple(known[e] for e in sorted(known)))
            graph.check()
            return graph
        import networkx

        plain = networkx.Graph()
        plain.add_nodes_from(range(data.num_nodes))
        plain.add_edges_from(pairs)
        return cls.from_networkx(plain)

    @classmethod
    def from_networkx(cls, graph: Any) -> PortGraph:
        """Return a graph whose elements are created in the order in which networkx stores them.

        Nodes come first, then edges; each edge takes the smallest port that is free at both ends. A graph of
        `to_networkx` keeps its ids and ports.

        Args:
            graph: Undirected networkx graph, with at least one node and without self-loops.
        """
        if getattr(graph, "is_directed", lambda: True)() or not len(graph):
            raise InputError(f"expected an undirected networkx graph with at least one node, got {graph!r:.80}")
        numbered = all(isinstance(node, int) for node in graph.nodes)
        ours = [(a, b, d) for a, b, d in graph.edges(data=True) if numbered and {"id", "port"} <= set(d)]
        named = [(d["id"], *sorted((a, b)), d["port"]) for a, b, d in ours]
        if named and len(named) == graph.number_of_edges():
            known = cls(tuple(sorted(graph.nodes)), tuple(sorted(named)))
            known.check()
            return known
        place = {node: i for i, node in enumerate(graph.nodes)}
        taken: set[tuple[int, int]] = set()
        edges = []
        for number, (u, v) in enumerate(graph.edges()):
            a, b = place[u], place[v]
            if a == b:
                raise InputError(f"graphs must have no self-loops, got one at node {u!r}")
            port = next(p for p in range(len(taken) + 1) if (a, p) not in taken and (b, p) not in taken)
            taken |= {(a, port), (b, port)}
            edges.append((len(place) + number, min(a, b), max(a, b), port))
        return cls(tuple(range(len(place))), tuple(edges))


@dataclass(frozen=True)
class GraphState:
    """State of a `GraphMachine`: a graph, a cursor with a port, and a stack of nodes.

    Args:
        graph: Graph.
        position: Node of the cursor.
        port: Port of the cursor.
        stack: Nodes, the top last.
    """

    graph: PortGraph = PortGraph()
    position: int = 0
    port: int = 0
    stack: tuple[int, ...] = ()


class GraphMachine(Machine[GraphState, PortGraph]):
    """Machine whose programs build connected graphs, one node or edge at a time.

    It starts with one node, the cursor on it and an empty stack. At most one node is without edges at any time, and the
    cursor is on it then. Actions whose condition fails change nothing:

    - `next_port`, `prev_port`: change the cursor's port, modulo `max_conn`.
    - `move`: go to the other end of the edge at the cursor's port.
    - `push`: put the cursor's node on the stack.
    - `pop`: remove the top of the stack. While a node has no edges, something else must stay on the stack.
    - `add`: create a node and go there, if the stack is not empty and no node is without edges.
    - `connect`: create an edge to the top of the stack at the cursor's port, which must be free at both ends.

    `func f g` keeps the graph of f, unless a node has no edges then, and restores cursor and stack. Outputs are graphs
    with more than one node and one component. Two are the same if they are isomorphic as simple graphs.

    Args:
        max_conn: Number of ports of a node, at least one.

    References:
        Whitehouse 2023, "Symbolic Synthesis of Neural Networks".

    Example:
        >>> machine = GraphMachine(max_conn=10)
        >>> machine.run("(push (add (connect identity)))").graph
        PortGraph(nodes=(0, 1), edges=((2, 0, 1, 0),))
    """

    name = "graph machine"

    def __init__(self, max_conn: int = 10) -> None:
        whole("max_conn", max_conn)
        self.max_conn = int(max_conn)

    def __repr__(self) -> str:
        return f"GraphMachine(max_conn={self.max_conn})"

    def start(self) -> GraphState:
        """Return the state with a single node."""
        return GraphState()

    @cached_property
    def actions(self) -> Mapping[str, Callable[[GraphState], GraphState]]:  # type: ignore[override]
        """Changes of a state, by name."""
        return {
            "next_port": lambda s: replace(s, port=(s.port + 1) % self.max_conn),
            "prev_port": lambda s: replace(s, port=(s.port - 1) % self.max_conn),
            "move": _move,
            "push": lambda s: replace(s, stack=(*s.stack, s.position)),
            "pop": _pop,
            "add": _add,
            "connect": _connect,
        }

    def keep(self, before: GraphState, after: GraphState) -> GraphState:
        """Return the graph after a sub-program with the cursor and stack before it.

        Args:
            before: State in which the sub-program started.
            after: State in which it ended; its graph is dropped if a node has no edges.
        """
        return before if after.graph.isolated else replace(before, graph=after.graph)

    def same(self, left: GraphState, right: GraphState) -> bool:
        """Return whether two cursors are at the same node.

        Args:
            left: State.
            right: State.
        """
        return left.position == right.position

    def output(self, state: GraphState) -> PortGraph | None:
        """Return the graph of a state, or None if it has one node or two components.

        Args:
            state: Final state.
        """
        return state.graph if len(state.graph.nodes) > 1 and not state.graph.isolated else None

    def key(self, output: PortGraph) -> Hashable:
        """Return the canonical form of the simple graph.

        Args:
            output: Graph.
        """
        return output.certificate

    def fingerprint(self, state: GraphState, saved: Sequence[GraphState] = ()) -> Hashable:
        """Return the state up to names of nodes, creation order, and rotation of the ports.

        A walk from the cursor that takes ports in order meets the nodes in an order that no name decides, since the
        graph is connected and ports tell edges apart. Actions refer to ports only relative to the cursor's. Of the
        saved states only cursors and stacks come back, unless a sub-program leaves a node without edges, which changes
        nothing.

        Args:
            state: State.
            saved: States in which the sub-programs started that have not ended.
        """
        n, first = self.max_conn, state.port
        number = {state.position: 0}
        order = [state.position]
        if state.graph.isolated:  # the rest hangs on the stacks
            stacks = (node for s in (state, *saved[::-1]) for node in (*s.stack[::-1], s.position))
            order.append(next(node for node in stacks if node != state.position))
            number[order[1]] = 1
        around: dict[int, list[tuple[int, int]]] = {}
        for (node, port), (_, end) in state.graph.links.items():
            around.setdefault(node, []).append(((port - first) % n, end))
        edges = []
        for node in order:  # grows while the walk goes on
            for port, end in sorted(around.get(node, ())):
                if end not in number:
                    number[end] = len(order)
                    order.append(end)
                if number[node] < number[end]:
                    edges.append((number[node], port, number[end]))
        cursors = tuple((number[s.position], (s.port - first) % n) for s in saved)
        stacks_ = tuple(tuple(number[node] for node in s.stack) for s in (state, *saved))
        return len(order), tuple(edges), cursors, stacks_


def _move(s: GraphState) -> GraphState:
    link = s.graph.links.get((s.position, s.port))
    return s if link is None else replace(s, position=link[1])


def _pop(s: GraphState) -> GraphState:
    rest = s.stack[:-1]
    if s.graph.isolated and not any(node != s.position for node in rest):
        return s
    return replace(s, stack=rest)


def _add(s: GraphState) -> GraphState:
    if not s.stack or s.graph.isolated:
        return s
    node = s.graph.elements
    return replace(s, graph=replace(s.graph, nodes=(*s.graph.nodes, node)), position=node)


def _connect(s: GraphState) -> GraphState:
    if not s.stack or s.stack[-1] == s.position:
        return s
    other, links = s.stack[-1], s.graph.links
    if (s.position, s.port) in links or (other, s.port) in links:
        return s
    edge = (s.graph.elements, min(s.position, other), max(s.position, other), s.port)
    return replace(s, graph=replace(s.graph, edges=(*s.graph.edges, edge)))
