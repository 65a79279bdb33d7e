#ifndef SAMPLE_WEIGHTS_H
#define SAMPLE_WEIGHTS_H

#include <stdint.h>

extern const uint32_t sample_bits[4][8];
extern const float sample_scale[4];

#endif
