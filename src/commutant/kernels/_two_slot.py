"""Triton kernels of the recurrence of ParaLSTM, with a pair (c, h) per channel as state; compare `_one_slot`.

Time is the leading axis of pre-activations `(time, batch, 3, channels)` and states `(time, batch, 2, channels)`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._one_slot import blend, error, finite_or, gap, grow, or_nan, remembered, tanh, times, weights


@triton.jit
def _gates(c, h, pf, pz, po, af, az, ao, wf, wo):
    f, add = weights(af * h + pf + wf * c)
    z = tanh(az * h + pz)
    new = blend(c, z, f, add)
    o = tl.sigmoid(ao * h + po + wo * new)
    return f, add, z, new, o, tanh(new)


@triton.jit
def _step(c, h, pf, pz, po, af, az, ao, wf, wo):
    """Return the next state and the four derivatives, with cc for dc'/dc, ch for dc'/dh and so on."""
    f, add, z, new, o, squashed = _gates(c, h, pf, pz, po, af, az, ao, wf, wo)
    s_f, s_o = (c - z) * f * add, squashed * o * (1 - o)
    through = s_o * wo + o * (1 - squashed * squashed)
    cc = f + s_f * wf
    ch = s_f * af + add * (1 - z * z) * az
    return new, o * squashed, cc, ch, through * cc, s_o * ao + through * ch


@triton.jit
def affine2(A1, B1, C1, D1, u1, v1, A2, B2, C2, D2, u2, v2):
    """Return the composition of affine maps with matrix [[A, B], [C, D]] and shift (u, v), the earlier map first."""
    return (
        times(A2, A1) + times(B2, C1), times(A2, B1) + times(B2, D1),
        times(C2, A1) + times(D2, C1), times(C2, B1) + times(D2, D1),
        times(A2, u1) + times(B2, v1) + u2, times(C2, u1) + times(D2, v1) + v2,
    )  # fmt: skip


@triton.jit
def _five(a, D, d, live):
    af = tl.load(a + d, mask=live, other=0.0).to(tl.float32)
    az = tl.load(a + D + d, mask=live, other=0.0).to(tl.float32)
    ao = tl.load(a + 2 * D + d, mask=live, other=0.0).to(tl.float32)
    wf = tl.load(a + 3 * D + d, mask=live, other=0.0).to(tl.float32)
    wo = tl.load(a + 4 * D + d, mask=live, other=0.0).to(tl.float32)
    return af, az, ao, wf, wo


@triton.jit
def _three(p, D, where, mask):
    pf = tl.load(p + where, mask=mask, other=0.0).to(tl.float32)
    pz = tl.load(p + where + D, mask=mask, other=0.0).to(tl.float32)
    po = tl.load(p + where + 2 * D, mask=mask, other=0.0).to(tl.float32)
    return pf, pz, po


@triton.jit
def _two(pointer, D, where, mask):
    first = tl.load(pointer + where, mask=mask, other=0.0).to(tl.float32)
    return first, tl.load(pointer + where + D, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def forward(
    p, a, h0, out, certificate, T, D, p_t, p_b, o_t, o_b, tolerance,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Solve like the forward kernel of one slot, with 2 x 2 derivatives."""
    program = tl.program_id(0)
    blocks = tl.cdiv(D, BLOCK)
    b = (program // blocks).to(tl.int64)
    d = (program % blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    live = d < D
    af, az, ao, wf, wo = _five(a, D, d, live)
    carry_c, carry_h = _two(h0, D, b * 2 * D + d, live)
    k = tl.arange(0, CHUNKS)[:, None]
    first = (k == 0) & live
    previous = tl.maximum(k - 1, 0) + 0 * d
    worst, sweeps = 0.0, 0
    for t0 in range(0, T, CHUNKS * STEPS):
        start_c, start_h = tl.where(first, carry_c, 0.0), tl.where(first, carry_h, 0.0)
        c, h = start_c, start_h
        sweep, again = 0, 1
        while again > 0:
            c, h, held_c, held_h = start_c, start_h, start_c, start_h
            Pcc = tl.full([CHUNKS, BLOCK], 1.0, tl.float32)
            Pch = tl.zeros([CHUNKS, BLOCK], tl.float32)
            Phc, Phh = Pch, Pcc
            for j in range(STEPS):
                t = t0 + k * STEPS + j
                here = (t < T) & live
                pf, pz, po = _three(p, D, t.to(tl.int64) * p_t + b * p_b + d, here)
                new_c, new_h, cc, ch, hc, hh = _step(c, h, pf, pz, po, af, az, ao, wf, wo)
                held_c, held_h = tl.where(here, c, held_c), tl.where(here, h, held_h)
                c, h = tl.where(here, new_c, c), tl.where(here, new_h, h)
                Qcc, Qch = cc * Pcc + ch * Phc, cc * Pch + ch * Phh
                Qhc, Qhh = hc * Pcc + hh * Phc, hc * Pch + hh * Phh
                Pcc, Pch = tl.where(here, Qcc, Pcc), tl.where(here, Qch, Pch)
                Phc, Phh = tl.where(here, Qhc, Phc), tl.where(here, Qhh, Phh)
                target = out + t.to(tl.int64) * o_t + b * o_b + d
                wanted = here & ((sweep > 0) | (CHUNKS == 1))
                tl.store(target, c, mask=wanted)
                tl.store(target + D, h, mask=wanted)
            if CHUNKS == 1:
                again = 0
            else:
                end_c, end_h = tl.gather(c, previous, axis=0), tl.gather(h, previous, axis=0)
                u = tl.where(first, c, c - Pcc * start_c - Pch * start_h)
                v = tl.where(first, h, h - Phc * start_c - Phh * start_h)
                A, B = tl.where(first, 0.0, Pcc), tl.where(first, 0.0, Pch)
                C, E = tl.where(first, 0.0, Phc), tl.where(first, 0.0, Phh)
                _, _, _, _, u, v = tl.associative_scan((A, B, C, E, u, v), 0, affine2)
                u, v = tl.gather(u, previous, axis=0), tl.gather(v, previous, axis=0)
                own_c = tl.maximum(finite_or(tl.abs(c), 0.0), finite_or(tl.abs(held_c), 0.0))
                own_h = tl.maximum(finite_or(tl.abs(h), 0.0), finite_or(tl.abs(held_h), 0.0))
                part_c, part_h = remembered(tl.abs(Pcc) + tl.abs(Pch)), remembered(tl.abs(Phc) + tl.abs(Phh))
                _, past = tl.associative_scan((tl.maximum(part_c, part_h), tl.maximum(own_c, own_h)), 0, grow)
                past = tl.where(k > 0, tl.gather(past, previous, axis=0), 0.0)
                size_c = tl.gather(tl.maximum(own_c, part_c * past), previous, axis=0)
                size_h = tl.gather(tl.maximum(own_h, part_h * past), previous, axis=0)
                off = tl.maximum(gap(end_c, start_c, size_c), gap(end_h, start_h, size_h))
                grown = tl.maximum(gap(u, start_c, size_c), gap(v, start_h, size_h))
                meets = (k > 0) & (t0 + k * STEPS < T) & live
                apart = error(tl.where(meets, off, 0.0), tl.where(meets, grown, 0.0))
                next_c = tl.where(first, carry_c, finite_or(u, end_c))
                next_h = tl.where(first, carry_h, finite_or(v, end_h))
                again = ((sweep == 0) | ((apart > tolerance) & (sweep < CHUNKS))).to(tl.int32)
                start_c, start_h = tl.where(again > 0, next_c, start_c), tl.where(again > 0, next_h, start_h)
                worst = tl.where(again > 0, worst, tl.maximum(worst, apart))
            sweep += 1
        sweeps = tl.maximum(sweeps, sweep)
        last = tl.minimum(CHUNKS - 1, (T - 1 - t0) // STEPS)
        carry_c = tl.sum(tl.where(k == last, c, 0.0), axis=0)[None, :]
        carry_h = tl.sum(tl.where(k == last, h, 0.0), axis=0)[None, :]
    worst = or_nan(or_nan(worst, carry_c, live), carry_h, live)
    tl.store(certificate + program * 2, worst)
    tl.store(certificate + program * 2 + 1, sweeps.to(tl.float32))


@triton.jit
def newton(
    p, a, h0, out, certificate, T, D, p_t, p_b, o_t, o_b, iterations, STEPS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Solve like the Newton kernel of one slot."""
    program = tl.program_id(0)
    blocks = tl.cdiv(D, BLOCK)
    b = (program // blocks).to(tl.int64)
    d = (program % blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    live = d < D
    af, az, ao, wf, wo = _five(a, D, d, live)
    carry_c, carry_h = _two(h0, D, b * 2 * D + d, live)
    i = tl.arange(0, STEPS)[:, None]
    first = (i == 0) & live
    previous = tl.maximum(i - 1, 0) + 0 * d
    worst = 0.0
    for t0 in range(0, T, STEPS):
        t = t0 + i
        here = (t < T) & live
        pf, pz, po = _three(p, D, t.to(tl.int64) * p_t + b * p_b + d, here)
        guess_c, guess_h = tl.where(first, carry_c, 0.0), tl.where(first, carry_h, 0.0)
        c, h, _, _, _, _ = _step(guess_c, guess_h, pf, pz, po, af, az, ao, wf, wo)
        for _ in range(iterations):
            before_c = tl.where(first, carry_c, tl.gather(c, previous, axis=0))
            before_h = tl.where(first, carry_h, tl.gather(h, previous, axis=0))
            new_c, new_h, cc, ch, hc, hh = _step(before_c, before_h, pf, pz, po, af, az, ao, wf, wo)
            u = tl.where(first, new_c, new_c - cc * before_c - ch * before_h)
            v = tl.where(first, new_h, new_h - hc * before_c - hh * before_h)
            A, B = tl.where(first, 0.0, cc), tl.where(first, 0.0, ch)
            C, E = tl.where(first, 0.0, hc), tl.where(first, 0.0, hh)
            _, _, _, _, c, h = tl.associative_scan((A, B, C, E, u, v), 0, affine2)
        before_c = tl.where(first, carry_c, tl.gather(c, previous, axis=0))
        before_h = tl.where(first, carry_h, tl.gather(h, previous, axis=0))
        new_c, new_h, _, _, _, _ = _step(before_c, before_h, pf, pz, po, af, az, ao, wf, wo)
        off = tl.maximum(gap(new_c, c, before_c), gap(new_h, h, before_h))
        worst = tl.maximum(worst, tl.max(tl.where(here, off, 0.0)))
        target = out + t.to(tl.int64) * o_t + b * o_b + d
        tl.store(target, c, mask=here)
        tl.store(target + D, h, mask=here)
        last = tl.minimum(STEPS - 1, T - 1 - t0)
        carry_c = tl.sum(tl.where(i == last, c, 0.0), axis=0)[None, :]
        carry_h = tl.sum(tl.where(i == last, h, 0.0), axis=0)[None, :]
    worst = or_nan(or_nan(worst, carry_c, live), carry_h, live)
    tl.store(certificate + program * 2, worst)
    tl.store(certificate + program * 2 + 1, iterations * 1.0)


@triton.jit
def backward(
    p, a, h0, h, g, d_p, d_a, d_h0, T, D, p_t, p_b, o_t, o_b, q_t, q_b,
    STEPS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Solve like the backward kernel of one slot, with transposed 2 x 2 derivatives."""
    program = tl.program_id(0)
    blocks = tl.cdiv(D, BLOCK)
    b = (program // blocks).to(tl.int64)
    d = (program % blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    live = d < D
    af, az, ao, wf, wo = _five(a, D, d, live)
    initial_c, initial_h = _two(h0, D, b * 2 * D + d, live)
    k = tl.arange(0, CHUNKS)[:, None]
    first = (k == 0) & live
    previous = tl.maximum(k - 1, 0) + 0 * d
    arriving_c, arriving_h = 0 * initial_c, 0 * initial_h
    s_af = tl.zeros([CHUNKS, BLOCK], tl.float32)
    s_az, s_ao, s_wf, s_wo = s_af, s_af, s_af, s_af
    spans = tl.cdiv(T, CHUNKS * STEPS)
    for span in range(spans):
        t0 = (spans - 1 - span) * CHUNKS * STEPS
        begin = t0 + (CHUNKS - 1 - k) * STEPS
        in_c, in_h = arriving_c + 0 * s_af, arriving_h + 0 * s_af
        if CHUNKS > 1:
            Pcc = tl.full([CHUNKS, BLOCK], 1.0, tl.float32)
            Pch = tl.zeros([CHUNKS, BLOCK], tl.float32)
            Phc, Phh, Qc, Qh = Pch, Pcc, Pch, Pch
            for back_step in range(STEPS):
                t = begin + STEPS - 1 - back_step
                here = (t < T) & live
                at = t.to(tl.int64)
                c, s = _two(h, D, (at - 1) * o_t + b * o_b + d, here & (t > 0))
                c, s = tl.where(t > 0, c, initial_c), tl.where(t > 0, s, initial_h)
                pf, pz, po = _three(p, D, at * p_t + b * p_b + d, here)
                _, _, cc, ch, hc, hh = _step(c, s, pf, pz, po, af, az, ao, wf, wo)
                gc, gh = _two(g, D, at * o_t + b * o_b + d, here)
                gc, gh = gc + Qc, gh + Qh
                Qc, Qh = tl.where(here, cc * gc + hc * gh, Qc), tl.where(here, ch * gc + hh * gh, Qh)
                Rcc, Rch = cc * Pcc + hc * Phc, cc * Pch + hc * Phh
                Rhc, Rhh = ch * Pcc + hh * Phc, ch * Pch + hh * Phh
                Pcc, Pch = tl.where(here, Rcc, Pcc), tl.where(here, Rch, Pch)
                Phc, Phh = tl.where(here, Rhc, Phc), tl.where(here, Rhh, Phh)
            u = tl.where(first, times(Pcc, arriving_c) + times(Pch, arriving_h) + Qc, Qc)
            v = tl.where(first, times(Phc, arriving_c) + times(Phh, arriving_h) + Qh, Qh)
            A, B_ = tl.where(first, 0.0, Pcc), tl.where(first, 0.0, Pch)
            C, E = tl.where(first, 0.0, Phc), tl.where(first, 0.0, Phh)
            _, _, _, _, u, v = tl.associative_scan((A, B_, C, E, u, v), 0, affine2)
            in_c = tl.where(first, arriving_c, tl.gather(u, previous, axis=0))
            in_h = tl.where(first, arriving_h, tl.gather(v, previous, axis=0))
        for back_step in range(STEPS):
            t = begin + STEPS - 1 - back_step
            here = (t < T) & live
            at = t.to(tl.int64)
            c, s = _two(h, D, (at - 1) * o_t + b * o_b + d, here & (t > 0))
            c, s = tl.where(t > 0, c, initial_c), tl.where(t > 0, s, initial_h)
            pf, pz, po = _three(p, D, at * p_t + b * p_b + d, here)
            f, add, z, new, o, squashed = _gates(c, s, pf, pz, po, af, az, ao, wf, wo)
            gc, gh = _two(g, D, at * o_t + b * o_b + d, here)
            lam_c, lam_h = gc + in_c, gh + in_h
            d_o = lam_h * squashed * o * (1 - o)
            m = lam_c + lam_h * o * (1 - squashed * squashed) + d_o * wo
            d_f = m * (c - z) * f * add
            d_z = m * add * (1 - z * z)
            target = d_p + at * q_t + b * q_b + d
            tl.store(target, d_f, mask=here)
            tl.store(target + D, d_z, mask=here)
            tl.store(target + 2 * D, d_o, mask=here)
            s_af, s_az = s_af + tl.where(here, d_f * s, 0.0), s_az + tl.where(here, d_z * s, 0.0)
            s_ao, s_wf = s_ao + tl.where(here, d_o * s, 0.0), s_wf + tl.where(here, d_f * c, 0.0)
            s_wo = s_wo + tl.where(here, d_o * new, 0.0)
            in_c = tl.where(here, m * f + d_f * wf, in_c)
            in_h = tl.where(here, d_f * af + d_z * az + d_o * ao, in_h)
        arriving_c = tl.sum(tl.where(k == CHUNKS - 1, in_c, 0.0), axis=0)[None, :]
        arriving_h = tl.sum(tl.where(k == CHUNKS - 1, in_h, 0.0), axis=0)[None, :]
    tl.store(d_h0 + b * 2 * D + d, arriving_c, mask=live)
    tl.store(d_h0 + b * 2 * D + D + d, arriving_h, mask=live)
    row = d_a + b * 5 * D + d
    tl.store(row, tl.sum(s_af, axis=0)[None, :], mask=live)
    tl.store(row + D, tl.sum(s_az, axis=0)[None, :], mask=live)
    tl.store(row + 2 * D, tl.sum(s_ao, axis=0)[None, :], mask=live)
    tl.store(row + 3 * D, tl.sum(s_wf, axis=0)[None, :], mask=live)
    tl.store(row + 4 * D, tl.sum(s_wo, axis=0)[None, :], mask=live)
