/* fuzz_chat.c: the splitter of async_chat beside a naive one.
 *
 * The input is a script and a stream. The script says what each found_terminator does (another terminator, a limit,
 * push, discard, leave the map and join again, fail, close), where the stream is cut into reads, and how much each
 * send takes. The reference looks at the whole stream at once and knows nothing of cuts; both write down what they
 * tell: the data, each terminator, the error, the end. The two notes must be the same, whatever the cuts.
 *
 * What discard forgets does depend on the cuts: the reference is told how much had been read by then.
 *
 * The map waits on a kernel of a few functions, in which one descriptor is always ready. */
#include "asynchat.h"
#include "fuzz.h"
#include "map.h"
#include <errno.h>

#define FD   3
#define WAKE 4

enum op {
    OP_BYTES,
    OP_LENGTH,
    OP_NONE,
    OP_LIMIT,
    OP_DISCARD,
    OP_PUSH,
    OP_LEAVE,
    OP_AGAIN,
    OP_FAIL,
    OP_CLOSE,
    OP_BYTES_AGAIN, /* the terminator that it had, by the pointer that get gave */
    OPS
};

/* The notes: what was collected, byte by byte, and marks above 255. */
enum {
    NOTE_FOUND = 256,
    NOTE_ERROR,
    NOTE_LIMIT,
    NOTE_END
};

struct notes {
    uint16_t *at;
    size_t count, room;
};

struct script {
    struct input ops; /* of the calls of found_terminator, in their order */
    struct input cuts, sends;
    struct input stream;
    struct input first; /* the terminator to begin with: an op like the others */
    bool narrow;        /* few different bytes, so that terminators come often */
};

struct chat {
    struct asynchat base;
    struct notes notes;
    struct input ops, stream, cuts, sends;
    struct script *script;
    size_t given;
    size_t *discards; /* how much had been given, at each */
    size_t discard_count;
    size_t pushed, sent;
    bool left, closed;
};

static void note(struct notes *notes, int what)
{
    if (notes->count == notes->room) {
        notes->room = notes->room ? notes->room * 2 : 256;
        notes->at = realloc(notes->at, notes->room * sizeof *notes->at);
        claim(notes->at != NULL);
    }
    notes->at[notes->count++] = (uint16_t)what;
}

static void note_data(struct notes *notes, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        note(notes, data[i]);
}

/* -- The kernel -- */

static void *os_alloc(size_t size, struct os *os)
{
    (void)os;
    return malloc(size);
}

static void *os_realloc(void *memory, size_t size, struct os *os)
{
    (void)os;
    return realloc(memory, size);
}

static void os_free(void *memory, struct os *os)
{
    (void)os;
    free(memory);
}

static uint64_t os_now(struct os *os)
{
    (void)os;
    return 1;
}

static int os_eventfd(struct os *os)
{
    (void)os;
    return WAKE;
}

static int os_close(int fd, struct os *os)
{
    (void)fd, (void)os;
    return 0;
}

static int os_getsockopt(int fd, int level, int option, void *value, socklen_t *length, struct os *os)
{
    const int stream = SOCK_STREAM;
    (void)fd, (void)level, (void)option, (void)os;
    memcpy(value, &stream, *length);
    return 0;
}

static int os_poll(struct pollfd *fds, nfds_t count, int timeout, struct os *os)
{
    int ready = 0;
    (void)timeout, (void)os;
    for (nfds_t i = 0; i < count; i++) {
        fds[i].revents = fds[i].fd == FD ? fds[i].events & (POLLIN | POLLOUT) : 0;
        ready += fds[i].revents != 0;
    }
    return ready;
}

static struct os kernel = {
    .alloc = os_alloc,
    .realloc = os_realloc,
    .free = os_free,
    .now = os_now,
    .eventfd = os_eventfd,
    .close = os_close,
    .getsockopt = os_getsockopt,
    .poll = os_poll,
};

static struct asyncore_map *the_map(void)
{
    static struct asyncore_map *map;
    const struct asyncore_map_options options = {.engine = "poll"};
    if (map == NULL)
        claim(map_new_on(&map, &kernel, &options) == 0);
    return map;
}

/* -- The script -- */

/* The terminator of an op: its length, in bytes. */
static size_t terminator_take(struct input *ops, bool narrow, uint8_t bytes[32])
{
    struct input some = take_some(ops, 1 + take(ops) % 32);
    for (size_t i = 0; i < some.left; i++)
        bytes[i] = narrow ? some.at[i] & 1 : some.at[i];
    return some.left;
}

static size_t limit_take(struct input *ops)
{
    return take(ops); /* 0: none */
}

static int apply(struct chat *c, struct input *ops)
{
    struct asynchat *chat = &c->base;
    uint8_t bytes[32];
    const void *old;
    size_t n;
    switch (take(ops) % OPS) {
    case OP_BYTES:
        n = terminator_take(ops, c->script->narrow, bytes);
        return asynchat_set_terminator(chat, bytes, n);
    case OP_BYTES_AGAIN:
        n = asynchat_get_terminator(chat, &old);
        return old != NULL ? asynchat_set_terminator(chat, old, n) : 0;
    case OP_LENGTH: return asynchat_set_terminator_length(chat, take(ops));
    case OP_NONE: return asynchat_set_terminator(chat, NULL, 0);
    case OP_LIMIT: asynchat_set_limit(chat, limit_take(ops)); return 0;
    case OP_DISCARD:
        asynchat_discard_buffers(chat);
        c->discards = realloc(c->discards, (c->discard_count + 1) * sizeof *c->discards);
        claim(c->discards != NULL);
        c->discards[c->discard_count++] = c->given;
        c->sent = c->pushed;
        return 0;
    case OP_PUSH:
        if (asynchat_push(chat, "answer", 6) >= 0)
            c->pushed += 6;
        return 0;
    case OP_LEAVE: c->left = true; return asyncore_del_channel(&chat->base.base);
    case OP_AGAIN: return -EAGAIN;
    case OP_FAIL: return -EDOM;
    default: return asyncore_close(&chat->base.base);
    }
}

/* -- The channel -- */

static struct chat *chat_of(struct asyncore_dispatcher *d)
{
    return (struct chat *)d;
}

static int on_collect(struct asynchat *base, const void *data, size_t n)
{
    struct chat *c = (struct chat *)base;
    claim(n > 0);
    note_data(&c->notes, data, n);
    return 0;
}

static int on_found(struct asynchat *base)
{
    struct chat *c = (struct chat *)base;
    note(&c->notes, NOTE_FOUND);
    return c->ops.left > 0 ? apply(c, &c->ops) : 0;
}

static int on_error(struct asyncore_dispatcher *d, int error)
{
    struct chat *c = chat_of(d);
    claim(error == ASYNCHAT_ELIMIT || error == -EDOM);
    note(&c->notes, error == ASYNCHAT_ELIMIT ? NOTE_LIMIT : NOTE_ERROR);
    c->closed = true;
    return asyncore_close(d);
}

static int on_close(struct asyncore_dispatcher *d)
{
    struct chat *c = chat_of(d);
    note(&c->notes, NOTE_END);
    c->closed = true;
    return asyncore_close(d);
}

static ssize_t on_recv(struct asyncore_dispatcher *d, void *data, size_t size)
{
    struct chat *c = chat_of(d);
    size_t n = c->cuts.left > 0 ? take(&c->cuts) : size;
    if (n == 0)
        return -EAGAIN;
    struct input piece = take_some(&c->stream, n < size ? n : size);
    c->given += piece.left;
    if (piece.left > 0)
        memcpy(data, piece.at, piece.left);
    return (ssize_t)piece.left;
}

static ssize_t on_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    struct chat *c = chat_of(d);
    size_t n = c->sends.left > 0 ? take(&c->sends) : size;
    (void)data;
    if (n == 0)
        return -EAGAIN;
    n = n < size ? n : size;
    c->sent += n;
    return (ssize_t)n;
}

static const struct asynchat_class chat_class = {
    .base = {.name = "chat",
             .handle_error = on_error,
             .handle_close = on_close,
             .recv = on_recv,
             .send = on_send},
    .collect_incoming_data = on_collect,
    .found_terminator = on_found,
};

static void run(struct chat *c)
{
    struct asyncore_map *map = the_map();
    struct asyncore_dispatcher *d = &c->base.base.base;
    size_t most = 64 + 4 * (c->cuts.left + c->sends.left + c->stream.left + c->ops.left), turns = 0;
    claim(asynchat_init(&c->base, &chat_class, map) == 0);
    claim(asyncore_set_marks(&c->base.base, 4, 16, 1000) == 0);
    claim(asyncore_set_socket(d, FD) == 0);
    struct input first = c->script->first;
    int result = apply(c, &first);
    claim(result == 0 || result == -EAGAIN || result == -EDOM);
    while (!c->closed && d->fd >= 0) {
        if (c->left)
            claim(asyncore_add_channel(d, NULL) == 0);
        c->left = false;
        claim(asyncore_poll(map, 0) >= 0);
        claim(turns++ < most);
    }
    claim(c->sent <= c->pushed);
    claim(asyncore_fini(d) == 0);
    claim(map->foreground == 0);
}

/* -- The reference -- */

struct reference {
    struct notes notes;
    struct input ops;
    const struct chat *chat;
    size_t at; /* in the stream */
    uint8_t bytes[32];
    size_t length; /* of the terminator */
    bool is_length;
    size_t limit;
    size_t discards;
};

/* What an op changes for the splitter. Whether it goes on. */
static bool reference_apply(struct reference *r, struct input *ops, bool first)
{
    switch (take(ops) % OPS) {
    case OP_BYTES:
        r->length = terminator_take(ops, r->chat->script->narrow, r->bytes);
        r->is_length = false;
        break;
    case OP_LENGTH:
        r->length = take(ops);
        r->is_length = true;
        break;
    case OP_NONE: r->length = 0; break;
    case OP_LIMIT:
        r->limit = limit_take(ops);
        r->limit = r->limit != 0 ? r->limit : SIZE_MAX;
        break;
    case OP_DISCARD: r->at = r->chat->discards[r->discards++]; break;
    case OP_FAIL:
        if (first) /* not in a handler: nobody fails */
            break;
        note(&r->notes, NOTE_ERROR);
        return false;
    case OP_CLOSE: return false;
    default: break;
    }
    return true;
}

static bool reference_found(struct reference *r)
{
    note(&r->notes, NOTE_FOUND);
    if (r->is_length)
        r->length = 0; /* until another is set there is none */
    return r->ops.left > 0 ? reference_apply(r, &r->ops, false) : true;
}

/* Up to the terminator, or the end of the stream. Whether there is more to split. */
static bool reference_step(struct reference *r, const uint8_t *stream, size_t size)
{
    size_t end = r->at, bound = r->length == 0 || r->is_length ? SIZE_MAX : r->limit;
    bool found = false;
    if (r->is_length && r->length > 0) {
        found = size - r->at >= r->length;
        end = found ? r->at + r->length : size;
    } else {
        while (end < size && !found) {
            found = r->length > 0 && size - end >= r->length && memcmp(stream + end, r->bytes, r->length) == 0;
            end += !found;
        }
    }
    for (; r->at < end; r->at++, bound--) {
        if (bound == 0) {
            note(&r->notes, NOTE_LIMIT);
            return false;
        }
        note(&r->notes, stream[r->at]);
    }
    if (found && !r->is_length)
        r->at += r->length;
    if (found)
        return reference_found(r);
    note(&r->notes, NOTE_END);
    return false;
}

static void refer(struct reference *r, const struct chat *c)
{
    const struct script *script = c->script;
    struct input first = script->first;
    r->chat = c;
    r->limit = 65536;
    r->ops = script->ops;
    if (reference_apply(r, &first, true))
        while (reference_step(r, script->stream.at, script->stream.left))
            ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct script script = {0};
    struct reference r = {0};
    unsigned lengths = take(&in);
    script.narrow = lengths & 128;
    script.first = take_some(&in, lengths & 15);
    script.ops = take_some(&in, take(&in));
    script.cuts = take_some(&in, take(&in));
    script.sends = take_some(&in, lengths & 64 ? take(&in) : 0);
    script.stream = in;
    uint8_t *stream = copy_of(in.at, in.left);
    for (size_t i = 0; script.narrow && i < in.left; i++)
        stream[i] &= 1;
    script.stream.at = stream;

    struct chat *c = calloc(1, sizeof *c); /* its address changes, as a program's would */
    claim(c != NULL);
    c->script = &script;
    c->ops = script.ops;
    c->cuts = script.cuts;
    c->sends = script.sends;
    c->stream = script.stream;
    run(c);
    refer(&r, c);
    claim(c->notes.count == r.notes.count);
    claim(r.notes.count == 0 || memcmp(c->notes.at, r.notes.at, r.notes.count * sizeof *r.notes.at) == 0);
    free(c->notes.at);
    free(c->discards);
    free(c);
    free(r.notes.at);
    free(stream);
    return 0;
}
