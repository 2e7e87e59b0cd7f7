/* loop.c: maps and their turns.
 *
 * A turn asks the channels that have predicates, brings what changed to the engine, waits, serves what is ready, runs
 * what is due, and destroys what was closed:
 *
 *     ask -> flush -> wait -> serve -> timers -> reap
 *
 * The engine only fills the batch; every handler runs from here, one at a time. map->serving is the channel whose
 * handler runs, and map->open says whether it was closed since: whoever calls a handler looks at that afterwards and
 * not at the channel. A turn belongs to a thread (map->owner); asyncore_loop takes the map once for all its turns.
 *
 * What keeps asyncore_loop running is counted in map->foreground: channels, timers and lookups add themselves. */
#include "channel.h"
#include "engine.h"
#include "map.h"
#include "watch.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct engine *const engines[] = {&engine_epoll, &engine_poll, &engine_select};

/* Every map there is, so that a child of fork() finds them. */
static link_t maps = {&maps, &maps};
static pthread_mutex_t maps_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t default_lock = PTHREAD_MUTEX_INITIALIZER; /* taken before maps_lock */
static _Atomic(struct asyncore_map *) default_map;

/* The innermost map that this thread is in a turn of; the others are `around` it. */
static _Thread_local struct asyncore_map *innermost;

static unsigned fork_count; /* moves in the child only, where there is one thread */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void fork_prepare(void)
{
    pthread_mutex_lock(&default_lock);
    pthread_mutex_lock(&maps_lock);
}

static void fork_done(void)
{
    pthread_mutex_unlock(&maps_lock);
    pthread_mutex_unlock(&default_lock);
}

/* What is not refused by the counter is by the kernel table: a child must not take its parent's bytes. */
static void fork_child(void)
{
    fork_count++;
    for (link_t *link = maps.next; link != &maps; link = link->next) {
        struct asyncore_map *map = owner_of(link, struct asyncore_map, link);
        if (map->os == &os_linux)
            map->os = os_linux_forked();
    }
    fork_done();
}

static void fork_watch(void)
{
    pthread_atfork(fork_prepare, fork_done, fork_child);
}

static void maps_add(struct asyncore_map *map)
{
    pthread_mutex_lock(&maps_lock);
    list_append(&maps, &map->link);
    pthread_mutex_unlock(&maps_lock);
}

static void maps_remove(struct asyncore_map *map)
{
    pthread_mutex_lock(&maps_lock);
    list_unlink(&map->link);
    pthread_mutex_unlock(&maps_lock);
}

int map_forked(struct asyncore_map *map)
{
    return map->forks == fork_count ? 0 : -ECHILD;
}

bool map_in_turn(struct asyncore_map *map)
{
    return atomic_load_explicit(&map->owner, memory_order_relaxed) == pthread_self();
}

bool map_elsewhere(struct asyncore_map *map)
{
    pthread_t owner = atomic_load(&map->owner);
    return owner != 0 && owner != pthread_self();
}

int map_enter(struct asyncore_map *map)
{
    int result = 0;
    pthread_mutex_lock(&map->lock);
    if (atomic_load(&map->owner) != 0 || map->making != NULL) /* handle_socket, outside a turn: its channel must stay */
        result = -EBUSY;
    else
        atomic_store(&map->owner, pthread_self());
    pthread_mutex_unlock(&map->lock);
    if (result == 0) {
        map->around = innermost;
        innermost = map;
    }
    return result;
}

void map_leave(struct asyncore_map *map)
{
    struct asyncore_map **at = &innermost;
    while (*at != NULL && *at != map) /* in the order of the stack, but a host may have several */
        at = &(*at)->around;
    if (*at != NULL)
        *at = map->around;
    pthread_mutex_lock(&map->lock);
    changes_apply(map); /* while nobody is in a turn none is queued: their order holds */
    atomic_store(&map->owner, (pthread_t)0);
    pthread_mutex_unlock(&map->lock);
}

/* A channel that moved in its own handler is in another map than the one whose handler it still is in; and that other
 * map may serve it in a turn within that handler. */
struct asyncore_map *map_serving(const struct asyncore_dispatcher *d)
{
    struct asyncore_map *found = NULL;
    for (struct asyncore_map *map = innermost; map != NULL; map = map->around)
        if (map->serving == d)
            found = map;
    return found;
}

uint64_t map_now(struct asyncore_map *map)
{
    if (!map->clock_read) {
        map->now = map->os->now(map->os);
        map->clock_read = true;
    }
    return map->now;
}

/* -- Making and freeing -- */

static int options_fill(struct asyncore_map *map, const struct asyncore_map_options *options)
{
    struct asyncore_map_options *o = &map->options;
    if (options != NULL)
        *o = *options;
    if (o->engine == NULL)
        o->engine = getenv("ASYNCORE_ENGINE");
    if (o->engine == NULL || *o->engine == '\0')
        o->engine = "epoll";
    if (strcmp(o->engine, "io_uring") == 0) /* until there is one: readiness all the same */
        o->engine = "epoll";
    if (o->accepts_per_turn == 0)
        o->accepts_per_turn = 64;
    if (o->timers_per_turn == 0)
        o->timers_per_turn = 1024;
    if (o->accept_pause == 0)
        o->accept_pause = 100;
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++)
        if (strcmp(engines[i]->name, o->engine) == 0)
            map->engine = engines[i];
    return map->engine == NULL ? -EINVAL : 0;
}

static int wake_open(struct asyncore_map *map)
{
    int fd = map->os->eventfd(map->os);
    if (fd < 0)
        return fd;
    int result = watch_add(map, fd, WATCH_WAKE, NULL, ASYNCORE_READ);
    if (result < 0) {
        map->os->close(fd, map->os);
        return result;
    }
    map->wake_fd = fd;
    return 0;
}

static void wake_close(struct asyncore_map *map)
{
    if (map->wake_fd < 0)
        return;
    watch_closing(map, map->wake_fd);
    map->os->close(map->wake_fd, map->os);
    map->wake_fd = -1;
}

static void outer_close(struct asyncore_map *map)
{
    if (map->outer < 0)
        return;
    map->os->close(map->outer, map->os);
    map->os->close(map->outer_timer, map->os);
    map->outer = map->outer_timer = -1;
}

static void map_destroy(struct asyncore_map *map)
{
    maps_remove(map);
    channels_clear(map);
    lookups_clear(map);
    timers_clear(map);
    wake_close(map);
    outer_close(map);
    watches_clear(map);
    map_release(map, map->view);
    map_release(map, map->batch);
    map_release(map, (void *)(uintptr_t)map->options.name_servers);
    pthread_mutex_destroy(&map->lock);
    map_release(map, map);
}

/* The map's own copy of a text of the options. */
static int keep_text(struct asyncore_map *map, const char **text)
{
    size_t size = *text != NULL ? strlen(*text) + 1 : 0;
    char *copy = size != 0 ? map_alloc(map, size) : NULL;
    if (size != 0 && copy != NULL)
        memcpy(copy, *text, size);
    bool failed = size != 0 && copy == NULL;
    *text = copy;
    return failed ? -ENOMEM : 0;
}

static int map_open(struct asyncore_map *map, const struct asyncore_map_options *options)
{
    int result = options_fill(map, options);
    map->options.engine = NULL;
    int kept = keep_text(map, &map->options.name_servers);
    if (result < 0 || kept < 0)
        return result < 0 ? result : kept;
    map->batch = map_alloc(map, BATCH * sizeof *map->batch);
    if (map->batch == NULL || timers_init(map) < 0)
        return -ENOMEM;
    result = map->engine->open(map);
    return result < 0 ? result : wake_open(map);
}

int map_new_on(struct asyncore_map **ret, struct os *os, const struct asyncore_map_options *options)
{
    pthread_once(&fork_once, fork_watch);
    struct asyncore_map *map = os->alloc(sizeof *map, os);
    if (map == NULL)
        return -ENOMEM;
    memset(map, 0, sizeof *map);
    map->os = os;
    map->forks = fork_count;
    map->dirty = map->set = map->accepted = map->wake_fd = map->outer = map->outer_timer = -1;
    pthread_mutex_init(&map->lock, NULL);
    maps_add(map);
    link_t *lists[] = {&map->all, &map->asked, &map->pending, &map->resting, &map->dead, &map->lookups, &map->answered};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    int result = map_open(map, options);
    if (result < 0) {
        if (map->engine == NULL)
            map->engine = &engine_poll; /* so that there is something to close */
        map_destroy(map);
        return result;
    }
    *ret = map;
    return 0;
}

int asyncore_map_new_(struct asyncore_map **ret, const struct asyncore_map_options *options, size_t size, unsigned abi)
{
    if (size != sizeof *options || abi != ASYNCORE_ABI)
        return -EINVAL;
    return map_new_on(ret, &os_linux, options);
}

static int default_get(struct asyncore_map **map)
{
    int result = 0;
    *map = atomic_load(&default_map);
    if (*map != NULL)
        return 0;
    pthread_mutex_lock(&default_lock);
    *map = atomic_load(&default_map);
    if (*map == NULL)
        result = map_new_on(map, &os_linux, NULL);
    if (result == 0) {
        (*map)->home = pthread_self();
        atomic_store(&default_map, *map);
    }
    pthread_mutex_unlock(&default_lock);
    return result;
}

int map_get_any(struct asyncore_map **map)
{
    int result = *map == NULL ? default_get(map) : 0;
    return result < 0 ? result : map_forked(*map);
}

int map_get(struct asyncore_map **map)
{
    bool by_default = *map == NULL;
    int result = map_get_any(map);
    if (result < 0)
        return result;
    return by_default && (*map)->home != pthread_self() ? -EPERM : 0;
}

int asyncore_map_free(struct asyncore_map *map)
{
    if (map == NULL && atomic_load(&default_map) == NULL)
        return 0;
    int result = map_get(&map);
    if (result < 0)
        return result;
    if (atomic_load(&map->owner) != 0 || map->making != NULL)
        return -EBUSY;
    if (map == atomic_load(&default_map))
        atomic_store(&default_map, NULL);
    map_destroy(map);
    return 0;
}

int asyncore_after_fork(struct asyncore_map *map)
{
    if (map == NULL && (map = atomic_load(&default_map)) == NULL)
        return 0;
    if (map_forked(map) == 0)
        return 0;
    map->forks = fork_count;
    if (map->os == os_linux_forked())
        map->os = &os_linux;
    pthread_mutex_init(&map->lock, NULL); /* another thread of the parent may have held it */
    if (!map_in_turn(map))
        atomic_store(&map->owner, (pthread_t)0);
    if (map->home != 0)
        map->home = pthread_self();
    map->duplicates = true; /* the parent's */
    int result = watches_rebuild(map);
    wake_close(map);
    atomic_store(&map->woken, false);
    outer_close(map);
    names_restart(map);
    return result < 0 ? result : wake_open(map);
}

/* -- Turns -- */

/* No longer than asked and the nearest timer, which there is. */
HOT int timer_wait(struct asyncore_map *map, int timeout)
{
    uint64_t deadline = map->heap[0].deadline, now = map->clock_read ? map->now : map_now(map);
    uint64_t ms = deadline <= now ? 0 : (deadline - now + NS_PER_MS - 1) / NS_PER_MS;
    uint64_t bound = timeout < 0 ? INT_MAX : (unsigned)timeout;
    return (int)(ms < bound ? ms : bound);
}

/* How long the engine may wait, which is not at all while work is at hand. */
int wait_time(struct asyncore_map *map, int timeout)
{
    if (map->work & (WORK_PENDING | WORK_ANSWERED | WORK_POSTED))
        return 0;
    return map->heap_count == 0 ? timeout : timer_wait(map, timeout);
}

/* Read before the flag falls: whoever wakes the map from then on writes again. */
RARE void wake_drain(struct asyncore_map *map)
{
    uint64_t count;
    map->os->read(map->wake_fd, &count, sizeof count, map->os);
    atomic_exchange(&map->woken, false); /* and sees what was posted before the flag rose: not just a store */
    map->work |= WORK_POSTED | (atomic_load(&map->stopped) ? WORK_STOP : 0);
}

HOT void dispatch(struct asyncore_map *map, const struct asyncore_event *event)
{
    struct watch *w = event->owner;
    if (w->serial != event->serial)
        return; /* closed since, by a handler of this batch */
    unsigned events = event->events & (w->wanted | ASYNCORE_ERROR | ASYNCORE_HANGUP | POLLNVAL);
    if (w->kind == WATCH_CHANNEL && events != 0)
        channel_serve(map, w->owner, events);
    else if (w->kind == WATCH_WAKE)
        wake_drain(map);
    else if (w->kind == WATCH_NAMES)
        names_event(map, event->fd, event->events);
}

/* The reasons that have not gone: what others posted announces itself by the wake-up. */
void work_left(struct asyncore_map *map)
{
    map->rounds++;
    map->work = (map->work & (WORK_REBUILD | WORK_STOP | WORK_TIMERS)) |
                (list_empty(&map->asked) ? 0 : WORK_ASKED | (map->work & WORK_UNASKED)) |
                (list_empty(&map->pending) ? 0 : WORK_PENDING) |
                (map->dirty < 0 ? 0 : WORK_DIRTY) | (map->always_count == 0 ? 0 : WORK_ALWAYS) |
                (posted_waiting(map) ? WORK_POSTED : 0) | (list_empty(&map->answered) ? 0 : WORK_ANSWERED) |
                (list_empty(&map->dead) ? 0 : WORK_DEAD);
}

static bool idle(struct asyncore_map *map)
{
    return map->foreground == 0 && !posted_waiting(map) && list_empty(&map->answered);
}

/* What is to be done before the wait, and the wait. Handlers may run here already: then there may be nothing left to
 * wait for. */
static RARE int wait_rare(struct asyncore_map *map, int timeout)
{
    bool was_idle = idle(map);
    unsigned stop = map->work & WORK_STOP;
    changes_run(map);
    if (map->work & WORK_PENDING)
        channels_flush(map);
    if (map->work & WORK_ASKED)
        channels_ask(map);
    int result = map->work & WORK_REBUILD ? watches_rebuild(map) : watches_flush(map);
    work_left(map);
    if ((!was_idle && idle(map)) || (map->work & WORK_STOP) != stop || map->work & (WORK_DEAD | WORK_UNASKED))
        timeout = 0;
    return result < 0 ? result : watches_wait(map, wait_time(map, timeout), map->batch, BATCH);
}

static RARE void after_serving(struct asyncore_map *map)
{
    if (map->work & WORK_PENDING)
        channels_deliver(map);
    if (map->work & WORK_ANSWERED)
        lookups_deliver(map);
    if (map->work & (WORK_TIMERS | WORK_POSTED)) {
        map->clock_read = false;
        if (timers_run(map) > 0)
            map->clock_read = false;
    }
    if (!list_empty(&map->pending))
        channels_flush(map);
    if (!list_empty(&map->dead))
        channels_reap(map);
    work_left(map);
}

/* The clock is read after the handlers, which may have taken their time, and serves the next wait as well. Where only
 * one ran, and read it, that will do. */
HOT bool none_due(struct asyncore_map *map, int served)
{
    if (!map->clock_read || served > 1)
        map->now = map->os->now(map->os);
    map->clock_read = true;
    return map->heap[0].deadline > map->now;
}

HOT int turn(struct asyncore_map *map, int timeout)
{
    if (map->forks != fork_count)
        return -ECHILD;
    int count;
    if (map->work & ~(unsigned)WORK_TIMERS) {
        count = wait_rare(map, timeout);
    } else {
        if (map->work != 0)
            timeout = timer_wait(map, timeout);
        count = map->engine->wait(map, timeout, map->batch, BATCH);
    }
    map->clock_read = false;
    if (count < 0)
        return count == -EINTR ? 0 : count;
    for (int i = 0; i < count; i++)
        dispatch(map, &map->batch[i]);
    if (map->work != 0 && !(map->work == WORK_TIMERS && none_due(map, count)))
        after_serving(map);
    return count;
}

/* A turn that another loop waits for ends with everything brought to the kernel, and its timer set. */
void map_touched(struct asyncore_map *map)
{
    if (map->outer < 0 || map_in_turn(map) || map_forked(map) < 0)
        return; /* a child has the same timer and set as its parent */
    bool failed = (map->work & WORK_REBUILD ? watches_rebuild(map) : watches_flush(map)) < 0; /* a turn tries again */
    uint64_t deadline = map->heap_count != 0 ? map->heap[0].deadline : 0;
    if (failed || !list_empty(&map->pending) || !list_empty(&map->answered) || !list_empty(&map->dead) ||
        map->work & WORK_UNASKED || always_wanted(map))
        deadline = 1;
    map->os->timerfd_set(map->outer_timer, deadline, map->os);
}

static int enter(struct asyncore_map **map)
{
    int result = map_get(map);
    return result < 0 ? result : map_enter(*map);
}

void map_done(struct asyncore_map *map)
{
    if (map->outer >= 0 && !list_empty(&map->asked) && map_forked(map) == 0)
        channels_ask(map);
    map->clock_read = false;
    map_leave(map);
    if (map->outer >= 0 && map_forked(map) == 0)
        map_touched(map);
}

static bool stop_taken(struct asyncore_map *map)
{
    map->work &= ~(unsigned)WORK_STOP;
    return atomic_exchange(&map->stopped, false);
}

/* Turns until there is a reason to return; what was closed before the first is destroyed even if there is none. */
static int serve(struct asyncore_map *map, int timeout, int count)
{
    uint64_t left = count > 0 ? (uint64_t)count : UINT64_MAX;
    if (stop_taken(map))
        return 1;
    channels_reap(map);
    while (!idle(map)) {
        int result = turn(map, timeout);
        if (result < 0)
            return result;
        if (map->work & WORK_STOP && stop_taken(map))
            return 1;
        if (--left == 0)
            return 1;
    }
    return 0;
}

FAST int asyncore_loop(struct asyncore_map *map, int timeout, int count)
{
    int result = enter(&map);
    if (result < 0)
        return result;
    result = map->bare != 0 ? -EINVAL : serve(map, timeout, count);
    map_done(map);
    return result;
}

int asyncore_poll(struct asyncore_map *map, int timeout)
{
    int result = enter(&map);
    if (result < 0)
        return result;
    result = turn(map, timeout);
    map_done(map);
    return result;
}

int asyncore_stop(struct asyncore_map *map)
{
    int result = map_get_any(&map);
    if (result < 0)
        return result;
    atomic_store(&map->stopped, true);
    if (!map_in_turn(map))
        return asyncore_wakeup(map);
    map->work |= WORK_STOP;
    return 0;
}

int asyncore_wakeup(struct asyncore_map *map)
{
    static const uint64_t one = 1;
    int result = map_get_any(&map);
    if (result < 0)
        return result;
    if (!atomic_exchange(&map->woken, true))
        map->os->write(map->wake_fd, &one, sizeof one, map->os);
    return 0;
}

/* On the way of every message of programs that note when a channel was last used. */
uint64_t asyncore_now(struct asyncore_map *map)
{
    if (map != NULL && map_in_turn(map))
        return map_now(map);
    if (map_get(&map) < 0)
        return 0;
    if (!map_in_turn(map)) /* the default map may be */
        map->clock_read = false;
    return map_now(map);
}

/* -- A map inside another loop: an epoll set of the engine's set and a timer, so that the number stays the same when
 * the engine's set is built anew. ------------------------------------------------------------------------------- */

static int outer_add(struct asyncore_map *map, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return map->os->epoll_ctl(map->outer, EPOLL_CTL_ADD, fd, &event, map->os);
}

void outer_follow(struct asyncore_map *map)
{
    if (map->outer >= 0)
        outer_add(map, map->set);
}

static int outer_open(struct asyncore_map *map)
{
    int timer = map->os->timerfd(map->os);
    if (timer < 0)
        return timer;
    int outer = map->os->epoll_create(map->os);
    if (outer < 0) {
        map->os->close(timer, map->os);
        return outer;
    }
    map->outer = outer;
    map->outer_timer = timer;
    int result = outer_add(map, timer);
    if (result == 0)
        result = outer_add(map, map->set);
    if (result < 0)
        outer_close(map);
    return result;
}

int asyncore_map_fd(struct asyncore_map *map)
{
    int result = map_get(&map);
    if (result < 0)
        return result;
    if (map->engine != &engine_epoll)
        return -ENOTSUP;
    if (map->outer < 0 && (result = outer_open(map)) < 0)
        return result;
    map_touched(map);
    return map->outer;
}

/* -- Odds and ends -- */

const char *asyncore_map_engine(struct asyncore_map *map)
{
    return map_get(&map) < 0 ? NULL : map->engine->name;
}

int asyncore_set_log(struct asyncore_map *map, asyncore_log_fn log, void *arg)
{
    int result = map_get(&map);
    if (result < 0)
        return result;
    map->log = log;
    map->log_arg = arg;
    return 0;
}

void asyncore_log_stderr(void *arg, const char *type, const char *message)
{
    (void)arg;
    fprintf(stderr, "%s: %s\n", type, message);
}

int asyncore_close_fd(struct asyncore_map *map, int fd)
{
    int result = map_get(&map);
    if (result < 0)
        return result;
    if (fd == map->accepted)
        map->accepted = -1; /* its number may mean anything from now on */
    result = map->os->close(fd, map->os);
    if (result == 0)
        channels_wake(map);
    return result;
}

/* strerror's text may be gone at its next call, where the number is none of the kernel's. */
static const char *errno_text(int number)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 32)
    return strerrordesc_np(number);
#else
    return strerror(number);
#endif
}

const char *asyncore_strerror(int error)
{
    switch (error) {
    case ASYNCORE_ENONAME:
        return "name not found";
    case ASYNCORE_ENAMESERVER:
        return "no name server answers";
    case ASYNCORE_EHOST:
        return "not an address";
    case ASYNCORE_EPORT:
        return "not a port (0 to 65535)";
    case ASYNCHAT_ELIMIT:
        return "too much data without a terminator";
    }
    if (error == INT_MIN)
        return "unknown error";
    const char *text = errno_text(error < 0 ? -error : error);
    return text != NULL ? text : "unknown error";
}

const char *asyncore_features(void)
{
    return os_linux.names_open != NULL ? "epoll poll select c-ares" : "epoll poll select";
}

const char *asyncore_version(void)
{
    return ASYNCORE_VERSION;
}

int asyncore_dump(struct asyncore_map *map, void (*line)(void *arg, const char *text), void *arg)
{
    char text[256];
    int result = map_get(&map);
    if (result < 0)
        return result;
    snprintf(text, sizeof text, "map: engine %s, foreground %zu, timers %zu%s%s", map->engine->name, map->foreground,
             map->heap_count, map->bare != 0 ? ", bare watches" : "",
             list_empty(&map->lookups) ? "" : ", lookups in flight");
    line(arg, text);
    for (size_t page = 0; page < map->page_count; page++)
        for (int i = 0; map->pages[page] != NULL && i < PAGE_WATCHES; i++) {
            struct watch *w = &map->pages[page]->watches[i];
            if (w->kind != WATCH_BARE && w->kind != WATCH_NAMES)
                continue;
            snprintf(text, sizeof text, "%s fd %d: wanted 0x%x registered 0x%x",
                     w->kind == WATCH_BARE ? "watch" : "resolver", (int)page * PAGE_WATCHES + i, w->wanted,
                     w->registered);
            line(arg, text);
        }
    channels_dump(map, line, arg);
    return 0;
}
