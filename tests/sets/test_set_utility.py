"""Utility of subsets: gains by rank-one updates against their definition, layouts, symmetries, and refused input."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import Max, Product, Sum
from commutant.sets import BinaryGRU, Conjugated, SetUtility

INDEX = torch.tensor([2, 0, 0, 2, 1, 2, 0, 2])  # four sets, unsorted, the last one empty


def utility_of(background="complement", pool="sum", dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4))
    utility = SetUtility(encoder, 4, 8, background=background, pool=pool)
    with torch.no_grad():
        for parameter in utility.parameters():
            parameter.mul_(2)  # so that all units matter
    return utility.to(dtype)


def drawn(dtype=torch.float64, samples=6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.rand(samples, 8, generator=generator) < 0.5


def gains_by_definition(utility, x, subset, **layout):
    """Marginal gains from two evaluations for each element."""
    owner = layout.get("index", torch.zeros(len(x), dtype=torch.int64))
    found = []
    for i in range(len(x)):
        one = torch.arange(len(x)) == i
        difference = utility(x, subset | one, **layout) - utility(x, subset & ~one, **layout)
        found.append(difference[..., owner[i]])
    return torch.stack(found, -1)


POOLS = {"sum": "sum", "mean": "mean", "max": Max(), "product": Product(Sum(), Max())}


@pytest.mark.parametrize("background", ["complement", "concat", "none"])
@pytest.mark.parametrize("pool", POOLS)
def test_gains_are_differences_of_utilities(background, pool):
    utility = utility_of(background, copy.deepcopy(POOLS[pool]))
    x, subset = drawn()
    subset[0], subset[1] = False, True  # the empty subset, and the whole ground sets
    found = utility.marginal_gains(x, subset, INDEX, num_sets=4)
    torch.testing.assert_close(found, gains_by_definition(utility, x, subset, index=INDEX, num_sets=4))
    assert found.abs().max() > 1e-3


def test_gains_of_a_learnable_monoid():
    torch.manual_seed(0)
    pool = Conjugated.of_sum(4).double()
    utility = utility_of(pool=pool)
    x, subset = drawn()
    found = utility.marginal_gains(x, subset, INDEX)
    torch.testing.assert_close(found, gains_by_definition(utility, x, subset, index=INDEX), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("pool", POOLS)
def test_gradients_of_gains_are_those_of_the_differences(pool):
    utility = utility_of(pool=copy.deepcopy(POOLS[pool]))
    x, subset = drawn()
    weight = torch.randn(subset.shape, dtype=torch.float64)
    fast, slow = (
        torch.autograd.grad((gains * weight).sum(), list(utility.parameters()))
        for gains in (utility.marginal_gains(x, subset, INDEX), gains_by_definition(utility, x, subset, index=INDEX))
    )
    torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize("pool", POOLS)
def test_gains_of_some_elements_are_those_of_all(pool):
    utility = utility_of(pool=copy.deepcopy(POOLS[pool]))
    x, subset = drawn()
    sets, only = utility.prepare(x, ptr=torch.tensor([0, 3, 3, 8])), torch.tensor([6, 1, 2])
    torch.testing.assert_close(utility.gains(sets, subset, only), utility.gains(sets, subset)[:, only])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_lower_precision(dtype, tolerance):
    x, subset = drawn(dtype)
    found = utility_of(dtype=dtype).marginal_gains(x, subset, INDEX)
    assert found.dtype == dtype
    wanted = utility_of().marginal_gains(x.double(), subset, INDEX)
    torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=tolerance)


def test_layouts_agree():
    utility, (x, subset) = utility_of(), drawn()
    order = INDEX.argsort(stable=True)
    by_index = utility(x, subset, INDEX)
    torch.testing.assert_close(utility(x[order], subset[:, order], ptr=torch.tensor([0, 3, 4, 8])), by_index)
    torch.testing.assert_close(utility(x[order], subset[:, order], INDEX[order], torch.tensor([0, 3, 4, 8])), by_index)
    alone = utility(x[INDEX == 2], subset[:, INDEX == 2])
    torch.testing.assert_close(alone[:, 0], by_index[:, 2])
    assert utility(x, subset[0], INDEX).shape == (3,)
    assert utility(x, subset.reshape(2, 3, 8), INDEX).shape == (2, 3, 3)
    assert utility.marginal_gains(x, subset.reshape(2, 3, 8), INDEX).shape == (2, 3, 8)
    assert utility(x, subset, INDEX, num_sets=6).shape == (6, 6)


def test_no_elements():
    utility = utility_of()
    x, subset = torch.zeros(0, 3, dtype=torch.float64), torch.zeros(2, 0, dtype=torch.bool)
    assert utility(x, subset, torch.zeros(0, dtype=torch.int64), num_sets=2).shape == (2, 2)
    assert utility.marginal_gains(x, subset).shape == (2, 0)


def test_weights_extend_booleans():
    utility, (x, subset) = utility_of(), drawn()
    torch.testing.assert_close(utility(x, subset.double(), INDEX), utility(x, subset, INDEX))
    weights = subset.double().requires_grad_()
    utility(x, weights, INDEX).sum().backward()
    assert weights.grad.abs().min() > 0


def test_nan_stays_in_its_set():
    utility, (x, subset) = utility_of(), drawn()
    x[1] = torch.nan  # of set 0
    found = utility(x, subset, INDEX)
    assert found[:, 0].isnan().all()
    assert found[:, 1:].isfinite().all()
    assert utility.marginal_gains(x, subset, INDEX)[:, INDEX != 0].isfinite().all()


def test_swapping_the_subset_and_the_background_swaps_the_branches():
    utility, (x, subset) = utility_of(), drawn()
    swapped = copy.deepcopy(utility)
    swapped.branches[0].rest, swapped.branches[1].rest = utility.branches[1].rest, utility.branches[0].rest
    swapped.branches[0].first["inside"] = utility.branches[1].first["outside"]
    swapped.branches[1].first["outside"] = utility.branches[0].first["inside"]
    torch.testing.assert_close(swapped(x, ~subset, INDEX), utility(x, subset, INDEX))


def test_only_a_background_sees_the_ground_set():
    x, subset = drawn()
    other = x.clone()
    other[~subset[0]] += 1
    for background, sees in (("none", False), ("complement", True), ("concat", True)):
        utility = utility_of(background)
        same = torch.equal(utility(x, subset[0], INDEX), utility(other, subset[0], INDEX))
        assert same != sees, background


def test_parameter_counts_of_the_paper():
    encoder = nn.Identity()
    one, two = (
        sum(p.numel() for p in SetUtility(encoder, 256, 500, background=b).parameters()) for b in ("none", "complement")
    )
    assert two - one == one == 379_501  # 2,162,181 - 1,782,680 parameters, INSET and EquiVSet on CelebA


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u, x, s: u(x, s[:, :3]), r"subset must have shape \(..., 8\)"),
        (lambda u, x, s: u(x, s.long()), "subset must be boolean or weights"),
        (lambda u, x, s: u(x, s * 2.0), "weights of a subset must lie in 0..1"),
        (lambda u, x, s: u(x, s * torch.nan), "weights of a subset must lie in 0..1"),
        (lambda u, x, s: u(x, None), "got NoneType"),
        (lambda u, x, s: u(x.float(), s), "x is torch.float32 and the weights are torch.float64"),
        (lambda u, x, s: u(x.long(), s), "x must be floating point"),
        (lambda u, x, s: u(x, s, INDEX[:3]), "index has 3 entries for 8 elements"),
        (lambda u, x, s: u(x, s, INDEX - 1), "index must not be negative"),
        (lambda u, x, s: u(x, s, ptr=torch.tensor([0, 3])), "ptr must rise from 0"),
        (lambda u, x, s: u(x, s, INDEX, num_sets=2), "index must lie in 0..1"),
        (lambda u, x, s: u.marginal_gains(x, s.double()), "gains need a boolean subset"),
        (lambda u, x, s: SetUtility(nn.Linear(3, 5), 4).double()(x, s), "the encoder must return shape"),
        (lambda u, x, s: SetUtility(u.encoder, 4, pool=Max()).double()(x, s * 0.5), "a monoid takes boolean subsets"),
        (lambda u, x, s: SetUtility(nn.Linear(3, 4), 0), "features must be"),
        (lambda u, x, s: SetUtility("mlp", 4), "encoder must be a module"),
        (lambda u, x, s: SetUtility(u.encoder, 4, background="both"), "background must be one of"),
        (lambda u, x, s: SetUtility(u.encoder, 4, pool="max"), "pool must be one of"),
        (lambda u, x, s: SetUtility(u.encoder, 4, pool=Max), "instantiate it"),
        (lambda u, x, s: SetUtility(u.encoder, 4, pool=BinaryGRU(4)), "exactly associative and commutative"),
    ],
)
def test_wrong_input_is_named(call, message, unchecked):
    x, subset = drawn()
    with pytest.raises(InputError, match=message):
        call(utility_of(), x, subset)
