"""Errors that a certificate must find: in small channels, from many small defects, and from couplings behind NaN."""

import functools
import math

import pytest
import torch

from commutant import InputError
from commutant.algebra.linear_maps import _scan_chunks, _scan_tree
from commutant.kernels import _native
from commutant.sequences import (
    MinGRU,
    ParaGRU,
    SolveInfo,
    check_parallel,
    jacobian_structure,
    parallel_rnn,
    solve_recurrence,
)
from commutant.sequences._find import METHODS
from commutant.sequences.solvers import defect
from depth import chosen, some

PARALLEL = [m for m in METHODS if m not in ("loop", "sequential", "tabulated")]


def relative(found, expected):
    """Return the error of each channel relative to its largest state."""
    lanes = expected.abs().amax(1, keepdim=True).clamp(min=torch.finfo(expected.dtype).tiny)
    return float(((found - expected) / lanes).abs().max())


@functools.cache
def beside_a_large_channel(small):
    """Return a recurrence and the trajectory of its loop."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1024, 2, generator=g) * torch.tensor([1.0, 0.001 * small])
    recurrence = (lambda h, x: 0.999 * h + x, x, torch.tensor([[1.0, small]]))
    return recurrence, solve_recurrence(*recurrence, method="loop")[0]


@pytest.mark.parametrize("method", PARALLEL)
@pytest.mark.parametrize("small", some([5e-7, 1e-12, 1e-30]))
def test_a_small_channel_beside_a_large_one_is_right_to_its_own_size(method, small):
    recurrence, expected = beside_a_large_channel(small)
    found, _ = solve_recurrence(*recurrence, method=method)
    assert relative(found, expected) < 2e-5


@pytest.mark.parametrize("method", ["multishoot", "newton", "auto"])
def test_a_state_that_decays_keeps_its_relative_accuracy(method):
    x, h_0 = torch.zeros(1, 800, 3), torch.tensor([[1.0, 1e6, -1e-6]])
    step = lambda h, x: torch.tensor([0.9, 0.99, 0.95]) * h + x  # noqa: E731
    found, _ = solve_recurrence(step, x, h_0, method=method)
    expected, _ = solve_recurrence(step, x, h_0, method="loop")
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-37)


@functools.cache
def small_steps(rate):
    """Return a recurrence and the trajectory of its loop."""
    x = torch.randn(1, 2000, 4, generator=torch.Generator().manual_seed(0))
    recurrence = (lambda h, x: h + rate * torch.tanh(h + x), x, torch.zeros(1, 4))
    return recurrence, solve_recurrence(*recurrence, method="loop")[0]


@pytest.mark.parametrize("method", PARALLEL)
@pytest.mark.parametrize("rate", some([1e-4, 1e-3]))
def test_defects_that_add_up_are_no_solution(method, rate):
    recurrence, expected = small_steps(rate)
    found, info = solve_recurrence(*recurrence, method=method)
    assert relative(found, expected) < 2e-5
    assert info.mismatch < 2e-5


@pytest.mark.parametrize("structure", ["blocks", "dense"])
@pytest.mark.parametrize("method", chosen(["multishoot", "newton", "quasi", "picard"], ["multishoot", "quasi"]))
def test_other_structures_add_up_defects_too(structure, method):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1500, 2, generator=g)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])

    def step(h, x):
        if structure == "dense":
            return h + 1e-3 * torch.tanh(h @ turn + x)
        return h + 1e-3 * torch.tanh(h.flip(1) + x[:, None])

    h_0 = torch.zeros(1, 2) if structure == "dense" else torch.zeros(1, 2, 2)
    found, _ = solve_recurrence(step, x, h_0, method=method)
    expected, _ = solve_recurrence(step, x, h_0, method="loop")
    assert relative(found, expected) < 2e-5


def test_the_size_of_a_defect_is_its_own():
    one, tiny = torch.tensor([1.0, 1e-7]), torch.tensor([1.0, 2e-7])
    assert defect(tiny, one, one) == pytest.approx(1, rel=1e-6)
    assert defect(torch.tensor([1e-9]), torch.zeros(1), torch.ones(1)) == pytest.approx(1e-9)
    nan, inf = torch.tensor([torch.nan]), torch.tensor([torch.inf])
    for a in (nan, inf, -inf, torch.zeros(1)):
        assert defect(a, a, torch.ones(1)) == defect(a, a, nan) == defect(a, a, inf) == 0
    for a, b in ((nan, inf), (inf, -inf), (nan, one[:1]), (one[:1], nan), (inf, one[:1]), (one[:1], inf)):
        assert defect(a, b, torch.ones(1)) == math.inf


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("method", ["auto", "sequential", "multishoot"])
def test_a_row_of_nan_hides_no_coupling_of_other_rows(bad, method):
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rare = lambda h, x, w: torch.where(x[:, :1] > 2.9, torch.tanh(h @ w + x), 0.5 * h + 0 * x)  # noqa: E731
    x = torch.zeros(3, 97, 4)
    x[1, 45] = 3.0
    x[0, 3] = bad
    h, _ = solve_recurrence(rare, x, torch.ones(3, 4), params=(weight,), method=method)
    with pytest.raises(InputError, match="not diagonal along its trajectory"):
        h[1:].sum().backward()


def test_a_large_channel_hides_no_coupling_of_a_small_one():
    scale = torch.tensor([1.0, 1e-9])
    rare = lambda h, x: torch.where(x > 2.9, 0.5 * h + 0.1 * scale * h.flip(1) / scale.flip(0), 0.5 * h)  # noqa: E731
    x = torch.zeros(1, 60, 2)
    x[0, 41] = 3.0
    h_0 = torch.ones(1, 2, requires_grad=True)
    h, _ = solve_recurrence(lambda h, x: rare(h * scale, x) / scale, x, h_0)
    with pytest.raises(InputError, match="not diagonal"):
        h.sum().backward()
    small = lambda h, x: torch.stack([torch.tanh(h[:, 0]), 0.5 * h[:, 1] + 1e-9 * h[:, 0]], 1)  # noqa: E731
    h_0 = torch.tensor([[1.0, 1e-9]], requires_grad=True)
    h, _ = solve_recurrence(small, x, h_0)
    with pytest.raises(InputError, match="not diagonal"):
        h.sum().backward()


def test_a_step_that_is_nan_where_it_is_probed_is_not_called_diagonal():
    mix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    dense = lambda h, x: (h @ mix + x).sqrt()  # noqa: E731
    assert jacobian_structure(dense, torch.zeros(2, 3), torch.full((2, 3), -50.0)).kind == "dense"
    some = lambda h, x: torch.cat([(h[:, :1] - 50).sqrt(), torch.tanh(h[:, 1:])], 1)  # noqa: E731
    assert jacobian_structure(some, torch.zeros(2, 3), torch.zeros(2, 3)).kind == "dense"
    part = lambda h, x: (h @ mix + x).relu().sqrt()  # noqa: E731
    assert jacobian_structure(part, torch.zeros(2, 3), torch.zeros(2, 3)).kind == "dense"
    own = lambda h, x: (h + x).relu().sqrt()  # noqa: E731
    assert jacobian_structure(own, torch.zeros(2, 3), torch.zeros(2, 3)).kind == "diagonal"


def test_half_precision_is_probed_for_couplings_too():
    mix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    step = lambda h, x: torch.tanh(h @ mix)  # noqa: E731
    assert jacobian_structure(step, torch.zeros(2, 3).bfloat16(), torch.zeros(2, 3)).kind == "dense"


def test_cancellation_is_no_coupling():
    step = lambda h, x: h - 0.999999 * (h - x)  # noqa: E731
    x = torch.randn(1, 300, 2, requires_grad=True)
    h, _ = solve_recurrence(step, x, torch.zeros(1, 2))
    h.sum().backward()
    assert x.grad.isfinite().all()


ROOTS = {
    "diagonal": lambda h, x: (h + x).relu().sqrt(),
    "dense": lambda h, x: (h @ torch.tensor([[1.0, 0.5], [0.0, 1.0]]) + x).relu().sqrt(),
    "blocks": lambda h, x: (h + 0.1 * h.flip(1) + x[:, None]).relu().sqrt(),
    "norm": lambda h, x: (h + x).clamp(min=0).pow(0.5),
}


@pytest.mark.parametrize("kind", ROOTS)
@pytest.mark.parametrize("method", ["auto", "sequential", "multishoot"])
def test_gradients_are_finite_where_those_of_the_loop_are(kind, method):
    x = torch.tensor([1.0, -5.0, 1.0, 2.0, -9.0, -9.0, 1.0])[None, :, None].expand(1, 7, 2)
    h_0 = torch.ones(1, 2, 2) if kind == "blocks" else torch.ones(1, 2)
    grads = []
    for way in (method, "loop"):
        leaf = x.clone().requires_grad_()
        h, _ = solve_recurrence(ROOTS[kind], leaf, h_0, method=way)
        grads.append(torch.autograd.grad(h.sum(), leaf)[0])
    assert grads[1].isfinite().all()
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("method", ["auto", "multishoot", "newton", "sequential"])
def test_nan_is_not_called_converged(method):
    x = torch.randn(2, 300, 2)
    x[1, 200, 0] = torch.nan
    h, info = solve_recurrence(lambda h, x: torch.tanh(0.5 * h + x), x, torch.zeros(2, 2), method=method)
    assert h[1, 200:, 0].isnan().all()
    assert h.isnan().sum() == 100
    assert not info.converged
    assert math.isnan(info.residual)


@pytest.mark.skipif(_native.library() is None, reason="no C compiler")
@pytest.mark.parametrize("make", [ParaGRU, MinGRU])
def test_a_kernel_says_that_it_is_one_and_that_nan_is_no_solution(make):
    layer, x = make(3, 4), torch.randn(20, 2, 3)
    layer(x)
    assert layer.info == (SolveInfo("sequential-c", 0, 0.0, 0.0, True),)
    x[5, 1] = torch.nan
    layer(x)
    (info,) = layer.info
    assert not info.converged
    assert math.isnan(info.residual)
    assert layer.fallbacks == 0


@pytest.mark.parametrize("structure", ["diagonal", "blocks", "dense"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_tree_of_maps_survives_products_that_overflow(structure, reverse):
    """Check the scan for GPUs, whose products over segments overflow although no state does."""
    A, b = torch.ones(200, 2, 2), torch.zeros(200, 2, 2)
    A[0:30], A[30:90], A[90:] = 0.1, 10.0, 0.5
    A = A.flip(0) if reverse else A
    h_0 = torch.ones(2, 2)
    shape = {"diagonal": (200, 4), "blocks": (200, 1, 4), "dense": (200, 4)}[structure]
    A, b, h_0 = A.view(200, 4), b.view(shape), h_0.view(shape[1:])
    maps = {"diagonal": A, "blocks": A.view(200, 1, 1, 4), "dense": torch.diag_embed(A)}[structure]
    maps = 1.0 * maps
    found = _scan_tree(maps, b, h_0, structure, reverse)
    expected = _scan_chunks(maps, b, h_0, structure, reverse, lanes=0)
    assert expected.isfinite().all()
    assert expected.abs().max() > 1e29
    torch.testing.assert_close(found, expected)


def test_check_parallel_judges_each_channel_by_its_own_size(monkeypatch):
    cell = parallel_rnn(torch.nn.GRUCell(2, 2))
    x = torch.randn(1, 30, 2)
    assert check_parallel(cell, x).agrees
    whole = type(cell).forward

    def wrong(self, *args):
        y, state = whole(self, *args)
        scale = torch.tensor([1.0, 1e-8])
        return scale * (y if self.method == "loop" else y * torch.tensor([1.0, 2.0])), state

    monkeypatch.setattr(type(cell), "forward", wrong)
    report = check_parallel(cell, x)
    assert not report.agrees
    assert report.max_error == pytest.approx(1, rel=1e-3)
