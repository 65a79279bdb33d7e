/* Counts instructions for the unicorn engine: its block hook, in C because a Python callback is 10 to 100 times
   slower. A block's count is found once, by decoding the lengths of its instructions, and kept. */
#include <stdint.h>

enum { FIXED = 0, THUMB = 1, COMPRESSED = 2 };

typedef struct {
    uint64_t instructions; /* the result */
    uint64_t base;         /* address of the first byte of code */
    uint64_t bytes;        /* size of code */
    const uint8_t *code;
    uint32_t *known; /* one entry per halfword of code: block size << 16 | instructions; starts as zeros */
    uint32_t form;   /* FIXED: four bytes each; THUMB, COMPRESSED (RISC-V C): two or four */
} bitc_counter_t;

void bitc_count(void *engine, uint64_t address, uint32_t size, bitc_counter_t *counter);

static uint32_t decode(const bitc_counter_t *counter, uint64_t at, uint32_t size) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < size; count++) {
        const uint32_t low = counter->code[at + i];
        const uint32_t high = counter->code[at + i + 1u];
        const int is_long = counter->form == THUMB ? high >= 0xE8u : (low & 3u) == 3u;
        i += is_long ? 4u : 2u;
    }
    return count;
}

void bitc_count(void *engine, uint64_t address, uint32_t size, bitc_counter_t *counter) {
    (void)engine;
    const uint64_t at = address - counter->base;
    if (counter->form == FIXED) {
        counter->instructions += size / 4u;
        return;
    }
    if (at + size > counter->bytes || size >= 0x10000u) {
        return; /* outside of the program: the engine reports the fault */
    }
    uint32_t *const known = &counter->known[at / 2u];
    if (*known >> 16 != size) {
        *known = size << 16 | decode(counter, at, size);
    }
    counter->instructions += *known & 0xFFFFu;
}
