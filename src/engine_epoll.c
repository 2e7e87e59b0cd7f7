/* engine_epoll.c: epoll, level-triggered (epoll(7)).
 *
 * The kernel keys its set by open file and descriptor, and reports what we stored: the descriptor and the serial of
 * its watch. It forgets a file when the last descriptor of it is closed, so what the library is about to close need
 * not be taken out. A file that was closed while a duplicate lives (dup(2), a child, another process that it was
 * passed to) stays in the set and cannot be removed any more, for its descriptor is gone or means another file; its
 * reports carry a serial that no watch has. That is how they are told from ours. The set is then built anew, and from
 * then on files are taken out before they are closed: who duplicates one will duplicate more, and each would cost a
 * set. */
#include "engine.h"
#include <errno.h>

static int epoll_open(struct asyncore_map *map)
{
    if (map->events == NULL)
        map->events = map_alloc(map, BATCH * sizeof(struct epoll_event));
    if (map->events == NULL)
        return -ENOMEM;
    int set = map->os->epoll_create(map->os);
    if (set < 0)
        return set;
    map->set = set;
    return 0;
}

static void epoll_close(struct asyncore_map *map)
{
    if (map->set >= 0)
        map->os->close(map->set, map->os);
    map->set = -1;
    map_release(map, map->events);
    map->events = NULL;
}

static struct epoll_event key(int fd, const struct watch *w, unsigned events)
{
    return (struct epoll_event){.events = events, .data = {.u64 = (uint64_t)w->serial << 32 | (uint32_t)fd}};
}

static int epoll_set(struct asyncore_map *map, int fd, struct watch *w, unsigned events)
{
    struct epoll_event event = key(fd, w, events);
    int op = events == 0 ? EPOLL_CTL_DEL : w->registered == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    int result = map->os->epoll_ctl(map->set, op, fd, &event, map->os);
    if (result == -ENOENT && op == EPOLL_CTL_MOD) /* closed behind our back, and the number is used again */
        result = map->os->epoll_ctl(map->set, EPOLL_CTL_ADD, fd, &event, map->os);
    else if (result == -EEXIST && op == EPOLL_CTL_ADD)
        result = map->os->epoll_ctl(map->set, EPOLL_CTL_MOD, fd, &event, map->os);
    return op == EPOLL_CTL_DEL ? 0 : result;
}

static FAST int epoll_wait_(struct asyncore_map *map, int timeout, struct asyncore_event *ready, int size)
{
    struct epoll_event *events = map->events;
    int count = map->os->epoll_wait(map->set, events, size, timeout, map->os);
    int filled = 0;
    for (int i = 0; i < count; i++) {
        int fd = (int)(uint32_t)events[i].data.u64;
        struct watch *w = watch_at(map, fd);
        if (w == NULL || w->serial != (uint32_t)(events[i].data.u64 >> 32)) {
            map->work |= WORK_REBUILD;
            map->duplicates = true;
            continue;
        }
        event_fill(&ready[filled++], w, fd, events[i].events);
    }
    return count < 0 ? count : filled;
}

/* A modification finds the file by descriptor and file: ENOENT or EBADF when either changed. */
static int epoll_check(struct asyncore_map *map, int fd, struct watch *w)
{
    struct epoll_event event = key(fd, w, w->registered);
    return map->os->epoll_ctl(map->set, EPOLL_CTL_MOD, fd, &event, map->os) == 0;
}

const struct engine engine_epoll = {
    .name = "epoll",
    .drops_closed = true,
    .open = epoll_open,
    .close = epoll_close,
    .set = epoll_set,
    .wait = epoll_wait_,
    .check = epoll_check,
};
