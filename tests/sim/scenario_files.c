/* scenario_files.c: bytes through two pipes: a source writes into the first, a relay reads there and writes into the
 * second, a sink reads. All are file_dispatchers of one map. The source ends after its last byte, or the sink goes
 * away early: then EPIPE has to come back the whole way. */
#include "program.h"

enum {
    CHAINS = 4,
    BUFFER = 5000
};

struct node {
    struct asyncore_file_dispatcher file;
    struct chain *chain;
    int error; /* what handle_close or handle_error was told */
    bool closed, ended;
};

struct chain {
    struct run *run;
    struct node source, from, to, sink;
    char name[32];
    uint64_t salt;
    size_t total, sent, received, enough; /* enough: the sink goes away there; 0: never */
    size_t piece, used;
    bool last; /* the relay has read the end */
    char buffer[BUFFER];
};

struct state {
    struct chain chains[CHAINS];
    int count;
};

static struct node *node_of(struct asyncore_dispatcher *d)
{
    return (struct node *)d;
}

static int node_close(struct node *n)
{
    n->closed = true;
    return asyncore_close(&n->file.base);
}

static int handle_close(struct asyncore_dispatcher *d)
{
    struct node *n = node_of(d);

    n->error = asyncore_error(d);
    n->ended = n->error == 0;
    if (n == &n->chain->from && n->ended) { /* what it holds still goes out */
        n->chain->last = true;
        if (n->chain->used == 0)
            node_close(&n->chain->to);
    } else if (n == &n->chain->from) {
        node_close(&n->chain->to);
    } else if (n == &n->chain->to) {
        node_close(&n->chain->from);
    }
    return node_close(n);
}

static void relay_wants(struct chain *c)
{
    if (!c->from.closed)
        asyncore_want(&c->from.file.base, c->used < BUFFER ? ASYNCORE_READ : 0);
    if (!c->to.closed)
        asyncore_want(&c->to.file.base, c->used > 0 ? ASYNCORE_WRITE : ASYNCORE_ERROR);
}

static int source_write(struct asyncore_dispatcher *d)
{
    struct chain *c = node_of(d)->chain;
    char data[BUFFER];
    size_t size = c->total - c->sent < c->piece ? c->total - c->sent : c->piece;
    ssize_t n;

    if (size == 0)
        return node_close(node_of(d));
    stream_fill(c->salt, c->sent, data, size);
    n = asyncore_send(d, data, size);
    if (n > 0)
        c->sent += (size_t)n;
    return (int)n;
}

static int from_read(struct asyncore_dispatcher *d)
{
    struct chain *c = node_of(d)->chain;
    ssize_t n = asyncore_recv(d, c->buffer + c->used, BUFFER - c->used);

    if (n > 0)
        c->used += (size_t)n;
    relay_wants(c);
    return (int)n;
}

static int to_write(struct asyncore_dispatcher *d)
{
    struct chain *c = node_of(d)->chain;
    ssize_t n = asyncore_send(d, c->buffer, c->used);

    if (n < 0)
        return (int)n;
    c->used -= (size_t)n;
    memmove(c->buffer, c->buffer + n, c->used);
    if (c->last && c->used == 0)
        return node_close(&c->to);
    relay_wants(c);
    return 0;
}

static int sink_read(struct asyncore_dispatcher *d)
{
    struct chain *c = node_of(d)->chain;
    char data[BUFFER];
    ssize_t n = asyncore_recv(d, data, c->piece);

    if (n <= 0)
        return (int)n;
    oracle_prefix(c->run, c->name, c->salt, c->received, data, (size_t)n);
    c->received += (size_t)n;
    if (c->enough > 0 && c->received >= c->enough)
        return node_close(node_of(d));
    return 0;
}

static const struct asyncore_class source_class = {
    .name = "source", .handle_write = source_write, .handle_close = handle_close};
static const struct asyncore_class from_class = {
    .name = "from", .handle_read = from_read, .handle_close = handle_close};
static const struct asyncore_class to_class = {.name = "to", .handle_write = to_write, .handle_close = handle_close};
static const struct asyncore_class sink_class = {
    .name = "sink", .handle_read = sink_read, .handle_close = handle_close};

/* Takes fd over, failure included. */
static int node_start(struct chain *c, struct node *n, const struct asyncore_class *cls, int fd, unsigned want)
{
    struct asyncore_map *map = run_map(c->run, "host");
    int error = asyncore_file_dispatcher_init(&n->file, cls, map);

    n->chain = c;
    if (error < 0) {
        asyncore_close_fd(map, fd);
        return error;
    }
    error = asyncore_set_file(&n->file, fd);
    return error < 0 ? error : asyncore_want(&n->file.base, want);
}

static int chain_start(struct run *run, struct chain *c)
{
    int a[2], b[2], errors[4], error = asyncore_sim_pipe(run->world, "host", a);

    if (error == 0 && (error = asyncore_sim_pipe(run->world, "host", b)) < 0) {
        asyncore_close_fd(run_map(run, "host"), a[0]);
        asyncore_close_fd(run_map(run, "host"), a[1]);
    }
    if (error < 0)
        return error;
    errors[0] = node_start(c, &c->source, &source_class, a[1], ASYNCORE_WRITE);
    errors[1] = node_start(c, &c->from, &from_class, a[0], ASYNCORE_READ);
    errors[2] = node_start(c, &c->to, &to_class, b[1], ASYNCORE_ERROR);
    errors[3] = node_start(c, &c->sink, &sink_class, b[0], ASYNCORE_READ);
    for (int i = 0; i < 4; i++)
        if (errors[i] < 0)
            error = errors[i];
    return error;
}

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "host");
    struct random *r = &run->random;
    int error = map != NULL ? 0 : -ENOMEM;

    run->connections = 4 * CHAINS;
    state->count = (int)run_size(run, CHAINS, 2);
    for (int i = 0; i < state->count && error == 0; i++) {
        struct chain *c = &state->chains[i];
        c->run = run;
        snprintf(c->name, sizeof c->name, "chain %d", i);
        c->salt = random_word(r);
        c->total = (size_t)random_scale(r, run_size(run, 0, 3000), run_size(run, 300000, 20000));
        c->piece = random_chance(r, 50) ? BUFFER : (size_t)random_scale(r, run_size(run, 100, 1000), BUFFER);
        c->enough = random_chance(r, 30) ? (size_t)random_in(r, 1, c->total + 1) : 0;
        error = chain_start(run, c);
    }
    return error;
}

static void check(struct run *run)
{
    const struct state *state = run->state;

    for (int i = 0; i < state->count; i++) {
        const struct chain *c = &state->chains[i];
        bool early = c->enough > 0 && c->enough <= c->total;
        oracle_done(run, c->name, c->source.closed && c->from.closed && c->to.closed && c->sink.closed);
        oracle_no_more(run, c->name, c->sent, c->received);
        if (c->sink.ended && c->source.error == 0 && c->from.error == 0 && c->to.error == 0)
            oracle_reported(run, c->name, c->received == c->total);
        if (run->hard)
            continue;
        if (c->sink.ended)
            oracle_end(run, c->name, c->sent == c->total, c->sent, c->received);
        oracle_that(run, early || c->sink.ended, "end", "%s: the sink got no end", c->name);
        oracle_that(run, c->source.error == 0 || (early && c->source.error == -EPIPE), "clean", "%s: the source got %s",
                    c->name, asyncore_strerror(c->source.error));
        oracle_that(run, c->source.error != 0 || c->sent == c->total, "complete", "%s: %zu bytes of %zu written",
                    c->name, c->sent, c->total);
    }
}

const struct scenario scenario_files = {.name = "files", .start = start, .check = check};
