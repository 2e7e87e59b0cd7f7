/* sides.c: see sides.h. The first eight bytes of a stream are its salt (oracle.h). */
#include "sides.h"

#include "oracle.h"
#include <string.h>

static struct side *side_by_salt(const struct sides *sides, uint64_t salt)
{
    for (int i = 0; i < sides->count; i++) {
        if (sides->clients[i].peer.salt == salt)
            return &sides->clients[i];
        if (sides->servers[i].peer.salt == salt)
            return &sides->servers[i];
    }
    return NULL;
}

static void learn(struct run *run, struct side *side, const unsigned char *data, size_t size)
{
    uint64_t at = side->peer.received, salt;

    memcpy(side->head + at, data, size < 8 - at ? size : 8 - at);
    if (at + size < 8)
        return;
    memcpy(&salt, side->head, 8);
    side->from = side_by_salt(side->all, salt);
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

static void connected(struct peer *peer)
{
    peer_address(peer, &((struct side *)peer)->own);
}

static const struct peer_class client_class = {.connected = connected, .input = input};
static const struct peer_class server_class = {.input = input};

static struct peer *accepted(struct peer *listener)
{
    struct sides *sides = listener->owner;
    bool expected = listener->accepts < (size_t)sides->count;

    oracle_that(peer_run(listener), expected, "more", "more connections than clients");
    return expected ? &sides->servers[listener->accepts].peer : NULL;
}

void sides_begin(struct run *run, struct sides *sides, int count)
{
    sides->clients = run_alloc(run, (size_t)count * sizeof *sides->clients);
    sides->servers = run_alloc(run, (size_t)count * sizeof *sides->servers);
    sides->count = count;
    sides->listener.owner = sides;
    for (int i = 0; i < count; i++) {
        sides->clients[i].all = sides->servers[i].all = sides;
        sides->clients[i].peer.class_ = &client_class;
        sides->servers[i].peer.class_ = &server_class;
    }
}

void sides_listen(struct run *run, struct sides *sides, const char *host, uint16_t port)
{
    peer_listen(&sides->listener, peer_host(run, host), port, accepted);
}

bool side_polite(const struct side *side)
{
    return side->peer.plan.end <= PEER_WAITS && side->peer.plan.enough == 0;
}

void side_check(struct run *run, const struct side *side)
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
}

void side_check_whole(struct run *run, const struct side *side)
{
    const struct peer *peer = &side->peer;

    if (peer->state == PEER_PLANNED || side->from == NULL)
        return;
    oracle_clean(run, peer->name, peer->error);
    oracle_complete(run, peer->name, side->from->peer.plan.total, peer->received);
    oracle_that(run, peer->got_end, "end", "%s got no end of stream", peer->name);
}
