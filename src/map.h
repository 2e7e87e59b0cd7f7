/* map.h: what a map holds, for the files of the library. Which file may touch what:
 *
 *   watch.c    pages, dirty, engine state   descriptors and what they are waited for
 *   timer.c    heap, posted                 what runs later
 *   channel.c  all, asked, pending, dead    dispatchers
 *   loop.c     the rest                     maps, turns
 *   resolve.c  names, lookups */
#ifndef MAP_H
#define MAP_H

#include "asyncore.h"
#include "list.h"
#include "os.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define NS_PER_MS 1000000u
#define BATCH     512   /* events a wait gives at most: those left over come in the next turn */
#define VIEW_SIZE 65536 /* 8 KiB reads make 64 KiB messages cost three times the CPU (measured) */

struct change;
struct engine;
struct page;
struct resolved;

/* What a turn has to do besides waiting and serving; map->work is 0 in the turns that a fast server lives on. A bit
 * is set where its reason arises and found out of date, if so, by work_left() in loop.c. */
enum {
    WORK_ASKED = 1,
    WORK_PENDING = 2,
    WORK_DIRTY = 4,
    WORK_REBUILD = 8,
    WORK_ALWAYS = 16,
    WORK_TIMERS = 32, /* exactly while the heap is not empty */
    WORK_POSTED = 64, /* somebody woke the map: posted calls, changes of watches */
    WORK_ANSWERED = 128,
    WORK_DEAD = 256,
    WORK_STOP = 512,
    WORK_UNASKED = 1024 /* a channel with predicates came and was not asked yet */
};

/* A slot of the heap keeps its timer's order at hand: sifting does not touch the timers. */
struct heap_slot {
    uint64_t deadline, order;
    struct asyncore_timer *timer;
};

struct making {
    const struct asyncore_dispatcher *d;
    struct making *outer;
};

struct posted {
    struct posted *next;
    void (*fn)(void *arg);
    void *arg;
};

struct asyncore_map {
    struct os *os;
    const struct engine *engine;
    struct asyncore_map_options options;

    /* The turn in hand. */
    pthread_mutex_t lock;     /* guards owner's changes and posted */
    _Atomic(pthread_t) owner; /* the thread that is in a turn, or 0 */
    struct asyncore_map *around; /* whose turn that thread was in already: this turn is within one of its handlers */
    pthread_t home;           /* the default map's thread, or 0 */
    unsigned forks;           /* fork_count when the map was made or taken over */
    atomic_bool stopped;      /* by any thread; this one has WORK_STOP too */
    unsigned work;
    uint32_t rounds; /* how often it was looked at anew, by work_left() */
    bool clock_read;
    uint64_t now;
    struct asyncore_dispatcher *serving; /* whose handler runs */
    struct making *making;               /* whose handle_socket run, the innermost first */
    int accepted, accepted_type;         /* the client whose handle_accepted runs, until somebody has it; or -1 */
    bool open;                           /* serving was not closed since */
    size_t foreground;                   /* what keeps the loop: channels, timers, lookups */
    struct asyncore_event *batch;

    /* Watches: a page vector indexed by descriptor, and those whose wanted mask may differ from the registered. */
    struct page **pages;
    size_t page_count;
    int dirty;   /* first descriptor of the list, or -1 */
    int *always; /* descriptors that the engine refuses: always ready */
    size_t always_count, always_room;
    size_t always_turn; /* where to begin with them */
    bool always_first;  /* they came before the engine's events in the last wait */
    size_t bare;            /* how many bare watches */
    struct change *changes; /* by other threads, oldest first, under the lock */
    atomic_bool changed;

    /* The engine's own. */
    int set;         /* epoll */
    bool duplicates; /* epoll: there are some, so that closing a descriptor may not be the end of its file */
    void *events;    /* epoll: what the kernel fills; poll: the pollfds; select: the sets */
    size_t event_count, event_room;
    size_t turn; /* where to begin looking, so that no descriptor starves */

    /* Channels. */
    link_t all, asked, pending, resting, dead;
    struct resolved *classes;
    void *view; /* recv_view's buffer, or NULL while it is lent to a queue */

    /* What runs later. */
    struct heap_slot *heap;
    size_t heap_count, heap_room;
    uint64_t order;
    _Atomic(struct posted *) posted; /* newest first */
    atomic_bool woken;
    int wake_fd;
    struct asyncore_timer rest_timer;

    /* Names. */
    struct names *names;
    struct names_client names_client;
    struct asyncore_timer names_timer;
    link_t lookups, answered;

    /* A map inside another loop. */
    int outer, outer_timer;

    link_t link; /* among all maps */

    asyncore_log_fn log;
    void *log_arg;
};

/* loop.c */
int map_get(struct asyncore_map **map);     /* NULL to the default map; -EPERM, -ECHILD, -ENOMEM */
int map_get_any(struct asyncore_map **map); /* the same for any thread */
int map_enter(struct asyncore_map *map);
void map_leave(struct asyncore_map *map);
bool map_in_turn(struct asyncore_map *map);   /* of this thread */
bool map_elsewhere(struct asyncore_map *map); /* in a turn of another thread */
struct asyncore_map *map_serving(const struct asyncore_dispatcher *d); /* of this thread, the outermost; or NULL */
int map_forked(struct asyncore_map *map);     /* 0 or -ECHILD */
uint64_t map_now(struct asyncore_map *map);
void map_touched(struct asyncore_map *map);  /* something changed that an outer loop waits for */
void outer_follow(struct asyncore_map *map); /* the engine has a new set */
int wait_time(struct asyncore_map *map, int timeout);
void wake_drain(struct asyncore_map *map);
void work_left(struct asyncore_map *map);
void map_done(struct asyncore_map *map); /* the end of a turn */
int map_new_on(struct asyncore_map **ret, struct os *os, const struct asyncore_map_options *options);

/* timer.c */
int timers_init(struct asyncore_map *map);
void timers_clear(struct asyncore_map *map);
int timers_run(struct asyncore_map *map);
int timer_set_ns(struct asyncore_map *map, struct asyncore_timer *timer, uint64_t delay, uint64_t period,
                 asyncore_timer_fn fn, void *arg);
int64_t timers_wait(struct asyncore_map *map); /* ms, rounded up; -1: none */
bool posted_waiting(struct asyncore_map *map);

/* resolve.c */
void lookups_deliver(struct asyncore_map *map);
void lookups_clear(struct asyncore_map *map);
void names_restart(struct asyncore_map *map); /* after fork */
void names_event(struct asyncore_map *map, int fd, unsigned events);

static inline void *map_alloc(struct asyncore_map *map, size_t size)
{
    return map->os->alloc(size, map->os);
}

static inline void map_release(struct asyncore_map *map, void *memory)
{
    if (memory != NULL)
        map->os->free(memory, map->os);
}

#endif
