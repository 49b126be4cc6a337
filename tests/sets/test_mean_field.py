"""Mean-field inference: identities of the multilinear extension, bounds, gradients, certificates, and refused input."""

from __future__ import annotations

import copy
from math import comb

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.algebra import KSmallest, LogSumExp, Max
from commutant.sets import AmortizedInference, MeanField, SetUtility, _enumeration, enumerate_subsets, jaccard
from commutant.sets._enumeration import contracted, subsets_of
from commutant.sets._mean_gains import SampledGains
from commutant.sets._set_utility import Branch


def utility_of(scale=1.0, seed=0, dtype=torch.float64, background="complement"):
    torch.manual_seed(seed)
    utility = SetUtility(nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)), 4, 8, background=background)
    with torch.no_grad():
        for branch in utility.branches:
            for parameter in branch.parameters():
                parameter.mul_(2 * scale)
    return utility.to(dtype)


def elements(n, seed=1, dtype=torch.float64):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Modular(SetUtility):
    """Sum of weights, the first feature of each chosen element."""

    def __init__(self):
        super().__init__(nn.Identity(), 3, 1, background="none")
        self.double()

    def values(self, sets, subset):
        totals = sets.features.new_zeros(len(subset), len(sets.blocks.sizes))
        return totals.index_add(1, sets.owner, subset.to(sets.features) * sets.features[:, 0])

    def gains(self, sets, subset, only=None):
        weights = sets.features[:, 0] if only is None else sets.features[only, 0]
        return weights.expand(len(subset), -1)


class Repulsive(SetUtility):
    """Penalty for pairs: parallel updates from a low start alternate between all elements and none."""

    def __init__(self):
        super().__init__(nn.Identity(), 3, 1, background="none")
        self.double()
        self.strength = nn.Parameter(torch.tensor(6.0, dtype=torch.float64))

    def values(self, sets, subset):
        sizes = sets.features.new_zeros(len(subset), len(sets.blocks.sizes))
        sizes = sizes.index_add(1, sets.owner, subset.to(sets.features))
        return 4 * sizes - self.strength * sizes * (sizes - 1) / 2

    def gains(self, sets, subset, only=None):
        sizes = sets.features.new_zeros(len(subset), len(sets.blocks.sizes))
        sizes = sizes.index_add(1, sets.owner, subset.to(sets.features))
        found = 4 - self.strength * (sizes[:, sets.owner] - subset.to(sets.features))
        return found if only is None else found[:, only]


def test_the_extension_at_a_vertex_is_the_utility_and_is_affine():
    table = torch.randn(2, 32, dtype=torch.float64)
    corners = subsets_of(5).double()
    found = torch.stack([contracted(table, corner.expand(2, 5))[0] for corner in corners], 1)
    torch.testing.assert_close(found, table)
    psi = torch.rand(2, 5, dtype=torch.float64)
    low, high = psi.clone(), psi.clone()
    low[:, 2], high[:, 2] = 0, 1
    mixed = (1 - psi[:, 2]) * contracted(table, low)[0] + psi[:, 2] * contracted(table, high)[0]
    torch.testing.assert_close(contracted(table, psi)[0], mixed)


def test_derivatives_of_the_extension_are_those_of_autograd():
    table = torch.randn(3, 256, dtype=torch.float64, requires_grad=True)
    psi = torch.rand(3, 8, dtype=torch.float64).requires_grad_()
    value, slopes = contracted(table, psi)
    torch.testing.assert_close(slopes, torch.autograd.grad(value.sum(), psi)[0])
    assert torch.autograd.gradcheck(lambda p: contracted(table.detach(), p)[1], psi)


def test_enumeration_is_the_distribution_of_the_utility():
    utility, x = utility_of(), elements(5)
    found = enumerate_subsets(utility, x)
    subsets = subsets_of(5)
    torch.testing.assert_close(found.utilities, utility(x, subsets)[:, 0])
    p = found.utilities.softmax(0)
    torch.testing.assert_close(found.marginals(), p @ subsets.double())
    torch.testing.assert_close(found.log_prob(subsets[11]), p[11].log())
    assert torch.equal(found.best(), subsets[p.argmax()])
    assert [int(found.best(k).sum()) for k in range(6)] == [0, 1, 2, 3, 4, 5]
    assert found.utilities[(subsets.sum(1) == 2)].max() == utility(x, found.best(2))[0]
    psi = torch.rand(5, dtype=torch.float64)
    weights = torch.where(subsets, psi, 1 - psi).prod(1)
    torch.testing.assert_close(found.extension(psi), (weights * found.utilities).sum())


def test_sampled_gains_are_unbiased():
    utility, x, start = utility_of(), elements(6), torch.rand(6, dtype=torch.float64)
    exact = MeanField(utility)(x, start=start).logits
    sampler = MeanField(utility, n_samples=1, exact_below=0)
    runs = torch.stack([
        sampler(x, start=start, generator=torch.Generator().manual_seed(seed)).logits.detach() for seed in range(400)
    ])  # fmt: skip
    error = runs.std(0) / len(runs) ** 0.5
    assert ((runs.mean(0) - exact).abs() < 4.5 * error).all()
    assert (error > 0).all()


def test_a_modular_utility_is_solved_by_one_update_without_noise():
    x = elements(7)
    for exact_below in (0, 16):
        for start in (0.1, 0.9):
            found = MeanField(Modular(), n_samples=1, exact_below=exact_below)(x, start=start)
            torch.testing.assert_close(found.logits, x[:, 0])
    torch.testing.assert_close(enumerate_subsets(Modular(), x).marginals(), x[:, 0].sigmoid())


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_never_exceeds_the_log_partition_and_coordinate_updates_never_lower_it(seed):
    utility, x = utility_of(3.0, seed), elements(6, seed)
    log_z = enumerate_subsets(utility, x).log_partition()
    psi, before = torch.rand(6, dtype=torch.float64), -torch.inf
    for _ in range(6):
        bound = MeanField(utility).elbo(x, psi)[0]
        assert before - 1e-9 <= bound <= log_z + 1e-9
        before, psi = bound, MeanField(utility, mode="coordinate")(x, start=psi).probabilities


def test_the_bound_is_tight_for_a_modular_utility():
    x = elements(5)
    found = MeanField(Modular())
    torch.testing.assert_close(found.elbo(x, x[:, 0].sigmoid())[0], enumerate_subsets(Modular(), x).log_partition())


def test_half_is_a_fixed_point_if_both_branches_are_equal():
    utility = utility_of()
    utility.branches[1].rest = utility.branches[0].rest
    utility.branches[1].first["outside"] = utility.branches[0].first["inside"]
    found = MeanField(utility)(elements(6), start=0.5)
    torch.testing.assert_close(found.probabilities, torch.full((6,), 0.5, dtype=torch.float64))
    assert found.residual.max() < 1e-12


@pytest.mark.parametrize("exact_below", [0, 16])
def test_a_function_of_the_ground_set_cancels_exactly(exact_below):
    utility, x = utility_of(background="none", dtype=torch.float32), elements(6, dtype=torch.float32)
    other = copy.deepcopy(utility)
    other.branches.append(Branch(4, 8, ("whole",)))
    uniforms = torch.rand(5, 6)
    a, b = (MeanField(u, exact_below=exact_below)(x, uniforms=uniforms).logits for u in (utility, other))
    assert not torch.equal(utility(x, torch.ones(6) > 0), other(x, torch.ones(6) > 0))
    if exact_below:
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)  # tables of utilities hold the function, and round
    else:
        assert torch.equal(a, b)


def test_inclusion_depends_on_the_background():
    x = elements(6)
    other = x.clone()
    other[3:] += 1
    for background, sees in (("complement", True), ("none", False)):
        utility = utility_of(background=background)
        start = torch.tensor([0.5, 0.5, 0.5, 0, 0, 0], dtype=torch.float64)  # the last elements are not chosen
        a, b = (MeanField(utility)(y, start=start).logits[:3] for y in (x, other))
        assert torch.allclose(a, b, atol=1e-9) != sees, background


def test_permuted_elements_with_permuted_noise_give_permuted_probabilities():
    utility, x, uniforms = utility_of(), elements(20), torch.rand(5, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    infer = MeanField(utility, n_iter=3)
    plain, moved = infer(x, uniforms=uniforms).logits, infer(x[order], uniforms=uniforms[:, order]).logits
    torch.testing.assert_close(moved, plain[order])


def test_a_set_that_has_arrived_does_not_depend_on_slower_ones():
    utility, x = utility_of(5.0, 18), elements(12, 3)
    infer, index = MeanField(utility, n_iter=200), torch.arange(2).repeat_interleave(6)
    both, alone = infer(x, index), infer(x[:6])
    torch.testing.assert_close(both.logits[:6], alone.logits, atol=1e-9, rtol=0)
    torch.testing.assert_close(both.residual[:1], alone.residual)
    assert infer(x[6:]).iterations != alone.iterations  # one set is slower
    x[6:] = torch.nan
    beside_nan = infer(x, index)
    torch.testing.assert_close(beside_nan.logits[:6], alone.logits, atol=1e-9, rtol=0)
    assert beside_nan.residual.isnan().tolist() == [False, True]


def test_iterations_stop_where_they_have_arrived_with_and_without_gradients():
    utility, x = utility_of(), elements(5)
    found = {}
    for grad in ("last", "unroll", "implicit"):
        for follow in (True, False):
            with torch.set_grad_enabled(follow):
                found[grad, follow] = MeanField(utility, n_iter=500, grad=grad)(x)
    assert len({r.iterations for r in found.values()}) == 1
    assert found["last", True].iterations < 50
    for r in found.values():
        torch.testing.assert_close(r.logits, found["last", True].logits)


def test_damped_steps_are_half_steps():
    utility, x = utility_of(3.0), elements(5)
    full, half = MeanField(utility)(x).logits, MeanField(utility, mode="damped")(x).logits
    torch.testing.assert_close(half, full / 2)  # from logits of zero


def test_given_uniforms_follow_unsorted_elements():
    utility, x = utility_of(), elements(8)
    index, uniforms = torch.tensor([1, 0, 1, 0, 0, 1, 1, 0]), torch.rand(5, 8)
    infer = MeanField(utility, n_iter=2, exact_below=0)
    found = infer(x, index, uniforms=uniforms).logits
    for i in range(2):
        alone = infer(x[index == i], uniforms=uniforms[:, index == i]).logits
        torch.testing.assert_close(found[index == i], alone)


def test_the_residual_is_that_of_the_wanted_elements():
    x, only = elements(8), torch.zeros(8, dtype=torch.bool)
    assert MeanField(Repulsive())(x, only=only).residual.isnan().all()
    only[3] = True
    assert MeanField(Repulsive())(x, only=only).residual.item() == pytest.approx(0.5, abs=1e-3)


def test_a_start_is_held_fixed_and_keeps_small_probabilities():
    start = torch.full((5,), 0.5, dtype=torch.float64, requires_grad=True)
    found = MeanField(utility_of(), n_iter=2, grad="unroll")(elements(5), start=start)
    assert torch.autograd.grad(found.logits.sum(), start, allow_unused=True) == (None,)
    half = utility_of(dtype=torch.bfloat16)
    kept = MeanField(half)(elements(5, dtype=torch.bfloat16), start=1e-4, only=torch.zeros(5, dtype=torch.bool))
    assert kept.probabilities.dtype == torch.bfloat16
    torch.testing.assert_close(kept.probabilities.float(), torch.full((5,), 1e-4), rtol=0.05, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs_everywhere(dtype):
    utility, x = utility_of(dtype=dtype), elements(5, dtype=dtype)
    wanted = MeanField(utility_of(), n_iter=9)(elements(5)).probabilities
    for options in ({}, {"grad": "implicit", "tolerance": 1e-3}, {"mode": "coordinate"}):
        found = MeanField(utility, n_iter=9, **options)(x)
        assert found.logits.dtype == dtype
        torch.testing.assert_close(found.probabilities.double(), wanted, atol=0.05, rtol=0)
        found.probabilities.sum().backward()
    network = AmortizedInference(nn.Linear(3, 4), 4, 4, rank=2).to(dtype)
    assert network.negative_elbo(utility, x).isfinite()


@pytest.mark.parametrize("pool", ["smallest", "log-sum-exp", "max"])
def test_pools_with_an_infinite_identity_have_finite_gains(pool):
    monoid = {"smallest": KSmallest(3), "log-sum-exp": LogSumExp(), "max": Max()}[pool]
    torch.manual_seed(0)
    utility, x = SetUtility(nn.Linear(3, 4), 4, 8, pool=monoid).double(), elements(6)
    subset = torch.stack([torch.arange(6) < k for k in range(7)])
    gains = utility.marginal_gains(x, subset)
    for i in range(6):
        one = torch.arange(6) == i
        torch.testing.assert_close(gains[:, i], (utility(x, subset | one) - utility(x, subset & ~one))[:, 0])
    assert MeanField(utility, exact_below=0)(x).logits.isfinite().all()


def test_empty_batches_are_empty():
    utility, none = utility_of(), torch.zeros(0, dtype=torch.int64)
    x = elements(5)
    for layout in ({"index": none}, {"index": none, "num_sets": 2}, {"ptr": torch.tensor([0])}):
        sets = 2 if "num_sets" in layout else 0
        assert utility(x[:0], torch.zeros(3, 0) > 0, **layout).shape == (3, sets)
        assert utility.marginal_gains(x[:0], torch.zeros(3, 0) > 0, **layout).shape == (3, 0)
        for below in (0, 16):
            assert MeanField(utility, exact_below=below)(x[:0], **layout).logits.shape == (0,)
        assert MeanField(utility).elbo(x[:0], x[:0, 0], **layout).shape == (sets,)
        assert MeanField(utility).loss(x[:0], torch.zeros(0) > 0, **layout) == 0
    assert utility(x, torch.zeros(0, 5) > 0).shape == (0, 1)
    assert utility.marginal_gains(x, torch.zeros(0, 5) > 0).shape == (0, 5)
    assert enumerate_subsets(utility, x[:0]).best().shape == (0,)


@pytest.mark.parametrize("sizes", [[18, 3, 20], [3, 18, 0, 4], [17, 18]])
def test_a_set_does_not_depend_on_the_batch(sizes):
    utility, x = utility_of(), elements(sum(sizes))
    infer = MeanField(utility, n_iter=4).eval()  # exact and sampled sets in one batch
    index = torch.repeat_interleave(torch.tensor(sizes))
    found = infer(x, index, num_sets=len(sizes))
    for i in range(len(sizes)):
        if sizes[i]:
            alone = infer(x[index == i])
            torch.testing.assert_close(found.logits[index == i], alone.logits, atol=1e-9, rtol=0)
    assert found.residual.shape == (len(sizes),)


def test_alternating_iterations_are_found_and_damped():
    x = elements(8)
    found = MeanField(Repulsive(), n_iter=200)(x, start=0.01)
    assert found.two_cycle.item()
    assert found.residual.item() < 1e-4
    undamped = MeanField(Repulsive(), n_iter=2)(x, start=0.01)
    assert undamped.residual.item() > 0.5  # all elements, then none
    psi = found.probabilities[0]
    torch.testing.assert_close(psi, (4 - 6 * 7 * psi).sigmoid(), atol=1e-3, rtol=0)


def test_damping_and_coordinates_find_the_same_fixed_point():
    utility, x = utility_of(), elements(6)
    found = [
        MeanField(utility, n_iter=200, mode=mode)(x).probabilities for mode in ("parallel", "damped", "coordinate")
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0], found[2], atol=1e-4, rtol=0)


def gradients(infer, x, **options):
    found = infer(x, **options)
    weight = torch.linspace(-1, 1, len(x), dtype=torch.float64)
    return torch.autograd.grad((found.probabilities * weight).sum(), list(infer.utility.parameters()))


def test_the_implicit_gradient_is_that_of_many_iterations():
    utility, x = utility_of(2.0), elements(5)
    implicit = gradients(MeanField(utility, n_iter=300, grad="implicit", tolerance=1e-12), x)
    unrolled = gradients(MeanField(utility, n_iter=300, grad="unroll", tolerance=1e-12), x)
    torch.testing.assert_close(implicit, unrolled, atol=1e-8, rtol=1e-6)
    last = gradients(MeanField(utility, n_iter=300, grad="last", tolerance=1e-12), x)
    flat = [torch.cat([g.flatten() for g in found]) for found in (last, unrolled)]
    assert (flat[0] - flat[1]).norm() > 0.01 * flat[1].norm()
    once = infer_once(utility, x)
    torch.testing.assert_close(last, once, atol=1e-8, rtol=1e-6)


def infer_once(utility, x):
    """Gradients of one update from the fixed point, which is held fixed."""
    fixed = MeanField(utility, n_iter=300, tolerance=1e-12)(x).probabilities.detach()
    return gradients(MeanField(utility), x, start=fixed)


def test_the_implicit_gradient_is_not_differentiated_twice():
    utility, x = utility_of(2.0), elements(4)
    found = MeanField(utility, n_iter=300, grad="implicit", tolerance=1e-12)(x).probabilities.sum()
    (first, *_) = torch.autograd.grad(found, list(utility.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_the_implicit_gradient_of_a_damped_iteration():
    model, x = Repulsive(), elements(4)
    infer = MeanField(model, n_iter=500, grad="implicit", tolerance=1e-12, mode="damped")
    (found,) = torch.autograd.grad(infer(x).probabilities[0], model.strength)
    psi = [
        MeanField(_with_strength(6 + s * 1e-4), n_iter=500, mode="damped", tolerance=1e-12)(x).probabilities[0].detach()
        for s in (-1, 1)
    ]
    torch.testing.assert_close(found, (psi[1] - psi[0]) / 2e-4, atol=1e-6, rtol=1e-4)


def _with_strength(value):
    model = Repulsive()
    model.strength.data.fill_(value)
    return model


def test_an_unfinished_iteration_has_no_implicit_gradient():
    with pytest.raises(InputError, match=r"needs a fixed point, and the residual is .* raise n_iter"):
        MeanField(Repulsive(), n_iter=3, grad="implicit")(elements(6), start=0.01)


def test_the_score_function_is_an_unbiased_gradient_of_the_distribution_of_subsets():
    utility, x = utility_of(2.0), elements(4)
    second = MeanField(utility)._update(utility.prepare(x), None, None)[1]
    psi = MeanField(utility)(x).logits  # differentiable start of the second update
    wanted = torch.cat([g.flatten() for g in _of(second(psi), utility, retain=True)])
    draws = []
    for seed in range(600):
        uniforms = torch.rand(4, len(x), generator=torch.Generator().manual_seed(seed))
        gains = SampledGains(utility, utility.prepare(x), lambda drawn=uniforms: drawn, True)(psi)
        draws.append(torch.cat([g.flatten() for g in _of(gains, utility, retain=True)]).detach())
    found = torch.stack(draws)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - wanted).abs() <= 5 * error + 1e-9).all()


def _of(logits, utility, retain=False):
    weight = torch.linspace(-1, 1, len(logits), dtype=torch.float64)
    return torch.autograd.grad((logits * weight).sum(), list(utility.parameters()), retain_graph=retain)


def test_subsets_are_shared_by_iterations_unless_the_score_function_needs_others():
    utility, x = utility_of(), elements(20)
    for grad, training, shared in (("last", True, True), ("unroll", True, False), ("unroll", False, True)):
        infer = MeanField(utility, n_iter=60, n_samples=3, grad=grad, exact_below=0).train(training)
        found = infer(x, generator=torch.Generator().manual_seed(0))
        assert (found.residual.item() < 1e-5) == shared, (grad, training)


def test_gradients_of_a_large_enumeration_are_those_of_a_small_one(monkeypatch):
    utility, x = utility_of(), elements(7)
    wanted = torch.autograd.grad(enumerate_subsets(utility, x).log_partition(), list(utility.parameters()))
    monkeypatch.setattr(_enumeration, "_CHUNK", 20)  # parts are computed again in the backward pass
    found = torch.autograd.grad(enumerate_subsets(utility, x).log_partition(), list(utility.parameters()))
    torch.testing.assert_close(found, wanted)


def test_a_loss_on_few_elements_needs_few_gains():
    utility, x = utility_of(), elements(30)
    only = torch.zeros(30, dtype=torch.bool)
    only[[3, 17]] = True
    uniforms = torch.rand(5, 30)
    infer = MeanField(utility, n_iter=2)
    some, every = infer(x, uniforms=uniforms, only=only), infer(x, uniforms=uniforms)
    torch.testing.assert_close(some.logits[only], every.logits[only])
    before = MeanField(utility, n_iter=1)(x, uniforms=uniforms)
    torch.testing.assert_close(some.logits[~only], before.logits[~only])


def test_the_loss_is_the_cross_entropy_of_chosen_and_drawn_elements():
    utility, x = utility_of(), elements(10)
    index = torch.tensor([1, 0] * 5)
    target = torch.zeros(10, dtype=torch.bool)
    target[[0, 3, 4]] = True
    infer = MeanField(utility)
    psi = infer(x, index).probabilities
    full = nn.functional.binary_cross_entropy(psi, target.double(), reduction="sum") / 2
    torch.testing.assert_close(infer.loss(x, target, index, negatives=None), full)
    terms = torch.where(target, psi, 1 - psi).log()
    balanced = infer.loss(x, target, index, negatives=1.0, generator=torch.Generator().manual_seed(0))
    drawn = [terms[target].sum() + terms[[i, j, k]].sum() for i in (2, 6, 8) for j in (2, 6, 8) for k in (1, 5, 7, 9)]
    assert any(torch.allclose(balanced, -value / 2) for value in drawn)  # two of set 1, one of set 0
    assert infer.loss(x, target & False, index).item() > 0  # an empty subset still has a drawn element


def test_samples_of_the_amortized_network_have_its_marginals():
    for rank in (0, 3):
        torch.manual_seed(0)
        network, x = AmortizedInference(nn.Linear(3, 8), 8, 8, rank=rank), elements(5, dtype=torch.float32)
        if rank:
            nn.init.constant_(network.factors.bias, 2.0)  # strong common factors
        index = torch.tensor([1, 0, 0, 1, 0])
        with torch.no_grad():
            drawn = network.sample(x, 40_000, index, generator=torch.Generator().manual_seed(0))
            assert ((drawn.mean(0) - network(x).sigmoid()).abs() < 0.0125).all()
            assert set(drawn.unique().tolist()) == {0.0, 1.0}
            correlation = torch.corrcoef(drawn.T)
            apart = correlation[index[:, None] != index].abs().max()
            together = correlation[(index[:, None] == index) & ~torch.eye(5, dtype=torch.bool)].abs().max()
        assert apart < 0.03  # sets are independent
        assert (together > 0.1) == (rank > 0)


def test_amortized_inference_learns_the_marginals():
    utility, x = Modular(), elements(6)
    torch.manual_seed(0)
    network = AmortizedInference(nn.Linear(3, 16), 16, 16, temperature=0.5).double()
    two = torch.cat([x, x]), torch.arange(2).repeat_interleave(6)
    samples = {"num_samples": 20_000, "generator": torch.Generator().manual_seed(1)}
    bounds = network.negative_elbo(utility, x, **samples), network.negative_elbo(utility, *two, **samples)
    exact = -MeanField(utility).elbo(x, network(x).sigmoid())[0]
    for bound in bounds:  # a mean over sets
        torch.testing.assert_close(bound, exact, atol=0.03, rtol=0)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(300):
        optimizer.zero_grad()
        network.negative_elbo(utility, x, num_samples=16).backward()
        optimizer.step()
    assert (network(x).sigmoid() - x[:, 0].sigmoid()).abs().max() < 0.12


def test_the_temperature_is_that_of_the_gradient():
    x, found = elements(4, dtype=torch.float32), []
    for temperature in (0.5, 5.0):
        torch.manual_seed(0)
        network = AmortizedInference(nn.Linear(3, 4), 4, 4, temperature=temperature)
        network.sample(x, 4000, generator=torch.Generator().manual_seed(0)).sum().backward()
        found.append(network.logit.bias.grad.item() / 4000)
    # a sample moves by the density of the logistic noise at the logit, smoothed by the temperature
    assert found[0] > 2 * found[1] > 0


def test_small_sets_beside_large_ones_are_enumerated_alone(monkeypatch):
    utility, x, sizes = utility_of(), elements(12), torch.tensor([3, 8, 0, 1])
    sets = utility.prepare(x, torch.repeat_interleave(sizes), num_sets=4)
    seen = []
    values = utility.values
    monkeypatch.setattr(utility, "values", lambda s, part: seen.append(len(part) * len(s.owner)) or values(s, part))
    found = _enumeration.enumerations(utility, sets)
    assert sum(seen) == sum(n * 2**n for n in sizes.tolist())
    for part, one in zip(x.split(sizes.tolist()), found, strict=True):
        torch.testing.assert_close(one.utilities, utility(part, subsets_of(len(part)))[:, 0])
        torch.testing.assert_close(one.log_odds().sigmoid(), one.marginals())
        given = [one.marginals(k).sum().item() for k in range(len(part) + 1)]
        assert given == pytest.approx(list(range(len(part) + 1)))


def test_certain_amortized_elements_have_finite_gradients():
    network = AmortizedInference(nn.Linear(3, 4), 4, 4, rank=2)
    nn.init.constant_(network.logit.bias, 200.0)
    for sign in (1, -1):
        network.logit.bias.data *= sign
        network.negative_elbo(utility_of(dtype=torch.float32), elements(5, dtype=torch.float32)).backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_jaccard_coefficient():
    sizes = torch.tensor([4, 3, 2])
    a = torch.tensor([1, 1, 0, 0, 0, 0, 0, 1, 1]) > 0
    b = torch.tensor([1, 0, 1, 0, 0, 0, 0, 1, 1]) > 0
    torch.testing.assert_close(jaccard(a, b, sizes), torch.tensor([1 / 3, 1.0, 1.0]))  # j / (2k - j), both empty, equal
    n, k = 40, 6  # random subsets of equal size: the mean of j / (2k - j) over the hypergeometric law
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(20_000, n, generator=generator).argsort(1) < k
    found = jaccard(drawn.flatten(), (torch.arange(n) < k).repeat(20_000), torch.full((20_000,), n)).mean()
    wanted = sum(j / (2 * k - j) * comb(k, j) * comb(n - k, k - j) / comb(n, k) for j in range(k + 1))
    assert abs(float(found) - wanted) < 0.003


class Pooled(nn.Module):
    """Encoder that forgets the elements."""

    def forward(self, x):
        return x.new_zeros(4)


def network_of_max(x):
    utility = SetUtility(nn.Linear(3, 4), 4, pool=Max())
    return AmortizedInference(nn.Linear(3, 4), 4).negative_elbo(utility, x.float())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u, x: MeanField(nn.Linear(3, 1)), "utility must be a SetUtility"),
        (lambda u, x: MeanField(u, 0), "n_iter must be"),
        (lambda u, x: MeanField(u, n_samples=0), "n_samples must be"),
        (lambda u, x: MeanField(u, mode="serial"), "mode must be one of"),
        (lambda u, x: MeanField(u, grad="all"), "grad must be one of"),
        (lambda u, x: MeanField(u, exact_below=21), "exact_below must be at most 20"),
        (lambda u, x: MeanField(u, mode="coordinate", grad="unroll"), "use grad='last'"),
        (lambda u, x: MeanField(u, mode="coordinate", exact_below=3)(x), "a set has 5 elements with exact_below=3"),
        (lambda u, x: MeanField(u, grad="implicit", exact_below=3)(x), "grad='implicit' needs exact expectations"),
        (lambda u, x: MeanField(u)(x, start=1.5), "start must be a probability in 0..1"),
        (lambda u, x: MeanField(u)(x, start=torch.rand(3)), r"start must have shape \(5,\)"),
        (lambda u, x: MeanField(u)(x, only=torch.ones(5)), "only must be boolean"),
        (lambda u, x: MeanField(u, exact_below=0)(x, uniforms=torch.rand(2, 5)), "uniforms must have shape"),
        (lambda u, x: MeanField(u).loss(x, torch.ones(5)), "target must be boolean"),
        (lambda u, x: MeanField(u).loss(x, torch.ones(5) > 0, negatives=0.0), "negatives must be"),
        (lambda u, x: MeanField(u, exact_below=3).elbo(x, torch.rand(5).double()), "exact for at most exact_below=3"),
        (lambda u, x: enumerate_subsets(u, elements(21)), "2\\^21 subsets are too many"),
        (lambda u, x: enumerate_subsets(u, x).best(6), "size must be between 0 and 5"),
        (lambda u, x: AmortizedInference(nn.Linear(3, 4), 4, rank=-1), "rank must be"),
        (lambda u, x: AmortizedInference(nn.Linear(3, 4), 4, temperature=0.0), "temperature must be"),
        (lambda u, x: AmortizedInference(None, 4), "encoder must be a module"),
        (lambda u, x: AmortizedInference(Pooled(), 4)(x), r"the encoder must return shape \(5, 4\), got \(4,\)"),
        (
            lambda u, x: AmortizedInference(nn.Linear(3, 4).double(), 4)(x),
            "encoder returns torch.float64, and the next",
        ),
        (lambda u, x: AmortizedInference(nn.Linear(3, 4), 4)(x), "convert one with .to"),
        (lambda u, x: MeanField(u)(x[:, :2]), r"the encoder fails on x of shape \(5, 2\): mat1 and mat2"),
        (lambda u, x: MeanField(u)(x, start="a"), "start must be a probability"),
        (lambda u, x: MeanField(u)(x, start=[0.5] * 5), "start must be a probability"),
        (lambda u, x: MeanField(u)(x, only=[True] * 5), "only must be boolean of shape"),
        (lambda u, x: MeanField(u)(x, uniforms=torch.rand(7)), "uniforms must have shape"),
        (lambda u, x: MeanField(u)(x, uniforms=torch.full((5, 5), 7.0)), "uniforms must lie in 0..1"),
        (lambda u, x: MeanField(u)(x, uniforms=[0.5]), "uniforms must have shape"),
        (lambda u, x: MeanField(u, grad="implicit", tolerance=0.05), "a tolerance of at most 0.001"),
        (lambda u, x: MeanField(u).elbo(x, torch.full((5,), 1.5)), "probabilities must lie in 0..1"),
        (lambda u, x: MeanField(u).elbo(x, torch.rand(4)), r"probabilities must have shape \(5,\)"),
        (lambda u, x: MeanField(u).elbo(x, None), "probabilities must be a tensor"),
        (lambda u, x: MeanField(u).loss([1], torch.ones(1) > 0), "x must be a tensor"),
        (lambda u, x: enumerate_subsets(nn.Linear(3, 1), x), "utility must be a SetUtility"),
        (lambda u, x: enumerate_subsets(u, x).log_prob(torch.rand(5)), r"subset must be boolean of shape \(5,\)"),
        (lambda u, x: enumerate_subsets(u, x).log_prob(torch.ones(2, 5) > 0), r"got torch.bool \(2, 5\)"),
        (lambda u, x: enumerate_subsets(u, x).extension(torch.rand(3)), r"probabilities must have shape \(5,\)"),
        (lambda u, x: enumerate_subsets(u, x).best(1.5), "size must be between 0 and 5, got 1.5"),
        (lambda u, x: network_of_max(x), "the bound needs a SetUtility with the pool"),
        (lambda u, x: u(x, x[:, 0] > 0, torch.tensor([1, 0, 0, 1, 0]), torch.tensor([0, 2, 5])), "different sets"),
        (lambda u, x: u(x, x[:, 0] * 0 - 0.5), "weights of a subset must lie in 0..1"),
        (lambda u, x: jaccard(torch.ones(2), torch.ones(2) > 0, torch.tensor([2])), "found must be boolean"),
    ],
)
def test_wrong_input_is_named(call, message, unchecked):
    with pytest.raises(InputError, match=message):
        call(utility_of(), elements(5))
