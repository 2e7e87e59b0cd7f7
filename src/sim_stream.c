/* sim_stream.c: TCP (RFC 9293, tcp(7)) and Unix streams (unix(7)).
 *
 * A CONNECTION is two flows and the sockets at its ends; it outlives them, until nothing of it is under way. A FLOW is
 * one ring of bytes and how far they have got:
 *
 *     read <= arrived <= wired <= sent         taken by the receiver, in its buffer, on the wire, accepted from the sender
 *     acked <= arrived, window                 what the sender knows: its buffer is free up to acked, it may send to window
 *
 * Segments, acknowledgements, ends and resets are events that arrive one link delay later, a stream's in their order.
 * Within a host everything arrives at once. Of TCP's own machinery there is what programs can see: the handshake with its
 * backlog and its repeated SYNs, windows, half-closed connections, resets, and giving up when a link is down.
 *
 * A SOCKET THAT IS CLOSED leaves the connection: with an end of stream after what it had sent, or, if it left bytes
 * unread or SO_LINGER is zero, with a reset. Bytes for somebody who has left are answered with a reset. */
#include "sim_socket.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENT     16384 /* on links with a bandwidth, so that bytes trickle in */
#define SYN_RETRIES 6     /* tcp_syn_retries: gives up after 127 s */
#define RETRIES     15    /* tcp_retries2: gives up after about 15 minutes */
#define MAX_RTO     (120 * ASYNCORE_SIM_SECOND)
#define UNREACHABLE (3 * ASYNCORE_SIM_SECOND) /* until the neighbour is found missing */
#define LINGER      (100 * ASYNCORE_SIM_MS)   /* how late a close may be, by fault */

struct flow {
    struct sim_ring ring; /* from read to sent */
    uint64_t sent, wired, arrived, read, acked, window, advertised;
    uint64_t last, line; /* when the last segment arrives; until when the line is taken */
    uint64_t segments;
    unsigned tries;
    bool end, end_wired, end_arrived, stuck;
};

struct sim_conn {
    struct asyncore_sim *world;
    struct sim_host *host[2];
    struct sim_socket *end[2]; /* NULL: has left */
    struct flow flow[2];       /* [i]: from end i to the other */
    bool gone[2];              /* that end's kernel knows nothing of it any more */
    bool local;
    bool established;
    unsigned refs; /* ends and events */
    unsigned tries;
    uint64_t chance;
    uint32_t number;             /* in the order of connecting */
    struct sim_address from, to; /* of who connects */
};

static void conn_unref(struct sim_conn *conn)
{
    if (--conn->refs != 0)
        return;
    sim_ring_clear(&conn->flow[0].ring);
    sim_ring_clear(&conn->flow[1].ring);
    free(conn);
}

/* An event that holds the connection: its function begins with event_begin and ends with conn_unref. */
static void conn_event(struct sim_conn *conn, uint64_t time, sim_event_fn fn, uint64_t argument)
{
    conn->refs++;
    sim_event_add(conn->world, time, fn, conn, argument);
}

static const struct asyncore_sim_link *conn_link(const struct sim_conn *conn)
{
    return sim_link(conn->host[0], conn->host[1]);
}

/* The next instant that is this connection's: of 64 nanoseconds each of 63 connections has one, and timers, which are due
 * at whole milliseconds, have the other. So what two of them are sent never arrives together, for a host to serve in an
 * order that is its engine's. */
static uint64_t own_instant(const struct sim_conn *conn, uint64_t time)
{
    return (time / 64 + 1) * 64 + 1 + conn->number % 63;
}

/* When what leaves `side` now arrives. */
static uint64_t travel(struct sim_conn *conn, int side, size_t size)
{
    const struct asyncore_sim_link *link = conn_link(conn);
    struct flow *flow = &conn->flow[side];
    uint64_t leaves = sim_host_time(conn->host[side]);
    if (link->bandwidth != 0) {
        leaves = flow->line > leaves ? flow->line : leaves;
        leaves += (uint64_t)size * ASYNCORE_SIM_SECOND / link->bandwidth;
        flow->line = leaves;
    }
    uint64_t arrives = leaves + link->delay;
    if (link->jitter != 0)
        arrives =
            own_instant(conn, arrives + sim_mix(conn->chance, flow->segments++ << 1 | (unsigned)side) % link->jitter);
    flow->last = arrives > flow->last ? arrives : flow->last;
    return flow->last;
}

static void end_stir(struct sim_conn *conn, int side)
{
    if (conn->end[side] != NULL)
        sim_stir(&conn->end[side]->file);
}

/* -- Resets -- */

static void end_fail(struct sim_conn *conn, int side, int error)
{
    struct sim_socket *socket = conn->end[side];
    conn->gone[side] = true;
    if (socket == NULL || socket->state == STATE_CLOSED)
        return;
    socket->error = error;
    socket->state = STATE_CLOSED;
    socket->shut_read = socket->shut_write = true;
    sim_release(socket);
    sim_stir(&socket->file);
}

/* Data and the end are in order before it, and what was not sent yet is lost. */
static void reset_arrive(struct sim_conn *conn, int side)
{
    struct sim_socket *socket = conn->end[side];
    bool answered = socket != NULL && socket->ended && !socket->shut_write;
    bool refused = socket != NULL && socket->state == STATE_CONNECTING;
    if (!conn->gone[side])
        end_fail(conn, side, refused ? ECONNREFUSED : answered ? EPIPE : ECONNRESET);
}

static void reset_event(struct asyncore_sim *world, void *object, uint64_t side)
{
    if (!world->closing)
        reset_arrive(object, (int)side);
    conn_unref(object);
}

/* From the kernel of `side` to the other. */
static void reset_send(struct sim_conn *conn, int side)
{
    conn->gone[side] = true;
    if (conn->gone[1 - side])
        return;
    if (conn->local)
        reset_arrive(conn, 1 - side);
    else if (conn_link(conn)->down == 0)
        conn_event(conn, travel(conn, side, 0), reset_event, (uint64_t)(1 - side));
}

bool sim_stream_break(struct sim_socket *socket)
{
    struct sim_conn *conn = socket->conn;
    if (socket->state != STATE_CONNECTED || conn == NULL || socket->family == AF_UNIX)
        return false;
    reset_arrive(conn, 0);
    reset_arrive(conn, 1);
    return true;
}

/* -- Flows -- */

static void ack_arrive(struct sim_conn *conn, int side, uint64_t acked, uint64_t window);
static void flow_push(struct sim_conn *conn, int side);

static size_t receive_limit(const struct sim_conn *conn, int side)
{
    const struct sim_socket *to = conn->end[1 - side];
    return to != NULL ? to->receive_limit : 65536;
}

/* An acknowledgement has two numbers, of which one is known at both ends: the window's size was. */
static void ack_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct sim_conn *conn = object;
    int side = (int)(argument & 1);
    if (!world->closing)
        ack_arrive(conn, side, argument >> 1, 0);
    conn_unref(conn);
}

static void window_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct sim_conn *conn = object;
    int side = (int)(argument & 1);
    if (!world->closing)
        ack_arrive(conn, side, 0, argument >> 1);
    conn_unref(conn);
}

/* The receiver of flow `side` tells how far it got: at each segment, and when it made room. */
static void ack_send(struct sim_conn *conn, int side, bool arrived)
{
    struct flow *flow = &conn->flow[side];
    uint64_t window = flow->read + receive_limit(conn, side);
    uint64_t time = sim_host_time(conn->host[1 - side]) + conn_link(conn)->delay;
    bool opens = window - flow->advertised >= receive_limit(conn, side) / 4;
    if (opens)
        flow->advertised = window;
    if (conn->local) {
        ack_arrive(conn, side, flow->arrived, window);
        return;
    }
    if (arrived)
        conn_event(conn, time, ack_event, flow->arrived << 1 | (unsigned)side);
    if (opens)
        conn_event(conn, time, window_event, window << 1 | (unsigned)side);
}

static bool is_writable(const struct sim_socket *socket, const struct flow *flow)
{
    size_t limit = socket->send_limit, used = (size_t)(flow->sent - flow->acked);
    return socket->family == AF_UNIX ? used * 4 <= limit : limit >= used && (limit - used) * 2 >= used;
}

static void ack_arrive(struct sim_conn *conn, int side, uint64_t acked, uint64_t window)
{
    struct flow *flow = &conn->flow[side];
    struct sim_socket *socket = conn->end[side];
    bool was = socket != NULL && is_writable(socket, flow);
    if (acked > flow->acked)
        flow->acked = acked;
    if (window > flow->window)
        flow->window = window;
    if (conn->gone[side])
        return;
    if (socket != NULL && !was && is_writable(socket, flow))
        sim_stir(&socket->file);
    flow_push(conn, side);
}

/* Somebody sends to an end that has left. */
static bool nobody_there(struct sim_conn *conn, int side)
{
    if (conn->gone[1 - side])
        return true;
    if (conn->end[1 - side] != NULL)
        return false;
    reset_send(conn, 1 - side);
    return true;
}

/* Bytes for an end that is through with both directions: TCP gives the connection up (RFC 1122, 4.2.2.13). */
static bool unwelcome(struct sim_conn *conn, int side)
{
    const struct sim_socket *to = conn->end[1 - side];
    if (to->family == AF_UNIX || !to->shut_read || !conn->flow[1 - side].end || to->ended)
        return false;
    reset_arrive(conn, 1 - side);
    reset_send(conn, 1 - side);
    return true;
}

static void segment_arrive(struct sim_conn *conn, int side, uint64_t upto)
{
    struct flow *flow = &conn->flow[side];
    if (nobody_there(conn, side) || unwelcome(conn, side))
        return;
    flow->arrived = upto;
    end_stir(conn, 1 - side);
    if (conn->end[1 - side]->family != AF_UNIX)
        ack_send(conn, side, true);
}

static void segment_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct sim_conn *conn = object;
    if (!world->closing)
        segment_arrive(conn, (int)(argument & 1), argument >> 1);
    conn_unref(conn);
}

/* Both ends of stream came: the connection is over. */
static void maybe_over(struct sim_conn *conn, int side)
{
    struct sim_socket *socket = conn->end[side];
    bool over = conn->flow[side].end_arrived && conn->flow[1 - side].end_arrived;
    if (!over || socket == NULL || socket->family == AF_UNIX || socket->state != STATE_CONNECTED)
        return;
    socket->state = STATE_CLOSED;
    sim_release(socket);
}

static void end_arrive(struct sim_conn *conn, int side)
{
    struct sim_socket *to = conn->end[1 - side];
    conn->flow[side].end_arrived = true;
    if (to != NULL && !conn->gone[1 - side]) {
        to->ended = to->shut_read = true;
        sim_stir(&to->file);
    }
    maybe_over(conn, 0);
    maybe_over(conn, 1);
}

static void end_event(struct asyncore_sim *world, void *object, uint64_t side)
{
    if (!world->closing)
        end_arrive(object, (int)side);
    conn_unref(object);
}

/* A link is down: TCP tries again, at growing distances, and gives up in the end. */
static void retry_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct sim_conn *conn = object;
    int side = (int)argument;
    struct flow *flow = &conn->flow[side];
    flow->stuck = false;
    if (!world->closing && !conn->gone[side] && ++flow->tries > RETRIES)
        end_fail(conn, side, ETIMEDOUT);
    else if (!world->closing && !conn->gone[side])
        flow_push(conn, side);
    conn_unref(conn);
}

static bool is_stuck(struct sim_conn *conn, int side)
{
    struct flow *flow = &conn->flow[side];
    if (conn->local || conn_link(conn)->down == 0) {
        flow->tries = 0;
        return false;
    }
    if (!flow->stuck) {
        uint64_t rto = (200 * ASYNCORE_SIM_MS) << flow->tries;
        flow->stuck = true;
        conn_event(conn, conn->world->time + (rto < MAX_RTO ? rto : MAX_RTO), retry_event, (uint64_t)side);
    }
    return true;
}

/* What may go onto the wire goes. */
static void flow_push(struct sim_conn *conn, int side)
{
    struct flow *flow = &conn->flow[side];
    size_t most = conn_link(conn)->bandwidth != 0 ? SEGMENT : SIZE_MAX;
    while (flow->wired < flow->sent && flow->wired < flow->window && !conn->gone[side]) {
        if (is_stuck(conn, side))
            return;
        uint64_t upto = flow->sent < flow->window ? flow->sent : flow->window;
        if (upto - flow->wired > most)
            upto = flow->wired + most;
        size_t size = (size_t)(upto - flow->wired);
        flow->wired = upto;
        if (conn->local)
            segment_arrive(conn, side, upto);
        else
            conn_event(conn, travel(conn, side, size), segment_event, upto << 1 | (unsigned)side);
    }
    if (!flow->end || flow->end_wired || flow->wired != flow->sent || conn->gone[side] || is_stuck(conn, side))
        return;
    flow->end_wired = true;
    if (conn->local)
        end_arrive(conn, side);
    else
        conn_event(conn, travel(conn, side, 0), end_event, (uint64_t)side);
}

/* Nothing more will be sent. */
static void flow_end(struct sim_conn *conn, int side)
{
    if (conn->flow[side].end)
        return;
    conn->flow[side].end = true;
    flow_push(conn, side);
}

/* -- Connecting -- */

static struct sim_conn *conn_new(struct sim_socket *socket, struct sim_host *to_host, const struct sim_address *to)
{
    struct sim_conn *conn = sim_alloc(sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->world = socket->file.host->world;
    conn->host[0] = socket->file.host;
    conn->host[1] = to_host != NULL ? to_host : socket->file.host;
    conn->local = to_host == socket->file.host;
    conn->end[0] = socket;
    conn->refs = 1;
    conn->from = socket->local;
    conn->to = *to;
    conn->number = conn->world->connections++;
    conn->chance = sim_mix(conn->world->seed, (uint64_t)conn->host[0]->index << 32 | socket->file.number);
    socket->conn = conn;
    socket->side = 0;
    return conn;
}

static void connected(struct sim_socket *socket)
{
    struct sim_conn *conn = socket->conn;
    struct flow *flow = &conn->flow[1 - socket->side];
    socket->state = STATE_CONNECTED;
    flow->window = flow->advertised = socket->receive_limit;
    sim_stir(&socket->file);
}

/* What a TCP listener hands down; Unix sockets begin anew. */
static void inherit(struct sim_socket *child, const struct sim_socket *listener)
{
    child->v6only = listener->v6only;
    child->own_address = listener->own_address;
    child->reuse_address = listener->reuse_address;
    child->reuse_port = listener->reuse_port;
    child->linger = listener->linger;
    child->shut_read = listener->shut_read; /* of a shutdown(2) that failed */
    child->shut_write = listener->shut_write;
    child->send_limit = listener->send_limit;
    child->receive_limit = listener->receive_limit;
    memcpy(child->options, listener->options, sizeof child->options);
    child->option_count = listener->option_count;
}

static struct sim_socket *child_new(struct sim_socket *listener, struct sim_conn *conn)
{
    struct sim_socket *child = sim_socket_new(listener->file.host, listener->family, SOCK_STREAM, listener->protocol);
    if (child == NULL)
        return NULL;
    child->local = listener->family == AF_UNIX ? listener->local : conn->to;
    child->peer = conn->from;
    if (listener->family != AF_UNIX)
        inherit(child, listener);
    child->listener = listener;
    child->conn = conn;
    child->side = 1;
    child->told = true;
    conn->end[1] = child;
    conn->refs++;
    listener->waiting++;
    connected(child);
    return child;
}

static void queue_add(struct sim_socket *child)
{
    list_append(&child->listener->queue, &child->in_queue);
    sim_stir(&child->listener->file);
}

/* The third message of the handshake: the server may accept. */
static void established(struct sim_conn *conn)
{
    struct sim_socket *child = conn->end[1];
    conn->established = true;
    if (child == NULL) /* the listener was closed meanwhile */
        reset_send(conn, 1);
    else if (child->listener != NULL)
        queue_add(child);
    if (child != NULL && child->shut_write)
        flow_end(conn, 1);
}

static void established_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    (void)argument;
    if (!world->closing)
        established(object);
    conn_unref(object);
}

/* The second message: the client is connected, unless it has left. */
static void answer_arrive(struct sim_conn *conn)
{
    struct sim_socket *socket = conn->end[0];
    if (socket == NULL || conn->gone[0]) {
        reset_send(conn, 0);
        return;
    }
    conn->flow[0].window = conn->end[1] != NULL ? conn->end[1]->receive_limit : 65536;
    conn->flow[0].advertised = conn->flow[0].window;
    connected(socket);
    if (conn->local)
        established(conn);
    else
        conn_event(conn, travel(conn, 0, 0), established_event, 0);
}

static void answer_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    (void)argument;
    if (!world->closing)
        answer_arrive(object);
    conn_unref(object);
}

/* The first message. A listener whose backlog is full does not answer. */
static void call_arrive(struct sim_conn *conn)
{
    struct sim_socket *listener = sim_socket_at(conn->host[1], SOCK_STREAM, &conn->to, &conn->from);
    if (conn->gone[0] || conn->end[0] == NULL || conn->end[1] != NULL)
        return;
    if (listener == NULL) {
        reset_send(conn, 1);
        return;
    }
    if (listener->waiting > listener->backlog || child_new(listener, conn) == NULL)
        return;
    if (conn->local)
        answer_arrive(conn);
    else
        conn_event(conn, travel(conn, 1, 0), answer_event, 0);
}

static void call_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    (void)argument;
    if (!world->closing)
        call_arrive(object);
    conn_unref(object);
}

static void call_again(struct asyncore_sim *world, void *object, uint64_t argument);

static void call_send(struct sim_conn *conn)
{
    if (conn->local)
        call_arrive(conn);
    else if (conn_link(conn)->down == 0 && conn->to.length != 0 && sim_route_to(conn->host[0], &conn->to) != NULL)
        conn_event(conn, travel(conn, 0, 0), call_event, 0);
    if (!conn->gone[0] && conn->end[1] == NULL)
        conn_event(conn, sim_host_time(conn->host[0]) + (ASYNCORE_SIM_SECOND << conn->tries), call_again, 0);
}

static void call_again(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct sim_conn *conn = object;
    struct sim_socket *socket = conn->end[0];
    (void)argument;
    if (!world->closing && socket != NULL && socket->state == STATE_CONNECTING) {
        if (conn->tries++ == SYN_RETRIES)
            end_fail(conn, 0, ETIMEDOUT);
        else
            call_send(conn);
    }
    conn_unref(conn);
}

static void unreachable_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct sim_conn *conn = object;
    (void)argument;
    if (!world->closing && conn->end[0] != NULL && conn->end[0]->state == STATE_CONNECTING)
        end_fail(conn, 0, EHOSTUNREACH);
    conn_unref(conn);
}

static int tcp_connect(struct sim_socket *socket, const struct sim_address *to)
{
    struct sim_host *here = socket->file.host, *there = sim_route_to(here, to);
    int result = sim_bind_any(socket, to);
    if (result < 0)
        return result;
    struct sim_conn *conn = conn_new(socket, there, to);
    if (conn == NULL)
        return -ENOBUFS;
    socket->peer = *to;
    socket->state = STATE_CONNECTING;
    socket->ended = socket->told = false;
    socket->error = 0;
    if (there == NULL || (!conn->local && conn_link(conn)->down == -EHOSTUNREACH))
        conn_event(conn, sim_host_time(here) + UNREACHABLE, unreachable_event, 0);
    else
        call_send(conn);
    return -EINPROGRESS;
}

static int unix_connect(struct sim_socket *socket, const struct sim_address *to)
{
    struct sim_host *host = socket->file.host;
    struct sim_socket *listener;
    int result = sim_unix_find(host, SOCK_STREAM, to, &listener);
    if (result < 0)
        return result;
    if (listener->state != STATE_LISTENING || listener->shut_read)
        return -ECONNREFUSED;
    if (listener->waiting > listener->backlog)
        return -EAGAIN;
    if (socket->state != STATE_NEW)
        return socket->state == STATE_CONNECTED ? -EISCONN : -EINVAL;
    struct sim_conn *conn = conn_new(socket, host, to);
    if (conn == NULL || child_new(listener, conn) == NULL)
        return -ENOMEM;
    socket->peer = *to;
    socket->told = true;
    connected(socket);
    conn->flow[0].window = conn->flow[1].window = UINT64_MAX;
    queue_add(conn->end[1]);
    return 0;
}

static void leave(struct sim_socket *socket)
{
    struct sim_conn *conn = socket->conn;
    socket->conn = NULL;
    if (conn == NULL)
        return;
    conn->end[socket->side] = NULL;
    conn_unref(conn);
}

static void listener_close(struct sim_socket *listener)
{
    struct sim_host *host = listener->file.host;
    link_t *next;
    for (link_t *link = host->sockets.next; link != &host->sockets; link = next) {
        struct sim_socket *child = owner_of(link, struct sim_socket, link);
        next = link->next;
        if (child->listener != listener)
            continue;
        if (child->family == AF_UNIX)
            child->file.kind->close(&child->file);
        else {
            reset_send(child->conn, 1);
            leave(child);
            sim_socket_free(child);
        }
    }
    listener->waiting = 0; /* it may listen again */
}

/* A socket as new, but for the name that bind(2) gave it. */
static void stream_disconnect(struct sim_socket *socket)
{
    struct sim_conn *conn = socket->conn;
    if (socket->state == STATE_LISTENING) {
        listener_close(socket);
    } else if (conn != NULL && socket->state != STATE_CLOSED) {
        conn->end[socket->side] = NULL;
        if (socket->state == STATE_CONNECTING)
            conn->gone[socket->side] = true;
        else
            reset_send(conn, socket->side);
        socket->error = ECONNRESET;
    }
    leave(socket);
    sim_unbind(socket, socket->state != STATE_NEW);
    socket->state = STATE_NEW;
    socket->peer.length = 0;
    socket->ended = socket->shut_read = socket->shut_write = socket->told = socket->dead = false;
    sim_stir(&socket->file);
}

static int tcp_connect_again(struct sim_socket *socket)
{
    int error = sim_take_error(socket);
    stream_disconnect(socket);
    return error != 0 ? error : -ECONNABORTED;
}

int sim_stream_connect(struct sim_socket *socket, const struct sockaddr *address, socklen_t length)
{
    struct sim_address to = {.length = 0};
    int result = 0;
    if (socket->family == AF_UNIX) {
        result = sim_address_in(socket, address, length, SIM_CONNECT, &to);
        return result < 0 ? result : unix_connect(socket, &to);
    }
    if (length < sizeof(sa_family_t))
        return -EINVAL;
    if (address->sa_family == AF_UNSPEC) {
        stream_disconnect(socket);
        return 0;
    }
    switch (socket->state) {
    case STATE_LISTENING:
        return -EISCONN;
    case STATE_CONNECTING:
        return -EALREADY;
    case STATE_CONNECTED:
        result = socket->told ? -EISCONN : 0;
        socket->told = true;
        return result;
    case STATE_CLOSED:
        return socket->dead ? -EINVAL : socket->told ? -EISCONN : tcp_connect_again(socket);
    case STATE_NEW:
        break;
    }
    result = sim_address_in(socket, address, length, SIM_CONNECT, &to);
    if (result < 0)
        return result;
    sim_toward(socket, &to);
    return tcp_connect(socket, &to);
}

int sim_stream_accept(struct sim_socket *listener, struct sim_socket **child)
{
    if (listener->type != SOCK_STREAM)
        return -EOPNOTSUPP;
    if (listener->state != STATE_LISTENING)
        return -EINVAL;
    if (!sim_room_for_one(listener->file.host))
        return -EMFILE;
    if (list_empty(&listener->queue))
        return -EAGAIN;
    struct sim_socket *first = owner_of(listener->queue.next, struct sim_socket, in_queue);
    int fd = sim_file_open(&first->file);
    if (fd < 0)
        return fd;
    list_unlink(&first->in_queue);
    first->listener = NULL;
    first->accepted = true;
    listener->waiting--;
    *child = first;
    return fd;
}

void sim_stream_named(struct sim_socket *socket)
{
    struct sim_conn *conn = socket->conn;
    if (conn != NULL && conn->end[1 - socket->side] != NULL)
        conn->end[1 - socket->side]->peer = socket->local;
}

/* -- Bytes -- */

static ssize_t recv_none(struct sim_socket *socket)
{
    if (socket->family == AF_UNIX && socket->state != STATE_CONNECTED)
        return -EINVAL;
    if (socket->state == STATE_LISTENING)
        return -ENOTCONN;
    if (socket->ended && socket->family != AF_UNIX)
        return 0;
    if (socket->error != 0)
        return sim_take_error(socket);
    if (socket->shut_read)
        return 0;
    return socket->state == STATE_NEW || socket->state == STATE_CLOSED ? -ENOTCONN : -EAGAIN;
}

ssize_t sim_stream_recv(struct sim_socket *socket, void *data, size_t size, int flags)
{
    struct sim_conn *conn = socket->conn;
    struct flow *flow = conn != NULL ? &conn->flow[1 - socket->side] : NULL;
    size_t there = flow != NULL ? (size_t)(flow->arrived - flow->read) : 0;
    if (there == 0)
        return recv_none(socket);
    size_t n = sim_ring_peek(&flow->ring, 0, data, size < there ? size : there);
    if (flags & MSG_PEEK || n == 0)
        return (ssize_t)n; /* 0: asked for none */
    sim_ring_drop(&flow->ring, n);
    flow->read += n;
    if (socket->family == AF_UNIX)
        ack_arrive(conn, 1 - socket->side, flow->read, UINT64_MAX);
    else if (!conn->gone[1 - socket->side])
        ack_send(conn, 1 - socket->side, false);
    return (ssize_t)n;
}

ssize_t sim_stream_send(struct sim_socket *socket, const void *data, size_t size)
{
    struct sim_conn *conn = socket->conn;
    if (socket->state == STATE_CONNECTING)
        return -EAGAIN;
    if (socket->family == AF_UNIX && socket->state != STATE_CONNECTED)
        return -ENOTCONN;
    if (socket->family == AF_UNIX && socket->shut_write)
        return -EPIPE;
    if (socket->family == AF_UNIX && size == 0)
        return 0;
    if (socket->error != 0)
        return sim_take_error(socket);
    if (socket->shut_write || socket->state != STATE_CONNECTED)
        return -EPIPE;
    struct flow *flow = &conn->flow[socket->side];
    const struct sim_socket *peer = conn->end[1 - socket->side];
    size_t used = (size_t)(flow->sent - flow->acked);
    size_t room = used < socket->send_limit ? socket->send_limit - used : 0;
    if (size == 0)
        return 0;
    if (room == 0)
        return -EAGAIN;
    if (socket->family == AF_UNIX && (peer == NULL || peer->shut_read))
        return -EPIPE;
    size_t n = sim_ring_add(&flow->ring, data, size < room ? size : room);
    if (n == 0)
        return -ENOBUFS;
    flow->sent += n;
    flow_push(conn, socket->side);
    return (ssize_t)n;
}

static void unix_shutdown(struct sim_socket *socket, int how)
{
    struct sim_conn *conn = socket->conn;
    struct sim_socket *peer = conn != NULL ? conn->end[1 - socket->side] : NULL;
    socket->shut_read |= how != SHUT_WR;
    socket->shut_write |= how != SHUT_RD;
    if (peer != NULL) {
        peer->shut_read |= how != SHUT_RD;
        peer->shut_write |= how != SHUT_WR;
        sim_stir(&peer->file);
    }
}

static int tcp_shutdown(struct sim_socket *socket, int how)
{
    switch (socket->state) {
    case STATE_LISTENING:
        if (how != SHUT_WR)
            stream_disconnect(socket);
        return 0;
    case STATE_CONNECTING:
        stream_disconnect(socket);
        return 0;
    case STATE_CONNECTED:
        socket->told = true;
        socket->shut_read |= how != SHUT_WR;
        socket->shut_write |= how != SHUT_RD;
        if (how != SHUT_RD)
            flow_end(socket->conn, socket->side);
        return 0;
    default: /* it counts all the same */
        socket->dead |= socket->state == STATE_CLOSED && !socket->told;
        socket->shut_read |= how != SHUT_WR;
        socket->shut_write |= how != SHUT_RD;
        return -ENOTCONN;
    }
}

int sim_stream_shutdown(struct sim_socket *socket, int how)
{
    int result = 0;
    if (how < SHUT_RD || how > SHUT_RDWR)
        return -EINVAL;
    if (socket->family == AF_UNIX)
        unix_shutdown(socket, how);
    else
        result = tcp_shutdown(socket, how);
    sim_stir(&socket->file);
    return result;
}

/* -- Readiness and closing -- */

/* Linux asks the socket itself before it reports it, and nobody but the peer makes a connection: one that is reported
 * is made. (Bytes may be reported and gone, taken by another process.) */
static unsigned stream_ready(struct sim_file *file)
{
    struct sim_socket *socket = (struct sim_socket *)file;
    const struct sim_conn *conn = socket->conn;
    bool is_unix = socket->family == AF_UNIX;
    unsigned bits = socket->error != 0 ? POLLERR : 0;
    if (socket->state == STATE_LISTENING && !is_unix)
        return list_empty(&socket->queue) ? 0 : POLLIN | POLLRDNORM;
    if ((socket->shut_read && socket->shut_write) || socket->state == STATE_CLOSED || socket->state == STATE_NEW)
        bits |= POLLHUP;
    if (socket->shut_read)
        bits |= POLLIN | POLLRDNORM | POLLRDHUP;
    if (socket->state == STATE_CONNECTING)
        return bits | SIM_SURE;
    if (socket->state == STATE_LISTENING)
        return bits | (list_empty(&socket->queue) ? 0 : POLLIN | POLLRDNORM);
    if (conn != NULL && conn->flow[1 - socket->side].arrived > conn->flow[1 - socket->side].read)
        bits |= POLLIN | POLLRDNORM;
    bool open_end = socket->shut_write && !is_unix;
    if (conn == NULL || open_end || is_writable(socket, &conn->flow[socket->side]))
        bits |= POLLOUT | POLLWRNORM | (is_unix ? POLLWRBAND : 0);
    return bits;
}

void sim_stream_drop_first(struct sim_socket *listener)
{
    if (list_empty(&listener->queue))
        return;
    struct sim_socket *child = owner_of(listener->queue.next, struct sim_socket, in_queue);
    listener->waiting--;
    child->linger = (struct linger){1, 0};
    child->file.kind->close(&child->file);
}

static void unix_close(struct sim_socket *socket, bool unread)
{
    struct sim_conn *conn = socket->conn;
    struct sim_socket *peer = conn->end[1 - socket->side];
    if (peer != NULL) {
        peer->shut_read = peer->shut_write = true;
        peer->error = unread || socket->listener != NULL ? ECONNRESET : peer->error;
        sim_stir(&peer->file);
    }
}

static void connection_close(struct sim_socket *socket)
{
    struct sim_conn *conn = socket->conn;
    const struct flow *in = &conn->flow[1 - socket->side];
    bool unread = in->arrived > in->read, at_once = socket->linger.l_onoff != 0 && socket->linger.l_linger == 0;
    if (socket->family == AF_UNIX) {
        unix_close(socket, unread);
        return;
    }
    if (!conn->local && sim_fault(socket->file.host, &socket->file, ASYNCORE_SIM_LINGER)) {
        struct flow *out = &conn->flow[socket->side];
        uint64_t late = sim_host_time(socket->file.host) + sim_mix(conn->chance, out->segments++) % LINGER;
        out->last = late > out->last ? late : out->last;
    }
    conn->end[socket->side] = NULL; /* so that no answer finds it */
    if (socket->state == STATE_CONNECTING)
        conn->gone[socket->side] = true;
    else if (unread || at_once)
        reset_send(conn, socket->side);
    else
        flow_end(conn, socket->side);
}

static void stream_close(struct sim_file *file)
{
    struct sim_socket *socket = (struct sim_socket *)file;
    if (socket->state == STATE_LISTENING)
        listener_close(socket);
    else if (socket->conn != NULL && (socket->state != STATE_CLOSED))
        connection_close(socket);
    leave(socket);
    sim_socket_free(socket);
}

static ssize_t stream_read(struct sim_file *file, void *data, size_t size)
{
    if (size == 0) /* read(2) of a socket, unlike recv(2), looks no further */
        return 0;
    return sim_stream_recv((struct sim_socket *)file, data, size, 0);
}

static ssize_t stream_write(struct sim_file *file, const void *data, size_t size)
{
    return sim_stream_send((struct sim_socket *)file, data, size);
}

const struct sim_kind sim_stream_kind = {"stream", stream_ready, stream_read, stream_write, stream_close};
