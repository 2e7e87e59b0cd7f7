/* test_chat.c: async_chat: input cut at terminators, output from data and producers.
 *
 * The channel of these tests notes what it found as "[text]"; `after` is asked after each, to set another terminator or
 * to do whatever a test needs. */
#include "support.h"
#include <unistd.h>

struct talker {
    struct asynchat base;
    char text[4096];
    size_t length;   /* in text */
    size_t all;      /* collected since the beginning */
    size_t pieces;   /* calls of collect_incoming_data with the present text */
    int found, closes, errors, destroys, sends;
    int error, result;
    int (*after)(struct talker *t);
};

static struct talker the_talker; /* one a test; outlives the map */

static const struct asynchat_class talker_class;

static int talker_collect(struct asynchat *c, const void *data, size_t n)
{
    struct talker *t = (struct talker *)c;
    must(n > 0);
    size_t room = sizeof t->text - t->length, take = n < room ? n : room;
    memcpy(t->text + t->length, data, take);
    t->length += take;
    t->all += n;
    t->pieces++;
    return t->result;
}

static int talker_found(struct asynchat *c)
{
    struct talker *t = (struct talker *)c;
    note("[%.*s]", (int)t->length, t->text);
    t->length = t->pieces = 0;
    t->found++;
    return t->after != NULL ? t->after(t) : 0;
}

static int talker_close(struct asyncore_dispatcher *d)
{
    ((struct talker *)d)->closes++;
    return asyncore_super(d, &talker_class.base)->handle_close(d);
}

static int talker_error(struct asyncore_dispatcher *d, int error)
{
    ((struct talker *)d)->errors++;
    ((struct talker *)d)->error = error;
    return asyncore_super(d, &talker_class.base)->handle_error(d, error);
}

static ssize_t talker_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    ((struct talker *)d)->sends++;
    return asyncore_super(d, &talker_class.base)->send(d, data, size);
}

static void talker_destroy(struct asyncore_dispatcher *d)
{
    ((struct talker *)d)->destroys++;
}

static const struct asynchat_class talker_class = {
    .base = {.name = "talker",
             .handle_close = talker_close,
             .handle_error = talker_error,
             .send = talker_send,
             .destroy = talker_destroy},
    .collect_incoming_data = talker_collect,
    .found_terminator = talker_found,
};

static struct talker *talker_of_class(const struct asynchat_class *class_, int *peer)
{
    int fds[2];
    struct talker *t = &the_talker;
    unix_pair(fds);
    *peer = fds[1];
    memset(t, 0, sizeof *t);
    ck_assert_int_eq(asynchat_init(&t->base, class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&t->base.base.base, fds[0]), 0);
    return t;
}

static struct talker *talker_with(const char *terminator, int *peer)
{
    struct talker *t = talker_of_class(&talker_class, peer);
    char copy[64] = "";
    size_t n = strlen(terminator);
    memcpy(copy, terminator, n);
    ck_assert_int_eq(asynchat_set_terminator(&t->base, copy, n), 0);
    memset(copy, '!', sizeof copy); /* the library has its own */
    return t;
}

static void say(int peer, const char *text)
{
    peer_send(peer, text, strlen(text));
    turn();
}

static void end_talk(struct talker *t, int peer)
{
    close(peer);
    run_until(t->destroys == 1);
    ck_assert_int_eq(t->closes, 1);
    t->destroys = 0;
}

/* -- Terminators -- */

static const struct {
    const char *terminator, *text, *expected, *rest;
} splits[] = {
    {"\r\n", "one\r\n\r\ntwo\r\nthree", "[one] [] [two]", "three"},
    {"\n", "one\n\ntwo\nthree", "[one] [] [two]", "three"},
    {"\r\n", "a\rb\r\r\nc\n\r\n\r", "[a\rb\r] [c\n]", "\r"},
    {"aab", "aaab-aabaaaabx-aa", "[a] [-] [aa]", "x-aa"},
    {"abcabd", "abcabcabd.abcabdabcab", "[abc] [.]", "abcab"},
    {"0123456789abcdef", "x0123456789abcdefy0123456789abcde", "[x]", "y0123456789abcde"},
    {"----------------------------- long one", "x----------------------------- long one--- y-----------------------",
     "[x]", "--- y-----------------------"},
};

/* What is kept back as a possible beginning of the terminator is data when the stream ends. */
static void assert_split(struct talker *t, int peer, int which)
{
    shutdown(peer, SHUT_WR);
    run_until(t->destroys == 1);
    ck_assert_str_eq(notes(), splits[which].expected);
    forget_notes();
    ck_assert_uint_eq(t->length, strlen(splits[which].rest));
    ck_assert_int_eq(memcmp(t->text, splits[which].rest, t->length), 0);
    close(peer);
}

START_TEST(terminators_are_found_in_one_piece_of_input)
{
    int peer;
    struct talker *t = talker_with(splits[_i].terminator, &peer);
    say(peer, splits[_i].text);
    assert_split(t, peer, _i);
}
END_TEST

START_TEST(terminators_are_found_wherever_the_input_is_cut)
{
    const char *text = splits[_i].text;
    for (size_t cut = 1; cut < strlen(text); cut++) {
        int peer;
        struct talker *t = talker_with(splits[_i].terminator, &peer);
        peer_send(peer, text, cut);
        turn();
        say(peer, text + cut);
        assert_split(t, peer, _i);
    }
}
END_TEST

START_TEST(terminators_are_found_when_bytes_come_one_by_one)
{
    int peer;
    struct talker *t = talker_with(splits[_i].terminator, &peer);
    for (const char *at = splits[_i].text; *at != '\0'; at++) {
        peer_send(peer, at, 1);
        turn();
    }
    assert_split(t, peer, _i);
}
END_TEST

START_TEST(a_length_is_counted_over_reads)
{
    int peer;
    struct talker *t = talker_of_class(&talker_class, &peer);
    const void *bytes = "";
    ck_assert_int_eq(asynchat_set_terminator_length(&t->base, 5), 0);
    ck_assert_uint_eq(asynchat_get_terminator(&t->base, &bytes), 5);
    ck_assert_ptr_null(bytes);
    say(peer, "he");
    assert_notes("");
    say(peer, "llo, all the rest");
    assert_notes("[hello]");
    ck_assert_uint_eq(t->all, 19); /* no other was set: so everything is collected */
    end_talk(t, peer);
}
END_TEST

START_TEST(without_a_terminator_everything_is_collected)
{
    int peer;
    struct talker *t = talker_of_class(&talker_class, &peer);
    const void *bytes = "";
    if (_i == 1)
        ck_assert_int_eq(asynchat_set_terminator(&t->base, NULL, 0), 0);
    if (_i == 2)
        ck_assert_int_eq(asynchat_set_terminator_length(&t->base, 0), 0);
    ck_assert_uint_eq(asynchat_get_terminator(&t->base, &bytes), 0);
    ck_assert_ptr_null(bytes);
    say(peer, "a\r\nb");
    say(peer, "c");
    ck_assert_uint_eq(t->all, 5);
    assert_notes("");
    end_talk(t, peer);
}
END_TEST

START_TEST(get_terminator_lends_the_bytes)
{
    int peer;
    struct talker *t = talker_with("\r\n", &peer);
    const void *bytes = NULL;
    ck_assert_uint_eq(asynchat_get_terminator(&t->base, &bytes), 2);
    ck_assert_int_eq(memcmp(bytes, "\r\n", 2), 0);
    ck_assert_uint_eq(asynchat_get_terminator(&t->base, NULL), 2);
    ck_assert_int_eq(asynchat_set_terminator(&t->base, "a terminator of thirty bytes..", 30), 0);
    ck_assert_uint_eq(asynchat_get_terminator(&t->base, &bytes), 30);
    ck_assert_int_eq(memcmp(bytes, "a terminator of thirty bytes..", 30), 0);
    ck_assert_int_eq(asynchat_set_terminator(&t->base, bytes, 30), 0); /* its own */
    ck_assert_uint_eq(asynchat_get_terminator(&t->base, &bytes), 30);
    ck_assert_int_eq(memcmp(bytes, "a terminator of thirty bytes..", 30), 0);
    end_talk(t, peer);
}
END_TEST

/* A line that says how long the block behind it is, then lines again. */
static int block_follows(struct talker *t)
{
    if (t->found % 2 == 1)
        return asynchat_set_terminator_length(&t->base, (size_t)atoi(t->text));
    return asynchat_set_terminator(&t->base, "\r\n", 2);
}

START_TEST(a_terminator_set_in_found_terminator_rules_what_follows)
{
    static const char text[] = "5\r\n\r\n\r\n!3\r\nabc12\r\nhello, world";
    for (size_t cut = 0; cut < sizeof text - 1; cut++) {
        int peer;
        struct talker *t = talker_with("\r\n", &peer);
        t->after = block_follows;
        peer_send(peer, text, cut);
        turn();
        say(peer, text + cut);
        assert_notes("[5] [\r\n\r\n!] [3] [abc] [12] [hello, world]");
        end_talk(t, peer);
    }
}
END_TEST

START_TEST(many_lines_of_one_read_are_all_found)
{
    enum { LINES = 20000 };
    char *text = malloc(LINES * 2);
    int peer;
    struct talker *t = talker_with("\n", &peer);
    for (int i = 0; i < LINES; i++)
        memcpy(text + 2 * i, "x\n", 2);
    for (size_t sent = 0; sent < LINES * 2; sent += 8000) {
        peer_send(peer, text + sent, 8000);
        turn();
    }
    run_until(t->found == LINES);
    ck_assert_uint_eq(t->all, LINES);
    end_talk(t, peer);
    free(text);
}
END_TEST

static void add_terminators(TCase *tests)
{
    tcase_add_loop_test(tests, terminators_are_found_in_one_piece_of_input, 0, COUNT(splits));
    tcase_add_loop_test(tests, terminators_are_found_wherever_the_input_is_cut, 0, COUNT(splits));
    tcase_add_loop_test(tests, terminators_are_found_when_bytes_come_one_by_one, 0, COUNT(splits));
    tcase_add_test(tests, a_length_is_counted_over_reads);
    tcase_add_loop_test(tests, without_a_terminator_everything_is_collected, 0, 3);
    tcase_add_test(tests, get_terminator_lends_the_bytes);
    tcase_add_test(tests, a_terminator_set_in_found_terminator_rules_what_follows);
    tcase_add_test(tests, many_lines_of_one_read_are_all_found);
}

/* -- Ends and errors -- */

static int close_now(struct talker *t)
{
    return asyncore_close(&t->base.base.base);
}

START_TEST(closing_in_found_terminator_stops_the_splitting_at_once)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    t->after = close_now;
    say(peer, "a\nb\nc\nd");
    assert_notes("[a]");
    ck_assert_uint_eq(t->all, 1);
    ck_assert_int_eq(t->destroys, 1);
    ck_assert_int_eq(t->closes, 0);
    close(peer);
}
END_TEST

static int close_in_collect(struct asynchat *c, const void *data, size_t n)
{
    note("collect%.*s", (int)n, (const char *)data);
    return asyncore_close(&c->base.base);
}

static const struct asynchat_class closing_class = {
    .base = {.name = "closing", .parent = &talker_class.base},
    .collect_incoming_data = close_in_collect,
};

START_TEST(closing_in_collect_incoming_data_stops_the_splitting_at_once)
{
    int peer;
    struct talker *t = talker_of_class(&closing_class, &peer);
    asynchat_set_terminator(&t->base, "\n", 1);
    say(peer, "a\nb\n");
    assert_notes("collecta");
    ck_assert_int_eq(t->destroys, 1);
    close(peer);
}
END_TEST

static int fail_in_found(struct talker *t)
{
    (void)t;
    return -EPROTO;
}

START_TEST(an_error_of_found_terminator_goes_to_handle_error)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    t->after = fail_in_found;
    say(peer, "a\nb\n");
    assert_notes("[a]");
    ck_assert_int_eq(t->error, -EPROTO);
    ck_assert_int_eq(t->errors, 1);
    ck_assert_int_eq(t->destroys, 1);
    close(peer);
}
END_TEST

START_TEST(an_error_of_collect_incoming_data_goes_to_handle_error)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    t->result = -EPROTO;
    say(peer, "a\nb\n");
    assert_notes("");
    ck_assert_int_eq(t->error, -EPROTO);
    ck_assert_int_eq(t->errors, 1);
    close(peer);
}
END_TEST

START_TEST(positive_results_and_eagain_mean_nothing)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    t->result = _i == 0 ? 1 : -EAGAIN;
    say(peer, "a\nb\n");
    assert_notes("[a] [b]");
    ck_assert_int_eq(t->errors, 0);
    t->result = 0;
    end_talk(t, peer);
}
END_TEST

static int note_error(struct asyncore_dispatcher *d, int error)
{
    the_talker.error = error;
    return asyncore_close(d);
}

static const struct asynchat_class bare_class = {.base = {.name = "bare", .handle_error = note_error}};

START_TEST(without_the_two_functions_input_is_enosys)
{
    int peer;
    struct talker *t = talker_of_class(&bare_class, &peer);
    asynchat_set_terminator(&t->base, "\n", 1);
    say(peer, _i == 0 ? "a\n" : "\n");
    ck_assert_int_eq(t->error, -ENOSYS);
    close(peer);
}
END_TEST

static int loud_found(struct asynchat *c);

static const struct asynchat_class loud_class = {
    .base = {.name = "loud", .parent = &talker_class.base},
    .found_terminator = loud_found,
};

static int loud_found(struct asynchat *c)
{
    note("loud");
    return asynchat_super(c, &loud_class)->found_terminator(c);
}

START_TEST(found_terminator_is_inherited_and_calls_its_parents)
{
    int peer;
    struct talker *t = talker_of_class(&loud_class, &peer);
    asynchat_set_terminator(&t->base, "\n", 1);
    say(peer, "a\n");
    assert_notes("loud [a]");
    ck_assert_ptr_eq(asynchat_super(&t->base, &loud_class)->collect_incoming_data, talker_collect);
    end_talk(t, peer);
}
END_TEST

START_TEST(nothing_is_lost_when_the_peer_sends_and_hangs_up_at_once)
{
    static char text[40000];
    int peer;
    struct talker *t = talker_with("\n", &peer);
    memset(text, 'x', sizeof text);
    for (size_t i = 99; i < sizeof text; i += 100)
        text[i] = '\n';
    text[sizeof text - 1] = 'x';
    peer_send(peer, text, sizeof text);
    close(peer);
    run_until(t->destroys == 1);
    ck_assert_int_eq(t->found, 399);
    ck_assert_uint_eq(t->length, 100);
    ck_assert_int_eq(t->closes, 1);
    ck_assert_int_eq(t->errors, 0);
}
END_TEST

static void add_ends(TCase *tests)
{
    tcase_add_test(tests, closing_in_found_terminator_stops_the_splitting_at_once);
    tcase_add_test(tests, closing_in_collect_incoming_data_stops_the_splitting_at_once);
    tcase_add_test(tests, an_error_of_found_terminator_goes_to_handle_error);
    tcase_add_test(tests, an_error_of_collect_incoming_data_goes_to_handle_error);
    tcase_add_loop_test(tests, positive_results_and_eagain_mean_nothing, 0, 2);
    tcase_add_loop_test(tests, without_the_two_functions_input_is_enosys, 0, 2);
    tcase_add_test(tests, found_terminator_is_inherited_and_calls_its_parents);
    tcase_add_test(tests, nothing_is_lost_when_the_peer_sends_and_hangs_up_at_once);
}

/* -- Bounds -- */

static void say_much(int peer, size_t n)
{
    char *data = malloc(n);
    memset(data, 'x', n);
    for (size_t sent = 0; sent < n;) {
        size_t piece = n - sent < 20000 ? n - sent : 20000;
        peer_send(peer, data + sent, piece);
        sent += piece;
        turn();
    }
    free(data);
}

START_TEST(a_peer_that_never_sends_the_terminator_is_an_error)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    size_t limit = _i == 0 ? 65536 : 100;
    if (_i == 1)
        asynchat_set_limit(&t->base, limit);
    say_much(peer, limit);
    ck_assert_int_eq(t->errors, 0);
    ck_assert_uint_eq(t->all, limit);
    say(peer, "\n");
    ck_assert_int_eq(t->found, 1);
    say_much(peer, limit);
    ck_assert_int_eq(t->errors, 0);
    say(peer, "x");
    ck_assert_int_eq(t->error, ASYNCHAT_ELIMIT);
    ck_assert_int_eq(t->destroys, 1);
    ck_assert_uint_le(t->all, 2 * limit);
    close(peer);
}
END_TEST

START_TEST(what_has_no_byte_terminator_has_no_limit)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    if (_i == 0)
        asynchat_set_terminator_length(&t->base, 200000);
    else if (_i == 1)
        asynchat_set_terminator(&t->base, NULL, 0);
    else
        asynchat_set_limit(&t->base, 0);
    say_much(peer, 200000);
    ck_assert_uint_eq(t->all, 200000);
    ck_assert_int_eq(t->found, _i == 0);
    end_talk(t, peer);
}
END_TEST

enum { ANSWER = 1000, REQUESTS = 5000 };

static int answer_at_length(struct talker *t)
{
    static char answer[ANSWER];
    memset(answer, 'A', sizeof answer);
    int result = asynchat_push(&t->base, answer, sizeof answer);
    must(result == 0 || result == 1);
    forget_notes();
    return 0;
}

START_TEST(past_the_high_mark_neither_reading_nor_splitting_goes_on)
{
    static char requests[2 * REQUESTS], answers[ANSWER];
    int peer, got = 0;
    struct talker *t = talker_with("\n", &peer);
    t->after = answer_at_length;
    ck_assert_int_eq(asyncore_set_marks(&t->base.base, 5000, 20000, 40000), 0);
    for (size_t i = 0; i < sizeof requests; i += 2)
        memcpy(requests + i, "?\n", 2);
    peer_send(peer, requests, sizeof requests);
    run_for(10);
    assert_idle_for(50);
    ck_assert_uint_le(asyncore_queued(&t->base.base), 20000 + ANSWER);
    ck_assert_int_lt(t->found, REQUESTS);
    while (got < REQUESTS) {
        turn();
        if (readable_now(peer, 0))
            got += peer_recv(peer, answers, sizeof answers) == sizeof answers;
        must(asyncore_queued(&t->base.base) <= 20000 + ANSWER);
    }
    ck_assert_int_eq(t->found, REQUESTS);
    end_talk(t, peer);
}
END_TEST

static void fill_up(struct talker *t, size_t queued)
{
    static char data[1000];
    while (asyncore_queued(&t->base.base) < queued) {
        ck_assert_int_ge(asynchat_push(&t->base, data, sizeof data), 0);
        if (asyncore_queued(&t->base.base) > 100)
            turn();
    }
}

static void count_release(void *arg)
{
    ++*(int *)arg;
}

START_TEST(push_tells_of_the_high_mark_and_takes_nothing_past_the_limit)
{
    static char data[9000];
    int peer, released = 0;
    struct talker *t = talker_with("\n", &peer);
    ck_assert_int_eq(asyncore_set_marks(&t->base.base, 1000, 4000, 8000), 0);
    fill_up(t, 3000);
    ck_assert_int_eq(asynchat_push(&t->base, data, 2000), 1);
    size_t queued = asyncore_queued(&t->base.base);
    ck_assert_int_eq(asynchat_push(&t->base, data, 8001 - queued), -ENOBUFS);
    ck_assert_int_eq(asynchat_push_ref(&t->base, data, 8001 - queued, count_release, &released), -ENOBUFS);
    ck_assert_uint_eq(asyncore_queued(&t->base.base), queued);
    ck_assert_int_eq(asynchat_push(&t->base, data, 8000 - queued), 1);
    asyncore_close(&t->base.base.base);
    ck_assert_int_eq(asynchat_push(&t->base, data, 1), -EPIPE);
    turn();
    ck_assert_int_eq(released, 0);
    close(peer);
}
END_TEST

static void add_bounds(TCase *tests)
{
    tcase_add_loop_test(tests, a_peer_that_never_sends_the_terminator_is_an_error, 0, 2);
    tcase_add_loop_test(tests, what_has_no_byte_terminator_has_no_limit, 0, 3);
    tcase_add_test(tests, past_the_high_mark_neither_reading_nor_splitting_goes_on);
    tcase_add_test(tests, push_tells_of_the_high_mark_and_takes_nothing_past_the_limit);
}

/* -- Output -- */

static int push_in_three(struct talker *t)
{
    ck_assert_int_eq(asynchat_push_text(&t->base, "one "), 0);
    ck_assert_int_eq(asynchat_push(&t->base, "two ", 4), 0);
    ck_assert_int_eq(asynchat_push_text(&t->base, "three"), 0);
    ck_assert_int_eq(t->sends, 0);
    return 0;
}

static void assert_received(int peer, const char *expected)
{
    char data[256];
    size_t n = strlen(expected);
    ck_assert_uint_lt(n, sizeof data);
    data[peer_recv(peer, data, n)] = '\0';
    ck_assert_str_eq(data, expected);
}

START_TEST(pushes_of_one_handler_go_out_together)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    t->after = push_in_three;
    say(peer, "go\n");
    assert_received(peer, "one two three");
    ck_assert_int_eq(t->sends, 1);
    assert_idle_for(20);
    end_talk(t, peer);
}
END_TEST

/* Yields each of its texts, then the end or an error. */
struct texts {
    struct asynchat_producer base;
    const char *text[4];
    int next, released, error;
};

static ssize_t texts_more(struct asynchat_producer *p, const void **data)
{
    struct texts *texts = (struct texts *)p;
    const char *text = texts->text[texts->next];
    ck_assert_int_eq(texts->released, 0);
    if (text == NULL)
        return texts->error;
    texts->next++;
    *data = text;
    return (ssize_t)strlen(text);
}

static void texts_release(struct asynchat_producer *p)
{
    ((struct texts *)p)->released++;
}

START_TEST(data_and_producers_go_out_in_the_order_of_the_pushes)
{
    static char lent[] = "lent ";
    struct asynchat_simple_producer simple;
    int peer, released = 0;
    struct talker *t = talker_with("\n", &peer);
    struct texts texts = {{texts_more, texts_release}, {"b ", "c ", "d ", NULL}, 0, 0, 0};
    struct texts empty = {{texts_more, texts_release}, {NULL}, 0, 0, 0};
    asynchat_simple_producer_init(&simple, "simple ", 7, 2);
    ck_assert_int_eq(asynchat_push_text(&t->base, "a "), 0);
    ck_assert_int_eq(asynchat_push_with_producer(&t->base, &texts.base), 0);
    ck_assert_int_eq(asynchat_push_ref(&t->base, lent, 5, count_release, &released), 0);
    ck_assert_int_eq(asynchat_push_with_producer(&t->base, &empty.base), 0);
    ck_assert_int_eq(asynchat_push_with_producer(&t->base, &simple.base), 0);
    ck_assert_int_eq(asynchat_push_text(&t->base, "z"), 0);
    run_until(released == 1 && texts.released == 1 && empty.released == 1 && readable_now(peer, 0));
    run_for(5);
    assert_received(peer, "a b c d lent simple z");
    assert_idle_for(20);
    ck_assert_int_eq(released + texts.released + empty.released, 3);
    end_talk(t, peer);
}
END_TEST

static ssize_t endless_more(struct asynchat_producer *p, const void **data)
{
    static char piece[10000];
    ((struct texts *)p)->next++;
    *data = piece;
    return sizeof piece;
}

START_TEST(a_producer_is_asked_as_the_peer_takes_its_data)
{
    char data[5000];
    int peer;
    struct talker *t = talker_with("\n", &peer);
    struct texts endless = {{endless_more, texts_release}, {NULL}, 0, 0, 0};
    ck_assert_int_eq(asynchat_push_with_producer(&t->base, &endless.base), 0);
    run_for(30);
    int asked = endless.next;
    ck_assert_int_lt(asked, 1000); /* what the kernel's buffers take */
    assert_idle_for(20);
    ck_assert_int_eq(endless.next, asked);
    while (endless.next == asked) {
        ck_assert_uint_eq(peer_recv(peer, data, sizeof data), sizeof data);
        turn();
    }
    ck_assert_int_lt(endless.next, 2 * asked + 2);
    asyncore_close(&t->base.base.base);
    turn();
    ck_assert_int_eq(endless.released, 1);
    close(peer);
}
END_TEST

START_TEST(a_large_simple_producer_arrives_whole_at_a_slow_reader)
{
    enum { SIZE = 2000000 };
    unsigned char *data = malloc(SIZE), piece[30000];
    struct asynchat_simple_producer simple;
    int peer;
    size_t got = 0;
    struct talker *t = talker_with("\n", &peer);
    pattern_fill(data, 0, SIZE);
    asynchat_simple_producer_init(&simple, data, SIZE, _i == 0 ? 0 : 70001);
    ck_assert_int_eq(asynchat_push_with_producer(&t->base, &simple.base), 0);
    ck_assert_int_eq(asynchat_close_when_done(&t->base), 0);
    while (t->destroys == 0 || readable_now(peer, 0)) {
        turn();
        ssize_t n = recv(peer, piece, sizeof piece, MSG_DONTWAIT);
        if (n == 0)
            break;
        if (n > 0)
            pattern_check(piece, got, (size_t)n);
        got += n > 0 ? (size_t)n : 0;
    }
    ck_assert_uint_eq(got, SIZE);
    close(peer);
    free(data);
}
END_TEST

START_TEST(a_producer_that_fails_goes_to_handle_error_after_what_came_before)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    struct texts texts = {{texts_more, texts_release}, {"b", NULL}, 0, 0, -EIO};
    ck_assert_int_eq(asynchat_push_text(&t->base, "a"), 0);
    ck_assert_int_eq(asynchat_push_with_producer(&t->base, &texts.base), 0);
    ck_assert_int_eq(asynchat_push_text(&t->base, "never"), 0);
    run_until(t->destroys == 1);
    ck_assert_int_eq(t->error, -EIO);
    ck_assert_int_eq(t->errors, 1);
    ck_assert_int_eq(texts.released, 1);
    assert_received(peer, "ab");
    ck_assert(peer_at_end(peer));
    close(peer);
}
END_TEST

START_TEST(close_when_done_closes_after_the_queue_was_sent)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    struct texts texts = {{texts_more, texts_release}, {"b", "c", NULL}, 0, 0, 0};
    if (_i == 0) {
        asynchat_push_text(&t->base, "a");
        asynchat_push_with_producer(&t->base, &texts.base);
    }
    ck_assert_int_eq(asynchat_close_when_done(&t->base), 0);
    ck_assert_int_eq(asynchat_push_text(&t->base, "x"), -EPIPE);
    ck_assert_int_eq(asynchat_push_with_producer(&t->base, &texts.base), -EPIPE);
    ck_assert_int_eq(t->closes, 0); /* the loop tells */
    run_until(t->destroys == 1);
    ck_assert_int_eq(t->closes, 1);
    assert_received(peer, _i == 0 ? "abc" : "");
    ck_assert(peer_at_end(peer));
    close(peer);
}
END_TEST

static int answer_and_close(struct talker *t)
{
    asynchat_push_text(&t->base, "bye");
    return asynchat_close_when_done(&t->base);
}

START_TEST(close_when_done_in_a_handler_sends_first)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    t->after = answer_and_close;
    say(peer, "quit\n");
    run_until(t->destroys == 1);
    assert_notes("[quit]");
    assert_received(peer, "bye");
    ck_assert(peer_at_end(peer));
    close(peer);
}
END_TEST

START_TEST(the_queue_is_sent_when_the_peer_has_ended_its_side)
{
    int peer;
    struct talker *t = talker_with("\n", &peer);
    t->after = push_in_three;
    peer_send(peer, "go\n", 3);
    shutdown(peer, SHUT_WR);
    run_until(t->destroys == 1);
    assert_received(peer, "one two three");
    ck_assert(peer_at_end(peer));
    ck_assert_int_eq(t->closes, 1);
    close(peer);
}
END_TEST

static void add_output(TCase *tests)
{
    tcase_add_test(tests, pushes_of_one_handler_go_out_together);
    tcase_add_test(tests, data_and_producers_go_out_in_the_order_of_the_pushes);
    tcase_add_test(tests, a_producer_is_asked_as_the_peer_takes_its_data);
    tcase_add_loop_test(tests, a_large_simple_producer_arrives_whole_at_a_slow_reader, 0, 2);
    tcase_add_test(tests, a_producer_that_fails_goes_to_handle_error_after_what_came_before);
    tcase_add_loop_test(tests, close_when_done_closes_after_the_queue_was_sent, 0, 2);
    tcase_add_test(tests, close_when_done_in_a_handler_sends_first);
    tcase_add_test(tests, the_queue_is_sent_when_the_peer_has_ended_its_side);
}

/* -- Discarding -- */

static int discard_now(struct talker *t)
{
    t->after = NULL;
    asynchat_discard_buffers(&t->base);
    return 0;
}

START_TEST(discard_buffers_forgets_input)
{
    int peer;
    struct talker *t = talker_with("\r\n", &peer);
    t->after = discard_now;
    say(peer, "a\r\nb\r\nc\r");
    assert_notes("[a]");
    say(peer, "\nd\r\n"); /* the carriage return was forgotten too */
    assert_notes("[\nd]");
    end_talk(t, peer);
}
END_TEST

START_TEST(discard_buffers_forgets_a_kept_prefix)
{
    int peer;
    struct talker *t = talker_with("\r\n", &peer);
    say(peer, "a\r");
    asynchat_discard_buffers(&t->base);
    say(peer, "\nb\r\n");
    assert_notes("[a\nb]");
    end_talk(t, peer);
}
END_TEST

START_TEST(discard_buffers_drops_output_and_releases_it)
{
    static char big[1 << 20];
    int peer, released = 0;
    struct talker *t = talker_with("\n", &peer);
    struct texts texts = {{texts_more, texts_release}, {"never", NULL}, 0, 0, 0};
    asynchat_push(&t->base, big, sizeof big);
    asynchat_push_ref(&t->base, big, sizeof big, count_release, &released);
    asynchat_push_with_producer(&t->base, &texts.base);
    run_for(10);
    ck_assert_uint_gt(asyncore_queued(&t->base.base), sizeof big);
    asynchat_discard_buffers(&t->base);
    ck_assert_uint_eq(asyncore_queued(&t->base.base), 0);
    ck_assert_int_eq(released, 1);
    ck_assert_int_eq(texts.released, 1);
    ck_assert_int_eq(texts.next, 0);
    assert_idle_for(20);
    size_t sent = waiting_bytes(peer);
    ck_assert_uint_eq(peer_recv(peer, big, sent), sent);
    ck_assert_int_eq(asynchat_push_text(&t->base, "again"), 0);
    turn();
    assert_received(peer, "again");
    end_talk(t, peer);
}
END_TEST

static void add_discarding(TCase *tests)
{
    tcase_add_test(tests, discard_buffers_forgets_input);
    tcase_add_test(tests, discard_buffers_forgets_a_kept_prefix);
    tcase_add_test(tests, discard_buffers_drops_output_and_releases_it);
}

/* -- asynchat_find -- */

static ssize_t naive_find(const char *data, size_t n, const char *terminator, size_t m, size_t *keep)
{
    for (size_t i = 0; i + m <= n; i++)
        if (memcmp(data + i, terminator, m) == 0)
            return (ssize_t)i;
    *keep = m - 1 < n ? m - 1 : n;
    while (*keep > 0 && memcmp(data + n - *keep, terminator, *keep) != 0)
        --*keep;
    return -1;
}

START_TEST(find_agrees_with_a_naive_search)
{
    uint32_t random = 99;
    for (int round = 0; round < 200000; round++) {
        size_t n = random_next(&random) % 24, m = 1 + random_next(&random) % 8, keep = 77, expected_keep = 77;
        unsigned letters = 1 + random_next(&random) % 3;
        char *data = malloc(n + 1), *terminator = malloc(m); /* of their sizes: the checkers see a step beyond */
        for (size_t i = 0; i < n; i++)
            data[i] = (char)('a' + random_next(&random) % letters);
        for (size_t i = 0; i < m; i++)
            terminator[i] = (char)('a' + random_next(&random) % letters);
        ssize_t at = asynchat_find(data, n, terminator, m, &keep);
        must(at == naive_find(data, n, terminator, m, &expected_keep));
        must(at >= 0 || keep == expected_keep);
        must(asynchat_find(data, n, terminator, m, NULL) == at);
        free(data);
        free(terminator);
        if (runs_slowly() && round == 10000)
            break;
    }
}
END_TEST

static void add_find(TCase *tests)
{
    tcase_add_test(tests, find_agrees_with_a_naive_search);
}

int main(void)
{
    return run_suite("chat", add_terminators, add_ends, add_bounds, add_output, add_discarding, add_find, NULL);
}
