/* test_channel.c: one channel at a time: the order of its events, its ends and errors, what it wants, its class. */
#include "support.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <unistd.h>

#define ALL 40000

/* A pair of sockets of each kind that a stream may be. */
static void (*const pairs[])(int fds[2]) = {unix_pair, tcp_pair};

static struct probe *probe_with_peer(const struct asyncore_class *class_, int *peer)
{
    int fds[2];
    unix_pair(fds);
    *peer = fds[1];
    return probe_on(class_, "", fds[0]);
}

/* -- Order ----------------------------------------------------------------------------------------------------- */

static int read_urgent(struct asyncore_dispatcher *d)
{
    char byte;
    note("expt");
    return recv(d->fd, &byte, 1, MSG_OOB) < 0 ? -errno : 0;
}

static const struct asyncore_class urgent_class = {
    .name = "urgent",
    .parent = &probe_class,
    .handle_expt = read_urgent,
};

START_TEST(events_come_in_the_order_expt_read_write)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&urgent_class, "", fds[0]);
    asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE | ASYNCORE_EXPT);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(send(fds[1], "!", 1, MSG_OOB), 1);
    struct pollfd both = {.fd = fds[0], .events = POLLIN | POLLPRI};
    wait_until(poll(&both, 1, 0) == 1 && (both.revents & (POLLIN | POLLPRI)) == (POLLIN | POLLPRI));
    turn();
    assert_notes("expt read write");
    close(fds[1]);
}
END_TEST

START_TEST(a_class_with_handle_expt_wants_urgent_bytes)
{
    int fds[2];
    tcp_pair(fds);
    probe_on(&urgent_class, "", fds[0]);
    ck_assert_int_eq(send(fds[1], "!", 1, MSG_OOB), 1);
    run_until(notes()[0] != '\0');
    ck_assert_int_eq(strncmp(notes(), "expt", 4), 0);
    close(fds[1]);
}
END_TEST

START_TEST(connect_comes_before_read_and_write_in_one_turn)
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE);
    ck_assert_int_eq(asyncore_connect(&p->base, "127.0.0.1", port), 0);
    ck_assert_int_eq(p->connects, 0);
    int peer = peer_accept(listener);
    peer_send(peer, "hello", 5);
    wait_until(readable_now(p->base.fd, 0));
    run_until(p->reads == 1);
    asyncore_want(&p->base, ASYNCORE_READ);
    ck_assert_int_eq(strncmp(notes(), "connect ", 8), 0);
    ck_assert_int_eq(p->connects, 1);
    close(peer);
    close(listener);
}
END_TEST

START_TEST(unread_bytes_are_reported_again)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    p->piece = 2;
    peer_send(peer, "abcdef", 6);
    turn();
    ck_assert_int_eq(p->reads, 1);
    turn();
    turn();
    ck_assert_int_eq(p->reads, 3);
    ck_assert_int_eq(memcmp(p->input, "abcdef", 6), 0);
    close(peer);
}
END_TEST

START_TEST(a_connected_socket_gets_no_handle_connect)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_connected(&p->base), 1);
    asyncore_want(&p->base, ASYNCORE_WRITE);
    turn();
    assert_notes("write");
    close(peer);
}
END_TEST

START_TEST(a_new_channel_wants_to_read_and_not_to_write)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_uint_eq(asyncore_wanted(&p->base) & (ASYNCORE_READ | ASYNCORE_WRITE), ASYNCORE_READ);
    assert_idle_for(30);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("read");
    close(peer);
}
END_TEST

static void add_order(TCase *tests)
{
    tcase_add_test(tests, events_come_in_the_order_expt_read_write);
    tcase_add_test(tests, a_class_with_handle_expt_wants_urgent_bytes);
    tcase_add_test(tests, connect_comes_before_read_and_write_in_one_turn);
    tcase_add_test(tests, unread_bytes_are_reported_again);
    tcase_add_test(tests, a_connected_socket_gets_no_handle_connect);
    tcase_add_test(tests, a_new_channel_wants_to_read_and_not_to_write);
}

/* -- Ends -------------------------------------------------------------------------------------------------------- */

/* In loop tests, even numbers are Unix sockets and odd ones TCP; from 2 on the channel wants to write too. */
static struct probe *reader_of_all(int number, int *peer)
{
    static unsigned char data[ALL];
    int fds[2];
    pairs[number % 2](fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    p->piece = 1000;
    if (number >= 2)
        asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE);
    pattern_fill(data, 0, ALL);
    peer_send(fds[1], data, ALL);
    *peer = fds[1];
    return p;
}

START_TEST(nothing_is_lost_when_the_peer_sends_and_hangs_up_at_once)
{
    int peer;
    struct probe *p = reader_of_all(_i, &peer);
    close(peer);
    run_until(p->destroys == 1);
    ck_assert_uint_eq(p->bytes, ALL);
    pattern_check(p->input, 0, ALL);
    ck_assert_int_eq(p->closes, 1);
    ck_assert_int_eq(p->errors, 0);
    ck_assert_int_eq(asyncore_error(&p->base), 0);
}
END_TEST

START_TEST(bytes_that_came_before_a_reset_are_read_first)
{
    int peer;
    struct probe *p = reader_of_all(1 + 2 * _i, &peer);
    wait_until(waiting_bytes(p->base.fd) == ALL);
    peer_reset(peer);
    run_until(p->destroys == 1);
    ck_assert_uint_eq(p->bytes, ALL);
    ck_assert_int_eq(p->closes, 1);
    ck_assert_int_eq(asyncore_error(&p->base), -ECONNRESET);
}
END_TEST

static int read_end_twice(struct asyncore_dispatcher *d)
{
    char buffer[16];
    note("read%zd", asyncore_recv(d, buffer, sizeof buffer));
    note("again%zd", asyncore_recv(d, buffer, sizeof buffer));
    note("done");
    return 0;
}

static const struct asyncore_class end_class = {
    .name = "end",
    .parent = &probe_class,
    .handle_read = read_end_twice,
};

START_TEST(handle_close_follows_the_handler_that_met_the_end)
{
    int peer;
    probe_with_peer(&end_class, &peer);
    close(peer);
    turn();
    assert_notes("read0 again0 done close destroy");
}
END_TEST

START_TEST(the_end_is_told_once_and_ends_reading)
{
    int fds[2];
    pairs[_i](fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    p->stays = true;
    shutdown(fds[1], SHUT_WR);
    run_until(p->closes == 1);
    assert_idle_for(60);
    close(fds[1]);
    run_for(60);
    ck_assert_int_eq(p->closes, 1);
    ck_assert_int_eq(p->reads, 1);
}
END_TEST

static int write_answer_and_close(struct asyncore_dispatcher *d)
{
    ck_assert_int_eq((int)asyncore_send(d, "answer", 6), 6);
    return asyncore_close(d);
}

static int close_by_answering(struct asyncore_dispatcher *d)
{
    note("close");
    return asyncore_want(d, ASYNCORE_WRITE);
}

static const struct asyncore_class half_class = {
    .name = "half",
    .parent = &probe_class,
    .handle_close = close_by_answering,
    .handle_write = write_answer_and_close,
};

START_TEST(an_overridden_handle_close_goes_on_writing)
{
    char answer[16];
    int fds[2];
    pairs[_i](fds);
    struct probe *p = probe_on(&half_class, "", fds[0]);
    peer_send(fds[1], "question", 8);
    shutdown(fds[1], SHUT_WR);
    run_until(p->destroys == 1);
    ck_assert_uint_eq(p->bytes, 8);
    ck_assert_uint_eq(peer_recv(fds[1], answer, sizeof answer), 6);
    ck_assert_int_eq(memcmp(answer, "answer", 6), 0);
    close(fds[1]);
}
END_TEST

START_TEST(a_reset_goes_to_handle_close_with_its_error)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    peer_reset(fds[1]);
    run_until(p->destroys == 1);
    ck_assert_int_eq(asyncore_error(&p->base), -ECONNRESET);
    assert_notes("read close destroy");
}
END_TEST

/* The kernel tells a reset once, and says end of stream after it. */
START_TEST(a_reset_never_looks_like_an_end)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&end_class, "", fds[0]);
    peer_reset(fds[1]);
    run_until(p->destroys == 1);
    ck_assert_int_eq(asyncore_error(&p->base), -ECONNRESET);
    ck_assert_ptr_nonnull(strstr(notes(), "read-104 again-"));
}
END_TEST

static int send_until_it_fails(struct asyncore_dispatcher *d)
{
    ssize_t n = asyncore_send(d, "x", 1);
    note("send");
    return n < 0 ? (int)n : 0;
}

static const struct asyncore_class sender_class = {
    .name = "sender",
    .parent = &probe_class,
    .handle_write = send_until_it_fails,
};

START_TEST(a_reset_that_send_meets_goes_to_handle_close)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&sender_class, "", fds[0]);
    asyncore_want(&p->base, ASYNCORE_WRITE);
    peer_reset(fds[1]);
    run_until(p->destroys == 1);
    ck_assert_int_eq(p->closes, 1);
    ck_assert_int_eq(p->errors, 0);
    ck_assert_msg(asyncore_error(&p->base) == -ECONNRESET || asyncore_error(&p->base) == -EPIPE, "%d",
                  asyncore_error(&p->base));
}
END_TEST

START_TEST(shutdown_ends_one_direction)
{
    char data[4];
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq((int)asyncore_send(&p->base, "bye", 3), 3);
    ck_assert_int_eq(asyncore_shutdown(&p->base, SHUT_WR), 0);
    ck_assert_uint_eq(peer_recv(peer, data, sizeof data), 3);
    peer_send(peer, "still", 5);
    run_until(p->bytes == 5);
    ck_assert_int_eq(p->closes, 0);
    close(peer);
}
END_TEST

static void add_ends(TCase *tests)
{
    tcase_add_loop_test(tests, nothing_is_lost_when_the_peer_sends_and_hangs_up_at_once, 0, 4);
    tcase_add_loop_test(tests, bytes_that_came_before_a_reset_are_read_first, 0, 2);
    tcase_add_test(tests, handle_close_follows_the_handler_that_met_the_end);
    tcase_add_loop_test(tests, the_end_is_told_once_and_ends_reading, 0, 2);
    tcase_add_loop_test(tests, an_overridden_handle_close_goes_on_writing, 0, 2);
    tcase_add_test(tests, a_reset_goes_to_handle_close_with_its_error);
    tcase_add_test(tests, a_reset_never_looks_like_an_end);
    tcase_add_test(tests, a_reset_that_send_meets_goes_to_handle_close);
    tcase_add_test(tests, shutdown_ends_one_direction);
}

/* -- Errors of handlers ---------------------------------------------------------------------------------------------- */

static int take_result(struct asyncore_dispatcher *d, const char *word)
{
    probe_note(probe_of(d), word);
    return probe_of(d)->number;
}

static int result_of_read(struct asyncore_dispatcher *d)
{
    return take_result(d, "read");
}

static int result_of_write(struct asyncore_dispatcher *d)
{
    asyncore_want(d, ASYNCORE_ERROR);
    return take_result(d, "write");
}

static int result_of_event(struct asyncore_dispatcher *d, unsigned events)
{
    (void)events;
    return take_result(d, "event");
}

static const struct asyncore_class result_classes[] = {
    {.name = "fails in read", .parent = &probe_class, .handle_read = result_of_read},
    {.name = "fails in write", .parent = &probe_class, .handle_write = result_of_write},
    {.name = "fails in event", .parent = &probe_class, .handle_event = result_of_event},
};

static const char *const result_words[] = {"read", "write", "event"};

static struct probe *failing(int which, int result, bool stays, int *peer)
{
    struct probe *p = probe_with_peer(&result_classes[which], peer);
    p->number = result;
    p->stays = stays;
    if (which == 1)
        asyncore_want(&p->base, ASYNCORE_WRITE);
    else
        peer_send(*peer, "x", 1);
    turn();
    return p;
}

static void assert_word_and(int which, const char *rest)
{
    char expected[64];
    snprintf(expected, sizeof expected, "%s%s", result_words[which], rest);
    assert_notes(expected);
}

START_TEST(a_negative_result_goes_to_handle_error_and_that_to_handle_close)
{
    int peer;
    struct probe *p = failing(_i, -EINVAL, false, &peer);
    assert_word_and(_i, " error close destroy");
    ck_assert_int_eq(p->error, -EINVAL);
    ck_assert_int_eq(asyncore_error(&p->base), -EINVAL);
    close(peer);
}
END_TEST

START_TEST(an_overridden_handle_error_may_keep_the_channel)
{
    int peer;
    struct probe *p = failing(_i, -EINVAL, true, &peer);
    assert_word_and(_i, " error");
    ck_assert_int_ge(p->base.fd, 0);
    close(peer);
}
END_TEST

START_TEST(eagain_from_a_handler_means_nothing)
{
    int peer;
    struct probe *p = failing(_i, -EAGAIN, false, &peer);
    assert_word_and(_i, "");
    ck_assert_int_eq(p->errors + p->closes, 0);
    close(peer);
}
END_TEST

START_TEST(a_positive_result_means_nothing)
{
    int peer;
    struct probe *p = failing(_i, 5, false, &peer);
    assert_word_and(_i, "");
    ck_assert_int_eq(p->errors + p->closes, 0);
    close(peer);
}
END_TEST

START_TEST(lost_connections_go_to_handle_close_directly)
{
    static const int lost[] = {ECONNRESET, ENOTCONN, ESHUTDOWN, ECONNABORTED, EPIPE, EBADF};
    int peer;
    struct probe *p = failing(_i % 3, -lost[_i / 3], false, &peer);
    assert_word_and(_i % 3, " close destroy");
    ck_assert_int_eq(asyncore_error(&p->base), -lost[_i / 3]);
    close(peer);
}
END_TEST

static int recv_and_forget(struct asyncore_dispatcher *d)
{
    char buffer[16];
    note("%s", asyncore_recv(d, buffer, sizeof buffer) == -ECONNRESET ? "reset" : "other");
    return probe_of(d)->number;
}

static const struct asyncore_class forgetful_class = {
    .name = "forgetful",
    .parent = &probe_class,
    .handle_read = recv_and_forget,
};

START_TEST(an_error_that_was_latched_and_returned_counts_once)
{
    static const int results[] = {0, -ECONNRESET, -EAGAIN};
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&forgetful_class, "", fds[0]);
    p->number = results[_i];
    peer_reset(fds[1]);
    run_until(p->destroys == 1);
    assert_notes("reset close destroy");
    ck_assert_int_eq(asyncore_error(&p->base), -ECONNRESET);
}
END_TEST

static void add_errors(TCase *tests)
{
    tcase_add_loop_test(tests, a_negative_result_goes_to_handle_error_and_that_to_handle_close, 0, 3);
    tcase_add_loop_test(tests, an_overridden_handle_error_may_keep_the_channel, 0, 3);
    tcase_add_loop_test(tests, eagain_from_a_handler_means_nothing, 0, 3);
    tcase_add_loop_test(tests, a_positive_result_means_nothing, 0, 3);
    tcase_add_loop_test(tests, lost_connections_go_to_handle_close_directly, 0, 18);
    tcase_add_loop_test(tests, an_error_that_was_latched_and_returned_counts_once, 0, 3);
}

/* -- What a channel wants ---------------------------------------------------------------------------------------------- */

START_TEST(a_channel_that_wants_nothing_gets_nothing_and_does_not_spin)
{
    int fds[2];
    pairs[_i](fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_want(&p->base, 0), 0);
    peer_send(fds[1], "x", 1);
    close(fds[1]);
    assert_idle_for(80);
    assert_notes("");
    asyncore_want(&p->base, ASYNCORE_READ);
    run_until(p->destroys == 1);
    ck_assert_uint_eq(p->bytes, 1);
}
END_TEST

START_TEST(a_reset_of_a_channel_that_wants_nothing_does_not_spin)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    asyncore_want(&p->base, 0);
    turn();
    peer_reset(fds[1]);
    assert_idle_for(80);
    assert_notes("");
    asyncore_want(&p->base, ASYNCORE_READ);
    run_until(p->destroys == 1);
    ck_assert_int_eq(asyncore_error(&p->base), -ECONNRESET);
}
END_TEST

START_TEST(error_alone_is_told_once_of_a_reset)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    p->stays = true;
    asyncore_want(&p->base, ASYNCORE_ERROR);
    assert_idle_for(30);
    peer_reset(fds[1]);
    run_until(p->closes == 1);
    assert_idle_for(250);
    assert_notes("close");
    ck_assert_int_eq(asyncore_error(&p->base), -ECONNRESET);
}
END_TEST

static int stays_and_wants_errors(struct asyncore_dispatcher *d)
{
    probe_of(d)->closes++;
    note("close");
    return asyncore_want(d, ASYNCORE_ERROR);
}

static const struct asyncore_class paused_class = {
    .name = "paused",
    .parent = &probe_class,
    .handle_close = stays_and_wants_errors,
};

/* The kernel reports both in one event: reading finds the end alone. */
START_TEST(a_reset_that_came_with_the_end_is_told_to_who_then_wants_errors)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&paused_class, "", fds[0]);
    turn();
    ck_assert_int_eq(shutdown(fds[1], SHUT_WR), 0);
    peer_reset(fds[1]);
    run_until(p->closes == 2);
    ck_assert_int_lt(asyncore_error(&p->base), 0);
    assert_idle_for(250);
    ck_assert_int_eq(p->closes, 2);
}
END_TEST

static int note_event(struct asyncore_dispatcher *d, unsigned events)
{
    probe_of(d)->number++;
    note("event");
    ck_assert_uint_ne(events & (ASYNCORE_ERROR | ASYNCORE_HANGUP), 0);
    ck_assert_uint_eq(events & (ASYNCORE_READ | ASYNCORE_WRITE), 0);
    return 0;
}

static const struct asyncore_class event_class = {
    .name = "event",
    .parent = &probe_class,
    .handle_event = note_event,
};

START_TEST(error_alone_is_told_once_of_a_hang_up)
{
    int peer;
    struct probe *p = probe_with_peer(&event_class, &peer);
    asyncore_want(&p->base, ASYNCORE_ERROR);
    assert_idle_for(30);
    close(peer);
    run_until(p->number == 1);
    assert_idle_for(250);
    assert_notes("event");
}
END_TEST

START_TEST(error_alone_is_told_of_a_hang_up_by_handle_close)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    asyncore_want(&p->base, ASYNCORE_ERROR);
    close(peer);
    run_until(p->destroys == 1);
    assert_notes("close destroy");
    ck_assert_int_eq(asyncore_error(&p->base), 0);
}
END_TEST

START_TEST(a_hang_up_told_to_error_alone_does_not_overtake_bytes)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    asyncore_want(&p->base, ASYNCORE_ERROR);
    peer_send(peer, "bytes", 5);
    close(peer);
    assert_idle_for(60);
    asyncore_want(&p->base, ASYNCORE_READ);
    run_until(p->destroys == 1);
    ck_assert_uint_eq(p->bytes, 5);
    ck_assert_int_eq(p->closes, 1);
}
END_TEST

START_TEST(error_alone_is_not_told_of_bytes_and_of_an_end)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    asyncore_want(&p->base, ASYNCORE_ERROR);
    peer_send(fds[1], "x", 1);
    shutdown(fds[1], SHUT_WR);
    assert_idle_for(120);
    assert_notes("");
    asyncore_want(&p->base, ASYNCORE_READ);
    run_until(p->destroys == 1);
    ck_assert_uint_eq(p->bytes, 1);
    close(fds[1]);
}
END_TEST

/* Two channels are ready in one turn; whichever is served first changes what the other wants. */
static const struct asyncore_class pair_class;

static int pair_read(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    if (p->other->reads == 0) {
        asyncore_want(&p->other->base, 0);
        if (p->number)
            asyncore_want(&p->other->base, ASYNCORE_READ);
    }
    return asyncore_super(d, &pair_class)->handle_read(d);
}

static const struct asyncore_class pair_class = {
    .name = "pair",
    .parent = &probe_class,
    .handle_read = pair_read,
};

static void two_ready(bool and_back, struct probe *p[2], int peers[2])
{
    for (int i = 0; i < 2; i++) {
        p[i] = probe_with_peer(&pair_class, &peers[i]);
        p[i]->number = and_back;
        peer_send(peers[i], "x", 1);
    }
    p[0]->other = p[1];
    p[1]->other = p[0];
    turn();
}

START_TEST(an_event_that_is_no_longer_wanted_is_not_delivered)
{
    struct probe *p[2];
    int peers[2];
    two_ready(false, p, peers);
    ck_assert_int_eq(p[0]->reads + p[1]->reads, 1);
    run_for(20);
    ck_assert_int_eq(p[0]->reads + p[1]->reads, 1);
    asyncore_want(&p[p[0]->reads]->base, ASYNCORE_READ);
    turn();
    ck_assert_int_eq(p[0]->reads + p[1]->reads, 2);
    close(peers[0]);
    close(peers[1]);
}
END_TEST

START_TEST(an_event_that_is_wanted_again_is_delivered)
{
    struct probe *p[2];
    int peers[2];
    two_ready(true, p, peers);
    ck_assert_int_eq(p[0]->reads, 1);
    ck_assert_int_eq(p[1]->reads, 1);
    close(peers[0]);
    close(peers[1]);
}
END_TEST

static const struct asyncore_class quiet_class;

static int quiet_read(struct asyncore_dispatcher *d)
{
    asyncore_want(d, 0);
    return asyncore_super(d, &quiet_class)->handle_read(d);
}

static const struct asyncore_class quiet_class = {
    .name = "quiet",
    .parent = &probe_class,
    .handle_read = quiet_read,
};

START_TEST(a_write_that_handle_read_no_longer_wants_is_not_delivered)
{
    int peer;
    struct probe *p = probe_with_peer(&quiet_class, &peer);
    asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("read");
    run_for(20);
    assert_notes("");
    close(peer);
}
END_TEST

static int ask_readable(struct asyncore_dispatcher *d)
{
    probe_of(d)->accepts++; /* here: how often it was asked */
    return probe_of(d)->number & ASYNCORE_READ;
}

static int ask_writable(struct asyncore_dispatcher *d)
{
    return probe_of(d)->number & ASYNCORE_WRITE;
}

static const struct asyncore_class asked_class = {
    .name = "asked",
    .parent = &probe_class,
    .readable = ask_readable,
    .writable = ask_writable,
};

static const struct asyncore_class readable_class = {
    .name = "readable",
    .parent = &probe_class,
    .readable = ask_readable,
};

static const struct asyncore_class writable_class = {
    .name = "writable",
    .parent = &probe_class,
    .writable = ask_writable,
};

START_TEST(predicates_are_asked_in_every_turn)
{
    int peer;
    struct probe *p = probe_with_peer(&asked_class, &peer);
    peer_send(peer, "x", 1);
    for (int i = 1; i <= 4; i++) {
        turn();
        ck_assert_int_eq(p->accepts, i);
    }
    assert_notes("");
    p->number = ASYNCORE_READ;
    turn();
    assert_notes("read");
    p->number = ASYNCORE_WRITE;
    turn();
    assert_notes("write");
    p->number = 0;
    turn();
    assert_notes("");
    close(peer);
}
END_TEST

START_TEST(a_channel_whose_predicates_say_no_does_not_spin_on_hang_up)
{
    int peer;
    struct probe *p = probe_with_peer(&asked_class, &peer);
    close(peer);
    assert_idle_for(80);
    assert_notes("");
    p->number = ASYNCORE_READ;
    run_until(p->destroys == 1);
    assert_notes("read close destroy");
}
END_TEST

static const struct asyncore_class urgent_asked_class = {
    .name = "urgent asked",
    .parent = &asked_class,
    .handle_expt = read_urgent,
};

START_TEST(a_channel_that_wants_urgent_bytes_alone_does_not_spin_on_hang_up)
{
    int peer;
    struct probe *p = probe_with_peer(&urgent_asked_class, &peer);
    p->stays = true;
    close(peer);
    assert_idle_for(80);
    ck_assert_int_eq(p->reads, 0);
}
END_TEST

static int close_both_when_asked(struct asyncore_dispatcher *d)
{
    asyncore_close(&probe_of(d)->other->base);
    asyncore_close(d);
    return 1;
}

static const struct asyncore_class closing_predicate_class = {
    .name = "closing predicate",
    .parent = &probe_class,
    .readable = close_both_when_asked,
};

START_TEST(a_predicate_may_close_its_channel_and_others)
{
    int peers[2];
    struct probe *p = probe_with_peer(&closing_predicate_class, &peers[0]);
    struct probe *q = probe_with_peer(&closing_predicate_class, &peers[1]);
    p->other = q;
    q->other = p;
    peer_send(peers[0], "x", 1);
    peer_send(peers[1], "x", 1);
    turn();
    assert_notes("destroy destroy");
    close(peers[0]);
    close(peers[1]);
}
END_TEST

START_TEST(want_rules_the_direction_that_has_no_predicate)
{
    int peer;
    struct probe *p = probe_with_peer(_i == 0 ? &readable_class : &writable_class, &peer);
    unsigned asked = _i == 0 ? ASYNCORE_READ : ASYNCORE_WRITE, other = _i == 0 ? ASYNCORE_WRITE : ASYNCORE_READ;
    peer_send(peer, "xy", 2);
    p->piece = 1;
    asyncore_want(&p->base, asked); /* the predicate says no, and rules */
    turn();
    assert_notes("");
    asyncore_want(&p->base, other);
    turn();
    assert_notes(_i == 0 ? "write" : "read");
    p->number = (int)asked;
    asyncore_want(&p->base, 0);
    turn();
    assert_notes(_i == 0 ? "read" : "write");
    close(peer);
}
END_TEST

static void add_wants(TCase *tests)
{
    tcase_add_loop_test(tests, a_channel_that_wants_nothing_gets_nothing_and_does_not_spin, 0, 2);
    tcase_add_test(tests, a_reset_of_a_channel_that_wants_nothing_does_not_spin);
    tcase_add_test(tests, error_alone_is_told_once_of_a_reset);
    tcase_add_test(tests, a_reset_that_came_with_the_end_is_told_to_who_then_wants_errors);
    tcase_add_test(tests, error_alone_is_told_once_of_a_hang_up);
    tcase_add_test(tests, error_alone_is_told_of_a_hang_up_by_handle_close);
    tcase_add_test(tests, a_hang_up_told_to_error_alone_does_not_overtake_bytes);
    tcase_add_test(tests, error_alone_is_not_told_of_bytes_and_of_an_end);
    tcase_add_test(tests, an_event_that_is_no_longer_wanted_is_not_delivered);
    tcase_add_test(tests, an_event_that_is_wanted_again_is_delivered);
    tcase_add_test(tests, a_write_that_handle_read_no_longer_wants_is_not_delivered);
    tcase_add_test(tests, predicates_are_asked_in_every_turn);
    tcase_add_test(tests, a_channel_whose_predicates_say_no_does_not_spin_on_hang_up);
    tcase_add_test(tests, a_channel_that_wants_urgent_bytes_alone_does_not_spin_on_hang_up);
    tcase_add_test(tests, a_predicate_may_close_its_channel_and_others);
    tcase_add_loop_test(tests, want_rules_the_direction_that_has_no_predicate, 0, 2);
}

/* -- Classes ---------------------------------------------------------------------------------------------------------- */

static const struct asyncore_class child_class, grandchild_class;

static int child_read(struct asyncore_dispatcher *d)
{
    note("child");
    return asyncore_super(d, &child_class)->handle_read(d);
}

static int child_close(struct asyncore_dispatcher *d)
{
    note("child");
    return asyncore_super(d, &child_class)->handle_close(d);
}

static int grandchild_read(struct asyncore_dispatcher *d)
{
    note("grandchild");
    return asyncore_super(d, &grandchild_class)->handle_read(d);
}

static const struct asyncore_class child_class = {
    .name = "child",
    .parent = &probe_class,
    .handle_read = child_read,
    .handle_close = child_close,
};

static const struct asyncore_class grandchild_class = {
    .name = "grandchild",
    .parent = &child_class,
    .handle_read = grandchild_read,
};

START_TEST(a_null_slot_is_the_nearest_ancestors)
{
    int peer;
    probe_with_peer(&grandchild_class, &peer);
    close(peer);
    turn();
    assert_notes("grandchild child read child close destroy");
}
END_TEST

START_TEST(super_has_every_slot_set)
{
    int peer;
    struct probe *p = probe_with_peer(&grandchild_class, &peer);
    const struct asyncore_class *base = asyncore_super(&p->base, &probe_class);
    ck_assert(base->handle_connect && base->handle_expt && base->handle_read && base->handle_write && base->handle_accept);
    ck_assert(base->handle_accepted && base->handle_close && base->handle_error && base->handle_event && base->handle_socket);
    ck_assert(base->recv && base->send && base->log && base->log_info && base->destroy);
    ck_assert_ptr_eq(asyncore_super(&p->base, &grandchild_class)->handle_read, child_read);
    ck_assert_ptr_eq(asyncore_super(&p->base, &grandchild_class)->handle_close, child_close);
    ck_assert_ptr_eq(asyncore_super(&p->base, &child_class)->handle_write, probe_class.handle_write);
    close(peer);
}
END_TEST

static int event_in_one_call(struct asyncore_dispatcher *d, unsigned events)
{
    note("event%u", events & (ASYNCORE_READ | ASYNCORE_WRITE));
    return probe_of(d)->number;
}

static const struct asyncore_class one_call_class = {
    .name = "one call",
    .parent = &probe_class,
    .handle_event = event_in_one_call,
};

START_TEST(handle_event_gets_all_events_instead_of_the_handlers)
{
    int peer;
    struct probe *p = probe_with_peer(&one_call_class, &peer);
    asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("event5");
    close(peer);
}
END_TEST

static const struct asyncore_class reversed_class;

static int write_before_read(struct asyncore_dispatcher *d, unsigned events)
{
    const struct asyncore_class *parent = asyncore_super(d, &reversed_class);
    note("event");
    int result = parent->handle_event(d, events & ASYNCORE_WRITE);
    return result < 0 ? result : parent->handle_event(d, events & ~(unsigned)ASYNCORE_WRITE);
}

static const struct asyncore_class reversed_class = {
    .name = "reversed",
    .parent = &probe_class,
    .handle_event = write_before_read,
};

START_TEST(the_parents_handle_event_calls_the_handlers)
{
    int peer;
    struct probe *p = probe_with_peer(&reversed_class, &peer);
    asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("event write read");
    close(peer);
}
END_TEST

static int count_socket(struct asyncore_dispatcher *d, int fd)
{
    int type = 0, on = 1;
    socklen_t length = sizeof type;
    probe_of(d)->accepts++;
    ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length), 0);
    ck_assert_int_eq(type, SOCK_STREAM);
    ck_assert_int_eq(d->fd, fd);
    ck_assert_int_eq(asyncore_setsockopt(d, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on), 0);
    return probe_of(d)->result;
}

static const struct asyncore_class socket_class = {
    .name = "socket",
    .parent = &probe_class,
    .handle_socket = count_socket,
};

START_TEST(handle_socket_sees_a_socket_before_anything_is_done_with_it)
{
    int on = 0;
    socklen_t length = sizeof on;
    struct probe *p = probe_new(&socket_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_bind(&p->base, "127.0.0.1", "0"), 0);
    ck_assert_int_eq(p->accepts, 1);
    ck_assert_int_eq(asyncore_getsockopt(&p->base, SOL_SOCKET, SO_KEEPALIVE, &on, &length), 0);
    ck_assert_int_eq(on, 1);
}
END_TEST

static int close_in_handle_socket(struct asyncore_dispatcher *d, int fd)
{
    (void)fd;
    return asyncore_close(d);
}

static const struct asyncore_class closes_class = {
    .name = "closes",
    .parent = &probe_class,
    .handle_socket = close_in_handle_socket,
};

START_TEST(a_handle_socket_that_closes_leaves_nothing_open)
{
    int before = count_descriptors();
    struct probe *p = probe_new(&closes_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), -ECANCELED);
    ck_assert_int_eq(count_descriptors(), before);
    turn();
    assert_notes("destroy");
}
END_TEST

START_TEST(a_handle_socket_that_fails_ends_the_attempt)
{
    struct probe *p = probe_new(&socket_class, "");
    int before = count_descriptors();
    p->result = -EPROTO;
    int result = asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM);
    ck_assert_int_eq(result, -EPROTO);
    ck_assert_int_eq(p->base.fd, -1);
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

static void add_classes(TCase *tests)
{
    tcase_add_test(tests, a_null_slot_is_the_nearest_ancestors);
    tcase_add_test(tests, super_has_every_slot_set);
    tcase_add_test(tests, handle_event_gets_all_events_instead_of_the_handlers);
    tcase_add_test(tests, the_parents_handle_event_calls_the_handlers);
    tcase_add_test(tests, handle_socket_sees_a_socket_before_anything_is_done_with_it);
    tcase_add_test(tests, a_handle_socket_that_fails_ends_the_attempt);
    tcase_add_test(tests, a_handle_socket_that_closes_leaves_nothing_open);
}

/* -- Transports ---------------------------------------------------------------------------------------------------------- */

/* A transport that takes what the kernel has at once, decodes it and hands it out in small pieces. */
struct transport {
    struct probe probe; /* first, so that probe_of() is right */
    unsigned char held[256];
    size_t from, to;
};

static const struct asyncore_class transport_class;

static ssize_t transport_recv(struct asyncore_dispatcher *d, void *data, size_t size)
{
    struct transport *t = (struct transport *)d;
    if (t->from == t->to) {
        ssize_t n = asyncore_super(d, &transport_class)->recv(d, t->held, sizeof t->held);
        if (n <= 0)
            return n;
        t->from = 0;
        t->to = (size_t)n;
    }
    size_t n = t->to - t->from < size ? t->to - t->from : size;
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)data)[i] = t->held[t->from++] ^ 0x55;
    return (ssize_t)n;
}

static ssize_t transport_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    unsigned char coded[256];
    size_t n = size < sizeof coded ? size : sizeof coded;
    for (size_t i = 0; i < n; i++)
        coded[i] = ((const unsigned char *)data)[i] ^ 0x55;
    return asyncore_super(d, &transport_class)->send(d, coded, n);
}

static int transport_read(struct asyncore_dispatcher *d)
{
    struct transport *t = (struct transport *)d;
    int result = asyncore_super(d, &transport_class)->handle_read(d);
    if (t->from < t->to)
        ck_assert_int_eq(asyncore_ready(d), 0);
    return result;
}

static const struct asyncore_class transport_class = {
    .name = "transport",
    .parent = &probe_class,
    .recv = transport_recv,
    .send = transport_send,
    .handle_read = transport_read,
};

static void transport_open(struct transport *t, int *peer)
{
    int fds[2];
    unix_pair(fds);
    memset(t, 0, sizeof *t);
    ck_assert_int_eq(asyncore_dispatcher_init(&t->probe.base, &transport_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&t->probe.base, fds[0]), 0);
    *peer = fds[1];
}

static void send_coded(int peer, size_t size)
{
    unsigned char data[256];
    pattern_fill(data, 0, size);
    for (size_t i = 0; i < size; i++)
        data[i] ^= 0x55;
    peer_send(peer, data, size);
}

START_TEST(a_channel_whose_transport_holds_bytes_is_read_again)
{
    struct transport t;
    int peer;
    transport_open(&t, &peer);
    t.probe.piece = 10;
    send_coded(peer, 100);
    run_until(t.probe.bytes == 100);
    ck_assert_int_eq(t.probe.reads, 10);
    pattern_check(t.probe.input, 0, 100);
    assert_idle_for(30);
    close(peer);
    run_until(t.probe.destroys == 1);
    ck_assert_int_eq(t.probe.closes, 1);
    ck_assert_uint_eq(t.probe.bytes, 100);
    free(t.probe.input);
}
END_TEST

START_TEST(ready_ends_a_wait_at_once)
{
    char first[60];
    struct transport t;
    int peer;
    transport_open(&t, &peer);
    send_coded(peer, 100);
    ck_assert_int_eq((int)asyncore_recv(&t.probe.base, first, sizeof first), sizeof first);
    ck_assert_int_eq(asyncore_ready(&t.probe.base), 0);
    uint64_t begin = clock_ns();
    ck_assert_int_ge(asyncore_poll(map, 3000), 0);
    ck_assert_uint_lt(clock_ns() - begin, 2000000000u);
    ck_assert_uint_eq(t.probe.bytes, 40);
    close(peer);
    ck_assert_int_eq(asyncore_fini(&t.probe.base), 0);
    free(t.probe.input);
}
END_TEST

static int ready_for_ever(struct asyncore_dispatcher *d)
{
    probe_of(d)->reads++;
    return asyncore_ready(d);
}

static const struct asyncore_class restless_class = {
    .name = "restless",
    .parent = &probe_class,
    .handle_read = ready_for_ever,
};

START_TEST(a_channel_that_is_always_ready_leaves_others_their_turn)
{
    int peers[2];
    struct probe *p = probe_with_peer(&restless_class, &peers[0]), *q = probe_with_peer(&probe_class, &peers[1]);
    asyncore_ready(&p->base);
    turn();
    peer_send(peers[1], "x", 1);
    turn();
    ck_assert_int_ge(p->reads, 2);
    ck_assert_int_eq(q->reads, 1);
    close(peers[0]);
    close(peers[1]);
}
END_TEST

START_TEST(a_closed_channel_is_not_ready)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_ready(&p->base), 0);
    asyncore_close(&p->base);
    turn();
    assert_notes("destroy");
    ck_assert_int_lt(asyncore_ready(&p->base), 0);
    close(peer);
}
END_TEST

START_TEST(send_and_recv_view_go_through_the_transport)
{
    unsigned char data[40];
    const void *view = NULL;
    struct transport t;
    int peer;
    transport_open(&t, &peer);
    pattern_fill(data, 0, sizeof data);
    ck_assert_int_eq((int)asyncore_send(&t.probe.base, data, sizeof data), sizeof data);
    ck_assert_uint_eq(peer_recv(peer, data, sizeof data), sizeof data);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] ^= 0x55;
    pattern_check(data, 0, sizeof data);
    send_coded(peer, 50);
    ck_assert_int_eq((int)asyncore_recv_view(&t.probe.base, &view), 50);
    pattern_check(view, 0, 50);
    close(peer);
    ck_assert_int_eq(asyncore_fini(&t.probe.base), 0);
}
END_TEST

static void add_transports(TCase *tests)
{
    tcase_add_test(tests, a_channel_whose_transport_holds_bytes_is_read_again);
    tcase_add_test(tests, ready_ends_a_wait_at_once);
    tcase_add_test(tests, a_channel_that_is_always_ready_leaves_others_their_turn);
    tcase_add_test(tests, a_closed_channel_is_not_ready);
    tcase_add_test(tests, send_and_recv_view_go_through_the_transport);
}

/* -- In and out of a map ----------------------------------------------------------------------------------------------- */

static const struct asyncore_class plain_class = {.name = "plain"};

START_TEST(init_takes_a_struct_with_anything_in_it)
{
    struct asyncore_dispatcher d;
    memset(&d, 0xa5, sizeof d);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &plain_class, map), 0);
    ck_assert_int_eq(d.fd, -1);
    ck_assert_ptr_eq(d.map, map);
    ck_assert_int_eq(asyncore_connected(&d) + asyncore_connecting(&d) + asyncore_accepting(&d), 0);
    ck_assert_int_eq(asyncore_error(&d), 0);
    ck_assert_int_eq(asyncore_fini(&d), 0);
}
END_TEST

START_TEST(sockets_are_non_blocking_and_closed_by_exec)
{
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_ne(fcntl(p->base.fd, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_ne(fcntl(p->base.fd, F_GETFD) & FD_CLOEXEC, 0);
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), -EEXIST);
}
END_TEST

START_TEST(a_deleted_channel_gets_nothing_until_it_is_added)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    peer_send(peer, "x", 1);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    assert_idle_for(30);
    assert_notes("");
    ck_assert(is_open(p->base.fd));
    ck_assert_int_eq(asyncore_add_channel(&p->base, NULL), 0);
    turn();
    assert_notes("read");
    close(peer);
}
END_TEST

START_TEST(a_channel_moves_to_another_map)
{
    int peer;
    struct asyncore_map *second;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    ck_assert_int_eq(asyncore_add_channel(&p->base, second), 0);
    ck_assert_ptr_eq(p->base.map, second);
    peer_send(peer, "x", 1);
    assert_idle_for(20);
    assert_notes("");
    ck_assert_int_eq(asyncore_poll(second, 0), 1);
    assert_notes("read");
    ck_assert_int_eq(asyncore_map_free(second), 0);
    assert_notes("destroy");
    close(peer);
}
END_TEST

START_TEST(a_descriptor_that_is_in_the_map_is_not_taken_twice)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer), *q = probe_new(&probe_class, "q");
    ck_assert_int_eq(asyncore_set_socket(&q->base, p->base.fd), -EEXIST);
    ck_assert_int_eq(asyncore_add_channel(&p->base, NULL), -EEXIST);
    peer_send(peer, "x", 1);
    run_until(p->bytes == 1);
    ck_assert_int_eq(p->reads, 1);
    ck_assert_int_eq(q->destroys, 1);
    ck_assert(is_open(p->base.fd));
    close(peer);
}
END_TEST

START_TEST(a_bad_descriptor_closes_the_channel)
{
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_set_socket(&p->base, -1), -EBADF);
    turn();
    assert_notes("destroy");
}
END_TEST

START_TEST(a_borrowed_descriptor_is_left_open)
{
    char byte;
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    int fd = p->base.fd;
    asyncore_set_borrowed(&p->base);
    ck_assert_int_eq(_i == 0 ? asyncore_close(&p->base) : asyncore_fini(&p->base), 0);
    ck_assert_int_eq((int)write(fd, "x", 1), 1);
    ck_assert_uint_eq(peer_recv(peer, &byte, 1), 1);
    close(fd);
    close(peer);
}
END_TEST

START_TEST(closing_twice_is_nothing)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert_int_eq(p->base.fd, -1);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert(peer_at_end(peer));
    assert_notes("");
    turn();
    turn();
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    turn();
    assert_notes("destroy");
    close(peer);
}
END_TEST

START_TEST(fini_closes_and_calls_no_destroy)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    if (_i == 1)
        ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert_int_eq(asyncore_fini(&p->base), 0);
    memset(&p->base, 0xa5, sizeof p->base);
    ck_assert(peer_at_end(peer));
    turn();
    assert_notes("");
    close(peer);
}
END_TEST

START_TEST(a_closed_channel_without_destroy_makes_a_socket_again)
{
    struct asyncore_dispatcher d;
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &plain_class, map), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_STREAM), 0);
        ck_assert_int_eq(asyncore_bind(&d, "127.0.0.1", "0"), 0);
        ck_assert_int_eq(asyncore_listen(&d, 1), 0);
        ck_assert_int_eq(asyncore_accepting(&d), 1);
        ck_assert_int_eq(asyncore_close(&d), 0);
        ck_assert_int_eq(asyncore_accepting(&d), 0);
        if (i == 1)
            turn();
    }
    ck_assert_int_eq(asyncore_fini(&d), 0);
}
END_TEST

START_TEST(map_free_destroys_what_is_left)
{
    int peer;
    struct asyncore_map *second;
    struct asyncore_dispatcher *d = malloc(sizeof *d);
    static const struct asyncore_class freed_class = {.name = "freed", .destroy = asyncore_destroy_free};
    int fds[2];
    unix_pair(fds);
    peer = fds[1];
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    ck_assert_int_eq(asyncore_dispatcher_init(d, &freed_class, second), 0);
    ck_assert_int_eq(asyncore_set_socket(d, fds[0]), 0);
    ck_assert_int_eq(asyncore_map_free(second), 0);
    ck_assert(peer_at_end(peer));
    close(peer);
}
END_TEST

START_TEST(close_all_closes_every_channel)
{
    int peers[3];
    for (int i = 0; i < 3; i++)
        probe_with_peer(&probe_class, &peers[i]);
    ck_assert_int_eq(asyncore_close_all(map), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert(peer_at_end(peers[i]));
        close(peers[i]);
    }
    assert_notes("");
    turn();
    assert_notes("destroy destroy destroy");
}
END_TEST

static void add_maps(TCase *tests)
{
    tcase_add_test(tests, init_takes_a_struct_with_anything_in_it);
    tcase_add_test(tests, sockets_are_non_blocking_and_closed_by_exec);
    tcase_add_test(tests, a_deleted_channel_gets_nothing_until_it_is_added);
    tcase_add_test(tests, a_channel_moves_to_another_map);
    tcase_add_test(tests, a_descriptor_that_is_in_the_map_is_not_taken_twice);
    tcase_add_test(tests, a_bad_descriptor_closes_the_channel);
    tcase_add_loop_test(tests, a_borrowed_descriptor_is_left_open, 0, 2);
    tcase_add_test(tests, closing_twice_is_nothing);
    tcase_add_loop_test(tests, fini_closes_and_calls_no_destroy, 0, 2);
    tcase_add_test(tests, a_closed_channel_without_destroy_makes_a_socket_again);
    tcase_add_test(tests, map_free_destroys_what_is_left);
    tcase_add_test(tests, close_all_closes_every_channel);
}

/* -- Sending, options, log, dump ------------------------------------------------------------------------------------------ */

START_TEST(send_tells_the_kernels_count_and_then_eagain)
{
    static unsigned char data[1 << 20], got[1 << 20];
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ssize_t sent = asyncore_send(&p->base, data, sizeof data);
    ck_assert_int_gt((int)sent, 0);
    ck_assert_int_lt((int)sent, (int)sizeof data);
    ssize_t n = sent;
    while (n > 0 && (n = asyncore_send(&p->base, data, sizeof data)) > 0)
        sent += n;
    ck_assert_int_eq((int)n, -EAGAIN);
    asyncore_want(&p->base, ASYNCORE_WRITE);
    assert_idle_for(20);
    ck_assert_uint_eq(peer_recv(peer, got, (size_t)sent), (size_t)sent);
    run_until(p->writes > 0);
    asyncore_want(&p->base, ASYNCORE_READ);
    close(peer);
}
END_TEST

START_TEST(recv_without_bytes_is_eagain_and_leaves_the_buffer_alone)
{
    char buffer[4] = "abc";
    const void *view = buffer;
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq((int)asyncore_recv(&p->base, buffer, sizeof buffer), -EAGAIN);
    ck_assert_int_eq((int)asyncore_recv_view(&p->base, &view), -EAGAIN);
    ck_assert_str_eq(buffer, "abc");
    ck_assert_ptr_eq(view, buffer);
    close(peer);
}
END_TEST

START_TEST(recv_view_lends_what_came)
{
    static unsigned char data[50000];
    const void *view = NULL;
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    pattern_fill(data, 0, sizeof data);
    peer_send(peer, data, sizeof data);
    ck_assert_int_eq((int)asyncore_recv_view(&p->base, &view), sizeof data);
    pattern_check(view, 0, sizeof data);
    close(peer);
    ck_assert_int_eq((int)asyncore_recv_view(&p->base, &view), 0);
}
END_TEST

START_TEST(a_channel_without_a_socket_can_neither_send_nor_receive)
{
    char byte = 'x';
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_lt((int)asyncore_send(&p->base, &byte, 1), 0);
    ck_assert_int_lt((int)asyncore_recv(&p->base, &byte, 1), 0);
    ck_assert_int_lt(asyncore_listen(&p->base, 1), 0);
    ck_assert_int_lt(asyncore_shutdown(&p->base, SHUT_WR), 0);
    turn();
    assert_notes("");
}
END_TEST

START_TEST(options_and_names_of_a_socket)
{
    int fds[2], value = 1;
    struct sockaddr_storage name;
    socklen_t length = sizeof name, size = sizeof value;
    tcp_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_setsockopt(&p->base, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value), 0);
    value = 0;
    ck_assert_int_eq(asyncore_getsockopt(&p->base, SOL_SOCKET, SO_KEEPALIVE, &value, &size), 0);
    ck_assert_int_eq(value, 1);
    ck_assert_int_eq(asyncore_peername(&p->base, &name, &length), 0);
    ck_assert_int_eq(name.ss_family, AF_INET);
    ck_assert_uint_eq(length, sizeof(struct sockaddr_in));
    ck_assert_int_eq(asyncore_setsockopt(&p->base, SOL_SOCKET, -1, &value, sizeof value), -ENOPROTOOPT);
    close(fds[1]);
}
END_TEST

static void note_log(void *arg, const char *type, const char *message)
{
    note("%s%s(%s)", (const char *)arg, type, message);
}

START_TEST(log_lines_go_to_the_maps_log_function)
{
    struct probe *p = probe_new(&probe_class, "");
    asyncore_log(&p->base, "nobody %s", "hears");
    ck_assert_int_eq(asyncore_set_log(map, note_log, ">"), 0);
    asyncore_log(&p->base, "%d apples", 3);
    asyncore_log_info(&p->base, "warning", "%d pears", 4);
    assert_notes(">log(3 apples) >warning(4 pears)");
    ck_assert_int_eq(asyncore_set_log(map, NULL, NULL), 0);
    asyncore_log(&p->base, "x");
    assert_notes("");
}
END_TEST

static void own_log(struct asyncore_dispatcher *d, const char *message)
{
    (void)d;
    note("own(%s)", message);
}

static void own_log_info(struct asyncore_dispatcher *d, const char *message, const char *type)
{
    (void)d;
    note("own-%s(%s)", type, message);
}

static const struct asyncore_class logging_class = {
    .name = "logging",
    .parent = &probe_class,
    .log = own_log,
    .log_info = own_log_info,
};

START_TEST(log_and_log_info_can_be_overridden)
{
    struct probe *p = probe_new(&logging_class, "");
    asyncore_set_log(map, note_log, ">");
    asyncore_log(&p->base, "%s", "a");
    asyncore_log_info(&p->base, "info", "%s", "b");
    assert_notes("own(a) own-info(b)");
}
END_TEST

START_TEST(a_long_log_line_is_not_written_past_its_end)
{
    char text[5000];
    struct probe *p = probe_new(&probe_class, "");
    asyncore_set_log(map, note_log, "");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    asyncore_log(&p->base, "%s", text);
    ck_assert_int_eq(strncmp(notes(), "log(xxxxxxxx", 12), 0);
}
END_TEST

static void log_type_only(void *arg, const char *type, const char *message)
{
    (void)arg;
    ck_assert_uint_gt(strlen(message), 0);
    ck_assert_ptr_null(strchr(message, '\n'));
    note("log-%s", type);
}

START_TEST(the_default_handle_error_logs_an_error)
{
    int peer;
    asyncore_set_log(map, log_type_only, NULL);
    failing(0, -EINVAL, false, &peer);
    assert_notes("read error log-error close destroy");
    close(peer);
}
END_TEST

/* What is written to stderr meanwhile comes out of the pipe. */
static size_t stderr_of(void (*what)(struct probe *p), struct probe *p, char *text, size_t size)
{
    int ends[2], saved = dup(2);
    ck_assert_int_eq(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    dup2(ends[1], 2);
    what(p);
    dup2(saved, 2);
    close(saved);
    close(ends[1]);
    ssize_t n = read(ends[0], text, size - 1);
    close(ends[0]);
    text[n < 0 ? 0 : n] = '\0';
    return n < 0 ? 0 : (size_t)n;
}

static void fail_in_a_turn(struct probe *p)
{
    asyncore_ready(&p->base);
    turn();
}

START_TEST(the_library_writes_nothing_to_stderr_unless_asked)
{
    char text[256];
    int peer;
    struct probe *p = probe_with_peer(&result_classes[0], &peer);
    p->number = -EINVAL;
    ck_assert_uint_eq(stderr_of(fail_in_a_turn, p, text, sizeof text), 0);
    ck_assert_int_eq(p->errors, 1);
    close(peer);
}
END_TEST

static void log_two_lines(struct probe *p)
{
    asyncore_set_log(map, asyncore_log_stderr, NULL);
    asyncore_log(&p->base, "plain");
    asyncore_log_info(&p->base, "warning", "careful");
}

START_TEST(log_stderr_writes_type_and_message)
{
    char text[256];
    stderr_of(log_two_lines, probe_new(&probe_class, ""), text, sizeof text);
    ck_assert_str_eq(text, "log: plain\nwarning: careful\n");
}
END_TEST

static void count_line(void *arg, const char *text)
{
    ck_assert_ptr_null(strchr(text, '\n'));
    ++*(int *)arg;
    note("%s", text);
}

START_TEST(dump_shows_every_channel)
{
    int peers[2], lines = 0;
    probe_with_peer(&grandchild_class, &peers[0]);
    probe_with_peer(&half_class, &peers[1]);
    ck_assert_int_eq(asyncore_dump(map, count_line, &lines), 0);
    ck_assert_int_ge(lines, 2);
    ck_assert_ptr_nonnull(strstr(notes(), "grandchild"));
    ck_assert_ptr_nonnull(strstr(notes(), "half"));
    close(peers[0]);
    close(peers[1]);
}
END_TEST

static void add_rest(TCase *tests)
{
    tcase_add_test(tests, send_tells_the_kernels_count_and_then_eagain);
    tcase_add_test(tests, recv_without_bytes_is_eagain_and_leaves_the_buffer_alone);
    tcase_add_test(tests, recv_view_lends_what_came);
    tcase_add_test(tests, a_channel_without_a_socket_can_neither_send_nor_receive);
    tcase_add_test(tests, options_and_names_of_a_socket);
    tcase_add_test(tests, log_lines_go_to_the_maps_log_function);
    tcase_add_test(tests, log_and_log_info_can_be_overridden);
    tcase_add_test(tests, a_long_log_line_is_not_written_past_its_end);
    tcase_add_test(tests, the_default_handle_error_logs_an_error);
    tcase_add_test(tests, the_library_writes_nothing_to_stderr_unless_asked);
    tcase_add_test(tests, log_stderr_writes_type_and_message);
    tcase_add_test(tests, dump_shows_every_channel);
}

int main(void)
{
    return run_suite("channel", add_order, add_ends, add_errors, add_wants, add_classes, add_transports, add_maps, add_rest,
                     NULL);
}
