/* memcpy and its kin for programs without a C library. Compile with -fno-builtin, or the loops become calls to
   themselves. Words are moved where both sides are aligned: a byte loop would dominate instruction counts. */
#include <stddef.h>
#include <stdint.h>

typedef uint32_t __attribute__((may_alias)) word_t;

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    unsigned char *d = to;
    const unsigned char *s = from;
    if ((((uintptr_t)d | (uintptr_t)s) & 3u) == 0u) {
        word_t *dw = (word_t *)(void *)d;
        const word_t *sw = (const word_t *)(const void *)s;
        for (; bytes >= 16u; bytes -= 16u, dw += 4, sw += 4) {
            const uint32_t a = sw[0], b = sw[1], c = sw[2], e = sw[3];
            dw[0] = a;
            dw[1] = b;
            dw[2] = c;
            dw[3] = e;
        }
        for (; bytes >= 4u; bytes -= 4u) {
            *dw++ = *sw++;
        }
        d = (unsigned char *)dw;
        s = (const unsigned char *)sw;
    }
    while (bytes-- > 0u) {
        *d++ = *s++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
    unsigned char *d = to;
    const unsigned char *s = from;
    if ((uintptr_t)d <= (uintptr_t)s) {
        while (bytes-- > 0u) {
            *d++ = *s++;
        }
    } else {
        while (bytes-- > 0u) {
            d[bytes] = s[bytes];
        }
    }
    return to;
}

void *memset(void *to, int value, size_t bytes) {
    unsigned char *d = to;
    const unsigned char byte = (unsigned char)value;
    while (bytes > 0u && ((uintptr_t)d & 3u) != 0u) {
        *d++ = byte;
        bytes--;
    }
    const uint32_t word = 0x01010101u * byte;
    for (; bytes >= 4u; bytes -= 4u, d += 4) {
        *(word_t *)(void *)d = word;
    }
    while (bytes-- > 0u) {
        *d++ = byte;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes) {
    const unsigned char *x = a;
    const unsigned char *y = b;
    for (; bytes > 0u; bytes--, x++, y++) {
        if (*x != *y) {
            return *x < *y ? -1 : 1;
        }
    }
    return 0;
}

#if defined(__ARM_EABI__)
/* The names that Arm compilers use for the same. */
void __aeabi_memcpy(void *to, const void *from, size_t bytes);
void __aeabi_memset(void *to, size_t bytes, int value);
void __aeabi_memclr(void *to, size_t bytes);

void __aeabi_memcpy(void *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
}
void __aeabi_memset(void *to, size_t bytes, int value) {
    memset(to, value, bytes);
}
void __aeabi_memclr(void *to, size_t bytes) {
    memset(to, 0, bytes);
}
#define MEM_ALIAS(name, of) __attribute__((alias(#of))) __typeof__(of) name
MEM_ALIAS(__aeabi_memcpy4, __aeabi_memcpy);
MEM_ALIAS(__aeabi_memcpy8, __aeabi_memcpy);
MEM_ALIAS(__aeabi_memset4, __aeabi_memset);
MEM_ALIAS(__aeabi_memset8, __aeabi_memset);
MEM_ALIAS(__aeabi_memclr4, __aeabi_memclr);
MEM_ALIAS(__aeabi_memclr8, __aeabi_memclr);
MEM_ALIAS(__aeabi_memmove, memmove);
MEM_ALIAS(__aeabi_memmove4, memmove);
MEM_ALIAS(__aeabi_memmove8, memmove);
#endif
