/* Tests of ext/mask.h and ext/utf8.h against naive twins, in memory between two forbidden pages.
 *
 *     test_kernels            names the levels this build and machine have, the best one last
 *     test_kernels LEVEL      tests that level; exit status 0, or 1 and a line on what failed
 *
 * tests/test_kernels.py builds and runs it in several ways.
 */
#if !defined(_WIN32) && !defined(_DEFAULT_SOURCE)
#  define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#endif
#if defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#  define _DARWIN_C_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>

#if defined(_WIN32)
#  include <windows.h>
#else
#  include <sys/mman.h>
#  include <unistd.h>
#endif

#include "mask.h"
#include "utf8.h"

#define ROOM ((size_t)1 << 18)
#define LONGEST 300

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: level %s: %s: ", __FILE__, __LINE__, wsf_simd_level(), #condition);     \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* ---- memory -------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *start, *end; /* the byte before start and the one at end cannot be touched */
} Span;

static Span guarded(void)
{
    Span span;
#if defined(_WIN32)
    const size_t page = 65536;
    DWORD before;
    uint8_t *const all = VirtualAlloc(NULL, ROOM + 2 * page, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!all || !VirtualProtect(all, page, PAGE_NOACCESS, &before) ||
        !VirtualProtect(all + page + ROOM, page, PAGE_NOACCESS, &before))
        abort();
#else
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *const all = mmap(NULL, ROOM + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + page, ROOM, PROT_READ | PROT_WRITE) != 0)
        abort();
#endif
    span.start = all + page;
    span.end = span.start + ROOM;
    return span;
}

static Span from, to;

static uint32_t random_state = 2463534242u;
static uint32_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

/* n bytes `offset` away from one forbidden page or the other. */
static uint8_t *place(Span span, int at_end, size_t n, size_t offset)
{
    return at_end ? span.end - n - offset : span.start + offset;
}

/* ---- masking ------------------------------------------------------------------------------- */

#define CANARY 0xa5
#define MARGIN 80

static void naive_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key[4])
{
    for (size_t i = 0; i < n; i++)
        dst[i] = src[i] ^ key[i % 4];
}

static int naive_high(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] & 0x80)
            return 1;
    }
    return 0;
}

static uint32_t as_key(const uint8_t bytes[4])
{
    uint32_t key;
    memcpy(&key, bytes, 4);
    return key;
}

/* Mark the bytes around [p, p + n), as far as there are any. */
static void set_canaries(uint8_t *p, size_t n)
{
    const size_t before = (size_t)(p - to.start), after = (size_t)(to.end - p) - n;
    memset(p - (before < MARGIN ? before : MARGIN), CANARY, before < MARGIN ? before : MARGIN);
    memset(p + n, CANARY, after < MARGIN ? after : MARGIN);
}

static int canaries_alive(const uint8_t *p, size_t n)
{
    for (size_t i = 1; i <= MARGIN && i <= (size_t)(p - to.start); i++) {
        if (*(p - i) != CANARY)
            return 0;
    }
    for (size_t i = 0; i < MARGIN && p + n + i < to.end; i++) {
        if (p[n + i] != CANARY)
            return 0;
    }
    return 1;
}

static void check_mask(const uint8_t *data, const uint8_t *masked, size_t n, const uint8_t key[4],
                       int at_end, size_t src_offset, size_t dst_offset)
{
    uint8_t *const src = place(from, at_end, n, src_offset);
    uint8_t *const dst = place(to, at_end, n, dst_offset);
    int high;

    memcpy(src, data, n);
    memset(dst, 0, n);
    set_canaries(dst, n);
    high = wsf_mask(dst, src, n, as_key(key));
    CHECK(memcmp(dst, masked, n) == 0, "n=%zu offsets %zu, %zu", n, src_offset, dst_offset);
    CHECK(!!high == naive_high(masked, n), "n=%zu", n);
    CHECK(memcmp(src, data, n) == 0, "n=%zu: the source changed", n);
    CHECK(canaries_alive(dst, n), "mask n=%zu offsets %zu, %zu", n, src_offset, dst_offset);

    high = wsf_copy(dst, src, n);
    CHECK(memcmp(dst, data, n) == 0, "n=%zu offsets %zu, %zu", n, src_offset, dst_offset);
    CHECK(!!high == naive_high(data, n), "n=%zu", n);
    CHECK(canaries_alive(dst, n), "copy n=%zu offsets %zu, %zu", n, src_offset, dst_offset);

    if (src_offset == 0) { /* in place */
        high = wsf_mask(dst, dst, n, as_key(key));
        CHECK(memcmp(dst, masked, n) == 0, "n=%zu offset %zu", n, dst_offset);
        CHECK(!!high == naive_high(masked, n), "n=%zu", n);
        CHECK(canaries_alive(dst, n), "in place n=%zu offset %zu", n, dst_offset);
    }
}

static void test_rfc_example(void)
{
    /* RFC 6455 5.7: a single-frame masked text message, "Hello" */
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    static const uint8_t masked[5] = {0x7f, 0x9f, 0x4d, 0x51, 0x58};
    uint8_t out[5];
    CHECK(wsf_mask(out, (const uint8_t *)"Hello", 5, as_key(key)) != 0, "9f has bit 7 set");
    CHECK(memcmp(out, masked, 5) == 0, "masking");
    CHECK(wsf_mask(out, out, 5, as_key(key)) == 0, "Hello is ASCII");
    CHECK(memcmp(out, "Hello", 5) == 0, "unmasking");
}

static void test_rotate_key(void)
{
    static const uint8_t key[4] = {1, 2, 3, 4};
    for (size_t offset = 0; offset < 9; offset++) {
        uint8_t rotated[4];
        const uint32_t r = wsf_rotate_key(as_key(key), offset);
        memcpy(rotated, &r, 4);
        for (size_t i = 0; i < 4; i++)
            CHECK(rotated[i] == key[(offset + i) % 4], "offset %zu", offset);
    }
}

static void test_mask(void)
{
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    static uint8_t data[1 << 17], masked[1 << 17];
    size_t n, a, b;

    for (n = 0; n < sizeof data; n++)
        data[n] = (uint8_t)next_random();
    naive_mask(masked, data, sizeof data, key);

    for (n = 0; n <= LONGEST; n++) {
        for (a = 0; a < 16; a++) {
            for (b = 0; b < 16; b++) {
                check_mask(data, masked, n, key, 0, a, b);
                check_mask(data, masked, n, key, 1, a, b);
            }
        }
    }
    for (n = LONGEST + 1; n < 3000; n += 1 + n / 100) /* the loop, from every alignment */
        for (a = 0; a < 64; a++)
            check_mask(data, masked, n, key, (int)(n & 1), a % 16, a);
    for (n = 4000; n < sizeof data; n += n / 3 + 1)
        for (a = 0; a < 16; a++)
            check_mask(data, masked, n, key, a & 1, a, 0);

    /* A payload that arrives in two pieces: the key goes on where it stopped. */
    for (n = 0; n <= LONGEST; n++) {
        uint8_t *const dst = place(to, 1, LONGEST, 0);
        wsf_mask(dst, data, n, as_key(key));
        wsf_mask(dst + n, data + n, LONGEST - n, wsf_rotate_key(as_key(key), n));
        CHECK(memcmp(dst, masked, LONGEST) == 0, "split at %zu", n);
    }
}

/* One byte with bit 7 set, at each place of each size: it must be reported, and only it. */
static void test_high_bit(void)
{
    static const uint8_t key[4] = {0x11, 0x22, 0x33, 0x44};
    for (size_t n = 0; n <= LONGEST + 700; n += n < LONGEST ? 1 : 61) {
        for (int at_end = 0; at_end < 2; at_end++) {
            uint8_t *const src = place(from, at_end, n, 0);
            uint8_t *const dst = place(to, at_end, n, 0);
            memset(src, 0x55, n);
            CHECK(wsf_is_ascii(src, n), "n=%zu", n);
            CHECK(!wsf_copy(dst, src, n), "n=%zu", n);
            CHECK(!wsf_mask(dst, src, n, as_key(key)), "n=%zu", n);
            for (size_t i = 0; i < n; i++) {
                src[i] = 0x80;
                CHECK(!wsf_is_ascii(src, n), "n=%zu, bit 7 at %zu", n, i);
                CHECK(wsf_copy(dst, src, n), "n=%zu, bit 7 at %zu", n, i);
                CHECK(wsf_mask(dst, src, n, as_key(key)), "n=%zu, bit 7 at %zu", n, i);
                src[i] = 0x55;
            }
        }
    }
}

/* ---- UTF-8 --------------------------------------------------------------------------------- */

/* By the definition alone: bytes so far are acceptable while some completion of them is a Unicode
 * scalar value in its shortest form. Returns as wsf_utf8_validate does; *boundary says whether the
 * text ends at a code point boundary. */
static size_t naive_utf8(const uint8_t *p, size_t n, int *boundary)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    static const uint32_t most[5] = {0, 0x7f, 0x7ff, 0xffff, 0x10ffff};
    size_t i = 0;
    *boundary = 0;
    while (i < n) {
        size_t length, seen = 1;
        uint32_t value;
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        length = p[i] >= 0xf0 ? 4 : p[i] >= 0xe0 ? 3 : 2;
        if (p[i] < 0xc0 || p[i] >= 0xf8)
            return i;
        value = p[i] & (0x7fu >> length);
        for (;;) {
            const unsigned bits = 6u * (unsigned)(length - seen);
            const uint32_t low = value << bits, high = low | ((1u << bits) - 1u);
            if (high < least[length] || low > most[length] || (low >= 0xd800 && high <= 0xdfff))
                return i;
            i++;
            if (seen == length)
                break;
            if (i == n)
                return n;
            if ((p[i] & 0xc0) != 0x80)
                return i;
            value = value << 6 | (p[i] & 0x3fu);
            seen++;
        }
    }
    *boundary = 1;
    return n;
}

static void show(const uint8_t *p, size_t n)
{
    printf("text");
    for (size_t i = 0; i < n; i++)
        printf(" %02x", p[i]);
    printf("\n");
}

#define CHECK_TEXT(condition, p, n, ...)                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            show(p, n);                                                                            \
            CHECK(condition, __VA_ARGS__);                                                         \
        }                                                                                          \
    } while (0)

static void check_text(const uint8_t *p, size_t n)
{
    int boundary;
    const size_t good = naive_utf8(p, n, &boundary);
    uint32_t state = WSF_UTF8_ACCEPT;
    const size_t got = wsf_utf8_validate(&state, p, n);
    CHECK_TEXT(got == good, p, n, "%zu, expected %zu of %zu", got, good, n);
    CHECK_TEXT((state == 0) == boundary, p, n, "state %u", (unsigned)state);
    if (good < n) {
        CHECK_TEXT(state == WSF_UTF8_REJECT, p, n, "state %u", (unsigned)state);
        CHECK_TEXT(wsf_utf8_validate(&state, (const uint8_t *)"a", 1) == 0, p, n, "reject is final");
    }
}

/* In two pieces, cut at every point from `first` to `last`. */
static void check_splits(const uint8_t *p, size_t n, size_t first, size_t last)
{
    int boundary;
    const size_t good = naive_utf8(p, n, &boundary);
    for (size_t cut = first; cut <= last; cut++) {
        uint32_t state = WSF_UTF8_ACCEPT;
        size_t got = wsf_utf8_validate(&state, p, cut);
        if (got == cut)
            got += wsf_utf8_validate(&state, p + cut, n - cut);
        CHECK_TEXT(got == good, p, n, "cut at %zu: %zu, expected %zu of %zu", cut, got, good, n);
        CHECK_TEXT((state == 0) == boundary, p, n, "cut at %zu: state %u", cut, (unsigned)state);
    }
}

static size_t encode(uint8_t *p, uint32_t c)
{
    if (c < 0x80) {
        p[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        p[0] = (uint8_t)(0xc0 | c >> 6);
        p[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        p[0] = (uint8_t)(0xe0 | c >> 12);
        p[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        p[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    p[0] = (uint8_t)(0xf0 | c >> 18);
    p[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    p[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    p[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

/* One byte of each kind that RFC 3629 tells apart, and both ends of most. */
static const uint8_t kinds[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0,
                                0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf7, 0xf8, 0xff};
enum { KINDS = sizeof kinds };

static void test_first_bad_byte(void)
{
    static const struct {
        const char *text;
        size_t n, good;
    } cases[] = {
        {"\xf4\x90\x80\x80", 4, 1}, /* above U+10FFFF */
        {"\xed\xa0\x80", 3, 1},     /* U+D800 */
        {"\xc0\x80", 2, 0},         /* overlong NUL */
        {"\xe0\x9f\xbf", 3, 1},     /* overlong U+07FF */
        {"\xf0\x8f\xbf\xbf", 4, 1}, /* overlong U+FFFF */
        {"\x80", 1, 0},             /* lone continuation */
        {"a\xf5", 2, 1},            /* never a lead */
        {"\xe2\x82" "a", 3, 2},     /* cut short */
        {"\xf4\x8f\xbf\xbf", 4, 4}, /* U+10FFFF */
        {"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80", 15, 12},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint32_t state = 0;
        const size_t got = wsf_utf8_validate(&state, (const uint8_t *)cases[c].text, cases[c].n);
        CHECK(got == cases[c].good, "case %zu: %zu", c, got);
    }
}

/* Every 1- and 2-byte text, every 3-byte text that begins with a 3-byte lead, every code point, and
 * four bytes of every combination of kinds; each cut at every point. */
static void test_every_sequence(void)
{
    uint8_t *const p4 = place(from, 1, 4, 0), *const p3 = p4 + 1, *const p2 = p4 + 2, *const p1 = p4 + 3;
    uint32_t a, b, c, d;

    for (a = 0; a < 256; a++) {
        *p1 = (uint8_t)a;
        check_text(p1, 1);
        for (b = 0; b < 256; b++) {
            p2[0] = (uint8_t)a;
            p2[1] = (uint8_t)b;
            check_text(p2, 2);
            check_splits(p2, 2, 0, 2);
        }
    }
    for (a = 0xe0; a < 0xf0; a++) {
        for (b = 0; b < 256; b++) {
            for (c = 0; c < 256; c++) {
                p3[0] = (uint8_t)a;
                p3[1] = (uint8_t)b;
                p3[2] = (uint8_t)c;
                check_splits(p3, 3, 0, 3);
            }
        }
    }
    for (c = 0; c <= 0x10ffff; c++) {
        uint8_t bytes[4];
        const size_t n = encode(bytes, c);
        memcpy(p4 + 4 - n, bytes, n);
        check_splits(p4 + 4 - n, n, 1, n);
    }
    for (a = 0; a < KINDS; a++) {
        for (b = 0; b < KINDS; b++) {
            for (c = 0; c < KINDS; c++) {
                for (d = 0; d < KINDS; d++) {
                    p4[0] = kinds[a];
                    p4[1] = kinds[b];
                    p4[2] = kinds[c];
                    p4[3] = kinds[d];
                    check_splits(p4, 4, 0, 4);
                }
            }
        }
    }
}

/* The same sequences inside longer text, so that they meet every seam of the vector code. */
static void test_sequences_in_text(void)
{
    static const char *const fillers[] = {"a", "\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\x91\x8d"};
    static const uint8_t few[] = {0x61, 0x80, 0x90, 0xa0, 0xc1, 0xc2, 0xe0, 0xe6, 0xed, 0xf0, 0xf2, 0xf4, 0xf5};
    enum { FEW = sizeof few, TEXT = 171 };
    for (size_t f = 0; f < 4; f++) {
        const size_t unit = strlen(fillers[f]);
        for (size_t n = 33; n <= TEXT; n += n < 40 ? 1 : 43) {
            uint8_t *const p = place(from, 1, n, 0);
            for (size_t at = 0; at + 4 <= n; at += unit) {
                uint32_t combination, end = FEW * FEW;
                /* all four bytes near a multiple of the vector widths, two elsewhere */
                if (at % 32 < 2 || at % 32 > 28 || at + 6 > n)
                    end = FEW * FEW * FEW * FEW;
                for (size_t i = 0; i < n; i++)
                    p[i] = (uint8_t)fillers[f][i % unit];
                for (combination = 0; combination < end; combination += end > 1000 ? 7 : 1) {
                    p[at] = few[combination % FEW];
                    p[at + 1] = few[combination / FEW % FEW];
                    if (end > 1000) {
                        p[at + 2] = few[combination / FEW / FEW % FEW];
                        p[at + 3] = few[combination / FEW / FEW / FEW];
                    }
                    check_text(p, n);
                }
                check_splits(p, n, 0, n);
            }
        }
    }
}

/* Long valid text of every mixture, at both forbidden pages; then with one byte spoilt. */
static void test_long_text(void)
{
    static const uint32_t tops[] = {0x7f, 0x7ff, 0xffff, 0x10ffff};
    static uint8_t text[4096];
    for (int round = 0; round < 3000; round++) {
        const size_t wanted = next_random() % (round % 10 ? 400 : 4000);
        const uint32_t mixture = next_random();
        size_t n = 0, at;
        uint8_t *p;
        while (n < wanted) {
            uint32_t c = next_random() % (tops[mixture >> (next_random() % 4 * 2) & 3] + 1);
            if (c >= 0xd800 && c <= 0xdfff)
                c = 'x';
            if (next_random() % 64 == 0) { /* a stretch of ASCII */
                size_t stretch = next_random() % 150;
                while (stretch-- && n < wanted)
                    text[n++] = '.';
            }
            n += encode(text + n, c);
        }
        n -= next_random() % 4 < n ? next_random() % 4 * (n > 3) : 0; /* may end inside a sequence */
        p = place(from, round & 1, n, 0);
        memcpy(p, text, n);
        check_text(p, n);
        check_splits(p, n, n / 2, n / 2 + (n > 8 ? 4 : 0));
        if (n > 0) {
            for (int spoil = 0; spoil < 8; spoil++) {
                at = next_random() % n;
                p[at] = (uint8_t)next_random();
                check_text(p, n);
                p[at] = text[at];
            }
        }
    }
}

int main(int argc, char **argv)
{
    CHECK(strcmp(wsf_simd_level(), "portable") == 0, "before wsf_cpu_init()");
    CHECK(!wsf_use_level("mmx") && !wsf_use_level(""), "unknown names");
    if (argc < 2) {
        wsf_cpu_init();
        for (int level = WSF_PORTABLE; level <= WSF_AVX512; level++) {
            if (wsf_level_available(level)) {
                CHECK(level <= wsf_level, "wsf_cpu_init() takes the best");
                printf("%s\n", wsf_level_name(level));
            }
        }
        return 0;
    }
    if (!wsf_use_level(argv[1]) || strcmp(wsf_simd_level(), argv[1]) != 0) {
        printf("level %s is not available\n", argv[1]);
        return 2;
    }
    from = guarded();
    to = guarded();
    test_rfc_example();
    test_rotate_key();
    test_mask();
    test_high_bit();
    test_first_bad_byte();
    test_every_sequence();
    test_sequences_in_text();
    test_long_text();
    return 0;
}
