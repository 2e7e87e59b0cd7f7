/* test_finds.c: faults that fuzzing and the simulation found, each as the shortest scenario that shows it. What
 * spins is seen by the number of turns in a time in which nothing happens. Objects that are not probes are static, for
 * they outlive the map. */
#include "asyncore_sim.h"
#include "map.h"
#include "sim.h"
#include "support.h"
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/un.h>
#include <unistd.h>

/* /etc/hosts with a text of ours in its place. */
static const char *hosts_text;
static FILE *hosts_open(void);
#define fopen(path, mode) ((void)(path), (void)(mode), hosts_open())
#define hosts_lookup      hosts_lookup_in_text
int hosts_lookup_in_text(const char *host, int family, struct asyncore_address *addresses, size_t size, struct os *os);
#include "names_hosts.c"
#undef fopen
#undef hosts_lookup

static FILE *hosts_open(void)
{
    return fmemopen((void *)(uintptr_t)hosts_text, strlen(hosts_text), "r");
}

static int yes(struct asyncore_dispatcher *d)
{
    (void)d;
    return 1;
}

static const struct asyncore_class plain_class = {.name = "plain"};
static const struct asyncore_class asked_class = {.name = "asked", .parent = &probe_class, .readable = yes};

/* For channels that may be opened again: it has no destroy. */
static int read_and_note(struct asyncore_dispatcher *d)
{
    char bytes[64];
    ssize_t n = asyncore_recv(d, bytes, sizeof bytes);
    if (n > 0)
        note("%.*s", (int)n, bytes);
    return (int)n;
}

static int note_close(struct asyncore_dispatcher *d)
{
    note("close");
    return asyncore_close(d);
}

static const struct asyncore_class again_class = {
    .name = "again", .handle_read = read_and_note, .handle_close = note_close};

static void datagram_to(struct asyncore_dispatcher *d, const char *text)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    ck_assert_int_eq(asyncore_sockname(d, &address, &length), 0);
    int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq((int)sendto(fd, text, strlen(text), 0, (struct sockaddr *)&address, length), (int)strlen(text));
    close(fd);
}

/* -- Datagram sockets ---------------------------------------------------------------------------------------------- */

START_TEST(a_queue_of_a_datagram_socket_that_is_not_connected_waits_for_connect)
{
    static struct asyncore_dispatcher_with_send s;
    static struct asyncore_dispatcher to;
    char port[8];
    ck_assert_int_eq(asyncore_dispatcher_init(&to, &again_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&to, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_bind(&to, "127.0.0.1", "0"), 0);
    channel_port(&to, port);
    ck_assert_int_eq(asyncore_dispatcher_with_send_init(&s, &plain_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&s.base, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq((int)asyncore_send(&s.base, "queued", 6), 0);
    ck_assert_uint_eq(asyncore_queued(&s), 6);
    assert_idle_for(60);
    ck_assert_int_eq(asyncore_connect(&s.base, "127.0.0.1", port), 0);
    run_until(notes()[0] != '\0');
    assert_notes("queued");
    ck_assert_uint_eq(asyncore_queued(&s), 0);
}
END_TEST

START_TEST(a_stream_ends_on_a_channel_that_had_a_datagram_socket)
{
    static struct asyncore_dispatcher d;
    int fds[2];
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &again_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_close(&d), 0);
    unix_pair(fds);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0);
    close(fds[1]);
    for (int i = 0; i < 3; i++)
        turn();
    assert_notes("close");
}
END_TEST

static void add_datagrams(TCase *tests)
{
    tcase_add_test(tests, a_queue_of_a_datagram_socket_that_is_not_connected_waits_for_connect);
    tcase_add_test(tests, a_stream_ends_on_a_channel_that_had_a_datagram_socket);
}

/* -- What a handle_socket may not do ------------------------------------------------------------------------------- */

static struct asyncore_dispatcher *made; /* in its handle_socket */

/* Every way to open `made` again. set_socket closes what it was given. */
static void refuse_to_open(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fds[2], before = count_descriptors();
    ck_assert_int_eq(asyncore_create_socket(made, AF_INET, SOCK_STREAM), -EBUSY);
    ck_assert_int_eq(asyncore_bind(made, "127.0.0.1", "0"), -EBUSY);
    ck_assert_int_eq(asyncore_connect_sockaddr(made, (struct sockaddr *)&address, sizeof address), -EBUSY);
    ck_assert_int_eq(asyncore_connect(made, "127.0.0.1", "1"), -EBUSY);
    unix_pair(fds);
    ck_assert_int_eq(asyncore_set_socket(made, fds[0]), -EBUSY);
    close(fds[1]);
    ck_assert_int_eq(made->fd, -1);
    ck_assert_int_eq(count_descriptors(), before);
}

static int open_the_outer(struct asyncore_dispatcher *d, int fd)
{
    (void)d;
    (void)fd;
    refuse_to_open();
    return 0;
}

static const struct asyncore_class inner_class = {.name = "inner", .handle_socket = open_the_outer};

/* _i: itself, or in the handle_socket of another channel within. */
static int close_and_open(struct asyncore_dispatcher *d, int fd)
{
    static struct asyncore_dispatcher inner;
    made = d;
    ck_assert_int_eq(d->fd, fd);
    ck_assert_int_eq(asyncore_close(d), 0);
    if (d->data == NULL) {
        refuse_to_open();
        return 0;
    }
    ck_assert_int_eq(asyncore_dispatcher_init(&inner, &inner_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&inner, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_fini(&inner), 0);
    return 0;
}

START_TEST(a_channel_closed_in_its_handle_socket_is_not_opened_again_there)
{
    static const struct asyncore_class class_ = {
        .name = "reopens", .handle_socket = close_and_open, .handle_read = read_and_note, .handle_close = note_close};
    static struct asyncore_dispatcher d;
    int fds[2], before = count_descriptors();
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, map), 0);
    d.data = _i == 0 ? NULL : &d;
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_STREAM), -ECANCELED);
    ck_assert_int_eq(count_descriptors(), before);
    ck_assert_int_eq(d.fd, -1);
    unix_pair(fds);
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0); /* now */
    peer_send(fds[1], "x", 1);
    turn();
    assert_notes("x");
    close(fds[1]);
}
END_TEST

static int join_at_once(struct asyncore_dispatcher *d, int fd)
{
    (void)fd;
    note("%d", asyncore_add_channel(d, NULL) == -EBUSY);
    note("%d", asyncore_add_channel(d, map) == -EBUSY);
    return 0;
}

START_TEST(a_channel_does_not_join_its_map_in_its_handle_socket)
{
    static const struct asyncore_class class_ = {.name = "joins", .handle_socket = join_at_once};
    static struct asyncore_dispatcher d;
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_STREAM), 0);
    assert_notes("1 1");
    ck_assert_int_eq(asyncore_add_channel(&d, NULL), -EEXIST); /* it is in */
}
END_TEST

static int turn_at_once(struct asyncore_dispatcher *d, int fd)
{
    (void)fd;
    ck_assert_int_eq(asyncore_close(d), 0); /* a turn, or the end of the map, would destroy it */
    note("%d", asyncore_poll(map, 0) == -EBUSY);
    note("%d", asyncore_loop(map, 0, 1) == -EBUSY);
    note("%d", asyncore_map_free(map) == -EBUSY);
    note("%d", probe_of(d)->destroys);
    return 0;
}

START_TEST(a_handle_socket_outside_a_turn_makes_no_turn_and_frees_no_map)
{
    static const struct asyncore_class class_ = {
        .name = "turns", .parent = &probe_class, .handle_socket = turn_at_once};
    struct probe *p = probe_new(&class_, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), -ECANCELED);
    assert_notes("1 1 1 0");
    turn();
    assert_notes("destroy");
}
END_TEST

static void add_making(TCase *tests)
{
    tcase_add_loop_test(tests, a_channel_closed_in_its_handle_socket_is_not_opened_again_there, 0, 2);
    tcase_add_test(tests, a_channel_does_not_join_its_map_in_its_handle_socket);
    tcase_add_test(tests, a_handle_socket_outside_a_turn_makes_no_turn_and_frees_no_map);
}

/* -- Channels that are closed -------------------------------------------------------------------------------------- */

static int nothing(struct asynchat *c, const void *data, size_t n)
{
    (void)c;
    (void)data;
    (void)n;
    return 0;
}

static void note_destroy(struct asyncore_dispatcher *d)
{
    (void)d;
    note("destroy");
}

START_TEST(marks_and_terminators_of_a_channel_that_waits_for_destroy_are_ebadf_and_take_nothing)
{
    static const struct asynchat_class class_ = {.base = {.name = "closed", .destroy = note_destroy},
                                                 .collect_incoming_data = nothing};
    static const char longer[] = "longer than what fits into the struct";
    static struct asynchat c;
    const void *bytes = &c;
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asynchat_init(&c, &class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&c.base.base, fds[0]), 0);
    ck_assert_int_eq(asynchat_set_terminator(&c, longer, sizeof longer), 0);
    ck_assert_int_eq(asyncore_set_marks(&c.base, 1, 2, 3), 0);
    ck_assert_int_eq(asyncore_close(&c.base.base), 0);
    ck_assert_int_eq(asynchat_set_terminator(&c, longer, sizeof longer), -EBADF);
    ck_assert_int_eq(asynchat_set_terminator(&c, "\n", 1), -EBADF);
    ck_assert_int_eq(asyncore_set_marks(&c.base, 1, 2, 3), -EBADF);
    ck_assert_uint_eq(asynchat_get_terminator(&c, &bytes), 0);
    ck_assert_ptr_null(bytes);
    ck_assert_ptr_null(c.base.marks_);
    turn();
    assert_notes("destroy");
    close(fds[1]);
}
END_TEST

START_TEST(a_finished_channel_has_no_terminator)
{
    static const struct asynchat_class class_ = {.base = {.name = "finished"}, .collect_incoming_data = nothing};
    static const char longer[] = "longer than what fits into the struct";
    static struct asynchat c;
    ck_assert_int_eq(asynchat_init(&c, &class_, map), 0);
    ck_assert_int_eq(asynchat_set_terminator(&c, longer, sizeof longer), 0);
    ck_assert_int_eq(asyncore_fini(&c.base.base), 0);
    ck_assert_int_eq(asynchat_set_terminator(&c, longer, sizeof longer), -EBADF);
    ck_assert_uint_eq(asynchat_get_terminator(&c, NULL), 0);
}
END_TEST

static void come_and_go(void *arg)
{
    int peer;
    (void)arg;
    struct probe *p = probe_with_peer(&asked_class, &peer);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    close(peer);
}

/* _i: outside of turns, or in one. */
START_TEST(a_channel_with_predicates_closed_before_it_was_asked_leaves_no_work)
{
    int peer;
    probe_with_peer(&probe_class, &peer);
    if (_i == 0)
        come_and_go(NULL);
    else
        ck_assert_int_eq(asyncore_call_soon_threadsafe(map, come_and_go, NULL), 0);
    assert_idle_for(60);
    assert_notes("destroy");
    close(peer);
}
END_TEST

static void add_closed(TCase *tests)
{
    tcase_add_test(tests, marks_and_terminators_of_a_channel_that_waits_for_destroy_are_ebadf_and_take_nothing);
    tcase_add_test(tests, a_finished_channel_has_no_terminator);
    tcase_add_loop_test(tests, a_channel_with_predicates_closed_before_it_was_asked_leaves_no_work, 0, 2);
}

/* -- Input and texts ----------------------------------------------------------------------------------------------- */

static size_t collected;

static int count_bytes(struct asynchat *c, const void *data, size_t n)
{
    (void)c;
    (void)data;
    collected += n;
    return 0;
}

static int note_error(struct asyncore_dispatcher *d, int error)
{
    note("%s", error == ASYNCHAT_ELIMIT ? "limit" : asyncore_strerror(error));
    return asyncore_close(d);
}

/* What might have become the terminator is data when the stream ends there. _i: one byte too many, or none. */
START_TEST(the_limit_holds_for_what_is_data_at_the_end_of_the_stream)
{
    static const struct asynchat_class class_ = {
        .base = {.name = "limited", .handle_error = note_error, .handle_close = note_close},
        .collect_incoming_data = count_bytes};
    static struct asynchat c;
    int fds[2];
    unix_pair(fds);
    ck_assert_int_eq(asynchat_init(&c, &class_, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&c.base.base, fds[0]), 0);
    ck_assert_int_eq(asynchat_set_terminator(&c, "\r\n\r\n", 4), 0);
    asynchat_set_limit(&c, _i == 0 ? 12 : 13);
    peer_send(fds[1], "0123456789\r\n\r", 13);
    turn();
    ck_assert_uint_eq(collected, 10);
    close(fds[1]);
    run_until(notes()[0] != '\0');
    assert_notes(_i == 0 ? "limit" : "close");
    ck_assert_uint_eq(collected, _i == 0 ? 12 : 13);
}
END_TEST

/* _i: a path, or a name in the abstract space. */
START_TEST(the_text_of_a_unix_address_that_is_too_long_fits_into_128_bytes)
{
    struct sockaddr_storage address;
    char text[128], expected[128];
    size_t most = sizeof((struct sockaddr_un *)0)->sun_path;
    memset(&address, 'x', sizeof address);
    address.ss_family = AF_UNIX;
    if (_i == 1)
        ((char *)&address)[offsetof(struct sockaddr_un, sun_path)] = '\0';
    snprintf(expected, sizeof expected, "unix:%s", _i == 1 ? "@" : "x");
    memset(expected + 6, 'x', most - 1);
    expected[5 + most] = '\0';
    int n = asyncore_address_text((struct sockaddr *)&address, sizeof address, text, sizeof text);
    ck_assert_int_lt(n, (int)sizeof text);
    ck_assert_int_eq(n, (int)strlen(text));
    ck_assert_str_eq(text, expected);
}
END_TEST

static void assert_host(const char *host, const char *expected)
{
    struct asyncore_address found[4];
    char text[128];
    int count = hosts_lookup_in_text(host, AF_UNSPEC, found, COUNT(found), &os_linux);
    ck_assert_int_eq(count, expected != NULL);
    if (expected == NULL)
        return;
    ck_assert_int_gt(asyncore_address_text((struct sockaddr *)&found[0].address, found[0].length, text, sizeof text),
                     0);
    ck_assert_str_eq(text, expected);
}

START_TEST(a_line_of_the_hosts_file_may_be_of_any_length)
{
    char text[4096];
    int n = snprintf(text, sizeof text, "192.0.2.1 ");
    memset(text + n, 'a', (size_t)(1022 - n));
    snprintf(text + 1022, sizeof text - 1022, " 192.0.2.2 name\n192.0.2.3 next # %02000d\n192.0.2.4 last\n", 0);
    hosts_text = text;
    assert_host("name", "192.0.2.1:0"); /* and not what stands at 1,023 */
    assert_host("192.0.2.2", "192.0.2.1:0");
    assert_host("next", "192.0.2.3:0");
    assert_host("last", "192.0.2.4:0");
    assert_host("none", NULL);
}
END_TEST

START_TEST(only_addresses_of_hosts_count_in_the_hosts_file)
{
    hosts_text = "* any\nunix:/path any\nunix:@name any\nname any\n192.0.2.9 any\n* none\nunix:/path none\n";
    assert_host("any", "192.0.2.9:0");
    assert_host("none", NULL);
}
END_TEST

static void add_texts(TCase *tests)
{
    tcase_add_loop_test(tests, the_limit_holds_for_what_is_data_at_the_end_of_the_stream, 0, 2);
    tcase_add_loop_test(tests, the_text_of_a_unix_address_that_is_too_long_fits_into_128_bytes, 0, 2);
    tcase_add_test(tests, a_line_of_the_hosts_file_may_be_of_any_length);
    tcase_add_test(tests, only_addresses_of_hosts_count_in_the_hosts_file);
}

/* -- The simulated kernel ------------------------------------------------------------------------------------------ */

/* What the kernel does with a datagram socket that is shut down, the simulated one does too. */
static void note_shut_down(struct os *os, int family, bool connected, int how)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char byte, name[64];
    snprintf(name, sizeof name, family == AF_UNIX ? "unix:@asyncore-finds-%ld" : "127.0.0.1", (long)getpid());
    int fd = os->socket(family, SOCK_DGRAM, 0, os);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(asyncore_parse_address(name, "0", &address, &length), 0);
    ck_assert_int_eq(os->bind(fd, (struct sockaddr *)&address, length, os), 0);
    length = sizeof address;
    ck_assert_int_eq(os->getsockname(fd, (struct sockaddr *)&address, &length, os), 0);
    if (connected)
        ck_assert_int_eq(os->connect(fd, (struct sockaddr *)&address, length, os), 0);
    note("%d", os->shutdown(fd, how, os));
    struct pollfd look = {.fd = fd, .events = POLLIN | POLLOUT};
    os->poll(&look, 1, 0, os);
    note("%x", look.revents);
    note("%zd", os->recv(fd, &byte, 1, MSG_DONTWAIT, os));
    int from = os->socket(family, SOCK_DGRAM, 0, os);
    if (!connected)
        note("%zd", os->sendto(from, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, length, os));
    note("%zd", os->recv(fd, &byte, 1, MSG_DONTWAIT, os));
    os->close(from, os);
    os->close(fd, os);
}

START_TEST(the_simulated_kernel_shuts_datagram_sockets_down_as_the_kernel_does)
{
    struct asyncore_sim *world;
    char expected[256];
    ck_assert_int_eq(asyncore_sim_new(&world, 1, NULL), 0);
    ck_assert_ptr_nonnull(asyncore_sim_map(world, "a"));
    int family = _i % 2 == 0 ? AF_INET : AF_UNIX, how = _i / 4;
    bool connected = _i / 2 % 2 == 1;
    note_shut_down(&os_linux, family, connected, how);
    snprintf(expected, sizeof expected, "%s", notes());
    forget_notes();
    note_shut_down(sim_os(world, "a"), family, connected, how);
    assert_notes(expected);
    asyncore_sim_free(world);
}
END_TEST

/* A copy behind a lent piece took a kilobyte, so that a queue of a few bytes held a megabyte. */
START_TEST(small_copies_between_lent_pieces_take_little_memory)
{
    static const struct asynchat_class chat_class = {.base = {.name = "chat"}};
    static struct asynchat chat;
    struct asyncore_sim_usage before, after;
    struct asyncore_sim *world;
    ck_assert_int_eq(asyncore_sim_new(&world, 1, NULL), 0);
    ck_assert_int_eq(asynchat_init(&chat, &chat_class, asyncore_sim_map(world, "a")), 0);
    ck_assert_int_eq(asyncore_connect(&chat.base.base, asyncore_sim_address(world, "b", AF_INET), "1"), 0);
    ck_assert_int_eq(asyncore_sim_usage(world, "a", &before), 0);
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(asynchat_push_ref(&chat, "x", 1, NULL, NULL), 0);
        ck_assert_int_eq(asynchat_push(&chat, "y", 1), 0);
    }
    ck_assert_int_eq(asyncore_sim_usage(world, "a", &after), 0);
    ck_assert_uint_eq(asyncore_queued(&chat.base), 2000);
    ck_assert_uint_lt(after.bytes - before.bytes, 1000 * 256);
    asyncore_fini(&chat.base.base);
    asyncore_sim_free(world);
}
END_TEST

static void add_simulated(TCase *tests)
{
    tcase_add_test(tests, small_copies_between_lent_pieces_take_little_memory);
    tcase_add_loop_test(tests, the_simulated_kernel_shuts_datagram_sockets_down_as_the_kernel_does, 0, 12);
}

/* -- Datagram sockets that are shut down --------------------------------------------------------------------------- */

/* Notes what is read, as long as there is any; nothing for nothing. */
static int read_or_nothing(struct asyncore_dispatcher *d)
{
    int n = read_and_note(d);
    if (n <= 0)
        note("%s", n == 0 ? "0" : asyncore_strerror(n));
    return n;
}

static const struct asyncore_class datagrams_class = {
    .name = "datagrams", .handle_read = read_or_nothing, .handle_close = note_close};
static const struct asyncore_class asked_datagrams_class = {
    .name = "asked datagrams", .handle_read = read_or_nothing, .handle_close = note_close, .readable = yes};

/* Of `kind`: 0 a UDP socket, 1 a connected one, 2 a Unix one that came from elsewhere. The other end, or -1. */
static int datagram_socket(struct asyncore_dispatcher *d, int kind)
{
    char port[8];
    int fds[2];
    if (kind == 2) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), 0);
        ck_assert_int_eq(asyncore_set_socket(d, fds[0]), 0);
        return fds[1];
    }
    ck_assert_int_eq(asyncore_create_socket(d, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_bind(d, "127.0.0.1", "0"), 0);
    channel_port(d, port);
    if (kind == 1) {
        ck_assert_int_eq(asyncore_connect(d, "127.0.0.1", port), 0);
        run_until(asyncore_connected(d));
    }
    return -1;
}

static void assert_reads_no_more(struct asyncore_dispatcher *d)
{
    char byte;
    assert_idle_for(60);
    ck_assert_int_eq((int)asyncore_recv(d, &byte, 1), 0);
    ck_assert_int_eq(asyncore_ready(d), 0);
    ck_assert_int_eq(asyncore_want(d, ASYNCORE_READ | ASYNCORE_ERROR), 0);
    assert_idle_for(60);
    assert_notes("");
}

START_TEST(a_datagram_socket_that_is_shut_down_reads_no_more_and_has_no_end)
{
    static struct asyncore_dispatcher d;
    int kind = _i % 3, way = _i / 3 % 3; /* reading; both; writing, then reading */
    ck_assert_int_eq(asyncore_dispatcher_init(&d, _i < 9 ? &datagrams_class : &asked_datagrams_class, map), 0);
    int other = datagram_socket(&d, kind);
    if (way == 2) {
        ck_assert_int_eq(asyncore_shutdown(&d, SHUT_WR), kind == 0 ? -ENOTCONN : 0);
        assert_idle_for(20);
        assert_notes("");
    }
    ck_assert_int_eq(asyncore_shutdown(&d, way == 1 ? SHUT_RDWR : SHUT_RD), kind == 0 ? -ENOTCONN : 0);
    assert_reads_no_more(&d);
    ck_assert_int_eq(asyncore_del_channel(&d), 0);
    ck_assert_int_eq(asyncore_add_channel(&d, NULL), 0);
    assert_reads_no_more(&d);
    if (other >= 0)
        close(other);
}
END_TEST

START_TEST(shutting_down_writing_leaves_datagrams_to_read)
{
    static struct asyncore_dispatcher d;
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &datagrams_class, map), 0);
    datagram_socket(&d, 0);
    ck_assert_int_eq(asyncore_shutdown(&d, SHUT_WR), -ENOTCONN);
    datagram_to(&d, "x");
    run_until(notes()[0] != '\0');
    assert_notes("x");
}
END_TEST

/* The kernel's socket stays as it is, and what comes next is another one. */
START_TEST(a_datagram_socket_that_is_shut_down_stays_so_when_it_connects_and_the_next_one_reads)
{
    static struct asyncore_dispatcher d;
    char port[8];
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &datagrams_class, map), 0);
    datagram_socket(&d, 0);
    channel_port(&d, port);
    ck_assert_int_eq(asyncore_shutdown(&d, SHUT_RD), -ENOTCONN);
    ck_assert_int_eq(asyncore_connect(&d, "127.0.0.1", port), 0);
    run_until(asyncore_connected(&d));
    assert_reads_no_more(&d);
    ck_assert_int_eq(asyncore_close(&d), 0);
    datagram_socket(&d, 0);
    datagram_to(&d, "y");
    run_until(notes()[0] != '\0');
    assert_notes("y");
}
END_TEST

static int shut_down_at_once(struct asyncore_dispatcher *d, int fd)
{
    (void)fd;
    ck_assert_int_eq(asyncore_shutdown(d, SHUT_RD), 0);
    return 0;
}

START_TEST(a_datagram_socket_may_be_shut_down_in_its_handle_socket)
{
    static const struct asyncore_class class_ = {
        .name = "sends only", .handle_read = read_or_nothing, .handle_socket = shut_down_at_once};
    static struct asyncore_dispatcher d;
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_UNIX, SOCK_DGRAM), 0);
    assert_reads_no_more(&d);
}
END_TEST

static int two_addresses(const char *host, int family, struct asyncore_address *addresses, size_t size, struct os *os)
{
    (void)family;
    (void)os;
    ck_assert_str_eq(host, "two");
    ck_assert_uint_ge(size, 2);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(asyncore_parse_address("127.0.0.1", "0", &addresses[i].address, &addresses[i].length), 0);
    return 2;
}

static int refuse_once(int fd, const struct sockaddr *address, socklen_t length, struct os *os)
{
    static bool refused;
    if (refused)
        return os_linux.connect(fd, address, length, os);
    refused = true;
    return -EACCES;
}

static int note_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    (void)address, (void)length;
    note("accepted");
    return asyncore_close_fd(d->map, fd);
}

/* Linux calls such a Unix listener readable for ever, and its accept says EAGAIN. */
START_TEST(a_listener_that_is_shut_down_rests_and_tcp_may_listen_again)
{
    static const struct asyncore_class listener_class = {.name = "listener", .handle_accepted = note_accepted};
    static const struct asyncore_class client_class = {.name = "client"};
    struct asyncore_dispatcher d, client;
    char name[64];
    snprintf(name, sizeof name, "unix:@asyncore-finds-%d", (int)getpid());
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &listener_class, map), 0);
    ck_assert_int_eq(asyncore_bind(&d, _i == 0 ? name : "127.0.0.1", "0"), 0);
    ck_assert_int_eq(asyncore_listen(&d, 4), 0);
    turn();
    ck_assert_int_eq(asyncore_shutdown(&d, SHUT_RD), 0);
    assert_idle_for(60);
    assert_notes("");
    ck_assert_int_eq(asyncore_listen(&d, 4), 0);
    assert_idle_for(60);
    if (_i == 1) { /* a Unix one is shut down for good */
        ck_assert_int_eq(asyncore_dispatcher_init(&client, &client_class, map), 0);
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        ck_assert_int_eq(asyncore_sockname(&d, &address, &length), 0);
        ck_assert_int_eq(asyncore_create_socket(&client, AF_INET, SOCK_STREAM), 0);
        ck_assert_int_eq(asyncore_connect_sockaddr(&client, (struct sockaddr *)&address, length), 0);
        run_until(strstr(notes(), "accepted") != NULL);
        asyncore_close(&client);
    }
    asyncore_close(&d);
}
END_TEST

START_TEST(a_stream_shut_down_before_it_connects_connects_all_the_same)
{
    static const struct asyncore_class client_class = {.name = "client"};
    static struct asyncore_dispatcher d;
    char port[8] = "";
    int listener = peer_listen("127.0.0.1", port);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &client_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_shutdown(&d, SHUT_RDWR), -ENOTCONN);
    ck_assert_int_eq(asyncore_connect(&d, "127.0.0.1", port), 0);
    run_until(asyncore_connected(&d));
    int fd = peer_accept(listener);
    ck_assert_int_eq((int)asyncore_send(&d, "x", 1), 1); /* and it can write */
    assert_idle_for(60);
    asyncore_close(&d);
    close(fd);
    close(listener);
}
END_TEST

START_TEST(the_socket_of_the_next_address_is_not_shut_down)
{
    static struct asyncore_dispatcher d;
    static struct os os;
    os = os_linux;
    os.hosts = two_addresses;
    os.connect = refuse_once;
    ck_assert_int_eq(asyncore_map_free(map), 0);
    map = NULL;
    ck_assert_int_eq(map_new_on(&map, &os, NULL), 0);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &datagrams_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_shutdown(&d, SHUT_RD), -ENOTCONN);
    struct probe *peer = probe_new(&probe_class, "");
    char port[8];
    ck_assert_int_eq(asyncore_create_socket(&peer->base, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_bind(&peer->base, "127.0.0.1", "0"), 0);
    channel_port(&peer->base, port);
    ck_assert_int_eq(asyncore_connect(&d, "two", port), 0);
    run_until(asyncore_connected(&d));
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    ck_assert_int_eq(asyncore_sockname(&d, &address, &length), 0);
    ck_assert_int_eq((int)asyncore_sendto(&peer->base, "z", 1, (struct sockaddr *)&address, length), 1);
    run_until(notes()[0] != '\0');
    assert_notes("z");
}
END_TEST

START_TEST(close_when_done_is_told_on_a_datagram_channel_that_was_shut_down)
{
    static const struct asynchat_class class_ = {.base = {.name = "done", .handle_close = note_close},
                                                 .collect_incoming_data = nothing};
    static struct asynchat c;
    char byte = 0;
    ck_assert_int_eq(asynchat_init(&c, &class_, map), 0);
    int other = datagram_socket(&c.base.base, 2);
    ck_assert_int_eq(asyncore_shutdown(&c.base.base, SHUT_RD), 0);
    ck_assert_int_eq(asynchat_push(&c, "x", 1), 0);
    ck_assert_int_eq(asynchat_close_when_done(&c), 0);
    for (int i = 0; i < 3; i++)
        turn();
    assert_notes("close");
    ck_assert_int_eq((int)recv(other, &byte, 1, MSG_DONTWAIT), 1);
    close(other);
}
END_TEST

static void add_shut_down(TCase *tests)
{
    tcase_add_loop_test(tests, a_datagram_socket_that_is_shut_down_reads_no_more_and_has_no_end, 0, 18);
    tcase_add_test(tests, shutting_down_writing_leaves_datagrams_to_read);
    tcase_add_test(tests, a_datagram_socket_that_is_shut_down_stays_so_when_it_connects_and_the_next_one_reads);
    tcase_add_test(tests, a_datagram_socket_may_be_shut_down_in_its_handle_socket);
    tcase_add_loop_test(tests, a_listener_that_is_shut_down_rests_and_tcp_may_listen_again, 0, 2);
    tcase_add_test(tests, a_stream_shut_down_before_it_connects_connects_all_the_same);
    tcase_add_test(tests, the_socket_of_the_next_address_is_not_shut_down);
    tcase_add_test(tests, close_when_done_is_told_on_a_datagram_channel_that_was_shut_down);
}

/* -- Channels that move in their own handler ----------------------------------------------------------------------- */

static struct asyncore_map *second;

/* What the handler does with its channel in the other map; each leaves it closed, or still there (STAYS). */
enum way {
    CLOSED_AND_POLLED,
    CLOSED_AND_LOOPED,
    POLLED_AND_CLOSED_THERE, /* by its own handler, in a turn of the other map within this one */
    MAP_FREED,
    WAYS
};

static void end_there(struct probe *p)
{
    switch ((enum way)p->number) {
    case CLOSED_AND_POLLED:
        ck_assert_int_eq(asyncore_close(&p->base), 0);
        ck_assert_int_ge(asyncore_poll(second, 0), 0);
        break;
    case CLOSED_AND_LOOPED:
        ck_assert_int_eq(asyncore_close(&p->base), 0);
        ck_assert_int_eq(asyncore_loop(second, -1, 0), 0);
        break;
    case POLLED_AND_CLOSED_THERE:
        ck_assert_int_eq(asyncore_poll(second, 0), 1);
        ck_assert_int_ge(asyncore_poll(second, 0), 0);
        break;
    default:
        ck_assert_int_eq(asyncore_map_free(second), 0);
        second = NULL;
    }
}

static int move_and_end(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    if (d->map == second)
        return asyncore_close(d);
    ck_assert_int_eq(asyncore_del_channel(d), 0);
    ck_assert_int_eq(asyncore_add_channel(d, second), 0);
    note("moved");
    ck_assert_int_eq(asyncore_fini(d), -EBUSY);
    end_there(p);
    ck_assert_int_eq(d->fd, -1);
    ck_assert_int_eq(p->destroys, 0);
    ck_assert_int_eq(asyncore_fini(d), -EBUSY);
    note("returns");
    return 0;
}

static const struct asyncore_class ends_elsewhere_class = {
    .name = "ends elsewhere", .parent = &probe_class, .handle_read = move_and_end};

START_TEST(a_channel_that_moved_in_its_handler_is_not_destroyed_before_that_returns)
{
    int peer;
    struct probe *p = probe_with_peer(&ends_elsewhere_class, &peer);
    p->number = _i;
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    peer_send(peer, "x", 1);
    run_until(p->destroys == 1);
    assert_notes("moved returns destroy");
    assert_idle_for(30);
    if (second != NULL)
        ck_assert_int_eq(asyncore_map_free(second), 0);
    assert_notes("");
    close(peer);
}
END_TEST

static int move_there(struct asyncore_dispatcher *d)
{
    ck_assert_int_eq(asyncore_del_channel(d), 0);
    ck_assert_int_eq(asyncore_add_channel(d, second), 0);
    ck_assert_int_eq(asyncore_fini(d), -EBUSY);
    if (d->data != NULL) {
        ck_assert_int_eq(asyncore_map_free(second), 0); /* which closes it, and cannot destroy it */
        ck_assert_int_eq(asyncore_fini(d), -EBUSY);
        second = NULL;
    }
    note("returns");
    return 0;
}

/* Without destroy. _i: it is there, or its new map is gone. */
START_TEST(a_channel_that_moved_in_its_handler_is_not_finished_before_that_returns)
{
    static const struct asyncore_class class_ = {.name = "moves", .handle_read = move_there};
    static struct asyncore_dispatcher d;
    int fds[2];
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    unix_pair(fds);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &class_, map), 0);
    d.data = _i == 0 ? NULL : &d;
    ck_assert_int_eq(asyncore_set_socket(&d, fds[0]), 0);
    peer_send(fds[1], "x", 1);
    turn();
    assert_notes("returns");
    ck_assert_int_eq(asyncore_fini(&d), 0); /* now */
    ck_assert_ptr_null(d.map);
    if (second != NULL)
        ck_assert_int_eq(asyncore_map_free(second), 0);
    close(fds[1]);
}
END_TEST

/* Asked in the turn, and once more when its event is there. */
static int move_when_asked_twice(struct asyncore_dispatcher *d)
{
    if (++probe_of(d)->number == 2) {
        ck_assert_int_eq(asyncore_del_channel(d), 0);
        ck_assert_int_eq(asyncore_add_channel(d, second), 0);
    }
    return 1;
}

static const struct asyncore_class moves_when_asked_classes[] = {
    {.name = "moves when asked to read", .parent = &probe_class, .readable = move_when_asked_twice},
    {.name = "moves when asked to write", .parent = &probe_class, .writable = move_when_asked_twice}};

START_TEST(a_channel_that_moved_in_its_predicate_is_served_by_its_new_map_alone)
{
    int peer, there[2];
    struct probe *p = probe_with_peer(&moves_when_asked_classes[_i], &peer), *other = probe_new(&probe_class, "other");
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    unix_pair(there);
    ck_assert_int_eq(asyncore_dispatcher_init(&other->base, &probe_class, second), 0);
    ck_assert_int_eq(asyncore_set_socket(&other->base, there[0]), 0);
    peer_send(there[1], "x", 1);
    run_map_until(second, other->bytes == 1); /* it has served somebody before */
    forget_notes();
    if (_i == 0)
        peer_send(peer, "x", 1);
    turn();
    ck_assert_ptr_eq(p->base.map, second);
    assert_notes("");
    ck_assert_int_eq(asyncore_poll(second, 0), 1);
    assert_notes(_i == 0 ? "read" : "write");
    ck_assert_int_eq(asyncore_map_free(second), 0);
    close(peer);
    close(there[1]);
}
END_TEST

static void add_moving(TCase *tests)
{
    tcase_add_loop_test(tests, a_channel_that_moved_in_its_handler_is_not_destroyed_before_that_returns, 0, WAYS);
    tcase_add_loop_test(tests, a_channel_that_moved_in_its_handler_is_not_finished_before_that_returns, 0, 2);
    tcase_add_loop_test(tests, a_channel_that_moved_in_its_predicate_is_served_by_its_new_map_alone, 0, 2);
}

int main(void)
{
    return run_suite("finds", add_datagrams, add_making, add_closed, add_texts, add_simulated, add_shut_down,
                     add_moving, NULL);
}
