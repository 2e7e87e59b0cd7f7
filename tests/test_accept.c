/* test_accept.c: listeners: their clients, and what they do when there are no more descriptors. */
#include "support.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <unistd.h>

#define CLIENTS 10

/* A listener that keeps what it accepts. */
static struct {
    int fds[64];
    int count;
    int result; /* of handle_accepted */
    bool close_listener, pause_listener;
    struct sockaddr_storage last;
    socklen_t last_length;
} taken;

static int take_client(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    probe_of(d)->accepts++;
    ck_assert_int_lt(taken.count, (int)COUNT(taken.fds));
    taken.fds[taken.count++] = fd;
    memcpy(&taken.last, address, length);
    taken.last_length = length;
    if (taken.close_listener)
        asyncore_close(d);
    if (taken.pause_listener)
        asyncore_want(d, 0);
    return taken.result;
}

static const struct asyncore_class taker_class = {
    .name = "taker",
    .parent = &probe_class,
    .handle_accepted = take_client,
};

static void close_taken(void)
{
    while (taken.count > 0)
        close(taken.fds[--taken.count]);
}

static void connect_clients(const char *port, int clients[], int count)
{
    for (int i = 0; i < count; i++)
        clients[i] = peer_connect("127.0.0.1", port);
}

static void close_clients(int clients[], int count)
{
    for (int i = 0; i < count; i++)
        close(clients[i]);
}

/* -- Clients come -- */

START_TEST(the_default_handle_accepted_closes_the_client)
{
    char port[8];
    struct probe *p = probe_listen(&probe_class, "", "127.0.0.1", port);
    ck_assert_int_eq(asyncore_accepting(&p->base), 1);
    int client = peer_connect("127.0.0.1", port), before = count_descriptors();
    turn();
    ck_assert(peer_at_end(client));
    ck_assert_int_eq(count_descriptors(), before);
    assert_notes("");
    close(client);
}
END_TEST

START_TEST(handle_accepted_gets_descriptor_and_address)
{
    const char *host = _i == 0 ? "127.0.0.1" : "::1";
    char port[8], byte;
    struct sockaddr_storage own;
    socklen_t length = sizeof own;
    skip_unless(_i == 0 || has_ipv6(), "no IPv6 here");
    probe_listen(&taker_class, "", host, port);
    int client = peer_connect(host, port);
    run_until(taken.count == 1);
    ck_assert_int_eq(getsockname(client, (struct sockaddr *)&own, &length), 0);
    ck_assert_uint_eq(taken.last_length, length);
    ck_assert_int_eq(memcmp(&taken.last, &own, length), 0);
    ck_assert_int_ne(fcntl(taken.fds[0], F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_ne(fcntl(taken.fds[0], F_GETFD) & FD_CLOEXEC, 0);
    ck_assert_int_eq((int)write(taken.fds[0], "x", 1), 1);
    ck_assert_uint_eq(peer_recv(client, &byte, 1), 1);
    close(client);
    close_taken();
}
END_TEST

START_TEST(accepts_over_a_unix_socket)
{
    char name[64];
    struct probe *p = probe_new(&taker_class, "");
    struct asyncore_dispatcher client;
    static const struct asyncore_class plain_class = {.name = "plain"};
    snprintf(name, sizeof name, "unix:@asyncore-accept-%ld", (long)getpid());
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_UNIX, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_bind(&p->base, name, ""), 0);
    ck_assert_int_eq(asyncore_listen(&p->base, 4), 0);
    ck_assert_int_eq(asyncore_dispatcher_init(&client, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&client, AF_UNIX, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&client, name, ""), 0);
    run_until(taken.count == 1 && asyncore_connected(&client));
    ck_assert_int_eq(taken.last.ss_family, AF_UNIX);
    ck_assert_int_eq(asyncore_fini(&client), 0);
    close_taken();
}
END_TEST

START_TEST(a_listener_that_wants_no_more_gets_one)
{
    char port[8];
    int clients[CLIENTS];
    struct probe *p = probe_listen(&taker_class, "", "127.0.0.1", port);
    taken.pause_listener = true;
    connect_clients(port, clients, CLIENTS);
    for (int i = 1; i <= 3; i++) {
        run_until(taken.count == i);
        turn();
        ck_assert_int_eq(taken.count, i);
        ck_assert_int_eq(asyncore_want(&p->base, ASYNCORE_READ), 0);
    }
    close_clients(clients, CLIENTS);
    close_taken();
}
END_TEST

START_TEST(a_client_becomes_a_channel_and_talks)
{
    char port[8], data[8];
    probe_listen(&taker_class, "", "127.0.0.1", port);
    int client = peer_connect("127.0.0.1", port);
    run_until(taken.count == 1);
    struct probe *p = probe_on(&probe_class, "", taken.fds[0]);
    peer_send(client, "ping", 4);
    run_until(p->bytes == 4);
    ck_assert_int_eq((int)asyncore_send(&p->base, "pong", 4), 4);
    ck_assert_uint_eq(peer_recv(client, data, 4), 4);
    close(client);
    run_until(p->destroys == 1);
}
END_TEST

START_TEST(accept_without_a_client_is_eagain)
{
    char port[8];
    struct sockaddr_storage address;
    socklen_t length = 77;
    struct probe *p = probe_listen(&probe_class, "", "127.0.0.1", port);
    ck_assert_int_eq(asyncore_accept(&p->base, &address, &length), -EAGAIN);
    ck_assert_uint_eq(length, 77);
    int client = peer_connect("127.0.0.1", port), fd = asyncore_accept(&p->base, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    close(fd);
    close(client);
}
END_TEST

static void note_log(void *arg, const char *type, const char *message)
{
    (void)arg;
    (void)message;
    note("log-%s", type);
}

START_TEST(a_client_that_fails_is_logged_and_the_listener_lives)
{
    char port[8];
    int clients[2];
    probe_listen(&taker_class, "", "127.0.0.1", port);
    asyncore_set_log(map, note_log, NULL);
    taken.result = -EPROTO;
    for (int i = 0; i < 2; i++) {
        clients[i] = peer_connect("127.0.0.1", port);
        run_until(taken.count == i + 1);
        ck_assert_int_eq(strncmp(notes(), "log-", 4), 0);
        ck_assert_ptr_null(strchr(notes(), ' '));
        forget_notes();
    }
    close_clients(clients, 2);
    close_taken();
}
END_TEST

START_TEST(one_turn_accepts_no_more_than_accepts_per_turn)
{
    char port[8];
    int clients[CLIENTS], peer[2];
    struct asyncore_map_options options = {.accepts_per_turn = 3};
    use_map(&options);
    struct probe *p = probe_listen(&taker_class, "", "127.0.0.1", port);
    unix_pair(peer);
    struct probe *q = probe_on(&probe_class, "", peer[0]);
    connect_clients(port, clients, CLIENTS);
    peer_send(peer[1], "x", 1);
    turn();
    ck_assert_int_eq(p->accepts, 3);
    ck_assert_int_eq(q->reads, 1); /* who is connected is not starved */
    turn();
    ck_assert_int_eq(p->accepts, 6);
    run_until(p->accepts == CLIENTS);
    close_clients(clients, CLIENTS);
    close(peer[1]);
    close_taken();
}
END_TEST

START_TEST(a_listener_closed_by_its_first_client_accepts_no_other)
{
    char port[8];
    int clients[3];
    struct probe *p = probe_listen(&taker_class, "", "127.0.0.1", port);
    connect_clients(port, clients, 3);
    taken.close_listener = true;
    run_for(20);
    ck_assert_int_eq(p->accepts, 1);
    assert_notes("destroy");
    close_clients(clients, 3);
    close_taken();
}
END_TEST

static int accept_one(struct asyncore_dispatcher *d)
{
    int fd = asyncore_accept(d, NULL, NULL);
    note("%s", fd >= 0 ? "client" : "none");
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : fd;
}

static const struct asyncore_class one_class = {
    .name = "one",
    .parent = &probe_class,
    .handle_accept = accept_one,
};

START_TEST(an_overridden_handle_accept_is_called_while_clients_wait)
{
    char port[8];
    int clients[3];
    probe_listen(&one_class, "", "127.0.0.1", port);
    connect_clients(port, clients, 3);
    run_until(strlen(notes()) >= 20);
    assert_idle_for(20);
    assert_notes("client client client");
    close_clients(clients, 3);
}
END_TEST

static void add_clients(TCase *tests)
{
    tcase_add_test(tests, the_default_handle_accepted_closes_the_client);
    tcase_add_loop_test(tests, handle_accepted_gets_descriptor_and_address, 0, 2);
    tcase_add_test(tests, accepts_over_a_unix_socket);
    tcase_add_test(tests, a_client_becomes_a_channel_and_talks);
    tcase_add_test(tests, a_listener_that_wants_no_more_gets_one);
    tcase_add_test(tests, accept_without_a_client_is_eagain);
    tcase_add_test(tests, a_client_that_fails_is_logged_and_the_listener_lives);
    tcase_add_test(tests, one_turn_accepts_no_more_than_accepts_per_turn);
    tcase_add_test(tests, a_listener_closed_by_its_first_client_accepts_no_other);
    tcase_add_test(tests, an_overridden_handle_accept_is_called_while_clients_wait);
}

/* -- No descriptors left --
 * (Valgrind keeps the limit itself: it lets the kernel accept, closes the client and says EMFILE. Such a client never
 * comes again.) */

#define only_with_a_real_limit() skip_unless(!under_valgrind(), "valgrind has a limit of its own")

static struct rlimit limit_before;

/* Every number below the new limit is taken; those of `fillers` by us. */
static int use_up_descriptors(int fillers[], int most)
{
    int count = 0, spare = dup(0);
    struct rlimit low;
    ck_assert_int_ge(spare, 0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit_before), 0);
    low = limit_before;
    low.rlim_cur = (rlim_t)spare + 8;
    close(spare);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    while (count < most && (fillers[count] = dup(0)) >= 0)
        count++;
    ck_assert_int_lt(count, most);
    ck_assert_int_eq(errno, EMFILE);
    return count;
}

static void allow_descriptors(void)
{
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit_before), 0);
}

START_TEST(without_descriptors_the_listener_rests_and_takes_up_again_after_the_pause)
{
    char port[8];
    int fillers[64], client;
    only_with_a_real_limit();
    struct probe *p = probe_listen(&taker_class, "", "127.0.0.1", port);
    client = peer_connect("127.0.0.1", port);
    int count = use_up_descriptors(fillers, COUNT(fillers));
    uint64_t cpu = cpu_ns();
    int turns = run_for(350);
    cpu = cpu_ns() - cpu;
    ck_assert_int_eq(p->accepts, 0);
    ck_assert_msg(turns <= 12, "%d turns in 350 ms", turns);
    if (!runs_slowly())
        ck_assert_uint_lt(cpu, 100000000u);
    assert_notes("");
    allow_descriptors(); /* nobody tells the map */
    run_until(p->accepts == 1);
    assert_notes("");
    close_clients(fillers, count);
    close(client);
    close_taken();
}
END_TEST

static void rest_without_descriptors(int fillers[], int *count, struct probe **p, struct probe **other, int *peer,
                                     int clients[3])
{
    char port[8];
    int fds[2];
    struct asyncore_map_options options = {.accept_pause = 60000};
    use_map(&options);
    unix_pair(fds);
    *peer = fds[1];
    *other = probe_on(&probe_class, "", fds[0]);
    *p = probe_listen(&taker_class, "", "127.0.0.1", port);
    connect_clients(port, clients, 3);
    *count = use_up_descriptors(fillers, 64);
    assert_idle_for(50);
    ck_assert_int_eq((*p)->accepts, 0);
}

START_TEST(a_resting_listener_takes_up_when_its_map_closes_a_descriptor)
{
    int fillers[64], clients[3], count, peer;
    struct probe *p, *other;
    only_with_a_real_limit();
    rest_without_descriptors(fillers, &count, &p, &other, &peer, clients);
    if (_i == 0)
        asyncore_close(&other->base);
    else if (_i == 1)
        ck_assert_int_eq(asyncore_fini(&other->base), 0);
    else
        ck_assert_int_eq(asyncore_close_fd(map, fillers[--count]), 0);
    run_until(p->accepts == 1);
    run_for(20);
    ck_assert_int_eq(p->accepts, 1);
    allow_descriptors();
    asyncore_close_fd(map, taken.fds[--taken.count]);
    run_until(p->accepts == 3);
    close_clients(fillers, count);
    close_clients(clients, 3);
    close(peer);
    close_taken();
}
END_TEST

START_TEST(a_resting_listener_can_be_closed)
{
    int fillers[64], clients[3], count, peer;
    struct probe *p, *other;
    rest_without_descriptors(fillers, &count, &p, &other, &peer, clients);
    ck_assert_int_eq(_i == 0 ? asyncore_close(&p->base) : asyncore_fini(&p->base), 0);
    if (_i == 1)
        memset(&p->base, 0xa5, sizeof p->base);
    asyncore_close(&other->base);
    run_for(20);
    allow_descriptors();
    close_clients(fillers, count);
    close_clients(clients, 3);
    close(peer);
}
END_TEST

static int fail_to_accept(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    p->accepts++;
    if (p->result < 0)
        return p->result;
    return accept_one(d);
}

static const struct asyncore_class failing_class = {
    .name = "failing",
    .parent = &probe_class,
    .handle_accept = fail_to_accept,
};

START_TEST(exhaustion_returned_by_handle_accept_makes_the_listener_rest)
{
    static const int errors[] = {-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM};
    char port[8];
    struct asyncore_map_options options = {.accept_pause = 40};
    use_map(&options);
    struct probe *p = probe_listen(&failing_class, "", "127.0.0.1", port);
    p->result = errors[_i];
    int client = peer_connect("127.0.0.1", port);
    int turns = run_for(200);
    ck_assert_int_ge(p->accepts, 2);
    ck_assert_int_le(p->accepts, 6);
    ck_assert_int_le(turns, 14);
    assert_notes("");
    p->result = 0;
    run_until(notes()[0] != '\0');
    assert_notes("client");
    close(client);
}
END_TEST

START_TEST(a_client_that_went_away_again_is_nobodys_error)
{
    char port[8];
    struct probe *p = probe_listen(&failing_class, "", "127.0.0.1", port);
    p->result = -ECONNABORTED;
    int client = peer_connect("127.0.0.1", port);
    run_until(p->accepts >= 1);
    p->result = 0;
    run_until(notes()[0] != '\0');
    assert_notes("client");
    close(client);
}
END_TEST

START_TEST(any_other_error_of_handle_accept_goes_to_handle_error)
{
    char port[8];
    struct probe *p = probe_listen(&failing_class, "", "127.0.0.1", port);
    p->result = -EINVAL;
    int client = peer_connect("127.0.0.1", port);
    run_until(p->destroys == 1);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -EINVAL);
    close(client);
}
END_TEST

static void add_exhaustion(TCase *tests)
{
    tcase_add_test(tests, without_descriptors_the_listener_rests_and_takes_up_again_after_the_pause);
    tcase_add_loop_test(tests, a_resting_listener_takes_up_when_its_map_closes_a_descriptor, 0, 3);
    tcase_add_loop_test(tests, a_resting_listener_can_be_closed, 0, 2);
    tcase_add_loop_test(tests, exhaustion_returned_by_handle_accept_makes_the_listener_rest, 0, 4);
    tcase_add_test(tests, a_client_that_went_away_again_is_nobodys_error);
    tcase_add_test(tests, any_other_error_of_handle_accept_goes_to_handle_error);
}

int main(void)
{
    return run_suite("accept", add_clients, add_exhaustion, NULL);
}
