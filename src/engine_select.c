/* engine_select.c: select(2). Three sets of what is registered, copied for each wait, and one past the highest
 * descriptor in event_count. Descriptors from FD_SETSIZE on would write past a set: they are refused by watch_add
 * (limit). A set bit means what the kernel's POLLIN_SET, POLLOUT_SET and POLLEX_SET do (select(2), notes): hang-up
 * is readable, an error is both. An error alone cannot be waited for: a channel that wants nothing else is looked
 * at with poll(2), every 100 ms at the latest. */
#include "engine.h"
#include <errno.h>
#include <string.h>

#define ERROR_LOOK 100 /* ms */

struct sets {
    fd_set reads, writes, excepts, errors;
    int error_count;
};

static int select_open(struct asyncore_map *map)
{
    if (map->events == NULL)
        map->events = map_alloc(map, sizeof(struct sets));
    if (map->events == NULL)
        return -ENOMEM;
    memset(map->events, 0, sizeof(struct sets));
    map->event_count = 0;
    return 0;
}

static void select_close(struct asyncore_map *map)
{
    map_release(map, map->events);
    map->events = NULL;
    map->event_count = 0;
}

static void put(fd_set *set, int fd, bool on)
{
    if (on)
        FD_SET(fd, set);
    else
        FD_CLR(fd, set);
}

/* The other two find an error; the exceptional set does not. */
static bool alone(unsigned events)
{
    return (events & ~(unsigned)ASYNCORE_EXPT) == ASYNCORE_ERROR;
}

static int select_set(struct asyncore_map *map, int fd, struct watch *w, unsigned events)
{
    struct sets *sets = map->events;
    (void)w;
    sets->error_count += alone(events) - (FD_ISSET(fd, &sets->errors) != 0);
    put(&sets->errors, fd, alone(events));
    put(&sets->reads, fd, events & ASYNCORE_READ);
    put(&sets->writes, fd, events & ASYNCORE_WRITE);
    put(&sets->excepts, fd, events & ASYNCORE_EXPT);
    if (events != 0 && (size_t)fd >= map->event_count)
        map->event_count = (size_t)fd + 1;
    return 0;
}

static int select_errors(struct asyncore_map *map, int fd)
{
    struct pollfd one = {.fd = fd, .events = 0};
    int count = map->os->poll(&one, 1, 0, map->os);
    return count > 0 ? (unsigned short)one.revents : count;
}

static unsigned seen(struct asyncore_map *map, int fd, const struct sets *got)
{
    unsigned events = 0;
    if (FD_ISSET(fd, &got->reads))
        events |= ASYNCORE_READ;
    if (FD_ISSET(fd, &got->writes))
        events |= ASYNCORE_WRITE;
    if (FD_ISSET(fd, &got->excepts))
        events |= ASYNCORE_EXPT;
    int errors = FD_ISSET(fd, &got->errors) ? select_errors(map, fd) : 0;
    return errors > 0 ? events | (unsigned)errors : events;
}

/* One of the registered descriptors was closed behind our back and fails the whole call: find which. */
static int closed_ones(struct asyncore_map *map, struct asyncore_event *ready, int size)
{
    int filled = 0;
    for (int fd = 0; fd < (int)map->event_count && filled < size; fd++) {
        struct watch *w = watch_at(map, fd);
        if (w != NULL && w->registered != 0 && map->os->get_flags(fd, map->os) == -EBADF)
            event_fill(&ready[filled++], w, fd, POLLNVAL);
    }
    return filled;
}

static int select_wait(struct asyncore_map *map, int timeout, struct asyncore_event *ready, int size)
{
    struct sets got = *(struct sets *)map->events;
    int end = (int)map->event_count, filled = 0;
    if (got.error_count > 0 && (timeout < 0 || timeout > ERROR_LOOK))
        timeout = ERROR_LOOK;
    int count = map->os->select(end, &got.reads, &got.writes, &got.excepts, timeout, map->os);
    if (count == -EBADF)
        return closed_ones(map, ready, size);
    if (count < 0 || (count == 0 && got.error_count == 0))
        return count;
    int fd = (int)(map->turn++ % (size_t)end);
    for (int looked = 0; looked < end && filled < size; looked++) {
        unsigned events = seen(map, fd, &got);
        if (events != 0)
            event_fill(&ready[filled++], watch_at(map, fd), fd, events);
        fd = fd + 1 < end ? fd + 1 : 0;
    }
    return filled;
}

const struct engine engine_select = {
    .name = "select",
    .limit = FD_SETSIZE,
    .open = select_open,
    .close = select_close,
    .set = select_set,
    .wait = select_wait,
    .errors = select_errors,
};
