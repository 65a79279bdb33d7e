/* Reset code of an emulated Cortex-M board: runs every sample of the file in.bin through the model and writes out.bin,
   stat.bin and hooks.bin, by semihosting. BITC_COUNTER is the address of a free-running counter. */
#include "harness.h"

extern uint32_t bitc_stack_top;

enum { SYS_OPEN = 1, SYS_WRITE0 = 4, SYS_WRITE = 5, SYS_READ = 6, SYS_EXIT_EXTENDED = 0x20 };
enum { MODE_RB = 1, MODE_WB = 5, STOPPED_EXIT = 0x20026 };
#define PAINT 0xA5A5A5A5u

static int32_t semihost(int32_t operation, const void *argument) {
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static int32_t file_open(const char *name, size_t length, uint32_t mode) {
    const uintptr_t block[3] = {(uintptr_t)name, mode, length};
    return semihost(SYS_OPEN, block);
}

/* Bytes that were not read. */
static size_t file_read(int32_t file, void *data, size_t bytes) {
    const uintptr_t block[3] = {(uintptr_t)file, (uintptr_t)data, bytes};
    return (size_t)semihost(SYS_READ, block);
}

static void file_write(int32_t file, const void *data, size_t bytes) {
    const uintptr_t block[3] = {(uintptr_t)file, (uintptr_t)data, bytes};
    (void)semihost(SYS_WRITE, block);
}

static void leave(uint32_t code) {
    const uint32_t block[2] = {STOPPED_EXIT, code};
    (void)semihost(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}

static uint32_t counter(void) {
    return *(volatile uint32_t *)(uintptr_t)(BITC_COUNTER);
}

static void print_word(const char *text, uint32_t word) {
    char digits[10];
    for (int i = 0; i < 8; i++) {
        const uint32_t nibble = (word >> (28 - 4 * i)) & 15u;
        digits[i] = (char)(nibble < 10u ? '0' + (char)nibble : 'a' + (char)(nibble - 10u));
    }
    digits[8] = '\n';
    digits[9] = 0;
    (void)semihost(SYS_WRITE0, text);
    (void)semihost(SYS_WRITE0, digits);
}

void bitc_fault(const uint32_t *frame);
void bitc_fault(const uint32_t *frame) {
    print_word("bitc fault pc=0x", frame[6]);
    leave(101);
}

__attribute__((naked)) static void fault_entry(void) {
    __asm__ volatile("mov r0, sp\n ldr r1, =bitc_fault\n bx r1\n .ltorg");
}

#if BITC_HOOKS
static int32_t hook_file;
static uint32_t hook_start;
static uint32_t hook_paused; /* counter ticks spent on hooks, which the model must not pay for */
static uint32_t hook_call;   /* those of them that a hook does not see itself */

static void hook(void *user, int layer, const void *data, unsigned long bytes) {
    const uint32_t entered = counter();
    (void)user;
    const uint32_t record[3] = {(uint32_t)layer, (uint32_t)bytes, entered - hook_start - hook_paused};
    file_write(hook_file, record, sizeof record);
    file_write(hook_file, data, bytes);
    hook_paused += counter() - entered + hook_call;
}

static volatile BITC_MODEL(_hook_t) calibrated_hook = hook;

/* Layer -2 is for nobody: the call shows what hooks cost outside of their two readings of the counter. */
static void calibrate_hook(void) {
    hook_call = 0;
    hook_paused = 0;
    const uint32_t start = counter();
    const uint32_t read = counter() - start;
    const uint32_t before = counter();
    calibrated_hook(NULL, -2, NULL, 0);
    hook_call = counter() - before - hook_paused - read;
}
#endif

typedef int (*run_t)(void *arena, const BITC_MODEL(_input_t) * in, BITC_MODEL(_output_t) * out);

/* The two instructions of this function are what a call costs that does nothing. */
static int empty(void *arena, const BITC_MODEL(_input_t) * in, BITC_MODEL(_output_t) * out) {
    (void)arena;
    (void)in;
    (void)out;
    return 0;
}

static uintptr_t called_at; /* stack pointer at the call */

__attribute__((noinline)) static uint32_t timed(run_t run, int32_t *code) {
    __asm__ volatile("mov %0, sp" : "=r"(called_at));
    const uint32_t start = counter();
    *code = run(bitc_arena, &bitc_in, &bitc_out);
    return counter() - start;
}

#if BITC_HOOKS
static int run_hooked(void *arena, const BITC_MODEL(_input_t) * in, BITC_MODEL(_output_t) * out) {
    calibrate_hook();
    hook_paused = 0;
    hook_start = counter();
    const int code = BITC_MODEL(_run_hooked)(arena, in, out, hook, NULL);
    const uint32_t end[3] = {UINT32_MAX, 0, counter() - hook_start - hook_paused}; /* closes the sample */
    file_write(hook_file, end, sizeof end);
    return code;
}
static volatile run_t run_under_test = run_hooked;
#else
static volatile run_t run_under_test = BITC_MODEL(_run);
#endif
static volatile run_t run_empty = empty;

/* One record per sample in stat.bin; with hooks, ticks are worth nothing and hooks.bin has them. */
typedef struct {
    int32_t code;
    uint32_t ticks, empty_ticks, stack_bytes;
} stat_t;

__attribute__((noinline)) static void run_all(uint32_t *stack_low) {
    const int32_t in_file = file_open("in.bin", 6, MODE_RB);
    const int32_t out_file = file_open("out.bin", 7, MODE_WB);
    const int32_t stat_file = file_open("stat.bin", 8, MODE_WB);
#if BITC_HOOKS
    hook_file = file_open("hooks.bin", 9, MODE_WB);
#endif
    uint32_t *top; /* the stack pointer: what is below is free, and the loops that paint and look call nothing */
    __asm__ volatile("mov %0, sp" : "=r"(top));
    while (file_read(in_file, &bitc_in, sizeof bitc_in) == 0u) {
        stat_t stat = {0};
        int32_t ignored;
        stat.empty_ticks = timed(run_empty, &ignored);
        for (volatile uint32_t *p = stack_low; p < top; p++) {
            *p = PAINT;
        }
        stat.ticks = timed(run_under_test, &stat.code);
        const volatile uint32_t *low = stack_low;
        while (low < top && *low == PAINT) {
            low++;
        }
        stat.stack_bytes = (uint32_t)(called_at - (uintptr_t)low);
        file_write(out_file, &bitc_out, sizeof bitc_out);
        file_write(stat_file, &stat, sizeof stat);
    }
    leave(0);
}

void bitc_reset(void);
void bitc_reset(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    run_all(&bitc_stack_top - BITC_STACK_BYTES / 4u);
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[] = {
    (uintptr_t)&bitc_stack_top, (uintptr_t)bitc_reset,  (uintptr_t)fault_entry, (uintptr_t)fault_entry,
    (uintptr_t)fault_entry,     (uintptr_t)fault_entry, (uintptr_t)fault_entry,
};
