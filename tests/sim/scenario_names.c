/* scenario_names.c: lookups that are answered soon, late, never, with several addresses or with an error; some are
 * cancelled, some begun again from within. And channels that connect to names whose first address refuses, is not
 * reachable or says nothing. */
#include "oracle.h"
#include "peer.h"
#include "scenario.h"
#include "witness.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    LOOKUPS = 24,
    CALLS = 8,
    NAMES = 10
};

struct name {
    char name[32], addresses[160];
    uint64_t delay;
    int error;
    size_t count;
};

struct query {
    struct asyncore_lookup lookup;
    struct asyncore_timer cancel;
    struct run *run;
    const struct name *name;
    unsigned again;
    int asked; /* what asyncore_resolve said */
    bool waiting, cancelled;
};

struct call {
    struct asyncore_dispatcher base;
    struct run *run;
    struct asyncore_timer begin;
    const char *target;
    bool patient, reachable, connected, closed;
    int error;
};

struct state {
    struct name names[NAMES];
    struct query queries[LOOKUPS];
    struct call calls[CALLS];
    struct peer listener;
    struct peer servers[CALLS];
    bool in_resolve;
    int lookups, call_count;
};

static struct state *state_of(const struct run *run)
{
    return run->state;
}

static void ask(struct query *q);

static void answered(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses, size_t count,
                     void *arg)
{
    struct query *q = arg;
    const struct name *name = q->name;
    struct run *run = q->run;
    char port[8] = "";

    oracle_that(run, q->waiting && !q->cancelled && lookup == &q->lookup, "cancelled",
                "%s is answered, and was not asked for", name->name);
    oracle_that(run, !state_of(run)->in_resolve, "handler", "%s is answered within the call", name->name);
    q->waiting = false;
    if (error == 0) {
        oracle_that(run, name->error == 0 && count == name->count, "answer", "%s has %zu addresses instead of %zu",
                    name->name, count, name->count);
        for (size_t i = 0; i < count; i++) {
            const struct sockaddr_in *in = (const struct sockaddr_in *)&addresses[i].address;
            snprintf(port, sizeof port, "%u", ntohs(in->sin_port)); /* at the same place for IPv6 */
            oracle_that(run, strcmp(port, "80") == 0, "answer", "%s has port %s", name->name, port);
        }
    } else {
        oracle_that(run, count == 0 && (run->hard || error == name->error), "answer",
                    "%s is answered by %s instead of %s", name->name, asyncore_strerror(error),
                    name->error ? asyncore_strerror(name->error) : "addresses");
    }
    if (q->again > 0) {
        q->again--;
        ask(q);
    }
}

static void ask(struct query *q)
{
    struct state *state = state_of(q->run);

    state->in_resolve = true;
    q->waiting = true;
    q->asked = asyncore_resolve(run_map(q->run, "client"), &q->lookup, q->name->name, "80", AF_UNSPEC, answered, q);
    state->in_resolve = false;
    if (q->asked < 0) {
        q->waiting = false;
        oracle_that(q->run, q->run->hard, "clean", "%s cannot be asked for: %s", q->name->name,
                    asyncore_strerror(q->asked));
    }
}

static void cancel(struct asyncore_timer *timer, void *arg)
{
    struct query *q = arg;

    (void)timer;
    asyncore_resolve_cancel(&q->lookup);
    q->cancelled = q->waiting;
    q->waiting = false;
    if (q->cancelled && q->again > 0) {
        q->cancelled = false;
        ask(q);
    }
}

/* -- Channels -- */

static int call_connect(struct asyncore_dispatcher *d)
{
    struct call *c = (struct call *)d;

    oracle_that(c->run, !c->connected && !c->closed, "handler", "handle_connect for the second time");
    c->connected = true;
    return asyncore_shutdown(d, SHUT_WR); /* the server answers with its own end */
}

static int call_read(struct asyncore_dispatcher *d)
{
    char data[16];

    return (int)asyncore_recv(d, data, sizeof data);
}

static int call_close(struct asyncore_dispatcher *d)
{
    ((struct call *)d)->closed = true;
    if (asyncore_error(d) != 0)
        ((struct call *)d)->error = asyncore_error(d);
    return asyncore_close(d);
}

static int call_error(struct asyncore_dispatcher *d, int error)
{
    ((struct call *)d)->error = error;
    return call_close(d);
}

static const struct asyncore_class call_class = {.name = "call",
                                                 .handle_connect = call_connect,
                                                 .handle_read = call_read,
                                                 .handle_close = call_close,
                                                 .handle_error = call_error};

static struct peer *accepted(struct peer *listener)
{
    struct state *state = listener->owner;
    struct peer *peer = &state->servers[listener->accepts % CALLS];

    peer->plan.end = PEER_WAITS;
    return listener->accepts < CALLS ? peer : NULL;
}

/* -- The beginning -- */

static void add_address(struct name *n, const char *address)
{
    size_t used = strlen(n->addresses);

    snprintf(n->addresses + used, sizeof n->addresses - used, "%s%s", used > 0 ? "," : "", address);
    n->count++;
}

static void draw_name(struct run *run, struct name *n, int number)
{
    struct random *r = &run->random;
    static const int errors[] = {ASYNCORE_ENONAME, ASYNCORE_ENAMESERVER};
    char address[64];

    snprintf(n->name, sizeof n->name, "name%d.test", number);
    n->delay = random_chance(r, 20) ? 0 : random_scale(r, 1000, 30 * ASYNCORE_SIM_SECOND);
    if (number == 0) { /* /etc/hosts */
        snprintf(n->name, sizeof n->name, "other");
        n->count = 2;
    } else if (number == 1) { /* numeric */
        snprintf(n->name, sizeof n->name, "192.0.2.%u", (unsigned)random_in(r, 1, 254));
        n->count = 1;
    } else if (number == 2) { /* nobody knows it */
        n->error = ASYNCORE_ENONAME;
    } else if (random_chance(r, 30)) {
        n->error = errors[random_in(r, 0, 1)];
        asyncore_sim_set_name(run->world, n->name, NULL, 60, n->delay, n->error);
    } else {
        for (uint64_t i = random_in(r, 1, 4); i > 0; i--) {
            snprintf(address, sizeof address, random_chance(r, 50) ? "192.0.2.%u" : "2001:db8::%u", (unsigned)i);
            add_address(n, address);
        }
        asyncore_sim_set_name(run->world, n->name, n->addresses, 60, n->delay, 0);
    }
}

static const char *draw_target(struct run *run, struct call *c, int number)
{
    static const char *const bad[] = {"refuses", "unreachable", "silent"};
    struct random *r = &run->random;
    struct name target = {.count = 0};

    snprintf(target.name, sizeof target.name, "call%d.test", number);
    for (uint64_t i = random_in(r, 0, 3); i > 0; i--) {
        add_address(&target, asyncore_sim_address(run->world, bad[random_in(r, 0, 2)], AF_INET));
    }
    c->reachable = random_chance(r, 70) || target.count == 0;
    if (c->reachable)
        add_address(&target, asyncore_sim_address(run->world, "server", AF_INET));
    asyncore_sim_set_name(run->world, target.name, target.addresses, 60, random_scale(r, 0, 5 * ASYNCORE_SIM_SECOND),
                          0);
    return strcpy(run_alloc(run, sizeof target.name), target.name);
}

static void begin_call(struct asyncore_timer *timer, void *arg)
{
    struct call *c = arg;
    int error = 0;

    (void)timer;
    if (c->patient)
        error = asyncore_set_idle_timeout(&c->base, 600000); /* longer than anything here takes */
    if (error == 0)
        error = asyncore_connect(&c->base, c->target, "80");
    if (error == 0)
        return;
    oracle_that(c->run, c->run->hard, "clean", "a call cannot begin: %s", asyncore_strerror(error));
    call_error(&c->base, error);
}

/* They begin one after the other, so that no two of them time out at the same instant. */
static int start_call(struct run *run, struct asyncore_map *map, struct call *c, int number)
{
    int error = asyncore_dispatcher_init(&c->base, &call_class, map);

    c->run = run;
    c->target = draw_target(run, c, number);
    c->patient = random_chance(&run->random, 20);
    return error == 0 ? asyncore_call_later(map, &c->begin, (uint64_t)number * 50 + random_in(&run->random, 0, 49),
                                            begin_call, c)
                      : error;
}

/* A channel that has not begun is in no map, and may have a timer. */
static void forget_calls(struct state *state)
{
    for (int i = 0; i < CALLS; i++)
        asyncore_fini(&state->calls[i].base);
}

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "client");
    struct random *r = &run->random;
    struct asyncore_sim_link link = run->options.link;
    int error = map != NULL ? 0 : -ENOMEM;

    state->listener.owner = state;
    peer_listen(&state->listener, peer_host(run, "server"), 80, accepted);
    link.down = -EHOSTUNREACH;
    asyncore_sim_set_link(run->world, "client", "unreachable", &link);
    link.down = -ETIMEDOUT;
    asyncore_sim_set_link(run->world, "client", "silent", &link);
    asyncore_sim_address(run->world, "other", AF_INET);
    for (int i = 0; i < NAMES; i++)
        draw_name(run, &state->names[i], i);
    run->connections = CALLS;
    state->lookups = (int)run_size(run, LOOKUPS, 8);
    state->call_count = (int)run_size(run, CALLS, 3);
    run->free_turns = 10000;
    for (int i = 0; i < state->call_count && error == 0; i++)
        error = start_call(run, map, &state->calls[i], i);
    for (int i = 0; i < state->lookups && error == 0; i++) {
        struct query *q = &state->queries[i];
        q->run = run;
        q->name = &state->names[random_in(r, 0, NAMES - 1)];
        q->again = random_chance(r, 30) ? (unsigned)random_in(r, 1, 3) : 0;
        ask(q);
        if (random_chance(r, 30))
            error = asyncore_call_later(map, &q->cancel, random_scale(r, 0, 30000), cancel, q);
    }
    if (error < 0)
        forget_calls(state);
    return error;
}

static void finish(struct run *run)
{
    if (run->loop_failed)
        forget_calls(state_of(run));
    peer_close_listener(&state_of(run)->listener);
}

static void check(struct run *run)
{
    const struct state *state = state_of(run);

    for (int i = 0; i < state->lookups; i++)
        oracle_that(run, !state->queries[i].waiting, "stuck", "%s was never answered", state->queries[i].name->name);
    for (int i = 0; i < state->call_count; i++) {
        const struct call *c = &state->calls[i];
        oracle_that(run, c->closed, "stuck", "call %d did not come to an end", i);
        oracle_that(run, c->connected || c->error != 0, "end", "call %d ended without a reason", i);
        if (run->hard)
            continue;
        oracle_that(run, c->connected == c->reachable, "complete", "call %d %s: %s", i,
                    c->reachable ? "did not connect" : "connected to nowhere", asyncore_strerror(c->error));
        if (c->connected)
            oracle_clean(run, "a call", c->error);
    }
}

const struct scenario scenario_names = {
    .name = "names", .separate = true, .start = start, .finish = finish, .check = check};
