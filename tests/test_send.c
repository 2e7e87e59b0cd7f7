/* test_send.c: dispatcher_with_send: a queue between the program and a peer that takes its time. */
#include "support.h"
#include <netinet/in.h>
#include <unistd.h>

#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
#include <malloc.h>
#define HAVE_MALLINFO2
#endif

#define LOTS (6u << 20)

/* A channel with a queue. What it reads is counted; `echo` sends it back. */
struct sender {
    struct asyncore_dispatcher_with_send base;
    size_t bytes;
    int connects, reads, closes, destroys, errors;
    bool echo, stays;
};

static struct sender *sender_of(struct asyncore_dispatcher *d)
{
    return (struct sender *)d;
}

static const struct asyncore_class sender_class;

static int sender_connect(struct asyncore_dispatcher *d)
{
    sender_of(d)->connects++;
    return 0;
}

static int sender_read(struct asyncore_dispatcher *d)
{
    const void *data;
    sender_of(d)->reads++;
    ssize_t n = asyncore_recv_view(d, &data);
    if (n <= 0)
        return (int)n;
    sender_of(d)->bytes += (size_t)n;
    return sender_of(d)->echo ? (int)asyncore_send(d, data, (size_t)n) : 0;
}

static int sender_close(struct asyncore_dispatcher *d)
{
    sender_of(d)->closes++;
    return sender_of(d)->stays ? 0 : asyncore_super(d, &sender_class)->handle_close(d);
}

static int sender_error(struct asyncore_dispatcher *d, int error)
{
    sender_of(d)->errors++;
    return asyncore_super(d, &sender_class)->handle_error(d, error);
}

static void sender_destroy(struct asyncore_dispatcher *d)
{
    sender_of(d)->destroys++;
}

static const struct asyncore_class sender_class = {
    .name = "sender",
    .handle_connect = sender_connect,
    .handle_read = sender_read,
    .handle_close = sender_close,
    .handle_error = sender_error,
    .destroy = sender_destroy,
};

static struct sender the_sender; /* one a test; outlives the map */

static struct sender *sender_on(int fd)
{
    struct sender *s = &the_sender;
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&s->base, &sender_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&s->base.base, fd), 0);
    return s;
}

static struct sender *sender_with_peer(int *peer)
{
    int fds[2];
    unix_pair(fds);
    *peer = fds[1];
    return sender_on(fds[0]);
}

static unsigned char *pattern_new(size_t size)
{
    unsigned char *data = malloc(size);
    ck_assert_ptr_nonnull(data);
    pattern_fill(data, 0, size);
    return data;
}

/* Takes what is there, in small pieces, until so much came; turns in between. */
static void receive_slowly(int peer, size_t from, size_t to, size_t piece)
{
    unsigned char *data = malloc(piece);
    set_blocking(peer, false);
    while (from < to) {
        ssize_t n = recv(peer, data, piece < to - from ? piece : to - from, 0);
        must(n != 0);
        if (n > 0) {
            pattern_check(data, from, (size_t)n);
            from += (size_t)n;
        }
        turn();
    }
    set_blocking(peer, true);
    free(data);
}

/* -- Order and completeness -- */

START_TEST(everything_arrives_in_order_at_a_slow_reader)
{
    static const size_t sizes[] = {1, 17, 1000, 65536, 3, 300000, 4096, 12345};
    unsigned char *data = pattern_new(LOTS);
    int fds[2];
    _i == 0 ? unix_pair(fds) : tcp_pair(fds);
    struct sender *s = sender_on(fds[0]);
    for (size_t at = 0, i = 0; at < LOTS; i++) {
        size_t n = sizes[i % COUNT(sizes)] < LOTS - at ? sizes[i % COUNT(sizes)] : LOTS - at;
        ck_assert_int_ge((int)asyncore_send(&s->base.base, data + at, n), 0);
        at += n;
    }
    memset(data, 0, LOTS); /* they were copied, or sent */
    ck_assert_uint_gt(asyncore_queued(&s->base), 0);
    receive_slowly(fds[1], 0, LOTS, 40000);
    run_until(asyncore_queued(&s->base) == 0);
    assert_idle_for(30);
    close(fds[1]);
    free(data);
}
END_TEST

START_TEST(many_small_sends_arrive_in_order)
{
    enum { SENDS = 200000 };
    int peer;
    struct sender *s = sender_with_peer(&peer);
    for (size_t i = 0; i < SENDS; i++) {
        unsigned char byte;
        pattern_fill(&byte, i, 1);
        must(asyncore_send(&s->base.base, &byte, 1) >= 0);
    }
    receive_slowly(peer, 0, SENDS, 7000);
    close(peer);
}
END_TEST

START_TEST(what_is_echoed_from_recv_view_is_right)
{
    unsigned char *data = pattern_new(LOTS);
    int peer;
    struct sender *s = sender_with_peer(&peer);
    s->echo = true;
    set_blocking(peer, false);
    size_t sent = 0, got = 0;
    unsigned char piece[30000];
    while (got < LOTS) {
        ssize_t n = sent < LOTS ? send(peer, data + sent, LOTS - sent, MSG_NOSIGNAL) : 0;
        sent += n > 0 ? (size_t)n : 0;
        turn();
        n = recv(peer, piece, sizeof piece, 0);
        if (n > 0)
            pattern_check(piece, got, (size_t)n);
        got += n > 0 ? (size_t)n : 0;
    }
    ck_assert_uint_eq(asyncore_queued(&s->base), 0);
    close(peer);
    free(data);
}
END_TEST

START_TEST(the_queue_goes_on_while_nothing_is_wanted)
{
    unsigned char *data = pattern_new(LOTS);
    int peer;
    struct sender *s = sender_with_peer(&peer);
    asyncore_want(&s->base.base, 0);
    ck_assert_int_ge((int)asyncore_send(&s->base.base, data, LOTS), 0);
    receive_slowly(peer, 0, LOTS, 65536);
    assert_idle_for(20);
    close(peer);
    free(data);
}
END_TEST

START_TEST(send_before_connect_is_queued_and_sent_first)
{
    char port[8] = "0", data[16];
    int listener = peer_listen("127.0.0.1", port);
    struct sender *s = &the_sender;
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&s->base, &sender_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&s->base.base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&s->base.base, "127.0.0.1", port), 0);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, "first ", 6), 0);
    ck_assert_uint_eq(asyncore_queued(&s->base), 6);
    run_until(s->connects == 1);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, "second", 6), 0);
    run_until(asyncore_queued(&s->base) == 0);
    int peer = peer_accept(listener);
    ck_assert_uint_eq(peer_recv(peer, data, 12), 12);
    ck_assert_int_eq(memcmp(data, "first second", 12), 0);
    close(peer);
    close(listener);
}
END_TEST

static void add_order(TCase *tests)
{
    tcase_add_loop_test(tests, everything_arrives_in_order_at_a_slow_reader, 0, 2);
    tcase_add_test(tests, many_small_sends_arrive_in_order);
    tcase_add_test(tests, what_is_echoed_from_recv_view_is_right);
    tcase_add_test(tests, the_queue_goes_on_while_nothing_is_wanted);
    tcase_add_test(tests, send_before_connect_is_queued_and_sent_first);
}

/* -- Bounds -- */

/* Until the kernel takes no more and `queued` bytes wait. Returns how many were sent in all. */
static size_t fill_queue(struct sender *s, size_t queued)
{
    size_t all = 0;
    unsigned char data[1000];
    while (asyncore_queued(&s->base) < queued) {
        pattern_fill(data, all, sizeof data);
        must(asyncore_send(&s->base.base, data, sizeof data) >= 0);
        all += sizeof data;
    }
    return all;
}

START_TEST(send_tells_of_the_high_mark_and_takes_nothing_past_the_limit)
{
    static unsigned char data[5000];
    int peer;
    struct sender *s = sender_with_peer(&peer);
    ck_assert_int_eq(asyncore_set_marks(&s->base, 1000, 4000, 8000), 0);
    size_t all = fill_queue(s, 1);
    while (asyncore_queued(&s->base) + 1000 <= 4000) {
        pattern_fill(data, all, 1000);
        ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 1000), 0);
        all += 1000;
    }
    pattern_fill(data, all, 1000);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 1000), 1);
    all += 1000;
    size_t queued = asyncore_queued(&s->base);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 5000), -ENOBUFS);
    ck_assert_uint_eq(asyncore_queued(&s->base), queued);
    pattern_fill(data, all, 8000 - queued);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 8000 - queued), 1);
    all += 8000 - queued;
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 1), -ENOBUFS);
    receive_slowly(peer, 0, all, 3000);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 1), 0);
    close(peer);
}
END_TEST

START_TEST(past_the_high_mark_reading_stops_until_the_low_one)
{
    int peer;
    struct sender *s = sender_with_peer(&peer);
    ck_assert_int_eq(asyncore_set_marks(&s->base, 10000, 200000, 400000), 0);
    size_t all = fill_queue(s, 200001), got = 0;
    peer_send(peer, "x", 1);
    assert_idle_for(40);
    ck_assert_int_eq(s->reads, 0);
    while (asyncore_queued(&s->base) > 10000) {
        size_t before = asyncore_queued(&s->base);
        ck_assert_int_eq(s->reads, 0);
        receive_slowly(peer, got, got + 1000, 1000);
        got += 1000;
        ck_assert_uint_le(asyncore_queued(&s->base), before);
    }
    run_until(s->bytes == 1);
    receive_slowly(peer, got, all, 5000);
    close(peer);
}
END_TEST

START_TEST(marks_have_to_be_in_order)
{
    int peer;
    struct sender *s = sender_with_peer(&peer);
    ck_assert_int_eq(asyncore_set_marks(&s->base, 5, 5, 10), -EINVAL);
    ck_assert_int_eq(asyncore_set_marks(&s->base, 6, 5, 10), -EINVAL);
    ck_assert_int_eq(asyncore_set_marks(&s->base, 1, 11, 10), -EINVAL);
    ck_assert_int_eq(asyncore_set_marks(&s->base, 0, 10, 10), 0);
    close(peer);
}
END_TEST

START_TEST(the_default_limit_is_16_mib)
{
    unsigned char *data = calloc(1, 17u << 20);
    int peer;
    struct sender *s = sender_with_peer(&peer);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 17u << 20), -ENOBUFS);
    ck_assert_uint_eq(asyncore_queued(&s->base), 0);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 15u << 20), 1);
    close(peer);
    free(data);
}
END_TEST

START_TEST(memory_returns_when_the_queue_is_empty)
{
    int peer;
    struct sender *s = sender_with_peer(&peer);
    unsigned char *data = pattern_new(LOTS);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 100), 0); /* what is allocated once is, now */
    receive_slowly(peer, 0, 100, 100);
#ifdef HAVE_MALLINFO2
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
#endif
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, LOTS), 1);
    receive_slowly(peer, 0, LOTS, 65536);
    ck_assert_uint_eq(asyncore_queued(&s->base), 0);
#ifdef HAVE_MALLINFO2
    ck_assert_uint_le(mallinfo2().uordblks + mallinfo2().hblkhd,
                      before + 100000); /* a map keeps one buffer of 64 KiB */
#endif
    close(peer);
    free(data);
}
END_TEST

static void add_bounds(TCase *tests)
{
    tcase_add_test(tests, send_tells_of_the_high_mark_and_takes_nothing_past_the_limit);
    tcase_add_test(tests, past_the_high_mark_reading_stops_until_the_low_one);
    tcase_add_test(tests, marks_have_to_be_in_order);
    tcase_add_test(tests, the_default_limit_is_16_mib);
    tcase_add_test(tests, memory_returns_when_the_queue_is_empty);
}

/* -- Closing with a queue -- */

START_TEST(the_queue_is_sent_before_a_clean_end_closes)
{
    unsigned char *data = pattern_new(LOTS);
    int fds[2];
    _i == 0 ? unix_pair(fds) : tcp_pair(fds);
    struct sender *s = sender_on(fds[0]);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, LOTS), 1);
    shutdown(fds[1], SHUT_WR);
    run_for(30);
    ck_assert_int_eq(s->destroys, 0);
    receive_slowly(fds[1], 0, LOTS, 65536);
    run_until(s->destroys == 1);
    ck_assert(peer_at_end(fds[1]));
    ck_assert_int_eq(s->closes, 1);
    ck_assert_int_eq(s->errors, 0);
    close(fds[1]);
    free(data);
}
END_TEST

static void count_release(void *arg)
{
    ++*(int *)arg;
}

START_TEST(a_reset_drops_the_queue_and_closes_once)
{
    unsigned char *data = pattern_new(LOTS);
    int fds[2], released = 0;
    tcp_pair(fds);
    struct sender *s = sender_on(fds[0]);
    ck_assert_int_eq((int)asyncore_send_ref(&s->base, data, LOTS, count_release, &released), 1);
    peer_reset(fds[1]);
    run_until(s->destroys == 1);
    ck_assert_int_eq(s->closes, 1);
    ck_assert_int_eq(released, 1);
    ck_assert_int_ne(asyncore_error(&s->base.base), 0);
    free(data);
}
END_TEST

START_TEST(closing_drops_the_queue)
{
    unsigned char *data = pattern_new(LOTS);
    int peer, released = 0;
    struct sender *s = sender_with_peer(&peer);
    ck_assert_int_eq((int)asyncore_send_ref(&s->base, data, LOTS, count_release, &released), 1);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, data, 1000), 1);
    ck_assert_int_eq(released, 0);
    ck_assert_int_eq(_i == 0 ? asyncore_close(&s->base.base) : asyncore_fini(&s->base.base), 0);
    turn();
    ck_assert_int_eq(released, 1);
    ck_assert_uint_eq(asyncore_queued(&s->base), 0);
    ck_assert_int_eq(s->destroys, _i == 0);
    free(data);
    close(peer);
}
END_TEST

START_TEST(a_refused_connect_drops_the_queue)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    char port[8], data[8] = "unsent";
    int released = 0, refusing = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(refusing, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(getsockname(refusing, (struct sockaddr *)&address, &length), 0);
    snprintf(port, sizeof port, "%u", (unsigned)ntohs(address.sin_port));
    struct sender *s = &the_sender;
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&s->base, &sender_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&s->base.base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&s->base.base, "127.0.0.1", port), 0);
    ck_assert_int_eq((int)asyncore_send_ref(&s->base, data, sizeof data, count_release, &released), 0);
    run_until(s->destroys == 1);
    ck_assert_int_eq(s->errors, 1);
    ck_assert_int_eq(s->closes, 1);
    ck_assert_int_eq(released, 1);
    close(refusing);
}
END_TEST

START_TEST(a_closed_channel_takes_nothing)
{
    int peer, released = 0;
    struct sender *s = sender_with_peer(&peer);
    asyncore_close(&s->base.base);
    ck_assert_int_lt((int)asyncore_send(&s->base.base, "x", 1), 0);
    ck_assert_int_lt((int)asyncore_send_ref(&s->base, "x", 1, count_release, &released), 0);
    turn();
    ck_assert_int_eq(released, 0);
    ck_assert_uint_eq(asyncore_queued(&s->base), 0);
    close(peer);
}
END_TEST

START_TEST(an_overridden_handle_close_still_sends)
{
    char data[8];
    int peer;
    struct sender *s = sender_with_peer(&peer);
    s->stays = true;
    shutdown(peer, SHUT_WR);
    run_until(s->closes == 1);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, "after", 5), 0);
    run_until(asyncore_queued(&s->base) == 0);
    ck_assert_uint_eq(peer_recv(peer, data, 5), 5);
    close(peer);
}
END_TEST

static void add_closing(TCase *tests)
{
    tcase_add_loop_test(tests, the_queue_is_sent_before_a_clean_end_closes, 0, 2);
    tcase_add_test(tests, a_reset_drops_the_queue_and_closes_once);
    tcase_add_loop_test(tests, closing_drops_the_queue, 0, 2);
    tcase_add_test(tests, a_refused_connect_drops_the_queue);
    tcase_add_test(tests, a_closed_channel_takes_nothing);
    tcase_add_test(tests, an_overridden_handle_close_still_sends);
}

/* -- References -- */

struct lent {
    unsigned char *data;
    size_t size;
    int released;
};

/* From here on the memory is the owner's again: what the peer gets must not come from it any more. */
static void scribble(void *arg)
{
    struct lent *lent = arg;
    lent->released++;
    memset(lent->data, 0xee, lent->size);
}

START_TEST(lent_memory_is_released_once_and_not_before_it_was_sent)
{
    enum { PIECES = 12, PIECE = 300000 };
    struct lent lent[PIECES];
    int peer, all = 0;
    struct sender *s = sender_with_peer(&peer);
    for (int i = 0; i < PIECES; i++) {
        lent[i] = (struct lent){malloc(PIECE), PIECE, 0};
        pattern_fill(lent[i].data, (size_t)i * PIECE, PIECE);
        if (i % 3 == 2) /* copies in between */
            ck_assert_int_ge((int)asyncore_send(&s->base.base, lent[i].data, PIECE), 0);
        else
            ck_assert_int_ge((int)asyncore_send_ref(&s->base, lent[i].data, PIECE, scribble, &lent[i]), 0);
    }
    receive_slowly(peer, 0, (size_t)PIECES * PIECE, 50000);
    run_until(asyncore_queued(&s->base) == 0);
    for (int i = 0; i < PIECES; i++) {
        ck_assert_int_eq(lent[i].released, i % 3 == 2 ? 0 : 1);
        all += lent[i].released;
        free(lent[i].data);
    }
    ck_assert_int_eq(all, PIECES - PIECES / 3);
    close(peer);
}
END_TEST

START_TEST(lent_memory_that_was_not_taken_is_not_released)
{
    static unsigned char data[9000];
    int peer, released = 0;
    struct sender *s = sender_with_peer(&peer);
    ck_assert_int_eq(asyncore_set_marks(&s->base, 1000, 4000, 8000), 0);
    fill_queue(s, 1);
    ck_assert_int_eq((int)asyncore_send_ref(&s->base, data, sizeof data, count_release, &released), -ENOBUFS);
    asyncore_close(&s->base.base);
    turn();
    ck_assert_int_eq(released, 0);
    close(peer);
}
END_TEST

START_TEST(lent_memory_needs_no_release)
{
    static const char text[] = "static text";
    char data[16];
    int peer;
    struct sender *s = sender_with_peer(&peer);
    ck_assert_int_eq((int)asyncore_send_ref(&s->base, text, sizeof text, NULL, NULL), 0);
    run_until(asyncore_queued(&s->base) == 0);
    ck_assert_uint_eq(peer_recv(peer, data, sizeof text), sizeof text);
    ck_assert_str_eq(data, text);
    close(peer);
}
END_TEST

START_TEST(sending_nothing_is_nothing)
{
    int peer, released = 0;
    struct sender *s = sender_with_peer(&peer);
    ck_assert_int_eq((int)asyncore_send(&s->base.base, "", 0), 0);
    ck_assert_int_eq((int)asyncore_send_ref(&s->base, "", 0, count_release, &released), 0);
    turn();
    ck_assert_int_eq(released, 1);
    assert_idle_for(20);
    ck_assert(!readable_now(peer, 0));
    close(peer);
}
END_TEST

static void add_references(TCase *tests)
{
    tcase_add_test(tests, lent_memory_is_released_once_and_not_before_it_was_sent);
    tcase_add_test(tests, lent_memory_that_was_not_taken_is_not_released);
    tcase_add_test(tests, lent_memory_needs_no_release);
    tcase_add_test(tests, sending_nothing_is_nothing);
}

int main(void)
{
    return run_suite("send", add_order, add_bounds, add_closing, add_references, NULL);
}
