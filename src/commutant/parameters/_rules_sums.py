"""Rules of operators that sum over products: linear maps, convolutions, attention, recurrences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ._axes import Axis, Invariant, direct_sum, product
from ._walk import Labels, Op, Stacked, fixed, rule


@rule("linear")
def linear(op: Op) -> Any:
    """Contract the last axis of the input with the last axis of the weight."""
    x, weight = op.axes("input"), op.axes("weight")
    op.contract(x[-1], weight[-1])
    if len(weight) == 1:
        return x[:-1]
    (out,) = op.spread([[weight[0]], op.axes("bias")], [weight[0].size])
    return [*x[:-1], out]


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot", "addmm", "baddbmm", "addmv", "inner")
def matmul(op: Op) -> Any:
    """Contract the last axis of the first factor with the second to last axis of the second."""
    first, second = next(pair for pair in (("mat1", "mat2"), ("batch1", "batch2"), ("mat", "vec"), ("self", "vec"),
                                           ("self", "mat2"), ("self", "tensor"), ("self", "other"))
                         if op[pair[0]] is not None and op[pair[1]] is not None)  # fmt: skip
    x, y = op.axes(first), op.axes(second)
    if op.name == "aten.inner":
        y = [*y[:-2], y[-1], y[-2]] if len(y) > 1 else y
    op.contract(x[-1], y[-2] if len(y) > 1 else y[0])
    lead = op.spread([x[:-2], y[:-2]], op.shape[: max(len(x), len(y)) - 2])
    result = [*lead, *x[-2:-1], *(y[-1:] if len(y) > 1 else [])]
    if op.name in ("aten.addmm", "aten.baddbmm", "aten.addmv"):
        result = op.spread([result, op.axes("self")], op.shape)
    return result


@rule("bilinear")
def bilinear(op: Op) -> Any:
    """Contract the channels of two inputs with one weight."""
    x, y, weight = op.axes("input1"), op.axes("input2"), op.axes("weight")
    lead = op.spread([x[:-1], y[:-1]], op.shape[:-1])
    (out,) = op.spread([[weight[0]], op.axes("bias")], [weight[0].size])
    for axis, own in ((x[-1], weight[1]), (y[-1], weight[2])):
        op.contract(axis, own)
        op.events.summed_next_to.append((own, (weight[1], weight[2], out, *lead)))
    return [*lead, out]


@rule("cdist", "_cdist_forward", "_euclidean_dist")
def distances(op: Op) -> Any:
    """Label the distances between all pairs of rows, which are symmetric in the channels."""
    x, y = op.axes("x1"), op.axes("x2")
    op.contract(x[-1], y[-1])
    return [*op.spread([x[:-2], y[:-2]], op.shape[:-2]), x[-2], y[-2]]


@rule("cosine_similarity", "pairwise_distance")
def similarity(op: Op) -> Any:
    """Label the similarities of two rows, which are symmetric in the channels."""
    x, y = op.axes("x1"), op.axes("x2")
    shape = torch.broadcast_shapes(*([axis.size for axis in axes] for axes in (x, y)))
    axes = op.spread([x, y], shape)
    dim = (-1 if op["dim"] is None else op["dim"]) % len(axes)
    op.contract(axes[dim], axes[dim])
    return [Invariant(1) if i == dim else axis for i, axis in enumerate(axes) if i != dim or op["keepdim"]]


@rule("_grouped_mm", "transformers.grouped_mm_fallback")
def grouped_matmul(op: Op) -> Any:
    """Label products of stretches of rows with one matrix each; the order of the matrices is fixed."""
    x, weight = op.axes("self") or op.axes("input"), op.axes("mat2") or op.axes("weight")
    if len(x) != 2 or len(weight) != 3 or op["bias"] is not None:
        raise NotImplementedError
    for axis in (x[0], weight[0], *op.axes("offs")):
        op.freeze(axis)
    op.contract(x[1], weight[1])
    return [x[0], weight[2]]


@rule("outer", "ger")
def outer(op: Op) -> Any:
    """Label the products of all pairs of entries."""
    return [*op.axes("self"), *(op.axes("vec2"))]


def spelled_out(equation: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """Return the terms and the result of an einsum with a letter for every axis, implicit ones included."""
    left, arrow, result = equation.replace(" ", "").replace("...", ".").partition("->")
    if not arrow:
        result = "." + "".join(sorted(c for c in set(left) - set(".,") if left.count(c) == 1))
    hidden = [chr(0x100 + i) for i in range(64)]
    counts = [n - len(t) + 1 if "." in t else 0 for t, n in zip(left.split(","), ndims, strict=True)]
    terms = [t.replace(".", "".join(hidden[64 - n :])) for t, n in zip(left.split(","), counts, strict=True)]
    return terms, result.replace(".", "".join(hidden[64 - max(counts) :]))


@rule("tensordot")
def tensordot(op: Op) -> Any:
    """Contract pairs of axes of two tensors."""
    x, y = op.axes("self"), op.axes("other")
    pairs = [(a % len(x), b % len(y)) for a, b in zip(op["dims_self"], op["dims_other"], strict=True)]
    left = [axis for i, axis in enumerate(x) if i not in [a for a, _ in pairs]]
    right = [axis for i, axis in enumerate(y) if i not in [b for _, b in pairs]]
    for a, b in pairs:
        op.contract(x[a], y[b])
        op.events.summed_next_to.append((x[a], (*x, *right)))
    return [*left, *right]


@rule("einsum")
def einsum(op: Op) -> Any:
    """Tie axes with the same letter; contract letters that the result lacks."""
    tensors = op.tensors("tensors")
    terms, result = spelled_out(op["equation"], [len(axes) for axes in tensors])
    found: dict[str, Axis] = {}
    own: dict[str, list[Axis]] = {}
    for term, axes in zip(terms, tensors, strict=True):
        for letter, axis in zip(term, axes, strict=True):
            known = found.get(letter)
            own.setdefault(letter, []).append(axis)
            if known is None or isinstance(known, Invariant):
                found[letter] = axis
            elif known.size == axis.size:
                op.tie(known, axis)
            elif known.size == 1:
                found[letter] = axis
    for letter in set(found) - set(result):
        for axis in own[letter]:
            if axis.size == found[letter].size:
                op.contract(found[letter], axis)
        op.events.summed_next_to.append((found[letter], tuple(found.values())))
    return [found[letter] for letter in result]


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
def convolution(op: Op) -> Any:
    """Contract the channels, within groups if the convolution is grouped, and pin the windows."""
    x, weight, bias = op.axes("input"), op.axes("weight"), op.axes("bias")
    transposed = "transpose" in op.name or bool(op["transposed"])
    inner, outer = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    count = len(weight) - 2
    channel = len(x) - count - 1
    groups = op["groups"]
    if groups == 1:
        op.contract(x[channel], inner)
        out = outer
    else:
        group = Axis(groups)
        into, out_of = Axis(x[channel].size // groups), Axis(op.shape[channel] // groups)
        op.tie(x[channel], product([group, into]))
        if transposed:
            op.tie(weight[0], product([group, into]))
            op.tie(weight[1], out_of)
            out = product([group, out_of])
            op.contract(into, into)
        else:
            op.contract(into, weight[1])
            op.tie(weight[0], product([group, out_of]))
            out = weight[0]
    (out,) = op.spread([[out], bias], [op.shape[channel]])
    spatial = []
    for k in range(count):
        axis = x[channel + 1 + k]
        if weight[2 + k].size == 1 and axis.size == op.shape[channel + 1 + k] and not _moves(op, k):
            spatial.append(axis)
        else:
            op.freeze(weight[2 + k])
            spatial.append(op.pin(axis, op.shape[channel + 1 + k]))
    return [*x[:channel], out, *spatial]


def _moves(op: Op, k: int) -> bool:
    """Return whether a window of size one has a stride or padding."""

    def at(value: Any) -> Any:
        return value[k if len(value) > 1 else 0] if isinstance(value, list | tuple) and value else value

    return at(op["stride"]) not in (None, 1) or at(op["padding"]) not in (None, 0, "same", "valid")


@rule("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu",
      "_scaled_dot_product_attention_math",
      "_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention")  # fmt: skip
def attention(op: Op) -> Any:
    """Contract the channels of queries with keys, and the positions of keys with values."""
    q, k, v = op.axes("query"), op.axes("key"), op.axes("value")
    op.contract(q[-1], k[-1])
    op.mix(k[-2])
    op.contract(k[-2], v[-2])
    if len(q) > 2 and k[-3].size not in (1, q[-3].size):
        (shared,) = op.spread([[k[-3]], [v[-3]]], [k[-3].size])
        shared = Axis(shared.size) if isinstance(shared, Invariant) else shared
        each = product([shared, Axis(q[-3].size // k[-3].size)])
        heads = op.spread([[q[-3]], [each]], [q[-3].size])
        lead = [*op.spread([q[:-3], k[:-3], v[:-3]], op.shape[:-3]), *heads]
    else:
        lead = op.spread([q[:-2], k[:-2], v[:-2]], op.shape[:-2])
    mask = op.axes("attn_mask") or op.axes("attn_bias")
    scores = op.spread([[*lead, q[-2], k[-2]], mask], [*op.shape[:-1], k[-2].size])
    if op["is_causal"]:
        for axis in (q[-2], k[-2], v[-2], scores[-1]):
            op.freeze(axis)
        scores[-2] = op.pin(scores[-2])
    result = [*scores[:-1], v[-1]]
    others = [None if s is None else [fixed(n, op.name) for n in s] for s in op.shapes[1:]]
    return (result, *others) if others else result


@rule("commutant.recurrence")
def diagonal_recurrence(op: Op) -> Any:
    """Tie the channels of inputs, weights and states; time is pinned."""
    pre, weights, state = op.axes("pre"), op.axes("weights"), op.axes("h0")
    channel = op.spread([pre[-1:], weights[-1:], state[-1:]], op.shape[-1:])
    time, batch, slots = op.pin(pre[0]), op.spread([pre[1:2], state[:1]], op.shape[1:2]), op.shape[2:-1]
    for axis in (pre[2], weights[0], *state[1:-1]):
        op.freeze(axis)
    certificate = [fixed(n, op.name) for n in op.shapes[1] or ()]
    return [time, *batch, *[fixed(n, op.name) for n in slots], *channel], certificate


GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
CELLS = {"lstm_cell": 4, "gru_cell": 3, "rnn_tanh_cell": 1, "rnn_relu_cell": 1}


@rule(*CELLS)
def cell(op: Op) -> Any:
    """Label one step of a recurrent layer, in which every gate has a copy of the hidden axis."""
    x = op.axes("input")
    states = op.tensors("hx") if isinstance(op["hx"], list | tuple) else [op.axes("hx")]
    hidden = Axis(op.shape[-1])
    stacked = direct_sum([hidden] * CELLS[op.name.removeprefix("aten.")])
    op.contract(x[-1], op.axes("w_ih")[1])
    op.contract(states[0][-1], op.axes("w_hh")[1])
    for rows in (op.axes(name)[:1] for name in ("w_ih", "w_hh", "b_ih", "b_hh")):
        for axis in rows:
            op.tie(axis, stacked)
    if op.name in ("aten.gru_cell", "aten.lstm_cell"):  # the last state is also read channel by channel
        op.tie(states[-1][-1], hidden)
    result = [*op.spread([x[:-1], *(held[:-1] for held in states)], op.shape[:-1]), hidden]
    return (result,) * len(op.shapes) if len(op.shapes) > 1 else result


@rule(*GATES)
def recurrent(op: Op) -> Any:
    """Label a recurrent layer, in which every gate and the state have a copy of the hidden axis."""
    if op["batch_sizes"] is not None or op["data"] is not None:
        raise NotImplementedError
    gates = GATES[op.name.removeprefix("aten.")]
    x = op.axes("input")
    states = op.tensors("hx") if isinstance(op["hx"], list | tuple) else [op.axes("hx")]
    batch_first, ways = bool(op["batch_first"]), 2 if op["bidirectional"] else 1
    time = (1 if batch_first else 0) if len(x) == 3 else 0
    x[time] = op.pin(x[time])
    batch = 1 - time
    if len(x) == 3:
        (x[batch],) = op.spread([[x[batch]], *[[held[1]] for held in states]], [x[batch].size])
    for held in states:
        op.freeze(held[0])  # layers and directions have a fixed order
    weights = iter(op.tensors("params"))
    feed, finals = x[-1], []
    for _ in range(op["num_layers"]):
        outputs = []
        for _ in range(ways):
            w_ih, w_hh = next(weights), next(weights)
            biases = [next(weights), next(weights)] if op["has_biases"] else []
            projection = next(weights) if gates == 4 and w_hh[1].size * gates != w_hh[0].size else None
            hidden = Axis(w_hh[0].size // gates)
            state = projection[0] if projection else hidden
            stacked = direct_sum([hidden] * gates)
            op.contract(feed, w_ih[1])
            op.contract(state, w_hh[1])
            for rows in (w_ih[0], w_hh[0], *[b[0] for b in biases]):
                op.tie(rows, stacked)
            if projection:
                op.contract(projection[1], hidden)
            outputs.append(state)
            finals.append((state, hidden))
            for held, own in zip(states, (state, hidden), strict=False):
                op.tie(held[-1], own)
        feed = direct_sum(outputs)
    last = [[own[0] for own in finals], [own[1] for own in finals]][: len(op.shapes) - 1]
    lead = [x[0]] if len(x) == 3 and batch_first else [x[1]] if len(x) == 3 else []
    ends = [Stacked(0, tuple((Invariant(1), *lead, axis) for axis in axes)) for axes in last]
    return (Labels((*x[:-1], feed)), *[end if len(end.parts) > 1 else Labels(end.parts[0]) for end in ends])
