"""Rules of operators: the groups that they give, and the detection of mistakes in them."""

import functools
import itertools
import warnings

import networks
import pytest
import torch
from torch import nn

from commutant.parameters import AxisLabel, Factor, PermutationSpec, _derive, _trace, _verify, _walk
from commutant.parameters._permutation import Permutation
from commutant.parameters._refutation import verified
from commutant.parameters._rules_pointwise import SEVERAL, UNARY
from commutant.parameters._walk import RULES, Op
from depth import some


def build(name):
    torch.manual_seed(0)
    return networks.CASES[name].build()


@pytest.mark.filterwarnings("ignore:the module branches on values")
@pytest.mark.parametrize("name", networks.CASES)
def test_the_groups_are_found_and_hold(name):
    model, inputs = build(name)
    spec = PermutationSpec.from_module(model, inputs)
    assert sorted(spec.sizes.values()) == networks.CASES[name].sizes
    assert spec.error < 1e-12


@pytest.mark.filterwarnings("ignore:the module branches on values")
@pytest.mark.parametrize("name", some(networks.CASES, keep=5))
def test_the_module_itself_computes_the_same(name):
    """Check the module itself in float64, not the traced graph, for each group alone and all at once."""
    model, inputs = build(name)
    spec = PermutationSpec.from_module(model, inputs, verify=False)
    model = model.double().eval()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    state = model.state_dict()
    model.load_state_dict(_verify.generic(state, torch.Generator().manual_seed(3)))
    drawn = Permutation.random(spec, torch.Generator().manual_seed(4))
    for groups in (*[[g] for g in spec.sizes], list(spec.sizes)):
        moved = Permutation(spec, {g: drawn.tables[g] for g in groups}).apply(model)
        torch.testing.assert_close(moved(*inputs), model(*inputs), rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:the module branches on values")
@pytest.mark.parametrize("name", some(networks.CASES, keep=5))
def test_gradients_move_with_the_parameters(name):
    model, inputs = build(name)
    spec = PermutationSpec.from_module(model, inputs, verify=False)
    model = model.double().eval()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    permutation = Permutation.random(spec, torch.Generator().manual_seed(5))
    moved = permutation.apply(model)

    def gradients(m):
        out = m(*inputs)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
        zero = {k: torch.zeros_like(v) for k, v in m.state_dict().items()}
        named = dict(m.named_parameters(remove_duplicate=False))
        return zero | {k: p.grad for k, p in named.items() if p.grad is not None}

    expected, found = permutation.apply(gradients(model)), gradients(moved)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-8)


def _derived(traced, model):
    return _derive.derive(model, [traced])


class _patched:
    """Let `allow` decide for each tie and each freeze of one rule whether it happens."""

    def __init__(self, rule, allow):
        self.rule, self.allow = rule, allow

    def __enter__(self):
        self.tie, self.freeze, self.mix = Op.tie, Op.freeze, Op.mix
        rule, allow = self.rule, self.allow

        def guarded(original):
            def method(op, *axes):
                if RULES.get(op.name) is not rule or allow():
                    original(op, *axes)

            return method

        Op.tie, Op.freeze, Op.mix = guarded(self.tie), guarded(self.freeze), guarded(self.mix)

    def __exit__(self, *_):
        Op.tie, Op.freeze, Op.mix = self.tie, self.freeze, self.mix


def _same(first, second):
    return first.axes == second.axes and first.parents == second.parents


@functools.cache
def _traced(name):
    """Return a network, its graph, the rules that it uses and its groups."""
    model, inputs = build(name)
    traced = _trace.trace(model, inputs, {})
    used = {RULES.get(_walk.name_of(n.target)) for n in traced.module.graph.nodes if n.op == "call_function"}
    return model, traced, used, _derived(traced, model)


def _mutants(rule):
    """Yield networks with one tie or freeze of the rule left out, if that changes the groups."""
    for name in networks.CASES:
        model, traced, used, whole = _traced(name)
        if rule not in used:
            continue
        calls = itertools.count()
        with _patched(rule, lambda calls=calls: next(calls) >= 0):
            _derived(traced, model)
        for k in range(next(calls)):
            calls = itertools.count()
            with _patched(rule, lambda calls=calls, k=k: next(calls) != k):
                mutant = _derived(traced, model)
            if not _same(whole, mutant):
                yield name, k, model, traced, mutant


@pytest.mark.parametrize("rule", sorted(set(RULES.values()), key=lambda r: r.__name__), ids=lambda r: r.__name__)
def test_a_mistake_in_a_rule_is_caught(rule, deep):
    for name, k, model, traced, mutant in itertools.islice(_mutants(rule), None if deep else 1):
        spec = PermutationSpec(mutant.axes, mutant.sizes, mutant.parents, mutant.frozen, mutant.unknown)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            mended = verified(spec, model, [traced], torch.Generator().manual_seed(0))
        assert any("refuted" in str(w.message) for w in seen), f"{name}: call {k} of {rule.__name__} was not missed"
        assert mended.error < 1e-9


def test_every_rule_is_used_by_a_network():
    used = set()
    for name in networks.CASES:
        used |= _traced(name)[2]
    assert {r.__name__ for r in set(RULES.values()) - used} == set()


@pytest.mark.parametrize("name", sorted({*UNARY.split(), *SEVERAL.split()}))
def test_elementwise_operators_are_elementwise(name):
    if name.endswith("dropout"):
        pytest.skip("does nothing in evaluation")
    if getattr(torch.ops.aten, name, None) is None:
        pytest.fail(f"aten has no {name}")
    p = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    floats = [
        torch.rand(6, generator=torch.Generator().manual_seed(i), dtype=torch.float64) * 0.8 + 0.1 for i in range(3)
    ]
    integers = [(x * 10).long() for x in floats]
    kinds = [floats, integers, [x > 5 for x in integers], [integers[0] > 5, *floats], [floats[0], integers[0] > 5, 0.5],
             [floats[0], -1.0, 1.0], [floats[0], 2.0], [floats[0], floats[1], 2.0],
             [torch.complex(floats[0], floats[1])]]  # fmt: skip
    function, ran = getattr(torch.ops.aten, name), 0
    for tensors in kinds:
        for count in (1, 2, 3):
            try:
                out = function(*tensors[:count])
            except (RuntimeError, TypeError, NotImplementedError, ValueError):
                continue
            moved = function(*[t[p] if isinstance(t, torch.Tensor) else t for t in tensors[:count]])
            out, moved = (o if isinstance(o, tuple) else (o,) for o in (out, moved))
            for x, y in zip(out, moved, strict=True):
                if isinstance(x, torch.Tensor) and x.numel() == 6:
                    assert torch.allclose(x[p], y, rtol=0, atol=1e-12, equal_nan=True)
                    ran += 1
    assert ran


def test_a_wrong_group_is_frozen_with_a_warning():
    """Remove the label of one axis, so that one group no longer holds."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    traced = _trace.trace(model, (torch.randn(2, 3),), {})
    right = PermutationSpec.from_module(model, torch.randn(2, 3))
    out, _ = right.axes["2.weight"]
    axes = right.axes | {"2.weight": (out, AxisLabel(((Factor(4),),)))}
    wrong = PermutationSpec(axes, right.sizes, right.parents, right.frozen, {})
    with pytest.warns(UserWarning, match="refuted the groups 0; they are frozen"):
        mended = verified(wrong, model, [traced], torch.Generator().manual_seed(0))
    assert list(mended.sizes) == ["2"]
    assert mended.error < 1e-12
    assert mended.frozen["0.weight", 0] == "refuted by the verification"
