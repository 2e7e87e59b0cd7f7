/* scenario_rules.c: portforward's rules: limits, timeouts, remotes of which the first does not answer, names that
 * change, reloads, drains while clients come, and few descriptors. What is true of it at every moment is watched by forwarder.c; here
 * each client has to be served, if nothing in its world speaks against that.
 *
 * Some clients come over a second rule, which forwards to a Unix socket of the forwarder's own, where a third takes
 * them to the servers: a Unix socket knows no reset, so what failed may look ended to them. */
#include "../../portforward/remote.h"
#include "forwarder.h"
#include "oracle.h"
#include "sides.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    CLIENTS = 16,
    LINES = 6,
    LINE_SIZE = 320,
    RELOADS = 3,
    WINDOW = 40, /* seconds in which clients come */
    LATE = 600,  /* seconds: everybody has come and gone */
    LATE_SMALL = 80,
    BUSY = 10, /* ms before a drain in which nobody is accepted */
    HOP_PORT = 8081
};

enum remote_kind {
    ONE,
    AFTER_REFUSING,
    AFTER_UNREACHABLE,
    AFTER_SILENT,
    MOVES, /* a name whose address is wrong at first */
    LOST   /* a name that will not be found any more */
};

struct rules_text {
    char text[LINES][LINE_SIZE];
    const char *lines[LINES + 1];
    int count;
};

struct reload {
    struct rules_text rules;
    bool wrong; /* one of its rules cannot listen */
    struct run *run;
};

struct state {
    struct forwarder forwarder;
    struct sides sides;
    bool hops[CLIENTS]; /* clients of the second rule */
    enum remote_kind remote;
    char remotes[64];
    uint64_t connect, resolved; /* ms; when a name is right at the latest */
    uint64_t window, drain_at;
    bool hop, hop_goes, hop_narrow;
    bool hasty, refuses, early, scarce;
    struct rules_text first;
    struct reload reloads[RELOADS];
    int reload_count;
};

/* -- Remotes -- */

static void name_moves(struct asyncore_sim *world, void *arg)
{
    struct run *run = arg;
    const struct state *state = run->state;
    const char *server = asyncore_sim_address(world, "server", AF_INET);

    asyncore_sim_set_name(world, "remote.test", state->remote == MOVES ? server : NULL, 5, 10 * ASYNCORE_SIM_MS,
                          ASYNCORE_ENONAME);
}

static void draw_name(struct run *run, struct state *state, const char *server, const char *other)
{
    uint64_t delay = random_scale(&run->random, 1000, ASYNCORE_SIM_SECOND);
    uint64_t moves_at = 2 * delay + random_in(&run->random, ASYNCORE_SIM_MS, state->window / 2);
    uint32_t ttl = (uint32_t)random_in(&run->random, 1, 10);

    asyncore_sim_set_name(run->world, "remote.test", state->remote == MOVES ? other : server, ttl, delay, 0);
    asyncore_sim_at(run->world, moves_at, name_moves, run);
    snprintf(state->remotes, sizeof state->remotes, "remote.test");
    state->resolved = moves_at + delay + (10 + 2) * ASYNCORE_SIM_SECOND;
}

static void draw_remotes(struct run *run, struct state *state)
{
    struct random *r = &run->random;
    const char *server = asyncore_sim_address(run->world, "server", AF_INET);
    const char *other = asyncore_sim_address(run->world, "other", AF_INET);
    struct asyncore_sim_link link = run->options.link;

    state->remote = random_chance(r, 50) ? ONE : (enum remote_kind)random_in(r, AFTER_REFUSING, LOST);
    state->connect = random_in(r, 2000, 8000);
    if (state->remote >= MOVES)
        draw_name(run, state, server, other);
    else
        snprintf(state->remotes, sizeof state->remotes, "%s%s%s", state->remote == ONE ? "" : other,
                 state->remote == ONE ? "" : ",", server);
    if (state->remote == AFTER_UNREACHABLE || state->remote == AFTER_SILENT) {
        link.down = state->remote == AFTER_SILENT ? -ETIMEDOUT : -EHOSTUNREACH;
        asyncore_sim_set_link(run->world, "forward", "other", &link);
    }
}

/* -- Rules -- */

static size_t add_time(struct random *r, const char *name, uint64_t most, char *text, size_t size)
{
    return random_chance(r, 40) ? (size_t)snprintf(text, size, ",%s=%ums", name, (unsigned)random_scale(r, 20, most))
                                : 0;
}

static void draw_options(struct run *run, struct state *state, char *text, size_t size)
{
    static const char *const paths[] = {"auto", "copy", "splice"};
    struct random *r = &run->random;
    bool hasty = random_chance(r, 25), refuses = random_chance(r, 30);
    size_t n = 0;

    state->hasty |= hasty;
    n = (size_t)snprintf(text, size, "connect=%ums,data-path=%s",
                         (unsigned)(hasty ? random_scale(r, 20, 5000) : state->connect), paths[random_in(r, 0, 2)]);
    if (hasty) {
        n += add_time(r, "idle", 5000, text + n, size - n);
        n += add_time(r, "half", 5000, text + n, size - n);
        n += add_time(r, "life", 20000, text + n, size - n);
    }
    if (random_chance(r, 30))
        n += (size_t)snprintf(text + n, size - n, ",max=%u", (unsigned)random_in(r, 1, 4));
    if (random_chance(r, 20))
        n += (size_t)snprintf(text + n, size - n, ",rate=%u", (unsigned)random_scale(r, 1, 20));
    if (random_chance(r, 20))
        n += (size_t)snprintf(text + n, size - n, ",keepalive=%us", (unsigned)random_in(r, 1, 4));
    if (refuses)
        n += (size_t)snprintf(text + n, size - n, ",full=refuse");
    if (random_chance(r, 12)) {
        n += (size_t)snprintf(text + n, size - n, ",max-per-source=%u", (unsigned)random_in(r, 1, 3));
        refuses = true;
    }
    state->refuses |= refuses;
}

static char *line_of(struct rules_text *rules)
{
    char *line = rules->text[rules->count];

    rules->lines[rules->count++] = line;
    return line;
}

static void draw_rules(struct run *run, struct state *state, bool hop, bool wrong, struct rules_text *rules)
{
    char options[200];

    if (state->forwarder.denied != NULL)
        snprintf(line_of(rules), LINE_SIZE, "deny %s", state->forwarder.denied);
    draw_options(run, state, options, sizeof options);
    snprintf(line_of(rules), LINE_SIZE, "%s 8080 %s 80 [%s]", random_chance(&run->random, 70) ? "*" : "0.0.0.0",
             state->remotes, options);
    if (hop) {
        snprintf(line_of(rules), LINE_SIZE, "0.0.0.0 8081 unix:@hop -");
        snprintf(line_of(rules), LINE_SIZE, "unix:@hop - %s 80 [connect=%ums%s]", state->remotes,
                 (unsigned)state->connect, state->hop_narrow ? ",max=2,backlog=1" : "");
    }
    if (wrong)
        snprintf(line_of(rules), LINE_SIZE, "10.99.0.1 8082 %s 80", state->remotes);
}

/* -- What happens meanwhile -- */

static struct state *state_of(const struct run *run)
{
    return run->state;
}

static void reload(struct asyncore_sim *world, void *arg)
{
    struct reload *reload = arg;
    struct run *run = reload->run;
    struct forwarder *f = &state_of(run)->forwarder;
    bool should = !reload->wrong && f->drain_at == 0, taken;

    (void)world;
    taken = forwarder_apply(f, reload->rules.lines);
    oracle_that(run, taken == should || ((run->hard || state_of(run)->scarce) && !taken), "reload", "new rules are %s",
                taken ? "taken, and cannot be" : "not taken");
}

static void draw_reloads(struct run *run, struct state *state)
{
    struct random *r = &run->random;

    state->reload_count = random_chance(r, 50) ? (int)random_in(r, 1, run_size(run, RELOADS, 1)) : 0;
    for (int i = 0; i < state->reload_count; i++) {
        struct reload *one = &state->reloads[i];
        bool hop = state->hop && random_chance(r, 75);
        one->run = run;
        one->wrong = random_chance(r, 25);
        state->hop_goes |= state->hop && !hop;
        draw_rules(run, state, hop, one->wrong, &one->rules);
        asyncore_sim_at(run->world, random_in(r, 0, state->window), reload, one);
    }
}

static void look(struct asyncore_sim *world, void *arg)
{
    struct run *run = arg;

    (void)world;
    forwarder_look(&state_of(run)->forwarder);
}

static void pause(struct asyncore_sim *world, void *arg)
{
    look(world, arg);
    forwarder_pause(&state_of(arg)->forwarder);
}

static void drain(struct asyncore_sim *world, void *arg)
{
    struct run *run = arg;
    struct state *state = run->state;
    struct random *r = &run->random;
    bool again = state->forwarder.drain_at != 0;

    if (!state->early)
        look(world, arg);
    forwarder_drain(&state->forwarder, random_chance(r, 20) ? 0 : (unsigned)random_scale(r, 1, 20000));
    if (!again && random_chance(r, 30))
        asyncore_sim_at(world, run_now(run) + random_scale(r, 1, 5 * ASYNCORE_SIM_SECOND), drain, run);
}

static void draw_drain(struct run *run, struct state *state)
{
    state->early = random_chance(&run->random, 30);
    state->drain_at = run_size(run, LATE, LATE_SMALL) * ASYNCORE_SIM_SECOND;
    if (state->early) {
        state->drain_at = random_in(&run->random, 2 * BUSY * ASYNCORE_SIM_MS, state->window);
        asyncore_sim_at(run->world, state->drain_at - BUSY * ASYNCORE_SIM_MS, pause, run);
    } else {
        asyncore_sim_at(run->world, random_in(&run->random, 0, state->window), look, run);
    }
    asyncore_sim_at(run->world, state->drain_at, drain, run);
}

/* -- Clients and servers -- */

static void plan_client(struct run *run, const struct state *state, struct peer *peer, bool burst)
{
    struct random *r = &run->random;
    struct peer_plan *p = &peer->plan;

    p->start = random_in(r, 0, burst ? 10 * ASYNCORE_SIM_MS : state->window);
    if (state->early && random_chance(r, 50))
        p->start = state->drain_at - random_in(r, 0, 2 * BUSY * ASYNCORE_SIM_MS);
    p->total = random_scale(r, 0, 6000);
    p->end = random_chance(r, 90) ? PEER_SHUTS : (enum peer_end)random_in(r, PEER_CLOSES, PEER_RESETS);
    if (random_chance(r, 50))
        p->end_pause = random_scale(r, ASYNCORE_SIM_MS, 20 * ASYNCORE_SIM_SECOND);
    if (random_chance(r, 20))
        p->send_piece = (size_t)random_in(r, 1000, 3000);
    if (p->send_piece > 0)
        p->send_pause = random_scale(r, ASYNCORE_SIM_MS, 2 * ASYNCORE_SIM_SECOND);
}

/* It sends enough to be known by. One that resets was connected for long before. */
static void plan_server(struct run *run, struct peer *peer)
{
    struct random *r = &run->random;
    struct peer_plan *p = &peer->plan;

    p->total = random_scale(r, 8, 4000);
    p->end = random_chance(r, 60) ? PEER_SHUTS : random_chance(r, 80) ? PEER_WAITS : PEER_RESETS;
    if (random_chance(r, 30))
        p->end_pause = random_scale(r, ASYNCORE_SIM_MS, 10 * ASYNCORE_SIM_SECOND);
    if (p->end == PEER_RESETS)
        p->end_pause += ASYNCORE_SIM_SECOND;
}

static void start_peers(struct run *run, struct state *state)
{
    struct random *r = &run->random;
    const char *forward = asyncore_sim_address(run->world, "forward", AF_INET);
    bool burst = random_chance(r, 40);
    char name[32];

    sides_begin(run, &state->sides, (int)run_size(run, CLIENTS, 3));
    for (int i = 0; i < state->sides.count; i++) {
        struct peer *client = &state->sides.clients[i].peer, *server = &state->sides.servers[i].peer;
        client->salt = random_word(r);
        server->salt = random_word(r);
        plan_client(run, state, client, burst);
        plan_server(run, server);
        if (i > 0 && random_chance(r, 10)) /* as the one before hears that its remote refuses */
            client->plan.start = state->sides.clients[i - 1].peer.plan.start + 2 * run->options.link.delay;
        state->hops[i] = state->hop && random_chance(r, 40);
        snprintf(name, sizeof name, "client %d", i);
        peer_connect(client, peer_host(run, random_chance(r, 75) ? "client" : "guest"), name, forward,
                     state->hops[i] ? HOP_PORT : 8080);
    }
    sides_listen(run, &state->sides, "server", 80);
}

/* -- A run -- */

static void draw(struct run *run, struct state *state)
{
    struct random *r = &run->random;
    struct forwarder *f = &state->forwarder;

    state->window = run_size(run, WINDOW, 2) * ASYNCORE_SIM_SECOND;
    state->hop = random_chance(r, 30);
    state->hop_narrow = state->hop && random_chance(r, 30);
    f->run = run;
    f->max = random_chance(r, 12) && !state->hop ? (unsigned)random_in(r, 1, 6) : 1000;
    f->denied = random_chance(r, 15) ? asyncore_sim_address(run->world, "guest", AF_INET) : NULL;
    draw_remotes(run, state);
    draw_rules(run, state, state->hop, false, &state->first);
    draw_reloads(run, state);
    draw_drain(run, state);
    state->scarce = random_chance(r, 12) && !run->config->quiet; /* some engines take a descriptor more */
    f->reasons = MAY_BE_CLOSED | MAY_BE_RESET | (state->scarce ? MAY_LACK : 0);
    if (state->hasty || state->hop_narrow || (state->hop && state->scarce)) /* each waits for the other's descriptors */
        f->reasons |= MAY_TIME_OUT;
    if (state->remote == MOVES || (state->hop && (state->hop_goes || state->early)))
        f->reasons |= MAY_BE_REFUSED;
    if (state->hasty) /* the server may have had too little time, and the other is tried after it */
        f->reasons |= state->remote == AFTER_REFUSING ? MAY_BE_REFUSED : MAY_FAIL;
    if (state->remote >= MOVES && state->early) /* it is not found yet */
        f->reasons |= MAY_BE_NAMELESS;
}

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "forward");
    int error = -ENOMEM;

    if (map != NULL) {
        draw(run, state);
        error = forwarder_start(&state->forwarder, map, state->first.lines);
    }
    if (error < 0) {
        forwarder_free(&state->forwarder);
        return error;
    }
    if (state->scarce)
        asyncore_sim_set_descriptors(run->world, "forward", (unsigned)random_in(&run->random, 8, 20));
    run->connections = 4 * CLIENTS;
    run->free_turns = 4 * LATE / RETRY_FAILED + 200; /* lookups, tokens, reports */
    start_peers(run, state);
    return 0;
}

static void finish(struct run *run)
{
    struct state *state = run->state;

    forwarder_free(&state->forwarder);
    peer_close_listener(&state->sides.listener);
}

/* What failed behind a Unix socket looks ended before it. */
static bool over_hop(const struct state *state, const struct side *side)
{
    const struct side *clients = state->sides.clients;

    if (side >= clients && side < clients + state->sides.count)
        return state->hops[side - clients];
    return side->from != NULL && state->hops[side->from - clients];
}

static void check_side(struct run *run, const struct state *state, const struct side *side)
{
    bool whole = side->from != NULL && side_polite(side) && side_polite(side->from) && !run->hard && !state->scarce &&
                 !state->hasty && !state->early && !(over_hop(state, side) && (state->hop_goes || state->hop_narrow));

    if (!over_hop(state, side) || whole)
        side_check(run, side);
    else
        oracle_done(run, side->peer.name, side->peer.state == PEER_DONE || side->peer.state == PEER_PLANNED);
    if (whole)
        side_check_whole(run, side);
}

/* Nothing in its world is against the client. */
static bool to_be_served(const struct run *run, const struct state *state, const struct side *client, bool hop)
{
    char text[64];
    size_t n;

    if (run->hard || state->scarce || !side_polite(client) || state->hasty || state->refuses || state->early ||
        (hop && (state->hop_goes || state->hop_narrow)))
        return false;
    if (state->remote == MOVES && client->peer.plan.start < state->resolved)
        return false;
    asyncore_address_text((const struct sockaddr *)&client->own, sizeof client->own, text, sizeof text);
    n = state->forwarder.denied != NULL ? strlen(state->forwarder.denied) : 0;
    return n == 0 || strncmp(text, state->forwarder.denied, n) != 0 || text[n] != ':';
}

/* Each client whose connection stood when the forwarder stopped listening was at least looked at. */
static bool to_be_seen(const struct run *run, const struct state *state, const struct side *client, bool hop)
{
    const unsigned *chances = run->options.chances;
    uint64_t way = run->options.link.delay + run->options.link.jitter;

    return !run->hard && !state->scarce && client->peer.opened > 0 && !(hop && state->hop_goes) &&
           chances[ASYNCORE_SIM_EAGAIN] == 0 && chances[ASYNCORE_SIM_EINTR] == 0 &&
           client->peer.opened + 2 * way + ASYNCORE_SIM_MS < state->drain_at;
}

static void check_client(struct run *run, const struct state *state, const struct side *client, bool hop)
{
    const struct visit *visit = client->peer.opened > 0 ? forwarder_visit(&state->forwarder, &client->own) : NULL;

    if (to_be_seen(run, state, client, hop))
        oracle_that(run, visit != NULL, "unseen", "%s was connected, and nobody accepted it", client->peer.name);
    if (visit == NULL || visit->opened == 0) /* it is told so, and not by an end */
        oracle_that(run, !client->peer.got_end || run_scripted(run, ASYNCORE_SIM_SETSOCKOPT), "end",
                    "%s got an end of stream from nobody", client->peer.name);
    if (to_be_served(run, state, client, hop))
        oracle_that(run, visit != NULL && !visit->refused && visit->opened > 0, "served", "%s is not served",
                    client->peer.name);
}

/* Who comes when the first address is known not to answer does not wait for it. */
static void check_quick(struct run *run, const struct forwarder *f)
{
    uint64_t way = run->options.link.delay + run->options.link.jitter, quick = 4 * way + forwarder_slack(run);

    for (const struct visit *a = f->visits; a < f->visits + f->visit_count; a++) {
        if (a->opened == 0 || a->opened - a->began <= quick)
            continue;
        for (const struct visit *b = a + 1; b < f->visits + f->visit_count; b++)
            if (b->began > a->opened && b->began < a->began + FAILED_FOR * ASYNCORE_SIM_SECOND && b->opened > 0)
                oracle_that(run, b->opened - b->began <= quick, "slow", "a remote that does not answer is tried first");
    }
}

static void check(struct run *run)
{
    struct state *state = run->state;

    for (int i = 0; i < state->sides.count; i++) {
        check_side(run, state, &state->sides.clients[i]);
        check_side(run, state, &state->sides.servers[i]);
        check_client(run, state, &state->sides.clients[i], state->hops[i]);
    }
    if ((state->remote == AFTER_UNREACHABLE || state->remote == AFTER_SILENT) && !run->hard && !state->hasty &&
        !state->scarce)
        check_quick(run, &state->forwarder);
    forwarder_check(&state->forwarder);
}

/* Not `separate`: by a limit the end of one client decides when another comes. */
const struct scenario scenario_rules = {.name = "rules", .start = start, .finish = finish, .check = check};
