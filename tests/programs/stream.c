/* stream: one end of a connection that both sends and receives, as fast as it goes.
 *
 *     stream SEND SEED RECEIVE SEED LARGEST [LATE]
 *
 * The connection is standard input. It sends so many bytes of the stream that the first seed stands for, in writes of
 * random sizes up to LARGEST (1: those of a TCP segment on an Ethernet, each a segment of its own), then ends its
 * stream; and it compares what it receives, in reads of random sizes, with the stream of the second seed. With LATE it
 * reads nothing until it was stopped for so many ms, or has sent all.
 *
 * A stream is a block of random bytes again and again, sent and compared in place: what is lost, doubled or moved shows
 * unless it is whole blocks, and those show in the length. The exit status is 0 when everything was sent and exactly
 * what was expected came, with its end; else one line says what came instead. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BLOCK = (1 << 22) + 7, /* no piece of a round size repeats in step with it */
    PIECE_MOST = 1 << 20,
    SEGMENT = 1448,    /* bytes of a TCP segment with time stamps, at an MTU of 1500 */
    SILENCE = 300000,  /* ms without a byte either way: hung */
};

static struct {
    uint64_t send, receive, largest;
    int late;
} options;

static unsigned char out[BLOCK + PIECE_MOST], expected[BLOCK + PIECE_MOST], in[PIECE_MOST];
static uint64_t sent, received, chance;
static bool ended;

static _Noreturn void fail(const char *what)
{
    printf("stream: %s, after %llu of %llu bytes sent, %llu of %llu received\n", what, (unsigned long long)sent,
           (unsigned long long)options.send, (unsigned long long)received, (unsigned long long)options.receive);
    exit(1);
}

/* splitmix64 */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void fill(unsigned char *block, uint64_t seed)
{
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = (unsigned char)(draw(&seed) >> 32);
    memcpy(block + BLOCK, block, PIECE_MOST);
}

/* Every order of magnitude is as likely as any other. */
static size_t piece(uint64_t left)
{
    uint64_t size = 1 + draw(&chance) % (2u << draw(&chance) % 20);

    if (size > options.largest)
        size = options.largest;
    if (options.largest == 1)
        size = SEGMENT;
    return size < left ? size : left;
}

static void send_some(void)
{
    ssize_t n = send(STDIN_FILENO, out + sent % BLOCK, piece(options.send - sent), MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && errno != EAGAIN)
        fail(strerror(errno));
    sent += n > 0 ? (uint64_t)n : 0;
    if (sent == options.send && shutdown(STDIN_FILENO, SHUT_WR) < 0)
        fail(strerror(errno));
}

static void receive_some(void)
{
    size_t size = piece(PIECE_MOST);
    ssize_t n = recv(STDIN_FILENO, in, size, MSG_DONTWAIT);

    if (n < 0 && errno != EAGAIN)
        fail(strerror(errno));
    if (n == 0)
        ended = true;
    if (n <= 0)
        return;
    if (memcmp(in, expected + received % BLOCK, (size_t)n) != 0)
        fail("bytes that differ");
    received += (uint64_t)n;
    if (received > options.receive)
        fail("too many bytes");
}

static void parse(int argc, char **argv)
{
    if (argc < 6 || argc > 7) {
        fputs("stream: usage: stream SEND SEED RECEIVE SEED LARGEST [LATE]\n", stderr);
        exit(2);
    }
    options.send = strtoull(argv[1], NULL, 10);
    options.receive = strtoull(argv[3], NULL, 10);
    options.largest = strtoull(argv[5], NULL, 10);
    options.late = argc > 6 ? atoi(argv[6]) : 0;
    chance = strtoull(argv[2], NULL, 10);
    fill(out, chance);
    fill(expected, strtoull(argv[4], NULL, 10));
}

int main(int argc, char **argv)
{
    bool reads;

    parse(argc, argv);
    reads = options.late == 0;
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    if (options.send == 0)
        shutdown(STDIN_FILENO, SHUT_WR);
    while (!ended || sent < options.send) {
        short events = (short)((reads && !ended ? POLLIN : 0) | (sent < options.send ? POLLOUT : 0));
        struct pollfd ready = {.fd = events ? STDIN_FILENO : -1, .events = events};

        if (poll(&ready, 1, reads ? SILENCE : options.late) == 0) {
            if (reads)
                fail("nothing comes and nothing goes");
            reads = true;
        }
        if (ready.revents & POLLIN || (ready.revents && !(ready.revents & POLLOUT)))
            receive_some();
        if (ready.revents & POLLOUT && sent < options.send)
            send_some();
        reads = reads || sent == options.send;
    }
    if (received != options.receive)
        fail("an early end");
    return 0;
}
