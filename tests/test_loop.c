/* test_loop.c: how long a loop runs, who may enter a map, what fork leaves, maps inside other loops, engines. */
#include "support.h"
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

static void ring(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    note("%s", (const char *)arg);
}

static void set_timer(struct asyncore_timer *timer, unsigned milliseconds, const char *word)
{
    memset(timer, 0, sizeof *timer);
    ck_assert_int_eq(asyncore_call_later(map, timer, milliseconds, ring, (void *)(uintptr_t)word), 0);
}

static void stop_it(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    (void)arg;
    ck_assert_int_eq(asyncore_stop(map), 0);
}

/* -- What keeps a loop running -- */

START_TEST(a_loop_without_anything_returns_at_once)
{
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(p->base.fd, -1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(asyncore_poll(map, 0), 0);
}
END_TEST

START_TEST(a_foreground_channel_keeps_the_loop_until_it_is_closed)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_loop(map, 5, 3), 1);
    close(peer);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(p->destroys, 1);
}
END_TEST

START_TEST(a_background_channel_does_not_keep_the_loop)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    asyncore_set_background(&p->base, 1);
    asyncore_set_background(&p->base, 1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    asyncore_set_background(&p->base, 0);
    ck_assert_int_eq(asyncore_loop(map, 1, 2), 1);
    asyncore_set_background(&p->base, 1);
    asyncore_close(&p->base);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    close(peer);
}
END_TEST

START_TEST(a_channel_is_put_into_the_background_before_it_has_a_socket)
{
    int fds[2];
    struct probe *p = probe_new(&probe_class, "");
    unix_pair(fds);
    asyncore_set_background(&p->base, 1);
    ck_assert_int_eq(asyncore_set_socket(&p->base, fds[0]), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    close(fds[1]);
}
END_TEST

START_TEST(a_deleted_channel_does_not_keep_the_loop)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(asyncore_fini(&p->base), 0);
    close(peer);
}
END_TEST

START_TEST(a_timer_keeps_the_loop_until_it_ran_or_is_cancelled)
{
    struct asyncore_timer timer, other;
    set_timer(&timer, 15, "ring");
    set_timer(&other, 60000, "never");
    asyncore_cancel(&other);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("ring");
}
END_TEST

START_TEST(a_background_timer_does_not_keep_the_loop)
{
    struct asyncore_timer timer, other;
    set_timer(&timer, 60000, "never");
    asyncore_timer_set_background(&timer, 1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    set_timer(&other, 20, "front");
    ck_assert_int_eq(asyncore_call_later(map, &timer, 5, ring, "back"), 0); /* and stays there when set anew */
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("back front");
    ck_assert_int_eq(asyncore_call_later(map, &timer, 5, ring, "front"), 0);
    asyncore_timer_set_background(&timer, 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("front");
}
END_TEST

static void looked_up(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses, size_t count,
                      void *arg)
{
    (void)lookup;
    (void)addresses;
    (void)arg;
    note("%d-%zu", error, count);
}

START_TEST(a_lookup_keeps_the_loop_until_it_is_told)
{
    struct asyncore_lookup lookup = {0};
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "127.0.0.1", "1", AF_UNSPEC, looked_up, NULL), 0);
    assert_notes("");
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("0-1");
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "127.0.0.1", "1", AF_UNSPEC, looked_up, NULL), 0);
    asyncore_resolve_cancel(&lookup);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("");
}
END_TEST

static void note_word(void *arg)
{
    note("%s", (const char *)arg);
}

START_TEST(a_posted_call_runs_before_the_loop_returns)
{
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_word, "posted"), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("posted");
}
END_TEST

START_TEST(an_accept_pause_and_an_idle_timeout_keep_nothing)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    asyncore_set_background(&p->base, 1);
    asyncore_set_idle_timeout(&p->base, 10000);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    close(peer);
}
END_TEST

START_TEST(a_channel_closed_before_the_loop_is_destroyed_by_it)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    asyncore_close(&p->base);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("destroy");
    close(peer);
}
END_TEST

static void add_alive(TCase *tests)
{
    tcase_add_test(tests, a_loop_without_anything_returns_at_once);
    tcase_add_test(tests, a_foreground_channel_keeps_the_loop_until_it_is_closed);
    tcase_add_test(tests, a_background_channel_does_not_keep_the_loop);
    tcase_add_test(tests, a_channel_is_put_into_the_background_before_it_has_a_socket);
    tcase_add_test(tests, a_deleted_channel_does_not_keep_the_loop);
    tcase_add_test(tests, a_timer_keeps_the_loop_until_it_ran_or_is_cancelled);
    tcase_add_test(tests, a_background_timer_does_not_keep_the_loop);
    tcase_add_test(tests, a_lookup_keeps_the_loop_until_it_is_told);
    tcase_add_test(tests, a_posted_call_runs_before_the_loop_returns);
    tcase_add_test(tests, an_accept_pause_and_an_idle_timeout_keep_nothing);
    tcase_add_test(tests, a_channel_closed_before_the_loop_is_destroyed_by_it);
}

/* -- Turns -- */

static int count_turn(struct asyncore_dispatcher *d)
{
    probe_of(d)->number++;
    return 1;
}

static const struct asyncore_class counting_class = {
    .name = "counting",
    .parent = &probe_class,
    .readable = count_turn,
};

START_TEST(count_and_timeout_bound_a_loop)
{
    int peer;
    struct probe *p = probe_with_peer(&counting_class, &peer);
    uint64_t begin = clock_ns();
    ck_assert_int_eq(asyncore_loop(map, 10, 3), 1);
    ck_assert_uint_ge(clock_ns() - begin, 27 * MS); /* the kernel rounds waits up, the clock may be read in between */
    ck_assert_int_eq(p->number, 3);
    ck_assert_int_eq(asyncore_loop(map, 0, 5), 1);
    ck_assert_int_eq(p->number, 8);
    close(peer);
}
END_TEST

START_TEST(an_idle_loop_makes_no_turns)
{
    int peer;
    struct asyncore_timer timer = {0};
    struct probe *p = probe_with_peer(&counting_class, &peer);
    ck_assert_int_eq(asyncore_call_later(map, &timer, 200, stop_it, NULL), 0);
    uint64_t cpu = cpu_ns();
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 1);
    cpu = cpu_ns() - cpu;
    ck_assert_int_le(p->number, 3);
    if (!runs_slowly())
        ck_assert_uint_lt(cpu, 50 * MS);
    close(peer);
}
END_TEST

START_TEST(poll_is_one_turn_and_tells_how_many_events_it_served)
{
    int peers[3];
    for (int i = 0; i < 3; i++)
        probe_with_peer(&probe_class, &peers[i]);
    ck_assert_int_eq(asyncore_poll(map, 0), 0);
    peer_send(peers[0], "x", 1);
    peer_send(peers[2], "x", 1);
    ck_assert_int_eq(asyncore_poll(map, -1), 2);
    ck_assert_int_eq(asyncore_poll(map, 0), 0);
    for (int i = 0; i < 3; i++)
        close(peers[i]);
}
END_TEST

START_TEST(stop_before_a_loop_ends_it_at_once_and_only_that_one)
{
    int peer;
    struct probe *p = probe_with_peer(&counting_class, &peer);
    ck_assert_int_eq(asyncore_stop(map), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 1);
    ck_assert_int_eq(p->number, 0);
    ck_assert_int_eq(asyncore_loop(map, 1, 2), 1);
    ck_assert_int_eq(p->number, 2);
    close(peer);
}
END_TEST

static int read_and_stop(struct asyncore_dispatcher *d)
{
    char byte;
    note("read");
    ck_assert_int_eq(asyncore_stop(map), 0);
    return (int)asyncore_recv(d, &byte, 1);
}

static const struct asyncore_class stopping_class = {
    .name = "stopping",
    .parent = &probe_class,
    .handle_read = read_and_stop,
};

START_TEST(stop_within_a_turn_finishes_the_turn)
{
    int peers[2];
    struct asyncore_timer timer;
    for (int i = 0; i < 2; i++) {
        probe_with_peer(&stopping_class, &peers[i]);
        peer_send(peers[i], "xy", 2);
    }
    set_timer(&timer, 0, "timer");
    rest_ms(2);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 1);
    assert_notes("read read timer");
    close(peers[0]);
    close(peers[1]);
}
END_TEST

static void stop_map(void *arg)
{
    (void)arg;
    ck_assert_int_eq(asyncore_stop(map), 0);
}

static void *stop_from_thread(void *arg)
{
    (void)arg;
    rest_ms(20);
    asyncore_call_soon_threadsafe(map, stop_map, NULL);
    return NULL;
}

START_TEST(a_posted_stop_ends_a_waiting_loop)
{
    pthread_t thread;
    int peer;
    probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(pthread_create(&thread, NULL, stop_from_thread, NULL), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 1);
    pthread_join(thread, NULL);
    close(peer);
}
END_TEST

static int compare_now(struct asyncore_dispatcher *d)
{
    char byte;
    uint64_t now = asyncore_now(map);
    ck_assert_uint_le(now, clock_ns());
    ck_assert_uint_gt(now + 1000 * MS, clock_ns());
    rest_ms(5);
    note("%s", asyncore_now(map) == now ? "same" : "other");
    return (int)asyncore_recv(d, &byte, 1);
}

static const struct asyncore_class now_class = {
    .name = "now",
    .parent = &probe_class,
    .handle_read = compare_now,
};

START_TEST(now_is_read_once_a_turn)
{
    int peer;
    probe_with_peer(&now_class, &peer);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("same");
    uint64_t before = clock_ns();
    ck_assert_uint_ge(asyncore_now(map), before);
    close(peer);
}
END_TEST

static void add_turns(TCase *tests)
{
    tcase_add_test(tests, count_and_timeout_bound_a_loop);
    tcase_add_test(tests, an_idle_loop_makes_no_turns);
    tcase_add_test(tests, poll_is_one_turn_and_tells_how_many_events_it_served);
    tcase_add_test(tests, stop_before_a_loop_ends_it_at_once_and_only_that_one);
    tcase_add_test(tests, stop_within_a_turn_finishes_the_turn);
    tcase_add_test(tests, a_posted_stop_ends_a_waiting_loop);
    tcase_add_test(tests, now_is_read_once_a_turn);
}

/* -- Who may enter -- */

static void assert_busy(void)
{
    ck_assert_int_eq(asyncore_loop(map, 0, 1), -EBUSY);
    ck_assert_int_eq(asyncore_poll(map, 0), -EBUSY);
    ck_assert_int_eq(asyncore_map_free(map), -EBUSY);
}

static int nest_in_read(struct asyncore_dispatcher *d)
{
    char byte;
    assert_busy();
    note("read");
    return (int)asyncore_recv(d, &byte, 1);
}

static void nest_in_timer(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    (void)arg;
    assert_busy();
    note("timer");
}

static void nest_in_destroy(struct asyncore_dispatcher *d)
{
    (void)d;
    assert_busy();
    note("destroy");
}

static void nest_in_call(void *arg)
{
    (void)arg;
    assert_busy();
    note("call");
}

static const struct asyncore_class nesting_class = {
    .name = "nesting",
    .parent = &probe_class,
    .handle_read = nest_in_read,
    .destroy = nest_in_destroy,
};

START_TEST(a_nested_turn_is_busy)
{
    int peer;
    struct asyncore_timer timer = {0};
    struct probe *p = probe_with_peer(&nesting_class, &peer);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("read");
    ck_assert_int_eq(asyncore_call_later(map, &timer, 0, nest_in_timer, NULL), 0);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, nest_in_call, NULL), 0);
    run_until(strstr(notes(), "timer") != NULL && strstr(notes(), "call") != NULL);
    forget_notes();
    asyncore_close(&p->base);
    turn();
    assert_notes("destroy");
    close(peer);
}
END_TEST

START_TEST(another_map_may_be_served_in_a_handler)
{
    struct asyncore_map *second;
    struct asyncore_timer timer = {0}, inner = {0};
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    ck_assert_int_eq(asyncore_call_later(second, &inner, 0, ring, "inner"), 0);
    ck_assert_int_eq(asyncore_call_later(map, &timer, 0, ring, "outer"), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(asyncore_loop(second, -1, 0), 0);
    assert_notes("outer inner");
    ck_assert_int_eq(asyncore_map_free(second), 0);
}
END_TEST

struct visit {
    struct asyncore_map *map;
    int loop, poll, init, later;
    uint64_t now;
};

static const struct asyncore_class plain_class = {.name = "plain"};

static void *visit_map(void *arg)
{
    struct visit *visit = arg;
    struct asyncore_dispatcher d;
    static struct asyncore_timer timer;
    visit->loop = asyncore_loop(visit->map, 0, 1);
    visit->poll = asyncore_poll(visit->map, 0);
    visit->init = asyncore_dispatcher_init(&d, &plain_class, visit->map);
    if (visit->map != NULL)
        return NULL;
    visit->later = asyncore_call_later(NULL, &timer, 0, ring, "never");
    visit->now = asyncore_now(NULL);
    return NULL;
}

static struct visit visit_from_thread(struct asyncore_map *visited)
{
    struct visit visit = {.map = visited};
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, visit_map, &visit), 0);
    pthread_join(thread, NULL);
    return visit;
}

START_TEST(the_default_map_belongs_to_its_first_thread)
{
    struct asyncore_timer timer = {0};
    ck_assert_int_eq(asyncore_call_later(NULL, &timer, 0, ring, "mine"), 0);
    struct visit visit = visit_from_thread(NULL);
    ck_assert_int_eq(visit.loop, -EPERM);
    ck_assert_int_eq(visit.poll, -EPERM);
    ck_assert_int_eq(visit.init, -EPERM);
    ck_assert_int_eq(visit.later, -EPERM);
    ck_assert_uint_eq(visit.now, 0);
    ck_assert_int_eq(asyncore_loop(NULL, -1, 0), 0);
    assert_notes("mine");
    ck_assert_int_eq(asyncore_map_free(NULL), 0);
    ck_assert_int_eq(asyncore_map_free(NULL), 0);
    ck_assert_int_eq(asyncore_poll(NULL, 0), 0); /* a new one */
    ck_assert_int_eq(asyncore_map_free(NULL), 0);
}
END_TEST

START_TEST(null_is_the_default_map_everywhere)
{
    int fds[2];
    struct asyncore_dispatcher d;
    unix_pair(fds);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &plain_class, NULL), 0);
    ck_assert_ptr_nonnull(d.map);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0);
    ck_assert_str_eq(asyncore_map_engine(NULL), asyncore_map_engine(d.map));
    ck_assert_int_eq(asyncore_wakeup(NULL), 0);
    ck_assert_int_eq(asyncore_close_all(NULL), 0);
    ck_assert_int_eq(asyncore_loop(NULL, -1, 0), 0);
    ck_assert_int_eq(asyncore_fini(&d), 0);
    ck_assert_int_eq(asyncore_map_free(NULL), 0);
    close(fds[1]);
}
END_TEST

static int visit_in_read(struct asyncore_dispatcher *d)
{
    char byte;
    struct visit visit = visit_from_thread(map);
    ck_assert_int_eq(visit.loop, -EBUSY);
    ck_assert_int_eq(visit.poll, -EBUSY);
    ck_assert_int_lt(visit.init, 0);
    note("visited");
    return (int)asyncore_recv(d, &byte, 1);
}

static const struct asyncore_class visited_class = {
    .name = "visited",
    .parent = &probe_class,
    .handle_read = visit_in_read,
};

START_TEST(a_map_in_a_turn_is_busy_for_other_threads)
{
    int peer;
    probe_with_peer(&visited_class, &peer);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("visited");
    close(peer);
}
END_TEST

static void *serve_map(void *arg)
{
    *(int *)arg = asyncore_poll(map, 0);
    return NULL;
}

START_TEST(a_map_moves_to_another_thread_between_turns)
{
    pthread_t thread;
    int peer, result = -1;
    probe_with_peer(&probe_class, &peer);
    turn();
    peer_send(peer, "x", 1);
    ck_assert_int_eq(pthread_create(&thread, NULL, serve_map, &result), 0);
    pthread_join(thread, NULL);
    ck_assert_int_eq(result, 1);
    assert_notes("read");
    peer_send(peer, "x", 1);
    turn();
    assert_notes("read");
    close(peer);
}
END_TEST

static void add_entry(TCase *tests)
{
    tcase_add_test(tests, a_nested_turn_is_busy);
    tcase_add_test(tests, another_map_may_be_served_in_a_handler);
    tcase_add_test(tests, the_default_map_belongs_to_its_first_thread);
    tcase_add_test(tests, null_is_the_default_map_everywhere);
    tcase_add_test(tests, a_map_in_a_turn_is_busy_for_other_threads);
    tcase_add_test(tests, a_map_moves_to_another_thread_between_turns);
}

/* -- Fork -- */

/* Runs `child` in a child process: 0, or the number of the line that found something wrong. */
static int in_child(int (*child)(void *arg), void *arg)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        leave_child(child(arg));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status), "the child ended with signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* Notes what was not refused. */
static void expect_refusal(const char *what, int result)
{
    if (result != -ECHILD)
        note("%s=%d", what, result);
}

#define refused(call) expect_refusal(#call, (int)(call))

static void try_map(void)
{
    struct asyncore_dispatcher d;
    static struct asyncore_timer timer;
    static struct asyncore_lookup lookup;
    refused(asyncore_loop(map, 0, 1));
    refused(asyncore_poll(map, 0));
    refused(asyncore_stop(map));
    refused(asyncore_close_all(map));
    refused(asyncore_map_fd(map));
    refused(asyncore_set_log(map, asyncore_log_stderr, NULL));
    refused(asyncore_dispatcher_init(&d, &plain_class, map));
    refused(asyncore_call_later(map, &timer, 0, ring, NULL));
    refused(asyncore_call_every(map, &timer, 1, ring, NULL));
    refused(asyncore_call_soon_threadsafe(map, note_word, NULL));
    refused(asyncore_wakeup(map));
    refused(asyncore_resolve(map, &lookup, "127.0.0.1", "1", AF_UNSPEC, looked_up, NULL));
    refused(asyncore_run_timers(map));
    refused(asyncore_map_free(map));
}

static void try_watches(void)
{
    struct asyncore_event events[4];
    refused(asyncore_watch_add(map, 0, ASYNCORE_READ, NULL));
    refused(asyncore_watch_want(map, 0, 0));
    refused(asyncore_watch_del(map, 0));
    refused(asyncore_watch_check(map, 0));
    refused(asyncore_map_wait(map, 0, events, 4));
}

static void try_channel(struct asyncore_dispatcher *d)
{
    char byte;
    const void *view;
    refused(asyncore_send(d, "x", 1));
    refused(asyncore_recv(d, &byte, 1));
    refused(asyncore_recv_view(d, &view));
    refused(asyncore_want(d, 0));
    refused(asyncore_ready(d));
    refused(asyncore_set_idle_timeout(d, 10));
    refused(asyncore_shutdown(d, SHUT_RDWR));
    refused(asyncore_del_channel(d));
    refused(asyncore_close(d));
    refused(asyncore_fini(d));
}

static int try_everything(void *arg)
{
    struct probe *p = arg;
    if (p->number == 0)
        try_map();
    else if (p->number == 1)
        try_watches();
    else
        try_channel(&p->base);
    if (notes()[0] != '\0')
        fprintf(stderr, "not refused in a child: %s\n", notes());
    return notes()[0] != '\0';
}

START_TEST(everything_is_refused_in_a_child_and_the_parent_loses_nothing)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    p->number = _i; /* map, watches, channel */
    turn();
    int result = in_child(try_everything, p);
    peer_send(peer, "x", 1);
    run_until(p->bytes == 1);
    assert_notes("read");
    ck_assert(!readable_now(peer, 0));
    ck_assert_int_eq(result, 0);
    close(peer);
}
END_TEST

#define expect(condition) \
    do { \
        if (!(condition)) \
            return __LINE__ % 255 + 1; \
    } while (0)

struct forked {
    struct probe *channel;
    struct asyncore_timer timer;
    int peer;
};

static int served_in_child(void *arg)
{
    struct forked *f = arg;
    expect(asyncore_poll(map, 0) == -ECHILD);
    expect(asyncore_after_fork(map) == 0);
    expect(asyncore_after_fork(map) == 0);
    expect(write(f->peer, "child", 5) == 5);
    for (int i = 0; i < 200 && (f->channel->bytes < 5 || asyncore_pending(&f->timer)); i++)
        expect(asyncore_poll(map, 10) >= 0);
    expect(f->channel->bytes == 5);
    expect(strstr(notes(), "ring") != NULL);
    expect(asyncore_call_soon_threadsafe(map, note_word, "posted") == 0);
    expect(asyncore_poll(map, 1000) >= 0);
    expect(strstr(notes(), "posted") != NULL);
    expect(asyncore_close(&f->channel->base) == 0);
    expect(asyncore_map_free(map) == 0);
    return 0;
}

START_TEST(after_fork_makes_the_child_work_and_the_parent_loses_nothing)
{
    struct forked f;
    f.channel = probe_with_peer(&probe_class, &f.peer);
    turn(); /* before the timer is set: it may not ring here, however slow the machine */
    set_timer(&f.timer, 20, "ring");
    ck_assert_int_eq(in_child(served_in_child, &f), 0);
    assert_notes("");
    peer_send(f.peer, "parent", 6);
    run_until(f.channel->bytes == 6 && !asyncore_pending(&f.timer));
    ck_assert_int_eq(f.channel->closes, 0);
    close(f.peer);
}
END_TEST

static int fork_in_read(struct asyncore_dispatcher *d);

static const struct asyncore_class forking_class = {
    .name = "forking",
    .parent = &probe_class,
    .handle_read = fork_in_read,
};

static int nothing_but_refusals(void *arg)
{
    struct asyncore_dispatcher *d = arg;
    return asyncore_close(d) == -ECHILD ? 0 : 1;
}

static int fork_in_read(struct asyncore_dispatcher *d)
{
    ck_assert_int_eq(in_child(nothing_but_refusals, d), 0);
    return asyncore_super(d, &forking_class)->handle_read(d);
}

START_TEST(a_fork_in_a_handler_leaves_the_parent_as_it_was)
{
    int peer;
    struct probe *p = probe_with_peer(&forking_class, &peer);
    peer_send(peer, "x", 1);
    turn();
    ck_assert_uint_eq(p->bytes, 1);
    close(peer);
    run_until(p->destroys == 1);
}
END_TEST

static int lookup_in_child(void *arg)
{
    (void)arg;
    expect(asyncore_after_fork(map) == 0);
    for (int i = 0; i < 200 && notes()[0] == '\0'; i++)
        expect(asyncore_poll(map, 10) >= 0);
    char expected[32];
    snprintf(expected, sizeof expected, "%d-0", ASYNCORE_ENAMESERVER);
    expect(strcmp(notes(), expected) == 0);
    return 0;
}

START_TEST(lookups_in_flight_end_in_the_child)
{
    struct asyncore_lookup lookup = {0};
    struct asyncore_map_options options = {.name_servers = "127.0.0.1:9"};
    skip_unless(has_cares(), "built without c-ares");
    use_map(&options);
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "silent.test", "1", AF_INET, looked_up, NULL), 0);
    ck_assert_int_eq(in_child(lookup_in_child, NULL), 0);
    asyncore_resolve_cancel(&lookup);
    assert_notes("");
}
END_TEST

static void add_fork(TCase *tests)
{
    tcase_add_loop_test(tests, everything_is_refused_in_a_child_and_the_parent_loses_nothing, 0, 3);
    tcase_add_test(tests, after_fork_makes_the_child_work_and_the_parent_loses_nothing);
    tcase_add_test(tests, a_fork_in_a_handler_leaves_the_parent_as_it_was);
    tcase_add_test(tests, lookups_in_flight_end_in_the_child);
}

/* -- A map inside another loop -- */

static int outer_fd(void)
{
    int fd = asyncore_map_fd(map);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(asyncore_map_fd(map), fd);
    ck_assert(!readable_now(fd, 0));
    return fd;
}

START_TEST(select_and_poll_have_no_descriptor)
{
    skip_unless(!engine_is("epoll"), "the engine is epoll");
    ck_assert_int_eq(asyncore_map_fd(map), -ENOTSUP);
}
END_TEST

START_TEST(a_ready_channel_makes_the_descriptor_readable)
{
    int peer;
    skip_unless(engine_is("epoll"), "the engine has no descriptor");
    int fd = outer_fd();
    struct probe *p = probe_with_peer(&probe_class, &peer); /* added after it was asked for */
    ck_assert(!readable_now(fd, 20));
    for (int i = 0; i < 3; i++) {
        peer_send(peer, "x", 1);
        ck_assert(readable_now(fd, 1000));
        turn();
        ck_assert(!readable_now(fd, 0));
    }
    ck_assert_uint_eq(p->bytes, 3);
    close(peer);
}
END_TEST

START_TEST(what_is_wanted_between_turns_counts_for_the_descriptor)
{
    int peer;
    skip_unless(engine_is("epoll"), "the engine has no descriptor");
    struct probe *p = probe_with_peer(&probe_class, &peer);
    int fd = outer_fd();
    asyncore_want(&p->base, 0);
    peer_send(peer, "x", 1);
    ck_assert(!readable_now(fd, 20));
    asyncore_want(&p->base, ASYNCORE_READ);
    ck_assert(readable_now(fd, 1000));
    asyncore_close(&p->base);
    ck_assert(readable_now(fd, 1000)); /* there is something to destroy */
    turn();
    ck_assert(!readable_now(fd, 20));
    ck_assert_int_eq(p->destroys, 1);
    close(peer);
}
END_TEST

START_TEST(a_timer_makes_the_descriptor_readable_when_it_is_due)
{
    struct asyncore_timer timer, later;
    skip_unless(engine_is("epoll"), "the engine has no descriptor");
    int fd = outer_fd();
    set_timer(&later, 60000, "later");
    set_timer(&timer, 30, "ring");
    uint64_t begin = clock_ns();
    ck_assert(readable_now(fd, 5000));
    ck_assert_uint_ge(clock_ns() - begin, 25 * MS);
    run_until(!asyncore_pending(&timer));
    ck_assert(!readable_now(fd, 10));
    set_timer(&timer, 20, "ring");
    asyncore_cancel(&timer);
    if (readable_now(fd, 50)) /* once is no harm */
        turn();
    ck_assert(!readable_now(fd, 50));
    assert_notes("ring");
    asyncore_cancel(&later);
}
END_TEST

START_TEST(other_work_makes_the_descriptor_readable)
{
    int peer;
    struct asyncore_lookup lookup = {0};
    skip_unless(engine_is("epoll"), "the engine has no descriptor");
    struct probe *p = probe_with_peer(&probe_class, &peer);
    int fd = outer_fd();
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_word, "posted"), 0);
    ck_assert(readable_now(fd, 1000));
    turn();
    ck_assert(!readable_now(fd, 0));
    ck_assert_int_eq(asyncore_ready(&p->base), 0);
    ck_assert(readable_now(fd, 1000));
    turn();
    ck_assert(!readable_now(fd, 0));
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "127.0.0.1", "1", AF_UNSPEC, looked_up, NULL), 0);
    ck_assert(readable_now(fd, 1000));
    turn();
    ck_assert(!readable_now(fd, 0));
    assert_notes("posted read 0-1");
    close(peer);
}
END_TEST

static void add_embedding(TCase *tests)
{
    tcase_add_test(tests, select_and_poll_have_no_descriptor);
    tcase_add_test(tests, a_ready_channel_makes_the_descriptor_readable);
    tcase_add_test(tests, what_is_wanted_between_turns_counts_for_the_descriptor);
    tcase_add_test(tests, a_timer_makes_the_descriptor_readable_when_it_is_due);
    tcase_add_test(tests, other_work_makes_the_descriptor_readable);
}

/* -- Engines -- */

static const char *const engines[] = {"select", "poll", "epoll"};

START_TEST(the_engine_is_chosen_by_option_and_by_environment)
{
    for (size_t i = 0; i < COUNT(engines); i++) {
        struct asyncore_map_options options = {.engine = engines[i]};
        ck_assert_ptr_nonnull(strstr(asyncore_features(), engines[i]));
        setenv("ASYNCORE_ENGINE", engines[(i + 1) % COUNT(engines)], 1);
        use_map(&options);
        ck_assert_str_eq(asyncore_map_engine(map), engines[i]);
        use_map(NULL);
        ck_assert_str_eq(asyncore_map_engine(map), engines[(i + 1) % COUNT(engines)]);
    }
    unsetenv("ASYNCORE_ENGINE");
    use_map(NULL);
    ck_assert_str_eq(asyncore_map_engine(map), "epoll");
}
END_TEST

START_TEST(an_unknown_engine_is_refused)
{
    struct asyncore_map *none = NULL;
    struct asyncore_map_options options = {.engine = "kqueue"};
    ck_assert_int_eq(asyncore_map_new(&none, &options), -EINVAL);
    setenv("ASYNCORE_ENGINE", "devpoll", 1);
    ck_assert_int_eq(asyncore_map_new(&none, NULL), -EINVAL);
    ck_assert_ptr_null(none);
}
END_TEST

static bool allow_high_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max < 2100)
        return false;
    if (limit.rlim_cur >= 2100)
        return true;
    limit.rlim_cur = 2100;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

START_TEST(select_refuses_descriptors_past_fd_setsize)
{
    int fds[2];
    skip_unless(allow_high_descriptors(), "the limit of descriptors is too low");
    unix_pair(fds);
    ck_assert_int_eq(dup2(fds[0], 2000), 2000);
    close(fds[0]);
    struct probe *p = probe_new(&probe_class, "");
    int watched = asyncore_watch_add(map, 2000, ASYNCORE_READ, NULL);
    if (watched == 0)
        ck_assert_int_eq(asyncore_watch_del(map, 2000), 0);
    int result = asyncore_set_socket(&p->base, 2000);
    if (engine_is("select")) {
        ck_assert_int_lt(watched, 0);
        ck_assert_int_lt(result, 0);
        ck_assert(!is_open(2000));
        turn();
        assert_notes("destroy");
    } else {
        ck_assert_int_eq(watched, 0);
        ck_assert_int_eq(result, 0);
        peer_send(fds[1], "x", 1);
        run_until(p->bytes == 1);
    }
    close(fds[1]);
}
END_TEST

START_TEST(select_refuses_to_make_sockets_past_fd_setsize)
{
    skip_unless(allow_high_descriptors(), "the limit of descriptors is too low");
    skip_unless(engine_is("select"), "the engine has no such bound");
    static int fillers[FD_SETSIZE];
    int count = 0;
    while ((fillers[count] = dup(0)) < FD_SETSIZE - 1 && fillers[count] >= 0)
        count++;
    ck_assert_int_ge(fillers[count], 0);
    struct probe *p = probe_new(&probe_class, "");
    int before = count_descriptors();
    ck_assert_int_lt(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(count_descriptors(), before);
    for (int i = 0; i <= count; i++)
        close(fillers[i]);
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
}
END_TEST

START_TEST(no_channel_starves_while_others_are_always_ready)
{
    enum { BUSY = 20 };
    int peers[BUSY + 1];
    struct probe *busy[BUSY], *p;
    for (int i = 0; i < BUSY; i++) {
        busy[i] = probe_with_peer(&probe_class, &peers[i]);
        asyncore_want(&busy[i]->base, ASYNCORE_WRITE);
    }
    p = probe_with_peer(&probe_class, &peers[BUSY]);
    peer_send(peers[BUSY], "x", 1);
    for (int i = 0; i < 3; i++)
        turn();
    ck_assert_uint_eq(p->bytes, 1);
    for (int i = 0; i < BUSY; i++)
        ck_assert_int_ge(busy[i]->writes, 2);
    for (int i = 0; i <= BUSY; i++)
        close(peers[i]);
}
END_TEST

START_TEST(hundreds_of_channels_are_all_served)
{
    enum { MANY = 450 };
    static int peers[MANY];
    static struct probe *probes[MANY];
    for (int i = 0; i < MANY; i++) {
        probes[i] = probe_with_peer(&probe_class, &peers[i]);
        probes[i]->number = i;
    }
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < MANY; i++)
            peer_send(peers[i], "x", 1);
        for (int i = 0; i < MANY; i++)
            run_until(probes[i]->bytes == (size_t)round);
    }
    for (int i = 0; i < MANY; i += 2)
        close(peers[i]);
    for (int i = 0; i < MANY; i += 2)
        run_until(probes[i]->destroys == 1);
    for (int i = 1; i < MANY; i += 2) {
        ck_assert_int_eq(probes[i]->destroys, 0);
        close(peers[i]);
    }
}
END_TEST

static void add_engines(TCase *tests)
{
    tcase_add_test(tests, the_engine_is_chosen_by_option_and_by_environment);
    tcase_add_test(tests, an_unknown_engine_is_refused);
    tcase_add_test(tests, select_refuses_descriptors_past_fd_setsize);
    tcase_add_test(tests, select_refuses_to_make_sockets_past_fd_setsize);
    tcase_add_test(tests, no_channel_starves_while_others_are_always_ready);
    tcase_add_test(tests, hundreds_of_channels_are_all_served);
}

int main(void)
{
    return run_suite("loop", add_alive, add_turns, add_entry, add_fork, add_embedding, add_engines, NULL);
}
