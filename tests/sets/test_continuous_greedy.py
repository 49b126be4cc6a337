"""Given set functions: extensions, facility location, bounds on the optimum, and refused input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from commutant import InputError
from commutant.sets import FacilityLocation, continuous_greedy, multilinear_extension
from commutant.sets._continuous_greedy import _rounded


def facilities(rows=12, n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    w = torch.rand(rows, n, generator=generator, dtype=torch.float64)
    return FacilityLocation(w * (torch.rand(rows, n, generator=generator) < 0.5))


def plain(function):
    """Function without the closed forms of its class."""
    return lambda subsets: function(subsets)


def optimum(function, n, feasible):
    every = torch.tensor(list(itertools.product((False, True), repeat=n)))
    return float(function(every[[bool(feasible(s)) for s in every]]).max())


def test_facility_location_is_its_definition():
    f = facilities()
    subset = torch.rand(5, 3, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    subset[0, 0], subset[0, 1] = False, True
    wanted = torch.where(subset[..., None, :], f.similarity, 0.0).amax(-1).sum(-1)
    torch.testing.assert_close(f(subset), wanted)
    one = torch.eye(8, dtype=torch.bool)
    gains = torch.stack([f(subset | o) - f(subset & ~o) for o in one], -1)
    torch.testing.assert_close(f.marginal_gains(subset), gains)
    assert f(subset[:0]).shape == (0, 3)


def test_extensions_agree():
    f = facilities()
    p = torch.rand(8, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    p.data[0], p.data[1] = 0, 1
    closed, exact = multilinear_extension(f, p), multilinear_extension(plain(f), p)
    torch.testing.assert_close(closed, exact)
    wanted = torch.autograd.grad(closed, p, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(exact, p)[0], wanted)
    generator = torch.Generator().manual_seed(0)
    for function in (f, plain(f)):
        sampled = multilinear_extension(function, p, 4000, generator=generator)
        torch.testing.assert_close(sampled, closed, atol=0.1, rtol=0)
        torch.testing.assert_close(torch.autograd.grad(sampled, p)[0], wanted, atol=0.1, rtol=0)
    corner = torch.tensor([1.0, 0, 1, 0, 0, 0, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(multilinear_extension(f, corner), f(corner > 0))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("given", ["closed", "enumerated", "sampled"])
def test_the_bound_holds_and_the_value_is_near_it(seed, given):
    f = facilities(seed=seed)
    function = f if given == "closed" else plain(f)
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    for budget, limits in ((3, None), (1, groups), ([2, 0, 1], groups)):
        found = continuous_greedy(
            function,
            8,
            budget,
            groups=limits,
            n_samples=64 if given == "sampled" else None,
            generator=torch.Generator().manual_seed(0),
        )
        many = [budget] * 3 if isinstance(budget, int) else budget
        parts = [groups == g for g in range(3)] if limits is not None else [groups >= 0]

        def feasible(s, parts=parts, many=many):
            return all(s[part].sum() <= b for part, b in zip(parts, many, strict=False))

        best = optimum(f, 8, feasible)
        assert feasible(found.subset)
        assert found.value == pytest.approx(float(f(found.subset)))
        assert found.greedy_value <= found.value <= best + 1e-9 <= found.upper_bound + 2e-9
        assert found.value >= (1 - 1 / 2.718281828) * best


def test_it_beats_greedy_where_greedy_is_half():
    # Group 0 holds a decoy a, slightly better than b, that covers what c in group 1 would cover.
    eps = 0.01
    similarity = torch.tensor([[1 + eps, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    found = continuous_greedy(
        FacilityLocation(similarity), 3, 1, groups=torch.tensor([0, 0, 1]), generator=torch.Generator().manual_seed(0)
    )
    assert found.greedy_value == pytest.approx(1 + eps)
    assert found.value == found.rounded_value == pytest.approx(2.0)
    assert found.upper_bound >= 2


def synergy(s):
    """Function that is submodular on the greedy path alone: pairs gain where the first element is missing."""
    w = torch.tensor([1.01, 1, 0.5, 0.1, 0.1, 0.1], dtype=torch.float64)
    pairs = 10.0 * (s[..., 1] & s[..., 2]) + 40.0 * (s[..., 3] & s[..., 4])
    return s.double() @ w + pairs * ~s[..., 0]


def growing(scale, offset=0.0):
    w = torch.arange(6, 0, -1, dtype=torch.float64)
    return lambda s: offset + scale * (s.double() @ w + 1.5 * (s[..., 0] & s[..., 2]) + 100.0 * (s[..., 2] & s[..., 3]))


def test_a_value_above_the_bound_is_an_error():
    with pytest.raises(InputError, match=r"a subset has the value .* above the bound"):
        continuous_greedy(synergy, 6, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("function", [growing(1.0), growing(1e-6), growing(1.0, 1e6), growing(-1e-6)])
def test_violations_are_relative_to_the_gains(function):
    with pytest.raises(InputError, match="the bound needs a"):
        continuous_greedy(function, 6, 2)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_functions_of_any_dtype_and_many_elements(dtype):
    covers = torch.rand(30, 50, generator=torch.Generator().manual_seed(0)) < 0.1
    f = lambda s: (s[:, None] & covers).any(2).sum(1).to(dtype)  # noqa: E731
    found = continuous_greedy(f, 50, 5, n_samples=20, generator=torch.Generator().manual_seed(0))
    assert found.value == int(f(found.subset[None])) <= found.upper_bound


def test_swaps_keep_the_mean_of_the_subsets():
    bases = [torch.tensor(b) > 0 for b in ([1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 1, 0, 0, 1], [1, 0, 0, 1, 0])]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([_rounded(bases, torch.zeros(5, dtype=torch.int64), generator) for _ in range(4000)])
    assert (drawn.sum(1) == 2).all()
    wanted = torch.stack(bases).double().mean(0)
    assert ((drawn.double().mean(0) - wanted).abs() < 4.5 * 0.5 / 4000**0.5).all()


def test_groups_of_any_form():
    f, groups = facilities(), [0, 1, 0, 1, 0, 1, 2, 2]
    found = [
        continuous_greedy(f, 8, b, groups=g, generator=torch.Generator().manual_seed(0)).value
        for b, g in (
            ([1, 2, 0], groups),
            (torch.tensor([1, 2, 0]), torch.tensor(groups)),
            ((1, 2, 0), np.array(groups)),
        )
    ]
    assert found[0] == found[1] == found[2]


def test_all_elements_and_none():
    f = facilities()
    assert continuous_greedy(f, 8, 8).value == pytest.approx(float(f(torch.ones(8) > 0)))
    assert continuous_greedy(f, 8, 0).value == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: continuous_greedy(lambda s: s.double().sum(1) ** 2, 5, 2), "needs a submodular function"),
        (lambda f: continuous_greedy(lambda s: -s.double().sum(1), 5, 2), "needs a monotone function"),
        (lambda f: continuous_greedy(lambda s: s.double(), 5, 2), "function must return shape"),
        (lambda f: continuous_greedy(lambda s: s.double().sum(1) * torch.nan, 5, 2), "returned NaN"),
        (lambda f: continuous_greedy(f, 8, 9), "budget 9 is larger than the number of elements, 8"),
        (lambda f: continuous_greedy(f, 8, -1), "budget must be"),
        (lambda f: continuous_greedy(f, 8, [2, 1]), "budget must be a whole number without groups"),
        (lambda f: continuous_greedy(f, 8, [2], groups=torch.arange(8) // 4), "one for each of 2 groups"),
        (lambda f: continuous_greedy(f, 8, 5, groups=torch.arange(8) // 4), "of group 0, 4"),
        (lambda f: continuous_greedy(f, 8, 1, groups=torch.zeros(8)), "groups must hold"),
        (lambda f: continuous_greedy(f, 8, {0: 3, 1: 3}, groups=torch.arange(8) // 4), "one for each of 2 groups"),
        (lambda f: continuous_greedy(f, 8, None, groups=torch.arange(8) // 4), "got None"),
        (lambda f: continuous_greedy(f, 8, 1, groups=torch.arange(8) // 4 * 5), "from 0 without a gap"),
        (lambda f: continuous_greedy(f, 8, 1, groups=torch.full((8,), 10**12)), "from 0 without a gap"),
        (lambda f: f.extension(torch.rand(9)), r"probabilities must have shape \(..., 8\)"),
        (
            lambda f: continuous_greedy(lambda s: s.double().sum(1), 17, 1),
            "at most 16 elements, got 17; give n_samples",
        ),
        (lambda f: continuous_greedy(f, 8, 1, steps=0), "steps must be"),
        (lambda f: continuous_greedy(f, 9, 1), r"subsets must be boolean of shape \(..., 8\)"),
        (lambda f: multilinear_extension(f, torch.full((8,), 1.5)), "probabilities must lie in 0..1"),
        (lambda f: multilinear_extension(f, torch.rand(8), 0), "n_samples must be"),
        (lambda f: FacilityLocation(torch.tensor([[-1.0]])), "finite and non-negative"),
        (lambda f: FacilityLocation(torch.zeros(3)), r"similarity must have shape \(rows, n\)"),
    ],
)
def test_wrong_input_is_named(call, message, unchecked):
    with pytest.raises(InputError, match=message):
        call(facilities())
