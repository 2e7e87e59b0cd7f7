/* scenario_swarm.c: many channels that change what they want all at once, and nothing else that happens: they connect
 * in one handler, and stop and go on together. Each must get its whole stream all the same. */
#include "program.h"

enum {
    CHANNELS = 16,
    TOGGLES = 6
};

struct bee {
    struct asyncore_dispatcher base;
    uint64_t salt, received;
    bool connected, closed;
    int error;
};

struct state {
    struct run *run;
    struct asyncore_timer begin, toggle;
    struct peer listener, servers[CHANNELS];
    struct bee bees[CHANNELS];
    int count, begun;
    unsigned toggles; /* odd: stopped */
};

static int bee_connect(struct asyncore_dispatcher *d)
{
    ((struct bee *)d)->connected = true;
    return 0;
}

/* The stream's first eight bytes are its salt; a read may end within them. */
static int bee_read(struct asyncore_dispatcher *d)
{
    struct bee *b = (struct bee *)d;
    struct state *state = d->data;
    unsigned char data[4096];
    ssize_t n = asyncore_recv(d, data, b->received < 8 ? (size_t)(8 - b->received) : sizeof data);

    oracle_that(state->run, state->toggles % 2 == 0, "handler", "handle_read of a channel that does not want to");
    if (n > 0 && b->received < 8)
        memcpy((unsigned char *)&b->salt + b->received, data, (size_t)n);
    else if (n > 0)
        oracle_prefix(state->run, "a bee", b->salt, b->received, data, (size_t)n);
    if (n > 0)
        b->received += (size_t)n;
    return (int)n;
}

static int bee_close(struct asyncore_dispatcher *d)
{
    struct bee *b = (struct bee *)d;

    b->closed = true;
    if (b->error == 0)
        b->error = asyncore_error(d);
    return asyncore_close(d);
}

static int bee_error(struct asyncore_dispatcher *d, int error)
{
    ((struct bee *)d)->error = error;
    return bee_close(d);
}

static const struct asyncore_class bee_class = {.name = "bee",
                                                .handle_connect = bee_connect,
                                                .handle_read = bee_read,
                                                .handle_close = bee_close,
                                                .handle_error = bee_error};

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
    for (int i = 0; i < state->begun; i++)
        if (state->bees[i].base.fd >= 0)
            asyncore_want(&state->bees[i].base, state->toggles % 2 ? 0 : ASYNCORE_READ);
    if (state->toggles == 0)
        asyncore_cancel(timer);
}

static struct peer *accepted(struct peer *listener)
{
    struct state *state = listener->owner;

    return listener->accepts < CHANNELS ? &state->servers[listener->accepts] : NULL;
}

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "client");
    struct random *r = &run->random;
    int error = map != NULL ? 0 : -ENOMEM;

    state->run = run;
    state->count = (int)random_in(r, 1, CHANNELS);
    state->listener.owner = state;
    run->connections = CHANNELS;
    run->free_turns = 100;
    peer_listen(&state->listener, peer_host(run, "server"), 80, accepted);
    for (int i = 0; i < CHANNELS; i++) {
        state->servers[i].salt = random_word(r);
        state->servers[i].plan.total = random_scale(r, 8, 40000);
        state->servers[i].plan.end = random_chance(r, 80) ? PEER_SHUTS : PEER_CLOSES;
    }
    if (error == 0)
        error = asyncore_call_later(map, &state->begin, random_in(r, 0, 50), begin, state);
    if (error == 0 && random_chance(r, 60)) {
        state->toggles = 2 * (unsigned)random_in(r, 1, TOGGLES / 2);
        error = asyncore_call_every(map, &state->toggle, random_in(r, 55, 200), toggle, state);
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
        received += b->received;
        sent += state->servers[i].sent;
        if (!run->hard)
            oracle_clean(run, "a bee", b->error);
    }
    oracle_that(run, run->hard || received == sent, "complete", "%llu bytes came of %llu", (unsigned long long)received,
                (unsigned long long)sent);
}

const struct scenario scenario_swarm = {
    .name = "swarm", .separate = true, .start = start, .finish = finish, .check = check};
