/* test_sim.c: the simulated world as its users see it (asyncore_sim.h): time, links, faults, scripts, what it counts.
 * Whether its sockets behave as Linux's is test_sim_kernel.c's to show. */
#include "asyncore_sim.h"
#include "support.h"
#include <netinet/in.h>
#include <signal.h>

static struct asyncore_sim *world;

static void world_open(uint64_t seed, const struct asyncore_sim_options *options)
{
    asyncore_sim_free(world);
    world = NULL;
    ck_assert_int_eq(asyncore_sim_new(&world, seed, options), 0);
}

static void world_close(void)
{
    asyncore_sim_free(world);
    world = NULL;
}

/* -- A channel that sends so many bytes, counts what comes, and remembers how it ended -- */

struct end {
    struct asyncore_dispatcher base;
    size_t to_send, sent, got;
    bool closes;    /* when it has sent everything: half, and wholly at the peer's end */
    bool connected, ended;
    uint64_t connected_at, ended_at;
    int error;
};

static int end_connect(struct asyncore_dispatcher *d)
{
    struct end *end = (struct end *)d;
    end->connected = true;
    end->connected_at = asyncore_sim_now(world);
    return asyncore_want(d, ASYNCORE_READ | (end->to_send > 0 ? ASYNCORE_WRITE : 0));
}

static int end_read(struct asyncore_dispatcher *d)
{
    const void *data;
    ssize_t n = asyncore_recv_view(d, &data);
    if (n > 0) {
        pattern_check(data, ((struct end *)d)->got, (size_t)n);
        ((struct end *)d)->got += (size_t)n;
    }
    return (int)n;
}

static int end_write(struct asyncore_dispatcher *d)
{
    struct end *end = (struct end *)d;
    char piece[4096];
    size_t size = end->to_send - end->sent < sizeof piece ? end->to_send - end->sent : sizeof piece;
    pattern_fill(piece, end->sent, size);
    ssize_t n = size == 0 ? 0 : asyncore_send(d, piece, size);
    if (n < 0)
        return (int)n;
    end->sent += (size_t)n;
    if (end->sent < end->to_send)
        return 0;
    asyncore_want(d, ASYNCORE_READ);
    return end->closes ? asyncore_shutdown(d, SHUT_WR) : 0;
}

static int end_close(struct asyncore_dispatcher *d)
{
    struct end *end = (struct end *)d;
    end->ended = true;
    end->ended_at = asyncore_sim_now(world);
    end->error = asyncore_error(d);
    return asyncore_close(d);
}

static int end_error(struct asyncore_dispatcher *d, int error)
{
    end_close(d);
    ((struct end *)d)->error = error;
    return 0;
}

static const struct asyncore_class end_class = {
    .name = "end",
    .handle_connect = end_connect,
    .handle_read = end_read,
    .handle_write = end_write,
    .handle_close = end_close,
    .handle_error = end_error,
};

static struct end ends[8]; /* what servers accepted, in that order */
static int accepted;

static int server_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct end *end = &ends[accepted++ % 8];
    (void)address, (void)length;
    asyncore_dispatcher_init(&end->base, &end_class, d->map);
    return asyncore_set_socket(&end->base, fd);
}

static const struct asyncore_class server_class = {.name = "server", .handle_accepted = server_accepted};

static void serve(struct asyncore_dispatcher *server, const char *host, const char *address)
{
    struct asyncore_map *at = asyncore_sim_map(world, host);
    memset(ends, 0, sizeof ends);
    accepted = 0;
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(asyncore_dispatcher_init(server, &server_class, at), 0);
    ck_assert_int_eq(asyncore_create_socket(server, AF_UNSPEC, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_bind(server, address, "7"), 0);
    ck_assert_int_eq(asyncore_listen(server, 16), 0);
}

static void connect_end(struct end *end, const char *host, const char *to, size_t to_send)
{
    struct asyncore_map *at = asyncore_sim_map(world, host);
    ck_assert_ptr_nonnull(at);
    *end = (struct end){.to_send = to_send, .closes = true};
    ck_assert_int_eq(asyncore_dispatcher_init(&end->base, &end_class, at), 0);
    ck_assert_int_eq(asyncore_connect(&end->base, to, "7"), 0);
}

static struct asyncore_sim_usage usage_of(const char *host)
{
    struct asyncore_sim_usage usage;
    ck_assert_int_eq(asyncore_sim_usage(world, host, &usage), 0);
    return usage;
}

/* -- Time -- */

START_TEST(a_handshake_takes_a_round_trip)
{
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, &(struct asyncore_sim_options){.link = {.delay = 10 * ASYNCORE_SIM_MS}});
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 0);
    ck_assert_int_eq(asyncore_sim_run(world, 19 * ASYNCORE_SIM_MS), 1);
    ck_assert(!client.connected);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert(client.connected);
    ck_assert_uint_eq(client.connected_at, 20 * ASYNCORE_SIM_MS);
    ck_assert_uint_eq(asyncore_sim_now(world), ASYNCORE_SIM_SECOND);
    world_close();
}
END_TEST

START_TEST(bandwidth_bounds_a_stream)
{
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, &(struct asyncore_sim_options){.link = {.delay = 1, .bandwidth = 1000000}});
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 1000000);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND / 2);
    ck_assert_uint_gt(ends[0].got, 400000);
    ck_assert_uint_le(ends[0].got, 500000);
    asyncore_sim_run(world, 2 * ASYNCORE_SIM_SECOND);
    ck_assert_uint_eq(ends[0].got, 1000000);
    ck_assert(ends[0].ended && ends[0].error == 0);
    ck_assert_uint_ge(ends[0].ended_at, ASYNCORE_SIM_SECOND);
    world_close();
}
END_TEST

static void count_call(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    ++*(int *)arg;
}

START_TEST(an_hour_of_idle_is_a_few_turns)
{
    struct asyncore_timer timer = {0};
    int calls = 0;
    world_open(1, NULL);
    asyncore_call_later(asyncore_sim_map(world, "host"), &timer, 3600000, count_call, &calls);
    ck_assert_int_eq(asyncore_sim_run(world, 3600 * ASYNCORE_SIM_SECOND - 1), 1);
    ck_assert_int_eq(calls, 0);
    ck_assert_int_eq(asyncore_sim_run(world, 3600 * ASYNCORE_SIM_SECOND + ASYNCORE_SIM_MS), 0);
    ck_assert_int_eq(calls, 1);
    ck_assert_uint_lt(usage_of("host").turns, 10);
    ck_assert_int_eq(asyncore_sim_result(world, "host"), 0);
    world_close();
}
END_TEST

START_TEST(calls_take_the_time_that_they_are_said_to)
{
    struct asyncore_dispatcher server;
    struct end client;
    uint64_t fast, slow;
    for (int i = 0; i < 2; i++) {
        world_open(1, &(struct asyncore_sim_options){.call_ns = i * 100 * ASYNCORE_SIM_US});
        serve(&server, "server", "*");
        connect_end(&client, "client", "server", 200000);
        asyncore_sim_run(world, ASYNCORE_SIM_FOREVER);
        ck_assert_uint_eq(ends[0].got, 200000);
        *(i == 0 ? &fast : &slow) = ends[0].ended_at;
    }
    ck_assert_uint_gt(slow, fast + 2 * ASYNCORE_SIM_MS);
    world_close();
}
END_TEST

START_TEST(a_clock_that_goes_ahead_makes_timers_due)
{
    struct asyncore_timer timer = {0};
    int calls = 0;
    world_open(1, NULL);
    asyncore_call_later(asyncore_sim_map(world, "host"), &timer, 60000, count_call, &calls);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(asyncore_sim_jump(world, "host", 58 * ASYNCORE_SIM_SECOND), 0);
    asyncore_sim_run(world, 2 * ASYNCORE_SIM_SECOND - 1);
    ck_assert_int_eq(calls, 0);
    asyncore_sim_run(world, 2 * ASYNCORE_SIM_SECOND + ASYNCORE_SIM_MS);
    ck_assert_int_eq(calls, 1);
    ck_assert_int_eq(asyncore_sim_jump(world, "nobody", 1), -ENOENT);
    world_close();
}
END_TEST

static void note_call(struct asyncore_sim *at, void *arg)
{
    note("%s@%u", (const char *)arg, (unsigned)(asyncore_sim_now(at) / ASYNCORE_SIM_MS));
}

static void run_inside(struct asyncore_sim *at, void *arg)
{
    struct asyncore_timer *timer = arg;
    static int calls;
    ck_assert_int_eq(asyncore_sim_run(at, ASYNCORE_SIM_FOREVER), -EBUSY);
    asyncore_call_later(asyncore_sim_map(at, "host"), timer, 5, count_call, &calls);
}

START_TEST(at_calls_in_the_order_of_time)
{
    world_open(1, NULL);
    asyncore_sim_at(world, 3 * ASYNCORE_SIM_MS, note_call, (void *)"c");
    asyncore_sim_at(world, 1 * ASYNCORE_SIM_MS, note_call, (void *)"a");
    asyncore_sim_at(world, 3 * ASYNCORE_SIM_MS, note_call, (void *)"d");
    asyncore_sim_at(world, 2 * ASYNCORE_SIM_MS, note_call, (void *)"b");
    ck_assert_int_eq(asyncore_sim_run(world, 2 * ASYNCORE_SIM_MS), 1);
    assert_notes("a@1 b@2");
    ck_assert_int_eq(asyncore_sim_run(world, 4 * ASYNCORE_SIM_MS), 0);
    assert_notes("c@3 d@3");
    asyncore_sim_at(world, 0, note_call, (void *)"late");
    asyncore_sim_run(world, 4 * ASYNCORE_SIM_MS);
    assert_notes("late@4");
    asyncore_sim_at(world, ASYNCORE_SIM_SECOND, note_call, (void *)"never");
    world_close();
    assert_notes("");
}
END_TEST

START_TEST(a_loop_that_ended_begins_anew_after_at)
{
    struct asyncore_timer timer = {0};
    world_open(1, NULL);
    asyncore_sim_map(world, "host");
    ck_assert_int_eq(asyncore_sim_run(world, 1), 0);
    ck_assert_int_eq(asyncore_sim_result(world, "host"), 0);
    asyncore_sim_at(world, 10, run_inside, &timer);
    asyncore_sim_run(world, ASYNCORE_SIM_MS);
    ck_assert_int_eq(asyncore_sim_result(world, "host"), 1);
    ck_assert_int_eq(asyncore_sim_run(world, ASYNCORE_SIM_FOREVER), 0);
    ck_assert_int_eq(asyncore_pending(&timer), 0);
    ck_assert_int_eq(asyncore_sim_result(world, "nobody"), -ENOENT);
    world_close();
}
END_TEST

/* -- Loops -- */

static void stop_map(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    asyncore_stop(arg);
}

START_TEST(a_stopped_loop_has_ended)
{
    struct asyncore_dispatcher server;
    struct asyncore_timer timer = {0};
    world_open(1, NULL);
    serve(&server, "server", "*");
    asyncore_call_later(server.map, &timer, 10, stop_map, server.map);
    ck_assert_int_eq(asyncore_sim_run(world, 5 * ASYNCORE_SIM_MS), 1);
    ck_assert_int_eq(asyncore_sim_result(world, "server"), 1);
    ck_assert_int_eq(asyncore_sim_run(world, 15 * ASYNCORE_SIM_MS), 0);
    ck_assert_int_eq(asyncore_sim_result(world, "server"), 0);
    asyncore_fini(&server);
    world_close();
}
END_TEST

START_TEST(a_loop_of_the_users_own_lets_the_others_run)
{
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, NULL);
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 100000);
    client.closes = true;
    while (ends[0].got < 100000)
        ck_assert_int_ge(asyncore_loop(client.base.map, 1000, 1), 0);
    ck_assert_uint_eq(client.sent, 100000);
    ck_assert_uint_lt(asyncore_sim_now(world), ASYNCORE_SIM_SECOND);
    world_close();
}
END_TEST

START_TEST(a_loop_of_the_users_own_ends_with_its_time)
{
    struct asyncore_dispatcher server;
    world_open(1, NULL);
    serve(&server, "server", "*");
    ck_assert_int_eq(asyncore_loop(server.map, 250, 1), 1);
    ck_assert_uint_eq(asyncore_sim_now(world), 250 * ASYNCORE_SIM_MS);
    ck_assert_int_eq(asyncore_poll(server.map, 0), 0);
    ck_assert_uint_eq(asyncore_sim_now(world), 250 * ASYNCORE_SIM_MS);
    ck_assert_int_eq(asyncore_loop(server.map, -1, 0), -EDEADLK); /* nobody will ever come */
    world_close();
}
END_TEST

static int never_reads(struct asyncore_dispatcher *d)
{
    (void)d;
    return 0;
}

START_TEST(a_loop_that_spins_is_found)
{
    static const struct asyncore_class lazy = {.name = "lazy", .handle_read = never_reads};
    struct asyncore_dispatcher reader;
    struct end client;
    world_open(1, NULL);
    struct asyncore_dispatcher server;
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 10);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(accepted, 1);
    int fds[2];
    ck_assert_int_eq(asyncore_sim_pipe(world, "server", fds), 0);
    struct asyncore_file_dispatcher file;
    asyncore_file_dispatcher_init(&file, &lazy, server.map);
    ck_assert_int_eq(asyncore_set_file(&file, fds[0]), 0);
    asyncore_close_fd(server.map, fds[1]); /* its end is there, and nobody reads it */
    asyncore_dispatcher_init(&reader, &lazy, server.map);
    ck_assert_int_eq(asyncore_sim_run(world, 2 * ASYNCORE_SIM_SECOND), -ELOOP);
    asyncore_fini(&file.base);
    world_close();
}
END_TEST

/* -- Links -- */

START_TEST(an_unreachable_host_is_said_to_be)
{
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, NULL);
    serve(&server, "server", "*");
    asyncore_sim_set_link(world, "client", "server", &(struct asyncore_sim_link){.down = -EHOSTUNREACH});
    connect_end(&client, "client", asyncore_sim_address(world, "server", AF_INET), 1);
    asyncore_sim_run(world, 10 * ASYNCORE_SIM_SECOND);
    ck_assert(client.ended && !client.connected);
    ck_assert_int_eq(client.error, -EHOSTUNREACH);
    world_close();
}
END_TEST

START_TEST(connecting_over_a_dead_link_times_out)
{
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, NULL);
    serve(&server, "server", "*");
    asyncore_sim_set_link(world, NULL, NULL, &(struct asyncore_sim_link){.down = -ETIMEDOUT});
    connect_end(&client, "client", asyncore_sim_address(world, "server", AF_INET), 1);
    asyncore_sim_run(world, 300 * ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(client.error, -ETIMEDOUT);
    ck_assert_uint_eq(client.ended_at, 127 * ASYNCORE_SIM_SECOND);
    world_close();
}
END_TEST

START_TEST(what_a_dead_link_held_up_arrives_when_it_is_back)
{
    static const struct asyncore_sim_link dead = {.down = -ETIMEDOUT}, alive = {.delay = ASYNCORE_SIM_MS};
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, NULL);
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 100000);
    asyncore_sim_run(world, 120 * ASYNCORE_SIM_US); /* connected just now */
    asyncore_sim_set_link(world, "client", "server", &dead);
    asyncore_sim_run(world, 30 * ASYNCORE_SIM_SECOND);
    ck_assert_uint_lt(ends[0].got, 100000);
    asyncore_sim_set_link(world, "client", "server", &alive);
    asyncore_sim_run(world, 120 * ASYNCORE_SIM_SECOND);
    ck_assert_uint_eq(ends[0].got, 100000);
    ck_assert(ends[0].ended && ends[0].error == 0);
    world_close();
}
END_TEST

START_TEST(a_link_dead_for_long_ends_its_connections)
{
    static const struct asyncore_sim_link dead = {.down = -ETIMEDOUT};
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, NULL);
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 100000);
    asyncore_sim_run(world, 120 * ASYNCORE_SIM_US);
    asyncore_sim_set_link(world, "client", NULL, &dead);
    asyncore_sim_run(world, 3600 * ASYNCORE_SIM_SECOND);
    ck_assert(client.ended);
    ck_assert_int_eq(client.error, -ETIMEDOUT);
    ck_assert_uint_gt(client.ended_at, 600 * ASYNCORE_SIM_SECOND);
    world_close();
}
END_TEST

START_TEST(ipv6_and_unix_sockets_connect_too)
{
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, NULL);
    serve(&server, "server", "::");
    connect_end(&client, "client", asyncore_sim_address(world, "server", AF_INET6), 5000);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert_uint_eq(ends[0].got, 5000);
    world_open(1, NULL);
    serve(&server, "server", "unix:/run/echo");
    connect_end(&client, "server", "unix:/run/echo", 300000);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert_uint_eq(ends[0].got, 300000);
    ck_assert(ends[0].ended && ends[0].error == 0);
    world_close();
}
END_TEST

/* -- Datagrams -- */

struct udp {
    struct asyncore_dispatcher base;
    int packets, last, disorder;
};

static int udp_read(struct asyncore_dispatcher *d)
{
    struct udp *udp = (struct udp *)d;
    int number;
    ssize_t n = asyncore_recvfrom(d, &number, sizeof number, NULL, NULL);
    if (n != sizeof number)
        return (int)n;
    udp->packets++;
    udp->disorder += number < udp->last;
    udp->last = number;
    return 0;
}

static struct udp udp_run(const struct asyncore_sim_link *link)
{
    static const struct asyncore_class udp_class = {.name = "udp", .handle_read = udp_read};
    struct udp sink = {.last = -1}, source = {.last = -1};
    struct sockaddr_storage to;
    socklen_t length;
    world_open(7, &(struct asyncore_sim_options){.link = *link, .receive_buffer = 1 << 20});
    asyncore_dispatcher_init(&sink.base, &udp_class, asyncore_sim_map(world, "sink"));
    asyncore_dispatcher_init(&source.base, &udp_class, asyncore_sim_map(world, "source"));
    ck_assert_int_eq(asyncore_create_socket(&sink.base, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_bind(&sink.base, "*", "9"), 0);
    ck_assert_int_eq(asyncore_create_socket(&source.base, AF_INET, SOCK_DGRAM), 0);
    asyncore_parse_address(asyncore_sim_address(world, "sink", AF_INET), "9", &to, &length);
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(asyncore_sendto(&source.base, &i, sizeof i, (struct sockaddr *)&to, length), sizeof i);
        asyncore_sim_run(world, asyncore_sim_now(world) + 10 * ASYNCORE_SIM_US);
    }
    asyncore_sim_run(world, asyncore_sim_now(world) + ASYNCORE_SIM_SECOND);
    struct udp result = sink;
    world_close();
    return result;
}

START_TEST(datagrams_are_lost_doubled_and_overtaken)
{
    struct udp clean = udp_run(&(struct asyncore_sim_link){.delay = 1000});
    struct udp loss = udp_run(&(struct asyncore_sim_link){.delay = 1000, .loss = 200000});
    struct udp copy = udp_run(&(struct asyncore_sim_link){.delay = 1000, .copy = 200000});
    struct udp overtake = udp_run(&(struct asyncore_sim_link){.delay = 1000, .overtake = 200000});
    ck_assert_int_eq(clean.packets, 1000);
    ck_assert_int_eq(clean.disorder, 0);
    ck_assert_int_gt(loss.packets, 700);
    ck_assert_int_lt(loss.packets, 900);
    ck_assert_int_gt(copy.packets, 1100);
    ck_assert_int_lt(copy.packets, 1300);
    ck_assert_int_eq(overtake.packets, 1000);
    ck_assert_int_gt(overtake.disorder, 50);
}
END_TEST

/* -- Signals, pipes, names -- */

static void signal_came(struct asyncore_signal *signal, int number, void *arg)
{
    ++*(int *)arg;
    ck_assert_int_eq(number, SIGUSR1);
    asyncore_close(&signal->base);
}

START_TEST(a_raised_signal_reaches_its_channel)
{
    struct asyncore_signal signal;
    int came = 0;
    world_open(1, NULL);
    ck_assert_int_eq(asyncore_signal_init(&signal, asyncore_sim_map(world, "host"), SIGUSR1, signal_came, &came), 0);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(asyncore_sim_raise(world, "host", SIGUSR2), 0);
    asyncore_sim_run(world, 2 * ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(came, 0);
    ck_assert_int_eq(asyncore_sim_raise(world, "host", SIGUSR1), 0);
    ck_assert_int_eq(asyncore_sim_run(world, 3 * ASYNCORE_SIM_SECOND), 0);
    ck_assert_int_eq(came, 1);
    ck_assert_int_eq(asyncore_sim_result(world, "host"), 0);
    ck_assert_int_eq(asyncore_sim_raise(world, "nobody", SIGUSR1), -ENOENT);
    world_close();
}
END_TEST

static int lookup_error;
static size_t lookup_count;
static uint64_t lookup_time;

static void looked_up(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses, size_t count,
                      void *arg)
{
    (void)lookup, (void)addresses, (void)arg;
    lookup_error = error;
    lookup_count = count;
    lookup_time = asyncore_sim_now(world);
}

static int look_up(const char *name, int family)
{
    struct asyncore_lookup lookup = {0};
    uint64_t begin = asyncore_sim_now(world);
    lookup_error = 1;
    lookup_count = 0;
    ck_assert_int_eq(asyncore_resolve(asyncore_sim_map(world, "host"), &lookup, name, "80", family, looked_up, NULL), 0);
    asyncore_sim_run(world, begin + 60 * ASYNCORE_SIM_SECOND);
    lookup_time -= begin;
    return lookup_error;
}

START_TEST(names_are_what_was_set)
{
    world_open(1, NULL);
    asyncore_sim_set_name(world, "web.example", "10.0.0.9,fd00::9,10.0.0.8", 300, 40 * ASYNCORE_SIM_MS, 0);
    asyncore_sim_set_name(world, "slow.example", NULL, 0, 10 * ASYNCORE_SIM_SECOND, ASYNCORE_ENAMESERVER);
    ck_assert_int_eq(look_up("WEB.example", AF_UNSPEC), 0);
    ck_assert_uint_eq(lookup_count, 3);
    ck_assert_uint_eq(lookup_time, 40 * ASYNCORE_SIM_MS);
    ck_assert_int_eq(look_up("web.example", AF_INET6), 0);
    ck_assert_uint_eq(lookup_count, 1);
    ck_assert_int_eq(look_up("slow.example", AF_UNSPEC), ASYNCORE_ENAMESERVER);
    ck_assert_uint_eq(lookup_time, 10 * ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(look_up("nobody.example", AF_UNSPEC), ASYNCORE_ENONAME);
    asyncore_sim_set_name(world, "slow.example", "10.0.0.7", 1, 0, 0);
    ck_assert_int_eq(look_up("slow.example", AF_INET), 0);
    ck_assert_int_eq(look_up("slow.example", AF_INET6), ASYNCORE_ENONAME);
    ck_assert_int_eq(look_up("host", AF_INET), 0);
    ck_assert_uint_eq(lookup_time, 0);
    ck_assert_int_eq(look_up("localhost", AF_UNSPEC), 0);
    ck_assert_uint_eq(lookup_count, 2);
    ck_assert_int_lt(asyncore_sim_set_name(world, "x", "no address", 0, 0, 0), 0);
    world_close();
}
END_TEST

/* -- Faults -- */

static uint64_t keys[4096];
static size_t key_count;
static uint64_t trace_hash;

static void fault_seen(void *arg, uint64_t key, const char *line)
{
    (void)arg;
    ck_assert_ptr_nonnull(strstr(line, "#"));
    if (key_count < COUNT(keys))
        keys[key_count++] = key;
}

static void trace_seen(void *arg, const char *line)
{
    (void)arg;
    for (; *line != '\0'; line++)
        trace_hash = (trace_hash ^ (unsigned char)*line) * 0x100000001B3u; /* FNV-1a */
}

static uint64_t run_with_faults(uint64_t seed, const uint64_t *only, size_t count)
{
    static const unsigned often = 100000;
    struct asyncore_sim_options options = {.link = {.delay = 5000, .jitter = 3000}, .trace = trace_seen,
                                           .fault = fault_seen, .only = only, .only_count = count,
                                           .chances = {often, often, often, often, often, often}};
    struct asyncore_dispatcher server;
    struct end client;
    key_count = 0;
    trace_hash = 0xCBF29CE484222325u;
    world_open(seed, &options);
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 50000);
    asyncore_sim_run(world, 10 * ASYNCORE_SIM_SECOND);
    ck_assert_uint_eq(ends[0].got, 50000); /* soft faults: nothing is lost */
    ck_assert(ends[0].ended && ends[0].error == 0);
    world_close();
    return trace_hash;
}

START_TEST(one_seed_is_one_run)
{
    uint64_t hashes[20];
    for (unsigned seed = 0; seed < 20; seed++) {
        hashes[seed] = run_with_faults(seed, NULL, 0);
        ck_assert_uint_gt(key_count, 0);
        ck_assert_uint_eq(run_with_faults(seed, NULL, 0), hashes[seed]);
        for (unsigned other = 0; other < seed; other++)
            ck_assert_uint_ne(hashes[seed], hashes[other]);
    }
}
END_TEST

START_TEST(faults_can_be_left_out_of_a_run)
{
    uint64_t all[COUNT(keys)], none = 0, hash = run_with_faults(3, NULL, 0);
    size_t count = key_count;
    ck_assert_uint_gt(count, 3);
    memcpy(all, keys, count * sizeof *all);
    ck_assert_uint_eq(run_with_faults(3, all, count), hash);
    ck_assert_uint_eq(key_count, count);
    run_with_faults(3, &none, 0);
    ck_assert_uint_eq(key_count, 0);
    run_with_faults(3, all, 1);
    ck_assert_uint_eq(key_count, 1);
    ck_assert_uint_eq(keys[0], all[0]);
}
END_TEST

START_TEST(faults_end_when_they_are_said_to)
{
    struct asyncore_sim_options options = {.faults_until = 1, .fault = fault_seen, .chances = {1000000, 500000}};
    struct asyncore_dispatcher server;
    struct end client;
    key_count = 0;
    world_open(1, &options);
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 20000);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert_uint_eq(ends[0].got, 20000);
    ck_assert_uint_le(key_count, 2); /* of the first look for clients */
    world_close();
}
END_TEST

START_TEST(a_reset_by_fault_reaches_both_ends)
{
    struct asyncore_sim_options options = {.link = {.delay = 1000}};
    struct asyncore_dispatcher server;
    struct end client;
    options.chances[ASYNCORE_SIM_RESET] = 1000000;
    world_open(1, &options);
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 100000);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert(client.ended && ends[0].ended);
    ck_assert_int_eq(client.error, -ECONNRESET);
    ck_assert_int_eq(ends[0].error, -ECONNRESET);
    world_close();
}
END_TEST

START_TEST(a_script_strikes_its_kth_call)
{
    static const struct asyncore_sim_script script[] = {{"server", ASYNCORE_SIM_RECV, 3, -ECONNRESET},
                                                        {"client", ASYNCORE_SIM_CONNECT, 1, -ENETUNREACH}};
    struct asyncore_sim_options options = {.script = script, .script_count = 1};
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, &options);
    serve(&server, "server", "*");
    connect_end(&client, "client", "server", 1000000);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert(ends[0].ended);
    ck_assert_int_eq(ends[0].error, -ECONNRESET);
    ck_assert_uint_eq(usage_of("server").calls[ASYNCORE_SIM_RECV], 3);
    options.script_count = 2;
    world_open(1, &options);
    serve(&server, "server", "*");
    connect_end(&client, "client", asyncore_sim_address(world, "server", AF_INET), 1);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(client.error, -ENETUNREACH);
    world_close();
}
END_TEST

START_TEST(a_script_for_any_call_counts_them_all)
{
    struct asyncore_sim_script script = {"host", ASYNCORE_SIM_ANY, 1, -EMFILE};
    struct asyncore_sim_options options = {.script = &script, .script_count = 1};
    world_open(1, &options);
    ck_assert_ptr_null(asyncore_sim_map(world, "host"));
    ck_assert_uint_eq(usage_of("host").blocks, 0);
    ck_assert_uint_eq(usage_of("host").descriptors, 0);
    ck_assert_ptr_nonnull(asyncore_sim_map(world, "host"));
    script = (struct asyncore_sim_script){NULL, ASYNCORE_SIM_ALLOC, 2, -ENOMEM};
    world_open(1, &options);
    ck_assert_ptr_null(asyncore_sim_map(world, "host"));
    ck_assert_uint_eq(usage_of("host").blocks, 0);
    world_close();
}
END_TEST

START_TEST(descriptors_run_out_and_come_back)
{
    struct asyncore_dispatcher server;
    struct end clients[4];
    world_open(1, NULL);
    serve(&server, "server", "*");
    unsigned base = usage_of("server").descriptors;
    asyncore_sim_set_descriptors(world, "server", base + 2);
    for (int i = 0; i < 4; i++) {
        connect_end(&clients[i], "client", "server", 0);
        clients[i].closes = false;
    }
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(accepted, 2);
    ck_assert_uint_eq(usage_of("server").descriptors, base + 2);
    asyncore_close(&ends[0].base);
    asyncore_sim_run(world, 2 * ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(accepted, 3);
    asyncore_sim_set_descriptors(world, "server", base + 10);
    asyncore_sim_run(world, 3 * ASYNCORE_SIM_SECOND);
    ck_assert_int_eq(accepted, 4);
    world_close();
}
END_TEST

START_TEST(everything_is_given_back)
{
    struct asyncore_dispatcher server;
    struct end client;
    world_open(1, NULL);
    serve(&server, "server", "*");
    struct asyncore_sim_usage before = usage_of("server");
    ck_assert_uint_gt(before.bytes, 0);
    connect_end(&client, "client", "server", 500000);
    asyncore_sim_run(world, ASYNCORE_SIM_SECOND);
    asyncore_shutdown(&ends[0].base, SHUT_WR);
    asyncore_sim_run(world, 2 * ASYNCORE_SIM_SECOND);
    ck_assert(ends[0].ended);
    struct asyncore_sim_usage after = usage_of("server");
    ck_assert_uint_eq(after.descriptors, before.descriptors);
    ck_assert_uint_ge(after.bytes_most, after.bytes);
    ck_assert_uint_gt(after.calls[ASYNCORE_SIM_RECV], 5);
    ck_assert_uint_ge(after.calls[ASYNCORE_SIM_ANY], after.calls[ASYNCORE_SIM_RECV] + after.turns);
    ck_assert_int_eq(asyncore_sim_usage(world, "nobody", &after), -ENOENT);
    ck_assert_int_eq(asyncore_sim_map_free(world, "server"), 0);
    ck_assert_int_eq(asyncore_sim_map_free(world, "server"), -ENOENT);
    ck_assert_int_eq(asyncore_sim_map_free(world, "nobody"), -ENOENT);
    after = usage_of("server");
    ck_assert_uint_eq(after.descriptors, 0);
    ck_assert_uint_eq(after.blocks, 0);
    ck_assert_uint_eq(after.bytes, 0);
    world_close();
}
END_TEST

START_TEST(wrong_arguments_are_refused)
{
    struct asyncore_sim_options options = {.engine = "kqueue"};
    struct asyncore_sim *none = NULL;
    ck_assert_int_eq(asyncore_sim_new_(&none, 1, &options, sizeof options - 1, ASYNCORE_ABI), -EINVAL);
    ck_assert_int_eq(asyncore_sim_new_(&none, 1, &options, sizeof options, ASYNCORE_ABI + 1), -EINVAL);
    ck_assert_ptr_null(none);
    asyncore_sim_free(NULL);
    world_open(1, &options);
    ck_assert_ptr_null(asyncore_sim_map(world, "host"));
    ck_assert_str_eq(asyncore_sim_address(world, "host", AF_INET), "10.0.0.1");
    ck_assert_str_eq(asyncore_sim_address(world, "next", AF_INET6), "fd00::2");
    world_close();
    ck_assert_str_eq(asyncore_sim_fault_name(ASYNCORE_SIM_NAMES), "names");
    ck_assert_ptr_null(asyncore_sim_fault_name(ASYNCORE_SIM_FAULTS));
    ck_assert_str_eq(asyncore_sim_call_name(ASYNCORE_SIM_NAMES_START), "names_start");
    ck_assert_ptr_null(asyncore_sim_call_name(ASYNCORE_SIM_CALLS));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_handshake_takes_a_round_trip);
    tcase_add_test(tests, bandwidth_bounds_a_stream);
    tcase_add_test(tests, an_hour_of_idle_is_a_few_turns);
    tcase_add_test(tests, calls_take_the_time_that_they_are_said_to);
    tcase_add_test(tests, a_clock_that_goes_ahead_makes_timers_due);
    tcase_add_test(tests, at_calls_in_the_order_of_time);
    tcase_add_test(tests, a_loop_that_ended_begins_anew_after_at);
    tcase_add_test(tests, a_stopped_loop_has_ended);
    tcase_add_test(tests, a_loop_of_the_users_own_lets_the_others_run);
    tcase_add_test(tests, a_loop_of_the_users_own_ends_with_its_time);
    tcase_add_test(tests, a_loop_that_spins_is_found);
    tcase_add_test(tests, an_unreachable_host_is_said_to_be);
    tcase_add_test(tests, connecting_over_a_dead_link_times_out);
    tcase_add_test(tests, what_a_dead_link_held_up_arrives_when_it_is_back);
    tcase_add_test(tests, a_link_dead_for_long_ends_its_connections);
    tcase_add_test(tests, ipv6_and_unix_sockets_connect_too);
    tcase_add_test(tests, datagrams_are_lost_doubled_and_overtaken);
    tcase_add_test(tests, a_raised_signal_reaches_its_channel);
    tcase_add_test(tests, names_are_what_was_set);
    tcase_add_test(tests, one_seed_is_one_run);
    tcase_add_test(tests, faults_can_be_left_out_of_a_run);
    tcase_add_test(tests, faults_end_when_they_are_said_to);
    tcase_add_test(tests, a_reset_by_fault_reaches_both_ends);
    tcase_add_test(tests, a_script_strikes_its_kth_call);
    tcase_add_test(tests, a_script_for_any_call_counts_them_all);
    tcase_add_test(tests, descriptors_run_out_and_come_back);
    tcase_add_test(tests, everything_is_given_back);
    tcase_add_test(tests, wrong_arguments_are_refused);
}

int main(void)
{
    return run_suite("sim", add, NULL);
}
