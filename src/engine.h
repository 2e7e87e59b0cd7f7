/* engine.h: how a map waits. An engine is one ops block; each is level-triggered, calls no user code, and keeps in
 * the map's `set`, `events`, `event_count`, `event_room` and `turn` what it needs. */
#ifndef ENGINE_H
#define ENGINE_H

#include "map.h"
#include "watch.h"

struct engine {
    const char *name;
    int limit;         /* descriptors from here on are refused; 0: none are */
    bool drops_closed; /* the kernel forgets a file that is closed: nobody has to take it out before */

    int (*open)(struct asyncore_map *map); /* also after close, to begin anew with nothing registered */
    void (*close)(struct asyncore_map *map);

    /* What the kernel is to report of fd from now on; 0 takes it out and cannot fail. w->registered is what it
     * reports so far. -EPERM: such a file is always ready. */
    int (*set)(struct asyncore_map *map, int fd, struct watch *w, unsigned events);

    /* Fills at most size <= BATCH events, whose watch has the serial that it was registered with. */
    int (*wait)(struct asyncore_map *map, int timeout, struct asyncore_event *ready, int size);

    /* ERROR and HANGUP of fd at this moment, or a negative error; NULL: wait() tells them apart from READ and WRITE. */
    int (*errors)(struct asyncore_map *map, int fd);

    /* 1 while fd is the file that was registered, 0 when not; NULL: cannot tell. */
    int (*check)(struct asyncore_map *map, int fd, struct watch *w);
};

extern const struct engine engine_epoll, engine_poll, engine_select;

/* The owner is the watch until the event is handed out. */
static inline void event_fill(struct asyncore_event *event, struct watch *w, int fd, unsigned events)
{
    event->owner = w;
    event->fd = fd;
    event->events = events;
    event->serial = w->serial;
}

#endif
