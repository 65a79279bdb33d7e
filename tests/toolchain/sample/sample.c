#include "sample.h"

#include <string.h>

#include "sample_weights.h"

static uint32_t popcount32(uint32_t v) {
    v = v - ((v >> 1) & 0x55555555u);
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0fu;
    return (v * 0x01010101u) >> 24;
}

/* 256 bytes of stack on purpose: tests look for them. */
static uint32_t mix(const uint32_t *bits) {
    volatile uint32_t table[64];
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 64u; i++) {
        table[i] = bits[i % 8u] + i;
    }
    for (uint32_t i = 0; i < 64u; i += 7u) {
        sum += table[i];
    }
    return sum;
}

static void layer0(const sample_input_t *in, uint32_t *matches) {
    for (int row = 0; row < 4; row++) {
        uint32_t count = 0;
        for (int word = 0; word < 8; word++) {
            count += popcount32(in->bits[word] ^ sample_bits[row][word]);
        }
        matches[row] = count;
    }
}

static void layer1(const sample_input_t *in, const uint32_t *matches, float *y) {
    for (int row = 0; row < 4; row++) {
        float sum = (float)(256 - 2 * (int32_t)matches[row]);
        for (int i = 0; i < 16; i++) {
            sum += in->x[i] * sample_scale[(i + row) & 3];
        }
        y[row] = sum * sample_scale[row] + 0.7f;
    }
}

/* mode 1: a bad address; mode 2: never ends; mode 3: an error of its own. Else division and a 64-bit product. */
static int layer2(const sample_input_t *in, sample_output_t *out) {
    if (in->mode == 1) {
        out->rest = *(volatile int32_t *)(uintptr_t)0xF0000000u;
    }
    while (in->mode == 2) {
        (void)*(const volatile int32_t *)&in->mode;
    }
    const int32_t divisor = (int32_t)(in->bits[1] % 1000u) + 1;
    out->quotient = (int32_t)in->bits[0] / divisor;
    out->rest = (int32_t)in->bits[0] % divisor;
    out->product = (uint64_t)in->bits[2] * in->bits[3] + mix(in->bits);
    out->product += out->product / ((uint64_t)in->bits[4] + 3u);
    return in->mode == 3 ? 7 : 0;
}

#ifdef SAMPLE_HOOKS
#define HOOK(layer, data, bytes) hook(user, layer, data, (unsigned long)(bytes))
int sample_run(void *arena, const sample_input_t *in, sample_output_t *out) {
    (void)arena;
    (void)in;
    (void)out;
    return 0;
}
int sample_run_hooked(void *arena, const sample_input_t *in, sample_output_t *out, sample_hook_t hook, void *user) {
#else
#define HOOK(layer, data, bytes) ((void)0)
int sample_run(void *arena, const sample_input_t *in, sample_output_t *out) {
#endif
    uint32_t *matches = arena;
    memset(out, 0, sizeof *out);
    layer0(in, matches);
    HOOK(0, matches, 4 * sizeof *matches);
    layer1(in, matches, out->y);
    HOOK(1, out->y, sizeof out->y);
    memcpy(out->matches, matches, sizeof out->matches);
    const int code = layer2(in, out);
    HOOK(2, &out->product, sizeof out->product);
    return code;
}
