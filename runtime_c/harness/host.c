/* Timing in process, without a C library: the runner lends the address of clock_gettime. */
#include "harness.h"

typedef struct {
    int64_t seconds, nanoseconds;
} bitc_time_t;
typedef int (*bitc_clock_t)(int clock, bitc_time_t *now);

bitc_clock_t bitc_clock;
enum { MONOTONIC = 1, MAX_LAYERS = 4096 };

static int64_t now(void) {
    bitc_time_t t;
    (void)bitc_clock(MONOTONIC, &t);
    return t.seconds * 1000000000 + t.nanoseconds;
}

/* Nanoseconds that `times` calls take together. */
int64_t bitc_repeat(int32_t times);
int64_t bitc_repeat(int32_t times) {
    const int64_t start = now();
    for (int32_t i = 0; i < times; i++) {
        (void)BITC_MODEL(_run)(bitc_arena, &bitc_in, &bitc_out);
    }
    return now() - start;
}

#if BITC_HOOKS
/* Nanoseconds from the start of the last hooked call to each of its hooks. */
int64_t bitc_hook_times[MAX_LAYERS];
static int32_t hooks;
static int64_t hook_start;

static void hook(void *user, int layer, const void *data, unsigned long bytes) {
    (void)user;
    (void)layer;
    (void)data;
    (void)bytes;
    if (hooks < MAX_LAYERS) {
        bitc_hook_times[hooks++] = now() - hook_start;
    }
}

/* The number of times it wrote. */
int32_t bitc_time_hooks(void);
int32_t bitc_time_hooks(void) {
    hooks = 0;
    hook_start = now();
    (void)BITC_MODEL(_run_hooked)(bitc_arena, &bitc_in, &bitc_out, hook, NULL);
    return hooks;
}
#endif
