/* test_calls.c: which system calls a connection costs, and that those left out were not needed. The kernel is the real
 * one, behind a table that counts. */
#include "asyncore_sim.h"
#include "map.h"
#include "support.h"
#include <netinet/in.h>
#include <sys/wait.h>
#include <unistd.h>

static struct os counting;
static struct {
    int sets, adds, mods, dels, closes, connects, questions, accepts;
} calls;

static int count_set(struct os *os)
{
    calls.sets++;
    return os_linux.epoll_create(os);
}

static int count_control(int set, int op, int fd, struct epoll_event *event, struct os *os)
{
    calls.adds += op == EPOLL_CTL_ADD;
    calls.mods += op == EPOLL_CTL_MOD;
    calls.dels += op == EPOLL_CTL_DEL;
    return os_linux.epoll_ctl(set, op, fd, event, os);
}

static int count_close(int fd, struct os *os)
{
    calls.closes++;
    return os_linux.close(fd, os);
}

static int count_connect(int fd, const struct sockaddr *address, socklen_t length, struct os *os)
{
    calls.connects++;
    return os_linux.connect(fd, address, length, os);
}

static int count_question(int fd, int level, int option, void *value, socklen_t *length, struct os *os)
{
    calls.questions++;
    return os_linux.getsockopt(fd, level, option, value, length, os);
}

static int count_accept(int fd, struct sockaddr *address, socklen_t *length, struct os *os)
{
    calls.accepts++;
    return os_linux.accept(fd, address, length, os);
}

static void forget_calls(void)
{
    memset(&calls, 0, sizeof calls);
}

/* The map of the test counts from here on. */
static void count_calls(void)
{
    counting = os_linux;
    counting.epoll_create = count_set;
    counting.epoll_ctl = count_control;
    counting.close = count_close;
    counting.connect = count_connect;
    counting.accept = count_accept;
    counting.getsockopt = count_question;
    ck_assert_int_eq(asyncore_map_free(map), 0);
    map = NULL;
    ck_assert_int_eq(map_new_on(&map, &counting, NULL), 0);
    forget_calls();
}

static int of_epoll(int count)
{
    return engine_is("epoll") ? count : 0;
}

/* -- Closing -- */

START_TEST(what_the_library_closes_is_not_taken_out_before)
{
    int peer;
    count_calls();
    struct probe *p = probe_with_peer(&probe_class, &peer);
    turn();
    forget_calls();
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert_int_eq(calls.closes, 1);
    ck_assert_int_eq(calls.dels, 0);
    close(peer);
}
END_TEST

START_TEST(what_others_close_is_taken_out)
{
    int peer;
    count_calls();
    struct probe *p = probe_with_peer(&probe_class, &peer);
    int fd = p->base.fd;
    turn();
    forget_calls();
    if (_i == 0) {
        asyncore_set_borrowed(&p->base);
        ck_assert_int_eq(asyncore_close(&p->base), 0);
    } else {
        ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    }
    ck_assert_int_eq(calls.closes, 0);
    ck_assert_int_eq(calls.dels, of_epoll(1));
    peer_send(peer, "x", 1);
    assert_idle_for(50);
    ck_assert_int_eq(calls.sets, 0); /* the kernel had nothing to say of it */
    if (_i == 0)
        close(fd);
    else
        asyncore_close(&p->base);
    close(peer);
}
END_TEST

/* Each round leaves an open file in epoll's set that cannot be taken out any more, if it was not before. */
START_TEST(duplicates_of_what_was_closed_cost_one_new_set)
{
    int copies[8], peers[8], other;
    count_calls();
    struct probe *last = probe_with_peer(&probe_class, &other);
    for (size_t i = 0; i < COUNT(copies); i++) {
        struct probe *p = probe_with_peer(&probe_class, &peers[i]);
        turn();
        copies[i] = dup(p->base.fd);
        ck_assert_int_eq(asyncore_close(&p->base), 0);
        peer_send(peers[i], "x", 1);
        run_for(10);
        ck_assert_int_eq(p->reads, 0);
    }
    assert_idle_for(50);
    ck_assert_int_eq(calls.sets, of_epoll(1));
    peer_send(other, "x", 1);
    run_until(last->bytes == 1);
    for (size_t i = 0; i < COUNT(copies); i++) {
        close(copies[i]);
        close(peers[i]);
    }
    close(other);
}
END_TEST

/* Closed in its own handler, with a change that was not brought to the kernel yet, and succeeded at once. */
static int succeed(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d), *next = p->other;
    int fd = d->fd, fds[2];
    if (fd < 0)
        return 0;
    ck_assert_int_eq(asyncore_want(d, ASYNCORE_READ | ASYNCORE_WRITE), 0);
    p->number = dup(fd);
    ck_assert_int_eq(asyncore_close(d), 0);
    unix_pair(fds);
    ck_assert_int_eq(fds[0], fd);
    ck_assert_int_eq(asyncore_set_socket(&next->base, fds[0]), 0);
    next->number = fds[1];
    return 0;
}

START_TEST(a_number_used_again_in_the_same_turn_gets_its_own_events_only)
{
    static const struct asyncore_class class_ = {.name = "first", .parent = &probe_class, .handle_read = succeed};
    int peer;
    count_calls();
    struct probe *first = probe_with_peer(&class_, &peer), *next = probe_new(&probe_class, "");
    first->other = next;
    turn();
    forget_calls();
    peer_send(peer, "x", 1); /* stays unread */
    run_until(next->base.fd >= 0);
    assert_idle_for(50);
    ck_assert_int_eq(calls.mods, 0);
    ck_assert_int_eq(next->reads, 0);
    ck_assert_int_eq(next->writes, 0);
    peer_send(next->number, "yz", 2);
    run_until(next->bytes == 2);
    ck_assert_int_eq(memcmp(next->input, "yz", 2), 0);
    close(first->number);
    close(next->number);
    close(peer);
}
END_TEST

START_TEST(a_file_that_comes_back_to_its_number_is_the_new_channels)
{
    int fds[2];
    count_calls();
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]), *q = probe_new(&probe_class, "");
    turn();
    int copy = dup(fds[0]);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert_int_eq(dup2(copy, fds[0]), fds[0]);
    ck_assert_int_eq(asyncore_set_socket(&q->base, fds[0]), 0);
    turn();
    peer_send(fds[1], "x", 1);
    run_until(q->bytes == 1);
    ck_assert_int_eq(p->reads, 0);
    ck_assert_int_eq(asyncore_close(&q->base), 0);
    peer_send(fds[1], "y", 1);
    assert_idle_for(50);
    ck_assert_int_eq(calls.sets, of_epoll(1));
    close(copy);
    close(fds[1]);
}
END_TEST

/* A child of fork() that has copies of every descriptor, until `release` is closed. */
static pid_t child_with_copies(int *release)
{
    int ends[2];
    char byte;
    ck_assert_int_eq(pipe(ends), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[1]);
        leave_child(read(ends[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(ends[0]);
    *release = ends[1];
    return pid;
}

START_TEST(what_a_child_keeps_open_is_nobodys_in_the_parent)
{
    int peer, other, release, status;
    count_calls();
    struct probe *p = probe_with_peer(&probe_class, &peer), *q = probe_with_peer(&probe_class, &other);
    turn();
    forget_calls();
    pid_t pid = child_with_copies(&release);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    peer_send(peer, "x", 1);
    assert_idle_for(50);
    ck_assert_int_eq(p->reads, 0);
    ck_assert_int_eq(calls.sets, of_epoll(1));
    peer_send(other, "x", 1);
    run_until(q->bytes == 1);
    close(release);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert(peer_reset_came(peer)); /* the last copy is gone, and a byte unread */
    close(peer);
    close(other);
}
END_TEST

/* A child that takes the map over shares every file with its parent, and takes them out. */
START_TEST(a_child_that_takes_the_map_over_needs_no_second_set)
{
    int peer, status;
    count_calls();
    struct probe *p = probe_with_peer(&probe_class, &peer);
    turn();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        forget_calls();
        bool right = asyncore_after_fork(map) == 0 && asyncore_close(&p->base) == 0 && write(peer, "x", 1) == 1;
        for (int i = 0; i < 3; i++)
            right = right && asyncore_poll(map, 10) >= 0;
        leave_child(right && calls.sets == of_epoll(1) ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    run_until(p->bytes == 1);
    close(peer);
}
END_TEST

static void add_closing(TCase *tests)
{
    tcase_add_test(tests, what_the_library_closes_is_not_taken_out_before);
    tcase_add_loop_test(tests, what_others_close_is_taken_out, 0, 2);
    tcase_add_test(tests, duplicates_of_what_was_closed_cost_one_new_set);
    tcase_add_test(tests, a_number_used_again_in_the_same_turn_gets_its_own_events_only);
    tcase_add_test(tests, a_file_that_comes_back_to_its_number_is_the_new_channels);
    tcase_add_test(tests, what_a_child_keeps_open_is_nobodys_in_the_parent);
    tcase_add_test(tests, a_child_that_takes_the_map_over_needs_no_second_set);
}

/* -- Clients -- */

static int hand_over(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    (void)address, (void)length;
    return asyncore_set_socket(&probe_of(d)->other->base, fd);
}

static const struct asyncore_class host_class = {
    .name = "host", .parent = &probe_class, .handle_accepted = hand_over};

/* A listener whose client, or whose clients, are for p. */
static void host_of(const struct asyncore_class *class_, struct probe *p, bool made_elsewhere, char port[8])
{
    struct probe *host = probe_new(class_, "host");
    host->other = p;
    strcpy(port, "0");
    if (made_elsewhere) {
        ck_assert_int_eq(asyncore_set_socket(&host->base, peer_listen("127.0.0.1", port)), 0);
    } else {
        ck_assert_int_eq(asyncore_bind(&host->base, "127.0.0.1", "0"), 0);
        channel_port(&host->base, port);
    }
    ck_assert_int_eq(asyncore_listen(&host->base, 128), 0);
}

/* _i: how it ends, and who made the listener */
START_TEST(a_clients_end_asks_nothing)
{
    char port[8];
    count_calls();
    struct probe *p = probe_new(&probe_class, "");
    host_of(&host_class, p, _i & 2, port);
    forget_calls();
    int peer = peer_connect("127.0.0.1", port);
    run_until(p->base.fd >= 0);
    if (_i & 1)
        peer_reset(peer);
    else
        close(peer);
    run_until(p->destroys == 1);
    ck_assert_int_eq(p->closes, 1);
    ck_assert_int_eq(calls.questions, 0);
}
END_TEST

START_TEST(a_listener_from_elsewhere_is_asked_once)
{
    char port[8];
    count_calls();
    host_of(&host_class, probe_new(&probe_class, ""), true, port);
    ck_assert_int_eq(calls.questions, 1);
}
END_TEST

static int empty_sender;

/* The client is turned away, and a datagram socket gets its number. */
static int turn_away(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct probe *p = probe_of(d)->other;
    int fds[2];
    (void)address, (void)length;
    if (p->base.fd < 0)
        ck_assert_int_eq(asyncore_close_fd(d->map, fd), 0);
    else
        ck_assert_int_eq(asyncore_set_socket(&p->base, fd), -EEXIST); /* it has one, and closes the other */
    ck_assert_int_eq(is_open(fd), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), 0);
    ck_assert_int_eq(fds[0], fd);
    empty_sender = fds[1];
    return asyncore_set_socket(&p->other->base, fd);
}

START_TEST(what_gets_a_clients_number_is_not_taken_for_it)
{
    static const struct asyncore_class class_ = {.name = "host", .parent = &probe_class, .handle_accepted = turn_away};
    char port[8];
    int other = -1;
    struct probe *p = _i == 0 ? probe_new(&probe_class, "") : probe_with_peer(&probe_class, &other);
    p->other = probe_new(&probe_class, "");
    host_of(&class_, p, false, port);
    int peer = peer_connect("127.0.0.1", port);
    run_until(p->other->base.fd >= 0);
    ck_assert_int_eq((int)send(empty_sender, "", 0, 0), 0);
    run_until(p->other->reads == 1);
    assert_idle_for(50);
    ck_assert_int_eq(p->other->closes, 0); /* an empty datagram is no end */
    close(empty_sender);
    close(peer);
    if (other >= 0)
        close(other);
}
END_TEST

static int arrived;

/* The first time as many are let in as come. */
static void let_one_in(const char *port)
{
    int peer = peer_connect("127.0.0.1", port);
    run_until(arrived == 1);
    run_for(10);
    close(peer);
    run_for(10);
    arrived = 0;
    forget_calls();
}

/* They are refused, or channels of their own where the listener has an `other`. */
static int let_in(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    (void)address, (void)length;
    arrived++;
    if (probe_of(d)->other == NULL)
        return asyncore_close_fd(d->map, fd);
    probe_on(&probe_class, "", fd);
    return 0;
}

static const struct asyncore_class open_class = {.name = "open", .parent = &probe_class, .handle_accepted = let_in};

START_TEST(clients_one_by_one_cost_an_accept_each)
{
    char port[8];
    count_calls();
    host_of(&open_class, probe_new(&probe_class, ""), false, port);
    let_one_in(port);
    for (int i = 1; i <= 5; i++) {
        int peer = peer_connect("127.0.0.1", port);
        run_until(arrived == i);
        run_for(10);
        ck_assert_int_eq(calls.accepts, i);
        close(peer);
        run_for(10);
    }
}
END_TEST

START_TEST(a_burst_of_clients_is_let_in_within_a_few_turns)
{
    int peers[100], turns = 0;
    char port[8];
    count_calls();
    host_of(&open_class, _i == 0 ? NULL : probe_new(&probe_class, ""), false, port);
    let_one_in(port);
    for (size_t i = 0; i < COUNT(peers); i++)
        peers[i] = peer_connect("127.0.0.1", port);
    for (; arrived < (int)COUNT(peers) && turns < 100; turns++)
        turn();
    ck_assert_int_eq(turns, 7); /* 1, 2, 4, 8, 16, 32, 37 */
    ck_assert_int_le(calls.accepts, (int)COUNT(peers) + 1);
    turn();
    for (size_t i = 0; i < COUNT(peers); i++)
        close(peers[i]);
    forget_calls();
    int peer = peer_connect("127.0.0.1", port); /* and then one again */
    run_until(arrived == (int)COUNT(peers) + 1);
    ck_assert_int_le(calls.accepts, 2);
    close(peer);
}
END_TEST

START_TEST(who_left_nobody_expects_no_more_than_came)
{
    int peers[5];
    char port[8];
    count_calls();
    host_of(&open_class, probe_new(&probe_class, ""), false, port);
    let_one_in(port);
    for (int i = 0; i < 3; i++)
        peers[i] = peer_connect("127.0.0.1", port);
    turn(); /* one */
    turn(); /* two */
    ck_assert_int_eq(arrived, 3);
    peers[3] = peer_connect("127.0.0.1", port);
    turn(); /* up to four */
    ck_assert_int_eq(arrived, 4);
    ck_assert_int_eq(calls.accepts, 5);
    peers[4] = peer_connect("127.0.0.1", port);
    turn(); /* one */
    ck_assert_int_eq(arrived, 5);
    ck_assert_int_eq(calls.accepts, 6);
    for (size_t i = 0; i < COUNT(peers); i++)
        close(peers[i]);
}
END_TEST

static void add_clients(TCase *tests)
{
    tcase_add_test(tests, who_left_nobody_expects_no_more_than_came);
    tcase_add_test(tests, clients_one_by_one_cost_an_accept_each);
    tcase_add_loop_test(tests, a_burst_of_clients_is_let_in_within_a_few_turns, 0, 2);
    tcase_add_loop_test(tests, a_clients_end_asks_nothing, 0, 4);
    tcase_add_test(tests, a_listener_from_elsewhere_is_asked_once);
    tcase_add_loop_test(tests, what_gets_a_clients_number_is_not_taken_for_it, 0, 2);
}

/* -- Connecting -- */

static struct probe *connecting(const char *host, const char *port)
{
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_connect(&p->base, host, port), 0);
    return p;
}

/* family: of the socket; its address goes into `name` and `port`. */
static int listening(int family, char name[64], char port[8])
{
    strcpy(name, "127.0.0.1");
    strcpy(port, "0");
    if (family == AF_INET)
        return peer_listen(name, port);
    struct sockaddr_storage address;
    socklen_t length;
    snprintf(name, 64, "unix:@asyncore-calls-%d", (int)getpid());
    ck_assert_int_eq(asyncore_parse_address(name, "", &address, &length), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
    ck_assert_int_eq(listen(fd, 4), 0);
    return fd;
}

START_TEST(a_connection_is_asked_for_once)
{
    char name[64], port[8];
    count_calls();
    int listener = listening(_i == 0 ? AF_INET : AF_UNIX, name, port);
    struct probe *p = connecting(name, port);
    run_until(p->connects == 1);
    ck_assert_int_eq(calls.connects, 1);
    int peer = peer_accept(listener);
    ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), 1);
    char byte;
    ck_assert_uint_eq(peer_recv(peer, &byte, 1), 1);
    close(peer);
    close(listener);
}
END_TEST

START_TEST(a_datagram_socket_connects_with_one_call)
{
    count_calls();
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_connect(&p->base, "127.0.0.1", "9"), 0);
    run_until(p->connects == 1);
    ck_assert_int_eq(calls.connects, 1);
}
END_TEST

START_TEST(a_refused_connection_is_asked_why)
{
    char port[8];
    count_calls();
    int refusing = refusing_port(port);
    struct probe *p = connecting("127.0.0.1", port);
    run_until(p->errors == 1);
    ck_assert_int_eq(p->error, -ECONNREFUSED);
    ck_assert_int_eq(p->connects, 0);
    ck_assert_int_eq(calls.connects, 2);
    close(refusing);
}
END_TEST

START_TEST(an_unanswered_connection_is_none)
{
    char port[8];
    int fillers[16], count;
    count_calls();
    int listener = full_listener(port, fillers, &count);
    struct probe *p = connecting("127.0.0.1", port);
    assert_idle_for(50);
    ck_assert_int_eq(p->connects, 0);
    ck_assert_int_eq(calls.connects, 1);
    while (count > 0)
        close(fillers[--count]);
    close(listener);
}
END_TEST

static const struct asyncore_class plain_class = {.name = "plain"};

static void nothing(struct asyncore_timer *timer, void *arg)
{
    (void)timer, (void)arg;
}

/* Whatever is doubtful is reported, every millisecond. */
START_TEST(a_doubtful_report_is_no_connection)
{
    struct asyncore_sim_options options = {.engine = asyncore_map_engine(map), .link = {.delay = 10 * ASYNCORE_SIM_MS}};
    struct asyncore_sim_usage usage;
    struct asyncore_timer timer = {.map_ = NULL};
    struct asyncore_dispatcher server, client;
    struct asyncore_sim *world;
    options.chances[ASYNCORE_SIM_SPURIOUS] = 1000000;
    ck_assert_int_eq(asyncore_sim_new(&world, 1, &options), 0);
    ck_assert_int_eq(asyncore_dispatcher_init(&server, &plain_class, asyncore_sim_map(world, "server")), 0);
    ck_assert_int_eq(asyncore_bind(&server, "*", "1"), 0);
    ck_assert_int_eq(asyncore_listen(&server, 1), 0);
    struct asyncore_map *host = asyncore_sim_map(world, "client");
    ck_assert_int_eq(asyncore_dispatcher_init(&client, &plain_class, host), 0);
    ck_assert_int_eq(asyncore_call_every(host, &timer, 1, nothing, NULL), 0);
    ck_assert_int_eq(asyncore_connect(&client, "server", "1"), 0);
    ck_assert_int_ge(asyncore_sim_run(world, 19 * ASYNCORE_SIM_MS), 0);
    ck_assert_int_eq(asyncore_connected(&client), 0);
    ck_assert_int_ge(asyncore_sim_run(world, 25 * ASYNCORE_SIM_MS), 0);
    ck_assert_int_eq(asyncore_connected(&client), 1);
    ck_assert_int_eq(asyncore_sim_usage(world, "client", &usage), 0);
    ck_assert_uint_eq(usage.calls[ASYNCORE_SIM_CONNECT], 1);
    asyncore_fini(&client);
    asyncore_fini(&server);
    asyncore_sim_free(world);
}
END_TEST

static void add_connecting(TCase *tests)
{
    tcase_add_loop_test(tests, a_connection_is_asked_for_once, 0, 2);
    tcase_add_test(tests, a_datagram_socket_connects_with_one_call);
    tcase_add_test(tests, a_refused_connection_is_asked_why);
    tcase_add_test(tests, an_unanswered_connection_is_none);
    tcase_add_test(tests, a_doubtful_report_is_no_connection);
}

int main(void)
{
    return run_suite("calls", add_closing, add_clients, add_connecting, NULL);
}
