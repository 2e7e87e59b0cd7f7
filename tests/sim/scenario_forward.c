/* scenario_forward.c: portforward between clients and servers, either of which may be rude: all bytes before an end, an
 * end only where there was one, and a reset never as one.
 *
 * The remote is an address or a name, answers late or not at all, refuses, or cannot be reached. In some worlds it is
 * deaf: everything fills up, until the forwarder reads no more from clients, and then these reset. In some it is hasty:
 * its timeouts are short, so that pairs end before they are done, and then no peer may take that for an end of stream.
 *
 * When everybody should be done the forwarder drains, and its loop must end. */
#include "../../portforward/remote.h"
#include "forwarder.h"
#include "oracle.h"
#include "sides.h"
#include <errno.h>
#include <stdio.h>

enum {
    PAIRS = 8,
    DEAF_BUFFERS = 100 << 10, /* larger ones would take long to fill */
    DEAF = 30,                /* seconds */
    NOTICED = 200,            /* milliseconds: select looks for a mere error every 100 */
    DRAIN = 50 * 60,          /* seconds: everybody has come and gone */
    DRAIN_MS = 60 * 1000
};

enum remote_kind {
    ADDRESS,
    HOSTS_NAME,
    SLOW_NAME,
    SECOND_ADDRESS,
    NO_NAME,
    REFUSES,
    UNREACHABLE,
    SILENT
};

struct forwarding {
    struct forwarder forwarder;
    enum remote_kind remote;
    bool hasty;
    struct sides sides;
    const struct pair *reset[PAIRS]; /* a client's, when that reset */
};

static void plan(struct run *run, struct peer *peer, size_t total)
{
    struct random *r = &run->random;
    struct peer_plan *p = &peer->plan;

    peer->salt = random_word(r);
    p->start = random_in(r, 0, 10 * ASYNCORE_SIM_MS);
    p->total = random_chance(r, 60) ? total : random_chance(r, 20) ? 0 : random_scale(r, 8, 2 * total);
    p->end = random_chance(r, 80) ? PEER_SHUTS : (enum peer_end)random_in(r, PEER_CLOSES, PEER_RESETS);
    if (random_chance(r, 20))
        p->send_piece = (size_t)random_scale(r, 64, PEER_BUFFER);
    if (p->send_piece >= 256 && random_chance(r, 50))
        p->send_pause = random_scale(r, 1000, 2 * ASYNCORE_SIM_MS);
    if (random_chance(r, 20))
        p->end_pause = random_scale(r, 1000, ASYNCORE_SIM_SECOND);
    if (random_chance(r, 20))
        p->read_start = random_in(r, 0, ASYNCORE_SIM_SECOND);
    peer_plan_reading(p, r, total);
}

static const char *draw_remote(struct run *run, struct forwarding *state)
{
    struct random *r = &run->random;
    uint64_t delay = random_scale(r, 1000, 20 * ASYNCORE_SIM_SECOND);
    const char *server = asyncore_sim_address(run->world, "server", AF_INET);
    struct asyncore_sim_link link = run->options.link;
    char both[64];

    state->remote =
        random_chance(r, 60) || run->config->full ? ADDRESS : (enum remote_kind)random_in(r, HOSTS_NAME, SILENT);
    if (state->remote == HOSTS_NAME)
        return "server";
    if (state->remote == SLOW_NAME || state->remote == NO_NAME)
        asyncore_sim_set_name(run->world, "remote.test", state->remote == NO_NAME ? NULL : server, 60, delay,
                              ASYNCORE_ENONAME);
    if (state->remote == SECOND_ADDRESS) {
        snprintf(both, sizeof both, "%s,%s", asyncore_sim_address(run->world, "other", AF_INET), server);
        asyncore_sim_set_name(run->world, "remote.test", both, 60, delay, 0);
    }
    if (state->remote == UNREACHABLE || state->remote == SILENT) {
        link.down = state->remote == SILENT ? -ETIMEDOUT : -EHOSTUNREACH;
        asyncore_sim_set_link(run->world, "forward", "server", &link);
    }
    return state->remote == SLOW_NAME || state->remote == NO_NAME || state->remote == SECOND_ADDRESS ? "remote.test"
                                                                                                     : server;
}

/* -- Deaf remotes -- */

static void check_noticed(struct asyncore_sim *world, void *arg)
{
    struct side *client = arg;
    struct run *run = peer_run(&client->peer);
    struct forwarding *state = run->state;

    (void)world;
    oracle_that(run, !forwarder_has(&state->forwarder, state->reset[client - state->sides.clients]), "deaf",
                "the reset of %s is not noticed", client->peer.name);
}

static void reset_client(struct asyncore_sim *world, void *arg)
{
    struct side *client = arg;
    struct run *run = peer_run(&client->peer);
    struct forwarding *state = run->state;
    const struct asyncore_sim_link *link = &run->options.link;
    const struct visit *visit = forwarder_visit(&state->forwarder, &client->own);

    state->reset[client - state->sides.clients] = visit != NULL ? visit->pair : NULL;
    peer_end(&client->peer, PEER_RESETS);
    if (visit != NULL && visit->pair != NULL && !run->hard && run->options.chances[ASYNCORE_SIM_LINGER] == 0)
        asyncore_sim_at(world, run_now(run) + NOTICED * ASYNCORE_SIM_MS + link->delay + link->jitter, check_noticed,
                        client);
}

static void plan_deaf(struct run *run, struct forwarding *state)
{
    size_t buffers = run->options.send_buffer + run->options.receive_buffer;

    for (int i = 0; i < PAIRS; i++) {
        state->sides.servers[i].peer.plan.read_start = DEAF * ASYNCORE_SIM_SECOND;
        state->sides.clients[i].peer.plan = (struct peer_plan){.total = 2 * buffers + (256 << 10), .end = PEER_RESETS};
        asyncore_sim_at(run->world, random_in(&run->random, 2, 8) * ASYNCORE_SIM_SECOND, reset_client,
                        &state->sides.clients[i]);
    }
}

/* -- The forwarder -- */

static void rule_text(struct run *run, struct forwarding *state, char *text, size_t size)
{
    static const char *const paths[] = {"auto", "copy", "splice"};
    struct random *r = &run->random;
    const char *remote = draw_remote(run, state), *path = paths[random_in(r, 0, 2)];

    state->hasty = !run->config->full && random_chance(r, 10);
    if (!state->hasty)
        snprintf(text, size, "* 8080 %s 80 [connect=off,idle=off,half=off,data-path=%s]", remote, path);
    else
        snprintf(text, size, "* 8080 %s 80 [connect=%ums,idle=%ums,half=%ums,life=%ums,keepalive=2s,data-path=%s]",
                 remote, (unsigned)random_scale(r, 1, 2000), (unsigned)random_scale(r, 1, 2000),
                 (unsigned)random_scale(r, 1, 2000), (unsigned)random_scale(r, 1, 4000), path);
}

static void begin_forwarder(struct run *run, struct forwarding *state, char *text, size_t size)
{
    /* With several addresses: a server's reset may come before the forwarder has seen that it is connected, and then it
     * tries the next. */
    static const unsigned reasons[] = {
        [ADDRESS] = MAY_BE_CLOSED,
        [HOSTS_NAME] = MAY_BE_CLOSED | MAY_BE_REFUSED,
        [SLOW_NAME] = MAY_BE_CLOSED,
        [SECOND_ADDRESS] = MAY_BE_CLOSED | MAY_BE_REFUSED,
        [NO_NAME] = MAY_BE_NAMELESS,
        [REFUSES] = MAY_BE_REFUSED,
        [UNREACHABLE] = MAY_FAIL,
        [SILENT] = MAY_TIME_OUT,
    };

    rule_text(run, state, text, size);
    state->forwarder.run = run;
    state->forwarder.max = 1000;
    state->forwarder.reasons = MAY_BE_RESET | (state->hasty ? MAY_TIME_OUT : 0) | reasons[state->remote];
}

static void drain(struct asyncore_sim *world, void *arg)
{
    struct run *run = arg;
    struct forwarding *state = run->state;

    (void)world;
    oracle_that(run, forwarder_pairs(&state->forwarder) == 0 || oracle_excused(run), "stuck",
                "a pair is left in the forwarder");
    forwarder_look(&state->forwarder);
    forwarder_drain(&state->forwarder, DRAIN_MS);
}

static void start_peers(struct run *run, size_t total)
{
    struct forwarding *state = run->state;
    struct peer_host *clients = peer_host(run, "client");
    char name[32];

    for (int i = 0; i < state->sides.count; i++) {
        plan(run, &state->sides.clients[i].peer, total);
        plan(run, &state->sides.servers[i].peer, total);
        if (random_chance(&run->random, 30)) /* one that needs the client's end to go on */
            state->sides.servers[i].peer.plan.end = PEER_WAITS;
        snprintf(name, sizeof name, "client %d", i);
        peer_connect(&state->sides.clients[i].peer, clients, name, asyncore_sim_address(run->world, "forward", AF_INET),
                     8080);
    }
    for (int i = 0; run->config->full && i < PAIRS; i++) {
        peer_plan_full(&state->sides.clients[i].peer.plan);
        peer_plan_full(&state->sides.servers[i].peer.plan);
    }
}

static int start(struct run *run)
{
    struct forwarding *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "forward");
    size_t total;
    char text[256];
    int error = -ENOMEM;

    peer_host(run, "server");
    total = (size_t)run_size(run, random_chance(&run->random, 1) ? 1 << 20 : 64 << 10, 6000);
    if (map != NULL) {
        begin_forwarder(run, state, text, sizeof text);
        error = forwarder_start(&state->forwarder, map, (const char *const[]){text, NULL});
    }
    if (error < 0) {
        forwarder_free(&state->forwarder);
        return error;
    }
    sides_begin(run, &state->sides, (int)run_size(run, PAIRS, 2));
    run->connections = 2 * PAIRS;
    run->free_turns = 2 * DRAIN / RETRY_FAILED + 100; /* timers, and names that are looked up again and again */
    start_peers(run, total);
    if (!run->config->full && !state->hasty && state->remote <= HOSTS_NAME &&
        run->options.send_buffer + run->options.receive_buffer <= DEAF_BUFFERS && random_chance(&run->random, 8))
        plan_deaf(run, state);
    if (state->remote != REFUSES)
        sides_listen(run, &state->sides, "server", 80);
    asyncore_sim_at(run->world, DRAIN * ASYNCORE_SIM_SECOND, drain, run);
    return 0;
}

static void finish(struct run *run)
{
    struct forwarding *state = run->state;

    forwarder_free(&state->forwarder);
    peer_close_listener(&state->sides.listener);
}

static void check_side(struct run *run, const struct side *side)
{
    const struct forwarding *state = run->state;

    side_check(run, side);
    if (!run->hard && !state->hasty && side_polite(side) && side->from != NULL && side_polite(side->from))
        side_check_whole(run, side);
}

/* There is no remote: every client is told so by a reset. */
static void check_refused(struct run *run, const struct peer *client, bool polite)
{
    if (client->got_end)
        oracle_reported(run, client->name, false);
    if (run_scripted(run, ASYNCORE_SIM_SETSOCKOPT))
        return;
    oracle_that(run, !client->got_end, "end", "%s got an end of stream, and there is no remote", client->name);
    oracle_that(run, !polite || client->error != 0, "end", "%s was not told that there is no remote", client->name);
}

static void check(struct run *run)
{
    struct forwarding *state = run->state;
    size_t polite = 0;

    for (int i = 0; i < state->sides.count; i++) {
        const struct side *client = &state->sides.clients[i];
        check_side(run, client);
        check_side(run, &state->sides.servers[i]);
        polite += side_polite(client);
        if (state->remote >= NO_NAME)
            check_refused(run, &client->peer, side_polite(client));
    }
    if (!run->hard && !state->hasty && state->remote < NO_NAME)
        oracle_that(run, state->sides.listener.accepts >= polite, "served", "%zu servers are asked by %zu clients",
                    state->sides.listener.accepts, polite);
    forwarder_check(&state->forwarder);
}

const struct scenario scenario_forward = {
    .name = "forward", .separate = true, .in_pairs = true, .start = start, .finish = finish, .check = check};
