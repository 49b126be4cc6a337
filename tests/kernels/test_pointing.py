"""Additive scores in C against their formula: values, first and second derivatives, dtypes, transforms, memory."""

from __future__ import annotations

import pytest
import torch

from commutant import InputError
from commutant.kernels import AdditiveKeys, _native, _pointing, additive_scores, lstm_step


def drawn(batch=3, m=4, n=5, channels=37, dtype=torch.float32, scale=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((batch, m, channels), (batch, n, channels), (channels,))
    return [(scale * torch.randn(s, generator=g, dtype=torch.float64)).to(dtype).requires_grad_() for s in shapes]


def plain(q, k, w):
    return torch.tanh(q[:, :, None] + k[:, None]) @ w


def gradients(f, tensors, direction):
    return torch.autograd.grad(f(*tensors), tensors, direction.to(tensors[0].dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 4, 5, 37), (1, 1, 1, 1), (2, 7, 1, 16), (1, 1, 70, 65), (5, 3, 4, 128)])
def test_values_and_gradients_are_those_of_the_formula(shape, dtype):
    tensors = drawn(*shape, dtype=dtype)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    direction = torch.randn(shape[:3], dtype=torch.float64).to(dtype)
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 0.02}[dtype]
    value = additive_scores(*tensors)
    assert value.dtype == dtype
    assert torch.allclose(value.double(), plain(*exact), rtol=tolerance, atol=tolerance * shape[3] ** 0.5)
    ours, theirs = gradients(additive_scores, tensors, direction), gradients(plain, exact, direction.double())
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        assert torch.allclose(a.double(), b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("scale", [6.0, 15.0, 100.0, 1e4])
def test_large_arguments_do_not_overflow(scale):
    tensors = drawn(scale=scale)
    exact = plain(*(t.double() for t in tensors))
    value = additive_scores(*tensors)
    assert torch.allclose(value.double(), exact, rtol=1e-4, atol=2e-5 * scale * 37**0.5)
    assert all(bool(torch.isfinite(g).all()) for g in gradients(additive_scores, tensors, torch.ones(3, 4, 5)))


def test_both_implementations_run_and_agree(monkeypatch):
    tensors, direction = drawn(), torch.randn(3, 4, 5)
    assert _native.library() is not None
    assert _pointing._in_c(*tensors)
    assert _pointing._small(tensors[0])
    value, ours = additive_scores(*tensors), gradients(additive_scores, tensors, direction)
    monkeypatch.setattr(_pointing, "_in_c", lambda *tensors: False)
    monkeypatch.setattr(_pointing, "_PART", 600)  # several parts
    assert torch.allclose(additive_scores(*tensors), value, atol=1e-5)
    for a, b in zip(gradients(additive_scores, tensors, direction), ours, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1, 3000, 64), (1, 300, 3, 129), (7, 40, 30, 64)])
def test_threads_share_the_work_without_a_difference(threads, shape):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        tensors, direction = drawn(*shape), torch.randn(shape[:3])
        value, found = additive_scores(*tensors), gradients(additive_scores, tensors, direction)
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(value, plain(*tensors), atol=1e-4)
    for a, b in zip(found, gradients(plain, tensors, direction), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_prepared_keys_give_the_same_scores(dtype, scale):
    q, k, w = (t.detach() for t in drawn(2, 3, 4, 19, dtype, scale))
    prepared = AdditiveKeys(k, w)
    for queries in (q, 0 * q, q[:, :1], q[:, :0]):
        assert torch.equal(prepared.scores(queries), additive_scores(queries, k, w))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 37, 256])
def test_scores_of_wanted_pairs(channels, dtype):
    q, k, w = (t.detach() for t in drawn(batch=3, m=7, n=9, channels=channels, dtype=dtype))
    wanted = torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    found = AdditiveKeys(k, w).scores(q, wanted)
    assert bool((found[~wanted] == -torch.inf).all())
    torch.testing.assert_close(
        found[wanted], plain(q.double(), k.double(), w.double())[wanted].to(dtype), atol=1e-5, rtol=1e-5
    )
    for scale in (4, 8):  # near the ends of the ranges of both kernels
        wide = scale * q.clamp(-2, 2), scale * k.clamp(-2, 2)
        near = AdditiveKeys(wide[1], w).scores(wide[0], wanted)[wanted]
        exact = plain(*(t.double() for t in wide), w.double())[wanted].to(dtype)
        torch.testing.assert_close(near, exact, atol=1e-4, rtol=1e-5)
    far = AdditiveKeys(k, w).scores(1e4 * q, wanted)  # beyond the range of the kernel
    torch.testing.assert_close(far[wanted], plain(1e4 * q, k, w)[wanted], atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="wanted must hold booleans"):
        AdditiveKeys(k, w).scores(q, wanted[:, :3])
    with pytest.raises(InputError, match="wanted must hold booleans"):
        AdditiveKeys(k, w).scores(q, wanted.float())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("batch", "rows", "channels"), [(1, 1, 1), (3, 4, 37), (1, 2, 4000), (40, 11, 64), (0, 2, 3)])
def test_a_step_of_an_lstm_is_that_of_torch(batch, rows, channels, dtype, threads):
    g = torch.Generator().manual_seed(0)
    cell = torch.nn.LSTMCell(5, channels).to(dtype).requires_grad_(False)
    for parameter in cell.parameters():
        parameter.mul_(4)
    inputs, choice = torch.randn(batch, 7, 5, generator=g).to(dtype), torch.randint(7, (batch, rows), generator=g)
    h, c = (torch.randn(batch, rows, channels, generator=g).to(dtype) for _ in range(2))
    table = torch.nn.functional.linear(inputs, cell.weight_ih, cell.bias_ih + cell.bias_hh)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = lstm_step(table, choice, torch.nn.functional.linear(h, cell.weight_hh), c)
        if rows and batch:  # several rows may go on from one state
            parent = torch.randint(batch * rows, (batch, rows), generator=g)
            flat, other = h.flatten(0, 1), c.flatten(0, 1)
            shared = lstm_step(table, choice, torch.nn.functional.linear(flat, cell.weight_hh), other, parent)
            alone = lstm_step(table, choice, torch.nn.functional.linear(flat[parent], cell.weight_hh), other[parent])
            for ours, plain_ in zip(shared, alone, strict=True):
                torch.testing.assert_close(ours, plain_)
    finally:
        torch.set_num_threads(before)
    read = inputs.gather(1, choice[..., None].expand(-1, -1, 5))
    expected = cell(read.flatten(0, 1), (h.flatten(0, 1), c.flatten(0, 1)))
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 0.1}[dtype]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.flatten(0, 1), theirs, atol=tolerance, rtol=1e-5)


def test_second_derivatives():
    tensors = drawn(2, 2, 3, 4, torch.float64)
    assert torch.autograd.gradcheck(additive_scores, tensors)
    assert torch.autograd.gradgradcheck(additive_scores, tensors)
    single = drawn(2, 2, 3, 4)
    first = torch.autograd.grad(additive_scores(*single).square().sum(), single[0], create_graph=True)[0]
    other = torch.autograd.grad(plain(*single).square().sum(), single[0], create_graph=True)[0]
    ours, theirs = (torch.autograd.grad(g.square().sum(), single[1])[0] for g in (first, other))
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_transforms_of_torch_func():
    q, k, w = (t.detach() for t in drawn(2, 2, 3, 4))
    jacobian = torch.func.jacrev(lambda q: additive_scores(q, k, w))(q)
    assert torch.allclose(jacobian, torch.func.jacrev(lambda q: plain(q, k, w))(q), atol=1e-5)
    many = torch.vmap(additive_scores, (0, 0, None))(torch.stack([q, 2 * q]), torch.stack([k, k]), w)
    assert torch.allclose(many[1], plain(2 * q, k, w), atol=1e-5)
    _, tangent = torch.func.jvp(lambda q: additive_scores(q, k, w), (q,), (torch.ones_like(q),))
    _, expected = torch.func.jvp(lambda q: plain(q, k, w), (q,), (torch.ones_like(q),))
    assert torch.allclose(tangent, expected, atol=1e-5)


def test_the_operator_passes_torchs_own_checks():
    torch.library.opcheck(torch.ops.commutant.additive_scores, drawn(2, 3, 4, 5))


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4)])
def test_empty(shape):
    tensors = drawn(*shape)
    value = additive_scores(*tensors)
    assert value.shape == shape[:3]
    value.sum().backward()
    assert tensors[2].grad.shape == (4,)


def test_nan_stays_in_its_row():
    tensors = drawn()
    with torch.no_grad():
        tensors[0][1, 2] = torch.nan
    value = additive_scores(*tensors)
    assert bool(value[1, 2].isnan().all())
    assert int(value.isnan().sum()) == 5


def test_memory_is_that_of_inputs_and_scores():
    """What autograd keeps has no axis for queries, keys and channels together."""
    kept = []
    tensors = drawn(2, 30, 40, 64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        additive_scores(*tensors).sum().backward()
    assert sum(kept) <= 2 * 64 * (30 + 40) + 64


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3, 8), (4, 5, 8), (8,)),
        ((2, 3, 8), (1, 5, 8), (8,)),
        ((1, 2, 8), (1, 2, 4), (8,)),
        ((1, 2, 8), (1, 2, 8), (4,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(InputError, match="must fit together"):
        additive_scores(*(torch.randn(s) for s in shapes))


@pytest.mark.parametrize("shapes", [((4, 3, 8), (1, 5, 8)), ((2, 3, 4), (2, 5, 8))])
def test_prepared_keys_refuse_queries_that_do_not_fit(shapes):
    prepared = AdditiveKeys(torch.randn(shapes[1]), torch.randn(8))
    with pytest.raises(InputError, match="must fit together"):
        prepared.scores(torch.randn(shapes[0]))


@pytest.mark.parametrize(
    ("table", "choice", "product", "message"),
    [
        ((2, 7, 12), torch.full((2, 4), 7), (2, 4, 12), r"int64 in 0\.\.6"),
        ((2, 7, 12), torch.full((2, 4), -1), (2, 4, 12), r"int64 in 0\.\.6"),
        ((2, 7, 12), torch.zeros(2, 4, dtype=torch.int32), (2, 4, 12), "must be int64"),
        ((1, 7, 12), torch.zeros(2, 4, dtype=torch.int64), (2, 4, 12), "must fit old"),
        ((2, 7, 11), torch.zeros(2, 4, dtype=torch.int64), (2, 4, 12), "must fit old"),
        ((2, 7, 12), torch.zeros(2, 4, dtype=torch.int64), (2, 3, 12), "must fit old"),
    ],
)
def test_a_step_refuses_what_lies_beyond_its_table(table, choice, product, message):
    with pytest.raises(InputError, match=message):
        lstm_step(torch.randn(table), choice, torch.randn(product), torch.randn(2, 4, 3))


def test_the_default_dtype_has_no_influence():
    """Buffers of the kernels have the dtype of the data."""
    tensors, direction = drawn(), torch.randn(3, 4, 5)
    table, product, old = torch.randn(2, 7, 12), torch.randn(2, 4, 12), torch.randn(2, 4, 3)
    choice = torch.zeros(2, 4, dtype=torch.int64)
    expected = gradients(additive_scores, tensors, direction), lstm_step(table, choice, product, old)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = gradients(additive_scores, tensors, direction), lstm_step(table, choice, product, old)
    finally:
        torch.set_default_dtype(before)
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype == torch.float32
            assert torch.equal(a, b)
