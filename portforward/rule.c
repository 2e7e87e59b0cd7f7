/* rule.c: listeners, limits, and what becomes of a client that came.
 *
 * A rule has one or two listeners and the present plan; pairs have references to theirs. Listeners are read while one
 * client more may come:
 *
 *     full=pause     no limit is reached, and there is a token: else clients wait in the listener's queue
 *     full=refuse    always; who is too many is reset
 *     either         not while the first lookup of its only remotes is under way
 *
 * and a client that was accepted is reset when its address may not connect or has too many connections. The limit of
 * all rules stops those of full=pause together, and the first pair that ends lets all of them go on.
 *
 * What happens to clients that are not served is counted and told once in ten seconds, by a timer that runs only while
 * there is something to tell.
 *
 * In a reload, a rule that goes may promise a listener to one that comes (`heir`): "*" becomes "0.0.0.0" without a
 * moment in which nobody listens. Until the old rule is stopped nothing has changed, so that all of it can be undone.
 *
 * A rule is freed when it was stopped and has no pair. It counts as stopped only when nothing is left to do, so that a
 * pair that ends at once does not free it. */
#include "rule.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "limits.h"
#include "listener.h"

enum {
    REPORT_MS = 10000,
    SAME_PORT_TRIES = 16, /* until a port that is free for IPv4 is free for IPv6 as well */
    MS = 1000000,
};

struct rule {
    struct rules *rules;
    struct rule *next, **link; /* in the list of rules */
    struct endpoint bind;
    struct listener *listeners[LISTENERS_MAX];
    unsigned listener_count;
    struct plan *plan;
    struct access_list access;
    unsigned count; /* pairs */
    struct sources sources;
    struct rate rate;
    struct asyncore_timer token, report;
    unsigned refused, denied, failed; /* since the last report */
    int failure;                      /* of the last accept that failed */
    bool reads;                       /* the listeners are read */
    bool leaves, stopped;
};

/* -- Plans -- */

static void plan_ended(struct plan *plan, void *source);

static void plan_destroy(struct plan *plan)
{
    for (unsigned i = 0; i < plan->remote_count; i++)
        remote_put(plan->remotes[i]);
    free(plan->remotes);
    free(plan);
}

static int plan_fill(struct plan *plan, struct rules *rules, const struct rule_config *config, char *message)
{
    int r;

    rule_config_name(config, plan->name, sizeof(plan->name));
    for (unsigned i = 0; i < config->remote_count; i++) {
        const struct endpoint *remote = &config->remotes[i];

        r = remote_get(rules->remotes, remote->host, remote->port, &plan->remotes[i]);
        if (r < 0) {
            snprintf(message, LINE_MAX_BYTES, "%s: remote %s port %s: %s", config->where, remote->host, remote->port,
                     asyncore_strerror(r));
            return r;
        }
        plan->remote_count++;
    }
    if (!*config->options.src)
        return 0;
    r = asyncore_parse_address(config->options.src, "0", &plan->src, &plan->src_length);
    if (r < 0)
        snprintf(message, LINE_MAX_BYTES, "%s: src=%s: %s", config->where, config->options.src, asyncore_strerror(r));
    return r;
}

static int no_memory(const struct rule_config *config, char *message)
{
    snprintf(message, LINE_MAX_BYTES, "%s: %s", config->where, asyncore_strerror(-ENOMEM));
    return -ENOMEM;
}

int terms_new(struct rules *rules, const struct rule_config *config, char *message, struct terms *ret)
{
    struct plan *plan = calloc(1, sizeof(*plan));
    struct remote **remotes = calloc(config->remote_count + 1, sizeof(*remotes));
    struct access_list access = {0};
    int r;

    if (!plan || !remotes || access_copy(&access, &config->access) < 0) {
        free(plan);
        free(remotes);
        return no_memory(config, message);
    }
    plan->references = 1;
    plan->pairs = &rules->pairs;
    plan->options = config->options;
    plan->remotes = remotes;
    plan->ended = plan_ended;
    plan->destroy = plan_destroy;
    *ret = (struct terms){plan, access};
    r = plan_fill(plan, rules, config, message);
    if (r < 0)
        terms_free(ret);
    return r;
}

void terms_free(struct terms *terms)
{
    plan_put(terms->plan);
    access_free(&terms->access);
}

/* -- What was not served -- */

static void report(struct asyncore_timer *timer, void *arg)
{
    struct rule *rule = arg;
    const char *sep = rule->failed ? " error=" : "";

    (void)timer;
    if (rule->refused || rule->denied || rule->failed)
        log_event(rule->rules->pairs.log, LOG_PRIORITY_WARNING, "rule=%s refused=%u denied=%u failed=%u%s%s",
                  rule->plan->name, rule->refused, rule->denied, rule->failed, sep,
                  rule->failed ? asyncore_strerror(rule->failure) : "");
    rule->refused = rule->denied = rule->failed = 0;
}

static void count_unserved(struct rule *rule, unsigned *count)
{
    (*count)++;
    if (!asyncore_pending(&rule->report)) {
        asyncore_timer_set_background(&rule->report, 1);
        asyncore_call_later(rule->rules->pairs.map, &rule->report, REPORT_MS, report, rule);
    }
}

/* -- Whether one more may come -- */

static bool rule_full(const struct rule *rule)
{
    const struct rule_options *options = &rule->plan->options;

    return (options->max > 0 && rule->count >= options->max) || rule->rules->count >= rule->rules->max;
}

/* ns until one more may come by the rate, 0: now. */
static uint64_t rule_wait(const struct rule *rule)
{
    unsigned rate = rule->plan->options.rate;

    return rate > 0 ? rate_wait(&rule->rate, rate, asyncore_now(rule->rules->pairs.map)) : 0;
}

/* No remote has an address, and of one it is not known yet. */
static bool rule_pending(const struct rule *rule)
{
    const struct plan *plan = rule->plan;
    bool pending = false;

    for (unsigned i = 0; i < plan->remote_count; i++) {
        if (remote_pending(plan->remotes[i]))
            pending = true;
        else if (remote_error(plan->remotes[i]) == 0)
            return false;
    }
    return pending;
}

static void token_came(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    rule_update(arg);
}

static bool rule_may_read(struct rule *rule)
{
    uint64_t wait;

    if (rule_pending(rule))
        return false;
    if (rule->plan->options.refuse)
        return true;
    if (rule_full(rule))
        return false;
    wait = rule_wait(rule);
    if (wait == 0)
        return true;
    /* Nothing else might wake it: without memory for the timer it goes on, and who comes too early is refused. */
    return asyncore_call_later(rule->rules->pairs.map, &rule->token, (wait + MS - 1) / MS, token_came, rule) < 0;
}

void rule_update(struct rule *rule)
{
    bool reads = rule_may_read(rule);

    if (reads == rule->reads)
        return;
    rule->reads = reads;
    for (unsigned i = 0; i < rule->listener_count; i++)
        asyncore_want(&rule->listeners[i]->base, reads ? ASYNCORE_READ : 0);
}

static void update_all(struct rules *rules)
{
    for (struct rule *rule = rules->first; rule; rule = rule->next)
        rule_update(rule);
}

/* -- Clients -- */

static void rule_release(struct rule *rule)
{
    if (rule->count > 0 || !rule->stopped)
        return;
    free(rule->bind.host);
    free(rule->bind.port);
    free(rule);
}

static void plan_ended(struct plan *plan, void *source)
{
    struct rule *rule = plan->owner;
    struct rules *rules = rule->rules;

    source_give(&rule->sources, source);
    rule->count--;
    rules->count--;
    if (!rule->stopped && !rules->full)
        rule_update(rule);
    rule_release(rule);
    if (rules->full) {
        rules->full = false;
        update_all(rules);
    }
    rules->ended(rules->arg);
}

/* Whether the client may be served: then *source is its address's entry, or NULL. */
static bool admit(struct rule *rule, const struct sockaddr *client, struct source **source)
{
    unsigned max = rule->plan->options.max_per_source;

    *source = NULL;
    if (!access_permits(&rule->rules->access, &rule->access, client)) {
        count_unserved(rule, &rule->denied);
        return false;
    }
    if (!rule_full(rule) && rule_wait(rule) == 0) {
        if (max == 0 || client->sa_family == AF_UNIX)
            return true;
        *source = source_take(&rule->sources, client, max);
    }
    if (!*source)
        count_unserved(rule, &rule->refused);
    return *source != NULL;
}

static int rule_accept(struct rule *rule, int fd, const struct sockaddr *from, socklen_t from_length)
{
    struct rules *rules = rule->rules;
    struct sockaddr_storage client;
    socklen_t length = unmap_address(&client, from, from_length);
    struct source *source;
    int r;

    if (!admit(rule, (struct sockaddr *)&client, &source)) {
        client_reset(rules->pairs.map, fd);
        return 0;
    }
    if (rule->plan->options.rate > 0)
        rate_take(&rule->rate, rule->plan->options.rate, asyncore_now(rules->pairs.map));
    rule->count++;
    rules->count++;
    r = pair_start(rule->plan, fd, (struct sockaddr *)&client, length, source);
    if (rules->count >= rules->max && !rules->full) {
        rules->full = true;
        update_all(rules);
    } else if (!rule->stopped) {
        rule_update(rule);
    }
    return r;
}

static int listener_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *client, socklen_t length)
{
    return rule_accept(((struct listener *)d)->rule, fd, client, length);
}

/* The listener outlives whatever accept(2) says. */
static int listener_error(struct asyncore_dispatcher *d, int error)
{
    struct rule *rule = ((struct listener *)d)->rule;

    rule->failure = error;
    count_unserved(rule, &rule->failed);
    return 0;
}

static int listener_ended(struct asyncore_dispatcher *d)
{
    return listener_error(d, asyncore_error(d));
}

static int listener_accept(struct asyncore_dispatcher *d);

static const struct asyncore_class listener_class = {
    .name = "listener",
    .handle_socket = listener_made,
    .handle_accept = listener_accept,
    .handle_accepted = listener_accepted,
    .handle_error = listener_error,
    .handle_close = listener_ended,
};

static bool is_shortage(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
}

/* The library lets the listener rest, and tells nobody. */
static int listener_accept(struct asyncore_dispatcher *d)
{
    int r = asyncore_super(d, &listener_class)->handle_accept(d);

    if (is_shortage(r))
        listener_error(d, r);
    return r;
}

/* -- Listening -- */

/* The listener of a rule that goes, if it is at this very address and not promised yet. */
static struct listener *listener_left_at(struct rules *rules, const struct asyncore_address *address)
{
    for (struct rule *rule = rules->first; rule; rule = rule->next) {
        for (unsigned i = 0; rule->leaves && i < rule->listener_count; i++) {
            struct listener *listener = rule->listeners[i];

            if (!listener->heir && listener->length == address->length &&
                memcmp(&listener->address, &address->address, address->length) == 0)
                return listener;
        }
    }
    return NULL;
}

static int rule_listen_at(struct rule *rule, const struct asyncore_address *address)
{
    struct listener *listener = address ? listener_left_at(rule->rules, address) : NULL;
    int r;

    if (listener) {
        listener->heir = rule;
        return 0;
    }
    r = listener_open(&listener, rule->rules->pairs.map, &listener_class, &rule->bind, address, &rule->plan->options);
    if (r < 0)
        return r;
    listener->rule = rule;
    rule->listeners[rule->listener_count++] = listener;
    return 0;
}

static void rule_close(struct rule *rule)
{
    while (rule->listener_count > 0)
        listener_close(rule->listeners[--rule->listener_count]);
}

/* "*": a machine without IPv6 has but one of the two. IPv6 gets the port that the kernel chose for IPv4. */
static int rule_listen_both(struct rule *rule, struct asyncore_address addresses[LISTENERS_MAX])
{
    struct sockaddr_in6 *second = (struct sockaddr_in6 *)&addresses[1].address;
    bool any_port = second->sin6_port == 0;
    int r = -EADDRINUSE;

    for (int i = 0; i < (any_port ? SAME_PORT_TRIES : 1) && r == -EADDRINUSE; i++) {
        rule_close(rule);
        r = rule_listen_at(rule, &addresses[0]);
        if (r < 0)
            return r;
        if (any_port)
            second->sin6_port = ((struct sockaddr_in *)&rule->listeners[0]->address)->sin_port;
        r = rule_listen_at(rule, &addresses[1]);
    }
    return r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL ? 0 : r;
}

static int rule_listen(struct rule *rule, const struct rule_config *config, char *message)
{
    struct asyncore_address addresses[LISTENERS_MAX];
    unsigned count = listener_addresses(&rule->bind, addresses);
    bool is_unix = strncmp(rule->bind.host, "unix:", 5) == 0;
    int r = count == 2 ? rule_listen_both(rule, addresses) : rule_listen_at(rule, count == 1 ? addresses : NULL);

    if (r == 0)
        return 0;
    snprintf(message, LINE_MAX_BYTES, "%s: cannot listen on %s%s%s: %s", config->where, rule->bind.host,
             is_unix ? "" : " port ", is_unix ? "" : rule->bind.port, listener_strerror(r));
    return r;
}

/* -- A rule's life -- */

static void rule_link(struct rule *rule)
{
    struct rules *rules = rule->rules;

    rule->link = rules->end;
    *rule->link = rule;
    rules->end = &rule->next;
}

static void rule_unlink(struct rule *rule)
{
    *rule->link = rule->next;
    if (rule->next)
        rule->next->link = rule->link;
    else
        rule->rules->end = rule->link;
}

int rule_start(struct rules *rules, const struct rule_config *config, char *message, struct rule **ret)
{
    struct rule *rule = calloc(1, sizeof(*rule));
    struct terms terms;
    int r;

    if (!rule)
        return no_memory(config, message);
    r = terms_new(rules, config, message, &terms);
    if (r < 0) {
        free(rule);
        return r;
    }
    rule->rules = rules;
    rule->bind = (struct endpoint){strdup(config->bind.host), strdup(config->bind.port)};
    rule->plan = terms.plan;
    rule->plan->owner = rule;
    rule->access = terms.access;
    rule->reads = true; /* as new listeners are */
    rule_link(rule);
    r = rule->bind.host && rule->bind.port ? rule_listen(rule, config, message) : no_memory(config, message);
    if (r < 0) {
        rule_stop(rule, false);
        return r;
    }
    rule_update(rule);
    *ret = rule;
    return 0;
}

static void apply_options(struct rule *rule, struct listener *listener)
{
    char text[128];
    int r = listener_change(listener, &rule->plan->options);

    if (r < 0) {
        listener_text(listener, text);
        log_event(rule->rules->pairs.log, LOG_PRIORITY_ERROR, "%s: its options cannot be changed: %s", text,
                  asyncore_strerror(r));
    }
}

void rule_change(struct rule *rule, struct terms *terms)
{
    plan_put(rule->plan);
    access_free(&rule->access);
    rule->plan = terms->plan;
    rule->plan->owner = rule;
    rule->access = terms->access;
    for (unsigned i = 0; i < rule->listener_count; i++)
        apply_options(rule, rule->listeners[i]);
    rule_update(rule);
}

/* The configuration writes each address in one way. */
bool rule_is_at(const struct rule *rule, const struct endpoint *bind)
{
    return strcmp(rule->bind.host, bind->host) == 0 && strcmp(rule->bind.port, bind->port) == 0;
}

void rule_leave(struct rule *rule, bool leaves)
{
    rule->leaves = leaves;
    for (unsigned i = 0; !leaves && i < rule->listener_count; i++)
        rule->listeners[i]->heir = NULL;
}

bool rule_leaves(const struct rule *rule)
{
    return rule->leaves;
}

static void give_listeners(struct rule *rule)
{
    unsigned left = 0;

    for (unsigned i = 0; i < rule->listener_count; i++) {
        struct listener *listener = rule->listeners[i];
        struct rule *heir = listener->heir;

        if (!heir) {
            rule->listeners[left++] = listener;
            continue;
        }
        listener->rule = heir;
        listener->heir = NULL;
        heir->listeners[heir->listener_count++] = listener;
        apply_options(heir, listener);
        asyncore_want(&listener->base, heir->reads ? ASYNCORE_READ : 0);
    }
    rule->listener_count = left;
}

/* No more than the queue can hold: clients that come meanwhile are too late. */
static void accept_queue(struct rule *rule, struct listener *listener)
{
    struct sockaddr_storage client;
    socklen_t length;

    for (unsigned i = 0; i <= rule->plan->options.backlog; i++) {
        int fd = asyncore_accept(&listener->base, &client, &length);

        if (is_shortage(fd))
            listener_error(&listener->base, fd);
        if (fd == -EAGAIN || is_shortage(fd))
            return;
        if (fd >= 0) /* else it is a client that is gone */
            rule_accept(rule, fd, (struct sockaddr *)&client, length);
    }
}

void rule_stop(struct rule *rule, bool accept_queued)
{
    give_listeners(rule);
    rule_unlink(rule);
    for (unsigned i = 0; accept_queued && i < rule->listener_count; i++)
        accept_queue(rule, rule->listeners[i]);
    rule_close(rule);
    asyncore_cancel(&rule->token);
    asyncore_cancel(&rule->report);
    report(&rule->report, rule);
    plan_put(rule->plan);
    rule->plan = NULL;
    access_free(&rule->access);
    rule->stopped = true;
    rule_release(rule);
}

struct rule *rule_next(const struct rule *rule)
{
    return rule->next;
}

unsigned rule_listeners(const struct rule *rule)
{
    return rule->listener_count;
}

/* -- What it says about itself -- */

/* "10.0.0.5:80,[2001:db8::1]:80,unix:/run/app.sock" */
static void remotes_text(const struct plan *plan, char *text, size_t size)
{
    size_t n = 0;

    *text = '\0';
    for (unsigned i = 0; i < plan->remote_count && n < size; i++) {
        const char *host = remote_host(plan->remotes[i]), *comma = i > 0 ? "," : "";
        bool colon = strchr(host, ':') != NULL;

        if (strncmp(host, "unix:", 5) == 0)
            n += (size_t)snprintf(text + n, size - n, "%s%s", comma, host);
        else
            n += (size_t)snprintf(text + n, size - n, "%s%s%s%s:%s", comma, colon ? "[" : "", host, colon ? "]" : "",
                                  remote_port(plan->remotes[i]));
    }
}

void rule_announce(const struct rule *rule, void (*line)(void *arg, const char *text), void *arg)
{
    char remotes[LINE_MAX_BYTES], text[LINE_MAX_BYTES + 256], address[128];

    remotes_text(rule->plan, remotes, sizeof(remotes));
    for (unsigned i = 0; i < rule->listener_count; i++) {
        listener_text(rule->listeners[i], address);
        snprintf(text, sizeof(text), "listening on %s, forwarding to %s", address, remotes);
        line(arg, text);
    }
}
