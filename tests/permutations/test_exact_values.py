"""Values of exactly learned permutations, and statements about them that do not hold."""

import math

import pytest
import torch

from commutant import InputError
from commutant.permutations import (
    ExactPermutationLearner,
    PermutationNTK,
    ReLUEnsemble,
    arccos_kernels,
    every_binary_input,
    round_outputs,
)
from commutant.theory import ntk_predict

D = 2 * math.pi


def overlap(n, factor):
    return math.sqrt(1 - 1 / n) + factor / math.sqrt(n) * (math.pi - math.acos(1 / math.sqrt(n)))


@pytest.mark.parametrize("k", [2, 5, 17])
def test_the_spectrum_of_the_training_kernel(k):
    c = 1 / (D * k)
    values = torch.linalg.eigvalsh(arccos_kernels(torch.eye(k))[1])
    assert values[:-1].tolist() == pytest.approx([c * (D - 1)] * (k - 1), rel=1e-12)
    assert float(values[-1]) == pytest.approx(c * (D - 1 + k), rel=1e-12)


def test_kernels_between_test_and_training_inputs():
    k = 9
    c, x = 1 / (D * k), torch.tril(torch.ones(k, k, dtype=torch.float64))
    unit = x / x.norm(dim=1, keepdim=True)
    for kernel, factor in zip(arccos_kernels(unit, torch.eye(k)), (1, 2), strict=True):
        inside = torch.tensor([overlap(n, factor) for n in range(1, k + 1)], dtype=torch.float64)[:, None]
        torch.testing.assert_close(kernel, c * torch.where(x > 0, inside, 1.0), rtol=1e-12, atol=0)
    own = arccos_kernels(unit)[0].diagonal()
    assert own.tolist() == pytest.approx([math.pi * c] * k, rel=1e-12)
    assert (overlap(1, 2), overlap(1, 1)) == pytest.approx((2 * math.pi, math.pi))
    assert overlap(2, 2) == pytest.approx(4.039269, abs=1e-6)
    assert overlap(3, 2) == pytest.approx(3.34099, abs=5e-6)
    assert overlap(2, 1) == pytest.approx(2.37319, abs=5e-6)
    assert overlap(10**6, 2) == pytest.approx(1 + math.pi / 1000, abs=1e-5)


@pytest.mark.parametrize("regime", ["ntk", "nngp"])
def test_closed_forms_for_every_weight_of_every_length_to_64(regime):
    d, factor = (D, 2) if regime == "ntk" else (math.pi, 1)
    for k in range(1, 65):
        law, x = PermutationNTK(k, regime), torch.tril(torch.ones(k, k, dtype=torch.float64))
        means = torch.tensor([law.mean(n) for n in range(1, k + 1)], dtype=torch.float64)
        want = torch.where(x > 0, means[:, :1], means[:, 1:])
        torch.testing.assert_close(law.weights(x), want, rtol=0, atol=1e-11)
        variances = [law.variance(n) for n in range(1, k + 1)]
        assert law.covariance(x, x).diagonal().tolist() == pytest.approx(variances, abs=1e-11)
        assert variances[0] == 0
        assert all(v > 0 for v in variances[1:])
        assert law.mean(1) == pytest.approx((1, 0 if k > 1 else math.nan), abs=1e-13, nan_ok=True)
        assert bool((means[1:, 0] > 0).all())  # including n = k
        assert bool((means[1:-1, 1] < 0).all())
        for n in range(1, k):
            one, zero = law.mean(n)
            assert one - zero == pytest.approx((overlap(n, factor) - 1) / (d - 1), abs=1e-12)
        assert law.mean(k)[0] == pytest.approx(overlap(k, factor) / (d + k - 1), rel=1e-12)
        assert math.isnan(law.mean(k)[1])


def test_rows_of_the_table_that_were_missing():
    law = PermutationNTK(30)
    assert law.mean(2) == pytest.approx((0.57101, -0.004267), abs=5e-6)
    assert 30 * law.variance(2) == pytest.approx(0.0642, abs=5e-5)
    assert 10 * PermutationNTK(10).variance(10) == pytest.approx(0.1895, abs=5e-5)
    assert PermutationNTK(50).mean(50)[0] == pytest.approx(0.026669, abs=1e-6)
    assert 1000 * PermutationNTK(1000).variance(1000) == pytest.approx(0.33, abs=5e-3)
    for k in (5, 10, 30, 1000):
        assert 0.063 < k * PermutationNTK(k).variance(2) < 0.067
        assert PermutationNTK(k).mean(2)[1] == pytest.approx(-0.15049 / (k + 5.28319), rel=5e-4)


@pytest.mark.parametrize("k", [8, 10])
def test_null_directions_of_longer_inputs(k):
    x = every_binary_input(k)
    values = torch.linalg.eigvalsh(PermutationNTK(k).covariance(x, x))
    assert float(values.min()) > -1e-12
    assert int((values < 1e-12).sum()) == k
    assert float(values[k]) > 1e-6


@pytest.mark.parametrize("k", [4, 5, 6, 8, 9, 10, 11])
def test_the_limit_decodes_every_input_of_the_other_lengths(k):
    perm = torch.randperm(k, generator=torch.Generator().manual_seed(k))
    y, x = torch.eye(k)[perm], every_binary_input(k)
    want = (x @ y.double()).to(torch.uint8)
    for rule in ("sign", "midpoint", "topn"):
        assert torch.equal(ExactPermutationLearner(rule=rule).fit(torch.eye(k), y).predict(x), want), rule


@pytest.mark.parametrize(("k", "steps"), [(5, 36), (8, 48), (10, 58)])
def test_training_for_a_finite_time(k, steps):
    theta, c, y = arccos_kernels(torch.eye(k))[1], 1 / (D * k), torch.eye(k, dtype=torch.float64)
    slow, top = c * (D - 1), c * (D - 1 + k)
    x = every_binary_input(k)[:63]
    cross = arccos_kernels(x / x.norm(dim=1, keepdim=True), torch.eye(k))[1]
    mean = torch.full((k, k), 1 / k, dtype=torch.float64)
    for t in (1, 3, 20):
        b = [(1 - (1 - e / top) ** t) / e for e in (slow, top)]
        found = ntk_predict(theta, y, cross, steps=t, rate=1 / top).mean
        torch.testing.assert_close(found, cross @ (b[0] * (y - mean) + b[1] * mean), rtol=1e-10, atol=1e-12)
        b = [-math.expm1(-e * t) / e for e in (slow, top)]
        found = ntk_predict(theta, y, cross, time=float(t)).mean
        torch.testing.assert_close(found, cross @ (b[0] * (y - mean) + b[1] * mean), rtol=1e-10, atol=1e-12)
    left = ntk_predict(theta, y, theta, steps=steps, rate=1 / top).mean - y
    assert float(left.abs().max()) < 1e-9
    early = ntk_predict(theta, y, theta, steps=3, rate=1 / top).mean
    assert bool((early[~torch.eye(k, dtype=torch.bool)] > 0).all())  # before convergence, zero bits have positive means
    with pytest.raises(InputError, match="diverges"):
        ntk_predict(theta, y, theta, steps=steps, rate=2.01 / top)


@pytest.mark.parametrize(("k", "steps"), [(5, 36), (8, 48), (10, 58)])
@pytest.mark.deep
def test_steps_of_real_networks(k, steps):
    top = (D + k - 1) / (D * k)
    net = ReLUEnsemble(k, k, width=2048, models=2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    taken = net.fit(torch.eye(k).double(), torch.eye(k).double(), rate=1 / top, tolerance=1e-9)
    assert taken == pytest.approx(steps, rel=0.25)


def test_thresholds():
    gap = {}
    for k in (4, 10, 30):
        law = PermutationNTK(k)
        assert law.threshold(1) == pytest.approx(0.5)
        assert law.threshold(k) == -math.inf
        assert [law.threshold(n, "sign") for n in range(2, k + 1)] == [0.0] * (k - 1)
        assert 0 < law.threshold(1, "sign") < 0.01  # so that means of exactly zero are not compared with zero
        for n in (1, 2, 3):
            one, zero = law.mean(n)
            assert one - law.threshold(n) == pytest.approx((overlap(n, 2) - 1) / (2 * (D - 1)), abs=1e-12)
            gap.setdefault(n, set()).add(round(law.threshold(n) - zero, 12))
    assert all(len(g) == 1 for g in gap.values())
    noise = torch.full((1, 4), 1e-7, dtype=torch.float64)
    noise[0, 2] = 1
    assert round_outputs(noise, torch.tensor([1]), PermutationNTK(4), "sign").tolist() == [[0, 0, 1, 0]]


def test_printed_sizes_of_ensembles():
    ks = (5, 10, 15, 20, 25, 30)
    assert [PermutationNTK(k).ensemble_size(0.05, "sign") for k in ks] == [533, 888, 1232, 1589, 1958, 2338]
    found = [PermutationNTK(k).ensemble_size(0.05, "midpoint") for k in ks]
    assert found == pytest.approx([7, 18, 29, 39, 51, 62], abs=1)  # 6, 17, 28, 39, 50, 62


def test_the_worst_weight_is_two_and_orders_of_growth():
    for k in (10, 30, 60):
        law = PermutationNTK(k)
        needs = {n: law.ensemble_size(0.1, "sign", n=n) for n in range(2, k + 1)}
        assert max(needs, key=needs.get) == 2
        zero = law.mean(2)[1]
        assert 2 * law.variance(2) / zero**2 == pytest.approx(5.6 * (k + 5.28) ** 2 / k, rel=0.05)
    sizes = {
        k: (PermutationNTK(k).ensemble_size(0.1, "sign", n=2), PermutationNTK(k).ensemble_size(0.1, "sign"))
        for k in (100, 400)
    }
    assert sizes[400][0] / sizes[100][0] == pytest.approx(4 * math.log(400) / math.log(100), rel=0.2)  # k log k
    assert 4 < sizes[400][1] / sizes[100][1] < 17  # at most k^2


def test_shares_right_of_networks_drawn_from_the_limit():
    k, models = 10, 400
    law, x, y = PermutationNTK(k), every_binary_input(k), torch.eye(k)
    draws = law.sample(x, y, models, torch.Generator().manual_seed(0))
    weights, want = x.sum(1).long(), x.to(torch.uint8)
    printed = {"sign": (0.118, 0.339, 0.497, 0.676), "midpoint": (0.521, 0.974, 0.999, 1), "topn": (0.751, 0.998, 1, 1)}
    every = {}
    for rule, shares in printed.items():
        for n, share in zip((1, 5, 10, 20), shares, strict=True):
            outs = draws[: models // n * n].reshape(-1, n, len(x), k).mean(1)
            right = torch.stack([(round_outputs(o, weights, law, rule) == want).all(1) for o in outs]).double()
            error = float(right.mean(1).std()) / len(outs) ** 0.5  # the printed share is also a random draw
            assert float(right.mean()) == pytest.approx(share, abs=0.01 + 4 * error), (rule, n)
            every[rule, n] = float(right.all(1).double().mean())
    assert every["topn", 5] == pytest.approx(0.65, abs=0.15)
    assert every["midpoint", 10] == pytest.approx(0.78, abs=0.2)
    assert every["topn", 10] == every["midpoint", 20] == 1
    halves = draws.reshape(2, 200, len(x), k).mean(1)
    assert not any(bool((round_outputs(o, weights, law, "sign") == want).all()) for o in halves)
    # the average of 20 has a twentieth of the variance; chi-square distribution
    means = draws.reshape(20, 20, len(x), k).mean(1)
    at = int((weights == 5).nonzero()[0])
    ratio = means[:, at].var(0).mean() / (law.variance(5) / 20)  # 190 degrees of freedom
    assert float(ratio) == pytest.approx(1, abs=4 * (2 / 190) ** 0.5)


def test_one_network_hardly_ever_rounds_weight_two_by_its_sign():
    for k in (8, 10, 20):
        law = PermutationNTK(k)
        (one, zero), s = law.mean(2), (2 * law.variance(2)) ** 0.5
        zeros, ones = math.erfc(zero / s) / 2, math.erfc(-one / s) / 2
        assert zeros ** (k - 2) * ones**2 < 0.03  # 0.0276 at k = 8, 0.0082 at k = 10
    law, x = PermutationNTK(8), every_binary_input(8)
    x = x[x.sum(1) == 2]
    draws, two = law.sample(x, torch.eye(8), 200, torch.Generator().manual_seed(0)), torch.full((len(x),), 2)
    right = torch.stack([(round_outputs(o, two, law, "sign") == x).all(1) for o in draws])
    assert float(right.double().mean()) < 0.06


@pytest.mark.deep
def test_a_linear_network_learns_it_as_well():
    k = 6
    perm = torch.randperm(k, generator=torch.Generator().manual_seed(0))
    x, y = torch.eye(k, dtype=torch.float64), torch.eye(k, dtype=torch.float64)[perm]
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(k, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    first, second = first / k**0.5, second.T / 256**0.5
    for _ in range(2000):
        error = x @ first @ second - y
        first, second = first - 0.02 * x.T @ error @ second.T, second - 0.02 * (x @ first).T @ error
    every = every_binary_input(k)
    torch.testing.assert_close(every @ first @ second, every @ y, rtol=0, atol=1e-9)


def test_trained_networks_are_homogeneous_and_zero_at_zero():
    k = 5
    net = ReLUEnsemble(k, k, width=256, models=3, generator=torch.Generator().manual_seed(0))
    net.fit(torch.eye(k), torch.eye(k), rate=0.5, tolerance=1e-4)
    x = torch.randn(20, k)
    with torch.no_grad():
        torch.testing.assert_close(net(3 * x), 3 * net(x), rtol=1e-5, atol=1e-6)
        assert float(net(torch.zeros(1, k)).abs().max()) == 0


def test_standard_parametrization_follows_the_last_layers_law():
    k, width = 5, 2048
    net = ReLUEnsemble(k, k, width=width, models=60, generator=torch.Generator().manual_seed(0))
    top = (math.pi + k - 1) / (D * k)
    net.fit(torch.eye(k), torch.eye(k), rate=1 / top, first=k / width, tolerance=1e-5)
    x = every_binary_input(k)
    with torch.no_grad():
        outs = net((x / x.norm(dim=1, keepdim=True)).float()).double()
    last, both = PermutationNTK(k, "nngp"), PermutationNTK(k)
    mean, at = outs.mean(0), x.sum(1) == 2
    ones, zeros = float(mean[at][x[at] == 1].mean()), float(mean[at][x[at] == 0].mean())
    assert (ones, zeros) == pytest.approx(last.mean(2), abs=0.02)
    assert abs(ones - both.mean(2)[0]) > 0.03
    assert float(outs.var(0)[at].mean()) == pytest.approx(last.variance(2), rel=0.15)


def test_which_way_round_a_permutation_is():
    perm = torch.tensor([2, 0, 3, 1])
    p = torch.eye(4)[perm]  # P[i, perm[i]] = 1
    learner = ExactPermutationLearner().fit(torch.eye(4), p.T)  # rows (P e_i)^T
    x = every_binary_input(4)
    assert torch.equal(learner.predict(x), x[:, perm].to(torch.uint8))  # (P x)_i = x_perm[i]
    back = ExactPermutationLearner().fit(torch.eye(4), p)
    assert torch.equal(back.predict(learner.predict(x)), x.to(torch.uint8))
