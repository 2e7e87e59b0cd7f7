/* chat.c: async_chat: input cut at terminators.
 *
 * What a read gives is looked at where it lies, in the map's buffer, and handed to collect_incoming_data without a
 * copy. Bytes are kept (input_) only when the read ended in what may be the beginning of the terminator, or when the
 * queue of output passed its high mark: then the rest of the input waits until the peer has taken what it was sent.
 * What is kept is put before the next read's bytes.
 *
 * The bound on what is collected counts bytes since the last terminator, wherever the reads were cut: as much as the
 * limit is handed over, and then the channel fails with ASYNCHAT_ELIMIT. */
#include "queue.h"
#include <errno.h>
#include <string.h>

#define COLLECT_DEFAULT   65536
#define INLINE_TERMINATOR sizeof((struct asynchat *)0)->terminator_.bytes
#define PIECE_DEFAULT     512

_Static_assert(sizeof(struct asynchat) == 256, "part of the ABI");
_Static_assert(sizeof(struct asynchat_class) == 320, "part of the ABI");

enum {
    TERMINATOR_NONE,
    TERMINATOR_BYTES,
    TERMINATOR_LENGTH
};
enum {
    CHAT_DISCARD = 1
}; /* discard_buffers was called while input is being split */

struct input {
    size_t begin, end;
    unsigned char bytes[];
};

static struct asynchat *chat_of(struct asyncore_dispatcher *d)
{
    return (struct asynchat *)d;
}

static const struct asynchat_class *class_of(const struct asynchat *c)
{
    return (const struct asynchat_class *)c->base.base.class_;
}

/* -- Terminators -- */

static const void *terminator(const struct asynchat *c)
{
    return c->length_ <= INLINE_TERMINATOR ? c->terminator_.bytes : c->terminator_.heap;
}

static void terminator_clear(struct asynchat *c)
{
    if (c->kind_ == TERMINATOR_BYTES && c->length_ > INLINE_TERMINATOR)
        map_release(c->base.base.map, c->terminator_.heap);
    c->kind_ = TERMINATOR_NONE;
    c->length_ = 0;
}

int asynchat_set_terminator(struct asynchat *c, const void *bytes, size_t n)
{
    unsigned char *heap = NULL;
    if (c->base.base.map == NULL || c->base.base.state_ & S_DYING) /* what is taken now nobody would give back */
        return -EBADF;
    if (n > INLINE_TERMINATOR) {
        heap = map_alloc(c->base.base.map, n);
        if (heap == NULL)
            return -ENOMEM;
        memcpy(heap, bytes, n);
    }
    unsigned char copy[INLINE_TERMINATOR];
    if (heap == NULL && n != 0)
        memcpy(copy, bytes, n); /* it may be the one that is cleared */
    terminator_clear(c);
    if (heap != NULL)
        c->terminator_.heap = heap;
    else if (n != 0)
        memcpy(c->terminator_.bytes, copy, n);
    c->length_ = n;
    c->kind_ = n != 0 ? TERMINATOR_BYTES : TERMINATOR_NONE;
    return 0;
}

int asynchat_set_terminator_length(struct asynchat *c, size_t n)
{
    terminator_clear(c);
    c->length_ = n;
    c->kind_ = n != 0 ? TERMINATOR_LENGTH : TERMINATOR_NONE;
    return 0;
}

size_t asynchat_get_terminator(const struct asynchat *c, const void **bytes)
{
    if (bytes != NULL)
        *bytes = c->kind_ == TERMINATOR_BYTES ? terminator(c) : NULL;
    return c->length_;
}

void asynchat_set_limit(struct asynchat *c, size_t limit)
{
    c->limit_ = limit != 0 ? limit : SIZE_MAX;
}

/* The longest end of data that begins the terminator and is not all of it. */
static size_t prefix_at_end(const unsigned char *data, size_t n, const unsigned char *terminator, size_t m)
{
    const unsigned char *at = data + (n < m ? 0 : n - m + 1), *end = data + n;
    while (at < end && (at = memchr(at, terminator[0], (size_t)(end - at))) != NULL) {
        if (memcmp(at, terminator, (size_t)(end - at)) == 0)
            return (size_t)(end - at);
        at++;
    }
    return 0;
}

ssize_t asynchat_find(const void *data, size_t n, const void *terminator, size_t m, size_t *keep)
{
    const void *found = n >= m && m > 0 ? memmem(data, n, terminator, m) : NULL;
    if (found != NULL)
        return (const unsigned char *)found - (const unsigned char *)data;
    if (keep != NULL)
        *keep = n > 0 && m > 1 ? prefix_at_end(data, n, terminator, m) : 0;
    return -1;
}

/* -- Splitting -- */

static bool goes_on(const struct asyncore_map *map, const struct asynchat *c)
{
    const struct asyncore_dispatcher *d = &c->base.base;
    return map->open && !(c->flags_ & CHAT_DISCARD) && !(d->state_ & (S_PAUSED | S_BROKEN));
}

static int collect(struct asynchat *c, const unsigned char *data, size_t n)
{
    int result = n > 0 ? class_of(c)->collect_incoming_data(c, data, n) : 0;
    return result < 0 && result != -EAGAIN ? result : 0;
}

static int found(struct asynchat *c)
{
    int result = class_of(c)->found_terminator(c);
    return result < 0 && result != -EAGAIN ? result : 0;
}

/* Up to the limit; the rest is an error. */
static int collect_bounded(struct asynchat *c, const unsigned char *data, size_t n)
{
    size_t room = c->limit_ > c->collected_ ? c->limit_ - c->collected_ : 0, take = n < room ? n : room;
    c->collected_ += take; /* before the handler, which may discard or raise the limit */
    int result = collect(c, data, take);
    if (result < 0)
        return result;
    return n > room ? ASYNCHAT_ELIMIT : 0;
}

static int split_length(struct asyncore_map *map, struct asynchat *c, const unsigned char *data, size_t n, size_t *used)
{
    size_t take = n < c->length_ ? n : c->length_;
    c->length_ -= take;
    *used = take;
    bool complete = c->length_ == 0;
    if (complete) {
        c->kind_ = TERMINATOR_NONE;
        c->collected_ = 0;
    }
    int result = collect(c, data, take);
    return result == 0 && complete && map->open ? found(c) : result;
}

/* *used 0: what there is may be the beginning of a terminator, and waits. */
static int split_bytes(struct asyncore_map *map, struct asynchat *c, const unsigned char *data, size_t n, size_t *used)
{
    size_t keep = 0, m = c->length_;
    ssize_t at = asynchat_find(data, n, terminator(c), m, &keep);
    size_t take = at >= 0 ? (size_t)at : n - keep;
    *used = at >= 0 ? take + m : take;
    int result = collect_bounded(c, data, take);
    if (result < 0 || at < 0 || !map->open)
        return result;
    c->collected_ = 0;
    return found(c);
}

/* Cuts what it can: *used bytes of n are done with. */
static int split(struct asyncore_map *map, struct asynchat *c, const unsigned char *data, size_t n, size_t *used)
{
    int result = 0;
    c->flags_ &= ~(uint32_t)CHAT_DISCARD;
    *used = 0;
    while (*used < n && result == 0 && goes_on(map, c)) {
        size_t part = n - *used;
        const unsigned char *at = data + *used;
        size_t before = *used;
        if (c->kind_ == TERMINATOR_LENGTH)
            result = split_length(map, c, at, n - *used, &part);
        else if (c->kind_ == TERMINATOR_BYTES)
            result = split_bytes(map, c, at, n - *used, &part);
        else
            result = collect(c, at, part);
        *used += part;
        if (*used == before)
            break;
    }
    if (c->flags_ & CHAT_DISCARD)
        *used = n;
    return result;
}

static void input_drop(struct asynchat *c)
{
    map_release(c->base.base.map, c->input_);
    c->input_ = NULL;
}

/* A channel that left its map within a handler takes the rest along, to be looked at where it joins. */
static void input_keep(struct asyncore_map *map, struct asynchat *c, struct input *in)
{
    c->input_ = in;
    if (!map->open && c->base.base.state_ & S_ADDED)
        channel_pend(&c->base.base, S_READY);
    else if (!map->open)
        c->base.base.state_ |= S_HELD;
}

/* What was kept, and n bytes more, as one. */
static int input_join(struct asyncore_map *map, struct asynchat *c, const unsigned char *data, size_t n)
{
    struct input *old = c->input_;
    size_t kept = old != NULL ? old->end - old->begin : 0;
    struct input *in = map_alloc(c->base.base.map, sizeof *in + kept + n);
    if (in == NULL)
        return -ENOMEM;
    if (kept != 0)
        memcpy(in->bytes, old->bytes + old->begin, kept);
    memcpy(in->bytes + kept, data, n);
    in->begin = 0;
    in->end = kept + n;
    input_drop(c);
    input_keep(map, c, in);
    return 0;
}

/* The kept bytes are the chat's own while they are split: a handler may close it. */
static int split_input(struct asyncore_map *map, struct asynchat *c)
{
    struct input *in = c->input_;
    size_t used;
    c->input_ = NULL;
    int result = split(map, c, in->bytes + in->begin, in->end - in->begin, &used);
    in->begin += used;
    if (result == 0 && in->begin < in->end)
        input_keep(map, c, in);
    else
        map_release(map, in);
    return result;
}

static int split_read(struct asyncore_map *map, struct asynchat *c, const unsigned char *data, size_t n)
{
    size_t used;
    int result = c->input_ != NULL ? input_join(map, c, data, n) : 0;
    if (result < 0)
        return result;
    if (c->input_ != NULL)
        return split_input(map, c);
    result = split(map, c, data, n, &used);
    if (result == 0 && used < n)
        result = input_join(map, c, data + used, n - used);
    return result;
}

/* The stream ended: what might have become a terminator is data, and counts like any other. */
static int chat_ended(struct asynchat *c)
{
    struct asyncore_map *map = c->base.base.map;
    struct input *in = c->input_;
    if (in == NULL)
        return 0;
    c->input_ = NULL;
    size_t n = in->end - in->begin;
    bool bounded = c->kind_ == TERMINATOR_BYTES;
    int result = bounded ? collect_bounded(c, in->bytes + in->begin, n) : collect(c, in->bytes + in->begin, n);
    map_release(map, in);
    return result;
}

static int chat_read(struct asyncore_dispatcher *d)
{
    struct asynchat *c = chat_of(d);
    struct asyncore_map *map = d->map;
    const void *data;
    c->flags_ &= ~(uint32_t)CHAT_DISCARD;
    if (c->input_ != NULL) {
        int result = split_input(map, c);
        if (result < 0 || !goes_on(map, c))
            return result;
    }
    ssize_t n = asyncore_recv_view(d, &data);
    if (n > 0) {
        void *view = map->view; /* hidden from handlers that read other channels */
        map->view = NULL;
        int result = split_read(map, c, data, (size_t)n);
        map_release(map, map->view);
        map->view = view;
        return result;
    }
    return n == 0 ? chat_ended(c) : (int)n;
}

/* -- Output -- */

static int pushed(struct asynchat *c)
{
    channel_pend(&c->base.base, S_FLUSH);
    return queue_changed(&c->base);
}

int asynchat_push(struct asynchat *c, const void *data, size_t n)
{
    int result = may_queue(&c->base, n);
    if (result == 0 && n > 0)
        result = queue_copy(&c->base, data, n);
    return result < 0 ? result : pushed(c);
}

int asynchat_push_text(struct asynchat *c, const char *text)
{
    return asynchat_push(c, text, strlen(text));
}

int asynchat_push_ref(struct asynchat *c, const void *data, size_t n, void (*release)(void *arg), void *arg)
{
    int result = may_queue(&c->base, n);
    if (result == 0)
        result = queue_ref(&c->base, data, n, release, arg);
    return result < 0 ? result : pushed(c);
}

int asynchat_push_with_producer(struct asynchat *c, struct asynchat_producer *p)
{
    int result = may_queue(&c->base, 0);
    if (result == 0)
        result = queue_producer(&c->base, p);
    return result < 0 ? result : pushed(c);
}

int asynchat_close_when_done(struct asynchat *c)
{
    int result = may_queue(&c->base, 0);
    if (result < 0)
        return result;
    queue_end(&c->base);
    pushed(c);
    return 0;
}

void asynchat_discard_buffers(struct asynchat *c)
{
    c->flags_ |= CHAT_DISCARD;
    c->collected_ = 0;
    input_drop(c);
    queue_drop(&c->base);
    if (c->base.base.state_ & S_ADDED)
        queue_changed(&c->base);
}

static ssize_t simple_more(struct asynchat_producer *base, const void **data)
{
    struct asynchat_simple_producer *p = (struct asynchat_simple_producer *)base;
    size_t n = p->left_ < p->piece_ ? p->left_ : p->piece_;
    *data = p->data_;
    p->data_ += n;
    p->left_ -= n;
    return (ssize_t)n;
}

void asynchat_simple_producer_init(struct asynchat_simple_producer *p, const void *data, size_t n, size_t piece)
{
    *p = (struct asynchat_simple_producer){{simple_more, NULL}, data, n, piece != 0 ? piece : PIECE_DEFAULT};
}

/* -- The class -- */

static int default_collect(struct asynchat *c, const void *data, size_t n)
{
    (void)c;
    (void)data;
    (void)n;
    return -ENOSYS;
}

static int default_found(struct asynchat *c)
{
    (void)c;
    return -ENOSYS;
}

static void chat_release(struct asyncore_dispatcher *d, bool closing)
{
    struct asynchat *c = chat_of(d);
    with_send_release(d, closing);
    terminator_clear(c);
    input_drop(c);
    c->flags_ |= CHAT_DISCARD;
    c->collected_ = 0;
}

static const struct asynchat_class chat_class = {
    .base = {.name = "async_chat",
             .handle_read = chat_read,
             .handle_write = with_send_write,
             .handle_close = with_send_close},
    .collect_incoming_data = default_collect,
    .found_terminator = default_found,
};

static const struct class_root chat_root = {&chat_class.base, sizeof chat_class, S_BUFFERED, chat_release};

int asynchat_init_(struct asynchat *c, const struct asynchat_class *cls, struct asyncore_map *map, size_t size,
                   size_t class_size, unsigned abi)
{
    if (size != sizeof *c || class_size != sizeof *cls || abi != ASYNCORE_ABI)
        return -EINVAL;
    int result = channel_init(&c->base.base, &cls->base, &chat_root, map);
    if (result == 0) {
        memset((char *)c + sizeof c->base.base, 0, sizeof *c - sizeof c->base.base);
        c->limit_ = COLLECT_DEFAULT;
    }
    return result;
}

const struct asynchat_class *asynchat_super(const struct asynchat *c, const struct asynchat_class *mine)
{
    return (const struct asynchat_class *)asyncore_super(&c->base.base, &mine->base);
}
