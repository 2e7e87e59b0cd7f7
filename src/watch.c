/* watch.c: descriptors in a map, and what they are waited for.
 *
 * A watch is a slot in a table indexed by descriptor; the table is a vector of pages, so that slots never move and a
 * lone high descriptor costs one page. Three masks of POLL bits: `wanted` is what the owner asked for, `registered`
 * what the engine was told, and what was seen travels in the batch of events. A watch whose first two may differ is
 * in the dirty list, which is brought to the engine once before each wait: an interest that is dropped and taken up
 * again within a turn costs no system call. Leaving is never put off: the engine forgets the descriptor before
 * anybody can close it. Only what the library closes itself, at once, may be left to the kernel (engine.h,
 * drops_closed).
 *
 * Events are told apart by serial: the slot's counter moves whenever a watch comes or goes, so an event of a
 * descriptor that was closed and used again in the same batch belongs to nobody.
 *
 * Other threads may change bare watches while the map's own thread waits: such a change is queued, the map woken,
 * and its thread applies it before the next wait. When no thread is in a turn it is applied at once, under the lock
 * that a turn begins with. */
#include "watch.h"
#include "channel.h"
#include "engine.h"
#include <errno.h>
#include <limits.h>
#include <string.h>

static int page_make(struct asyncore_map *map, int fd)
{
    size_t page = (unsigned)fd / PAGE_WATCHES;
    if (page >= map->page_count) {
        size_t count = page + 1 < 16 ? 16 : page + 1;
        struct page **pages = map->os->realloc(map->pages, count * sizeof *pages, map->os);
        if (pages == NULL)
            return -ENOMEM;
        memset(pages + map->page_count, 0, (count - map->page_count) * sizeof *pages);
        map->pages = pages;
        map->page_count = count;
    }
    if (map->pages[page] == NULL) {
        map->pages[page] = map_alloc(map, sizeof(struct page));
        if (map->pages[page] == NULL)
            return -ENOMEM;
        memset(map->pages[page], 0, sizeof(struct page));
    }
    return 0;
}

static void dirty_add(struct asyncore_map *map, int fd, struct watch *w)
{
    if (w->flags & WATCH_DIRTY)
        return;
    w->flags |= WATCH_DIRTY;
    w->dirty = map->dirty;
    map->dirty = fd;
    map->work |= WORK_DIRTY;
}

int watch_add(struct asyncore_map *map, int fd, enum watch_kind kind, void *owner, unsigned wanted)
{
    if (fd < 0)
        return -EBADF;
    if (map->engine->limit != 0 && fd >= map->engine->limit)
        return -EMFILE;
    int result = page_make(map, fd);
    if (result < 0)
        return result;
    struct watch *w = watch_at(map, fd);
    if (w->kind != WATCH_NONE)
        return -EEXIST;
    w->owner = owner;
    w->kind = (uint8_t)kind;
    w->serial++;
    w->wanted = (uint16_t)wanted;
    w->registered = 0;
    w->flags &= WATCH_DIRTY;
    if (wanted != 0)
        dirty_add(map, fd, w);
    return 0;
}

void watch_want(struct asyncore_map *map, int fd, unsigned wanted)
{
    struct watch *w = watch_at(map, fd);
    if (w->wanted == wanted)
        return;
    w->wanted = (uint16_t)wanted;
    dirty_add(map, fd, w);
}

static void always_remove(struct asyncore_map *map, int fd)
{
    for (size_t i = 0; i < map->always_count; i++)
        if (map->always[i] == fd) {
            map->always[i] = map->always[--map->always_count];
            return;
        }
}

static void leave(struct asyncore_map *map, int fd, bool forgotten)
{
    struct watch *w = watch_at(map, fd);
    if (w->flags & WATCH_ALWAYS)
        always_remove(map, fd);
    else if (w->registered != 0 && !forgotten)
        map->engine->set(map, fd, w, 0);
    map->bare -= w->kind == WATCH_BARE;
    w->owner = NULL;
    w->kind = WATCH_NONE;
    w->wanted = w->registered = 0;
    w->flags &= WATCH_DIRTY;
    w->serial++;
}

void watch_del(struct asyncore_map *map, int fd)
{
    leave(map, fd, false);
}

void watch_closing(struct asyncore_map *map, int fd)
{
    leave(map, fd, map->engine->drops_closed && !map->duplicates);
}

/* The engine has no use for this file: its events are made here. Failed ones report an error for ever. */
static int always_add(struct asyncore_map *map, int fd, struct watch *w)
{
    if (map->always_count == map->always_room) {
        size_t room = map->always_room ? map->always_room * 2 : 8;
        int *larger = map->os->realloc(map->always, room * sizeof *larger, map->os);
        if (larger == NULL)
            return -ENOMEM;
        map->always = larger;
        map->always_room = room;
    }
    map->always[map->always_count++] = fd;
    map->work |= WORK_ALWAYS;
    w->flags |= WATCH_ALWAYS;
    return 0;
}

/* The engine refused: a regular file is always ready; anything else is the owner's error. */
static int refused(struct asyncore_map *map, int fd, struct watch *w, int error)
{
    if (w->kind == WATCH_CHANNEL && error != -EPERM) {
        w->wanted = 0;
        channel_refused(w->owner, error);
        return 0;
    }
    if (w->kind != WATCH_CHANNEL && w->kind != WATCH_BARE)
        return error; /* the library's own descriptors: the map cannot work */
    int result = always_add(map, fd, w);
    if (result < 0)
        return result;
    if (error != -EPERM)
        w->flags |= WATCH_FAILED;
    w->registered = w->wanted;
    return 0;
}

static int bring(struct asyncore_map *map, int fd, struct watch *w)
{
    if (w->kind == WATCH_NONE || w->wanted == w->registered)
        return 0;
    if (w->flags & WATCH_ALWAYS) {
        w->registered = w->wanted;
        return 0;
    }
    int result = map->engine->set(map, fd, w, w->wanted);
    if (result < 0)
        return refused(map, fd, w, result);
    w->registered = w->wanted;
    return 0;
}

/* Brings the dirty list to the engine. On failure the rest stays dirty. */
int watches_flush(struct asyncore_map *map)
{
    map->work &= ~(unsigned)WORK_DIRTY;
    while (map->dirty >= 0) {
        int fd = map->dirty;
        struct watch *w = watch_at(map, fd);
        int result = bring(map, fd, w);
        if (result < 0) {
            map->work |= WORK_DIRTY;
            return result;
        }
        map->dirty = w->dirty;
        w->flags &= (uint8_t)~WATCH_DIRTY;
    }
    return 0;
}

/* A new kernel set with everything that was wanted; the old one is gone, or somebody else's. */
int watches_rebuild(struct asyncore_map *map)
{
    map->engine->close(map);
    map->work |= WORK_REBUILD; /* until it worked; nothing is registered meanwhile */
    for (size_t page = 0; page < map->page_count; page++)
        for (int i = 0; map->pages[page] != NULL && i < PAGE_WATCHES; i++) {
            struct watch *w = &map->pages[page]->watches[i];
            if (w->registered == 0 || w->flags & WATCH_ALWAYS)
                continue;
            w->registered = 0;
            dirty_add(map, (int)page * PAGE_WATCHES + i, w);
        }
    int result = map->engine->open(map);
    if (result < 0)
        return result;
    map->work &= ~(unsigned)WORK_REBUILD;
    outer_follow(map);
    return watches_flush(map);
}

/* What is always ready of what is wanted. */
static unsigned always_events(const struct watch *w)
{
    if (w->flags & WATCH_FAILED)
        return w->wanted != 0 ? ASYNCORE_ERROR : 0;
    return w->wanted & (ASYNCORE_READ | ASYNCORE_WRITE);
}

/* Each call begins where the last one ended. */
static int add_always(struct asyncore_map *map, struct asyncore_event *ready, int filled, int size)
{
    size_t at = map->always_turn;
    for (size_t i = 0; i < map->always_count && filled < size; i++, at++) {
        int fd = map->always[at % map->always_count];
        struct watch *w = watch_at(map, fd);
        if (always_events(w) != 0)
            event_fill(&ready[filled++], w, fd, always_events(w));
    }
    map->always_turn = at % map->always_count;
    return filled;
}

bool always_wanted(struct asyncore_map *map)
{
    for (size_t i = 0; i < map->always_count; i++)
        if (always_events(watch_at(map, map->always[i])) != 0)
            return true;
    return false;
}

/* Waits: how many of `ready` were filled, or a negative error. An interrupted wait is one without events. Where there
 * is not room for all, those that are always ready and the others are first by turns. */
int watches_wait(struct asyncore_map *map, int timeout, struct asyncore_event *ready, int size)
{
    bool always = map->always_count != 0 && always_wanted(map);
    int filled = 0, count = 0;
    if (always) {
        timeout = 0;
        map->always_first = !map->always_first;
        if (map->always_first)
            filled = add_always(map, ready, 0, size);
    }
    if (filled < size)
        count = map->engine->wait(map, timeout, ready + filled, size - filled);
    if (count < 0 && count != -EINTR)
        return count;
    filled += count > 0 ? count : 0;
    return always && !map->always_first ? add_always(map, ready, filled, size) : filled;
}

void watches_clear(struct asyncore_map *map)
{
    map->engine->close(map);
    for (size_t page = 0; page < map->page_count; page++)
        map_release(map, map->pages[page]);
    map_release(map, map->pages);
    map_release(map, map->always);
}

/* -- Bare watches -- */

enum change_kind {
    CHANGE_ADD,
    CHANGE_WANT,
    CHANGE_DEL
};

struct change {
    struct change *next;
    struct asyncore_map *map;
    enum change_kind kind;
    int fd;
    unsigned want;
    void *owner;
    uint32_t identity;
};

static struct watch *bare_at(struct asyncore_map *map, int fd)
{
    struct watch *w = fd < 0 ? NULL : watch_at(map, fd);
    return w != NULL && w->kind == WATCH_BARE ? w : NULL;
}

static int change_apply(const struct change *change)
{
    struct asyncore_map *map = change->map;
    if (change->kind == CHANGE_ADD) {
        int result = watch_add(map, change->fd, WATCH_BARE, change->owner, change->want);
        if (result < 0)
            return result;
        watch_at(map, change->fd)->identity = change->identity;
        map->bare++;
    } else if (bare_at(map, change->fd) == NULL) {
        return -EBADF;
    } else if (change->kind == CHANGE_WANT) {
        watch_want(map, change->fd, change->want);
    } else {
        watch_del(map, change->fd);
    }
    map_touched(map);
    return 0;
}

/* For the map's own thread, which is in a turn: under the lock, in the order of the calls. */
static int change_post(const struct change *change)
{
    struct asyncore_map *map = change->map;
    struct change **last = &map->changes;
    struct change *copy = map_alloc(map, sizeof *copy);
    if (copy == NULL)
        return -ENOMEM;
    *copy = *change;
    copy->next = NULL;
    while (*last != NULL)
        last = &(*last)->next;
    *last = copy;
    atomic_store(&map->changed, true);
    return 0;
}

/* Under the lock. */
void changes_apply(struct asyncore_map *map)
{
    while (map->changes != NULL) {
        struct change *change = map->changes;
        map->changes = change->next;
        change_apply(change);
        map_release(map, change);
    }
    atomic_store(&map->changed, false);
}

/* Applies what other threads posted. */
void changes_run(struct asyncore_map *map)
{
    if (!atomic_load_explicit(&map->changed, memory_order_relaxed))
        return;
    pthread_mutex_lock(&map->lock);
    changes_apply(map);
    pthread_mutex_unlock(&map->lock);
}

static int change_make(struct asyncore_map *map, struct change *change)
{
    int result = map_get(&map);
    if (result < 0)
        return result;
    change->map = map;
    if (change->kind == CHANGE_ADD) {
        result = map->os->identity(change->fd, &change->identity, map->os);
        if (result < 0)
            return result;
    }
    if (map_in_turn(map)) {
        changes_run(map);
        return change_apply(change);
    }
    pthread_mutex_lock(&map->lock);
    bool elsewhere = map_elsewhere(map);
    if (!elsewhere)
        changes_apply(map);
    result = elsewhere ? change_post(change) : change_apply(change);
    pthread_mutex_unlock(&map->lock);
    return elsewhere && result == 0 ? asyncore_wakeup(map) : result;
}

int asyncore_watch_add(struct asyncore_map *map, int fd, unsigned want, void *owner)
{
    return change_make(map, &(struct change){.kind = CHANGE_ADD, .fd = fd, .want = want & 0xffff, .owner = owner});
}

int asyncore_watch_want(struct asyncore_map *map, int fd, unsigned want)
{
    return change_make(map, &(struct change){.kind = CHANGE_WANT, .fd = fd, .want = want & 0xffff});
}

int asyncore_watch_del(struct asyncore_map *map, int fd)
{
    return change_make(map, &(struct change){.kind = CHANGE_DEL, .fd = fd});
}

static int bare_check(struct asyncore_map *map, int fd)
{
    uint32_t identity = 0;
    struct watch *w = bare_at(map, fd);
    if (w == NULL)
        return -EBADF;
    if (map->os->identity(fd, &identity, map->os) < 0 || identity != w->identity)
        return 0;
    if (w->registered != 0 && !(w->flags & WATCH_ALWAYS) && map->engine->check != NULL)
        return map->engine->check(map, fd, w);
    return 1;
}

int asyncore_watch_check(struct asyncore_map *map, int fd)
{
    int result = map_get(&map);
    if (result < 0)
        return result;
    bool nested = map_in_turn(map);
    if (!nested)
        pthread_mutex_lock(&map->lock);
    result = bare_check(map, fd);
    if (!nested)
        pthread_mutex_unlock(&map->lock);
    return result;
}

/* Serves the library's own watches and the posted changes, and leaves the rest to the host. */
static int sort_out(struct asyncore_map *map, struct asyncore_event *ready, int count)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        struct watch *w = ready[i].owner;
        if (w->serial != ready[i].serial)
            continue; /* the resolver closed it since */
        if (w->kind == WATCH_WAKE)
            wake_drain(map);
        else if (w->kind == WATCH_NAMES)
            names_event(map, ready[i].fd, ready[i].events);
        else {
            ready[kept] = ready[i];
            ready[kept++].owner = w->owner;
        }
    }
    return kept;
}

int asyncore_map_wait(struct asyncore_map *map, int timeout, struct asyncore_event *ready, int size)
{
    int result = map_get(&map);
    if (result < 0)
        return result;
    if (size < 1)
        return -EINVAL;
    bool nested = map_in_turn(map);
    result = nested ? 0 : map_enter(map);
    if (result < 0)
        return result;
    changes_run(map);
    result = map->work & WORK_REBUILD ? watches_rebuild(map) : watches_flush(map);
    work_left(map);
    if (result == 0)
        result = watches_wait(map, wait_time(map, timeout), ready, size < BATCH ? size : BATCH);
    map->clock_read = false;
    if (result > 0)
        result = sort_out(map, ready, result);
    if (!nested)
        map_done(map);
    return result;
}
