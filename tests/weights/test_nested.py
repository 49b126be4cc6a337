"""Nested groups, weights of extreme size, and arguments of the wrong type."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec
from commutant.weights import (
    FeatureMerger,
    activation_matching,
    feature_complexity,
    functionally_equivalent,
    interpolate,
    loss_barrier,
    match_many,
    repair,
    reset_batchnorm_stats,
    resize,
    singular_alignment,
    ste_matching,
    taylor_barrier,
    weight_matching,
)
from commutant.weights._nested import Nest, pair_up
from commutant.weights._pairing import gram
from depth import some


def normed():
    """Build a group norm of two groups before a convolution of four."""
    return nn.Sequential(nn.Conv1d(4, 12, 1), nn.GroupNorm(2, 12), nn.Tanh(), nn.Conv1d(12, 24, 3, groups=4), nn.Tanh(),
                         nn.Conv1d(24, 3, 1))  # fmt: skip


def thrice():
    return nn.Sequential(
        nn.Conv1d(4, 24, 1), nn.GroupNorm(2, 24), nn.Tanh(), nn.Conv1d(24, 48, 3, groups=4), nn.GroupNorm(8, 48),
        nn.Tanh(), nn.Conv1d(48, 48, 1, groups=8), nn.Tanh(), nn.Conv1d(48, 3, 1),
    )  # fmt: skip


@pytest.mark.parametrize(("make", "depth"), some([(thrice, 3), (normed, 2)]))
def test_groups_inside_groups_are_matched(make, depth, deep):
    torch.manual_seed(0)
    model, other, x = make(), make(), torch.randn(6, 4, 9)
    with torch.no_grad():
        for p in (*model.parameters(), *other.parameters()):
            p.add_(0.3 * torch.randn_like(p))
    spec = PermutationSpec.from_module(model, x)
    assert max(map(len, spec.parents.values())) == depth
    for seed in range(3 if deep else 1):
        planted = Permutation.random(spec, torch.Generator().manual_seed(seed))
        moved = planted.apply(model)
        assert weight_matching(spec, model, moved) == planted.inverse()
    assert weight_matching(spec, model, model) == Permutation(spec)
    assert functionally_equivalent(spec, model, moved, batches=[x])
    for score in ("second_moment", "correlation"):
        assert activation_matching(spec, model, moved, [x], score=score) == planted.inverse()
    found = weight_matching(spec, model, other).apply(other)
    torch.testing.assert_close(found(x), other(x), rtol=1e-4, atol=1e-5)
    assert len(match_many(spec, [model, other, moved], method="universe")) == 3


def test_nested_pairs_are_the_best_of_all():
    """Compare with brute force for two outer indices, two inner ones and two inside each."""
    torch.manual_seed(0)
    nest = Nest({"a": 2, "b": 2, "c": 2}, {"a": (), "b": ("a",), "c": ("a", "b")})
    parts = [(own, *torch.randn(2, *[2] * len(own), 3).double()) for own in (("a",), ("a", "b"), ("a", "b", "c"))]
    orders = [torch.tensor([0, 1]), torch.tensor([1, 0])]

    def value(a, b, c):
        moved = {("a",): lambda y: y[a], ("a", "b"): lambda y: torch.stack([y[a[i]][b[i]] for i in range(2)])}
        moved["a", "b", "c"] = lambda y: torch.stack(
            [torch.stack([y[a[i]][b[i]][j][c[i][j]] for j in range(2)]) for i in range(2)]
        )
        return sum(float((x * moved[own](y)).sum()) for own, x, y in parts)

    best = max(
        value(a, torch.stack([orders[i & 1], orders[i >> 1]]),
              torch.stack([orders[k >> s & 1] for s in range(4)]).view(2, 2, 2))
        for a in orders for i in range(4) for k in range(16)
    )  # fmt: skip
    found = pair_up(nest, parts, torch.arange(2))
    assert value(found["a"], found["b"], found["c"]) == pytest.approx(best)


def test_many_grouped_convolutions_are_quick():
    """Match all pairs of 46 groups of 8 channels at once; a loop over pairs takes ten times as long."""
    import time

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 368, 1), nn.ReLU(), nn.Conv2d(368, 368, 3, groups=46), nn.ReLU(), nn.Conv2d(368, 4, 1)
    )
    spec = PermutationSpec.from_module(model, torch.randn(2, 3, 4, 4), verify=False)
    planted = Permutation.random(spec, torch.Generator().manual_seed(0))
    start = time.process_time()
    assert weight_matching(spec, model, planted.apply(model)) == planted.inverse()
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("dtype", "scale"),
    some([(torch.float32, 1e-30), (torch.float64, 1e-300), (torch.float64, 1e300), (torch.float32, 1e25),
          (torch.float32, 1e-25), *((torch.float64, scale) for scale in (1e-200, 1e-30, 1e-25, 1e25, 1e200))], keep=3),
)  # fmt: skip
def test_the_scale_of_all_weights_does_not_matter(dtype, scale):
    torch.manual_seed(0)
    nested = nn.Sequential(nn.Conv1d(3, 8, 1), nn.Tanh(), nn.Conv1d(8, 8, 1, groups=4), nn.Tanh(), nn.Conv1d(8, 2, 1))
    plain = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    for model, x in ((plain, torch.randn(4, 3)), (nested, torch.randn(2, 3, 5))):
        spec = PermutationSpec.from_module(model, x)
        state = {k: v.to(dtype) * scale for k, v in model.state_dict().items()}
        planted = Permutation.random(spec, torch.Generator().manual_seed(0))
        assert weight_matching(spec, state, planted.apply(state)) == planted.inverse()
        same = functionally_equivalent(spec, state, planted.apply(state))
        assert same.worst == 0
        last = list(state)[-1]
        other = functionally_equivalent(spec, state, {**planted.apply(state), last: 2 * state[last]})
        assert other.residuals[last] == pytest.approx(0.5)
        again = {k: v.to(dtype) for k, v in model.state_dict().items()}
        assert weight_matching(spec, again, planted.apply(state)) == planted.inverse()


def test_one_huge_weight_does_not_hide_the_others():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    spec = PermutationSpec.from_module(model, torch.randn(4, 3))
    planted = Permutation.random(spec, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[0].weight[2, 1] = 1e20
    assert weight_matching(spec, model, planted.apply(model)) == planted.inverse()
    x, y = torch.randn(5, 4) * 1e-30, torch.randn(5, 4) * 1e30
    torch.testing.assert_close(gram(x, x), x.double() @ x.double().T, rtol=1e-5, atol=0)
    torch.testing.assert_close(gram(y, y), y.double() @ y.double().T, rtol=1e-5, atol=1e55)
    torch.testing.assert_close(gram(x, y), x.double() @ y.double().T, rtol=1e-5, atol=1e-5)
    assert gram(x[:, :0], y[:, :0]).tolist() == [[0.0] * 5] * 5


def net(width=5):
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


def mean_square(model, x):
    return model(x).square().mean()


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_get_a_sentence():
    a, b, x = net(), net(), torch.randn(4, 3)
    spec = PermutationSpec.from_module(a, x)
    module, networks = "must be a torch.nn.Module", "must be a list of modules or state dicts"
    either, batches = "must be a torch.nn.Module or a state dict", "batches must be an iterable of batches"
    for message, call in (
        ("spec must be a PermutationSpec, got an object of type Sequential", lambda: weight_matching(a, spec, b)),
        ("spec must be a PermutationSpec", lambda: activation_matching(a, spec, b, [x])),
        ("spec must be a PermutationSpec", lambda: ste_matching(a, spec, b, [x], mean_square)),
        ("spec must be a PermutationSpec", lambda: match_many([a, b], spec)),
        (f"target {either}, got the class Linear", lambda: weight_matching(spec, nn.Linear, b)),
        ("source must hold tensors only, got an object of type int at 'w'", lambda: weight_matching(spec, a, {"w": 1})),
        ("the parameters lack", lambda: weight_matching(spec, a, {})),
        ("restarts must be a whole number of at least 0", lambda: weight_matching(spec, a, b, restarts=-1)),
        ("max_sweeps must be a whole number of at least 1", lambda: weight_matching(spec, a, b, max_sweeps=1.5)),
        ("generator must be a torch.Generator", lambda: weight_matching(spec, a, b, restarts=1, generator=0)),
        (batches, lambda: activation_matching(spec, a, b, x)),
        ("loss must be a function of a module and a batch", lambda: ste_matching(spec, a, b, [x], None)),
        ("learning_rate must be one", lambda: ste_matching(spec, a, b, [x], mean_square, learning_rate="a")),
        (networks, lambda: match_many(spec, a)),
        (networks, lambda: interpolate(a, b)),
        (networks, lambda: repair(a, a, [x])),
        (batches, lambda: repair(a, [a, b], x)),
        (batches, lambda: reset_batchnorm_stats(a, x)),
        (module, lambda: reset_batchnorm_stats(None, [x])),
        (module, lambda: resize(a.state_dict(), a)),
        ("tensors only, got an object of type ndarray", lambda: resize(a, dict.fromkeys(a.state_dict(), x.numpy()))),
        (module, lambda: loss_barrier(spec, a, b)),
        ("evaluate must be a function", lambda: loss_barrier(a, b, 3)),
        ("loss must be a function", lambda: taylor_barrier(a, b, None)),
        ("loss must return a finite scalar tensor", lambda: taylor_barrier(a, b, lambda m: 3.0)),
        ("threshold must be one real number", lambda: singular_alignment(a, b, "half")),
        (module, lambda: FeatureMerger(spec, x)),
        ("spec must be a PermutationSpec", lambda: FeatureMerger(a, x, spec=b)),
        ("beta must be one real number", lambda: FeatureMerger(a, x).shrink(beta="0.1")),
        ("betas must be a list of numbers", lambda: feature_complexity(a, x, 0.1)),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "value", [None, "1", (1.0, 2.0), torch.ones(2), 1j, True, float("nan"), torch.tensor(torch.inf)]
)
def test_a_loss_that_is_no_number_is_refused(value):
    with pytest.raises(InputError, match="evaluate"):
        loss_barrier(net(), net(), lambda m: value, points=3)


def test_a_loss_may_be_a_tensor():
    np = pytest.importorskip("numpy")
    a, b, x = net(), net(), torch.randn(4, 3)
    wanted = loss_barrier(a, b, lambda m: float(mean_square(m, x).detach()), points=3)
    for change in (lambda v: v, lambda v: v.detach()[None], lambda v: np.float32(v.detach()), lambda v: v.double()):
        found = loss_barrier(a, b, lambda m, change=change: change(mean_square(m, x)), points=3)
        assert found.losses == pytest.approx(wanted.losses, rel=1e-6)


def test_equivalence_names_what_is_wrong_with_its_arguments(unchecked):
    a, x = net(), torch.randn(4, 3)
    spec = PermutationSpec.from_module(a, x)
    with pytest.raises(InputError, match="spec must be a PermutationSpec"):
        functionally_equivalent(a, a, spec)
    for tolerance in (-1, float("nan")):
        with pytest.raises(InputError, match="tolerance must be at least 0"):
            functionally_equivalent(spec, a, a, tolerance=tolerance)
    with pytest.raises(InputError, match=r"generator must be a torch\.Generator or None, got 0"):
        Permutation.random(spec, 0)
