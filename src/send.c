/* send.c: dispatcher_with_send: sends at once what the kernel takes, queues the rest, and sends that when it can.
 *
 * WRITE is wanted while the queue holds anything. Past the high mark the channel stops reading (S_PAUSED) until the
 * queue is down to the low one. At a clean end of its input it first sends what is queued, then closes. */
#include "queue.h"
#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct asyncore_dispatcher_with_send) == 160, "part of the ABI");

static void pause_reading(struct asyncore_dispatcher_with_send *s, bool pause)
{
    s->base.state_ = pause ? s->base.state_ | S_PAUSED : s->base.state_ & ~(uint32_t)S_PAUSED;
    if (!pause && s->base.state_ & S_CONNECTED)
        channel_pend(&s->base, S_READY); /* async_chat, and TLS, may hold input that the kernel does not know of */
}

/* After the queue changed: marks and interest. 1 past the high mark, else 0. */
int queue_changed(struct asyncore_dispatcher_with_send *s)
{
    const struct marks *marks = queue_marks(s);
    bool paused = s->base.state_ & S_PAUSED;
    if (!paused && s->queued_ > marks->high)
        pause_reading(s, true);
    else if (paused && s->queued_ <= marks->low)
        pause_reading(s, false);
    channel_interest(&s->base);
    return s->queued_ > marks->high;
}

RARE int may_queue(struct asyncore_dispatcher_with_send *s, size_t size)
{
    const struct asyncore_dispatcher *d = &s->base;
    if (d->map == NULL || !(d->state_ & S_ADDED))
        return -EPIPE;
    if (map_forked(d->map) < 0)
        return -ECHILD;
    if (d->state_ & (S_BROKEN | S_SEND_FAILED))
        return d->error_;
    if (d->state_ & (S_CLOSE_WHEN_SENT | S_DONE) || queue_ended(s))
        return -EPIPE;
    const struct marks *marks = queue_marks(s);
    return size > marks->limit || s->queued_ > marks->limit - size ? -ENOBUFS : 0;
}

/* What the kernel did not take of data, from n on. */
static RARE ssize_t queue_rest(struct asyncore_dispatcher_with_send *s, const void *data, size_t size, size_t n)
{
    const unsigned char *rest = (const unsigned char *)data + n, *view = s->base.map->view;
    size_t left = size - n;
    bool lent = view != NULL && rest >= view && rest + left <= view + VIEW_SIZE;
    int result = lent ? queue_view(s, rest, left) : queue_copy(s, rest, left);
    if (result < 0 && n > 0) /* half of it is on its way: the stream cannot go on */
        channel_broken(&s->base, result);
    return result < 0 ? result : queue_changed(s);
}

/* After the kernel was tried, directly: n is what it said. */
static RARE ssize_t sent(struct asyncore_dispatcher_with_send *s, const void *data, size_t size, ssize_t n)
{
    struct asyncore_dispatcher *d = &s->base;
    if (n == -EAGAIN || exhausted(n))
        n = 0;
    if (n < 0)
        return send_failed(d, n);
    if (d->state_ & S_IDLE && n > 0)
        channel_active(d);
    return (size_t)n == size ? 0 : queue_rest(s, data, size, (size_t)n);
}

static RARE ssize_t buffered_send(struct asyncore_dispatcher_with_send *s, const void *data, size_t size)
{
    struct asyncore_dispatcher *d = &s->base;
    int result = may_queue(s, size);
    if (result < 0)
        return result;
    if (s->head_ != NULL || !(d->state_ & S_CONNECTED))
        return queue_rest(s, data, size, 0);
    return sent(s, data, size, call(d, send, data, size));
}

static RARE ssize_t plain_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    if (d->fd < 0)
        return -EBADF;
    if (d->state_ & (S_BROKEN | S_SEND_FAILED))
        return d->error_;
    if (!(d->state_ & S_CONNECTED) && d->type_ == SOCK_STREAM)
        return -ENOTCONN; /* the kernel would say EPIPE, as of a connection that was lost */
    ssize_t n = call(d, send, data, size);
    if (n < 0)
        return n == -EAGAIN || exhausted(n) ? n : send_failed(d, n);
    if (d->state_ & S_IDLE)
        channel_active(d);
    return n;
}

/* The way of nearly every send: connected, nothing queued before it, no marks or timeouts to look after. */
static bool free_way(const struct asyncore_dispatcher *d, size_t size)
{
    const uint32_t looked_at = S_BUFFERED | S_CONNECTED | S_BROKEN | S_SEND_FAILED | S_CLOSE_WHEN_SENT | S_IDLE;
    const struct asyncore_dispatcher_with_send *s = (const struct asyncore_dispatcher_with_send *)d;
    return (d->state_ & looked_at) == (S_BUFFERED | S_CONNECTED) && s->head_ == NULL && s->marks_ == NULL &&
           size <= LIMIT_DEFAULT;
}

FAST ssize_t asyncore_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    if (!free_way(d, size))
        return d->state_ & S_BUFFERED ? buffered_send(with_send(d), data, size) : plain_send(d, data, size);
    ssize_t n = call(d, send, data, size);
    return n == (ssize_t)size ? 0 : sent(with_send(d), data, size, n);
}

ssize_t asyncore_send_ref(struct asyncore_dispatcher_with_send *s, const void *data, size_t size,
                          void (*release)(void *arg), void *arg)
{
    int result = may_queue(s, size);
    if (result < 0)
        return result;
    /* Queued before it is tried: what is sent is released by one road only. */
    result = queue_ref(s, data, size, release, arg);
    if (result < 0)
        return result;
    channel_pend(&s->base, S_FLUSH);
    return queue_changed(s);
}

/* From the loop: handle_write, and the flush of what handlers queued. */
void buffered_flush(struct asyncore_dispatcher *d)
{
    struct asyncore_dispatcher_with_send *s = with_send(d);
    struct asyncore_map *map = d->map;
    size_t before = s->queued_;
    bool ended = false;
    if (!(d->state_ & S_CONNECTED) || d->state_ & (S_BROKEN | S_SEND_FAILED))
        return;
    int result = queue_send(s, true, &ended);
    if (!map->open)
        return;
    if (d->state_ & S_IDLE && s->queued_ != before)
        channel_active(d);
    if (result < 0 && result != -EAGAIN && result != -ECANCELED) {
        send_failed(d, result);
        queue_drop(s);
    }
    queue_changed(s);
    if (s->head_ == NULL && d->state_ & S_CLOSE_WHEN_SENT)
        asyncore_close(d);
    else if (ended && d->state_ & S_EOF_TOLD && !datagrams(d)) /* neither direction has anything left to tell */
        asyncore_close(d);
    else if (ended)
        d->state_ |= S_DONE;
}

int with_send_write(struct asyncore_dispatcher *d)
{
    buffered_flush(d);
    return 0;
}

/* What is queued is still the peer's when its own stream has ended. */
int with_send_close(struct asyncore_dispatcher *d)
{
    if (d->state_ & (S_BROKEN | S_DONE) || with_send(d)->head_ == NULL || d->error_ != 0)
        return asyncore_close(d);
    d->state_ |= S_CLOSE_WHEN_SENT;
    return 0;
}

/* Pushes that were not tried yet are, once: a synchronous send would have. */
void with_send_release(struct asyncore_dispatcher *d, bool closing)
{
    struct asyncore_dispatcher_with_send *s = with_send(d);
    bool ended = false;
    if (closing && d->state_ & S_FLUSH && d->state_ & S_CONNECTED && !(d->state_ & (S_BROKEN | S_SEND_FAILED)) &&
        d->fd >= 0)
        queue_send(s, false, &ended);
    queue_drop(s);
    map_release(d->map, s->marks_);
    s->marks_ = NULL;
}

static const struct asyncore_class with_send_class = {
    .name = "dispatcher_with_send",
    .handle_write = with_send_write,
    .handle_close = with_send_close,
};

static const struct class_root with_send_root = {&with_send_class, sizeof with_send_class, S_BUFFERED,
                                                 with_send_release};

int asyncore_dispatcher_with_send_init_(struct asyncore_dispatcher_with_send *s, const struct asyncore_class *cls,
                                        struct asyncore_map *map, size_t size, size_t class_size, unsigned abi)
{
    if (size != sizeof *s || class_size != sizeof *cls || abi != ASYNCORE_ABI)
        return -EINVAL;
    int result = channel_init(&s->base, cls, &with_send_root, map);
    if (result == 0)
        memset((char *)s + sizeof s->base, 0, sizeof *s - sizeof s->base);
    return result;
}

int asyncore_set_marks(struct asyncore_dispatcher_with_send *s, size_t low, size_t high, size_t limit)
{
    if (low >= high || high > limit || s->base.map == NULL)
        return -EINVAL;
    if (s->base.state_ & S_DYING) /* what is taken now nobody would give back */
        return -EBADF;
    if (s->marks_ == NULL)
        s->marks_ = map_alloc(s->base.map, sizeof(struct marks));
    if (s->marks_ == NULL)
        return -ENOMEM;
    *(struct marks *)s->marks_ = (struct marks){low, high, limit};
    if (s->base.state_ & S_ADDED)
        queue_changed(s);
    return 0;
}

size_t asyncore_queued(const struct asyncore_dispatcher_with_send *s)
{
    return s->queued_;
}
