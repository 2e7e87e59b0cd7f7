/* flow.c: the data path.
 *
 * A flow takes a buffer from the pool, reads, sends at once, and gives the buffer back: it holds memory only while the
 * out side is full. What it reads with depends on its streak, the bytes that it lately moved in pieces of 16 KiB and
 * more:
 *
 *     below 32 KiB     the small buffer (16 KiB): messages
 *     below 1 MiB      a large one (256 KiB): a flow that grows
 *     from there on    splice(2) through a pipe: proven bulk, no copy
 *
 * Small pieces halve the streak, so a flow that turns to messages copies again after two or three of them: splicing
 * pays from about 16 KiB on. Who gets no large buffer or no pipe, because others have them, does with less.
 *
 * Splice has traps. A pipe has slots, not bytes: segments of an MSS fill it early, so a short splice says nothing about
 * the socket; and "try again" may mean a full pipe or an empty socket. Here a pipe is always empty when it is read
 * into, so it must be the socket; or something that cannot be spliced, such as an urgent byte, so recv has the last
 * word, and if it finds bytes the flow copies from there on. Whoever stops early comes back, for the engines are
 * level-triggered. */
#include "flow.h"

#include <errno.h>

enum {
    BULKY = SMALL_BUFFER, /* a piece that adds to the streak */
    GROWN = 32 << 10,     /* streak: large buffers */
    PROVEN = 1 << 20,     /* streak: splice */
    STREAK_MOST = 2 << 20,
    SPLICE_MOST = 1 << 20, /* one call; a slot of a pipe may hold more than a page */
    GO_ON = 64 << 10,      /* a splice of so much is followed by another */
    TURN_MOST = 256 << 10, /* bytes of one flow in one turn: the others wait meanwhile */
};

static bool wants_splice(const struct move *move)
{
    const struct flow *flow = move->flow;

    if (move->path == DATA_PATH_COPY || flow->no_splice)
        return false;
    return move->path == DATA_PATH_SPLICE || flow->streak >= PROVEN;
}

static void give_back(struct move *move)
{
    struct flow *flow = move->flow;

    if (flow->buffer)
        pool_give(move->pool, flow->buffer, flow->size);
    if (flow->pipe)
        pool_give_pipe(move->pool, flow->pipe);
    flow->buffer = NULL;
    flow->pipe = NULL;
}

void flow_drop(struct flow *flow, struct pool *pool)
{
    struct move move = {.flow = flow, .pool = pool};

    give_back(&move);
    flow->count = 0;
}

/* -- Sending -- */

/* A kernel short of memory takes nothing now, and the bytes wait as behind a full buffer. */
static bool takes_no_more(ssize_t n)
{
    return n == -EAGAIN || n == -ENOBUFS || n == -ENOMEM;
}

/* The out side takes nothing from pipes, which is known only once bytes are in one: out of it with them. -EAGAIN: try
 * again. */
static ssize_t leave_pipe(struct move *move)
{
    struct flow *flow = move->flow;
    char *buffer = pool_take(move->pool, flow->count);
    unsigned held = 0;

    flow->no_splice = true;
    if (!buffer)
        return -ENOMEM;
    while (held < flow->count) {
        ssize_t n = asyncore_pipe_read(move->out->map, flow->pipe, buffer + held, flow->count - held);

        if (n <= 0 && n != -EAGAIN) { /* cannot be: they are in it */
            pool_give(move->pool, buffer, flow->count);
            return n < 0 ? n : -EIO;
        }
        held += n > 0 ? (unsigned)n : 0;
    }
    pool_give_pipe(move->pool, flow->pipe);
    flow->pipe = NULL;
    flow->buffer = buffer;
    flow->start = 0;
    flow->size = flow->count;
    return -EAGAIN;
}

static ssize_t send_some(struct move *move)
{
    struct flow *flow = move->flow;
    ssize_t n;

    if (!flow->pipe)
        return asyncore_send(move->out, flow->buffer + flow->start, flow->count);
    n = asyncore_splice(move->out, flow->pipe, flow->count, ASYNCORE_WRITE);
    if (n != -EINVAL && n != -ENOSYS && n != -ENOTSUP)
        return n;
    n = leave_pipe(move);
    return n == -EAGAIN ? asyncore_send(move->out, flow->buffer, flow->count) : n;
}

/* What came of a send. FLOW_DRY: there is more to be sent, or all was. */
static enum flow_state sent_some(struct move *move, ssize_t n)
{
    struct flow *flow = move->flow;

    if (takes_no_more(n))
        return FLOW_STUCK;
    if (n < 0) {
        move->error = (int)n;
        return FLOW_OUT_FAILED;
    }
    flow->start += (unsigned)n;
    flow->count -= (unsigned)n;
    flow->bytes += (uint64_t)n;
    if (flow->count == 0)
        give_back(move);
    else if (!flow->pipe) /* a short send: the socket is full */
        return FLOW_STUCK;
    return FLOW_DRY;
}

enum flow_state flow_flush(struct move *move)
{
    enum flow_state state = FLOW_DRY;

    while (state == FLOW_DRY && move->flow->count > 0)
        state = sent_some(move, send_some(move));
    return state;
}

/* -- Reading -- */

/* What was read is in flight now. */
static void took(struct flow *flow, ssize_t n)
{
    flow->start = 0;
    flow->count = (unsigned)n;
    if (n < BULKY)
        flow->streak /= 2;
    else if (flow->streak < STREAK_MOST)
        flow->streak += (unsigned)n;
}

static ssize_t read_into_buffer(struct move *move, unsigned size)
{
    struct flow *flow = move->flow;
    ssize_t n;

    flow->buffer = pool_take(move->pool, size);
    if (!flow->buffer && size != SMALL_BUFFER) {
        size = SMALL_BUFFER;
        flow->buffer = pool_take(move->pool, size);
    }
    if (!flow->buffer)
        return -ENOMEM;
    flow->size = size;
    n = asyncore_recv(move->in, flow->buffer, size);
    if (n > 0)
        took(flow, n);
    else
        give_back(move);
    return n;
}

/* -ENOTSUP: not this way; recv it. */
static ssize_t read_into_pipe(struct move *move)
{
    struct flow *flow = move->flow;
    ssize_t n;

    flow->pipe = pool_take_pipe(move->pool);
    if (!flow->pipe)
        return -ENOTSUP;
    n = asyncore_splice(move->in, flow->pipe, SPLICE_MOST, ASYNCORE_READ);
    if (n > 0) {
        took(flow, n);
        return n;
    }
    give_back(move);
    if (n != -EINVAL && n != -ENOSYS && n != -ENOTSUP)
        return n;
    flow->no_splice = true;
    return -ENOTSUP;
}

/* Reads once. `reported`: the loop said that there is something, so recv is asked where splice finds nothing. *full:
 * there may be more at hand. */
static ssize_t read_some(struct move *move, bool reported, bool *full)
{
    struct flow *flow = move->flow;
    bool splicing = wants_splice(move);
    ssize_t n = splicing ? read_into_pipe(move) : -ENOTSUP;

    if (n == -EAGAIN && reported) {
        n = read_into_buffer(move, SMALL_BUFFER);
        if (n > 0)
            flow->no_splice = true;
    } else if (n == -ENOTSUP) {
        n = read_into_buffer(move, flow->streak >= GROWN ? LARGE_BUFFER : SMALL_BUFFER);
    } else {
        *full = n >= GO_ON;
        return n;
    }
    *full = n == (ssize_t)flow->size;
    return n;
}

static enum flow_state read_failed(struct move *move, ssize_t n)
{
    if (n == -EAGAIN)
        return FLOW_DRY;
    if (n == 0) {
        move->flow->ended = true;
        return FLOW_ENDED;
    }
    move->error = (int)n;
    return FLOW_IN_FAILED;
}

enum flow_state flow_fill(struct move *move)
{
    ssize_t n = read_into_buffer(move, SMALL_BUFFER);

    return n > 0 ? FLOW_STUCK : read_failed(move, n);
}

/* The way of a message: through the buffer on top of the pool's, which is taken only if something is left over. */
static enum flow_state message(struct move *move, bool *full)
{
    struct flow *flow = move->flow;
    char *buffer = pool_peek(move->pool);
    ssize_t n = buffer ? asyncore_recv(move->in, buffer, SMALL_BUFFER) : -ENOMEM, sent;

    *full = n == SMALL_BUFFER;
    if (n <= 0)
        return read_failed(move, n);
    took(flow, n);
    sent = asyncore_send(move->out, buffer, (size_t)n);
    if (sent == n) {
        flow->count = 0;
        flow->bytes += (uint64_t)n;
        return FLOW_DRY;
    }
    flow->buffer = pool_take(move->pool, SMALL_BUFFER);
    flow->size = SMALL_BUFFER;
    return sent_some(move, sent);
}

static enum flow_state piece(struct move *move, bool *full, bool reported)
{
    ssize_t n = read_some(move, reported, full);

    return n > 0 ? flow_flush(move) : read_failed(move, n);
}

static enum flow_state go_on(struct move *move, bool reported)
{
    uint64_t until = move->flow->bytes + TURN_MOST;
    enum flow_state state;
    bool full;

    do {
        state = piece(move, &full, reported);
        reported = false;
    } while (state == FLOW_DRY && full && move->flow->bytes < until);
    return state;
}

enum flow_state flow_move(struct move *move)
{
    enum flow_state state;
    bool full;

    if (move->flow->streak >= GROWN || move->path == DATA_PATH_SPLICE)
        return go_on(move, true);
    state = message(move, &full);
    return state == FLOW_DRY && full ? go_on(move, false) : state;
}
