/* bitc_math.h - float32 functions without a library, step by step, so that every target gives the same bits.
 *
 * bitc/ops/math32.py is the same text in numpy: change both. Each statement rounds once. Errors are the largest found
 * over all float32 (one argument) or over random arguments (pow), in units in the last place.
 */
#ifndef BITC_MATH_H
#define BITC_MATH_H

#include "bitc_defs.h"

#define BITC_INF bitc_float(0x7F800000u)
#define BITC_NAN bitc_float(0x7FC00000u)

/* 2 to the power n, -126 <= n <= 127. */
BITC_INLINE float bitc_pow2i(int32_t n) {
    return bitc_float((uint32_t)(n + 127) << 23);
}

/* The sign of s on x >= 0. */
BITC_INLINE float bitc_with_sign(float x, float s) {
    return bitc_float((bitc_bits(x) & 0x7FFFFFFFu) | (bitc_bits(s) & 0x80000000u));
}

BITC_INLINE float bitc_absf(float x) {
    return bitc_float(bitc_bits(x) & 0x7FFFFFFFu);
}

/* Exact: truncate, floor, ceiling, nearest with ties to even. The sign of zero is kept. */
BITC_INLINE float bitc_truncf(float x) {
    if (!(bitc_absf(x) < 8388608.0f)) {
        return x;
    }
    return bitc_with_sign((float)(int32_t)x, x);
}

BITC_INLINE float bitc_floorf(float x) {
    float t = bitc_truncf(x);
    return t > x ? t - 1.0f : t;
}

BITC_INLINE float bitc_ceilf(float x) {
    float t = bitc_truncf(x);
    return t < x ? bitc_with_sign(t + 1.0f, x) : t;
}

BITC_INLINE float bitc_roundf(float x) {
    float a = bitc_absf(x);
    if (!(a < 8388608.0f)) {
        return x;
    }
    a = a + 8388608.0f;
    a = a - 8388608.0f;
    return bitc_with_sign(a, x);
}

/* The nearest number with `mantissa` bits behind the point, or a multiple of the smallest subnormal where the exponent
 * is below `least`; halves to even. Every step is exact but the one that rounds. */
BITC_INLINE float bitc_narrowf(float x, int mantissa, int least) {
    const uint32_t bits = bitc_bits(x) & 0x7fffffffu;
    if (bits >= 0x7f800000u) {
        return x;
    }
    int exponent = (int)(bits >> 23) - 127;
    exponent = (exponent < least ? least : exponent) - mantissa;
    const float quantum =
        exponent < -126 ? bitc_float(1u << (exponent + 149)) : bitc_float((uint32_t)(exponent + 127) << 23);
    float t = x / quantum;
    t = bitc_roundf(t);
    return t * quantum;
}

/* exp, at most 1 ulp. n = round(x / ln 2), r = x - n ln 2, polynomial of Cephes on r, scaled by 2^n in two steps. */
static inline float bitc_expf(float x) {
    if (x != x) {
        return x;
    }
    if (x > 88.8f) {
        return BITC_INF;
    }
    if (x < -104.0f) {
        return 0.0f;
    }
    float n = x * 1.44269504f;
    n = bitc_roundf(n);
    float r = n * 0.693359375f;
    r = x - r;
    float t = n * -2.12194440e-4f;
    r = r - t;
    float p = r * 1.9875691500e-4f;
    p = p + 1.3981999507e-3f;
    p = p * r;
    p = p + 8.3334519073e-3f;
    p = p * r;
    p = p + 4.1665795894e-2f;
    p = p * r;
    p = p + 1.6666665459e-1f;
    p = p * r;
    p = p + 5.0000001201e-1f;
    float q = r * r;
    p = p * q;
    p = p + r;
    p = p + 1.0f;
    int32_t e = (int32_t)n;
    int32_t h = e / 2;
    p = p * bitc_pow2i(h);
    p = p * bitc_pow2i(e - h);
    return p;
}

/* Natural logarithm, at most 1 ulp. x = m 2^e with sqrt(1/2) <= m < sqrt(2), polynomial of Cephes on m - 1. */
static inline float bitc_logf(float x) {
    if (x != x || x < 0.0f) {
        return BITC_NAN;
    }
    if (x == 0.0f) {
        return -BITC_INF;
    }
    if (x == BITC_INF) {
        return x;
    }
    int32_t e = 0;
    if (x < 1.17549435e-38f) {
        x = x * 8388608.0f;
        e = -23;
    }
    uint32_t u = bitc_bits(x) - 0x3F3504F3u;
    e = e + (int32_t)(u >> 23) - ((u & 0x80000000u) ? 512 : 0);
    float m = bitc_float((u & 0x007FFFFFu) + 0x3F3504F3u);
    float f = (float)e;
    float z = m - 1.0f;
    float q = z * z;
    float p = z * 7.0376836292e-2f;
    p = p - 1.1514610310e-1f;
    p = p * z;
    p = p + 1.1676998740e-1f;
    p = p * z;
    p = p - 1.2420140846e-1f;
    p = p * z;
    p = p + 1.4249322787e-1f;
    p = p * z;
    p = p - 1.6668057665e-1f;
    p = p * z;
    p = p + 2.0000714765e-1f;
    p = p * z;
    p = p - 2.4999993993e-1f;
    p = p * z;
    p = p + 3.3333331174e-1f;
    p = p * z;
    p = p * q;
    float t = f * -2.12194440e-4f;
    p = p + t;
    t = q * 0.5f;
    p = p - t;
    z = z + p;
    t = f * 0.693359375f;
    return z + t;
}

/* tanh, at most 2 ulp. Polynomial below 0.625, 1 - 2 / (exp(2|x|) + 1) above. */
static inline float bitc_tanhf(float x) {
    if (x != x) {
        return x;
    }
    float a = bitc_absf(x);
    float r = 1.0f;
    if (a < 0.625f) {
        float z = x * x;
        float p = z * -5.70498872745e-3f;
        p = p + 2.06390887954e-2f;
        p = p * z;
        p = p - 5.37397155531e-2f;
        p = p * z;
        p = p + 1.33314422036e-1f;
        p = p * z;
        p = p - 3.33332819422e-1f;
        p = p * z;
        p = p * a;
        r = p + a;
    } else if (a < 9.1f) {
        float e = bitc_expf(a + a);
        e = e + 1.0f;
        e = 2.0f / e;
        r = 1.0f - e;
    }
    return bitc_with_sign(r, x);
}

/* 1 / (1 + exp(-x)), at most 3 ulp. */
static inline float bitc_sigmoidf(float x) {
    float e = bitc_expf(-bitc_absf(x));
    float d = e + 1.0f;
    return x < 0.0f ? e / d : 1.0f / d;
}

/* erf, at most 3 ulp. x P(x^2) up to 1; 1 - exp(Q(|x|)) up to 4; fitted by reweighted least squares. */
static inline float bitc_erff(float x) {
    if (x != x) {
        return x;
    }
    float a = bitc_absf(x);
    float r = 1.0f;
    if (a <= 1.0f) {
        float z = x * x;
        float p = z * 7.889119297e-05f;
        p = p - 8.020841051e-04f;
        p = p * z;
        p = p + 5.189535208e-03f;
        p = p * z;
        p = p - 2.685444430e-02f;
        p = p * z;
        p = p + 1.128360033e-01f;
        p = p * z;
        p = p - 3.761262596e-01f;
        p = p * z;
        p = p + 1.128379107e+00f;
        r = p * a;
    } else if (a < 4.0f) {
        float p = a * -2.168685023e-05f;
        p = p + 4.413363640e-04f;
        p = p * a;
        p = p - 4.204561934e-03f;
        p = p * a;
        p = p + 2.520825714e-02f;
        p = p * a;
        p = p - 1.084185764e-01f;
        p = p * a;
        p = p - 6.332198977e-01f;
        p = p * a;
        p = p - 1.129578471e+00f;
        p = p * a;
        p = p + 1.880402269e-04f;
        p = bitc_expf(p);
        r = 1.0f - p;
    }
    return bitc_with_sign(r, x);
}

/* Square root, correctly rounded, one bit at a time. */
static inline float bitc_sqrtf(float x) {
    if (x != x || x == 0.0f || x == BITC_INF) {
        return x;
    }
    if (x < 0.0f) {
        return BITC_NAN;
    }
    int32_t e = 0;
    if (x < 1.17549435e-38f) {
        x = x * 16777216.0f;
        e = -12;
    }
    uint32_t m = bitc_bits(x);
    int32_t k = (int32_t)(m >> 23) - 127;
    m = (m & 0x007FFFFFu) | 0x00800000u;
    if (k & 1) {
        m = m + m;
        k = k - 1;
    }
    e = e + k / 2;
    m = m + m;
    uint32_t q = 0;
    uint32_t s = 0;
    for (uint32_t r = 0x01000000u; r != 0; r >>= 1) {
        uint32_t t = s + r;
        if (t <= m) {
            s = t + r;
            m = m - t;
            q = q + r;
        }
        m = m + m;
    }
    if (m != 0) {
        q = q + (q & 1u);
    }
    return bitc_float((q >> 1) + (uint32_t)(e + 126) * 0x00800000u);
}

/* The remainder of x / y with the sign of x, exact: long division of the mantissas. */
static inline float bitc_fmodf(float x, float y) {
    float a = bitc_absf(x);
    float b = bitc_absf(y);
    if (!(a < BITC_INF) || b == 0.0f || y != y) {
        return BITC_NAN;
    }
    if (a < b) {
        return x;
    }
    int32_t ea = (int32_t)(bitc_bits(a) >> 23);
    int32_t eb = (int32_t)(bitc_bits(b) >> 23);
    uint32_t ma = bitc_bits(a) & 0x007FFFFFu;
    uint32_t mb = bitc_bits(b) & 0x007FFFFFu;
    ma = ea ? ma | 0x00800000u : ma;
    mb = eb ? mb | 0x00800000u : mb;
    ea = ea ? ea : 1;
    eb = eb ? eb : 1;
    ma = ma % mb;
    for (; ea > eb; ea--) {
        ma = (ma + ma) % mb;
    }
    if (ma == 0) {
        return bitc_with_sign(0.0f, x);
    }
    while (ma < 0x00800000u && ea > 1) {
        ma = ma + ma;
        ea--;
    }
    uint32_t u = ma < 0x00800000u ? ma : ma + ((uint32_t)(ea - 1) << 23);
    return bitc_with_sign(bitc_float(u), x);
}

/* The remainder of x / y with the sign of y. */
static inline float bitc_modf(float x, float y) {
    float r = bitc_fmodf(x, y);
    if (r == 0.0f) {
        return bitc_with_sign(0.0f, y);
    }
    return (r < 0.0f) != (y < 0.0f) ? r + y : r;
}

/* x to the power y as in C99's pow, at most 1 ulp: exp(y log |x|) in float64, then rounded. */
static inline float bitc_powf(float x, float y) {
    if (y == 0.0f || x == 1.0f) {
        return 1.0f;
    }
    if (x != x || y != y) {
        return BITC_NAN;
    }
    int whole = bitc_truncf(y) == y;
    int odd = whole && bitc_absf(y) < 16777216.0f && ((int32_t)y & 1);
    float sign = odd ? x : 1.0f;
    float a = bitc_absf(x);
    if (a == 0.0f || a == BITC_INF) {
        return bitc_with_sign((a == 0.0f) == (y < 0.0f) ? BITC_INF : 0.0f, sign);
    }
    if (x < 0.0f && !whole) {
        return BITC_NAN;
    }
    if (a == 1.0f) {
        return bitc_with_sign(1.0f, sign);
    }
    union {
        double d;
        uint64_t u;
    } v;
    v.d = (double)a;
    uint64_t u = v.u - 0x3FE6A09E00000000u;
    int32_t e = (int32_t)(u >> 52) - ((u >> 63) ? 4096 : 0);
    v.u = (u & 0x000FFFFFFFFFFFFFu) + 0x3FE6A09E00000000u;
    double f = v.d + 1.0;
    f = (v.d - 1.0) / f;
    double z = f * f;
    double p = z / 15.0;
    p = p + 1.0 / 13.0;
    p = p * z;
    p = p + 1.0 / 11.0;
    p = p * z;
    p = p + 1.0 / 9.0;
    p = p * z;
    p = p + 1.0 / 7.0;
    p = p * z;
    p = p + 1.0 / 5.0;
    p = p * z;
    p = p + 1.0 / 3.0;
    p = p * z;
    p = p + 1.0;
    p = p * f;
    p = p + p;
    double t = (double)e * 0.69314718055994531;
    t = t + p;
    t = t * (double)y;
    if (t > 200.0) {
        t = 200.0;
    }
    if (t < -200.0) {
        t = -200.0;
    }
    double n = t * 1.4426950408889634;
    n = n < 0.0 ? n - 0.5 : n + 0.5;
    int32_t i = (int32_t)n;
    double r = (double)i * 0.69314718055994531;
    r = t - r;
    p = 1.0;
    for (int k = 11; k > 0; k--) {
        p = p * r;
        p = p / (double)k;
        p = p + 1.0;
    }
    v.u = (uint64_t)(i + 1023) << 52;
    p = p * v.d;
    return bitc_with_sign((float)p, sign);
}

#endif
