/* Fuzz target: masking and copying (ext/mask.h) at every level, against a byte loop.
 *
 * Input: key (4 bytes), source and destination offset (half a byte each), split point, payload.
 * Buffers are of the exact size, so that AddressSanitizer sees any byte too far.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "mask.h"

#define HEADER 6

static void expect(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "level %s: %s\n", wsf_simd_level(), what);
        abort();
    }
}

static uint8_t *allocate(size_t n)
{
    uint8_t *const p = malloc(n ? n : 1);
    if (!p)
        abort();
    return p;
}

static void check_level(const uint8_t *payload, size_t n, uint32_t key, size_t src_offset,
                        size_t dst_offset, size_t split, const uint8_t *masked)
{
    uint8_t *const src_memory = allocate(src_offset + n), *const src = src_memory + src_offset;
    uint8_t *const dst_memory = allocate(dst_offset + n), *const dst = dst_memory + dst_offset;
    int masked_high = 0, payload_high = 0, high;

    for (size_t i = 0; i < n; i++) {
        masked_high |= masked[i] & 0x80;
        payload_high |= payload[i] & 0x80;
    }
    if (n)
        memcpy(src, payload, n);

    high = wsf_mask(dst, src, n, key);
    expect(memcmp(dst, masked, n) == 0, "mask");
    expect(!high == !masked_high, "mask: bit 7");
    expect(memcmp(src, payload, n) == 0, "mask: source changed");

    high = wsf_mask(dst, dst, n, key);
    expect(memcmp(dst, payload, n) == 0, "unmask in place");
    expect(!high == !payload_high, "unmask in place: bit 7");

    memset(dst, 0, n);
    high = wsf_copy(dst, src, n);
    expect(memcmp(dst, payload, n) == 0, "copy");
    expect(!high == !payload_high, "copy: bit 7");

    high = wsf_mask(dst, src, split, key);
    high |= wsf_mask(dst + split, src + split, n - split, wsf_rotate_key(key, split));
    expect(memcmp(dst, masked, n) == 0, "mask in two pieces");
    expect(!high == !masked_high, "mask in two pieces: bit 7");

    free(src_memory);
    free(dst_memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER)
        return 0;
    const uint8_t *const payload = data + HEADER;
    const size_t n = size - HEADER;
    uint8_t *const masked = allocate(n);
    uint32_t key;
    memcpy(&key, data, 4);
    for (size_t i = 0; i < n; i++)
        masked[i] = payload[i] ^ data[i % 4];
    for (int level = WSF_PORTABLE; level <= WSF_AVX512; level++) {
        if (wsf_use_level(wsf_level_name(level)))
            check_level(payload, n, key, data[4] & 15, data[4] >> 4, data[5] * n / 255, masked);
    }
    free(masked);
    return 0;
}
