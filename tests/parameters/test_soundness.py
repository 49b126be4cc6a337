"""Networks built to fool the derivation: all groups that it finds, verified or not, must hold."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Net, p
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec

L = nn.Linear


def x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def learned_state(m, i):
    return m.b(m.r(i, m.h0)[0])


def expanded_state(m, i):
    return m.b(m.r(i, m.h0.expand(-1, 3, -1).contiguous())[0])


def batch_of_units(m, i):
    h, _ = m.r(m.a(i).view(5, 6, 4), m.h0)
    return m.b(h.transpose(1, 2).reshape(15, 6)).view(5, -1)


def repeated_over_time(m, i):
    return m.b(m.r(m.a(i).unsqueeze(1).expand(-1, 5, -1))[0].flatten(1))


def causal_constant_queries(m, i):
    q = i[:, None].expand(-1, 5, -1)
    return F.scaled_dot_product_attention(q, torch.ones(3, 5, 4).to(i), m.v.expand(3, 5, 4), is_causal=True)


def grouped_constant_queries(m, i):
    q = i[:, None, None, :].expand(3, 4, 2, 4)
    k, v = m.k.expand(3, 2, 5, 4), m.v.expand(3, 2, 5, 6)
    return m.b(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).flatten(1))


def grouped_constant_keys(m, i):
    q = m.q(i).view(3, 4, 2, 4)
    k = i[:, None, None, :].expand(3, 2, 5, 4) + 0
    return m.b(F.scaled_dot_product_attention(q, k, m.v.expand(3, 2, 5, 6), enable_gqa=True).flatten(1))


def slopes_of_a_constant(m, i):
    return m.b(m.p(i.mean(-1, keepdim=True).expand(-1, 6)))


def ties_of_relu(m, i):
    return m.w[torch.relu(m.a(i) - 3).argmax(-1)]


def ties_of_a_comparison(m, i):
    return m.w[(m.a(i) > 0).to(i).argmax(-1)]


def ties_of_max(m, i):
    h = m.a(i).relu()
    return m.b(h) + m.w[h.max(-1).indices]


def first_of_equals(m, i):
    return m.w[i.mean(-1, keepdim=True).expand(-1, 5).argmax(-1)]


def positions_in_a_view(m, i):
    h = m.a(i)
    return m.b(h) + m.w[h.topk(6, -1).indices.view(3, 2, 3)[:, 0]].sum(1)


def scatter_to_the_first(m, i):
    return m.a(i).t().scatter(1, torch.tensor([[0, 1]]), torch.ones(1, 2).to(i)).t() @ m.w


def gather_of_fewer(m, i):
    where = m.a(i).view(3, 3, 4).argmax(2)
    return m.c(i).view(3, 4, 5).gather(1, where[:, None, :]).sum((1, 2))


def scatter_of_fewer(m, i):
    zeros, where = torch.zeros(3, 4, 5).to(i), torch.zeros(3, 1, 3, dtype=torch.long)
    return m.b(zeros.scatter(1, where, m.a(i).view(3, 1, 3)).flatten(1))


def the_last_write_stays(m, i):
    where = m.a(i).view(3, 8, 4).argmax(-1)
    return m.b(torch.zeros(3, 4).to(i).scatter(1, where, m.s(i)))


def the_last_copy_stays(m, i):
    where = m.a(i).view(3, 8, 4).argmax(-1)
    return m.b(torch.zeros(3, 4).to(i).index_copy(1, where[0], m.s(i)))


def differences_from(m, i):
    return m.b(torch.diff(m.a(i), dim=1, prepend=m.c(i)).flatten(1))


def two_heads_at_once(m, i):
    h = m.a(i).view(3, 4, 5)
    return torch.einsum("bhd,cgd->bc", h, h)


def two_heads_one_left(m, i):
    h = m.a(i).view(3, 4, 5)
    return m.b(torch.einsum("bhd,bgd->bg", h, h))


def norm_over_space(m, i):
    return m.b(F.group_norm(m.a(i).view(3, 5, 6).transpose(1, 2), 3).flatten(1))


def instance_norm_over_space(m, i):
    return m.b(F.instance_norm(m.a(i).view(3, 5, 6).transpose(1, 2)).flatten(1))


def batch_norm_over_space(m, i):
    return m.b(F.batch_norm(m.a(i).view(3, 5, 6).transpose(1, 2), None, None, training=True).flatten(1))


def positions_of_a_larger_table(m, i):
    return m.e(m.a(i).argmax(-1)) + m.b(m.a(i))


def uneven_split(m, i):
    u, _, v = torch.tensor_split(m.a(i), (5, 2), dim=1)
    return m.b(u) + m.c(v)


def nested_sums(m, i):
    return m.b(m.a(i).view(3, 2, 5).repeat(1, 1, 2).unsqueeze(-1).expand(-1, -1, -1, 3).flatten(1))


def nothing_in_an_axis(m, i):
    return m.w.view(2, 0, 3).transpose(0, 1).reshape(0, 6).sum() + m.b(m.a(i))


def a_number_that_was_read(m, i):
    h = torch.tanh(m.a(i))
    return m.b(h) * (float(h[0, 0].detach()) if h.sum() > -1e9 else 0.0)


def a_comparison_of_units(m, i):
    h = torch.tanh(m.a(i))
    return m.b(h) if h[0, 0] > h[0, 1] else 2 * m.b(h)


def same_storage_twice():
    w = torch.randn(4, 4)
    return Net(lambda m, i: torch.tanh(i @ m.w.t()) @ m.v.t(), w=nn.Parameter(w), v=nn.Parameter(w))


CASES = {
    learned_state: (lambda: {"r": nn.RNN(4, 6, 2), "b": L(6, 2), "h0": p(2, 3, 6)}, (5, 3, 4)),
    expanded_state: (lambda: {"r": nn.GRU(4, 6, 2), "b": L(6, 2), "h0": p(2, 1, 6)}, (5, 3, 4)),
    batch_of_units: (lambda: {"a": L(3, 24), "r": nn.RNN(4, 3), "b": L(6, 2), "h0": p(1, 6, 3)}, (5, 3)),
    repeated_over_time: (lambda: {"a": L(4, 6), "r": nn.LSTM(6, 7, batch_first=True), "b": L(35, 2)}, (3, 4)),
    causal_constant_queries: (lambda: {"v": p(1, 5, 4)}, (3, 4)),
    grouped_constant_queries: (lambda: {"k": p(1, 2, 5, 4), "v": p(1, 2, 5, 6), "b": L(48, 2)}, (3, 4)),
    grouped_constant_keys: (lambda: {"q": L(4, 32), "v": p(1, 2, 5, 6), "b": L(48, 2)}, (3, 4)),
    slopes_of_a_constant: (lambda: {"p": nn.PReLU(6), "b": L(6, 2)}, (30, 4)),
    ties_of_relu: (lambda: {"a": L(4, 5), "w": p(5, 2)}, (9, 4)),
    ties_of_a_comparison: (lambda: {"a": L(4, 6), "w": p(6, 2)}, (9, 4)),
    ties_of_max: (lambda: {"a": L(4, 6), "b": L(6, 2), "w": p(6, 2)}, (30, 4)),
    first_of_equals: (lambda: {"w": p(5, 2)}, (3, 4)),
    positions_in_a_view: (lambda: {"a": L(4, 7), "b": L(7, 2), "w": p(7, 2)}, (3, 4)),
    scatter_to_the_first: (lambda: {"a": L(4, 6), "w": p(6, 2)}, (3, 4)),
    gather_of_fewer: (lambda: {"a": L(4, 12), "c": L(4, 20)}, (3, 4)),
    scatter_of_fewer: (lambda: {"a": L(4, 3), "b": L(20, 2)}, (3, 4)),
    the_last_write_stays: (lambda: {"a": L(4, 32), "s": L(4, 8), "b": L(4, 2)}, (3, 4)),
    the_last_copy_stays: (lambda: {"a": L(4, 32), "s": L(4, 8), "b": L(4, 2)}, (3, 4)),
    differences_from: (lambda: {"a": L(4, 6), "c": L(4, 6), "b": L(18, 2)}, (3, 2, 4)),
    two_heads_at_once: (lambda: {"a": L(4, 20)}, (3, 4)),
    two_heads_one_left: (lambda: {"a": L(4, 20), "b": L(4, 2)}, (3, 4)),
    norm_over_space: (lambda: {"a": L(4, 30), "b": L(30, 2)}, (3, 4)),
    instance_norm_over_space: (lambda: {"a": L(4, 30), "b": L(30, 2)}, (3, 4)),
    batch_norm_over_space: (lambda: {"a": L(4, 30), "b": L(30, 2)}, (3, 4)),
    positions_of_a_larger_table: (lambda: {"a": L(4, 6), "e": nn.Embedding(10, 2), "b": L(6, 2)}, (3, 4)),
    uneven_split: (lambda: {"a": L(4, 6), "b": L(5, 2), "c": L(4, 2)}, (3, 4)),
    nested_sums: (lambda: {"a": L(4, 10), "b": L(60, 2)}, (3, 4)),
    nothing_in_an_axis: (lambda: {"w": p(0, 3, 2), "a": L(4, 6), "b": L(6, 2)}, (3, 4)),
    a_number_that_was_read: (lambda: {"a": L(4, 6), "b": L(6, 2)}, (3, 4)),
    a_comparison_of_units: (lambda: {"a": L(4, 6), "b": L(6, 2)}, (3, 4)),
}  # fmt: skip


def holds(model, example, draws=6):
    spec = PermutationSpec.from_module(model, example, verify=False)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    inputs = tuple(e.double() for e in example)
    before = model(*inputs)
    for seed in range(draws):
        drawn = Permutation.random(spec, torch.Generator().manual_seed(seed))
        for groups in (*[[g] for g in spec.sizes], list(spec.sizes)):
            moved = Permutation(spec, {g: drawn.tables[g] for g in groups}).apply(model)
            torch.testing.assert_close(moved(*inputs), before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("forward", CASES, ids=lambda f: f.__name__)
def test_what_is_found_holds(forward, deep):
    parts, shape = CASES[forward]
    holds(Net(forward, **parts()), (x(*shape),), draws=6 if deep else 2)


def test_two_parameters_in_one_place_are_one():
    holds(same_storage_twice(), (x(3, 4),))


def test_numpy_and_objects_are_refused():
    def numpy(m, i):
        h = torch.tanh(m.a(i))
        return m.b(h) + m.c(torch.from_numpy(np.sin(h.detach().numpy())))

    class Box:
        def __init__(self, value):
            self.value = value

    parts = {"a": L(4, 6), "b": L(6, 2), "c": L(6, 2)}
    with pytest.raises(InputError, match="hands tensors to NumPy"):
        PermutationSpec.from_module(Net(numpy, **parts), x(3, 4))
    with pytest.raises(InputError, match="the output holds a Box"):
        PermutationSpec.from_module(Net(lambda m, i: (m.b(m.a(i)), Box(m.a(i))), **parts), x(3, 4))


def test_nothing_of_the_user_changes():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = L(4, 6), L(6, 2)
            self.register_buffer("n", torch.zeros(6))

        def forward(self, i):
            i.mul_(2)
            h = torch.tanh(self.a(i))
            self.n.add_(h.mean(0).detach())
            return self.b(h) if h.sum() > 0 else self.b(-h)

    model, example = Counter(), x(3, 4)
    kept = example.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PermutationSpec.from_module(model, example, verify=False)
    assert torch.equal(model.n, torch.zeros(6))
    assert torch.equal(example, kept)


def test_what_can_not_be_verified_is_said():
    with pytest.warns(UserWarning, match="returns no finite number"):
        spec = PermutationSpec.from_module(Net(lambda m, i: m.b((m.a(i) - 100).log()), a=L(4, 6), b=L(6, 2)), x(3, 4))
    assert spec.error is None

    def branches(m, i):
        h = torch.tanh(m.a(i))
        return m.b(torch.cond(i.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (h,)))

    found = PermutationSpec.from_module(Net(branches, a=L(4, 6), b=L(6, 2)), x(3, 4))
    assert found.sizes == {}


def test_random_stacks_of_operators_hold(deep):
    """Check thirty networks of five random operators each on three axes."""
    steps = [
        lambda h: h.relu(), lambda h: h.transpose(1, 2), lambda h: torch.cat([h, h.tanh()], 2), lambda h: h.softmax(1),
        lambda h: h - h.mean(2, keepdim=True), lambda h: h @ h.transpose(1, 2), lambda h: h.cumsum(1).flip(2),
        lambda h: h.repeat(1, 2, 1), lambda h: F.layer_norm(h, h.shape[2:]), lambda h: h.chunk(2, 1)[0],
        lambda h: h.flatten(1).view(h.shape), lambda h: h.sort(1).values, lambda h: F.pad(h, (0, 1)),
        lambda h: h * h.amax(1, keepdim=True), lambda h: h.unsqueeze(1).expand(-1, 2, -1, -1).flatten(1, 2),
        lambda h: torch.einsum("bij,bkj->bik", h, h.sin()),
    ]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for _ in range(30 if deep else 8):
        chosen = [steps[int(i)] for i in torch.randint(len(steps), (5,), generator=generator)]

        def run(m, i, chosen=chosen):
            h = m.a(i).view(i.shape[0], 4, 3)
            for step in chosen:
                h = step(h) / (1 + h.abs().mean())
            return h

        width = run(Net(run, a=L(4, 12)), x(3, 4)).flatten(1).shape[1]
        holds(
            Net(lambda m, i, run=run: m.b(run(m, i).flatten(1)), a=L(4, 12), b=L(width, 2)),
            (x(3, 4),),
            draws=6 if deep else 2,
        )
