#include "sample_weights.h"

const uint32_t sample_bits[4][8] = {
    {0x01234567u, 0x89abcdefu, 0xdeadbeefu, 0x00000000u, 0xffffffffu, 0x0f0f0f0fu, 0x12345678u, 0xcafebabeu},
    {0x76543210u, 0xfedcba98u, 0xfeebdaedu, 0xffffffffu, 0x00000000u, 0xf0f0f0f0u, 0x87654321u, 0xebabefacu},
    {0xa5a5a5a5u, 0x5a5a5a5au, 0x3c3c3c3cu, 0xc3c3c3c3u, 0x66666666u, 0x99999999u, 0x55555555u, 0xaaaaaaaau},
    {1u, 2u, 4u, 8u, 16u, 32u, 64u, 0x80000000u},
};
const float sample_scale[4] = {0.1f, -0.3f, 1.7f, 0.0625f};
