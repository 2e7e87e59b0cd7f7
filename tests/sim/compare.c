/* compare.c: traces held against each other. Of two runs of a seed every byte must be the same. Of its runs on several
 * engines each object's lines must be, in their order: which object comes first in a turn is the engine's affair, and
 * so are the calls that make it. What comes to two connections never comes at the same instant (sim_stream.c), so that
 * this order shows nowhere. */
#include "runner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hashed {
    uint64_t hash, bytes;
};

static void hash_line(void *arg, const char *line)
{
    struct hashed *h = arg;

    for (; *line != '\0'; line++, h->bytes++)
        h->hash = (h->hash ^ (unsigned char)*line) * UINT64_C(0x100000001B3);
    h->hash = (h->hash ^ '\n') * UINT64_C(0x100000001B3);
}

static void keep_line(void *arg, const char *line)
{
    lines_add(arg, line);
}

static void print_difference(const struct scenario *scenario, const struct run_config *config, const char *what,
                             const char *a, const char *b)
{
    size_t line = 1;

    while (*a != '\0' && *b != '\0' && strncmp(a, b, strcspn(a, "\n") + 1) == 0) {
        a += strcspn(a, "\n") + 1;
        b += strcspn(b, "\n") + 1;
        line++;
    }
    printf("scenario %s\nseed %" PRIu64 "\noracle same: %s: line %zu differs:\n  %.*s\n  %.*s\n", scenario->name,
           config->seed, what, line, (int)strcspn(a, "\n"), a, (int)strcspn(b, "\n"), b);
}

bool compare_same(const struct scenario *scenario, const struct run_config *config)
{
    struct run_config traced = *config;
    struct hashed hashes[2] = {{0, 0}, {0, 0}};
    struct lines lines[2] = {{NULL, 0, 0}, {NULL, 0, 0}};
    struct run_result result;

    traced.trace = hash_line;
    for (int i = 0; i < 2; i++) {
        traced.arg = &hashes[i];
        scenario_run(scenario, &traced, &result);
    }
    if (hashes[0].hash == hashes[1].hash && hashes[0].bytes == hashes[1].bytes)
        return true;
    traced.trace = keep_line;
    for (int i = 0; i < 2; i++) {
        traced.arg = &lines[i];
        scenario_run(scenario, &traced, &result);
    }
    print_difference(scenario, config, "two runs differ", lines[0].used ? lines[0].text : "",
                     lines[1].used ? lines[1].text : "");
    for (int i = 0; i < 2; i++)
        lines_free(&lines[i]);
    return false;
}

/* -- Engines -- */

/* An object's lines, by what stands at their beginning: "HOST #OBJECT". */
struct object {
    char name[48];
    struct lines lines;
};

struct objects {
    struct object *objects;
    size_t count, room;
};

enum {
    ENGINES_FILES = 1 << 23
}; /* the numbers of epoll sets, eventfds and timerfds begin here */

static bool engines_own(const char *call)
{
    static const char *const calls[] = {"epoll_", "poll ", "select ", "eventfd", "timerfd"};

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strncmp(call, calls[i], strlen(calls[i])) == 0)
            return true;
    return false;
}

static struct object *object_of(struct objects *all, const char *name)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->objects[i].name, name) == 0)
            return &all->objects[i];
    if (all->count == all->room) {
        all->room = 2 * all->room + 64;
        all->objects = realloc(all->objects, all->room * sizeof *all->objects);
        if (all->objects == NULL)
            abort();
    }
    all->objects[all->count] = (struct object){.lines = {NULL, 0, 0}};
    snprintf(all->objects[all->count].name, sizeof all->objects->name, "%s", name);
    return &all->objects[all->count++];
}

/* "TIME HOST #OBJECT CALL ...": lines without an object are about turns and memory. */
static void sort_line(void *arg, const char *line)
{
    char host[32], object[16], name[48];
    int at = 0;

    if (sscanf(line, "%*s %31s %15s %n", host, object, &at) < 2 || object[0] != '#' || at == 0)
        return;
    if (engines_own(line + at) || strtoul(object + 1, NULL, 10) >= ENGINES_FILES)
        return;
    snprintf(name, sizeof name, "%s %s", host, object);
    lines_add(&object_of(arg, name)->lines, line);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct object *)a)->name, ((const struct object *)b)->name);
}

static void objects_free(struct objects *all)
{
    for (size_t i = 0; i < all->count; i++)
        lines_free(&all->objects[i].lines);
    free(all->objects);
}

static bool objects_same(const struct scenario *scenario, const struct run_config *config, const struct objects *a,
                         const struct objects *b)
{
    for (size_t i = 0; i < a->count || i < b->count; i++) {
        const struct object *x = i < a->count ? &a->objects[i] : NULL, *y = i < b->count ? &b->objects[i] : NULL;
        if (x != NULL && y != NULL && strcmp(x->name, y->name) == 0 && x->lines.used == y->lines.used &&
            memcmp(x->lines.text, y->lines.text, x->lines.used) == 0)
            continue;
        print_difference(scenario, config, config->engine, x != NULL ? x->lines.text : "",
                         y != NULL ? y->lines.text : "");
        return false;
    }
    return true;
}

bool compare_engines(const struct scenario *scenario, const struct run_config *config)
{
    static const char *const engines[] = {"epoll", "poll", "select"};
    struct run_config traced = *config;
    struct objects all[3] = {{NULL, 0, 0}, {NULL, 0, 0}, {NULL, 0, 0}};
    struct run_result result;
    bool same = true;

    traced.quiet = true;
    traced.trace = sort_line;
    int count = scenario->in_pairs ? 2 : 3;
    for (int i = 0; i < count; i++) {
        traced.engine = engines[i];
        traced.arg = &all[i];
        scenario_run(scenario, &traced, &result);
        if (all[i].count != 0)
            qsort(all[i].objects, all[i].count, sizeof *all[i].objects, by_name);
    }
    for (int i = 1; i < count && same; i++) {
        traced.engine = engines[i];
        same = objects_same(scenario, &traced, &all[0], &all[i]);
    }
    for (int i = 0; i < 3; i++)
        objects_free(&all[i]);
    return same;
}
