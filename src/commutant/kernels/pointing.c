/* Kernel of additive attention on a CPU: sums of tanh(query + key) over channels, without the tensor of all of them.
 *
 * Queries are (batch, m, h) and keys (batch, n, h), given as exp(2 query) and exp(2 key): tanh is then
 * (product - 1) / (product + 1). The caller keeps arguments between -20 and 20, so that no product overflows.
 */
#include "elementary.h"

#define LANES 16
#define BLOCK 64

/* Scores out[row, j] for rows of queries and a range of keys. */
void pointing_forward(const float *queries, const float *keys, const float *weights, float *out, int64_t m, int64_t n,
                      int64_t h, int64_t first_row, int64_t end_row, int64_t first_key, int64_t end_key) {
    for (int64_t row = first_row; row < end_row; row++) {
        const float *query = queries + row * h;
        for (int64_t j = first_key; j < end_key; j++) {
            const float *key = keys + (row / m * n + j) * h;
            float sum[LANES] = {0}, total = 0;
            int64_t c = 0;
            for (; c + LANES <= h; c += LANES) {
                INDEPENDENT for (int64_t l = 0; l < LANES; l++) {
                    float product = query[c + l] * key[c + l];
                    sum[l] += weights[c + l] * ((product - 1.0f) / (product + 1.0f));
                }
            }
            for (; c < h; c++) {
                float product = query[c] * key[c];
                total += weights[c] * ((product - 1.0f) / (product + 1.0f));
            }
            for (int64_t l = 0; l < LANES; l++) total += sum[l];
            out[row * n + j] = total;
        }
    }
}

/* Scores of the pairs that are wanted, (rows, n), and minus infinity elsewhere; `twice` are the doubled weights and
 * `whole` their sum over two: the sum of weight tanh is whole - sum of twice / (product + 1). The caller keeps arguments
 * between -10 and 10, so that no product of two denominators overflows. */
void selected_forward(const float *queries, const float *keys, const float *twice, const float *whole,
                      const uint8_t *wanted, float *out, int64_t m, int64_t n, int64_t h, int64_t first_row,
                      int64_t end_row, int64_t first_key, int64_t end_key) {
    for (int64_t row = first_row; row < end_row; row++) {
        const float *query = queries + row * h;
        for (int64_t j = first_key; j < end_key; j++) {
            if (!wanted[row * n + j]) {
                out[row * n + j] = -INFINITY;
                continue;
            }
            const float *key = keys + (row / m * n + j) * h;
            float sum[LANES] = {0}, total = 0;
            int64_t c = 0;
            for (; c + 2 * LANES <= h; c += 2 * LANES) { /* one division for two terms */
                INDEPENDENT for (int64_t l = 0; l < LANES; l++) {
                    float x = query[c + l] * key[c + l] + 1.0f, y = query[c + LANES + l] * key[c + LANES + l] + 1.0f;
                    sum[l] += (twice[c + l] * y + twice[c + LANES + l] * x) / (x * y);
                }
            }
            for (; c < h; c++) total += twice[c] / (query[c] * key[c] + 1.0f);
            for (int64_t l = 0; l < LANES; l++) total += sum[l];
            out[row * n + j] = whole[0] - total;
        }
    }
}

/* Adds the gradients of queries, keys and weights (one row of weights an entry of the batch), for a range of channels. */
void pointing_backward(const float *queries, const float *keys, const float *weights, const float *gradient,
                       float *d_queries, float *d_keys, float *d_weights, int64_t m, int64_t h, int64_t n,
                       int64_t first_row, int64_t end_row, int64_t first_channel, int64_t end_channel) {
    for (int64_t b = first_row; b < end_row; b++) {
        for (int64_t start = first_channel; start < end_channel; start += BLOCK) {
            int64_t width = end_channel - start < BLOCK ? end_channel - start : BLOCK;
            for (int64_t i = 0; i < m; i++) {
                const float *query = queries + (b * m + i) * h + start, *weight = weights + start;
                float left[BLOCK] = {0}, along[BLOCK] = {0};
                for (int64_t j = 0; j < n; j++) {
                    const float *key = keys + (b * n + j) * h + start;
                    float *d_key = d_keys + (b * n + j) * h + start;
                    float g = gradient[(b * m + i) * n + j];
                    INDEPENDENT for (int64_t c = 0; c < width; c++) {
                        float product = query[c] * key[c], t = (product - 1.0f) / (product + 1.0f);
                        float slope = g * weight[c] * (1.0f - t * t);
                        left[c] += slope;
                        d_key[c] += slope;
                        along[c] += g * t;
                    }
                }
                for (int64_t c = 0; c < width; c++) {
                    d_queries[(b * m + i) * h + start + c] = left[c];
                    d_weights[b * h + start + c] += along[c];
                }
            }
        }
    }
}

/* One step of an LSTM whose product with the input is a row of a table, (batch, choices, 4 channels): new h and c of
 * `hypotheses` rows for each entry of the batch, from products of old h, (olds, 4 channels), and old c, (olds, channels);
 * `from` tells which of the olds a row goes on from. */
void cell_forward(const float *table, const int64_t *choice, const int64_t *from, const float *product,
                  const float *old, float *h, float *c, int64_t choices, int64_t channels, int64_t hypotheses, int64_t first_row, int64_t end_row,
                  int64_t first_channel, int64_t end_channel) {
    for (int64_t row = first_row; row < end_row; row++) {
        const float *in = table + (row / hypotheses * choices + choice[row]) * 4 * channels;
        const float *re = product + from[row] * 4 * channels, *was = old + from[row] * channels;
        float *new_h = h + row * channels, *new_c = c + row * channels;
        INDEPENDENT for (int64_t i = first_channel; i < end_channel; i++) {
            float enter = sigmoid(in[i] + re[i]), keep = sigmoid(in[channels + i] + re[channels + i]);
            float fresh = tangent(in[2 * channels + i] + re[2 * channels + i]);
            float show = sigmoid(in[3 * channels + i] + re[3 * channels + i]);
            float state = keep * was[i] + enter * fresh;
            new_c[i] = state;
            new_h[i] = show * tangent(state);
        }
    }
}
