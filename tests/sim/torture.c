/* torture.c: every scenario again with the k-th call failing, for every k and every error that Linux may give there.
 *
 * A TARGET is a scenario under one seed on one engine, small and quiet (scenario.h): the same calls in every run. Its
 * first run, without a fault, tells how many calls of each kind each host makes, and how many allocations the program.
 * Then it is run again for each of them, once for each errno of errnos.c. The oracles are the scenario's own and those
 * of every run; what "reported" is, each scenario says in its check.
 *
 * SECOND FAULTS are for what only a first one leads to: if a run reached a call site (sites.h) that the first run did
 * not, that call is made to fail as well, and so are the few calls that come right after the first fault. Each pair of
 * sites and errors is tried once.
 *
 * A fault has a text, as `sim --script` takes it: HOST/CALL:K:ERROR, or malloc:K. Whatever fails, crashes or hangs is
 * told with the command that runs just that again. */
#include "crash.h"
#include "errnos.h"
#include "scenario.h"
#include "sites.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SECONDS_A_RUN = 60,
    FAULTS = 2,
    TOLD = 20,
    PAIRS = 1 << 15,
    QUICK = 7,
    MOST_CALLS = 2000
};

static const char usage[] =
    "usage: torture SCENARIO...|all [OPTION]...\n"
    "  --engine=ENGINE     epoll, poll or select (default: all three)\n"
    "  --seeds=N           from 1 to N (default 8)\n"
    "  --seed=SEED         this one alone\n"
    "  --share=I/N         the I-th of N parts of the work, from 0\n"
    "  --quick[=OFFSET]    every seventh fault only\n"
    "  --script=FAULT[,FAULT]  just this: [HOST/]CALL:K:ERROR or malloc:K\n"
    "  --trace             the trace of what --script does\n"
    "  --sites=FILE        which call sites were reached and failed, for sites.py; -: standard output\n"
    "  --count             how many calls there are, and no faults\n";

struct fault {
    char host[16];
    enum asyncore_sim_call call; /* ASYNCORE_SIM_CALLS: the program's malloc */
    uint64_t k;
    int error;
};

/* What the command line asks for. */
static struct {
    const char *engine, *sites;
    uint64_t seed, seeds, share, shares, quick_offset;
    bool quick, trace, count;
    struct fault faults[FAULTS];
    size_t fault_count;
} options = {.seeds = 8, .shares = 1};

static struct {
    uint64_t runs, faults, failed, told;
} total;

struct target {
    const struct scenario *scenario;
    const char *engine;
    uint64_t seed, number; /* number: from 1, of all targets */
    struct run_result baseline;
};

/* -- What runs now, for signal handlers -- */

static char at[512] = "nothing";

static void crashed(int number)
{
    crash_put(number == SIGALRM ? "HANGS: torture " : "CRASHED: torture ");
    crash_put(at);
    crash_put("\n");
}

/* -- Faults as text -- */

static size_t fault_text(const struct fault *f, char *text, size_t size)
{
    if (f->call == ASYNCORE_SIM_CALLS)
        return (size_t)snprintf(text, size, "malloc:%" PRIu64, f->k);
    return (size_t)snprintf(text, size, "%s%s%s:%" PRIu64 ":%s", f->host, *f->host ? "/" : "",
                            asyncore_sim_call_name(f->call), f->k, errno_name(f->error));
}

static enum asyncore_sim_call call_by_name(const char *name)
{
    int i = 0;

    while (i < ASYNCORE_SIM_CALLS && strcmp(name, asyncore_sim_call_name((enum asyncore_sim_call)i)) != 0)
        i++;
    return (enum asyncore_sim_call)i;
}

static bool fault_parse(struct fault *f, const char *text)
{
    const char *slash = strchr(text, '/');
    char call[32] = "", error[32] = "";
    int words;

    *f = (struct fault){.k = 0};
    if (slash != NULL)
        snprintf(f->host, sizeof f->host, "%.*s", (int)(slash - text), text);
    words = sscanf(slash != NULL ? slash + 1 : text, "%31[a-z_]:%" SCNu64 ":%31s", call, &f->k, error);
    f->call = call_by_name(call);
    f->error = errno_by_name(error);
    if (strcmp(call, "malloc") == 0)
        return words == 2 && f->k > 0;
    return words == 3 && f->k > 0 && f->call < ASYNCORE_SIM_CALLS && f->error != 0;
}

/* -- Runs -- */

static void print_line(void *arg, const char *line)
{
    (void)arg;
    puts(line);
}

static void name_run(const struct target *t, const struct fault *faults, size_t count)
{
    size_t n =
        (size_t)snprintf(at, sizeof at, "%s --seed=%" PRIu64 " --engine=%s", t->scenario->name, t->seed, t->engine);

    for (size_t i = 0; i < count; i++) {
        n += (size_t)snprintf(at + n, sizeof at - n, i == 0 ? " --script=" : ",");
        n += fault_text(&faults[i], at + n, sizeof at - n);
    }
}

static int run(const struct target *t, const struct fault *faults, size_t count, struct run_result *result)
{
    /* A run that only counts has one that never strikes: scenarios may do less where calls can fail. */
    struct asyncore_sim_script script[FAULTS] = {{NULL, ASYNCORE_SIM_ANY, UINT64_MAX, -EIO}};
    struct run_config config = {.seed = t->seed, .engine = t->engine, .quiet = true, .small = true, .script = script};

    for (size_t i = 0; i < count; i++) {
        const struct fault *f = &faults[i];
        if (f->call == ASYNCORE_SIM_CALLS)
            config.malloc_fails = f->k;
        else
            script[config.script_count++] =
                (struct asyncore_sim_script){*f->host ? f->host : NULL, f->call, f->k, f->error};
    }
    if (count == 0)
        config.script_count = 1;
    config.trace = options.trace ? print_line : NULL;
    name_run(t, faults, count);
    total.runs++;
    sites_begin(count == 0);
    alarm(SECONDS_A_RUN);
    int failed = scenario_run(t->scenario, &config, result);
    alarm(0);
    return failed;
}

/* One failure of a kind is told, and all are counted. */
static bool told_before(const struct target *t, const char *oracle)
{
    static struct {
        const struct scenario *scenario;
        const void *site;
        char oracle[32];
    } told[1024];
    static size_t count;

    for (size_t i = 0; i < count; i++)
        if (told[i].scenario == t->scenario && told[i].site == sites_struck() && strcmp(told[i].oracle, oracle) == 0)
            return true;
    if (count < sizeof told / sizeof *told) {
        told[count].scenario = t->scenario;
        told[count].site = sites_struck();
        memcpy(told[count++].oracle, oracle, sizeof told->oracle);
    }
    return false;
}

static void complain(const struct target *t, const char *oracle, const char *what)
{
    total.failed++;
    if (told_before(t, oracle))
        return;
    total.told++;
    printf("FAILED: %s: %s\n  torture %s\n", oracle, what, at);
    fflush(stdout);
}

static void run_faults(const struct target *t, const struct fault *faults, size_t count)
{
    static struct run_result result;

    total.faults++;
    if (run(t, faults, count, &result) < 0)
        complain(t, result.oracle, result.what);
    else if (result.struck < count)
        complain(t, "struck", "a fault of the script did not come to pass");
}

/* -- Second faults -- */

/* Whether this pair of sites and errors is new to the target. */
static bool pair_new(const struct target *t, const void *first, int first_error, const struct site_call *second,
                     int error)
{
    static struct pair {
        uint64_t target; /* its number: the pairs of those before are none */
        const void *first, *second;
        int errors[2];
    } pairs[PAIRS];
    static uint64_t target;
    static size_t count;
    const uint64_t words[] = {(uintptr_t)first, (uintptr_t)second->site, (unsigned)first_error, (unsigned)error};
    uint64_t hash = 0;
    size_t i;

    count = target == t->number ? count : 0;
    target = t->number;
    for (i = 0; i < 4; i++)
        hash = (hash ^ words[i]) * UINT64_C(0x9E3779B97F4A7C15) ^ hash >> 29;
    for (i = hash >> 20; pairs[i % PAIRS].target == target; i++) {
        const struct pair *p = &pairs[i % PAIRS];
        if (p->first == first && p->second == second->site && p->errors[0] == first_error && p->errors[1] == error)
            return false;
    }
    if (count == PAIRS / 2)
        return false;
    count++;
    pairs[i % PAIRS] = (struct pair){target, first, second->site, {first_error, error}};
    return true;
}

static void second_faults(const struct target *t, const struct fault *first)
{
    struct site_call calls[SITE_CALLS + 8];
    const struct site_call *list;
    const void *site = sites_struck();
    size_t count = sites_new(&list), more;

    if (count == 0)
        return;
    memcpy(calls, list, count * sizeof *calls);
    more = sites_after(&list);
    memcpy(calls + count, list, more * sizeof *calls);
    for (size_t i = 0; i < count + more; i++)
        for (const int *error = errnos_of(calls[i].call); *error != 0; error++) {
            struct fault both[2] = {*first, {.call = calls[i].call, .k = calls[i].k, .error = *error}};
            memcpy(both[1].host, calls[i].host, sizeof both[1].host);
            bool itself =
                both[1].call == first->call && both[1].k == first->k && strcmp(first->host, both[1].host) == 0;
            if (!itself && pair_new(t, site, first->error, &calls[i], *error))
                run_faults(t, both, 2);
        }
}

/* -- All faults of a target -- */

static bool mine(void)
{
    static uint64_t count;
    uint64_t number = count++;

    if (options.quick && (number + options.quick_offset) % QUICK != 0)
        return false;
    return number / (options.quick ? QUICK : 1) % options.shares == options.share;
}

static void first_fault(const struct target *t, const struct fault *f)
{
    if (!mine())
        return;
    run_faults(t, f, 1);
    second_faults(t, f);
}

static void all_faults(const struct target *t)
{
    struct fault f;

    for (int h = 0; h < RUN_HOSTS && t->baseline.hosts[h].name != NULL; h++)
        for (int call = ASYNCORE_SIM_ALLOC; call < ASYNCORE_SIM_CALLS; call++) {
            f = (struct fault){.call = (enum asyncore_sim_call)call};
            snprintf(f.host, sizeof f.host, "%s", t->baseline.hosts[h].name);
            for (f.k = 1; f.k <= t->baseline.hosts[h].calls[call]; f.k++)
                for (const int *error = errnos_of(f.call); *error != 0; error++) {
                    f.error = *error;
                    first_fault(t, &f);
                }
        }
    f = (struct fault){.call = ASYNCORE_SIM_CALLS};
    for (f.k = 1; f.k <= t->baseline.mallocs; f.k++)
        first_fault(t, &f);
}

static void print_calls(const struct target *t)
{
    printf("%s seed %" PRIu64 " %s: malloc %" PRIu64, t->scenario->name, t->seed, t->engine, t->baseline.mallocs);
    for (int i = 0; i < ASYNCORE_SIM_CALLS; i++)
        if (t->baseline.calls[i] != 0)
            printf(", %s %" PRIu64, asyncore_sim_call_name((enum asyncore_sim_call)i), t->baseline.calls[i]);
    printf("\n");
}

static void torture(const struct scenario *scenario, uint64_t seed, const char *engine)
{
    static uint64_t count;
    static struct target target;
    struct target *t = &target;

    *t = (struct target){.scenario = scenario, .engine = engine, .seed = seed, .number = ++count};
    if (options.fault_count > 0) {
        run_faults(t, options.faults, options.fault_count);
    } else if (run(t, NULL, 0, &t->baseline) < 0) {
        complain(t, t->baseline.oracle, t->baseline.what);
    } else if (options.count) {
        print_calls(t);
    } else if (t->baseline.calls[ASYNCORE_SIM_ANY] > MOST_CALLS) {
        printf("%s: left out, for it makes more than %d calls\n", at, MOST_CALLS);
    } else {
        all_faults(t);
    }
}

static void torture_scenario(const struct scenario *scenario)
{
    static const char *const engines[] = {"epoll", "poll", "select"};
    uint64_t first = options.seed != 0 ? options.seed : 1, last = options.seed != 0 ? first : options.seeds;
    uint64_t runs = total.faults, failed = total.failed;
    struct timespec begin, end;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t seed = first; seed <= last; seed++)
        for (int i = 0; i < 3; i++)
            if (options.engine == NULL || strcmp(options.engine, engines[i]) == 0)
                torture(scenario, seed, engines[i]);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%s: %" PRIu64 " faults in %.2f s: %" PRIu64 " failed\n", scenario->name, total.faults - runs,
           (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9, total.failed - failed);
    fflush(stdout);
}

/* -- Options -- */

static _Noreturn void wrong(const char *what, const char *which)
{
    fprintf(stderr, "torture: %s: %s\n", what, which);
    exit(2);
}

static uint64_t number(const char *text, const char *what)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*text == '\0' || *end != '\0')
        wrong(what, text);
    return n;
}

static void parse_script(char *text)
{
    for (char *one = strtok(text, ","); one != NULL; one = strtok(NULL, ","))
        if (options.fault_count == FAULTS || !fault_parse(&options.faults[options.fault_count++], one))
            wrong("not a fault", one);
}

static void parse_share(const char *text)
{
    if (sscanf(text, "%" SCNu64 "/%" SCNu64, &options.share, &options.shares) != 2 || options.share >= options.shares)
        wrong("not a share", text);
}

static void parse(int argc, char **argv)
{
    static const struct option long_options[] = {{"engine", required_argument, NULL, 'e'},
                                                 {"seed", required_argument, NULL, 's'},
                                                 {"share", required_argument, NULL, 'S'},
                                                 {"quick", optional_argument, NULL, 'q'},
                                                 {"script", required_argument, NULL, 'f'},
                                                 {"trace", no_argument, NULL, 't'},
                                                 {"sites", required_argument, NULL, 'x'},
                                                 {"count", no_argument, NULL, 'C'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {"seeds", required_argument, NULL, 'n'},
                                                 {0}};
    int option;

    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1)
        switch (option) {
        case 'e':
            options.engine = optarg;
            break;
        case 's':
            options.seed = number(optarg, "not a seed");
            break;
        case 'n':
            options.seeds = number(optarg, "not a number of seeds");
            break;
        case 'S':
            parse_share(optarg);
            break;
        case 'q':
            options.quick = true;
            options.quick_offset = optarg != NULL ? number(optarg, "not an offset") : 0;
            break;
        case 'f':
            parse_script(optarg);
            break;
        case 't':
            options.trace = true;
            break;
        case 'x':
            options.sites = optarg;
            break;
        case 'C':
            options.count = true;
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

static void write_sites(const char *name)
{
    FILE *file = strcmp(name, "-") == 0 ? stdout : fopen(name, "w");

    if (file == NULL)
        wrong("cannot write", name);
    sites_print(file);
    if (file != stdout && fclose(file) != 0)
        wrong("cannot write", name);
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    crash_watch(crashed);
    for (; optind < argc; optind++) {
        const struct scenario *scenario = scenario_find(argv[optind]);
        if (scenario != NULL)
            torture_scenario(scenario);
        else if (strcmp(argv[optind], "all") == 0)
            for (size_t i = 0; scenarios[i] != NULL; i++)
                torture_scenario(scenarios[i]);
        else
            wrong("no such scenario", argv[optind]);
    }
    printf("%" PRIu64 " runs, %" PRIu64 " with faults, %" PRIu64 " failed\n", total.runs, total.faults, total.failed);
    if (options.sites != NULL)
        write_sites(options.sites);
    return total.failed > 0;
}
