"""Random-feature attention: features, and their kernel with infinitely many heads."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from commutant import InputError
from commutant.sets import RandomAttentionAggregation, RandomAttentionFeatures, attention_kernel
from commutant.theory import gp_predict
from depth import some


def sets(n=4, size=5, d=3, seed=0, dtype=torch.float64, norm=None):
    generator = torch.Generator().manual_seed(seed)
    query, keys = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((n, d), (n, size, d)))
    if norm is not None:
        query, keys = (norm * x / x.norm(dim=-1, keepdim=True) for x in (query, keys))
    return query.to(dtype), keys.to(dtype)


def features_of(d=3, heads=16, seed=0, dtype=torch.float64, **options):
    return RandomAttentionFeatures(d, d, heads, generator=torch.Generator().manual_seed(seed), **options).to(dtype)


def by_loops(features, query, keys):
    """Follow the formula head by head and key by key."""
    heads, n = features.weight.shape[0], keys.shape[1]
    out = torch.zeros(len(query), heads, keys.shape[2] + 1, dtype=keys.dtype)
    for s in range(len(query)):
        x0 = torch.cat([query[s], torch.ones(1, dtype=keys.dtype)])
        for m in range(heads):
            for i in range(n):
                xi = torch.cat([keys[s, i], torch.ones(1, dtype=keys.dtype)])
                out[s, m] += max(float(x0 @ features.weight[m] @ xi), 0.0) * xi / (n * math.sqrt(heads))
    return out.flatten(1)


def naive_kernel(query, keys, query2, keys2):
    """Take all pairs of keys of all sets at once."""
    q, k, q2, k2 = (torch.nn.functional.pad(x, (0, 1), value=1.0) for x in (query, keys, query2, keys2))
    between = torch.einsum("aid,bjd->aibj", k, k2)
    s = q.norm(dim=1)[:, None] * k.norm(dim=2) / 2
    s2 = q2.norm(dim=1)[:, None] * k2.norm(dim=2) / 2
    scale = s[:, :, None, None] * s2
    rho = ((q @ q2.T)[:, None, :, None] * between / 4 / scale).clamp(-1, 1)
    kappa = ((1 - rho**2).sqrt() + (math.pi - rho.arccos()) * rho) / (2 * math.pi)
    return (scale * kappa * between).mean((1, 3))


@pytest.mark.parametrize("bias", [None, "identity"])
def test_features_follow_the_formula(bias):
    features, (query, keys) = features_of(bias=bias), sets()
    torch.testing.assert_close(features(query, keys), by_loops(features, query, keys))


def test_features_of_a_union_are_the_weighted_mean():
    features, (query, keys) = features_of(), sets(size=7)
    first, second = features(query, keys[:, :3]), features(query, keys[:, 3:])
    torch.testing.assert_close(features(query, keys), (3 * first + 4 * second) / 7)
    torch.testing.assert_close(features(query, keys.repeat(1, 3, 1)), features(query, keys))


def test_missing_keys_do_not_count():
    features, (query, keys) = features_of(), sets(size=6)
    mask = torch.arange(6) < 4
    broken = keys.clone()
    broken[:, 4:] = float("nan")
    found = features(query, broken, mask.expand(4, 6))
    torch.testing.assert_close(found, features(query, keys[:, :4]))
    none = torch.zeros(4, 6, dtype=torch.bool)
    assert bool((features(query, keys, none) == 0).all())
    assert bool((features(query, keys[:, :0]) == 0).all())


def test_features_scale_with_the_weights():
    features, (query, keys) = features_of(), sets()
    before = features(query, keys)
    features.weight *= 3
    torch.testing.assert_close(features(query, keys), 3 * before)


def test_the_query_is_not_a_key():
    features, (query, keys) = features_of(), sets(size=1)
    assert not torch.allclose(features(query, keys), features(keys[:, 0], query[:, None]))


def test_pre_activations_of_unit_tokens_are_standard_normal():
    features, (query, keys) = features_of(d=4, heads=20_000), sets(n=1, size=1, d=4, norm=1.0)
    q, k = (torch.nn.functional.pad(x, (0, 1), value=1.0) for x in (query[0], keys[0, 0]))
    u = torch.einsum("a,mab,b->m", q, features.weight, k)
    assert abs(float(u.mean())) < 0.03
    assert float(u.var()) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("bias", [None, "identity"])
def test_inner_products_of_many_heads_approach_the_kernel(bias, orthogonal):
    query, keys = sets(norm=1.0)
    exact = attention_kernel(query, keys, bias=bias)
    errors = []
    for heads in (100, 10_000):
        gaps = []
        for seed in range(6):
            phi = features_of(heads=heads, seed=seed, bias=bias, orthogonal=orthogonal)(query, keys)
            gaps.append(float((phi @ phi.T - exact).norm() / exact.norm()))
        errors.append(sum(gaps) / len(gaps))
    slope = math.log(errors[1] / errors[0]) / math.log(100)
    assert slope == pytest.approx(-0.5, abs=0.2)
    assert errors[1] < 0.03


def test_orthogonal_heads_have_less_variance():
    query, keys = sets(norm=1.0)
    exact = attention_kernel(query, keys)

    def error(orthogonal):
        found = 0.0
        for seed in range(40):
            phi = features_of(heads=16, seed=seed, orthogonal=orthogonal)(query, keys)
            found += float((phi @ phi.T - exact).square().sum())
        return found

    assert error(True) < 0.9 * error(False)


@pytest.mark.parametrize("size", some([5, 1, 40]))
def test_the_kernel_is_that_of_all_pairs_at_once(size):
    first, second = sets(n=9, size=size), sets(n=7, size=3, seed=1)
    torch.testing.assert_close(attention_kernel(*first), naive_kernel(*first, *first))
    torch.testing.assert_close(attention_kernel(*first, *second), naive_kernel(*first, *second))


def test_blocks_of_the_kernel_fit_together(monkeypatch):
    from commutant.sets import _attention_kernel

    query, keys = sets(n=11)
    whole = attention_kernel(query, keys)
    monkeypatch.setattr(_attention_kernel, "_BLOCK", 256)
    monkeypatch.setattr(_attention_kernel, "_CHUNK", 4)
    torch.testing.assert_close(attention_kernel(query, keys), whole)
    torch.testing.assert_close(
        attention_kernel(query, keys, *sets(n=8, seed=1)), naive_kernel(query, keys, *sets(n=8, seed=1))
    )


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize(("size", "others"), some([(5, 3), (70, 1), (64, 130)]))
def test_compiled_sums_are_those_of_torch(monkeypatch, size, others, dtype, error):
    from commutant.sets import _attention_kernel

    first, second = sets(n=9, size=size, dtype=dtype), sets(n=6, size=others, seed=1, dtype=dtype)
    mask = torch.arange(size) < torch.arange(1, 10)[:, None]
    compiled = attention_kernel(*first, *second, mask=mask), attention_kernel(*first, mask=mask)
    monkeypatch.setattr(_attention_kernel, "can_sum_pairs", lambda *_: False)
    for fast, slow in zip(
        compiled, (attention_kernel(*first, *second, mask=mask), attention_kernel(*first, mask=mask)), strict=True
    ):
        torch.testing.assert_close(fast, slow, rtol=0, atol=error * float(slow.abs().max()))


def test_the_compiled_dual_is_exact_over_its_whole_range():
    angle = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    keys = torch.stack([angle.cos(), angle.sin()], 1)[:, None] * 1e6  # the constant of one hardly turns such keys
    query = torch.zeros(2001, 2, dtype=torch.float64)
    found = attention_kernel(query[:1], keys[:1], query, keys)[0] / attention_kernel(query[:1], keys[:1])[0]
    rho = angle.cos()
    wanted = 2 * rho * ((1 - rho**2).sqrt() + (math.pi - angle) * rho) / (2 * math.pi)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_a_bias_of_zero_changes_nothing():
    query, keys = sets()
    found = attention_kernel(query, keys, bias=torch.zeros(4, 4))
    torch.testing.assert_close(found, attention_kernel(query, keys), rtol=0, atol=1e-7)


@pytest.mark.parametrize("bias", [None, "identity"])
def test_the_kernel_is_symmetric_positive_semidefinite_and_ignores_missing_keys(bias):
    query, keys = sets(n=8)
    mask = torch.rand(8, 5, generator=torch.Generator().manual_seed(0)) < 0.7
    mask[0] = False
    kernel = attention_kernel(query, keys, mask=mask, bias=bias)
    torch.testing.assert_close(kernel, kernel.T)
    assert float(torch.linalg.eigvalsh(kernel).min()) > -1e-7
    assert bool((kernel[0] == 0).all())
    alone = attention_kernel(query[3:4], keys[3:4, mask[3]], bias=bias)
    torch.testing.assert_close(kernel[3:4, 3:4], alone)


def test_rotations_leave_the_kernel_unchanged():
    query, keys = sets()
    rotation, other = (torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0] for _ in range(2))
    for bias in (None, "identity"):
        turned = attention_kernel(query @ rotation, keys @ rotation, bias=bias)
        torch.testing.assert_close(turned, attention_kernel(query, keys, bias=bias), rtol=0, atol=1e-7)
    torch.testing.assert_close(attention_kernel(query @ other, keys), attention_kernel(query, keys))
    biased = attention_kernel(query, keys, bias="identity")
    assert not torch.allclose(attention_kernel(query @ other, keys, bias="identity"), biased, atol=1e-3)


def test_known_values():
    one = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert float(attention_kernel(one, one[:, None])) == pytest.approx(1)  # kappa(1) = 1/2, times the squared norm of 2
    far = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)  # augmented tokens are orthogonal
    assert float(attention_kernel(one, one[:, None], one, far[:, None])) == pytest.approx(0)


def test_the_kernel_has_finite_gradients_even_where_keys_coincide():
    query, keys = sets(n=3, size=2)
    keys[:, 1] = keys[:, 0]
    keys.requires_grad_()
    attention_kernel(query, keys).sum().backward()
    assert keys.grad.isfinite().all()
    distinct = sets(n=2, size=2)
    assert torch.autograd.gradcheck(attention_kernel, tuple(x.requires_grad_() for x in distinct))


def test_kernel_regression_interpolates():
    query, keys = sets(n=20, size=3)
    y = (query[:, None] * keys).sum(2).mean(1)[:, None]
    kernel = attention_kernel(query, keys)
    torch.testing.assert_close(gp_predict(kernel, y, kernel).mean, y, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_lower_precision_stays_close(dtype, error):
    query, keys = sets(norm=1.0)
    exact = features_of()(query, keys)
    rough = features_of(dtype=dtype)(query.to(dtype), keys.to(dtype))
    assert rough.dtype == dtype
    assert float((rough.double() - exact).abs().max() / exact.abs().max()) < error


def test_features_are_kept_by_a_state_dict_and_by_pickle():
    features, other = features_of(), features_of(seed=1)
    other.load_state_dict(features.state_dict())
    query, keys = sets()
    torch.testing.assert_close(other(query, keys), features(query, keys))
    torch.testing.assert_close(pickle.loads(pickle.dumps(features))(query, keys), features(query, keys))
    assert not list(features.parameters())


def test_half_precision_does_not_overflow():
    features = features_of(heads=8, dtype=torch.float16)
    query, keys = sets(n=1, size=70_000)
    assert features(query.half(), keys.half()).isfinite().all()
    agg = RandomAttentionAggregation(3, 2, 8).half()
    assert agg(torch.full((5000, 3), 20.0).half(), torch.zeros(5000, dtype=torch.long)).isfinite().all()


def test_double_precision_is_kept():
    features, (query, keys) = features_of(heads=10), sets(size=7)
    torch.testing.assert_close(features(query, keys), by_loops(features, query, keys), rtol=1e-13, atol=0)


def test_many_equal_keys_are_one_key():
    query, keys = sets(n=2, size=1, dtype=torch.float32)
    alone = attention_kernel(query, keys)
    torch.testing.assert_close(attention_kernel(query, keys.expand(2, 20_000, 3)), alone, rtol=1e-5, atol=0)


def test_sets_without_keys_have_a_kernel_of_zero():
    query = torch.randn(2, 3, dtype=torch.float64)
    for bias in (None, "identity"):
        for grad in (False, True):
            none = torch.zeros(2, 0, 3, dtype=torch.float64, requires_grad=grad)
            assert bool((attention_kernel(query, none, bias=bias) == 0).all())
    assert attention_kernel(query[:0], torch.zeros(0, 4, 3, dtype=torch.float64), bias="identity").shape == (0, 0)


def test_gradients_with_a_bias_are_finite_where_keys_coincide():
    query, keys = sets(n=2, size=2)
    attention_kernel(query, keys.requires_grad_(), bias="identity").sum().backward()
    assert keys.grad.isfinite().all()
    first, second = sets(n=2, size=2), sets(n=2, size=2, seed=1)
    leaves = tuple(x.requires_grad_() for x in (*first, *second))
    assert torch.autograd.gradcheck(lambda *x: attention_kernel(*x, bias="identity"), leaves, atol=1e-5)


def test_threads_share_the_columns_of_few_rows():
    before = torch.get_num_threads()
    first, second = sets(n=2, size=9), sets(n=200, size=30, seed=1)
    wanted = naive_kernel(*first, *second)
    try:
        torch.set_num_threads(5)
        torch.testing.assert_close(attention_kernel(*first, *second), wanted)
        torch.testing.assert_close(attention_kernel(*second), naive_kernel(*second, *second))
    finally:
        torch.set_num_threads(before)


def test_an_aggregation_applies_a_linear_layer_to_the_features_of_each_set():
    torch.manual_seed(0)
    agg, x = RandomAttentionAggregation(3, 2, 8).double(), torch.randn(7, 3, dtype=torch.float64)
    index = torch.tensor([2, 0, 2, 3, 0, 2, 2])  # set 1 is empty
    out = agg(x, index)
    for i in (0, 2, 3):
        mine = x[index == i]
        torch.testing.assert_close(out[i], agg.linear(agg.features(mine.mean(0, keepdim=True), mine[None]))[0])
    torch.testing.assert_close(out[1], agg.linear.bias)
    assert {name for name, _ in agg.named_parameters()} == {"linear.weight", "linear.bias"}
    torch.testing.assert_close(agg(x[index.argsort(stable=True)], ptr=torch.tensor([0, 2, 2, 6, 7])), out)


Q, K = sets(dtype=torch.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomAttentionFeatures(0, 3), "query_features must be a whole number of at least 1"),
        (lambda: RandomAttentionFeatures(3, 3, 0), "num_heads must be a whole number of at least 1"),
        (lambda: RandomAttentionFeatures(3, 3, bias="diagonal"), "bias must be None, 'identity' or a matrix, got"),
        (lambda: RandomAttentionFeatures(3, 2, bias="identity"), "with as many features, got 3 and 2"),
        (lambda: RandomAttentionFeatures(3, 3, bias=torch.ones(3, 3)), r"of shape \(4, 4\)"),
        (lambda: RandomAttentionFeatures(3, 3, orthogonal=1), "orthogonal must be one of"),
        (lambda: RandomAttentionFeatures(2, 3)(Q, K), r"must have \(2, 3\) features, got \(3, 3\)"),
        (lambda: RandomAttentionFeatures(3, 3)(Q.double(), K), "query is torch.float64"),
        (lambda: RandomAttentionFeatures(3, 3)(Q, K.long()), "keys must be floating point"),
        (lambda: RandomAttentionFeatures(3, 3)(Q[:2], K), "query must have shape"),
        (
            lambda: RandomAttentionFeatures(3, 3)(Q, K, torch.ones(4, 4, dtype=torch.bool)),
            "mask must be boolean of shape",
        ),
        (lambda: RandomAttentionFeatures(3, 3)(Q, K, torch.ones(4, 5)), "mask must be boolean of shape"),
        (lambda: RandomAttentionAggregation(3, 0), "out_channels must be a whole number of at least 1"),
        (
            lambda: RandomAttentionAggregation(3, 2)(torch.ones(4, 2)),
            r"x must have shape \(elements, 3\), got \(4, 2\)",
        ),
        (lambda: attention_kernel(Q, K, bias=torch.full((4, 4), float("nan"))), "bias must be finite"),
        (lambda: attention_kernel(Q, 1e20 * K), "squared norms of the tokens overflow torch.float32"),
        (lambda: attention_kernel(Q, K, Q), "give query2 and keys2 together"),
        (lambda: attention_kernel(Q, K, mask2=torch.ones(4, 5, dtype=torch.bool)), "mask2 belongs to keys2"),
        (lambda: attention_kernel(Q, K, Q.double(), K.double()), "of the same features and dtype"),
        (lambda: attention_kernel(Q, K, Q[:, :2], K[..., :2]), "of the same features and dtype"),
        (lambda: attention_kernel(Q, K * float("inf")), "set 0 holds NaN or an infinite value; drop or repair 4"),
    ],
)
def test_bad_input_is_refused(make, message, unchecked):
    with pytest.raises(InputError, match=message):
        make()
