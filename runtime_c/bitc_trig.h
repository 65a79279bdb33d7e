/* bitc_trig.h - trigonometric and hyperbolic functions of float32 without a library, step by step.
 *
 * bitc/ops/trig32.py is the same text in numpy: change both. Each statement rounds once. Polynomials are those of
 * Cephes; errors are the largest found over random arguments, in units in the last place.
 */
#ifndef BITC_TRIG_H
#define BITC_TRIG_H

#include "bitc_math.h"

/* x = q pi/2 + r with |r| <= pi/4; returns r and q modulo 4. Beyond 2^30, where floats lie many turns apart, 0. */
static inline float bitc_quadrant(float x, int32_t *q) {
    if (!(bitc_absf(x) < 1073741824.0f)) {
        *q = 0;
        return x - x; /* NaN for infinity and NaN */
    }
    double d = (double)x;
    double n = d * 0.63661977236758138;
    n = n + 6755399441055744.0; /* 1.5 * 2^52: rounds to an integer */
    n = n - 6755399441055744.0;
    double t = n * 1.57079632673412561417;
    d = d - t;
    t = n * 6.07710050650619224932e-11;
    d = d - t;
    *q = (int32_t)n & 3;
    return (float)d;
}

/* sin and cos for |r| <= pi/4. */
static inline float bitc_sin_near(float r) {
    float z = r * r;
    float p = z * -1.9515295891e-4f;
    p = p + 8.3321608736e-3f;
    p = p * z;
    p = p - 1.6666654611e-1f;
    p = p * z;
    p = p * r;
    return p + r;
}

static inline float bitc_cos_near(float r) {
    float z = r * r;
    float p = z * 2.443315711809948e-5f;
    p = p - 1.388731625493765e-3f;
    p = p * z;
    p = p + 4.166664568298827e-2f;
    p = p * z;
    p = p * z;
    float h = z * 0.5f;
    p = p - h;
    return p + 1.0f;
}

/* sin and cos, at most 2 ulp. */
static inline float bitc_sinf(float x) {
    int32_t q;
    float r = bitc_quadrant(x, &q);
    float y = (q & 1) ? bitc_cos_near(r) : bitc_sin_near(r);
    return (q & 2) ? -y : y;
}

static inline float bitc_cosf(float x) {
    int32_t q;
    float r = bitc_quadrant(x, &q);
    float y = (q & 1) ? bitc_sin_near(r) : bitc_cos_near(r);
    return ((q + 1) & 2) ? -y : y;
}

/* tan as sin / cos, at most 3 ulp. */
static inline float bitc_tanf(float x) {
    int32_t q;
    float r = bitc_quadrant(x, &q);
    float s = bitc_sin_near(r);
    float c = bitc_cos_near(r);
    return (q & 1) ? -(c / s) : s / c;
}

/* asin for 0 <= a <= 1/2. */
static inline float bitc_asin_near(float a) {
    float z = a * a;
    float p = z * 4.2163199048e-2f;
    p = p + 2.4181311049e-2f;
    p = p * z;
    p = p + 4.5470025998e-2f;
    p = p * z;
    p = p + 7.4953002686e-2f;
    p = p * z;
    p = p + 1.6666752422e-1f;
    p = p * z;
    p = p * a;
    return p + a;
}

/* asin and acos, at most 3 ulp; NaN outside -1 to 1. Above 1/2, asin(a) = pi/2 - 2 asin(sqrt((1 - a) / 2)). */
static inline float bitc_asinf(float x) {
    float a = bitc_absf(x);
    if (!(a <= 1.0f)) {
        return BITC_NAN;
    }
    float r = a;
    if (a > 0.5f) {
        float z = 1.0f - a;
        z = z * 0.5f;
        z = bitc_sqrtf(z);
        r = bitc_asin_near(z);
        r = r + r;
        r = 1.57079637f - r;
    } else {
        r = bitc_asin_near(a);
    }
    return bitc_with_sign(r, x);
}

static inline float bitc_acosf(float x) {
    float a = bitc_absf(x);
    if (!(a <= 1.0f)) {
        return BITC_NAN;
    }
    if (a > 0.5f) {
        float z = 1.0f - a;
        z = z * 0.5f;
        z = bitc_sqrtf(z);
        float r = bitc_asin_near(z);
        r = r + r;
        return x < 0.0f ? 3.14159274f - r : r;
    }
    float r = bitc_asin_near(a);
    return x < 0.0f ? 1.57079637f + r : 1.57079637f - r;
}

/* atan, at most 3 ulp. */
static inline float bitc_atanf(float x) {
    if (x != x) {
        return x;
    }
    float a = bitc_absf(x);
    float y = 0.0f;
    float t = a;
    if (a > 2.41421366f) {
        y = 1.57079637f;
        t = -1.0f / a;
    } else if (a > 0.414213568f) {
        y = 0.785398185f;
        float d = a + 1.0f;
        t = a - 1.0f;
        t = t / d;
    }
    float z = t * t;
    float p = z * 8.05374449538e-2f;
    p = p - 1.38776856032e-1f;
    p = p * z;
    p = p + 1.99777106478e-1f;
    p = p * z;
    p = p - 3.33329491539e-1f;
    p = p * z;
    p = p * t;
    p = p + t;
    return bitc_with_sign(y + p, x);
}

/* sinh and cosh, at most 4 ulp. */
static inline float bitc_sinhf(float x) {
    float a = bitc_absf(x);
    if (a < 1.0f) {
        float z = x * x;
        float p = z * 2.03721912945e-4f;
        p = p + 8.33028376239e-3f;
        p = p * z;
        p = p + 1.66667160211e-1f;
        p = p * z;
        p = p * x;
        return p + x;
    }
    float h = a * 0.5f;
    float e = bitc_expf(h); /* in two halves: exp(a) alone may overflow */
    float t = e * 0.5f;
    t = t * e;
    float u = 0.25f / t;
    return bitc_with_sign(t - u, x);
}

static inline float bitc_coshf(float x) {
    float h = bitc_absf(x) * 0.5f;
    float e = bitc_expf(h);
    float t = e * 0.5f;
    t = t * e;
    float u = 0.25f / t;
    return t + u;
}

/* asinh, at most 4 ulp. */
static inline float bitc_asinhf(float x) {
    float a = bitc_absf(x);
    float r = a;
    if (a < 0.5f) {
        float z = x * x;
        float p = z * 2.0122003309e-2f;
        p = p - 4.2699340972e-2f;
        p = p * z;
        p = p + 7.4847586088e-2f;
        p = p * z;
        p = p - 1.6666288134e-1f;
        p = p * z;
        p = p * a;
        r = p + a;
    } else if (a > 1500.0f) {
        r = bitc_logf(a);
        r = r + 0.693147182f;
    } else if (a == a) {
        r = a * a;
        r = r + 1.0f;
        r = bitc_sqrtf(r);
        r = r + a;
        r = bitc_logf(r);
    }
    return x != x ? x : bitc_with_sign(r, x);
}

/* acosh, at most 3 ulp; NaN below 1. */
static inline float bitc_acoshf(float x) {
    if (!(x >= 1.0f)) {
        return BITC_NAN;
    }
    if (x > 1500.0f) {
        float r = bitc_logf(x);
        return r + 0.693147182f;
    }
    float z = x - 1.0f;
    if (z < 0.5f) {
        float p = z * 1.7596881071e-3f;
        p = p - 7.5272886713e-3f;
        p = p * z;
        p = p + 2.6454905019e-2f;
        p = p * z;
        p = p - 1.1784741703e-1f;
        p = p * z;
        p = p + 1.4142135263f;
        float s = bitc_sqrtf(z);
        return p * s;
    }
    float t = x + 1.0f;
    t = t * z;
    t = bitc_sqrtf(t);
    t = t + x;
    return bitc_logf(t);
}

/* atanh, at most 3 ulp; NaN outside -1 to 1. */
static inline float bitc_atanhf(float x) {
    float a = bitc_absf(x);
    if (!(a <= 1.0f)) {
        return BITC_NAN;
    }
    if (a < 0.5f) {
        float z = x * x;
        float p = z * 1.81740078349e-1f;
        p = p + 8.24370301058e-2f;
        p = p * z;
        p = p + 1.46691431730e-1f;
        p = p * z;
        p = p + 1.99782164500e-1f;
        p = p * z;
        p = p + 3.33337300303e-1f;
        p = p * z;
        p = p * x;
        return p + x;
    }
    float n = 1.0f + a;
    float d = 1.0f - a;
    float r = bitc_logf(n / d);
    r = r * 0.5f;
    return bitc_with_sign(r, x);
}

#endif
