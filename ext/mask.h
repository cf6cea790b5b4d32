/* Masking and copying of payloads (RFC 6455 5.3), with SIMD chosen at run time.
 *
 * Knows bytes and keys; knows no frames, no Python. Header-only C11 for GCC, Clang and MSVC; every
 * file that includes it has its own copy of the level in use and calls wsf_cpu_init() once. No
 * function here ever touches memory outside [src, src + n) and [dst, dst + n).
 *
 * Which level serves what; measured with benchmarks/kernels.c on an AMD Zen 4, GCC 12 and Clang 14:
 *   - up to 32 bytes: code inline in the caller, at every level: 3 ns, less than a call of memcpy.
 *   - SSE2 beats the portable words from 33 bytes on: 1.3x at 64, 1.75x from 125 to 4096.
 *   - AVX2 beats SSE2 from 33 bytes on: 1.2x over a mix of 16 to 200 bytes, 2x from 256 to 4096,
 *     1.3x at 64 KiB. From 64 bytes to 16 MiB it is within 10 % of memcpy or faster, but for 125
 *     bytes (4.1 ns, memcpy 3.5).
 *   - AVX-512 was tried here and dropped: a masked load and store below 64 bytes, 64-byte vectors
 *     above, saved at most 0.6 ns (125 bytes), took 1.4 times as long at 4096, and 2.8 times as long
 *     for 64 bytes in place, whose stores reach the next load late. Level "avx512" masks with AVX2;
 *     the level exists for utf8.h.
 *   - NEON: the same algorithm; tested, not yet measured.
 *
 * Define WSF_NO_SIMD to compile the portable code alone. (The level "portable" still takes the
 * compiler's baseline vectors for up to 32 bytes.)
 */
#ifndef WSF_MASK_H
#define WSF_MASK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- what this compiler can build ---------------------------------------------------------- */

#if !defined(WSF_NO_SIMD)
#  if defined(__x86_64__) || (defined(_M_X64) && !defined(_M_ARM64EC))
#    define WSF_HAVE_SSE2 1
/* clang-cl hides the wider intrinsics from files not compiled for them: it stays at SSE2. */
#    if defined(__GNUC__) || (defined(_MSC_VER) && !defined(__clang__) && _MSC_VER >= 1920)
#      define WSF_HAVE_AVX2 1
#    endif
#    if defined(WSF_HAVE_AVX2) && (!defined(__GNUC__) || defined(__clang__) || __GNUC__ >= 8)
#      define WSF_HAVE_AVX512 1
#    endif
#  elif (defined(__aarch64__) && defined(__ARM_NEON)) || defined(_M_ARM64)
#    define WSF_HAVE_NEON 1
#  endif
#endif

#if defined(WSF_HAVE_SSE2)
#  if defined(_MSC_VER)
#    include <intrin.h>
#  endif
#  include <immintrin.h>
#elif defined(WSF_HAVE_NEON) && defined(_MSC_VER) && !defined(__clang__)
#  include <arm64_neon.h>
#elif defined(WSF_HAVE_NEON)
#  include <arm_neon.h>
#endif

#if defined(__GNUC__)
#  define WSF_KERNEL __attribute__((noinline, unused)) static
#  define WSF_TARGET(features) __attribute__((target(features)))
#  define WSF_UNLIKELY(x) __builtin_expect(!!(x), 0)
#elif defined(_MSC_VER)
#  define WSF_KERNEL __declspec(noinline) static
#  define WSF_TARGET(features)
#  define WSF_UNLIKELY(x) (x)
#else
#  define WSF_KERNEL static inline
#  define WSF_TARGET(features)
#  define WSF_UNLIKELY(x) (x)
#endif

#define WSF_TARGET_AVX2 WSF_TARGET("avx2")
/* VBMI2 is not used for its instructions: it tells the processors (Ice Lake, Zen 4 and later) on
 * which 512-bit registers cost no clock speed from those on which they do (Skylake-X). */
#define WSF_TARGET_AVX512 WSF_TARGET("avx512f,avx512bw,avx512vl,avx512vbmi2")

/* ---- levels -------------------------------------------------------------------------------- */

enum { WSF_PORTABLE, WSF_SSE2, WSF_NEON, WSF_AVX2, WSF_AVX512 };

/* Written by wsf_cpu_init() or wsf_use_level() while one thread runs, read everywhere. A compare
 * and a direct call through it cost less than an indirect call, above all with retpolines. */
static int wsf_level = WSF_PORTABLE;

static inline const char *wsf_level_name(int level)
{
    switch (level) {
    case WSF_SSE2: return "sse2";
    case WSF_NEON: return "neon";
    case WSF_AVX2: return "avx2";
    case WSF_AVX512: return "avx512";
    default: return "portable";
    }
}

/* Nonzero iff compiler, processor and operating system all support `level`. */
static inline int wsf_level_available(int level)
{
#if defined(WSF_HAVE_SSE2)
    if (level == WSF_SSE2)
        return 1;
#endif
#if defined(WSF_HAVE_NEON)
    if (level == WSF_NEON)
        return 1;
#endif
#if defined(WSF_HAVE_AVX2)
#  if defined(__GNUC__)
    __builtin_cpu_init();
    if (level == WSF_AVX2)
        return __builtin_cpu_supports("avx2") != 0;
#    if defined(WSF_HAVE_AVX512)
    if (level == WSF_AVX512)
        return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vbmi2");
#    endif
#  else
    if (level == WSF_AVX2 || level == WSF_AVX512) {
        const uint64_t avx_state = 0x06, avx512_state = 0xe6; /* XCR0: what the system saves */
        const uint32_t f_bw_vl = (1u << 16) | (1u << 30) | (1u << 31);
        uint64_t saved;
        uint32_t ebx, ecx;
        int regs[4];
        __cpuid(regs, 0);
        if (regs[0] < 7)
            return 0;
        __cpuid(regs, 1);
        if (!((uint32_t)regs[2] & (1u << 27))) /* OSXSAVE: without it XGETBV does not exist */
            return 0;
        saved = _xgetbv(0);
        __cpuidex(regs, 7, 0);
        ebx = (uint32_t)regs[1];
        ecx = (uint32_t)regs[2];
        if (level == WSF_AVX2)
            return (saved & avx_state) == avx_state && (ebx & (1u << 5));
        return (saved & avx512_state) == avx512_state && (ebx & f_bw_vl) == f_bw_vl &&
               (ecx & (1u << 6));
    }
#  endif
#endif
    return level == WSF_PORTABLE;
}

/* Choose the best level this machine supports. Call it once, before threads start. */
static inline void wsf_cpu_init(void)
{
    int level = WSF_AVX512;
    while (!wsf_level_available(level))
        level--;
    wsf_level = level;
}

/* Name of the level in use: "avx512", "avx2", "sse2", "neon" or "portable". */
static inline const char *wsf_simd_level(void)
{
    return wsf_level_name(wsf_level);
}

/* Force a level (tests, benchmarks). Returns 0, changing nothing, where it is unavailable. */
static inline int wsf_use_level(const char *name)
{
    for (int level = WSF_PORTABLE; level <= WSF_AVX512; level++) {
        if (strcmp(name, wsf_level_name(level)) == 0 && wsf_level_available(level)) {
            wsf_level = level;
            return 1;
        }
    }
    return 0;
}

/* ---- keys ---------------------------------------------------------------------------------- */

/* The key as seen from payload offset `offset`. A key is its four bytes in the order in which they
 * stand in the frame, moved into a uint32_t with memcpy: the integer's value depends on the
 * machine, everything done with it here does not. */
static inline uint32_t wsf_rotate_key(uint32_t key, size_t offset)
{
    const unsigned bits = 8u * (unsigned)(offset & 3u);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (key << bits) | (key >> ((32u - bits) & 31u));
#else
    return (key >> bits) | (key << ((32u - bits) & 31u));
#endif
}

/* ---- vectors: the same six operations for every width -------------------------------------- */

#define WSF_HIGH_BITS UINT64_C(0x8080808080808080)

typedef uint64_t wsf_vec_portable;
static inline uint64_t wsf_load_portable(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline void wsf_store_portable(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }
static inline uint64_t wsf_xor_portable(uint64_t a, uint64_t b) { return a ^ b; }
static inline uint64_t wsf_or_portable(uint64_t a, uint64_t b) { return a | b; }
static inline uint64_t wsf_key_portable(uint32_t key) { return (uint64_t)key << 32 | key; }
static inline int wsf_high_portable(uint64_t v) { return (v & WSF_HIGH_BITS) != 0; }

#if defined(WSF_HAVE_SSE2)
typedef __m128i wsf_vec_sse2;
static inline __m128i wsf_load_sse2(const uint8_t *p) { return _mm_loadu_si128((const void *)p); }
static inline void wsf_store_sse2(uint8_t *p, __m128i v) { _mm_storeu_si128((void *)p, v); }
static inline __m128i wsf_xor_sse2(__m128i a, __m128i b) { return _mm_xor_si128(a, b); }
static inline __m128i wsf_or_sse2(__m128i a, __m128i b) { return _mm_or_si128(a, b); }
static inline __m128i wsf_key_sse2(uint32_t key) { return _mm_set1_epi32((int)key); }
static inline int wsf_high_sse2(__m128i v) { return _mm_movemask_epi8(v); }
#endif

#if defined(WSF_HAVE_AVX2)
typedef __m256i wsf_vec_avx2;
WSF_TARGET_AVX2 static inline __m256i wsf_load_avx2(const uint8_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}
WSF_TARGET_AVX2 static inline void wsf_store_avx2(uint8_t *p, __m256i v)
{
    _mm256_storeu_si256((void *)p, v);
}
WSF_TARGET_AVX2 static inline __m256i wsf_xor_avx2(__m256i a, __m256i b)
{
    return _mm256_xor_si256(a, b);
}
WSF_TARGET_AVX2 static inline __m256i wsf_or_avx2(__m256i a, __m256i b)
{
    return _mm256_or_si256(a, b);
}
WSF_TARGET_AVX2 static inline __m256i wsf_key_avx2(uint32_t key)
{
    return _mm256_set1_epi32((int)key);
}
WSF_TARGET_AVX2 static inline int wsf_high_avx2(__m256i v) { return _mm256_movemask_epi8(v); }
#endif

#if defined(WSF_HAVE_NEON)
typedef uint8x16_t wsf_vec_neon;
static inline uint8x16_t wsf_load_neon(const uint8_t *p) { return vld1q_u8(p); }
static inline void wsf_store_neon(uint8_t *p, uint8x16_t v) { vst1q_u8(p, v); }
static inline uint8x16_t wsf_xor_neon(uint8x16_t a, uint8x16_t b) { return veorq_u8(a, b); }
static inline uint8x16_t wsf_or_neon(uint8x16_t a, uint8x16_t b) { return vorrq_u8(a, b); }
static inline uint8x16_t wsf_key_neon(uint32_t key)
{
    return vreinterpretq_u8_u32(vdupq_n_u32(key));
}
static inline int wsf_high_neon(uint8x16_t v) { return vmaxvq_u8(v) >= 0x80; }
#endif

/* ---- kernels: payloads of more than 32 bytes ----------------------------------------------- */

/* One algorithm for every width W. A vector that ends with the payload takes the key rotated by n,
 * because n - W is n modulo 4; it overlaps its neighbour instead of leaving a tail of bytes.
 *
 * Overlap and dst == src go together because whatever overlaps is loaded before the first store:
 * a byte written twice is computed twice from the same source, never masked twice.
 *
 * Up to 8 W: that many loads, that many stores, no loop. Beyond: stores aligned to W (a bytes or
 * str object's data never are), 4 W per turn. */
#define WSF_MASK_KERNEL(L, TARGET)                                                                 \
    TARGET WSF_KERNEL int wsf_mask_##L(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)  \
    {                                                                                              \
        enum { W = sizeof(wsf_vec_##L) };                                                          \
        const wsf_vec_##L head_key = wsf_key_##L(key);                                             \
        const wsf_vec_##L tail_key = wsf_key_##L(wsf_rotate_key(key, n));                          \
        const uint8_t *const src_end = src + n;                                                    \
        uint8_t *const dst_end = dst + n;                                                          \
        wsf_vec_##L head, a, b, c, d, e, f, g, h, seen;                                            \
        head = a = wsf_xor_##L(wsf_load_##L(src), head_key);                                       \
        h = wsf_xor_##L(wsf_load_##L(src_end - W), tail_key);                                      \
        seen = wsf_or_##L(a, h);                                                                   \
        if (n <= 2 * W) {                                                                          \
            wsf_store_##L(dst, a);                                                                 \
            wsf_store_##L(dst_end - W, h);                                                         \
            return wsf_high_##L(seen);                                                             \
        }                                                                                          \
        b = wsf_xor_##L(wsf_load_##L(src + W), head_key);                                          \
        g = wsf_xor_##L(wsf_load_##L(src_end - 2 * W), tail_key);                                  \
        seen = wsf_or_##L(seen, wsf_or_##L(b, g));                                                 \
        if (n <= 4 * W) {                                                                          \
            wsf_store_##L(dst, a);                                                                 \
            wsf_store_##L(dst + W, b);                                                             \
            wsf_store_##L(dst_end - 2 * W, g);                                                     \
            wsf_store_##L(dst_end - W, h);                                                         \
            return wsf_high_##L(seen);                                                             \
        }                                                                                          \
        e = wsf_xor_##L(wsf_load_##L(src_end - 4 * W), tail_key);                                  \
        f = wsf_xor_##L(wsf_load_##L(src_end - 3 * W), tail_key);                                  \
        seen = wsf_or_##L(seen, wsf_or_##L(e, f));                                                 \
        if (n <= 8 * W) {                                                                          \
            c = wsf_xor_##L(wsf_load_##L(src + 2 * W), head_key);                                  \
            d = wsf_xor_##L(wsf_load_##L(src + 3 * W), head_key);                                  \
            seen = wsf_or_##L(seen, wsf_or_##L(c, d));                                             \
            wsf_store_##L(dst, a);                                                                 \
            wsf_store_##L(dst + W, b);                                                             \
            wsf_store_##L(dst + 2 * W, c);                                                         \
            wsf_store_##L(dst + 3 * W, d);                                                         \
        } else {                                                                                   \
            size_t i = W - ((uintptr_t)dst & (W - 1)); /* 1 to W: `head` covers what is before */ \
            const wsf_vec_##L loop_key = wsf_key_##L(wsf_rotate_key(key, i));                      \
            do {                                                                                   \
                a = wsf_xor_##L(wsf_load_##L(src + i), loop_key);                                  \
                b = wsf_xor_##L(wsf_load_##L(src + i + W), loop_key);                              \
                c = wsf_xor_##L(wsf_load_##L(src + i + 2 * W), loop_key);                          \
                d = wsf_xor_##L(wsf_load_##L(src + i + 3 * W), loop_key);                          \
                seen = wsf_or_##L(seen, wsf_or_##L(wsf_or_##L(a, b), wsf_or_##L(c, d)));           \
                wsf_store_##L(dst + i, a);                                                         \
                wsf_store_##L(dst + i + W, b);                                                     \
                wsf_store_##L(dst + i + 2 * W, c);                                                 \
                wsf_store_##L(dst + i + 3 * W, d);                                                 \
                i += 4 * W;                                                                        \
            } while (n - i > 4 * W);                                                               \
            wsf_store_##L(dst, head);                                                              \
        }                                                                                          \
        wsf_store_##L(dst_end - 4 * W, e);                                                         \
        wsf_store_##L(dst_end - 3 * W, f);                                                         \
        wsf_store_##L(dst_end - 2 * W, g);                                                         \
        wsf_store_##L(dst_end - W, h);                                                             \
        return wsf_high_##L(seen);                                                                 \
    }

WSF_MASK_KERNEL(portable, )
#if defined(WSF_HAVE_SSE2)
WSF_MASK_KERNEL(sse2, )
#endif
#if defined(WSF_HAVE_AVX2)
WSF_MASK_KERNEL(avx2, WSF_TARGET_AVX2)
#endif
#if defined(WSF_HAVE_NEON)
WSF_MASK_KERNEL(neon, )
#endif

/* ---- the interface ------------------------------------------------------------------------- */

/* Up to 32 bytes, inline: two loads, then two stores, which overlap. */
static inline int wsf_mask_short(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const uint32_t tail_key = wsf_rotate_key(key, n);
    if (n >= 16) {
#if defined(WSF_HAVE_SSE2)
        const __m128i a = wsf_xor_sse2(wsf_load_sse2(src), wsf_key_sse2(key));
        const __m128i z = wsf_xor_sse2(wsf_load_sse2(src + n - 16), wsf_key_sse2(tail_key));
        wsf_store_sse2(dst, a);
        wsf_store_sse2(dst + n - 16, z);
        return wsf_high_sse2(wsf_or_sse2(a, z));
#elif defined(WSF_HAVE_NEON)
        const uint8x16_t a = wsf_xor_neon(wsf_load_neon(src), wsf_key_neon(key));
        const uint8x16_t z = wsf_xor_neon(wsf_load_neon(src + n - 16), wsf_key_neon(tail_key));
        wsf_store_neon(dst, a);
        wsf_store_neon(dst + n - 16, z);
        return wsf_high_neon(wsf_or_neon(a, z));
#else
        const uint64_t k = wsf_key_portable(key), t = wsf_key_portable(tail_key);
        const uint64_t a = wsf_load_portable(src) ^ k;
        const uint64_t b = wsf_load_portable(src + 8) ^ k;
        const uint64_t y = wsf_load_portable(src + n - 16) ^ t;
        const uint64_t z = wsf_load_portable(src + n - 8) ^ t;
        wsf_store_portable(dst, a);
        wsf_store_portable(dst + 8, b);
        wsf_store_portable(dst + n - 16, y);
        wsf_store_portable(dst + n - 8, z);
        return wsf_high_portable(a | b | y | z);
#endif
    }
    if (n >= 8) {
        const uint64_t a = wsf_load_portable(src) ^ wsf_key_portable(key);
        const uint64_t z = wsf_load_portable(src + n - 8) ^ wsf_key_portable(tail_key);
        wsf_store_portable(dst, a);
        wsf_store_portable(dst + n - 8, z);
        return wsf_high_portable(a | z);
    }
    if (n >= 4) {
        uint32_t a, z;
        memcpy(&a, src, 4);
        memcpy(&z, src + n - 4, 4);
        a ^= key;
        z ^= tail_key;
        memcpy(dst, &a, 4);
        memcpy(dst + n - 4, &z, 4);
        return ((a | z) & (uint32_t)WSF_HIGH_BITS) != 0;
    }
    if (n != 0) { /* 1 to 3: first, middle and last byte, some of them the same one */
        uint8_t k[4];
        memcpy(k, &key, 4);
        const uint8_t a = (uint8_t)(src[0] ^ k[0]);
        const uint8_t m = (uint8_t)(src[n / 2] ^ k[n / 2]);
        const uint8_t z = (uint8_t)(src[n - 1] ^ k[n - 1]);
        dst[0] = a;
        dst[n / 2] = m;
        dst[n - 1] = z;
        return (a | m | z) & 0x80;
    }
    return 0;
}

/* RFC 6455 5.3: XOR n bytes of src with the repeating key into dst. dst == src is allowed, any
 * other overlap is not. Returns nonzero iff a byte written has bit 7 set: the text is not ASCII. */
static inline int wsf_mask(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n <= 32)
        return wsf_mask_short(dst, src, n, key);
#if defined(WSF_HAVE_AVX2)
    if (wsf_level >= WSF_AVX2)
        return wsf_mask_avx2(dst, src, n, key);
#endif
#if defined(WSF_HAVE_SSE2)
    if (wsf_level == WSF_SSE2)
        return wsf_mask_sse2(dst, src, n, key);
#elif defined(WSF_HAVE_NEON)
    if (wsf_level == WSF_NEON)
        return wsf_mask_neon(dst, src, n, key);
#endif
    return wsf_mask_portable(dst, src, n, key);
}

/* The same without a key: copy n bytes and report a bit 7. One pass, where memcpy and a check are
 * two; XOR with zero is free beside the load and the store. */
static inline int wsf_copy(uint8_t *dst, const uint8_t *src, size_t n)
{
    return wsf_mask(dst, src, n, 0);
}

#endif /* WSF_MASK_H */
