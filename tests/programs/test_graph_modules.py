"""Graph-conditioned modules against their definition, one by one and stacked."""

import networkx as nx
import pytest
import torch
from machines import written
from torch_geometric.data import Data

from commutant import InputError
from commutant.programs import (
    GraphMachine,
    GraphModule,
    GraphModules,
    PortGraph,
    StackedLinear,
    TieMachine,
    search_states,
)
from commutant.programs._graph_module import segments
from commutant.programs._stacked_linear import packed_linear

GROW = ["push", "add", "connect", "next_port"]


def graphs():
    machine = GraphMachine()
    out = [machine.run(written(GROW * k)).graph for k in (0, 1, 3)]
    out += [
        machine.run(written([*GROW * 2, "pop", "pop", "connect"])).graph,
        PortGraph.from_networkx(nx.cycle_graph(5)),
    ]
    twice = machine.run(written(["push", "add", "connect", "next_port", "connect"])).graph
    assert len(twice.edges) == 2  # parallel edges
    return [*out, twice]


GRAPHS = graphs()


def reference(module, x):
    """Return the output of a module in evaluation, element by element, as the paper defines it."""
    graph, d = module.graph, x.shape[1]
    q = d // 4
    w = 10_000.0 ** (-torch.arange(q, dtype=x.dtype) / (q - 1))

    def code(order, port):
        return torch.cat([(order * w).sin(), (order * w).cos(), (port * w).sin(), (port * w).cos()])

    parts = [x[:, s.start : s.stop] for s in segments(graph.elements, d)]
    tiled = [p.repeat(1, -(-d // p.shape[1]))[:, :d] for p in parts]
    node = {v: tiled[v] + code(v, 0) for v in graph.nodes}
    edge = {e: tiled[e] + code(e, p + 1) for e, _, _, p in graph.edges}
    for layer in module.stacked.layers:
        new = {}
        for v in graph.nodes:
            total = node[v]
            for e, a, b, _ in graph.edges:
                for end, other in ((a, b), (b, a)):
                    if end == v:
                        total = total + (node[other] + edge[e]).relu()
            new[v] = total @ layer.weight[0] + layer.bias[0]
        node = new
    mean = sum(node.values()) / len(node)
    return mean @ module.stacked.readout.weight[0] + module.stacked.readout.bias[0]


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_a_module_is_its_definition(graph):
    torch.manual_seed(0)
    module = GraphModule(graph, 32, 3, depth=2).double().eval()
    x = torch.randn(4, 32, dtype=torch.float64)
    torch.testing.assert_close(module(x), reference(module, x), rtol=1e-6, atol=1e-6)  # codes are float32
    assert module(x[0]).shape == (3,)
    assert module(x.reshape(2, 2, 32)).shape == (2, 2, 3)


def test_segments_partition_the_vector():
    for features in (8, 32, 96):
        for elements in range(1, features + 1):
            parts = segments(elements, features)
            assert [i for p in parts for i in p] == list(range(features))
            assert {len(p) for p in parts[1:]} <= {features // elements}
            assert len(parts[0]) == features // elements + features % elements


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_the_gradient_reaches_every_coordinate(graph):
    torch.manual_seed(1)
    module = GraphModule(graph, 32, 8).double().eval()
    x = torch.randn(64, 32, dtype=torch.float64, requires_grad=True)
    module(x).square().sum().backward()
    assert bool((x.grad.abs().sum(0) > 0).all())


def test_storage_order_does_not_matter_but_creation_order_does():
    torch.manual_seed(0)
    graph = GRAPHS[3]
    shuffled = PortGraph(graph.nodes[::-1], tuple((e, b, a, p) for e, a, b, p in graph.edges[::-1]))
    module, twin = GraphModule(graph, 32, 2).eval(), GraphModule(shuffled, 32, 2).eval()
    twin.load_state_dict(module.state_dict())
    x = torch.randn(5, 32)
    torch.testing.assert_close(module(x), twin(x))
    path = PortGraph((0, 1, 3), ((2, 0, 1, 0), (4, 1, 3, 1)))
    other = PortGraph((0, 1, 2), ((3, 0, 1, 0), (4, 1, 2, 1)))
    assert path.certificate == other.certificate
    first, second = GraphModule(path, 32, 2).eval(), GraphModule(other, 32, 2).eval()
    with pytest.raises(RuntimeError, match="the checkpoint is of other graphs"):
        second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            b.copy_(a)
    assert not torch.allclose(first(x), second(x))


@pytest.mark.parametrize("training", [False, True])
def test_stacked_modules_are_the_single_ones(training):
    torch.manual_seed(0)
    stacked = GraphModules([*GRAPHS, GRAPHS[1]], 32, 2, dropout=0.0 if training else 0.3).train(training)
    x = torch.randn(7, 3, 32, requires_grad=True)
    out = stacked(x)
    for m in range(7):
        single = stacked.select(m)
        assert single.graph == stacked.graphs[m]
        torch.testing.assert_close(out[m], single(x[m]))
        assert single.training == training
    out.sum().backward()
    single.zero_grad()
    single(x[6]).sum().backward()
    row = int(stacked.given[6])
    torch.testing.assert_close(
        stacked.layers[0].weight.grad[row], single.stacked.layers[0].weight.grad[0], rtol=1e-4, atol=1e-5
    )


def test_a_population_learns_as_its_members_alone():
    """Steps of Adam on the stacked model are steps on each model."""
    torch.manual_seed(0)
    stacked = GraphModules(GRAPHS, 32, 1, dropout=0.0)
    singles = [stacked.select(m) for m in range(len(GRAPHS))]
    x, y = torch.randn(len(GRAPHS), 8, 32), torch.randn(len(GRAPHS), 8, 1)
    optimizers = [torch.optim.SGD(m.parameters(), 1e-3) for m in (stacked, *singles)]
    for _ in range(3):
        losses = [(stacked(x) - y).square().mean((1, 2)).sum()]
        losses += [(m(x[i]) - y[i]).square().mean() for i, m in enumerate(singles)]
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for m, single in enumerate(singles):
        torch.testing.assert_close(stacked(x)[m], single(x[m]), rtol=1e-4, atol=1e-4)


def test_dropout_is_random_and_reproducible():
    module = GraphModule(GRAPHS[2], 32, 1).train()
    x = torch.randn(4, 32)
    assert not torch.equal(module(x), module(x))
    torch.manual_seed(5)
    first = module(x)
    torch.manual_seed(5)
    assert torch.equal(first, module(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_and_checkpoints(dtype):
    module = GraphModule(GRAPHS[2], 32, 2).to(dtype)
    out = module(torch.randn(3, 32, dtype=dtype))
    assert out.dtype == dtype
    with torch.autocast("cpu"):
        assert bool(GraphModule(GRAPHS[2], 32, 2)(torch.randn(3, 32)).isfinite().all())
    twin = GraphModule(GRAPHS[2], 32, 2).to(dtype)
    twin.load_state_dict(module.state_dict())
    assert torch.equal(module.eval()(torch.ones(1, 32, dtype=dtype)), twin.eval()(torch.ones(1, 32, dtype=dtype)))
    assert "4 graphs" in repr(GraphModules(GRAPHS[:4], 32, 1))


def test_networkx_graphs_are_taken():
    module = GraphModule(nx.petersen_graph(), 96, 1)
    assert module.graph.elements == 25
    assert module(torch.randn(2, 96)).shape == (2, 1)


SMALL = GRAPHS[1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GraphModule(GRAPHS[4], 8, 1), "10 nodes and edges needs at least as many features, got 8"),
        (lambda: GraphModule(SMALL, 10, 1), "divisible by 4 and at least 8, got 10"),
        (lambda: GraphModule(SMALL, 4, 1), "divisible by 4 and at least 8, got 4"),
        (lambda: GraphModule(SMALL, 32, 0), "out_features must be a whole number"),
        (lambda: GraphModule(SMALL, 32, 1, depth=0), "depth must be a whole number"),
        (lambda: GraphModule(SMALL, 32, 1, dropout=1.0), "dropout must be in"),
        (lambda: GraphModule("graph", 32, 1), "must be a PortGraph, an undirected networkx graph or PyG data, got str"),
        (lambda: GraphModule(nx.DiGraph([(0, 1)]), 32, 1), "undirected"),
        (lambda: GraphModules([], 32, 1), "at least one graph"),
        (lambda: GraphModules(SMALL, 32, 1), "must be a list"),
        (lambda: GraphModules([SMALL], 32, 1).select(1), "model must be below 1"),
        (lambda: GraphModule(SMALL, 32, 1)(torch.randn(2, 31)), r"x must be \(\*batch, 32\), got \(2, 31\)"),
        (lambda: GraphModule(SMALL, 32, 1)(torch.randn(2, 32).long()), "floating point"),
        (lambda: GraphModule(SMALL, 32, 1)(torch.randn(2, 32).double()), "x is torch.float64"),
        (lambda: GraphModules([SMALL], 32, 1)(torch.randn(2, 2, 32)), r"x must be \(1, batch, 32\)"),
    ],
)
def test_what_is_refused(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()


def test_graphs_that_are_not_consistent_are_refused(unchecked):
    for nodes, edges, words in (
        ((), (), "at least one node"),
        ((0, 2), (), "ids must be 0 .. 1"),
        ((0, 1), ((2, 0, 5, 0),), "ends of an edge"),
        ((0, 1), ((2, 0, 0, 0),), "ends of an edge"),
        ((0, 1), ((2, 0, 1, 0), (3, 1, 0, 0)), "port 0"),
        ((0, 1), ((2, 0, 1, -1),), "port -1"),
    ):
        with pytest.raises(InputError, match=words):
            GraphModule(PortGraph(nodes, edges), 32, 1)


def test_outputs_of_a_search_can_be_stacked():
    found = [f.output for f in search_states(GraphMachine(), max_cost=7)]
    assert GraphModules(found, 32, 1)(torch.randn(2, 5, 32)).shape == (2, 5, 1)
    with pytest.raises(InputError, match="must be a PortGraph"):
        GraphModules([TieMachine(3).start().pattern], 32, 1)


def test_empty_batches_and_exports():
    module = GraphModule(GRAPHS[2], 32, 2)
    assert module(torch.zeros(0, 32)).shape == (0, 2)
    assert GraphModules(GRAPHS, 32, 2)(torch.zeros(len(GRAPHS), 0, 32)).shape == (len(GRAPHS), 0, 2)
    exported = torch.export.export(module.eval(), (torch.randn(3, 32),)).module()
    x = torch.randn(3, 32)
    torch.testing.assert_close(exported(x), module(x))


def test_checkpoints_of_other_graphs_are_refused():
    one, other = GraphModules(GRAPHS[1:3], 32, 1), GraphModules(GRAPHS[2:0:-1], 32, 1)
    with pytest.raises(RuntimeError, match="the checkpoint is of other graphs"):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_graphs_come_back_from_pyg_and_networkx(graph):
    assert PortGraph.from_networkx(graph.to_networkx()) == graph
    assert PortGraph.from_data(graph.to_data()).certificate == graph.certificate
    module = GraphModule(graph, 32, 2).eval()
    twin = GraphModule(graph.to_data(), 32, 2).eval()
    twin.load_state_dict(module.state_dict())
    x = torch.randn(3, 32)
    torch.testing.assert_close(twin(x), module(x))


def test_plain_pyg_data():
    data = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
    assert PortGraph.from_data(data).certificate == PortGraph.from_networkx(nx.path_graph(3)).certificate
    with pytest.raises(InputError, match="undirected"):
        GraphModule(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2), 32, 1)


def test_stacked_layers_check_their_inputs(unchecked):
    layer = StackedLinear(3, 4, 5)
    x = torch.randn(3, 7, 4)
    expected = torch.stack([x[m] @ layer.weight[m] + layer.bias[m] for m in range(3)])
    torch.testing.assert_close(layer(x), expected)
    assert repr(layer) == "StackedLinear(3 models, 4 -> 5)"
    for wrong in (x[:2], x[..., :3], x[0]):
        with pytest.raises(InputError, match=r"x must be \(models, rows, in_features\) = \(3, rows, 4\)"):
            layer(wrong)
    with pytest.raises(InputError, match="models must be"):
        StackedLinear(0, 4, 5)
    with pytest.raises(InputError, match="whole numbers"):
        GraphModule(PortGraph((0, 1), ((2, 0, 1),)), 32, 1)
    with pytest.raises(InputError, match="whole numbers"):
        GraphModule(PortGraph((0, 1), ((2, 0, 1, 0.5),)), 32, 1)


def packed(dtype=torch.float64):
    """Return the arguments of a packed layer: one model of 3 rows, two of 1 and two of 4."""
    g = torch.Generator().manual_seed(0)
    shapes = (13, 3), (5, 3, 2), (5, 1, 2)
    tensors = [torch.randn(s, generator=g, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]
    return (*tensors, [1, 2, 2], [3, 1, 4])


def one_by_one(x, weight, bias, models, rows):
    each = [n for number, n in zip(models, rows, strict=True) for _ in range(number)]
    return torch.cat([part @ weight[m] + bias[m] for m, part in enumerate(x.split(each))])


def test_packed_layers_are_layers_one_by_one():
    *tensors, models, rows = packed()
    for f in (packed_linear, torch.func.vmap(packed_linear, in_dims=(0, None, None, None, None))):
        x = tensors[0] if f is packed_linear else torch.stack([tensors[0], 2 * tensors[0]])
        found = f(x, *tensors[1:], models, rows)
        wanted = one_by_one(tensors[0], *tensors[1:], models, rows)
        torch.testing.assert_close(found if f is packed_linear else found[0], wanted)
    assert torch.autograd.gradcheck(lambda *t: packed_linear(*t, models, rows), tensors, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda *t: packed_linear(*t, models, rows) ** 2, tensors)


def test_packed_layers_take_any_layout_and_autocast():
    x, weight, bias, models, rows = packed(torch.float32)
    wide = x.detach().T.contiguous().T.requires_grad_()
    spread_out = weight.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    wanted = torch.autograd.grad(one_by_one(x, weight, bias, models, rows).sum(), (x, weight, bias))
    found = torch.autograd.grad(packed_linear(wide, spread_out, bias, models, rows).sum(), (wide, spread_out, bias))
    for ours, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert packed_linear(x, weight, bias, models, rows).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_codes_are_exact_after_any_change_of_dtype(dtype):
    graphs = [PortGraph.from_networkx(nx.path_graph(3)), PortGraph.from_networkx(nx.complete_graph(3))]
    reference = GraphModules(graphs, 32, 2)
    moved = GraphModules(graphs, 32, 2).to(dtype).float()
    moved.load_state_dict(reference.state_dict())
    x = torch.randn(2, 4, 32)
    assert torch.equal(moved.eval()(x), reference.eval()(x))
    wide = reference.double()
    squares = wide.codes.square().unflatten(1, (2, 2, 8)).sum(2)  # of sine and cosine
    torch.testing.assert_close(squares, torch.ones_like(squares), atol=1e-15, rtol=0)


def test_stacks_of_graphs_of_different_sizes_export_with_any_batch():
    graphs = [PortGraph.from_networkx(nx.path_graph(n)) for n in (2, 3, 3)]
    model = GraphModules(graphs, 32, 2).eval()
    x = torch.randn(3, 7, 32)
    exported = torch.export.export(model, (x,), dynamic_shapes=({1: torch.export.Dim("b")},))
    other = torch.randn(3, 4, 32)
    torch.testing.assert_close(exported.module()(other), model(other))


def test_selecting_a_model_leaves_the_random_state():
    model = GraphModules([PortGraph.from_networkx(nx.path_graph(n)) for n in (3, 2)], 32, 2)
    state = torch.get_rng_state()
    model.select(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("unchecked")
def test_graphs_of_other_libraries_that_do_not_fit():
    from torch_geometric.data import HeteroData

    pair = torch.tensor([[0, 1], [1, 0]])
    for data in (
        Data(edge_index=pair + 2, num_nodes=3),
        Data(edge_index=pair - 1, num_nodes=2),
        Data(edge_index=pair.float(), num_nodes=2),
        Data(edge_index=torch.zeros(3, 2).long(), num_nodes=3),
        Data(x=torch.randn(3, 2)),
        HeteroData(),
    ):
        with pytest.raises(InputError):
            GraphModule(data, 32, 1)
    graph = nx.path_graph(3)
    nx.set_edge_attributes(graph, {e: str(i) for i, e in enumerate(graph.edges)}, "id")  # as in files of GEXF
    assert PortGraph.from_networkx(graph) == PortGraph.from_networkx(nx.path_graph(3))
    mixed = nx.Graph([("a", 1), (1, 2.5)])
    nx.set_edge_attributes(mixed, 0, "id")
    nx.set_edge_attributes(mixed, 0, "port")
    assert len(PortGraph.from_networkx(mixed).nodes) == 3
    many = PortGraph.from_networkx(nx.cycle_graph(12))
    assert PortGraph.from_networkx(many.to_networkx()) == many
