/* scenario_timers.c: hundreds of timers, set, set anew and cancelled by each other's functions, once and every, some in
 * the background; calls posted from within; and a clock that jumps. A shadow knows when each is due, and in which
 * order.
 *
 * With options.call_ns the exact deadline is known only as a span (the clock may move between reading it here and in
 * the library), and only what does not overlap is ordered. */
#include "oracle.h"
#include "scenario.h"
#include "sim.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    TIMERS = 300,
    CHANGES = 1500,
    FEW = 60,
    JUMPS = 6,
    BURST = 2500,
    PER_TURN = 1024
};

struct shadow {
    struct asyncore_timer timer; /* first */
    uint64_t low, high, order;   /* the deadline, and which call set it */
    uint64_t period, jumped;     /* jumps of the clock before it was set */
    unsigned times;              /* that an every has left */
    bool pending, background;
};

struct state {
    struct run *run;
    struct asyncore_map *map;
    struct os *os;
    struct shadow timers[TIMERS];
    struct shadow burst[BURST];
    uint64_t order, jumped, fired, posted, called, turn, kept;
    size_t burst_next, burst_count;
    unsigned changes, in_turn;
    int timer_count;
};

static struct state *the; /* timers have one argument */

static void fire(struct asyncore_timer *timer, void *arg);

static void set(struct state *s, struct shadow *t)
{
    struct random *r = &s->run->random;
    uint64_t delay = random_chance(r, 20) ? random_in(r, 0, 3) : random_scale(r, 0, 20000);
    bool every = random_chance(r, 20);
    uint64_t before = s->os->now(s->os);
    int error;

    if (every)
        delay += 1;
    error = every ? asyncore_call_every(s->map, &t->timer, delay, fire, t)
                  : asyncore_call_later(s->map, &t->timer, delay, fire, t);
    t->pending = error == 0;
    if (error < 0) {
        oracle_that(s->run, s->run->hard, "clean", "a timer cannot be set: %s", asyncore_strerror(error));
        return;
    }
    t->low = before + delay * ASYNCORE_SIM_MS;
    t->high = s->os->now(s->os) + delay * ASYNCORE_SIM_MS;
    t->order = s->order++;
    t->period = every ? delay * ASYNCORE_SIM_MS : 0;
    t->times = (unsigned)random_in(r, 1, 20);
    t->jumped = s->jumped;
    t->background = random_chance(r, 20);
    asyncore_timer_set_background(&t->timer, t->background);
}

static void cancel(struct shadow *t)
{
    asyncore_cancel(&t->timer);
    t->pending = false;
}

static void posted(void *arg)
{
    struct state *s = the;

    oracle_that(s->run, (uintptr_t)arg == s->called, "order", "call_soon: call %zu instead of %llu",
                (size_t)(uintptr_t)arg, (unsigned long long)s->called);
    s->called = (uintptr_t)arg + 1;
}

static void change(struct state *s)
{
    struct random *r = &s->run->random;
    struct shadow *t = &s->timers[random_in(r, 0, (uint64_t)s->timer_count - 1)];

    if (s->changes == 0)
        return;
    s->changes--;
    if (random_chance(r, 25))
        cancel(t);
    else if (random_chance(r, 10) && asyncore_call_soon_threadsafe(s->map, posted, (void *)(uintptr_t)s->posted) == 0)
        s->posted++;
    else
        set(s, t);
}

/* Whether t was due before any other that waits. */
static void check_order(struct state *s, const struct shadow *t)
{
    for (int i = 0; i < s->timer_count; i++) {
        const struct shadow *other = &s->timers[i];
        if (other == t || !other->pending || other->high > t->low)
            continue;
        oracle_that(s->run,
                    other->high == t->low && (other->order > t->order || other->low != other->high ||
                                              t->low != t->high || other->period != 0 || t->period != 0),
                    "order", "timer %d comes %llu ns after timer %d, and is called before it", (int)(t - s->timers),
                    (unsigned long long)(t->low - other->high), i);
    }
}

/* A timer in the background does not keep the loop: it is called only while, or in the turn in which, another does. */
static void check_kept(struct state *s, const struct shadow *t)
{
    struct asyncore_sim_usage usage;
    bool kept = !t->background || s->burst_next < s->burst_count || s->posted > s->called;

    for (int i = 0; i < TIMERS && !kept; i++)
        kept = s->timers[i].pending && !s->timers[i].background;
    asyncore_sim_usage(s->run->world, "host", &usage);
    if (kept)
        s->kept = usage.turns;
    oracle_that(s->run, kept || s->kept == usage.turns, "loop", "timer %d in the background keeps the loop",
                (int)(t - s->timers));
}

static void count_turn(struct state *s)
{
    struct asyncore_sim_usage usage;

    asyncore_sim_usage(s->run->world, "host", &usage);
    s->in_turn = usage.turns == s->turn ? s->in_turn + 1 : 1;
    s->turn = usage.turns;
    oracle_that(s->run, s->in_turn <= PER_TURN, "starve", "%u timers in one turn", s->in_turn);
}

static void rearm(struct state *s, struct shadow *t, uint64_t now)
{
    bool exact = t->low == t->high && s->run->options.call_ns == 0;

    t->low += t->period;
    if (exact && t->low <= now)
        t->low += (now - t->low) / t->period * t->period + t->period;
    t->high = exact ? t->low : UINT64_MAX;
    t->order = s->order++;
    t->jumped = s->jumped;
}

static void fire(struct asyncore_timer *timer, void *arg)
{
    struct state *s = the;
    struct shadow *t = arg;
    uint64_t now = s->os->now(s->os), slack = ASYNCORE_SIM_MS + 2000 * s->run->options.call_ns;
    char name[32];

    snprintf(name, sizeof name, "timer %d", (int)(t - s->timers));
    s->fired++;
    oracle_that(s->run, timer == &t->timer && t->pending, "cancelled", "%s is called, and does not wait", name);
    oracle_due(s->run, name, now, t->low,
               t->high == UINT64_MAX ? UINT64_MAX / 2 : slack + t->high - t->low + s->jumped - t->jumped);
    check_order(s, t);
    check_kept(s, t);
    count_turn(s);
    t->pending = t->period != 0;
    oracle_that(s->run, asyncore_pending(timer) == t->pending, "pending", "%s: pending is %d", name,
                asyncore_pending(timer));
    if (t->period != 0 && --t->times == 0)
        cancel(t);
    else if (t->period != 0)
        rearm(s, t, now);
    for (uint64_t n = random_in(&s->run->random, 0, 4); n > 0; n--)
        change(s);
}

/* All at once, more than a turn may run. */
static void burst(struct asyncore_timer *timer, void *arg)
{
    struct state *s = the;

    (void)arg;
    oracle_that(s->run, timer == &s->burst[s->burst_next].timer, "order", "timer %d of the burst instead of %zu",
                (int)((struct shadow *)(void *)timer - s->burst), s->burst_next);
    s->burst_next++;
    count_turn(s);
}

static void jump(struct asyncore_sim *world, void *arg)
{
    struct state *s = arg;
    uint64_t ahead = random_scale(&s->run->random, 1, 5 * ASYNCORE_SIM_SECOND);

    s->jumped += ahead;
    asyncore_sim_jump(world, "host", ahead);
}

static int start(struct run *run)
{
    struct state *s = the = run->state = run_alloc(run, sizeof *s);
    struct random *r = &run->random;

    s->run = run;
    s->map = run_map(run, "host");
    s->os = sim_os(run->world, "host");
    if (s->map == NULL)
        return -ENOMEM;
    s->changes = (unsigned)run_size(run, CHANGES, 2 * FEW);
    s->timer_count = (int)run_size(run, TIMERS, FEW);
    s->burst_count = random_chance(r, 10) ? (size_t)run_size(run, BURST, FEW) : 0;
    run->free_turns = 20 * (CHANGES + TIMERS);
    run->memory_bound = 1 << 20;
    for (size_t i = 0; i < s->burst_count; i++) {
        int error = asyncore_call_later(s->map, &s->burst[i].timer, 1000, burst, NULL);
        if (error < 0) {
            s->burst_count = i;
            oracle_that(run, run->hard, "clean", "a timer cannot be set: %s", asyncore_strerror(error));
        }
    }
    for (int i = 0; i < s->timer_count; i++)
        set(s, &s->timers[i]);
    for (int i = 0; i < JUMPS && random_chance(r, 70); i++)
        asyncore_sim_at(run->world, random_scale(r, 1, 20 * ASYNCORE_SIM_SECOND), jump, s);
    return 0;
}

static void check(struct run *run)
{
    const struct state *s = run->state;

    for (int i = 0; i < s->timer_count; i++) {
        const struct shadow *t = &s->timers[i];
        oracle_that(run, asyncore_pending(&t->timer) == t->pending, "pending", "timer %d: pending is %d", i,
                    asyncore_pending(&t->timer));
        oracle_that(run, !t->pending || t->background, "stuck", "timer %d was never called", i);
    }
    oracle_complete(run, "burst", s->burst_count, s->burst_next);
    oracle_complete(run, "call_soon", s->posted, s->called);
}

const struct scenario scenario_timers = {.name = "timers", .separate = true, .start = start, .check = check};
