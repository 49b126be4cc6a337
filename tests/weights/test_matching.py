"""Weight matching: the laws of the method, planted permutations, and refused arguments."""

import functools
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec
from commutant.weights import distance, interpolate, match_many, weight_matching
from commutant.weights._pairing import gram
from commutant.weights._problem import Problem

sys.path.insert(0, str(Path(__file__).parent.parent / "parameters"))
import networks

from depth import chosen

# One network of each kind of problem: plain groups, groups on both axes of a weight, groups in groups, shared weights.
DEFAULT = ["mlp", "cnn_flattened", "resnet", "gpt_tied", "grouped_query_attention", "grouped_and_depthwise",
           "shortcut_padded_with_zeros", "channel_shuffle", "parallel_recurrences", "one_step_of_cells", "unrolled_rnn",
           "matrix_products", "grouped_matrices", "written_in_slices", "mixture_of_experts", "fourier_layer",
           "two_heads_of_a_bilinear_form"]  # fmt: skip
HIDDEN = chosen([name for name, c in networks.CASES.items() if c.sizes and name != "branches_on_data"], DEFAULT)


def build(name, seed=0):
    torch.manual_seed(seed)
    return networks.CASES[name].build()


@functools.cache
def spec_of(name):
    return PermutationSpec.from_module(*build(name), verify=False)


def inner(spec, a, b, permutation):
    return Problem(spec, a.state_dict(), b.state_dict()).value(permutation.tables)


@pytest.mark.parametrize("name", HIDDEN)
def test_a_planted_permutation_is_found(name, deep):
    model, spec = build(name)[0], spec_of(name)
    for seed in range(5 if deep else 2):
        planted = Permutation.random(spec, torch.Generator().manual_seed(seed))
        assert weight_matching(spec, model, planted.apply(model)) == planted.inverse()


@pytest.mark.parametrize("name", HIDDEN)
def test_a_network_is_matched_with_itself_by_the_identity(name):
    model, spec = build(name)[0], spec_of(name)
    assert weight_matching(spec, model, model) == Permutation(spec)


@pytest.mark.parametrize("name", HIDDEN)
def test_matching_never_lowers_the_inner_product(name):
    a, b, spec = build(name, 0)[0], build(name, 1)[0], spec_of(name)
    found = weight_matching(spec, a, b)
    assert inner(spec, a, b, found) >= inner(spec, a, b, Permutation(spec)) - 1e-9
    assert inner(spec, a, b, weight_matching(spec, a, b, init=found)) >= inner(spec, a, b, found) - 1e-9


def test_the_inner_product_rises_with_every_accepted_step(monkeypatch):
    a, b, spec = build("gpt_tied", 0)[0], build("gpt_tied", 1)[0], spec_of("gpt_tied")
    values, improve = [], Problem._improve

    def recorded(problem, group, keys=None):
        before = problem.value(problem.tables)
        accepted = improve(problem, group, keys)
        if keys is None:
            values.append((before, problem.value(problem.tables), accepted))
        return accepted

    monkeypatch.setattr(Problem, "_improve", recorded)
    weight_matching(spec, a, b, init="identity")
    assert any(accepted for *_, accepted in values)
    for before, after, accepted in values:
        assert after > before - 1e-9
        assert accepted or after == before


def test_one_hidden_layer_is_solved_exactly():
    a, b = (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)) for _ in range(2))
    spec = PermutationSpec.from_module(a, torch.randn(2, 3))
    every = torch.cartesian_prod(*[torch.arange(5)] * 5)
    every = every[(every.sort(1).values == torch.arange(5)).all(1)]
    best = max(inner(spec, a, b, Permutation(spec, {"0": p})) for p in every)
    found = weight_matching(spec, a, b)
    assert inner(spec, a, b, found) == pytest.approx(best)
    # and either way round
    assert inner(spec, b, a, weight_matching(spec, b, a)) == pytest.approx(best)
    squares = [sum(float(p.detach().square().sum()) for p in m.parameters()) for m in (a, b)]
    moved = found.apply(b)
    fixed = float((a[2].bias * b[2].bias).sum().detach())
    assert distance(a, moved) ** 2 == pytest.approx(sum(squares) - 2 * (best + fixed), rel=1e-5)


def test_heads_are_paired_exactly_given_the_rest():
    """Compare with brute force over all pairings of three heads and all permutations of two channels each."""

    def forward(m, h):
        q, k = (f(h).view(2, 4, 3, 2).transpose(1, 2) for f in (m.q, m.k))
        return (q @ k.transpose(2, 3)).tanh().sum(1)

    a, b = (networks.Net(forward, q=nn.Linear(5, 6), k=nn.Linear(5, 6)) for _ in range(2))
    spec = PermutationSpec.from_module(a, torch.randn(2, 4, 5))
    (heads, channels) = spec.sizes
    assert spec.parents[channels] == (heads,)
    pairs = torch.cartesian_prod(*[torch.arange(3)] * 3)
    pairs = pairs[(pairs.sort(1).values == torch.arange(3)).all(1)]
    flips = torch.cartesian_prod(*[torch.arange(2)] * 3)
    tables = torch.tensor([[0, 1], [1, 0]])
    best = max(inner(spec, a, b, Permutation(spec, {heads: p, channels: tables[f]})) for p in pairs for f in flips)
    assert inner(spec, a, b, weight_matching(spec, a, b)) == pytest.approx(best)


def test_equal_and_dead_units_stay_in_place():
    a = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        a[0].weight[3] = a[0].weight[1]
        a[0].bias[3] = a[0].bias[1]
        a[2].weight[:, 3] = a[2].weight[:, 1]
        for part in (a[0].weight[4:], a[0].bias[4:], a[2].weight[:, 4:]):
            part.zero_()
    spec = PermutationSpec.from_module(a, torch.randn(2, 3))
    assert weight_matching(spec, a, a) == Permutation(spec)


def test_restarts_do_no_harm_and_random_starts_end():
    a, b, spec = build("resnet", 0)[0], build("resnet", 1)[0], spec_of("resnet")
    once = inner(spec, a, b, weight_matching(spec, a, b))
    often = inner(spec, a, b, weight_matching(spec, a, b, restarts=5, generator=torch.Generator().manual_seed(0)))
    assert often >= once - 1e-9


def test_running_statistics_do_not_count_but_move():
    a, b, spec = build("cnn_flattened", 0)[0], build("cnn_flattened", 1)[0], spec_of("cnn_flattened")
    found = weight_matching(spec, a, b)
    with torch.no_grad():
        b[1].running_mean.normal_(std=100)
    again = weight_matching(spec, a, b)
    assert again == found
    moved = found.apply(b)
    torch.testing.assert_close(moved[1].running_mean, b[1].running_mean[found.tables["0"]])


def test_gram_sums_in_float64_by_stretches(monkeypatch):
    x, y = torch.randn(2, 3, 70_000), torch.randn(2, 3, 70_000)
    exact = x.double() @ y.double().mT
    torch.testing.assert_close(gram(x, y), exact, rtol=1e-4, atol=1e-2)
    assert gram(x, y).dtype == torch.float64


def test_several_networks_share_one_frame():
    model, spec = build("mlp")[0], spec_of("mlp")
    moved = [Permutation.random(spec, torch.Generator().manual_seed(i)).apply(model) for i in range(4)]
    found = match_many(spec, moved, generator=torch.Generator().manual_seed(0))
    frames = [p.apply(m.state_dict()) for p, m in zip(found, moved, strict=True)]
    for frame in frames[1:]:
        assert all(torch.equal(frame[k], frames[0][k]) for k in frame)
    merged = interpolate(frames)
    torch.testing.assert_close(merged["0.weight"], frames[0]["0.weight"])


def test_matching_in_pairs_is_not_consistent_around_a_cycle():
    a, b, c = (build("mlp", seed)[0] for seed in (0, 1, 2))
    spec = spec_of("mlp")
    to = {
        (x, y): weight_matching(spec, n, m) for x, n in (("a", a), ("b", b)) for y, m in (("b", b), ("c", c)) if x != y
    }
    assert to["b", "c"].compose(to["a", "b"]) != to["a", "c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "0.bias": s["0.bias"] * torch.nan}, "'0.bias' of the source holds NaN or infinities"),
        (lambda s: {k: v for k, v in s.items() if k != "3.weight"}, "lack '3.weight'"),
        (lambda s: {**s, "0.bias": torch.ones(3)}, r"'0.bias' must have shape \(7,\), got \(3,\)"),
    ],
)
def test_wrong_networks(change, message):
    model, spec = build("mlp")[0], spec_of("mlp")
    with pytest.raises(InputError, match=message):
        weight_matching(spec, model, change(model.state_dict()))


def test_wrong_starts_and_numbers():
    model, spec = build("mlp")[0], spec_of("mlp")
    with pytest.raises(InputError, match="init must be"):
        weight_matching(spec, model, model, init="best")
    with pytest.raises(InputError, match="at least two networks"):
        match_many(spec, [model])


def test_half_precision_networks_are_matched():
    model, spec = build("gpt_tied")[0], spec_of("gpt_tied")
    planted = Permutation.random(spec, torch.Generator().manual_seed(0))
    half = {k: v.bfloat16() for k, v in model.state_dict().items()}
    assert weight_matching(spec, half, planted.apply(half)) == planted.inverse()


def test_large_rows_do_not_hide_small_ones():
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        a[0].weight[0] *= 1e5
    spec = PermutationSpec.from_module(a, torch.randn(4, 3), verify=False)
    planted = Permutation(spec, {"0": torch.tensor([0, 2, 3, 4, 5, 1])})
    assert weight_matching(spec, a, planted.apply(a)) == planted.inverse()


def test_networks_of_two_precisions_and_starts_of_another_spec():
    model, spec = build("mlp")[0], spec_of("mlp")
    planted = Permutation.random(spec, torch.Generator().manual_seed(0))
    wide = {k: v.double() for k, v in model.state_dict().items()}
    assert weight_matching(spec, wide, planted.apply(model)) == planted.inverse()
    other = spec_of("resnet")
    with pytest.raises(InputError, match="different specs"):
        weight_matching(spec, model, model, init=Permutation(other))
    with pytest.raises(InputError, match="complex64"):
        weight_matching(spec, {k: v.to(torch.complex64) for k, v in model.state_dict().items()}, model)


def test_heads_are_solved_however_few_sweeps_are_left():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
    model = nn.Sequential(nn.Linear(6, 32), layer, nn.Linear(32, 3)).eval()
    spec = PermutationSpec.from_module(model, torch.randn(2, 5, 6))
    planted = Permutation.random(spec, torch.Generator().manual_seed(1)).apply(model)
    found = weight_matching(spec, model, planted, init="identity", max_sweeps=2).apply(planted)
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_search_ends_where_a_sweep_hardly_gains():
    torch.manual_seed(0)
    a, b = (nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)]) for _ in range(2))
    spec = PermutationSpec.from_module(a, torch.randn(2, 64), verify=False)
    found = weight_matching(spec, a, b)
    further = weight_matching(spec, a, b, init=found)
    before, after = (distance(a, p.apply(b)) ** 2 for p in (found, further))
    assert (1 - 1e-3) * before < after <= before
