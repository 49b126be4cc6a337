"""SPEN layers, against a tensor for each ego-net and against the global layer."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn.aggr import GRUAggregation

import warm
from commutant import InputError
from commutant.algebra import Max, PermutationEquivariantLinear
from commutant.graphs import EgoNets, Neighborhoods, SPENConv
from commutant.graphs._neighborhoods import _SumOfRows
from commutant.sets import LCMAggregation
from depth import some

ORDERS = some([({2: 3, 1: 2, 0: 2}, {2: 2, 1: 3, 0: 2}), ({2: 2}, {2: 2}), ({1: 2}, {2: 1, 0: 1}), ({0: 2}, {2: 2}),
               ({2: 2}, {1: 2}), ({1: 2}, {1: 2})], keep=3)  # fmt: skip


def random_graph(n, edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Data(edge_index=torch.randint(0, n, (2, edges), generator=generator), num_nodes=n)


def batch(k, *graphs):
    graphs = graphs or (random_graph(6, 9), random_graph(1, 0), random_graph(7, 9, 1), random_graph(3, 0))
    return Neighborhoods.from_data(Batch.from_data_list([EgoNets(k)(g) for g in graphs]))


def random_conv(ins, outs, **options):
    torch.manual_seed(0)
    conv = SPENConv(ins, outs, **options).double()
    torch.nn.init.normal_(conv.layer.bias)
    for parameter in conv.differences.parameters():
        torch.nn.init.normal_(parameter)
    return conv


def random_input(conv, n):
    return {k: torch.randn(n.count(k), c, dtype=torch.float64) for k, c in conv.layer.in_features.items()}


@pytest.mark.parametrize("reinsertion", ["mean", "sum"])
@pytest.mark.parametrize("rooted", [False, True])
@pytest.mark.parametrize(("ins", "outs"), ORDERS)
@pytest.mark.parametrize("k", [0, 1, 2])
def test_sums_in_place_are_those_of_a_tensor_for_each_ego_net(k, ins, outs, rooted, reinsertion):
    conv, n = random_conv(ins, outs, rooted=rooted, reinsertion=reinsertion), batch(k)
    x = {order: t.requires_grad_() for order, t in random_input(conv, n).items()}
    fast, slow = conv(x, n), conv._expanded(x, n)
    wrt = [*x.values(), *conv.parameters()]
    weights = {order: torch.randn_like(t) for order, t in slow.items()}

    def gradients(out):
        return torch.autograd.grad(sum((out[o] * w).sum() for o, w in weights.items()), wrt, materialize_grads=True)

    for order in outs:
        torch.testing.assert_close(fast[order], slow[order], rtol=0, atol=1e-12)
    for a, b in zip(gradients(fast), gradients(slow), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_second_derivatives_exist():
    conv, n = random_conv({2: 2}, {2: 2}, rooted=True), batch(1, random_graph(4, 4))
    assert torch.autograd.gradgradcheck(lambda x: conv({2: x}, n)[2].tanh(), random_input(conv, n)[2].requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_stays_close(dtype):
    conv, n = random_conv({2: 3, 1: 3}, {2: 3, 1: 2}, rooted=True), batch(2)
    x = random_input(conv, n)
    exact = {order: t.detach() for order, t in conv(x, n).items()}
    with torch.no_grad():
        rough = conv.to(dtype)({order: t.to(dtype) for order, t in x.items()}, n)
    for order, t in rough.items():
        assert t.dtype == dtype
        assert float((t.double() - exact[order]).abs().max() / exact[order].std()) < 30 * torch.finfo(dtype).eps


@pytest.mark.parametrize("rooted", [False, True])
def test_ego_nets_that_are_the_whole_graph_give_the_global_layer(rooted):
    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    conv, n = random_conv({2: 2, 1: 3}, {2: 2, 1: 2}, rooted=rooted), batch(2, Data(edge_index=ring, num_nodes=4))
    x, layer = random_input(conv, n), conv.layer
    dense = {2: x[2].reshape(1, 4, 4, 2), 1: x[1].reshape(1, 4, 3)}
    order = [torch.tensor([root, *(i for i in range(4) if i != root)]) for root in range(4)]
    total = {2: 0, 1: 0}
    for p in order:  # the root comes first
        out = layer({2: dense[2][:, p][:, :, p], 1: dense[1][:, p]})
        back = p.argsort()
        total[2] = total[2] + out[2][:, back][:, :, back] / 4
        total[1] = total[1] + out[1][:, back] / 4
    out = conv(x, n)
    torch.testing.assert_close(out[2].reshape(1, 4, 4, 2), total[2], rtol=0, atol=1e-12)
    torch.testing.assert_close(out[1].reshape(1, 4, 2), total[1], rtol=0, atol=1e-12)
    if not rooted:
        torch.testing.assert_close(total[2], layer(dense)[2], rtol=0, atol=1e-12)


def test_without_hops_each_node_sees_only_itself():
    conv = random_conv({1: 2}, {1: 3})
    x = torch.randn(5, 2, dtype=torch.float64)
    linked, alone = batch(0, random_graph(5, 9)), batch(0, random_graph(5, 0))
    torch.testing.assert_close(conv({1: x}, linked)[1], conv({1: x}, alone)[1], rtol=0, atol=0)
    changed = x.clone()
    changed[2] += 1
    moved = (conv({1: changed}, linked)[1] - conv({1: x}, linked)[1]).abs().sum(1) > 0
    assert moved.tolist() == [False, False, True, False, False]


def test_the_order_of_the_members_of_an_ego_net_is_irrelevant():
    data = EgoNets(1)(random_graph(7, 9))
    mixed, at, entry = data.clone(), 0, 0
    for size in data.ego_size.tolist():  # reverse the members after the root
        p = torch.tensor([0, *range(size - 1, 0, -1)])
        mixed.ego_index[at : at + size] = data.ego_index[at : at + size][p]
        square = data.ego_pair[entry : entry + size**2].reshape(size, size)
        mixed.ego_pair[entry : entry + size**2] = square[p][:, p].reshape(-1)
        at, entry = at + size, entry + size**2
    assert not torch.equal(mixed.ego_index, data.ego_index)
    conv = random_conv({2: 2, 1: 2}, {2: 2, 1: 2, 0: 2}, rooted=True)
    first, second = Neighborhoods.from_data(data), Neighborhoods.from_data(mixed)
    x = random_input(conv, first)
    for order, t in conv(x, first).items():
        torch.testing.assert_close(conv(x, second)[order], t, rtol=0, atol=1e-12)


def test_a_rooted_layer_without_weights_on_the_root_is_the_plain_layer():
    plain, rooted = random_conv({2: 2, 1: 2}, {2: 3, 1: 2}), random_conv({2: 2, 1: 2}, {2: 3, 1: 2}, rooted=True)
    a, b = plain.layer, rooted.layer

    def blocks(layer, kept):
        rows = [(key, c) for key in layer.sources[kept] for c in range(layer.in_features[key[0]])]
        columns = [(key, c) for key in layer.targets[kept] for c in range(layer.out_features[key[0]])]
        return rows, columns

    with torch.no_grad():
        for kept in range(3):
            rows, columns = blocks(b, kept)
            mine = blocks(a, kept)
            b.weight[str(kept)].zero_()
            for i, row in enumerate(mine[0]):
                for j, column in enumerate(mine[1]):
                    b.weight[str(kept)][rows.index(row), columns.index(column)] = a.weight[str(kept)][i, j]
        b.bias.zero_()
        for j, column in enumerate(blocks(a, 0)[1]):
            b.bias[blocks(b, 0)[1].index(column)] = a.bias[j]
    n = batch(2)
    x = random_input(plain, n)
    for order, t in plain(x, n).items():
        torch.testing.assert_close(rooted(x, n)[order], t, rtol=0, atol=1e-12)


def test_a_union_of_graphs_averages_their_ego_nets():
    conv = random_conv({2: 2}, {0: 3})
    a, b = batch(1, random_graph(4, 6)), batch(1, random_graph(7, 9))
    both = batch(1, random_graph(4, 6), random_graph(7, 9))
    xs = random_input(conv, a)[2], random_input(conv, b)[2]
    means = [conv({2: x}, n)[0].mean(0) for x, n in zip(xs, (a, b), strict=True)]
    torch.testing.assert_close(conv({2: torch.cat(xs)}, both)[0].mean(0), (4 * means[0] + 7 * means[1]) / 11)


def test_a_monoid_combines_the_ego_nets_of_a_pair():
    conv, n = random_conv({2: 2}, {2: 2}, reinsertion=Max()), batch(1)
    x = random_input(conv, n)
    inside = conv.layer({2: x[2][n.entries]}, n.blocks)[2]
    wanted = torch.stack([inside[n.entries == p].amax(0) for p in range(n.count(2))])
    torch.testing.assert_close(conv(x, n)[2], wanted)


def test_an_aggregation_combines_the_ego_nets_of_a_node():
    conv = random_conv({1: 2}, {1: 4, 2: 4}, reinsertion=LCMAggregation(4, 4))
    n = batch(1)
    out = conv.eval()(random_input(conv, n), n)
    assert out[1].shape == (n.count(1), 4)
    assert out[2].shape == (n.count(2), 4)
    assert conv.combine["1"] is not conv.combine["2"]


def of_bin(conv, b, ins, outs):
    """Return a layer without bins that has the weights of one bin."""
    alone = random_conv(ins, outs)
    own = conv.differences[b].state_dict()
    alone.layer.load_state_dict({name: t + own[name] for name, t in conv.layer.state_dict().items()})
    return alone


def test_each_size_uses_the_weights_of_its_bin():
    conv, n = random_conv({2: 2}, {0: 2, 2: 1}, size_bins=[2, 4]), batch(1)
    x = random_input(conv, n)
    out = conv(x, n)
    for b, chosen in ((0, n.blocks.sizes <= 2), (1, n.blocks.sizes > 2)):
        alone = of_bin(conv, b, {2: 2}, {0: 2, 2: 1})
        torch.testing.assert_close(out[0][chosen], alone(x, n)[0][chosen])


def test_bins_that_training_never_saw_use_what_all_sizes_have_learned():
    torch.manual_seed(0)
    conv = SPENConv({1: 2}, {0: 2}, size_bins="log").double()
    pairs, star = torch.tensor([[0, 2], [1, 3]]), torch.tensor([[0] * 20, list(range(1, 21))])
    seen = batch(1, Data(edge_index=pairs, num_nodes=4))
    optimizer = torch.optim.SGD(conv.parameters(), 0.1)
    conv(random_input(conv, seen), seen)[0].square().sum().backward()
    optimizer.step()
    moved = [any(bool(p.any()) for p in d.parameters()) for d in conv.differences]
    assert moved == [False, True, False, False, False, False, False]
    unseen = batch(1, Data(edge_index=star, num_nodes=21))
    x = random_input(conv, unseen)
    alone = SPENConv({1: 2}, {0: 2}).double()
    alone.layer.load_state_dict(conv.layer.state_dict())
    hub = conv(x, unseen)[0][0]
    torch.testing.assert_close(hub, alone(x, unseen)[0][0])


def test_a_batch_without_nodes_gives_empty_features():
    n = batch(1, Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=0))
    for options in ({}, {"size_bins": [1, 3]}, {"rooted": True}):
        conv = random_conv({2: 2, 1: 1}, {2: 3, 1: 2, 0: 1}, **options)
        assert {k: tuple(t.shape) for k, t in conv(random_input(conv, n), n).items()} == {
            2: (0, 3),
            1: (0, 2),
            0: (0, 1),
        }


def test_no_tensor_for_each_ego_net_is_kept_for_the_backward_pass():
    n = batch(2, *(random_graph(30, 60, seed) for seed in range(3)))
    conv = SPENConv({2: 8}, {2: 8})
    x = torch.randn(n.count(2), 8, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        conv({2: x}, n)
    floating = [t.numel() for t in saved if t.is_floating_point()]
    assert len(n.entries) > 5 * n.count(2)
    assert floating
    assert max(floating) < len(n.entries) * 8


def test_half_precision_does_not_overflow_at_a_hub():
    star = Data(edge_index=torch.tensor([[0] * 1000, list(range(1, 1001))]), num_nodes=1001)
    n = batch(1, star)
    for ins, outs, options in (({2: 1}, {0: 1}, {}), ({1: 1}, {1: 1}, {}), ({1: 1}, {1: 1}, {"size_bins": [2]})):
        conv = SPENConv(ins, outs, bias=False, **options).half()
        for parameter in conv.layer.parameters():
            torch.nn.init.ones_(parameter)
        x = {k: torch.full((n.count(k), c), 100.0).half() for k, c in ins.items()}
        assert conv(x, n)[max(outs)].isfinite().all()


def test_ensembles_and_jacobians():
    convs, n = [random_conv({2: 2}, {2: 2, 1: 1}, rooted=True) for _ in range(2)], batch(1, random_graph(4, 4))
    torch.nn.init.normal_(convs[1].layer.weight["1"])
    parameters, buffers = torch.func.stack_module_state(convs)
    x = random_input(convs[0], n)
    out = torch.vmap(lambda p: torch.func.functional_call(convs[0], (p, buffers), (x, n)))(parameters)
    for i, conv in enumerate(convs):
        torch.testing.assert_close(out[2][i], conv(x, n)[2])
    many = torch.stack([x[2], 2 * x[2]])
    torch.testing.assert_close(torch.vmap(lambda t: convs[0]({2: t}, n)[1])(many)[1], convs[0]({2: 2 * x[2]}, n)[1])
    jacobian = torch.func.jacrev(lambda t: convs[0]({2: t}, n)[1])(x[2])
    direct = torch.autograd.functional.jacobian(lambda t: convs[0]({2: t}, n)[1], x[2])
    torch.testing.assert_close(jacobian, direct)


def test_a_batch_of_ego_nets_under_vmap_is_refused(unchecked):
    n = batch(1)
    x = torch.randn(n.count(2), 2)
    index = torch.stack([n._there[0], n._there[0]])
    with pytest.raises(InputError, match="batch graphs by PyG's Batch"):
        torch.vmap(lambda there: _SumOfRows.apply(x, there, n._there[1], *n._back))(index)


def test_layers_and_networks_compile():
    """Run in a separate process, since the compiler can't trace run-time shape checks."""
    code = """
import networkx as nx, torch
from torch_geometric.data import Batch
from torch_geometric.utils import from_networkx
from commutant.graphs import *
graphs = [EgoNets(1)(from_networkx(g)) for g in (nx.circular_ladder_graph(3), nx.star_graph(4))]
batch = Batch.from_data_list(graphs)
n = Neighborhoods.from_data(batch)
conv, x = SPENConv({2: 2}, {2: 2}, rooted=True), torch.randn(n.count(2), 2, requires_grad=True)
compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
torch.testing.assert_close(compiled({2: x}, n)[2], conv({2: x}, n)[2])
compiled({2: x}, n)[2].sum().backward()
for options in ({}, {"size_bins": [2, 4]}):
    model = SPEN(0, 4, 2, 1, **options)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(batch), model(batch))
"""
    done = warm.python(code)
    assert done.returncode == 0, done.stderr[-2000:]


def test_weights_do_not_depend_on_the_order_of_a_dict():
    a, b = random_conv({2: 3, 1: 2}, {2: 2, 1: 2}), random_conv({1: 2, 2: 3}, {1: 2, 2: 2})
    b.load_state_dict(a.state_dict())
    n = batch(1)
    x = random_input(a, n)
    torch.testing.assert_close(b(x, n)[2], a(x, n)[2])


def test_aggregations_that_need_sorted_elements_get_them():
    conv, n = random_conv({1: 2}, {1: 4}, reinsertion=GRUAggregation(4, 4)), batch(1)
    assert conv(random_input(conv, n), n)[1].shape == (n.count(1), 4)


def test_parameters_are_reinitialized():
    conv = random_conv({1: 2}, {1: 4}, reinsertion=LCMAggregation(4, 4), size_bins=[2, 3])
    before = conv.layer.weight["1"].clone()
    conv.reset_parameters()
    assert not torch.equal(conv.layer.weight["1"], before)
    assert not any(bool(p.any()) for p in conv.differences.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SPENConv({2: 1}, {2: 1}, size_bins=b"ab"), "size_bins must be None, 'log' or a list"),
        (lambda: SPENConv({2: 1}, {2: 1}, reinsertion=torch.nn.Linear(2, 2)), "or an aggregation of PyG, got Linear"),
        (lambda: SPENConv({2: 1}, {2: 1})({2: torch.zeros(1, 1)}, Data()), r"must be Neighborhoods.from_data\(data\)"),
        (lambda: SPENConv({3: 1}, {2: 1}), r"orders 0, 1 and 2\), got order 3"),
        (lambda: SPENConv({2: 1}, {2: 1}, reinsertion="max"), "reinsertion must be one of mean, sum, got 'max'"),
        (lambda: SPENConv({2: 1}, {2: 1}, size_bins="linear"), "size_bins must be None, 'log' or a list"),
        (lambda: SPENConv({2: 1}, {2: 1}, size_bins=[]), "size_bins must be None, 'log' or a list"),
        (lambda: SPENConv({2: 1}, {2: 1}, size_bins=[2, 2]), "distinct positive whole numbers"),
        (lambda: SPENConv({2: 1}, {2: 1}, size_bins=[0, 2]), "distinct positive whole numbers"),
    ],
)
def test_bad_definitions_are_refused(make, message, unchecked):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({2: torch.zeros(5, 2)}, r"x\[2\] must have a row for each of 14 pairs, got shape \(5, 2\)"),
        ({2: torch.zeros(14, 3)}, r"x\[2\] must have 2 channels"),
        ({1: torch.zeros(4, 2)}, r"x must be a dict with orders \[2\], got orders \[1\]"),
        ({2: torch.zeros(14, 2).long()}, "must be floating point"),
        ({2: torch.zeros(14, 2).double()}, "the weights are torch.float32"),
    ],
)
def test_features_that_do_not_fit_are_refused(x, message, unchecked):
    path = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), num_nodes=4)
    with pytest.raises(InputError, match=message):
        SPENConv({2: 2}, {2: 2})(x, batch(1, path))


def test_not_a_number_stays_in_the_ego_nets_that_hold_it():
    conv, n = random_conv({1: 2}, {1: 2}), batch(1, random_graph(5, 6), random_graph(4, 5))
    x = random_input(conv, n)
    x[1][0] = float("nan")
    out = conv(x, n)[1]
    assert out[0].isnan().all()
    assert not out[5:].isnan().any()


def test_the_layer_is_not_the_global_layer_on_a_path():
    """The ego-nets of a path do not hold all pairs, so the two must differ."""
    path = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
    conv, n = random_conv({1: 2}, {1: 2}), batch(1, path)
    x = random_input(conv, n)
    layer: PermutationEquivariantLinear = conv.layer
    assert not torch.allclose(conv(x, n)[1], layer({1: x[1][None]})[1][0])
