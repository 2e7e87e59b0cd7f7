/* witness.c: see witness.h. A child class is made once for each class, and lives as long as the process, as a class has
 * to. Its name is the parent's, in memory of its own: so a channel's name leads back to it. */
#include "witness.h"

#include "oracle.h"
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum {
    CLASSES = 64,
    PLACES = 8192
};

struct watched_class {
    const struct asyncore_class *parent;
    struct asynchat_class chat; /* .base alone for the others */
    bool is_chat;
    char name[48];
};

enum life {
    NONE,
    MADE,
    CLOSED,
    DESTROYED,
    TAKEN_BACK
};

struct record {
    const struct asyncore_dispatcher *d;
    enum life life;
    bool destroys; /* its class has a destroy */
    bool queues;   /* it may be asked to read, though nothing came, when its queue has drained */
    unsigned epoch;
};

static struct watched_class classes[CLASSES];
static size_t class_count;
static struct record records[PLACES]; /* by address, linear probing; entries of older epochs are empty */
static size_t record_count;
static unsigned epoch;
static struct run *current;
static unsigned depth; /* of the program's handlers and calls of close that run */

void witness_begin(struct run *run)
{
    current = run;
    depth = 0;
    record_count = 0;
    epoch++;
}

static struct record *record_of(const struct asyncore_dispatcher *d, bool make)
{
    size_t i = ((uintptr_t)d >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 51;

    for (;; i = (i + 1) % PLACES) {
        struct record *r = &records[i];
        if (r->epoch == epoch && r->d == d)
            return r;
        if (r->epoch == epoch)
            continue;
        if (!make || record_count == PLACES / 2)
            return NULL;
        record_count++;
        *r = (struct record){.d = d, .epoch = epoch};
        return r;
    }
}

static void see(struct asyncore_dispatcher *d, const char *handler)
{
    static const char *const lives[] = {"was never made", "is open", "is closed", "was destroyed", "was taken back"};
    const struct record *r = record_of(d, false);
    enum life life = r != NULL ? r->life : NONE;

    if (life != MADE)
        oracle_fail(current, "handler", "%s of %s, which %s", handler, d->class_->name, lives[life]);
    else if (d->fd < 0 && strcmp(handler, "handle_error") != 0 && strcmp(handler, "handle_close") != 0)
        oracle_fail(current, "handler", "%s of %s, which has no descriptor", handler, d->class_->name);
}

static struct watched_class *class_of(const struct asyncore_dispatcher *d)
{
    return (struct watched_class *)(void *)((char *)(uintptr_t)d->class_->name - offsetof(struct watched_class, name));
}

static const struct asyncore_class *parent_of(const struct asyncore_dispatcher *d)
{
    return asyncore_super(d, &class_of(d)->chat.base);
}

/* What a handler of the program returns. */
static int left(int result)
{
    depth--;
    return result;
}

#define HANDLER(handler)                                                                                               \
    static int seen_##handler(struct asyncore_dispatcher *d)                                                           \
    {                                                                                                                  \
        see(d, #handler);                                                                                              \
        depth++;                                                                                                       \
        return left(parent_of(d)->handler(d));                                                                         \
    }
HANDLER(handle_connect)
HANDLER(handle_write)
HANDLER(handle_accept)
HANDLER(handle_close)

/* Whether nothing makes a ready descriptor unready: neither by chance nor by hand. */
static bool reliable(const struct run *run)
{
    const unsigned *chances = run->options.chances;

    return !run->hard && chances[ASYNCORE_SIM_SPURIOUS] == 0 && chances[ASYNCORE_SIM_EAGAIN] == 0 &&
           chances[ASYNCORE_SIM_EINTR] == 0;
}

static int seen_handle_read(struct asyncore_dispatcher *d)
{
    const struct record *r = record_of(d, false);
    bool queues = r == NULL || r->queues;
    int result;

    see(d, "handle_read");
    depth++;
    result = left(parent_of(d)->handle_read(d));
    if (result == -EAGAIN && reliable(current) && !queues)
        oracle_fail(current, "empty", "handle_read of %s, which had nothing to read", d->class_->name);
    return result;
}

static int seen_handle_error(struct asyncore_dispatcher *d, int error)
{
    see(d, "handle_error");
    depth++;
    return left(parent_of(d)->handle_error(d, error));
}

static int seen_collect(struct asynchat *c, const void *data, size_t n)
{
    see(&c->base.base, "collect_incoming_data");
    depth++;
    return left(asynchat_super(c, &class_of(&c->base.base)->chat)->collect_incoming_data(c, data, n));
}

static int seen_found(struct asynchat *c)
{
    see(&c->base.base, "found_terminator");
    depth++;
    return left(asynchat_super(c, &class_of(&c->base.base)->chat)->found_terminator(c));
}

static void seen_destroy(struct asyncore_dispatcher *d)
{
    struct record *r = record_of(d, false);

    if (r == NULL || (r->life != MADE && r->life != CLOSED))
        oracle_fail(current, "destroy", "%s is destroyed %s", d->class_->name,
                    r != NULL && r->life == DESTROYED ? "twice" : "without reason");
    else
        r->life = DESTROYED;
    if (depth > 0)
        oracle_fail(current, "destroy", "%s is destroyed within a handler, not at the end of the turn",
                    d->class_->name);
    parent_of(d)->destroy(d);
}

static bool has_destroy(const struct asyncore_class *cls)
{
    return cls != NULL && (cls->destroy != NULL || has_destroy(cls->parent));
}

static struct watched_class *watched(const struct asyncore_class *parent, bool is_chat)
{
    struct watched_class *w = classes;

    while (w < classes + class_count && (w->parent != parent || w->is_chat != is_chat))
        w++;
    if (w == classes + CLASSES)
        abort();
    if (w < classes + class_count)
        return w;
    class_count++;
    w->parent = parent;
    w->is_chat = is_chat;
    strncpy(w->name, parent->name, sizeof w->name - 1);
    w->chat.base = (struct asyncore_class){
        .name = w->name,
        .parent = parent,
        .handle_connect = seen_handle_connect,
        .handle_read = seen_handle_read,
        .handle_write = seen_handle_write,
        .handle_accept = seen_handle_accept,
        .handle_close = seen_handle_close,
        .handle_error = seen_handle_error,
        .destroy = has_destroy(parent) ? seen_destroy : NULL,
    };
    if (is_chat) {
        w->chat.collect_incoming_data = seen_collect;
        w->chat.found_terminator = seen_found;
    }
    return w;
}

static int made(struct asyncore_dispatcher *d, const struct watched_class *w, bool queues, int result)
{
    struct record *r = result == 0 ? record_of(d, true) : NULL;

    if (r != NULL) {
        r->life = MADE;
        r->destroys = w->chat.base.destroy != NULL;
        r->queues = queues;
    }
    return result;
}

int witness_dispatcher_init(struct asyncore_dispatcher *d, const struct asyncore_class *cls, struct asyncore_map *map)
{
    const struct watched_class *w = watched(cls, false);

    return made(d, w, false, asyncore_dispatcher_init(d, &w->chat.base, map));
}

int witness_with_send_init(struct asyncore_dispatcher_with_send *s, const struct asyncore_class *cls,
                           struct asyncore_map *map)
{
    const struct watched_class *w = watched(cls, false);

    return made(&s->base, w, true, asyncore_dispatcher_with_send_init(s, &w->chat.base, map));
}

int witness_file_init(struct asyncore_file_dispatcher *f, const struct asyncore_class *cls, struct asyncore_map *map)
{
    const struct watched_class *w = watched(cls, false);

    return made(&f->base, w, false, asyncore_file_dispatcher_init(f, &w->chat.base, map));
}

int witness_chat_init(struct asynchat *c, const struct asynchat_class *cls, struct asyncore_map *map)
{
    const struct watched_class *w = watched(&cls->base, true);

    return made(&c->base.base, w, true, asynchat_init(c, &w->chat, map));
}

int witness_close(struct asyncore_dispatcher *d)
{
    struct record *r = record_of(d, false);

    if (r != NULL && r->life == MADE)
        r->life = CLOSED;
    depth++;
    return left(asyncore_close(d));
}

/* A channel without destroy may be opened again. The record is written before: handle_socket runs within. */
int witness_create_socket(struct asyncore_dispatcher *d, int family, int type)
{
    struct record *r = record_of(d, false);

    if (r != NULL && r->life == CLOSED && !r->destroys)
        r->life = MADE;
    return asyncore_create_socket(d, family, type);
}

int witness_fini(struct asyncore_dispatcher *d)
{
    struct record *r = record_of(d, false);
    int result = asyncore_fini(d);

    if (r != NULL && result == 0)
        r->life = TAKEN_BACK;
    return result;
}

bool witness_all_gone(struct run *run)
{
    for (size_t i = 0; i < PLACES; i++) {
        const struct record *r = &records[i];
        if (r->epoch == epoch && r->destroys && (r->life == MADE || r->life == CLOSED))
            return oracle_fail(run, "destroy", "a channel was not destroyed when its map was freed");
    }
    return true;
}
