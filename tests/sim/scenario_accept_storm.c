/* scenario_accept_storm.c: hundreds of clients at once for a server (examples/echo_server.c) that may have few
 * descriptors: it has to rest, and to go on when some are free. Everybody is served in the end, no turn accepts more
 * than its share, and a client that was there before gets its answers meanwhile. */
#include "program.h"

static void storm_accepted(struct asyncore_dispatcher *d);
static int storm_set_socket(struct asyncore_dispatcher *d, int fd)
{
    storm_accepted(d);
    return asyncore_set_socket(d, fd);
}

int storm_main(int argc, char **argv);
#define asyncore_set_socket(d, fd) storm_set_socket(d, fd)
#define main                       storm_main
#include "../../examples/echo_server.c"
#undef main

enum {
    CLIENTS = 300,
    PER_TURN = 64,
    QUIET_BYTES = 40,
    HOSTS = 15
};

struct state {
    struct run *run;
    struct asyncore_dispatcher server;
    struct peer clients[CLIENTS], quiet;
    size_t count, served;
    uint64_t turn;
    unsigned in_turn;
};

static struct state *the;

static void storm_accepted(struct asyncore_dispatcher *d)
{
    struct asyncore_sim_usage usage;

    (void)d;
    asyncore_sim_usage(the->run->world, "server", &usage);
    the->in_turn = usage.turns == the->turn ? the->in_turn + 1 : 1;
    the->turn = usage.turns;
    oracle_that(the->run, the->in_turn <= PER_TURN, "starve", "%u clients accepted in one turn", the->in_turn);
}

static void input(struct peer *peer, const unsigned char *data, size_t size)
{
    oracle_prefix(peer_run(peer), peer->name, peer->salt, peer->received, data, size);
}

static const struct peer_class client_class = {.input = input};

/* From several hosts: a host looks at all its peers whenever one has something to do. */
static void connect_one(struct run *run, struct peer *peer, const char *name)
{
    char host[16];

    snprintf(host, sizeof host, "client%u", (unsigned)((size_t)(peer - the->clients) % HOSTS));
    peer->class_ = &client_class;
    peer->salt = random_word(&run->random);
    peer_connect(peer, peer_host(run, host), name, asyncore_sim_address(run->world, "server", AF_INET), 7);
}

static int start(struct run *run)
{
    struct state *state = the = run->state = run_alloc(run, sizeof *state);
    struct random *r = &run->random;
    struct asyncore_map *map = run_map(run, "server");
    int error = map != NULL ? echo_server(map, &state->server, "*", "7") : -ENOMEM;
    uint64_t spread = random_scale(r, 1, 100 * ASYNCORE_SIM_MS);
    char name[32];

    state->run = run;
    if (error < 0)
        return error;
    if (random_chance(r, 70))
        asyncore_sim_set_descriptors(run->world, "server", (unsigned)random_scale(r, 8, run_size(run, 200, 10)));
    state->count = (size_t)random_in(r, run_size(run, 100, 10), run_size(run, CLIENTS, 14));
    run->connections = state->count + 1;
    run->free_turns = 10000;
    state->quiet.plan = (struct peer_plan){.total = run_size(run, QUIET_BYTES, 8),
                                           .send_piece = 1,
                                           .send_pause = 10 * ASYNCORE_SIM_MS,
                                           .end = PEER_SHUTS};
    connect_one(run, &state->quiet, "quiet");
    for (size_t i = 0; i < state->count; i++) {
        struct peer *peer = &state->clients[i];
        peer->plan = (struct peer_plan){.start = 200 * ASYNCORE_SIM_MS + random_in(r, 0, spread),
                                        .total = random_scale(r, 0, run_size(run, 2000, 600)),
                                        .end = random_chance(r, 95) ? PEER_SHUTS : PEER_RESETS};
        if (random_chance(r, 20))
            peer->plan.end_pause = random_scale(r, 1, ASYNCORE_SIM_SECOND);
        snprintf(name, sizeof name, "client %zu", i);
        connect_one(run, peer, name);
    }
    return 0;
}

static void finish(struct run *run)
{
    oracle_listens(run, &((struct state *)run->state)->server);
    asyncore_fini(&((struct state *)run->state)->server);
}

static void check_one(struct run *run, const struct peer *peer)
{
    oracle_done(run, peer->name, peer->state == PEER_DONE);
    oracle_no_more(run, peer->name, peer->sent, peer->received);
    if (peer->got_end && !run->hard) /* a server that has no memory for a client closes it */
        oracle_end(run, peer->name, peer->sent_end, peer->sent, peer->received);
    if (peer->got_end && peer->plan.end == PEER_SHUTS)
        oracle_reported(run, peer->name, peer->sent_end && peer->sent == peer->received);
    if (run->hard || peer->plan.end != PEER_SHUTS)
        return;
    oracle_clean(run, peer->name, peer->error);
    oracle_complete(run, peer->name, peer->plan.total, peer->received);
    oracle_that(run, peer->got_end, "end", "%s got no end of stream", peer->name);
}

static void check(struct run *run)
{
    const struct state *state = run->state;

    for (size_t i = 0; i < state->count; i++)
        check_one(run, &state->clients[i]);
    check_one(run, &state->quiet);
    if (!run->hard && run->options.call_ns == 0) /* nothing that the storm does takes time */
        oracle_that(run, state->quiet.ended < 60 * ASYNCORE_SIM_SECOND, "starve",
                    "the quiet client waited until %llu s",
                    (unsigned long long)(state->quiet.ended / ASYNCORE_SIM_SECOND));
}

const struct scenario scenario_accept_storm = {
    .name = "accept_storm", .start = start, .finish = finish, .check = check};
