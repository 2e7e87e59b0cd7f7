/* sim.c: runs scenarios under many seeds; see --help. A seed that fails is shrunk (shrink.c) and told with the command
 * that runs just that again. Seeds run in this one process; a signal handler names the one that crashes or hangs. */
#include "crash.h"
#include "errnos.h"
#include "runner.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SECONDS_A_SEED = 120,
    TOGETHER = 20,
    CHOSEN_MOST = 64
};

static const char usage[] =
    "usage: sim SCENARIO...|all|regressions=FILE [OPTION]...\n"
    "  --seeds=N            so many (default 200)\n"
    "  --first=SEED         from this one on (default 1)\n"
    "  --engine=ENGINE      epoll, poll, select, or all, one after the other (default: the seed decides)\n"
    "  --only=KEY,KEY...    only these faults by chance, as a failure named them; none: no fault\n"
    "  --script=[HOST/]CALL:K[:ERROR]  the K-th CALL fails, with EIO or this errno (a name or a number);\n"
    "                       malloc:K: the program's K-th allocation\n"
    "  --same               runs every seed twice: the traces must be the same\n"
    "  --same-engines       runs every seed on every engine: each object's calls must be the same\n"
    "  --count-calls        how many calls of each kind a seed makes\n"
    "  --full               echo and forward: 8 connections with 64 KiB each way, to measure\n"
    "  --stop               stops at the first seed that fails\n"
    "  --trace              the whole trace of what fails; with --seeds=1, of what does not, too\n"
    "  --list               the scenarios\n";

/* -- Crashes -- */

static struct {
    const char *scenario;
    volatile uint64_t seed;
} at;

static void crashed(int number)
{
    char digits[24], *p = digits + sizeof digits - 1;
    uint64_t seed = at.seed;

    *p = '\0';
    do
        *--p = (char)('0' + seed % 10);
    while ((seed /= 10) > 0);
    crash_put("scenario ");
    crash_put(at.scenario);
    crash_put("\nseed ");
    crash_put(p);
    crash_put(number == SIGALRM ? "\noracle hang: it does not end\n" : "\noracle crash: a signal came\n");
}

/* -- Options -- */

static _Noreturn void wrong(const char *what, const char *which)
{
    fprintf(stderr, "sim: %s: %s\n", what, which);
    exit(2);
}

static uint64_t number(const char *text, const char *option)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*text == '\0' || *end != '\0')
        wrong(option, text);
    return n;
}

bool script_parse(struct runner *runner, const char *text)
{
    const char *slash = strchr(text, '/'), *call_at = slash != NULL ? slash + 1 : text;
    char call[32] = "", error[32] = "EIO";
    uint64_t k = 0;
    int i;

    if (sscanf(call_at, "%31[a-z_]:%" SCNu64 ":%31s", call, &k, error) < 2 || k == 0)
        return false;
    if (strcmp(call, "malloc") == 0) {
        runner->config.malloc_fails = k;
        return true;
    }
    if (slash != NULL)
        snprintf(runner->script_host, sizeof runner->script_host, "%.*s", (int)(slash - text), text);
    for (i = 0; i < ASYNCORE_SIM_CALLS && strcmp(call, asyncore_sim_call_name((enum asyncore_sim_call)i)) != 0; i++)
        continue;
    runner->script = (struct asyncore_sim_script){
        .host = slash != NULL ? runner->script_host : NULL,
        .call = (enum asyncore_sim_call)i,
        .k = k,
        .error = errno_by_name(error),
    };
    runner->config.script = &runner->script;
    runner->config.script_count = 1;
    return i < ASYNCORE_SIM_CALLS && runner->script.error != 0;
}

static void parse_only(struct run_config *config, const char *text)
{
    static uint64_t keys[4096];
    size_t count = 0;

    if (strcmp(text, "none") != 0)
        for (; *text != '\0' && count < sizeof keys / sizeof *keys; text += strspn(text, ",")) {
            char *end;
            keys[count++] = strtoull(text, &end, 10);
            if (end == text)
                wrong("not a list of keys", text);
            text = end;
        }
    config->only = keys;
    config->only_count = count;
}

static void list(void)
{
    for (size_t i = 0; scenarios[i] != NULL; i++)
        printf("%s\n", scenarios[i]->name);
    exit(0);
}

static void parse(struct runner *runner, int argc, char **argv)
{
    static const struct option options[] = {
        {"seeds", required_argument, NULL, 'n'},  {"first", required_argument, NULL, 'f'},
        {"engine", required_argument, NULL, 'e'}, {"only", required_argument, NULL, 'o'},
        {"script", required_argument, NULL, 's'}, {"same", no_argument, NULL, 'S'},
        {"same-engines", no_argument, NULL, 'E'}, {"count-calls", no_argument, NULL, 'c'},
        {"full", no_argument, NULL, 'F'},         {"stop", no_argument, NULL, 'q'},
        {"trace", no_argument, NULL, 't'},        {"list", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},         {0}};
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1)
        switch (option) {
        case 'n':
            runner->seeds = number(optarg, "not a number of seeds");
            break;
        case 'f':
            runner->first = number(optarg, "not a seed");
            break;
        case 'e':
            runner->all_engines = strcmp(optarg, "all") == 0;
            runner->config.engine = runner->all_engines ? NULL : optarg;
            break;
        case 'o':
            parse_only(&runner->config, optarg);
            break;
        case 's':
            if (!script_parse(runner, optarg))
                wrong("not a script", optarg);
            break;
        case 'S':
            runner->same = true;
            break;
        case 'E':
            runner->same_engines = true;
            break;
        case 'c':
            runner->count_calls = true;
            break;
        case 'F':
            runner->config.full = true;
            break;
        case 'q':
            runner->stop = true;
            break;
        case 't':
            runner->trace = true;
            break;
        case 'l':
            list();
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            exit(2);
        }
    if (optind == argc)
        wrong("no scenario", "see --help");
}

/* -- Runs -- */

static void print_line(void *arg, const char *line)
{
    (void)arg;
    puts(line);
}

static void print_calls(const struct scenario *scenario, uint64_t seed, const struct run_result *result)
{
    printf("%s seed %" PRIu64 ": turns %" PRIu64 ", malloc %" PRIu64, scenario->name, seed, result->turns,
           result->mallocs);
    for (int i = 0; i < ASYNCORE_SIM_CALLS; i++)
        if (result->calls[i] != 0)
            printf(", %s %" PRIu64, asyncore_sim_call_name((enum asyncore_sim_call)i), result->calls[i]);
    printf("\n");
}

/* Whether it held. */
static bool run_seed(const struct runner *runner, const struct scenario *scenario, const struct run_config *config)
{
    struct run_result result;

    at.seed = config->seed;
    alarm(SECONDS_A_SEED);
    if (runner->same)
        return compare_same(scenario, config);
    if (runner->same_engines)
        return compare_engines(scenario, config);
    if (scenario_run(scenario, config, &result) == 0) {
        if (runner->count_calls)
            print_calls(scenario, config->seed, &result);
        return true;
    }
    alarm(10 * SECONDS_A_SEED);
    report_failure(runner, scenario, config, &result);
    return false;
}

static double cpu_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct tally {
    const struct scenario *scenario;
    uint64_t tried, failed;
    double seconds;
};

/* So many seeds from `first` on. */
static void run_seeds(const struct runner *runner, struct tally *tally, uint64_t first, uint64_t seeds)
{
    static const char *const engines[] = {"epoll", "poll", "select"};
    struct run_config config = runner->config;
    double begin = cpu_seconds();

    if (runner->trace && runner->seeds == 1)
        config.trace = print_line;
    at.scenario = tally->scenario->name;
    for (uint64_t i = 0; i < seeds && !(runner->stop && tally->failed > 0); i++) {
        config.seed = first + i;
        for (int e = 0; e < (runner->all_engines ? 3 : 1); e++) {
            config.engine = runner->all_engines ? engines[e] : config.engine;
            tally->failed += !run_seed(runner, tally->scenario, &config);
            tally->tried++;
        }
    }
    alarm(0);
    tally->seconds += cpu_seconds() - begin;
}

static void print_tally(const struct tally *t)
{
    printf("%s: %" PRIu64 " seeds in %.2f s of CPU, %.0f a second: %" PRIu64 " failed\n", t->scenario->name, t->tried,
           t->seconds, (double)t->tried / (t->seconds > 0 ? t->seconds : 1e-9), t->failed);
    fflush(stdout);
}

/* One scenario after the other; with --stop by turns, which finds what there is to find sooner. Whether none failed. */
static bool run_all(const struct runner *runner, struct tally *tallies, size_t count)
{
    uint64_t step = runner->stop ? TOGETHER : runner->seeds;
    bool good = true;

    for (uint64_t done = 0; done < runner->seeds && (good || !runner->stop); done += step) {
        uint64_t seeds = runner->seeds - done < step ? runner->seeds - done : step;
        for (size_t i = 0; i < count && (good || !runner->stop); i++) {
            run_seeds(runner, &tallies[i], runner->first + done, seeds);
            good = good && tallies[i].failed == 0;
            if (!runner->stop)
                print_tally(&tallies[i]);
        }
    }
    for (size_t i = 0; runner->stop && i < count; i++)
        print_tally(&tallies[i]);
    return good;
}

/* "SCENARIO SEED [KEY,KEY...|none|script=...] # what it was", a line each. */
static uint64_t run_regressions(const struct runner *runner, const char *file)
{
    char line[4096], name[32], keys[4000];
    FILE *f = fopen(file, "r");
    uint64_t failed = 0, tried = 0, seed;

    if (f == NULL)
        wrong(file, strerror(errno));
    while (fgets(line, sizeof line, f) != NULL) {
        struct runner each = *runner;
        int words;
        line[strcspn(line, "#\n")] = '\0';
        words = sscanf(line, "%31s %" SCNu64 " %3999s", name, &seed, keys);
        if (words <= 0)
            continue;
        if (words == 1 || scenario_find(name) == NULL)
            wrong("not a regression", line);
        each.config.seed = seed;
        if (words == 3 && strncmp(keys, "script=", 7) != 0)
            parse_only(&each.config, keys);
        else if (words == 3 && !script_parse(&each, keys + 7))
            wrong("not a script", keys);
        at.scenario = scenario_find(name)->name;
        failed += !run_seed(&each, scenario_find(name), &each.config);
        tried++;
    }
    fclose(f);
    printf("regressions: %" PRIu64 ": %" PRIu64 " failed\n", tried, failed);
    return failed;
}

/* Each world takes and frees buffers anew: that memory need not come from the kernel, page by page, each time. */
static void keep_memory(void)
{
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
#endif
}

static size_t choose(const struct runner *runner, const char *name, struct tally *tallies, size_t count)
{
    bool all = strcmp(name, "all") == 0;

    if (!all && scenario_find(name) == NULL)
        wrong("no such scenario", name);
    for (size_t i = 0; scenarios[i] != NULL; i++)
        if ((all || scenarios[i] == scenario_find(name)) && (!runner->same_engines || scenarios[i]->separate) &&
            count < CHOSEN_MOST)
            tallies[count++].scenario = scenarios[i];
    return count;
}

int main(int argc, char **argv)
{
    static struct runner runner = {.first = 1, .seeds = 200};
    static struct tally tallies[CHOSEN_MOST];
    size_t count = 0;
    bool good = true;

    parse(&runner, argc, argv);
    crash_watch(crashed);
    keep_memory();
    for (; optind < argc; optind++)
        if (strncmp(argv[optind], "regressions=", 12) == 0)
            good = run_regressions(&runner, argv[optind] + 12) == 0 && good;
        else
            count = choose(&runner, argv[optind], tallies, count);
    return run_all(&runner, tallies, count) && good ? 0 : 1;
}
