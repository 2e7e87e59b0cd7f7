/* runner.h: the parts of `sim`. */
#ifndef SIM_RUNNER_H
#define SIM_RUNNER_H

#include "scenario.h"

/* What the command line asks for. */
struct runner {
    struct run_config config; /* seed and engine change with each run */
    uint64_t first, seeds;
    bool trace, stop, same, same_engines, count_calls, all_engines;
    struct asyncore_sim_script script;
    char script_host[32];
};

/* A trace, as text. */
struct lines {
    char *text;
    size_t used, room;
};
void lines_add(struct lines *lines, const char *line);
void lines_last(const struct lines *lines, size_t count); /* prints them */
void lines_free(struct lines *lines);

/* Finds few faults that make the same oracle fail, and prints all there is to know. */
void report_failure(const struct runner *runner, const struct scenario *scenario, const struct run_config *config,
                    const struct run_result *failed);

/* Whether two runs of a seed, or its runs on each engine, have the same trace. Says where not. */
bool compare_same(const struct scenario *scenario, const struct run_config *config);
bool compare_engines(const struct scenario *scenario, const struct run_config *config);

/* "alloc:3:ENOMEM", "server/recv:1:ECONNRESET", "malloc:2". */
bool script_parse(struct runner *runner, const char *text);

#endif
