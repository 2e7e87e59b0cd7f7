/* test_watch.c: bare watches, for hosts that have their own objects: what is ready, who owns it, and what happens when
 * descriptors go away behind the library's back. */
#include "support.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

static int owner_a, owner_b; /* their addresses */

static struct asyncore_event seen[16];

static int wait_map(int timeout)
{
    memset(seen, 0, sizeof seen);
    int count = asyncore_map_wait(map, timeout, seen, COUNT(seen));
    ck_assert_int_ge(count, 0);
    return count;
}

/* Neither an event, nor a wait that ends early again and again. */
static void assert_silent(void)
{
    uint64_t end = clock_ns() + 60 * MS;
    int waits = 0;
    for (uint64_t now = clock_ns(); now < end; now = clock_ns(), waits++)
        ck_assert_int_eq(wait_map((int)((end - now) / MS) + 1), 0);
    ck_assert_msg(waits <= 5, "%d waits in 60 ms", waits);
}

static void assert_one(int fd, unsigned events, void *owner)
{
    ck_assert_int_eq(wait_map(2000), 1);
    ck_assert_int_eq(seen[0].fd, fd);
    ck_assert_ptr_eq(seen[0].owner, owner);
    ck_assert_uint_eq(seen[0].events & (ASYNCORE_READ | ASYNCORE_WRITE), events);
}

static void new_pipe(int ends[2])
{
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
}

static void close_both(int fds[2])
{
    close(fds[0]);
    close(fds[1]);
}

/* -- The four calls -- */

START_TEST(a_watch_reports_owner_and_events)
{
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ | ASYNCORE_WRITE, &owner_a), 0);
    ck_assert_int_eq(asyncore_watch_add(map, fds[1], ASYNCORE_READ, &owner_b), 0);
    assert_one(fds[0], ASYNCORE_WRITE, &owner_a);
    ck_assert_int_eq(asyncore_watch_want(map, fds[0], ASYNCORE_READ), 0);
    assert_silent();
    peer_send(fds[0], "x", 1);
    assert_one(fds[1], ASYNCORE_READ, &owner_b);
    assert_one(fds[1], ASYNCORE_READ, &owner_b); /* level-triggered */
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    ck_assert_int_eq(asyncore_watch_del(map, fds[1]), 0);
    ck_assert_int_eq(wait_map(0), 0);
    close_both(fds);
}
END_TEST

START_TEST(faults_of_the_caller_are_told)
{
    int fds[2], channel[2];
    unix_pair(fds);
    unix_pair(channel);
    probe_on(&probe_class, "", channel[0]);
    ck_assert_int_eq(asyncore_watch_add(map, -1, ASYNCORE_READ, NULL), -EBADF);
    ck_assert_int_eq(asyncore_watch_want(map, fds[0], 0), -EBADF);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), -EBADF);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, NULL), 0);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, NULL), -EEXIST);
    ck_assert_int_eq(asyncore_watch_add(map, channel[0], ASYNCORE_READ, NULL), -EEXIST);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), -EBADF);
    close_both(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, NULL), -EBADF);
    close(channel[1]);
}
END_TEST

START_TEST(want_0_silences_a_watch_and_keeps_it)
{
    int ends[2];
    new_pipe(ends);
    ck_assert_int_eq(asyncore_watch_add(map, ends[0], 0, &owner_a), 0);
    close(ends[1]); /* a hang-up comes unasked, as long as the descriptor is in the kernel's set */
    assert_silent();
    ck_assert_int_eq(asyncore_watch_check(map, ends[0]), 1);
    ck_assert_int_eq(asyncore_watch_want(map, ends[0], ASYNCORE_READ), 0);
    ck_assert_int_eq(wait_map(2000), 1);
    ck_assert_uint_ne(seen[0].events & (ASYNCORE_READ | ASYNCORE_HANGUP), 0);
    ck_assert_int_eq(asyncore_watch_want(map, ends[0], 0), 0);
    assert_silent();
    ck_assert_int_eq(asyncore_watch_del(map, ends[0]), 0);
    close(ends[0]);
}
END_TEST

START_TEST(every_registration_has_another_serial)
{
    int fds[2];
    uint32_t serial;
    unix_pair(fds);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, &owner_a), 0);
    assert_one(fds[0], ASYNCORE_READ, &owner_a);
    serial = seen[0].serial;
    assert_one(fds[0], ASYNCORE_READ, &owner_a);
    ck_assert_uint_eq(seen[0].serial, serial);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, &owner_b), 0);
    assert_one(fds[0], ASYNCORE_READ, &owner_b);
    ck_assert_uint_ne(seen[0].serial, serial);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    close_both(fds);
}
END_TEST

START_TEST(a_small_array_starves_nobody)
{
    enum { MANY = 9 };
    int fds[MANY][2];
    unsigned reported = 0;
    for (int i = 0; i < MANY; i++) {
        unix_pair(fds[i]);
        ck_assert_int_eq(asyncore_watch_add(map, fds[i][0], ASYNCORE_WRITE, (void *)(uintptr_t)i), 0);
    }
    for (int i = 0; i < 4 * MANY; i++) {
        ck_assert_int_eq(asyncore_map_wait(map, 1000, seen, 2), 2);
        reported |= 1u << (uintptr_t)seen[0].owner | 1u << (uintptr_t)seen[1].owner;
    }
    ck_assert_uint_eq(reported, (1u << MANY) - 1);
    for (int i = 0; i < MANY; i++) {
        ck_assert_int_eq(asyncore_watch_del(map, fds[i][0]), 0);
        close_both(fds[i]);
    }
}
END_TEST

START_TEST(a_regular_file_is_always_ready)
{
    int fds[2], got = 0;
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    int fd = fileno(file);
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fd, ASYNCORE_READ | ASYNCORE_WRITE, &owner_a), 0);
    assert_one(fd, ASYNCORE_READ | ASYNCORE_WRITE, &owner_a);
    ck_assert_int_eq(asyncore_watch_want(map, fd, ASYNCORE_READ), 0);
    assert_one(fd, ASYNCORE_READ, &owner_a);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, &owner_b), 0);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(wait_map(-1), 2);
    for (int i = 0; i < 2; i++)
        got += seen[i].owner == &owner_b ? 10 : 1;
    ck_assert_int_eq(got, 11);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    ck_assert_int_eq(asyncore_watch_check(map, fd), 1);
    ck_assert_int_eq(asyncore_watch_want(map, fd, 0), 0);
    assert_silent();
    ck_assert_int_eq(asyncore_watch_want(map, fd, ASYNCORE_WRITE), 0);
    assert_one(fd, ASYNCORE_WRITE, &owner_a);
    ck_assert_int_eq(asyncore_watch_del(map, fd), 0);
    assert_silent();
    fclose(file);
    close_both(fds);
}
END_TEST

START_TEST(a_number_that_was_a_regular_files_is_waited_for_again)
{
    int fds[2];
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    int number = fileno(file);
    ck_assert_int_eq(asyncore_watch_add(map, number, ASYNCORE_READ, &owner_a), 0);
    assert_one(number, ASYNCORE_READ, &owner_a);
    ck_assert_int_eq(asyncore_watch_del(map, number), 0);
    fclose(file);
    unix_pair(fds);
    ck_assert_int_eq(fds[0], number);
    ck_assert_int_eq(asyncore_watch_add(map, number, ASYNCORE_READ, &owner_b), 0);
    assert_silent();
    peer_send(fds[1], "x", 1);
    assert_one(number, ASYNCORE_READ, &owner_b);
    ck_assert_int_eq(asyncore_watch_del(map, number), 0);
    close_both(fds);
}
END_TEST

START_TEST(loop_refuses_a_map_with_bare_watches)
{
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], 0, NULL), 0);
    ck_assert_int_eq(asyncore_loop(map, 0, 1), -EINVAL);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    ck_assert_int_eq(asyncore_loop(map, 0, 1), 0);
    close_both(fds);
}
END_TEST

START_TEST(channels_among_the_ready_are_served_by_poll)
{
    int fds[2], bare[2];
    unix_pair(fds);
    unix_pair(bare);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_watch_add(map, bare[0], ASYNCORE_READ, &owner_a), 0);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(wait_map(2000), 1);
    ck_assert_int_eq(seen[0].fd, fds[0]);
    assert_notes("");
    turn();
    assert_notes("read");
    ck_assert_uint_eq(p->bytes, 1);
    ck_assert_int_eq(asyncore_watch_del(map, bare[0]), 0);
    close_both(bare);
    close(fds[1]);
}
END_TEST

START_TEST(map_free_leaves_watched_descriptors_open)
{
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, NULL), 0);
    use_map(NULL);
    ck_assert(is_open(fds[0]));
    close_both(fds);
}
END_TEST

static void add_calls(TCase *tests)
{
    tcase_add_test(tests, a_watch_reports_owner_and_events);
    tcase_add_test(tests, faults_of_the_caller_are_told);
    tcase_add_test(tests, want_0_silences_a_watch_and_keeps_it);
    tcase_add_test(tests, every_registration_has_another_serial);
    tcase_add_test(tests, a_small_array_starves_nobody);
    tcase_add_test(tests, a_regular_file_is_always_ready);
    tcase_add_test(tests, a_number_that_was_a_regular_files_is_waited_for_again);
    tcase_add_test(tests, loop_refuses_a_map_with_bare_watches);
    tcase_add_test(tests, channels_among_the_ready_are_served_by_poll);
    tcase_add_test(tests, map_free_leaves_watched_descriptors_open);
}

/* -- Closed behind the library's back -- */

START_TEST(check_tells_a_closed_and_a_reused_descriptor)
{
    int fds[2], other[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], _i == 0 ? ASYNCORE_READ : 0, &owner_a), 0);
    ck_assert_int_eq(wait_map(0), 0);
    ck_assert_int_eq(asyncore_watch_check(map, fds[0]), 1);
    close(fds[0]);
    ck_assert_int_eq(asyncore_watch_check(map, fds[0]), 0);
    unix_pair(other);
    ck_assert_int_eq(dup2(other[0], fds[0]), fds[0]);
    ck_assert_int_eq(asyncore_watch_check(map, fds[0]), 0);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    ck_assert_int_eq(asyncore_watch_check(map, fds[0]), -EBADF);
    if (other[0] != fds[0])
        close(other[0]);
    close(other[1]);
    close_both(fds);
}
END_TEST

START_TEST(a_number_used_again_is_watched_anew)
{
    int fds[2], other[2];
    uint32_t serial;
    unix_pair(fds);
    int number = fds[0];
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(asyncore_watch_add(map, number, ASYNCORE_READ, &owner_a), 0);
    assert_one(number, ASYNCORE_READ, &owner_a);
    serial = seen[0].serial;
    close(number);
    unix_pair(other);
    ck_assert_int_eq(other[0], number);
    peer_send(other[1], "y", 1);
    ck_assert_int_eq(asyncore_watch_check(map, number), 0);
    ck_assert_int_eq(asyncore_watch_del(map, number), 0);
    ck_assert_int_eq(asyncore_watch_add(map, number, ASYNCORE_READ, &owner_b), 0);
    ck_assert_int_eq(asyncore_watch_check(map, number), 1);
    assert_one(number, ASYNCORE_READ, &owner_b);
    ck_assert_uint_ne(seen[0].serial, serial);
    ck_assert_int_eq(asyncore_watch_del(map, number), 0);
    close_both(other);
    close(fds[1]);
}
END_TEST

START_TEST(a_descriptor_closed_behind_the_back_does_not_spin)
{
    int fds[2], others[2];
    unix_pair(fds);
    unix_pair(others);
    ck_assert_int_eq(asyncore_watch_add(map, others[0], ASYNCORE_READ, &owner_b), 0);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, &owner_a), 0);
    ck_assert_int_eq(wait_map(0), 0);
    close(fds[0]);
    if (wait_map(0) == 1) /* select and poll notice; the host looks after it */
        ck_assert_ptr_eq(seen[0].owner, &owner_a);
    ck_assert_int_eq(asyncore_watch_check(map, fds[0]), 0);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    assert_silent();
    peer_send(others[1], "x", 1);
    assert_one(others[0], ASYNCORE_READ, &owner_b); /* the rest goes on */
    ck_assert_int_eq(asyncore_watch_del(map, others[0]), 0);
    close(fds[1]);
    close_both(others);
}
END_TEST

/* epoll keeps what was registered as long as any duplicate is open, and can then not be told to forget it. */
struct stale {
    int fds[2], copy, others[2];
};

static void set_stale(struct stale *s)
{
    unix_pair(s->fds);
    unix_pair(s->others);
    ck_assert_int_eq(asyncore_watch_add(map, s->others[0], ASYNCORE_READ, &owner_b), 0);
    ck_assert_int_eq(asyncore_watch_add(map, s->fds[0], ASYNCORE_READ, &owner_a), 0);
    ck_assert_int_eq(wait_map(0), 0);
    s->copy = dup(s->fds[0]);
    close(s->fds[0]);
}

static void clear_stale(struct stale *s)
{
    peer_send(s->others[1], "x", 1);
    assert_one(s->others[0], ASYNCORE_READ, &owner_b);
    ck_assert_int_eq(asyncore_watch_del(map, s->others[0]), 0);
    close(s->copy);
    close(s->fds[1]);
    close_both(s->others);
}

START_TEST(a_deleted_watch_with_an_open_duplicate_is_silent)
{
    struct stale s;
    set_stale(&s);
    ck_assert_int_eq(asyncore_watch_del(map, s.fds[0]), 0);
    peer_send(s.fds[1], "x", 1);
    assert_silent();
    clear_stale(&s);
}
END_TEST

START_TEST(a_duplicate_that_is_ready_before_the_watch_is_deleted_is_silent_afterwards)
{
    struct stale s;
    set_stale(&s);
    peer_send(s.fds[1], "x", 1);
    wait_map(0); /* it may still be reported: then its owner asks, and is told */
    ck_assert_int_eq(asyncore_watch_check(map, s.fds[0]), 0);
    ck_assert_int_eq(asyncore_watch_del(map, s.fds[0]), 0);
    assert_silent();
    clear_stale(&s);
}
END_TEST

START_TEST(a_stale_event_does_not_go_to_the_numbers_new_watch)
{
    struct stale s;
    int fresh[2];
    set_stale(&s);
    ck_assert_int_eq(asyncore_watch_del(map, s.fds[0]), 0);
    unix_pair(fresh);
    ck_assert_int_eq(fresh[0], s.fds[0]);
    ck_assert_int_eq(asyncore_watch_add(map, fresh[0], ASYNCORE_READ, &owner_a), 0);
    peer_send(s.fds[1], "x", 1);
    assert_silent();
    peer_send(fresh[1], "y", 1);
    assert_one(fresh[0], ASYNCORE_READ, &owner_a);
    ck_assert_int_eq(asyncore_watch_del(map, fresh[0]), 0);
    close_both(fresh);
    clear_stale(&s);
}
END_TEST

START_TEST(a_channel_closed_while_a_duplicate_is_open_is_silent)
{
    int fds[2];
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    turn();
    int copy = dup(fds[0]);
    asyncore_close(&p->base);
    peer_send(fds[1], "x", 1);
    assert_idle_for(50);
    assert_notes("destroy");
    close(copy);
    close(fds[1]);
}
END_TEST

static void add_behind(TCase *tests)
{
    tcase_add_loop_test(tests, check_tells_a_closed_and_a_reused_descriptor, 0, 2);
    tcase_add_test(tests, a_number_used_again_is_watched_anew);
    tcase_add_test(tests, a_descriptor_closed_behind_the_back_does_not_spin);
    tcase_add_test(tests, a_deleted_watch_with_an_open_duplicate_is_silent);
    tcase_add_test(tests, a_duplicate_that_is_ready_before_the_watch_is_deleted_is_silent_afterwards);
    tcase_add_test(tests, a_stale_event_does_not_go_to_the_numbers_new_watch);
    tcase_add_test(tests, a_channel_closed_while_a_duplicate_is_open_is_silent);
}

/* -- Timers, threads, nesting -- */

static void ring(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    note("%s", (const char *)arg);
}

static void note_word(void *arg)
{
    note("%s", (const char *)arg);
}

START_TEST(timers_are_the_hosts_to_run)
{
    struct asyncore_timer timer = {0}, later = {0};
    ck_assert_int_eq((int)asyncore_next_timer(map), -1);
    ck_assert_int_eq(asyncore_run_timers(map), 0);
    ck_assert_int_eq(asyncore_call_later(map, &later, 60000, ring, "later"), 0);
    int64_t next = asyncore_next_timer(map);
    ck_assert_msg(next > 50000 && next <= 60000, "%lld", (long long)next);
    ck_assert_int_eq(asyncore_call_later(map, &timer, 20, ring, "ring"), 0);
    ck_assert_int_le((int)asyncore_next_timer(map), 20);
    uint64_t begin = clock_ns();
    ck_assert_int_eq(wait_map(-1), 0);
    ck_assert_uint_ge(clock_ns() - begin, 19 * MS);
    assert_notes("");
    ck_assert_int_eq((int)asyncore_next_timer(map), 0);
    ck_assert_int_eq(asyncore_run_timers(map), 1);
    assert_notes("ring");
    ck_assert_int_eq(asyncore_run_timers(map), 0);
    asyncore_cancel(&later);
    ck_assert_int_eq((int)asyncore_next_timer(map), -1);
}
END_TEST

START_TEST(posted_calls_are_run_with_the_timers)
{
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_word, "one"), 0);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_word, "two"), 0);
    ck_assert_int_eq((int)asyncore_next_timer(map), 0);
    ck_assert_int_eq(wait_map(-1), 0);
    assert_notes("");
    ck_assert_int_eq(asyncore_run_timers(map), 2);
    assert_notes("one two");
    assert_silent();
}
END_TEST

/* What another thread does while this one waits. */
struct change {
    int step, fd, results[8], count;
};

static void *change_watches(void *arg)
{
    struct change *c = arg;
    rest_ms(30);
    if (c->step == 0) {
        c->results[c->count++] = asyncore_wakeup(map);
    } else if (c->step == 1) {
        c->results[c->count++] = asyncore_watch_add(map, c->fd, ASYNCORE_READ, &owner_a);
    } else if (c->step == 2) {
        c->results[c->count++] = asyncore_watch_want(map, c->fd, 0);
        c->results[c->count++] = asyncore_watch_want(map, c->fd, ASYNCORE_WRITE);
    } else {
        c->results[c->count++] = asyncore_watch_want(map, c->fd, ASYNCORE_READ);
        c->results[c->count++] = asyncore_watch_del(map, c->fd);
        c->results[c->count++] = asyncore_watch_add(map, c->fd, 0, &owner_b);
        asyncore_watch_add(map, c->fd, 0, &owner_a); /* a fault, reported or not, and without effect */
        c->results[c->count++] = asyncore_watch_want(map, c->fd, ASYNCORE_WRITE);
    }
    return NULL;
}

static pthread_t change_soon(struct change *c, int step, int fd)
{
    pthread_t thread;
    *c = (struct change){.step = step, .fd = fd};
    ck_assert_int_eq(pthread_create(&thread, NULL, change_watches, c), 0);
    return thread;
}

static void assert_changed(struct change *c, pthread_t thread)
{
    pthread_join(thread, NULL);
    for (int i = 0; i < c->count; i++)
        ck_assert_int_eq(c->results[i], 0);
}

START_TEST(a_wake_up_of_another_thread_ends_the_wait)
{
    struct change c;
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, &owner_a), 0);
    pthread_t thread = change_soon(&c, 0, -1);
    ck_assert_int_eq(wait_map(-1), 0);
    assert_changed(&c, thread);
    assert_silent();
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    close_both(fds);
}
END_TEST

/* A wait ends without events when a change came; then the next one has it. */
static void wait_for_event(void)
{
    uint64_t end = clock_ns() + patience() * MS;
    while (wait_map(-1) == 0)
        ck_assert(clock_ns() < end);
}

START_TEST(changes_of_another_thread_take_effect_while_waiting)
{
    struct change c;
    int fds[2];
    unix_pair(fds);
    peer_send(fds[1], "x", 1);
    pthread_t thread = change_soon(&c, 1, fds[0]);
    wait_for_event();
    ck_assert_ptr_eq(seen[0].owner, &owner_a);
    ck_assert_uint_ne(seen[0].events & ASYNCORE_READ, 0);
    assert_changed(&c, thread);
    ck_assert_int_eq(asyncore_watch_want(map, fds[0], 0), 0);
    thread = change_soon(&c, 2, fds[0]);
    wait_for_event();
    ck_assert_uint_eq(seen[0].events & (ASYNCORE_READ | ASYNCORE_WRITE), ASYNCORE_WRITE);
    assert_changed(&c, thread);
    ck_assert_int_eq(asyncore_watch_want(map, fds[0], 0), 0);
    thread = change_soon(&c, 3, fds[0]);
    do
        wait_for_event();
    while (seen[0].owner == &owner_a);
    ck_assert_ptr_eq(seen[0].owner, &owner_b);
    ck_assert_uint_eq(seen[0].events & (ASYNCORE_READ | ASYNCORE_WRITE), ASYNCORE_WRITE);
    assert_changed(&c, thread);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    close_both(fds);
}
END_TEST

struct rounds {
    int fd, failures;
    bool done;
};

static void *change_again_and_again(void *arg)
{
    struct rounds *r = arg;
    for (int i = 0; i < 3000; i++) {
        r->failures += asyncore_watch_add(map, r->fd, 0, &owner_a) != 0;
        r->failures += asyncore_watch_want(map, r->fd, ASYNCORE_WRITE) != 0;
        r->failures += asyncore_watch_want(map, r->fd, ASYNCORE_READ) != 0;
        r->failures += asyncore_watch_del(map, r->fd) != 0;
    }
    r->failures += asyncore_watch_add(map, r->fd, ASYNCORE_READ, &owner_a) != 0;
    r->failures += asyncore_watch_want(map, r->fd, ASYNCORE_WRITE) != 0;
    __atomic_store_n(&r->done, true, __ATOMIC_SEQ_CST);
    asyncore_wakeup(map);
    return NULL;
}

/* Some come while this thread waits and are queued, some between two waits. */
START_TEST(changes_of_another_thread_keep_their_order)
{
    pthread_t thread;
    int fds[2];
    unix_pair(fds);
    struct rounds r = {.fd = fds[0]};
    ck_assert_int_eq(pthread_create(&thread, NULL, change_again_and_again, &r), 0);
    while (!__atomic_load_n(&r.done, __ATOMIC_SEQ_CST))
        wait_map(1);
    pthread_join(thread, NULL);
    ck_assert_int_eq(r.failures, 0);
    wait_for_event();
    assert_one(fds[0], ASYNCORE_WRITE, &owner_a);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    close_both(fds);
}
END_TEST

static int read_and_wait(struct asyncore_dispatcher *d)
{
    char byte;
    ck_assert_int_eq(asyncore_poll(map, 0), -EBUSY);
    int count = wait_map(1000);
    for (int i = 0; i < count; i++)
        if (seen[i].owner == &owner_a)
            note("nested");
    asyncore_close(&probe_of(d)->other->base);
    note("read");
    return (int)asyncore_recv(d, &byte, 1);
}

static const struct asyncore_class waiting_class = {
    .name = "waiting",
    .parent = &probe_class,
    .handle_read = read_and_wait,
};

START_TEST(map_wait_may_be_called_within_a_handler)
{
    int bare[2], fds[2][2];
    struct probe *p[2];
    unix_pair(bare);
    for (int i = 0; i < 2; i++) {
        unix_pair(fds[i]);
        p[i] = probe_on(&waiting_class, "", fds[i][0]);
        peer_send(fds[i][1], "x", 1);
    }
    p[0]->other = p[1];
    p[1]->other = p[0];
    ck_assert_int_eq(asyncore_watch_add(map, bare[0], ASYNCORE_READ, &owner_a), 0);
    peer_send(bare[1], "x", 1);
    turn();
    assert_notes("nested read destroy"); /* the rest of the batch is as it was */
    ck_assert_int_eq(asyncore_watch_del(map, bare[0]), 0);
    close_both(bare);
    close(fds[0][1]);
    close(fds[1][1]);
}
END_TEST

static void wait_in_timer(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    (void)arg;
    note("%d", wait_map(1000));
}

START_TEST(map_wait_may_be_called_within_a_timer)
{
    struct asyncore_timer timer = {0};
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_WRITE, &owner_a), 0);
    ck_assert_int_eq(asyncore_call_later(map, &timer, 0, wait_in_timer, NULL), 0);
    rest_ms(1);
    ck_assert_int_eq(asyncore_run_timers(map), 1);
    assert_notes("1");
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    close_both(fds);
}
END_TEST

START_TEST(watches_work_in_a_child_after_fork)
{
    int fds[2], status;
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, &owner_a), 0);
    ck_assert_int_eq(wait_map(0), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        bool right = asyncore_map_wait(map, 0, seen, 1) == -ECHILD && asyncore_after_fork(map) == 0 &&
                     write(fds[1], "x", 1) == 1 && asyncore_map_wait(map, 2000, seen, 1) == 1 &&
                     seen[0].owner == &owner_a && asyncore_watch_del(map, fds[0]) == 0 && asyncore_map_free(map) == 0;
        leave_child(right ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    assert_one(fds[0], ASYNCORE_READ, &owner_a); /* the child did not read it, and took nothing from us */
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    close_both(fds);
}
END_TEST

static void add_context(TCase *tests)
{
    tcase_add_test(tests, timers_are_the_hosts_to_run);
    tcase_add_test(tests, posted_calls_are_run_with_the_timers);
    tcase_add_test(tests, a_wake_up_of_another_thread_ends_the_wait);
    tcase_add_test(tests, changes_of_another_thread_take_effect_while_waiting);
    tcase_add_test(tests, changes_of_another_thread_keep_their_order);
    tcase_add_test(tests, map_wait_may_be_called_within_a_handler);
    tcase_add_test(tests, map_wait_may_be_called_within_a_timer);
    tcase_add_test(tests, watches_work_in_a_child_after_fork);
}

int main(void)
{
    return run_suite("watch", add_calls, add_behind, add_context, NULL);
}
