/* Gated recurrences on a CPU: sequential in time, vectorized over channels, one call for a range of rows and channels.
 *
 * Time is the leading axis. Pre-activations (time, batch, gates, channels) have strides p_t and p_b, states (time,
 * batch, slots, channels) have strides o_t and o_b, and channels are contiguous. Plain C without torch headers,
 * compiled at first use.
 */
#include "elementary.h"

#define BLOCK 128
#define EACH INDEPENDENT for (int64_t i = 0; i < n; i++)
/* A gate's weight `to` and its complement `from`, both with full relative accuracy even if the other is almost 1. */
#define WEIGHTS(to, from, logit) \
    float to##_logit = logit, to##_e = vanishing(-size(to##_logit)), to##_large = 1.0f / (1.0f + to##_e), to##_small = to##_e * to##_large; \
    float to = to##_logit < 0.0f ? to##_small : to##_large, from = to##_logit < 0.0f ? to##_large : to##_small;
/* keep * old + add * fresh, as a step from the term with the larger weight, which is exact for equal terms. */
INLINE float blend(float old, float fresh, float keep, float add) {
    float forth = old + add * (fresh - old), back = fresh + keep * (old - fresh);
    return keep < add ? back : forth;
}
INLINE float positive(float x) { return x >= 0.0f ? x + 0.5f : sigmoid(x); }
INLINE float positive_slope(float x) { float s = sigmoid(x); return x >= 0.0f ? 1.0f : s * (1.0f - s); }

/* One slot: h is the previous state, x0 x1 x2 are pre-activations, a0 a1 a2 are recurrent weights. */
#define GRU_GATES WEIGHTS(z, keep, a0[i] * h[i] + x0[i]) float r = sigmoid(a1[i] * h[i] + x1[i]), c = tangent(a2[i] * (h[i] * r) + x2[i]);
#define GRU_STEP GRU_GATES new = blend(h[i], c, keep, z);
#define GRU_PULL GRU_GATES float d2 = lam * z * (1 - c * c), d0 = lam * (c - h[i]) * z * keep, d1 = d2 * a2[i] * h[i] * r * (1 - r); \
    w0[i] += d0 * h[i]; w1[i] += d1 * h[i]; w2[i] += d2 * h[i] * r; y2[i] = d2; \
    back = lam * keep + d0 * a0[i] + d1 * a1[i] + d2 * a2[i] * r;

#define MINGRU_STEP WEIGHTS(z, keep, x0[i]) new = blend(h[i], positive(x1[i]), keep, z);
#define MINGRU_PULL WEIGHTS(z, keep, x0[i]) float d0 = lam * (positive(x1[i]) - h[i]) * z * keep, d1 = lam * z * positive_slope(x1[i]); \
    back = lam * keep;

/* f / (f + i) and i / (f + i) for two sigmoids, from the ratio to the one with the larger logit, as each may underflow. */
#define MINLSTM_KEEP \
    float apart = below(x1[i]) - below(x0[i]), f1 = 1 + exponential(-size(x0[i])), i1 = 1 + exponential(-size(x1[i])); \
    float ratio = vanishing(-size(apart)) * (apart > 0.0f ? i1 / f1 : f1 / i1), large = 1.0f / (1.0f + ratio), small = ratio * large; \
    float keep = apart > 0.0f ? small : large, add = apart > 0.0f ? large : small;
#define MINLSTM_STEP MINLSTM_KEEP new = blend(h[i], positive(x2[i]), keep, add);
#define MINLSTM_PULL MINLSTM_KEEP float s = lam * (h[i] - positive(x2[i])) * keep * add, d0 = s * sigmoid(-x0[i]), d1 = -s * sigmoid(-x1[i]); \
    y2[i] = lam * add * positive_slope(x2[i]); back = lam * keep;

#define SRU_STEP WEIGHTS(f, add, a0[i] * h[i] + x1[i]) new = blend(h[i], x0[i], f, add);
#define SRU_PULL WEIGHTS(f, add, a0[i] * h[i] + x1[i]) float d0 = lam * add, d1 = lam * (h[i] - x0[i]) * f * add; \
    w0[i] += d1 * h[i]; back = lam * f + d1 * a0[i];

#define POINTERS(GATES) \
    const float *restrict x0 = p + t * p_t + b * p_b + d; \
    const float *restrict x1 = x0 + D, *restrict x2 = x0 + (GATES - 1) * D;

#define WEIGHTS_OF(COUNT) \
    const float *restrict a0 = a + d, *restrict a1 = a + (COUNT > 1 ? D : 0) + d, *restrict a2 = a + (COUNT > 2 ? 2 * D : 0) + d; \
    (void)a0; (void)a1; (void)a2;

#define ONE_SLOT(NAME, GATES, COUNT, STEP, PULL) \
void NAME##_forward(const float *p, const float *a, const float *h0, float *out, int64_t T, int64_t D, int64_t p_t, \
                    int64_t p_b, int64_t o_t, int64_t o_b, int64_t b0, int64_t b1, int64_t d0_, int64_t d1_) { \
    for (int64_t b = b0; b < b1; b++) for (int64_t d = d0_; d < d1_; d += BLOCK) { \
        int64_t n = d1_ - d < BLOCK ? d1_ - d : BLOCK; \
        float h[BLOCK]; \
        WEIGHTS_OF(COUNT) \
        memcpy(h, h0 + b * D + d, n * sizeof(float)); \
        for (int64_t t = 0; t < T; t++) { \
            POINTERS(GATES) (void)x1; (void)x2; \
            float *restrict o = out + t * o_t + b * o_b + d; \
            EACH { float new; STEP h[i] = new; o[i] = new; } \
        } \
    } \
} \
void NAME##_backward(const float *p, const float *a, const float *h0, const float *states, const float *g, float *dp, \
                     float *da, float *dh0, int64_t T, int64_t D, int64_t p_t, int64_t p_b, int64_t o_t, int64_t o_b, \
                     int64_t q_t, int64_t q_b, int64_t b0, int64_t b1, int64_t d0_, int64_t d1_) { \
    for (int64_t b = b0; b < b1; b++) for (int64_t d = d0_; d < d1_; d += BLOCK) { \
        int64_t n = d1_ - d < BLOCK ? d1_ - d : BLOCK; \
        float carried[BLOCK], w0[BLOCK], w1[BLOCK], w2[BLOCK]; \
        WEIGHTS_OF(COUNT) \
        memset(carried, 0, sizeof carried); memset(w0, 0, sizeof w0); memset(w1, 0, sizeof w1); memset(w2, 0, sizeof w2); \
        for (int64_t t = T - 1; t >= 0; t--) { \
            POINTERS(GATES) (void)x1; (void)x2; \
            const float *restrict h = t ? states + (t - 1) * o_t + b * o_b + d : h0 + b * D + d; \
            const float *restrict direct = g + t * o_t + b * o_b + d; \
            float *restrict y0 = dp + t * q_t + b * q_b + d, *restrict y1 = y0 + D, *restrict y2 = y0 + 2 * D; (void)y2; \
            EACH { float lam = direct[i] + carried[i], back; PULL y0[i] = d0; y1[i] = d1; carried[i] = back; } \
        } \
        memcpy(dh0 + b * D + d, carried, n * sizeof(float)); \
        float *rows[3] = {w0, w1, w2}; \
        for (int k = 0; k < COUNT; k++) memcpy(da + (b * COUNT + k) * D + d, rows[k], n * sizeof(float)); \
    } \
}

ONE_SLOT(gru, 3, 3, GRU_STEP, GRU_PULL)
ONE_SLOT(mingru, 2, 0, MINGRU_STEP, MINGRU_PULL)
ONE_SLOT(minlstm, 3, 0, MINLSTM_STEP, MINLSTM_PULL)
ONE_SLOT(sru, 2, 1, SRU_STEP, SRU_PULL)

/* Two slots, c and h, in two successive rows of channels. */
#define LSTM_GATES \
    WEIGHTS(f, add, af[i] * h[i] + x0[i] + wf[i] * c[i]) float z = tangent(az[i] * h[i] + x1[i]), u = blend(c[i], z, f, add); \
    float o = sigmoid(ao[i] * h[i] + x2[i] + wo[i] * u), v = tangent(u);
#define LSTM_WEIGHTS \
    const float *restrict af = a + d, *restrict az = af + D, *restrict ao = az + D, *restrict wf = ao + D, *restrict wo = wf + D;

void lstm_forward(const float *p, const float *a, const float *h0, float *out, int64_t T, int64_t D, int64_t p_t,
                  int64_t p_b, int64_t o_t, int64_t o_b, int64_t b0, int64_t b1, int64_t d0_, int64_t d1_) {
    for (int64_t b = b0; b < b1; b++) for (int64_t d = d0_; d < d1_; d += BLOCK) {
        int64_t n = d1_ - d < BLOCK ? d1_ - d : BLOCK;
        float c[BLOCK], h[BLOCK];
        LSTM_WEIGHTS
        memcpy(c, h0 + b * 2 * D + d, n * sizeof(float));
        memcpy(h, h0 + b * 2 * D + D + d, n * sizeof(float));
        for (int64_t t = 0; t < T; t++) {
            POINTERS(3)
            float *restrict to_c = out + t * o_t + b * o_b + d, *restrict to_h = to_c + D;
            EACH { LSTM_GATES c[i] = u; h[i] = o * v; to_c[i] = u; to_h[i] = o * v; }
        }
    }
}

void lstm_backward(const float *p, const float *a, const float *h0, const float *states, const float *g, float *dp,
                   float *da, float *dh0, int64_t T, int64_t D, int64_t p_t, int64_t p_b, int64_t o_t, int64_t o_b,
                   int64_t q_t, int64_t q_b, int64_t b0, int64_t b1, int64_t d0_, int64_t d1_) {
    for (int64_t b = b0; b < b1; b++) for (int64_t d = d0_; d < d1_; d += BLOCK) {
        int64_t n = d1_ - d < BLOCK ? d1_ - d : BLOCK;
        float carried_c[BLOCK], carried_h[BLOCK], w[5][BLOCK];
        LSTM_WEIGHTS
        memset(carried_c, 0, sizeof carried_c); memset(carried_h, 0, sizeof carried_h); memset(w, 0, sizeof w);
        for (int64_t t = T - 1; t >= 0; t--) {
            POINTERS(3)
            const float *restrict c = t ? states + (t - 1) * o_t + b * o_b + d : h0 + b * 2 * D + d;
            const float *restrict h = c + D;
            const float *restrict to_c = g + t * o_t + b * o_b + d, *restrict to_h = to_c + D;
            float *restrict y0 = dp + t * q_t + b * q_b + d, *restrict y1 = y0 + D, *restrict y2 = y0 + 2 * D;
            EACH {
                LSTM_GATES
                float lam_c = to_c[i] + carried_c[i], lam_h = to_h[i] + carried_h[i];
                float d_o = lam_h * v * o * (1 - o), m = lam_c + lam_h * o * (1 - v * v) + d_o * wo[i];
                float d_f = m * (c[i] - z) * f * add, d_z = m * add * (1 - z * z);
                y0[i] = d_f; y1[i] = d_z; y2[i] = d_o;
                w[0][i] += d_f * h[i]; w[1][i] += d_z * h[i]; w[2][i] += d_o * h[i];
                w[3][i] += d_f * c[i]; w[4][i] += d_o * u;
                carried_c[i] = m * f + d_f * wf[i];
                carried_h[i] = d_f * af[i] + d_z * az[i] + d_o * ao[i];
            }
        }
        memcpy(dh0 + b * 2 * D + d, carried_c, n * sizeof(float));
        memcpy(dh0 + b * 2 * D + D + d, carried_h, n * sizeof(float));
        for (int k = 0; k < 5; k++) memcpy(da + (b * 5 + k) * D + d, w[k], n * sizeof(float));
    }
}
