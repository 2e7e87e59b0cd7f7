/* scenario_reuse.c: what is ready together, and handlers that close one another's channels and open new ones, which get
 * the descriptors that have just become free. What the batch in hand says of those is about channels that are gone: a
 * new channel must hear nothing of it. The witness's oracles do the looking ("empty", "handler").
 *
 * The channels are UDP sockets, because one that is new wants to read at once, as another's did. */
#include "program.h"
#include "sim.h"

enum {
    CHANNELS = 12,
    ROUNDS = 30,
    PORT = 1000,
    PORTS = 2000
};

struct box {
    struct asyncore_dispatcher base;
    struct state *state;
    uint16_t port;
    uint64_t opened; /* when; nothing was sent to it before */
    bool listens;
};

struct state {
    struct run *run;
    struct asyncore_map *map;
    struct os *sender;
    struct box *boxes[CHANNELS];
    uint16_t next_port;
    uint64_t period;
    unsigned rounds, got, reused;
    int fd;
    bool over;
};

static void box_open(struct state *state, int i);

/* Some of the others give way to new ones. */
static void change(struct state *state, const struct box *self)
{
    struct random *r = &state->run->random;

    for (uint64_t n = random_in(r, 0, 3); n > 0 && !state->over; n--) {
        int i = (int)random_in(r, 0, CHANNELS - 1);
        int fd = state->boxes[i] != NULL ? state->boxes[i]->base.fd : -1;
        if (state->boxes[i] == self && random_chance(r, 80))
            continue;
        if (state->boxes[i] != NULL)
            asyncore_close(&state->boxes[i]->base);
        state->boxes[i] = NULL;
        box_open(state, i);
        state->reused += state->boxes[i] != NULL && fd >= 0 && state->boxes[i]->base.fd == fd;
    }
}

static int box_read(struct asyncore_dispatcher *d)
{
    struct box *b = (struct box *)d;
    struct state *state = b->state;
    char text[16];
    ssize_t n = asyncore_recvfrom(d, text, sizeof text, NULL, NULL);

    if (n < 0)
        return (int)n;
    oracle_that(state->run, n == 2 && memcmp(text, &b->port, 2) == 0, "prefix", "a datagram for another came to %u",
                b->port);
    state->got++;
    change(state, b);
    return 0;
}

static int box_error(struct asyncore_dispatcher *d, int error)
{
    struct box *b = (struct box *)d;

    oracle_that(b->state->run, b->state->run->hard, "clean", "a box: %s", asyncore_strerror(error));
    return 0;
}

static const struct asyncore_class box_class = {
    .name = "box", .handle_read = box_read, .handle_error = box_error, .destroy = asyncore_destroy_free};

static void box_open(struct state *state, int i)
{
    struct box *b = calloc(1, sizeof *b);
    int error = b != NULL ? asyncore_dispatcher_init(&b->base, &box_class, state->map) : -ENOMEM;
    char port[8];

    if (error < 0) {
        free(b);
        return;
    }
    b->state = state;
    b->port = (uint16_t)(PORT + state->next_port++ % PORTS);
    snprintf(port, sizeof port, "%u", b->port);
    error = asyncore_create_socket(&b->base, AF_INET, SOCK_DGRAM);
    if (error == 0)
        error = asyncore_bind(&b->base, "*", port);
    if (error < 0) {
        oracle_that(state->run, state->run->hard, "clean", "a box cannot open: %s", asyncore_strerror(error));
        asyncore_close(&b->base);
        return;
    }
    state->boxes[i] = b;
}

/* To all of them at once: they are ready together. */
static void send_round(struct asyncore_sim *world, void *arg)
{
    struct state *state = arg;
    struct sockaddr_storage to;
    socklen_t length = sizeof to;
    char port[8];

    for (int i = 0; i < CHANNELS && !state->over; i++) {
        if (state->boxes[i] == NULL || random_chance(&state->run->random, 30))
            continue;
        snprintf(port, sizeof port, "%u", state->boxes[i]->port);
        length = sizeof to;
        asyncore_parse_address(asyncore_sim_address(world, "boxes", AF_INET), port, &to, &length);
        state->sender->sendto(state->fd, &state->boxes[i]->port, 2, 0, (struct sockaddr *)&to, length, state->sender);
    }
    if (--state->rounds > 0)
        asyncore_sim_at(world, asyncore_sim_now(world) + state->period, send_round, state);
}

static void nothing(void *arg)
{
    (void)arg;
}

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_sim_link link = run->options.link;

    state->run = run;
    state->map = run_map(run, "boxes");
    if (state->map == NULL)
        return -ENOMEM;
    link.jitter = link.bandwidth = 0; /* what is sent together arrives together */
    asyncore_sim_set_link(run->world, "boxes", "sender", &link);
    sim_set_step(run->world, "sender", nothing, NULL);
    state->sender = sim_os(run->world, "sender");
    state->fd = state->sender->socket(AF_INET, SOCK_DGRAM, 0, state->sender);
    state->rounds = (unsigned)random_in(&run->random, 1, ROUNDS);
    state->period = random_scale(&run->random, ASYNCORE_SIM_US, 10 * ASYNCORE_SIM_MS);
    run->connections = CHANNELS;
    run->free_turns = 100;
    for (int i = 0; i < CHANNELS; i++)
        box_open(state, i);
    return asyncore_sim_at(run->world, ASYNCORE_SIM_MS, send_round, state);
}

static void finish(struct run *run)
{
    struct state *state = run->state;

    state->over = true;
    for (int i = 0; i < CHANNELS; i++)
        if (state->boxes[i] != NULL)
            asyncore_close(&state->boxes[i]->base);
    state->sender->close(state->fd, state->sender);
}

static void check(struct run *run)
{
    const struct state *state = run->state;

    oracle_that(run, run->hard || state->got > 0, "complete", "no datagram came");
}

const struct scenario scenario_reuse = {.name = "reuse", .start = start, .finish = finish, .check = check};
