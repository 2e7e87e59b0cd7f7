/* service.c: all rules together: their reload, their drain, and their end.
 *
 * A new configuration is brought in in three steps. Each of its rules is matched with one that listens at the same
 * address, or is new; rules without a match leave. Then everything that may fail is done: new rules listen (a listener
 * of a rule that leaves may be promised to them), and those that stay get their new terms made. Only when all of that
 * went well anything changes, and that cannot fail; else the new rules are stopped, the promises taken back, and the
 * old rules have noticed nothing. */
#include "service.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "rule.h"

struct service {
    struct service_options options;
    struct rules rules;
    struct asyncore_timer deadline;
    bool stops;    /* there will be no rules any more */
    bool draining; /* and the end of that was not told yet */
};

/* A rule of the new configuration. */
struct step {
    struct rule *rule;
    struct terms terms; /* of one that stays */
    bool stays;
    bool begun; /* there is something to take back */
};

unsigned service_max(unsigned listeners)
{
    struct rlimit limit;
    rlim_t reserved = RESERVED_DESCRIPTORS + (rlim_t)listeners;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > INT_MAX)
        limit.rlim_cur = INT_MAX;
    if (reserved > limit.rlim_cur / 2)
        reserved = limit.rlim_cur / 2;
    return (unsigned)(limit.rlim_cur - reserved) / 2;
}

/* -- Making and freeing -- */

static void drained(struct service *service)
{
    service->draining = false;
    asyncore_cancel(&service->deadline);
    if (service->options.drained)
        service->options.drained(service->options.arg);
}

static void pair_ended(void *arg)
{
    struct service *service = arg;

    if (service->draining && service->rules.count == 0)
        drained(service);
}

static void remotes_changed(void *arg)
{
    struct service *service = arg;

    for (struct rule *rule = service->rules.first; rule; rule = rule_next(rule))
        rule_update(rule);
}

int service_new(struct service **ret, struct asyncore_map *map, const struct service_options *options)
{
    struct service *service = calloc(1, sizeof(*service));
    struct pool *pool;
    int r;

    if (!service)
        return -ENOMEM;
    service->options = *options;
    service->rules.end = &service->rules.first;
    service->rules.ended = pair_ended;
    service->rules.arg = service;
    r = pool_new(&pool, map);
    if (r < 0) {
        free(service);
        return r;
    }
    r = pairs_init(&service->rules.pairs, map, pool, options->log);
    if (r == 0)
        r = remotes_new(&service->rules.remotes, map, options->log, remotes_changed, service);
    if (r < 0) {
        pool_free(pool);
        free(service);
        return r;
    }
    *ret = service;
    return 0;
}

static void stop_all(struct service *service, bool accept_queued)
{
    service->stops = true;
    while (service->rules.first)
        rule_stop(service->rules.first, accept_queued);
}

void service_free(struct service *service)
{
    if (!service)
        return;
    service->draining = false;
    asyncore_cancel(&service->deadline);
    stop_all(service, false);
    pairs_end(&service->rules.pairs, REASON_STOPPED);
    remotes_free(service->rules.remotes);
    pool_free(service->rules.pairs.pool);
    access_free(&service->rules.access);
    free(service);
}

/* -- A new configuration -- */

/* The rule that listens where the new one shall, and is not another's match already. */
static struct rule *find_rule(struct service *service, const struct rule_config *config)
{
    struct rule *rule = service->rules.first;

    while (rule && !(rule_leaves(rule) && rule_is_at(rule, &config->bind)))
        rule = rule_next(rule);
    return rule;
}

static void match_rules(struct service *service, const struct config *config, struct step *steps)
{
    for (struct rule *rule = service->rules.first; rule; rule = rule_next(rule))
        rule_leave(rule, true);
    for (unsigned i = 0; i < config->rule_count; i++) {
        steps[i].rule = find_rule(service, &config->rules[i]);
        steps[i].stays = steps[i].rule != NULL;
        if (steps[i].stays)
            rule_leave(steps[i].rule, false);
    }
}

/* Everything that may fail. The number of failures. */
static unsigned prepare(struct service *service, const struct config *config, struct step *steps)
{
    char message[LINE_MAX_BYTES];
    unsigned failures = 0;

    for (unsigned i = 0; i < config->rule_count; i++) {
        struct step *step = &steps[i];
        int r;

        if (step->stays)
            r = terms_new(&service->rules, &config->rules[i], message, &step->terms);
        else
            r = rule_start(&service->rules, &config->rules[i], message, &step->rule);
        step->begun = r == 0;
        if (r == 0)
            continue;
        log_event(service->options.log, LOG_PRIORITY_ERROR, "%s", message);
        failures++;
    }
    return failures;
}

static void take_back(struct service *service, struct step *steps, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (steps[i].begun && steps[i].stays)
            terms_free(&steps[i].terms);
        else if (steps[i].begun)
            rule_stop(steps[i].rule, false);
    }
    for (struct rule *rule = service->rules.first; rule; rule = rule_next(rule))
        rule_leave(rule, false);
}

static void stop_leaving(struct service *service)
{
    struct rule *next;

    for (struct rule *rule = service->rules.first; rule; rule = next) {
        next = rule_next(rule);
        if (rule_leaves(rule))
            rule_stop(rule, true);
    }
}

static void update_bounds(struct service *service)
{
    struct rules *rules = &service->rules;
    unsigned listeners = 0;

    for (struct rule *rule = rules->first; rule; rule = rule_next(rule))
        listeners += rule_listeners(rule);
    rules->max = service->options.max ? service->options.max : service_max(listeners);
    rules->full = rules->count >= rules->max;
    remotes_changed(service);
}

static void carry_out(struct service *service, struct step *steps, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (steps[i].stays)
            rule_change(steps[i].rule, &steps[i].terms);
    }
    stop_leaving(service);
    update_bounds(service);
    for (unsigned i = 0; i < count && service->options.listening; i++) {
        if (!steps[i].stays)
            rule_announce(steps[i].rule, service->options.listening, service->options.arg);
    }
}

int service_apply(struct service *service, const struct config *config)
{
    struct step *steps = calloc(config->rule_count + 1, sizeof(*steps));
    struct access_list access = {0};
    bool failed;

    if (service->stops || !steps || access_copy(&access, &config->access) < 0) {
        log_event(service->options.log, LOG_PRIORITY_ERROR, "no new rules: %s",
                  service->stops ? "it is stopping" : asyncore_strerror(-ENOMEM));
        free(steps);
        return -1;
    }
    match_rules(service, config, steps);
    failed = prepare(service, config, steps) > 0;
    if (failed) {
        take_back(service, steps, config->rule_count);
        access_free(&access);
    } else {
        access_free(&service->rules.access);
        service->rules.access = access;
        carry_out(service, steps, config->rule_count);
    }
    free(steps);
    return failed ? -1 : 0;
}

/* -- The end -- */

static void deadline_passed(struct asyncore_timer *timer, void *arg)
{
    struct service *service = arg;

    (void)timer;
    pairs_end(&service->rules.pairs, REASON_DRAINED);
}

void service_drain(struct service *service, unsigned ms)
{
    if (service->stops) {
        pairs_end(&service->rules.pairs, REASON_STOPPED);
        return;
    }
    stop_all(service, true);
    service->draining = true;
    if (service->rules.count == 0)
        drained(service);
    else if (ms == 0 ||
             asyncore_call_later(service->rules.pairs.map, &service->deadline, ms, deadline_passed, service) < 0)
        pairs_end(&service->rules.pairs, REASON_DRAINED); /* without memory for the deadline it is now */
}

/* -- Sight -- */

void service_announce(struct service *service, void (*line)(void *arg, const char *text), void *arg)
{
    for (const struct rule *rule = service->rules.first; rule; rule = rule_next(rule))
        rule_announce(rule, line, arg);
}

void service_table(struct service *service, void (*line)(void *arg, const char *text), void *arg)
{
    pairs_table(&service->rules.pairs, line, arg);
}

unsigned service_connections(const struct service *service)
{
    return service->rules.count;
}
