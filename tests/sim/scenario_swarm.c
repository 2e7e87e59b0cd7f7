/* scenario_swarm.c: many channels that change what they want all at once, and nothing else that happens: they connect
 * in one handler, and stop and go on together. Each must get its whole stream all the same. Some streams are open to
 * the last and say nothing more, so that nothing but a channel's own bytes moves the loop. */
#include "program.h"
#include "sim.h"

enum {
    CHANNELS = 16,
    TOGGLES = 6,
    LATE = 60000,
    LOOK = 50 /* ms */
};

struct bee {
    struct asyncore_dispatcher base;
    uint64_t salt, received;
    bool stopped, closed, ended, waits; /* waits: bytes were there, and `read_then` of the stream had been read */
    uint64_t read_then;
    int error;
};

struct state {
    struct run *run;
    struct asyncore_timer begin, toggle, late;
    struct peer listener, servers[CHANNELS];
    struct bee bees[CHANNELS];
    int count, begun, busy; /* busy: how many of the streams end by themselves */
    unsigned toggles;       /* odd: stopped */
};

/* The stream's first eight bytes are its salt; a read may end within them. */
static int bee_read(struct asyncore_dispatcher *d)
{
    struct bee *b = (struct bee *)d;
    struct state *state = d->data;
    unsigned char data[4096];
    ssize_t n = asyncore_recv(d, data, b->received < 8 ? (size_t)(8 - b->received) : sizeof data);

    oracle_that(state->run, !b->stopped, "handler", "handle_read of a channel that does not want to");
    if (n > 0 && b->received < 8)
        memcpy((unsigned char *)&b->salt + b->received, data, (size_t)n);
    else if (n > 0)
        oracle_prefix(state->run, "a bee", b->salt, b->received, data, (size_t)n);
    if (n > 0)
        b->received += (size_t)n;
    return (int)n;
}

static void close_all(struct state *state)
{
    asyncore_cancel(&state->late);
    for (int i = 0; i < state->begun; i++) {
        state->bees[i].closed = true;
        asyncore_close(&state->bees[i].base);
    }
}

static void late(struct asyncore_timer *timer, void *arg)
{
    struct state *state = arg;

    (void)timer;
    oracle_that(state->run, state->run->hard, "stuck", "%d streams have not come to an end", state->busy);
    close_all(state);
}

static int bee_close(struct asyncore_dispatcher *d)
{
    struct bee *b = (struct bee *)d;
    struct state *state = d->data;

    b->closed = b->ended = true;
    if (b->error == 0)
        b->error = asyncore_error(d);
    if (--state->busy == 0 && !state->run->hard) /* else one of the silent may have been lost: see late() */
        close_all(state);
    return asyncore_close(d);
}

static int bee_error(struct asyncore_dispatcher *d, int error)
{
    ((struct bee *)d)->error = error;
    return bee_close(d);
}

static const struct asyncore_class bee_class = {
    .name = "bee", .handle_read = bee_read, .handle_close = bee_close, .handle_error = bee_error};

static void begin(struct asyncore_timer *timer, void *arg)
{
    struct state *state = arg;
    int error = 0;

    (void)timer;
    for (int i = 0; i < state->count; i++) {
        struct bee *b = &state->bees[i];
        error = asyncore_dispatcher_init(&b->base, &bee_class, run_map(state->run, "client"));
        b->base.data = state;
        if (error == 0)
            error = asyncore_connect(&b->base, asyncore_sim_address(state->run->world, "server", AF_INET), "80");
        if (error == 0)
            continue;
        oracle_that(state->run, state->run->hard, "clean", "a call cannot begin: %s", asyncore_strerror(error));
        bee_error(&b->base, error);
    }
    state->begun = state->count;
}

/* All of them stop, or go on. The last time they go on, and nothing else comes that would move the loop. */
static void toggle(struct asyncore_timer *timer, void *arg)
{
    struct state *state = arg;

    state->toggles--;
    for (int i = 0; i < state->begun; i++) {
        struct bee *b = &state->bees[i];
        if (!asyncore_connected(&b->base))
            continue;
        b->stopped = state->toggles % 2;
        asyncore_want(&b->base, b->stopped ? 0 : ASYNCORE_READ);
    }
    if (state->toggles == 0)
        asyncore_cancel(timer);
}

/* Bytes that are there are read before the second look at them. */
static void look(struct asyncore_sim *world, void *arg)
{
    struct state *state = arg;
    struct os *os = sim_os(world, "client");
    char byte;
    int open = 0;

    for (int i = 0; i < state->begun; i++) {
        struct bee *b = &state->bees[i];
        bool there = !b->stopped && asyncore_connected(&b->base) && os->recv(b->base.fd, &byte, 1, MSG_PEEK, os) > 0;
        oracle_that(state->run, !there || !b->waits || b->received > b->read_then, "stall",
                    "bee %d has not read for %d ms what is there", i, LOOK);
        b->waits = there;
        b->read_then = b->received;
        open += !b->closed;
    }
    if (open > 0)
        asyncore_sim_at(world, asyncore_sim_now(world) + LOOK * ASYNCORE_SIM_MS, look, state);
}

static struct peer *accepted(struct peer *listener)
{
    struct state *state = listener->owner;

    return listener->accepts < CHANNELS ? &state->servers[listener->accepts] : NULL;
}

static void plan(struct random *r, struct peer_plan *p, bool silent)
{
    p->total = random_in(r, 8, 40000);
    p->end = random_chance(r, 80) ? PEER_SHUTS : PEER_CLOSES;
    p->send_piece = (size_t)random_in(r, 1000, 10000);
    p->send_pause = random_scale(r, 0, 500 * ASYNCORE_SIM_MS);
    if (silent) {
        p->total = random_in(r, 0, 8);
        p->end = PEER_WAITS;
    }
}

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "client");
    struct random *r = &run->random;
    unsigned silent = random_chance(r, 50) ? 95 : (unsigned)random_in(r, 0, 95); /* of a hundred streams */
    int error = map != NULL ? 0 : -ENOMEM;

    state->run = run;
    state->count = (int)random_in(r, 1, CHANNELS);
    state->listener.owner = state;
    run->connections = CHANNELS;
    run->free_turns = 100;
    peer_listen(&state->listener, peer_host(run, "server"), 80, accepted);
    for (int i = 0; i < CHANNELS; i++) {
        state->servers[i].salt = random_word(r);
        plan(r, &state->servers[i].plan, i > 0 && random_chance(r, silent));
        state->busy += i < state->count && state->servers[i].plan.end != PEER_WAITS;
    }
    if (error == 0)
        error = asyncore_call_later(map, &state->begin, random_in(r, 0, 50), begin, state);
    if (!run->hard)
        asyncore_sim_at(run->world, 60 * ASYNCORE_SIM_MS, look, state);
    if (error == 0)
        error = asyncore_call_later(map, &state->late, LATE, late, state);
    if (error == 0 && random_chance(r, 60)) {
        state->toggles = 2 * (unsigned)random_in(r, 1, TOGGLES / 2);
        error = asyncore_call_every(map, &state->toggle, random_in(r, 5, 300), toggle, state);
    }
    return error;
}

static void finish(struct run *run)
{
    peer_close_listener(&((struct state *)run->state)->listener);
}

static void check(struct run *run)
{
    const struct state *state = run->state;
    uint64_t sent = 0, received = 0;

    for (int i = 0; i < state->count; i++) {
        const struct bee *b = &state->bees[i];
        oracle_that(run, b->closed, "stuck", "bee %d did not come to an end", i);
        received += b->ended ? b->received : 0;
        sent += state->servers[i].plan.end != PEER_WAITS ? state->servers[i].sent : 0;
        if (!run->hard)
            oracle_clean(run, "a bee", b->error);
    }
    oracle_that(run, run->hard || received == sent, "complete", "%llu bytes came of %llu", (unsigned long long)received,
                (unsigned long long)sent);
}

const struct scenario scenario_swarm = {
    .name = "swarm", .separate = true, .start = start, .finish = finish, .check = check};
