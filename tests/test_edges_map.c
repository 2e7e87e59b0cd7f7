/* test_edges_map.c: maps, watches and timers at their edges: no descriptors left, threads and children that call what
 * they may not, hosts whose descriptors change behind the library's back, and files that are always ready. */
#include "support.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct asyncore_class plain_class = {.name = "plain"};

static struct asyncore_event seen[32];

static int wait_map(int timeout, int size)
{
    memset(seen, 0, sizeof seen);
    int count = asyncore_map_wait(map, timeout, seen, size);
    ck_assert_int_ge(count, 0);
    return count;
}

static void note_call(void *arg)
{
    note("%s", (const char *)arg);
}

static void ring(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    note("%s", (const char *)arg);
}

static void take_text(void *arg, const char *text)
{
    char *all = arg;
    snprintf(all + strlen(all), 4096 - strlen(all), "%s\n", text);
}

static void assert_dumped(const char *part)
{
    static char all[4096];
    all[0] = '\0';
    ck_assert_int_eq(asyncore_dump(map, take_text, all), 0);
    ck_assert_msg(strstr(all, part) != NULL, "no \"%s\" in:\n%s", part, all);
}

/* -- Without descriptors ------------------------------------------------------------------------------------------- */

static struct rlimit limit_before;

/* Lets this process open so many more. */
static void allow_descriptors(int more)
{
    int next = dup(0);
    ck_assert_int_ge(next, 0);
    close(next);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit_before), 0);
    struct rlimit limit = {(rlim_t)(next + more), limit_before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void allow_all(void)
{
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit_before), 0);
}

START_TEST(a_map_that_cannot_have_its_descriptors_is_emfile_and_leaves_none)
{
    struct asyncore_map *other = map;
    int needed = engine_is("epoll") ? 2 : 1;
    for (int more = 0; more <= needed; more++) {
        int before = count_descriptors();
        allow_descriptors(more);
        int result = asyncore_map_new(&other, NULL);
        allow_all();
        ck_assert_int_eq(result, more < needed ? -EMFILE : 0);
        if (result < 0) {
            ck_assert_ptr_eq(other, map);
            ck_assert_int_eq(count_descriptors(), before);
        }
    }
    ck_assert_int_eq(asyncore_map_free(other), 0);
}
END_TEST

START_TEST(a_map_descriptor_that_cannot_be_had_is_emfile_and_leaves_none)
{
    skip_unless(engine_is("epoll"), "select and poll have none");
    for (int more = 0; more <= 2; more++) {
        int before = count_descriptors();
        allow_descriptors(more);
        int result = asyncore_map_fd(map);
        allow_all();
        if (more < 2) {
            ck_assert_int_eq(result, -EMFILE);
            ck_assert_int_eq(count_descriptors(), before);
        } else {
            ck_assert_int_ge(result, 0);
        }
    }
}
END_TEST

static void signal_came(struct asyncore_signal *signal, int number, void *arg)
{
    (void)signal;
    (void)arg;
    note("signal-%d", number);
}

START_TEST(a_signal_without_a_descriptor_is_emfile_and_is_not_blocked)
{
    sigset_t blocked;
    static struct asyncore_signal s;
    allow_descriptors(0);
    int result = asyncore_signal_init(&s, map, SIGUSR1, signal_came, NULL);
    allow_all();
    ck_assert_int_eq(result, -EMFILE);
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    ck_assert_int_eq(sigismember(&blocked, SIGUSR1), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(asyncore_close(&s.base), 0);
}
END_TEST

START_TEST(a_socket_without_a_descriptor_is_told_at_once_by_create_and_by_the_loop_for_connect)
{
    struct probe *p = probe_new(&probe_class, "");
    allow_descriptors(0);
    int created = asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM);
    int connected = asyncore_connect(&p->base, "127.0.0.1", "9");
    allow_all();
    ck_assert_int_eq(created, -EMFILE);
    ck_assert_int_eq(connected, 0);
    run_until(p->destroys == 1);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -EMFILE);
}
END_TEST

static void add_poor(TCase *tests)
{
    tcase_add_test(tests, a_map_that_cannot_have_its_descriptors_is_emfile_and_leaves_none);
    tcase_add_test(tests, a_map_descriptor_that_cannot_be_had_is_emfile_and_leaves_none);
    tcase_add_test(tests, a_signal_without_a_descriptor_is_emfile_and_is_not_blocked);
    tcase_add_test(tests, a_socket_without_a_descriptor_is_told_at_once_by_create_and_by_the_loop_for_connect);
}

/* -- Maps and timers ----------------------------------------------------------------------------------------------- */

START_TEST(an_engine_that_this_build_has_not_or_none_is_epoll)
{
    struct asyncore_map_options options = {.engine = "io_uring"};
    use_map(&options);
    ck_assert_str_eq(asyncore_map_engine(map), "epoll");
    setenv("ASYNCORE_ENGINE", "", 1);
    use_map(NULL);
    ck_assert_str_eq(asyncore_map_engine(map), "epoll");
}
END_TEST

START_TEST(timers_that_make_no_sense_are_einval_and_set_nothing)
{
    static struct asyncore_timer timer;
    ck_assert_int_eq(asyncore_call_later(map, &timer, 1, NULL, NULL), -EINVAL);
    ck_assert_int_eq(asyncore_call_later(map, &timer, UINT64_MAX, ring, "x"), -EINVAL);
    ck_assert_int_eq(asyncore_call_every(map, &timer, 0, ring, "x"), -EINVAL);
    ck_assert_int_eq(asyncore_pending(&timer), 0);
    ck_assert_int_eq((int)asyncore_next_timer(map), -1);
    ck_assert_int_eq(asyncore_call_later(map, &timer, 60000, ring, "x"), 0);
    ck_assert_int_eq(asyncore_call_every(map, &timer, 0, ring, "y"), -EINVAL); /* and the one that is set stays */
    ck_assert_int_eq(asyncore_pending(&timer), 1);
    ck_assert_int_gt((int)asyncore_next_timer(map), 50000);
    asyncore_timer_set_background(&timer, 1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    asyncore_timer_set_background(&timer, 0);
    ck_assert_int_eq(asyncore_loop(map, 0, 1), 1);
    asyncore_cancel(&timer);
    asyncore_cancel(&timer);
    assert_notes("");
}
END_TEST

START_TEST(a_lookup_or_a_posted_call_without_a_function_is_einval)
{
    struct asyncore_lookup lookup = {0};
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "127.0.0.1", "1", AF_UNSPEC, NULL, NULL), -EINVAL);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, NULL, NULL), -EINVAL);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0); /* nothing keeps it */
}
END_TEST

START_TEST(a_posted_call_is_due_at_once_and_dropped_with_its_map)
{
    ck_assert_int_eq((int)asyncore_next_timer(map), -1);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_call, "first"), 0);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_call, "second"), 0);
    ck_assert_int_eq((int)asyncore_next_timer(map), 0);
    ck_assert_int_eq(asyncore_run_timers(map), 2);
    assert_notes("first second");
    ck_assert_int_eq((int)asyncore_next_timer(map), -1);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_call, "third"), 0);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, note_call, "fourth"), 0);
    use_map(NULL);
    turn();
    assert_notes("");
}
END_TEST

static int ask_in_read(struct asyncore_dispatcher *d)
{
    char byte;
    uint64_t now = asyncore_now(map);
    probe_of(d)->number = (int)asyncore_next_timer(map);
    ck_assert_uint_eq(asyncore_now(map), now);
    return (int)asyncore_recv(d, &byte, 1);
}

static const struct asyncore_class timing_class = {
    .name = "timing", .parent = &probe_class, .handle_read = ask_in_read};

START_TEST(next_timer_counts_from_the_time_of_the_turn)
{
    static struct asyncore_timer timer;
    int peer;
    struct probe *p = probe_with_peer(&timing_class, &peer);
    p->number = -2;
    ck_assert_int_eq(asyncore_call_later(map, &timer, 60000, ring, "late"), 0);
    peer_send(peer, "x", 1);
    run_until(p->number != -2);
    ck_assert_int_le(p->number, 60000);
    ck_assert_int_gt(p->number, 50000);
    ck_assert_int_le((int)asyncore_next_timer(map), p->number);
    asyncore_cancel(&timer);
    close(peer);
}
END_TEST

static void run_in_timer(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    (void)arg;
    note("begin");
    int ran = asyncore_run_timers(map);
    note("ran-%d", ran);
}

START_TEST(run_timers_within_a_timer_runs_the_others)
{
    static struct asyncore_timer first, second, third;
    ck_assert_int_eq(asyncore_call_later(map, &first, 0, run_in_timer, NULL), 0);
    ck_assert_int_eq(asyncore_call_later(map, &second, 0, ring, "due"), 0);
    ck_assert_int_eq(asyncore_call_later(map, &third, 60000, ring, "late"), 0);
    ck_assert_int_eq(asyncore_run_timers(map), 1);
    assert_notes("begin due ran-1");
}
END_TEST

static void *stop_map(void *arg)
{
    rest_ms(20);
    ck_assert_int_eq(asyncore_stop(arg), 0);
    return NULL;
}

START_TEST(another_thread_stops_a_loop_that_waits)
{
    int peer;
    pthread_t thread;
    probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(pthread_create(&thread, NULL, stop_map, map), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 1);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(asyncore_loop(map, 0, 3), 1); /* not stopped again: three turns */
    close(peer);
}
END_TEST

static void *call_busy_map(void *arg)
{
    struct asyncore_event event;
    struct asyncore_dispatcher *d = arg;
    static struct asyncore_dispatcher other;
    note("%d", asyncore_map_wait(map, 0, &event, 1) == -EBUSY);
    note("%d", asyncore_run_timers(map) == -EBUSY);
    note("%d", asyncore_map_free(map) == -EBUSY);
    note("%d", asyncore_poll(map, 0) == -EBUSY);
    note("%d", asyncore_close(d) == -EPERM);
    note("%d", asyncore_fini(d) == -EPERM);
    note("%d", asyncore_del_channel(d) == -EPERM);
    note("%d", asyncore_dispatcher_init(&other, &plain_class, map) == -EPERM);
    return NULL;
}

static int call_from_thread(struct asyncore_dispatcher *d)
{
    pthread_t thread;
    char byte;
    ck_assert_int_eq(pthread_create(&thread, NULL, call_busy_map, d), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    return (int)asyncore_recv(d, &byte, 1);
}

static const struct asyncore_class threading_class = {
    .name = "threading", .parent = &probe_class, .handle_read = call_from_thread};

START_TEST(a_map_in_a_turn_refuses_other_threads)
{
    int peer;
    probe_with_peer(&threading_class, &peer);
    peer_send(peer, "x", 1);
    run_until(notes()[0] != '\0');
    assert_notes("1 1 1 1 1 1 1 1");
    close(peer);
}
END_TEST

static struct asyncore_dispatcher successors[3];
static int destroyed;

static void make_successor(struct asyncore_dispatcher *d);

static const struct asyncore_class succeeded_class = {.name = "succeeded", .destroy = make_successor};

static void make_successor(struct asyncore_dispatcher *d)
{
    struct asyncore_map *its = d->map;
    if (++destroyed == (int)COUNT(successors))
        return;
    ck_assert_int_eq(asyncore_dispatcher_init(&successors[destroyed], &succeeded_class, its), 0);
    ck_assert_int_eq(asyncore_create_socket(&successors[destroyed], AF_INET, SOCK_STREAM), 0);
}

START_TEST(map_free_destroys_channels_that_come_while_it_does)
{
    ck_assert_int_eq(asyncore_dispatcher_init(&successors[0], &succeeded_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&successors[0], AF_INET, SOCK_STREAM), 0);
    use_map(NULL);
    ck_assert_int_eq(destroyed, (int)COUNT(successors));
}
END_TEST

/* The kernel still has the file, which a duplicate keeps, and cannot be told to forget it.
 * _i: in an outer loop as well */
START_TEST(a_channel_whose_duplicate_outlives_it_does_not_make_the_loop_spin)
{
    int peer, other, outer = -1;
    skip_unless(_i == 0 || engine_is("epoll"), "select and poll have no descriptor for an outer loop");
    struct probe *p = probe_with_peer(&probe_class, &peer), *q = probe_with_peer(&probe_class, &other);
    if (_i == 1)
        outer = asyncore_map_fd(map);
    turn();
    int duplicate = dup(p->base.fd);
    close(p->base.fd);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    peer_send(peer, "x", 1);
    assert_idle_for(60);
    ck_assert(_i == 0 || !readable_now(outer, 0));
    forget_notes();
    peer_send(other, "x", 1);
    ck_assert(_i == 0 || readable_now(outer, 1000));
    run_until(q->bytes == 1);
    assert_notes("read");
    close(duplicate);
    close(other);
    close(peer);
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

START_TEST(dump_shows_watches_and_the_resolver)
{
    int fds[2];
    char text[64];
    struct asyncore_lookup lookup = {0};
    struct asyncore_map_options options = {.name_servers = "127.0.0.1:9"};
    skip_unless(has_cares(), "built without c-ares");
    use_map(&options);
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_WRITE, fds), 0);
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "silent.test", "1", AF_INET, looked_up, NULL), 0);
    snprintf(text, sizeof text, "watch fd %d: wanted 0x4 registered 0x0", fds[0]);
    assert_dumped(text);
    assert_dumped("resolver fd");
    assert_dumped(", bare watches, lookups in flight");
    asyncore_resolve_cancel(&lookup);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

static void add_maps(TCase *tests)
{
    tcase_add_test(tests, an_engine_that_this_build_has_not_or_none_is_epoll);
    tcase_add_test(tests, timers_that_make_no_sense_are_einval_and_set_nothing);
    tcase_add_test(tests, a_lookup_or_a_posted_call_without_a_function_is_einval);
    tcase_add_test(tests, a_posted_call_is_due_at_once_and_dropped_with_its_map);
    tcase_add_test(tests, next_timer_counts_from_the_time_of_the_turn);
    tcase_add_test(tests, run_timers_within_a_timer_runs_the_others);
    tcase_add_test(tests, another_thread_stops_a_loop_that_waits);
    tcase_add_test(tests, a_map_in_a_turn_refuses_other_threads);
    tcase_add_test(tests, map_free_destroys_channels_that_come_while_it_does);
    tcase_add_loop_test(tests, a_channel_whose_duplicate_outlives_it_does_not_make_the_loop_spin, 0, 2);
    tcase_add_test(tests, dump_shows_watches_and_the_resolver);
}

/* -- Bare watches -------------------------------------------------------------------------------------------------- */

START_TEST(map_wait_needs_room_for_an_event)
{
    ck_assert_int_eq(asyncore_map_wait(map, -1, seen, 0), -EINVAL);
    ck_assert_int_eq(asyncore_map_wait(map, -1, seen, -1), -EINVAL);
    ck_assert_int_eq(asyncore_watch_add(map, -1, ASYNCORE_READ, NULL), -EBADF);
    ck_assert_int_eq(asyncore_watch_want(map, -1, 0), -EBADF);
    ck_assert_int_eq(asyncore_watch_del(map, 4711), -EBADF);
    ck_assert_int_eq(asyncore_watch_check(map, 4711), -EBADF);
}
END_TEST

static int watch_in_read(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    int fd = p->number;
    char byte;
    ck_assert_int_eq((int)asyncore_recv(d, &byte, 1), 1);
    ck_assert_int_eq(asyncore_watch_add(map, fd, ASYNCORE_READ, p), 0);
    ck_assert_int_eq(asyncore_watch_add(map, fd, ASYNCORE_READ, p), -EEXIST);
    ck_assert_int_eq(asyncore_watch_check(map, fd), 1);
    ck_assert_int_eq(asyncore_watch_want(map, fd, ASYNCORE_WRITE), 0);
    ck_assert_int_eq(asyncore_map_wait(map, 0, seen, 1), 1);
    ck_assert_int_eq(seen[0].fd, fd);
    ck_assert_uint_eq(seen[0].events, ASYNCORE_WRITE);
    ck_assert_ptr_eq(seen[0].owner, p);
    ck_assert_int_eq(asyncore_watch_check(map, fd), 1);
    ck_assert_int_eq(asyncore_watch_del(map, fd), 0);
    ck_assert_int_eq(asyncore_watch_check(map, fd), -EBADF);
    note("watched");
    return 0;
}

static const struct asyncore_class watching_class = {
    .name = "watching", .parent = &probe_class, .handle_read = watch_in_read};

START_TEST(watches_come_and_go_within_a_handler)
{
    int peer, fds[2];
    struct probe *p = probe_with_peer(&watching_class, &peer);
    unix_pair(fds);
    p->number = fds[0];
    peer_send(peer, "x", 1);
    run_until(notes()[0] != '\0');
    assert_notes("watched");
    close(fds[0]);
    close(fds[1]);
    close(peer);
}
END_TEST

/* The kernel's set knows the old file only, if any. */
START_TEST(a_number_that_became_another_file_is_waited_for_when_its_interest_changes)
{
    int fds[2], others[2];
    unix_pair(fds);
    unix_pair(others);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, fds), 0);
    ck_assert_int_eq(wait_map(0, 4), 0);
    ck_assert_int_eq(dup2(others[0], fds[0]), fds[0]);
    ck_assert_int_eq(asyncore_watch_want(map, fds[0], ASYNCORE_READ | ASYNCORE_WRITE), 0);
    ck_assert_int_eq(wait_map(1000, 4), 1);
    ck_assert_int_eq(seen[0].fd, fds[0]);
    ck_assert_uint_eq(seen[0].events, ASYNCORE_WRITE);
    ck_assert_int_eq(asyncore_watch_want(map, fds[0], ASYNCORE_READ), 0);
    ck_assert_int_eq(wait_map(0, 4), 0);
    peer_send(others[1], "x", 1);
    ck_assert_int_eq(wait_map(1000, 4), 1);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    for (int i = 0; i < 2; i++) {
        close(fds[i]);
        close(others[i]);
    }
}
END_TEST

START_TEST(a_file_that_left_and_came_back_to_its_number_is_waited_for)
{
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, fds), 0);
    ck_assert_int_eq(wait_map(0, 4), 0);
    int kept = dup(fds[0]);
    close(fds[0]);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0); /* too late for the kernel */
    ck_assert_int_eq(dup2(kept, fds[0]), fds[0]);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, &fds[1]), 0);
    ck_assert_int_eq(wait_map(0, 4), 0);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(wait_map(1000, 4), 1);
    ck_assert_ptr_eq(seen[0].owner, &fds[1]);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    ck_assert_int_eq(wait_map(0, 4), 0);
    close(fds[0]);
    close(fds[1]);
    close(kept);
}
END_TEST

START_TEST(a_descriptor_that_the_engine_refuses_reports_an_error)
{
    skip_unless(engine_is("epoll"), "select and poll take anything");
    int fd = asyncore_map_fd(map); /* the map would wait for itself */
    ck_assert_int_eq(asyncore_watch_add(map, fd, ASYNCORE_READ, &fd), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(wait_map(1000, 4), 1);
        ck_assert_int_eq(seen[0].fd, fd);
        ck_assert_uint_eq(seen[0].events, ASYNCORE_ERROR);
    }
    ck_assert_int_eq(asyncore_watch_want(map, fd, 0), 0);
    ck_assert_int_eq(wait_map(0, 4), 0);
    ck_assert_int_eq(asyncore_watch_del(map, fd), 0);
}
END_TEST

#define FILES 20

static void open_files(int files[FILES])
{
    for (int i = 0; i < FILES; i++) {
        files[i] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        ck_assert_int_ge(files[i], 0);
        ck_assert_int_eq(asyncore_watch_add(map, files[i], ASYNCORE_READ, NULL), 0);
    }
}

static void close_files(int files[FILES])
{
    for (int i = 0; i < FILES; i++) {
        int at = (i * 7 + 3) % FILES; /* in any order */
        ck_assert_int_eq(asyncore_watch_del(map, files[at]), 0);
        close(files[at]);
    }
    ck_assert_int_eq(wait_map(0, 4), 0);
}

START_TEST(a_small_array_starves_no_regular_file_and_no_pipe_beside_them)
{
    int files[FILES], fds[2], size = _i + 1;
    bool was_seen[1024] = {false};
    unix_pair(fds);
    peer_send(fds[1], "x", 1);
    ck_assert_int_eq(asyncore_watch_add(map, fds[0], ASYNCORE_READ, NULL), 0);
    open_files(files);
    for (int i = 0; i < 4 * FILES; i++)
        for (int count = wait_map(-1, size); count > 0; count--)
            was_seen[seen[count - 1].fd] = true;
    for (int i = 0; i < FILES; i++)
        ck_assert_msg(was_seen[files[i]], "file %d of %d never came", i, FILES);
    ck_assert(was_seen[fds[0]]);
    ck_assert_int_eq(wait_map(0, 32), FILES + 1);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    close(fds[0]);
    close(fds[1]);
    close_files(files);
}
END_TEST

static void add_watches(TCase *tests)
{
    tcase_add_test(tests, map_wait_needs_room_for_an_event);
    tcase_add_test(tests, watches_come_and_go_within_a_handler);
    tcase_add_test(tests, a_number_that_became_another_file_is_waited_for_when_its_interest_changes);
    tcase_add_test(tests, a_file_that_left_and_came_back_to_its_number_is_waited_for);
    tcase_add_test(tests, a_descriptor_that_the_engine_refuses_reports_an_error);
    tcase_add_loop_test(tests, a_small_array_starves_no_regular_file_and_no_pipe_beside_them, 0, 3);
}

/* -- Children ------------------------------------------------------------------------------------------------------ */

#define expect(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return __LINE__ % 255 + 1;                                                                                 \
    } while (0)

/* Runs `child` in a child process: 0, or what the line was that found something wrong. */
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

struct inherited {
    struct asyncore_dispatcher *d;
    struct asyncore_file_dispatcher *f;
    struct asynchat *c;
    struct asyncore_timer *timer;
    int fd;
};

static int try_bytes(void *arg)
{
    struct asyncore_dispatcher *d = ((struct inherited *)arg)->d, *f = &((struct inherited *)arg)->f->base;
    struct sockaddr_storage address;
    socklen_t length;
    char byte;
    int value = 1;
    expect(asyncore_sendto(d, "x", 1, NULL, 0) == -ECHILD);
    expect(asyncore_recvfrom(d, &byte, 1, NULL, NULL) == -ECHILD);
    expect(asyncore_accept(d, NULL, NULL) == -ECHILD);
    expect(asyncore_recv(f, &byte, 1) == -ECHILD);
    expect(asyncore_send(f, "x", 1) == -ECHILD);
    expect(asyncore_error(f) == 0 || asyncore_error(f) == -ECHILD);
    expect(asyncore_setsockopt(d, SOL_SOCKET, SO_SNDLOWAT, &value, sizeof value) == -ECHILD);
    expect(asyncore_setsockopt(d, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value) == -ECHILD);
    length = sizeof value;
    expect(asyncore_getsockopt(d, SOL_SOCKET, SO_TYPE, &value, &length) == -ECHILD);
    expect(asyncore_sockname(d, &address, &length) == -ECHILD);
    expect(asyncore_peername(d, &address, &length) == -ECHILD);
    expect(asyncore_set_reuse_addr(d) == -ECHILD);
    expect(asyncore_listen(d, 1) == -ECHILD);
    return 0;
}

static int ask_map(void *arg)
{
    struct asyncore_event event;
    (void)arg;
    expect(asyncore_now(map) == 0);
    expect(asyncore_map_engine(map) == NULL);
    expect(asyncore_next_timer(map) == -1);
    expect(asyncore_close_fd(map, 0) == -ECHILD);
    expect(asyncore_dump(map, take_text, NULL) == -ECHILD);
    expect(asyncore_map_wait(map, 0, &event, 1) == -ECHILD);
    return 0;
}

static int try_chat(void *arg)
{
    struct asynchat *c = ((struct inherited *)arg)->c;
    expect(asynchat_push(c, "x", 1) == -ECHILD);
    expect(asynchat_push_text(c, "x") == -ECHILD);
    expect(asynchat_push_ref(c, "x", 1, NULL, NULL) == -ECHILD);
    expect(asynchat_close_when_done(c) == -ECHILD);
    expect(asyncore_send(&c->base.base, "x", 1) == -ECHILD);
    expect(asyncore_queued(&c->base) == 0);
    return 0;
}

START_TEST(bytes_options_and_pushes_are_refused_in_a_child)
{
    int peer, chat_fds[2], ends[2], value = 0;
    socklen_t length = sizeof value;
    static struct asyncore_file_dispatcher f;
    static struct asynchat c;
    static const struct asynchat_class chat_class = {.base = {.name = "chat"}};
    struct probe *p = probe_with_peer(&probe_class, &peer);
    unix_pair(chat_fds);
    unix_pair(ends);
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f, ends[0]), 0);
    ck_assert_int_eq(asynchat_init(&c, &chat_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&c.base.base, chat_fds[0]), 0);
    struct inherited inherited = {.d = &p->base, .f = &f, .c = &c};
    static int (*const tries[])(void *) = {try_bytes, try_chat, ask_map};
    ck_assert_int_eq(in_child(tries[_i], &inherited), 0);
    ck_assert_int_eq(asyncore_getsockopt(&p->base, SOL_SOCKET, SO_KEEPALIVE, &value, &length), 0);
    ck_assert_int_eq(value, 0);
    ck_assert(!readable_now(chat_fds[1], 0) && !readable_now(ends[1], 0) && !readable_now(peer, 0));
    close(peer);
    close(chat_fds[1]);
    close(ends[1]);
}
END_TEST

static int cancel_timer(void *arg)
{
    asyncore_cancel(((struct inherited *)arg)->timer);
    return asyncore_pending(((struct inherited *)arg)->timer);
}

START_TEST(a_timer_cancelled_in_a_child_still_makes_the_parents_map_descriptor_readable)
{
    static struct asyncore_timer timer;
    skip_unless(engine_is("epoll"), "select and poll have none");
    int fd = asyncore_map_fd(map);
    ck_assert_int_eq(asyncore_call_later(map, &timer, 50, ring, "rang"), 0);
    struct inherited inherited = {.timer = &timer};
    ck_assert_int_eq(in_child(cancel_timer, &inherited), 0);
    ck_assert(readable_now(fd, (int)patience()));
    turn();
    assert_notes("rang");
}
END_TEST

static pid_t parent;

static int fork_in_read(struct asyncore_dispatcher *d)
{
    char byte;
    int n = (int)asyncore_recv(d, &byte, 1);
    fflush(NULL);
    probe_of(d)->number = fork();
    if (probe_of(d)->number == 0 && probe_of(d)->stays && asyncore_after_fork(map) != 0)
        leave_child(2);
    return n;
}

static int take_last(struct asyncore_dispatcher *d)
{
    char byte;
    ssize_t n = asyncore_recv(d, &byte, 1);
    return n == 1 ? asyncore_stop(map) : (int)n;
}

static const struct asyncore_class last_class = {.name = "last", .handle_read = take_last};

static const struct asyncore_class forking_class = {
    .name = "forking", .parent = &probe_class, .handle_read = fork_in_read};

START_TEST(a_child_that_returns_from_its_handler_leaves_the_loop_with_echild)
{
    int peer, status;
    struct probe *p = probe_with_peer(&forking_class, &peer);
    peer_send(peer, "x", 1);
    parent = getpid();
    int result = asyncore_loop(map, 100, 2);
    if (getpid() != parent)
        leave_child(result == -ECHILD ? 0 : 1);
    ck_assert_int_eq(result, 1);
    ck_assert_int_eq(waitpid(p->number, &status, 0), p->number);
    ck_assert_int_eq(status, 0);
    close(peer);
}
END_TEST

START_TEST(a_child_that_takes_the_map_over_in_a_handler_goes_on_in_the_loop)
{
    int peer, other, status;
    struct probe *p = probe_with_peer(&forking_class, &peer);
    probe_with_peer(&last_class, &other);
    p->stays = true;
    peer_send(peer, "x", 1);
    parent = getpid();
    int result = asyncore_loop(map, 2000, 1); /* the child's is bounded by the same count */
    if (getpid() != parent) {
        bool right =
            result == 1 && write(other, "x", 1) == 1 && asyncore_loop(map, 2000, 0) == 1 && asyncore_map_free(map) == 0;
        leave_child(right ? 0 : 1);
    }
    ck_assert_int_eq(result, 1);
    ck_assert_int_eq(waitpid(p->number, &status, 0), p->number);
    ck_assert_int_eq(status, 0);
    p->stays = false;
    close(peer);
    close(other);
}
END_TEST

static int take_default_over(void *arg)
{
    (void)arg;
    static struct asyncore_timer timer;
    expect(asyncore_call_later(NULL, &timer, 0, ring, "child") == -ECHILD);
    expect(asyncore_after_fork(NULL) == 0);
    expect(asyncore_call_later(NULL, &timer, 0, ring, "child") == 0);
    expect(asyncore_loop(NULL, -1, 0) == 0);
    expect(strcmp(notes(), "child") == 0);
    expect(asyncore_map_free(NULL) == 0);
    expect(asyncore_after_fork(NULL) == 0);
    return 0;
}

START_TEST(a_child_takes_the_default_map_over)
{
    ck_assert_int_eq(asyncore_map_free(NULL), 0);
    ck_assert_int_eq(asyncore_after_fork(NULL), 0);
    ck_assert_ptr_nonnull(asyncore_map_engine(NULL));
    ck_assert_int_eq(in_child(take_default_over, NULL), 0);
    ck_assert_int_eq(asyncore_loop(NULL, -1, 0), 0);
    ck_assert_int_eq(asyncore_map_free(NULL), 0);
    assert_notes("");
}
END_TEST

static void add_children(TCase *tests)
{
    tcase_add_loop_test(tests, bytes_options_and_pushes_are_refused_in_a_child, 0, 3);
    tcase_add_test(tests, a_timer_cancelled_in_a_child_still_makes_the_parents_map_descriptor_readable);
    tcase_add_test(tests, a_child_that_returns_from_its_handler_leaves_the_loop_with_echild);
    tcase_add_test(tests, a_child_that_takes_the_map_over_in_a_handler_goes_on_in_the_loop);
    tcase_add_test(tests, a_child_takes_the_default_map_over);
}

int main(void)
{
    return run_suite("edges_map", add_poor, add_maps, add_watches, add_children, NULL);
}
