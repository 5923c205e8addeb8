/* Which of the compiled paths this processor can run, best first; and what needs no path. */
#include "pairs.h"

#include <math.h>
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* Names of the paths, separated by blanks. */
const char *runnable_paths(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"))
        return "avx512 avx2 portable";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "avx2 portable";
#elif defined(__aarch64__) && defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
        return "dotprod portable";
#endif
    return "portable";
}

/* Length of each vector. */
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
