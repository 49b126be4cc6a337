"""C kernels against the plain loop in PyTorch operators, and the fallback without a compiler."""

import pytest
import torch

import warm
from commutant import InputError
from commutant.kernels import _native, fused_method, fused_recurrence
from commutant.sequences import ParaGRU, ParaLSTM, check_parallel
from commutant.sequences._find import loop
from commutant.sequences._gated import GATED_CELLS
from depth import some

NAMES = ("gru", "lstm", "mingru", "minlstm", "sru")
pytestmark = pytest.mark.skipif(_native.library() is None, reason="no C compiler")


def problem(name, length, batch, channels, bound=2.0, dtype=torch.float32, scale=1.0):
    cell, g = GATED_CELLS[name], torch.Generator().manual_seed(length)
    pre = scale * torch.randn(length, batch, cell.gates, channels, generator=g)
    weights = bound * (2 * torch.rand(cell.recurrent, channels, generator=g) - 1)
    h0 = 0.5 * torch.randn(cell.initial(batch, channels, pre).shape, generator=g)
    return cell, [t.to(dtype).requires_grad_() for t in (pre, weights, h0)]


def with_gradients(states, leaves):
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(9))
    total = (states.float() * weights).sum()
    return states, torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("length", "batch", "channels"),
    some([(37, 2, 5), (9, 8, 257), (1, 1, 1), (200, 3, 130), (64, 1, 300), (700, 5, 16)], keep=2),
)
@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_the_loop(name, length, batch, channels, threads):
    torch.set_num_threads(threads)
    cell, leaves = problem(name, length, batch, channels)
    expected, wanted = with_gradients(loop(cell, (leaves[0],), leaves[2], (leaves[1],)), leaves)
    states, info = fused_recurrence(name, *leaves)
    assert info.read() == (0, 0.0)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
    for found, true in zip(with_gradients(states, leaves)[1], wanted, strict=True):
        torch.testing.assert_close(found, true, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_large_inputs_saturate(name):
    cell, leaves = problem(name, 30, 2, 20, scale=300.0)
    expected, wanted = with_gradients(loop(cell, (leaves[0],), leaves[2], (leaves[1],)), leaves)
    states, found = with_gradients(fused_recurrence(name, *leaves)[0], leaves)
    for a, b in zip((states, *found), (expected, *wanted), strict=True):  # to rounding of the largest value
        torch.testing.assert_close(
            a, b, atol=2e-6 * max(1.0, float(b.detach().abs().max())) if b.numel() else 0, rtol=1e-4
        )


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity_stay_in_their_row_and_channel(name, value):
    cell, leaves = problem(name, 40, 3, 20)
    pre, weights, h0 = (t.detach().clone() for t in leaves)
    clean = fused_recurrence(name, pre, weights, h0)[0]
    pre[25, 1, 0, 7] = value
    states = fused_recurrence(name, pre, weights, h0)[0]
    rest = torch.ones(20, dtype=torch.bool)
    rest[7] = False
    assert torch.equal(states[:, [0, 2]], clean[:, [0, 2]])
    assert torch.equal(states[..., rest], clean[..., rest])
    assert torch.equal(states[:25], clean[:25])
    expected = loop(cell, (pre,), h0, (weights,))
    assert torch.equal(states[25:, 1, ..., 7].isfinite(), expected[25:, 1, ..., 7].isfinite())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    cell, leaves = problem("lstm", 50, 2, 8, bound=0.5, dtype=dtype)
    expected = loop(cell, (leaves[0].float(),), leaves[2].float(), (leaves[1].float(),))
    states, grads = with_gradients(fused_recurrence("lstm", *leaves)[0], leaves)
    assert states.dtype == dtype
    torch.testing.assert_close(states.float(), expected, atol=4e-3, rtol=0)
    assert all(g.dtype == dtype for g in grads)


def test_batch_first_and_sliced_inputs():
    cell, leaves = problem("gru", 20, 4, 30)
    wide = (
        torch.cat([leaves[0].detach()] * 2, -1)[..., :30].transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    )
    expected = loop(cell, (leaves[0],), leaves[2], (leaves[1],))
    for given in (wide, torch.cat([wide, wide], 2)[:, :, :3]):
        states = fused_recurrence("gru", given, leaves[1], leaves[2])[0]
        torch.testing.assert_close(states, expected, atol=1e-6, rtol=0)
        (found,) = torch.autograd.grad(states.sum(), wide)
        (true,) = torch.autograd.grad(expected.sum(), leaves[0], retain_graph=True)
        torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [ParaGRU, ParaLSTM])
def test_layers_take_the_kernel(make):
    layer = make(6, 10, num_layers=2, bidirectional=True)
    report = check_parallel(layer, torch.randn(300, 4, 6), tolerance=1e-4)
    assert report.agrees, str(report)
    assert [info.method for info in report.info] == ["sequential-c"] * 4


def test_they_take_what_fits():
    pre = torch.zeros(4, 2, 3, 5)
    assert fused_method("gru", pre, "auto") == "sequential"
    for name, given, method in (("gru", pre.double(), "auto"), ("slstm", pre, "auto"), ("gru", pre, "multishoot")):
        assert fused_method(name, given, method) is None
    with pytest.raises(InputError, match="auto or sequential on a CPU, got 'newton'"):
        fused_recurrence("gru", pre, torch.zeros(3, 5), torch.zeros(2, 5), "newton")


def test_a_layer_compiles_without_a_break():
    code = """
import torch
from commutant.sequences import ParaGRU
torch.set_num_threads(2)
layer, x = ParaGRU(32, 64), torch.randn(300, 8, 32)
expected = layer(x)[0]
found = torch.compile(lambda x: layer(x)[0], backend="aot_eager", fullgraph=True)(x)
torch.testing.assert_close(found, expected)
"""
    done = warm.python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("broken", some(["CC=/bin/false", "PATH=/nowhere"]))
def test_without_a_compiler_layers_run_as_pytorch_operators(tmp_path, broken):
    code = """
import torch
from commutant.kernels import _native
from commutant.sequences import ParaGRU
layer, x = ParaGRU(4, 6), torch.randn(300, 2, 4)
layer(x)[0].sum().backward()
print(_native.library() is None, layer.info[0].method)
"""
    environment = {"XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": "/nowhere", "CC": ""}
    name, value = broken.split("=")
    done = warm.python(code, **{**environment, name: value})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "multishoot"]


@pytest.mark.parametrize("scale", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_small_states_are_right_to_their_own_size(name, scale):
    cell, leaves = problem(name, 50, 2, 20, scale=scale)
    pre, weights, _ = (t.detach() for t in leaves)
    start = cell.initial(2, 20, pre)
    expected = loop(cell, (pre.double(),), start.double(), (weights.double(),))
    found = fused_recurrence(name, pre, weights, start)[0]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_sliding_windows_in_half_precision():
    base = torch.randn(400, generator=torch.Generator().manual_seed(0)).bfloat16()
    pre = base.as_strided((2, 2, 3, 4), (4, 100, 4, 1))
    weights, h0 = torch.rand(3, 4), torch.zeros(2, 4)
    found = fused_recurrence("gru", pre, weights, h0)[0]
    assert torch.equal(found, fused_recurrence("gru", pre.contiguous(), weights, h0)[0])


def test_forward_differentiation_goes_through_the_loop():
    from torch.autograd import forward_ad

    layer, x = ParaGRU(3, 4).requires_grad_(False), torch.randn(9, 2, 3)
    v = torch.randn_like(x)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, v))[0]).tangent
    expected = torch.autograd.functional.jvp(lambda x: layer(x)[0], x, v)[1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
