"""Equivariant linear maps, against the equations that define them and a sum over dense maps."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from commutant import InputError
from commutant.algebra import Blocks, EquivariantMap, PermutationEquivariantLinear, equivariant_basis

BELL = (1, 1, 2, 5, 15, 52, 203, 877)
RANKS = {(2, 2): (1, 8, 14, 15, 15), (2, 1): (1, 4, 5, 5), (1, 2): (1, 4, 5, 5), (1, 1): (1, 2, 2), (2, 0): (1, 2, 2),
         (0, 2): (1, 2, 2), (3, 1): (1, 8, 14, 15)}  # fmt: skip
ROOTED_RANKS = {(2, 2): (1, 16, 41, 51, 52), (1, 1): (1, 4, 5, 5), (2, 1): (1, 8, 14, 15), (0, 0): (1, 1)}


def act(p, x, order):
    """Permute the node axes of `x`, which come after the first axis."""
    for axis in range(1, order + 1):
        x = x.index_select(axis, p)
    return x


def summed_over_dense_maps(layer, x, m):
    """Return the output of a layer as the weighted sum over all maps of the basis, one after the other."""
    out = {}
    for order, width in layer.out_features.items():
        total = 0
        for r, sources in layer.sources.items():
            row = 0
            for k, source in sources:
                column = 0
                for target_order, target in layer.targets[r]:
                    if target_order == order:
                        dense = EquivariantMap(source, target).dense(m, x[k].dtype).reshape(m**order, m**k)
                        channels = x[k].shape[-1]
                        weight = layer.weight[str(r)][row : row + channels, column : column + width]
                        total = total + torch.einsum(
                            "oi,bic,cd->bod", dense, x[k].reshape(len(x[k]), -1, channels), weight
                        )
                    column += layer.out_features[target_order]
                row += layer.in_features[k]
        if layer.bias is not None:
            column = 0
            for target_order, target in layer.targets[0]:
                if target_order == order:
                    dense = EquivariantMap("", target).dense(m, total.dtype).reshape(-1, 1)
                    total = total + dense * layer.bias[column : column + width]
                column += layer.out_features[target_order]
        out[order] = total.reshape(-1, *(m,) * order, width)
    return out


def random_layer(ins, outs, dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    layer = PermutationEquivariantLinear(ins, outs, **options)
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    return layer.to(dtype)


def random_input(layer, blocks, m, dtype=torch.float64):
    return {k: torch.randn(blocks, *(m,) * k, c, dtype=dtype) for k, c in layer.in_features.items()}


@pytest.mark.parametrize("rooted", [False, True])
@pytest.mark.parametrize(("k", "l"), list(itertools.product(range(4), range(4))))
def test_the_number_of_maps_is_a_bell_number(k, l, rooted):  # noqa: E741
    basis = equivariant_basis(k, l, rooted)
    assert len(basis) == len(set(map(str, basis))) == BELL[k + l + rooted]


@pytest.mark.parametrize("rooted", [False, True])
def test_the_rank_of_the_maps_grows_with_the_number_of_nodes(rooted):
    for (k, l), ranks in (ROOTED_RANKS if rooted else RANKS).items():  # noqa: E741
        for m, rank in enumerate(ranks, 1):
            maps = torch.stack([e.dense(m).flatten() for e in equivariant_basis(k, l, rooted)])
            assert int(torch.linalg.matrix_rank(maps)) == rank, (k, l, m)


@pytest.mark.parametrize("rooted", [False, True])
@pytest.mark.parametrize(("k", "l", "m"), [(2, 2, 3), (2, 1, 4), (0, 2, 3), (1, 1, 4), (3, 0, 3)])
def test_no_other_linear_map_commutes_with_permutations(k, l, m, rooted):  # noqa: E741
    inputs = torch.eye(m**k, dtype=torch.float64).reshape(m**k, *(m,) * k)
    outputs = torch.eye(m**l, dtype=torch.float64).reshape(m**l, *(m,) * l)
    equations = []
    for i in range(1 if rooted else 0, m - 1):  # neighbor swaps generate the group
        p = torch.arange(m)
        p[[i, i + 1]] = p[[i + 1, i]]
        before, after = act(p, inputs, k).reshape(m**k, -1), act(p, outputs, l).reshape(m**l, -1)
        identity_in, identity_out = torch.eye(m**k, dtype=torch.float64), torch.eye(m**l, dtype=torch.float64)
        equations.append(torch.kron(after, identity_in) - torch.kron(identity_out, before.T.contiguous()))
    constraints = torch.cat(equations) if equations else torch.zeros(1, m ** (k + l), dtype=torch.float64)
    solutions = m ** (k + l) - int(torch.linalg.matrix_rank(constraints))
    maps = torch.stack([e.dense(m).flatten() for e in equivariant_basis(k, l, rooted)])
    assert int(torch.linalg.matrix_rank(maps)) == solutions
    assert float((constraints @ maps.T).abs().max()) < 1e-12


@pytest.mark.parametrize("rooted", [False, True])
@pytest.mark.parametrize(
    ("ins", "outs"),
    [({2: 2}, {2: 3}), ({2: 3, 1: 2, 0: 1}, {2: 2, 1: 3, 0: 2}), ({1: 2}, {3: 1, 1: 2}), ({3: 2}, {3: 1}),
     ({0: 3}, {2: 1}), ({3: 1, 2: 1}, {0: 2})],
)  # fmt: skip
def test_the_layer_is_the_weighted_sum_of_the_maps(ins, outs, rooted):
    layer = random_layer(ins, outs, rooted=rooted)
    sizes = torch.tensor([3, 3]) if max(ins) == 0 else None
    x = random_input(layer, 2, 3)
    found = {k: t.reshape(2, *(3,) * k, -1) for k, t in layer(x, sizes).items()}
    wanted = summed_over_dense_maps(layer, x, 3)
    for order in outs:
        torch.testing.assert_close(found[order], wanted[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rooted", [False, True])
def test_gradients_are_those_of_the_sum_of_the_maps(rooted):
    layer = random_layer({2: 2, 1: 1}, {2: 2, 0: 1}, rooted=rooted)
    x = {k: t.requires_grad_() for k, t in random_input(layer, 2, 3).items()}
    wrt = [*x.values(), *layer.parameters()]
    cotangent = {2: torch.randn(2, 3, 3, 2).double(), 0: torch.randn(2, 1).double()}

    def gradients(out):
        return torch.autograd.grad(sum((out[k] * c).sum() for k, c in cotangent.items()), wrt)

    for a, b in zip(gradients(layer(x)), gradients(summed_over_dense_maps(layer, x, 3)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert torch.autograd.gradgradcheck(lambda t: layer({2: t, 1: x[1]})[2].tanh(), x[2])


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_lower_precision_stays_close(dtype, error):
    layer = random_layer({2: 4, 1: 3}, {2: 4, 1: 2})
    x = random_input(layer, 3, 11)
    exact = layer(x)
    rough = copy.deepcopy(layer).to(dtype)({k: t.to(dtype) for k, t in x.items()})
    for order, t in rough.items():
        assert t.dtype == dtype
        assert float((t.double() - exact[order]).detach().abs().max() / exact[order].detach().std()) < error


def test_averages_in_bfloat16_are_taken_in_float32():
    layer = random_layer({1: 1}, {0: 1}, torch.bfloat16, bias=False)
    with torch.no_grad():
        layer.weight["0"].fill_(1)
    x = torch.ones(1, 3001, 1, dtype=torch.bfloat16)
    assert float(layer({1: x})[0].detach()) == 1


@pytest.mark.parametrize(
    ("sizes", "rooted"),
    [(sizes, rooted) for sizes in ([2, 4, 1, 4], [1, 1, 3, 3], [5], []) for rooted in (False, True)]
    + [([3, 0, 3], False)],
)
def test_blocks_of_different_sizes_are_computed_as_if_alone(sizes, rooted):
    layer = random_layer({2: 3, 1: 2, 0: 1}, {2: 2, 1: 3, 0: 2}, rooted=rooted)
    alone = [random_input(layer, 1, m) for m in sizes]
    flat = {
        k: torch.cat([torch.empty(0, c, dtype=torch.float64), *(x[k].reshape(-1, c) for x in alone)])
        for k, c in layer.in_features.items()
    }
    out = layer(flat, torch.tensor(sizes, dtype=torch.int64))
    for order, width in layer.out_features.items():
        wanted = [layer(x)[order].reshape(-1, width) for x in alone]
        wanted = torch.cat([torch.empty(0, width, dtype=torch.float64), *wanted])
        torch.testing.assert_close(out[order], wanted, rtol=0, atol=1e-12)
        assert not out[order].isnan().any()


def test_padded_tensors_become_blocks_by_a_mask():
    layer = random_layer({2: 2}, {2: 2})
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    pairs = mask[:, :, None] & mask[:, None]
    x = torch.randn(2, 4, 4, 2).double()
    out = layer({2: x[pairs]}, mask.sum(1))[2]
    torch.testing.assert_close(out[:4].reshape(1, 2, 2, 2), layer({2: x[:1, :2, :2]})[2])
    torch.testing.assert_close(out[4:].reshape(1, 4, 4, 2), layer({2: x[1:]})[2])


def test_a_rooted_layer_commutes_only_with_permutations_that_keep_the_root():
    layer = random_layer({2: 2, 1: 2}, {2: 2, 1: 2}, rooted=True)
    x = random_input(layer, 2, 4)
    keeps, moves = torch.tensor([0, 3, 1, 2]), torch.tensor([1, 0, 2, 3])
    for p, commutes in ((keeps, True), (moves, False)):
        first, last = layer({k: act(p, t, k) for k, t in x.items()}), layer(x)
        for order in (1, 2):
            assert torch.allclose(first[order], act(p, last[order], order), atol=1e-12) == commutes


def test_activations_for_the_backward_pass_are_a_third_of_a_copy_for_each_map():
    layer = random_layer({2: 8}, {2: 8}, torch.float32)
    x = torch.randn(5, 20, 20, 8, requires_grad=True)
    saved = {}

    def pack(t):
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = layer({2: x})[2]
    assert out.requires_grad
    assert 0 < sum(saved.values()) <= 15 * x.numel() * 4 / 3


def test_an_ensemble_of_layers_runs_under_vmap():
    layers = [random_layer({2: 2, 1: 1}, {2: 2, 0: 1}, seed=seed) for seed in range(3)]
    parameters, buffers = torch.func.stack_module_state(layers)
    x = random_input(layers[0], 2, 3)
    out = torch.vmap(lambda p: torch.func.functional_call(layers[0], (p, buffers), (x,)))(parameters)
    for i, layer in enumerate(layers):
        torch.testing.assert_close(out[2][i], layer(x)[2])


def test_a_layer_compiles_without_a_break(unchecked):
    layer = random_layer({2: 2, 1: 1}, {2: 2, 0: 1}, torch.float32, rooted=True)
    x = random_input(layer, 2, 3, torch.float32)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for order, t in compiled(x).items():
        torch.testing.assert_close(t, layer(x)[order])


def test_the_variance_of_the_output_is_of_order_one():
    layer = random_layer({2: 16, 1: 16}, {2: 16, 1: 16}, torch.float32)
    out = layer(random_input(layer, 50, 8, torch.float32))
    assert 0.1 < float(out[2].detach().var()) < 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: equivariant_basis(4, 2), "k must be one of 0, 1, 2, 3, got 4"),
        (lambda: equivariant_basis(2, -1), "l must be one of"),
        (lambda: PermutationEquivariantLinear({}, {2: 1}), "in_features must map orders"),
        (
            lambda: PermutationEquivariantLinear({2: 0}, {2: 1}),
            r"in_features\[2\] must be a whole number of at least 1",
        ),
        (lambda: PermutationEquivariantLinear({2: 1}, {5: 1}), "an order of out_features must be one of"),
        (lambda: PermutationEquivariantLinear({2: 1}, {2: 1}, rooted="yes"), "rooted must be one of"),
        (lambda: EquivariantMap("i", "s"), "target must have at most 3 of the letters ijkabcr, got 's'"),
        (lambda: EquivariantMap("ij", "i"), "must keep the same letters"),
        (lambda: EquivariantMap(None, "i"), "source must have at most 3 of the letters"),
        (lambda: EquivariantMap("is", "i").dense(2, torch.int64), "dtype must be a floating-point dtype"),
        (lambda: Blocks(torch.tensor([2])).rows(-1), "order must be a whole number of at least 0"),
        (lambda: Blocks(torch.tensor([2, 3])).split(torch.ones(4, 1), 1), "x of order 1 must have 5 rows"),
        (lambda: Blocks(torch.tensor([2, 3])).join([torch.ones(4, 1)], 1), "parts of order 1 must have 5 rows"),
        (lambda: Blocks(torch.tensor([2, -1])), "sizes must be non-negative, got -1"),
        (lambda: Blocks(torch.tensor([2.0])), "sizes must be a 1-d integer tensor"),
    ],
)
def test_bad_definitions_are_refused(make, message, unchecked):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("x", "sizes", "message"),
    [
        ({2: torch.zeros(2, 3, 3, 4)}, None, r"x must be a dict with orders \[1, 2\], got orders \[2\]"),
        (torch.zeros(2, 3, 3, 4), None, "x must be a dict with orders"),
        ({2: torch.zeros(2, 3, 3, 4), 1: torch.zeros(2, 3, 5)}, None, r"x\[1\] must have 2 channels"),
        ({2: torch.zeros(2, 3, 4, 4), 1: torch.zeros(2, 3, 2)}, None, "with m once for each order"),
        ({2: torch.zeros(2, 3, 3, 4), 1: torch.zeros(1, 3, 2)}, None, "with m once for each order"),
        ({2: torch.zeros(9, 4), 1: torch.zeros(3, 2)}, None, "with m once for each order"),
        ({2: torch.zeros(9, 4), 1: torch.zeros(4, 2)}, torch.tensor([3]), r"x\[1\] must have shape \(3, channels\)"),
        (
            {2: torch.zeros(9, 4).double(), 1: torch.zeros(3, 2)},
            torch.tensor([3]),
            "is torch.float64 and the weights are",
        ),
        ({2: torch.zeros(9, 4).long(), 1: torch.zeros(3, 2)}, torch.tensor([3]), "must be floating point"),
    ],
)
def test_input_of_the_wrong_form_is_refused(x, sizes, message, unchecked):
    layer = random_layer({2: 4, 1: 2}, {2: 1}, torch.float32)
    with pytest.raises(InputError, match=message):
        layer(x, sizes)


def test_a_scalar_alone_does_not_say_how_many_nodes_there_are():
    layer = random_layer({0: 2}, {2: 1}, torch.float32)
    with pytest.raises(InputError, match="cannot be inferred from order 0"):
        layer({0: torch.zeros(3, 2)})


def test_an_empty_block_has_no_root():
    layer = random_layer({2: 1}, {2: 1}, torch.float32, rooted=True)
    with pytest.raises(InputError, match="needs at least one node"):
        layer({2: torch.zeros(4, 1)}, torch.tensor([2, 0]))
