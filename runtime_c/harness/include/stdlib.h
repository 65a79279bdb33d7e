/* What x86 vector headers declare functions of their own with; models neither call nor need these. */
#ifndef BITC_HARNESS_STDLIB_H
#define BITC_HARNESS_STDLIB_H

#include <stddef.h>

void *malloc(size_t bytes);
void free(void *memory);

#endif
