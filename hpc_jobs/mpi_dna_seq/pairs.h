/* What the compiled parts share: lists of the best, one side of a comparison, scores of pairs. */
#ifndef PAIRS_H
#define PAIRS_H

#include <stdint.h>

#define PANEL 16   /* columns that are compared at once, on every path */
#define DEPTH 32   /* components of an int8 vector are padded to a multiple of it: see quantise() */
#define LARGEST 63 /* of an int8 component */
#define GROUP 258  /* most that the positive, or the negative, components of one group of 16 add up to */
#define SHIFT 64   /* added to the components of a row, so that they are unsigned */

/* The best k of each row of one block, ordered by (score descending, id ascending). */
typedef struct {
    float *score;     /* (rows, k); -inf where there is no neighbour yet */
    int64_t *id;      /* (rows, k) */
    float *threshold; /* (rows,): k other rows score as much or more, here or elsewhere; -inf if unknown */
} best_k;

/* For rows x, y with proposal P = product of their forms, forms.py proves
 *   score(x, y) <= scale_x scale_y P + error_x length_y + length_x error_y + offset_x + offset_y. */
typedef struct {
    const float *scale, *error, *length, *offset; /* (rows rounded up to PANEL,); offset NaN behind the last */
} bounds;

/* A block as one side of a comparison. The form that is multiplied is the vector itself, or int8 components in
 * panels of PANEL rows: (rows / PANEL, depth / 4, PANEL, 4). */
typedef struct {
    int64_t first_row;
    const float *vectors;  /* (rows, dim) */
    const int8_t *panels;  /* NULL: float32 */
    const int32_t *shifts; /* what SHIFT adds to a product with this column; NULL: float32 */
    bounds form, vector; /* of what is multiplied, and of the vectors */
    best_k best;
} side;

/* What a comparison took; the caller adds up. */
typedef struct {
    int64_t proposed; /* pairs that the product could not exclude */
    int64_t scored;   /* those of them that a float32 product of their vectors could not exclude either */
    int64_t inserted; /* entries that were put into a list */
    double merge_seconds;
} tally;

#endif
