/* test_dispatcher.c: the object itself: its class, its transport, its way in and out of a map, what it sends, logs and
 * shows. */
#include "support.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

/* -- Classes -- */

static const struct asyncore_class child_class, grandchild_class;

static int child_read(struct asyncore_dispatcher *d)
{
    note("child");
    return asyncore_super(d, &child_class)->handle_read(d);
}

static int child_close(struct asyncore_dispatcher *d)
{
    note("child");
    return asyncore_super(d, &child_class)->handle_close(d);
}

static int grandchild_read(struct asyncore_dispatcher *d)
{
    note("grandchild");
    return asyncore_super(d, &grandchild_class)->handle_read(d);
}

static const struct asyncore_class child_class = {
    .name = "child",
    .parent = &probe_class,
    .handle_read = child_read,
    .handle_close = child_close,
};

static const struct asyncore_class grandchild_class = {
    .name = "grandchild",
    .parent = &child_class,
    .handle_read = grandchild_read,
};

START_TEST(a_null_slot_is_the_nearest_ancestors)
{
    int peer;
    probe_with_peer(&grandchild_class, &peer);
    close(peer);
    turn();
    assert_notes("grandchild child read child close destroy");
}
END_TEST

START_TEST(super_has_every_slot_set)
{
    int peer;
    struct probe *p = probe_with_peer(&grandchild_class, &peer);
    const struct asyncore_class *base = asyncore_super(&p->base, &probe_class);
    ck_assert(base->handle_connect && base->handle_expt && base->handle_read && base->handle_write &&
              base->handle_accept);
    ck_assert(base->handle_accepted && base->handle_close && base->handle_error && base->handle_event &&
              base->handle_socket);
    ck_assert(base->recv && base->send && base->log && base->log_info && base->destroy);
    ck_assert_ptr_eq(asyncore_super(&p->base, &grandchild_class)->handle_read, child_read);
    ck_assert_ptr_eq(asyncore_super(&p->base, &grandchild_class)->handle_close, child_close);
    ck_assert_ptr_eq(asyncore_super(&p->base, &child_class)->handle_write, probe_class.handle_write);
    close(peer);
}
END_TEST

static int event_in_one_call(struct asyncore_dispatcher *d, unsigned events)
{
    note("event%u", events & (ASYNCORE_READ | ASYNCORE_WRITE));
    return probe_of(d)->number;
}

static const struct asyncore_class one_call_class = {
    .name = "one call",
    .parent = &probe_class,
    .handle_event = event_in_one_call,
};

START_TEST(handle_event_gets_all_events_instead_of_the_handlers)
{
    int peer;
    struct probe *p = probe_with_peer(&one_call_class, &peer);
    asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("event5");
    close(peer);
}
END_TEST

static const struct asyncore_class reversed_class;

static int write_before_read(struct asyncore_dispatcher *d, unsigned events)
{
    const struct asyncore_class *parent = asyncore_super(d, &reversed_class);
    note("event");
    int result = parent->handle_event(d, events & ASYNCORE_WRITE);
    return result < 0 ? result : parent->handle_event(d, events & ~(unsigned)ASYNCORE_WRITE);
}

static const struct asyncore_class reversed_class = {
    .name = "reversed",
    .parent = &probe_class,
    .handle_event = write_before_read,
};

START_TEST(the_parents_handle_event_calls_the_handlers)
{
    int peer;
    struct probe *p = probe_with_peer(&reversed_class, &peer);
    asyncore_want(&p->base, ASYNCORE_READ | ASYNCORE_WRITE);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("event write read");
    close(peer);
}
END_TEST

static int count_socket(struct asyncore_dispatcher *d, int fd)
{
    int type = 0, on = 1;
    socklen_t length = sizeof type;
    probe_of(d)->accepts++;
    ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length), 0);
    ck_assert_int_eq(type, SOCK_STREAM);
    ck_assert_int_eq(d->fd, fd);
    ck_assert_int_eq(asyncore_setsockopt(d, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on), 0);
    return probe_of(d)->result;
}

static const struct asyncore_class socket_class = {
    .name = "socket",
    .parent = &probe_class,
    .handle_socket = count_socket,
};

START_TEST(handle_socket_sees_a_socket_before_anything_is_done_with_it)
{
    int on = 0;
    socklen_t length = sizeof on;
    struct probe *p = probe_new(&socket_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_bind(&p->base, "127.0.0.1", "0"), 0);
    ck_assert_int_eq(p->accepts, 1);
    ck_assert_int_eq(asyncore_getsockopt(&p->base, SOL_SOCKET, SO_KEEPALIVE, &on, &length), 0);
    ck_assert_int_eq(on, 1);
}
END_TEST

static int close_in_handle_socket(struct asyncore_dispatcher *d, int fd)
{
    (void)fd;
    return asyncore_close(d);
}

static const struct asyncore_class closes_class = {
    .name = "closes",
    .parent = &probe_class,
    .handle_socket = close_in_handle_socket,
};

START_TEST(a_handle_socket_that_closes_leaves_nothing_open)
{
    int before = count_descriptors();
    struct probe *p = probe_new(&closes_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), -ECANCELED);
    ck_assert_int_eq(count_descriptors(), before);
    turn();
    assert_notes("destroy");
}
END_TEST

START_TEST(a_handle_socket_that_fails_ends_the_attempt)
{
    struct probe *p = probe_new(&socket_class, "");
    int before = count_descriptors();
    p->result = -EPROTO;
    int result = asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM);
    ck_assert_int_eq(result, -EPROTO);
    ck_assert_int_eq(p->base.fd, -1);
    ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

static void add_classes(TCase *tests)
{
    tcase_add_test(tests, a_null_slot_is_the_nearest_ancestors);
    tcase_add_test(tests, super_has_every_slot_set);
    tcase_add_test(tests, handle_event_gets_all_events_instead_of_the_handlers);
    tcase_add_test(tests, the_parents_handle_event_calls_the_handlers);
    tcase_add_test(tests, handle_socket_sees_a_socket_before_anything_is_done_with_it);
    tcase_add_test(tests, a_handle_socket_that_fails_ends_the_attempt);
    tcase_add_test(tests, a_handle_socket_that_closes_leaves_nothing_open);
}

/* -- Transports -- */

/* A transport that takes what the kernel has at once, decodes it and hands it out in small pieces. */
struct transport {
    struct probe probe; /* first, so that probe_of() is right */
    unsigned char held[256];
    size_t from, to;
};

static const struct asyncore_class transport_class;

static ssize_t transport_recv(struct asyncore_dispatcher *d, void *data, size_t size)
{
    struct transport *t = (struct transport *)d;
    if (t->from == t->to) {
        ssize_t n = asyncore_super(d, &transport_class)->recv(d, t->held, sizeof t->held);
        if (n <= 0)
            return n;
        t->from = 0;
        t->to = (size_t)n;
    }
    size_t n = t->to - t->from < size ? t->to - t->from : size;
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)data)[i] = t->held[t->from++] ^ 0x55;
    return (ssize_t)n;
}

static ssize_t transport_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    unsigned char coded[256];
    size_t n = size < sizeof coded ? size : sizeof coded;
    for (size_t i = 0; i < n; i++)
        coded[i] = ((const unsigned char *)data)[i] ^ 0x55;
    return asyncore_super(d, &transport_class)->send(d, coded, n);
}

static int transport_read(struct asyncore_dispatcher *d)
{
    struct transport *t = (struct transport *)d;
    int result = asyncore_super(d, &transport_class)->handle_read(d);
    if (t->from < t->to)
        ck_assert_int_eq(asyncore_ready(d), 0);
    return result;
}

static const struct asyncore_class transport_class = {
    .name = "transport",
    .parent = &probe_class,
    .recv = transport_recv,
    .send = transport_send,
    .handle_read = transport_read,
};

static void transport_open(struct transport *t, int *peer)
{
    int fds[2];
    unix_pair(fds);
    memset(t, 0, sizeof *t);
    ck_assert_int_eq(asyncore_dispatcher_init(&t->probe.base, &transport_class, map), 0);
    ck_assert_int_eq(asyncore_set_socket(&t->probe.base, fds[0]), 0);
    *peer = fds[1];
}

static void send_coded(int peer, size_t size)
{
    unsigned char data[256];
    pattern_fill(data, 0, size);
    for (size_t i = 0; i < size; i++)
        data[i] ^= 0x55;
    peer_send(peer, data, size);
}

START_TEST(a_channel_whose_transport_holds_bytes_is_read_again)
{
    struct transport t;
    int peer;
    transport_open(&t, &peer);
    t.probe.piece = 10;
    send_coded(peer, 100);
    run_until(t.probe.bytes == 100);
    ck_assert_int_eq(t.probe.reads, 10);
    pattern_check(t.probe.input, 0, 100);
    assert_idle_for(30);
    close(peer);
    run_until(t.probe.destroys == 1);
    ck_assert_int_eq(t.probe.closes, 1);
    ck_assert_uint_eq(t.probe.bytes, 100);
    free(t.probe.input);
}
END_TEST

START_TEST(ready_ends_a_wait_at_once)
{
    char first[60];
    struct transport t;
    int peer;
    transport_open(&t, &peer);
    send_coded(peer, 100);
    ck_assert_int_eq((int)asyncore_recv(&t.probe.base, first, sizeof first), sizeof first);
    ck_assert_int_eq(asyncore_ready(&t.probe.base), 0);
    uint64_t begin = clock_ns();
    ck_assert_int_ge(asyncore_poll(map, 3000), 0);
    ck_assert_uint_lt(clock_ns() - begin, 2000000000u);
    ck_assert_uint_eq(t.probe.bytes, 40);
    close(peer);
    ck_assert_int_eq(asyncore_fini(&t.probe.base), 0);
    free(t.probe.input);
}
END_TEST

static int ready_for_ever(struct asyncore_dispatcher *d)
{
    probe_of(d)->reads++;
    return asyncore_ready(d);
}

static const struct asyncore_class restless_class = {
    .name = "restless",
    .parent = &probe_class,
    .handle_read = ready_for_ever,
};

START_TEST(a_channel_that_is_always_ready_leaves_others_their_turn)
{
    int peers[2];
    struct probe *p = probe_with_peer(&restless_class, &peers[0]), *q = probe_with_peer(&probe_class, &peers[1]);
    asyncore_ready(&p->base);
    turn();
    peer_send(peers[1], "x", 1);
    turn();
    ck_assert_int_ge(p->reads, 2);
    ck_assert_int_eq(q->reads, 1);
    close(peers[0]);
    close(peers[1]);
}
END_TEST

START_TEST(a_closed_channel_is_not_ready)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_ready(&p->base), 0);
    asyncore_close(&p->base);
    turn();
    assert_notes("destroy");
    ck_assert_int_lt(asyncore_ready(&p->base), 0);
    close(peer);
}
END_TEST

START_TEST(send_and_recv_view_go_through_the_transport)
{
    unsigned char data[40];
    const void *view = NULL;
    struct transport t;
    int peer;
    transport_open(&t, &peer);
    pattern_fill(data, 0, sizeof data);
    ck_assert_int_eq((int)asyncore_send(&t.probe.base, data, sizeof data), sizeof data);
    ck_assert_uint_eq(peer_recv(peer, data, sizeof data), sizeof data);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] ^= 0x55;
    pattern_check(data, 0, sizeof data);
    send_coded(peer, 50);
    ck_assert_int_eq((int)asyncore_recv_view(&t.probe.base, &view), 50);
    pattern_check(view, 0, 50);
    close(peer);
    ck_assert_int_eq(asyncore_fini(&t.probe.base), 0);
}
END_TEST

static void add_transports(TCase *tests)
{
    tcase_add_test(tests, a_channel_whose_transport_holds_bytes_is_read_again);
    tcase_add_test(tests, ready_ends_a_wait_at_once);
    tcase_add_test(tests, a_channel_that_is_always_ready_leaves_others_their_turn);
    tcase_add_test(tests, a_closed_channel_is_not_ready);
    tcase_add_test(tests, send_and_recv_view_go_through_the_transport);
}

/* -- In and out of a map -- */

static const struct asyncore_class plain_class = {.name = "plain"};

START_TEST(init_takes_a_struct_with_anything_in_it)
{
    struct asyncore_dispatcher d;
    memset(&d, 0xa5, sizeof d);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &plain_class, map), 0);
    ck_assert_int_eq(d.fd, -1);
    ck_assert_ptr_eq(d.map, map);
    ck_assert_int_eq(asyncore_connected(&d) + asyncore_connecting(&d) + asyncore_accepting(&d), 0);
    ck_assert_int_eq(asyncore_error(&d), 0);
    ck_assert_int_eq(asyncore_fini(&d), 0);
}
END_TEST

START_TEST(sockets_are_non_blocking_and_closed_by_exec)
{
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_ne(fcntl(p->base.fd, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_ne(fcntl(p->base.fd, F_GETFD) & FD_CLOEXEC, 0);
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), -EEXIST);
}
END_TEST

START_TEST(a_deleted_channel_gets_nothing_until_it_is_added)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    peer_send(peer, "x", 1);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    assert_idle_for(30);
    assert_notes("");
    ck_assert(is_open(p->base.fd));
    ck_assert_int_eq(asyncore_add_channel(&p->base, NULL), 0);
    turn();
    assert_notes("read");
    close(peer);
}
END_TEST

START_TEST(a_channel_moves_to_another_map)
{
    int peer;
    struct asyncore_map *second;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    ck_assert_int_eq(asyncore_del_channel(&p->base), 0);
    ck_assert_int_eq(asyncore_add_channel(&p->base, second), 0);
    ck_assert_ptr_eq(p->base.map, second);
    peer_send(peer, "x", 1);
    assert_idle_for(20);
    assert_notes("");
    ck_assert_int_eq(asyncore_poll(second, 0), 1);
    assert_notes("read");
    ck_assert_int_eq(asyncore_map_free(second), 0);
    assert_notes("destroy");
    close(peer);
}
END_TEST

START_TEST(a_descriptor_that_is_in_the_map_is_not_taken_twice)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer), *q = probe_new(&probe_class, "q");
    ck_assert_int_eq(asyncore_set_socket(&q->base, p->base.fd), -EEXIST);
    ck_assert_int_eq(asyncore_add_channel(&p->base, NULL), -EEXIST);
    peer_send(peer, "x", 1);
    run_until(p->bytes == 1);
    ck_assert_int_eq(p->reads, 1);
    ck_assert_int_eq(q->destroys, 1);
    ck_assert(is_open(p->base.fd));
    close(peer);
}
END_TEST

START_TEST(a_bad_descriptor_closes_the_channel)
{
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_set_socket(&p->base, -1), -EBADF);
    turn();
    assert_notes("destroy");
}
END_TEST

START_TEST(a_borrowed_descriptor_is_left_open)
{
    char byte;
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    int fd = p->base.fd;
    asyncore_set_borrowed(&p->base);
    ck_assert_int_eq(_i == 0 ? asyncore_close(&p->base) : asyncore_fini(&p->base), 0);
    ck_assert_int_eq((int)write(fd, "x", 1), 1);
    ck_assert_uint_eq(peer_recv(peer, &byte, 1), 1);
    close(fd);
    close(peer);
}
END_TEST

START_TEST(closing_twice_is_nothing)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert_int_eq(p->base.fd, -1);
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert(peer_at_end(peer));
    assert_notes("");
    turn();
    turn();
    ck_assert_int_eq(asyncore_close(&p->base), 0);
    turn();
    assert_notes("destroy");
    close(peer);
}
END_TEST

START_TEST(fini_closes_and_calls_no_destroy)
{
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    if (_i == 1)
        ck_assert_int_eq(asyncore_close(&p->base), 0);
    ck_assert_int_eq(asyncore_fini(&p->base), 0);
    memset(&p->base, 0xa5, sizeof p->base);
    ck_assert(peer_at_end(peer));
    turn();
    assert_notes("");
    close(peer);
}
END_TEST

START_TEST(a_closed_channel_without_destroy_makes_a_socket_again)
{
    struct asyncore_dispatcher d;
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &plain_class, map), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_STREAM), 0);
        ck_assert_int_eq(asyncore_bind(&d, "127.0.0.1", "0"), 0);
        ck_assert_int_eq(asyncore_listen(&d, 1), 0);
        ck_assert_int_eq(asyncore_accepting(&d), 1);
        ck_assert_int_eq(asyncore_close(&d), 0);
        ck_assert_int_eq(asyncore_accepting(&d), 0);
        if (i == 1)
            turn();
    }
    ck_assert_int_eq(asyncore_fini(&d), 0);
}
END_TEST

START_TEST(map_free_destroys_what_is_left)
{
    int peer;
    struct asyncore_map *second;
    struct asyncore_dispatcher *d = malloc(sizeof *d);
    static const struct asyncore_class freed_class = {.name = "freed", .destroy = asyncore_destroy_free};
    int fds[2];
    unix_pair(fds);
    peer = fds[1];
    ck_assert_int_eq(asyncore_map_new(&second, NULL), 0);
    ck_assert_int_eq(asyncore_dispatcher_init(d, &freed_class, second), 0);
    ck_assert_int_eq(asyncore_set_socket(d, fds[0]), 0);
    ck_assert_int_eq(asyncore_map_free(second), 0);
    ck_assert(peer_at_end(peer));
    close(peer);
}
END_TEST

START_TEST(close_all_closes_every_channel)
{
    int peers[3];
    for (int i = 0; i < 3; i++)
        probe_with_peer(&probe_class, &peers[i]);
    ck_assert_int_eq(asyncore_close_all(map), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert(peer_at_end(peers[i]));
        close(peers[i]);
    }
    assert_notes("");
    turn();
    assert_notes("destroy destroy destroy");
}
END_TEST

static void add_maps(TCase *tests)
{
    tcase_add_test(tests, init_takes_a_struct_with_anything_in_it);
    tcase_add_test(tests, sockets_are_non_blocking_and_closed_by_exec);
    tcase_add_test(tests, a_deleted_channel_gets_nothing_until_it_is_added);
    tcase_add_test(tests, a_channel_moves_to_another_map);
    tcase_add_test(tests, a_descriptor_that_is_in_the_map_is_not_taken_twice);
    tcase_add_test(tests, a_bad_descriptor_closes_the_channel);
    tcase_add_loop_test(tests, a_borrowed_descriptor_is_left_open, 0, 2);
    tcase_add_test(tests, closing_twice_is_nothing);
    tcase_add_loop_test(tests, fini_closes_and_calls_no_destroy, 0, 2);
    tcase_add_test(tests, a_closed_channel_without_destroy_makes_a_socket_again);
    tcase_add_test(tests, map_free_destroys_what_is_left);
    tcase_add_test(tests, close_all_closes_every_channel);
}

/* -- Sending, options, log, dump -- */

START_TEST(send_tells_the_kernels_count_and_then_eagain)
{
    static unsigned char data[1 << 20], got[1 << 20];
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ssize_t sent = asyncore_send(&p->base, data, sizeof data);
    ck_assert_int_gt((int)sent, 0);
    ck_assert_int_lt((int)sent, (int)sizeof data);
    ssize_t n = sent;
    while (n > 0 && (n = asyncore_send(&p->base, data, sizeof data)) > 0)
        sent += n;
    ck_assert_int_eq((int)n, -EAGAIN);
    asyncore_want(&p->base, ASYNCORE_WRITE);
    assert_idle_for(20);
    ck_assert_uint_eq(peer_recv(peer, got, (size_t)sent), (size_t)sent);
    run_until(p->writes > 0);
    asyncore_want(&p->base, ASYNCORE_READ);
    close(peer);
}
END_TEST

START_TEST(recv_without_bytes_is_eagain_and_leaves_the_buffer_alone)
{
    char buffer[4] = "abc";
    const void *view = buffer;
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    ck_assert_int_eq((int)asyncore_recv(&p->base, buffer, sizeof buffer), -EAGAIN);
    ck_assert_int_eq((int)asyncore_recv_view(&p->base, &view), -EAGAIN);
    ck_assert_str_eq(buffer, "abc");
    ck_assert_ptr_eq(view, buffer);
    close(peer);
}
END_TEST

START_TEST(recv_view_lends_what_came)
{
    static unsigned char data[50000];
    const void *view = NULL;
    int peer;
    struct probe *p = probe_with_peer(&probe_class, &peer);
    pattern_fill(data, 0, sizeof data);
    peer_send(peer, data, sizeof data);
    ck_assert_int_eq((int)asyncore_recv_view(&p->base, &view), sizeof data);
    pattern_check(view, 0, sizeof data);
    close(peer);
    ck_assert_int_eq((int)asyncore_recv_view(&p->base, &view), 0);
}
END_TEST

START_TEST(a_channel_without_a_socket_can_neither_send_nor_receive)
{
    char byte = 'x';
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_lt((int)asyncore_send(&p->base, &byte, 1), 0);
    ck_assert_int_lt((int)asyncore_recv(&p->base, &byte, 1), 0);
    ck_assert_int_lt(asyncore_listen(&p->base, 1), 0);
    ck_assert_int_lt(asyncore_shutdown(&p->base, SHUT_WR), 0);
    turn();
    assert_notes("");
}
END_TEST

START_TEST(options_and_names_of_a_socket)
{
    int fds[2], value = 1;
    struct sockaddr_storage name;
    socklen_t length = sizeof name, size = sizeof value;
    tcp_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    ck_assert_int_eq(asyncore_setsockopt(&p->base, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value), 0);
    value = 0;
    ck_assert_int_eq(asyncore_getsockopt(&p->base, SOL_SOCKET, SO_KEEPALIVE, &value, &size), 0);
    ck_assert_int_eq(value, 1);
    ck_assert_int_eq(asyncore_peername(&p->base, &name, &length), 0);
    ck_assert_int_eq(name.ss_family, AF_INET);
    ck_assert_uint_eq(length, sizeof(struct sockaddr_in));
    ck_assert_int_eq(asyncore_setsockopt(&p->base, SOL_SOCKET, -1, &value, sizeof value), -ENOPROTOOPT);
    close(fds[1]);
}
END_TEST

static void note_log(void *arg, const char *type, const char *message)
{
    note("%s%s(%s)", (const char *)arg, type, message);
}

START_TEST(log_lines_go_to_the_maps_log_function)
{
    struct probe *p = probe_new(&probe_class, "");
    asyncore_log(&p->base, "nobody %s", "hears");
    ck_assert_int_eq(asyncore_set_log(map, note_log, ">"), 0);
    asyncore_log(&p->base, "%d apples", 3);
    asyncore_log_info(&p->base, "warning", "%d pears", 4);
    assert_notes(">log(3 apples) >warning(4 pears)");
    ck_assert_int_eq(asyncore_set_log(map, NULL, NULL), 0);
    asyncore_log(&p->base, "x");
    assert_notes("");
}
END_TEST

static void own_log(struct asyncore_dispatcher *d, const char *message)
{
    (void)d;
    note("own(%s)", message);
}

static void own_log_info(struct asyncore_dispatcher *d, const char *message, const char *type)
{
    (void)d;
    note("own-%s(%s)", type, message);
}

static const struct asyncore_class logging_class = {
    .name = "logging",
    .parent = &probe_class,
    .log = own_log,
    .log_info = own_log_info,
};

START_TEST(log_and_log_info_can_be_overridden)
{
    struct probe *p = probe_new(&logging_class, "");
    asyncore_set_log(map, note_log, ">");
    asyncore_log(&p->base, "%s", "a");
    asyncore_log_info(&p->base, "info", "%s", "b");
    assert_notes("own(a) own-info(b)");
}
END_TEST

START_TEST(a_long_log_line_is_not_written_past_its_end)
{
    char text[5000];
    struct probe *p = probe_new(&probe_class, "");
    asyncore_set_log(map, note_log, "");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    asyncore_log(&p->base, "%s", text);
    ck_assert_int_eq(strncmp(notes(), "log(xxxxxxxx", 12), 0);
}
END_TEST

static void log_type_only(void *arg, const char *type, const char *message)
{
    (void)arg;
    ck_assert_uint_gt(strlen(message), 0);
    ck_assert_ptr_null(strchr(message, '\n'));
    note("log-%s", type);
}

static int fail_to_read(struct asyncore_dispatcher *d)
{
    (void)d;
    note("read");
    return -EINVAL;
}

static const struct asyncore_class failing_class = {
    .name = "failing",
    .parent = &probe_class,
    .handle_read = fail_to_read,
};

START_TEST(the_default_handle_error_logs_an_error)
{
    int peer;
    asyncore_set_log(map, log_type_only, NULL);
    probe_with_peer(&failing_class, &peer);
    peer_send(peer, "x", 1);
    turn();
    assert_notes("read error log-error close destroy");
    close(peer);
}
END_TEST

/* What is written to stderr meanwhile comes out of the pipe. */
static size_t stderr_of(void (*what)(struct probe *p), struct probe *p, char *text, size_t size)
{
    int ends[2], saved = dup(2);
    ck_assert_int_eq(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    dup2(ends[1], 2);
    what(p);
    dup2(saved, 2);
    close(saved);
    close(ends[1]);
    ssize_t n = read(ends[0], text, size - 1);
    close(ends[0]);
    text[n < 0 ? 0 : n] = '\0';
    return n < 0 ? 0 : (size_t)n;
}

static void fail_in_a_turn(struct probe *p)
{
    asyncore_ready(&p->base);
    turn();
}

START_TEST(the_library_writes_nothing_to_stderr_unless_asked)
{
    char text[256];
    int peer;
    struct probe *p = probe_with_peer(&failing_class, &peer);
    ck_assert_uint_eq(stderr_of(fail_in_a_turn, p, text, sizeof text), 0);
    ck_assert_int_eq(p->errors, 1);
    close(peer);
}
END_TEST

static void log_two_lines(struct probe *p)
{
    asyncore_set_log(map, asyncore_log_stderr, NULL);
    asyncore_log(&p->base, "plain");
    asyncore_log_info(&p->base, "warning", "careful");
}

START_TEST(log_stderr_writes_type_and_message)
{
    char text[256];
    stderr_of(log_two_lines, probe_new(&probe_class, ""), text, sizeof text);
    ck_assert_str_eq(text, "log: plain\nwarning: careful\n");
}
END_TEST

static void count_line(void *arg, const char *text)
{
    ck_assert_ptr_null(strchr(text, '\n'));
    ++*(int *)arg;
    note("%s", text);
}

START_TEST(dump_shows_every_channel)
{
    int peers[2], lines = 0;
    probe_with_peer(&grandchild_class, &peers[0]);
    probe_with_peer(&logging_class, &peers[1]);
    ck_assert_int_eq(asyncore_dump(map, count_line, &lines), 0);
    ck_assert_int_ge(lines, 2);
    ck_assert_ptr_nonnull(strstr(notes(), "grandchild"));
    ck_assert_ptr_nonnull(strstr(notes(), "logging"));
    close(peers[0]);
    close(peers[1]);
}
END_TEST

static void add_rest(TCase *tests)
{
    tcase_add_test(tests, send_tells_the_kernels_count_and_then_eagain);
    tcase_add_test(tests, recv_without_bytes_is_eagain_and_leaves_the_buffer_alone);
    tcase_add_test(tests, recv_view_lends_what_came);
    tcase_add_test(tests, a_channel_without_a_socket_can_neither_send_nor_receive);
    tcase_add_test(tests, options_and_names_of_a_socket);
    tcase_add_test(tests, log_lines_go_to_the_maps_log_function);
    tcase_add_test(tests, log_and_log_info_can_be_overridden);
    tcase_add_test(tests, a_long_log_line_is_not_written_past_its_end);
    tcase_add_test(tests, the_default_handle_error_logs_an_error);
    tcase_add_test(tests, the_library_writes_nothing_to_stderr_unless_asked);
    tcase_add_test(tests, log_stderr_writes_type_and_message);
    tcase_add_test(tests, dump_shows_every_channel);
}

int main(void)
{
    return run_suite("dispatcher", add_classes, add_transports, add_maps, add_rest, NULL);
}
