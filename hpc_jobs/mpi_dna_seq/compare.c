/* Compare a tile: products of all its pairs, tested in registers; the few pairs that may matter are scored.
 *
 * Compiled once for each instruction set (build.py), with PATH as a suffix of its functions. The product only
 * proposes; pair_score() decides, and is the same to the last bit on every path (no contraction: build.py).
 * No tile of products is written: a block of BLOCK rows x PANEL columns stays in registers until it is tested.
 */
#include "pairs.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <time.h>

#define JOIN2(name, path) name##_##path
#define JOIN(name, path) JOIN2(name, path)
#define FOR_PATH(name) JOIN(name, PATH)
#define UNROLLED _Pragma("GCC unroll 16")

#define LANES 16  /* partial sums of a score: part of its definition */
#define WAITING 64 /* pairs that wait to be scored; more would be tested against stale thresholds */
#define FETCHED 256 /* components; the processor goes on by itself */
#define CHECKED 256 /* components from which on what int8 proposes is multiplied in float32 before it is scored */

/* ---- Vectors of WIDTH floats or int32, and the product of one block, for each instruction set ---- */

#if defined(__SSE__)
#include <immintrin.h>
#endif
#if defined(__AVX512VNNI__)
#define WIDTH 16
#define BLOCK 12
typedef __m512 floats;
typedef __m512i ints;
#define SPLAT(x) _mm512_set1_ps(x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define MIN(a, b) _mm512_min_ps(a, b)
#define MASK(u, t) ((uint32_t)_mm512_cmp_ps_mask(u, t, _CMP_GE_OQ))
#elif defined(__AVX2__)
#define WIDTH 8
#define BLOCK 6 /* 12 of the 16 registers hold sums */
typedef __m256 floats;
typedef __m256i ints;
#define SPLAT(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define MIN(a, b) _mm256_min_ps(a, b)
#define MASK(u, t) ((uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(u, t, _CMP_GE_OQ)))
#else /* the compiler's own vectors: SSE2, NEON, or plain registers */
#define WIDTH 4
#define BLOCK 2
typedef float floats __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(16)));
#define SPLAT(x) ((floats){x, x, x, x})
#define FMA(a, b, c) ((a) * (b) + (c))
static inline floats MIN(floats a, floats b)
{
    ints less = a < b;
    return (floats)(((ints)a & less) | ((ints)b & ~less));
}
static inline uint32_t MASK(floats u, floats t)
{
    ints hit = u >= t;
    return (uint32_t)((hit[0] & 1) | (hit[1] & 2) | (hit[2] & 4) | (hit[3] & 8));
}
#if defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif
#endif
#define VECTORS (PANEL / WIDTH)
typedef floats loose_floats __attribute__((aligned(1), may_alias));
typedef ints loose_ints __attribute__((aligned(1), may_alias));
#define FLOATS(address, v) (((const loose_floats *)(address))[v])
#define INTS(address, v) (((const loose_ints *)(address))[v])

#define INLINED static inline __attribute__((always_inline))

/* x: (dim, BLOCK), y: (dim, PANEL). */
INLINED void product_fp32(int64_t dim, const float *x, const float *y, floats sum[BLOCK][VECTORS])
{
    UNROLLED for (int row = 0; row < BLOCK; row++)
        UNROLLED for (int v = 0; v < VECTORS; v++)
            sum[row][v] = SPLAT(0);
    for (int64_t d = 0; d < dim; d++, x += BLOCK, y += PANEL) {
        floats columns[VECTORS];
        UNROLLED for (int v = 0; v < VECTORS; v++)
            columns[v] = FLOATS(y, v);
        UNROLLED for (int row = 0; row < BLOCK; row++)
            UNROLLED for (int v = 0; v < VECTORS; v++)
                sum[row][v] = FMA(SPLAT(x[row]), columns[v], sum[row][v]);
    }
}

/* x: (depth / 4, BLOCK, 4) unsigned, y: (depth / 4, PANEL, 4); shifts: what SHIFT adds for each column.
 * The integer sums are exact, so that every path has the same. */
INLINED void product_int8(int64_t depth, const uint8_t *x, const int8_t *y, const int32_t *shifts,
                          floats product[BLOCK][VECTORS])
{
    ints sum[BLOCK][VECTORS];
    UNROLLED for (int row = 0; row < BLOCK; row++)
        UNROLLED for (int v = 0; v < VECTORS; v++)
            sum[row][v] = (ints){0};
#if defined(__AVX512VNNI__)
    for (int64_t d = 0; d < depth; d += 4, x += 4 * BLOCK, y += 4 * PANEL) {
        ints column = _mm512_loadu_si512(y);
        UNROLLED for (int row = 0; row < BLOCK; row++) {
            int32_t four;
            memcpy(&four, x + 4 * row, 4);
            sum[row][0] = _mm512_dpbusd_epi32(sum[row][0], _mm512_set1_epi32(four), column);
        }
    }
#elif defined(__AVX2__)
    /* 16-bit sums over 32 components cannot overflow (quantise()), so only every eighth step widens them.
     * Two instructions in assembler: with intrinsics gcc 12 spills the sums and is 1.5 times slower. */
    for (int64_t d = 0; d < depth; d += DEPTH) {
        ints part[BLOCK][VECTORS];
        UNROLLED for (int row = 0; row < BLOCK; row++)
            UNROLLED for (int v = 0; v < VECTORS; v++)
                part[row][v] = (ints){0};
        for (int step = 0; step < DEPTH / 4; step++, x += 4 * BLOCK, y += 4 * PANEL) {
            ints columns[VECTORS];
            UNROLLED for (int v = 0; v < VECTORS; v++)
                columns[v] = INTS(y, v);
            UNROLLED for (int row = 0; row < BLOCK; row++) {
                int32_t four;
                memcpy(&four, x + 4 * row, 4);
                ints fours = _mm256_set1_epi32(four), products;
                UNROLLED for (int v = 0; v < VECTORS; v++)
                    __asm__("vpmaddubsw %2, %3, %1\n\tvpaddw %1, %0, %0"
                            : "+x"(part[row][v]), "=&x"(products)
                            : "x"(columns[v]), "x"(fours));
            }
        }
        UNROLLED for (int row = 0; row < BLOCK; row++)
            UNROLLED for (int v = 0; v < VECTORS; v++)
                sum[row][v] = _mm256_add_epi32(sum[row][v],
                                               _mm256_madd_epi16(part[row][v], _mm256_set1_epi16(1)));
    }
#elif defined(__ARM_FEATURE_DOTPROD)
    for (int64_t d = 0; d < depth; d += 4, x += 4 * BLOCK, y += 4 * PANEL)
        UNROLLED for (int row = 0; row < BLOCK; row++) {
            int32_t four; /* components of a row are 1 to 127, so that they are signed as well */
            memcpy(&four, x + 4 * row, 4);
            UNROLLED for (int v = 0; v < VECTORS; v++)
                sum[row][v] = (ints)vdotq_s32((int32x4_t)sum[row][v], vld1q_s8(y + 16 * v),
                                              vreinterpretq_s8_s32(vdupq_n_s32(four)));
        }
#else
    for (int64_t d = 0; d < depth; d += 4, x += 4 * BLOCK, y += 4 * PANEL)
        for (int row = 0; row < BLOCK; row++)
            for (int column = 0; column < PANEL; column++)
                for (int i = 0; i < 4; i++)
                    sum[row][column / WIDTH][column % WIDTH] += x[4 * row + i] * y[4 * column + i];
#endif
    UNROLLED for (int row = 0; row < BLOCK; row++)
        UNROLLED for (int v = 0; v < VECTORS; v++)
#if defined(__AVX512VNNI__)
            product[row][v] = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[row][v], INTS(shifts, v)));
#elif defined(__AVX2__)
            product[row][v] = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum[row][v], INTS(shifts, v)));
#else
            product[row][v] = __builtin_convertvector(sum[row][v] - INTS(shifts, v), floats);
#endif
}

/* ---- Scores, and the lists of the best ---- */

typedef double four_doubles __attribute__((vector_size(32)));
#if defined(__AVX2__) /* of __builtin_convertvector() gcc 12 makes six instructions */
#define FOUR(address) _mm256_cvtps_pd(_mm_loadu_ps(address))
#else
typedef float four_floats __attribute__((vector_size(16), aligned(1), may_alias));
#define FOUR(address) __builtin_convertvector(*(const four_floats *)(address), four_doubles)
#endif

/* One fixed order for everybody: LANES sums in double, added pairwise, rounded once. Dot product (the product of
 * two floats is exact in double), or minus the squared distance. */
static float pair_score(const float *x, const float *y, int64_t dim, int squared_distance)
{
    four_doubles sums[LANES / 4] = {0};
    double sum[LANES];
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        UNROLLED for (int i = 0; i < LANES / 4; i++) {
            four_doubles one = FOUR(x + d + 4 * i), other = FOUR(y + d + 4 * i);
            if (squared_distance)
                sums[i] -= (one - other) * (one - other);
            else
                sums[i] += one * other;
        }
    memcpy(sum, sums, sizeof sum);
    for (int lane = 0; d < dim; d++, lane++) {
        double one = x[d], other = y[d];
        sum[lane] += squared_distance ? -((one - other) * (one - other)) : one * other;
    }
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            sum[lane] += sum[lane + half];
    return (float)sum[0];
}

/* The dot product of two vectors in float32, in any order: it proposes too. */
static float product_of_pair(const float *x, const float *y, int64_t dim)
{
    floats sums[4] = {0};
    float sum[WIDTH];
    int64_t d = 0;
    for (; d + 4 * WIDTH <= dim; d += 4 * WIDTH)
        UNROLLED for (int i = 0; i < 4; i++)
            sums[i] = FMA(FLOATS(x + d, i), FLOATS(y + d, i), sums[i]);
    sums[0] += sums[1] + (sums[2] + sums[3]);
    memcpy(sum, sums, sizeof sum);
    for (; d < dim; d++)
        sum[0] += x[d] * y[d];
    for (int half = WIDTH / 2; half > 0; half /= 2)
        UNROLLED for (int lane = 0; lane < half; lane++)
            sum[lane] += sum[lane + half];
    return sum[0];
}

/* Put (score, id) in its place of one row's list, if it has one; then raise the row's threshold. */
static int insert(const best_k *best, int64_t row, int64_t k, float score, int64_t id)
{
    float *scores = best->score + row * k;
    int64_t *ids = best->id + row * k;
    int64_t low = 0, high = k;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (scores[middle] > score || (scores[middle] == score && ids[middle] < id))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == k)
        return 0;
    memmove(scores + low + 1, scores + low, (size_t)(k - 1 - low) * sizeof *scores);
    memmove(ids + low + 1, ids + low, (size_t)(k - 1 - low) * sizeof *ids);
    scores[low] = score;
    ids[low] = id;
    if (scores[k - 1] > best->threshold[row])
        best->threshold[row] = scores[k - 1];
    return 1;
}

/* Merge the lists of another accumulator of the same rows, which holds other pairs. */
void FOR_PATH(merge_best)(best_k into, best_k from, int64_t n_rows, int64_t k)
{
    for (int64_t row = 0; row < n_rows; row++)
        for (int64_t rank = 0; rank < k && from.score[row * k + rank] > -INFINITY; rank++)
            insert(&into, row, k, from.score[row * k + rank], from.id[row * k + rank]);
}

/* ---- A tile ---- */

/* A tile under way, and pairs of it that wait to be scored. */
typedef struct {
    const side *rows, *columns; /* the whole blocks; row and column numbers count from their starts */
    int64_t top, n_rows, n_columns, dim, k;
    int same, squared_distance;
    tally *tally;
    int64_t waiting;
    struct {
        int64_t row, column;
        float most;
    } pairs[WAITING];
} tile;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static __attribute__((noinline)) void score_waiting(tile *tile)
{
    double began = seconds();
    const side *rows = tile->rows, *columns = tile->columns;
    for (int64_t i = 0; i < tile->waiting; i++) {
        int64_t row = tile->pairs[i].row, column = tile->pairs[i].column;
        float most = tile->pairs[i].most;
        int for_row = most >= rows->best.threshold[row], for_column = most >= columns->best.threshold[column];
        if (!(for_row | for_column))
            continue;
        tile->tally->proposed++;
        const float *x = rows->vectors + row * tile->dim, *y = columns->vectors + column * tile->dim;
        if (columns->panels && tile->dim >= CHECKED) {
            const bounds *of_x = &rows->vector, *of_y = &columns->vector;
            float factor = tile->squared_distance ? 2 : 1;
            most = factor * (product_of_pair(x, y, tile->dim) + of_x->error[row] * of_y->length[column] +
                             of_x->length[row] * of_y->error[column]) +
                   (of_x->offset[row] + of_y->offset[column]);
            for_row = most >= rows->best.threshold[row];
            for_column = most >= columns->best.threshold[column];
            if (!(for_row | for_column))
                continue;
        }
        float score = pair_score(x, y, tile->dim, tile->squared_distance);
        tile->tally->scored++;
        if (for_row)
            tile->tally->inserted += insert(&rows->best, row, tile->k, score, columns->first_row + column);
        if (for_column)
            tile->tally->inserted += insert(&columns->best, column, tile->k, score, rows->first_row + row);
    }
    tile->waiting = 0;
    tile->tally->merge_seconds += seconds() - began;
}

/* Put a pair in the queue, and fetch what scoring it needs: by then it is there (at 128 components in int8 the
 * merge took 27 % of the time with this, 34 % without). */
static inline void wait_for_score(tile *tile, int64_t row, int64_t column, float most)
{
    if (tile->waiting == WAITING)
        score_waiting(tile);
    const float *y = tile->columns->vectors + column * tile->dim;
    for (int64_t d = 0; d < tile->dim && d < FETCHED; d += 16)
        __builtin_prefetch(y + d);
    for (int64_t i = 0; i < tile->k && i < 16; i += 8)
        __builtin_prefetch(tile->columns->best.id + column * tile->k + i, 1);
    __builtin_prefetch(tile->columns->best.score + column * tile->k, 1);
    tile->pairs[tile->waiting].row = row;
    tile->pairs[tile->waiting].column = column;
    tile->pairs[tile->waiting++].most = most;
}

/* The first `count` of PANEL numbers, and `rest` for the others. */
static void copy_padded(float *to, const float *from, int64_t count, float rest)
{
    for (int64_t i = 0; i < PANEL; i++)
        to[i] = i < count ? from[i] : rest;
}

/* Terms of one row of a tile that the test needs. */
typedef struct {
    float scale, offset;
} row_terms;

/* Score `count` pairs that another product has proposed, and put them into the lists of both sides. */
void FOR_PATH(score_pairs)(const side *rows, const side *columns, const int64_t *row, const int64_t *column,
                           int64_t count, int squared_distance, int64_t dim, int64_t k, tally *counted)
{
    tile tile = {rows, columns, 0, 0, 0, dim, k, 0, squared_distance, counted, 0, {{0, 0, 0}}};
    for (int64_t i = 0; i < count; i++)
        wait_for_score(&tile, row[i], column[i], FLT_MAX); /* less than the threshold of a closed list */
    score_waiting(&tile);
}

/* Bytes of workspace that compare_tile() needs. */
int64_t FOR_PATH(workspace)(int64_t n_rows, int64_t dim)
{
    int64_t padded = n_rows + BLOCK, depth = dim + DEPTH;
    return padded * (depth * (int64_t)sizeof(float) + (int64_t)sizeof(row_terms) + 16) +
           depth * PANEL * (int64_t)sizeof(float) + 4096;
}

static inline void *take(char **workspace, int64_t bytes)
{
    char *taken = *workspace;
    *workspace += (bytes + 63) / 64 * 64;
    return taken;
}

/* The tile's rows as product_fp32() reads them: (rows / BLOCK, dim, BLOCK), the last block filled up with zeros. */
static void pack_rows_fp32(const float *x, int64_t n_rows, int64_t dim, float *to)
{
    for (int64_t first = 0; first < n_rows; first += BLOCK, to += dim * BLOCK)
        for (int64_t d = 0; d < dim; d++)
            for (int64_t row = 0; row < BLOCK; row++)
                to[d * BLOCK + row] = first + row < n_rows ? x[(first + row) * dim + d] : 0;
}

/* And as product_int8() does: (rows / BLOCK, depth / 4, BLOCK, 4), SHIFT added. */
static void pack_rows_int8(const int8_t *panels, int64_t top, int64_t n_rows, int64_t depth, uint8_t *to)
{
    for (int64_t first = 0; first < n_rows; first += BLOCK, to += depth * BLOCK)
        for (int64_t row = 0; row < BLOCK; row++) {
            int64_t at = top + (first + row < n_rows ? first + row : n_rows - 1);
            const int8_t *from = panels + at / PANEL * PANEL * depth + at % PANEL * 4;
            for (int64_t d = 0; d < depth; d += 4) {
                uint32_t four;
                memcpy(&four, from + d * PANEL, 4);
                four = (four & 0x7f7f7f7f) ^ 0x40404040; /* adds SHIFT to each of four numbers from -64 to 63 */
                memcpy(to + d * BLOCK + row * 4, &four, 4);
            }
        }
}

/* A panel of columns, transposed for product_fp32(): (dim, PANEL); the first column stands in for missing ones. */
static void pack_columns(const float *y, int64_t count, int64_t dim, float *to)
{
    for (int64_t column = 0; column < PANEL; column += 4) {
        const float *from[4];
        for (int64_t i = 0; i < 4; i++)
            from[i] = y + (column + i < count ? column + i : 0) * dim;
        int64_t d = 0;
#if defined(__SSE__) /* a scalar loop would take 8 % of the time of a tile, this takes 3 % */
        for (; d + 4 <= dim; d += 4) {
            __m128 a = _mm_loadu_ps(from[0] + d), b = _mm_loadu_ps(from[1] + d);
            __m128 c = _mm_loadu_ps(from[2] + d), e = _mm_loadu_ps(from[3] + d);
            _MM_TRANSPOSE4_PS(a, b, c, e);
            _mm_storeu_ps(to + d * PANEL + column, a);
            _mm_storeu_ps(to + (d + 1) * PANEL + column, b);
            _mm_storeu_ps(to + (d + 2) * PANEL + column, c);
            _mm_storeu_ps(to + (d + 3) * PANEL + column, e);
        }
#endif
        for (; d < dim; d++)
            for (int64_t i = 0; i < 4; i++)
                to[d * PANEL + column + i] = from[i][d];
    }
}

/* compare_tile() for one of both forms: a constant int8 leaves one product in the loop, in registers. */
INLINED void compare(const side *rows, int64_t top, int64_t n_rows, const side *columns, int64_t left, int64_t stop,
                     int same, int squared_distance, int64_t dim, int64_t k, char *workspace, tally *counted,
                     const int int8)
{
    tile tile = {rows, columns, top, n_rows, stop, dim, k, same, squared_distance, counted, 0, {{0, 0, 0}}};
    int64_t depth = int8 ? (dim + DEPTH - 1) / DEPTH * DEPTH : dim;
    int64_t padded = (n_rows + BLOCK - 1) / BLOCK * BLOCK;
    float factor = squared_distance ? 2 : 1; /* |x - y|^2 holds the product twice */

    row_terms *terms = take(&workspace, padded * (int64_t)sizeof *terms);
    float *most_error = take(&workspace, padded / BLOCK * (int64_t)sizeof *most_error);
    float *most_length = take(&workspace, padded / BLOCK * (int64_t)sizeof *most_length);
    float *panel = take(&workspace, dim * PANEL * (int64_t)sizeof *panel);
    void *packed = take(&workspace, 0);
    memset(most_error, 0, (size_t)(padded / BLOCK) * sizeof *most_error);
    memset(most_length, 0, (size_t)(padded / BLOCK) * sizeof *most_length);
    for (int64_t row = 0; row < padded; row++) {
        int64_t from = top + row, in = row / BLOCK;
        int is_row = row < n_rows;
        terms[row].scale = is_row ? factor * rows->form.scale[from] : 0;
        terms[row].offset = is_row ? rows->form.offset[from] : NAN; /* what fills up the last block reaches nothing */
        if (is_row && factor * rows->form.error[from] > most_error[in])
            most_error[in] = factor * rows->form.error[from];
        if (is_row && factor * rows->form.length[from] > most_length[in])
            most_length[in] = factor * rows->form.length[from];
    }
    if (int8)
        pack_rows_int8(rows->panels, top, n_rows, depth, packed);
    else
        pack_rows_fp32(rows->vectors + top * dim, n_rows, dim, packed);

    float last[BLOCK] = {0};
    for (; left < stop; left += PANEL) {
        int64_t count = stop - left < PANEL ? stop - left : PANEL;
        if (!int8)
            pack_columns(columns->vectors + left * dim, count, dim, panel);
        float limit[PANEL];
        copy_padded(limit, columns->best.threshold + left, count, INFINITY);
        const float *scale = columns->form.scale + left, *error = columns->form.error + left;
        const float *length = columns->form.length + left, *offset = columns->form.offset + left;
        for (int64_t row = 0; row < n_rows; row += BLOCK) {
            if (same && top + row >= left + PANEL - 1)
                break; /* below the diagonal, as are all that follow */
            floats product[BLOCK][VECTORS];
            if (int8)
                product_int8(depth, (const uint8_t *)packed + row * depth, columns->panels + left * depth,
                             columns->shifts + left, product);
            else
                product_fp32(dim, (const float *)packed + row * dim, panel, product);
            floats bound[VECTORS];
            UNROLLED for (int v = 0; v < VECTORS; v++)
                bound[v] = FMA(SPLAT(most_error[row / BLOCK]), FLOATS(length, v),
                               FMA(SPLAT(most_length[row / BLOCK]), FLOATS(error, v), FLOATS(offset, v)));
            const float *own = rows->best.threshold + top + row;
            if (row + BLOCK > n_rows) {
                memcpy(last, own, (size_t)(n_rows - row) * sizeof *last);
                own = last;
            }
            uint32_t any = 0;
            UNROLLED for (int i = 0; i < BLOCK; i++)
                UNROLLED for (int v = 0; v < VECTORS; v++) {
                    if (int8) /* float32 has no scale */
                        product[i][v] *= FLOATS(scale, v);
                    product[i][v] = FMA(product[i][v], SPLAT(terms[row + i].scale),
                                        bound[v] + SPLAT(terms[row + i].offset));
                    any |= MASK(product[i][v], MIN(SPLAT(own[i]), FLOATS(limit, v)));
                }
            if (!any) /* most blocks end here */
                continue;
            UNROLLED for (int i = 0; i < BLOCK; i++) {
                float most[PANEL];
                uint32_t hits = 0;
                UNROLLED for (int v = 0; v < VECTORS; v++) {
                    memcpy(most + v * WIDTH, &product[i][v], sizeof(floats));
                    hits |= MASK(product[i][v], MIN(SPLAT(own[i]), FLOATS(limit, v))) << (v * WIDTH);
                }
                for (; hits; hits &= hits - 1) {
                    int64_t in = __builtin_ctz(hits), column = left + in;
                    if (column < stop && !(same && column <= top + row + i))
                        wait_for_score(&tile, top + row + i, column, most[in]);
                }
            }
            if (tile.waiting > WAITING / 2) {
                score_waiting(&tile);
                copy_padded(limit, columns->best.threshold + left, count, INFINITY);
            }
        }
    }
    score_waiting(&tile);
}

/* Compare rows [top, top + n_rows) of one block with columns [left, stop) of another; left is a multiple of PANEL.
 *
 * same: both are one block; only the pairs above the diagonal are taken.
 * workspace: as many bytes as workspace() says, aligned to 64.
 */
void FOR_PATH(compare_tile)(const side *rows, int64_t top, int64_t n_rows, const side *columns, int64_t left,
                            int64_t stop, int same, int squared_distance, int64_t dim, int64_t k, char *workspace,
                            tally *counted)
{
    if (columns->panels)
        compare(rows, top, n_rows, columns, left, stop, same, squared_distance, dim, k, workspace, counted, 1);
    else
        compare(rows, top, n_rows, columns, left, stop, same, squared_distance, dim, k, workspace, counted, 0);
}
