/* Kernel of random-feature attention on a CPU: sums over all pairs of keys of two sets, one call for a range of sets.
 *
 * Directions of the keys of the rows are (sets, n, d), those of the columns are transposed, (sets, d, m). The output
 * holds the cosines between the queries at first. If both sides are the same sets, the lower half is a copy, and rows are
 * taken from both ends in turn, so that threads share the work.
 */
#include "elementary.h"

#define BLOCK 64
#define EACH INDEPENDENT for (int64_t j = 0; j < width; j++)

/* asin(sqrt(z)) / sqrt(z) for z up to 1/4, as Chebyshev polynomials of this library: errors 5e-9 and 2e-17. */
INLINE float quotient_float(float z) {
    float p = 4.2417373e-2f;
    p = p * z + 2.39939997e-2f;
    p = p * z + 4.55206356e-2f;
    p = p * z + 7.49469669e-2f;
    p = p * z + 1.66667820e-1f;
    return p * z + 9.99999996e-1f;
}
INLINE double quotient_double(double z) {
    double p = 3.1879621400812839426e-2;
    p = p * z - 1.6187392271599133212e-2;
    p = p * z + 1.9513468251252168004e-2;
    p = p * z + 6.5293020047365692817e-3;
    p = p * z + 1.217013859239172629e-2;
    p = p * z + 1.3884842826402080755e-2;
    p = p * z + 1.7359779641349980067e-2;
    p = p * z + 2.2371749733164054133e-2;
    p = p * z + 3.0381959697685138233e-2;
    p = p * z + 4.4642856805998938418e-2;
    p = p * z + 7.5000000003852016734e-2;
    p = p * z + 1.666666666666494118e-1;
    return p * z + 1.0000000000000000128;
}

/* (sqrt(1 - r^2) + (pi - acos r) r) / (2 pi), where pi - acos r is formed without cancellation near r = -1. */
#define DUAL(REAL, ROOT) \
    INLINE REAL dual_##REAL(REAL r) { \
        r = r > (REAL)1 ? (REAL)1 : r; \
        r = r < (REAL)-1 ? (REAL)-1 : r; \
        REAL x = r < 0 ? -r : r; \
        REAL outer = ((REAL)1 - x) * (REAL)0.5, inner = x * x; \
        REAL z = x > (REAL)0.5 ? outer : inner; \
        REAL far_root = ROOT(outer), a = (x > (REAL)0.5 ? far_root : x) * quotient_##REAL(z); \
        REAL half_pi = (REAL)1.57079632679489661923; \
        REAL near_angle = r < 0 ? half_pi - a : half_pi + a; \
        REAL far_angle = r < 0 ? 2 * a : 2 * (half_pi - a); \
        REAL angle = x > (REAL)0.5 ? far_angle : near_angle; \
        return (ROOT(((REAL)1 - x) * ((REAL)1 + x)) + angle * r) * (REAL)0.15915494309189533577; \
    }
DUAL(float, sqrtf)
DUAL(double, sqrt)

#define KERNEL(NAME, REAL) \
    void NAME(const REAL *rows, const REAL *columns, const REAL *row_weight, \
              const REAL *column_weight, REAL *out, int64_t n, int64_t others, int64_t m, int64_t d, int64_t same, \
              int64_t stride, int64_t first_row, int64_t end_row, int64_t first_column, int64_t end_column) { \
        for (int64_t turn = first_row; turn < end_row; turn++) { \
            int64_t s = !same ? turn : turn % 2 ? others - 1 - turn / 2 : turn / 2; \
            for (int64_t t = same && s > first_column ? s : first_column; t < end_column; t++) { \
                REAL q = out[s * stride + t]; \
                double total = 0; \
                for (int64_t start = 0; start < m; start += BLOCK) { \
                    int64_t width = m - start < BLOCK ? m - start : BLOCK; \
                    const REAL *weights = column_weight + t * m + start; \
                    for (int64_t head = 0; head < n; head += BLOCK) { /* short sums, which lose no digits */ \
                        int64_t end = n - head < BLOCK ? n : head + BLOCK; \
                        REAL sum[BLOCK] = {0}, between[BLOCK]; \
                        for (int64_t i = head; i < end; i++) { \
                            REAL weight = row_weight[s * n + i]; \
                            const REAL *key = rows + (s * n + i) * d; \
                            for (int64_t j = 0; j < BLOCK; j++) between[j] = 0; \
                            for (int64_t c = 0; c < d; c++) { \
                                const REAL *other = columns + (t * d + c) * m + start; \
                                REAL value = key[c]; \
                                EACH between[j] += value * other[j]; \
                            } \
                            EACH sum[j] += weight * dual_##REAL(q * between[j]) * between[j]; \
                        } \
                        for (int64_t j = 0; j < width; j++) total += (double)sum[j] * (double)weights[j]; \
                    } \
                } \
                out[s * stride + t] = (REAL)total; \
                if (same) out[t * stride + s] = (REAL)total; \
            } \
        } \
    }
KERNEL(attention_forward, float)
KERNEL(attention64_forward, double)
