/* test_splice_stream.c: streams that a relay splices from one socket to another, whole, also where the kernel refuses to
 * now and then and the relay has to copy in between: the way that asyncore.h tells. */
#include "map.h"
#include "support.h"
#include <unistd.h>

#define LOTS (4u << 20)

static uint32_t chance;
static struct asyncore_pipe the_pipe; /* one a test */

/* -- A relay: what arrives at one channel leaves by the other -- */

struct relay {
    struct asyncore_dispatcher base;
    struct relay *other;
    struct asyncore_pipe *pipe;
    unsigned char held[3000]; /* what did not go by splice: older than what is in the pipe */
    size_t from, to;
    bool ended;
    int closes, errors, full, copied;
};

static struct relay source, sink;

static struct relay *relay_of(struct asyncore_dispatcher *d)
{
    return (struct relay *)d;
}

/* The kernel's own count, which the library's has to be at all times. */
static void check_count(const struct asyncore_pipe *pipe)
{
    must(waiting_bytes(pipe->read_) == pipe->filled);
}

static ssize_t send_held(struct relay *r)
{
    ssize_t n = asyncore_send(&r->base, r->held + r->from, r->to - r->from);
    if (n > 0)
        r->from += (size_t)n;
    return n;
}

static ssize_t hold_piped(struct relay *r)
{
    ssize_t n = asyncore_pipe_read(map, r->pipe, r->held, sizeof r->held);
    must(n > 0);
    r->from = 0;
    r->to = (size_t)n;
    r->copied++;
    return n;
}

static ssize_t send_on(struct relay *r)
{
    if (r->from < r->to)
        return send_held(r);
    ssize_t n = asyncore_splice(&r->base, r->pipe, SIZE_MAX, ASYNCORE_WRITE);
    check_count(r->pipe);
    return n == -EINVAL || n == -ENOSYS ? hold_piped(r) : n;
}

static int relay_write(struct asyncore_dispatcher *d)
{
    struct relay *r = relay_of(d);
    ssize_t n = 1;
    while (n > 0)
        n = send_on(r);
    bool rest = r->from < r->to || r->pipe->filled > 0;
    asyncore_want(d, rest ? ASYNCORE_WRITE : 0);
    if (!rest && r->other->ended)
        must(asyncore_shutdown(d, SHUT_WR) == 0);
    if (!rest)
        asyncore_want(&r->other->base, ASYNCORE_READ);
    return n == -EAGAIN || n == -ENOMEM ? 0 : (int)n;
}

/* In the way that the header tells. */
static ssize_t take(struct relay *r)
{
    struct relay *to = r->other;
    ssize_t n = asyncore_splice(&r->base, r->pipe, 1 + random_next(&chance) % 200000, ASYNCORE_READ);
    check_count(r->pipe);
    must(n != -EAGAIN || r->pipe->filled == 0);
    must(n != -ENOBUFS || r->pipe->filled > 0);
    if (n > 0 || n == 0 || r->pipe->filled > 0 || to->from < to->to)
        return n;
    n = asyncore_recv(&r->base, to->held, sizeof to->held);
    to->from = 0;
    to->to = n > 0 ? (size_t)n : 0;
    r->copied += n > 0;
    return n;
}

static int relay_read(struct asyncore_dispatcher *d)
{
    struct relay *r = relay_of(d);
    ssize_t n = 1;
    for (int i = 0; i < 8 && n > 0; i++)
        n = take(r);
    if (n == -ENOBUFS)
        asyncore_want(d, 0);
    r->full += n == -ENOBUFS;
    asyncore_want(&r->other->base, ASYNCORE_WRITE);
    return n == -ENOBUFS || n == -EINVAL || n == -ENOSYS ? 0 : (int)n;
}

static int relay_close(struct asyncore_dispatcher *d)
{
    relay_of(d)->closes++;
    relay_of(d)->ended = true;
    return asyncore_want(&relay_of(d)->other->base, ASYNCORE_WRITE);
}

static int relay_error(struct asyncore_dispatcher *d, int error)
{
    (void)error;
    relay_of(d)->errors++;
    return 0;
}

static const struct asyncore_class relay_class = {.name = "relay",
                                                  .handle_read = relay_read,
                                                  .handle_write = relay_write,
                                                  .handle_close = relay_close,
                                                  .handle_error = relay_error};

static void relay_on(int from, int to)
{
    ck_assert_int_eq(asyncore_dispatcher_init(&source.base, &relay_class, map), 0);
    ck_assert_int_eq(asyncore_dispatcher_init(&sink.base, &relay_class, map), 0);
    source.other = &sink;
    sink.other = &source;
    source.pipe = sink.pipe = &the_pipe;
    ck_assert_int_eq(asyncore_set_socket(&source.base, from), 0);
    ck_assert_int_eq(asyncore_set_socket(&sink.base, to), 0);
    ck_assert_int_eq(asyncore_want(&sink.base, 0), 0);
}

/* Sends and receives in uneven pieces, both without waiting, until all of it came and the end after it. */
static void pass(int in, int out, size_t size)
{
    static unsigned char data[100000];
    uint64_t end = clock_ns() + 2 * patience() * UINT64_C(1000000);
    size_t sent = 0, got = 0;
    set_blocking(in, false);
    set_blocking(out, false);
    for (ssize_t n = -1; n != 0;) {
        size_t piece = 1 + random_next(&chance) % sizeof data;
        if (piece > size - sent)
            piece = size - sent;
        pattern_fill(data, sent, piece);
        n = piece > 0 ? send(in, data, piece, MSG_NOSIGNAL) : 0;
        sent += n > 0 ? (size_t)n : 0;
        if (sent == size)
            shutdown(in, SHUT_WR);
        turn();
        n = recv(out, data, 1 + random_next(&chance) % sizeof data, 0);
        must(n >= 0 || errno == EAGAIN);
        pattern_check(data, got, n > 0 ? (size_t)n : 0);
        got += n > 0 ? (size_t)n : 0;
        must(clock_ns() < end);
    }
    ck_assert_uint_eq(got, size);
}

static void pair_of(bool tcp, int fds[2])
{
    tcp ? tcp_pair(fds) : unix_pair(fds);
}

static void relay_finish(int in, int out)
{
    asyncore_fini(&source.base);
    asyncore_fini(&sink.base);
    asyncore_pipe_close(map, &the_pipe);
    close(in);
    close(out);
}

/* Small, but not so small that TCP waits for its timers. */
static void modest_buffers(int fd)
{
    int size = 16384;
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
}

/* -- A kernel that refuses now and then, and the first time in each direction -- */

static bool refused[2];
static struct os moody;

static ssize_t moody_splice(int from, int to, size_t size, struct os *os)
{
    static const ssize_t moods[] = {-EAGAIN, -EINVAL, -ENOMEM, -ENOSYS};
    uint32_t mood = random_next(&chance) % 16;
    bool outward = from == the_pipe.read_;
    if (!refused[outward]) {
        refused[outward] = true;
        return -EINVAL;
    }
    if (mood < COUNT(moods))
        return moods[mood];
    return os_linux.splice(from, to, mood < 10 ? 1 + random_next(&chance) % size : size, os);
}

/* -- The tests -- */

START_TEST(bytes_pass_unchanged_from_socket_to_socket)
{
    int in[2], out[2];
    chance = (uint32_t)_i;
    pair_of(_i & 1, in);
    pair_of(_i & 2, out);
    if (_i & 4) {
        modest_buffers(out[0]);
        modest_buffers(out[1]);
    }
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    relay_on(in[0], out[0]);
    pass(in[1], out[1], _i & 4 ? LOTS / 4 : LOTS);
    ck_assert_int_eq(source.closes, 1);
    ck_assert_int_eq(source.errors + sink.errors + sink.closes, 0);
    ck_assert_int_eq(source.copied + sink.copied, 0);
    ck_assert(_i & 4 || source.full > 0);
    relay_finish(in[1], out[1]);
}
END_TEST

START_TEST(bytes_pass_unchanged_where_the_kernel_refuses_now_and_then)
{
    int in[2], out[2];
    chance = (uint32_t)_i;
    moody = os_linux;
    moody.splice = moody_splice;
    map->os = &moody;
    pair_of(_i & 1, in);
    pair_of(_i & 2, out);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 1 << 18), 0);
    relay_on(in[0], out[0]);
    pass(in[1], out[1], LOTS / 2);
    ck_assert_int_eq(source.closes, 1);
    ck_assert_int_eq(source.errors + sink.errors + sink.closes, 0);
    ck_assert_int_gt(source.copied, 0);
    ck_assert_int_gt(sink.copied, 0);
    relay_finish(in[1], out[1]);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, bytes_pass_unchanged_from_socket_to_socket, 0, 8);
    tcase_add_loop_test(tests, bytes_pass_unchanged_where_the_kernel_refuses_now_and_then, 0, 8);
}

int main(void)
{
    return run_suite("splice_stream", add, NULL);
}
