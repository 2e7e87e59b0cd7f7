/* scenario_depot.c: frames of exact lengths on async_chat: four bytes, and as many more as they say. The answers are
 * producers in a row, copies, and lent memory; some requests fill the queue up to its limit and look whether that is
 * where it should be. Clients send many frames at once and read late, so that input is held back past the high mark;
 * some of them wait for the server's end, which comes after the last answer.
 *
 * All that a client is sent is one stream, whose places are given out in the order of the pushes. */
#include "program.h"

enum {
    CLIENTS = 4,
    FRAMES = 40,
    FRAME = 1500,
    ROOM = FRAMES * (FRAME + 4),
    LOW = 2000,
    HIGH = 6000
};

enum order {
    COPY,
    PRODUCE,
    FILL,
    NOTHING,
    ORDERS
};

struct customer {
    struct peer peer;
    size_t asked, taken, frames, served; /* bytes of asks; frames of it */
    uint64_t answered;                   /* places of the stream given out */
    unsigned char asks[ROOM];
};

struct state {
    struct run *run;
    struct asyncore_dispatcher server;
    struct customer customers[CLIENTS];
    size_t limit;
};

static struct state *the;

struct teller {
    struct asynchat chat;
    struct customer *customer; /* known from the first frame on */
    size_t wanted, got;
    unsigned char head[4];
    bool in_body;
};

/* -- Producers -- */

struct maker {
    struct asynchat_producer base;
    struct customer *customer;
    uint64_t at, left;
    bool ended;
    unsigned char piece[300];
};

static ssize_t maker_more(struct asynchat_producer *p, const void **data)
{
    struct maker *m = (struct maker *)p;
    size_t n = m->left < sizeof m->piece ? (size_t)m->left : sizeof m->piece;

    oracle_that(the->run, !m->ended, "producer", "a producer is asked again after its end");
    m->ended = n == 0;
    stream_fill(m->customer->peer.salt, m->at, m->piece, n);
    m->at += n;
    m->left -= n;
    *data = m->piece;
    return (ssize_t)n;
}

static void maker_release(struct asynchat_producer *p)
{
    struct maker *m = (struct maker *)p;

    oracle_that(the->run, the->run->hard || m->ended, "producer", "a producer is dropped before its end");
    free(m);
}

static int produce(struct teller *t, size_t n)
{
    struct maker *m = calloc(1, sizeof *m);
    int error;

    if (m == NULL)
        return -ENOMEM;
    m->base = (struct asynchat_producer){.more = maker_more, .release = maker_release};
    m->customer = t->customer;
    m->at = t->customer->answered;
    m->left = n;
    error = asynchat_push_with_producer(&t->chat, &m->base);
    if (error < 0)
        free(m);
    else
        t->customer->answered += n;
    return error;
}

/* -- Pushes, and what they should say -- */

static int push(struct teller *t, size_t n, unsigned how)
{
    struct asyncore_dispatcher_with_send *s = &t->chat.base;
    bool fits = asyncore_queued(s) + n <= the->limit;
    unsigned char *data = malloc(n + 1);
    int result;

    if (data == NULL)
        return -ENOMEM;
    stream_fill(t->customer->peer.salt, t->customer->answered, data, n);
    if (how % 3 == 0)
        result = asynchat_push(&t->chat, data, n);
    else if (how % 3 == 1)
        result = (int)asyncore_send(&s->base, data, n);
    else
        result = asynchat_push_ref(&t->chat, data, n, scenario_free, data);
    if (how % 3 != 2 || result < 0)
        free(data);
    if (the->run->hard && result < 0)
        return result;
    if (!fits)
        oracle_that(the->run, result == -ENOBUFS, "limit", "%zu bytes more are taken past the limit", n);
    else
        oracle_that(the->run, result == (asyncore_queued(s) > HIGH), "limit", "%zu bytes, %zu queued then: %d", n,
                    asyncore_queued(s), result);
    if (fits)
        t->customer->answered += n;
    return result == -ENOBUFS ? 0 : result;
}

/* To the limit exactly; one byte more is too many. */
static int fill(struct teller *t, size_t n)
{
    struct asyncore_dispatcher_with_send *s = &t->chat.base;
    size_t before;
    int result = 0;

    for (unsigned i = 0; result >= 0 && asyncore_queued(s) + n < the->limit && i < run_size(the->run, 1000, 20); i++)
        result = push(t, n, i % 2 ? 0 : 2);
    before = asyncore_queued(s);
    if (result >= 0)
        result = push(t, the->limit - before + 1, (unsigned)n);
    if (result >= 0)
        result = push(t, the->limit - before, (unsigned)n / 3);
    if (result >= 0 && asyncore_queued(s) == the->limit) /* send tries the kernel first */
        result = push(t, 1, (unsigned)n / 2);
    return result;
}

static int serve(struct teller *t)
{
    size_t n = (size_t)t->head[2] << 8 | t->head[3];
    int result = 0;

    t->customer->served++;
    switch (t->head[1] % ORDERS) {
    case COPY:
        return push(t, n, t->head[1] / ORDERS);
    case PRODUCE:
        for (unsigned i = 0; result >= 0 && i < 1 + t->head[1] % 4u; i++)
            result = produce(t, i % 2 ? 0 : n);
        return result;
    case FILL:
        return fill(t, n + 1);
    default:
        return 0;
    }
}

/* -- The server -- */

static int teller_collect(struct asynchat *chat, const void *data, size_t n)
{
    struct teller *t = (struct teller *)chat;

    oracle_that(the->run, t->got + n <= t->wanted, "length", "%zu bytes instead of %zu", t->got + n, t->wanted);
    if (!t->in_body && t->got + n <= sizeof t->head)
        memcpy(t->head + t->got, data, n);
    t->got += n;
    if (t->customer == NULL && t->head[0] < CLIENTS)
        t->customer = &the->customers[t->head[0]];
    if (t->customer != NULL) {
        oracle_prefix_of(the->run, "the server", t->customer->asks, t->customer->asked, t->customer->taken, data, n);
        t->customer->taken += n;
    }
    return 0;
}

static int teller_found(struct asynchat *chat)
{
    struct teller *t = (struct teller *)chat;
    size_t n = (size_t)t->head[2] << 8 | t->head[3];
    int result;

    oracle_that(the->run, t->got == t->wanted, "length", "a terminator after %zu bytes instead of %zu", t->got,
                t->wanted);
    t->got = 0;
    t->in_body = !t->in_body && n > 0;
    t->wanted = t->in_body ? n : sizeof t->head;
    if (asynchat_set_terminator_length(chat, t->wanted) < 0 || t->in_body || t->customer == NULL)
        return 0;
    result = serve(t);
    if (result >= 0 && t->customer->served == t->customer->frames && t->customer->peer.plan.end == PEER_WAITS)
        return asynchat_close_when_done(chat);
    return result;
}

static const struct asynchat_class teller_class = {.base = {.name = "teller", .destroy = asyncore_destroy_free},
                                                   .collect_incoming_data = teller_collect,
                                                   .found_terminator = teller_found};

static int server_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct teller *t = calloc(1, sizeof *t);
    int error = t != NULL ? asynchat_init(&t->chat, &teller_class, d->map) : -ENOMEM;

    (void)address, (void)length;
    if (error < 0) {
        free(t);
        asyncore_close_fd(d->map, fd);
        return error;
    }
    error = asyncore_set_socket(&t->chat.base.base, fd);
    if (error == 0)
        error = asyncore_set_marks(&t->chat.base, LOW, HIGH, the->limit);
    t->wanted = sizeof t->head;
    if (error == 0)
        error = asynchat_set_terminator_length(&t->chat, t->wanted);
    if (error < 0)
        asyncore_close(&t->chat.base.base);
    return error;
}

static const struct asyncore_class server_class = {.name = "depot", .handle_accepted = server_accepted};

/* -- Clients -- */

static size_t output(struct peer *peer, unsigned char *data, size_t size)
{
    memcpy(data, ((struct customer *)peer)->asks + peer->sent, size);
    return size;
}

static void input(struct peer *peer, const unsigned char *data, size_t size)
{
    oracle_prefix(peer_run(peer), peer->name, peer->salt, peer->received, data, size);
}

static const struct peer_class customer_class = {.output = output, .input = input};

static void plan(struct run *run, struct customer *c, unsigned number)
{
    struct random *r = &run->random;
    struct peer_plan *p = &c->peer.plan;

    c->peer.class_ = &customer_class;
    c->peer.salt = random_word(r);
    c->frames = (size_t)random_scale(r, 1, run_size(run, FRAMES, 4));
    for (size_t i = 0; i < c->frames; i++) {
        size_t n = (size_t)random_scale(r, 0, FRAME);
        unsigned char head[4] = {(unsigned char)number, (unsigned char)random_in(r, 0, 255), (unsigned char)(n >> 8),
                                 (unsigned char)n};
        memcpy(c->asks + c->asked, head, sizeof head);
        stream_fill(~c->peer.salt, c->asked, c->asks + c->asked + sizeof head, n);
        c->asked += sizeof head + n;
    }
    p->start = random_in(r, 0, 10 * ASYNCORE_SIM_MS);
    p->total = c->asked;
    p->end = random_chance(r, 50) ? PEER_SHUTS : PEER_WAITS;
    if (random_chance(r, 50))
        p->send_piece = (size_t)random_scale(r, 1, 4000);
    if (random_chance(r, 30))
        p->send_pause = random_scale(r, 1000, ASYNCORE_SIM_MS);
    if (random_chance(r, 50))
        p->read_start = random_in(r, 0, ASYNCORE_SIM_SECOND);
    if (random_chance(r, 30)) {
        p->read_piece = (size_t)random_scale(r, 512, PEER_BUFFER);
        p->read_pause = random_scale(r, 1000, 2 * ASYNCORE_SIM_MS);
    }
}

static int start(struct run *run)
{
    struct state *state = the = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "server");
    int error = map != NULL ? asyncore_dispatcher_init(&state->server, &server_class, map) : -ENOMEM;
    char name[32];

    state->run = run;
    state->limit = (size_t)random_in(&run->random, HIGH, 20000);
    if (error == 0)
        error = asyncore_create_socket(&state->server, AF_INET, SOCK_STREAM);
    if (error == 0)
        error = asyncore_bind(&state->server, "*", "20");
    if (error == 0)
        error = asyncore_listen(&state->server, CLIENTS);
    if (error < 0)
        return error;
    run->connections = CLIENTS;
    for (unsigned i = 0; i < CLIENTS; i++) {
        plan(run, &state->customers[i], i);
        snprintf(name, sizeof name, "customer %u", i);
        peer_connect(&state->customers[i].peer, peer_host(run, "client"), name,
                     asyncore_sim_address(run->world, "server", AF_INET), 20);
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
    struct state *state = run->state;

    for (int i = 0; i < CLIENTS; i++) {
        const struct customer *c = &state->customers[i];
        oracle_done(run, c->peer.name, c->peer.state == PEER_DONE);
        oracle_no_more(run, c->peer.name, c->answered, c->peer.received);
        if (run->hard)
            continue;
        oracle_clean(run, c->peer.name, c->peer.error);
        oracle_complete(run, "the server", c->asked, c->taken);
        oracle_that(run, c->served == c->frames, "length", "%zu frames of %zu are served", c->served, c->frames);
        oracle_complete(run, c->peer.name, c->answered, c->peer.received);
        oracle_that(run, c->peer.got_end, "end", "%s got no end of stream", c->peer.name);
    }
}

const struct scenario scenario_depot = {
    .name = "depot", .separate = true, .start = start, .finish = finish, .check = check};
