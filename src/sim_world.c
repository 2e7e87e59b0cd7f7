/* sim_world.c: worlds and their time.
 *
 * A world is a heap of events (a segment arrives, a timer fires) and some hosts. A host has a turn when something stirred
 * at one of its descriptors or its wait is over: its loop runs until it would wait, which ends it with SIM_WOULD_WAIT.
 * When nobody has a turn, time jumps to whatever comes next. Turns take no time, or options.call_ns for each call: then
 * the host is busy for that long afterwards, what it did having happened along the way.
 *
 * A loop that the user runs himself, outside asyncore_sim_run(), does wait: its wait lets the others run. */
#include "map.h"
#include "sim.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURNS_STILL 1000000 /* of one host without time passing: it spins */

uint64_t sim_mix(uint64_t seed, uint64_t value)
{
    uint64_t z = seed + (value + 1) * 0x9E3779B97F4A7C15u; /* splitmix64: Steele, Lea, Flood 2014 */
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t sim_chance(struct asyncore_sim *world)
{
    return sim_mix(world->seed ^ world->time, (uint64_t)++world->draws << 32);
}

void *sim_alloc(size_t size)
{
    return calloc(1, size);
}

/* -- Events -- */

static bool event_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->time != b->time ? a->time < b->time : a->order < b->order;
}

void sim_event_add(struct asyncore_sim *world, uint64_t time,
                   void (*fn)(struct asyncore_sim *world, void *object, uint64_t argument), void *object,
                   uint64_t argument)
{
    if (world->event_count == world->event_room) {
        size_t room = world->event_room * 2 + 64;
        struct sim_event *events = realloc(world->events, room * sizeof *events);
        if (events == NULL) {
            world->failed = -ENOMEM;
            return;
        }
        world->events = events;
        world->event_room = room;
    }
    struct sim_event event = {time < world->time ? world->time : time, world->order++, fn, object, argument};
    size_t i = world->event_count++;
    for (; i > 0 && event_before(&event, &world->events[(i - 1) / 2]); i = (i - 1) / 2)
        world->events[i] = world->events[(i - 1) / 2];
    world->events[i] = event;
}

static struct sim_event event_take(struct asyncore_sim *world)
{
    struct sim_event first = world->events[0], last = world->events[--world->event_count];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < world->event_count; i = child) {
        if (child + 1 < world->event_count && event_before(&world->events[child + 1], &world->events[child]))
            child++;
        if (!event_before(&world->events[child], &last))
            break;
        world->events[i] = world->events[child];
    }
    world->events[i] = last;
    return first;
}

static void nothing(struct asyncore_sim *world, void *object, uint64_t argument)
{
    (void)world, (void)object, (void)argument;
}

void sim_events_forget(struct asyncore_sim *world, const void *object)
{
    for (size_t i = 0; i < world->event_count; i++)
        if (world->events[i].object == object)
            world->events[i].fn = nothing;
}

/* -- Hosts -- */

uint64_t sim_host_time(const struct sim_host *host)
{
    return host->world->time + host->worked;
}

static struct sim_host *host_find(const struct asyncore_sim *world, const char *name)
{
    for (size_t i = 0; name != NULL && i < world->host_count; i++)
        if (strcmp(world->hosts[i]->name, name) == 0)
            return world->hosts[i];
    return NULL;
}

static void host_free(struct sim_host *host)
{
    free(host->files);
    free(host->scripted);
    free(host->name);
    free(host);
}

static struct sim_host *host_new(struct asyncore_sim *world, const char *name)
{
    struct sim_host *host = sim_alloc(sizeof *host);
    if (host == NULL)
        return NULL;
    unsigned number = (unsigned)world->host_count + 1;
    host->world = world;
    host->index = number - 1;
    host->name = strdup(name);
    host->scripted = sim_alloc((world->options.script_count + 1) * sizeof *host->scripted);
    host->descriptors_most = world->options.descriptors;
    host->next_port = 32768; /* Linux's first (ip_local_port_range) */
    host->wake = host->until = ASYNCORE_SIM_FOREVER;
    host->stirred = true;
    host->result = 1;
    list_init(&host->sockets);
    list_init(&host->paths);
    list_init(&host->queries);
    snprintf(host->text4, sizeof host->text4, "10.0.%u.%u", number / 256 % 256, number % 256);
    snprintf(host->text6, sizeof host->text6, "fd00::%x", number);
    inet_pton(AF_INET, host->text4, &host->address4);
    inet_pton(AF_INET6, host->text6, &host->address6);
    sim_os_fill(&host->os);
    if (host->name == NULL || host->scripted == NULL) {
        host_free(host);
        return NULL;
    }
    return host;
}

struct sim_host *sim_host(struct asyncore_sim *world, const char *name)
{
    struct sim_host *host = host_find(world, name);
    if (host != NULL || world->host_count == 65534)
        return host;
    struct sim_host **hosts = realloc(world->hosts, (world->host_count + 1) * sizeof(*hosts));
    if (hosts == NULL)
        return NULL;
    world->hosts = hosts;
    host = host_new(world, name);
    if (host != NULL)
        hosts[world->host_count++] = host;
    return host;
}

struct sim_host *sim_host_at(struct asyncore_sim *world, int family, const void *address)
{
    for (size_t i = 0; i < world->host_count; i++) {
        struct sim_host *host = world->hosts[i];
        if (family == AF_INET ? memcmp(address, &host->address4, sizeof host->address4) == 0
                              : memcmp(address, &host->address6, sizeof host->address6) == 0)
            return host;
    }
    return NULL;
}

struct os *sim_os(struct asyncore_sim *world, const char *name)
{
    struct sim_host *host = sim_host(world, name);
    return host != NULL ? &host->os : NULL;
}

/* -- Links -- */

const struct asyncore_sim_link *sim_link(const struct sim_host *a, const struct sim_host *b)
{
    struct asyncore_sim *world = a->world;
    for (size_t i = world->route_count; i-- > 0;) {
        const struct sim_route *r = &world->routes[i];
        if ((r->a == NULL || r->a == a || r->a == b) && (r->b == NULL || r->b == a || r->b == b))
            return &r->link;
    }
    return &world->options.link;
}

int asyncore_sim_set_link(struct asyncore_sim *world, const char *host_a, const char *host_b,
                          const struct asyncore_sim_link *link)
{
    struct sim_route route = {NULL, NULL, *link};
    if ((host_a != NULL && (route.a = sim_host(world, host_a)) == NULL) ||
        (host_b != NULL && (route.b = sim_host(world, host_b)) == NULL))
        return -ENOMEM;
    for (size_t i = 0; i < world->route_count; i++)
        if (world->routes[i].a == route.a && world->routes[i].b == route.b) {
            memmove(&world->routes[i], &world->routes[i + 1], (--world->route_count - i) * sizeof route);
            break;
        }
    struct sim_route *routes = realloc(world->routes, (world->route_count + 1) * sizeof route);
    if (routes == NULL)
        return -ENOMEM;
    world->routes = routes;
    routes[world->route_count++] = route;
    return 0;
}

/* -- Faults and traces -- */

static int key_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool fault_left_out(const struct asyncore_sim *world, uint64_t key)
{
    return world->options.only != NULL &&
           (world->options.only_count == 0 ||
            bsearch(&key, world->only, world->options.only_count, sizeof key, key_order) == NULL);
}

bool sim_fault_drawn(struct sim_host *host, struct sim_file *file, enum asyncore_sim_fault fault)
{
    const struct asyncore_sim *world = host->world;
    const struct asyncore_sim_options *o = &world->options;
    if (host->map == NULL || (o->faults_until != 0 && world->time > o->faults_until))
        return false;
    uint32_t number = file != NULL ? file->number : 0xFFFFFF;
    uint64_t nth = (file != NULL ? file->asked : host->asked)[fault]++ & 0xFFFFFF;
    uint64_t key = (uint64_t)host->index << 52 | (uint64_t)(number & 0xFFFFFF) << 28 | (uint64_t)fault << 24 | nth;
    if ((sim_mix(world->seed, key) >> 32) * 1000000 >> 32 >= o->chances[fault] || fault_left_out(world, key))
        return false;
    if (o->fault != NULL) {
        char line[160];
        snprintf(line, sizeof line, "%llu.%09llu %s #%u %s", (unsigned long long)(world->time / ASYNCORE_SIM_SECOND),
                 (unsigned long long)(world->time % ASYNCORE_SIM_SECOND), host->name, number,
                 asyncore_sim_fault_name(fault));
        o->fault(o->arg, key, line);
    }
    return true;
}

void sim_trace_line(struct sim_host *host, const char *format, ...)
{
    const struct asyncore_sim_options *o = &host->world->options;
    char line[512];
    uint64_t time = sim_host_time(host);
    int n = snprintf(line, sizeof line, "%llu.%09llu %s ", (unsigned long long)(time / ASYNCORE_SIM_SECOND),
                     (unsigned long long)(time % ASYNCORE_SIM_SECOND), host->name);
    va_list arguments;
    va_start(arguments, format);
    if (n > 0 && (size_t)n < sizeof line)
        vsnprintf(line + n, sizeof line - (size_t)n, format, arguments);
    va_end(arguments);
    o->trace(o->arg, line);
}

const char *asyncore_sim_fault_name(enum asyncore_sim_fault fault)
{
    static const char *const names[ASYNCORE_SIM_FAULTS] = {"short",   "eagain",  "eintr",  "spurious",
                                                           "reorder", "linger",  "reset",  "aborted",
                                                           "emfile",  "enobufs", "enomem", "names"};
    return (unsigned)fault < ASYNCORE_SIM_FAULTS ? names[fault] : NULL;
}

/* -- Turns -- */

static bool host_ended(const struct sim_host *host)
{
    return (host->map == NULL && host->step == NULL) || host->result != 1;
}

/* When the host will have a turn if nothing happens until then. */
static uint64_t host_next(const struct sim_host *host)
{
    if (host_ended(host) || host->waited)
        return ASYNCORE_SIM_FOREVER;
    uint64_t next = host->stirred ? host->world->time : host->wake;
    return next < host->busy_until ? host->busy_until : next;
}

static void host_turn(struct sim_host *host)
{
    struct asyncore_sim *world = host->world;
    bool was_running = world->running;
    host->stirred = false;
    host->wake = ASYNCORE_SIM_FOREVER;
    world->running = true;
    if (host->map == NULL) {
        host->step(host->step_arg);
    } else {
        int result = asyncore_loop(host->map, -1, 0);
        host->result = result == SIM_WOULD_WAIT ? 1 : result > 0 ? 0 : result;
        sim_trace(host, "turn = %d", host->result);
    }
    world->running = was_running;
    host->busy_until = sim_host_time(host);
    host->worked = 0;
}

/* A turn for each host that may have one, in an order that the seed decides. Whether there was any. */
static bool hosts_turn(struct asyncore_sim *world)
{
    size_t first = sim_mix(world->seed, world->time) % world->host_count;
    bool ran = false;
    for (size_t i = 0; i < world->host_count && world->failed == 0; i++) {
        struct sim_host *host = world->hosts[(first + i) % world->host_count];
        if (host_next(host) <= world->time) {
            host_turn(host);
            ran = true;
        }
    }
    return ran;
}

/* A turn for each host that may have one, or the next events. False: there is nothing before `until`. */
static bool world_step(struct asyncore_sim *world, uint64_t until)
{
    uint64_t next = world->event_count != 0 ? world->events[0].time : ASYNCORE_SIM_FOREVER;
    for (size_t i = 0; i < world->host_count; i++) {
        uint64_t time = host_next(world->hosts[i]);
        next = time < next ? time : next;
    }
    if (next <= world->time && world->host_count != 0 && hosts_turn(world))
        return true;
    if (next > until || next == ASYNCORE_SIM_FOREVER)
        return false;
    world->time = next;
    while (world->event_count != 0 && world->events[0].time <= world->time) {
        struct sim_event event = event_take(world);
        event.fn(world, event.object, event.argument);
    }
    return true;
}

/* Within asyncore_sim_run. One wait is let through for each turn that takes time: the next begins when it is over. A wait
 * that is told again, because something stirred that it does not wait for, ends when it was to. */
static int wait_running(struct sim_host *host, int timeout, int (*ready)(void *arg), void *arg)
{
    struct asyncore_sim *world = host->world;
    if (world->failed != 0 || (host->worked != 0 && timeout != 0)) {
        host->stirred = true;
        return SIM_WOULD_WAIT;
    }
    if (host->still_at != world->time)
        host->still = 0;
    host->still_at = world->time;
    if (++host->still > TURNS_STILL)
        world->failed = -ELOOP;
    int result = ready(arg);
    uint64_t until = timeout < 0 ? ASYNCORE_SIM_FOREVER : world->time + (uint64_t)timeout * ASYNCORE_SIM_MS;
    if (until > host->until)
        until = host->until;
    host->until = ASYNCORE_SIM_FOREVER;
    if (result != 0 || until <= world->time)
        return result;
    host->wake = host->until = until;
    return SIM_WOULD_WAIT;
}

/* By the user's own loop: the others run meanwhile. */
static int wait_alone(struct sim_host *host, int timeout, int (*ready)(void *arg), void *arg)
{
    struct asyncore_sim *world = host->world;
    uint64_t until = timeout < 0 ? ASYNCORE_SIM_FOREVER : sim_host_time(host) + (uint64_t)timeout * ASYNCORE_SIM_MS;
    int result = 0;
    host->busy_until = sim_host_time(host);
    host->worked = 0;
    while ((result = ready(arg)) == 0 && world->failed == 0 && timeout != 0 && world->time < until) {
        host->stirred = false;
        host->waited = true;
        host->wake = until;
        while (!host->stirred && host->wake > world->time && world_step(world, host->wake))
            ;
        host->waited = false;
        if (!host->stirred && host->wake == ASYNCORE_SIM_FOREVER)
            return -EDEADLK; /* nothing will ever happen */
        if (!host->stirred) {
            world->time = host->wake > world->time ? host->wake : world->time;
            return ready(arg);
        }
    }
    return world->failed != 0 ? world->failed : result;
}

int sim_wait(struct sim_host *host, int timeout, int (*ready)(void *arg), void *arg)
{
    int result = host->world->running ? wait_running(host, timeout, ready, arg) : wait_alone(host, timeout, ready, arg);
    host->usage.turns += result != SIM_WOULD_WAIT; /* the same wait, told again, is no other turn */
    return result;
}

static void stir_all(struct asyncore_sim *world)
{
    for (size_t i = 0; i < world->host_count; i++) {
        world->hosts[i]->stirred = true;
        if (world->hosts[i]->result == 0)
            world->hosts[i]->result = 1;
    }
}

/* -- The user's side -- */

static void defaults(struct asyncore_sim_options *o)
{
    if (o->link.delay == 0 && o->link.jitter == 0 && o->link.bandwidth == 0)
        o->link.delay = 50 * ASYNCORE_SIM_US;
    if (o->descriptors == 0)
        o->descriptors = 1024;
    if (o->send_buffer == 0)
        o->send_buffer = 65536;
    if (o->receive_buffer == 0)
        o->receive_buffer = 65536;
    if (o->pipe_buffer == 0)
        o->pipe_buffer = 65536;
    if (o->pipe_buffer < 4096) /* a page is the least (pipe(7)), or the pipe would never be writable */
        o->pipe_buffer = 4096;
}

int asyncore_sim_new_(struct asyncore_sim **ret, uint64_t seed, const struct asyncore_sim_options *options, size_t size,
                      unsigned abi)
{
    if (size != sizeof *options || abi != ASYNCORE_ABI)
        return -EINVAL;
    struct asyncore_sim *world = sim_alloc(sizeof *world);
    if (world == NULL)
        return -ENOMEM;
    if (options != NULL)
        world->options = *options;
    defaults(&world->options);
    world->seed = seed;
    if (world->options.only_count != 0) {
        size_t bytes = world->options.only_count * sizeof *world->only;
        world->only = malloc(bytes);
        if (world->only == NULL) {
            free(world);
            return -ENOMEM;
        }
        memcpy(world->only, options->only, bytes);
        qsort(world->only, world->options.only_count, sizeof *world->only, key_order);
    }
    *ret = world;
    return 0;
}

void asyncore_sim_free(struct asyncore_sim *world)
{
    if (world == NULL)
        return;
    for (size_t i = 0; i < world->host_count; i++)
        if (world->hosts[i]->map != NULL)
            asyncore_map_free(world->hosts[i]->map);
    for (size_t i = 0; i < world->host_count; i++)
        sim_sockets_clear(world->hosts[i]);
    world->closing = true;
    while (world->event_count != 0) { /* what is under way lets go of its connection */
        struct sim_event event = event_take(world);
        event.fn(world, event.object, event.argument);
    }
    for (size_t i = 0; i < world->host_count; i++)
        host_free(world->hosts[i]);
    sim_names_clear(world);
    free(world->events);
    free(world->routes);
    free(world->hosts);
    free(world->only);
    free(world);
}

struct asyncore_map *asyncore_sim_map(struct asyncore_sim *world, const char *name)
{
    struct sim_host *host = sim_host(world, name);
    if (host == NULL)
        return NULL;
    if (host->map == NULL) {
        struct asyncore_map_options options = {.engine = world->options.engine};
        struct asyncore_map *map;
        if (map_new_on(&map, &host->os, &options) < 0)
            return NULL;
        host->map = map;
    }
    return host->map;
}

int asyncore_sim_map_free(struct asyncore_sim *world, const char *name)
{
    struct sim_host *host = host_find(world, name);
    if (host == NULL || host->map == NULL)
        return -ENOENT;
    int result = asyncore_map_free(host->map);
    if (result == 0)
        host->map = NULL;
    return result;
}

const char *asyncore_sim_address(struct asyncore_sim *world, const char *name, int family)
{
    struct sim_host *host = sim_host(world, name);
    return host == NULL ? NULL : family == AF_INET6 ? host->text6 : host->text4;
}

int asyncore_sim_run(struct asyncore_sim *world, uint64_t until)
{
    if (world->entered || world->running)
        return -EBUSY;
    world->entered = true;
    world->failed = 0;
    stir_all(world);
    while (world->failed == 0 && world_step(world, until))
        ;
    world->entered = false;
    if (world->failed != 0)
        return world->failed;
    if (until != ASYNCORE_SIM_FOREVER && until > world->time)
        world->time = until;
    if (world->event_count != 0)
        return 1;
    for (size_t i = 0; i < world->host_count; i++)
        if (host_next(world->hosts[i]) != ASYNCORE_SIM_FOREVER)
            return 1;
    return 0;
}

uint64_t asyncore_sim_now(const struct asyncore_sim *world)
{
    return world->time;
}

struct call {
    void (*fn)(struct asyncore_sim *world, void *arg);
    void *arg;
};

static void call_made(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct call call = *(struct call *)object;
    (void)argument;
    free(object);
    if (world->closing)
        return;
    call.fn(world, call.arg);
    stir_all(world);
}

int asyncore_sim_at(struct asyncore_sim *world, uint64_t time, void (*fn)(struct asyncore_sim *world, void *arg),
                    void *arg)
{
    struct call *call = sim_alloc(sizeof *call);
    if (call == NULL)
        return -ENOMEM;
    *call = (struct call){fn, arg};
    sim_event_add(world, time, call_made, call, 0);
    return 0;
}

int asyncore_sim_result(const struct asyncore_sim *world, const char *name)
{
    const struct sim_host *host = host_find(world, name);
    return host == NULL ? -ENOENT : host->result;
}

int asyncore_sim_jump(struct asyncore_sim *world, const char *name, uint64_t ahead)
{
    struct sim_host *host = host_find(world, name);
    if (host == NULL)
        return -ENOENT;
    host->ahead += ahead;
    if (host->wake != ASYNCORE_SIM_FOREVER)
        host->wake = host->until = host->wake > world->time + ahead ? host->wake - ahead : world->time;
    for (unsigned fd = 0; fd < host->file_room; fd++)
        if (host->files[fd] != NULL)
            sim_timer_jumped(host->files[fd]);
    return 0;
}

int asyncore_sim_raise(struct asyncore_sim *world, const char *name, int number)
{
    struct sim_host *host = host_find(world, name);
    if (host == NULL)
        return -ENOENT;
    if (number < 1 || number > SIM_SIGNALS)
        return -EINVAL;
    sim_signal_raised(host, number);
    return 0;
}

int asyncore_sim_pipe(struct asyncore_sim *world, const char *name, int fds[2])
{
    struct sim_host *host = sim_host(world, name);
    return host == NULL ? -ENOMEM : sim_pipe(host, fds);
}

int asyncore_sim_set_name(struct asyncore_sim *world, const char *name, const char *addresses, uint32_t ttl,
                          uint64_t delay, int error)
{
    return sim_set_name(world, name, addresses, ttl, delay, error);
}

int asyncore_sim_set_descriptors(struct asyncore_sim *world, const char *name, unsigned count)
{
    struct sim_host *host = sim_host(world, name);
    if (host == NULL)
        return -ENOMEM;
    host->descriptors_most = count;
    return 0;
}

int asyncore_sim_usage(const struct asyncore_sim *world, const char *name, struct asyncore_sim_usage *usage)
{
    const struct sim_host *host = host_find(world, name);
    if (host == NULL)
        return -ENOENT;
    *usage = host->usage;
    usage->descriptors = host->descriptors;
    return 0;
}

/* -- For tests -- */

void sim_set_step(struct asyncore_sim *world, const char *name, void (*step)(void *arg), void *arg)
{
    struct sim_host *host = sim_host(world, name);
    if (host == NULL)
        return;
    host->step = step;
    host->step_arg = arg;
    host->stirred = true;
}

void sim_wake(struct asyncore_sim *world, const char *name, uint64_t time)
{
    struct sim_host *host = host_find(world, name);
    if (host != NULL && time < host->wake)
        host->wake = time;
}
