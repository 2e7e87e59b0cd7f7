/* engine-independent */
/* test_forward_service.c: rules and drains of the forwarder (portforward/rule.c, service.c) when there is no memory for a
 * timer, in simulated time. The two files are compiled into this one: their timers can fail. */
/* portforward: access.c config.c config_file.c config_option.c config_rule.c */
/* portforward: flow.c limits.c listener.c log.c notify.c pair.c pool.c remote.c */
#include "asyncore.h"
#include <errno.h>
#include <stdbool.h>

static bool timers_fail;

static int test_call_later(struct asyncore_map *map, struct asyncore_timer *timer, uint64_t milliseconds,
                           void (*function)(struct asyncore_timer *timer, void *arg), void *arg)
{
    return timers_fail ? -ENOMEM : asyncore_call_later(map, timer, milliseconds, function, arg);
}

#define asyncore_call_later test_call_later
#include "../portforward/rule.c"
#include "../portforward/service.c"
#undef asyncore_call_later

#include "asyncore_sim.h"
#include "support.h"

enum { CLIENTS = 3 };

static struct asyncore_sim *world;
static struct log *log_;
static struct service *service;
static struct config config;
static struct asyncore_dispatcher server, accepted_ends[CLIENTS], clients[CLIENTS];
static unsigned accepted_count, drained_count;

/* -- Hosts -- */

static int peer_read(struct asyncore_dispatcher *d)
{
    char bytes[16];
    ssize_t n = asyncore_recv(d, bytes, sizeof bytes);
    return n < 0 ? (int)n : 0;
}

static int client_closed(struct asyncore_dispatcher *d)
{
    note("%d.", (int)(d - clients));
    asyncore_close(d);
    return 0;
}

static int client_failed(struct asyncore_dispatcher *d, int error)
{
    (void)error;
    return client_closed(d);
}

static const struct asyncore_class client_class = {
    .name = "client",
    .handle_read = peer_read,
    .handle_close = client_closed,
    .handle_error = client_failed,
};

static const struct asyncore_class end_class = {.name = "end", .handle_read = peer_read};

static int server_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *from, socklen_t length)
{
    struct asyncore_dispatcher *end = &accepted_ends[accepted_count++];

    (void)from, (void)length;
    ck_assert_int_eq(asyncore_dispatcher_init(end, &end_class, d->map), 0);
    return asyncore_set_socket(end, fd);
}

static const struct asyncore_class server_class = {.name = "server", .handle_accepted = server_accepted};

static void connect_client(int number)
{
    struct asyncore_dispatcher *client = &clients[number];

    ck_assert_int_eq(asyncore_dispatcher_init(client, &client_class, asyncore_sim_map(world, "client")), 0);
    ck_assert_int_eq(asyncore_connect(client, asyncore_sim_address(world, "here", AF_INET), "80"), 0);
}

static void run_to(double seconds)
{
    ck_assert_int_ge(asyncore_sim_run(world, (uint64_t)(seconds * 1e9)), 0);
}

/* -- Around a test -- */

static void drained_now(void *arg)
{
    (void)arg;
    drained_count++;
}

static void log_line(void *arg, const char *text)
{
    (void)arg, (void)text;
}

static void begin(const char *options)
{
    struct asyncore_map *here;
    struct service_options wanted = {.max = 10, .drained = drained_now};
    char rule[256];

    timers_fail = false;
    accepted_count = drained_count = 0;
    ck_assert_int_eq(asyncore_sim_new(&world, 1, NULL), 0);
    here = asyncore_sim_map(world, "here");
    ck_assert_int_eq(asyncore_dispatcher_init(&server, &server_class, asyncore_sim_map(world, "server")), 0);
    ck_assert_int_eq(asyncore_bind(&server, asyncore_sim_address(world, "server", AF_INET), "90"), 0);
    ck_assert_int_eq(asyncore_listen(&server, 10), 0);
    snprintf(rule, sizeof rule, "%s 80 %s 90 %s", asyncore_sim_address(world, "here", AF_INET),
             asyncore_sim_address(world, "server", AF_INET), options);
    config_init(&config, NULL, NULL, NULL);
    ck_assert_int_eq(config_line(&config, "test", rule), 0);
    ck_assert_int_eq(log_open(&log_, here, &(struct log_options){.line = log_line}), 0);
    wanted.log = log_;
    ck_assert_int_eq(service_new(&service, here, &wanted), 0);
    ck_assert_int_eq(service_apply(service, &config), 0);
}

static void end(void)
{
    service_free(service);
    log_close(log_);
    config_free(&config);
    asyncore_sim_free(world);
}

/* -- Without memory for a timer -- */

START_TEST(test_a_drain_without_a_timer_ends)
{
    begin("");
    connect_client(0);
    run_to(1);
    ck_assert_uint_eq(service_connections(service), 1);
    timers_fail = true;
    service_drain(service, 5000);
    run_to(2);
    ck_assert_uint_eq(service_connections(service), 0);
    ck_assert_uint_eq(drained_count, 1);
    assert_notes("0.");
    end();
}
END_TEST

START_TEST(test_a_rate_without_a_timer_reads_again)
{
    begin("[rate=1]");
    timers_fail = true;
    connect_client(0);
    run_to(5);
    connect_client(1);
    run_to(5.1);
    ck_assert_uint_eq(accepted_count, 2);
    assert_notes("");
    connect_client(2); /* too early */
    run_to(5.2);
    ck_assert_uint_eq(accepted_count, 2);
    assert_notes("2.");
    end();
}
END_TEST

static void add_tests(TCase *tests)
{
    tcase_add_test(tests, test_a_drain_without_a_timer_ends);
    tcase_add_test(tests, test_a_rate_without_a_timer_reads_again);
}

int main(void)
{
    return run_suite("forward_service", add_tests, NULL);
}
