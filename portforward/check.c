/* check.c: a configuration as text. Of a rule's options those are shown that are not the default's. */
#include "check.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "pair.h"
#include "service.h"

/* -- Options -- */

struct text {
    char text[512];
    size_t length;
};

static void add(struct text *to, const char *name, const char *value)
{
    int n = snprintf(to->text + to->length, sizeof(to->text) - to->length, "%s%s=%s", to->length ? ", " : "", name,
                     value);

    to->length += (size_t)n < sizeof(to->text) - to->length ? (size_t)n : 0;
}

static void add_time(struct text *to, const char *name, unsigned ms, unsigned usual)
{
    static const struct {
        const char *name;
        unsigned ms;
    } units[] = {{"d", 86400 * 1000}, {"h", 3600 * 1000}, {"m", 60 * 1000}, {"s", 1000}, {"ms", 1}};
    char value[32] = "none";
    unsigned i = 0;

    if (ms == usual)
        return;
    while (ms > 0 && ms % units[i].ms != 0)
        i++;
    if (ms > 0)
        snprintf(value, sizeof(value), "%u%s", ms / units[i].ms, units[i].name);
    add(to, name, value);
}

static void add_count(struct text *to, const char *name, unsigned count, unsigned usual)
{
    char value[16];

    if (count == usual)
        return;
    snprintf(value, sizeof(value), "%u", count);
    add(to, name, count > 0 ? value : "none");
}

static void add_keepalive(struct text *to, const struct keepalive *keepalive, const struct keepalive *usual)
{
    char value[64] = "off";

    if (memcmp(keepalive, usual, sizeof(*usual)) == 0)
        return;
    if (keepalive->idle > 0)
        snprintf(value, sizeof(value), "%us/%us/%u", keepalive->idle, keepalive->interval, keepalive->probes);
    add(to, "keepalive", value);
}

static void add_options(struct text *to, const struct rule_options *options, const struct rule_options *usual)
{
    static const char *const paths[] = {
        [DATA_PATH_AUTO] = "auto", [DATA_PATH_COPY] = "copy", [DATA_PATH_SPLICE] = "splice"};
    char mode[16];

    add_time(to, "connect", options->connect, usual->connect);
    add_time(to, "idle", options->idle, usual->idle);
    add_time(to, "half", options->half, usual->half);
    add_time(to, "life", options->life, usual->life);
    add_keepalive(to, &options->keepalive, &usual->keepalive);
    add_count(to, "max", options->max, usual->max);
    add_count(to, "max-per-source", options->max_per_source, usual->max_per_source);
    add_count(to, "rate", options->rate, usual->rate);
    add_count(to, "backlog", options->backlog, usual->backlog);
    if (options->refuse != usual->refuse)
        add(to, "full", options->refuse ? "refuse" : "pause");
    if (options->data_path != usual->data_path)
        add(to, "data-path", paths[options->data_path]);
    if (strcmp(options->src, usual->src) != 0)
        add(to, "src", options->src);
    snprintf(mode, sizeof(mode), "%04o", (unsigned)options->mode);
    if (options->mode != usual->mode && options->mode >= 0)
        add(to, "mode", mode);
}

/* -- Rules -- */

static void print_endpoint(const struct endpoint *endpoint)
{
    bool colon = strchr(endpoint->host, ':') != NULL;

    if (strncmp(endpoint->host, "unix:", 5) == 0)
        printf("%s", endpoint->host);
    else
        printf("%s%s%s:%s", colon ? "[" : "", endpoint->host, colon ? "]" : "", endpoint->port);
}

static void print_rule(const struct rule_config *rule)
{
    char name[RULE_NAME_SIZE + 128];
    struct text options = {0};

    printf("rule %s (%s)\n  listens on ", rule_config_name(rule, name, sizeof(name)), rule->where);
    print_endpoint(&rule->bind);
    printf("\n  forwards to ");
    for (unsigned i = 0; i < rule->remote_count; i++) {
        printf("%s", i > 0 ? ", " : "");
        print_endpoint(&rule->remotes[i]);
    }
    printf("\n");
    add_options(&options, &rule->options, &rule_defaults);
    if (options.length > 0)
        printf("  with %s\n", options.text);
    if (rule->access.count > 0)
        printf("  for clients that %u lines of its own admit\n", rule->access.count);
}

/* -- Bounds -- */

/* What the rules allow, if each of them says, or else the descriptors. */
static unsigned connections_max(const struct config *config, unsigned listeners)
{
    unsigned all = service_max(listeners);
    uint64_t sum = 0;

    for (unsigned i = 0; i < config->rule_count; i++) {
        if (config->rules[i].options.max == 0)
            return all;
        sum += config->rules[i].options.max;
    }
    return sum < all ? (unsigned)sum : all;
}

static void print_bounds(const struct config *config)
{
    const double mib = 1 << 20, shared = (double)LARGE_BUFFERS * LARGE_BUFFER + (double)PIPES * PIPE_SIZE;
    unsigned listeners = 0, max;
    struct rlimit limit = {0};

    for (unsigned i = 0; i < config->rule_count; i++)
        listeners += strcmp(config->rules[i].bind.host, "*") == 0 ? 2 : 1;
    max = connections_max(config, listeners);
    getrlimit(RLIMIT_NOFILE, &limit);
    printf("rules: %u, which listen on %u sockets\n", config->rule_count, listeners);
    if (config->access.count > 0)
        printf("access: %u lines for all rules\n", config->access.count);
    printf("connections: %u at most, of 2 descriptors each (%llu may be open)\n", max,
           (unsigned long long)limit.rlim_cur);
    printf("memory: %.1f MiB at most (%u * %.1f KiB, and %.0f MiB for all; the kernel's own not counted)\n",
           (max * (double)pair_memory() + shared) / mib, max, (double)pair_memory() / 1024, shared / mib);
}

void check_print(const struct config *config)
{
    for (unsigned i = 0; i < config->rule_count; i++)
        print_rule(&config->rules[i]);
    print_bounds(config);
}
