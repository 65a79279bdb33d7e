/* Functions of <math.h> whose result is exact, hence the same on every target; others a model must bring itself. */
#ifndef BITC_HARNESS_MATH_H
#define BITC_HARNESS_MATH_H

#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))

float ceilf(float x);
float fabsf(float x);
float floorf(float x);
float fmaxf(float x, float y);
float fminf(float x, float y);
float rintf(float x);
float roundf(float x);
float sqrtf(float x);
float truncf(float x);
double ceil(double x);
double fabs(double x);
double floor(double x);
double rint(double x);
double round(double x);
double sqrt(double x);

#endif
