/* engine_poll.c: poll(2). One dense array of pollfds, each watch knowing its place; a leaver's place is taken by the
 * last. Reading the results begins one further each time, so that a full batch starves nobody. */
#include "engine.h"
#include <errno.h>

static int poll_open(struct asyncore_map *map)
{
    map->event_count = 0;
    return 0;
}

static void poll_close(struct asyncore_map *map)
{
    map_release(map, map->events);
    map->events = NULL;
    map->event_count = map->event_room = 0;
}

static int poll_grow(struct asyncore_map *map)
{
    if (map->event_count < map->event_room)
        return 0;
    size_t room = map->event_room ? map->event_room * 2 : 64;
    void *larger = map->os->realloc(map->events, room * sizeof(struct pollfd), map->os);
    if (larger == NULL)
        return -ENOMEM;
    map->events = larger;
    map->event_room = room;
    return 0;
}

static int poll_set(struct asyncore_map *map, int fd, struct watch *w, unsigned events)
{
    if (events == 0) {
        struct pollfd *fds = map->events;
        fds[w->place] = fds[--map->event_count];
        if (w->place < map->event_count)
            watch_at(map, fds[w->place].fd)->place = w->place;
        return 0;
    }
    if (w->registered == 0) {
        int result = poll_grow(map);
        if (result < 0)
            return result;
        w->place = (uint32_t)map->event_count++;
    }
    struct pollfd *fds = map->events;
    fds[w->place] = (struct pollfd){.fd = fd, .events = (short)events};
    return 0;
}

static int poll_wait(struct asyncore_map *map, int timeout, struct asyncore_event *ready, int size)
{
    struct pollfd *fds = map->events;
    int count = map->os->poll(fds, map->event_count, timeout, map->os);
    int filled = 0;
    if (count < 0)
        return count;
    size_t at = map->turn++ % (map->event_count ? map->event_count : 1);
    for (size_t seen = 0; seen < map->event_count && filled < count && filled < size; seen++) {
        if (fds[at].revents != 0)
            event_fill(&ready[filled++], watch_at(map, fds[at].fd), fds[at].fd, (unsigned short)fds[at].revents);
        at = at + 1 < map->event_count ? at + 1 : 0;
    }
    return filled;
}

const struct engine engine_poll = {
    .name = "poll",
    .open = poll_open,
    .close = poll_close,
    .set = poll_set,
    .wait = poll_wait,
};
