/* The buffers of a model under test, and the symbols at which a runner starts, stops and listens. A runner writes
   bitc_in, calls PREFIX_run(bitc_arena, &bitc_in, &bitc_out) and reads bitc_out. */
#include "harness.h"

unsigned char bitc_arena[BITC_ARENA_BYTES > 0 ? BITC_ARENA_BYTES : 1] __attribute__((aligned(BITC_ARENA_ALIGN)));
BITC_MODEL(_input_t) bitc_in;
BITC_MODEL(_output_t) bitc_out;

/* Bytes of input and output, for object formats whose symbols have no size. */
const uint32_t bitc_sizes[2] = {(uint32_t)sizeof bitc_in, (uint32_t)sizeof bitc_out};

#if defined(__wasm__)
#if BITC_HOOKS
__attribute__((import_module("bitc"), import_name("hook"))) void bitc_hook(void *user, int layer, const void *data,
                                                                           unsigned long bytes);
int bitc_run_hooked(void);
int bitc_run_hooked(void) {
    return BITC_MODEL(_run_hooked)(bitc_arena, &bitc_in, &bitc_out, bitc_hook, NULL);
}
#endif
#else
/* An emulator watches this address: nothing but a return, so that hooks cost one instruction each. */
void bitc_mark(void *user, int layer, const void *data, unsigned long bytes);
__attribute__((noinline)) void bitc_mark(void *user, int layer, const void *data, unsigned long bytes) {
    (void)user;
    (void)layer;
    (void)data;
    (void)bytes;
}

/* Return address of the call under test: the emulator stops before it. */
void bitc_stop(void);
__attribute__((noinline)) void bitc_stop(void) {
    for (;;) {
    }
}
#endif
