"""Interpolation, barriers, statistics and alignment."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec
from commutant.weights import (
    distance,
    interpolate,
    loss_barrier,
    repair,
    reset_batchnorm_stats,
    singular_alignment,
    taylor_barrier,
    weight_matching,
)


def mlp(width=16):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))


def normed():
    return nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=generator)
    return x, (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 1).long()


@pytest.fixture
def pair(data):
    x, y = data
    trained = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = mlp(64)
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(150):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        trained.append(model)
    return trained


def evaluator(data):
    x, y = data
    return lambda m: float(F.cross_entropy(m(x), y).detach())


def test_the_ends_of_a_line_are_the_networks_to_the_last_bit():
    a, b = mlp(), mlp()
    for weights, end in (([1, 0], a), ([0, 1], b)):
        found = interpolate([a, b], weights)
        assert all(torch.equal(found[k], v) for k, v in end.state_dict().items())
        assert all(found[k].data_ptr() != v.data_ptr() for k, v in end.state_dict().items())


def test_interpolation_is_linear_and_keeps_types():
    a, b, c = ({"w": torch.randn(5).to(torch.bfloat16), "n": torch.tensor(i)} for i in range(3))
    found = interpolate([a, b, c], [0.2, 0.3, 0.5])
    assert found["w"].dtype == torch.bfloat16
    expected = (0.2 * a["w"].double() + 0.3 * b["w"].double() + 0.5 * c["w"].double()).bfloat16()
    assert torch.equal(found["w"], expected)
    assert int(found["n"]) == 0


@pytest.mark.parametrize(
    ("networks", "weights", "message"),
    [
        ([], None, "at least one network"),
        ([{"w": torch.ones(1)}] * 2, [1.0], "weights must be 2 numbers that sum to one"),
        ([{"w": torch.ones(1)}] * 2, [1.0, 1.0], "weights must be 2 numbers that sum to one"),
        ([{"w": torch.ones(1)}, {"v": torch.ones(1)}], None, r"'v' is in network 1 only \(2 entries differ\)"),
        ([{"w": torch.ones(1)}, {"w": torch.ones(2)}], None, r"'w' is torch.float32 of shape \(1,\) in the first"),
        ([{"w": torch.ones(1)}, {"w": torch.ones(1).half()}], None, "torch.float16 of shape"),
    ],
)
def test_wrong_networks(networks, weights, message):
    with pytest.raises(InputError, match=message):
        interpolate(networks, weights)


def test_the_barrier_is_measured_from_the_chord(data):
    a, b = mlp(), mlp()
    found = loss_barrier(a, b, lambda m: float(m[0].bias.detach().sum()) ** 2, points=5)
    ends = [float(m[0].bias.detach().sum()) for m in (a, b)]
    for t, value in zip(found.weights, found.curve, strict=True):
        expected = ((1 - t) * ends[0] + t * ends[1]) ** 2 - (1 - t) * ends[0] ** 2 - t * ends[1] ** 2
        assert value == pytest.approx(expected, abs=1e-6)
    assert found.curve[0] == found.curve[-1] == 0
    assert found.sup == max(found.curve)
    assert found.midpoint == found.curve[2]
    with pytest.raises(InputError, match="points must be odd and at least 3, got 4"):
        loss_barrier(a, b, lambda m: 0.0, points=4)


def test_matching_lowers_the_barrier_of_trained_networks(pair, data):
    a, b = pair
    spec = PermutationSpec.from_module(a, data[0][:4])
    matched = weight_matching(spec, a, b).apply(b)
    before, after = (loss_barrier(a, m, evaluator(data), points=11) for m in (b, matched))
    assert evaluator(data)(matched) == pytest.approx(evaluator(data)(b), rel=1e-4)
    assert after.sup < before.sup / 2
    assert distance(a, matched) < distance(a, b)
    assert distance(a, matched) > distance(a, b) / 2  # it does not bring them together


def test_a_random_permutation_breaks_the_midpoint(pair, data):
    a, _ = pair
    spec = PermutationSpec.from_module(a, data[0][:4])
    moved = Permutation.random(spec, torch.Generator().manual_seed(0)).apply(a)
    assert loss_barrier(a, moved, evaluator(data), points=3).midpoint > 0.1
    assert loss_barrier(a, a, evaluator(data), points=3).midpoint == pytest.approx(0, abs=1e-6)


def test_the_taylor_estimate_is_exact_for_a_quadratic_loss():
    """Check the second-order estimate on the squared error of a linear model, where it is exact."""
    a, b = (nn.Linear(4, 2).double() for _ in range(2))
    x, y = torch.randn(50, 4, dtype=torch.float64), torch.randn(50, 2, dtype=torch.float64)

    def loss(m):
        return F.mse_loss(m(x), y)

    exact = loss_barrier(a, b, lambda m: float(loss(m).detach()), points=3).midpoint
    assert taylor_barrier(a, b, loss) == pytest.approx(exact, rel=1e-9)


def test_reset_statistics_are_those_of_the_data():
    model = normed()
    x = torch.randn(64, 2, 6) * 3 + 1
    reset_batchnorm_stats(model, [x[:32], x[32:]])
    out = model[0](x)
    torch.testing.assert_close(model[1].running_mean, out.mean((0, 2)), rtol=1e-4, atol=1e-5)
    assert model.training
    assert model[1].momentum == 0.1
    with pytest.raises(InputError, match="no batch was given"):
        reset_batchnorm_stats(model, [])
    plain = mlp()
    assert reset_batchnorm_stats(plain, []) is plain


def test_repaired_units_have_the_moments_of_their_parents(pair, data):
    a, b = pair
    x = data[0]
    merged = copy.deepcopy(a)
    merged.load_state_dict(interpolate([a, b]))
    found = repair(merged, [a, b], [x[:150], x[150:]])
    hidden = {name: [m[0](x) for m in (a, b, found)] for name in ("0",)}
    for parent_a, parent_b, own in hidden.values():
        torch.testing.assert_close(own.mean(0), (parent_a.mean(0) + parent_b.mean(0)) / 2, rtol=1e-3, atol=1e-4)
        goal = (parent_a.std(0, correction=0) + parent_b.std(0, correction=0)) / 2
        torch.testing.assert_close(own.std(0, correction=0), goal, rtol=1e-3, atol=1e-4)
    last = [m(x).std(0, correction=0) for m in (a, b, found, merged)]
    torch.testing.assert_close(last[2], (last[0] + last[1]) / 2, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(last[3], (last[0] + last[1]) / 2, rtol=0.1)
    again = repair(a, [a, a], [x])
    for key, value in a.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def test_repair_adds_a_bias_where_there_is_none():
    a, b = (nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2))
    found = repair(a, [a, b], [torch.randn(20, 3)])
    assert found[0].bias is not None
    assert a[0].bias is None
    with pytest.raises(InputError, match="weights must be 2 numbers that sum to one"):
        repair(a, [a, b], [torch.randn(2, 3)], [1.0])
    with pytest.raises(InputError, match="no batch was given"):
        repair(a, [a, b], [])


def test_alignment_laws(pair, data):
    a, b = pair
    assert singular_alignment(a, a).total == pytest.approx(1)
    spec = PermutationSpec.from_module(a, data[0][:4])
    p = Permutation.random(spec, torch.Generator().manual_seed(0))
    for threshold in (0.0, 0.3):
        found = singular_alignment(a, b, threshold)
        assert singular_alignment(p.apply(a), p.apply(b), threshold).total == pytest.approx(found.total, abs=1e-6)
        assert -1 <= found.total <= 1
    assert singular_alignment(a, weight_matching(spec, a, b).apply(b)).total > singular_alignment(a, b).total + 0.02


def test_alignment_is_the_double_sum_over_singular_vectors(pair):
    a, b = pair
    found = singular_alignment(a, b, 0.3)
    total = count = 0
    for x, y in ((a[i].weight.detach().double(), b[i].weight.detach().double()) for i in (0, 2, 4)):
        (u, s, v), (p, t, q) = torch.linalg.svd(x, False), torch.linalg.svd(y, False)
        k, m = (int((z >= 0.3 * z[0]).sum()) for z in (s, t))
        total += sum(float((u[:, i] @ p[:, j]) * (v[i] @ q[j])) for i in range(k) for j in range(m))
        count += min(k, m)
    assert found.total == pytest.approx(total / count, rel=1e-8)


def test_alignment_says_what_is_wrong():
    with pytest.raises(InputError, match="threshold must be from 0 to 1, got 2"):
        singular_alignment(mlp(), mlp(), 2.0)
    with pytest.raises(InputError, match="in the second it has shape"):
        singular_alignment(mlp(4), mlp(5))
    with pytest.raises(InputError, match="no weight with two axes"):
        singular_alignment({"b": torch.ones(2)}, {"b": torch.ones(2)})


def test_numbers_that_are_none_do_not_pass():
    a, b = mlp(), mlp()
    with pytest.raises(InputError, match="weights must be 2 numbers that sum to one"):
        interpolate([a, b], [float("nan"), float("nan")])
    values = iter([1.0, float("nan"), 1.0])
    with pytest.raises(InputError, match=r"evaluate must return a finite loss, got nan at t = 0\.5"):
        loss_barrier(a, b, lambda m: next(values), points=3)
    assert interpolate([{"w": torch.tensor([0j])}, {"w": torch.tensor([2 + 2j])}])["w"].tolist() == [1 + 1j]


def test_alignment_of_empty_directions():
    zero, one = {"w": torch.zeros(3, 3)}, {"w": torch.eye(3)}
    assert singular_alignment(zero, one).total == 0
    with pytest.raises(InputError, match="holds NaN or infinities"):
        singular_alignment(one, {"w": torch.full((3, 3), torch.inf)})
    with pytest.raises(InputError, match="'v' is in one of the networks only"):
        singular_alignment(one, {**one, "v": torch.eye(2)})


def test_a_batch_that_fails_leaves_the_statistics():
    model = normed()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError):
        reset_batchnorm_stats(model, [torch.randn(4, 2, 6), torch.randn(4, 3, 6)])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model[1].momentum == 0.1
    assert model.training


def test_repair_refuses_what_it_can_not_scale():
    from torch.nn.utils.parametrizations import weight_norm

    wrapped = nn.Sequential(weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(InputError, match="'0' is parametrized: fold its weight first"):
        repair(wrapped, [wrapped], [torch.randn(5, 3)])
    shared = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    shared[2].weight = shared[0].weight
    with pytest.raises(InputError, match="'0' and '2' share a weight"):
        repair(shared, [shared], [torch.randn(5, 3)])
    with pytest.raises(InputError, match="at least one parent"):
        repair(mlp(), [], [torch.randn(5, 4)])


def test_taylor_of_a_linear_loss_and_of_batch_norm():
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    assert taylor_barrier(a, b, lambda m: m(torch.ones(4, 3)).sum()) == pytest.approx(0)
    c, d = normed(), normed()
    before = c[1].running_mean.clone()
    taylor_barrier(c, d, lambda m: m(torch.randn(8, 2, 6)).square().mean())
    assert torch.equal(c[1].running_mean, before)
    with pytest.raises(InputError, match="in the first network"):
        distance(nn.Linear(3, 1), nn.Linear(3, 4))
