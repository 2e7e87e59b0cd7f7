/* test_mended_embed.c: faults that a review proved in maps that are embedded, shared with threads, or gone, each as the
 * scenario that showed it.
 *
 * What another thread does during a turn is done in a posted call: it lets the thread begin, and waits until it has
 * finished (or, where the turn has to last, the other way round). */
#include "map.h"
#include "support.h"
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/un.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

static int owner;
static struct asyncore_event seen[8];

static int wait_map(int timeout)
{
    int count = asyncore_map_wait(map, timeout, seen, COUNT(seen));
    ck_assert_int_ge(count, 0);
    return count;
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

static void count_call(void *arg)
{
    ++*(int *)arg;
}

static void count_timer(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    ++*(int *)arg;
}

/* -- The descriptor of a map: another loop turns when it is readable, and only then -------------------------------- */

#define outer_until(outer, condition)                                                                                  \
    do {                                                                                                               \
        for (int turns_ = 0; !(condition); turns_++) {                                                                 \
            ck_assert_msg(turns_ < 20, "still not: %s", #condition);                                                   \
            ck_assert_msg(readable_now(outer, 300), "the map's descriptor is silent, and not: %s", #condition);        \
            turn();                                                                                                    \
        }                                                                                                              \
    } while (0)

#define skip_unless_embedded() skip_unless(engine_is("epoll"), "the engine has no descriptor of its own")

START_TEST(a_regular_file_makes_the_map_descriptor_readable)
{
    static const struct asyncore_class class_ = {.name = "file"};
    static struct asyncore_file_dispatcher f;
    char path[] = "/tmp/asyncore-mended-XXXXXX";
    skip_unless_embedded();
    int outer = asyncore_map_fd(map), fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    unlink(path);
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &class_, map), 0);
    ck_assert(!readable_now(outer, 0));
    ck_assert_int_eq(asyncore_set_file(&f, fd), 0);
    ck_assert(readable_now(outer, 300));
    ck_assert_int_eq(asyncore_want(&f.base, 0), 0);
    turn();
    ck_assert(!readable_now(outer, 0));
}
END_TEST

static const struct asyncore_class asked_class = {.name = "asked", .parent = &probe_class, .readable = yes};

START_TEST(a_new_channel_with_a_predicate_is_asked_in_an_outer_loop)
{
    int fds[2];
    skip_unless_embedded();
    int outer = asyncore_map_fd(map);
    unix_pair(fds);
    struct probe *p = probe_on(&asked_class, "", fds[0]);
    peer_send(fds[1], "x", 1);
    outer_until(outer, p->bytes == 1);
    close(fds[1]);
}
END_TEST

/* The two sides of a forwarder: one writes when the other has read. */
static int other_has_bytes(struct asyncore_dispatcher *d)
{
    return probe_of(d)->other->bytes > 0;
}

static int forward(struct asyncore_dispatcher *d)
{
    struct probe *from = probe_of(d)->other;
    ssize_t n = asyncore_send(d, from->input, from->bytes);
    from->bytes = 0;
    return (int)n;
}

static const struct asyncore_class reading_side = {
    .name = "reading", .parent = &probe_class, .readable = yes, .writable = no};
static const struct asyncore_class writing_side = {
    .name = "writing", .parent = &probe_class, .readable = no, .writable = other_has_bytes, .handle_write = forward};

START_TEST(what_a_handler_changed_for_a_predicate_is_asked_before_the_outer_wait)
{
    int in[2], out[2];
    skip_unless_embedded();
    int outer = asyncore_map_fd(map);
    unix_pair(in);
    unix_pair(out);
    struct probe *from = probe_on(&reading_side, "", in[0]), *to = probe_on(&writing_side, "", out[0]);
    from->other = to;
    to->other = from;
    turn();
    turn();
    peer_send(in[1], "x", 1);
    outer_until(outer, waiting_bytes(out[1]) == 1);
    ck_assert(!readable_now(outer, 30)); /* and then there is peace */
    close(in[1]);
    close(out[1]);
}
END_TEST

START_TEST(run_timers_silences_the_map_descriptor)
{
    static struct asyncore_timer timer;
    int fired = 0;
    skip_unless_embedded();
    int outer = asyncore_map_fd(map);
    ck_assert_int_eq(asyncore_call_later(map, &timer, 5, count_timer, &fired), 0);
    while (fired == 0) {
        ck_assert(readable_now(outer, 1000));
        ck_assert_int_eq(wait_map(0), 0);
        ck_assert_int_ge(asyncore_run_timers(map), 0);
    }
    ck_assert(!readable_now(outer, 30));
}
END_TEST

static void add_outer(TCase *tests)
{
    tcase_add_test(tests, a_regular_file_makes_the_map_descriptor_readable);
    tcase_add_test(tests, a_new_channel_with_a_predicate_is_asked_in_an_outer_loop);
    tcase_add_test(tests, what_a_handler_changed_for_a_predicate_is_asked_before_the_outer_wait);
    tcase_add_test(tests, run_timers_silences_the_map_descriptor);
}

/* -- map_wait and run_timers --------------------------------------------------------------------------------------- */

START_TEST(map_wait_waits_again_after_a_wake_up)
{
    int called = 0, waits = 0;
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, count_call, &called), 0);
    wait_map(1000);
    ck_assert_int_eq(asyncore_run_timers(map), 1);
    wait_map(5);
    ck_assert_int_eq(asyncore_run_timers(map), 0);
    uint64_t end = clock_ns() + 60 * MS;
    for (; clock_ns() < end; waits++)
        ck_assert_int_eq(wait_map(60), 0);
    ck_assert_int_le(waits, 4);
}
END_TEST

static uint64_t idle_due;

static int run_timers_and_finish(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    char byte;
    ck_assert_int_eq(asyncore_recv(d, &byte, 1), 1);
    wait_until(clock_ns() > idle_due);
    note("timers:%d", asyncore_run_timers(map) == -EBUSY);
    note("fini:%d", asyncore_fini(d) == -EBUSY);
    p->reads++;
    return 0;
}

static const struct asyncore_class runs_timers = {
    .name = "runs", .parent = &probe_class, .handle_read = run_timers_and_finish};

/* They would serve the neighbour, whose idle timer is due, in the middle of this one. */
START_TEST(run_timers_within_a_handler_is_refused)
{
    int fds[2], idle[2];
    unix_pair(fds);
    unix_pair(idle);
    struct probe *p = probe_on(&runs_timers, "a", fds[0]), *neighbour = probe_on(&probe_class, "b", idle[0]);
    turn();
    ck_assert_int_eq(asyncore_set_idle_timeout(&neighbour->base, 5), 0);
    idle_due = clock_ns() + 5 * MS;
    peer_send(fds[1], "x", 1);
    turn();
    ck_assert_int_eq(p->reads, 1);
    run_until(neighbour->destroys == 1);
    assert_notes("timers:1 fini:1 b:error b:close b:destroy");
    ck_assert_ptr_nonnull(p->base.map);
    close(fds[1]);
    close(idle[1]);
}
END_TEST

/* A kernel whose resolver has two descriptors, and closes both at the first event. */
static struct os simulated;
static struct names_client *resolver_client;
static int resolver_fds[2][2];

static int resolver_open(struct names **ret, struct names_client *client, const char *servers, struct os *os)
{
    (void)servers;
    resolver_client = client;
    *ret = (struct names *)(void *)os;
    return 0;
}

static void resolver_close(struct names *names)
{
    (void)names;
}

static int resolver_start(struct names *names, const char *host, int family, void *query)
{
    (void)names;
    (void)host;
    (void)family;
    (void)query;
    for (int i = 0; i < 2; i++)
        resolver_client->watch(resolver_client, resolver_fds[i][0], POLLIN);
    return 0;
}

static void resolver_cancel(struct names *names, void *query)
{
    (void)names;
    (void)query;
}

static void resolver_event(struct names *names, int fd, unsigned events)
{
    (void)names;
    (void)fd;
    (void)events;
    for (int i = 0; i < 2; i++)
        resolver_client->watch(resolver_client, resolver_fds[i][0], 0);
}

static uint64_t resolver_deadline(struct names *names, uint64_t now)
{
    (void)names;
    (void)now;
    return 0;
}

static void never_answered(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses,
                           size_t count, void *arg)
{
    (void)lookup;
    (void)error;
    (void)addresses;
    (void)count;
    (void)arg;
    ck_abort_msg("an answer came");
}

START_TEST(a_descriptor_that_the_resolver_closed_is_no_event_of_the_hosts)
{
    static struct asyncore_lookup lookup;
    simulated = os_linux;
    simulated.names_open = resolver_open;
    simulated.names_close = resolver_close;
    simulated.names_start = resolver_start;
    simulated.names_cancel = resolver_cancel;
    simulated.names_event = resolver_event;
    simulated.names_deadline = resolver_deadline;
    ck_assert_int_eq(asyncore_map_free(map), 0);
    map = NULL;
    ck_assert_int_eq(map_new_on(&map, &simulated, NULL), 0);
    for (int i = 0; i < 2; i++) {
        unix_pair(resolver_fds[i]);
        peer_send(resolver_fds[i][1], "x", 1);
    }
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "some.name", "1", AF_UNSPEC, never_answered, NULL), 0);
    ck_assert_int_eq(wait_map(100), 0);
    ck_assert_int_eq(wait_map(0), 0);
    asyncore_resolve_cancel(&lookup);
    for (int i = 0; i < 4; i++)
        close(resolver_fds[i / 2][i % 2]);
}
END_TEST

static void add_waits(TCase *tests)
{
    tcase_add_test(tests, map_wait_waits_again_after_a_wake_up);
    tcase_add_test(tests, run_timers_within_a_handler_is_refused);
    tcase_add_test(tests, a_descriptor_that_the_resolver_closed_is_no_event_of_the_hosts);
}

/* -- Other threads ------------------------------------------------------------------------------------------------- */

/* What the other thread is to do, step by step, when it is let. */
struct helper {
    pthread_t thread;
    sem_t begin, done;
    int fd, results[2];
};

static void helper_step(struct helper *h)
{
    sem_post(&h->begin);
    sem_wait(&h->done);
}

static void step_in_turn(void *arg)
{
    helper_step(arg);
}

static void helper_start(struct helper *h, void *(*run)(void *arg), int fd)
{
    h->fd = fd;
    ck_assert_int_eq(sem_init(&h->begin, 0, 0), 0);
    ck_assert_int_eq(sem_init(&h->done, 0, 0), 0);
    ck_assert_int_eq(pthread_create(&h->thread, NULL, run, h), 0);
}

static void helper_end(struct helper *h)
{
    ck_assert_int_eq(pthread_join(h->thread, NULL), 0);
    sem_destroy(&h->begin);
    sem_destroy(&h->done);
}

static void *add_then_delete(void *arg)
{
    struct helper *h = arg;
    sem_wait(&h->begin);
    h->results[0] = asyncore_watch_add(map, h->fd, ASYNCORE_READ, &owner);
    sem_post(&h->done);
    sem_wait(&h->begin);
    h->results[1] = asyncore_watch_del(map, h->fd);
    close(h->fd);
    sem_post(&h->done);
    return NULL;
}

/* The first change is made during a turn, and queued; the second is made between turns. */
START_TEST(changes_made_within_a_turn_and_after_it_keep_their_order)
{
    struct helper h;
    int fds[2];
    unix_pair(fds);
    peer_send(fds[1], "x", 1);
    helper_start(&h, add_then_delete, fds[0]);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, step_in_turn, &h), 0);
    ck_assert_int_eq(asyncore_run_timers(map), 1);
    helper_step(&h);
    ck_assert_int_eq(h.results[0], 0);
    ck_assert_int_eq(h.results[1], 0);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(wait_map(5), 0);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), -EBADF);
    helper_end(&h);
    close(fds[1]);
}
END_TEST

static void *add_one(void *arg)
{
    struct helper *h = arg;
    sem_wait(&h->begin);
    h->results[0] = asyncore_watch_add(map, h->fd, ASYNCORE_READ, &owner);
    sem_post(&h->done);
    return NULL;
}

START_TEST(a_watch_that_came_within_a_turn_shows_on_the_map_descriptor)
{
    struct helper h;
    int fds[2];
    skip_unless_embedded();
    int outer = asyncore_map_fd(map);
    unix_pair(fds);
    peer_send(fds[1], "x", 1);
    helper_start(&h, add_one, fds[0]);
    ck_assert_int_eq(asyncore_call_soon_threadsafe(map, step_in_turn, &h), 0);
    for (int i = 0; i < 5; i++) /* until nothing of the wake-ups is left */
        turn();
    helper_end(&h);
    ck_assert_int_eq(h.results[0], 0);
    ck_assert(readable_now(outer, 300));
    ck_assert_int_eq(wait_map(0), 1);
    ck_assert_ptr_eq(seen[0].owner, &owner);
    ck_assert_int_eq(asyncore_watch_del(map, fds[0]), 0);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

static struct asyncore_map *their_map;

static void stay_in_turn(void *arg)
{
    struct helper *h = arg;
    sem_post(&h->done);
    sem_wait(&h->begin);
}

static void *turn_their_map(void *arg)
{
    struct helper *h = arg;
    h->results[0] = asyncore_call_soon_threadsafe(their_map, stay_in_turn, h);
    h->results[1] = asyncore_poll(their_map, 0);
    return NULL;
}

START_TEST(a_map_in_the_turn_of_another_thread_takes_no_channel)
{
    struct helper h;
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_map_new(&their_map, NULL), 0);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    helper_start(&h, turn_their_map, -1);
    sem_wait(&h.done);
    ck_assert_int_eq(asyncore_add_channel(&p->base, their_map), -EPERM);
    sem_post(&h.begin);
    helper_end(&h);
    ck_assert_int_eq(h.results[0], 0);
    ck_assert_int_ge(h.results[1], 0);
    ck_assert_int_eq(asyncore_add_channel(&p->base, their_map), 0); /* now */
    peer_send(fds[1], "x", 1);
    run_map_until(their_map, p->bytes == 1);
    ck_assert_int_eq(asyncore_map_free(their_map), 0);
    close(fds[1]);
}
END_TEST

static void add_threads(TCase *tests)
{
    tcase_add_test(tests, changes_made_within_a_turn_and_after_it_keep_their_order);
    tcase_add_test(tests, a_watch_that_came_within_a_turn_shows_on_the_map_descriptor);
    tcase_add_test(tests, a_map_in_the_turn_of_another_thread_takes_no_channel);
}

/* -- Channels that outlive their map, or their time in it ---------------------------------------------------------- */

static const struct asyncore_class left_class = {.name = "left"}; /* without destroy */

START_TEST(a_channel_may_be_closed_after_its_map_is_gone)
{
    static struct asyncore_dispatcher d;
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &left_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0);
    ck_assert_int_eq(asyncore_map_free(map), 0);
    map = NULL;
    ck_assert_ptr_null(d.map);
    ck_assert(peer_at_end(fds[1]));
    ck_assert_int_eq(asyncore_close(&d), 0);
    ck_assert_int_eq(asyncore_fini(&d), 0);
    close(fds[1]);
}
END_TEST

START_TEST(want_and_ready_after_the_end_of_a_channel_are_refused)
{
    static struct asyncore_dispatcher d;
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &left_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0);
    if (_i == 0) {
        ck_assert_int_eq(asyncore_fini(&d), 0);
    } else {
        ck_assert_int_eq(asyncore_map_free(map), 0);
        map = NULL;
    }
    ck_assert_int_eq(asyncore_want(&d, ASYNCORE_READ), -EBADF);
    ck_assert_int_eq(asyncore_ready(&d), -EBADF);
    close(fds[1]);
}
END_TEST

/* A name server that never answers. */
static int silent_server(char text[32])
{
    char port[8];
    strcpy(port, "0");
    int listener = peer_listen("127.0.0.1", port);
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&name, &length), 0);
    close(listener);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&name, length), 0);
    snprintf(text, 32, "127.0.0.1:%s", port);
    return fd;
}

START_TEST(map_free_forgets_a_channel_and_a_lookup_in_flight)
{
    static struct asyncore_dispatcher d;
    static struct asyncore_lookup lookup;
    char server[32], bytes[512];
    skip_unless(has_cares(), "no resolver");
    int fd = silent_server(server);
    use_map(&(struct asyncore_map_options){.name_servers = server});
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "lookup.example", "1", AF_INET, never_answered, NULL), 0);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &left_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_UNSPEC, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&d, "connect.example", "1"), 0);
    run_until(readable_now(fd, 0));
    ck_assert_int_gt(recv(fd, bytes, sizeof bytes, 0), 0);
    ck_assert_int_eq(asyncore_map_free(map), 0);
    map = NULL;
    memset(&lookup, 0x55, sizeof lookup); /* it is the caller's again */
    ck_assert_int_eq(asyncore_close(&d), 0);
    ck_assert_int_eq(asyncore_fini(&d), 0);
    close(fd);
}
END_TEST

static void add_gone(TCase *tests)
{
    tcase_add_test(tests, a_channel_may_be_closed_after_its_map_is_gone);
    tcase_add_loop_test(tests, want_and_ready_after_the_end_of_a_channel_are_refused, 0, 2);
    tcase_add_test(tests, map_free_forgets_a_channel_and_a_lookup_in_flight);
}

int main(void)
{
    return run_suite("mended_embed", add_outer, add_waits, add_threads, add_gone, NULL);
}
