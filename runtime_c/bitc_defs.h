/* bitc_defs.h - what every generated file assumes about the compiler. Freestanding C99. */
#ifndef BITC_DEFS_H
#define BITC_DEFS_H

#include <float.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#if INT_MAX < 2147483647
#error "bitc: int must have at least 32 bits"
#endif

/* Results are the same bits on every target: each float operation rounds once, none is fused or reordered. */
#if defined(__FAST_MATH__)
#error "bitc: compile without -ffast-math"
#endif
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error "bitc: float arithmetic must be float32 (on 32-bit x86 add -msse2 -mfpmath=sse)"
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__) && !defined(__STRICT_ANSI__) && (defined(__FMA__) || defined(__ARM_FEATURE_FMA))
#pragma GCC optimize("fp-contract=off") /* the default of -std=gnu99 is to fuse */
#endif

/* Packed rows are copied by bytes: bit i of a row is bit i % 8 of byte i / 8. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bitc: the target must be little-endian"
#endif

#if defined(__GNUC__)
#define BITC_INLINE static inline __attribute__((always_inline, unused))
/* Kernels stay functions of their own: in one large function registers spill, 1.5 times the instructions were seen. */
#define BITC_KERNEL static __attribute__((noinline))
#define BITC_ALIAS __attribute__((may_alias))
#else
#define BITC_INLINE static inline
#define BITC_KERNEL static
#define BITC_ALIAS
#endif

/* Words that may be read and written whatever the memory holds. */
typedef uint8_t bitc_u8;
typedef uint16_t BITC_ALIAS bitc_u16;
typedef uint32_t BITC_ALIAS bitc_u32;
typedef uint64_t BITC_ALIAS bitc_u64;
typedef float BITC_ALIAS bitc_f32;

/* For constant arrays. */
#if defined(__GNUC__)
#define BITC_INF_CONST (__builtin_inff())
#define BITC_NAN_CONST (__builtin_nanf(""))
#else
#define BITC_INF_CONST (1.0f / 0.0f)
#define BITC_NAN_CONST (0.0f / 0.0f)
#endif

#define BITC_STATIC_ASSERT(name, condition) typedef char bitc_assert_##name[(condition) ? 1 : -1]

/* The upper word of a product, plus a number: one instruction on Armv7E-M, where compilers take two. */
BITC_INLINE int32_t bitc_upper(int32_t a, int32_t b, int32_t plus) {
#if defined(__GNUC__) && defined(__thumb2__) && defined(__ARM_FEATURE_DSP) && !defined(__ARM_FEATURE_MVE)
    int32_t upper;
    __asm__("smmla %0, %1, %2, %3" : "=r"(upper) : "r"(a), "r"(b), "r"(plus));
    return upper;
#else
    return (int32_t)(((int64_t)a * b) >> 32) + plus;
#endif
}

/* Float bits, without a library call. */
BITC_INLINE uint32_t bitc_bits(float x) {
    union {
        float f;
        uint32_t u;
    } v;
    v.f = x;
    return v.u;
}

BITC_INLINE float bitc_float(uint32_t u) {
    union {
        float f;
        uint32_t u;
    } v;
    v.u = u;
    return v.f;
}

#endif
