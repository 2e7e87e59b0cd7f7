/* test_channel.c: what one channel is told: the order of its events, its ends and errors, what it wants. */
#include "support.h"
#include <poll.h>
#include <unistd.h>

#define ALL 40000

/* A pair of sockets of each kind that a stream may be. */
static void (*const pairs[])(int fds[2]) = {unix_pair, tcp_pair};

/* -- Order -- */

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

/* -- Ends -- */

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

/* -- Errors of handlers -- */

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

/* -- What a channel wants -- */

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

int main(void)
{
    return run_suite("channel", add_order, add_ends, add_errors, add_wants, NULL);
}
