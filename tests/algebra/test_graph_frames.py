"""Frames of graphs: equivariance, sizes, canonical forms, and hard graphs."""

from math import factorial

import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.algebra import graph_certificate, graph_frame
from commutant.geometry import GraphAverage

nx = pytest.importorskip("networkx")
ATLAS = [g for g in nx.graph_atlas_g() if g.number_of_nodes() == 6 and nx.is_connected(g)]


def matrix(graph):
    return torch.tensor(nx.to_numpy_array(graph))[None]


def relabeled(adjacency, seed=0):
    order = torch.randperm(adjacency.shape[-1], generator=torch.Generator().manual_seed(seed))
    return adjacency[:, order][:, :, order], order


def rook():
    return nx.convert_node_labels_to_integers(nx.line_graph(nx.complete_bipartite_graph(4, 4)))


def shrikhande():
    graph = nx.Graph()
    for i in range(4):
        for j in range(4):
            graph.add_edges_from(((i, j), ((i + a) % 4, (j + b) % 4)) for a, b in ((0, 1), (1, 0), (1, 1)))
    return nx.convert_node_labels_to_integers(graph)


def latin_square():
    """Return a strongly regular graph with few symmetries, of a Latin square of order five that is no group table."""
    square = ["01234", "10342", "24013", "32401", "43120"]
    cells = [(i, j, square[i][j]) for i in range(5) for j in range(5)]
    pairs = [
        (a, b) for a in range(25) for b in range(a) if any(x == y for x, y in zip(cells[a], cells[b], strict=True))
    ]
    return nx.Graph(pairs)


HARD = {
    "frucht": nx.frucht_graph(),
    "latin square": latin_square(),
    "ring of forty": nx.cycle_graph(40),
    "six edges apart": nx.Graph([(2 * i, 2 * i + 1) for i in range(6)]),
    "tree": nx.balanced_tree(2, 3),
    "complete": nx.complete_graph(6),
    "empty": nx.empty_graph(5),
    "disconnected": nx.disjoint_union(nx.cycle_graph(4), nx.path_graph(3)),
    "two triangles": nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)),
    "petersen": nx.petersen_graph(),
    "rook": rook(),
    "shrikhande": shrikhande(),
    "star": nx.star_graph(5),
    "cube": nx.hypercube_graph(3),
    "one node": nx.empty_graph(1),
}


def network(pairs):
    n = pairs.shape[1] ** 2
    weight = torch.sin(torch.arange(n * 12, dtype=torch.float64) * 1.3 + 0.2).reshape(n, 12)
    return torch.tanh(pairs.flatten(1) @ weight + weight[0]).cumsum(-1).sin()


@pytest.mark.parametrize("kind", ["refined", "spectral"])
def test_frames_move_with_the_graph(kind, deep):
    graphs = ATLAS if deep else ATLAS[::4]
    adjacency = torch.cat([matrix(g) for g in graphs])
    moved, order = relabeled(adjacency)
    first, second = (graph_frame(a, kind=kind) for a in (adjacency, moved))
    for g in range(0, len(graphs), 7):
        # node j of the moved graph is node order[j] of the first
        ours = {tuple(p) for p in first.order[first.graph == g].tolist()}
        theirs = {tuple(order[p].tolist()) for p in second.order[second.graph == g]}
        assert ours == theirs
    values = [f.pool(network(f.canonicalize(a, "pairs"))) for f, a in ((first, adjacency), (second, moved))]
    assert torch.allclose(*values, atol=1e-12)
    assert float(torch.pdist(values[0]).min()) > 1e-4, "all pairs of graphs are told apart"


def test_the_refined_frame_is_the_automorphism_group_in_size(deep):
    graphs = ATLAS if deep else ATLAS[::2]
    adjacency = torch.cat([matrix(g) for g in graphs])
    sizes = torch.bincount(graph_frame(adjacency).graph).tolist()
    for graph, size in zip(graphs, sizes, strict=True):
        matcher = nx.isomorphism.GraphMatcher(graph, graph)
        assert size == sum(1 for _ in matcher.isomorphisms_iter())


def test_the_spectral_frame_has_the_sizes_of_the_paper():
    """Check the atlas of connected graphs with seven nodes: 136 have one order, the median is 4 and the mean 35."""
    graphs = [g for g in nx.graph_atlas_g() if g.number_of_nodes() == 7 and nx.is_connected(g)]
    sizes = torch.bincount(graph_frame(torch.cat([matrix(g) for g in graphs]), kind="spectral").graph)
    assert len(graphs) == 853
    assert int((sizes == 1).sum()) == 136
    assert int(sizes.median()) == 4
    assert round(float(sizes.double().mean())) == 35
    assert int(sizes.max()) == factorial(7)


@pytest.mark.parametrize("name", HARD)
def test_canonical_forms_of_hard_graphs(name):
    adjacency = matrix(HARD[name])
    forms = []
    for seed in range(3):
        moved, _ = relabeled(adjacency, seed)
        forms.append(graph_frame(moved, invariant=True).canonicalize(moved, "pairs"))
    assert torch.equal(forms[0], forms[1])
    assert torch.equal(forms[0], forms[2])
    assert torch.equal(graph_frame(adjacency, invariant=True).canonicalize(adjacency, "pairs"), forms[0])


def test_graphs_that_share_all_signatures_are_told_apart():
    """Check the rook's graph and the Shrikhande graph, with one spectrum and one row of S for all nodes."""
    first, second = (
        graph_frame(a, invariant=True).canonicalize(a, "pairs") for a in map(matrix, (rook(), shrikhande()))
    )
    assert not torch.equal(first, second)
    with pytest.raises(InputError, match="orders sort the spectral signatures"):
        graph_frame(matrix(rook()), kind="spectral")
    assert (len(graph_frame(matrix(rook()))), len(graph_frame(matrix(shrikhande())))) == (1152, 192)


def test_weights_features_and_masks_are_respected():
    weights = torch.tensor([[0.0, 1.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.5], [0.5, 0.0, 0.0, 1.0], [0.0, 0.5, 1.0, 0.0]])[
        None
    ]
    assert len(graph_frame(weights)) == 4
    colored = torch.tensor([[[1.0], [0.0], [0.0], [0.0]]])
    assert len(graph_frame(weights, colored)) == 1
    loops = weights + torch.diag(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert len(graph_frame(loops)) == 1
    padded = torch.full((1, 6, 6), 9.0)
    padded[:, 1:5, 1:5] = weights
    mask = torch.tensor([[False, True, True, True, True, False]])
    frame = graph_frame(padded, mask=mask)
    assert len(frame) == 4
    assert torch.equal(frame.canonicalize(mask), torch.tensor([[True] * 4 + [False] * 2] * 4))
    bare = graph_frame(weights).canonicalize(weights, "pairs")
    assert torch.equal(frame.canonicalize(padded, "pairs")[:, :4, :4].unique(dim=0), bare.unique(dim=0))


def test_weights_of_very_different_sizes_are_kept_apart():
    adjacency = matrix(nx.path_graph(6))
    adjacency[:, 4, 5] = adjacency[:, 5, 4] = 3e6
    forms = [
        graph_frame(a, invariant=True).canonicalize(a, "pairs") for a in (relabeled(adjacency, s)[0] for s in range(6))
    ]
    assert all(torch.equal(form, forms[0]) for form in forms)
    near = matrix(nx.cycle_graph(8)) * (1 + 1e-9 * torch.rand(8, 8).double())
    near = (near + near.mT) / 2
    forms = [graph_frame(a, invariant=True).canonicalize(a, "pairs") for a in (relabeled(near, s)[0] for s in range(6))]
    assert all(torch.equal(form, forms[0]) for form in forms)


def test_padding_is_never_seen():
    net = lambda a, m: (a * torch.arange(36).reshape(6, 6)).sum((1, 2))  # noqa: E731
    mask = torch.tensor([[True, False, True, True, False, True]])
    adjacency = matrix(nx.path_graph(6)).float()
    outs = []
    for junk in (0.0, 5.0, torch.nan):
        noisy = torch.where(mask[:, :, None] & mask[:, None, :], adjacency, junk)
        outs.append(GraphAverage(net)(noisy, mask=mask))
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_what_was_reordered_is_restored():
    adjacency = torch.cat([matrix(g) for g in ATLAS[:5]])
    frame = graph_frame(adjacency)
    nodes, pairs = torch.randn(5, 6, 2), torch.randn(5, 6, 6, 2)
    assert torch.allclose(frame.pool(frame.restore(frame.canonicalize(nodes), "nodes")), nodes, atol=1e-6)
    assert torch.allclose(frame.pool(frame.restore(frame.canonicalize(pairs, "pairs"), "pairs")), pairs, atol=1e-6)


class Numbered(torch.nn.Module):
    """Network of one round of message passing that sees the index of every node."""

    def __init__(self, n, width=8):
        super().__init__()
        self.embed, self.out = torch.nn.Linear(n + 1, width), torch.nn.Linear(width, 3)

    def forward(self, adjacency, features, mask=None):
        one = torch.eye(adjacency.shape[1]).to(features).expand(len(adjacency), -1, -1)
        h = torch.tanh(self.embed(torch.cat([features, one], -1)))
        return self.out(torch.tanh(adjacency @ h + h))


@pytest.mark.parametrize("outputs", ["nodes", "scalars"])
@pytest.mark.parametrize("kind", ["refined", "spectral"])
def test_a_numbered_network_is_made_symmetric(outputs, kind):
    base = Numbered(6).double()
    net = base if outputs == "nodes" else lambda a, x: base(a, x).sum(1)
    model = GraphAverage(net, outputs, kind=kind)
    adjacency = torch.cat([matrix(g) for g in ATLAS[20:40]])
    features = torch.randint(0, 2, (20, 6, 1)).double()
    moved, order = relabeled(adjacency, 4)
    first, second = model(adjacency, features), model(moved, features[:, order])
    expected = first[:, order] if outputs == "nodes" else first
    assert torch.allclose(expected, second, atol=1e-12)
    plain = net(adjacency, features), net(moved, features[:, order])
    assert not torch.allclose(plain[0][:, order] if outputs == "nodes" else plain[0], plain[1], atol=1e-3)


def test_samples_in_training():
    seen = []
    model = GraphAverage(lambda a: seen.append(len(a)) or a.flatten(1).cumsum(1), kind="spectral", samples=2)
    adjacency = torch.cat([matrix(g) for g in ATLAS[:4]])
    model.train()(adjacency), model.eval()(adjacency)
    assert seen[0] == 8
    assert seen[1] == len(graph_frame(adjacency, kind="spectral"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: graph_frame(torch.rand(3, 3)), "must be"),
        (lambda: graph_frame(torch.triu(torch.ones(1, 3, 3))), "not symmetric; symmetrize it"),
        (lambda: graph_frame(torch.full((1, 3, 3), torch.nan)), "finite"),
        (lambda: graph_frame(torch.ones(1, 3, 3), torch.full((1, 3, 1), torch.inf)), "features must be finite"),
        (lambda: graph_frame(torch.ones(1, 3, 3), torch.ones(1, 4, 1)), "features must begin with"),
        (lambda: graph_frame(torch.ones(1, 3, 3), kind="nauty"), "kind must be"),
        (lambda: graph_frame(matrix(nx.complete_graph(9)), max_frames=200), "too many symmetries"),
        (lambda: graph_frame(torch.ones(1, 3, 3)).canonicalize(torch.ones(1, 4)), "begins with"),
        (lambda: graph_frame(torch.ones(1, 3, 3)).canonicalize(torch.ones(1, 3), "edges"), "kind must be"),
        (lambda: graph_frame(torch.ones(1, 3, 3)).sample(0), "at least 1"),
        (lambda: GraphAverage(torch.nn.Identity(), "edges"), "outputs must be"),
        (lambda: GraphAverage(torch.nn.Identity(), samples=0), "samples must be"),
    ],
)
def test_bad_input_is_named(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()


def test_no_graphs_and_no_nodes():
    assert len(graph_frame(torch.zeros(0, 3, 3))) == 0
    nothing = graph_frame(torch.zeros(2, 0, 0))
    assert nothing.order.shape == (2, 0)
    assert np.isclose(float(nothing.weight.sum()), 2)


def test_certificates_of_all_small_graphs():
    """Equal for relabeled graphs, and different for all pairs of the atlas that are not isomorphic."""
    graphs = [g for g in nx.graph_atlas_g() if 0 < len(g) <= 6]
    g = torch.Generator().manual_seed(0)
    found = set()
    for graph in graphs:
        a = torch.from_numpy(nx.to_numpy_array(graph))
        order = torch.randperm(len(a), generator=g)
        assert graph_certificate(a) == graph_certificate(a[order][:, order])
        found.add(graph_certificate(a))
    assert len(found) == len(graphs)


def test_certificates_of_weights_loops_and_signed_zeros():
    a = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert graph_certificate(-a) == graph_certificate(torch.tensor([[0.0, -1.0], [-1.0, 0.0]]))
    assert graph_certificate(a) == graph_certificate(a.long()) == graph_certificate(a.bfloat16())
    assert graph_certificate(a) != graph_certificate(2 * a) != graph_certificate(a + torch.eye(2))
    assert graph_certificate(torch.zeros(0, 0)) != graph_certificate(torch.zeros(1, 1))
    assert graph_certificate(matrix(rook())[0]) != graph_certificate(matrix(shrikhande())[0])


@pytest.mark.parametrize(
    ("adjacency", "words"),
    [
        (torch.zeros(2, 3), "must be a matrix"),
        (torch.zeros(2), "must be a matrix"),
        ([[0]], "must be a matrix"),
        (torch.tensor([[0.0, 1.0], [0.0, 0.0]]), "must be symmetric"),
        (torch.full((2, 2), torch.nan), "must be finite"),
        (torch.eye(2).to_sparse(), "dense real matrix"),
        (torch.eye(2) * 1j, "dense real matrix"),
        (torch.full((2, 2), 2**53 + 1), "at most 2\\^53"),
        (torch.block_diag(*[torch.tensor([[0.0, 1.0], [1.0, 0.0]])] * 8), "more than max_leaves=3"),
    ],
)
def test_what_has_no_certificate(adjacency, words, unchecked):
    with pytest.raises(InputError, match=words):
        graph_certificate(adjacency, max_leaves=3)
