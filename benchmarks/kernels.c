/* Micro benchmark of ext/mask.h and ext/utf8.h: nanoseconds per call at every level, beside memcpy
 * and a byte loop. It decides which level serves which size; the comments in the kernels cite it.
 *
 *     cc -O2 -Iext benchmarks/kernels.c -o build/kernels && build/kernels [rounds]
 *
 * All candidates of a line run in turn, `rounds` times (default 21); a cell is the median of its
 * rounds. Read the ratios within a line. Buffers are hot, and lie as they do in the engine: the
 * source behind a six-byte header, the destination where a str keeps its characters. "16-200" is a
 * random mix of the sizes that most messages have, so branches on the size cost what they cost.
 */
#if !defined(_WIN32) && !defined(_POSIX_C_SOURCE)
#  define _POSIX_C_SOURCE 199309L
#endif
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mask.h"
#include "utf8.h"

#define BIGGEST ((size_t)1 << 24)
#define MIX 0 /* stands for "16-200" */
#define MIXED 1024
#define KEY UINT32_C(0x3d21fa37)

static uint8_t *source, *target;
static size_t mix[MIXED];
static volatile int sink; /* keeps results alive */

/* Called through a pointer the compiler cannot see through. */
static void *(*volatile libc_memcpy)(void *, const void *, size_t) = memcpy;

static int naive_mask(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    uint8_t k[4], seen = 0;
    memcpy(k, &key, 4);
    for (size_t i = 0; i < n; i++) {
        dst[i] = (uint8_t)(src[i] ^ k[i & 3]);
        seen |= dst[i];
    }
    return seen & 0x80;
}

static int naive_utf8(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t more;
        uint32_t c = p[i++], least;
        if (c < 0x80)
            continue;
        if (c >= 0xc2 && c <= 0xdf)
            more = 1, c &= 0x1f, least = 0x80;
        else if (c >= 0xe0 && c <= 0xef)
            more = 2, c &= 0x0f, least = 0x800;
        else if (c >= 0xf0 && c <= 0xf4)
            more = 3, c &= 0x07, least = 0x10000;
        else
            return 0;
        for (; more; more--, i++) {
            if (i == n || (p[i] & 0xc0) != 0x80)
                return 0;
            c = c << 6 | (p[i] & 0x3fu);
        }
        if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
            return 0;
    }
    return 1;
}

enum { NAIVE, MEMCPY, LEVELS }; /* candidates; from LEVELS on, the levels in order */
enum { CANDIDATES = LEVELS + WSF_AVX512 + 1 };

typedef enum { MASK, MASK_IN_PLACE, COPY, IS_ASCII, UTF8 } Job;

static int run_once(Job job, int candidate, size_t n)
{
    uint32_t state = 0;
    if (candidate == MEMCPY) {
        libc_memcpy(target, source, n);
        return 0;
    }
    if (candidate == NAIVE) {
        switch (job) {
        case MASK: return naive_mask(target, source, n, KEY);
        case MASK_IN_PLACE: return naive_mask(target, target, n, KEY);
        case COPY: return naive_mask(target, source, n, 0);
        default: return naive_utf8(source, n);
        }
    }
    switch (job) {
    case MASK: return wsf_mask(target, source, n, KEY);
    case MASK_IN_PLACE: return wsf_mask(target, target, n, KEY);
    case COPY: return wsf_copy(target, source, n);
    case IS_ASCII: return wsf_is_ascii(source, n);
    default: return wsf_utf8_validate(&state, source, n) == n;
    }
}

static double now_ns(void)
{
    struct timespec t;
#if defined(_WIN32)
    timespec_get(&t, TIME_UTC);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double ns_per_call(Job job, int candidate, size_t n)
{
    const size_t span = n == MIX ? 108 : n;
    const size_t calls = 2 + 4000000 / (span + 40); /* 50 us to 500 us at common speeds */
    int seen = 0;
    if (candidate >= LEVELS)
        wsf_use_level(wsf_level_name(candidate - LEVELS));
    const double start = now_ns();
    if (n == MIX) {
        for (size_t i = 0; i < calls; i++)
            seen += run_once(job, candidate, mix[i % MIXED]);
    } else {
        for (size_t i = 0; i < calls; i++)
            seen += run_once(job, candidate, n);
    }
    sink = seen;
    return (now_ns() - start) / (double)calls;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int available(Job job, int candidate)
{
    if (candidate == MEMCPY)
        return job == MASK || job == COPY;
    return candidate == NAIVE || wsf_level_available(candidate - LEVELS);
}

static void line(const char *what, Job job, size_t n, size_t rounds)
{
    static double cell[CANDIDATES][999];
    if (n == MIX)
        printf("%-14s %7s", what, "16-200");
    else
        printf("%-14s %7zu", what, n);
    for (size_t r = 0; r <= rounds; r++) { /* round 0 warms up */
        for (int c = 0; c < CANDIDATES; c++) {
            if (available(job, c))
                cell[c][r == 0 ? 0 : r - 1] = ns_per_call(job, c, n);
        }
    }
    for (int c = 0; c < CANDIDATES; c++) {
        if (!available(job, c)) {
            if (c < LEVELS || wsf_level_available(c - LEVELS))
                printf(" %18s", "");
            continue;
        }
        qsort(cell[c], rounds, sizeof(double), by_value);
        const double ns = cell[c][rounds / 2];
        printf(" %10.1f (%5.1f)", ns, (double)(n == MIX ? 108 : n) / ns);
    }
    printf("\n");
    fflush(stdout);
}

static void fill(const char *unit)
{
    const size_t length = strlen(unit);
    for (size_t i = 0; i < BIGGEST; i++)
        source[i] = (uint8_t)unit[i % length];
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {8,   16,   32,   MIX,   64,    125,
                                   256, 1024, 4096, 65536, 1 << 20, BIGGEST};
    static const struct {
        const char *name, *unit;
    } texts[] = {
        {"utf8 ascii", "the quick brown fox jumps over the lazy dog, "},
        {"utf8 french", "d\303\251j\303\240 vu \303\240 la f\303\252te de No\303\253l, h\303\251las "},
        {"utf8 russian", "\321\201\321\212\320\265\321\210\321\214 \320\265\321\211\321\221 \321\215\321\202\320\270\321\205 "},
        {"utf8 cjk", "\346\227\245\346\234\254\350\252\236\343\201\256\346\226\207\347\253\240\343\200\202"},
        {"utf8 json emoji", "{\"text\": \"well done \360\237\221\215\", \"user\": 1234567, \"likes\": 17}, "},
    };
    static const struct {
        const char *name;
        Job job;
    } jobs[] = {{"mask", MASK}, {"mask in place", MASK_IN_PLACE}, {"copy", COPY}, {"is_ascii", IS_ASCII}};
    const size_t n_sizes = sizeof sizes / sizeof *sizes;
    size_t rounds = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 21;
    uint32_t random = 12345;

    if (rounds < 1 || rounds > 999)
        rounds = 21;
    uint8_t *const memory = malloc(2 * BIGGEST + 256);
    if (!memory)
        return 1;
    source = memory + (64 - ((uintptr_t)memory & 63)) + 6;
    target = source + BIGGEST + 64 - 6 + 40;
    for (size_t i = 0; i < MIXED; i++) {
        random = random * 1103515245u + 12345u;
        mix[i] = 16 + (random >> 16) % 185;
    }

    wsf_cpu_init();
    printf("ns per call (GB/s), medians of %zu rounds; this machine's level: %s\n", rounds, wsf_simd_level());
    printf("%-14s %7s %18s %18s", "", "bytes", "byte loop", "memcpy");
    for (int level = WSF_PORTABLE; level <= WSF_AVX512; level++) {
        if (wsf_level_available(level))
            printf(" %18s", wsf_level_name(level));
    }
    printf("\n");
    fill(texts[0].unit);
    memset(target, 1, BIGGEST);
    for (size_t j = 0; j < sizeof jobs / sizeof *jobs; j++) {
        for (size_t s = 0; s < n_sizes; s++)
            line(jobs[j].name, jobs[j].job, sizes[s], rounds);
    }
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        fill(texts[t].unit);
        for (size_t s = 0; s + 1 < n_sizes; s++)
            line(texts[t].name, UTF8, sizes[s], rounds);
    }
    free(memory);
    return 0;
}
