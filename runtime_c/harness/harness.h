/* What the harness knows of the model under test. The build passes, as macros:
   BITC_HEADER       the model's header, quoted
   BITC_PREFIX       its prefix, as in PREFIX_run
   BITC_ARENA_BYTES  the macros of its header that hold size
   BITC_ARENA_ALIGN  and alignment of the arena, in bytes
   BITC_HOOKS        1 if the model was compiled with its per-layer hooks */
#ifndef BITC_HARNESS_H
#define BITC_HARNESS_H

#include <stddef.h>
#include <stdint.h>

#include BITC_HEADER

#define BITC_JOIN_(a, b) a##b
#define BITC_JOIN(a, b) BITC_JOIN_(a, b)
#define BITC_MODEL(suffix) BITC_JOIN(BITC_PREFIX, suffix)

extern unsigned char bitc_arena[];
extern BITC_MODEL(_input_t) bitc_in;
extern BITC_MODEL(_output_t) bitc_out;

#endif
