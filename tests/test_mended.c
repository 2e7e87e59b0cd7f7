/* test_mended.c: faults of channels and chats that a review proved, each as the scenario that showed it.
 *
 * Where a fault was a wait without end, the loop of its test has no bound: Check's time limit is the bound. Objects
 * that are not probes are static, for they outlive the map. */
#include "map.h"
#include "support.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

static struct asynchat chat;

static void chat_on(const struct asynchat_class *class_, const char *terminator, int fd)
{
    ck_assert_int_eq(asynchat_init(&chat, class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&chat.base.base, fd), 0);
    ck_assert_int_eq(asynchat_set_terminator(&chat, terminator, strlen(terminator)), 0);
}

static struct asyncore_map *second_map(const char *engine)
{
    struct asyncore_map_options options = {.engine = engine};
    struct asyncore_map *second = NULL;
    ck_assert_int_eq(asyncore_map_new(&second, &options), 0);
    return second;
}

static int yes(struct asyncore_dispatcher *d)
{
    (void)d;
    return 1;
}

static int no(struct asyncore_dispatcher *d)
{
    (void)d;
    return 0;
}

static int collect_nothing(struct asynchat *c, const void *data, size_t n)
{
    (void)c;
    (void)data;
    (void)n;
    return 0;
}

static int collect_note(struct asynchat *c, const void *data, size_t n)
{
    (void)c;
    note("%.*s", (int)n, (const char *)data);
    return 0;
}

static void turns(int count)
{
    while (count-- > 0)
        turn();
}

/* -- A kernel that is watched: what the library asks of it is written down, and mostly done ------------------------ */

static struct os watched;
static int bad_closes, endless_waits;

static int watched_close(int fd, struct os *os)
{
    int result = os_linux.close(fd, os);
    bad_closes += result < 0;
    return result;
}

static int refuse_flags(int fd, int flags, struct os *os)
{
    (void)fd;
    (void)flags;
    (void)os;
    return -EPERM;
}

static int look_epoll(int set, struct epoll_event *events, int size, int timeout, struct os *os)
{
    endless_waits += timeout < 0;
    return os_linux.epoll_wait(set, events, size, 0, os);
}

static int look_poll(struct pollfd *fds, nfds_t count, int timeout, struct os *os)
{
    endless_waits += timeout < 0;
    return os_linux.poll(fds, count, 0, os);
}

static int look_select(int count, fd_set *reads, fd_set *writes, fd_set *excepts, int timeout, struct os *os)
{
    endless_waits += timeout < 0;
    return os_linux.select(count, reads, writes, excepts, 0, os);
}

static void watch_kernel(void)
{
    bad_closes = endless_waits = 0;
    ck_assert_int_eq(asyncore_map_free(map), 0);
    map = NULL;
    ck_assert_int_eq(map_new_on(&map, &watched, NULL), 0);
}

/* -- The end of a loop --------------------------------------------------------------------------------------------- */

static const struct asynchat_class plain_chat = {.base = {.name = "plain"}, .collect_incoming_data = collect_nothing};

START_TEST(a_loop_whose_last_channel_closes_in_the_flush_ends)
{
    int fds[2];
    char text[4] = "";
    unix_pair(fds);
    chat_on(&plain_chat, "\n", fds[0]);
    ck_assert_int_eq(asynchat_push_text(&chat, "bye"), 0);
    ck_assert_int_eq(asynchat_close_when_done(&chat), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_uint_eq(peer_recv(fds[1], text, 4), 3);
    ck_assert_str_eq(text, "bye");
    close(fds[1]);
}
END_TEST

static int stop_and_agree(struct asyncore_dispatcher *d)
{
    asyncore_stop(d->map);
    return 1;
}

static const struct asyncore_class stops_when_asked = {
    .name = "stops", .parent = &probe_class, .readable = stop_and_agree};

START_TEST(a_stop_in_a_predicate_ends_the_loop_without_a_wait)
{
    int fds[2];
    unix_pair(fds);
    probe_on(&stops_when_asked, "", fds[0]);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 1);
    close(fds[1]);
}
END_TEST

static int fd_of_the_next;

static int read_and_close(struct asyncore_dispatcher *d)
{
    char text[8] = "";
    note("%d", (int)asyncore_recv(d, text, sizeof text));
    return asyncore_close(d);
}

static const struct asyncore_class asked_class = {
    .name = "asked", .parent = &probe_class, .readable = yes, .handle_read = read_and_close};

static int close_and_add(struct asyncore_dispatcher *d)
{
    int result = asyncore_close(d);
    probe_on(&asked_class, "", fd_of_the_next);
    return result;
}

static const struct asynchat_class succeeded = {.base = {.name = "succeeded", .handle_close = close_and_add}};

START_TEST(a_channel_that_joins_in_the_flush_is_asked_before_the_wait)
{
    int fds[2], next[2];
    unix_pair(fds);
    unix_pair(next);
    peer_send(next[1], "x", 1);
    fd_of_the_next = next[0];
    chat_on(&succeeded, "\n", fds[0]);
    ck_assert_int_eq(asynchat_push_text(&chat, "bye"), 0);
    ck_assert_int_eq(asynchat_close_when_done(&chat), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("1 destroy");
    close(fds[1]);
    close(next[1]);
}
END_TEST

static void never(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    (void)arg;
    ck_abort_msg("that was early");
}

START_TEST(a_timer_of_60_days_bounds_the_wait)
{
    static struct asyncore_timer timer;
    watched = os_linux;
    watched.epoll_wait = look_epoll;
    watched.poll = look_poll;
    watched.select = look_select;
    watch_kernel();
    ck_assert_int_eq(asyncore_call_later(map, &timer, UINT64_C(60) * 86400000, never, NULL), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 3), 1);
    ck_assert_int_eq(endless_waits, 0);
    asyncore_cancel(&timer);
    ck_assert_int_ge(asyncore_poll(map, -1), 0);
    ck_assert_int_eq(endless_waits, 1); /* the kernel was really watched */
}
END_TEST

static void add_ends(TCase *tests)
{
    tcase_add_test(tests, a_loop_whose_last_channel_closes_in_the_flush_ends);
    tcase_add_test(tests, a_stop_in_a_predicate_ends_the_loop_without_a_wait);
    tcase_add_test(tests, a_channel_that_joins_in_the_flush_is_asked_before_the_wait);
    tcase_add_test(tests, a_timer_of_60_days_bounds_the_wait);
}

/* -- What a channel is told ---------------------------------------------------------------------------------------- */

static int try_again(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    asyncore_close(d);
    if (++p->closes == 3)
        return 0;
    ck_assert_int_eq(asyncore_create_socket(d, AF_UNSPEC, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(d, "unix:/nonexistent/socket", NULL), 0);
    return 0;
}

static int try_again_after_error(struct asyncore_dispatcher *d, int error)
{
    probe_of(d)->error = error;
    return try_again(d);
}

static int lose_the_connection(struct asyncore_dispatcher *d)
{
    char byte;
    ck_assert_int_eq(asyncore_recv(d, &byte, 1), 0);
    return 0;
}

/* Without destroy: it may connect again. */
static const struct asyncore_class reconnects = {.name = "reconnects",
                                                 .handle_read = lose_the_connection,
                                                 .handle_close = try_again,
                                                 .handle_error = try_again_after_error};

START_TEST(an_error_of_a_reconnect_in_handle_close_is_told)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&reconnects, "", fds[0]);
    close(fds[1]);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(p->closes, 3);
    ck_assert_int_eq(p->error, -ENOENT);
}
END_TEST

START_TEST(an_error_of_a_reconnect_in_handle_error_is_told)
{
    struct probe *p = probe_new(&reconnects, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_UNSPEC, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&p->base, "unix:/nonexistent/socket", NULL), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(p->closes, 3);
    ck_assert_int_eq(p->error, -ENOENT);
}
END_TEST

static int read_and_fail(struct asyncore_dispatcher *d)
{
    char byte;
    ck_assert_int_eq(asyncore_recv(d, &byte, 1), 1);
    return -EINVAL;
}

static int close_and_fail(struct asyncore_dispatcher *d)
{
    probe_of(d)->closes++;
    return -EIO;
}

static const struct asyncore_class fails_twice = {
    .name = "fails", .handle_read = read_and_fail, .handle_close = close_and_fail};

START_TEST(a_handle_close_that_fails_is_not_called_again)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&fails_twice, "", fds[0]);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(p->closes, 1);
    ck_assert_int_eq(p->base.fd, -1);
    close(fds[1]);
}
END_TEST

static void count_log(void *arg, const char *type, const char *message)
{
    (void)type;
    (void)message;
    ++*(int *)arg;
}

START_TEST(an_urgent_byte_that_nobody_handles_is_logged_once)
{
    int fds[2], logged = 0;
    tcp_pair(fds);
    asyncore_set_log(map, count_log, &logged);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_EXPT), 0);
    ck_assert_int_eq(send(fds[1], "!", 1, MSG_OOB), 1);
    run_until(logged > 0);
    turns(10);
    ck_assert_int_eq(logged, 1);
    ck_assert_uint_eq(asyncore_wanted(&p->base), ASYNCORE_READ);
    peer_send(fds[1], "x", 1);
    run_until(p->bytes == 1);
    close(fds[1]);
}
END_TEST

static const struct asyncore_class urgent_class = {.name = "urgent", .parent = &probe_class, .handle_expt = no};

START_TEST(a_reset_reaches_who_wants_errors_and_urgent_bytes_alone)
{
    int fds[2];
    tcp_pair(fds);
    struct probe *p = probe_on(&urgent_class, "", fds[0]);
    ck_assert_int_eq(asyncore_want(&p->base, ASYNCORE_ERROR | ASYNCORE_EXPT), 0);
    turn();
    peer_reset(fds[1]);
    run_until(p->closes == 1);
}
END_TEST

START_TEST(a_failed_flush_is_told_where_readable_says_no)
{
    static struct asyncore_dispatcher_with_send sender;
    static const struct asyncore_class class_ = {.name = "never", .readable = no};
    static char big[1 << 20];
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&sender, &class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&sender.base, fds[0]), 0);
    ck_assert_int_ge(asyncore_send(&sender.base, big, sizeof big), 0);
    turn();
    close(fds[1]);
    run_until(sender.base.fd == -1);
}
END_TEST

static void close_what_is_logged(void *arg, const char *type, const char *message)
{
    (void)type;
    (void)message;
    asyncore_close(&((struct probe *)arg)->base);
}

static const struct asyncore_class fails_class = {
    .name = "fails", .parent = &probe_class, .handle_read = read_and_fail};

START_TEST(a_log_function_may_close_the_channel_that_failed)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&fails_class, "", fds[0]);
    asyncore_set_log(map, close_what_is_logged, p);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("error destroy");
    close(fds[1]);
}
END_TEST

static int note_a_read(struct asyncore_dispatcher *d)
{
    probe_of(d)->reads++;
    return -EAGAIN;
}

static const struct asyncore_class reads_nothing = {
    .name = "nothing", .parent = &probe_class, .handle_read = note_a_read};

START_TEST(ready_is_kept_while_reading_is_stopped)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&reads_nothing, "", fds[0]);
    ck_assert_int_eq(asyncore_want(&p->base, 0), 0);
    ck_assert_int_eq(asyncore_ready(&p->base), 0);
    turns(3);
    ck_assert_int_eq(p->reads, 0);
    ck_assert_int_eq(asyncore_want(&p->base, ASYNCORE_READ), 0);
    turns(3);
    ck_assert_int_eq(p->reads, 1);
    close(fds[1]);
}
END_TEST

static int close_at_the_second_question(struct asyncore_dispatcher *d)
{
    if (++probe_of(d)->number == 2)
        asyncore_close(d);
    return 1;
}

static const struct asyncore_class closes_when_asked = {
    .name = "closes", .parent = &probe_class, .readable = close_at_the_second_question};

/* It is asked before the wait, and again before its handler. */
START_TEST(no_handler_follows_a_predicate_that_closes)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&closes_when_asked, "", fds[0]);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(p->number, 2);
    assert_notes("destroy");
    close(fds[1]);
}
END_TEST

static void add_told(TCase *tests)
{
    tcase_add_test(tests, an_error_of_a_reconnect_in_handle_close_is_told);
    tcase_add_test(tests, an_error_of_a_reconnect_in_handle_error_is_told);
    tcase_add_test(tests, a_handle_close_that_fails_is_not_called_again);
    tcase_add_test(tests, an_urgent_byte_that_nobody_handles_is_logged_once);
    tcase_add_test(tests, a_reset_reaches_who_wants_errors_and_urgent_bytes_alone);
    tcase_add_test(tests, a_failed_flush_is_told_where_readable_says_no);
    tcase_add_test(tests, a_log_function_may_close_the_channel_that_failed);
    tcase_add_test(tests, ready_is_kept_while_reading_is_stopped);
    tcase_add_test(tests, no_handler_follows_a_predicate_that_closes);
}

/* -- Channels that leave, move, and are refused -------------------------------------------------------------------- */

START_TEST(closing_a_removed_channel_spares_the_next_owner_of_its_descriptor)
{
    int fds[2];
    unix_pair(fds);
    struct probe *first = probe_on(&probe_class, "a", fds[0]);
    ck_assert_int_eq(asyncore_del_channel(&first->base), 0);
    asyncore_set_borrowed(&first->base);
    struct probe *next = probe_on(&probe_class, "b", fds[0]);
    ck_assert_int_eq(asyncore_close(&first->base), 0);
    peer_send(fds[1], "x", 1);
    run_until(next->bytes == 1);
    close(fds[1]);
    run_until(next->closes == 1);
}
END_TEST

START_TEST(a_channel_that_a_map_refused_can_be_closed)
{
    struct rlimit limit;
    int fds[2];
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    skip_unless(limit.rlim_cur > 2000, "no descriptor is too large for select");
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    unix_pair(fds);
    int large = fcntl(fds[0], F_DUPFD_CLOEXEC, 2000);
    ck_assert_int_ge(large, 2000);
    struct asyncore_map *any = second_map("poll"), *narrow = second_map("select");
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_dispatcher_init(&p->base, &probe_class, any), 0);
    ck_assert_int_eq(asyncore_set_socket(&p->base, large), 0);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    ck_assert_int_lt(asyncore_add_channel(&p->base, narrow), 0);
    ck_assert(is_open(large));
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert(!is_open(large));
    ck_assert_int_eq(asyncore_map_free(any), 0);
    ck_assert_int_eq(asyncore_map_free(narrow), 0);
    limit.rlim_cur = before;
    setrlimit(RLIMIT_NOFILE, &limit);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

START_TEST(a_channel_whose_socket_is_refused_leaves_no_timer)
{
    static const struct asyncore_class class_ = {.name = "refused"};
    static struct asyncore_dispatcher d;
    int fds[2];
    unix_pair(fds);
    probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, map), 0);
    ck_assert_int_eq(asyncore_set_idle_timeout(&d, 1), 0);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), -EEXIST);
    ck_assert(is_open(fds[0]));
    ck_assert_int_eq(d.fd, -1);
    ck_assert_int_eq((int)asyncore_next_timer(map), -1);
    memset(&d, 0x55, sizeof d); /* it is the caller's again */
    peer_send(fds[1], "x", 1);
    turns(3);
    assert_notes("read");
    close(fds[1]);
}
END_TEST

START_TEST(a_removed_channel_is_not_told_of_the_end_that_it_reads)
{
    int fds[2];
    char byte;
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    close(fds[1]);
    ck_assert_int_eq(asyncore_recv(&p->base, &byte, 1), 0);
    turns(3);
    assert_notes("");
    ck_assert_int_eq(asyncore_add_channel(&p->base, NULL), 0);
    turns(3);
    assert_notes("close destroy"); /* now */
}
END_TEST

START_TEST(an_end_that_was_read_before_a_channel_left_is_told_when_it_joins)
{
    int fds[2];
    char byte;
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    close(fds[1]);
    ck_assert_int_eq(asyncore_recv(&p->base, &byte, 1), 0);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    ck_assert_int_eq(asyncore_add_channel(&p->base, NULL), 0);
    turns(3);
    assert_notes("close destroy");
}
END_TEST

static struct asyncore_map *left_map, *joined_map;
static bool in_left_map;

static int move_at_the_first_line(struct asynchat *c)
{
    struct asyncore_dispatcher *d = &c->base.base;
    note("%s", in_left_map ? "left" : "joined");
    if (d->map == left_map) {
        ck_assert_int_eq(asyncore_del_channel(d), 0);
        ck_assert_int_eq(asyncore_add_channel(d, joined_map), 0);
    }
    return 0;
}

static const struct asynchat_class moves_class = {
    .base = {.name = "moves"}, .collect_incoming_data = collect_nothing, .found_terminator = move_at_the_first_line};

/* _i: whether the map that it joins has served a channel before. */
START_TEST(a_chat_that_moves_takes_the_lines_that_came_with_it_along)
{
    int fds[2], other[2] = {-1, -1};
    left_map = map;
    joined_map = second_map(NULL);
    unix_pair(fds);
    chat_on(&moves_class, "\n", fds[0]);
    if (_i == 1) {
        unix_pair(other);
        struct probe *p = probe_new(&probe_class, "");
        ck_assert_int_eq(asyncore_dispatcher_init(&p->base, &probe_class, joined_map), 0);
        ck_assert_int_eq(asyncore_set_socket(&p->base, other[0]), 0);
        peer_send(other[1], "x", 1);
        run_map_until(joined_map, p->bytes == 1);
        forget_notes();
    }
    peer_send(fds[1], "a\nb\nc\n", 6);
    in_left_map = true;
    turn();
    in_left_map = false;
    for (int i = 0; i < 5; i++)
        must(asyncore_poll(joined_map, 0) >= 0);
    assert_notes("left joined joined");
    ck_assert_int_eq(asyncore_fini(&chat.base.base), 0);
    ck_assert_int_eq(asyncore_map_free(joined_map), 0);
    close(fds[1]);
    if (_i == 1)
        close(other[1]);
}
END_TEST

START_TEST(a_channel_that_connects_cannot_be_removed)
{
    char port[8];
    int fillers[16], count, listener = full_listener(port, fillers, &count);
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&p->base, _i == 0 ? "127.0.0.1" : "localhost", port), 0);
    ck_assert_int_eq(asyncore_del_channel(&p->base), -EBUSY);
    turns(3);
    ck_assert_int_eq(asyncore_connecting(&p->base), 1);
    ck_assert_int_eq(asyncore_fini(&p->base), 0);
    while (count-- > 0)
        close(fillers[count]);
    close(listener);
}
END_TEST

static int fini_at_once(struct asyncore_dispatcher *d, int fd)
{
    (void)fd;
    note("%d", asyncore_fini(d) == -EBUSY);
    return 0;
}

static const struct asyncore_class finishes_early = {.name = "early", .handle_socket = fini_at_once};

START_TEST(fini_within_handle_socket_is_refused)
{
    struct probe *p = probe_new(&finishes_early, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    assert_notes("1");
    ck_assert_int_ge(p->base.fd, 0);
    ck_assert_int_eq(asyncore_fini(&p->base), 0);
}
END_TEST

static void no_signal(struct asyncore_signal *s, int number, void *arg)
{
    (void)s;
    (void)number;
    (void)arg;
}

START_TEST(the_descriptor_of_a_signal_is_closed_once)
{
    static struct asyncore_signal s;
    watched = os_linux;
    watched.close = watched_close;
    watch_kernel();
    ck_assert_int_eq(asyncore_signal_init(&s, map, SIGUSR1, no_signal, NULL), 0);
    int fd = s.base.fd;
    ck_assert_int_eq(asyncore_close(&s.base), 0);
    ck_assert(!is_open(fd));
    ck_assert_int_eq(bad_closes, 0);
}
END_TEST

static const struct asyncore_class file_class = {.name = "file"};

START_TEST(set_file_on_a_bad_descriptor_leaves_nothing)
{
    static struct asyncore_file_dispatcher f;
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &file_class, map), 0);
    ck_assert_int_eq(asyncore_set_idle_timeout(&f.base, 1), 0);
    ck_assert_int_eq(asyncore_set_file(&f, -1), -EBADF);
    ck_assert_int_eq(f.base.fd, -1);
    ck_assert_int_eq((int)asyncore_next_timer(map), -1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
}
END_TEST

START_TEST(set_file_whose_flags_cannot_be_set_leaves_nothing)
{
    static struct asyncore_file_dispatcher f;
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    watched = os_linux;
    watched.set_flags = refuse_flags;
    watch_kernel();
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &file_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f, ends[0]), -EPERM);
    ck_assert_int_eq(f.base.fd, -1);
    ck_assert(!is_open(ends[0]));
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    close(ends[1]);
}
END_TEST

static void add_moved(TCase *tests)
{
    tcase_add_test(tests, closing_a_removed_channel_spares_the_next_owner_of_its_descriptor);
    tcase_add_test(tests, a_channel_that_a_map_refused_can_be_closed);
    tcase_add_test(tests, a_channel_whose_socket_is_refused_leaves_no_timer);
    tcase_add_test(tests, a_removed_channel_is_not_told_of_the_end_that_it_reads);
    tcase_add_test(tests, an_end_that_was_read_before_a_channel_left_is_told_when_it_joins);
    tcase_add_loop_test(tests, a_chat_that_moves_takes_the_lines_that_came_with_it_along, 0, 2);
    tcase_add_loop_test(tests, a_channel_that_connects_cannot_be_removed, 0, 2);
    tcase_add_test(tests, fini_within_handle_socket_is_refused);
    tcase_add_test(tests, the_descriptor_of_a_signal_is_closed_once);
    tcase_add_test(tests, set_file_on_a_bad_descriptor_leaves_nothing);
    tcase_add_test(tests, set_file_whose_flags_cannot_be_set_leaves_nothing);
}

/* -- Chats --------------------------------------------------------------------------------------------------------- */

static int chat_error;

static int keep_error(struct asyncore_dispatcher *d, int error)
{
    chat_error = error;
    return asyncore_close(d);
}

static struct probe *neighbour;

static int read_the_neighbour(struct asynchat *c)
{
    const void *data;
    (void)c;
    ssize_t n = asyncore_recv_view(&neighbour->base, &data);
    note("|");
    ck_assert(n == 12 || n == -EAGAIN);
    return 0;
}

static const struct asynchat_class reads_another = {
    .base = {.name = "reader"}, .collect_incoming_data = collect_note, .found_terminator = read_the_neighbour};

START_TEST(found_terminator_may_read_another_channel)
{
    int fds[2], other[2];
    unix_pair(fds);
    unix_pair(other);
    chat_on(&reads_another, "\n", fds[0]);
    neighbour = probe_on(&probe_class, "", other[0]);
    ck_assert_int_eq(asyncore_want(&neighbour->base, 0), 0);
    peer_send(other[1], "XXXXXXXXXXXX", 12);
    peer_send(fds[1], "one\ntwo\nthree\n", 14);
    turn();
    assert_notes("one | two | three |");
    close(fds[1]);
    close(other[1]);
}
END_TEST

static int produced;

static ssize_t produce_new(struct asynchat_producer *p, const void **data)
{
    (void)p;
    *data = "NEW";
    return produced++ == 0 ? 3 : 0;
}

static struct asynchat_producer new_producer = {produce_new, NULL};

static ssize_t produce_old(struct asynchat_producer *p, const void **data)
{
    (void)p;
    asynchat_discard_buffers(&chat);
    ck_assert_int_eq(asynchat_push_with_producer(&chat, &new_producer), 0);
    *data = "OLD";
    return 3;
}

static struct asynchat_producer old_producer = {produce_old, NULL};

/* Memory of the queue that is freed and taken again at once has the same address: not under ASan. */
START_TEST(a_producer_that_is_replaced_within_more_sends_nothing)
{
    int fds[2];
    char text[8] = "";
    unix_pair(fds);
    chat_on(&plain_chat, "\n", fds[0]);
    ck_assert_int_eq(asynchat_push_with_producer(&chat, &old_producer), 0);
    turns(5);
    ck_assert_int_eq(asyncore_fini(&chat.base.base), 0);
    ck_assert_uint_eq(peer_recv(fds[1], text, sizeof text - 1), 3);
    ck_assert_str_eq(text, "NEW");
    close(fds[1]);
}
END_TEST

static char many[5000]; /* without a terminator: zeros */

static int discard_what_comes(struct asynchat *c, const void *data, size_t n)
{
    (void)data;
    (void)n;
    asynchat_discard_buffers(c);
    return 0;
}

static int find_nothing(struct asynchat *c)
{
    (void)c;
    return 0;
}

static const struct asynchat_class limited = {.base = {.name = "limited", .handle_error = keep_error},
                                              .collect_incoming_data = collect_nothing,
                                              .found_terminator = find_nothing};
static const struct asynchat_class discards = {.base = {.name = "discards", .handle_error = keep_error},
                                               .collect_incoming_data = discard_what_comes,
                                               .found_terminator = find_nothing};

START_TEST(a_limit_below_what_was_collected_is_a_limit)
{
    int fds[2];
    unix_pair(fds);
    chat_on(&limited, "\n", fds[0]);
    peer_send(fds[1], many, 1000);
    turn();
    ck_assert_int_eq(chat_error, 0);
    asynchat_set_limit(&chat, 100);
    peer_send(fds[1], many, 5000);
    turns(3);
    ck_assert_int_eq(chat_error, ASYNCHAT_ELIMIT);
    close(fds[1]);
}
END_TEST

START_TEST(what_was_discarded_does_not_count_for_the_limit)
{
    int fds[2];
    unix_pair(fds);
    chat_on(&discards, "\n", fds[0]);
    asynchat_set_limit(&chat, 100);
    for (int i = 0; i < 5; i++) {
        peer_send(fds[1], many, 60);
        turn();
    }
    ck_assert_int_eq(chat_error, 0);
    close(fds[1]);
}
END_TEST

static int lines_again(struct asynchat *c)
{
    note("found");
    return asynchat_set_terminator(c, "\n", 1);
}

static const struct asynchat_class blocks = {.base = {.name = "blocks", .handle_error = keep_error},
                                             .collect_incoming_data = collect_nothing,
                                             .found_terminator = lines_again};

START_TEST(the_limit_counts_anew_after_a_block)
{
    int fds[2];
    unix_pair(fds);
    chat_on(&blocks, "\n", fds[0]);
    asynchat_set_limit(&chat, 100);
    peer_send(fds[1], many, 60);
    turn();
    ck_assert_int_eq(asynchat_set_terminator_length(&chat, 10), 0);
    peer_send(fds[1], many, 10);
    turn();
    assert_notes("found");
    peer_send(fds[1], many, 100);
    turn();
    ck_assert_int_eq(chat_error, 0);
    peer_send(fds[1], many, 1);
    turn();
    ck_assert_int_eq(chat_error, ASYNCHAT_ELIMIT);
    close(fds[1]);
}
END_TEST

static int linger(struct asyncore_dispatcher *d)
{
    note("close");
    return notes()[5] == '\0' ? asyncore_shutdown(d, SHUT_WR) : asyncore_close(d);
}

static const struct asynchat_class lingers = {.base = {.name = "lingers", .handle_close = linger},
                                              .collect_incoming_data = collect_note};

/* _i: with late bytes before the peer's end */
START_TEST(a_chat_that_is_done_may_linger_until_its_peers_end)
{
    int fds[2];
    char text[4] = "";
    unix_pair(fds);
    chat_on(&lingers, "", fds[0]);
    ck_assert_int_eq(asynchat_push_text(&chat, "bye"), 0);
    ck_assert_int_eq(asynchat_close_when_done(&chat), 0);
    turns(5);
    ck_assert_str_eq(notes(), "close");
    ck_assert_int_ge(chat.base.base.fd, 0);
    ck_assert_uint_eq(peer_recv(fds[1], text, 4), 3); /* and the end */
    if (_i == 1)
        peer_send(fds[1], "late", 4);
    close(fds[1]);
    turns(5);
    assert_notes(_i == 1 ? "close late close" : "close close");
    ck_assert_int_eq(chat.base.base.fd, -1);
}
END_TEST

static ssize_t produce_nothing(struct asynchat_producer *p, const void **data)
{
    (void)p;
    (void)data;
    return 0;
}

static struct asynchat_producer empty_producer = {produce_nothing, NULL};

/* The kernel would keep corked data for 200 ms. */
START_TEST(data_before_a_producer_of_nothing_is_not_held_back)
{
    int fds[2], one = 1;
    tcp_pair(fds);
    ck_assert_int_eq(setsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), 0);
    chat_on(&plain_chat, "\n", fds[0]);
    ck_assert_int_eq(asynchat_push_text(&chat, "answer\r\n"), 0);
    ck_assert_int_eq(asynchat_push_with_producer(&chat, &empty_producer), 0);
    turn();
    ck_assert(readable_now(fds[1], 100));
    ck_assert_uint_eq(waiting_bytes(fds[1]), 8);
    close(fds[1]);
}
END_TEST

static void add_chats(TCase *tests)
{
    tcase_add_test(tests, found_terminator_may_read_another_channel);
    tcase_add_test(tests, a_producer_that_is_replaced_within_more_sends_nothing);
    tcase_add_test(tests, a_limit_below_what_was_collected_is_a_limit);
    tcase_add_test(tests, what_was_discarded_does_not_count_for_the_limit);
    tcase_add_test(tests, the_limit_counts_anew_after_a_block);
    tcase_add_loop_test(tests, a_chat_that_is_done_may_linger_until_its_peers_end, 0, 2);
    tcase_add_test(tests, data_before_a_producer_of_nothing_is_not_held_back);
}

int main(void)
{
    return run_suite("mended", add_ends, add_told, add_moved, add_chats, NULL);
}
