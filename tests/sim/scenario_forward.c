/* scenario_forward.c: portforward between clients and servers, either of which may be rude. The streams say themselves
 * which they are, so that each end finds its other end, and what came out at one can be held against what went in at
 * the other: all bytes before an end, an end only where there was one, and a reset never as one.
 *
 * The remote is an address or a name, answers late or not at all, refuses, or cannot be reached. In some worlds it is
 * deaf: everything fills up, until the forwarder reads no more from clients, and then these reset. In some it is hasty: its
 * timeouts are short, so that pairs end before they are done, and then no peer may take that for an end of stream.
 *
 * When everybody should be done the forwarder drains, and its loop must end. */
#include "program.h"

#include "../../portforward/pair.c"
#include "../../portforward/rule.c"
#include "../../portforward/service.c"
#include "sim.h"

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

struct side {
    struct peer peer;
    const struct pair *reset; /* its pair, when it was reset */
    struct side *from;        /* whose bytes come */
    unsigned char head[8];
};

struct forwarding {
    struct service *service;
    struct log *log;
    enum remote_kind remote;
    bool hasty;
    int count;
    struct peer listener;
    struct side clients[PAIRS], servers[PAIRS];
};

static struct side *side_by_salt(struct forwarding *state, uint64_t salt)
{
    for (int i = 0; i < PAIRS; i++) {
        if (state->clients[i].peer.salt == salt)
            return &state->clients[i];
        if (state->servers[i].peer.salt == salt)
            return &state->servers[i];
    }
    return NULL;
}

/* The first eight bytes are the salt of the stream. */
static void learn(struct run *run, struct side *side, const unsigned char *data, size_t size)
{
    uint64_t at = side->peer.received, salt;

    memcpy(side->head + at, data, size < 8 - at ? size : 8 - at);
    if (at + size < 8)
        return;
    memcpy(&salt, side->head, 8);
    side->from = side_by_salt(run->state, salt);
    if (!oracle_that(run, side->from != NULL, "prefix", "%s gets a stream that nobody sent", side->peer.name))
        return;
    if (side->from->from == NULL)
        side->from->from = side;
    oracle_that(run, side->from->from == side, "prefix", "%s gets what was sent to another than %s", side->peer.name,
                side->from->peer.name);
}

static void input(struct peer *peer, const unsigned char *data, size_t size)
{
    struct side *side = (struct side *)peer;
    struct run *run = peer_run(peer);
    uint64_t skip = 0;

    if (peer->received < 8) {
        skip = 8 - peer->received < size ? 8 - peer->received : size;
        learn(run, side, data, size);
    }
    if (side->from != NULL && size > skip)
        oracle_prefix(run, peer->name, side->from->peer.salt, peer->received + skip, data + skip, size - skip);
}

static const struct peer_class side_class = {.input = input};

static void plan(struct run *run, struct peer *peer, size_t total)
{
    struct random *r = &run->random;
    struct peer_plan *p = &peer->plan;

    peer->class_ = &side_class;
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

static struct peer *accepted(struct peer *listener)
{
    struct forwarding *state = listener->owner;

    oracle_that(peer_run(listener), listener->accepts < PAIRS, "more", "more connections than clients");
    return listener->accepts < PAIRS ? &state->servers[listener->accepts].peer : NULL;
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

static struct pair *pair_of(struct run *run, const struct peer *client)
{
    struct forwarding *state = run->state;
    struct os *os = sim_os(run->world, "client");
    struct sockaddr_storage own, other;
    socklen_t own_length = sizeof own, other_length;

    if (client->fd < 0 || os->getsockname(client->fd, (struct sockaddr *)&own, &own_length, os) < 0)
        return NULL;
    for (struct pair *p = state->service->rules.pairs.first; p != NULL; p = p->next) {
        other_length = sizeof other;
        if (asyncore_peername(&p->client.base, &other, &other_length) == 0 &&
            ((struct sockaddr_in *)&own)->sin_port == ((struct sockaddr_in *)&other)->sin_port)
            return p;
    }
    return NULL;
}

static void check_noticed(struct asyncore_sim *world, void *arg)
{
    struct side *client = arg;
    struct run *run = peer_run(&client->peer);
    const struct forwarding *state = run->state;

    (void)world;
    for (const struct pair *p = state->service->rules.pairs.first; p != NULL; p = p->next)
        oracle_that(run, p != client->reset, "deaf", "the reset of %s is not noticed", client->peer.name);
}

static void reset_client(struct asyncore_sim *world, void *arg)
{
    struct side *client = arg;
    struct run *run = peer_run(&client->peer);
    const struct asyncore_sim_link *link = &run->options.link;

    client->reset = pair_of(run, &client->peer);
    peer_end(&client->peer, PEER_RESETS);
    if (client->reset != NULL && !run->hard && run->options.chances[ASYNCORE_SIM_LINGER] == 0)
        asyncore_sim_at(world, run_now(run) + NOTICED * ASYNCORE_SIM_MS + link->delay + link->jitter, check_noticed,
                        client);
}

static void plan_deaf(struct run *run, struct forwarding *state)
{
    size_t buffers = run->options.send_buffer + run->options.receive_buffer;

    for (int i = 0; i < PAIRS; i++) {
        state->servers[i].peer.plan.read_start = DEAF * ASYNCORE_SIM_SECOND;
        state->clients[i].peer.plan = (struct peer_plan){.total = 2 * buffers + (256 << 10), .end = PEER_RESETS};
        asyncore_sim_at(run->world, random_in(&run->random, 2, 8) * ASYNCORE_SIM_SECOND, reset_client,
                        &state->clients[i]);
    }
}

/* -- The forwarder -- */

/* Lines of connections say how they ended, and the oracles look at what the peers got; all other lines complain. */
static void log_text(void *arg, const char *text)
{
    if (strstr(text, " end=") == NULL)
        run_log(arg, "error", text);
}

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

static int forwarder_start(struct run *run, struct asyncore_map *map)
{
    struct forwarding *state = run->state;
    struct log_options log = {.line = log_text, .arg = run};
    struct service_options options = {.max = 1000};
    struct config config;
    char text[256];
    int error = -ENOMEM;

    rule_text(run, state, text, sizeof text);
    config_init(&config, NULL, NULL, NULL);
    if (config_line(&config, "scenario", text) == 0)
        error = log_open(&state->log, map, &log);
    options.log = state->log;
    if (error == 0)
        error = service_new(&state->service, map, &options);
    if (error == 0 && service_apply(state->service, &config) < 0)
        error = -ENOMEM;
    config_free(&config);
    return error;
}

static void forwarder_free(struct forwarding *state)
{
    service_free(state->service);
    log_close(state->log);
    state->service = NULL;
    state->log = NULL;
}

static void drain(struct asyncore_sim *world, void *arg)
{
    struct run *run = arg;
    struct forwarding *state = run->state;
    const struct rules *rules = &state->service->rules;

    (void)world;
    oracle_that(run, rules->pairs.first == NULL || oracle_excused(run), "stuck", "a pair is left in the forwarder");
    for (const struct rule *rule = rules->first; rule; rule = rule->next)
        for (unsigned i = 0; i < rule->listener_count; i++)
            oracle_listens(run, &rule->listeners[i]->base);
    service_drain(state->service, DRAIN_MS);
}

static void start_peers(struct run *run, size_t total)
{
    struct forwarding *state = run->state;
    struct peer_host *clients = peer_host(run, "client");
    char name[32];

    for (int i = 0; i < state->count; i++) {
        plan(run, &state->clients[i].peer, total);
        plan(run, &state->servers[i].peer, total);
        if (random_chance(&run->random, 30)) /* one that needs the client's end to go on */
            state->servers[i].peer.plan.end = PEER_WAITS;
        snprintf(name, sizeof name, "client %d", i);
        peer_connect(&state->clients[i].peer, clients, name, asyncore_sim_address(run->world, "forward", AF_INET),
                     8080);
    }
    for (int i = 0; run->config->full && i < PAIRS; i++) {
        peer_plan_full(&state->clients[i].peer.plan);
        peer_plan_full(&state->servers[i].peer.plan);
    }
}

static int start(struct run *run)
{
    struct forwarding *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "forward");
    struct peer_host *servers = peer_host(run, "server");
    size_t total = (size_t)run_size(run, random_chance(&run->random, 1) ? 1 << 20 : 64 << 10, 6000);
    int error = map != NULL ? forwarder_start(run, map) : -ENOMEM;

    if (error < 0) {
        forwarder_free(state);
        return error;
    }
    run->connections = 2 * PAIRS;
    run->free_turns = 2 * DRAIN / RETRY_FAILED + 100; /* timers, and names that are looked up again and again */
    state->count = (int)run_size(run, PAIRS, 2);
    start_peers(run, total);
    if (!run->config->full && !state->hasty && state->remote <= HOSTS_NAME &&
        run->options.send_buffer + run->options.receive_buffer <= DEAF_BUFFERS && random_chance(&run->random, 8))
        plan_deaf(run, state);
    state->listener.owner = state;
    if (state->remote != REFUSES)
        peer_listen(&state->listener, servers, 80, accepted);
    asyncore_sim_at(run->world, DRAIN * ASYNCORE_SIM_SECOND, drain, run);
    return 0;
}

static void finish(struct run *run)
{
    struct forwarding *state = run->state;

    forwarder_free(state);
    peer_close_listener(&state->listener);
}

static bool polite(const struct side *side)
{
    return side->peer.plan.end <= PEER_WAITS && side->peer.plan.enough == 0;
}

static void check_side(struct run *run, const struct side *side, bool hasty)
{
    const struct peer *peer = &side->peer, *from = side->from != NULL ? &side->from->peer : NULL;

    if (peer->state == PEER_PLANNED)
        return;
    oracle_done(run, peer->name, peer->state == PEER_DONE);
    if (from == NULL)
        return;
    oracle_no_more(run, peer->name, from->sent, peer->received);
    if (peer->got_end && run_scripted(run, ASYNCORE_SIM_SETSOCKOPT)) /* without SO_LINGER there is no reset */
        oracle_reported(run, peer->name, from->sent_end && from->sent == peer->received);
    else if (peer->got_end)
        oracle_end(run, peer->name, from->sent_end, from->sent, peer->received);
    if (run->hard || hasty || !polite(side) || !polite(side->from))
        return;
    oracle_clean(run, peer->name, peer->error);
    oracle_complete(run, peer->name, from->plan.total, peer->received);
    oracle_that(run, peer->got_end, "end", "%s got no end of stream", peer->name);
}

static void check(struct run *run)
{
    struct forwarding *state = run->state;
    bool refused = state->remote >= NO_NAME, resets = !run_scripted(run, ASYNCORE_SIM_SETSOCKOPT);

    for (int i = 0; i < state->count; i++) {
        const struct side *client = &state->clients[i];
        check_side(run, client, state->hasty);
        check_side(run, &state->servers[i], state->hasty);
        oracle_that(run, !refused || !client->peer.got_end || !resets, "end",
                    "%s got an end of stream, and there is no remote", client->peer.name);
        oracle_that(run, !refused || !polite(client) || client->peer.error != 0 || !resets, "end",
                    "%s was not told that there is no remote", client->peer.name);
        if (refused && client->peer.got_end)
            oracle_reported(run, client->peer.name, false);
        if (!refused && !run->hard && polite(client))
            oracle_that(run,
                        client->peer.got_end || (state->hasty && client->peer.error != 0) || client->from == NULL || !polite(client->from), "end",
                        "%s got neither an end nor a reset", client->peer.name);
    }
}

const struct scenario scenario_forward = {
    .name = "forward", .separate = true, .in_pairs = true, .start = start, .finish = finish, .check = check};
