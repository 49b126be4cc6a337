"""Triton kernels of recurrences with one number per channel as state: GRU, minGRU, minLSTM, SRU.

One program solves a block of channels. Time is the leading axis of pre-activations `(time, batch, gates, channels)` and
states `(time, batch, channels)`. All arithmetic is in float32, whatever the storage.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """Return tanh, by an odd polynomial near zero, where the quotient would lose relative accuracy."""
    z = x * x
    p = -5.70498872745e-3 * z + 2.06390887954e-2
    p = p * z - 5.37397155531e-2
    p = p * z + 1.33314422036e-1
    p = p * z - 3.33332819422e-1
    return tl.where(z < 0.390625, p * z * x + x, 2 * tl.sigmoid(2 * x) - 1)


@triton.jit
def weights(logit):
    """Return a gate's weight and its complement, both with full relative accuracy even if the other is almost 1."""
    e = tl.exp(-tl.abs(logit))
    small, large = e / (1 + e), 1 / (1 + e)
    return tl.where(logit < 0, small, large), tl.where(logit < 0, large, small)


@triton.jit
def blend(old, fresh, keep, add):
    """Return keep * old + add * fresh, as a step from the term of larger weight, which is exact for equal terms."""
    return tl.where(keep < add, fresh + keep * (old - fresh), old + add * (fresh - old))


@triton.jit
def _log_sigmoid(x):
    return tl.minimum(x, 0.0) - tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
def _positive(x):
    return tl.where(x >= 0, x + 0.5, tl.sigmoid(x))


@triton.jit
def _positive_slope(x):
    s = tl.sigmoid(x)
    return tl.where(x >= 0, 1.0, s * (1 - s))


@triton.jit
def _step(CELL: tl.constexpr, h, x0, x1, x2, a0, a1, a2):
    """Return the next state and its derivative with respect to the state."""
    if CELL == "gru":
        z, keep = weights(a0 * h + x0)
        r = tl.sigmoid(a1 * h + x1)
        c = tanh(a2 * (h * r) + x2)
        new = blend(h, c, keep, z)
        slope = keep + (c - h) * z * keep * a0 + z * (1 - c * c) * a2 * (r + h * r * (1 - r) * a1)
    elif CELL == "mingru":
        z, keep = weights(x0)
        new, slope = blend(h, _positive(x1), keep, z), keep + 0 * h
    elif CELL == "minlstm":
        keep, add = weights(_log_sigmoid(x0) - _log_sigmoid(x1))
        new, slope = blend(h, _positive(x2), keep, add), keep + 0 * h
    else:
        f, add = weights(a0 * h + x1)
        new, slope = blend(h, x0, f, add), f + (h - x0) * f * add * a0
    return new, slope


@triton.jit
def _pull(CELL: tl.constexpr, lam, h, x0, x1, x2, a0, a1, a2):
    """Return the gradients of inputs, weights and state from the gradient of the next state."""
    zero = 0 * lam
    d2, w0, w1, w2 = zero, zero, zero, zero
    if CELL == "gru":
        z, keep = weights(a0 * h + x0)
        r = tl.sigmoid(a1 * h + x1)
        c = tanh(a2 * (h * r) + x2)
        d2 = lam * z * (1 - c * c)
        d0 = lam * (c - h) * z * keep
        d1 = d2 * a2 * h * r * (1 - r)
        w0, w1, w2 = d0 * h, d1 * h, d2 * h * r
        back = lam * keep + d0 * a0 + d1 * a1 + d2 * a2 * r
    elif CELL == "mingru":
        z, keep = weights(x0)
        d0 = lam * (_positive(x1) - h) * z * keep
        d1 = lam * z * _positive_slope(x1)
        back = lam * keep
    elif CELL == "minlstm":
        keep, add = weights(_log_sigmoid(x0) - _log_sigmoid(x1))
        through = lam * (h - _positive(x2)) * keep * add
        d0, d1 = through * tl.sigmoid(-x0), -through * tl.sigmoid(-x1)
        d2 = lam * add * _positive_slope(x2)
        back = lam * keep
    else:
        f, add = weights(a0 * h + x1)
        d0 = lam * add
        d1 = lam * (h - x0) * f * add
        w0 = d1 * h
        back = lam * f + d1 * a0
    return d0, d1, d2, w0, w1, w2, back


@triton.jit
def times(a, b):
    """Return a product that is zero if b is zero, even where a has overflowed."""
    return tl.where(b == 0, 0.0, a * b)


@triton.jit
def affine(a1, b1, a2, b2):
    """Return the composition of two affine maps, the earlier map first."""
    return times(a2, a1), times(a2, b1) + b2


@triton.jit
def finite_or(value, other):
    """Return the value where it is finite, and `other` elsewhere."""
    return tl.where(tl.abs(value) < float("inf"), value, other)


@triton.jit
def remembered(slope):
    """Return the share of a past size that a stretch of time passes on, at most 1."""
    return tl.minimum(finite_or(slope, 1.0), 1.0)


@triton.jit
def grow(p1, s1, p2, s2):
    """Return the size relative to which a state is rounded: its own, or the past size times its remembered share."""
    return p2 * p1, tl.maximum(s2, p2 * s1)


@triton.jit
def gap(found, expected, before):
    """Return the difference relative to the state or to `before`; equal infinities and two NaNs have difference 0."""
    size = tl.maximum(tl.abs(expected), finite_or(tl.abs(before), 0.0))
    apart = tl.abs(found - expected) / tl.maximum(size, 1.2e-38)
    same = (found == expected) | ((found != found) & (expected != expected))
    return tl.where(same, 0.0, tl.where(apart == apart, apart, float("inf")))


@triton.jit
def or_nan(worst, state, live):
    """Return NaN if the last state holds NaN, which any earlier NaN reaches."""
    lost = tl.max(tl.where(live & (state != state), 1, 0))
    return tl.where(lost > 0, float("nan"), worst)


@triton.jit
def error(jumps, corrections):
    """Return the largest error of a boundary: its correction, which sums all jumps before it, or 0 without jumps."""
    quiet = tl.max(jumps, axis=0)[None, :] == 0
    return tl.max(tl.where(quiet, 0.0, tl.maximum(jumps, corrections)))


@triton.jit
def _weight(a, row: tl.constexpr, rows: tl.constexpr, D, d, live):
    if row < rows:
        return tl.load(a + row * D + d, mask=live, other=0.0).to(tl.float32)
    else:
        return tl.zeros_like(d).to(tl.float32)


@triton.jit
def _inputs(p, gates: tl.constexpr, D, where, mask):
    x0 = tl.load(p + where, mask=mask, other=0.0).to(tl.float32)
    x1 = tl.load(p + where + D, mask=mask, other=0.0).to(tl.float32)
    x2 = 0 * x0
    if gates == 3:
        x2 = tl.load(p + where + 2 * D, mask=mask, other=0.0).to(tl.float32)
    return x0, x1, x2


@triton.jit
def forward(
    p, a, h0, out, certificate, T, D, p_t, p_b, o_t, o_b, tolerance,
    CELL: tl.constexpr, GATES: tl.constexpr, WEIGHTS: tl.constexpr,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Solve by multiple shooting over CHUNKS chunks of STEPS steps until their boundaries agree.

    A sweep runs all chunks from their starts. Then Newton's method corrects the starts, by a scan over the chunks.
    After k sweeps the first k chunks are exact for any cell, so the loop over sweeps ends with the exact solution.
    One chunk is the plain loop.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(D, BLOCK)
    b = (program // blocks).to(tl.int64)
    d = (program % blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    live = d < D
    a0, a1, a2 = (
        _weight(a, 0, WEIGHTS, D, d, live),
        _weight(a, 1, WEIGHTS, D, d, live),
        _weight(a, 2, WEIGHTS, D, d, live),
    )
    carry = tl.load(h0 + b * D + d, mask=live, other=0.0).to(tl.float32)
    k = tl.arange(0, CHUNKS)[:, None]
    first = (k == 0) & live
    previous = tl.maximum(k - 1, 0) + 0 * d
    worst, sweeps = 0.0, 0
    for t0 in range(0, T, CHUNKS * STEPS):
        start = tl.where(first, carry, 0.0)
        h = start
        sweep, again = 0, 1
        while again > 0:
            h, held = start, start
            slope = tl.full([CHUNKS, BLOCK], 1.0, tl.float32)
            for j in range(STEPS):
                t = t0 + k * STEPS + j
                here = (t < T) & live
                x0, x1, x2 = _inputs(p, GATES, D, t.to(tl.int64) * p_t + b * p_b + d, here)
                new, J = _step(CELL, h, x0, x1, x2, a0, a1, a2)
                held, h = tl.where(here, h, held), tl.where(here, new, h)
                slope = tl.where(here, J * slope, slope)
                # the first sweep of several chunks starts from zeros, so its states are not stored
                tl.store(out + t.to(tl.int64) * o_t + b * o_b + d, h, mask=here & ((sweep > 0) | (CHUNKS == 1)))
            if CHUNKS == 1:
                again = 0
            else:
                ends = tl.gather(h, previous, axis=0)
                A = tl.where(first, 0.0, slope)
                shift = tl.where(first, h, h - slope * start)
                _, solved = tl.associative_scan((A, shift), 0, affine)
                solved = tl.gather(solved, previous, axis=0)
                own = tl.maximum(finite_or(tl.abs(h), 0.0), finite_or(tl.abs(held), 0.0))
                _, size = tl.associative_scan((remembered(tl.abs(slope)), own), 0, grow)
                size = tl.gather(size, previous, axis=0)
                meets = (k > 0) & (t0 + k * STEPS < T) & live
                jumps, corrections = gap(ends, start, size), gap(solved, start, size)
                apart = error(tl.where(meets, jumps, 0.0), tl.where(meets, corrections, 0.0))
                new_start = tl.where(first, carry, finite_or(solved, ends))
                again = ((sweep == 0) | ((apart > tolerance) & (sweep < CHUNKS))).to(tl.int32)
                start = tl.where(again > 0, new_start, start)
                worst = tl.where(again > 0, worst, tl.maximum(worst, apart))
            sweep += 1
        sweeps = tl.maximum(sweeps, sweep)
        last = tl.minimum(CHUNKS - 1, (T - 1 - t0) // STEPS)
        carry = tl.sum(tl.where(k == last, h, 0.0), axis=0)[None, :]
    tl.store(certificate + program * 2, or_nan(worst, carry, live))
    tl.store(certificate + program * 2 + 1, sweeps.to(tl.float32))


@triton.jit
def newton(
    p, a, h0, out, certificate, T, D, p_t, p_b, o_t, o_b, iterations,
    CELL: tl.constexpr, GATES: tl.constexpr, WEIGHTS: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Solve by the paper's scheme: a fixed number of Newton iterations on each segment of STEPS, without a test."""
    program = tl.program_id(0)
    blocks = tl.cdiv(D, BLOCK)
    b = (program // blocks).to(tl.int64)
    d = (program % blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    live = d < D
    a0, a1, a2 = (
        _weight(a, 0, WEIGHTS, D, d, live),
        _weight(a, 1, WEIGHTS, D, d, live),
        _weight(a, 2, WEIGHTS, D, d, live),
    )
    carry = tl.load(h0 + b * D + d, mask=live, other=0.0).to(tl.float32)
    i = tl.arange(0, STEPS)[:, None]
    first = (i == 0) & live
    previous = tl.maximum(i - 1, 0) + 0 * d
    worst = 0.0
    for t0 in range(0, T, STEPS):
        t = t0 + i
        here = (t < T) & live
        x0, x1, x2 = _inputs(p, GATES, D, t.to(tl.int64) * p_t + b * p_b + d, here)
        h, _ = _step(CELL, tl.where(first, carry, 0.0), x0, x1, x2, a0, a1, a2)
        for _ in range(iterations):
            before = tl.where(first, carry, tl.gather(h, previous, axis=0))
            f, J = _step(CELL, before, x0, x1, x2, a0, a1, a2)
            A, shift = tl.where(first, 0.0, J), tl.where(first, f, f - J * before)
            _, h = tl.associative_scan((A, shift), 0, affine)
        before = tl.where(first, carry, tl.gather(h, previous, axis=0))
        f, _ = _step(CELL, before, x0, x1, x2, a0, a1, a2)
        worst = tl.maximum(worst, tl.max(tl.where(here, gap(f, h, before), 0.0)))
        tl.store(out + t.to(tl.int64) * o_t + b * o_b + d, h, mask=here)
        carry = tl.sum(tl.where(i == tl.minimum(STEPS - 1, T - 1 - t0), h, 0.0), axis=0)[None, :]
    tl.store(certificate + program * 2, or_nan(worst, carry, live))
    tl.store(certificate + program * 2 + 1, iterations * 1.0)


@triton.jit
def backward(
    p, a, h0, h, g, d_p, d_a, d_h0, T, D, p_t, p_b, o_t, o_b, q_t, q_b,
    CELL: tl.constexpr, GATES: tl.constexpr, WEIGHTS: tl.constexpr,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Solve the adjoint, a linear recurrence from the end: products over chunks, a scan, then steps in the chunks."""
    program = tl.program_id(0)
    blocks = tl.cdiv(D, BLOCK)
    b = (program // blocks).to(tl.int64)
    d = (program % blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    live = d < D
    a0, a1, a2 = (
        _weight(a, 0, WEIGHTS, D, d, live),
        _weight(a, 1, WEIGHTS, D, d, live),
        _weight(a, 2, WEIGHTS, D, d, live),
    )
    initial = tl.load(h0 + b * D + d, mask=live, other=0.0).to(tl.float32)
    k = tl.arange(0, CHUNKS)[:, None]
    first = (k == 0) & live
    previous = tl.maximum(k - 1, 0) + 0 * d
    arriving = 0 * initial
    s0 = tl.zeros([CHUNKS, BLOCK], tl.float32)
    s1, s2 = s0, s0
    spans = tl.cdiv(T, CHUNKS * STEPS)
    for span in range(spans):
        t0 = (spans - 1 - span) * CHUNKS * STEPS
        begin = t0 + (CHUNKS - 1 - k) * STEPS  # row 0 holds the last chunk
        entering = arriving + 0 * s0
        if CHUNKS > 1:
            Q, P = tl.zeros([CHUNKS, BLOCK], tl.float32), tl.full([CHUNKS, BLOCK], 1.0, tl.float32)
            for back_step in range(STEPS):
                t = begin + STEPS - 1 - back_step
                here = (t < T) & live
                at = t.to(tl.int64)
                before = tl.load(h + (at - 1) * o_t + b * o_b + d, mask=here & (t > 0), other=0.0).to(tl.float32)
                before = tl.where(t > 0, before, initial)
                x0, x1, x2 = _inputs(p, GATES, D, at * p_t + b * p_b + d, here)
                _, J = _step(CELL, before, x0, x1, x2, a0, a1, a2)
                direct = tl.load(g + at * o_t + b * o_b + d, mask=here, other=0.0).to(tl.float32)
                Q, P = tl.where(here, J * (direct + Q), Q), tl.where(here, J * P, P)
            A, shift = tl.where(first, 0.0, P), tl.where(first, times(P, arriving) + Q, Q)
            _, solved = tl.associative_scan((A, shift), 0, affine)
            entering = tl.where(first, arriving, tl.gather(solved, previous, axis=0))
        for back_step in range(STEPS):
            t = begin + STEPS - 1 - back_step
            here = (t < T) & live
            at = t.to(tl.int64)
            before = tl.load(h + (at - 1) * o_t + b * o_b + d, mask=here & (t > 0), other=0.0).to(tl.float32)
            before = tl.where(t > 0, before, initial)
            x0, x1, x2 = _inputs(p, GATES, D, at * p_t + b * p_b + d, here)
            lam = tl.load(g + at * o_t + b * o_b + d, mask=here, other=0.0).to(tl.float32) + entering
            d0, d1, d2, w0, w1, w2, back = _pull(CELL, lam, before, x0, x1, x2, a0, a1, a2)
            target = d_p + at * q_t + b * q_b + d
            tl.store(target, d0, mask=here)
            tl.store(target + D, d1, mask=here)
            if GATES == 3:
                tl.store(target + 2 * D, d2, mask=here)
            s0, s1, s2 = s0 + tl.where(here, w0, 0.0), s1 + tl.where(here, w1, 0.0), s2 + tl.where(here, w2, 0.0)
            entering = tl.where(here, back, entering)
        arriving = tl.sum(tl.where(k == CHUNKS - 1, entering, 0.0), axis=0)[None, :]
    tl.store(d_h0 + b * D + d, arriving, mask=live)
    row = d_a + b * WEIGHTS * D + d
    if WEIGHTS > 0:
        tl.store(row, tl.sum(s0, axis=0)[None, :], mask=live)
    if WEIGHTS > 1:
        tl.store(row + D, tl.sum(s1, axis=0)[None, :], mask=live)
        tl.store(row + 2 * D, tl.sum(s2, axis=0)[None, :], mask=live)
