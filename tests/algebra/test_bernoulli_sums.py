"""Sizes of random subsets, subsets of a given size, and reductions of all elements but one."""

from __future__ import annotations

import itertools

import pytest
import torch

from commutant import InputError
from commutant.algebra import (
    ConditionalBernoulli,
    DiagonalAffine,
    KSmallest,
    Max,
    Product,
    Sum,
    all_but_one,
    poisson_binomial,
)
from commutant.sets import BinaryGRU


def logits_of(n, *batch, seed=0):
    return torch.randn(*batch, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_enumeration(logits, size):
    """Probability of each subset of a size."""
    weights = {c: logits[list(c)].sum().exp() for c in itertools.combinations(range(len(logits)), size)}
    total = sum(weights.values())
    return {c: w / total for c, w in weights.items()}


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_sizes_have_the_probabilities_of_enumeration(n):
    logits = logits_of(n)
    wanted = torch.zeros(n + 1, dtype=torch.float64)
    for chosen in itertools.product((0, 1), repeat=n):
        s = torch.tensor(chosen, dtype=torch.float64)
        wanted[int(s.sum())] += (s * logits.sigmoid() + (1 - s) * (-logits).sigmoid()).prod()
    torch.testing.assert_close(poisson_binomial(logits).exp(), wanted)


def test_tails_keep_their_relative_accuracy():
    logits = torch.full((200,), -20.0, dtype=torch.float64)
    wanted = 200 * torch.nn.functional.logsigmoid(torch.tensor(-20.0, dtype=torch.float64))
    torch.testing.assert_close(poisson_binomial(logits)[-1], wanted)  # e^-4000 is far below the smallest double


def test_batches_and_padding_change_nothing():
    logits = logits_of(5, 3)
    padded = torch.cat([logits, torch.full((3, 2), -torch.inf, dtype=torch.float64)], 1).requires_grad_()
    found = poisson_binomial(padded)
    torch.testing.assert_close(found[:, :6], poisson_binomial(logits))
    assert (found[:, 6:] == -torch.inf).all()
    found[:, :6].logsumexp(1).sum().backward()
    assert padded.grad.isfinite().all()


def test_half_precision_is_summed_in_double_precision():
    logits = logits_of(64).to(torch.bfloat16)
    assert poisson_binomial(logits).dtype == torch.bfloat16
    torch.testing.assert_close(poisson_binomial(logits).double(), poisson_binomial(logits.double()), atol=0, rtol=1e-2)


@pytest.mark.parametrize("size", [0, 1, 3, 6])
def test_subsets_of_a_size_have_the_probabilities_of_enumeration(size):
    logits = logits_of(6)
    subsets, wanted = ConditionalBernoulli(logits, size), by_enumeration(logits, size)
    marginals = torch.zeros(6, dtype=torch.float64)
    for chosen, probability in wanted.items():
        mask = torch.zeros(6, dtype=torch.bool)
        mask[list(chosen)] = True
        marginals += mask * probability
        torch.testing.assert_close(subsets.log_prob(mask).exp(), probability)
    torch.testing.assert_close(subsets.marginals(), marginals)


def test_a_subset_of_another_size_is_impossible():
    assert ConditionalBernoulli(torch.zeros(3), 2).log_prob(torch.tensor([True, False, False])) == -torch.inf


def test_samples_have_their_size_and_marginals():
    subsets = ConditionalBernoulli(logits_of(6, 2), 3)
    drawn = subsets.sample(40_000, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (40_000, 2, 6)
    assert (drawn.sum(-1) == 3).all()
    error = 0.5 / 40_000**0.5
    assert ((drawn.double().mean(0) - subsets.marginals()).abs() < 5 * error).all()


def test_elements_that_cannot_be_chosen_are_not():
    logits = torch.tensor([0.0, -torch.inf, 0.0])
    assert not ConditionalBernoulli(logits, 1).sample(200)[:, 1].any()
    assert ConditionalBernoulli(logits, 2).sample(1).tolist() == [[True, False, True]]
    with pytest.raises(InputError, match="between 0 and the 2 elements that can be chosen, got 3"):
        ConditionalBernoulli(logits, 3)


def test_gradients_of_the_log_probability_are_the_difference_to_the_marginals():
    logits = logits_of(5).requires_grad_()
    mask = torch.tensor([True, False, True, False, False])
    subsets = ConditionalBernoulli(logits, 2)
    (gradient,) = torch.autograd.grad(subsets.log_prob(mask), logits)
    torch.testing.assert_close(gradient, mask.double() - subsets.marginals().detach())
    assert torch.autograd.gradcheck(lambda x: ConditionalBernoulli(x, 2).marginals(), logits)


@pytest.mark.parametrize("shift", [3.0, 20_000.0, -20_000.0])
def test_a_shift_of_all_logits_changes_nothing(shift):
    logits, mask = logits_of(5), torch.tensor([True, False, True, False, False])
    a, b = ConditionalBernoulli(logits, 2), ConditionalBernoulli(logits + shift, 2)
    torch.testing.assert_close(a.log_prob(mask), b.log_prob(mask))
    torch.testing.assert_close(a.marginals(), b.marginals())


def test_far_logits_are_not_cut():
    far = torch.tensor([30_000.0, 20_000.0, 10_500.0], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ConditionalBernoulli(far, 1).marginals().detach(), torch.eye(3, dtype=torch.float64)[0])
    torch.testing.assert_close(poisson_binomial(-far[1:2])[1], -far[1])
    (gradient,) = torch.autograd.grad(ConditionalBernoulli(far, 1).log_prob(torch.tensor([False, True, False])), far)
    torch.testing.assert_close(gradient, torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64))
    low = torch.tensor([-torch.inf, -20_000.0, -20_000.0])
    subsets = ConditionalBernoulli(low, 1)
    torch.testing.assert_close(subsets.marginals(), torch.tensor([0.0, 0.5, 0.5]))
    assert not subsets.sample(500)[:, 0].any()
    assert subsets.log_prob(torch.tensor([True, False, False])) == -torch.inf
    assert poisson_binomial(torch.tensor([torch.inf, -torch.inf])).tolist() == [-torch.inf, 0.0, -torch.inf]


def test_marginals_follow_the_mode_of_gradients():
    logits = logits_of(4).requires_grad_()
    with torch.no_grad():
        assert not ConditionalBernoulli(logits, 2).marginals().requires_grad
    with torch.inference_mode():
        wanted = ConditionalBernoulli(logits_of(4), 2).marginals()
    torch.testing.assert_close(ConditionalBernoulli(logits, 2).marginals().detach(), wanted.clone())


def test_the_size_fits_every_row():
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, -torch.inf, -torch.inf]])
    with pytest.raises(InputError, match="the 1 elements that can be chosen, got 2"):
        ConditionalBernoulli(logits, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: poisson_binomial(torch.tensor([torch.nan])), "logits hold NaN"),
        (lambda: poisson_binomial(torch.tensor([1])), "logits must be floating point"),
        (lambda: poisson_binomial(torch.tensor(1.0)), "must have an axis of elements"),
        (lambda: ConditionalBernoulli(torch.zeros(3), -1), "size must be between 0 and the 3"),
        (lambda: ConditionalBernoulli(torch.zeros(3), 1.5), "a whole number, one for all rows, got 1.5"),
        (lambda: ConditionalBernoulli(torch.zeros(3), torch.tensor(2)), "a whole number, one for all rows"),
        (lambda: ConditionalBernoulli(torch.tensor([torch.inf, 0]), 1), "must be below inf"),
        (lambda: ConditionalBernoulli(torch.zeros(3), 1).log_prob([True]), "subset must be boolean"),
        (lambda: ConditionalBernoulli(torch.zeros(2, 3), 1).log_prob(torch.zeros(4, 3) > 0), "subset must be boolean"),
        (lambda: ConditionalBernoulli(torch.zeros(3), 1).log_prob(torch.tensor(True)), "subset must be boolean"),
        (lambda: all_but_one(Max(), torch.tensor(1.0)), "must have an axis of elements"),
        (lambda: ConditionalBernoulli(torch.zeros(3), 1).log_prob(torch.zeros(3)), "subset must be boolean"),
        (lambda: all_but_one(BinaryGRU(3), torch.zeros(2, 3)), "BinaryGRU is not"),
        (lambda: all_but_one(Max, torch.zeros(2)), "instantiate it"),
    ],
)
def test_wrong_input_is_named(call, message, unchecked):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("monoid", [Sum(), Max(), KSmallest(2)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("sizes", [[1], [4], [3, 0, 1, 5]])
def test_all_but_one_is_the_reduction_of_the_others(monoid, sizes):
    values = logits_of(sum(sizes))
    x = monoid.lift(values[:, None]) if isinstance(monoid, KSmallest) else values[:, None]
    ptr = torch.tensor([0, *itertools.accumulate(sizes)])
    found = all_but_one(monoid, x, ptr)
    for start, end in itertools.pairwise(ptr.tolist()):
        for i in range(start, end):
            others = [j for j in range(start, end) if j != i]
            torch.testing.assert_close(found[i], monoid.reduce(x[others], 0))


def test_all_but_one_keeps_the_order_of_operands():
    slope, shift = logits_of(5), logits_of(5, seed=1)
    found = all_but_one(DiagonalAffine(), (slope, shift))
    for i in range(5):
        rest = [j for j in range(5) if j != i]
        wanted = DiagonalAffine().reduce((slope[rest], shift[rest]))
        torch.testing.assert_close(tuple(part[i] for part in found), wanted)


def test_all_but_one_rounds_once():
    x = torch.tensor([60_000.0, 60_000.0, 1.0, -60_000.0, -60_000.0], dtype=torch.float16)
    assert all_but_one(Sum(), x).tolist() == [-60_000, -60_000, 0, 60_000, 60_000]


def test_all_but_one_of_tuples_and_half_precision():
    x = torch.randn(5, 2, dtype=torch.bfloat16)
    found = all_but_one(Product(Sum(), Max()), (x, x))
    assert all(part.dtype == torch.bfloat16 for part in found)
    torch.testing.assert_close(found[1][0], x[1:].amax(0))
