"""Pruned recurrences, sparse inference, and networks wired by graphs."""

import copy

import networkx
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from commutant import InputError
from commutant.sequences import (
    GraphRNN,
    MinGRU,
    MinLSTM,
    ParaGRU,
    bake,
    dag_layers,
    diagonalize_recurrent,
    graph_features,
    prune_recurrent,
    pruning_curve,
    random_dag,
    recurrent_sparsity,
    to_sparse,
)

MAKERS = {
    "rnn": lambda: nn.RNN(5, 7, 2, batch_first=True),
    "gru": lambda: nn.GRU(5, 7, 2, batch_first=True, bidirectional=True),
    "lstm": lambda: nn.LSTM(5, 7, 2, batch_first=True),
    "para": lambda: ParaGRU(5, 7, 2, batch_first=True),
}
X = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(2))


def names(which):
    return {"i2h": ("weight_ih",), "h2h": ("weight_hh",), "both": ("weight_ih", "weight_hh")}[which]


def weights(module, which="both"):
    found = dict(module.named_parameters()) if not hasattr(module, "parametrizations") else {}
    if not found:
        every = {n.removeprefix("parametrizations.").removesuffix(".original") for n, _ in module.named_parameters()}
        found = {n: getattr(module, n) for n in every}
    return {n: w.detach().clone() for n, w in sorted(found.items()) if n.startswith(names(which))}


@pytest.mark.parametrize("scope", ["global", "layer", "gate"])
@pytest.mark.parametrize("which", ["i2h", "h2h", "both"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_exactly_the_smallest_go(make, which, scope):
    module = make()
    before = weights(module, which)
    pruned = prune_recurrent(module, 0.3, which, scope)
    after = weights(pruned, which)
    total, gone = sum(w.numel() for w in before.values()), sum(int((w == 0).sum()) for w in after.values())
    if scope == "global":
        assert gone == round(0.3 * total)
        cut = max(float(before[n][after[n] == 0].abs().max()) for n in before if (after[n] == 0).any())
        kept = min(float(before[n][after[n] != 0].abs().min()) for n in before if (after[n] != 0).any())
        assert cut <= kept
    if scope == "gate":
        for name, w in after.items():
            rows = 1 if isinstance(module, ParaGRU) and "hh" in name else 7
            for block in w.split(rows):
                assert int((block == 0).sum()) == round(0.3 * block.numel())
    for name, w in after.items():
        assert torch.equal(w[w != 0], before[name][w != 0])
    assert abs(recurrent_sparsity(pruned, which) - gone / total) < 1e-9


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_idempotent_nested_nothing_and_everything(make):
    module = make()
    expected = module(X)[0]
    assert torch.equal(prune_recurrent(copy.deepcopy(module), 0.0)(X)[0], expected)
    some = weights(prune_recurrent(module, 0.4))
    assert all(
        torch.equal(a, b) for a, b in zip(some.values(), weights(prune_recurrent(module, 0.4)).values(), strict=True)
    )
    assert all(
        torch.equal(a, b) for a, b in zip(some.values(), weights(prune_recurrent(module, 0.1)).values(), strict=True)
    )
    more = weights(prune_recurrent(module, 0.8))
    assert all((more[n][some[n] == 0] == 0).all() for n in some)
    y = prune_recurrent(module, 1.0)(X)[0]
    assert recurrent_sparsity(module) == 1
    assert torch.equal(y, module(torch.zeros_like(X))[0])  # the output does not depend on the input


@pytest.mark.parametrize("optimizer", [
    lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.05)
])  # fmt: skip
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_masked_stays_zero_in_training(make, optimizer):
    """Law 3, with an optimizer whose momentum is older than the mask."""
    module = make()
    before = weights(module)
    optimize = optimizer(module.parameters())
    for step in range(6):
        if step == 2:
            prune_recurrent(module, 0.5)
            zeros = {n: w == 0 for n, w in weights(module).items()}
            assert sum(int(z.sum()) for z in zeros.values()) == round(0.5 * sum(z.numel() for z in zeros.values()))
            optimize = optimizer(module.parameters())
        optimize.zero_grad()
        module(X)[0].square().sum().backward()
        optimize.step()
    after = weights(module)
    assert all((after[n][zeros[n]] == 0).all() and (after[n] != before[n]).any() for n in after)
    state = copy.deepcopy(module.state_dict())
    fresh = prune_recurrent(make(), 0.5)
    fresh.load_state_dict(state)
    torch.testing.assert_close(fresh(X)[0], module(X)[0])
    expected, gone = module(X)[0].detach(), recurrent_sparsity(module)
    bake(module)
    assert not parametrize.is_parametrized(module)
    assert recurrent_sparsity(module) == gone
    assert torch.equal(module(X)[0], expected)
    assert copy.deepcopy(module)(X)[0].shape == expected.shape


def test_units_in_another_order_are_pruned_alike():
    """Law 4: magnitude pruning commutes with permutations of hidden units, but not with scalings of a ReLU network."""
    rnn = nn.GRU(5, 7, 1, batch_first=True)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    other = copy.deepcopy(rnn)
    rows = torch.cat([order + 7 * gate for gate in range(3)])
    with torch.no_grad():
        for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(other, name).copy_(getattr(rnn, name)[rows])
        other.weight_hh_l0.copy_(rnn.weight_hh_l0[rows][:, order])
    torch.testing.assert_close(other(X)[0], rnn(X)[0][..., order], atol=1e-6, rtol=0)
    one, two = (prune_recurrent(m, 0.6)(X)[0] for m in (rnn, other))
    torch.testing.assert_close(two, one[..., order], atol=1e-6, rtol=0)

    relu = nn.RNN(5, 7, 1, nonlinearity="relu", batch_first=True)
    scaled, factor = copy.deepcopy(relu), torch.linspace(0.2, 5, 7)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            w = getattr(scaled, name)
            w.mul_(factor.view(-1, *[1] * (w.dim() - 1)))
        scaled.weight_hh_l0.div_(factor)
    torch.testing.assert_close(scaled(X)[0], relu(X)[0] * factor, atol=1e-5, rtol=1e-5)
    one, two = (prune_recurrent(m, 0.6)(X)[0] for m in (relu, scaled))
    assert (two - one * factor).abs().max() > 1e-2


@pytest.mark.parametrize(("make", "remembers"), [(MAKERS["lstm"], True), (MAKERS["gru"], True), (MAKERS["rnn"], False)])
def test_what_remembers_without_recurrent_weights(make, remembers):
    """Law 5: without hidden-to-hidden weights, an LSTM and a GRU still have memory, but a plain RNN has none."""
    module = prune_recurrent(make(), 1.0, "h2h")
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(x)[0][:, 5].sum(), x)
    assert bool((gradient[:, 2] != 0).any()) is remembers
    assert (gradient[:, 5] != 0).any()


def test_the_diagonal_of_every_gate_is_kept():
    rnn = diagonalize_recurrent(nn.LSTM(5, 7))
    for gate in rnn.weight_hh_l0.split(7):
        assert torch.equal(gate != 0, torch.eye(7, dtype=torch.bool))
    with pytest.raises(InputError, match="diagonal already"):
        diagonalize_recurrent(ParaGRU(3, 4))


def test_random_is_random_and_models_may_hold_several_layers():
    model = nn.Sequential(nn.Linear(3, 3), nn.GRU(3, 4), nn.ModuleDict({"cell": nn.LSTMCell(4, 4)}))
    line = model[0].weight.clone()
    g = torch.Generator().manual_seed(0)
    prune_recurrent(model, 0.5, criterion="random", generator=g)
    assert torch.equal(model[0].weight, line)
    assert abs(recurrent_sparsity(model) - 0.5) < 0.01
    cell = model[2]["cell"]
    assert 0 < int((cell.weight_hh == 0).sum()) < cell.weight_hh.numel()
    cell(torch.randn(2, 4))


def test_a_pruning_curve_leaves_the_model_alone():
    model = nn.Sequential(nn.GRU(5, 7, batch_first=True))
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def retrain(m):
        assert abs(recurrent_sparsity(m, "h2h") - 0.5) < 0.51
        with torch.no_grad():
            m[0].parametrizations.weight_hh_l0.original.fill_(2)

    rows = pruning_curve(model, lambda m: float(m[0].weight_hh_l0.detach().abs().sum()), [0, 0.5, 1], "h2h", retrain)
    assert [row["amount"] for row in rows] == [0, 0.5, 1]
    assert rows[0]["score"] > rows[1]["score"] > rows[2]["score"] == 0
    assert rows[1]["retrained"] == pytest.approx(2 * 147 * 0.5, abs=2)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: prune_recurrent(nn.Linear(2, 2), 0.5), "Linear holds no recurrent layer"),
        (lambda: prune_recurrent(nn.GRU(2, 2), 1.5), "between 0 and 1"),
        (lambda: prune_recurrent(nn.GRU(2, 2), float("nan")), "between 0 and 1"),
        (lambda: prune_recurrent(nn.GRU(2, 2), 0.5, "out"), "i2h, h2h, both"),
        (lambda: prune_recurrent(nn.GRU(2, 2), 0.5, scope="unit"), "scope"),
        (
            lambda: prune_recurrent(nn.GRU(2, 2).double().apply(lambda m: m.weight_hh_l0.data.fill_(torch.nan)), 0.5),
            "finite",
        ),
        (lambda: to_sparse(nn.Linear(2, 2)), "Linear"),
        (lambda: to_sparse(nn.LSTM(2, 3, proj_size=2)), "projections"),
        (lambda: to_sparse(nn.GRU(2, 3))(torch.randn(4, 2)), "3 axes"),
        (lambda: to_sparse(nn.GRU(2, 3))(torch.randn(4, 1, 2), torch.zeros(1, 2, 3)), r"\(1, 1, 3\)"),
        (lambda: prune_recurrent(nn.GRU(2, 2), "0.5"), "between 0 and 1"),
        (lambda: to_sparse(nn.GRU(2, 3).bfloat16()), "bfloat16"),
        (lambda: to_sparse(nn.GRU(2, 3))(torch.randn(4, 1, 2).double()), "float64"),
        (lambda: to_sparse(nn.GRU(2, 3))([1]), "list"),
        (lambda: GraphRNN((torch.tensor([0, 1]), 2), 3), r"\(2, edges\)"),
        (lambda: dag_layers(torch.tensor([[0, 1], [1, 0]]), 2), "cycle"),
        (lambda: dag_layers(torch.tensor([[0], [2]]), 2), "0..1"),
        (lambda: dag_layers(torch.zeros(2, 0, dtype=torch.long), 0), "nodes"),
        (lambda: GraphRNN([1, 2], 3), "networkx"),
        (lambda: GraphRNN(networkx.path_graph(3), 3, cell="elman"), "'elman'"),
        (lambda: GraphRNN(networkx.DiGraph([(0, 0)]), 3), "cycle"),
        (lambda: random_dag("tree", 9, torch.Generator()), "'tree'"),
    ],
)
def test_errors_name_what_was_given(call, said, unchecked):
    with pytest.raises(InputError, match=said):
        call()


SPARSE = {
    "rnn": lambda: nn.RNN(5, 7, 2, bias=False, nonlinearity="relu"),
    "gru": lambda: nn.GRU(5, 7, 2, batch_first=True, bidirectional=True),
    "lstm": lambda: nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True),
    "tanh": lambda: nn.RNN(5, 7),
}


@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE)
@pytest.mark.parametrize("given", [False, True])
def test_sparse_inference_is_the_dense_layer(make, given):
    dense = prune_recurrent(make(), 0.8)
    sparse = to_sparse(dense)
    batch = 3 if dense.batch_first else 9
    lead = (dense.num_layers * (1 + dense.bidirectional), batch, 7)
    states = (torch.randn(lead), torch.randn(lead))
    h_0 = None if not given else states if isinstance(dense, nn.LSTM) else states[0]
    found, expected = sparse(X, h_0), dense(X, h_0)
    torch.testing.assert_close(found[0], expected[0].detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[1], atol=1e-6, rtol=1e-5)
    assert not found[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE)
def test_sparse_inference_under_autocast(make, dtype):
    dense = prune_recurrent(make(), 0.8)
    sparse = to_sparse(dense)
    expected, final = sparse(X)
    with torch.autocast("cpu", dtype=dtype):
        found, state = sparse(X)
        again, _ = sparse(X.to(dtype), state)
    assert found.dtype == again.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=1e-2, rtol=0)
    following, _ = sparse(X, final)
    torch.testing.assert_close(again.float(), following, atol=3e-2, rtol=0)


@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE)
def test_sparse_layers_take_the_calls_of_torch(make):
    sparse = to_sparse(make())
    sparse.flatten_parameters()
    state = sparse(X)[1]
    expected = sparse(X, state)[0]
    assert torch.equal(sparse(input=X, hx=state)[0], expected)
    assert torch.equal(sparse(X, h_0=state)[0], expected)


def test_a_recurrence_without_parameters_has_nothing_to_prune(unchecked):
    for make in (MinGRU, MinLSTM):
        with pytest.raises(InputError, match="has no h2h weights"):
            prune_recurrent(make(3, 4), 0.5, "h2h")
        with pytest.raises(InputError, match="no h2h weights"):
            recurrent_sparsity(make(3, 4), "h2h")
        with pytest.raises(InputError, match="no h2h weights"):
            diagonalize_recurrent(make(3, 4))
        assert recurrent_sparsity(prune_recurrent(make(3, 4), 0.5, "both")) == 0.5
    mixed = nn.Sequential(MinGRU(3, 4), nn.GRU(3, 4))
    assert recurrent_sparsity(prune_recurrent(mixed, 0.5, "h2h"), "h2h") == 0.5


def test_layers_of_a_graph():
    """Law 6: edges lead to higher layers, and the layer of a node is the length of the longest path to it."""
    g = torch.Generator().manual_seed(0)
    for kind in ("ws", "ba", "er"):
        for nodes in (5, 20, 50):
            edges, count = random_dag(kind, nodes, g)
            assert count == nodes
            layers = dag_layers(edges, nodes)
            assert (layers[edges[0]] < layers[edges[1]]).all()
            graph = networkx.DiGraph(edges.T.tolist())
            assert int(layers.max()) == networkx.dag_longest_path_length(graph)
            order = torch.randperm(nodes, generator=g)
            assert torch.equal(dag_layers(order[edges], nodes)[order], layers)
    sources = int((dag_layers(*random_dag("ba", 50, g)) == 0).sum())
    assert sources == 5, "as many sources as the thesis had, not the one of a star"
    dense = torch.combinations(torch.arange(300)).T
    assert int(dag_layers(dense, 300).max()) == 299


@pytest.mark.parametrize("cell", ["gru", "lstm", "tanh", "relu"])
@pytest.mark.parametrize("skip", ["concat", "sum"])
def test_wiring_is_the_graph(cell, skip):
    """Law 7: there are as many weights as edges, and a unit depends on its ancestors only."""
    graph = networkx.DiGraph([(0, 2), (1, 3), (2, 4), (0, 5), (3, 5), (1, 6), (4, 7), (5, 8), (2, 8)])
    net = GraphRNN(graph, 3, cell, skip, recurrent="self")
    gates = {"gru": 3, "lstm": 4}.get(cell, 1)
    order = [list(graph).index(v) for v in graph]
    layers = dag_layers(
        torch.tensor([[order[list(graph).index(u)], order[list(graph).index(v)]] for u, v in graph.edges]).T, 9
    )
    reading = [*net.layers[1:], *net.skips.values()]
    assert sum(int((m.weight_ih_l0 != 0).sum()) for m in reading) == gates * graph.number_of_edges()
    if skip == "concat":
        sinks = [v for v in graph if graph.out_degree(v) == 0]
        assert net.output_size == len(sinks)
        with torch.no_grad():
            for m in net.layers:
                for p in m.parameters():
                    p.abs_().clamp_(min=0.1)  # without dead ReLUs
        first = net.layers[0]
        for s, source in enumerate([v for v in graph if graph.in_degree(v) == 0]):
            hooked = torch.zeros(1, 4, first.hidden_size, requires_grad=True)
            handle = first.register_forward_hook(lambda m, i, o, h=hooked: (o[0] + h, o[1]))
            y = net(torch.rand(1, 4, 3))
            handle.remove()
            for place, sink in enumerate(sinks):
                (gradient,) = torch.autograd.grad(y[0, -1, place], hooked, retain_graph=True)
                assert bool(gradient[0, :, s].abs().sum() > 0) is networkx.has_path(graph, source, sink), (source, sink)
    assert int(layers.max()) + 1 == net.num_layers


def test_graphs_from_everywhere_and_small_ones():
    edges = torch.tensor([[0, 1, 1, 0], [1, 2, 2, 1]])  # each edge twice
    by_hand = GraphRNN((edges, 4), 2)
    data = pytest.importorskip("torch_geometric.data").Data(edge_index=edges, num_nodes=4)
    assert by_hand.output_size == GraphRNN(data, 2).output_size == 2
    assert GraphRNN(networkx.empty_graph(1), 2)(torch.randn(3, 5, 2)).shape == (3, 5, 1)
    assert GraphRNN(networkx.empty_graph(6), 2)(torch.randn(3, 5, 2)).shape == (3, 5, 6)


def test_training_keeps_the_wiring():
    net = GraphRNN(random_dag("ws", 12, torch.Generator().manual_seed(0)), 3, "lstm")
    optimize = torch.optim.AdamW(net.parameters(), 0.1)
    zeros = [m.weight_ih_l0 == 0 for m in net.layers]
    for _ in range(3):
        optimize.zero_grad()
        net(torch.randn(4, 6, 3)).square().sum().backward()
        optimize.step()
    assert all(torch.equal(m.weight_ih_l0 == 0, z) for m, z in zip(net.layers, zeros, strict=True))


def test_features_of_a_graph():
    found = graph_features(networkx.star_graph(4))
    assert found["nodes"] == 5
    assert found["edges"] == 4
    assert found["layers"] == 2
    assert (found["sources"], found["sinks"]) == (1, 4)
    assert found["density"] == pytest.approx(0.4)
    assert found["degree_variance"] == pytest.approx(torch.tensor([1, 0.25, 0.25, 0.25, 0.25]).var().item())
    apart = graph_features(networkx.empty_graph(3))
    assert all(v == v for v in apart.values())


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_pruned_layers_can_be_copied_and_converted_at_any_time(make):
    module = prune_recurrent(make(), 0.5)
    copy.deepcopy(module.double())
    module.float()(X)[0].sum().backward()
    again = copy.deepcopy(module)
    assert torch.equal(again(X)[0], module(X)[0])
    with torch.no_grad():
        for p in again.parameters():
            p.add_(1)
    assert not torch.equal(again(X)[0], module(X)[0])
    assert recurrent_sparsity(again) == recurrent_sparsity(module)
    assert torch.equal(bake(again)(X)[0], again(X)[0])
    assert len(pruning_curve(module, lambda m: 0.0, [0.7])) == 1


def test_sparse_layers_are_copies_that_can_be_copied_and_saved(tmp_path):
    dense = prune_recurrent(nn.GRU(5, 7, 2, bidirectional=True), 0.8)
    sparse = to_sparse(dense)
    before = sparse(X)[0]
    torch.save(sparse.state_dict(), tmp_path / "sparse.pt")
    other = to_sparse(dense)
    with torch.no_grad():
        for p in dense.parameters():
            p.add_(1)
    assert torch.equal(sparse(X)[0], before)
    assert torch.equal(copy.deepcopy(sparse)(X)[0], before)
    other.load_state_dict(torch.load(tmp_path / "sparse.pt"))
    assert torch.equal(other(X)[0], before)
    assert to_sparse(dense.double())(X.double())[0].dtype == torch.float64


def test_the_outputs_of_a_graph_are_in_its_state():
    one, two = GraphRNN((torch.tensor([[0, 1], [2, 3]]), 4), 2), GraphRNN((torch.tensor([[0, 0], [2, 3]]), 4), 2)
    with pytest.raises(RuntimeError, match="shown"):
        two.load_state_dict(one.state_dict())
    doubled = networkx.MultiGraph([(0, 1), (0, 1), (1, 2)])
    assert GraphRNN(doubled, 2).num_layers == 3


def test_padding_says_nothing_when_the_true_last_letter_is_read():
    """Law 8: the output of a row does not depend on the padding of the batch."""
    pytest.importorskip("lightning_fabric")
    from commutant.papers.rnn_sparsity.measures import ReberClassifier

    model = ReberClassifier(6, nn.LSTM(6, 6, 2, batch_first=True), 6)
    tokens, lengths = torch.randint(1, 8, (3, 9)), torch.tensor([9, 4, 6])
    tokens = torch.where(torch.arange(9) < lengths[:, None], tokens, 0)
    longer = torch.cat([tokens, torch.zeros(3, 11, dtype=torch.long)], 1)
    torch.testing.assert_close(model(longer, lengths), model(tokens, lengths))
