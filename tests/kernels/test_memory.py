"""Accuracy of gates that are almost closed: kernels and twins against float64, at magnitudes far from one."""

import itertools

import interpreted
import pytest
import torch

from commutant.algebra.arithmetic import blend, both_weights
from commutant.kernels import _dispatch, _native, fused_recurrence
from commutant.sequences import SRU, MinLSTM
from commutant.sequences._find import Options, loop
from commutant.sequences._gated import GATED_CELLS
from commutant.sequences._solve import solve

LOGITS = (-120.0, -60.0, -20.0, -0.5, 0.0, 9.0, 20.0, 120.0)
SIZES = (1e-20, 1e-8, 0.123456, 1e8, 1e30)
NAMES = ("gru", "lstm", "mingru", "minlstm", "sru")
WAYS = ("c", "triton", "twin", "solver")


@pytest.fixture(params=WAYS)
def run(request, monkeypatch, deep):
    """Return a function that solves a gated recurrence: (name, pre, weights, h0) -> states."""
    if request.param == "twin":
        return lambda name, pre, weights, h0: loop(GATED_CELLS[name], (pre,), h0, (weights,))
    if request.param == "solver":
        return lambda name, pre, weights, h0: solve(GATED_CELLS[name], (pre,), h0, (weights,), Options("sequential"))[0]
    if request.param == "c" and _native.library() is None:
        pytest.skip("no C compiler")
    if request.param == "triton":
        pytest.importorskip("triton")
        monkeypatch.setattr(_dispatch, "_interpreted", True)
        if not deep:
            interpreted.in_short_spans(monkeypatch)
    return lambda name, pre, weights, h0: fused_recurrence(name, pre, weights, h0, "sequential")[0]


@pytest.fixture
def every(request):
    """Return the step between tested cases, larger for the slow interpreter of Triton."""
    return 29 if request.node.callspec.params["run"] == "triton" else 1


def grid(every=1):
    """Return combinations of a logit, an old state and a candidate, one per channel, in float64."""
    cases = list(itertools.product(LOGITS, SIZES, [s * size for size in SIZES for s in (1, -1)]))
    return torch.tensor(cases, dtype=torch.float64).float().double()[::every].unbind(1)


def share(logit):
    """Return the sigmoid and its complement in float64, each with full relative accuracy."""
    return torch.sigmoid(logit), torch.sigmoid(-logit)


def close(found, expected, size, largest=0.0):
    """Check agreement to 2e-5 of the size of the terms, or 1e-38; a logit of 120 is accurate to 4e-6."""
    excess = (found.double() - expected).abs() - (2e-5 * size + 2e-38 * (1 + largest))
    assert excess.max() <= 0


def one_step(run, name, pre, h0):
    leaves = [
        t.float().requires_grad_()
        for t in (pre[None, None], torch.zeros(GATED_CELLS[name].recurrent, len(h0)), h0[None])
    ]
    states = run(name, *leaves)
    d_pre, d_h0 = torch.autograd.grad(states.sum(), [leaves[0], leaves[2]])
    return states[0, 0].detach(), (d_pre[0, 0], d_h0[0])


@pytest.mark.parametrize("name", ["mingru", "minlstm", "sru"])
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_step_is_right_to_the_size_of_its_terms(run, every, name):
    logit, old, fresh = grid(every)
    if name == "mingru":  # z is the weight of the candidate x + 1/2
        fresh = fresh.abs()
        pre, candidate = torch.stack([logit, fresh]), (fresh.float() + 0.5).double()
    elif name == "minlstm":  # two almost closed sigmoids, whose ratio is that of their exponentials
        fresh = fresh.abs()
        pre, candidate = torch.stack([-40 - logit / 2, -40 + logit / 2, fresh]), (fresh.float() + 0.5).double()
        f, i = (torch.nn.functional.logsigmoid(p.float().double()) for p in pre[:2])
        logit = i - f
    else:  # f is the weight of the state
        pre, candidate = torch.stack([fresh, -logit]), fresh
    add, keep = share(logit)
    states, (d_pre, d_h0) = one_step(run, name, pre, old)
    close(states, keep * old + add * candidate, (keep * old).abs() + (add * candidate).abs(), old.abs() + fresh.abs())
    close(d_h0, keep, keep)
    slope = keep * add * (candidate - old)
    size = (keep * add).abs() * (candidate.abs() + old.abs())
    if name == "mingru":
        close(d_pre[0], slope, size, old.abs() + fresh.abs())
        close(d_pre[1], add, add)
    elif name == "sru":
        close(d_pre[1], -slope, size, old.abs() + fresh.abs())
        close(d_pre[0], add, add)
    else:
        close(d_pre[0], -slope * torch.sigmoid(-pre[0]), size, old.abs() + fresh.abs())
        close(d_pre[1], slope * torch.sigmoid(-pre[1]), size, old.abs() + fresh.abs())
        close(d_pre[2], add, add)


@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_step_from_a_huge_or_tiny_state(run, every, name):
    logit, old, fresh = (t[grid(every)[2].abs() < 2] for t in grid(every))
    candidate = torch.tanh(fresh)
    zero = torch.zeros_like(logit)
    add, keep = share(logit)
    pre = torch.stack([logit, zero, fresh] if name == "gru" else [-logit, fresh, zero])
    h0 = old if name == "gru" else torch.stack([old, zero])
    leaves = [
        t.float().requires_grad_()
        for t in (pre[None, None], torch.zeros(GATED_CELLS[name].recurrent, len(old)), h0[None])
    ]
    states = run(name, *leaves)[0, 0]
    state = states if name == "gru" else states[0]
    close(state.detach(), keep * old + add * candidate, (keep * old).abs() + (add * candidate).abs(), old.abs())
    d_pre, d_h0 = (g[0] for g in torch.autograd.grad(state.sum(), [leaves[0], leaves[2]]))
    size = (keep * add).abs() * (candidate.abs() + old.abs())
    close(d_h0 if name == "gru" else d_h0[0], keep, keep)
    close(d_pre[0, 0], (1 if name == "gru" else -1) * keep * add * (candidate - old), size, old.abs())


def test_the_examples_that_lost_their_memory(run):
    held = run(
        "minlstm",
        torch.tensor([30.0, -30.0, 1e4]).expand(5, 1, 3)[..., None],
        torch.zeros(0, 1),
        torch.full((1, 1), 0.123456),
    )
    torch.testing.assert_close(held, torch.full_like(held, 0.123456), rtol=1e-6, atol=0)
    fresh = run("mingru", torch.tensor([60.0, 0.25]).view(1, 1, 2, 1), torch.zeros(0, 1), torch.full((1, 1), 1e8))
    torch.testing.assert_close(fresh, torch.full_like(fresh, 0.75), rtol=1e-6, atol=0)


def test_equal_parts_stay_as_they_are_and_states_stay_in_their_bounds(run):
    pre = torch.linspace(-30, 30, 61).view(1, 1, 1, -1).expand(12, 1, 1, -1)
    states = run("sru", torch.cat([torch.full_like(pre, 0.7), pre], 2), torch.zeros(1, 61), torch.full((1, 61), 0.7))
    assert (states == torch.tensor(0.7)).all()
    full = run("gru", torch.cat([pre, pre, torch.full_like(pre, 40.0)], 2), torch.ones(3, 61), torch.ones(1, 61))
    assert full.abs().max() <= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:overflow")
def test_long_memory_is_that_of_float64(run, name):
    g = torch.Generator().manual_seed(0)
    pre = torch.randn(20, 1, GATED_CELLS[name].gates, 5, generator=g)
    gate = {"gru": 0, "mingru": 0, "minlstm": 0, "sru": 1, "lstm": 0}[name]
    pre[:, :, gate] += -9 if name in ("gru", "mingru") else 9
    weights = 0.1 * torch.randn(GATED_CELLS[name].recurrent, 5, generator=g)
    h0 = GATED_CELLS[name].initial(1, 5, pre) + 1e5 * torch.tensor([1, -1, 1e-3, 1e-9, 0.0])
    leaves = [t.requires_grad_() for t in (pre, weights, h0)]
    wide = [t.detach().double().requires_grad_() for t in leaves]
    found, true = run(name, *leaves), loop(GATED_CELLS[name], (wide[0],), wide[2], (wide[1],))
    torch.testing.assert_close(found.double(), true, rtol=3e-5, atol=1e-6)
    some = [0, 2] if GATED_CELLS[name].recurrent == 0 else [0, 1, 2]
    for a, b in zip(
        torch.autograd.grad(found.sum(), [leaves[i] for i in some]),
        torch.autograd.grad(true.sum(), [wide[i] for i in some]),
        strict=True,
    ):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_blend_in_every_precision(dtype):
    logit, a, b = (t.to(dtype).double() for t in grid())
    add, keep = share(logit)
    found = blend(a.to(dtype), b.to(dtype), logit.to(dtype))
    assert found.dtype == dtype
    size = (keep * a).abs() + (add * b).abs()
    eps = torch.finfo(dtype).eps
    lost = torch.finfo(dtype).tiny * (a.abs() + b.abs())
    assert ((found.double() - (keep * a + add * b)).abs() <= 8 * eps * size + lost).all()
    for part, true in zip(both_weights(logit), (add, keep, torch.minimum(add, keep)), strict=True):
        torch.testing.assert_close(part, true, rtol=1e-15, atol=0)


def test_the_gradient_of_a_gate_that_is_exactly_half_open():
    a, b, logit = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 5.0, 0.0))
    found = torch.autograd.grad(blend(a, b, logit), (a, b, logit))
    assert [float(g) for g in found] == [0.5, 0.5, 0.75]


def test_layers_hold_a_state_beside_a_huge_input():
    with torch.no_grad():
        layer = MinLSTM(1, 1)
        layer.weight_ih_l0.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
        layer.bias_l0.copy_(torch.tensor([60.0, -60.0, 0.0]))
        y, _ = layer(torch.full((40, 1, 1), 1e8), torch.full((1, 1, 1), 0.123456))
        torch.testing.assert_close(y, torch.full_like(y, 0.123456), rtol=1e-5, atol=0)
        layer = SRU(1, 1)  # the highway gate closes in the same way
        layer.weight_ih_l0.zero_()
        layer.weight_hh_l0.zero_()
        layer.bias_l0.copy_(torch.tensor([1e8, 60.0, 60.0, 1e8]))
        y, _ = layer(torch.zeros(3, 1, 1), torch.full((1, 1, 1), 0.75))
        torch.testing.assert_close(y, torch.full_like(y, 0.75), rtol=1e-6, atol=0)
