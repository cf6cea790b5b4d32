/* Strict UTF-8 validation (RFC 3629), incremental, that names the first bad byte.
 *
 * Knows bytes; knows no frames, no Python. Two machines share the work: a scalar automaton that is
 * exact about position and state, and a vector check that only says how far the text is certainly
 * good. The automaton finishes what the vector check leaves: the last few bytes, or the block with
 * the error in it. No function reads outside [p, p + n).
 *
 * Levels are those of mask.h. What serves what; measured with benchmarks/kernels.c on an AMD Zen 4:
 *   - ASCII: AVX2 beats SSE2 1.3x at 256 bytes, 1.6x at 4096; SSE2 beats portable words 1.4x there.
 *     64-byte vectors gained 0.9 ns at 256 bytes, nothing beyond, and lost over a mix of sizes.
 *   - other text, portable, SSE2 and NEON: the automaton, 3.2 GB/s whatever the script, 1.8 to 3.2
 *     times as fast as a decoder with branches.
 *   - other text, AVX2: the vector check from 35 bytes on: 2x the automaton at 64 bytes, 2.7x at 125,
 *     5x to 6x from 1 KiB (19 GB/s).
 *   - other text, AVX-512: the same check in 64-byte blocks: 1.7x AVX2 at 32 bytes, where masked loads
 *     spare it the automaton, 1.2x beyond (23 GB/s).
 */
#ifndef WSF_UTF8_H
#define WSF_UTF8_H

#include "mask.h"

/* ---- the scalar automaton ------------------------------------------------------------------ */

/* A state is a shift count, a table entry holds the next state for all nine states, six bits each:
 * one step is one load and one shift, and only the shift depends on the step before. */
enum {
    WSF_UTF8_ACCEPT = 0,  /* at a code point boundary */
    WSF_UTF8_REJECT = 6,  /* final */
    WSF_UTF8_MORE_1 = 12, /* one, two, three continuation bytes to come */
    WSF_UTF8_MORE_2 = 18,
    WSF_UTF8_MORE_3 = 24,
    WSF_UTF8_E0 = 30, /* next A0-BF: no overlong form */
    WSF_UTF8_ED = 36, /* next 80-9F: no surrogate */
    WSF_UTF8_F0 = 42, /* next 90-BF: no overlong form */
    WSF_UTF8_F4 = 48  /* next 80-8F: nothing above U+10FFFF */
};

#define WSF_ON(state, next) ((uint64_t)WSF_UTF8_##next << WSF_UTF8_##state)
#define WSF_LEAD(next)                                                                             \
    (WSF_ON(ACCEPT, next) | WSF_ON(REJECT, REJECT) | WSF_ON(MORE_1, REJECT) |                      \
     WSF_ON(MORE_2, REJECT) | WSF_ON(MORE_3, REJECT) | WSF_ON(E0, REJECT) | WSF_ON(ED, REJECT) |   \
     WSF_ON(F0, REJECT) | WSF_ON(F4, REJECT))
#define WSF_CONT(e0, ed, f0, f4)                                                                   \
    (WSF_ON(ACCEPT, REJECT) | WSF_ON(REJECT, REJECT) | WSF_ON(MORE_1, ACCEPT) |                    \
     WSF_ON(MORE_2, MORE_1) | WSF_ON(MORE_3, MORE_2) | WSF_ON(E0, e0) | WSF_ON(ED, ed) |           \
     WSF_ON(F0, f0) | WSF_ON(F4, f4))
#define WSF_TIMES_4(x) x, x, x, x
#define WSF_TIMES_16(x) WSF_TIMES_4(x), WSF_TIMES_4(x), WSF_TIMES_4(x), WSF_TIMES_4(x)

static const uint64_t wsf_utf8_next[256] = {
    /* 00-7F */ WSF_TIMES_16(WSF_LEAD(ACCEPT)), WSF_TIMES_16(WSF_LEAD(ACCEPT)),
                WSF_TIMES_16(WSF_LEAD(ACCEPT)), WSF_TIMES_16(WSF_LEAD(ACCEPT)),
                WSF_TIMES_16(WSF_LEAD(ACCEPT)), WSF_TIMES_16(WSF_LEAD(ACCEPT)),
                WSF_TIMES_16(WSF_LEAD(ACCEPT)), WSF_TIMES_16(WSF_LEAD(ACCEPT)),
    /* 80-8F */ WSF_TIMES_16(WSF_CONT(REJECT, MORE_1, REJECT, MORE_2)),
    /* 90-9F */ WSF_TIMES_16(WSF_CONT(REJECT, MORE_1, MORE_2, REJECT)),
    /* A0-BF */ WSF_TIMES_16(WSF_CONT(MORE_1, REJECT, MORE_2, REJECT)),
                WSF_TIMES_16(WSF_CONT(MORE_1, REJECT, MORE_2, REJECT)),
    /* C0-C1 */ WSF_LEAD(REJECT), WSF_LEAD(REJECT),
    /* C2-DF */ WSF_LEAD(MORE_1), WSF_LEAD(MORE_1), WSF_TIMES_4(WSF_LEAD(MORE_1)),
                WSF_TIMES_4(WSF_LEAD(MORE_1)), WSF_TIMES_4(WSF_LEAD(MORE_1)),
                WSF_TIMES_16(WSF_LEAD(MORE_1)),
    /* E0-EF */ WSF_LEAD(E0), WSF_TIMES_4(WSF_LEAD(MORE_2)), WSF_TIMES_4(WSF_LEAD(MORE_2)),
                WSF_TIMES_4(WSF_LEAD(MORE_2)), WSF_LEAD(ED), WSF_LEAD(MORE_2), WSF_LEAD(MORE_2),
    /* F0-FF */ WSF_LEAD(F0), WSF_LEAD(MORE_3), WSF_LEAD(MORE_3), WSF_LEAD(MORE_3), WSF_LEAD(F4),
                WSF_LEAD(REJECT), WSF_LEAD(REJECT), WSF_LEAD(REJECT),
                WSF_TIMES_4(WSF_LEAD(REJECT)), WSF_TIMES_4(WSF_LEAD(REJECT)),
};

static inline uint32_t wsf_utf8_step(uint32_t state, uint8_t byte)
{
    return (uint32_t)(wsf_utf8_next[byte] >> (state & 63u)) & 63u;
}

/* Whole runs of ASCII, by the vectors that the compiler may always use. */
#if defined(WSF_HAVE_SSE2)
#  define WSF_SKIP 32
#  define wsf_skip_is_ascii(q) (!wsf_high_sse2(wsf_or_sse2(wsf_load_sse2(q), wsf_load_sse2((q) + 16))))
#elif defined(WSF_HAVE_NEON)
#  define WSF_SKIP 32
#  define wsf_skip_is_ascii(q) (!wsf_high_neon(wsf_or_neon(wsf_load_neon(q), wsf_load_neon((q) + 16))))
#else
#  define WSF_SKIP 16
#  define wsf_skip_is_ascii(q) (!wsf_high_portable(wsf_load_portable(q) | wsf_load_portable((q) + 8)))
#endif

/* Validate p[i:n] by the automaton. Returns n, or the index of the first bad byte. */
WSF_KERNEL size_t wsf_utf8_scalar(uint32_t *state, const uint8_t *p, size_t i, size_t n)
{
    uint32_t s = *state;
    while (n - i >= 8) {
        const uint8_t *const q = p + i;
        uint32_t t = s;
        if (s == WSF_UTF8_ACCEPT && !wsf_high_portable(wsf_load_portable(q))) {
            i += 8;
            while (n - i >= WSF_SKIP && wsf_skip_is_ascii(p + i))
                i += WSF_SKIP;
            continue;
        }
        t = wsf_utf8_step(t, q[0]);
        t = wsf_utf8_step(t, q[1]);
        t = wsf_utf8_step(t, q[2]);
        t = wsf_utf8_step(t, q[3]);
        t = wsf_utf8_step(t, q[4]);
        t = wsf_utf8_step(t, q[5]);
        t = wsf_utf8_step(t, q[6]);
        t = wsf_utf8_step(t, q[7]);
        if (WSF_UNLIKELY(t == WSF_UTF8_REJECT))
            break; /* the loop below finds out where */
        s = t;
        i += 8;
    }
    for (; i < n; i++) {
        s = wsf_utf8_step(s, p[i]);
        if (WSF_UNLIKELY(s == WSF_UTF8_REJECT))
            break;
    }
    *state = s;
    return i;
}

/* The last code point boundary at or before i, given that p[:i] is good as far as p[:i] can tell. */
static inline size_t wsf_utf8_boundary(const uint8_t *p, size_t i)
{
    if (i >= 1 && p[i - 1] >= 0xc0)
        return i - 1;
    if (i >= 2 && p[i - 2] >= 0xe0)
        return i - 2;
    if (i >= 3 && p[i - 3] >= 0xf0)
        return i - 3;
    return i;
}

/* ---- ASCII --------------------------------------------------------------------------------- */

/* For n >= W: how far the text is certainly ASCII, n if all of it is. Blocks of 4 W, then vectors
 * that overlap (as in mask.h) instead of a tail of bytes. */
#define WSF_ASCII_KERNEL(L, TARGET)                                                                \
    TARGET WSF_KERNEL size_t wsf_ascii_span_##L(const uint8_t *p, size_t n)                        \
    {                                                                                              \
        enum { W = sizeof(wsf_vec_##L) };                                                          \
        const uint8_t *const end = p + n;                                                          \
        wsf_vec_##L seen;                                                                          \
        size_t i = 0;                                                                              \
        for (; n - i > 4 * W; i += 4 * W) {                                                        \
            const uint8_t *const q = p + i;                                                        \
            if (wsf_high_##L(                                                                      \
                    wsf_or_##L(wsf_or_##L(wsf_load_##L(q), wsf_load_##L(q + W)),                   \
                               wsf_or_##L(wsf_load_##L(q + 2 * W), wsf_load_##L(q + 3 * W)))))     \
                return i;                                                                          \
        }                                                                                          \
        seen = wsf_load_##L(end - W);                                                              \
        if (n - i > W)                                                                             \
            seen = wsf_or_##L(seen, wsf_load_##L(p + i));                                          \
        if (n - i > 2 * W)                                                                         \
            seen = wsf_or_##L(                                                                     \
                seen, wsf_or_##L(wsf_load_##L(p + i + W), wsf_load_##L(end - 2 * W)));             \
        return wsf_high_##L(seen) ? i : n;                                                         \
    }

WSF_ASCII_KERNEL(portable, )
#if defined(WSF_HAVE_SSE2)
WSF_ASCII_KERNEL(sse2, )
#endif
#if defined(WSF_HAVE_AVX2)
WSF_ASCII_KERNEL(avx2, WSF_TARGET_AVX2)
#endif
#if defined(WSF_HAVE_NEON)
WSF_ASCII_KERNEL(neon, )
#endif

/* Up to 32 bytes, inline. */
static inline int wsf_is_ascii_short(const uint8_t *p, size_t n)
{
    if (n >= 16) {
#if defined(WSF_HAVE_SSE2)
        return !wsf_high_sse2(wsf_or_sse2(wsf_load_sse2(p), wsf_load_sse2(p + n - 16)));
#elif defined(WSF_HAVE_NEON)
        return !wsf_high_neon(wsf_or_neon(wsf_load_neon(p), wsf_load_neon(p + n - 16)));
#else
        return !wsf_high_portable(wsf_load_portable(p) | wsf_load_portable(p + 8) |
                                  wsf_load_portable(p + n - 16) | wsf_load_portable(p + n - 8));
#endif
    }
    if (n >= 8)
        return !wsf_high_portable(wsf_load_portable(p) | wsf_load_portable(p + n - 8));
    if (n >= 4) {
        uint32_t a, z;
        memcpy(&a, p, 4);
        memcpy(&z, p + n - 4, 4);
        return !((a | z) & (uint32_t)WSF_HIGH_BITS);
    }
    return n == 0 || !((p[0] | p[n / 2] | p[n - 1]) & 0x80);
}

static inline size_t wsf_ascii_span(const uint8_t *p, size_t n)
{
    if (n <= 32)
        return wsf_is_ascii_short(p, n) ? n : 0;
#if defined(WSF_HAVE_AVX2)
    if (wsf_level >= WSF_AVX2)
        return wsf_ascii_span_avx2(p, n);
#endif
#if defined(WSF_HAVE_SSE2)
    if (wsf_level == WSF_SSE2)
        return wsf_ascii_span_sse2(p, n);
#elif defined(WSF_HAVE_NEON)
    if (wsf_level == WSF_NEON)
        return wsf_ascii_span_neon(p, n);
#endif
    return wsf_ascii_span_portable(p, n);
}

/* Nonzero iff none of the n bytes has bit 7 set. */
static inline int wsf_is_ascii(const uint8_t *p, size_t n)
{
    return wsf_ascii_span(p, n) == n;
}

/* ---- the vector check ---------------------------------------------------------------------- */

/* After J. Keiser and D. Lemire, "Validating UTF-8 in less than one instruction per byte" (2021).
 *
 * Every fault of two neighbouring bytes shows in three nibbles: both of the first byte, the high
 * one of the second. Each nibble looks up the set of faults it does not rule out; a fault left in
 * all three sets is one. TWO_CONTS alone is lawful where the second byte is the third or fourth of
 * its sequence: that is checked by comparing with the bytes two and three places back.
 *
 * The bytes one to three places back are loaded from memory, except in the first block, not shifted
 * in from the block before. So blocks know nothing of each other, the last one may overlap its
 * neighbour, and no state is carried. */
enum {
    WSF_TOO_SHORT = 0x01,  /* lead, no continuation */
    WSF_TOO_LONG = 0x02,   /* ASCII, continuation */
    WSF_OVERLONG_3 = 0x04, /* E0, 80-9F */
    WSF_TOO_LARGE = 0x08,  /* F4 and up, 90-BF */
    WSF_SURROGATE = 0x10,  /* ED, A0-BF */
    WSF_OVERLONG_2 = 0x20, /* C0 or C1, continuation */
    WSF_OVERLONG_4 = 0x40, /* F0, 80-8F; F5 and up, 80-8F */
    WSF_TWO_CONTS = 0x80,  /* continuation, continuation */
    WSF_ANY_LOW = WSF_TOO_SHORT | WSF_TOO_LONG | WSF_TWO_CONTS
};

#define WSF_FIRST_HIGH                                                                             \
    WSF_TIMES_4(WSF_TOO_LONG), WSF_TIMES_4(WSF_TOO_LONG), WSF_TIMES_4((char)WSF_TWO_CONTS),        \
    WSF_TOO_SHORT | WSF_OVERLONG_2, WSF_TOO_SHORT,                                                 \
    WSF_TOO_SHORT | WSF_OVERLONG_3 | WSF_SURROGATE,                                                \
    WSF_TOO_SHORT | WSF_TOO_LARGE | WSF_OVERLONG_4
#define WSF_FIRST_LOW                                                                              \
    (char)(WSF_ANY_LOW | WSF_OVERLONG_2 | WSF_OVERLONG_3 | WSF_OVERLONG_4),                        \
    (char)(WSF_ANY_LOW | WSF_OVERLONG_2), (char)WSF_ANY_LOW, (char)WSF_ANY_LOW,                    \
    (char)(WSF_ANY_LOW | WSF_TOO_LARGE),                                                           \
    WSF_TIMES_4((char)(WSF_ANY_LOW | WSF_TOO_LARGE | WSF_OVERLONG_4)),                             \
    WSF_TIMES_4((char)(WSF_ANY_LOW | WSF_TOO_LARGE | WSF_OVERLONG_4)),                             \
    (char)(WSF_ANY_LOW | WSF_TOO_LARGE | WSF_OVERLONG_4 | WSF_SURROGATE),                          \
    (char)(WSF_ANY_LOW | WSF_TOO_LARGE | WSF_OVERLONG_4),                                          \
    (char)(WSF_ANY_LOW | WSF_TOO_LARGE | WSF_OVERLONG_4)
#define WSF_ANY_CONT (WSF_TOO_LONG | WSF_TWO_CONTS | WSF_OVERLONG_2)
#define WSF_SECOND_HIGH                                                                            \
    WSF_TIMES_4(WSF_TOO_SHORT), WSF_TIMES_4(WSF_TOO_SHORT),                                        \
    (char)(WSF_ANY_CONT | WSF_OVERLONG_3 | WSF_OVERLONG_4),                                        \
    (char)(WSF_ANY_CONT | WSF_OVERLONG_3 | WSF_TOO_LARGE),                                         \
    (char)(WSF_ANY_CONT | WSF_SURROGATE | WSF_TOO_LARGE),                                          \
    (char)(WSF_ANY_CONT | WSF_SURROGATE | WSF_TOO_LARGE), WSF_TIMES_4(WSF_TOO_SHORT)

/* Each kernel takes a text that starts at a boundary, and returns a boundary before which all is
 * good, and after which either the text ends or a bad byte comes, within 67 bytes. */

#if defined(WSF_HAVE_AVX2)
#  define WSF_UTF8_AVX2_LEAST 35 /* the last block, and the three bytes before it */

/* Nonzero bytes where `v` has a fault; back_k holds, for each byte, the one k places before it. */
WSF_TARGET_AVX2 static inline __m256i wsf_utf8_faults_avx2(__m256i v, __m256i back_1,
                                                           __m256i back_2, __m256i back_3)
{
    const __m256i first_high = _mm256_broadcastsi128_si256(_mm_setr_epi8(WSF_FIRST_HIGH));
    const __m256i first_low = _mm256_broadcastsi128_si256(_mm_setr_epi8(WSF_FIRST_LOW));
    const __m256i second_high = _mm256_broadcastsi128_si256(_mm_setr_epi8(WSF_SECOND_HIGH));
    const __m256i nibble = _mm256_set1_epi8(0x0f);
    const __m256i high_1 = _mm256_and_si256(_mm256_srli_epi16(back_1, 4), nibble);
    const __m256i low_1 = _mm256_and_si256(back_1, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
    const __m256i pair = _mm256_and_si256(_mm256_and_si256(_mm256_shuffle_epi8(first_high, high_1),
                                                           _mm256_shuffle_epi8(first_low, low_1)),
                                          _mm256_shuffle_epi8(second_high, high));
    /* bit 7: the byte is the third or fourth of its sequence */
    const __m256i late = _mm256_or_si256(_mm256_subs_epu8(back_2, _mm256_set1_epi8(0xe0 - 0x80)),
                                         _mm256_subs_epu8(back_3, _mm256_set1_epi8(0xf0 - 0x80)));
    return _mm256_xor_si256(_mm256_and_si256(late, _mm256_set1_epi8((char)0x80)), pair);
}

WSF_TARGET_AVX2 static inline __m256i wsf_utf8_faults_at_avx2(const uint8_t *q, __m256i v)
{
    return wsf_utf8_faults_avx2(v, wsf_load_avx2(q - 1), wsf_load_avx2(q - 2),
                                wsf_load_avx2(q - 3));
}

/* The first block of a text: zeros stand before it. */
WSF_TARGET_AVX2 static inline __m256i wsf_utf8_faults_first_avx2(__m256i v)
{
    const __m256i low_up = _mm256_permute2x128_si256(v, v, 0x08); /* low half up, zeros below */
    return wsf_utf8_faults_avx2(v, _mm256_alignr_epi8(v, low_up, 15),
                                _mm256_alignr_epi8(v, low_up, 14),
                                _mm256_alignr_epi8(v, low_up, 13));
}

WSF_TARGET_AVX2 WSF_KERNEL size_t wsf_utf8_avx2(const uint8_t *p, size_t n)
{
    size_t i = 32;
    int pending = 1; /* the block before was not ASCII: its last sequence may be unfinished */
    __m256i faults = wsf_utf8_faults_first_avx2(wsf_load_avx2(p));
    if (WSF_UNLIKELY(!_mm256_testz_si256(faults, faults)))
        return 0;
    for (; n - i >= 64; i += 64) {
        const __m256i a = wsf_load_avx2(p + i), b = wsf_load_avx2(p + i + 32);
        if (!wsf_high_avx2(wsf_or_avx2(a, b))) {
            if (pending && wsf_utf8_boundary(p, i) != i)
                return wsf_utf8_boundary(p, i);
            pending = 0;
            continue;
        }
        faults = wsf_or_avx2(wsf_utf8_faults_at_avx2(p + i, a),
                             wsf_utf8_faults_at_avx2(p + i + 32, b));
        if (WSF_UNLIKELY(!_mm256_testz_si256(faults, faults)))
            return wsf_utf8_boundary(p, i);
        pending = 1;
    }
    /* Up to 63 bytes are left: one block, and one that ends with the text. */
    faults = wsf_utf8_faults_at_avx2(p + n - 32, wsf_load_avx2(p + n - 32));
    if (n - i > 32)
        faults = wsf_or_avx2(faults, wsf_utf8_faults_at_avx2(p + i, wsf_load_avx2(p + i)));
    return wsf_utf8_boundary(p, _mm256_testz_si256(faults, faults) ? n : i);
}
#endif

#if defined(WSF_HAVE_AVX512)
/* As above; bits instead of bytes. */
WSF_TARGET_AVX512 static inline __mmask64 wsf_utf8_faults_avx512(__m512i v, __m512i back_1,
                                                                 __m512i back_2, __m512i back_3)
{
    const __m512i first_high = _mm512_broadcast_i32x4(_mm_setr_epi8(WSF_FIRST_HIGH));
    const __m512i first_low = _mm512_broadcast_i32x4(_mm_setr_epi8(WSF_FIRST_LOW));
    const __m512i second_high = _mm512_broadcast_i32x4(_mm_setr_epi8(WSF_SECOND_HIGH));
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    const __m512i high_1 = _mm512_and_si512(_mm512_srli_epi16(back_1, 4), nibble);
    const __m512i low_1 = _mm512_and_si512(back_1, nibble);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
    const __m512i pair = _mm512_and_si512(_mm512_and_si512(_mm512_shuffle_epi8(first_high, high_1),
                                                           _mm512_shuffle_epi8(first_low, low_1)),
                                          _mm512_shuffle_epi8(second_high, high));
    const __m512i late = _mm512_or_si512(_mm512_subs_epu8(back_2, _mm512_set1_epi8(0xe0 - 0x80)),
                                         _mm512_subs_epu8(back_3, _mm512_set1_epi8(0xf0 - 0x80)));
    const __m512i faults =
        _mm512_xor_si512(_mm512_and_si512(late, _mm512_set1_epi8((char)0x80)), pair);
    return _mm512_test_epi8_mask(faults, faults);
}

/* The first block of a text: zeros stand before it. */
WSF_TARGET_AVX512 static inline __mmask64 wsf_utf8_faults_first_avx512(__m512i v)
{
    /* Each 32-bit lane and the one before it; the bytes wanted stand at their seam. */
    const __m512i before = _mm512_maskz_alignr_epi32(0xfffe, v, v, 15);
    const __m512i up = _mm512_or_si512(_mm512_slli_epi32(v, 8), _mm512_srli_epi32(before, 24));
    const __m512i up_2 = _mm512_or_si512(_mm512_slli_epi32(v, 16), _mm512_srli_epi32(before, 16));
    const __m512i up_3 = _mm512_or_si512(_mm512_slli_epi32(v, 24), _mm512_srli_epi32(before, 8));
    return wsf_utf8_faults_avx512(v, up, up_2, up_3);
}

WSF_TARGET_AVX512 static inline __m512i wsf_load_avx512(const uint8_t *p)
{
    return _mm512_loadu_si512((const void *)p);
}

/* Any n from 1: lanes masked out of a load are not read. (Where such a lane lies in a page that may
 * not be read the processor needs some hundred nanoseconds to find out; nothing worse happens.) */
WSF_TARGET_AVX512 WSF_KERNEL size_t wsf_utf8_avx512(const uint8_t *p, size_t n)
{
    size_t i = 64;
    int pending = 1;
    if (n < 64) {
        const __mmask64 span = ~(~UINT64_C(0) << n);
        const __m512i v = _mm512_maskz_loadu_epi8(span, p);
        return wsf_utf8_faults_first_avx512(v) & span ? 0 : wsf_utf8_boundary(p, n);
    }
    if (WSF_UNLIKELY(wsf_utf8_faults_first_avx512(wsf_load_avx512(p)) != 0))
        return 0;
    for (; n - i >= 64; i += 64) {
        const uint8_t *const q = p + i;
        const __m512i v = wsf_load_avx512(q);
        if (_mm512_movepi8_mask(v) == 0) {
            if (pending && wsf_utf8_boundary(p, i) != i)
                return wsf_utf8_boundary(p, i);
            pending = 0;
            continue;
        }
        if (WSF_UNLIKELY(wsf_utf8_faults_avx512(v, wsf_load_avx512(q - 1), wsf_load_avx512(q - 2),
                                                wsf_load_avx512(q - 3)) != 0))
            return wsf_utf8_boundary(p, i);
        pending = 1;
    }
    if (i < n) {
        const uint8_t *const q = p + i;
        const __mmask64 span = ~(~UINT64_C(0) << (n - i));
        if ((wsf_utf8_faults_avx512(
                 _mm512_maskz_loadu_epi8(span, q), _mm512_maskz_loadu_epi8(span, q - 1),
                 _mm512_maskz_loadu_epi8(span, q - 2), _mm512_maskz_loadu_epi8(span, q - 3)) &
             span) == 0)
            i = n;
    }
    return wsf_utf8_boundary(p, i);
}
#endif

/* ---- the interface ------------------------------------------------------------------------- */

/* Validate the next n bytes of a text. *state is 0 before the first call, and 0 again whenever the
 * text so far ends at a code point boundary. Returns n if every byte is acceptable so far, else the
 * index of the byte at which the text became invalid; *state is then a final reject value. */
static inline size_t wsf_utf8_validate(uint32_t *state, const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (*state != WSF_UTF8_ACCEPT) { /* the rest of a sequence: at most three steps */
        if (i == n)
            return n;
        *state = wsf_utf8_step(*state, p[i]);
        if (WSF_UNLIKELY(*state == WSF_UTF8_REJECT))
            return i;
        i++;
    }
    i += wsf_ascii_span(p + i, n - i);
    if (i == n)
        return n;
#if defined(WSF_HAVE_AVX512)
    if (wsf_level == WSF_AVX512) {
        i += wsf_utf8_avx512(p + i, n - i);
        return i == n ? n : wsf_utf8_scalar(state, p, i, n);
    }
#endif
#if defined(WSF_HAVE_AVX2)
    if (wsf_level >= WSF_AVX2 && n - i >= WSF_UTF8_AVX2_LEAST)
        i += wsf_utf8_avx2(p + i, n - i);
#endif
    return wsf_utf8_scalar(state, p, i, n);
}

#endif /* WSF_UTF8_H */
