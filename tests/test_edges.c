/* test_edges.c: channels at their edges: arguments that are wrong, calls in states that they are not meant for, the
 * base class's own handlers, and listeners and files that come from elsewhere. Objects that are not probes are static,
 * for they outlive the map. */
#include "support.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/un.h>
#include <unistd.h>

static const struct asyncore_class plain_class = {.name = "plain"};

static void take_log(void *arg, const char *type, const char *message)
{
    (void)arg;
    (void)message;
    note("log-%s", type);
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

/* -- Channels without a socket, and those that are done ------------------------------------------------------------ */

/* What needs a socket, and nothing else. */
static void assert_no_socket(struct asyncore_dispatcher *d)
{
    struct sockaddr_storage address;
    socklen_t length = 77;
    const void *view;
    char byte = 'u';
    int value = 77;
    ck_assert_int_eq(asyncore_listen(d, 1), -EBADF);
    ck_assert_int_eq(asyncore_accept(d, &address, &length), -EBADF);
    ck_assert_int_eq((int)asyncore_recv(d, &byte, 1), -EBADF);
    ck_assert_int_eq((int)asyncore_recv(d, &byte, 0), -EBADF);
    ck_assert_int_eq((int)asyncore_recvfrom(d, &byte, 1, &address, &length), -EBADF);
    ck_assert_int_eq((int)asyncore_send(d, "x", 1), -EBADF);
    ck_assert_int_eq((int)asyncore_sendto(d, "x", 1, (struct sockaddr *)&address, sizeof address), -EBADF);
    ck_assert_int_eq(asyncore_shutdown(d, SHUT_RDWR), -EBADF);
    ck_assert_int_eq(asyncore_setsockopt(d, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value), -EBADF);
    ck_assert_int_eq(asyncore_getsockopt(d, SOL_SOCKET, SO_TYPE, &value, &length), -EBADF);
    ck_assert_int_eq(asyncore_sockname(d, &address, &length), -EBADF);
    ck_assert_int_eq(asyncore_peername(d, &address, &length), -EBADF);
    if (d->map != NULL)
        ck_assert_int_eq((int)asyncore_recv_view(d, &view), -EBADF);
    ck_assert_int_eq(byte, 'u');
    ck_assert_int_eq(value, 77);
    ck_assert_int_eq((int)length, 77);
}

START_TEST(what_needs_a_socket_is_ebadf_without_one)
{
    struct probe *p = probe_new(&probe_class, "");
    assert_no_socket(&p->base);
    ck_assert_int_eq(asyncore_add_channel(&p->base, NULL), -EBADF);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    ck_assert_int_eq(asyncore_ready(&p->base), -EBADF);
    turn();
    assert_notes("");
}
END_TEST

START_TEST(a_finished_channel_refuses_everything)
{
    static struct asyncore_dispatcher d;
    struct sockaddr_in address = {.sin_family = AF_INET};
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_fini(&d), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_STREAM), -EBADF);
    ck_assert_int_eq(asyncore_set_socket(&d, 0), -EBADF);
    ck_assert_int_eq(asyncore_bind(&d, "127.0.0.1", "0"), -EBADF);
    ck_assert_int_eq(asyncore_bind_sockaddr(&d, (struct sockaddr *)&address, sizeof address), -EBADF);
    ck_assert_int_eq(asyncore_connect(&d, "127.0.0.1", "1"), -EBADF);
    ck_assert_int_eq(asyncore_connect(&d, "localhost", "1"), -EBADF);
    ck_assert_int_eq(asyncore_connect_sockaddr(&d, (struct sockaddr *)&address, sizeof address), -EBADF);
    ck_assert_int_eq(asyncore_add_channel(&d, map), -EBADF);
    ck_assert_int_eq(asyncore_del_channel(&d), -EBADF);
    ck_assert_int_eq(asyncore_set_idle_timeout(&d, 1), -EBADF);
    ck_assert_int_eq(asyncore_want(&d, ASYNCORE_READ), -EBADF);
    ck_assert_int_eq(asyncore_ready(&d), -EBADF);
    assert_no_socket(&d);
    ck_assert_int_eq(asyncore_close(&d), 0);
    ck_assert_int_eq(asyncore_fini(&d), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
}
END_TEST

START_TEST(a_finished_file_takes_nothing)
{
    static struct asyncore_file_dispatcher f;
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_fini(&f.base), 0);
    ck_assert_int_eq(asyncore_set_file(&f, 0), -EBADF);
}
END_TEST

START_TEST(a_closed_channel_that_waits_for_destroy_takes_no_descriptor_and_closes_it)
{
    int peer, fds[2];
    struct probe *p = probe_with_peer(&probe_class, &peer), *q = probe_new(&probe_class, "q");
    unix_pair(fds);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), -EBADF);
    ck_assert_int_eq(asyncore_set_socket(&p->base, fds[0]), -EBADF);
    ck_assert(!is_open(fds[0]));
    ck_assert_int_eq(asyncore_set_socket(&q->base, fds[1]), 0);
    ck_assert_int_eq(asyncore_set_socket(&p->base, fds[1]), -EBADF); /* which is q's */
    ck_assert(is_open(fds[1]));
    close(peer);
}
END_TEST

START_TEST(a_channel_that_has_a_socket_keeps_it_and_closes_the_other)
{
    int peer, fds[2], connecting[2];
    char port[8] = "0";
    struct probe *p = probe_with_peer(&probe_class, &peer), *q = probe_new(&probe_class, "q");
    int listener = peer_listen("127.0.0.1", port);
    unix_pair(fds);
    unix_pair(connecting);
    ck_assert_int_eq(asyncore_set_socket(&p->base, fds[0]), -EEXIST);
    ck_assert(!is_open(fds[0]));
    ck_assert_int_eq(asyncore_set_socket(&p->base, p->base.fd), -EEXIST);
    peer_send(peer, "x", 1);
    run_until(p->bytes == 1);
    ck_assert_int_eq(asyncore_create_socket(&q->base, AF_UNSPEC, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&q->base, "127.0.0.1", port), 0);
    ck_assert_int_eq(asyncore_set_socket(&q->base, connecting[0]), -EEXIST);
    ck_assert(!is_open(connecting[0]));
    ck_assert_int_eq(asyncore_create_socket(&q->base, AF_INET, SOCK_STREAM), -EEXIST);
    run_until(q->connects == 1);
    close(fds[1]);
    close(connecting[1]);
    close(listener);
    close(peer);
}
END_TEST

static void no_signal(struct asyncore_signal *signal, int number, void *arg)
{
    (void)signal;
    (void)number;
    (void)arg;
    ck_abort_msg("nobody sent one");
}

START_TEST(closing_within_one_turn_and_again_is_nothing)
{
    static struct asyncore_dispatcher d;
    static struct asyncore_signal s;
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_close(&d), 0);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the same number */
    ck_assert_int_eq(asyncore_close(&d), 0);          /* without destroy it is as new, and has nothing to close */
    ck_assert_int_eq(asyncore_signal_init(&s, map, SIGUSR1, NULL, NULL), -EINVAL);
    ck_assert_int_eq(asyncore_signal_init(&s, map, SIGUSR1, no_signal, NULL), 0);
    ck_assert_int_eq(asyncore_close(&s.base), 0);
    ck_assert_int_eq(asyncore_close(&s.base), 0);
    ck_assert(is_open(fd));
    close(fd);
}
END_TEST

static void add_without(TCase *tests)
{
    tcase_add_test(tests, what_needs_a_socket_is_ebadf_without_one);
    tcase_add_test(tests, a_finished_channel_refuses_everything);
    tcase_add_test(tests, a_finished_file_takes_nothing);
    tcase_add_test(tests, a_closed_channel_that_waits_for_destroy_takes_no_descriptor_and_closes_it);
    tcase_add_test(tests, a_channel_that_has_a_socket_keeps_it_and_closes_the_other);
    tcase_add_test(tests, closing_within_one_turn_and_again_is_nothing);
}

/* -- Arguments, and calls in the wrong state ----------------------------------------------------------------------- */

START_TEST(want_refuses_what_cannot_be_wanted)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_HANGUP), -EINVAL);
    ck_assert_int_eq(asyncore_want(&p->base, 0x100), -EINVAL);
    ck_assert_uint_eq(asyncore_wanted(&p->base), ASYNCORE_READ);
    close(peer);
}
END_TEST

START_TEST(reading_no_bytes_is_einval_and_no_end)
{
    int peer;
    char byte;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq((int)asyncore_recv(&p->base, &byte, 0), -EINVAL);
    peer_send(peer, "x", 1);
    ck_assert_int_eq((int)asyncore_recv(&p->base, &byte, 0), -EINVAL);
    run_until(p->bytes == 1);
    assert_notes("read");
    close(peer);
}
END_TEST

START_TEST(the_end_and_an_error_are_read_again)
{
    int fds[2];
    char byte;
    tcp_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    p->stays = true;
    if (_i == 0)
        close(fds[1]);
    else
        peer_reset(fds[1]);
    run_until(p->closes == 1);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq((int)asyncore_recv(&p->base, &byte, 1), _i == 0 ? 0 : -ECONNRESET);
    if (_i == 1)
        ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), -ECONNRESET);
    run_for(20);
    ck_assert_int_eq(p->closes, 1);
}
END_TEST

START_TEST(send_before_connect_is_enotconn_and_harms_nothing)
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    struct probe *p = probe_new(&probe_class, ""), *q = probe_new(&probe_class, "q");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), -ENOTCONN);
    ck_assert_int_eq(asyncore_error(&p->base), 0);
    turn();
    ck_assert_int_eq(asyncore_connect(&p->base, "127.0.0.1", port), 0);
    ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), -ENOTCONN);
    run_until(p->connects == 1);
    ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), 1);
    ck_assert_int_eq(asyncore_create_socket(&q->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_bind(&q->base, "127.0.0.1", "0"), 0);
    ck_assert_int_eq(asyncore_listen(&q->base, 1), 0);
    ck_assert_int_eq((int)asyncore_send(&q->base, "x", 1), -ENOTCONN);
    assert_notes("connect");
    close(listener);
}
END_TEST

START_TEST(connect_is_refused_where_there_is_nothing_to_connect)
{
    char port[8] = "0", own[8];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9)};
    int listener = peer_listen("127.0.0.1", port);
    struct probe *p = probe_new(&probe_class, ""), *q = probe_listen(&probe_class, "q", "127.0.0.1", own);
    ck_assert_int_eq(asyncore_connect_sockaddr(&p->base, (struct sockaddr *)&address, 1), -EINVAL);
    ck_assert_int_eq(asyncore_connect_sockaddr(&p->base, (struct sockaddr *)&address, 4096), -EINVAL);
    ck_assert_int_eq(asyncore_connect(&p->base, NULL, port), ASYNCORE_EHOST);
    ck_assert(!asyncore_connecting(&p->base));
    ck_assert_int_eq(asyncore_connect(&p->base, "127.0.0.1", port), 0);
    ck_assert_int_eq(asyncore_connect(&p->base, "127.0.0.1", port), -EALREADY);
    ck_assert_int_eq(asyncore_connect(&p->base, "localhost", port), -EALREADY);
    run_until(p->connects == 1);
    ck_assert_int_eq(asyncore_connect(&p->base, "127.0.0.1", port), -EISCONN);
    ck_assert_int_eq(asyncore_connect(&q->base, "127.0.0.1", port), -EISCONN);
    ck_assert(asyncore_connected(&p->base) && asyncore_accepting(&q->base));
    assert_notes("connect");
    close(listener);
}
END_TEST

START_TEST(a_socket_of_another_family_than_the_address_is_told_by_the_loop)
{
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&p->base, "::1", "9"), 0);
    run_until(p->destroys == 1);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -EAFNOSUPPORT);
}
END_TEST

static int name_of(const struct probe *p, char text[128])
{
    struct sockaddr_storage address;
    socklen_t length;
    ck_assert_int_eq(asyncore_sockname((struct asyncore_dispatcher *)&p->base, &address, &length), 0);
    return asyncore_address_text((struct sockaddr *)&address, length, text, 128);
}

START_TEST(bind_takes_no_host_for_any_of_the_sockets_family)
{
    static const struct {
        int family;
        const char *host, *expected;
    } cases[] = {{AF_INET, NULL, "0.0.0.0:"}, {AF_INET, "*", "0.0.0.0:"}, {AF_UNSPEC, "", "0.0.0.0:"},
                 {AF_INET6, "", "[::]:"},     {AF_INET6, "*", "[::]:"},   {AF_INET6, NULL, "[::]:"},
                 {AF_INET6, "::1", "[::1]:"}};
    char text[128];
    skip_unless(cases[_i].family != AF_INET6 || has_ipv6(), "no IPv6 here");
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, cases[_i].family, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_set_reuse_addr(&p->base), 0);
    ck_assert_int_eq(asyncore_bind(&p->base, cases[_i].host, "0"), 0);
    name_of(p, text);
    ck_assert_msg(strncmp(text, cases[_i].expected, strlen(cases[_i].expected)) == 0, "bound to %s", text);
    int value = 0;
    socklen_t length = sizeof value;
    ck_assert_int_eq(asyncore_getsockopt(&p->base, SOL_SOCKET, SO_REUSEADDR, &value, &length), 0);
    ck_assert_int_ne(value, 0);
}
END_TEST

START_TEST(the_kernels_refusals_are_results_and_leave_the_outputs_alone)
{
    int ends[2], value = 77;
    socklen_t length = 77;
    struct sockaddr_storage address;
    static struct asyncore_file_dispatcher f;
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), -EDESTADDRREQ);
    ck_assert_int_eq(asyncore_error(&p->base), 0);
    ck_assert_int_eq(asyncore_listen(&p->base, 1), -EOPNOTSUPP);
    ck_assert(!asyncore_accepting(&p->base));
    ck_assert_int_eq(asyncore_peername(&p->base, &address, &length), -ENOTCONN);
    ck_assert_int_eq(asyncore_getsockopt(&p->base, SOL_SOCKET, 9999, &value, &length), -ENOPROTOOPT);
    ck_assert_int_eq(asyncore_close_fd(map, -1), -EBADF);
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f, ends[0]), 0);
    ck_assert_int_eq(asyncore_sockname(&f.base, &address, &length), -ENOTSOCK);
    ck_assert_int_eq(asyncore_shutdown(&f.base, SHUT_RD), -ENOTSOCK);
    ck_assert_int_eq(value, 77);
    ck_assert_int_eq((int)length, 77);
    close(ends[1]);
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

START_TEST(a_lookup_of_what_is_no_name_begins_nothing)
{
    char longest[257] = "";
    static struct asyncore_lookup lookup;
    memset(longest, 'n', sizeof longest - 1);
    const char *hosts[] = {NULL, "", longest, "unix:/tmp/x"};
    for (size_t i = 0; i < COUNT(hosts); i++)
        ck_assert_int_eq(asyncore_resolve(map, &lookup, hosts[i], "1", AF_UNSPEC, looked_up, NULL), ASYNCORE_EHOST);
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "127.0.0.1", "1", AF_UNSPEC, looked_up, NULL), 0);
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "127.0.0.2", "1", AF_UNSPEC, looked_up, NULL), -EALREADY);
    ck_assert_int_eq((int)asyncore_next_timer(map), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("0-1");
}
END_TEST

START_TEST(name_servers_that_are_none_fail_the_lookup_and_keep_nothing)
{
    static struct asyncore_lookup lookup;
    struct asyncore_map_options options = {.name_servers = "not an address"};
    skip_unless(has_cares(), "built without c-ares");
    use_map(&options);
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "name.test", "1", AF_UNSPEC, looked_up, NULL), -EINVAL);
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_connect(&p->base, "name.test", "1"), -EINVAL);
    ck_assert(!asyncore_connecting(&p->base));
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "127.0.0.1", "1", AF_UNSPEC, looked_up, NULL), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("0-1");
}
END_TEST

START_TEST(classes_in_a_circle_are_refused)
{
    static struct asyncore_dispatcher d;
    struct asyncore_class one = {.name = "one"}, two = {.name = "two", .parent = &one};
    one.parent = &two;
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &one, map), -ELOOP);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &plain_class, map), 0);
}
END_TEST

static void add_refusals(TCase *tests)
{
    tcase_add_test(tests, want_refuses_what_cannot_be_wanted);
    tcase_add_test(tests, reading_no_bytes_is_einval_and_no_end);
    tcase_add_loop_test(tests, the_end_and_an_error_are_read_again, 0, 2);
    tcase_add_test(tests, send_before_connect_is_enotconn_and_harms_nothing);
    tcase_add_test(tests, connect_is_refused_where_there_is_nothing_to_connect);
    tcase_add_test(tests, a_socket_of_another_family_than_the_address_is_told_by_the_loop);
    tcase_add_loop_test(tests, bind_takes_no_host_for_any_of_the_sockets_family, 0, 7);
    tcase_add_test(tests, the_kernels_refusals_are_results_and_leave_the_outputs_alone);
    tcase_add_test(tests, a_lookup_of_what_is_no_name_begins_nothing);
    tcase_add_test(tests, name_servers_that_are_none_fail_the_lookup_and_keep_nothing);
    tcase_add_test(tests, classes_in_a_circle_are_refused);
}

/* -- Addresses ----------------------------------------------------------------------------------------------------- */

START_TEST(a_zone_is_part_of_an_address_and_its_text)
{
    struct sockaddr_storage address;
    socklen_t length;
    char text[128], loopback[IF_NAMESIZE];
    skip_unless(if_indextoname(1, loopback) != NULL, "no interface 1");
    char host[64], expected[64];
    snprintf(host, sizeof host, "fe80::1%%%s", loopback);
    snprintf(expected, sizeof expected, "[fe80::1%%%s]:80", loopback);
    ck_assert_int_eq(asyncore_parse_address(host, "80", &address, &length), 0);
    ck_assert_uint_eq(((struct sockaddr_in6 *)&address)->sin6_scope_id, 1);
    ck_assert_int_eq(asyncore_address_text((struct sockaddr *)&address, length, text, sizeof text), strlen(expected));
    ck_assert_str_eq(text, expected);
    ((struct sockaddr_in6 *)&address)->sin6_scope_id = 999999; /* an interface that went away */
    asyncore_address_text((struct sockaddr *)&address, length, text, sizeof text);
    ck_assert_str_eq(text, "[fe80::1]:80");
    ck_assert_int_eq(asyncore_parse_address("fe80::1%nosuchzone", "80", &address, &length), ASYNCORE_EHOST);
    ck_assert_int_eq(asyncore_parse_address("1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19", "80", &address, &length),
                     ASYNCORE_EHOST);
}
END_TEST

START_TEST(hosts_and_ports_that_are_none_have_errors_of_their_own)
{
    struct sockaddr_storage address;
    socklen_t length = 77;
    static const char *const hosts[] = {NULL, "unix:", "unix:@", "1.2.3", "::g"}, *const ports[] = {NULL, "", "65536",
                                                                                                    "1x"};
    for (size_t i = 0; i < COUNT(hosts); i++)
        ck_assert_int_eq(asyncore_parse_address(hosts[i], "1", &address, &length), ASYNCORE_EHOST);
    for (size_t i = 0; i < COUNT(ports); i++)
        ck_assert_int_eq(asyncore_parse_address("", ports[i], &address, &length), ASYNCORE_EPORT);
    ck_assert_int_eq((int)length, 77);
    ck_assert_int_eq(asyncore_parse_address("unix:@a", NULL, &address, &length), 0);
}
END_TEST

START_TEST(an_address_of_another_kind_has_a_text_too)
{
    char text[128];
    struct sockaddr_storage address = {.ss_family = AF_PACKET};
    static const int families[] = {AF_PACKET, AF_INET, AF_INET6, AF_UNIX};
    for (size_t i = 0; i < COUNT(families); i++) { /* the last three are too short for what they say they are */
        address.ss_family = (sa_family_t)families[i];
        ck_assert_int_eq(
            asyncore_address_text((struct sockaddr *)&address, i == 0 ? sizeof address : 1, text, sizeof text), 1);
        ck_assert_str_eq(text, "?");
    }
    ck_assert_int_eq(asyncore_address_text((struct sockaddr *)&address, sizeof(sa_family_t), text, sizeof text), 5);
    ck_assert_str_eq(text, "unix:");
}
END_TEST

static void add_addresses(TCase *tests)
{
    tcase_add_test(tests, a_zone_is_part_of_an_address_and_its_text);
    tcase_add_test(tests, hosts_and_ports_that_are_none_have_errors_of_their_own);
    tcase_add_test(tests, an_address_of_another_kind_has_a_text_too);
}

/* -- What the base class does -------------------------------------------------------------------------------------- */

static void probe_destroyed(struct asyncore_dispatcher *d)
{
    probe_of(d)->destroys++;
}

static const struct asyncore_class bare_class = {.name = "bare", .destroy = probe_destroyed};

START_TEST(an_event_that_nobody_handles_is_logged_once_and_not_wanted_any_more)
{
    int peer;
    struct probe *p = probe_with_peer(&bare_class, &peer);
    ck_assert_int_eq(asyncore_set_log(map, take_log, NULL), 0);
    if (_i == 0)
        peer_send(peer, "x", 1);
    else
        ck_assert_int_eq(asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE), 0);
    run_for(30);
    assert_notes("log-warning");
    ck_assert_uint_eq(asyncore_wanted(&p->base), _i == 0 ? 0 : ASYNCORE_READ);
    close(peer);
}
END_TEST

/* Notes what the parents say, and says so. */
static int readable_super(struct asyncore_dispatcher *d);
static int writable_super(struct asyncore_dispatcher *d);

static const struct asyncore_class asking_class = {
    .name = "asking", .readable = readable_super, .writable = writable_super};

static int readable_super(struct asyncore_dispatcher *d)
{
    return asyncore_super(d, &asking_class)->readable(d);
}

static int writable_super(struct asyncore_dispatcher *d)
{
    return asyncore_super(d, &asking_class)->writable(d);
}

static void assert_says(struct asyncore_dispatcher *d, int reads, int writes)
{
    ck_assert_int_eq(d->class_->readable(d) != 0, reads);
    ck_assert_int_eq(d->class_->writable(d) != 0, writes);
}

START_TEST(the_parents_predicates_say_what_was_asked_with_want)
{
    static struct asyncore_dispatcher d;
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &asking_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0);
    assert_says(&d, 1, 0);
    ck_assert_int_eq(asyncore_want(&d, ASYNCORE_WRITE), 0);
    assert_says(&d, 0, 1);
    ck_assert_int_eq(asyncore_want(&d, ASYNCORE_READ | ASYNCORE_WRITE), 0);
    assert_says(&d, 1, 1);
    close(fds[1]);
    char byte;
    ck_assert_int_eq((int)asyncore_recv(&d, &byte, 1), 0);
    assert_says(&d, 0, 1);
    ck_assert_int_eq(asyncore_fini(&d), 0);
}
END_TEST

START_TEST(the_parents_predicates_know_a_connect_and_a_queue)
{
    static struct asyncore_dispatcher_with_send s;
    static struct asyncore_dispatcher d;
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &asking_class, map), 0);
    ck_assert_int_eq(asyncore_connect(&d, "127.0.0.1", port), 0);
    assert_says(&d, 1, 1);
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&s, &asking_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&s.base, AF_INET, SOCK_STREAM), 0);
    assert_says(&s.base, 1, 0);
    ck_assert_int_eq(asyncore_want(&s.base, ASYNCORE_READ | ASYNCORE_WRITE), 0);
    assert_says(&s.base, 1, 0);
    ck_assert_int_eq((int)asyncore_send(&s.base, "x", 1), 0);
    assert_says(&s.base, 1, 1);
    run_until(asyncore_connected(&d));
    ck_assert_int_eq(asyncore_fini(&s.base), 0);
    ck_assert_int_eq(asyncore_fini(&d), 0);
    close(listener);
}
END_TEST

START_TEST(the_parents_destroy_frees_nothing)
{
    struct probe *p = probe_new(&probe_class, "");
    asyncore_super(&p->base, &probe_class)->destroy(&p->base);
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(p->destroys, 0);
}
END_TEST

static int closing_fails(struct asyncore_dispatcher *d)
{
    probe_of(d)->closes++;
    note("close(%d)", asyncore_error(d));
    return -EIO;
}

static int error_fails(struct asyncore_dispatcher *d, int error)
{
    (void)d;
    note("error(%d)", error);
    return -ENOSPC;
}

static const struct asyncore_class closing_fails_class = {
    .name = "closing_fails", .parent = &probe_class, .handle_close = closing_fails};
static const struct asyncore_class all_fails_class = {
    .name = "all_fails", .parent = &closing_fails_class, .handle_error = error_fails};

START_TEST(a_handle_close_that_fails_at_the_end_goes_to_handle_error)
{
    int peer;
    char expected[64];
    struct probe *p = probe_with_peer(&closing_fails_class, &peer);
    snprintf(expected, sizeof expected, "read close(0) error close(%d) destroy", -EIO);
    close(peer);
    run_until(p->destroys == 1);
    assert_notes(expected);
    ck_assert_int_eq(p->error, -EIO);
}
END_TEST

START_TEST(a_channel_whose_handlers_of_errors_fail_is_closed)
{
    int peer;
    char expected[64];
    struct probe *p = probe_with_peer(&all_fails_class, &peer);
    p->result = -EDOM;
    snprintf(expected, sizeof expected, "read error(%d) close(%d) destroy", -EDOM, -EDOM);
    peer_send(peer, "x", 1);
    run_until(p->destroys == 1);
    assert_notes(expected);
    close(peer);
}
END_TEST

static ssize_t fail_to_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    (void)d;
    (void)data;
    (void)size;
    return -EIO;
}

static int read_and_send(struct asyncore_dispatcher *d)
{
    char byte;
    ssize_t n = asyncore_recv(d, &byte, 1);
    note("read(%d)", (int)n);
    return (int)(n > 0 ? asyncore_send(d, "x", 1) : n);
}

static const struct asyncore_class sending_class = {
    .name = "sending", .parent = &probe_class, .handle_read = read_and_send, .send = fail_to_send};

START_TEST(a_failed_send_that_the_handler_returns_counts_once)
{
    int peer;
    struct probe *p = probe_with_peer(&sending_class, &peer);
    p->stays = true;
    peer_send(peer, "x", 1);
    run_until(p->errors == 1);
    close(peer);
    run_for(20);
    assert_notes("read(1) error");
    ck_assert_int_eq(p->error, -EIO);
    ck_assert_int_eq(asyncore_error(&p->base), -EIO);
}
END_TEST

START_TEST(a_channel_that_is_ready_after_its_end_is_not_read_again)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    p->stays = true;
    close(peer);
    run_until(p->closes == 1);
    ck_assert_int_eq(asyncore_ready(&p->base), 0);
    run_for(20);
    ck_assert_int_eq(asyncore_want(&p->base, ASYNCORE_READ), 0);
    run_for(20);
    assert_notes("read close");
}
END_TEST

static int close_in_expt(struct asyncore_dispatcher *d)
{
    probe_note(probe_of(d), "expt");
    return asyncore_close(d);
}

static const struct asyncore_class closing_expt_class = {
    .name = "closing_expt", .parent = &probe_class, .handle_expt = close_in_expt};

START_TEST(nothing_follows_a_handle_expt_that_closes)
{
    int fds[2];
    tcp_pair(fds);
    probe_on(&closing_expt_class, "", fds[0]);
    ck_assert_int_eq((int)send(fds[1], "u", 1, MSG_OOB), 1);
    peer_send(fds[1], "x", 1);
    ck_assert(readable_now(fds[0], 1000));
    turn();
    assert_notes("expt destroy");
    close(fds[1]);
}
END_TEST

START_TEST(a_descriptor_that_was_closed_behind_the_back_ends_its_channel)
{
    int peer;
    skip_unless(!engine_is("epoll"), "the kernel forgets it");
    struct probe *p = probe_with_peer(&probe_class, &peer);
    turn();
    close(p->base.fd);
    run_until(p->destroys == 1);
    assert_notes("close destroy");
    close(peer);
}
END_TEST

static void add_base(TCase *tests)
{
    tcase_add_loop_test(tests, an_event_that_nobody_handles_is_logged_once_and_not_wanted_any_more, 0, 2);
    tcase_add_test(tests, the_parents_predicates_say_what_was_asked_with_want);
    tcase_add_test(tests, the_parents_predicates_know_a_connect_and_a_queue);
    tcase_add_test(tests, the_parents_destroy_frees_nothing);
    tcase_add_test(tests, a_handle_close_that_fails_at_the_end_goes_to_handle_error);
    tcase_add_test(tests, a_channel_whose_handlers_of_errors_fail_is_closed);
    tcase_add_test(tests, a_failed_send_that_the_handler_returns_counts_once);
    tcase_add_test(tests, a_channel_that_is_ready_after_its_end_is_not_read_again);
    tcase_add_test(tests, nothing_follows_a_handle_expt_that_closes);
    tcase_add_test(tests, a_descriptor_that_was_closed_behind_the_back_ends_its_channel);
}

/* -- Listeners, datagrams, files ----------------------------------------------------------------------------------- */

static int refuse_for_want_of_descriptors(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address,
                                          socklen_t length)
{
    struct probe *p = probe_of(d);
    (void)address;
    (void)length;
    p->accepts++;
    ck_assert_int_eq(asyncore_close_fd(p->second, fd), 0); /* by another map: it would wake the listener of this one */
    return p->number;
}

static const struct asyncore_class poor_class = {
    .name = "poor", .parent = &probe_class, .handle_accepted = refuse_for_want_of_descriptors};

START_TEST(exhaustion_in_handle_accepted_makes_the_listener_rest_until_it_is_ready)
{
    char port[8];
    struct asyncore_map_options options = {.accept_pause = 60000};
    use_map(&options);
    struct probe *p = probe_listen(&poor_class, "", "127.0.0.1", port);
    ck_assert_int_eq(asyncore_map_new(&p->second, NULL), 0);
    p->number = -EMFILE;
    int first = peer_connect("127.0.0.1", port), second = peer_connect("127.0.0.1", port);
    run_until(p->accepts == 1);
    assert_idle_for(40);
    ck_assert_int_eq(p->accepts, 1);
    assert_dumped("resting");
    p->number = 0;
    ck_assert_int_eq(asyncore_ready(&p->base), 0);
    run_until(p->accepts == 2);
    assert_notes("");
    ck_assert_int_eq(asyncore_map_free(p->second), 0);
    close(first);
    close(second);
}
END_TEST

static int refuse_and_close(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct probe *p = probe_of(d);
    (void)address;
    (void)length;
    p->accepts++;
    ck_assert_int_eq(asyncore_close_fd(map, fd), 0);
    if (p->stays)
        return -EAGAIN;
    ck_assert_int_eq(asyncore_close(d), 0);
    return -EIO;
}

static const struct asyncore_class refusing_class = {
    .name = "refusing", .parent = &probe_class, .handle_accepted = refuse_and_close};

/* _i: it returns -EAGAIN, or closes the listener */
START_TEST(a_client_that_is_nobodys_failure_is_not_logged)
{
    char port[8];
    struct probe *p = probe_listen(&refusing_class, "", "127.0.0.1", port);
    p->stays = _i == 0;
    ck_assert_int_eq(asyncore_set_log(map, take_log, NULL), 0);
    int first = peer_connect("127.0.0.1", port), second = peer_connect("127.0.0.1", port);
    run_until(p->accepts == (_i == 0 ? 2 : 1));
    run_for(20);
    assert_notes(_i == 0 ? "" : "destroy");
    ck_assert_int_eq(p->accepts, _i == 0 ? 2 : 1);
    close(first);
    close(second);
}
END_TEST

START_TEST(a_listener_from_elsewhere_is_made_non_blocking)
{
    char port[8] = "0";
    struct sockaddr_storage address;
    int fd = peer_listen("127.0.0.1", port);
    struct probe *p = probe_on(&probe_class, "", fd);
    ck_assert_int_eq(asyncore_listen(&p->base, 16), 0);
    ck_assert(asyncore_accepting(&p->base) && !asyncore_connected(&p->base));
    ck_assert((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    ck_assert_int_eq(asyncore_accept(&p->base, NULL, NULL), -EAGAIN);
    int client = peer_connect("127.0.0.1", port);
    int accepted = asyncore_accept(&p->base, NULL, NULL);
    ck_assert_int_ge(accepted, 0);
    socklen_t length = sizeof address;
    ck_assert_int_eq(asyncore_accept(&p->base, &address, &length), -EAGAIN);
    ck_assert_int_eq(asyncore_close_fd(map, accepted), 0);
    ck_assert(peer_at_end(client));
    close(client);
}
END_TEST

/* A connected datagram socket whose peer's port nobody listens on. */
static int datagrams_to_nobody(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int nobody = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(nobody, (struct sockaddr *)&address, length), 0);
    ck_assert_int_eq(getsockname(nobody, (struct sockaddr *)&address, &length), 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, length), 0);
    close(nobody);
    return fd;
}

START_TEST(a_datagram_socket_from_elsewhere_goes_on_after_a_failed_send)
{
    struct probe *p = probe_on(&probe_class, "", datagrams_to_nobody());
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), 1);
        ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), -ECONNREFUSED);
        ck_assert_int_eq(asyncore_error(&p->base), 0);
    }
    ck_assert_int_eq(p->closes, 0);
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_closed)
{
    int ends[2];
    char byte;
    static struct asyncore_file_dispatcher f;
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f, ends[1]), 0);
    ck_assert_int_eq((int)asyncore_recv(&f.base, &byte, 1), -EBADF); /* it is for writing */
    ck_assert_int_eq(asyncore_error(&f.base), -EBADF);
    turn();
    ck_assert_int_eq(f.base.fd, -1);
    ck_assert(!is_open(ends[1]));
    close(ends[0]);
}
END_TEST

START_TEST(a_file_that_was_non_blocking_stays_so)
{
    int ends[2];
    static struct asyncore_file_dispatcher f;
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f, ends[0]), 0);
    asyncore_set_borrowed(&f.base);
    ck_assert_int_eq(asyncore_close(&f.base), 0);
    ck_assert((fcntl(ends[0], F_GETFL) & O_NONBLOCK) != 0);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

START_TEST(a_regular_file_of_which_no_bytes_are_wanted_does_not_spin)
{
    static struct asyncore_file_dispatcher f;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(asyncore_set_log(map, take_log, NULL), 0);
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f, fd), 0);
    turn();
    assert_notes("log-warning"); /* of an event that nobody handles */
    ck_assert_int_eq(asyncore_want(&f.base, _i == 0 ? ASYNCORE_ERROR : ASYNCORE_EXPT), 0);
    assert_idle_for(60);
    ck_assert_int_eq(asyncore_want(&f.base, ASYNCORE_ERROR | ASYNCORE_READ), 0);
    turn();
    assert_notes("log-warning");
}
END_TEST

static int loop_error(struct asyncore_dispatcher *d, int error)
{
    note("error(%d)", error);
    return asyncore_close(d);
}

static const struct asyncore_class refused_class = {.name = "refused", .handle_error = loop_error};

START_TEST(a_descriptor_that_the_engine_refuses_is_its_channels_error)
{
    char expected[32];
    static struct asyncore_file_dispatcher f;
    skip_unless(engine_is("epoll"), "select and poll take anything");
    snprintf(expected, sizeof expected, "error(%d)", -ELOOP);
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f, &refused_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f, dup(asyncore_map_fd(map))), 0); /* the map would wait for itself */
    run_for(20);
    assert_notes(expected);
    ck_assert_int_eq(f.base.fd, -1);
}
END_TEST

static void add_kinds(TCase *tests)
{
    tcase_add_test(tests, exhaustion_in_handle_accepted_makes_the_listener_rest_until_it_is_ready);
    tcase_add_loop_test(tests, a_client_that_is_nobodys_failure_is_not_logged, 0, 2);
    tcase_add_test(tests, a_listener_from_elsewhere_is_made_non_blocking);
    tcase_add_test(tests, a_datagram_socket_from_elsewhere_goes_on_after_a_failed_send);
    tcase_add_test(tests, a_file_that_cannot_be_read_is_closed);
    tcase_add_test(tests, a_file_that_was_non_blocking_stays_so);
    tcase_add_loop_test(tests, a_regular_file_of_which_no_bytes_are_wanted_does_not_spin, 0, 2);
    tcase_add_test(tests, a_descriptor_that_the_engine_refuses_is_its_channels_error);
}

/* -- Idle timeouts, moving, and the dump --------------------------------------------------------------------------- */

#define IDLE 200 /* ms */

/* What counts as traffic: each of these half-way to the timeout, which must then begin anew. */
static struct asyncore_dispatcher_with_send idle_one;
static int idle_errors;
static uint64_t idle_error_at;

static int idle_error(struct asyncore_dispatcher *d, int error)
{
    ck_assert_int_eq(error, -ETIMEDOUT);
    idle_errors++;
    idle_error_at = clock_ns();
    return asyncore_close(d);
}

static const struct asyncore_class idle_class = {.name = "idle", .handle_error = idle_error};

static void idle_on(int fd)
{
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&idle_one, &idle_class, map), 0);
    if (fd >= 0)
        ck_assert_int_eq(asyncore_set_socket(&idle_one.base, fd), 0);
    ck_assert_int_eq(asyncore_set_idle_timeout(&idle_one.base, IDLE), 0);
}

static void assert_traffic(uint64_t traffic)
{
    ck_assert_int_eq(idle_errors, 0);
    run_until(idle_errors == 1);
    ck_assert_uint_ge(idle_error_at - traffic, IDLE * UINT64_C(1000000));
}

START_TEST(what_with_send_gives_the_kernel_is_traffic)
{
    int fds[2];
    skip_unless(!runs_slowly(), "a checker makes its times too short");
    unix_pair(fds);
    idle_on(fds[0]);
    run_for(IDLE / 2);
    uint64_t traffic = clock_ns();
    if (_i == 0) /* at once, or in the next turn */
        ck_assert_int_eq((int)asyncore_send(&idle_one.base, "x", 1), 0);
    else
        ck_assert_int_eq((int)asyncore_send_ref(&idle_one, "x", 1, NULL, NULL), 0);
    assert_traffic(traffic);
    close(fds[1]);
}
END_TEST

START_TEST(datagrams_are_traffic)
{
    char byte;
    skip_unless(!runs_slowly(), "a checker makes its times too short");
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    idle_on(fds[0]);
    run_for(IDLE / 2);
    uint64_t traffic = clock_ns();
    if (_i == 0) {
        ck_assert_int_eq((int)asyncore_sendto(&idle_one.base, "x", 1, NULL, 0), 1);
    } else {
        ck_assert_int_eq((int)send(fds[1], "x", 1, 0), 1);
        ck_assert_int_eq((int)asyncore_recvfrom(&idle_one.base, &byte, 1, NULL, NULL), 1);
    }
    assert_traffic(traffic);
    close(fds[1]);
}
END_TEST

START_TEST(a_connect_that_succeeds_is_traffic)
{
    char port[8] = "0";
    skip_unless(!runs_slowly(), "a checker makes its times too short");
    int listener = peer_listen("127.0.0.1", port);
    idle_on(-1);
    run_for(IDLE / 2);
    uint64_t traffic = clock_ns();
    ck_assert_int_eq(asyncore_connect(&idle_one.base, "127.0.0.1", port), 0);
    run_until(asyncore_connected(&idle_one.base));
    assert_traffic(traffic);
    close(listener);
}
END_TEST

START_TEST(a_moved_channel_times_out_in_its_new_map)
{
    int peer;
    struct asyncore_map *second = NULL;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    ck_assert_int_eq(asyncore_set_idle_timeout(&p->base, 30), 0);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    ck_assert_int_eq(asyncore_add_channel(&p->base, second), 0);
    ck_assert_ptr_eq(p->base.map, second);
    run_for(60);
    assert_notes("");
    run_map_until(second, p->errors == 1);
    ck_assert_int_eq(p->error, -ETIMEDOUT);
    ck_assert_int_eq(asyncore_map_free(second), 0);
    assert_notes("error close destroy");
    close(peer);
}
END_TEST

START_TEST(a_removed_channel_does_not_time_out_and_joins_the_map_that_it_was_in)
{
    int peer;
    struct asyncore_map *second = NULL;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    ck_assert_int_eq(asyncore_add_channel(&p->base, second), 0);
    ck_assert_int_eq(asyncore_set_idle_timeout(&p->base, 20), 0);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    ck_assert_int_eq(asyncore_poll(second, 40), 0);
    ck_assert_int_eq(asyncore_poll(second, 40), 0);
    assert_notes("");
    ck_assert_int_eq(asyncore_add_channel(&p->base, NULL), 0);
    ck_assert_ptr_eq(p->base.map, second);
    run_map_until(second, p->destroys == 1);
    ck_assert_int_eq(asyncore_map_free(second), 0);
    close(peer);
}
END_TEST

START_TEST(dump_tells_what_each_channel_is_doing)
{
    char port[8];
    static struct asyncore_dispatcher_with_send s;
    int peer, fds[2];
    struct probe *p = probe_with_peer(&probe_class, &peer), *q = probe_new(&probe_class, "q"),
                 *r = probe_new(&probe_class, "r");
    struct probe *l = probe_listen(&probe_class, "l", "127.0.0.1", port);
    assert_dumped(": connected, wanted 0x1");
    asyncore_set_background(&p->base, 1);
    assert_dumped(", background");
    assert_dumped(": accepting");
    ck_assert_int_eq(asyncore_create_socket(&q->base, AF_INET, SOCK_STREAM), 0);
    assert_dumped(": new");
    ck_assert_int_eq(asyncore_connect(&q->base, "127.0.0.1", port), 0);
    assert_dumped(": connecting");
    ck_assert_int_eq(asyncore_connect(&r->base, "localhost", port), 0);
    assert_dumped("fd -1: looking up");
    p->stays = true;
    close(peer);
    run_until(p->closes == 1);
    assert_dumped(": ended");
    unix_pair(fds);
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&s, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&s.base, fds[0]), 0);
    ck_assert_int_eq(asyncore_set_marks(&s, 1, 2, 3), 0);
    ck_assert_int_eq((int)asyncore_send_ref(&s, "xyz", 3, NULL, NULL), 1);
    assert_dumped(", paused, queued 3");
    ck_assert_int_eq(asyncore_fini(&s.base), 0);
    ck_assert_int_eq(asyncore_close(&l->base), 0);
    close(fds[1]);
}
END_TEST

static void add_idle(TCase *tests)
{
    tcase_add_loop_test(tests, what_with_send_gives_the_kernel_is_traffic, 0, 2);
    tcase_add_loop_test(tests, datagrams_are_traffic, 0, 2);
    tcase_add_test(tests, a_connect_that_succeeds_is_traffic);
    tcase_add_test(tests, a_moved_channel_times_out_in_its_new_map);
    tcase_add_test(tests, a_removed_channel_does_not_time_out_and_joins_the_map_that_it_was_in);
    tcase_add_test(tests, dump_tells_what_each_channel_is_doing);
}

int main(void)
{
    return run_suite("edges", add_without, add_refusals, add_addresses, add_base, add_kinds, add_idle, NULL);
}
