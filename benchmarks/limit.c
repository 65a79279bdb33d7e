/* The register-only limit of a CPU: XOR, popcount and addition with nothing loaded or stored, eight sums at a time. */
#include <stdint.h>

void bitc_limit(int32_t rounds);

#if defined(__AVX512VPOPCNTDQ__)
#include <immintrin.h>
typedef __m512i vector_t;
#define STEP(n, x, w) _mm512_add_epi64(n, _mm512_popcnt_epi64(_mm512_xor_si512(x, w)))
#define KEEP "v"
#elif defined(__AVX2__)
#include <immintrin.h>
typedef __m256i vector_t;
#define KEEP "x"
static inline __m256i count(__m256i n, __m256i v) {
    const __m256i half = _mm256_set1_epi8(15);
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                           2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(v, half));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), half));
    return _mm256_add_epi8(n, _mm256_add_epi8(low, high));
}
#define STEP(n, x, w) count(n, _mm256_xor_si256(x, w))
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
typedef v128_t vector_t;
#define STEP(n, x, w) wasm_i8x16_add(n, wasm_i8x16_popcnt(wasm_v128_xor(x, w)))
#else
typedef uint64_t vector_t;
#define STEP(n, x, w) (n + (uint64_t)__builtin_popcountll(x ^ w))
#define KEEP "r"
#endif

enum { SUMS = 8 };
vector_t bitc_limit_sums[SUMS];

/* Bits that one round compares. */
const int32_t bitc_limit_bits = SUMS * (int32_t)sizeof(vector_t) * 8;

void bitc_limit(int32_t rounds) {
    vector_t n[SUMS] = {0};
    vector_t x = bitc_limit_sums[0];
    const vector_t w = bitc_limit_sums[1];
    for (int32_t i = 0; i < rounds; i++) {
        for (int j = 0; j < SUMS; j++) {
#ifdef KEEP
            __asm__ volatile("" : "+" KEEP(x)); /* so that the XOR is not moved out of the loop */
            n[j] = STEP(n[j], x, w);
#else
            n[j] = STEP(n[j], n[(j + 1) % SUMS], w); /* no assembly there: take what changes */
#endif
        }
    }
    for (int j = 0; j < SUMS; j++) {
        bitc_limit_sums[j] = n[j];
    }
}
