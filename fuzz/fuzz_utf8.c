/* Fuzz target: incremental UTF-8 validation (ext/utf8.h) at every level, against a decoder that
 * takes one byte at a time.
 *
 * Input: repeat (1 byte), eight piece lengths (1 byte each), text. The text stands `repeat` % 8 + 1
 * times in a row, so that short inputs reach the vector code. It is validated whole and in pieces;
 * every piece is a buffer of its exact size, so that AddressSanitizer sees any byte too far.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "utf8.h"

#define PIECES 8
#define HEADER (1 + PIECES)

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

/* Index of the first bad byte, or n; *open says whether the text ends inside a sequence. After the
 * syntax of RFC 3629, section 4: which second bytes a lead allows, and how many follow. */
static size_t naive_utf8(const uint8_t *p, size_t n, int *open)
{
    uint8_t low = 0x80, high = 0xbf;
    int more = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        const uint8_t byte = p[i];
        if (more) {
            if (byte < low || byte > high)
                break;
            more--;
            low = 0x80;
            high = 0xbf;
        } else if (byte >= 0x80) {
            if (byte < 0xc2 || byte > 0xf4)
                break;
            more = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
            low = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
            high = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
        }
    }
    *open = more != 0;
    return i;
}

/* wsf_utf8_validate on a copy of exactly n bytes. */
static size_t validate(uint32_t *state, const uint8_t *p, size_t n)
{
    uint8_t *const copy = allocate(n);
    memcpy(copy, p, n);
    const size_t good = wsf_utf8_validate(state, copy, n);
    free(copy);
    return good;
}

static void check_level(const uint8_t *text, size_t n, const uint8_t *pieces)
{
    int open, ascii = 1;
    const size_t good = naive_utf8(text, n, &open);
    uint32_t state = 0;
    size_t at = 0;

    expect(validate(&state, text, n) == good, "first bad byte");
    expect((state == 0) == (good == n && !open), "state");

    state = 0;
    for (int i = 0; at < n; i++) {
        const size_t left = n - at;
        const size_t piece = i < PIECES && pieces[i] < left ? pieces[i] : left;
        const size_t got = validate(&state, text + at, piece);
        at += got;
        if (got < piece)
            break;
    }
    expect(at == good, "first bad byte, in pieces");
    expect((state == 0) == (good == n && !open), "state, in pieces");

    for (size_t i = 0; i < n; i++)
        ascii &= text[i] < 0x80;
    uint8_t *const copy = allocate(n);
    memcpy(copy, text, n);
    expect(!wsf_is_ascii(copy, n) == !ascii, "is_ascii");
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER)
        return 0;
    const size_t times = data[0] % 8u + 1, n = size - HEADER;
    uint8_t *const text = allocate(times * n);
    for (size_t i = 0; i < times; i++)
        memcpy(text + i * n, data + HEADER, n);
    for (int level = WSF_PORTABLE; level <= WSF_AVX512; level++) {
        if (wsf_use_level(wsf_level_name(level)))
            check_level(text, times * n, data + 1);
    }
    free(text);
    return 0;
}
