"""Messages along edges: the kernel in C beside PyTorch, forward, backward and twice, with dropout."""

from __future__ import annotations

import pytest
import torch

from commutant import InputError
from commutant.kernels import _messages, _native, edge_messages
from warm import python

pytestmark = pytest.mark.skipif(_native.library() is None, reason="no C compiler")


def drawn(models=5, channels=37, dtype=torch.float32, seed=0):
    """Return nodes, edges, their ends and starts of random small graphs; one has no edges."""
    g = torch.Generator().manual_seed(seed)
    sizes = torch.randint(2, 7, (models,), generator=g)
    nodes = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    ends, counts = [], []
    for m in range(models):
        pairs = torch.combinations(torch.arange(int(sizes[m]))) + nodes[m]
        chosen = pairs[torch.rand(len(pairs), generator=g) < (0.6 if m else -1)]
        ends.append(torch.cat([chosen, chosen[:1]]))  # one edge twice
        counts.append(len(ends[-1]))
    edges = torch.cat([torch.zeros(1, dtype=torch.long), torch.tensor(counts).cumsum(0)])
    node = torch.randn(int(nodes[-1]), channels, generator=g, dtype=torch.float64).to(dtype)
    edge = torch.randn(int(edges[-1]), channels, generator=g, dtype=torch.float64).to(dtype)
    return node.requires_grad_(), edge.requires_grad_(), torch.cat(ends), nodes, edges


@pytest.mark.parametrize("channels", [1, 8, 37, 96])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_kernel_is_its_equivalent(channels, dropout, monkeypatch):
    node, edge, *rest = drawn(channels=channels)
    weight = torch.randn(node.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(_native, "library", lambda: None)
        torch.manual_seed(3)
        out = edge_messages(node, edge, *rest, dropout)
        results.append((out, *torch.autograd.grad((out * weight).sum(), (node, edge))))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


def test_sums_by_hand():
    node, edge = torch.tensor([[1.0], [-2.0], [3.0]]), torch.tensor([[0.5], [-1.0]])
    starts = torch.tensor([0, 3]), torch.tensor([0, 2])
    out = edge_messages(node, edge, torch.tensor([[0, 1], [1, 2]]), *starts)
    assert out.flatten().tolist() == [1 + 0, -2 + 1.5 + 2, 3 + 0]


def test_dropout_has_its_share_and_keeps_the_mean():
    node, starts = torch.ones(2001, 100), torch.tensor([0, 2001])
    none = torch.zeros(2, dtype=torch.long)
    torch.manual_seed(0)
    for p in (0.1, 0.3, 0.5, 0.9):
        out = edge_messages(node, node[:0], torch.zeros(0, 2, dtype=torch.long), starts, none, p)
        assert float((out == 0).float().mean()) == pytest.approx(p, abs=0.006)
        assert float(out.mean()) == pytest.approx(1, abs=0.05)
        assert len(out.unique()) == 2
        kept = (out > 0).double()
        for other in (kept.roll(1, 0), kept.roll(1, 1), kept.roll(7, 1)):  # neighbors are independent
            assert abs(float(torch.stack([kept.flatten(), other.flatten()]).corrcoef()[0, 1])) < 0.01
    other = edge_messages(node, node[:0], torch.zeros(0, 2, dtype=torch.long), starts, none, 0.9)
    assert float(((other > 0) == (out > 0)).float().mean()) == pytest.approx(0.82, abs=0.01)  # another seed


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_derivatives_of_both_orders(dropout):
    node, edge, *rest = drawn(models=2, channels=3, dtype=torch.float64)

    def f(n, e):
        torch.manual_seed(7)
        return edge_messages(n, e, *rest, dropout)

    assert torch.autograd.gradcheck(f, (node, edge))
    assert torch.autograd.gradgradcheck(lambda n, e: f(n**2, e**2), (node, edge))


def test_second_derivatives_in_float32():
    node, edge, *rest = drawn()
    out = edge_messages(node**2, edge, *rest)
    (first,) = torch.autograd.grad(out.square().sum(), node, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), node)
    node64, edge64 = (t.detach().double().requires_grad_() for t in (node, edge))
    out = edge_messages(node64**2, edge64, *rest)
    (first,) = torch.autograd.grad(out.square().sum(), node64, create_graph=True)
    (wanted,) = torch.autograd.grad(first.sum(), node64)
    torch.testing.assert_close(second.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_run_without_the_kernel(dtype):
    node, edge, *rest = drawn(dtype=dtype)
    out = edge_messages(node, edge, *rest)
    assert out.dtype == dtype
    wanted = edge_messages(node.float(), edge.float(), *rest)
    torch.testing.assert_close(out.float(), wanted, rtol=2e-2, atol=2e-2)


def test_transforms_and_layouts():
    node, edge, *rest = drawn(channels=6)
    wanted = edge_messages(node, edge, *rest)
    strided = edge_messages(node.detach().T.contiguous().T, edge.detach().T.contiguous().T, *rest)
    torch.testing.assert_close(strided, wanted)
    batch = torch.func.vmap(lambda n: edge_messages(n, edge, *rest))(torch.stack([node, 2 * node]))
    torch.testing.assert_close(batch[0], wanted)
    _, tangent = torch.func.jvp(lambda n: edge_messages(n, edge, *rest), (node,), (torch.ones_like(node),))
    assert bool(tangent.isfinite().all())
    with torch.no_grad():
        assert edge_messages(node, edge, *rest).grad_fn is None


def test_it_compiles():
    python(
        "import torch\n"
        "from commutant.kernels import edge_messages\n"
        "n, e = torch.randn(3, 8, requires_grad=True), torch.randn(2, 8)\n"
        "starts = torch.tensor([0, 3]), torch.tensor([0, 2])\n"
        "ends = torch.tensor([[0, 1], [1, 2]])\n"
        "g = lambda n, e: edge_messages(n, e, ends, *starts, 0.0) * 2\n"
        "f = torch.compile(g, backend='aot_eager', fullgraph=True)\n"
        "torch.testing.assert_close(f(n, e), 2 * edge_messages(n, e, ends, *starts))\n"
        "f(n, e).sum().backward()\n"
        "assert n.grad is not None\n"
    )


def test_the_hash_is_that_of_the_kernel():
    x = torch.tensor([0, 1, 12345, 2**32 - 1])
    wanted = []
    for v in x.tolist():
        v ^= v >> 16
        v = v * 0x85EBCA6B % 2**32
        v ^= v >> 13
        v = v * 0xC2B2AE35 % 2**32
        wanted.append(v ^ (v >> 16))
    assert _messages._mixed(x).tolist() == wanted


NODE, EDGE = torch.zeros(3, 2), torch.zeros(1, 2)
ENDS, NODES, EDGES = torch.tensor([[0, 1]]), torch.tensor([0, 3]), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((NODE, torch.zeros(1, 3), ENDS, NODES, EDGES), "must fit together"),
        ((NODE, EDGE.double(), ENDS, NODES, EDGES), "must fit together"),
        ((NODE, EDGE, ENDS[0], NODES, EDGES), "must fit together"),
        ((NODE, EDGE, ENDS, NODES, EDGES[:1]), "must fit together"),
        ((NODE, EDGE, torch.tensor([[0, 3]]), NODES, EDGES), "two nodes of its own model"),
        ((NODE, EDGE, torch.tensor([[-1, 0]]), NODES, EDGES), "two nodes of its own model"),
        ((NODE, EDGE, torch.tensor([[0, 2]]), torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1])), "of its own model"),
        ((NODE, EDGE, torch.tensor([[1, 1]]), NODES, EDGES), "self-loop"),
        ((NODE, EDGE, ENDS.int(), NODES, EDGES), "ends must be int64"),
        ((NODE, EDGE, ENDS, torch.tensor([0, 4]), EDGES), "node_starts must be ascending"),
        ((NODE, EDGE, ENDS, torch.tensor([1, 3]), EDGES), "node_starts must be ascending"),
        ((NODE, EDGE, ENDS, NODES, torch.tensor([0, 2])), "edge_starts must be ascending"),
        ((NODE, EDGE, ENDS, NODES.int(), EDGES.int()), "node_starts must be ascending int64"),
        ((NODE, EDGE, ENDS, NODES, EDGES, 1.0), "dropout must be in"),
        ((NODE, EDGE, ENDS, NODES, EDGES, -0.1), "dropout must be in"),
    ],
)
def test_what_is_refused(arguments, words, unchecked):
    with pytest.raises(InputError, match=words):
        edge_messages(*arguments)
