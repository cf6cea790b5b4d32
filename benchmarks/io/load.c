/* The load: opens connections, keeps messages in flight, and compares every byte that comes back.
 *
 *     load echo       a message, or `window` of them, in flight on each connection
 *     load raw        the same without WebSocket: bytes of that size
 *     load broadcast  one connection sends; the next message leaves when all have got the last one
 *     load handshake  opens and closes connections, `conns` at a time
 *     load idle       opens connections and keeps them
 *
 * Options, KEY=VALUE: port, pid (of whom to measure), conns, size, window, each=1 (a message for each reply, in a send
 * of its own; otherwise a window at once, when the last one is back), text=1, deflate=1 (offer permessage-deflate; what
 * is broadcast compressed is compared between the connections), tls=1 (if built with HAVE_TLS).
 *
 * Prints "open" and then, for each line of standard input, SECONDS, a line: messages (deliveries, handshakes),
 * nanoseconds of CPU time of the process measured, wall time, CPU time of its own.
 */
#include "frames.h"
#include <time.h>
#ifdef HAVE_TLS
#include <openssl/ssl.h>
#endif

typedef struct {
    int fd, outstanding, waits_to_write;
    unsigned char key[4];
    /* What leaves: `window` frames at most. */
    unsigned char *out;
    size_t out_start, out_size;
    uint64_t sent, received; /* messages */
    size_t offset;           /* in the reply that is coming in */
    unsigned char *wanted;   /* that reply, whole */
#ifdef HAVE_TLS
    SSL *tls;
#endif
} Conn;

enum { MARK = 16, BLOCKED = -1 };
enum { ECHO, RAW, BROADCAST, HANDSHAKE, IDLE };

static const char request[] =
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
static const char accepted[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; /* RFC 6455 1.3 */

static int mode, port, conn_count, window, each, text, deflate, use_tls, epoll;
static size_t size, reply_size, frame_size;
static Conn *conns;
static unsigned char *payload, input[256 * 1024];
static clockid_t measured;
/* A compressed message of a broadcast: what came of it on the connection that is ahead. */
static unsigned char *learned;
static size_t learned_size;

static uint64_t now(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) < 0)
        fail("clock_gettime: %s", strerror(errno));
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* -- sockets and TLS ----------------------------------------------------------------------------------------------- */

static ssize_t read_some(Conn *conn, void *to, size_t room)
{
    ssize_t got;
#ifdef HAVE_TLS
    if (conn->tls) {
        got = SSL_read(conn->tls, to, room);
        if (got <= 0 && SSL_get_error(conn->tls, got) == SSL_ERROR_WANT_READ)
            return BLOCKED;
    } else
#endif
        got = recv(conn->fd, to, room, 0);
    if (got < 0 && errno == EAGAIN)
        return BLOCKED;
    if (got <= 0)
        fail("the server closed a connection: %s", got ? strerror(errno) : "end of file");
    return got;
}

static ssize_t write_some(Conn *conn, const void *from, size_t count)
{
    ssize_t sent;
#ifdef HAVE_TLS
    if (conn->tls) {
        sent = SSL_write(conn->tls, from, count);
        if (sent <= 0 && SSL_get_error(conn->tls, sent) == SSL_ERROR_WANT_WRITE)
            return BLOCKED;
    } else
#endif
        sent = send(conn->fd, from, count, 0);
    if (sent < 0 && errno == EAGAIN)
        return BLOCKED;
    if (sent <= 0)
        fail("sending failed: %s", strerror(errno));
    return sent;
}

#ifdef HAVE_TLS
static void start_tls(Conn *conn)
{
    static SSL_CTX *context;
    if (context == NULL) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
    conn->tls = SSL_new(context);
    SSL_set_fd(conn->tls, conn->fd);
    if (SSL_connect(conn->tls) != 1)
        fail("the TLS handshake failed");
}
#endif

static void open_connection(Conn *conn, uint32_t number)
{
    struct sockaddr_in address = loopback(port);
    char head[4096];
    size_t filled = 0;
    uint32_t key = (number + 1) * 2654435761u;

    memcpy(conn->key, &key, 4);
    conn->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (conn->fd < 0 || connect(conn->fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect: %s", strerror(errno));
#ifdef HAVE_TLS
    if (use_tls)
        start_tls(conn);
#endif
    if (mode != RAW) {
        filled = sprintf(head, "%s%s\r\n", request, deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "");
        write_some(conn, head, filled);
        /* Byte by byte at the end would be slow; servers send nothing after the head by themselves. */
        for (filled = 0, head[0] = 0; strstr(head, "\r\n\r\n") == NULL; head[filled] = 0)
            filled += read_some(conn, head + filled, sizeof head - 1 - filled);
        if (strstr(head, " 101 ") == NULL || strstr(head, accepted) == NULL)
            fail("refused: %s", head);
        if (deflate != (strcasestr(head, "permessage-deflate") != NULL))
            fail("the server did not agree on compression as wanted: %s", head);
    }
    make_nonblocking(conn->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    epoll_ctl(epoll, EPOLL_CTL_ADD, conn->fd, &event);
}

/* -- messages ------------------------------------------------------------------------------------------------------ */

/* The first bytes of a message tell which it is: of that connection, and the how-manieth. */
static void put_mark(unsigned char *to, const Conn *conn, uint64_t number)
{
    char mark[MARK + 1];
    sprintf(mark, "%06x%010llx", (unsigned)(mode == BROADCAST ? 0 : conn - conns), (unsigned long long)number);
    memcpy(to, mark, MARK);
}

static void queue_message(Conn *conn)
{
    if (conn->out_start && conn->out_size + frame_size > window * frame_size) {
        memmove(conn->out, conn->out + conn->out_start, conn->out_size - conn->out_start);
        conn->out_size -= conn->out_start;
        conn->out_start = 0;
    }
    unsigned char *to = conn->out + conn->out_size;
    put_mark(payload, conn, conn->sent++);
    if (mode == RAW) {
        memcpy(to, payload, size);
    } else {
        size_t header = put_header(to, text ? TEXT : BINARY, size, 1);
        memcpy(to + header, conn->key, 4);
        apply_mask(to + header + 4, payload, size, conn->key);
    }
    conn->out_size += frame_size;
    conn->outstanding++;
}

static void flush(Conn *conn)
{
    int blocked = 0;
    while (conn->out_start < conn->out_size && !blocked) {
        ssize_t sent = write_some(conn, conn->out + conn->out_start, conn->out_size - conn->out_start);
        if (sent == BLOCKED)
            blocked = 1;
        else
            conn->out_start += sent;
    }
    if (!blocked)
        conn->out_start = conn->out_size = 0;
    if (blocked != conn->waits_to_write) {
        struct epoll_event event = {.events = blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = conn};
        epoll_ctl(epoll, EPOLL_CTL_MOD, conn->fd, &event);
        conn->waits_to_write = blocked;
    }
}

static void compare(const Conn *conn, const unsigned char *got, const unsigned char *wanted, size_t count)
{
    if (memcmp(got, wanted, count))
        fail("connection %d, message %llu: what came back differs", (int)(conn - conns),
             (unsigned long long)conn->received);
}

/* Checks what came in; returns how many replies it ended. */
static int check(Conn *conn, const unsigned char *data, size_t count)
{
    int replies = 0;
    while (count) {
        if (conn->offset == 0 && conn->outstanding == 0)
            fail("a message came that nobody sent");
        if (conn->offset == 0)
            put_mark(conn->wanted + reply_size - size, conn, conn->received);
        size_t part = reply_size - conn->offset < count ? reply_size - conn->offset : count;
        compare(conn, data, conn->wanted + conn->offset, part);
        data += part;
        count -= part;
        conn->offset += part;
        if (conn->offset == reply_size) {
            conn->offset = 0;
            conn->received++;
            conn->outstanding--;
            replies++;
        }
    }
    return replies;
}

/* The same for compressed messages: the connection that is ahead shows the others what must come. */
static int check_compressed(Conn *conn, const unsigned char *data, size_t count)
{
    size_t length, header, known = learned_size - conn->offset;
    size_t part = known < count ? known : count;
    compare(conn, data, learned + conn->offset, part);
    if (learned_size + count - part > size + 64)
        fail("a compressed message is too large");
    memcpy(learned + learned_size, data + part, count - part);
    learned_size += count - part;
    conn->offset += count;
    header = get_header(learned, learned_size, &length);
    if (learned[0] != (0xc0 | (text ? TEXT : BINARY)))
        fail("the message is not compressed: it starts with %02x", learned[0]);
    if (header == 0 || conn->offset < header + length)
        return 0;
    if (conn->offset > header + length)
        fail("a message came that nobody sent");
    conn->offset = 0;
    conn->received++;
    conn->outstanding--;
    return 1;
}

static int receive(Conn *conn)
{
    int replies = 0;
    ssize_t got;
    do {
        got = read_some(conn, input, sizeof input);
        if (got != BLOCKED)
            replies += deflate ? check_compressed(conn, input, got) : check(conn, input, got);
    } while (use_tls && got != BLOCKED);
    return replies;
}

static void reply(Conn *conn, int replies)
{
    if (each || window == 1) {
        while (replies--) {
            queue_message(conn);
            flush(conn);
        }
    } else if (conn->outstanding == 0) {
        for (int i = 0; i < window; i++)
            queue_message(conn);
        flush(conn);
    }
}

static uint64_t run_echo(uint64_t end)
{
    struct epoll_event events[256];
    uint64_t messages = 0, in_flight = 0;

    for (Conn *conn = conns; conn < conns + conn_count; conn++) {
        for (int i = 0; i < window; i++)
            queue_message(conn);
        flush(conn);
        in_flight += conn->outstanding;
    }
    while (in_flight) {
        int count = epoll_wait(epoll, events, 256, 10000), over = now(CLOCK_MONOTONIC) >= end;
        if (count == 0)
            fail("nothing came back for 10 seconds");
        for (int i = 0; i < count; i++) {
            Conn *conn = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                flush(conn);
            if (!(events[i].events & ~EPOLLOUT))
                continue;
            int before = conn->outstanding, replies = receive(conn);
            messages += replies;
            if (!over && replies)
                reply(conn, replies);
            in_flight += conn->outstanding - before;
        }
    }
    return messages;
}

static uint64_t run_broadcast(uint64_t end)
{
    struct epoll_event events[256];
    uint64_t deliveries = 0;

    while (now(CLOCK_MONOTONIC) < end) {
        int missing = conn_count;
        learned_size = 0;
        queue_message(conns);
        flush(conns);
        conns->outstanding = 0;
        for (Conn *conn = conns; conn < conns + conn_count; conn++)
            conn->outstanding++;
        while (missing) {
            int count = epoll_wait(epoll, events, 256, 10000);
            if (count == 0)
                fail("%d deliveries are missing for 10 seconds", missing);
            for (int i = 0; i < count; i++)
                missing -= receive(events[i].data.ptr);
        }
        deliveries += conn_count;
    }
    return deliveries;
}

/* -- handshakes ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int fd, asked, closing;
    size_t filled;
    char head[2048];
} Opening;

static void dial(Opening *opening)
{
    struct sockaddr_in address = loopback(port);
    memset(opening, 0, sizeof *opening);
    opening->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connect(opening->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = opening};
    epoll_ctl(epoll, EPOLL_CTL_ADD, opening->fd, &event);
}

/* One step; returns whether the connection is over, closed by the server after both Close frames. */
static int step(Opening *opening)
{
    static const unsigned char close_frame[] = {0x88, 0x82, 0, 0, 0, 0, 1000 >> 8, 1000 & 0xff};
    if (!opening->asked) {
        char head[512];
        int length = sprintf(head, "%s\r\n", request);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = opening};
        if (send(opening->fd, head, length, 0) != length)
            fail("sending a request failed: %s", strerror(errno));
        epoll_ctl(epoll, EPOLL_CTL_MOD, opening->fd, &event);
        opening->asked = 1;
        return 0;
    }
    ssize_t got = recv(opening->fd, opening->head + opening->filled, sizeof opening->head - 1 - opening->filled, 0);
    if (got < 0)
        fail("a connection broke: %s", strerror(errno));
    opening->filled += got;
    if (!opening->closing && strstr(opening->head, "\r\n\r\n")) {
        if (strstr(opening->head, " 101 ") == NULL || strstr(opening->head, accepted) == NULL)
            fail("refused: %s", opening->head);
        send(opening->fd, close_frame, sizeof close_frame, 0);
        opening->closing = 1;
        opening->filled = 0;
    } else if (got == 0) {
        if (!opening->closing || opening->filled < 2 || (unsigned char)opening->head[0] != 0x88)
            fail("a connection ended without a Close frame");
        return 1;
    }
    return 0;
}

static uint64_t run_handshakes(uint64_t end)
{
    struct epoll_event events[256];
    static Opening openings[256];
    uint64_t done = 0;
    int open = conn_count < 256 ? conn_count : 256;

    for (int i = 0; i < open; i++)
        dial(openings + i);
    while (open) {
        int count = epoll_wait(epoll, events, 256, 10000);
        if (count == 0)
            fail("nothing happened for 10 seconds");
        for (int i = 0; i < count; i++) {
            Opening *opening = events[i].data.ptr;
            if (!step(opening))
                continue;
            done++;
            close(opening->fd);
            if (now(CLOCK_MONOTONIC) < end)
                dial(opening);
            else
                open--;
        }
    }
    return done;
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void prepare(void)
{
    static const char words[] = "{\"symbol\": \"EURUSD\", \"bid\": 1.08541, \"ask\": 1.08543, \"volume\": 2500000}, ";
    payload = allocate(size);
    for (size_t i = 0; i < size; i++)
        payload[i] = words[i % (sizeof words - 1)];
    learned = allocate(size + 64);
    for (int i = 0; i < conn_count; i++) {
        Conn *conn = conns + i;
        /* In a broadcast all wait for the same message. */
        if (mode == ECHO || mode == RAW || i == 0) {
            conn->out = allocate(window * frame_size);
            conn->wanted = allocate(reply_size);
            if (mode != RAW)
                put_header(conn->wanted, text ? TEXT : BINARY, size, 0);
            memcpy(conn->wanted + reply_size - size, payload, size);
        } else {
            conn->wanted = conns->wanted;
        }
    }
}

int main(int argc, char **argv)
{
    static const char *modes[] = {"echo", "raw", "broadcast", "handshake", "idle"};
    unsigned char header[MAX_HEADER];
    char line[64];

    for (mode = IDLE; mode > ECHO && (argc < 2 || strcmp(argv[1], modes[mode])); mode--)
        ;
    port = option(argc, argv, "port", 0);
    conn_count = option(argc, argv, "conns", 1);
    size = option(argc, argv, "size", 32);
    window = option(argc, argv, "window", 1);
    each = option(argc, argv, "each", 0);
    text = option(argc, argv, "text", 0);
    deflate = option(argc, argv, "deflate", 0);
    use_tls = option(argc, argv, "tls", 0);
    if (size < MARK)
        fail("a message holds at least %d bytes", MARK);
    if (clock_getcpuclockid(option(argc, argv, "pid", 0), &measured))
        fail("no such process to measure");
#ifndef HAVE_TLS
    if (use_tls)
        fail("built without OpenSSL");
#endif
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(0);
    reply_size = (mode == RAW ? 0 : put_header(header, BINARY, size, 0)) + size;
    frame_size = reply_size + (mode == RAW ? 0 : 4);
    conns = allocate(conn_count * sizeof *conns);
    if (mode != HANDSHAKE)
        for (int i = 0; i < conn_count; i++)
            open_connection(conns + i, i);
    if (mode < HANDSHAKE)
        prepare();
    puts("open");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        uint64_t cpu = now(measured), own = now(CLOCK_PROCESS_CPUTIME_ID), start = now(CLOCK_MONOTONIC), done = 0;
        uint64_t end = start + (uint64_t)(atof(line) * 1e9);
        if (mode == BROADCAST)
            done = run_broadcast(end);
        else if (mode == HANDSHAKE)
            done = run_handshakes(end);
        else if (mode != IDLE)
            done = run_echo(end);
        printf("%llu %llu %llu %llu\n", (unsigned long long)done, (unsigned long long)(now(measured) - cpu),
               (unsigned long long)(now(CLOCK_MONOTONIC) - start),
               (unsigned long long)(now(CLOCK_PROCESS_CPUTIME_ID) - own));
        fflush(stdout);
    }
    return 0;
}
