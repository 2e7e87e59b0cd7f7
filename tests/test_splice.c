/* test_splice.c: splicing has the ends and errors of recv and send, and what only it has to say. Where the kernel has to
 * refuse, a table of functions does it. Whole streams are in test_splice_stream.c. */
#include "map.h"
#include "sim.h"
#include "support.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct asyncore_pipe the_pipe; /* one a test */

/* -- Kernels that answer as a test wants: the real one with another splice, or clock -- */

static struct os kernel;
static ssize_t answer; /* 0: the real one's */
static int asked;
static uint64_t clock_shown;

static ssize_t answering_splice(int from, int to, size_t size, struct os *os)
{
    asked++;
    return answer != 0 ? answer : os_linux.splice(from, to, size, os);
}

static void use_answers(void)
{
    kernel = os_linux;
    kernel.splice = answering_splice;
    map->os = &kernel;
}

static uint64_t shown(struct os *os)
{
    (void)os;
    return clock_shown;
}

static void use_shown_clock(void)
{
    kernel = os_linux;
    kernel.now = shown;
    map->os = &kernel;
    clock_shown = UINT64_C(1000000000);
}

/* -- Sockets -- */

static void pair_of(bool tcp, int fds[2])
{
    tcp ? tcp_pair(fds) : unix_pair(fds);
}

/* Channels without handlers, for what needs no loop. */
static void plain_on(struct asyncore_dispatcher *d, int fd)
{
    static const struct asyncore_class class_ = {.name = "plain"};
    ck_assert_int_eq(asyncore_dispatcher_init(d, &class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(d, fd), 0);
}

static void plain_finish(struct asyncore_dispatcher *a, struct asyncore_dispatcher *b, int in, int out)
{
    asyncore_fini(a);
    asyncore_fini(b);
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

/* The kernel's own count, which the library's has to be. */
static void check_count(const struct asyncore_pipe *pipe)
{
    ck_assert_uint_eq(waiting_bytes(pipe->read_), pipe->filled);
}

/* -- What does not go at once -- */

/* Slots hold bytes of one segment only: the pipe is full though all that was sent would find room in it. (TCP joins
 * segments that wait if it comes to that, so that it is not sure to happen there.) */
START_TEST(small_segments_fill_the_pipe_and_none_is_lost)
{
    enum {
        SEGMENTS = 45
    };
    static const size_t sizes[] = {1, 100, 536, 1448};
    static unsigned char data[SEGMENTS * 1448], got[sizeof data];
    struct asyncore_dispatcher a, b;
    int in[2], out[2], yes = 1, full = 0;
    size_t moved = 0, size = sizes[_i / 2], all = SEGMENTS * size;
    bool tcp = _i & 1;
    pair_of(tcp, in);
    pair_of(tcp, out);
    plain_on(&a, in[0]);
    plain_on(&b, out[0]);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    ck_assert(!tcp || setsockopt(in[1], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
    pattern_fill(data, 0, all);
    for (size_t i = 0; i < SEGMENTS; i++)
        peer_send(in[1], data + i * size, size);
    wait_until(waiting_bytes(in[0]) == all);
    while (moved < all) {
        ssize_t n = asyncore_splice(&a, &the_pipe, sizeof data, ASYNCORE_READ);
        must(n > 0 || n == -ENOBUFS);
        moved += n > 0 ? (size_t)n : 0;
        full += n < 0;
        while (n < 0 && the_pipe.filled > 0)
            must(asyncore_splice(&b, &the_pipe, SIZE_MAX, ASYNCORE_WRITE) > 0);
    }
    ck_assert(tcp || full > 0);
    while (the_pipe.filled > 0)
        must(asyncore_splice(&b, &the_pipe, SIZE_MAX, ASYNCORE_WRITE) > 0);
    ck_assert_uint_eq(peer_recv(out[1], got, all), all);
    pattern_check(got, 0, all);
    plain_finish(&a, &b, in[1], out[1]);
}
END_TEST

START_TEST(what_a_slow_socket_did_not_take_stays_in_the_pipe_and_is_counted)
{
    static unsigned char data[200000], got[sizeof data];
    struct asyncore_dispatcher a, b;
    int in[2], out[2];
    size_t came = 0, left = 0;
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 1 << 18), 0);
    bool small = the_pipe.size < 1 << 18;
    if (small)
        asyncore_pipe_close(map, &the_pipe);
    skip_unless(!small, "this user has too many pages in pipes");
    pair_of(_i, in);
    pair_of(_i, out);
    modest_buffers(out[0]);
    modest_buffers(out[1]);
    plain_on(&a, in[0]);
    plain_on(&b, out[0]);
    pattern_fill(data, 0, sizeof data);
    for (size_t sent = 0; sent < sizeof data; sent += 20000) {
        peer_send(in[1], data + sent, 20000);
        while (came < sent + 20000) {
            ssize_t n = asyncore_splice(&a, &the_pipe, sizeof data, ASYNCORE_READ);
            must(n > 0 || n == -EAGAIN || n == -ENOBUFS);
            came += n > 0 ? (size_t)n : 0;
            must(the_pipe.filled == came);
        }
    }
    for (ssize_t n = 1; n > 0; left += n > 0 ? (size_t)n : 0) {
        n = asyncore_splice(&b, &the_pipe, 777, ASYNCORE_WRITE);
        must(n <= 777 && (n > 0 || n == -EAGAIN));
    }
    ck_assert_uint_gt(the_pipe.filled, 0);
    ck_assert_uint_eq(the_pipe.filled, sizeof data - left);
    check_count(&the_pipe);
    ck_assert_uint_eq(peer_recv(out[1], got, left), left);
    size_t rest = the_pipe.filled;
    ck_assert_int_eq(asyncore_pipe_read(map, &the_pipe, got + left, 1), 1);
    ck_assert_int_eq(asyncore_pipe_read(map, &the_pipe, got + left + 1, sizeof got), (int)rest - 1);
    ck_assert_uint_eq(the_pipe.filled, 0);
    ck_assert_int_eq(asyncore_pipe_read(map, &the_pipe, got, 1), 0);
    pattern_check(got, 0, sizeof got);
    ck_assert_int_eq(asyncore_splice(&b, &the_pipe, 10, ASYNCORE_WRITE), 0);
    plain_finish(&a, &b, in[1], out[1]);
}
END_TEST

/* -- What EAGAIN means -- */

START_TEST(an_empty_socket_is_eagain_into_an_empty_pipe_and_enobufs_into_another)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 10, ASYNCORE_READ), -EAGAIN);
    peer_send(peer, "abcdef", 6);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 4, ASYNCORE_READ), 4);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 4, ASYNCORE_READ), 2);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 4, ASYNCORE_READ), -ENOBUFS);
    ck_assert_int_eq(asyncore_error(&p->base), 0);
    ck_assert_uint_eq(the_pipe.filled, 6);
    asyncore_pipe_close(map, &the_pipe);
    close(peer);
}
END_TEST

START_TEST(a_full_pipe_is_enobufs_although_the_socket_is_readable)
{
    static unsigned char data[200000];
    struct asyncore_dispatcher a, b;
    int in[2], out[2];
    unsigned last = 0;
    pair_of(_i, in);
    pair_of(_i, out);
    plain_on(&a, in[0]);
    plain_on(&b, out[0]);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 4096), 0);
    set_blocking(in[1], false);
    ck_assert_int_gt((int)send(in[1], data, sizeof data, 0), 70000);
    ck_assert_int_gt((int)asyncore_splice(&a, &the_pipe, 10, ASYNCORE_READ), 0);
    for (ssize_t n = 1; n > 0; last = the_pipe.filled) {
        n = asyncore_splice(&a, &the_pipe, sizeof data, ASYNCORE_READ);
        ck_assert_msg(n > 0 || n == -ENOBUFS, "%s", asyncore_strerror((int)n));
    }
    ck_assert(readable_now(in[0], 0));
    ck_assert_int_gt((int)asyncore_splice(&b, &the_pipe, SIZE_MAX, ASYNCORE_WRITE), 0);
    ck_assert_uint_lt(the_pipe.filled, last);
    while (the_pipe.filled > 0)
        must(asyncore_splice(&b, &the_pipe, SIZE_MAX, ASYNCORE_WRITE) > 0);
    ck_assert_int_gt((int)asyncore_splice(&a, &the_pipe, sizeof data, ASYNCORE_READ), 0);
    plain_finish(&a, &b, in[1], out[1]);
}
END_TEST

START_TEST(an_urgent_byte_is_eagain_and_recv_takes_it)
{
    struct asyncore_dispatcher a, b;
    int in[2], out[2], yes = 1;
    char data[8];
    tcp_pair(in);
    unix_pair(out);
    plain_on(&a, in[0]);
    plain_on(&b, out[0]);
    ck_assert_int_eq(asyncore_setsockopt(&a, SOL_SOCKET, SO_OOBINLINE, &yes, sizeof yes), 0);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    peer_send(in[1], "before", 6);
    ck_assert_int_eq(send(in[1], "!", 1, MSG_OOB), 1);
    peer_send(in[1], "after", 5);
    wait_until(waiting_bytes(in[0]) == 6 || waiting_bytes(in[0]) == 12); /* it counts up to the urgent byte */
    ck_assert_int_eq(asyncore_splice(&a, &the_pipe, 100, ASYNCORE_READ), 6);
    ck_assert_int_eq(asyncore_splice(&a, &the_pipe, 100, ASYNCORE_READ), -ENOBUFS);
    ck_assert_int_eq(asyncore_splice(&b, &the_pipe, 100, ASYNCORE_WRITE), 6);
    ck_assert_int_eq(asyncore_splice(&a, &the_pipe, 100, ASYNCORE_READ), -EAGAIN);
    ck_assert(readable_now(in[0], 0));
    ck_assert_int_eq(asyncore_recv(&a, data, 1), 1);
    ck_assert_int_eq(data[0], '!');
    ck_assert_int_eq(asyncore_splice(&a, &the_pipe, 100, ASYNCORE_READ), 5);
    plain_finish(&a, &b, in[1], out[1]);
}
END_TEST

/* splice(2) has no flag against that. */
START_TEST(a_blocking_socket_that_was_handed_in_does_not_block)
{
    int fds[2];
    pair_of(_i, fds);
    set_blocking(fds[0], true);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    uint64_t before = clock_ns();
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 10, ASYNCORE_READ), -EAGAIN);
    ck_assert_uint_lt(clock_ns() - before, patience() * UINT64_C(500000));
    ck_assert_int_ne(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
    asyncore_pipe_close(map, &the_pipe);
    close(fds[1]);
}
END_TEST

/* -- Ends and errors -- */

static ssize_t last_result;

static int splicing_read(struct asyncore_dispatcher *d)
{
    last_result = asyncore_splice(d, &the_pipe, 65536, ASYNCORE_READ);
    probe_of(d)->reads++;
    note("%s", last_result > 0 ? "bytes" : last_result == 0 ? "end" : "failed");
    return (int)last_result;
}

static int splicing_write(struct asyncore_dispatcher *d)
{
    last_result = asyncore_splice(d, &the_pipe, 65536, ASYNCORE_WRITE);
    probe_of(d)->writes++;
    note("%s", last_result > 0 ? "sent" : "failed");
    return (int)last_result;
}

static const struct asyncore_class splicing_class = {
    .name = "splicing", .parent = &probe_class, .handle_read = splicing_read, .handle_write = splicing_write};

START_TEST(the_end_of_a_stream_is_latched_and_told_once)
{
    int fds[2];
    pair_of(_i, fds);
    struct probe *p = probe_on(&splicing_class, "", fds[0]);
    p->stays = true;
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    peer_send(fds[1], "x", 1);
    shutdown(fds[1], SHUT_WR);
    run_until(p->closes == 1);
    assert_idle_for(30);
    ck_assert_str_eq(notes() + strlen(notes()) - strlen("bytes end close"), "bytes end close");
    ck_assert_int_eq(p->closes, 1);
    ck_assert_int_eq(asyncore_error(&p->base), 0);
    ck_assert_uint_eq(the_pipe.filled, 1);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 9, ASYNCORE_READ), 0);
    ck_assert_int_eq(asyncore_recv(&p->base, fds, 1), 0);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 9, ASYNCORE_WRITE), 1); /* it may still be written to */
    ck_assert(!peer_at_end(fds[1]));
    asyncore_pipe_close(map, &the_pipe);
    close(fds[1]);
}
END_TEST

START_TEST(an_end_found_outside_a_handler_is_told_by_the_loop)
{
    int peer;
    struct probe *p = probe_with_peer(&splicing_class, &peer);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    close(peer);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 9, ASYNCORE_READ), 0);
    assert_notes("");
    turn();
    assert_notes("close destroy");
    asyncore_pipe_close(map, &the_pipe);
}
END_TEST

START_TEST(a_reset_is_told_once_and_what_came_before_it_stays_in_the_pipe)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&splicing_class, "", fds[0]);
    p->stays = true;
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    peer_send(fds[1], "abc", 3);
    run_until(the_pipe.filled == 3);
    forget_notes();
    peer_reset(fds[1]);
    run_until(p->closes == 1);
    assert_idle_for(30);
    assert_notes("failed close");
    ck_assert_int_eq(last_result, -ECONNRESET);
    ck_assert_int_eq(asyncore_error(&p->base), -ECONNRESET);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 9, ASYNCORE_READ), -ECONNRESET);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 9, ASYNCORE_WRITE), -ECONNRESET);
    ck_assert_uint_eq(the_pipe.filled, 3);
    asyncore_pipe_close(map, &the_pipe);
}
END_TEST

/* As after a failed send: the peer may have answered before it went away. */
START_TEST(a_failed_write_is_the_channels_error_when_its_input_ends)
{
    struct asyncore_dispatcher a;
    int in[2], out[2];
    signal(SIGPIPE, SIG_IGN);
    unix_pair(in);
    unix_pair(out);
    struct probe *p = probe_on(&splicing_class, "", out[0]);
    plain_on(&a, in[0]);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    peer_send(in[1], "abc", 3);
    ck_assert_int_eq(asyncore_splice(&a, &the_pipe, 9, ASYNCORE_READ), 3);
    peer_send(out[1], "answer", 6);
    close(out[1]);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 9, ASYNCORE_WRITE), -EPIPE);
    ck_assert_int_eq(asyncore_send(&p->base, "x", 1), -EPIPE);
    ck_assert_uint_eq(the_pipe.filled, 3);
    ck_assert_int_eq(asyncore_pipe_read(map, &the_pipe, in, 8), 3); /* nothing of it was lost */
    run_until(p->closes == 1);
    assert_notes("bytes failed close destroy");
    ck_assert_int_eq(last_result, -EPIPE);
    ck_assert_uint_eq(the_pipe.filled, 6);
    asyncore_fini(&a);
    asyncore_pipe_close(map, &the_pipe);
    close(in[1]);
}
END_TEST

START_TEST(a_failed_write_without_interest_in_reading_fails_the_channel)
{
    int peer, other;
    signal(SIGPIPE, SIG_IGN);
    struct probe *p = probe_with_peer(&splicing_class, &peer), *from = probe_with_peer(&probe_class, &other);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    ck_assert_int_eq(asyncore_want(&p->base, 0), 0);
    ck_assert_int_eq(asyncore_want(&from->base, 0), 0);
    peer_send(other, "x", 1);
    ck_assert_int_eq(asyncore_splice(&from->base, &the_pipe, 1, ASYNCORE_READ), 1);
    close(peer);
    ck_assert_int_eq(asyncore_want(&p->base, ASYNCORE_WRITE), 0);
    run_until(p->closes == 1);
    assert_notes("failed close destroy");
    ck_assert_int_eq(last_result, -EPIPE);
    asyncore_pipe_close(map, &the_pipe);
    close(other);
}
END_TEST

/* Other errors than those of a lost connection, which a kernel might give: the same for recv and splice. */
START_TEST(an_error_of_the_socket_is_the_channels)
{
    int peer;
    use_answers();
    struct probe *p = probe_with_peer(&splicing_class, &peer);
    p->stays = true;
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    the_pipe.filled = 1; /* so it thinks */
    answer = -EHOSTUNREACH;
    ck_assert_int_eq(asyncore_want(&p->base, _i ? ASYNCORE_WRITE : ASYNCORE_READ), 0);
    peer_send(peer, "x", 1);
    run_until(p->errors == 1);
    assert_notes("failed error");
    ck_assert_int_eq(p->error, -EHOSTUNREACH);
    ck_assert_int_eq(asyncore_error(&p->base), -EHOSTUNREACH);
    assert_idle_for(30);
    ck_assert_int_eq(asked, 1);
    asyncore_pipe_close(map, &the_pipe);
    close(peer);
}
END_TEST

/* -- The kernel refuses -- */

START_TEST(a_refusal_is_no_failure_of_the_channel)
{
    static const ssize_t refusals[] = {-EINVAL, -ENOSYS};
    int peer;
    char data[8];
    use_answers();
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    peer_send(peer, "abcdef", 6);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 3, ASYNCORE_READ), 3);
    answer = refusals[_i];
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 9, ASYNCORE_READ), (int)answer);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 9, ASYNCORE_WRITE), (int)answer);
    ck_assert_uint_eq(the_pipe.filled, 3);
    ck_assert_int_eq(asyncore_error(&p->base), 0);
    ck_assert_int_eq(asyncore_recv(&p->base, data, 8), 3);
    ck_assert_int_eq(asyncore_pipe_read(map, &the_pipe, data, 8), 3);
    ck_assert_int_eq(memcmp(data, "abc", 3), 0);
    ck_assert_int_eq(asyncore_send(&p->base, data, 3), 3);
    ck_assert_uint_eq(peer_recv(peer, data, 3), 3);
    assert_idle_for(30);
    assert_notes("");
    asyncore_pipe_close(map, &the_pipe);
    close(peer);
}
END_TEST

START_TEST(no_memory_to_splice_with_passes)
{
    static const ssize_t lacks[] = {-ENOMEM, -ENOBUFS};
    int peer;
    use_answers();
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    peer_send(peer, "abcdef", 6);
    answer = lacks[_i];
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 3, ASYNCORE_READ), -EAGAIN);
    answer = 0;
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 3, ASYNCORE_READ), 3);
    answer = lacks[_i];
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 3, ASYNCORE_READ), -ENOBUFS);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 3, ASYNCORE_WRITE), (int)answer);
    answer = 0;
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 3, ASYNCORE_WRITE), 3);
    ck_assert_int_eq(asyncore_error(&p->base), 0);
    asyncore_pipe_close(map, &the_pipe);
    close(peer);
}
END_TEST

static ssize_t own_recv(struct asyncore_dispatcher *d, void *data, size_t size)
{
    (void)d, (void)data, (void)size;
    return -EAGAIN;
}

static ssize_t own_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    (void)d, (void)data;
    return (ssize_t)size;
}

static void both_refused(struct asyncore_dispatcher *d)
{
    ck_assert_int_eq(asyncore_splice(d, &the_pipe, 1, ASYNCORE_READ), -ENOTSUP);
    ck_assert_int_eq(asyncore_splice(d, &the_pipe, 1, ASYNCORE_WRITE), -ENOTSUP);
    ck_assert_int_eq(asyncore_error(d), 0);
    asyncore_fini(d);
}

START_TEST(nobodys_own_transport_is_passed_by)
{
    static const struct asyncore_class receiving = {.name = "receiving", .recv = own_recv};
    static const struct asyncore_class sending = {.name = "sending", .send = own_send};
    static const struct asyncore_class child = {.name = "child", .parent = &receiving};
    static const struct asyncore_class *const classes[] = {&receiving, &sending, &child};
    struct asyncore_dispatcher d;
    int fds[2];
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    unix_pair(fds);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, classes[_i], map), 0);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0);
    both_refused(&d);
    asyncore_pipe_close(map, &the_pipe);
    close(fds[1]);
}
END_TEST

START_TEST(no_queue_is_overtaken)
{
    static const struct asyncore_class class_ = {.name = "queued"};
    static const struct asynchat_class chat_class = {.base = {.name = "chat"}};
    struct asyncore_dispatcher_with_send s;
    struct asynchat c;
    int fds[2];
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    unix_pair(fds);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&s, &class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&s.base, fds[0]), 0);
    both_refused(&s.base);
    close(fds[1]);
    unix_pair(fds);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(asynchat_init(&c, &chat_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&c.base.base, fds[0]), 0);
    both_refused(&c.base.base);
    asyncore_pipe_close(map, &the_pipe);
    close(fds[1]);
}
END_TEST

START_TEST(what_is_no_stream_socket_is_refused)
{
    static const struct asyncore_class class_ = {.name = "plain"};
    static const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET};
    struct asyncore_dispatcher d;
    struct asyncore_file_dispatcher f;
    struct asyncore_pipe file = {0};
    int fds[2];
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    for (size_t i = 0; i < COUNT(types); i++) {
        ck_assert_int_eq(socketpair(AF_UNIX, types[i] | SOCK_NONBLOCK, 0, fds), 0);
        ck_assert_int_eq(write(fds[1], "x", 1), 1);
        ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, map), 0);
        ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0);
        both_refused(&d);
        close(fds[1]);
    }
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_DGRAM), 0);
    both_refused(&d);
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &class_, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f, fds[0]), 0);
    both_refused(&f.base);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[1]), 0); /* a pipe, taken for a socket */
    both_refused(&d);
    asyncore_pipe_close(map, &file);
    asyncore_pipe_close(map, &the_pipe);
}
END_TEST

START_TEST(a_channel_that_is_not_connected_is_none_the_worse)
{
    struct asyncore_pipe closed = {0};
    char port[8];
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_READ), -EBADF);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_WRITE), -EBADF);
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_READ), -ENOTCONN);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_WRITE), -ENOTCONN);
    strcpy(port, "0");
    int listener = peer_listen("127.0.0.1", port);
    ck_assert_int_eq(asyncore_connect(&p->base, "127.0.0.1", port), 0);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_READ), -ENOTCONN);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_WRITE), -ENOTCONN);
    run_until(p->connects == 1);
    assert_notes("connect");
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_READ), -EAGAIN);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_WRITE), 0);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 0, ASYNCORE_READ), -EINVAL);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, 0), -EINVAL);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_READ | ASYNCORE_WRITE), -EINVAL);
    ck_assert_int_eq(asyncore_splice(&p->base, &closed, 1, ASYNCORE_READ), -EBADF);
    ck_assert_int_eq(asyncore_pipe_read(map, &closed, port, 1), -EBADF);
    ck_assert_int_eq(asyncore_error(&p->base), 0);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert_int_eq(asyncore_splice(&p->base, &the_pipe, 1, ASYNCORE_READ), -EBADF);
    asyncore_pipe_close(map, &the_pipe);
    close(listener);
}
END_TEST

/* -- Pipes -- */

START_TEST(a_pipe_is_closed_once)
{
    static const struct asyncore_pipe zero;
    struct asyncore_pipe pipe = {0};
    asyncore_pipe_close(map, &pipe); /* descriptor 0 is somebody's */
    ck_assert(is_open(0));
    ck_assert_int_eq(asyncore_pipe_open(map, &pipe, 0), 0);
    int fds[2] = {pipe.read_, pipe.write_};
    for (int i = 0; i < 2; i++) {
        ck_assert_int_ne(fcntl(fds[i], F_GETFL) & O_NONBLOCK, 0);
        ck_assert_int_ne(fcntl(fds[i], F_GETFD) & FD_CLOEXEC, 0);
    }
    ck_assert_uint_eq(pipe.size, (unsigned)fcntl(fds[0], F_GETPIPE_SZ));
    ck_assert_uint_eq(pipe.filled, 0);
    ck_assert_int_eq(asyncore_pipe_open(map, &pipe, 0), -EEXIST);
    ck_assert_int_eq(pipe.read_, fds[0]);
    asyncore_pipe_close(map, &pipe);
    ck_assert(!is_open(fds[0]) && !is_open(fds[1]));
    ck_assert_int_eq(memcmp(&pipe, &zero, sizeof pipe), 0);
    int other = dup(2); /* has one of the numbers now */
    asyncore_pipe_close(map, &pipe);
    ck_assert(is_open(other));
    ck_assert_int_eq(asyncore_pipe_open(map, &pipe, 0), 0);
    asyncore_pipe_close(map, &pipe);
    close(other);
}
END_TEST

static unsigned most_bytes(void) /* that a pipe of anybody but root may have */
{
    unsigned most = 0;
    FILE *file = fopen("/proc/sys/fs/pipe-max-size", "r");
    if (file != NULL && fscanf(file, "%u", &most) != 1)
        most = 0;
    if (file != NULL)
        fclose(file);
    return most;
}

START_TEST(a_wish_for_a_size_is_granted_or_not)
{
    static const size_t absurd[] = {SIZE_MAX, (size_t)1 << 31, ((size_t)1 << 32) + 4096};
    struct asyncore_pipe plain = {0}, large = {0}, refused = {0};
    skip_unless(most_bytes() > 65536, "no pipe may be larger than they are");
    ck_assert_int_eq(asyncore_pipe_open(map, &plain, 0), 0);
    ck_assert_int_eq(asyncore_pipe_open(map, &large, 2 * (size_t)plain.size - 5), 0);
    /* Whoever else uses up the user's pages (pipe(7)) leaves the pipes of everybody as small as they are made. */
    ck_assert(large.size == 2 * plain.size || large.size <= 65536);
    bool root = geteuid() == 0;
    for (size_t i = 0; i < COUNT(absurd); i++) {
        ck_assert(!root || seteuid(65534) == 0);
        int result = asyncore_pipe_open(map, &refused, absurd[i]);
        ck_assert(!root || seteuid(0) == 0);
        ck_assert_int_eq(result, 0);
        ck_assert_uint_eq(refused.size, plain.size);
        asyncore_pipe_close(map, &refused);
    }
    asyncore_pipe_close(map, &plain);
    asyncore_pipe_close(map, &large);
}
END_TEST

START_TEST(a_pipe_for_which_descriptors_lack_leaves_nothing_behind)
{
    static const struct asyncore_pipe zero;
    struct asyncore_pipe pipe = {0};
    int next = dup(2);
    close(next);
    int before = count_descriptors();
    struct rlimit limit, low;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = (struct rlimit){(rlim_t)next + 1, limit.rlim_max}; /* one is left */
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    ck_assert_int_eq(asyncore_pipe_open(map, &pipe, 1 << 18), -EMFILE);
    setrlimit(RLIMIT_NOFILE, &limit);
    ck_assert_int_eq(memcmp(&pipe, &zero, sizeof pipe), 0);
    ck_assert_int_eq(count_descriptors(), before);
    ck_assert_int_eq(asyncore_pipe_open(map, &pipe, 1 << 18), 0);
    asyncore_pipe_close(map, &pipe);
}
END_TEST

static bool lacking;

static int lacking_accept(int fd, struct sockaddr *address, socklen_t *length, struct os *os)
{
    return lacking ? -EMFILE : os_linux.accept(fd, address, length, os);
}

static int greet(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    (void)address, (void)length;
    probe_of(d)->accepts++;
    return asyncore_close_fd(d->map, fd);
}

static const struct asyncore_class greeting_class = {
    .name = "greeting", .parent = &probe_class, .handle_accepted = greet};

START_TEST(a_closed_pipe_lets_a_resting_listener_take_up_again)
{
    struct asyncore_pipe pipe = {0};
    char port[8];
    use_map(&(struct asyncore_map_options){.accept_pause = 1000000});
    struct probe *listener = probe_listen(&greeting_class, "", "127.0.0.1", port);
    kernel = os_linux;
    kernel.accept = lacking_accept;
    map->os = &kernel;
    lacking = true;
    ck_assert_int_eq(asyncore_pipe_open(map, &pipe, 0), 0);
    int peer = peer_connect("127.0.0.1", port);
    run_for(50);
    lacking = false;
    assert_idle_for(30); /* it rests */
    ck_assert_int_eq(listener->accepts, 0);
    asyncore_pipe_close(map, &pipe);
    run_until(listener->accepts == 1);
    close(peer);
}
END_TEST

/* -- Time, forks, other kernels -- */

static int idle_error(struct asyncore_dispatcher *d, int error)
{
    probe_of(d)->errors++;
    probe_of(d)->error = error;
    return 0;
}

static const struct asyncore_class idle_class = {.name = "idle", .parent = &probe_class, .handle_error = idle_error};

START_TEST(splicing_is_activity)
{
    int peers[2];
    struct probe *p[2];
    use_shown_clock();
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    for (int i = 0; i < 2; i++) {
        p[i] = probe_with_peer(&idle_class, &peers[i]);
        ck_assert_int_eq(asyncore_want(&p[i]->base, 0), 0);
        ck_assert_int_eq(asyncore_set_idle_timeout(&p[i]->base, 1000), 0);
    }
    for (int i = 0; i < 4; i++) {
        clock_shown += UINT64_C(600000000);
        turn();
        ck_assert_int_eq(p[0]->errors + p[1]->errors, 0);
        peer_send(peers[0], "x", 1);
        ck_assert_int_eq(asyncore_splice(&p[0]->base, &the_pipe, 1, ASYNCORE_READ), 1);
        ck_assert_int_eq(asyncore_splice(&p[1]->base, &the_pipe, 1, ASYNCORE_WRITE), 1);
        turn();
    }
    clock_shown += UINT64_C(700000000);
    ck_assert_int_eq(asyncore_splice(&p[0]->base, &the_pipe, 1, ASYNCORE_READ), -EAGAIN); /* nothing moved */
    ck_assert_int_eq(asyncore_splice(&p[1]->base, &the_pipe, 1, ASYNCORE_WRITE), 0);
    clock_shown += UINT64_C(400000000);
    turn();
    turn();
    ck_assert_int_eq(p[0]->error, -ETIMEDOUT);
    ck_assert_int_eq(p[1]->error, -ETIMEDOUT);
    asyncore_pipe_close(map, &the_pipe);
    close(peers[0]);
    close(peers[1]);
}
END_TEST

static int in_child(struct asyncore_dispatcher *looked, struct asyncore_dispatcher *fresh)
{
    struct asyncore_pipe other = {0};
    char byte;
    if (asyncore_pipe_open(map, &other, 0) != -ECHILD || other.size != 0)
        return 1;
    for (int i = 0; i < 2; i++) {
        struct asyncore_dispatcher *d = i == 0 ? looked : fresh;
        if (asyncore_splice(d, &the_pipe, 1, ASYNCORE_READ) != -ECHILD)
            return 2 + i;
        if (asyncore_splice(d, &the_pipe, 1, ASYNCORE_WRITE) != -ECHILD)
            return 4 + i;
        if (asyncore_error(d) != 0)
            return 6 + i;
    }
    if (asyncore_pipe_read(map, &the_pipe, &byte, 1) != -ECHILD)
        return 8;
    return fcntl(fresh->fd, F_GETFL) & O_NONBLOCK ? 9 : 0;
}

START_TEST(a_child_moves_nothing)
{
    int peers[2], status;
    struct probe *looked = probe_with_peer(&probe_class, &peers[0]), *fresh = probe_with_peer(&probe_class, &peers[1]);
    char byte;
    set_blocking(fresh->base.fd, true);
    ck_assert_int_eq(asyncore_pipe_open(map, &the_pipe, 0), 0);
    peer_send(peers[0], "xy", 2);
    peer_send(peers[1], "z", 1);
    ck_assert_int_eq(asyncore_splice(&looked->base, &the_pipe, 1, ASYNCORE_READ), 1);
    fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        leave_child(in_child(&looked->base, &fresh->base));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(asyncore_splice(&fresh->base, &the_pipe, 9, ASYNCORE_WRITE), 1);
    ck_assert_uint_eq(peer_recv(peers[1], &byte, 1), 1);
    ck_assert_int_eq(byte, 'x');
    ck_assert_int_eq(asyncore_splice(&looked->base, &the_pipe, 9, ASYNCORE_READ), 1);
    asyncore_pipe_close(map, &the_pipe);
    close(peers[0]);
    close(peers[1]);
}
END_TEST

START_TEST(the_simulated_kernel_does_not_splice_and_says_so)
{
    static const struct asyncore_class class_ = {.name = "plain"};
    struct asyncore_sim *world;
    struct asyncore_pipe pipe = {0};
    struct asyncore_dispatcher d;
    int ends[2];
    ck_assert_int_eq(asyncore_sim_new(&world, 1, NULL), 0);
    struct asyncore_map *host = asyncore_sim_map(world, "host");
    struct os *os = sim_os(world, "host");
    ck_assert_int_eq(asyncore_pipe_open(host, &pipe, 0), -ENOSYS);
    ck_assert_uint_eq(pipe.size, 0);
    ck_assert_int_eq(os->pipe(ends, 0, os), -ENOSYS);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, host), 0);
    ck_assert_int_eq(asyncore_set_socket(&d, os->socket(AF_INET, SOCK_STREAM, 0, os)), 0); /* counts as connected */
    pipe = (struct asyncore_pipe){.size = 4096, .filled = 1};
    ck_assert_int_eq(asyncore_splice(&d, &pipe, 1, ASYNCORE_READ), -ENOSYS);
    ck_assert_int_eq(asyncore_splice(&d, &pipe, 1, ASYNCORE_WRITE), -ENOSYS);
    ck_assert_int_eq(asyncore_error(&d), 0);
    asyncore_sim_free(world);
}
END_TEST

static void add_bytes(TCase *tests)
{
    tcase_add_loop_test(tests, small_segments_fill_the_pipe_and_none_is_lost, 0, 8);
    tcase_add_loop_test(tests, what_a_slow_socket_did_not_take_stays_in_the_pipe_and_is_counted, 0, 2);
    tcase_add_test(tests, an_empty_socket_is_eagain_into_an_empty_pipe_and_enobufs_into_another);
    tcase_add_loop_test(tests, a_full_pipe_is_enobufs_although_the_socket_is_readable, 0, 2);
    tcase_add_test(tests, an_urgent_byte_is_eagain_and_recv_takes_it);
    tcase_add_loop_test(tests, a_blocking_socket_that_was_handed_in_does_not_block, 0, 2);
}

static void add_ends(TCase *tests)
{
    tcase_add_loop_test(tests, the_end_of_a_stream_is_latched_and_told_once, 0, 2);
    tcase_add_test(tests, an_end_found_outside_a_handler_is_told_by_the_loop);
    tcase_add_test(tests, a_reset_is_told_once_and_what_came_before_it_stays_in_the_pipe);
    tcase_add_test(tests, a_failed_write_is_the_channels_error_when_its_input_ends);
    tcase_add_test(tests, a_failed_write_without_interest_in_reading_fails_the_channel);
    tcase_add_loop_test(tests, an_error_of_the_socket_is_the_channels, 0, 2);
    tcase_add_loop_test(tests, a_refusal_is_no_failure_of_the_channel, 0, 2);
    tcase_add_loop_test(tests, no_memory_to_splice_with_passes, 0, 2);
    tcase_add_loop_test(tests, nobodys_own_transport_is_passed_by, 0, 3);
    tcase_add_test(tests, no_queue_is_overtaken);
    tcase_add_test(tests, what_is_no_stream_socket_is_refused);
    tcase_add_test(tests, a_channel_that_is_not_connected_is_none_the_worse);
}

static void add_pipes(TCase *tests)
{
    tcase_add_test(tests, a_pipe_is_closed_once);
    tcase_add_test(tests, a_wish_for_a_size_is_granted_or_not);
    tcase_add_test(tests, a_pipe_for_which_descriptors_lack_leaves_nothing_behind);
    tcase_add_test(tests, a_closed_pipe_lets_a_resting_listener_take_up_again);
    tcase_add_test(tests, splicing_is_activity);
    tcase_add_test(tests, a_child_moves_nothing);
    tcase_add_test(tests, the_simulated_kernel_does_not_splice_and_says_so);
}

int main(void)
{
    return run_suite("splice", add_bytes, add_ends, add_pipes, NULL);
}
