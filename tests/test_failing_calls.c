/* engine-independent */
/* test_failing_calls.c: faults that torture (tests/sim/torture.c) found, each as what showed it: a call of the kernel,
 * or an allocation, that failed once. The kernel is the simulated one, and scripts say which call fails. */
#include "map.h"
#include "sim.h"
#include "support.h"
#include <fcntl.h>
#include <netinet/in.h>

static struct asyncore_sim *world;
static struct asyncore_sim_script script;

static void make_world(enum asyncore_sim_call call, uint64_t k, int error, const char *engine)
{
    script = (struct asyncore_sim_script){"host", call, k, error};
    ck_assert_int_eq(asyncore_sim_new(&world, 1,
                                      &((struct asyncore_sim_options){
                                          .engine = engine, .script = &script, .script_count = k > 0 ? 1 : 0})),
                     0);
}

static size_t blocks(void)
{
    struct asyncore_sim_usage usage;
    ck_assert_int_eq(asyncore_sim_usage(world, "host", &usage), 0);
    return usage.blocks;
}

/* -- Memory -- */

START_TEST(a_connect_without_memory_leaves_nothing_behind)
{
    static const struct asyncore_class class_ = {.name = "caller"};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(1)};
    int refused = 0;
    for (uint64_t k = 1; k < 40; k++) {
        struct asyncore_dispatcher d = {.fd = -1};
        make_world(ASYNCORE_SIM_ALLOC, k, -ENOMEM, NULL);
        struct asyncore_map *host = asyncore_sim_map(world, "host");
        if (host != NULL && asyncore_dispatcher_init(&d, &class_, host) == 0) {
            size_t before = blocks();
            int result = asyncore_connect_sockaddr(&d, (struct sockaddr *)&to, sizeof to);
            refused += result == -ENOMEM;
            ck_assert_msg(result != -ENOMEM || blocks() == before, "allocation %d is left", (int)k);
            asyncore_fini(&d);
        }
        asyncore_sim_free(world);
    }
    ck_assert_int_ge(refused, 2);
}
END_TEST

static int complaints;

static void count_complaints(void *arg, const char *type, const char *message)
{
    (void)arg, (void)message;
    complaints += strcmp(type, "error") == 0;
}

static int no_memory(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    (void)address, (void)length;
    asyncore_close_fd(d->map, fd);
    return -ENOMEM;
}

START_TEST(a_client_that_there_is_no_memory_for_is_logged)
{
    static const struct asyncore_class server_class = {.name = "server", .handle_accepted = no_memory};
    static const struct asyncore_class client_class = {.name = "client"};
    static struct asyncore_dispatcher server, client;
    make_world(ASYNCORE_SIM_ANY, 0, 0, NULL);
    struct asyncore_map *host = asyncore_sim_map(world, "host");
    asyncore_set_log(host, count_complaints, NULL);
    ck_assert_int_eq(asyncore_dispatcher_init(&server, &server_class, host), 0);
    ck_assert_int_eq(asyncore_bind(&server, "*", "1"), 0);
    ck_assert_int_eq(asyncore_listen(&server, 1), 0);
    ck_assert_int_eq(asyncore_dispatcher_init(&client, &client_class, asyncore_sim_map(world, "client")), 0);
    ck_assert_int_eq(asyncore_connect(&client, asyncore_sim_address(world, "host", AF_INET), "1"), 0);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(complaints, 1);
    asyncore_fini(&server);
    asyncore_fini(&client);
    asyncore_sim_free(world);
}
END_TEST

static void never(struct asyncore_timer *timer, void *arg)
{
    (void)timer, (void)arg;
    ck_abort_msg("a timer of another time");
}

/* The listener that rests has taken the slot that is kept for it, and there is not one more. */
START_TEST(a_pending_timer_is_set_anew_without_memory)
{
    static const struct asyncore_class server_class = {.name = "server", .handle_accepted = no_memory};
    static const struct asyncore_class client_class = {.name = "client"};
    static struct asyncore_dispatcher server, client;
    static struct asyncore_timer timers[64];
    int count = 0;
    make_world(ASYNCORE_SIM_ALLOC, 1000000, -ENOMEM, NULL);
    struct asyncore_map *host = asyncore_sim_map(world, "host");
    ck_assert_int_eq(asyncore_dispatcher_init(&server, &server_class, host), 0);
    ck_assert_int_eq(asyncore_bind(&server, "*", "1"), 0);
    ck_assert_int_eq(asyncore_listen(&server, 1), 0);
    ck_assert_int_eq(asyncore_dispatcher_init(&client, &client_class, asyncore_sim_map(world, "client")), 0);
    ck_assert_int_eq(asyncore_connect(&client, asyncore_sim_address(world, "host", AF_INET), "1"), 0);
    while (host->heap_count + 2 <= host->heap_room)
        ck_assert_int_eq(asyncore_call_later(host, &timers[count++], 1000, never, NULL), 0);
    asyncore_sim_run(world, ASYNCORE_SIM_MS);
    ck_assert_uint_eq(host->heap_count, host->heap_room); /* it rests */
    struct asyncore_sim_usage usage;
    ck_assert_int_eq(asyncore_sim_usage(world, "host", &usage), 0);
    script.k = usage.calls[ASYNCORE_SIM_ALLOC] + 1;
    ck_assert_int_eq(asyncore_call_later(host, &timers[0], 2000, never, NULL), 0);
    ck_assert_int_eq(asyncore_pending(&timers[0]), 1);
    for (int i = 0; i < count; i++)
        asyncore_cancel(&timers[i]);
    asyncore_fini(&server);
    asyncore_fini(&client);
    asyncore_sim_free(world);
}
END_TEST

/* -- A map inside another loop -- */

static void called(void *arg)
{
    *(bool *)arg = true;
}

static bool readable(struct os *os, int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return os->poll(&one, 1, 0, os) == 1;
}

/* The outer loop hears of what is posted, whichever registration failed: it takes a turn, which tries again. */
START_TEST(a_failed_registration_does_not_silence_the_maps_descriptor)
{
    int made = 0;
    for (uint64_t k = 1; k <= 5; k++) {
        struct asyncore_map *embedded = NULL;
        bool done = false;
        make_world(ASYNCORE_SIM_EPOLL_CTL, k, -ENOMEM, "epoll");
        struct os *os = sim_os(world, "host");
        ck_assert_int_eq(map_new_on(&embedded, os, &((struct asyncore_map_options){.engine = "epoll"})), 0);
        int fd = asyncore_map_fd(embedded);
        if (fd >= 0) {
            made++;
            ck_assert_int_eq(asyncore_call_soon_threadsafe(embedded, called, &done), 0);
            for (int turns = 0; turns < 5 && readable(os, fd) && !done; turns++)
                asyncore_poll(embedded, 0);
            ck_assert_msg(done, "silent after the failure of registration %d", (int)k);
        }
        asyncore_map_free(embedded);
        asyncore_sim_free(world);
    }
    ck_assert_int_ge(made, 2);
}
END_TEST

/* -- Descriptors that may block -- */

START_TEST(a_file_that_cannot_be_made_nonblocking_is_refused)
{
    static const struct asyncore_class class_ = {.name = "file"};
    static const enum asyncore_sim_call calls[] = {ASYNCORE_SIM_GET_FLAGS, ASYNCORE_SIM_SET_FLAGS};
    struct asyncore_file_dispatcher f;
    struct asyncore_sim_usage usage;
    int fds[2];
    make_world(calls[_i], 1, -EACCES, NULL);
    struct asyncore_map *host = asyncore_sim_map(world, "host");
    ck_assert_int_eq(asyncore_sim_pipe(world, "host", fds), 0);
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &class_, host), 0);
    asyncore_sim_usage(world, "host", &usage);
    unsigned before = usage.descriptors;
    ck_assert_int_eq(asyncore_set_file(&f, fds[0]), -EACCES);
    asyncore_sim_usage(world, "host", &usage);
    ck_assert_uint_eq(usage.descriptors, before - 1);
    asyncore_sim_free(world);
}
END_TEST

START_TEST(a_listener_that_cannot_be_made_nonblocking_is_refused)
{
    static const struct asyncore_class class_ = {.name = "listener"};
    static const enum asyncore_sim_call calls[] = {ASYNCORE_SIM_GET_FLAGS, ASYNCORE_SIM_SET_FLAGS};
    struct asyncore_dispatcher d;
    make_world(calls[_i], 1, -EACCES, NULL);
    struct asyncore_map *host = asyncore_sim_map(world, "host");
    struct os *os = sim_os(world, "host");
    int fd = os->socket(AF_INET, SOCK_STREAM, 0, os);
    ck_assert_int_ge(fd, 0);
    sim_file_of((struct sim_host *)os, fd)->flags &= ~O_NONBLOCK;
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, host), 0);
    ck_assert_int_eq(asyncore_set_socket(&d, fd), 0);
    ck_assert_int_eq(asyncore_listen(&d, 5), -EACCES);
    ck_assert_int_eq(asyncore_accepting(&d), 0);
    asyncore_fini(&d);
    asyncore_sim_free(world);
}
END_TEST

static void add_all(TCase *tests)
{
    tcase_add_test(tests, a_connect_without_memory_leaves_nothing_behind);
    tcase_add_test(tests, a_client_that_there_is_no_memory_for_is_logged);
    tcase_add_test(tests, a_pending_timer_is_set_anew_without_memory);
    tcase_add_test(tests, a_failed_registration_does_not_silence_the_maps_descriptor);
    tcase_add_loop_test(tests, a_file_that_cannot_be_made_nonblocking_is_refused, 0, 2);
    tcase_add_loop_test(tests, a_listener_that_cannot_be_made_nonblocking_is_refused, 0, 2);
}

int main(void)
{
    return run_suite("failing_calls", add_all, NULL);
}
