/* scenario.h: a program in a simulated world, what is done to it, and what must be true of it whatever happens.
 *
 * A RUN is one scenario under one seed. From the seed follow the world (delays, buffers, faults), the engine, and what
 * the scenario itself leaves to chance; a run_config can take parts of that away (`only` some faults) or add to it (a
 * script of faults by hand), and scenario_run() is a function that may be called as often as one likes:
 *
 *     make the world -> start -> run until it rests -> finish -> run until it rests -> check -> free it -> count
 *
 * start makes the programs' channels in run_map()s and the peers on raw hosts (peer.h). A world that rests has nothing
 * left to happen: one that does not within `limit` fails the oracle "rest". finish closes what would keep a loop alive,
 * such as a listener; then every loop must have ended. check calls the scenario's oracles (oracle.h). What start,
 * finish and check need lies in run->state, from run_alloc(), which lasts until all is over.
 *
 * WEATHER is what a seed may do to a program:
 *
 *     CALM   no faults at all, or (harsh) many soft ones, with tiny buffers
 *     SOFT   soft faults: whatever is under test must complete as if there were none
 *     HARD   hard faults as well: connections may end early, but cleanly so; run->hard is set
 *
 * SMALL runs have few peers and bytes, for torture (torture.c), which does them again with each call failing.
 *
 * A script sets run->hard too. Even start may fail then, with the error it was given: it returns that, and must leave
 * behind only what the free of the map cleans up. Whatever the weather: no byte is wrong, nothing is left, no handler
 * is called that should not be, loops end.
 *
 * A SCENARIO is one file scenario_NAME.c. The program under test is included in it as it is, after program.h. */
#ifndef SIM_SCENARIO_H
#define SIM_SCENARIO_H

#include "asyncore_sim.h"
#include "random.h"

enum {
    RUN_HOSTS = 16
};

enum weather {
    CALM,
    SOFT,
    HARD
};

struct run;

struct scenario {
    const char *name;
    bool separate;  /* no channel waits for another: engines make no difference to any of them */
    bool in_pairs;  /* ... but each one's peer; and some wait for an error alone, which select looks for */
    uint64_t limit; /* the world must rest by then; 0: an hour */
    int (*start)(struct run *run);   /* 0, or a negative error, which is a failure unless run->hard */
    void (*finish)(struct run *run); /* may be NULL, as the next ones; not called if start failed */
    void (*check)(struct run *run);
    void (*stop)(struct run *run); /* after the world is gone; always called */
};

/* All of them; NULL ends the table. */
extern const struct scenario *const scenarios[];
const struct scenario *scenario_find(const char *name);

/* What a caller decides about a run. Zero in any member leaves it to the seed. */
struct run_config {
    uint64_t seed;
    const char *engine;
    const uint64_t *only; /* the keys of the faults by chance that happen; see asyncore_sim_options */
    size_t only_count;
    const struct asyncore_sim_script *script;
    size_t script_count;
    uint64_t malloc_fails; /* the k-th allocation of the program (not the library's) */
    bool quiet;            /* no faults by chance, jitter on every link, no costs: for comparing engines */
    bool small;            /* few peers and bytes, small buffers: for doing it again with each call failing */
    bool full;             /* echo and forward: every client sends and is sent all of 64 KiB, for measuring */
    void (*trace)(void *arg, const char *line);
    void (*fault)(void *arg, uint64_t key, const char *line);
    void *arg;
};

/* What became of it. */
struct run_result {
    char oracle[32]; /* the name of the oracle that failed, or "" */
    char what[400];  /* what failed, where and when */
    const char *engine;
    enum weather weather;
    uint64_t calls[ASYNCORE_SIM_CALLS]; /* of the hosts with maps */
    uint64_t mallocs;                   /* of the program */
    struct {
        const char *name;
        uint64_t calls[ASYNCORE_SIM_CALLS];
    } hosts[RUN_HOSTS]; /* the same for each; those without a name are none */
    uint64_t struck;                    /* faults of the script, and of malloc_fails, that came to pass */
    uint64_t ended;                     /* the world's time */
    uint64_t turns;
};

/* 0, or -1 when an oracle failed. */
int scenario_run(const struct scenario *scenario, const struct run_config *config, struct run_result *result);

/* -- For scenarios -- */

struct peer_host;

struct run {
    const struct scenario *scenario;
    const struct run_config *config;
    struct run_result *result;
    struct asyncore_sim *world;
    struct asyncore_sim_options options; /* the world's */
    enum weather weather;
    bool hard;            /* calls and connections may fail */
    bool loop_failed;     /* a loop failed as a script wanted: nobody is served any more, and finish only tidies up */
    size_t complaints;    /* lines of type warning or error that the maps logged */
    struct random random; /* the scenario's own */
    void *state;

    const char *maps[RUN_HOSTS]; /* hosts with a map */
    size_t map_count;
    struct peer_host *peer_hosts;
    size_t connections;  /* that the scenario makes, for bounds of memory; set by start */
    size_t memory_bound; /* bytes of the library on any host; 0: by the default marks and `connections` */
    uint64_t free_turns; /* turns that need no call: timers and lookups, for the oracle "spin" */
    void *arena;
};

/* Zeroed memory that lasts as long as the run. Never fails. */
void *run_alloc(struct run *run, size_t size);

/* The map of a host, remembered for the oracles. NULL only under run->hard; otherwise that is a failure. What it logs
 * goes to run_log, which counts complaints; a scenario with a log function of its own calls it from there. */
struct asyncore_map *run_map(struct run *run, const char *host);
void run_log(void *run, const char *type, const char *message);

/* How many of something a run has: `few` if it is to be small. */
uint64_t run_size(const struct run *run, uint64_t all, uint64_t few);

uint64_t run_now(const struct run *run);

/* Whether a script may make this call fail. */
bool run_scripted(const struct run *run, enum asyncore_sim_call call);

/* -- The program's memory (program.h): counted, and made to fail by run_config.malloc_fails -- */

void *scenario_malloc(size_t size);
void *scenario_calloc(size_t count, size_t size);
void *scenario_realloc(void *memory, size_t size);
char *scenario_strdup(const char *text);
void scenario_free(void *memory);
void scenario_destroy_free(struct asyncore_dispatcher *d); /* for asyncore_destroy_free */
size_t scenario_blocks(void);                              /* that it holds now */

#endif
