/* shrink.c: a failing seed, with as few faults as it takes.
 *
 * The seed is run again with its faults told, then with subsets of them: none, halves, and in the end all but one each
 * (delta debugging). A subset is taken if the same oracle fails with it. The number of runs is bounded: what is left
 * then is small enough as a rule. */
#include "runner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RUNS_MOST = 200,
    LINES_SHOWN = 60
};

struct keys {
    uint64_t *keys;
    size_t count, room;
    struct lines lines;
};

struct search {
    const struct scenario *scenario;
    struct run_config config; /* with neither trace nor fault */
    const char *oracle;
    unsigned runs;
};

void lines_add(struct lines *lines, const char *line)
{
    size_t n = strlen(line);

    if (lines->used + n + 2 > lines->room) {
        lines->room = 2 * lines->room + n + 4096;
        lines->text = realloc(lines->text, lines->room);
        if (lines->text == NULL)
            abort();
    }
    memcpy(lines->text + lines->used, line, n);
    lines->used += n;
    lines->text[lines->used++] = '\n';
    lines->text[lines->used] = '\0';
}

void lines_last(const struct lines *lines, size_t count)
{
    const char *at;

    if (lines->used == 0)
        return;
    at = lines->text + lines->used;
    for (size_t seen = 0; at > lines->text; at--)
        if (at[-1] == '\n' && seen++ == count)
            break;
    printf("%s", at);
}

void lines_free(struct lines *lines)
{
    free(lines->text);
    *lines = (struct lines){NULL, 0, 0};
}

static void add_key(void *arg, uint64_t key, const char *line)
{
    struct keys *keys = arg;

    for (size_t i = 0; i < keys->count; i++)
        if (keys->keys[i] == key)
            return;
    if (keys->count == keys->room) {
        keys->room = 2 * keys->room + 64;
        keys->keys = realloc(keys->keys, keys->room * sizeof *keys->keys);
        if (keys->keys == NULL)
            abort();
    }
    keys->keys[keys->count++] = key;
    lines_add(&keys->lines, line);
}

static void add_line(void *arg, const char *line)
{
    lines_add(arg, line);
}

static const uint64_t nothing;

/* Whether it still fails in the same way with these faults only. */
static bool fails_with(struct search *s, const uint64_t *keys, size_t count)
{
    struct run_result result;

    s->runs++;
    s->config.only = count > 0 ? keys : &nothing;
    s->config.only_count = count;
    return scenario_run(s->scenario, &s->config, &result) < 0 && strcmp(result.oracle, s->oracle) == 0;
}

/* Takes away what can go, in pieces of this size. Whether something went. */
static bool take_away(struct search *s, struct keys *keys, size_t piece)
{
    uint64_t *fewer = malloc((keys->count + 1) * sizeof *fewer);
    bool went = false;

    if (fewer == NULL)
        abort();
    for (size_t at = 0; at < keys->count && s->runs < RUNS_MOST;) {
        size_t n = piece < keys->count - at ? piece : keys->count - at;
        memcpy(fewer, keys->keys, at * sizeof *fewer);
        memcpy(fewer + at, keys->keys + at + n, (keys->count - at - n) * sizeof *fewer);
        if (fails_with(s, fewer, keys->count - n)) {
            keys->count -= n;
            memcpy(keys->keys, fewer, keys->count * sizeof *fewer);
            went = true;
        } else {
            at += n;
        }
    }
    free(fewer);
    return went;
}

static void shrink(struct search *s, struct keys *keys)
{
    if (keys->count == 0)
        return;
    if (fails_with(s, NULL, 0)) {
        keys->count = 0;
        return;
    }
    if (!fails_with(s, keys->keys, keys->count))
        return; /* what was told is not all: leave it as it is */
    for (size_t piece = (keys->count + 1) / 2; s->runs < RUNS_MOST; piece = (piece + 1) / 2) {
        bool went = take_away(s, keys, piece);
        if (piece == 1 && !went)
            break;
    }
}

static void print_command(const struct runner *runner, const struct scenario *scenario, const struct run_config *config,
                          const struct keys *keys, bool none)
{
    printf("  again:  sim %s --first=%" PRIu64 " --seeds=1", scenario->name, config->seed);
    if (config->engine != NULL)
        printf(" --engine=%s", config->engine);
    if (config->malloc_fails != 0)
        printf(" --script=malloc:%" PRIu64, config->malloc_fails);
    if (config->script_count != 0)
        printf(" --script=%s%s%s:%" PRIu64 ":%d", runner->script_host, runner->script_host[0] ? "/" : "",
               config->script->call == ASYNCORE_SIM_ANY ? "any" : asyncore_sim_call_name(config->script->call),
               config->script->k, -config->script->error);
    if (none)
        printf(" --only=none");
    for (size_t i = 0; i < keys->count; i++)
        printf("%s%" PRIu64, i == 0 ? " --only=" : ",", keys->keys[i]);
    printf(" --trace\n");
}

/* The run that is shown: the faults that are left strike, and everything is traced. */
static void print_run(const struct runner *runner, struct search *s, struct keys *keys, bool shrunk)
{
    struct run_result result;
    struct lines trace = {NULL, 0, 0};
    struct keys struck = {NULL, 0, 0, {NULL, 0, 0}};

    s->config.only = shrunk ? (keys->count > 0 ? keys->keys : &nothing) : NULL;
    s->config.only_count = shrunk ? keys->count : 0;
    s->config.fault = add_key;
    s->config.arg = &struck;
    scenario_run(s->scenario, &s->config, &result);
    s->config.fault = NULL;
    s->config.trace = add_line;
    s->config.arg = &trace;
    scenario_run(s->scenario, &s->config, &result);
    printf("  shrunk: %s: %s\n", result.oracle, result.what);
    printf("  %zu faults:\n", struck.count);
    lines_last(&struck.lines, runner->trace ? SIZE_MAX : LINES_SHOWN);
    printf("  trace:\n");
    lines_last(&trace, runner->trace ? SIZE_MAX : LINES_SHOWN);
    lines_free(&trace);
    lines_free(&struck.lines);
    free(struck.keys);
}

void report_failure(const struct runner *runner, const struct scenario *scenario, const struct run_config *config,
                    const struct run_result *failed)
{
    static const char *const weathers[] = {"calm", "soft", "hard"};
    struct search s = {scenario, *config, failed->oracle, 0};
    struct keys keys = {NULL, 0, 0, {NULL, 0, 0}};
    struct run_result result;
    bool replay = config->only != NULL;

    printf("scenario %s\nseed %" PRIu64 " (%s, %s)\noracle %s: %s\n", scenario->name, config->seed, failed->engine,
           weathers[failed->weather], failed->oracle, failed->what);
    s.config.trace = NULL;
    s.config.fault = add_key;
    s.config.arg = &keys;
    scenario_run(scenario, &s.config, &result);
    s.config.fault = NULL;
    if (!replay)
        shrink(&s, &keys);
    print_command(runner, scenario, config, &keys, keys.count == 0);
    print_run(runner, &s, &keys, true);
    lines_free(&keys.lines);
    free(keys.keys);
    fflush(stdout);
}
