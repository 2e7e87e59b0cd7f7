/* echo_clients.c: each client sends its own stream, and what comes back is compared at once. The polite ones must get
 * all of it and then the end, unless hard faults strike; of the others the server must only be rid. */
#include "echo_clients.h"

#include "oracle.h"
#include "peer.h"
#include <stdio.h>

struct echo_clients {
    size_t count;
    struct peer peers[8];
};

static void input(struct peer *peer, const unsigned char *data, size_t size)
{
    oracle_prefix(peer_run(peer), peer->name, peer->salt, peer->received, data, size);
}

static const struct peer_class client_class = {.input = input};

static void plan(struct run *run, struct peer *peer, size_t total)
{
    struct random *r = &run->random;
    struct peer_plan *p = &peer->plan;

    p->start = random_in(r, 0, 10 * ASYNCORE_SIM_MS);
    p->total = random_chance(r, 70) ? total : random_scale(r, 0, 2 * total);
    p->end = random_chance(r, 75) ? PEER_SHUTS : (enum peer_end)random_in(r, PEER_CLOSES, PEER_RESETS);
    if (random_chance(r, 30))
        p->send_piece = (size_t)random_scale(r, 64, PEER_BUFFER);
    if (p->send_piece >= 256 && random_chance(r, 50))
        p->send_pause = random_scale(r, 1000, 2 * ASYNCORE_SIM_MS);
    if (random_chance(r, 15))
        p->read_start = random_in(r, 0, ASYNCORE_SIM_SECOND);
    peer_plan_reading(p, r, total);
}

/* It takes nothing back until late, and would fill the server's memory. */
static void plan_glutton(struct peer *peer)
{
    peer->plan = (struct peer_plan){.total = 6 << 20, .read_start = 2 * ASYNCORE_SIM_SECOND, .end = PEER_SHUTS};
}

struct echo_clients *echo_clients(struct run *run, uint16_t port)
{
    struct echo_clients *clients = run_alloc(run, sizeof *clients);
    size_t total = (size_t)run_size(run, random_chance(&run->random, 1) ? 1 << 20 : 64 << 10, 6000);
    char name[32];

    clients->count = (size_t)run_size(run, 8, 2);
    run->connections += clients->count;
    for (size_t i = 0; i < clients->count; i++) {
        struct peer *peer = &clients->peers[i];
        peer->class_ = &client_class;
        peer->salt = random_word(&run->random);
        plan(run, peer, total);
        if (i == 0 && random_chance(&run->random, 1))
            plan_glutton(peer);
        if (run->config->full)
            peer_plan_full(&peer->plan);
        snprintf(name, sizeof name, "client %zu", i);
        peer_connect(peer, peer_host(run, "client"), name, asyncore_sim_address(run->world, "server", AF_INET), port);
    }
    return clients;
}

void echo_clients_check(struct run *run, struct echo_clients *clients)
{
    for (size_t i = 0; i < clients->count; i++) {
        const struct peer *peer = &clients->peers[i];
        bool polite = peer->plan.end == PEER_SHUTS && peer->plan.enough == 0;
        oracle_done(run, peer->name, peer->state == PEER_DONE);
        oracle_no_more(run, peer->name, peer->sent, peer->received);
        if (peer->got_end && !run->hard) /* a server that has no memory for a client closes it */
            oracle_end(run, peer->name, peer->sent_end, peer->sent, peer->received);
        if (peer->got_end && polite)
            oracle_reported(run, peer->name, peer->sent_end && peer->sent == peer->received);
        if (run->hard || !polite)
            continue;
        oracle_clean(run, peer->name, peer->error);
        oracle_complete(run, peer->name, peer->plan.total, peer->received);
        oracle_that(run, peer->got_end, "end", "%s got no end of stream", peer->name);
    }
}
