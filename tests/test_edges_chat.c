/* test_edges_chat.c: queues and async_chat at their edges: pushes in states that take none, transports that fail or
 * take only half, producers that end their channel, lines that wait for a map. Objects are static, for they outlive
 * the map. */
#include "support.h"
#include <netinet/in.h>
#include <unistd.h>

static struct asynchat chat;
static struct asyncore_dispatcher_with_send sender;

static int collect(struct asynchat *c, const void *data, size_t n)
{
    (void)c;
    note("%.*s", (int)n, (const char *)data);
    return 0;
}

static int note_found(struct asynchat *c)
{
    (void)c;
    note(";");
    return 0;
}

static int note_close(struct asyncore_dispatcher *d)
{
    (void)d;
    note("close");
    return 0;
}

static void note_destroy(struct asyncore_dispatcher *d)
{
    (void)d;
    note("destroy");
}

static const struct asynchat_class line_class = {.base = {.name = "line", .destroy = note_destroy},
                                                 .collect_incoming_data = collect,
                                                 .found_terminator = note_found};
static const struct asynchat_class staying_class = {.base = {.name = "staying", .handle_close = note_close},
                                                    .collect_incoming_data = collect};
static const struct asyncore_class sender_class = {.name = "sender"};

static void chat_with_peer(const struct asynchat_class *class_, int *peer)
{
    int fds[2];
    unix_pair(fds);
    *peer = fds[1];
    ck_assert_int_eq(asynchat_init(&chat, class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&chat.base.base, fds[0]), 0);
    ck_assert_int_eq(asynchat_set_terminator(&chat, "\n", 1), 0);
}

static void sender_with_peer(const struct asyncore_class *class_, int *peer)
{
    int fds[2];
    unix_pair(fds);
    *peer = fds[1];
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&sender, class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&sender.base, fds[0]), 0);
}

static void assert_peer_got(int peer, const char *text)
{
    char got[64] = "";
    ck_assert_uint_eq(peer_recv(peer, got, strlen(text)), strlen(text));
    ck_assert_str_eq(got, text);
}

static void release(void *arg)
{
    note("release-%s", (const char *)arg);
}

/* -- What takes nothing -------------------------------------------------------------------------------------------- */

static void released(struct asynchat_producer *p)
{
    (void)p;
    note("released");
}

static ssize_t yield_bye(struct asynchat_producer *p, const void **data)
{
    *data = "bye";
    ssize_t n = p->release == NULL ? 0 : 3;
    p->release = NULL;
    return n;
}

static void assert_nothing_taken(int error)
{
    struct asynchat_producer p = {yield_bye, released};
    ck_assert_int_eq(asynchat_push(&chat, "x", 1), error);
    ck_assert_int_eq(asynchat_push(&chat, "", 0), error);
    ck_assert_int_eq(asynchat_push_text(&chat, "x"), error);
    ck_assert_int_eq(asynchat_push_ref(&chat, "x", 1, release, "push"), error);
    ck_assert_int_eq(asynchat_push_with_producer(&chat, &p), error);
    ck_assert_int_eq(asynchat_close_when_done(&chat), error);
    ck_assert_int_eq((int)asyncore_send(&chat.base.base, "x", 1), error);
    ck_assert_int_eq((int)asyncore_send_ref(&chat.base, "x", 1, release, "send"), error);
}

START_TEST(after_close_when_done_and_after_the_end_of_the_channel_nothing_is_taken)
{
    int peer;
    ck_assert_int_eq(asynchat_init(&chat, &line_class, map), 0);
    assert_nothing_taken(-EPIPE); /* it is in no map yet */
    chat_with_peer(&line_class, &peer);
    ck_assert_int_eq(asynchat_push_text(&chat, "bye"), 0);
    ck_assert_int_eq(asynchat_close_when_done(&chat), 0);
    ck_assert_uint_eq(asyncore_queued(&chat.base), 3);
    assert_nothing_taken(-EPIPE);
    run_until(notes()[0] != '\0');
    assert_notes("destroy");
    assert_nothing_taken(-EPIPE);
    ck_assert_int_eq(asyncore_fini(&chat.base.base), 0);
    ck_assert_int_eq(asynchat_push(&chat, "x", 1), -EPIPE);
    ck_assert_int_eq(asynchat_close_when_done(&chat), -EPIPE);
    ck_assert_int_eq(asyncore_set_marks(&chat.base, 1, 2, 3), -EINVAL);
    assert_notes("");
    assert_peer_got(peer, "bye");
    ck_assert(peer_at_end(peer));
    close(peer);
}
END_TEST

static ssize_t fail_to_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    (void)d;
    (void)data;
    (void)size;
    return -EIO;
}

static int note_error(struct asyncore_dispatcher *d, int error)
{
    note("error(%d)", error);
    return asyncore_close(d);
}

static const struct asynchat_class failing_class = {
    .base = {.name = "failing", .send = fail_to_send, .handle_error = note_error, .destroy = note_destroy},
    .collect_incoming_data = collect,
    .found_terminator = note_found};

START_TEST(a_transport_that_fails_is_told_after_the_input_and_takes_nothing_more)
{
    int peer;
    char expected[64];
    chat_with_peer(&failing_class, &peer);
    peer_send(peer, "answer\n", 7);
    if (_i == 0) {
        ck_assert_int_eq((int)asyncore_send(&chat.base.base, "x", 1), -EIO);
    } else {
        ck_assert_int_eq(asynchat_push_ref(&chat, "x", 1, release, "sent"), 0);
        turn();
        assert_notes("release-sent answer ;");
    }
    assert_nothing_taken(-EIO);
    close(peer);
    run_until(strstr(notes(), "destroy") != NULL);
    snprintf(expected, sizeof expected, "%serror(%d) destroy", _i == 0 ? "answer ; " : "", -EIO);
    assert_notes(expected);
}
END_TEST

START_TEST(a_transport_that_fails_where_nothing_is_read_is_told_at_once)
{
    int peer;
    char expected[64];
    chat_with_peer(&failing_class, &peer);
    ck_assert_int_eq(asyncore_want(&chat.base.base, 0), 0);
    ck_assert_int_eq((int)asyncore_send(&chat.base.base, "x", 1), -EIO);
    assert_nothing_taken(-EIO);
    run_until(strstr(notes(), "destroy") != NULL);
    snprintf(expected, sizeof expected, "error(%d) destroy", -EIO);
    assert_notes(expected);
    close(peer);
}
END_TEST

static void add_taken(TCase *tests)
{
    tcase_add_test(tests, after_close_when_done_and_after_the_end_of_the_channel_nothing_is_taken);
    tcase_add_loop_test(tests, a_transport_that_fails_is_told_after_the_input_and_takes_nothing_more, 0, 2);
    tcase_add_test(tests, a_transport_that_fails_where_nothing_is_read_is_told_at_once);
}

/* -- The ends of a chat -------------------------------------------------------------------------------------------- */

START_TEST(close_when_done_after_the_peers_end_was_told_closes_without_asking_again)
{
    int peer;
    chat_with_peer(&staying_class, &peer);
    ck_assert_int_eq(shutdown(peer, SHUT_WR), 0);
    run_until(notes()[0] != '\0');
    assert_notes("close");
    ck_assert_int_eq(asynchat_push_text(&chat, "bye"), 0);
    if (_i == 1)
        turn();
    ck_assert_int_eq(asynchat_close_when_done(&chat), 0);
    run_until(chat.base.base.fd < 0);
    assert_notes("");
    assert_peer_got(peer, "bye");
    ck_assert(peer_at_end(peer));
    close(peer);
}
END_TEST

static ssize_t close_in_more(struct asynchat_producer *p, const void **data)
{
    (void)p;
    note("more");
    *data = "lost";
    ck_assert_int_eq(asyncore_close(&chat.base.base), 0);
    return 4;
}

START_TEST(a_producer_that_closes_its_channel_is_released_once_and_sends_nothing)
{
    int peer;
    struct asynchat_producer p = {close_in_more, released};
    chat_with_peer(&line_class, &peer);
    ck_assert_int_eq(asynchat_push_with_producer(&chat, &p), 0);
    turn();
    assert_notes("more released destroy");
    ck_assert(peer_at_end(peer));
    close(peer);
}
END_TEST

START_TEST(what_was_pushed_in_the_turn_of_a_close_is_sent_but_for_producers)
{
    int peer;
    struct asynchat_producer p = {yield_bye, released};
    chat_with_peer(&line_class, &peer);
    ck_assert_int_eq(asynchat_push_text(&chat, "last"), 0);
    ck_assert_int_eq(asynchat_push_ref(&chat, "words", 5, release, "words"), 0);
    ck_assert_int_eq(asynchat_push_with_producer(&chat, &p), 0);
    ck_assert_int_eq(asyncore_close(&chat.base.base), 0);
    assert_notes("release-words released");
    assert_peer_got(peer, "lastwords");
    ck_assert(peer_at_end(peer));
    close(peer);
}
END_TEST

START_TEST(closing_before_the_connection_drops_what_was_pushed)
{
    ck_assert_int_eq(asynchat_init(&chat, &line_class, map), 0);
    if (_i == 1) {
        ck_assert_int_eq(asyncore_create_socket(&chat.base.base, AF_INET, SOCK_STREAM), 0);
        ck_assert_int_eq(asynchat_push_ref(&chat, "x", 1, release, "x"), 0);
    }
    asynchat_discard_buffers(&chat);
    if (_i == 1) {
        ck_assert_int_eq(asynchat_push_ref(&chat, "y", 1, release, "y"), 0);
        turn();
    }
    ck_assert_uint_eq(asyncore_queued(&chat.base), (size_t)_i);
    ck_assert_int_eq(asyncore_fini(&chat.base.base), 0);
    assert_notes(_i == 1 ? "release-x release-y" : "");
}
END_TEST

static int leave_map(struct asynchat *c)
{
    note("leaves");
    return asyncore_del_channel(&c->base.base);
}

static const struct asynchat_class leaving_class = {
    .base = {.name = "leaving"}, .collect_incoming_data = collect, .found_terminator = leave_map};

START_TEST(lines_that_came_with_the_one_that_left_the_map_wait_until_the_chat_joins)
{
    int peer;
    chat_with_peer(&leaving_class, &peer);
    peer_send(peer, "one\ntwo\nthree\n", 14);
    run_until(notes()[0] != '\0');
    run_for(20);
    assert_notes("one leaves");
    ck_assert_int_eq(asyncore_add_channel(&chat.base.base, NULL), 0);
    run_for(20);
    assert_notes("two leaves");
    ck_assert_int_eq(asyncore_add_channel(&chat.base.base, map), 0);
    run_for(20);
    assert_notes("three leaves");
    ck_assert_int_eq(asyncore_add_channel(&chat.base.base, map), 0);
    run_for(20);
    assert_notes("");
    ck_assert_int_eq(asyncore_fini(&chat.base.base), 0);
    close(peer);
}
END_TEST

static void add_ends(TCase *tests)
{
    tcase_add_loop_test(tests, close_when_done_after_the_peers_end_was_told_closes_without_asking_again, 0, 2);
    tcase_add_test(tests, a_producer_that_closes_its_channel_is_released_once_and_sends_nothing);
    tcase_add_test(tests, what_was_pushed_in_the_turn_of_a_close_is_sent_but_for_producers);
    tcase_add_loop_test(tests, closing_before_the_connection_drops_what_was_pushed, 0, 2);
    tcase_add_test(tests, lines_that_came_with_the_one_that_left_the_map_wait_until_the_chat_joins);
}

/* -- Terminators, limits, producers -------------------------------------------------------------------------------- */

START_TEST(get_terminator_tells_what_is_still_to_come)
{
    int peer;
    const void *bytes = &peer;
    chat_with_peer(&line_class, &peer);
    ck_assert_uint_eq(asynchat_get_terminator(&chat, NULL), 1);
    ck_assert_int_eq(asynchat_set_terminator_length(&chat, 10), 0);
    peer_send(peer, "abcd", 4);
    run_until(notes()[0] != '\0');
    ck_assert_uint_eq(asynchat_get_terminator(&chat, &bytes), 6);
    ck_assert_ptr_null(bytes);
    ck_assert_int_eq(asynchat_set_terminator_length(&chat, 0), 0); /* none: all is collected, nothing is found */
    ck_assert_uint_eq(asynchat_get_terminator(&chat, &bytes), 0);
    peer_send(peer, "efghijkl\n", 9);
    run_until(strlen(notes()) > 10);
    assert_notes("abcd efghijkl\n");
    close(peer);
}
END_TEST

static int collect_and_end(struct asynchat *c, const void *data, size_t n)
{
    collect(c, data, n);
    if (c->base.base.data == NULL)
        return -EIO;
    return asyncore_close(&c->base.base);
}

static const struct asynchat_class ending_class = {
    .base = {.name = "ending", .handle_error = note_error, .destroy = note_destroy},
    .collect_incoming_data = collect_and_end,
    .found_terminator = note_found};

START_TEST(a_block_whose_last_byte_ends_the_channel_is_not_found)
{
    int peer;
    char expected[64];
    chat_with_peer(&ending_class, &peer);
    ck_assert_int_eq(asynchat_set_terminator_length(&chat, 4), 0);
    chat.base.base.data = _i == 0 ? NULL : &chat;
    peer_send(peer, "abcdefgh", 8);
    run_until(strstr(notes(), "destroy") != NULL);
    snprintf(expected, sizeof expected, "abcd error(%d) destroy", -EIO);
    assert_notes(_i == 0 ? expected : "abcd destroy");
    close(peer);
}
END_TEST

static size_t collected;

static int count_bytes(struct asynchat *c, const void *data, size_t n)
{
    (void)c;
    (void)data;
    collected += n;
    return 0;
}

static const struct asynchat_class counting_class = {
    .base = {.name = "counting"}, .collect_incoming_data = count_bytes, .found_terminator = note_found};

START_TEST(a_limit_of_0_is_no_limit)
{
    static char many[8192];
    int peer;
    chat_with_peer(&counting_class, &peer);
    asynchat_set_limit(&chat, 0);
    memset(many, 'm', sizeof many);
    for (size_t sent = 0; sent < 128 * 1024; sent += sizeof many) {
        peer_send(peer, many, sizeof many);
        run_until(collected == sent + sizeof many);
    }
    peer_send(peer, "\n", 1);
    run_until(notes()[0] != '\0');
    assert_notes(";");
    close(peer);
}
END_TEST

START_TEST(find_takes_what_cannot_be_found)
{
    size_t keep = 77;
    ck_assert_int_eq((int)asynchat_find("abc", 3, "", 0, &keep), -1);
    ck_assert_uint_eq(keep, 0);
    ck_assert_int_eq((int)asynchat_find("", 0, "\r\n", 2, &keep), -1);
    ck_assert_uint_eq(keep, 0);
    ck_assert_int_eq((int)asynchat_find("a\r", 2, "\r\n", 2, NULL), -1);
    ck_assert_int_eq((int)asynchat_find("\r", 1, "\r\n\r\n", 4, &keep), -1);
    ck_assert_uint_eq(keep, 1);
    ck_assert_int_eq((int)asynchat_find("a\r\rb\r", 5, "\r\n", 2, &keep), -1);
    ck_assert_uint_eq(keep, 1);
}
END_TEST

START_TEST(a_simple_producer_yields_pieces_of_512_unless_told)
{
    static unsigned char bytes[1200];
    const void *data = NULL;
    struct asynchat_simple_producer p;
    asynchat_simple_producer_init(&p, bytes, sizeof bytes, _i == 0 ? 0 : 1000);
    ck_assert_int_eq((int)p.base.more(&p.base, &data), _i == 0 ? 512 : 1000);
    ck_assert_ptr_eq(data, bytes);
    ck_assert_int_eq((int)p.base.more(&p.base, &data), _i == 0 ? 512 : 200);
    ck_assert_ptr_eq(data, bytes + (_i == 0 ? 512 : 1000));
    ck_assert_int_eq((int)p.base.more(&p.base, &data), _i == 0 ? 176 : 0);
    ck_assert_int_eq((int)p.base.more(&p.base, &data), 0);
    ck_assert_ptr_null(p.base.release);
}
END_TEST

static int ones_left;

static ssize_t yield_one(struct asynchat_producer *p, const void **data)
{
    (void)p;
    *data = "1";
    return ones_left-- > 0 ? 1 : 0;
}

START_TEST(a_producer_of_single_bytes_leaves_others_their_turn)
{
    int peer, others;
    struct asynchat_producer p = {yield_one, released};
    ones_left = 200; /* 64 for each flush, of which a turn has two */
    chat_with_peer(&counting_class, &peer);
    struct probe *other = probe_with_peer(&probe_class, &others);
    peer_send(others, "x", 1);
    ck_assert_int_eq(asynchat_push_with_producer(&chat, &p), 0);
    turn();
    ck_assert_uint_eq(other->bytes, 1);
    ck_assert_int_gt(ones_left, 0);
    char got[200];
    for (size_t n = 0; n < sizeof got; n += peer_recv(peer, got + n, waiting_bytes(peer)))
        run_until(waiting_bytes(peer) > 0);
    run_until(strstr(notes(), "released") != NULL);
    ck_assert_uint_eq(waiting_bytes(peer), 0);
    close(peer);
    close(others);
}
END_TEST

static void add_input(TCase *tests)
{
    tcase_add_test(tests, get_terminator_tells_what_is_still_to_come);
    tcase_add_loop_test(tests, a_block_whose_last_byte_ends_the_channel_is_not_found, 0, 2);
    tcase_add_test(tests, a_limit_of_0_is_no_limit);
    tcase_add_test(tests, find_takes_what_cannot_be_found);
    tcase_add_loop_test(tests, a_simple_producer_yields_pieces_of_512_unless_told, 0, 2);
    tcase_add_test(tests, a_producer_of_single_bytes_leaves_others_their_turn);
}

/* -- Queues -------------------------------------------------------------------------------------------------------- */

START_TEST(marks_count_from_when_they_are_set)
{
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&sender, &sender_class, map), 0);
    ck_assert_int_eq(asyncore_set_marks(&sender, 1, 4, 8), 0); /* before there is a socket */
    ck_assert_int_eq(asyncore_create_socket(&sender.base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq((int)asyncore_send(&sender.base, "12345678", 8), 1);
    ck_assert_int_eq((int)asyncore_send(&sender.base, "9", 1), -ENOBUFS);
    ck_assert_int_eq(asyncore_set_marks(&sender, 16, 32, 64), 0);
    ck_assert_int_eq((int)asyncore_send(&sender.base, "9", 1), 0);
    ck_assert_uint_eq(asyncore_queued(&sender), 9);
    ck_assert_int_eq(asyncore_fini(&sender.base), 0);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

static size_t room; /* of the transport */

static ssize_t send_some(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    size_t n = size < room ? size : room;
    if (n == 0)
        return -EAGAIN;
    room -= n;
    return asyncore_super(d, &sender_class)->send(d, data, n);
}

static unsigned char lower[40000]; /* the program's own memory lies below the heap, the stack above */

static int send_from_everywhere(struct asyncore_dispatcher *d)
{
    unsigned char upper[40000];
    const void *view;
    pattern_fill(lower, 0, sizeof lower);
    pattern_fill(upper, sizeof lower, sizeof upper);
    ssize_t n = asyncore_recv_view(d, &view);
    if (n <= 0)
        return (int)n;
    ck_assert_int_ge((int)asyncore_send(d, lower, sizeof lower), 0);
    ck_assert_int_ge((int)asyncore_send(d, upper, sizeof upper), 0);
    ck_assert_int_ge((int)asyncore_send(d, view, (size_t)n), 0);
    return 0;
}

static const struct asyncore_class half_class = {
    .name = "half", .parent = &sender_class, .send = send_some, .handle_read = send_from_everywhere};

START_TEST(what_a_transport_does_not_take_is_queued_from_wherever_it_lies)
{
    static unsigned char got[80000 + 1000];
    unsigned char input[1000];
    int peer;
    sender_with_peer(&half_class, &peer);
    room = 100;
    pattern_fill(input, 80000, sizeof input);
    peer_send(peer, input, sizeof input);
    run_until(asyncore_queued(&sender) > 0);
    ck_assert_uint_eq(asyncore_queued(&sender), sizeof got - 100);
    ck_assert_uint_eq(peer_recv(peer, got, 100), 100);
    for (size_t n = 100, more; n < sizeof got; n += more) {
        more = room = sizeof got - n < 7000 ? sizeof got - n : 7000;
        run_until(room == 0);
        ck_assert_uint_eq(asyncore_queued(&sender), sizeof got - n - more);
        ck_assert_uint_eq(peer_recv(peer, got + n, more), more);
    }
    pattern_check(got, 0, sizeof got);
    close(peer);
}
END_TEST

static ssize_t send_nothing(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    (void)d;
    (void)data;
    (void)size;
    return room == 0 ? -ENOBUFS : asyncore_super(d, &sender_class)->send(d, data, size);
}

static const struct asyncore_class poor_class = {.name = "poor", .parent = &sender_class, .send = send_nothing};

START_TEST(a_kernel_without_buffers_is_asked_again)
{
    int peer;
    sender_with_peer(&poor_class, &peer);
    room = 0;
    if (_i == 0)
        ck_assert_int_eq((int)asyncore_send(&sender.base, "later", 5), 0);
    else
        ck_assert_int_eq((int)asyncore_send_ref(&sender, "later", 5, release, "later"), 0);
    turn();
    ck_assert_uint_eq(asyncore_queued(&sender), 5);
    ck_assert_int_eq(asyncore_error(&sender.base), 0);
    assert_notes("");
    room = 1;
    run_until(asyncore_queued(&sender) == 0);
    assert_notes(_i == 0 ? "" : "release-later");
    assert_peer_got(peer, "later");
    close(peer);
}
END_TEST

START_TEST(a_plain_dispatcher_hands_the_kernels_want_of_buffers_on)
{
    static struct asyncore_dispatcher d;
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &poor_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0);
    room = 0;
    ck_assert_int_eq((int)asyncore_send(&d, "x", 1), -ENOBUFS);
    ck_assert_int_eq(asyncore_error(&d), 0);
    room = 1;
    ck_assert_int_eq((int)asyncore_send(&d, "x", 1), 1);
    close(fds[1]);
}
END_TEST

static void add_queues(TCase *tests)
{
    tcase_add_test(tests, marks_count_from_when_they_are_set);
    tcase_add_test(tests, what_a_transport_does_not_take_is_queued_from_wherever_it_lies);
    tcase_add_loop_test(tests, a_kernel_without_buffers_is_asked_again, 0, 2);
    tcase_add_test(tests, a_plain_dispatcher_hands_the_kernels_want_of_buffers_on);
}

int main(void)
{
    return run_suite("edges_chat", add_taken, add_ends, add_input, add_queues, NULL);
}
