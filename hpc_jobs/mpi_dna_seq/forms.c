/* The forms of vectors that are multiplied, and their bounds: forms.py says what must hold, and proves it.
 * Compiled for each instruction set as compare.c is; the results are the same to the last bit on all of them.
 */
#include "pairs.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define JOIN2(name, path) name##_##path
#define JOIN(name, path) JOIN2(name, path)
#define FOR_PATH(name) JOIN(name, PATH)

#define LANES 8
#define SLACK 0x1p-20 /* covers the roundings of the bounds and of the test: forms.py */
#define UNDERFLOW 0x1p-126 /* covers underflow in up to 2^20 terms; denormal numbers would be slow on some processors */

/* The next float at or above; never a rounding to nearest. */
static float up(double x)
{
    return nextafterf((float)x, INFINITY);
}

static double sum_of_products(const float *x, const float *y, int64_t dim)
{
    double sum[LANES] = {0}, all = 0;
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sum[lane] += (double)x[d + lane] * (double)y[d + lane];
    for (; d < dim; d++)
        all += (double)x[d] * (double)y[d];
    for (int lane = 0; lane < LANES; lane++)
        all += sum[lane];
    return all;
}

/* Bounds of rows that are multiplied as they are. */
void FOR_PATH(bound_fp32)(const float *vectors, int64_t n_rows, int64_t dim, int squared_distance, float *scale,
                          float *error, float *length, float *offset)
{
    double unit = 0x1p-24;
    for (int64_t row = 0; row < n_rows; row++) {
        double square = sum_of_products(vectors + row * dim, vectors + row * dim, dim);
        double own = sqrt(square) * (1 + SLACK);
        scale[row] = 1;
        length[row] = up(own);
        error[row] = up(own * ((double)dim * unit / (1 - (double)dim * unit) / 2 + SLACK));
        offset[row] = up((squared_distance ? -square + SLACK * square : 0) + UNDERFLOW);
    }
}

/* Most that the positive, or the negative, components of one sum of 16 bits add up to. Such a sum takes two
 * neighbours of every four components, over DEPTH components (product_int8() of compare.c). */
static int32_t largest_group(const int8_t *q, int64_t depth)
{
    int32_t largest = 0;
    for (int64_t d = 0; d < depth; d += DEPTH)
        for (int64_t half = 0; half < 4; half += 2) {
            int32_t positive = 0, negative = 0;
            for (int64_t i = half; i < DEPTH; i += 4)
                for (int64_t j = d + i; j < d + i + 2; j++) {
                    positive += q[j] > 0 ? q[j] : 0;
                    negative -= q[j] < 0 ? q[j] : 0;
                }
            largest = positive > largest ? positive : largest;
            largest = negative > largest ? negative : largest;
        }
    return largest;
}

/* Quantise rows, after taking `centre` away, each by a scale of its own.
 *
 * panels: (rows rounded up to PANEL) x depth bytes, zeroed by the caller; depth is dim rounded up to DEPTH.
 * work: depth floats, then depth bytes.
 */
void FOR_PATH(quantise)(const float *vectors, int64_t n_rows, int64_t dim, const float *centre,
                        int squared_distance, int8_t *panels, int32_t *shifts, float *scale, float *error,
                        float *length, float *offset, void *work)
{
    int64_t depth = (dim + DEPTH - 1) / DEPTH * DEPTH;
    float *w = work;
    int8_t *q = (int8_t *)(w + depth);
    double centre_square = sum_of_products(centre, centre, dim);
    memset(work, 0, (size_t)depth * 5);
    for (int64_t row = 0; row < n_rows; row++) {
        const float *x = vectors + row * dim;
        float largest = 0;
        for (int64_t d = 0; d < dim; d++) {
            w[d] = x[d] - centre[d];
            float absolute = fabsf(w[d]);
            largest = absolute > largest ? absolute : largest;
        }
        float step = largest / LARGEST;
        for (;;) {
            if (step < FLT_MIN) { /* the vector is the centre, or as good as: all of it is error */
                step = 0;
                memset(q, 0, (size_t)depth);
                break;
            }
            float inverse = 1 / step;
            for (int64_t d = 0; d < dim; d++) {
                float component = rintf(w[d] * inverse);
                component = component > LARGEST ? LARGEST : component < -LARGEST ? -LARGEST : component;
                q[d] = (int8_t)component;
            }
            int32_t group = largest_group(q, depth);
            if (group <= GROUP)
                break;
            step *= (float)group / GROUP * 1.001f;
        }
        double lost[LANES] = {0}, square[LANES] = {0}, kept = 0;
        int32_t sum = 0;
        for (int64_t d = 0; d < dim; d++) {
            double component = (double)x[d] - (double)centre[d], rest = component - (double)step * q[d];
            lost[d % LANES] += rest * rest;
            square[d % LANES] += component * component;
            kept += (double)(q[d] * q[d]);
            sum += q[d];
        }
        for (int lane = 1; lane < LANES; lane++) {
            lost[0] += lost[lane];
            square[0] += square[lane];
        }
        double own = fmax(sqrt(square[0]), step * sqrt(kept)) * (1 + SLACK);
        double outside = squared_distance ? -square[0] : sum_of_products(centre, x, dim) - centre_square / 2;
        /* c.x and c.c / 2 may cancel: the roundings in double are relative to the sizes of both */
        double size = squared_distance ? square[0]
                                       : fabs(outside) + SLACK * (2 * centre_square + sqrt(centre_square) * own);
        scale[row] = step;
        shifts[row] = SHIFT * sum;
        length[row] = up(own);
        error[row] = up(sqrt(lost[0]) * (1 + SLACK) + own * SLACK);
        offset[row] = up(outside + SLACK * size + UNDERFLOW);
        int8_t *to = panels + row / PANEL * PANEL * depth + row % PANEL * 4;
        for (int64_t d = 0; d < depth; d += 4)
            memcpy(to + d * PANEL, q + d, 4);
    }
}
