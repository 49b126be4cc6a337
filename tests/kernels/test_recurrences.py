"""Kernels in Triton's interpreter against their twins in PyTorch operators, at odd shapes."""

import interpreted
import pytest
import torch

import warm
from commutant import InputError
from commutant.kernels import _dispatch, fused_recurrence
from commutant.sequences import MinGRU, ParaGRU, ParaLSTM, _gated, check_parallel
from commutant.sequences._find import loop
from commutant.sequences._gated import GATED_CELLS
from depth import some

pytest.importorskip("triton")
NAMES = ("gru", "lstm", "mingru", "minlstm", "sru")
METHODS = ("sequential", "multishoot")


def problem(name, length, batch=2, channels=3, bound=2.0, seed=0, dtype=torch.float32):
    cell, g = GATED_CELLS[name], torch.Generator().manual_seed(seed)
    pre = torch.randn(length, batch, cell.gates, channels, generator=g)
    weights = bound * (2 * torch.rand(cell.recurrent, channels, generator=g) - 1)
    h0 = 0.5 * torch.randn(cell.initial(batch, channels, pre).shape, generator=g)
    return cell, [t.to(dtype).requires_grad_() for t in (pre, weights, h0)]


def with_gradients(states, leaves):
    g = torch.Generator().manual_seed(9)
    weights = torch.randn(states.shape, generator=g)
    return states, torch.autograd.grad(
        (states.float() * weights).sum(), leaves, allow_unused=True, materialize_grads=True
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("length", "batch", "channels"), some([(11, 2, 3), (37, 2, 5), (1, 1, 4), (9, 3, 1), (130, 1, 2)])
)
@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_their_twins(name, length, batch, channels, method, short):
    cell, leaves = problem(name, length, batch, channels)
    expected, wanted = with_gradients(loop(cell, (leaves[0],), leaves[2], (leaves[1],)), leaves)
    states, info = fused_recurrence(name, leaves[0], leaves[1], leaves[2], method)
    torch.testing.assert_close(states, expected, atol=3e-6, rtol=0)
    for found, true in zip(with_gradients(states, leaves)[1], wanted, strict=True):
        torch.testing.assert_close(found, true, atol=2e-5, rtol=1e-5)
    sweeps, mismatch = info.read()
    assert mismatch < 1e-6
    assert sweeps >= (2 if method == "multishoot" and length >= 8 else 0)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_more_than_one_span_and_block(name, monkeypatch, deep):
    """Use small tiles, so that there are several spans of time and blocks of channels, with partly filled last ones."""
    small = _dispatch.Tile(4 if deep else 2, 4, 2, 1)
    monkeypatch.setattr(_dispatch, "tile", lambda *_: small)
    cell, leaves = problem(name, 39 if deep else 19, 1, 3, bound=0.9)
    expected, wanted = with_gradients(loop(cell, (leaves[0],), leaves[2], (leaves[1],)), leaves)
    states, _ = fused_recurrence(name, *leaves, "multishoot")
    torch.testing.assert_close(states, expected, atol=1e-6, rtol=0)
    for found, true in zip(with_gradients(states, leaves)[1], wanted, strict=True):
        torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_bistable_cells_are_solved_where_three_newton_iterations_are_wrong(name, deep):
    length, channels = (96, 4) if deep else (24, 2)
    cell, leaves = problem(name, length, 1, channels, bound=6.0, seed=2)
    with torch.no_grad():
        expected = loop(cell, (leaves[0],), leaves[2], (leaves[1],))
        shot, info = fused_recurrence(name, *leaves, "multishoot")
        torch.testing.assert_close(shot, expected, atol=3e-5, rtol=0)
        assert info.read()[0] > 3
        wrong, told = fused_recurrence(name, *leaves, "newton")
        assert not torch.allclose(wrong, expected, atol=1e-2)
        assert told.read()[1] > 1e-3  # and the residual shows it


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_gradients_survive_products_that_overflow():
    pre, weights = torch.zeros(130, 1, 3, 1, requires_grad=True), torch.tensor([[0.0], [0.0], [60.0]])
    h0 = torch.zeros(1, 1, requires_grad=True)
    found = torch.autograd.grad(fused_recurrence("gru", pre, weights, h0, "multishoot")[0][0].sum(), (pre, h0))
    true = torch.autograd.grad(loop(GATED_CELLS["gru"], (pre,), h0, (weights,))[0].sum(), (pre, h0))
    for a, b in zip(found, true, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gru", "lstm", "sru"])
def test_newton_is_the_papers_scheme(name, deep):
    cell, leaves = problem(name, 70 if deep else 12, 1, 3, bound=0.5)
    expected = loop(cell, (leaves[0],), leaves[2], (leaves[1],))
    states, info = fused_recurrence(name, *leaves, "newton", iterations=4)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
    assert info.read()[0] == 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", some(["gru", "lstm"]))
def test_nan_stays_in_its_row_and_later_steps(name, method, short, deep):
    length, bad = (40, 25) if deep else (19, 11)
    _, leaves = problem(name, length, 3, 2)
    pre = leaves[0].detach().clone()
    pre[bad, 1] = torch.nan
    clean = fused_recurrence(name, leaves[0].detach(), leaves[1].detach(), leaves[2].detach(), method)[0]
    states = fused_recurrence(name, pre, leaves[1].detach(), leaves[2].detach(), method)[0]
    assert torch.equal(states[:, [0, 2]], clean[:, [0, 2]])
    torch.testing.assert_close(states[:bad, 1], clean[:bad, 1], atol=2e-6, rtol=0)
    assert states[bad:, 1].isnan().all()


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_half_precision_storage(name):
    cell, leaves = problem(name, 33, 1, 4, bound=0.5, dtype=torch.bfloat16)
    expected = loop(cell, (leaves[0].float(),), leaves[2].float(), (leaves[1].float(),))
    states, _ = fused_recurrence(name, *leaves, "multishoot")
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states.float(), expected, atol=4e-3, rtol=0)
    assert all(g.dtype == torch.bfloat16 for g in with_gradients(states, leaves)[1])


def test_strided_inputs_and_expanded_gradients():
    cell, leaves = problem("gru", 20, 2, 3)
    batch_first = leaves[0].detach().transpose(0, 1).contiguous().requires_grad_()
    states, _ = fused_recurrence("gru", batch_first.transpose(0, 1), leaves[1], leaves[2])
    expected = loop(cell, (leaves[0],), leaves[2], (leaves[1],))
    torch.testing.assert_close(states, expected, atol=1e-6, rtol=0)
    (found,) = torch.autograd.grad(states.sum(), batch_first)
    (true,) = torch.autograd.grad(expected.sum(), leaves[0])
    torch.testing.assert_close(found.transpose(0, 1), true, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (5, 0, 3, 4)])
def test_empty(shape):
    pre = torch.randn(shape, requires_grad=True)
    states, info = fused_recurrence("gru", pre, torch.randn(3, 4), torch.randn(shape[1], 4), "multishoot")
    assert states.shape == (*shape[:2], 4)
    states.sum().backward()
    assert pre.grad.shape == shape
    assert info.read()[1] == 0


def test_operators_are_well_formed():
    _, leaves = problem("gru", 12, 1, 2)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(torch.ops.commutant.recurrence, (*leaves, "gru", "multishoot", 3), test_utils=checks)
    states = fused_recurrence("gru", *leaves)[0].detach()
    bare = [t.detach() for t in leaves]
    arguments = (torch.ones_like(states), *bare, states, "gru", "multishoot")
    torch.library.opcheck(torch.ops.commutant.recurrence_backward, arguments, test_utils=checks)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setattr(_dispatch, "_interpreted", True)


@pytest.fixture
def short(monkeypatch, deep):
    """Make short inputs cheap for the sequential kernel, except at full depth."""
    if not deep:
        interpreted.in_short_spans(monkeypatch)


@pytest.fixture
def everywhere(monkeypatch):
    """Make layers use the kernels, as on a GPU."""
    monkeypatch.setattr(_gated, "fused_method", lambda name, pre, solver: None if solver == "loop" else "multishoot")


@pytest.mark.parametrize("make", [ParaGRU, ParaLSTM, MinGRU])
def test_layers_run_on_kernels(make, everywhere, unchecked, deep):
    layer = make(3, 4, num_layers=2, bidirectional=True)
    report = check_parallel(layer, torch.randn(65 if deep else 13, 1, 3), tolerance=1e-4)
    assert report.agrees, str(report)
    assert [info.method for info in report.info] == ["multishoot-triton"] * 4
    assert all(info.converged and info.mismatch < 1e-6 for info in layer.info)
    assert layer.fallbacks == 0


def test_layers_compile_without_a_break():
    """Run in a separate process, since the compiler can't trace run-time checks of annotations."""
    code = """
import torch
from commutant.kernels import _dispatch
from commutant.sequences import ParaGRU, _gated
_dispatch._interpreted = True
_gated.fused_method = lambda *_: "multishoot"
layer, x = ParaGRU(3, 4), torch.randn(10, 2, 3)
compiled = torch.compile(lambda x: layer(x)[0], backend="aot_eager", fullgraph=True)
expected, found = layer(x), compiled(x)
torch.testing.assert_close(found, expected[0], atol=1e-6, rtol=0)
found.sum().backward()
assert layer.weight_hh_l0.grad.abs().sum() > 0
"""
    done = warm.python(code)
    assert done.returncode == 0, done.stderr


def test_second_derivatives_go_through_the_loop():
    cell, leaves = problem("gru", 6, 1, 2)

    def second(states):
        first = torch.autograd.grad(states.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    expected = second(loop(cell, (leaves[0],), leaves[2], (leaves[1],)))
    for found, true in zip(second(fused_recurrence("gru", *leaves)[0]), expected, strict=True):
        torch.testing.assert_close(found, true, atol=1e-4, rtol=1e-4)
    bare = [t.detach() for t in leaves]
    pulled = torch.ops.commutant.recurrence_backward(
        torch.ones(6, 1, 2), leaves[0], *bare[1:], bare[0][..., 0, :], "gru", "multishoot"
    )
    with pytest.raises(InputError, match="create_graph"):
        pulled[0].sum().backward()


def test_auto_and_tiles():
    assert _dispatch._choose(torch.empty(64, 8, 3, 16)) == "sequential"
    assert _dispatch._choose(torch.empty(2048, 8, 3, 16)) == "multishoot"
    assert _dispatch._choose(torch.empty(2048, 64, 3, 512, device="meta")) == "sequential"
    for length in (1, 7, 8, 100, 2048, 1 << 17):
        for channels in (1, 5, 4096):
            for method in ("sequential", "multishoot", "newton"):
                found = _dispatch.tile(length, channels, method)
                assert all(n & (n - 1) == 0 for n in (found.steps, found.chunks, found.block))
                assert found.steps * found.chunks * found.block * 4 <= 1 << 18


def test_without_triton_there_is_one_warning(monkeypatch):
    monkeypatch.setattr(_dispatch.importlib.util, "find_spec", lambda _: None)
    _dispatch._triton_is_there.cache_clear()
    with pytest.warns(UserWarning, match="triton is not installed"):
        assert not _dispatch._triton_is_there()
    assert not _dispatch._triton_is_there()  # cached, so the warning is not repeated
    _dispatch._triton_is_there.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rnn", torch.zeros(2, 1, 3, 4), torch.zeros(3, 4), torch.zeros(1, 4)), "no kernel for 'rnn'"),
        (("gru", torch.zeros(2, 1, 2, 4), torch.zeros(3, 4), torch.zeros(1, 4)), "gru takes pre"),
        (("lstm", torch.zeros(2, 1, 3, 4), torch.zeros(5, 4), torch.zeros(1, 4)), r"h_0 \(batch, 2, channels\)"),
        (("gru", torch.zeros(2, 1, 3, 4).double(), torch.zeros(3, 4), torch.zeros(1, 4)), "float64"),
        (("gru", torch.zeros(2, 1, 3, 4), torch.zeros(3, 4), torch.zeros(1, 4), "elk"), "'elk'"),
    ],
)
def test_errors(arguments, said, unchecked):
    with pytest.raises(InputError, match=said):
        fused_recurrence(*arguments)
