/* What the echo server and the load generator share: frame headers, masking, sockets. Knows no connection. */
#ifndef FRAMES_H
#define FRAMES_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10, MAX_HEADER = 14 };

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static inline void *allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (memory == NULL)
        fail("out of memory");
    return memory;
}

/* Writes the header of a final frame, with an announced masking key if masked (the key is the caller's to append). */
static inline size_t put_header(unsigned char *to, int opcode, size_t length, int masked)
{
    unsigned char mask_bit = masked ? 0x80 : 0;
    to[0] = 0x80 | opcode;
    if (length < 126) {
        to[1] = mask_bit | length;
        return 2;
    }
    if (length < 65536) {
        to[1] = mask_bit | 126;
        to[2] = length >> 8;
        to[3] = length;
        return 4;
    }
    to[1] = mask_bit | 127;
    for (int i = 0; i < 8; i++)
        to[2 + i] = (uint64_t)length >> (56 - 8 * i);
    return 10;
}

/* Length of the header that starts at `from` (without masking key), 0 if `size` bytes do not hold it whole. */
static inline size_t get_header(const unsigned char *from, size_t size, size_t *length)
{
    if (size < 2)
        return 0;
    unsigned first = from[1] & 0x7f;
    size_t extended = first < 126 ? 0 : first == 126 ? 2 : 8;
    if (size < 2 + extended)
        return 0;
    *length = extended ? 0 : first;
    for (size_t i = 0; i < extended; i++)
        *length = *length << 8 | from[2 + i];
    return 2 + extended;
}

static inline void apply_mask(unsigned char *to, const unsigned char *from, size_t size, const unsigned char key[4])
{
    uint32_t key32;
    uint64_t key64, word;
    size_t i = 0;
    memcpy(&key32, key, 4);
    key64 = (uint64_t)key32 << 32 | key32;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= key64;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++)
        to[i] = from[i] ^ key[i & 3];
}

/* As event loops set their sockets. */
static inline void make_nonblocking(int fd)
{
    int on = 1;
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        fail("fcntl: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* Options are KEY=VALUE: the value of `key`, or `otherwise`. */
static inline long option(int argc, char **argv, const char *key, long otherwise)
{
    size_t length = strlen(key);
    for (int i = 2; i < argc; i++)
        if (!strncmp(argv[i], key, length) && argv[i][length] == '=')
            return atol(argv[i] + length + 1);
    return otherwise;
}

#endif
