/* test_udp.c: datagrams, over IPv4, IPv6 and Unix sockets. */
#include "support.h"
#include <netinet/in.h>
#include <unistd.h>

/* Notes each datagram by its length, with recvfrom or, if `number` is set, with recv. */
static int note_datagram(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    size_t size = p->piece != 0 ? p->piece : 65536;
    p->reads++;
    p->input = realloc(p->input, p->bytes + size);
    ck_assert_ptr_nonnull(p->input);
    unsigned char *at = p->input + p->bytes;
    ssize_t n = p->number ? asyncore_recv(d, at, size) : asyncore_recvfrom(d, at, size, &from, &length);
    if (n < 0)
        return (int)n;
    probe_note(p, "got");
    note("%zd", n);
    p->bytes += (size_t)n;
    return 0;
}

static const struct asyncore_class udp_class = {
    .name = "udp",
    .parent = &probe_class,
    .handle_read = note_datagram,
};

static struct probe *bound(const struct asyncore_class *class_, const char *name, const char *host)
{
    struct probe *p = probe_new(class_, name);
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_UNSPEC, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_bind(&p->base, host, "0"), 0);
    return p;
}

static void send_to(struct probe *from, struct probe *to, const void *data, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    ck_assert_int_eq(asyncore_sockname(&to->base, &address, &length), 0);
    ck_assert_int_eq((int)asyncore_sendto(&from->base, data, size, (struct sockaddr *)&address, length), (int)size);
}

/* -- Unconnected -- */

static int send_back(struct asyncore_dispatcher *d)
{
    char data[64];
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    ssize_t n = asyncore_recvfrom(d, data, sizeof data, &from, &length);
    return n < 0 ? (int)n : (int)asyncore_sendto(d, data, (size_t)n, (struct sockaddr *)&from, length);
}

static const struct asyncore_class echo_class = {
    .name = "echo",
    .parent = &probe_class,
    .handle_read = send_back,
};

START_TEST(a_datagram_goes_there_and_back)
{
    const char *host = _i == 0 ? "127.0.0.1" : "::1";
    skip_unless(_i == 0 || has_ipv6(), "no IPv6 here");
    struct probe *server = bound(&echo_class, "", host), *client = probe_new(&udp_class, "");
    ck_assert_int_eq(asyncore_create_socket(&client->base, _i == 0 ? AF_INET : AF_INET6, SOCK_DGRAM), 0);
    send_to(client, server, "hello", 5);
    run_until(client->bytes == 5);
    ck_assert_int_eq(memcmp(client->input, "hello", 5), 0);
    assert_notes("got 5");
}
END_TEST

START_TEST(each_read_gives_one_datagram)
{
    struct probe *p = bound(&udp_class, "", "127.0.0.1");
    send_to(p, p, "abc", 3);
    send_to(p, p, "d", 1);
    send_to(p, p, "efghi", 5);
    run_until(p->bytes == 9);
    assert_notes("got 3 got 1 got 5");
    ck_assert_int_eq(memcmp(p->input, "abcdefghi", 9), 0);
}
END_TEST

START_TEST(an_empty_datagram_is_not_an_end)
{
    struct probe *p = bound(&udp_class, "", "127.0.0.1");
    p->number = _i;
    send_to(p, p, "", 0);
    send_to(p, p, "x", 1);
    run_until(p->bytes == 1);
    send_to(p, p, "", 0);
    send_to(p, p, "y", 1);
    run_until(p->bytes == 2);
    assert_notes("got 0 got 1 got 0 got 1");
    ck_assert_int_eq(p->closes, 0);
}
END_TEST

START_TEST(a_datagram_is_cut_to_the_buffer_and_the_next_one_is_whole)
{
    struct probe *p = bound(&udp_class, "", "127.0.0.1");
    p->piece = 4;
    send_to(p, p, "abcdefgh", 8);
    send_to(p, p, "ijkl", 4);
    run_until(p->bytes == 8);
    ck_assert_int_eq(memcmp(p->input, "abcdijkl", 8), 0);
    assert_notes("got 4 got 4");
}
END_TEST

START_TEST(large_datagrams_come_whole_and_too_large_ones_are_refused)
{
    static unsigned char data[70000];
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    struct probe *p = bound(&udp_class, "", "127.0.0.1");
    pattern_fill(data, 0, sizeof data);
    send_to(p, p, data, 60000);
    run_until(p->bytes == 60000);
    pattern_check(p->input, 0, 60000);
    ck_assert_int_eq(asyncore_sockname(&p->base, &address, &length), 0);
    ck_assert_int_eq((int)asyncore_sendto(&p->base, data, sizeof data, (struct sockaddr *)&address, length), -EMSGSIZE);
    run_for(10);
    assert_notes("got 60000");
}
END_TEST

START_TEST(recvfrom_without_a_datagram_is_eagain_and_leaves_the_outputs_alone)
{
    char data[4] = "abc";
    struct sockaddr_storage from;
    socklen_t length = 77;
    struct probe *p = bound(&udp_class, "", "127.0.0.1");
    ck_assert_int_eq((int)asyncore_recvfrom(&p->base, data, sizeof data, &from, &length), -EAGAIN);
    ck_assert_uint_eq(length, 77);
    ck_assert_str_eq(data, "abc");
}
END_TEST

START_TEST(an_idle_datagram_socket_makes_no_turns)
{
    struct probe *p = bound(&udp_class, "", "127.0.0.1");
    assert_idle_for(50);
    asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE);
    run_until(p->writes > 0);
    asyncore_want(&p->base, ASYNCORE_READ);
    assert_idle_for(50);
}
END_TEST

static void add_unconnected(TCase *tests)
{
    tcase_add_loop_test(tests, a_datagram_goes_there_and_back, 0, 2);
    tcase_add_test(tests, each_read_gives_one_datagram);
    tcase_add_loop_test(tests, an_empty_datagram_is_not_an_end, 0, 2);
    tcase_add_test(tests, a_datagram_is_cut_to_the_buffer_and_the_next_one_is_whole);
    tcase_add_test(tests, large_datagrams_come_whole_and_too_large_ones_are_refused);
    tcase_add_test(tests, recvfrom_without_a_datagram_is_eagain_and_leaves_the_outputs_alone);
    tcase_add_test(tests, an_idle_datagram_socket_makes_no_turns);
}

/* -- Connected -- */

static struct probe *connected_to(const char *port)
{
    struct probe *p = probe_new(&udp_class, "");
    p->number = 1;
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_connect(&p->base, "127.0.0.1", port), 0);
    assert_notes("");
    run_until(p->connects == 1);
    ck_assert_int_eq(asyncore_connected(&p->base), 1);
    return p;
}

START_TEST(a_connected_datagram_socket_sends_and_receives)
{
    char port[8];
    struct probe *server = bound(&echo_class, "", "127.0.0.1");
    channel_port(&server->base, port);
    struct probe *p = connected_to(port);
    ck_assert_int_eq((int)asyncore_send(&p->base, "hello", 5), 5);
    run_until(p->bytes == 5);
    ck_assert_int_eq((int)asyncore_send(&p->base, "", 0), 0);
    run_until(p->reads == 2);
    assert_notes("connect got 5 got 0");
    ck_assert_int_eq(p->closes, 0);
}
END_TEST

START_TEST(a_port_that_nobody_listens_on_is_told_and_does_not_end_the_channel)
{
    char port[8];
    struct probe *server = bound(&udp_class, "", "127.0.0.1");
    channel_port(&server->base, port);
    ck_assert_int_eq(asyncore_close(&server->base), 0);
    turn();
    forget_notes();
    struct probe *p = connected_to(port);
    p->stays = true;
    ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), 1);
    run_until(p->errors == 1);
    ck_assert_int_eq(p->error, -ECONNREFUSED);
    assert_notes("connect error");
    assert_idle_for(30);
    server = probe_new(&udp_class, "");
    ck_assert_int_eq(asyncore_create_socket(&server->base, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_bind(&server->base, "127.0.0.1", port), 0);
    send_to(server, p, "late", 4);
    run_until(p->bytes == 4);
    ck_assert_int_eq((int)asyncore_send(&p->base, "thanks", 6), 6);
    run_until(server->bytes == 6);
}
END_TEST

static void add_connected(TCase *tests)
{
    tcase_add_test(tests, a_connected_datagram_socket_sends_and_receives);
    tcase_add_test(tests, a_port_that_nobody_listens_on_is_told_and_does_not_end_the_channel);
}

/* -- Unix -- */

START_TEST(unix_datagrams_go_by_path)
{
    char directory[] = "/tmp/asyncore-XXXXXX", a[64], b[64];
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(a, sizeof a, "unix:%s/a", directory);
    snprintf(b, sizeof b, "unix:%s/b", directory);
    struct probe *server = bound(&echo_class, "", a), *client = bound(&udp_class, "", b);
    send_to(client, server, "hello", 5);
    run_until(client->bytes == 5);
    assert_notes("got 5");
    unlink(a + 5);
    unlink(b + 5);
    rmdir(directory);
}
END_TEST

START_TEST(unix_datagrams_go_by_abstract_name)
{
    char a[64], b[64];
    snprintf(a, sizeof a, "unix:@asyncore-udp-%ld-a", (long)getpid());
    snprintf(b, sizeof b, "unix:@asyncore-udp-%ld-b", (long)getpid());
    struct probe *server = bound(&echo_class, "", a), *client = bound(&udp_class, "", b);
    send_to(client, server, "", 0);
    send_to(client, server, "hello", 5);
    run_until(client->bytes == 5);
    assert_notes("got 0 got 5");
}
END_TEST

static void add_unix(TCase *tests)
{
    tcase_add_test(tests, unix_datagrams_go_by_path);
    tcase_add_test(tests, unix_datagrams_go_by_abstract_name);
}

int main(void)
{
    return run_suite("udp", add_unconnected, add_connected, add_unix, NULL);
}
