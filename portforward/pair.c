/* pair.c: two ends, and what flows between them.
 *
 * An end is a channel; what it reads is sent to its peer at once, straight out of the map's buffer. What the
 * peer's socket does not take is kept with the peer (`kept`, at most the 64 KiB of one read), and until that is
 * gone the end is not read: so a direction holds one bounded buffer, and only while bytes are stuck in it. An end wants
 *
 *     READ   unless its stream has ended or its peer still keeps bytes
 *     WRITE  while it keeps bytes
 *     ERROR  when neither: it must hear of a reset while it waits
 *     0      when both of its directions are done: a socket shut both ways would report that at every change
 *
 * and the client of a remote that is not connected yet wants ERROR too. These change only when a direction stops or
 * goes on: a message that fits costs one recv and one send.
 *
 * There are two ways to end. A stream that ends is passed on as shutdown(SHUT_WR), after its last byte, and
 * leaves the other direction alone; when both have been passed on, both ends are closed. Everything else (refused,
 * unknown name, reset, no memory, the forwarder's stop) is a reset to both, so that nothing that failed looks like
 * an end of stream. A failed socket tells its error once, and reads as ended ever after: whoever sees the error
 * first ends the pair there and then.
 *
 * A pair is in its forwarder's list until it is closed, and is freed when both of its channels were destroyed. */
#include "pair.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Reads that an end's failure may cost at most; it is there for errors that leave the socket alive, for a dead one has
 * no more than a receive buffer (32 MiB by the kernel's usual limit). */
enum { LAST_READS = 512 };

struct end {
    struct asyncore_dispatcher base;
    struct pair *pair;
    struct end *peer;
    char *kept; /* read from the peer, not yet taken by this end's socket */
    unsigned start, count;
    bool ended; /* recv said so */
    bool shut;  /* the peer's end was passed on */
};

struct pair {
    struct end client, remote;
    struct forward *forward;
    struct pair *next, **place; /* in the forwarder's list */
    unsigned undestroyed;       /* channels */
    bool closed;
};

void reset_on_close(struct asyncore_dispatcher *d)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    int r = asyncore_setsockopt(d, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));

    if (r < 0 && r != -EBADF) /* EBADF: it has no socket */
        asyncore_log_info(d, "error", "a failed connection may look complete to its peer: SO_LINGER: %s",
                          asyncore_strerror(r));
}

static void pair_close(struct pair *pair)
{
    if (pair->closed)
        return;
    pair->closed = true;
    *pair->place = pair->next;
    if (pair->next)
        pair->next->place = pair->place;
    asyncore_close(&pair->client.base);
    asyncore_close(&pair->remote.base);
}

void pair_reset(struct pair *pair)
{
    reset_on_close(&pair->client.base);
    reset_on_close(&pair->remote.base);
    pair_close(pair);
}

/* How much the socket takes. A kernel short of memory takes nothing now, and the bytes wait as behind a full buffer. */
static ssize_t end_try(struct end *end, const char *data, size_t size)
{
    ssize_t n = asyncore_send(&end->base, data, size);

    return n == -EAGAIN || n == -ENOBUFS || n == -ENOMEM ? 0 : n;
}

/* Sends what is kept. 0: all of it, -EAGAIN: not all of it. */
static int end_flush(struct end *end)
{
    ssize_t n;

    if (end->count == 0)
        return 0;
    n = end_try(end, end->kept + end->start, end->count);
    if (n < 0)
        return (int)n;
    end->start += (unsigned)n;
    end->count -= (unsigned)n;
    if (end->count > 0)
        return -EAGAIN;
    free(end->kept);
    end->kept = NULL;
    return 0;
}

/* Sends, and keeps what the socket does not take. 0: sent, -EAGAIN: some is kept. */
static int end_send(struct end *end, const char *data, size_t size)
{
    ssize_t n = end_try(end, data, size);

    if (n < 0 || (size_t)n == size)
        return n < 0 ? (int)n : 0;
    end->count = (unsigned)(size - (size_t)n);
    end->start = 0;
    end->kept = malloc(end->count);
    if (!end->kept)
        return -ENOMEM;
    memcpy(end->kept, data + n, end->count);
    return -EAGAIN;
}

/* The end's socket failed. What had arrived by then is the peer's, as far as it takes it now. */
static void end_failed(struct end *end)
{
    struct end *peer = end->peer;
    const void *data;
    ssize_t n;
    int r = end_flush(peer);

    for (int i = 0; r == 0 && i < LAST_READS && (n = asyncore_recv_view(&end->base, &data)) > 0; i++)
        r = end_send(peer, data, (size_t)n);
    pair_reset(end->pair);
}

static unsigned end_wants(const struct end *end)
{
    unsigned events = 0;

    if (end->ended && end->shut)
        return 0;
    if (!end->ended && end->peer->count == 0)
        events |= ASYNCORE_READ;
    if (end->count > 0)
        events |= ASYNCORE_WRITE;
    return events ? events : ASYNCORE_ERROR;
}

/* Passes the peer's end of stream on, if that is what is left to do. */
static int end_shut(struct end *end)
{
    if (end->shut || !end->peer->ended || end->count > 0)
        return 0;
    end->shut = true;
    return asyncore_shutdown(&end->base, SHUT_WR);
}

/* Something began, stopped, went on or ended. */
static void pair_changed(struct pair *pair)
{
    struct end *client = &pair->client, *remote = &pair->remote;

    if (end_shut(client) < 0) {
        end_failed(client);
    } else if (end_shut(remote) < 0) {
        end_failed(remote);
    } else if (client->shut && remote->shut) {
        pair_close(pair);
    } else {
        asyncore_want(&client->base, end_wants(client));
        asyncore_want(&remote->base, end_wants(remote));
    }
}

static int end_handle_read(struct asyncore_dispatcher *d)
{
    struct end *end = (struct end *)d;
    const void *data;
    ssize_t n = asyncore_recv_view(d, &data);
    int r;

    if (n <= 0)
        return (int)n; /* an end or an error: handle_close or handle_error follows */
    r = end_send(end->peer, data, (size_t)n);
    if (r == -EAGAIN)
        pair_changed(end->pair);
    else if (r < 0)
        end_failed(end->peer);
    return 0;
}

static int end_handle_write(struct asyncore_dispatcher *d)
{
    struct end *end = (struct end *)d;
    int r = end_flush(end);

    if (r == 0)
        pair_changed(end->pair);
    return r;
}

static int remote_handle_connect(struct asyncore_dispatcher *d)
{
    struct pair *pair = ((struct end *)d)->pair;

    asyncore_setsockopt(d, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    pair_changed(pair);
    return 0;
}

static int end_handle_close(struct asyncore_dispatcher *d)
{
    struct end *end = (struct end *)d;

    if (asyncore_error(d) != 0) {
        end_failed(end);
    } else {
        end->ended = true;
        pair_changed(end->pair);
    }
    return 0;
}

static int end_handle_error(struct asyncore_dispatcher *d, int error)
{
    struct end *end = (struct end *)d;
    struct forward *forward = end->pair->forward;

    if (!asyncore_connected(&end->pair->remote.base))
        asyncore_log_info(&forward->listener, "error", "%s port %s: %s", forward->options.remote_host,
                          forward->options.remote_port, asyncore_strerror(error));
    end_failed(end);
    return 0;
}

static void end_destroy(struct asyncore_dispatcher *d)
{
    struct end *end = (struct end *)d;

    free(end->kept);
    if (--end->pair->undestroyed == 0)
        free(end->pair);
}

static const struct asyncore_class client_class = {
    .name = "client",
    .handle_read = end_handle_read,
    .handle_write = end_handle_write,
    .handle_close = end_handle_close,
    .handle_error = end_handle_error,
    .destroy = end_destroy,
};

static const struct asyncore_class remote_class = {
    .name = "remote",
    .parent = &client_class,
    .handle_connect = remote_handle_connect,
};

static int pair_init(struct pair *pair, struct forward *forward)
{
    struct asyncore_map *map = forward->listener.map;
    int r = asyncore_dispatcher_init(&pair->client.base, &client_class, map);

    if (r < 0)
        return r;
    r = asyncore_dispatcher_init(&pair->remote.base, &remote_class, map);
    if (r < 0) {
        asyncore_fini(&pair->client.base);
        return r;
    }
    pair->client.pair = pair->remote.pair = pair;
    pair->client.peer = &pair->remote;
    pair->remote.peer = &pair->client;
    pair->undestroyed = 2;
    pair->forward = forward;
    pair->place = &forward->pairs;
    pair->next = forward->pairs;
    if (pair->next)
        pair->next->place = &pair->next;
    forward->pairs = pair;
    return 0;
}

int pair_start(struct forward *forward, int fd)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    struct asyncore_dispatcher *remote;
    int r;

    r = pair ? pair_init(pair, forward) : -ENOMEM;
    if (r < 0) {
        free(pair);
        return r;
    }
    remote = &pair->remote.base;
    r = asyncore_set_socket(&pair->client.base, fd);
    if (r == 0)
        r = asyncore_want(&pair->client.base, ASYNCORE_ERROR);
    if (r == 0)
        r = asyncore_create_socket(remote, AF_UNSPEC, SOCK_STREAM);
    if (r == 0)
        r = asyncore_connect(remote, forward->options.remote_host, forward->options.remote_port);
    if (r < 0)
        end_handle_error(remote, r);
    return 0;
}
