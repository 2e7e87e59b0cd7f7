/* test_timer.c: timers, calls from other threads, wake-ups, idle timeouts. */
#include "support.h"
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

/* -- When -- */

struct alarm {
    struct asyncore_timer timer;
    uint64_t due; /* ns: not before */
    int calls, number;
};

static void ring(struct asyncore_timer *timer, void *arg)
{
    struct alarm *a = (struct alarm *)timer;
    uint64_t now = clock_ns();
    ck_assert_msg(now >= a->due, "%llu ns early", (unsigned long long)(a->due - now));
    a->calls++;
    if (arg != NULL)
        note("%s", (const char *)arg);
}

static void set_alarm(struct alarm *a, uint64_t milliseconds, const char *word)
{
    a->due = clock_ns() + milliseconds * MS;
    ck_assert_int_eq(asyncore_call_later(map, &a->timer, milliseconds, ring, (void *)(uintptr_t)word), 0);
    ck_assert_int_eq(asyncore_pending(&a->timer), 1);
}

START_TEST(a_timer_is_never_early)
{
    static const unsigned delays[] = {0, 1, 2, 3, 7, 20, 51};
    struct alarm alarms[COUNT(delays)] = {{.calls = 0}};
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < COUNT(delays); i++)
            set_alarm(&alarms[i], delays[i], NULL);
        ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
        for (size_t i = 0; i < COUNT(delays); i++) {
            ck_assert_int_eq(alarms[i].calls, round + 1);
            ck_assert_int_eq(asyncore_pending(&alarms[i].timer), 0);
        }
    }
}
END_TEST

static void busy_then_ring(struct asyncore_timer *timer, void *arg)
{
    uint64_t begin = clock_ns();
    (void)timer;
    while (clock_ns() - begin < 5 * MS)
        ;
    set_alarm(arg, 10, NULL);
}

/* The clock is read once a turn: a timer must still count from the call. */
START_TEST(a_timer_set_late_in_a_turn_is_not_early)
{
    struct asyncore_timer first = {0};
    struct alarm second = {.calls = 0};
    ck_assert_int_eq(asyncore_call_later(map, &first, 0, busy_then_ring, &second), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(second.calls, 1);
}
END_TEST

START_TEST(a_timer_is_not_late_by_much)
{
    struct alarm a = {.calls = 0};
    skip_unless(!runs_slowly(), "not at this speed");
    set_alarm(&a, 30, NULL);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_uint_lt(clock_ns() - a.due, 500 * MS);
}
END_TEST

START_TEST(a_wait_makes_no_needless_turns_for_a_timer)
{
    struct alarm a = {.calls = 0};
    set_alarm(&a, 60, NULL);
    int turns = 0;
    while (a.calls == 0) {
        ck_assert_int_ge(asyncore_poll(map, -1), 0);
        turns++;
    }
    ck_assert_int_le(turns, 3);
}
END_TEST

START_TEST(timers_run_by_deadline_and_equal_ones_in_the_order_of_the_calls)
{
    struct alarm a = {.calls = 0}, b = a, c = a, d = a, e = a;
    uint64_t begin;
    do { /* again if that took so long that the deadlines are in another order */
        begin = clock_ns();
        set_alarm(&a, 30, "a");
        set_alarm(&b, 10, "b");
        set_alarm(&c, 0, "c");
        set_alarm(&d, 0, "d");
        set_alarm(&e, 20, "e");
        set_alarm(&c, 0, "c"); /* anew: now behind d */
    } while (clock_ns() - begin > 9 * MS);
    rest_ms(40);
    turn();
    assert_notes("d c b e a");
}
END_TEST

static void ring_simply(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    ++*(int *)arg;
}

/* Deadlines stay on the grid that the first call set, however late they are served. */
START_TEST(call_every_does_not_drift)
{
    struct asyncore_timer timer = {0};
    int calls = 0;
    ck_assert_int_eq(asyncore_call_every(map, &timer, 40, ring_simply, &calls), 0);
    uint64_t begin = clock_ns(), period = 40 * MS;
    for (int i = 0; i < 5; i++) {
        uint64_t line = begin + ((clock_ns() - begin) / period + 1) * period;
        while (clock_ns() < line + period / 2) /* half a period late */
            rest_ms(1);
        turn();
        uint64_t now = clock_ns(), next = (uint64_t)asyncore_next_timer(map) * MS;
        line = begin + ((now - begin) / period + 1) * period;
        ck_assert_msg(now + next <= line + 3 * MS, "%llu us late", (unsigned long long)(now + next - line) / 1000);
    }
    ck_assert_int_ge(calls, 5);
    asyncore_cancel(&timer);
}
END_TEST

START_TEST(call_every_leaves_out_what_passed_unserved)
{
    struct asyncore_timer timer = {0};
    int calls = 0;
    ck_assert_int_eq(asyncore_call_every(map, &timer, 10, ring_simply, &calls), 0);
    rest_ms(95);
    uint64_t begin = clock_ns();
    for (int i = 0; i < 8; i++)
        turn();
    ck_assert_int_ge(calls, 1);
    ck_assert_int_le(calls, 2 + (int)((clock_ns() - begin) / (10 * MS)));
    asyncore_cancel(&timer);
}
END_TEST

static void add_when(TCase *tests)
{
    tcase_add_test(tests, a_timer_is_never_early);
    tcase_add_test(tests, a_timer_set_late_in_a_turn_is_not_early);
    tcase_add_test(tests, a_timer_is_not_late_by_much);
    tcase_add_test(tests, a_wait_makes_no_needless_turns_for_a_timer);
    tcase_add_test(tests, timers_run_by_deadline_and_equal_ones_in_the_order_of_the_calls);
    tcase_add_test(tests, call_every_does_not_drift);
    tcase_add_test(tests, call_every_leaves_out_what_passed_unserved);
}

/* -- Cancelled, set anew, freed -- */

START_TEST(a_cancelled_timer_does_not_run)
{
    struct alarm a = {.calls = 0}, b = a;
    asyncore_cancel(&a.timer); /* never set */
    ck_assert_int_eq(asyncore_pending(&a.timer), 0);
    set_alarm(&a, 0, "a");
    set_alarm(&b, 0, "b");
    asyncore_cancel(&a.timer);
    asyncore_cancel(&a.timer);
    ck_assert_int_eq(asyncore_pending(&a.timer), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    asyncore_cancel(&b.timer); /* it has run */
    assert_notes("b");
}
END_TEST

static void cancel_other(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    note("first");
    asyncore_cancel(arg);
}

START_TEST(a_due_timer_cancelled_by_the_one_before_does_not_run)
{
    struct asyncore_timer first = {0};
    struct alarm second = {.calls = 0};
    ck_assert_int_eq(asyncore_call_later(map, &first, 0, cancel_other, &second.timer), 0);
    set_alarm(&second, 0, "second");
    rest_ms(2);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("first");
}
END_TEST

static void cancel_itself(struct asyncore_timer *timer, void *arg)
{
    (void)arg;
    note("once");
    asyncore_cancel(timer);
}

START_TEST(a_repeating_timer_cancels_itself)
{
    struct asyncore_timer timer = {0};
    ck_assert_int_eq(asyncore_call_every(map, &timer, 1, cancel_itself, NULL), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("once");
}
END_TEST

static void set_again(struct asyncore_timer *timer, void *arg)
{
    int *left = arg;
    note("%d", *left);
    if (--*left > 0)
        ck_assert_int_eq(asyncore_call_later(map, timer, 1, set_again, left), 0);
}

START_TEST(a_timer_sets_itself_again)
{
    struct asyncore_timer timer = {0};
    int left = 3;
    ck_assert_int_eq(asyncore_call_later(map, &timer, 0, set_again, &left), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("3 2 1");
}
END_TEST

/* A program that asks for "at once" again and again must not keep the turn from ending. */
static void set_at_once(struct asyncore_timer *timer, void *arg)
{
    ++*(int *)arg;
    ck_assert_int_eq(asyncore_call_later(map, timer, 0, set_at_once, arg), 0);
}

START_TEST(a_timer_that_sets_itself_at_once_leaves_the_turn)
{
    struct asyncore_timer timer = {0};
    struct probe *p;
    int calls = 0, fds[2];
    unix_pair(fds);
    p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_call_later(map, &timer, 0, set_at_once, &calls), 0);
    peer_send(fds[1], "x", 1);
    turn();
    turn();
    ck_assert_int_ge(calls, 1);
    ck_assert_int_eq(p->reads, 1);
    asyncore_cancel(&timer);
    close(fds[1]);
}
END_TEST

START_TEST(a_pending_timer_is_set_anew)
{
    struct alarm a = {.calls = 0};
    set_alarm(&a, 0, "early");
    set_alarm(&a, 25, "late");
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("late");
    ck_assert_int_eq(a.calls, 1);
}
END_TEST

static void free_timer(struct asyncore_timer *timer, void *arg)
{
    (void)arg;
    note("free");
    asyncore_cancel(timer);
    free(timer);
}

START_TEST(a_timer_is_freed_in_its_callback)
{
    struct asyncore_timer *once = calloc(1, sizeof *once), *often = calloc(1, sizeof *often);
    ck_assert_int_eq(asyncore_call_later(map, once, 1, free_timer, NULL), 0);
    ck_assert_int_eq(asyncore_call_every(map, often, 1, free_timer, NULL), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("free free");
}
END_TEST

START_TEST(map_free_forgets_timers)
{
    static struct alarm a;
    set_alarm(&a, 0, "ring");
    use_map(NULL);
    memset(&a, 0xa5, sizeof a);
    run_for(5);
    assert_notes("");
}
END_TEST

static void add_changes(TCase *tests)
{
    tcase_add_test(tests, a_cancelled_timer_does_not_run);
    tcase_add_test(tests, a_due_timer_cancelled_by_the_one_before_does_not_run);
    tcase_add_test(tests, a_repeating_timer_cancels_itself);
    tcase_add_test(tests, a_timer_sets_itself_again);
    tcase_add_test(tests, a_timer_that_sets_itself_at_once_leaves_the_turn);
    tcase_add_test(tests, a_pending_timer_is_set_anew);
    tcase_add_test(tests, a_timer_is_freed_in_its_callback);
    tcase_add_test(tests, map_free_forgets_timers);
}

/* -- Many -- */

enum { MANY = 10000 };

static int *run_order;
static int run_count;

static void record(struct asyncore_timer *timer, void *arg)
{
    (void)arg;
    run_order[run_count++] = ((struct alarm *)timer)->number;
}

/* Sets, sets anew and cancels at random: which delay each timer has in the end, and when it was set last, or -1. */
static void set_many(struct alarm *alarms, int *delays, int *orders)
{
    uint32_t random = 12345;
    int order = 0;
    for (int i = 0; i < MANY; i++) {
        alarms[i].number = i;
        delays[i] = -1;
    }
    for (int step = 0; step < 3 * MANY; step++) {
        int i = (int)(random_next(&random) % MANY);
        if (random_next(&random) % 4 == 0) {
            asyncore_cancel(&alarms[i].timer);
            delays[i] = -1;
            continue;
        }
        delays[i] = (int)(random_next(&random) % 50);
        orders[i] = order++;
        must(asyncore_call_later(map, &alarms[i].timer, (uint64_t)delays[i], record, NULL) == 0);
    }
}

static void set_in_turn(struct asyncore_timer *timer, void *arg)
{
    void **args = arg;
    (void)timer;
    set_many(args[0], args[1], args[2]);
}

START_TEST(ten_thousand_random_timers_run_in_order)
{
    struct alarm *alarms = calloc(MANY, sizeof *alarms);
    struct asyncore_timer first = {0};
    int *delays = calloc(MANY, sizeof *delays), *orders = calloc(MANY, sizeof *orders), expected = 0;
    void *args[] = {alarms, delays, orders};
    run_order = calloc(MANY, sizeof *run_order);
    ck_assert_int_eq(asyncore_call_later(map, &first, 0, set_in_turn, args), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    for (int i = 0; i < MANY; i++) {
        expected += delays[i] >= 0;
        must(!asyncore_pending(&alarms[i].timer));
    }
    ck_assert_int_eq(run_count, expected);
    for (int i = 0; i < run_count; i++)
        must(delays[run_order[i]] >= 0);
    for (int i = 1; i < run_count; i++) {
        int before = run_order[i - 1], after = run_order[i];
        must(alarms[before].timer.deadline_ <= alarms[after].timer.deadline_);
        must(delays[before] != delays[after] || orders[before] < orders[after]);
    }
    free(alarms);
    free(delays);
    free(orders);
    free(run_order);
}
END_TEST

START_TEST(one_turn_runs_no_more_than_timers_per_turn)
{
    struct asyncore_map_options options = {.timers_per_turn = 10};
    struct asyncore_timer timers[35] = {{0}};
    int calls = 0, fds[2];
    use_map(&options);
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    for (size_t i = 0; i < COUNT(timers); i++)
        ck_assert_int_eq(asyncore_call_later(map, &timers[i], 0, ring_simply, &calls), 0);
    rest_ms(2);
    turn();
    ck_assert_int_eq(calls, 10);
    peer_send(fds[1], "x", 1);
    turn();
    ck_assert_int_eq(calls, 20);
    ck_assert_int_eq(p->reads, 1);
    turn();
    turn();
    ck_assert_int_eq(calls, 35);
    close(fds[1]);
}
END_TEST

static void add_many(TCase *tests)
{
    tcase_add_test(tests, ten_thousand_random_timers_run_in_order);
    tcase_add_test(tests, one_turn_runs_no_more_than_timers_per_turn);
}

/* -- From elsewhere -- */

enum { THREADS = 4, POSTS = 500 };

struct post {
    int thread, number;
};

static struct post posts[THREADS][POSTS];
static int posted_next[THREADS], posted_all;

static void take_post(void *arg)
{
    struct post *post = arg;
    must(post->number == posted_next[post->thread]);
    posted_next[post->thread]++;
    posted_all++;
}

static void *post_all(void *arg)
{
    struct post *mine = arg;
    for (int i = 0; i < POSTS; i++)
        if (asyncore_call_soon_threadsafe(map, take_post, &mine[i]) < 0)
            return arg;
    return NULL;
}

START_TEST(calls_of_several_threads_keep_each_threads_order)
{
    pthread_t threads[THREADS];
    void *failed;
    for (int i = 0; i < THREADS; i++) {
        for (int j = 0; j < POSTS; j++)
            posts[i][j] = (struct post){i, j};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, post_all, posts[i]), 0);
    }
    run_until(posted_all == THREADS * POSTS);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &failed);
        ck_assert_ptr_null(failed);
    }
    assert_idle_for(20);
    ck_assert_int_eq(posted_all, THREADS * POSTS);
}
END_TEST

static void note_word(void *arg)
{
    note("%s", (const char *)arg);
}

static void post_more(void *arg)
{
    note("%s", (const char *)arg);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_word, "later"), 0);
}

START_TEST(a_call_posted_by_a_call_runs_too)
{
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, post_more, "first"), 0);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_word, "second"), 0);
    assert_notes("");
    run_until(strstr(notes(), "later") != NULL);
    assert_notes("first second later");
}
END_TEST

static void close_channel(void *arg)
{
    asyncore_close(arg);
}

START_TEST(a_posted_call_may_close_channels)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, close_channel, &p->base), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("destroy");
    close(fds[1]);
}
END_TEST

static void *wake_later(void *arg)
{
    (void)arg;
    rest_ms(30);
    asyncore_wakeup(map);
    return NULL;
}

START_TEST(a_wake_up_of_another_thread_ends_the_wait)
{
    pthread_t thread;
    uint64_t begin = clock_ns();
    ck_assert_int_eq(pthread_create(&thread, NULL, wake_later, NULL), 0);
    ck_assert_int_ge(asyncore_poll(map, -1), 0);
    ck_assert_uint_ge(clock_ns() - begin, 29 * MS);
    pthread_join(thread, NULL);
    assert_idle_for(30);
}
END_TEST

START_TEST(a_wake_up_before_the_wait_ends_the_next_one)
{
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(asyncore_wakeup(map), 0);
    uint64_t begin = clock_ns();
    ck_assert_int_ge(asyncore_poll(map, 5000), 0);
    ck_assert_uint_lt(clock_ns() - begin, 4000 * MS);
    assert_idle_for(30);
}
END_TEST

static void wake_from_handler(int number)
{
    int saved = errno;
    (void)number;
    asyncore_wakeup(map);
    errno = saved;
}

static void *signal_later(void *arg)
{
    rest_ms(30);
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}

START_TEST(a_wake_up_of_a_signal_handler_ends_the_wait)
{
    struct sigaction action = {.sa_handler = wake_from_handler, .sa_flags = SA_RESTART};
    pthread_t thread, self = pthread_self();
    ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, signal_later, &self), 0);
    ck_assert_int_ge(asyncore_poll(map, -1), 0);
    pthread_join(thread, NULL);
    signal(SIGUSR1, SIG_DFL);
}
END_TEST

static void add_elsewhere(TCase *tests)
{
    tcase_add_test(tests, calls_of_several_threads_keep_each_threads_order);
    tcase_add_test(tests, a_call_posted_by_a_call_runs_too);
    tcase_add_test(tests, a_posted_call_may_close_channels);
    tcase_add_test(tests, a_wake_up_of_another_thread_ends_the_wait);
    tcase_add_test(tests, a_wake_up_before_the_wait_ends_the_next_one);
    tcase_add_test(tests, a_wake_up_of_a_signal_handler_ends_the_wait);
}

/* -- Idle timeouts -- */

START_TEST(a_channel_without_traffic_times_out)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    uint64_t begin = clock_ns();
    ck_assert_int_eq(asyncore_set_idle_timeout(&p->base, 40), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_uint_ge(clock_ns() - begin, 40 * MS);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -ETIMEDOUT);
    close(fds[1]);
}
END_TEST

START_TEST(traffic_in_either_direction_puts_the_timeout_off)
{
    int fds[2];
    skip_unless(!runs_slowly(), "not at this speed");
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_set_idle_timeout(&p->base, 200), 0);
    for (int i = 0; i < 8; i++) {
        if (_i == 0)
            peer_send(fds[1], "x", 1);
        else
            ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), 1);
        run_for(50);
        ck_assert_int_eq(p->errors, 0);
    }
    run_until(p->errors == 1);
    close(fds[1]);
}
END_TEST

START_TEST(an_idle_timeout_can_be_taken_back)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_set_idle_timeout(&p->base, 20), 0);
    ck_assert_int_eq(asyncore_set_idle_timeout(&p->base, 0), 0);
    assert_idle_for(60);
    assert_notes("");
    close(fds[1]);
}
END_TEST

START_TEST(a_closed_channel_does_not_time_out)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_set_idle_timeout(&p->base, 20), 0);
    if (_i == 0)
        asyncore_close(&p->base);
    else
        ck_assert_int_eq(asyncore_fini(&p->base), 0);
    run_for(60);
    assert_notes(_i == 0 ? "destroy" : "");
    close(fds[1]);
}
END_TEST

START_TEST(a_timeout_that_handle_error_survives_leaves_the_channel_at_work)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    p->stays = true;
    ck_assert_int_eq(asyncore_set_idle_timeout(&p->base, 20), 0);
    run_until(p->errors >= 1);
    asyncore_set_idle_timeout(&p->base, 0);
    peer_send(fds[1], "x", 1);
    run_until(p->bytes == 1);
    ck_assert_int_eq(p->closes, 0);
    close(fds[1]);
}
END_TEST

static void add_idle(TCase *tests)
{
    tcase_add_test(tests, a_channel_without_traffic_times_out);
    tcase_add_loop_test(tests, traffic_in_either_direction_puts_the_timeout_off, 0, 2);
    tcase_add_test(tests, an_idle_timeout_can_be_taken_back);
    tcase_add_loop_test(tests, a_closed_channel_does_not_time_out, 0, 2);
    tcase_add_test(tests, a_timeout_that_handle_error_survives_leaves_the_channel_at_work);
}

int main(void)
{
    return run_suite("timer", add_when, add_changes, add_many, add_elsewhere, add_idle, NULL);
}
