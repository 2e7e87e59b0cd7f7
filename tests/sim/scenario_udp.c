/* scenario_udp.c: datagrams to a server that sends them back, over a link that loses, doubles and overtakes them. What
 * arrives is what was sent, whole or cut to the room there was, no more often than the link may have doubled it; all
 * of it if nothing can have been lost; and in order if nothing can have overtaken. */
#include "oracle.h"
#include "scenario.h"
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

enum {
    CLIENTS = 3,
    DATAGRAMS = 100,
    MOST = 3000
};

struct server {
    struct asyncore_dispatcher base;
    struct run *run;
    size_t room;
    uint64_t dropped; /* the socket took no more */
};

struct client {
    struct asyncore_dispatcher base;
    struct asyncore_timer timer, quit;
    struct run *run;
    char name[32];
    uint64_t salt;
    unsigned count, sent, next, failed, received;
    bool was_sent[DATAGRAMS];
    size_t size[DATAGRAMS];
    uint8_t came[DATAGRAMS];
    struct sockaddr_storage to;
    socklen_t to_length;
};

struct state {
    struct server server;
    struct client clients[CLIENTS];
    int count;
    struct asyncore_sim_link link;
};

static const struct client *client_by_salt(const struct state *state, uint64_t salt)
{
    for (int i = 0; i < CLIENTS; i++)
        if (state->clients[i].salt == salt)
            return &state->clients[i];
    return NULL;
}

/* Datagram n of a client is its number and a stream; both have eight bytes of salt to be known by. */
static void compose(const struct client *c, unsigned n, unsigned char *data, size_t size)
{
    stream_fill(c->salt + n, 0, data, size);
    memcpy(data, &c->salt, 8);
    memcpy(data + 8, &n, sizeof n);
}

static bool check_datagram(struct run *run, const char *who, const unsigned char *data, size_t size, size_t room,
                           unsigned *number)
{
    const struct state *state = run->state;
    unsigned char expected[MOST];
    const struct client *c;
    uint64_t salt;
    size_t whole;

    if (!oracle_that(run, size >= 16, "prefix", "%s: a datagram of %zu bytes", who, size))
        return false;
    memcpy(&salt, data, 8);
    memcpy(number, data + 8, sizeof *number);
    c = client_by_salt(state, salt);
    if (!oracle_that(run, c != NULL && *number < c->count && c->was_sent[*number], "prefix",
                     "%s: a datagram that nobody sent", who))
        return false;
    whole = c->size[*number] < room ? c->size[*number] : room;
    compose(c, *number, expected, c->size[*number]);
    return oracle_that(run, size == whole, "complete", "%s: datagram %u has %zu bytes of %zu", who, *number, size,
                       whole) &&
           oracle_prefix_of(run, who, expected, whole, 0, data, size);
}

/* -- The server -- */

static int server_read(struct asyncore_dispatcher *d)
{
    struct server *s = (struct server *)d;
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    unsigned char data[MOST];
    unsigned number;
    ssize_t n = asyncore_recvfrom(d, data, s->room, &from, &length);

    if (n < 0)
        return (int)n;
    if (check_datagram(s->run, "server", data, (size_t)n, s->room, &number) &&
        asyncore_sendto(d, data, (size_t)n, (struct sockaddr *)&from, length) != n)
        s->dropped++;
    return 0;
}

static int keep_open(struct asyncore_dispatcher *d, int error)
{
    (void)d, (void)error;
    return 0;
}

static const struct asyncore_class server_class = {
    .name = "udp server", .handle_read = server_read, .handle_error = keep_open};

static int server_start(struct asyncore_map *map, struct server *s)
{
    int error = asyncore_dispatcher_init(&s->base, &server_class, map);

    if (error == 0)
        error = asyncore_create_socket(&s->base, AF_INET, SOCK_DGRAM);
    return error != 0 ? error : asyncore_bind(&s->base, "*", "9");
}

/* -- The clients -- */

static int client_read(struct asyncore_dispatcher *d)
{
    struct client *c = (struct client *)d;
    const struct state *state = c->run->state;
    bool ordered =
        state->link.overtake == 0 && state->link.jitter == 0 && state->link.bandwidth == 0 && state->link.copy == 0;
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    unsigned char data[MOST];
    unsigned number;
    ssize_t n = asyncore_recvfrom(d, data, sizeof data, &from, &length);

    if (n < 0)
        return (int)n;
    oracle_that(c->run, length == c->to_length && memcmp(&from, &c->to, 8) == 0, "answer", "%s: from a stranger",
                c->name);
    if (!check_datagram(c->run, c->name, data, (size_t)n, state->server.room, &number))
        return 0;
    oracle_that(c->run, !ordered || number >= c->next, "order", "%s: datagram %u after %u", c->name, number, c->next);
    c->next = number + 1;
    c->received += c->came[number] == 0;
    c->came[number]++;
    oracle_that(c->run, c->came[number] <= (state->link.copy > 0 ? 4 : 1), "more", "%s: datagram %u came %u times",
                c->name, number, c->came[number]);
    return 0;
}

static void quit(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    asyncore_close(arg);
}

static void tick(struct asyncore_timer *timer, void *arg)
{
    struct client *c = arg;
    unsigned char data[MOST];
    unsigned n = c->sent;

    if (n == c->count) {
        asyncore_cancel(timer);
        if (asyncore_call_later(c->base.map, &c->quit, 60000, quit, c) < 0)
            asyncore_close(&c->base);
        return;
    }
    compose(c, n, data, c->size[n]);
    c->was_sent[n] = true;
    ssize_t result = asyncore_sendto(&c->base, data, c->size[n], (struct sockaddr *)&c->to, c->to_length);
    if (result == -EAGAIN)
        return; /* with the next tick */
    c->sent++;
    if (result < 0)
        c->failed++;
    oracle_that(c->run, result == (ssize_t)c->size[n] || c->run->hard, "clean", "%s: sendto: %s", c->name,
                result < 0 ? asyncore_strerror((int)result) : "a part");
}

static const struct asyncore_class client_class = {
    .name = "udp client", .handle_read = client_read, .handle_error = keep_open};

static int client_start(struct run *run, struct asyncore_map *map, struct client *c, int number)
{
    struct random *r = &run->random;
    int error = asyncore_dispatcher_init(&c->base, &client_class, map);

    c->run = run;
    snprintf(c->name, sizeof c->name, "client %d", number);
    c->salt = random_word(r);
    c->count = (unsigned)random_in(r, 1, run_size(run, DATAGRAMS, 12));
    for (unsigned i = 0; i < c->count; i++)
        c->size[i] = (size_t)random_in(r, 16, random_chance(r, 70) ? 200 : 900);
    if (run->options.receive_buffer >= 16384 && run->options.send_buffer >= 16384)
        for (unsigned i = 0; i < c->count; i += 10)
            c->size[i] = (size_t)random_in(r, 1000, MOST);
    c->to_length = sizeof c->to;
    if (error == 0)
        error = asyncore_parse_address(asyncore_sim_address(run->world, "server", AF_INET), "9", &c->to, &c->to_length);
    if (error == 0)
        error = asyncore_create_socket(&c->base, AF_INET, SOCK_DGRAM);
    return error != 0 ? error : asyncore_call_every(map, &c->timer, random_in(r, 1, 50), tick, c);
}

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct random *r = &run->random;
    struct asyncore_map *server = run_map(run, "server"), *client = run_map(run, "client");
    int error = server != NULL && client != NULL ? 0 : -ENOMEM;

    state->link = run->options.link;
    state->link.loss = random_chance(r, 50) ? (unsigned)random_scale(r, 100, 300000) : 0;
    state->link.copy = random_chance(r, 50) ? (unsigned)random_scale(r, 100, 300000) : 0;
    state->link.overtake = random_chance(r, 50) ? (unsigned)random_scale(r, 100, 300000) : 0;
    asyncore_sim_set_link(run->world, NULL, NULL, &state->link);
    state->server.run = run;
    state->server.room = random_chance(r, 50) ? MOST : (size_t)random_in(r, 16, 1000);
    run->connections = CLIENTS + 1;
    state->count = (int)run_size(run, CLIENTS, 2);
    run->free_turns = 100000;
    if (error == 0)
        error = server_start(server, &state->server);
    for (int i = 0; i < state->count && error == 0; i++)
        error = client_start(run, client, &state->clients[i], i);
    return error;
}

static void finish(struct run *run)
{
    asyncore_fini(&((struct state *)run->state)->server.base);
}

/* Whether all that was sent, headers included, has room at once: then none can have been dropped. */
static bool must_all_come(const struct run *run, const struct state *state)
{
    size_t all = 0;

    for (int i = 0; i < state->count; i++)
        for (unsigned n = 0; n < state->clients[i].count; n++)
            all += 2 * (state->clients[i].size[n] + 256);
    return !run->hard && state->link.loss == 0 && state->server.dropped == 0 && all <= run->options.receive_buffer;
}

static void check(struct run *run)
{
    const struct state *state = run->state;

    for (int i = 0; i < state->count; i++) {
        const struct client *c = &state->clients[i];
        oracle_done(run, c->name, c->base.fd < 0);
        oracle_that(run, c->sent == c->count, "complete", "%s sent %u datagrams of %u", c->name, c->sent, c->count);
        if (must_all_come(run, state))
            oracle_complete(run, c->name, c->sent, c->received);
    }
}

const struct scenario scenario_udp = {.name = "udp", .start = start, .finish = finish, .check = check};
