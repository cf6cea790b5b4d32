/* The floor: a server on epoll that does what every server must do, and nothing else.
 *
 *     echo ws          each message goes back; the replies of one read leave in one send
 *     echo raw         each byte goes back
 *     echo broadcast   each message goes to every connection, one send each
 *
 * Prints its port, and ends with its standard input. It trusts its clients: no limits, no UTF-8, no fragments.
 */
#include "frames.h"

typedef struct {
    int fd, open, waits_to_write, dead;
    unsigned char *in, *out;
    size_t in_size, in_room, out_start, out_size, out_room;
} Client;

enum { READ = 256 * 1024, FDS = 65536 };
enum { WS, RAW, BROADCAST };

static int mode, epoll;
static Client *clients[FDS];
static int highest; /* of the descriptors in use */

/* -- SHA-1 and Base64, for Sec-WebSocket-Accept ------------------------------------------------------------------- */

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_block(uint32_t state[5], const unsigned char *block)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
        uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
        uint32_t next = rotate(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* RFC 6455 4.2.2: the key of 24 characters and the GUID, 60 bytes: two blocks. */
static void accept_of(const char *key, char accept[29])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    unsigned char blocks[128] = {0}, digest[21] = {0};
    memcpy(blocks, key, 24);
    memcpy(blocks + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    blocks[60] = 0x80;
    blocks[126] = 480 >> 8;
    blocks[127] = 480 & 0xff;
    sha1_block(state, blocks);
    sha1_block(state, blocks + 64);
    for (int i = 0; i < 20; i++)
        digest[i] = state[i / 4] >> (24 - 8 * (i % 4));
    for (int i = 0; i < 7; i++) {
        uint32_t bits = digest[3 * i] << 16 | digest[3 * i + 1] << 8 | digest[3 * i + 2];
        for (int j = 0; j < 4; j++)
            accept[4 * i + j] = alphabet[bits >> (18 - 6 * j) & 63];
    }
    accept[27] = '=';
    accept[28] = 0;
}

/* -- connections --------------------------------------------------------------------------------------------------- */

static void watch(Client *client, int operation)
{
    struct epoll_event event = {.events = client->waits_to_write ? EPOLLOUT : EPOLLIN, .data.fd = client->fd};
    if (epoll_ctl(epoll, operation, client->fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

/* Memory for `size` more bytes of output. */
static unsigned char *output(Client *client, size_t size)
{
    if (client->out_size + size > client->out_room) {
        client->out_room = 2 * (client->out_size + size);
        client->out = realloc(client->out, client->out_room);
        if (client->out == NULL)
            fail("out of memory");
    }
    return client->out + client->out_size;
}

/* While output waits, nothing more is read. */
static void flush(Client *client)
{
    while (client->out_start < client->out_size) {
        ssize_t sent = send(client->fd, client->out + client->out_start, client->out_size - client->out_start, 0);
        if (sent < 0) {
            if (errno != EAGAIN) {
                client->dead = 1;
            } else if (!client->waits_to_write) {
                client->waits_to_write = 1;
                watch(client, EPOLL_CTL_MOD);
            }
            return;
        }
        client->out_start += sent;
    }
    client->out_start = client->out_size = 0;
    if (client->waits_to_write) {
        client->waits_to_write = 0;
        watch(client, EPOLL_CTL_MOD);
    }
}

static void answer(Client *client, int opcode, const unsigned char *payload, size_t size, const unsigned char key[4])
{
    unsigned char *to = output(client, MAX_HEADER + size);
    size_t header = put_header(to, opcode, size, 0);
    apply_mask(to + header, payload, size, key);
    client->out_size += header + size;
}

static void broadcast(int opcode, const unsigned char *payload, size_t size, const unsigned char key[4])
{
    static unsigned char frame[READ];
    size_t header = put_header(frame, opcode, size, 0);
    if (MAX_HEADER + size > READ)
        fail("too large to broadcast");
    apply_mask(frame + header, payload, size, key);
    for (int fd = 0; fd <= highest; fd++) {
        Client *client = clients[fd];
        if (client == NULL || !client->open)
            continue;
        size_t sent = 0;
        if (client->out_size == 0) {
            ssize_t result = send(fd, frame, header + size, 0);
            sent = result < 0 ? 0 : result;
        }
        if (sent < header + size) {
            memcpy(output(client, header + size - sent), frame + sent, header + size - sent);
            client->out_size += header + size - sent;
            flush(client);
        }
    }
}

static size_t open_connection(Client *client)
{
    char accept[29], *end = memmem(client->in, client->in_size, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    *end = 0;
    char *key = strcasestr((char *)client->in, "Sec-WebSocket-Key:");
    if (key == NULL)
        fail("no key in the request");
    for (key += 18; *key == ' '; key++)
        ;
    accept_of(key, accept);
    client->out_size += sprintf((char *)output(client, 256),
                                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Accept: %s\r\n\r\n",
                                accept);
    client->open = 1;
    return end + 4 - (char *)client->in;
}

/* Handles the whole frames in the buffer; returns their size. */
static size_t handle(Client *client)
{
    size_t position = 0, length, header;
    if (!client->open)
        position = open_connection(client);
    while (client->open) {
        unsigned char *frame = client->in + position;
        size_t left = client->in_size - position;
        header = get_header(frame, left, &length);
        if (header == 0 || left - header < 4 + length)
            break;
        unsigned char *key = frame + header;
        int opcode = frame[0] & 15;
        if (opcode == PONG)
            ;
        else if (mode == BROADCAST && opcode < CLOSE)
            broadcast(opcode, key + 4, length, key);
        else
            answer(client, opcode == PING ? PONG : opcode, key + 4, length, key);
        if (opcode == CLOSE)
            client->open = 0;
        position += header + 4 + length;
    }
    return position;
}

static void readable(Client *client)
{
    static unsigned char shared[READ];
    if (mode == RAW) {
        ssize_t got = recv(client->fd, shared, sizeof shared, 0);
        if (got <= 0) {
            client->dead = got == 0 || errno != EAGAIN;
            return;
        }
        memcpy(output(client, got), shared, got);
        client->out_size += got;
        flush(client);
        return;
    }
    /* Most reads hold whole frames: they are handled where the kernel put them, in memory that all share. */
    unsigned char *own = client->in;
    size_t kept = client->in_size;
    if (kept == 0) {
        client->in = shared;
    } else if (client->in_room < kept + READ) {
        client->in_room = kept + READ;
        client->in = own = realloc(own, client->in_room);
        if (own == NULL)
            fail("out of memory");
    }
    ssize_t got = recv(client->fd, client->in + kept, READ, 0);
    if (got <= 0) {
        client->in = own;
        client->dead = got == 0 || errno != EAGAIN;
        return;
    }
    client->in_size = kept + got;
    size_t used = handle(client);
    client->in_size -= used;
    if (kept == 0) {
        if (client->in_size > client->in_room) {
            client->in_room = 2 * READ;
            own = realloc(own, client->in_room);
            if (own == NULL)
                fail("out of memory");
        }
        memcpy(own ? own : shared, shared + used, client->in_size);
        client->in = own;
    } else {
        memmove(own, own + used, client->in_size);
    }
    flush(client);
    if (!client->open && client->out_size == 0 && used)
        client->dead = 1; /* the Close frame is answered: the server closes first (RFC 6455 7.1.1) */
}

static void end(Client *client)
{
    close(client->fd);
    clients[client->fd] = NULL;
    free(client->in);
    free(client->out);
    free(client);
}

static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0)
            return;
        if (fd >= FDS)
            fail("too many connections");
        make_nonblocking(fd);
        clients[fd] = allocate(sizeof(Client));
        clients[fd]->fd = fd;
        if (fd > highest)
            highest = fd;
        watch(clients[fd], EPOLL_CTL_ADD);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    struct epoll_event events[256], event = {.events = EPOLLIN};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (argc < 2)
        fail("usage: echo ws|raw|broadcast");
    mode = !strcmp(argv[1], "raw") ? RAW : !strcmp(argv[1], "broadcast") ? BROADCAST : WS;
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 4096) < 0)
        fail("listen: %s", strerror(errno));
    getsockname(listener, (struct sockaddr *)&address, &length);
    event.data.fd = listener;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = STDIN_FILENO;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0)
        fail("standard input must be a pipe");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO)
                return 0;
            if (fd == listener) {
                accept_all(listener);
                continue;
            }
            Client *client = clients[fd];
            if (client->waits_to_write)
                flush(client);
            else
                readable(client);
            if (client->dead)
                end(client);
        }
    }
}
