/* queue.c: what a channel still has to send: a list of chunks, each some bytes or a producer of them, or the end.
 *
 * Bytes are copied into their chunk (small ones share it), or belong to somebody who is told when they are no longer
 * needed. A remainder of the map's view buffer that is at least half of it takes the buffer itself: the map then
 * makes another. A chunk of a producer holds the piece in hand. queued_ counts bytes of all kinds, so that a piece
 * is counted once it was produced. Memory is held while there is something to send, and not after. */
#include "queue.h"
#include <errno.h>
#include <string.h>

#define SHARED_ROOM       976 /* so that a chunk of small pieces is 1 KiB with its header */
#define BETWEEN_ROOM      64  /* behind a lent piece or a producer: more of them follow as likely as more small ones */
#define PRODUCED_PER_TURN 64  /* pieces: a producer of tiny ones must not starve the loop */
#define BYTES_PER_FLUSH   (1u << 20)

/* `room` of a producer's chunk. */
enum {
    IN_MORE = 1, /* more() runs */
    DROPPED      /* and emptied the queue */
};

enum chunk_kind {
    CHUNK_BYTES,
    CHUNK_LENT,
    CHUNK_VIEW,
    CHUNK_PRODUCER,
    CHUNK_END
};

struct chunk {
    struct chunk *next;
    const unsigned char *data;
    size_t left;
    void (*release)(void *arg); /* not for bytes of its own */
    void *arg;                  /* the producer, the view buffer, or release's */
    uint32_t kind, room;        /* room: behind its own bytes; of a producer: whether more() runs */
    unsigned char bytes[];
};

static const struct marks default_marks = {128 * 1024, 256 * 1024, LIMIT_DEFAULT};

const struct marks *queue_marks(const struct asyncore_dispatcher_with_send *s)
{
    return s->marks_ != NULL ? s->marks_ : &default_marks;
}

static struct asyncore_map *map_of(struct asyncore_dispatcher_with_send *s)
{
    return s->base.map;
}

/* The end of every queue that has one: nothing comes after it, so that it is never written, and one is enough for all.
 * It needs no memory, and so to close cannot fail. */
static struct chunk the_end = {.kind = CHUNK_END};

static void link_chunk(struct asyncore_dispatcher_with_send *s, struct chunk *c)
{
    if (s->tail_ != NULL)
        ((struct chunk *)s->tail_)->next = c;
    else
        s->head_ = c;
    s->tail_ = c;
}

static struct chunk *append(struct asyncore_dispatcher_with_send *s, enum chunk_kind kind, size_t room)
{
    struct chunk *c = map_alloc(map_of(s), sizeof *c + room);
    if (c == NULL)
        return NULL;
    *c = (struct chunk){.kind = kind, .room = (uint32_t)room, .data = c->bytes};
    link_chunk(s, c);
    return c;
}

static void put(struct asyncore_dispatcher_with_send *s, struct chunk *c, const void *data, size_t size)
{
    memcpy((unsigned char *)c->data + c->left, data, size);
    c->left += size;
    c->room -= (uint32_t)size;
    s->queued_ += size;
}

int queue_copy(struct asyncore_dispatcher_with_send *s, const void *data, size_t size)
{
    struct chunk *c = s->tail_;
    size_t room = c == NULL || c->kind == CHUNK_BYTES ? SHARED_ROOM : BETWEEN_ROOM;
    if (c == NULL || c->kind != CHUNK_BYTES || c->room < size)
        c = append(s, CHUNK_BYTES, size > room ? size : room);
    if (c == NULL)
        return -ENOMEM;
    put(s, c, data, size);
    return 0;
}

int queue_ref(struct asyncore_dispatcher_with_send *s, const void *data, size_t size, void (*release)(void *arg),
              void *arg)
{
    struct chunk *c = append(s, CHUNK_LENT, 0);
    if (c == NULL)
        return -ENOMEM;
    c->data = data;
    c->left = size;
    c->release = release;
    c->arg = arg;
    s->queued_ += size;
    return 0;
}

int queue_view(struct asyncore_dispatcher_with_send *s, const void *data, size_t size)
{
    struct asyncore_map *map = map_of(s);
    if (size < VIEW_SIZE / 2)
        return queue_copy(s, data, size);
    struct chunk *c = append(s, CHUNK_VIEW, 0);
    if (c == NULL)
        return -ENOMEM;
    c->data = data;
    c->left = size;
    c->arg = map->view;
    map->view = NULL;
    s->queued_ += size;
    return 0;
}

int queue_producer(struct asyncore_dispatcher_with_send *s, struct asynchat_producer *p)
{
    struct chunk *c = append(s, CHUNK_PRODUCER, 0);
    if (c == NULL)
        return -ENOMEM;
    c->arg = p;
    return 0;
}

void queue_end(struct asyncore_dispatcher_with_send *s)
{
    link_chunk(s, &the_end);
}

bool queue_ended(const struct asyncore_dispatcher_with_send *s)
{
    return s->tail_ == &the_end;
}

/* A view buffer comes back to the map, which has use for one. */
static void give_back(struct asyncore_map *map, struct chunk *c)
{
    struct asynchat_producer *p = c->kind == CHUNK_PRODUCER ? c->arg : NULL;
    if (c == &the_end)
        return;
    if (p != NULL && c->room == IN_MORE) {
        c->room = DROPPED;
        return;
    }
    if (p != NULL && p->release != NULL)
        p->release(p);
    else if (c->kind == CHUNK_LENT && c->release != NULL)
        c->release(c->arg);
    else if (c->kind == CHUNK_VIEW && map->view == NULL)
        map->view = c->arg;
    else if (c->kind == CHUNK_VIEW)
        map_release(map, c->arg);
    map_release(map, c);
}

static void pop(struct asyncore_dispatcher_with_send *s)
{
    struct chunk *c = s->head_;
    s->queued_ -= c->left;
    s->head_ = c->next;
    if (c->next == NULL)
        s->tail_ = NULL;
    give_back(map_of(s), c);
}

void queue_drop(struct asyncore_dispatcher_with_send *s)
{
    while (s->head_ != NULL)
        pop(s);
}

/* The next piece of a producer: > 0, or 0 when it has no more. -ECANCELED: it failed, which is the channel's error,
 * or it closed the channel or emptied the queue. */
static ssize_t produce(struct asyncore_dispatcher_with_send *s, struct chunk *c)
{
    struct asyncore_map *map = map_of(s);
    struct asynchat_producer *p = c->arg;
    const void *data = NULL;
    c->room = IN_MORE;
    ssize_t n = p->more(p, &data);
    bool dropped = c->room == DROPPED;
    c->room = 0;
    if (dropped)
        give_back(map, c);
    if (dropped || !still_open(map, &s->base))
        return -ECANCELED;
    if (n < 0) {
        channel_broken(&s->base, (int)n);
        return -ECANCELED;
    }
    c->data = data;
    c->left = (size_t)n;
    s->queued_ += (size_t)n;
    return n;
}

static ssize_t send_some(struct asyncore_dispatcher_with_send *s, struct chunk *c)
{
    struct asyncore_dispatcher *d = &s->base;
    bool more = c->next != NULL && c->next->kind <= CHUNK_VIEW && c->next->left > 0; /* a producer may have nothing */
    d->state_ = more ? d->state_ | S_MORE : d->state_ & ~(uint32_t)S_MORE;
    ssize_t n = call(d, send, c->data, c->left);
    d->state_ &= ~(uint32_t)S_MORE;
    if (n > 0) {
        c->data += n;
        c->left -= (size_t)n;
        s->queued_ -= (size_t)n;
    }
    return n;
}

int queue_send(struct asyncore_dispatcher_with_send *s, bool ask, bool *ended)
{
    size_t sent = 0;
    int produced = 0;
    for (struct chunk *c; (c = s->head_) != NULL && sent < BYTES_PER_FLUSH;) {
        if (c == &the_end) {
            *ended = true;
            pop(s);
            return 0;
        }
        if (c->left == 0 && c->kind == CHUNK_PRODUCER) {
            ssize_t n = !ask || produced++ == PRODUCED_PER_TURN ? -EAGAIN : produce(s, c);
            if (n < 0)
                return (int)n;
            if (n == 0)
                pop(s);
            continue;
        }
        size_t size = c->left;
        ssize_t n = size == 0 ? 0 : send_some(s, c);
        if (n < 0)
            return exhausted(n) ? -EAGAIN : (int)n;
        sent += (size_t)n;
        if ((size_t)n < size)
            return -EAGAIN;
        if (c->kind != CHUNK_PRODUCER)
            pop(s);
    }
    return 0;
}
