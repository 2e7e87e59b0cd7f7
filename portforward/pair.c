/* pair.c: two ends, what flows between them, and how that ends.
 *
 *     connecting   the remote's addresses are tried, one after the other; what the client sends first waits in a buffer
 *     open         bytes flow both ways
 *     half         one end's stream has ended; the other goes on, as long as it takes
 *     gone         closed; the memory goes when the loop has reaped the channels
 *
 * An end is a channel. What it reads flows to its peer at once (flow.c); while the peer takes no more, the end is not
 * read. An end wants
 *
 *     READ   unless its stream has ended, or its flow has bytes that the peer does not take
 *     WRITE  while the peer's flow has bytes for it
 *     ERROR  when neither: it must hear of a reset while it waits
 *     0      when both of its directions are done: a socket shut both ways would report that at every change
 *
 * These change only when a direction stops or goes on: a message that fits costs one recv and one send.
 *
 * There are two ways to end. A stream that ends is passed on as shutdown(SHUT_WR), after its last byte, and leaves the
 * other direction alone; when both have been passed on, both ends are closed. Everything else (refused, reset, any
 * timeout, the forwarder's stop) is a reset to both, so that nothing that failed looks like an end of stream; before
 * that, what had arrived is sent on, as far as it goes without waiting. A failed socket tells its error once, and reads
 * as ended ever after: whoever sees the error first ends the pair there and then, and the reason is what it was.
 *
 * One timer a pair is armed for the nearest deadline. Traffic stores the time and nothing else; a timer that comes too
 * early for that looks again, and is armed anew.
 *
 * What a short connection does not need is put off: the remote's keepalive until the timer first comes, its TCP_NODELAY
 * until there is a second send, or a first one of which Nagle's rule (RFC 896) could hold a part. The accepted socket
 * has both from the listener. */
#include "pair.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flow.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24 /* linux/in.h; musl has it, old glibc not */
#endif

enum {
    /* Moves that an end's failure may cost at most: a dead socket has no more than a receive buffer (32 MiB by the
     * kernel's usual limit), one that lives on after its error may have more. */
    LAST_MOVES = 64,
    SMALL_SEND = 536,    /* bytes: one segment anywhere (RFC 9293, 3.7.1), which Nagle's rule lets go as the first */
    KEEPALIVE_AFTER = 10, /* s: when the remote's keepalive is set at the latest */
    QUEUE_PAUSE = 20      /* ms: until a Unix remote whose queue was full is tried again */
};

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)
#define NEVER     UINT64_MAX

enum state { CONNECTING, OPEN, GONE };

/* An address, small: a pair keeps two, for getpeername fails after a reset. */
struct place {
    sa_family_t family; /* AF_UNSPEC: none */
    in_port_t port;     /* network order */
    uint32_t scope;
    union {
        struct in_addr v4;
        struct in6_addr v6;
        const char *path; /* AF_UNIX: its text, the remote's; NULL: it has no name */
    };
};

struct end {
    struct asyncore_dispatcher base;
    struct flow flow; /* what it reads, on its way to the peer */
};

struct pair {
    struct end client, remote;
    struct asyncore_timer timer;
    struct plan *plan;
    void *source;
    struct pair *next, **place;
    uint64_t start, last;      /* asyncore_now: when it began, when bytes last moved */
    uint64_t armed;            /* the timer's deadline; 0: it is not pending */
    uint64_t attempt_deadline; /* connecting: when this address has had its share */
    struct place client_at, remote_at;
    uint16_t passed;           /* connecting: addresses passed over, through no fault of theirs */
    uint8_t state, reason;
    bool nodelay, keepalive; /* the remote's: set, or not to be set */
    bool full, waits;        /* connecting: a Unix remote's queue was full; it waits for a place in one */
};

static const char *const reasons[REASONS] = {
    [REASON_NONE] = "none",
    [REASON_CLOSED] = "closed",
    [REASON_CLIENT_RESET] = "client-reset",
    [REASON_REMOTE_RESET] = "remote-reset",
    [REASON_CLIENT_LOST] = "client-lost",
    [REASON_REMOTE_LOST] = "remote-lost",
    [REASON_REFUSED] = "connect-refused",
    [REASON_UNREACHABLE] = "connect-failed",
    [REASON_CONNECT_TIMEOUT] = "connect-timeout",
    [REASON_NO_ADDRESS] = "no-address",
    [REASON_IDLE_TIMEOUT] = "idle-timeout",
    [REASON_HALF_TIMEOUT] = "half-timeout",
    [REASON_LIFE_TIMEOUT] = "life-timeout",
    [REASON_DRAINED] = "drain-deadline",
    [REASON_STOPPED] = "stopped",
    [REASON_RESOURCES] = "no-resources",
};

const char *reason_text(enum reason reason)
{
    return reasons[reason];
}

size_t pair_memory(void)
{
    enum { WATCHES = 2 * 64, HEAP_PLACE = 32, MALLOC = 16 };

    return sizeof(struct pair) + WATCHES + HEAP_PLACE + MALLOC + 2 * SMALL_BUFFER;
}

/* -- Addresses -- */

static void place_set(struct place *place, const struct sockaddr *address, const char *path)
{
    memset(place, 0, sizeof(*place));
    place->family = address->sa_family;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;

        place->port = in->sin_port;
        place->v4 = in->sin_addr;
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;

        place->port = in6->sin6_port;
        place->scope = in6->sin6_scope_id;
        place->v6 = in6->sin6_addr;
    } else {
        place->path = path;
    }
}

static socklen_t place_sockaddr(const struct place *place, struct sockaddr_storage *address)
{
    memset(address, 0, sizeof(*address));
    address->ss_family = place->family;
    if (place->family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)address;

        in->sin_port = place->port;
        in->sin_addr = place->v4;
        return sizeof(*in);
    }
    if (place->family == AF_INET6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;

        in6->sin6_port = place->port;
        in6->sin6_scope_id = place->scope;
        in6->sin6_addr = place->v6;
        return sizeof(*in6);
    }
    return 0;
}

enum { PLACE_TEXT = 128 };

static const char *place_text(const struct place *place, char *text)
{
    struct sockaddr_storage address;
    socklen_t length;

    if (place->family == AF_UNSPEC)
        return "-";
    length = place_sockaddr(place, &address);
    if (length == 0)
        return place->path ? place->path : "unix:";
    asyncore_address_text((struct sockaddr *)&address, length, text, PLACE_TEXT);
    return text;
}

/* -- Plans -- */

void plan_put(struct plan *plan)
{
    if (--plan->references == 0)
        plan->destroy(plan);
}

/* -- The end of a pair -- */

static bool is_tcp(const struct place *place)
{
    return place->family == AF_INET || place->family == AF_INET6;
}

/* When the channel is closed its peer gets a reset, not an end of stream. A Unix socket knows no reset. */
static void reset_on_close(struct asyncore_dispatcher *d, struct log *log)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    int r = asyncore_setsockopt(d, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));

    if (r < 0 && r != -EBADF) /* EBADF: it has no socket */
        log_event(log, LOG_PRIORITY_ERROR, "a failed connection may look complete to its peer: SO_LINGER: %s",
                  asyncore_strerror(r));
}

static uint64_t ms_since(uint64_t then, uint64_t now)
{
    return now > then ? (now - then) / NS_PER_MS : 0;
}

static void pair_log(const struct pair *pair, const char *end)
{
    struct pairs *pairs = pair->plan->pairs;
    char client[PLACE_TEXT], remote[PLACE_TEXT];
    struct log_connection line = {
        .rule = pair->plan->name,
        .client = place_text(&pair->client_at, client),
        .remote = place_text(&pair->remote_at, remote),
        .up = pair->client.flow.bytes,
        .down = pair->remote.flow.bytes,
        .ms = ms_since(pair->start, asyncore_now(pairs->map)),
        .end = end,
    };

    log_connection(pairs->log, &line);
}

static void pair_close(struct pair *pair, enum reason reason)
{
    struct plan *plan = pair->plan;
    struct pairs *pairs = plan->pairs;

    pair->state = GONE;
    pair->reason = (uint8_t)reason;
    pair_log(pair, reason_text(reason));
    asyncore_cancel(&pair->timer);
    flow_drop(&pair->client.flow, pairs->pool);
    flow_drop(&pair->remote.flow, pairs->pool);
    *pair->place = pair->next;
    if (pair->next)
        pair->next->place = pair->place;
    pairs->count--;
    asyncore_close(&pair->remote.base);
    asyncore_close(&pair->client.base);
    plan->ended(plan, pair->source);
    plan_put(plan);
}

/* Resets both ends, but the one that is `dead` already. */
static void pair_reset(struct pair *pair, enum reason reason, const struct end *dead)
{
    if (pair->state == GONE)
        return;
    if (dead != &pair->client && is_tcp(&pair->client_at))
        reset_on_close(&pair->client.base, pair->plan->pairs->log);
    if (dead != &pair->remote && is_tcp(&pair->remote_at)) /* one that connects may be connected, and not told yet */
        reset_on_close(&pair->remote.base, pair->plan->pairs->log);
    pair_close(pair, reason);
}

void pair_end(struct pair *pair, enum reason reason)
{
    pair_reset(pair, reason, NULL);
}

void pairs_end(struct pairs *pairs, enum reason reason)
{
    while (pairs->first)
        pair_end(pairs->first, reason);
}

/* -- What flows -- */

static struct end *peer_of(struct pair *pair, const struct end *end)
{
    return end == &pair->client ? &pair->remote : &pair->client;
}

static struct move move_from(struct pair *pair, struct end *end)
{
    return (struct move){
        .flow = &end->flow,
        .in = &end->base,
        .out = &peer_of(pair, end)->base,
        .pool = pair->plan->pairs->pool,
        .path = pair->plan->options.data_path,
    };
}

static bool is_reset(int error)
{
    return error == -ECONNRESET || error == -EPIPE || error == -ECONNABORTED || error == -ENOTCONN;
}

/* Our own lack, which says nothing about a remote. */
static bool is_ours(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM || error == -EADDRNOTAVAIL ||
           error == -EADDRINUSE;
}

/* After what was sent: setting it sends what was held back. */
static void remote_nodelay(struct pair *pair)
{
    pair->nodelay = true;
    asyncore_setsockopt(&pair->remote.base, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

/* Bytes were sent to the remote; `before` had been earlier. */
static void remote_sent(struct pair *pair, uint64_t before)
{
    uint64_t bytes = pair->client.flow.bytes;

    if (!pair->nodelay && bytes > before && (before > 0 || bytes > SMALL_SEND))
        remote_nodelay(pair);
}

/* Sends what is in flight from a failed end, and what it can still be read of. */
static void last_moves(struct pair *pair, struct end *end)
{
    struct move move = move_from(pair, end);
    uint64_t first = end->flow.bytes, before;
    enum flow_state state = flow_flush(&move);

    for (int i = 0; i < LAST_MOVES && state == FLOW_DRY; i++) {
        before = end->flow.bytes;
        state = flow_move(&move);
        if (end->flow.bytes == before)
            break;
    }
    if (end == &pair->client) /* the reset would overtake what Nagle's rule holds back */
        remote_sent(pair, first);
}

/* The end's socket failed. What had arrived by then is the peer's, as far as it takes it now. */
static void end_failed(struct pair *pair, struct end *end, int error)
{
    bool client = end == &pair->client;
    enum reason reason = client ? REASON_CLIENT_LOST : REASON_REMOTE_LOST;

    if (pair->state == GONE)
        return;
    if (pair->state == OPEN)
        last_moves(pair, end);
    if (is_reset(error))
        reason = client ? REASON_CLIENT_RESET : REASON_REMOTE_RESET;
    else if (is_ours(error))
        reason = REASON_RESOURCES;
    pair_reset(pair, reason, is_reset(error) ? end : NULL);
}

static unsigned end_wants(const struct pair *pair, const struct end *end, const struct end *peer)
{
    unsigned events = 0;

    if (end->flow.ended && peer->flow.shut)
        return 0;
    if (!end->flow.ended && end->flow.count == 0)
        events |= ASYNCORE_READ;
    if (peer->flow.count > 0 && pair->state == OPEN)
        events |= ASYNCORE_WRITE;
    return events ? events : ASYNCORE_ERROR;
}

/* Passes the end's end of stream on, if that is what is left to do. */
static int pass_end(struct end *end, struct end *peer)
{
    if (end->flow.shut || !end->flow.ended || end->flow.count > 0)
        return 0;
    end->flow.shut = true;
    return asyncore_shutdown(&peer->base, SHUT_WR);
}

static void pair_watch(struct pair *pair);

/* Something began, stopped, went on or ended. */
static void pair_changed(struct pair *pair)
{
    struct end *client = &pair->client, *remote = &pair->remote;
    int r;

    if (pair->state == OPEN) {
        if ((r = pass_end(client, remote)) < 0) {
            end_failed(pair, remote, r);
            return;
        }
        if ((r = pass_end(remote, client)) < 0) {
            end_failed(pair, client, r);
            return;
        }
        if (client->flow.shut && remote->flow.shut) {
            pair_close(pair, REASON_CLOSED);
            return;
        }
        asyncore_want(&remote->base, end_wants(pair, remote, client));
    }
    asyncore_want(&client->base, end_wants(pair, client, remote));
    pair_watch(pair);
}

/* What became of the flow from `end`. */
static void pair_flowed(struct pair *pair, struct end *end, enum flow_state state, int error)
{
    if (state == FLOW_IN_FAILED)
        end_failed(pair, end, error);
    else if (state == FLOW_OUT_FAILED)
        end_failed(pair, peer_of(pair, end), error);
    else
        pair_changed(pair);
}

static int end_handle_read(struct asyncore_dispatcher *d)
{
    struct end *end = (struct end *)d;
    struct pair *pair = d->data;
    struct move move = move_from(pair, end);
    uint64_t before = pair->client.flow.bytes;
    enum flow_state state;

    pair->last = asyncore_now(d->map);
    state = pair->state == CONNECTING ? flow_fill(&move) : flow_move(&move);
    if (!pair->nodelay)
        remote_sent(pair, before);
    if (state != FLOW_DRY)
        pair_flowed(pair, end, state, move.error);
    return 0;
}

static int end_handle_write(struct asyncore_dispatcher *d)
{
    struct pair *pair = d->data;
    struct end *from = peer_of(pair, (struct end *)d);
    struct move move = move_from(pair, from);
    uint64_t before = from->flow.bytes;
    enum flow_state state = flow_flush(&move);

    if (from->flow.bytes > before)
        pair->last = asyncore_now(d->map);
    if (from == &pair->client)
        remote_sent(pair, before);
    if (state != FLOW_STUCK)
        pair_flowed(pair, from, state, move.error);
    return 0;
}

static int end_handle_close(struct asyncore_dispatcher *d)
{
    struct end *end = (struct end *)d;
    struct pair *pair = d->data;

    if (asyncore_error(d) != 0) {
        end_failed(pair, end, asyncore_error(d));
    } else {
        end->flow.ended = true;
        pair_changed(pair);
    }
    return 0;
}

static int client_handle_error(struct asyncore_dispatcher *d, int error)
{
    end_failed(d->data, (struct end *)d, error);
    return 0;
}

/* -- Connecting -- */

static uint64_t connect_deadline(const struct pair *pair)
{
    unsigned connect = pair->plan->options.connect;

    return connect ? pair->start + connect * NS_PER_MS : NEVER;
}

/* Unix remotes are known by their text, which the plan's remote keeps. */
static const char *remote_path(const struct plan *plan, const struct sockaddr *address, socklen_t length)
{
    char text[PLACE_TEXT];

    asyncore_address_text(address, length, text, sizeof(text));
    for (unsigned i = 0; i < plan->remote_count; i++) {
        if (strcmp(remote_host(plan->remotes[i]), text) == 0)
            return remote_host(plan->remotes[i]);
    }
    return NULL;
}

/* A socket that is about to connect. */
static int remote_handle_socket(struct asyncore_dispatcher *d, int fd)
{
    struct pair *pair = d->data;
    const struct plan *plan = pair->plan;

    (void)fd;
    pair->nodelay = pair->keepalive = !is_tcp(&pair->remote_at);
    if (!is_tcp(&pair->remote_at))
        return 0;
    asyncore_setsockopt(d, SOL_SOCKET, SO_OOBINLINE, &(int){1}, sizeof(int));
    pair->keepalive = plan->options.keepalive.idle == 0;
    if (plan->src.ss_family == pair->remote_at.family) {
        asyncore_setsockopt(d, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int));
        return asyncore_bind_sockaddr(d, (const struct sockaddr *)&plan->src, plan->src_length);
    }
    return 0;
}

static int remote_open(struct pair *pair, const struct asyncore_address *address)
{
    struct asyncore_dispatcher *d = &pair->remote.base;
    const struct sockaddr *to = (const struct sockaddr *)&address->address;
    const char *path = to->sa_family == AF_UNIX ? remote_path(pair->plan, to, address->length) : NULL;
    int r;

    place_set(&pair->remote_at, to, path);
    asyncore_close(d); /* of the address before */
    r = asyncore_create_socket(d, to->sa_family, SOCK_STREAM);
    if (r == 0)
        r = asyncore_connect_sockaddr(d, to, address->length);
    return r;
}

static enum reason connect_reason(int error)
{
    if (is_ours(error))
        return REASON_RESOURCES;
    switch (error) {
    case -ECONNREFUSED: return REASON_REFUSED;
    case -ECONNRESET: return REASON_REMOTE_RESET; /* once it was there, and before that was seen */
    case -ETIMEDOUT: return REASON_CONNECT_TIMEOUT;
    default: return REASON_UNREACHABLE;
    }
}

static void remote_blame(struct pair *pair)
{
    struct sockaddr_storage address;
    socklen_t length = place_sockaddr(&pair->remote_at, &address);

    if (length == 0 && asyncore_parse_address(pair->remote_at.path, "", &address, &length) < 0)
        return;
    remotes_failed(pair->plan->remotes, pair->plan->remote_count, (struct sockaddr *)&address, length,
                   asyncore_now(pair->plan->pairs->map));
}

/* An attempt failed. False: no other address has better prospects.
 *
 * A Unix listener's queue is full, or there is no local port, or address, for this remote: that is no fault of the
 * address, but the next may do. (::1 is not available where IPv6 is switched off, though "localhost" has it.) */
static bool attempt_failed(struct pair *pair, int error)
{
    bool queue_full = error == -EAGAIN && pair->remote_at.family == AF_UNIX;

    pair->full |= queue_full;
    if (queue_full || error == -EADDRNOTAVAIL || error == -EADDRINUSE)
        pair->passed++;
    else if (is_ours(error))
        return false;
    else
        remote_blame(pair);
    return true;
}

/* The kernel does not wait for a place in a Unix listener's queue (unix(7)), and tells nobody when there is one. */
static void wait_for_queue(struct pair *pair, uint64_t now)
{
    uint64_t end = connect_deadline(pair), again = now + QUEUE_PAUSE * NS_PER_MS;

    pair->full = false;
    pair->waits = true;
    pair->passed = 0;
    pair->attempt_deadline = again < end ? again : end;
    asyncore_close(&pair->remote.base);
    pair_watch(pair);
}

/* Tries the next address. `reason`: how the last one failed, in case there is none. */
static void pair_connect(struct pair *pair, enum reason reason)
{
    struct plan *plan = pair->plan;

    for (;;) {
        uint64_t now = asyncore_now(plan->pairs->map), end = connect_deadline(pair);
        const struct asyncore_address *address = NULL;
        unsigned left;
        int r;

        if (now < end)
            address = remotes_pick(plan->remotes, plan->remote_count, pair->start, now, pair->passed, &left);
        if (!address && pair->full && now < end) {
            wait_for_queue(pair, now);
            return;
        }
        if (!address) {
            pair_end(pair, reason);
            return;
        }
        r = remote_open(pair, address);
        if (r == 0) {
            pair->attempt_deadline = end == NEVER ? NEVER : now + (end - now) / (left + 1);
            pair_watch(pair);
            return;
        }
        reason = connect_reason(r);
        if (!attempt_failed(pair, r)) {
            pair_end(pair, reason);
            return;
        }
    }
}

static int remote_handle_error(struct asyncore_dispatcher *d, int error)
{
    struct pair *pair = d->data;

    if (pair->state != CONNECTING)
        end_failed(pair, &pair->remote, error);
    else if (attempt_failed(pair, error))
        pair_connect(pair, connect_reason(error));
    else
        pair_end(pair, connect_reason(error));
    return 0;
}

static int remote_handle_close(struct asyncore_dispatcher *d)
{
    const struct pair *pair = d->data;

    return pair->state == CONNECTING ? remote_handle_error(d, asyncore_error(d)) : end_handle_close(d);
}

static int remote_handle_connect(struct asyncore_dispatcher *d)
{
    struct pair *pair = d->data;
    struct move move = move_from(pair, &pair->client);
    enum flow_state state;

    pair->state = OPEN;
    pair->last = asyncore_now(d->map);
    state = flow_flush(&move);
    remote_sent(pair, 0);
    pair_flowed(pair, &pair->client, state, move.error);
    return 0;
}

/* -- Time -- */

static void set_keepalive(struct pair *pair)
{
    const struct keepalive *keepalive = &pair->plan->options.keepalive;
    struct asyncore_dispatcher *d = &pair->remote.base;

    pair->keepalive = true;
    asyncore_setsockopt(d, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
    asyncore_setsockopt(d, IPPROTO_TCP, TCP_KEEPIDLE, &keepalive->idle, sizeof(int));
    asyncore_setsockopt(d, IPPROTO_TCP, TCP_KEEPINTVL, &keepalive->interval, sizeof(int));
    asyncore_setsockopt(d, IPPROTO_TCP, TCP_KEEPCNT, &keepalive->probes, sizeof(int));
}

/* When the remote's keepalive is to be set: long before it would have anything to do. */
static uint64_t keepalive_due(const struct pair *pair)
{
    unsigned idle = pair->plan->options.keepalive.idle;

    if (pair->keepalive)
        return NEVER;
    return pair->start + (idle / 2 < KEEPALIVE_AFTER ? idle * NS_PER_S / 2 : KEEPALIVE_AFTER * NS_PER_S);
}

static void sooner(uint64_t *deadline, enum reason *reason, uint64_t than, enum reason why)
{
    if (than < *deadline) {
        *deadline = than;
        *reason = why;
    }
}

/* The nearest deadline of those that end something. */
static uint64_t pair_deadline(const struct pair *pair, enum reason *reason)
{
    const struct rule_options *options = &pair->plan->options;
    uint64_t deadline = NEVER;

    *reason = REASON_NONE;
    if (options->life)
        sooner(&deadline, reason, pair->start + options->life * NS_PER_MS, REASON_LIFE_TIMEOUT);
    if (pair->state == CONNECTING) {
        sooner(&deadline, reason, pair->attempt_deadline, REASON_CONNECT_TIMEOUT);
        return deadline;
    }
    if (options->idle)
        sooner(&deadline, reason, pair->last + options->idle * NS_PER_MS, REASON_IDLE_TIMEOUT);
    if (options->half && (pair->client.flow.ended || pair->remote.flow.ended))
        sooner(&deadline, reason, pair->last + options->half * NS_PER_MS, REASON_HALF_TIMEOUT);
    return deadline;
}

static void pair_timer(struct asyncore_timer *timer, void *arg)
{
    struct pair *pair = arg;
    uint64_t now = asyncore_now(pair->plan->pairs->map);
    enum reason reason;

    (void)timer;
    pair->armed = 0;
    if (pair->state == OPEN && keepalive_due(pair) <= now)
        set_keepalive(pair);
    if (pair_deadline(pair, &reason) > now) {
        pair_watch(pair);
    } else if (reason == REASON_CONNECT_TIMEOUT) {
        if (!pair->waits)
            remote_blame(pair);
        pair->waits = false;
        pair_connect(pair, REASON_CONNECT_TIMEOUT);
    } else {
        pair_end(pair, reason);
    }
}

/* Sees to it that the timer comes no later than the nearest deadline. */
static void pair_watch(struct pair *pair)
{
    struct asyncore_map *map = pair->plan->pairs->map;
    enum reason reason;
    uint64_t deadline = pair_deadline(pair, &reason), now;

    if (pair->state == OPEN && keepalive_due(pair) < deadline)
        deadline = keepalive_due(pair);
    if (deadline == NEVER || (pair->armed && pair->armed <= deadline))
        return;
    now = asyncore_now(map);
    if (asyncore_call_later(map, &pair->timer, deadline > now ? (deadline - now + NS_PER_MS - 1) / NS_PER_MS : 0,
                            pair_timer, pair) == 0)
        pair->armed = deadline;
    else
        pair_end(pair, REASON_RESOURCES);
}

/* -- The beginning of a pair -- */

/* The memory goes with the client's channel: the remote's was closed before it, and has no destroy. */
static void client_destroy(struct asyncore_dispatcher *d)
{
    struct pair *pair = d->data;

    asyncore_fini(&pair->remote.base);
    free(pair);
}

static const struct asyncore_class client_class = {
    .name = "client",
    .handle_read = end_handle_read,
    .handle_write = end_handle_write,
    .handle_close = end_handle_close,
    .handle_error = client_handle_error,
    .destroy = client_destroy,
};

/* No destroy: it is opened again for each address. */
static const struct asyncore_class remote_class = {
    .name = "remote",
    .handle_connect = remote_handle_connect,
    .handle_read = end_handle_read,
    .handle_write = end_handle_write,
    .handle_close = remote_handle_close,
    .handle_error = remote_handle_error,
    .handle_socket = remote_handle_socket,
};

static const struct asyncore_class refused_class = {.name = "refused"};

void client_reset(struct asyncore_map *map, int fd)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    struct asyncore_dispatcher refused;

    asyncore_dispatcher_init(&refused, &refused_class, map); /* cannot fail: pairs_init() */
    if (asyncore_set_socket(&refused, fd) == 0)
        asyncore_setsockopt(&refused, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    asyncore_fini(&refused);
}

/* A map remembers classes that it has met. */
int pairs_init(struct pairs *pairs, struct asyncore_map *map, struct pool *pool, struct log *log)
{
    static const struct asyncore_class *const classes[] = {&client_class, &remote_class, &refused_class};
    struct asyncore_dispatcher d;

    *pairs = (struct pairs){.map = map, .pool = pool, .log = log};
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        int r = asyncore_dispatcher_init(&d, classes[i], map);

        if (r < 0)
            return r;
        asyncore_fini(&d);
    }
    return 0;
}

/* Cannot fail: pairs_init(). */
static void pair_init(struct pair *pair, struct asyncore_map *map)
{
    asyncore_dispatcher_init(&pair->client.base, &client_class, map);
    asyncore_dispatcher_init(&pair->remote.base, &remote_class, map);
    pair->client.base.data = pair->remote.base.data = pair;
}

static void pair_enlist(struct pair *pair, struct plan *plan, void *source)
{
    struct pairs *pairs = plan->pairs;

    pair->plan = plan;
    pair->source = source;
    plan->references++;
    pair->place = &pairs->first;
    pair->next = pairs->first;
    if (pair->next)
        pair->next->place = &pair->next;
    pairs->first = pair;
    pairs->count++;
    pair->last = asyncore_now(pairs->map);
    pair->start = remotes_start(plan->remotes, plan->remote_count, pair->last);
}

int pair_start(struct plan *plan, int fd, const struct sockaddr *client, socklen_t length, void *source)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    int r;

    (void)length;
    if (!pair) {
        client_reset(plan->pairs->map, fd);
        plan->ended(plan, source);
        return -ENOMEM;
    }
    pair_init(pair, plan->pairs->map);
    pair_enlist(pair, plan, source);
    place_set(&pair->client_at, client, NULL);
    r = asyncore_set_socket(&pair->client.base, fd);
    if (r < 0) {
        pair_close(pair, REASON_RESOURCES);
        return 0;
    }
    if (log_starts(plan->pairs->log))
        pair_log(pair, NULL);
    pair_connect(pair, REASON_NO_ADDRESS);
    return 0;
}

/* -- The table -- */

static const char *state_text(const struct pair *pair)
{
    if (pair->state == CONNECTING)
        return "connecting";
    return pair->client.flow.ended || pair->remote.flow.ended ? "half" : "open";
}

void pairs_table(struct pairs *pairs, void (*line)(void *arg, const char *text), void *arg)
{
    uint64_t now = asyncore_now(pairs->map);

    for (const struct pair *pair = pairs->first; pair; pair = pair->next) {
        char text[512], client[PLACE_TEXT], remote[PLACE_TEXT];

        snprintf(text, sizeof(text),
                 "rule=%s client=%s remote=%s state=%s up=%llu down=%llu in-flight=%u ms=%llu idle-ms=%llu",
                 pair->plan->name, place_text(&pair->client_at, client), place_text(&pair->remote_at, remote),
                 state_text(pair), (unsigned long long)pair->client.flow.bytes,
                 (unsigned long long)pair->remote.flow.bytes, pair->client.flow.count + pair->remote.flow.count,
                 (unsigned long long)ms_since(pair->start, now), (unsigned long long)ms_since(pair->last, now));
        line(arg, text);
    }
}
