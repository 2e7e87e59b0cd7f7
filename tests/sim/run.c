/* run.c: one scenario under one seed; see scenario.h. */
#include "oracle.h"
#include "scenario.h"
#include "sim.h"
#include "witness.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* -- The program's memory -- */

static struct {
    uint64_t count, fails;
    size_t blocks;
} memory;

static bool memory_refused(void)
{
    if (++memory.count != memory.fails)
        return false;
    errno = ENOMEM;
    return true;
}

static void *counted(void *block)
{
    if (block == NULL)
        abort();
    memory.blocks++;
    return block;
}

void *scenario_malloc(size_t size)
{
    return memory_refused() ? NULL : counted(malloc(size + (size == 0)));
}

void *scenario_calloc(size_t count, size_t size)
{
    return memory_refused() ? NULL : counted(calloc(count, size));
}

void *scenario_realloc(void *block, size_t size)
{
    if (memory_refused())
        return NULL;
    if (block != NULL)
        memory.blocks--;
    return counted(realloc(block, size + (size == 0)));
}

char *scenario_strdup(const char *text)
{
    return memory_refused() ? NULL : counted(strdup(text));
}

void scenario_free(void *block)
{
    if (block != NULL)
        memory.blocks--;
    free(block);
}

void scenario_destroy_free(struct asyncore_dispatcher *d)
{
    scenario_free(d);
}

size_t scenario_blocks(void)
{
    return memory.blocks;
}

/* -- The run's own memory: pieces, freed together -- */

void *run_alloc(struct run *run, size_t size)
{
    void **piece = calloc(1, sizeof(max_align_t) + size);

    if (piece == NULL)
        abort();
    *piece = run->arena;
    run->arena = piece;
    return (char *)piece + sizeof(max_align_t);
}

static void arena_free(struct run *run)
{
    while (run->arena != NULL) {
        void *piece = run->arena;
        run->arena = *(void **)piece;
        free(piece);
    }
}

/* -- The world that follows from a seed -- */

static void draw_link(struct random *r, bool quiet, struct asyncore_sim_link *link)
{
    link->delay = random_scale(r, 1 * ASYNCORE_SIM_US, 20 * ASYNCORE_SIM_MS);
    link->jitter = random_chance(r, 50) || quiet ? random_in(r, 1000, link->delay + 1000) : 0;
    link->bandwidth = random_chance(r, 40) ? random_scale(r, 65536, 100000000) : 0;
}

static size_t draw_buffer(struct random *r)
{
    return random_chance(r, 40) ? 65536 : (size_t)random_scale(r, 2048, 262144);
}

static void draw_faults(struct random *r, enum weather weather, bool harsh, unsigned *chances)
{
    for (int i = 0; i < ASYNCORE_SIM_FAULTS; i++) {
        bool soft = i <= ASYNCORE_SIM_LINGER;
        uint64_t most = soft ? (harsh ? 300000 : 50000) : 4000;
        uint64_t chance = random_scale(r, 20, most);
        bool drawn = random_chance(r, 60);
        if (drawn && (soft ? weather != CALM || harsh : weather == HARD))
            chances[i] = (unsigned)chance;
    }
}

static void draw(struct run *run, struct asyncore_sim_options *o)
{
    static const char *const engines[] = {"epoll", "epoll", "poll", "select"};
    struct random *r = &run->random;
    bool quiet = run->config->quiet, harsh;

    run->weather = quiet ? CALM : (enum weather)random_in(r, CALM, HARD);
    harsh = random_chance(r, 50);
    o->engine = engines[random_in(r, 0, 3)];
    if (run->config->engine != NULL)
        o->engine = run->config->engine;
    draw_link(r, quiet, &o->link);
    o->send_buffer = draw_buffer(r);
    o->receive_buffer = draw_buffer(r);
    o->pipe_buffer = random_chance(r, 50) ? 65536 : (size_t)random_scale(r, 4096, 65536);
    o->call_ns = random_chance(r, 30) && !quiet ? random_scale(r, 100, 20000) : 0;
    o->faults_until = random_chance(r, 20) ? random_scale(r, ASYNCORE_SIM_MS, 10 * ASYNCORE_SIM_SECOND) : 0;
    if (!quiet)
        draw_faults(r, run->weather, harsh, o->chances);
    if (run->config->small) {
        o->send_buffer = 1024 + o->send_buffer % 3072;
        o->receive_buffer = 1024 + o->receive_buffer % 3072;
        o->pipe_buffer = 4096;
        o->link.bandwidth = 0;
    }
}

static void set_options(struct run *run)
{
    const struct run_config *config = run->config;
    struct asyncore_sim_options *o = &run->options;

    draw(run, o);
    o->script = config->script;
    o->script_count = config->script_count;
    o->only = config->only;
    o->only_count = config->only_count;
    o->trace = config->trace;
    o->fault = config->fault;
    o->arg = config->arg;
    run->hard = run->weather == HARD || config->script_count > 0 || config->malloc_fails > 0;
    run->result->engine = o->engine;
    run->result->weather = run->weather;
}

void run_log(void *arg, const char *type, const char *message)
{
    struct run *run = arg;

    (void)message;
    run->complaints += strcmp(type, "warning") == 0 || strcmp(type, "error") == 0;
}

struct asyncore_map *run_map(struct run *run, const char *host)
{
    struct asyncore_map *map = asyncore_sim_map(run->world, host);

    for (size_t i = 0; i < run->map_count; i++)
        if (strcmp(run->maps[i], host) == 0)
            return map;
    if (run->map_count == RUN_HOSTS)
        abort();
    run->maps[run->map_count++] = host;
    if (map != NULL)
        asyncore_set_log(map, run_log, run);
    oracle_that(run, map != NULL || run->hard, "start", "no map for %s", host);
    return map;
}

uint64_t run_size(const struct run *run, uint64_t all, uint64_t few)
{
    return run->config->small ? few : all;
}

uint64_t run_now(const struct run *run)
{
    return asyncore_sim_now(run->world);
}

bool run_scripted(const struct run *run, enum asyncore_sim_call call)
{
    for (size_t i = 0; i < run->config->script_count; i++)
        if (run->config->script[i].call == call || run->config->script[i].call == ASYNCORE_SIM_ANY)
            return true;
    return false;
}

/* -- The run -- */

/* In slices that grow, so that the world's time tells roughly when it came to rest. */
static bool rest(struct run *run, uint64_t limit)
{
    uint64_t start = run_now(run), slice = ASYNCORE_SIM_SECOND;
    int result;

    do {
        slice = slice > limit ? limit : slice;
        result = asyncore_sim_run(run->world, start + slice);
        slice *= 4;
    } while (result == 1 && slice / 4 < limit);
    run->result->ended = run_now(run);
    return !oracle_excused(run) && oracle_rest(run, result);
}

static void count_calls(struct run *run)
{
    for (size_t i = 0; i < run->map_count; i++) {
        struct asyncore_sim_usage usage;
        if (asyncore_sim_usage(run->world, run->maps[i], &usage) < 0)
            continue;
        run->result->hosts[i].name = run->maps[i];
        memcpy(run->result->hosts[i].calls, usage.calls, sizeof usage.calls);
        for (int call = 0; call < ASYNCORE_SIM_CALLS; call++)
            run->result->calls[call] += usage.calls[call];
    }
}

static void serve(struct run *run)
{
    const struct scenario *s = run->scenario;

    bool rests = rest(run, s->limit != 0 ? s->limit : 3600 * ASYNCORE_SIM_SECOND);

    if (s->finish != NULL && (rests || run->loop_failed))
        s->finish(run);
    if (!rests || !rest(run, 10 * ASYNCORE_SIM_SECOND) || !oracle_loops(run))
        return;
    if (s->check != NULL)
        s->check(run);
    oracle_memory(run);
    oracle_spin(run);
}

/* Which allocation of the program fails: the one that was asked for, or in some hard weather an early one. It is drawn
 * apart, so that it moves nothing else of a seed. */
static uint64_t draw_malloc_fails(const struct run *run)
{
    const struct run_config *config = run->config;
    struct random r = {.state = sim_mix(config->seed, 2)};

    if (config->malloc_fails > 0 || config->script_count > 0 || run->weather != HARD)
        return config->malloc_fails;
    return random_chance(&r, 20) ? random_scale(&r, 1, 40) : 0;
}

int scenario_run(const struct scenario *scenario, const struct run_config *config, struct run_result *result)
{
    struct run run = {.scenario = scenario, .config = config, .result = result};
    int error;

    *result = (struct run_result){.oracle = ""};
    run.random.state = sim_mix(config->seed, 1);
    set_options(&run);
    memory.count = memory.blocks = 0;
    memory.fails = draw_malloc_fails(&run);
    witness_begin(&run);
    error = asyncore_sim_new(&run.world, config->seed, &run.options);
    if (error < 0) {
        oracle_fail(&run, "start", "no world: %s", asyncore_strerror(error));
        return -1;
    }
    error = scenario->start(&run);
    if (error < 0)
        oracle_that(&run, run.hard, "start", "%s", asyncore_strerror(error));
    else
        serve(&run);
    count_calls(&run);
    for (size_t i = 0; i < run.map_count; i++)
        asyncore_sim_map_free(run.world, run.maps[i]);
    oracle_leaks(&run);
    result->struck = run.world->struck + (memory.fails != 0 && memory.count >= memory.fails);
    asyncore_sim_free(run.world);
    run.world = NULL;
    if (scenario->stop != NULL)
        scenario->stop(&run);
    oracle_program_leaks(&run);
    arena_free(&run);
    result->mallocs = memory.count;
    return oracle_failed(&run) ? -1 : 0;
}
