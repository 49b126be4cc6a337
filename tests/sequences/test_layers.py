"""Recurrent layers as replacements of nn.GRU and nn.LSTM: layouts, lengths, states, decoding, transforms, errors."""

import copy
import re

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

import warm
from commutant import InputError
from commutant.sequences import (
    SLSTM,
    SRU,
    MinGRU,
    MinLSTM,
    ParaGRU,
    ParaLSTM,
    RNNBlock,
    check_parallel,
    lyapunov_exponent,
    parallel_rnn,
)
from depth import chosen

LAYERS = [ParaGRU, ParaLSTM, MinGRU, MinLSTM, SRU, SLSTM]


def parts(state):
    return (state,) if isinstance(state, torch.Tensor) else state


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_shapes_are_those_of_torch(cls, batch_first, bidirectional):
    options = {"num_layers": 2, "batch_first": batch_first, "bidirectional": bidirectional}
    x = torch.randn(3, 70, 5) if batch_first else torch.randn(70, 3, 5)
    y, state = cls(5, 8, **options)(x)
    expected, h_n = torch.nn.GRU(5, 8, **options)(x)
    assert y.shape == expected.shape
    assert all(part.shape == h_n.shape for part in parts(state))
    y, state = cls(5, 8, **options)(x[0])
    expected, h_n = torch.nn.GRU(5, 8, **options)(x[0])
    assert y.shape == expected.shape
    assert all(part.shape == h_n.shape for part in parts(state))


@pytest.mark.parametrize("cls", chosen(LAYERS, [ParaLSTM, MinGRU]))
def test_check_parallel_agrees_and_names_the_first_bad_step(cls):
    layer = cls(5, 8, num_layers=2, bidirectional=True).double()
    report = check_parallel(layer, torch.randn(300, 2, 5, dtype=torch.float64))
    assert report.agrees, str(report)
    assert "agrees" in str(report)
    assert report.info[0].method == "multishoot"

    class Off(cls):
        def forward(self, *given):
            y, state = super().forward(*given)
            return (y if self.method == "loop" else y + 1e-2 * (torch.arange(len(y)) >= 7)[:, None, None]), state

    report = check_parallel(Off(5, 8), torch.randn(300, 2, 5))
    assert report.first_bad_step == 7
    assert "first at step 7" in str(report)


@pytest.mark.parametrize("cls", LAYERS)
def test_decoding_step_by_step_is_the_forward_pass(cls):
    layer = cls(5, 8, num_layers=2, batch_first=True).double()
    x = torch.randn(3, 90, 5, dtype=torch.float64)
    y, state = layer(x)
    carried = None
    for t in range(90):
        y_t, carried = layer.step(x[:, t], carried)
        torch.testing.assert_close(y_t, y[:, t])
    for a, b in zip(parts(carried), parts(state), strict=True):
        torch.testing.assert_close(a, b)
    continued, _ = layer(x[:, 50:], layer(x[:, :50])[1])
    torch.testing.assert_close(continued, y[:, 50:])


@pytest.mark.parametrize("cls", [ParaGRU, ParaLSTM, SRU])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths(cls, bidirectional):
    layer = cls(5, 8, num_layers=2, bidirectional=bidirectional).double()
    sequences = [torch.randn(n, 5, dtype=torch.float64) for n in (7, 120, 1, 64)]
    alone = [layer(x) for x in sequences]
    packed, state = layer(pack_sequence(sequences, enforce_sorted=False))
    padded, lengths = pad_packed_sequence(packed)
    flat, flat_state = layer(torch.cat(sequences), cu_seqlens=torch.tensor([0, 7, 127, 128, 192]))
    for i, (y, own) in enumerate(alone):
        torch.testing.assert_close(padded[: lengths[i], i], y)
        torch.testing.assert_close(flat[sum(lengths[:i]) : sum(lengths[: i + 1])], y)
        for a, b, c in zip(parts(state), parts(flat_state), parts(own), strict=True):
            torch.testing.assert_close(a[:, i], c)
            torch.testing.assert_close(b[:, i], c)


def test_packed_layout_is_that_of_torch():
    x = pack_padded_sequence(torch.randn(9, 3, 5), torch.tensor([4, 9, 6]), enforce_sorted=False)
    ours, theirs = ParaGRU(5, 8)(x)[0], torch.nn.GRU(5, 8)(x)[0]
    assert torch.equal(ours.batch_sizes, theirs.batch_sizes)
    assert torch.equal(ours.sorted_indices, theirs.sorted_indices)
    assert ours.data.shape == theirs.data.shape


def test_sequences_of_no_steps_keep_their_state():
    layer, h_0 = ParaGRU(5, 8), torch.randn(1, 3, 8)
    y, h_n = layer(torch.randn(6, 5), h_0, cu_seqlens=torch.tensor([0, 4, 4, 6]))
    assert y.shape == (6, 8)
    assert torch.equal(h_n[:, 1], h_0[:, 1])
    y, h_n = layer(torch.randn(0, 5), h_0, cu_seqlens=torch.tensor([0, 0, 0, 0]))
    assert y.shape == (0, 8)
    assert torch.equal(h_n, h_0)
    y, h_n = layer(torch.randn(0, 3, 5), h_0)
    assert y.shape == (0, 3, 8)
    assert torch.equal(h_n, h_0)
    assert layer(torch.randn(4, 0, 5))[0].shape == (4, 0, 8)


def test_heads_are_a_block_diagonal_input_map():
    headed, full = ParaGRU(6, 8, num_heads=2), ParaGRU(6, 8)
    weight = torch.zeros(3, 8, 6)
    blocks = headed.weight_ih_l0.detach().view(3, 2, 4, 3)
    weight[:, :4, :3], weight[:, 4:, 3:] = blocks[:, 0], blocks[:, 1]
    full.load_state_dict({**headed.state_dict(), "weight_ih_l0": weight.reshape(24, 6)})
    x = torch.randn(50, 2, 6)
    torch.testing.assert_close(headed(x)[0], full(x)[0])


def test_clipped_weights_still_learn_their_way_back():
    layer = ParaGRU(2, 3, a_max=0.5)
    with torch.no_grad():
        layer.weight_hh_l0.fill_(2.0)
    bounded = ParaGRU(2, 3, a_max=None)
    bounded.load_state_dict(layer.state_dict())
    with torch.no_grad():
        bounded.weight_hh_l0.fill_(0.5)
    x = torch.randn(20, 2, 2)
    y, expected = layer(x)[0], bounded(x)[0]
    assert torch.equal(y, expected)
    y.sum().backward()
    expected.sum().backward()
    inward = bounded.weight_hh_l0.grad > 0
    assert inward.any()
    torch.testing.assert_close(layer.weight_hh_l0.grad, bounded.weight_hh_l0.grad * inward)


def test_parity_is_tracked_exactly_beyond_what_newton_can():
    layer = ParaGRU(1, 4, a_max=None, batch_first=True)
    with torch.no_grad():  # a bistable cell, whose candidate is the old state, or its opposite after a one
        layer.weight_hh_l0.copy_(torch.tensor([[0.0], [0.0], [4.0]]).expand(3, 4))
        layer.weight_ih_l0.zero_()
        layer.weight_ih_l0[8:] = 0.3
        layer.bias_l0.copy_(torch.tensor([9.0, 9.0, 0.0]).repeat_interleave(4))
    x = torch.randint(0, 2, (4, 700, 1), generator=torch.Generator().manual_seed(0)) * 8.0 - 4.0
    assert check_parallel(layer, x).agrees
    layer.method = "newton"
    assert check_parallel(layer, x).agrees


def test_fallbacks_are_counted():
    layer = ParaGRU(2, 3, a_max=None, method="jacobi")
    layer(torch.randn(200, 2, 2))
    assert layer.fallbacks == 1
    assert layer.info[0].fell_back[0] == "jacobi"


def test_state_dict_deepcopy_autocast_and_func():
    layer = ParaLSTM(5, 8)
    other = ParaLSTM(5, 8)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(100, 2, 5)
    assert torch.equal(layer(x)[0], other(x)[0])
    assert torch.equal(layer(x)[0], copy.deepcopy(layer)(x)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = layer(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - layer(x)[0]).abs().max() < 3e-2
    y.float().sum().backward()
    params = {k: v.detach() for k, v in layer.named_parameters()}

    def loss(params, x):
        return torch.func.functional_call(layer, params, (x,))[0].square().sum()

    grads = torch.func.grad(loss)(params, x)
    layer.zero_grad()
    layer(x)[0].square().sum().backward()
    torch.testing.assert_close(grads["weight_hh_l0"], layer.weight_hh_l0.grad, rtol=1e-4, atol=1e-4)
    rows = torch.func.vmap(lambda x: layer(x)[0], in_dims=2, out_dims=2)(x[:, :1, None].expand(-1, -1, 2, -1))
    torch.testing.assert_close(rows[:, :, 0], layer(x[:, :1])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", ["float32", "half"])
@pytest.mark.parametrize("cls", LAYERS)
def test_every_layer_runs_under_autocast(cls, given, dtype):
    layer, x = cls(5, 8, num_layers=2, bidirectional=True), torch.randn(7, 2, 5)
    with torch.autocast("cpu", dtype=dtype):
        y, state = layer(x if given == "float32" else x.to(dtype))
        again, _ = layer(x, state)
    assert y.dtype == again.dtype == dtype
    expected = layer(x)[0]
    assert (y.float() - expected).abs().max() < 8 * torch.finfo(dtype).eps * expected.abs().max()
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.numel())


@pytest.mark.parametrize("cls", LAYERS)
def test_the_calls_of_torch_are_accepted(cls):
    layer, x = cls(5, 8, proj_size=0), torch.randn(7, 2, 5)
    layer.flatten_parameters()
    y, state = layer(x[:4])
    expected = layer(x[4:], state)[0]
    for found in (layer(input=x[4:], hx=state), layer(x[4:], hx=state), layer(x[4:], h_0=state)):
        assert torch.equal(found[0], expected)
    assert torch.equal(layer(x=x[:4])[0], y)


def test_compiles():
    script = (
        "import torch; from commutant.sequences import ParaGRU\n"
        "torch.manual_seed(0); layer = ParaGRU(4, 6); x = torch.randn(80, 2, 4, requires_grad=True)\n"
        "y = torch.compile(layer, backend='aot_eager')(x)[0]; torch.testing.assert_close(y, layer(x)[0])\n"
        "y.sum().backward(); g = x.grad.clone(); x.grad = None; layer(x)[0].sum().backward()\n"
        "torch.testing.assert_close(g, x.grad)\n"
    )
    done = warm.python(script)
    assert done.returncode == 0, done.stderr


def test_non_contiguous_input():
    layer = ParaGRU(4, 6)
    x = torch.randn(4, 90, 2).permute(1, 2, 0)
    torch.testing.assert_close(layer(x)[0], layer(x.contiguous())[0])


def test_lifted_cells_agree_with_their_loop():
    rnn = parallel_rnn(torch.nn.GRUCell(3, 4)).double()
    x = torch.randn(2, 200, 3, dtype=torch.float64)
    report = check_parallel(rnn, x)
    assert report.agrees, str(report)
    expected, _ = torch.nn.GRU(3, 4, batch_first=True), None
    expected.load_state_dict({f"{k}_l0": v for k, v in rnn.cell.state_dict().items()})
    torch.testing.assert_close(rnn(x)[0], expected.double()(x)[0])


def test_lyapunov_exponent_of_a_known_contraction():
    class Halve(torch.nn.Module):
        hidden_size = 3

        def forward(self, x, h):
            return 0.5 * h + x

    x = torch.randn(2, 50, 3)
    assert lyapunov_exponent(parallel_rnn(Halve()), x) == pytest.approx(-0.6931, abs=1e-3)
    assert lyapunov_exponent(ParaGRU(3, 4), x.transpose(0, 1)) < 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ParaGRU(0, 4), "input_size"),
        (lambda: ParaGRU(4, 4, dropout=2.0), "dropout"),
        (lambda: ParaGRU(4, 4, dropout="2"), "dropout must be a probability, got '2'"),
        (lambda: ParaGRU(4, 4.0), "hidden_size must be a whole number"),
        (lambda: ParaLSTM(4, 4, proj_size=2), "ParaLSTM does not project its state, got proj_size=2"),
        (lambda: SLSTM(4, 4, proj_size=2), "SLSTM does not project its state, got proj_size=2"),
        (lambda: ParaGRU(4, 4)(), "without input"),
        (lambda: ParaGRU(4, 4)(torch.randn(5, 2, 4), torch.zeros(1, 2, 4), h_0=torch.zeros(1, 2, 4)), "hx and h_0"),
        (lambda: ParaGRU(4, 4)(torch.randn(5, 2, 4), x=torch.randn(5, 2, 4)), "input and x"),
        (lambda: ParaGRU(4, 6, num_heads=4), "num_heads=4 must divide"),
        (lambda: ParaGRU(4, 6, 1, True, False, 0.0, False, "cpu"), "got 'cpu'; give device and dtype by name"),
        (lambda: ParaGRU(4, 6, num_heads=2.0), "num_heads must be a whole number of at least 1, got 2.0"),
        (lambda: ParaGRU(4, 6, method="magic"), "method must be one of"),
        (lambda: ParaGRU(4, 6, a_max=0.0), "a_max"),
        (lambda: ParaGRU(4, 6)(torch.randn(5, 2, 3)), "must have 4 features"),
        (lambda: ParaGRU(4, 6)(torch.ones(5, 2, 4, dtype=torch.long)), "floating point"),
        (lambda: ParaGRU(4, 6)(torch.randn(4)), "3 axes"),
        (lambda: ParaGRU(4, 6)(torch.randn(5, 2, 4), torch.zeros(1, 3, 6)), "state must be"),
        (lambda: ParaLSTM(4, 6)(torch.randn(5, 2, 4), torch.zeros(1, 2, 6)), "state must be 2"),
        (lambda: ParaGRU(4, 6)(torch.randn(5, 4), cu_seqlens=torch.tensor([0, 3])), "rise from 0 to 5"),
        (lambda: ParaGRU(4, 6)(torch.randn(5, 4), cu_seqlens=torch.tensor([0.0, 5.0])), "integers"),
        (lambda: ParaGRU(4, 6)(torch.randn(5, 1, 4), cu_seqlens=torch.tensor([0, 5])), "must be (total"),
        (lambda: ParaGRU(4, 6, bidirectional=True).step(torch.randn(2, 4)), "no step"),
        (lambda: ParaGRU(4, 6).step(torch.randn(2, 3)), "x must have shape (batch, 4)"),
        (lambda: parallel_rnn(torch.tanh), "torch.nn.Module"),
        (lambda: parallel_rnn(torch.nn.GRU), "the class GRU"),
        (lambda: parallel_rnn(ParaGRU), "the class ParaGRU"),
        (lambda: parallel_rnn(torch.nn.GRU(2, 2)), "GRU runs over whole sequences"),
        (lambda: parallel_rnn(torch.nn.LSTM(2, 2)), "LSTM runs over whole sequences"),
        (lambda: parallel_rnn(ParaGRU(2, 2)), "ParaGRU runs over whole sequences"),
        (lambda: parallel_rnn(RNNBlock(2, heads=1)), "RNNBlock runs over whole sequences"),
        (lambda: parallel_rnn(parallel_rnn(torch.nn.GRUCell(2, 2))), "ParallelCell runs over whole sequences"),
        (lambda: parallel_rnn(torch.nn.Linear(2, 2)), "cell must take (x_t, h), but Linear has too many positional"),
        (lambda: parallel_rnn(torch.nn.GRUCell(2, 2), method="magic"), "got 'magic'"),
        (lambda: parallel_rnn(torch.nn.GRUCell(2, 2), bound=0.0), "bound must be a positive number"),
        (lambda: check_parallel(torch.nn.GRU(2, 2), torch.randn(3, 2, 2)), "recurrent module"),
        (lambda: lyapunov_exponent(torch.nn.GRU(2, 2), torch.randn(3, 2, 2)), "recurrent module"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(call, said):
    with pytest.raises(InputError, match=re.escape(said)):
        call()


def test_autocast_under_transforms_and_second_derivatives():
    layer, x = ParaLSTM(3, 4), torch.randn(5, 2, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)[0]
        assert torch.func.grad(lambda x: layer(x)[0].float().sum())(x.detach()).isfinite().all()
    (gradient,) = torch.autograd.grad(y.float().sum(), x, create_graph=True)
    assert gradient.square().sum().requires_grad


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)])
def test_empty_input_goes_backward(shape):
    layer = ParaGRU(3, 4)
    layer(torch.randn(shape))[0].sum().backward()


def test_slstm_from_a_zero_state_stays_finite():
    x = 200 * torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0))
    state = tuple(torch.zeros(1, 2, 4) for _ in range(4))
    assert SLSTM(4, 4)(x, state)[0].isfinite().all()


@pytest.mark.usefixtures("unchecked")
def test_wrong_kinds_are_named():
    with pytest.raises(InputError, match=r"float64 but the layer's parameters are torch\.float32"):
        ParaGRU(3, 4)(torch.randn(5, 2, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="pair"):
        parallel_rnn(torch.nn.LSTMCell(3, 4))
    with pytest.raises(InputError, match="cu_seqlens must be a tensor"):
        ParaGRU(3, 4)(torch.randn(5, 3), cu_seqlens=[0, 5])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_named(unchecked):
    with pytest.raises(InputError, match="device='cuda' was given"):
        ParaGRU(3, 4, device="cuda")


@pytest.mark.parametrize("make", [ParaGRU, ParaLSTM])
def test_decoding_from_a_state_of_autocast(make):
    layer, x = make(3, 4), torch.randn(9, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole, _ = layer(x)
        first, state = layer(x[:8])
        last, _ = layer.step(x[8], state)
    assert last.dtype == whole.dtype == first.dtype
    torch.testing.assert_close(last.float(), whole[8].float(), atol=1e-2, rtol=0)
    layer.step(x[8], state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_keep_the_dtype_of_autocast(dtype):
    layer, x = ParaGRU(4, 4, num_heads=2), torch.randn(6, 2, 4)
    with torch.autocast("cpu", dtype=dtype):
        y, state = layer(x)
        y_t, _ = layer.step(x[0])
    assert y.dtype == state.dtype == y_t.dtype == dtype


@pytest.mark.parametrize("cls", LAYERS)
def test_shapes_without_memory(cls):
    """Run on the meta device, where tools count operations and plan memory."""
    layer, x = cls(5, 8, 2, bidirectional=True, device="meta"), torch.randn(7, 3, 5, device="meta")
    y, state = layer(x)
    expected, last = cls(5, 8, 2, bidirectional=True)(torch.randn(7, 3, 5))
    assert y.is_meta
    assert y.shape == expected.shape
    assert [part.shape for part in parts(state)] == [part.shape for part in parts(last)]
    assert cls(5, 8, device="meta").step(x[0])[0].shape == (3, 8)
