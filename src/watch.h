/* watch.h: descriptors in a map, and what they are waited for. See watch.c. */
#ifndef WATCH_H
#define WATCH_H

#include "map.h"

#define PAGE_WATCHES 256

enum watch_kind {
    WATCH_NONE,
    WATCH_CHANNEL,
    WATCH_BARE,
    WATCH_WAKE,
    WATCH_NAMES
};
enum {
    WATCH_DIRTY = 1,
    WATCH_ALWAYS = 2,
    WATCH_FAILED = 4
};

struct watch { /* 32 bytes: an idle descriptor's whole cost here */
    void *owner;
    uint32_t serial;   /* moves when the slot is taken and when it is left */
    uint32_t identity; /* of the open file, for bare watches */
    uint16_t wanted, registered;
    uint8_t kind, flags;
    uint16_t reserved;
    uint32_t place; /* poll: index in the array */
    int dirty;      /* next in the list */
};

struct page {
    struct watch watches[PAGE_WATCHES];
};

/* NULL where the map never saw such a descriptor. */
static inline struct watch *watch_at(struct asyncore_map *map, int fd)
{
    size_t page = (unsigned)fd / PAGE_WATCHES;
    if (page >= map->page_count || map->pages[page] == NULL)
        return NULL;
    return &map->pages[page]->watches[(unsigned)fd % PAGE_WATCHES];
}

int watch_add(struct asyncore_map *map, int fd, enum watch_kind kind, void *owner, unsigned wanted);
void watch_want(struct asyncore_map *map, int fd, unsigned wanted);
void watch_del(struct asyncore_map *map, int fd);
void watch_closing(struct asyncore_map *map, int fd); /* the same; fd is closed before anything else happens */
int watches_flush(struct asyncore_map *map);
int watches_wait(struct asyncore_map *map, int timeout, struct asyncore_event *ready, int size);
int watches_rebuild(struct asyncore_map *map);
void watches_clear(struct asyncore_map *map);
void changes_run(struct asyncore_map *map);
void changes_apply(struct asyncore_map *map); /* under the lock */
bool always_wanted(struct asyncore_map *map);

#endif
