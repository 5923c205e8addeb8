/* Merge a tile of proposed scores into the best k of its rows and of its columns.
 *
 * The proposals come from a matrix product, whose rounding depends on tile shape, library and machine. They
 * only decide which pairs are looked at; every pair that might matter is scored again by pair_score(), and
 * that score is the one that is kept, compared and written. tiles.py proves that no pair is lost.
 *
 * The loops are plain C; with -O3 the compiler vectorises both the scan and the dot product.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16 /* partial sums of a dot product: part of the definition of a score */
#define STRIP 64 /* proposals that are passed over at once */

/* The best k of each row of one block, ordered by (score descending, id ascending). */
typedef struct {
    float *score;     /* (rows, k); -inf where there is no neighbour yet */
    int64_t *id;      /* (rows, k) */
    float *threshold; /* (rows,): no proposal below it can enter the best k */
} best_k;

/* Cosine of two vectors, one fixed order for everybody: LANES sums in double, added pairwise, rounded once.
 * The product of two floats is exact in double, so fused and separate multiply-add give the same bits. */
static float pair_score(const float *x, const float *y, int64_t dim)
{
    double sum[LANES] = {0};
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sum[lane] += (double)x[d + lane] * (double)y[d + lane];
    for (int lane = 0; d < dim; d++, lane++)
        sum[lane] += (double)x[d] * (double)y[d];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            sum[lane] += sum[lane + half];
    return (float)sum[0];
}

/* Put (score, id) in its place of one row's list, if it has one; then raise the row's threshold. */
static void insert(best_k *best, int64_t row, int64_t k, float score, int64_t id, float margin)
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
        return;
    memmove(scores + low + 1, scores + low, (size_t)(k - 1 - low) * sizeof *scores);
    memmove(ids + low + 1, ids + low, (size_t)(k - 1 - low) * sizeof *ids);
    scores[low] = score;
    ids[low] = id;
    float threshold = scores[k - 1] - margin;
    if (threshold > best->threshold[row])
        best->threshold[row] = threshold;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Whether any of count proposals reaches the row's threshold or its column's: almost all strips end here. */
static int any_reaches(const float *proposed, int64_t count, float row_threshold, const float *thresholds)
{
    int32_t any = 0;
    for (int64_t column = 0; column < count; column++) {
        float lower = thresholds[column] < row_threshold ? thresholds[column] : row_threshold;
        any |= -(proposed[column] >= lower);
    }
    return any;
}

/* Which of them do; the marks of a last, shorter strip end in zeros. */
static void mark_reaching(const float *proposed, int64_t count, float row_threshold, const float *thresholds,
                          uint8_t *marks)
{
    memset(marks, 0, STRIP);
    for (int64_t column = 0; column < count; column++) {
        float lower = thresholds[column] < row_threshold ? thresholds[column] : row_threshold;
        marks[column] = proposed[column] >= lower;
    }
}

/* Merge one tile; gives the number of pairs that were scored exactly.
 *
 * proposed: (n_rows, n_columns), row-major; x and y: the tile's row and column vectors, dim floats each.
 * rows, columns: the lists of the tile's rows and columns, already moved to the tile's first row and column.
 * first_row, first_column: their ids. Where both are the same the tile lies on the diagonal of a symmetric
 * product: only the pairs above the diagonal are taken, and rows and columns are the same lists.
 */
int64_t merge_tile(const float *proposed, int64_t n_rows, int64_t n_columns, const float *x, const float *y,
                   int64_t dim, int64_t first_row, int64_t first_column, best_k rows, best_k columns, int64_t k,
                   float margin)
{
    int64_t scored = 0;
    uint8_t marks[STRIP];
    for (int64_t row = 0; row < n_rows; row++) {
        const float *line = proposed + row * n_columns;
        int64_t start = first_row == first_column ? row + 1 : 0;
        for (int64_t strip = start; strip < n_columns; strip += STRIP) {
            int64_t strip_end = smaller(strip + STRIP, n_columns);
            if (!any_reaches(line + strip, strip_end - strip, rows.threshold[row], columns.threshold + strip))
                continue;
            mark_reaching(line + strip, strip_end - strip, rows.threshold[row], columns.threshold + strip, marks);
            for (int64_t word = 0; word < STRIP / 8; word++) {
                uint64_t any;
                memcpy(&any, marks + 8 * word, 8);
                if (!any)
                    continue;
                for (int64_t column = strip + 8 * word; column < strip + 8 * word + 8; column++) {
                    if (!marks[column - strip])
                        continue;
                    int for_row = line[column] >= rows.threshold[row];
                    int for_column = line[column] >= columns.threshold[column];
                    if (!(for_row | for_column))
                        continue;
                    float score = pair_score(x + row * dim, y + column * dim, dim);
                    scored++;
                    if (for_row)
                        insert(&rows, row, k, score, first_column + column, margin);
                    if (for_column)
                        insert(&columns, column, k, score, first_row + row, margin);
                }
            }
        }
    }
    return scored;
}

/* Merge the lists of another accumulator of the same rows, which holds other pairs. */
void merge_best(best_k into, best_k from, int64_t n_rows, int64_t k, float margin)
{
    for (int64_t row = 0; row < n_rows; row++)
        for (int64_t rank = 0; rank < k && from.score[row * k + rank] > -INFINITY; rank++)
            insert(&into, row, k, from.score[row * k + rank], from.id[row * k + rank], margin);
}

/* Length of each vector, by the same order of additions as a score. */
void lengths(const float *vectors, int64_t n_rows, int64_t dim, double *length)
{
    for (int64_t row = 0; row < n_rows; row++) {
        const float *x = vectors + row * dim;
        double sum = 0;
        for (int64_t d = 0; d < dim; d++)
            sum += (double)x[d] * (double)x[d];
        length[row] = sqrt(sum);
    }
}
