/* A model by hand, of the shape that bitc generates. */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <stdint.h>

#define SAMPLE_ARENA_BYTES 64
#define SAMPLE_ARENA_ALIGN 16

typedef struct {
    float x[16];
    uint32_t bits[8];
    int32_t mode;
} sample_input_t;
typedef struct {
    float y[4];
    uint64_t product;
    uint32_t matches[4];
    int32_t quotient;
    int32_t rest;
} sample_output_t;

int sample_run(void *arena, const sample_input_t *in, sample_output_t *out);

#ifdef SAMPLE_HOOKS
typedef void (*sample_hook_t)(void *user, int layer, const void *data, unsigned long bytes);
int sample_run_hooked(void *arena, const sample_input_t *in, sample_output_t *out, sample_hook_t hook, void *user);
#endif

#endif
