/* Messages along the edges of many small graphs (GINE), with dropout of nodes and edges, on a CPU.
 *
 * Rows of nodes and edges are (rows, channels); model m has the rows starts[m] to starts[m + 1]. A hash of the seed and
 * the place of an entry decides whether it is dropped, so that no mask is stored.
 */
#include "elementary.h"

INLINE uint32_t mixed(uint32_t x) {
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ (x >> 16);
}
INLINE float factor(uint32_t place, uint32_t seed, uint32_t cut, float scale) {
    return mixed(mixed(place) ^ seed) >= cut ? scale : 0.0f;
}

/* The sum over nodes of what remains of them, and of the messages that reach them. */
void messages_forward(const float *node, const float *edge, const int64_t *ends, const int64_t *node_starts,
                      const int64_t *edge_starts, const int64_t *seeds, float *total, int64_t cut, int64_t channels,
                      int64_t first_row, int64_t end_row, int64_t first_channel, int64_t end_channel) {
    uint32_t least = (uint32_t)cut, node_seed = (uint32_t)seeds[0], edge_seed = (uint32_t)seeds[1];
    float scale = (float)(4294967296.0 / (4294967296.0 - (double)cut));
    for (int64_t m = first_row; m < end_row; m++) {
        for (int64_t row = node_starts[m]; row < node_starts[m + 1]; row++) {
            const float *x = node + row * channels;
            float *out = total + row * channels;
            uint32_t place = (uint32_t)(row * channels);
            INDEPENDENT for (int64_t c = first_channel; c < end_channel; c++)
                out[c] = x[c] * factor(place + (uint32_t)c, node_seed, least, scale);
        }
        for (int64_t e = edge_starts[m]; e < edge_starts[m + 1]; e++) {
            int64_t a = ends[2 * e], b = ends[2 * e + 1];
            const float *left = node + a * channels, *right = node + b * channels, *own = edge + e * channels;
            float *to_a = total + a * channels, *to_b = total + b * channels;
            uint32_t at_a = (uint32_t)(a * channels), at_b = (uint32_t)(b * channels), at = (uint32_t)(e * channels);
            INDEPENDENT for (int64_t c = first_channel; c < end_channel; c++) {
                float between = own[c] * factor(at + (uint32_t)c, edge_seed, least, scale);
                float u = left[c] * factor(at_a + (uint32_t)c, node_seed, least, scale) + between;
                float v = right[c] * factor(at_b + (uint32_t)c, node_seed, least, scale) + between;
                to_b[c] += u < 0.0f ? 0.0f : u;
                to_a[c] += v < 0.0f ? 0.0f : v;
            }
        }
    }
}

/* Gradients of nodes and edges. */
void messages_backward(const float *node, const float *edge, const int64_t *ends, const int64_t *node_starts,
                       const int64_t *edge_starts, const int64_t *seeds, const float *gradient, float *d_node,
                       float *d_edge, int64_t cut, int64_t channels, int64_t first_row, int64_t end_row,
                       int64_t first_channel, int64_t end_channel) {
    uint32_t least = (uint32_t)cut, node_seed = (uint32_t)seeds[0], edge_seed = (uint32_t)seeds[1];
    float scale = (float)(4294967296.0 / (4294967296.0 - (double)cut));
    int64_t width = (end_channel - first_channel) * (int64_t)sizeof(float);
    for (int64_t m = first_row; m < end_row; m++) {
        for (int64_t row = node_starts[m]; row < node_starts[m + 1]; row++)
            memcpy(d_node + row * channels + first_channel, gradient + row * channels + first_channel, (size_t)width);
        for (int64_t e = edge_starts[m]; e < edge_starts[m + 1]; e++) {
            int64_t a = ends[2 * e], b = ends[2 * e + 1];
            const float *left = node + a * channels, *right = node + b * channels, *own = edge + e * channels;
            const float *from_a = gradient + a * channels, *from_b = gradient + b * channels;
            float *d_left = d_node + a * channels, *d_right = d_node + b * channels, *d_own = d_edge + e * channels;
            uint32_t at_a = (uint32_t)(a * channels), at_b = (uint32_t)(b * channels), at = (uint32_t)(e * channels);
            INDEPENDENT for (int64_t c = first_channel; c < end_channel; c++) {
                float kept = factor(at + (uint32_t)c, edge_seed, least, scale), between = own[c] * kept;
                float u = left[c] * factor(at_a + (uint32_t)c, node_seed, least, scale) + between;
                float v = right[c] * factor(at_b + (uint32_t)c, node_seed, least, scale) + between;
                float along = u > 0.0f ? from_b[c] : 0.0f, back = v > 0.0f ? from_a[c] : 0.0f;
                d_left[c] += along;
                d_right[c] += back;
                d_own[c] = (along + back) * kept;
            }
        }
        for (int64_t row = node_starts[m]; row < node_starts[m + 1]; row++) {
            float *d = d_node + row * channels;
            uint32_t place = (uint32_t)(row * channels);
            INDEPENDENT for (int64_t c = first_channel; c < end_channel; c++)
                d[c] *= factor(place + (uint32_t)c, node_seed, least, scale);
        }
    }
}
