/* scenario_idle.c: a server that throws out who is idle for longer than a limit of its own. Guests that only send, or
 * are only sent to, are active and must stay; the silent are thrown out in time, and not before; the others leave on
 * their own while the time limit runs. A stream's first byte says which its guest is. */
#include "program.h"

enum {
    GUESTS = 8
};

enum manner {
    TALKS,
    LISTENS,
    SILENT,
    LEAVES,
    MANNERS
};

struct guest {
    struct asyncore_dispatcher_with_send base;
    struct run *run;
    struct asyncore_timer every; /* for who listens */
    uint64_t limit, last;        /* ns; the last byte either way */
    bool known, thrown_out;
    enum manner manner;
};

struct state {
    struct asyncore_dispatcher server;
    struct peer clients[GUESTS];
    enum manner manners[GUESTS];
    uint64_t limit; /* ms */
    size_t thrown_out;
};

static struct state *the;

static void say(struct asyncore_timer *timer, void *arg)
{
    struct guest *g = arg;
    size_t before = asyncore_queued(&g->base);

    (void)timer;
    if (asyncore_send(&g->base.base, "!", 1) >= 0 && asyncore_queued(&g->base) <= before)
        g->last = asyncore_now(g->base.base.map);
}

static int guest_read(struct asyncore_dispatcher *d)
{
    struct guest *g = (struct guest *)d;
    unsigned char data[512];
    ssize_t n = asyncore_recv(d, data, sizeof data);

    if (n <= 0)
        return (int)n;
    g->last = asyncore_now(d->map);
    if (!g->known) {
        g->known = true;
        g->manner = (enum manner)(data[0] % MANNERS);
        if (g->manner == LISTENS)
            return asyncore_call_every(d->map, &g->every, the->limit * 6 / 10, say, g);
    }
    return 0;
}

/* Then it may come from a call, at any time. */
static bool script_says(const struct run *run, int error)
{
    for (size_t i = 0; i < run->config->script_count; i++)
        if (run->config->script[i].error == error)
            return true;
    return false;
}

static int guest_error(struct asyncore_dispatcher *d, int error)
{
    struct guest *g = (struct guest *)d;
    uint64_t slack = ASYNCORE_SIM_MS + 2000 * g->run->options.call_ns;

    if (error != -ETIMEDOUT || script_says(g->run, -ETIMEDOUT))
        return asyncore_close(d);
    oracle_that(g->run, g->run->hard || !g->known || g->manner > LISTENS, "idle", "a guest that %s is thrown out",
                g->manner == TALKS ? "talks" : "listens");
    oracle_due(g->run, "an idle timeout", asyncore_now(d->map), g->last + g->limit, slack);
    g->thrown_out = true;
    the->thrown_out++;
    return asyncore_close(d);
}

static void guest_destroy(struct asyncore_dispatcher *d)
{
    asyncore_cancel(&((struct guest *)d)->every);
    free(d);
}

static const struct asyncore_class guest_class = {
    .name = "guest", .handle_read = guest_read, .handle_error = guest_error, .destroy = guest_destroy};

static int server_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct guest *g = calloc(1, sizeof *g);
    int error = g != NULL ? asyncore_dispatcher_with_send_init(&g->base, &guest_class, d->map) : -ENOMEM;

    (void)address, (void)length;
    if (error < 0) {
        free(g);
        asyncore_close_fd(d->map, fd);
        return error;
    }
    g->run = d->data;
    g->limit = the->limit * ASYNCORE_SIM_MS;
    g->last = asyncore_now(d->map);
    asyncore_timer_set_background(&g->every, 1);
    error = asyncore_set_socket(&g->base.base, fd);
    if (error == 0)
        error = asyncore_set_idle_timeout(&g->base.base, (unsigned)the->limit);
    if (error < 0)
        asyncore_close(&g->base.base);
    return error;
}

static const struct asyncore_class server_class = {.name = "server", .handle_accepted = server_accepted};

static void plan(struct run *run, struct peer *peer, enum manner manner)
{
    struct random *r = &run->random;
    struct peer_plan *p = &peer->plan;
    uint64_t limit = the->limit * ASYNCORE_SIM_MS;

    peer->salt = (random_word(r) & ~UINT64_C(0xFF)) | manner;
    p->start = random_in(r, 0, 10 * ASYNCORE_SIM_MS);
    p->end = PEER_WAITS;
    p->total = random_in(r, 1, 10);
    if (manner == TALKS) {
        p->send_piece = (size_t)random_in(r, 1, 100);
        p->send_pause = random_in(r, limit / 10, limit * 7 / 10);
        p->total = p->send_piece * (4 * limit / p->send_pause);
        p->end = PEER_SHUTS;
    } else if (manner == LISTENS) {
        p->enough = random_in(r, 3, 8);
        p->enough_end = (enum peer_end)random_in(r, PEER_CLOSES, PEER_RESETS);
    } else if (manner == LEAVES) {
        p->end = (enum peer_end)random_in(r, PEER_CLOSES, PEER_RESETS);
        p->end_pause = random_in(r, 0, limit / 2);
    }
}

static int start(struct run *run)
{
    struct state *state = the = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "server");
    int error = map != NULL ? asyncore_dispatcher_init(&state->server, &server_class, map) : -ENOMEM;
    char name[32];

    state->server.data = run;
    state->limit = random_in(&run->random, 1000, 5000);
    if (error == 0)
        error = asyncore_create_socket(&state->server, AF_INET, SOCK_STREAM);
    if (error == 0)
        error = asyncore_bind(&state->server, "*", "9");
    if (error == 0)
        error = asyncore_listen(&state->server, GUESTS);
    if (error < 0)
        return error;
    run->connections = GUESTS;
    run->free_turns = 1000;
    for (int i = 0; i < GUESTS; i++) {
        state->manners[i] = (enum manner)random_in(&run->random, 0, MANNERS - 1);
        plan(run, &state->clients[i], state->manners[i]);
        snprintf(name, sizeof name, "guest %d", i);
        peer_connect(&state->clients[i], peer_host(run, "client"), name,
                     asyncore_sim_address(run->world, "server", AF_INET), 9);
    }
    return 0;
}

static void finish(struct run *run)
{
    struct state *state = run->state;

    oracle_listens(run, &state->server);
    asyncore_fini(&state->server);
}

static void check(struct run *run)
{
    const struct state *state = run->state;
    size_t silent = 0;

    for (int i = 0; i < GUESTS; i++) {
        const struct peer *peer = &state->clients[i];
        silent += state->manners[i] == SILENT;
        oracle_done(run, peer->name, peer->state == PEER_DONE);
        if (run->hard || state->manners[i] == LEAVES)
            continue;
        oracle_clean(run, peer->name, peer->error);
        if (state->manners[i] == TALKS)
            oracle_complete(run, peer->name, peer->plan.total, peer->sent);
        if (state->manners[i] == LISTENS)
            oracle_that(run, peer->received >= peer->plan.enough, "complete", "%s was sent %llu bytes", peer->name,
                        (unsigned long long)peer->received);
    }
    oracle_that(run, run->hard || state->thrown_out == silent, "idle", "%zu guests thrown out of %zu silent ones",
                state->thrown_out, silent);
}

const struct scenario scenario_idle = {
    .name = "idle", .separate = true, .start = start, .finish = finish, .check = check};
