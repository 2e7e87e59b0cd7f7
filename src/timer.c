/* timer.c: what runs later: timers, and calls from other threads.
 *
 * Pending timers are a binary heap by deadline, then by the order of the calls that set them; a timer knows its place
 * (plus one; 0 is not pending), so that it is moved or taken out without a search. Deadlines are nanoseconds of
 * CLOCK_MONOTONIC, and waiting is rounded up to the engine's milliseconds: a timer is never early. A run takes what
 * was due, and set, before it began: a timer that sets itself anew with no delay runs in the next turn.
 *
 * Calls from other threads are a stack that threads push onto and the loop takes whole and turns round. */
#include "map.h"
#include <errno.h>
#include <string.h>

#define DELAY_MAX (UINT64_MAX / 4 / NS_PER_MS) /* ms: 146 years, so that sums do not wrap */

enum {
    TIMER_BACKGROUND = 1,
    TIMER_COUNTED = 2
};

static bool before(const struct heap_slot *a, const struct heap_slot *b)
{
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->order < b->order;
}

static void place(struct asyncore_map *map, size_t at, struct heap_slot slot)
{
    map->heap[at] = slot;
    slot.timer->place_ = at + 1;
}

static void sift_up(struct asyncore_map *map, size_t at, struct heap_slot slot)
{
    while (at > 0 && before(&slot, &map->heap[(at - 1) / 2])) {
        place(map, at, map->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(map, at, slot);
}

static void sift_down(struct asyncore_map *map, size_t at, struct heap_slot slot)
{
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= map->heap_count)
            break;
        if (child + 1 < map->heap_count && before(&map->heap[child + 1], &map->heap[child]))
            child++;
        if (!before(&map->heap[child], &slot))
            break;
        place(map, at, map->heap[child]);
        at = child;
    }
    place(map, at, slot);
}

static void heap_remove(struct asyncore_map *map, struct asyncore_timer *timer)
{
    size_t at = timer->place_ - 1;
    struct heap_slot last = map->heap[--map->heap_count];
    timer->place_ = 0;
    if (map->heap_count == 0)
        map->work &= ~(unsigned)WORK_TIMERS;
    if (last.timer == timer)
        return;
    if (at > 0 && before(&last, &map->heap[(at - 1) / 2]))
        sift_up(map, at, last);
    else
        sift_down(map, at, last);
}

/* One slot more than the timers need stays free for the library's own listener timer, which may not fail. */
static int heap_grow(struct asyncore_map *map)
{
    if (map->heap_count + 2 <= map->heap_room)
        return 0;
    size_t room = map->heap_room ? map->heap_room * 2 : 8;
    struct heap_slot *larger = map->os->realloc(map->heap, room * sizeof *larger, map->os);
    if (larger == NULL)
        return -ENOMEM;
    map->heap = larger;
    map->heap_room = room;
    return 0;
}

int timers_init(struct asyncore_map *map)
{
    return heap_grow(map);
}

static void heap_insert(struct asyncore_map *map, struct asyncore_timer *timer)
{
    struct heap_slot slot = {timer->deadline_, timer->order_, timer};
    map->work |= WORK_TIMERS;
    sift_up(map, map->heap_count++, slot);
}

static void count(struct asyncore_timer *timer)
{
    bool counts = timer->place_ != 0 && !(timer->flags_ & TIMER_BACKGROUND);
    if (counts && !(timer->flags_ & TIMER_COUNTED))
        timer->map_->foreground++;
    else if (!counts && timer->flags_ & TIMER_COUNTED)
        timer->map_->foreground--;
    timer->flags_ = (timer->flags_ & ~(uint32_t)TIMER_COUNTED) | (counts ? TIMER_COUNTED : 0);
}

int timer_set_ns(struct asyncore_map *map, struct asyncore_timer *timer, uint64_t delay, uint64_t period,
                 asyncore_timer_fn fn, void *arg)
{
    bool has_slot = timer->place_ != 0 && timer->map_ == map; /* its own, while others have taken the spare one */
    asyncore_cancel(timer);
    has_slot |= timer == &map->rest_timer && map->heap_count < map->heap_room;
    int result = has_slot ? 0 : heap_grow(map);
    if (result < 0)
        return result;
    timer->map_ = map;
    timer->fn_ = fn;
    timer->arg_ = arg;
    /* Not map_now: a handler may have run for long since that was read, and early is worse than a system call. */
    timer->deadline_ = map->os->now(map->os) + delay;
    timer->period_ = period;
    timer->order_ = map->order++;
    heap_insert(map, timer);
    count(timer);
    map_touched(map);
    return 0;
}

static int set(struct asyncore_map *map, struct asyncore_timer *timer, uint64_t ms, bool again, asyncore_timer_fn fn,
               void *arg)
{
    int result = map_get(&map);
    if (result < 0)
        return result;
    if (fn == NULL || (again && ms == 0) || ms > DELAY_MAX)
        return -EINVAL;
    return timer_set_ns(map, timer, ms * NS_PER_MS, again ? ms * NS_PER_MS : 0, fn, arg);
}

int asyncore_call_later(struct asyncore_map *map, struct asyncore_timer *timer, uint64_t milliseconds,
                        asyncore_timer_fn fn, void *arg)
{
    return set(map, timer, milliseconds, false, fn, arg);
}

int asyncore_call_every(struct asyncore_map *map, struct asyncore_timer *timer, uint64_t milliseconds,
                        asyncore_timer_fn fn, void *arg)
{
    return set(map, timer, milliseconds, true, fn, arg);
}

void asyncore_cancel(struct asyncore_timer *timer)
{
    if (timer->place_ == 0)
        return;
    heap_remove(timer->map_, timer);
    count(timer);
    map_touched(timer->map_);
}

int asyncore_pending(const struct asyncore_timer *timer)
{
    return timer->place_ != 0;
}

void asyncore_timer_set_background(struct asyncore_timer *timer, int on)
{
    timer->flags_ = on ? timer->flags_ | TIMER_BACKGROUND : timer->flags_ & ~(uint32_t)TIMER_BACKGROUND;
    if (timer->map_ != NULL)
        count(timer);
}

/* Before the callback: it may cancel, set or free its timer. Periods that passed unserved are left out. */
static void rearm(struct asyncore_map *map, struct asyncore_timer *timer, uint64_t now)
{
    heap_remove(map, timer);
    if (timer->period_ != 0) {
        timer->deadline_ += timer->period_;
        if (timer->deadline_ <= now)
            timer->deadline_ += (now - timer->deadline_) / timer->period_ * timer->period_ + timer->period_;
        timer->order_ = map->order++;
        heap_insert(map, timer);
    }
    count(timer);
}

static int due_run(struct asyncore_map *map)
{
    int ran = 0;
    if (map->heap_count == 0)
        return 0;
    uint64_t now = map_now(map), end = map->order;
    while (map->heap_count != 0 && (unsigned)ran < map->options.timers_per_turn) {
        struct heap_slot first = map->heap[0];
        if (first.deadline > now || first.order >= end)
            break;
        struct asyncore_timer *timer = first.timer;
        rearm(map, timer, now);
        timer->fn_(timer, timer->arg_);
        ran++;
    }
    return ran;
}

static struct posted *posted_take(struct asyncore_map *map)
{
    struct posted *list = atomic_exchange(&map->posted, NULL), *first = NULL;
    while (list != NULL) {
        struct posted *next = list->next;
        list->next = first;
        first = list;
        list = next;
    }
    return first;
}

static int posted_run(struct asyncore_map *map)
{
    int ran = 0;
    if (!posted_waiting(map))
        return 0;
    for (struct posted *call = posted_take(map); call != NULL; ran++) {
        struct posted *next = call->next;
        void (*fn)(void *) = call->fn;
        void *arg = call->arg;
        map_release(map, call);
        fn(arg);
        call = next;
    }
    return ran;
}

int timers_run(struct asyncore_map *map)
{
    return posted_run(map) + due_run(map);
}

bool posted_waiting(struct asyncore_map *map)
{
    return atomic_load_explicit(&map->posted, memory_order_relaxed) != NULL;
}

int64_t timers_wait(struct asyncore_map *map)
{
    if (map->heap_count == 0)
        return -1;
    uint64_t deadline = map->heap[0].deadline, now = map_now(map);
    return deadline <= now ? 0 : (int64_t)((deadline - now + NS_PER_MS - 1) / NS_PER_MS);
}

/* Forgets them all; they are their owners' memory. */
void timers_clear(struct asyncore_map *map)
{
    while (map->heap_count != 0)
        asyncore_cancel(map->heap[map->heap_count - 1].timer);
    map_release(map, map->heap);
    for (struct posted *call = posted_take(map); call != NULL;) {
        struct posted *next = call->next;
        map_release(map, call);
        call = next;
    }
}

int64_t asyncore_next_timer(struct asyncore_map *map)
{
    int result = map_get(&map);
    if (result < 0)
        return -1;
    if (posted_waiting(map) || !list_empty(&map->answered))
        return 0;
    if (!map_in_turn(map))
        map->clock_read = false;
    return timers_wait(map);
}

int asyncore_run_timers(struct asyncore_map *map)
{
    int result = map_get(&map);
    if (result < 0)
        return result;
    bool nested = map_in_turn(map);
    if (nested && map->serving != NULL)
        return -EBUSY; /* they serve channels too */
    result = nested ? 0 : map_enter(map);
    if (result < 0)
        return result;
    map->clock_read = false;
    lookups_deliver(map);
    int ran = timers_run(map);
    if (!nested)
        map_done(map);
    return ran;
}

int asyncore_call_soon_threadsafe(struct asyncore_map *map, void (*fn)(void *arg), void *arg)
{
    int result = fn != NULL ? map_get_any(&map) : -EINVAL;
    if (result < 0)
        return result;
    struct posted *call = map_alloc(map, sizeof *call);
    if (call == NULL)
        return -ENOMEM;
    *call = (struct posted){.fn = fn, .arg = arg};
    call->next = atomic_load(&map->posted);
    while (!atomic_compare_exchange_weak(&map->posted, &call->next, call))
        ;
    return asyncore_wakeup(map);
}
