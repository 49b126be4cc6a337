/* Elementary functions for loops that a compiler vectorizes, since those of the C library stop it. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif
#define INLINE static inline __attribute__((always_inline))

/* Accurate to 2 units in the last place; NaN stays NaN because both comparisons are false for it. */
INLINE float exponential(float x) {
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float n = rintf(x * 1.44269504f), r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return y * scale;
}
INLINE float below(float x) { return x > 0.0f ? 0.0f : x; }
INLINE float size(float x) { return x < 0.0f ? -x : x; }
/* Exactly zero for small x: the clamp in `exponential` would let a huge input pass a closed gate. */
INLINE float vanishing(float x) { float y = exponential(x); return x < -87.0f ? 0.0f : y; }
INLINE float sigmoid(float x) { float e = vanishing(-size(x)), large = 1.0f / (1.0f + e); return x < 0.0f ? e * large : large; }
/* Odd polynomial near zero, where the quotient would lose relative accuracy. */
INLINE float tangent(float x) {
    float z = x * x, far = 2.0f / (1.0f + exponential(-2.0f * x)) - 1.0f;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    float near = p * z * x + x;
    return z < 0.390625f ? near : far;
}
