/* forwarder.c: see forwarder.h. The program's parts are included as they are, and call each other through here. What is
 * expected of them is told from the calls between them, and from the world's time, not from what they remember. */
#include "program.h"

#include "forwarder.h"

#include "../../portforward/flow.h"
#include "../../portforward/pair.h"

static enum flow_state watched_flow(struct move *move, enum flow_state (*fn)(struct move *));
static void watched_line(struct log *log, const struct log_connection *line);
static void watched_blame(const struct pair *pair);
static int watched_start(const struct rule *rule, struct plan *plan, int fd, const struct sockaddr *client,
                         socklen_t length, void *source);
static void watched_refusal(const struct rule *rule, const struct sockaddr_storage *client, struct asyncore_map *map,
                            int fd);

#define flow_fill(move)           watched_flow(move, flow_fill)
#define flow_flush(move)          watched_flow(move, flow_flush)
#define flow_move(move)           watched_flow(move, flow_move)
#define log_connection(log, line) watched_line(log, line)
#define remotes_failed(...)       (watched_blame(pair), remotes_failed(__VA_ARGS__))
#include "../../portforward/pair.c"
#undef flow_fill
#undef flow_flush
#undef flow_move
#undef log_connection
#undef remotes_failed

#define pair_start(plan, fd, client, length, source) watched_start(rule, plan, fd, client, length, source)
#define client_reset(map, fd)                        watched_refusal(rule, &client, map, fd)
#include "../../portforward/rule.c"
#undef pair_start
#undef client_reset

#include "../../portforward/service.c"
#include "sim_socket.h"

static struct forwarder *watched;

static uint64_t now_of(const struct forwarder *f)
{
    return asyncore_now(f->service->rules.pairs.map);
}

/* A tick of the timer's, one of the wait's; and turns take time where calls do. */
uint64_t forwarder_slack(const struct run *run)
{
    return 2 * ASYNCORE_SIM_MS + 2000 * run->options.call_ns;
}

/* -- Sockets -- */

static int option_of(const struct forwarder *f, const struct asyncore_dispatcher *d, int level, int option)
{
    struct sim_host *host = (struct sim_host *)sim_os(f->run->world, "forward");
    int error, value = 0;
    struct sim_socket *s = sim_socket_of(host, d->fd, &error);
    socklen_t length = sizeof value;

    return s != NULL && sim_getsockopt(s, level, option, &value, &length) == 0 ? value : -1;
}

static void check_remote(const struct forwarder *f, struct visit *v, uint64_t now)
{
    const struct asyncore_dispatcher *remote = &v->pair->remote.base;
    unsigned idle = v->options.keepalive.idle;
    uint64_t due = v->began + (idle < 20 ? idle * NS_PER_S / 2 : 10 * NS_PER_S);

    if (v->delays) {
        oracle_that(f->run, option_of(f, remote, IPPROTO_TCP, TCP_NODELAY) == 1, "option",
                    "Nagle's delays towards the remote");
        v->delays = false;
    }
    due = (due > v->opened ? due : v->opened) + forwarder_slack(f->run);
    if (idle > 0 && now > due && v->moved <= due)
        oracle_that(f->run, option_of(f, remote, SOL_SOCKET, SO_KEEPALIVE) == 1, "option",
                    "no keepalive towards the remote");
}

/* What the sockets should have by now; each is looked at once. Not in the moment of the last move, for in that an end
 * may have failed. */
static void check_options(const struct forwarder *f, struct visit *v, uint64_t now)
{
    const struct asyncore_dispatcher *client = &v->pair->client.base;

    if (f->run->hard || v->opened == 0 || now == v->moved)
        return;
    if (is_tcp(&v->pair->remote_at))
        check_remote(f, v, now);
    if (v->moved == v->opened && is_tcp(&v->pair->client_at) && f->applied <= v->began)
        oracle_that(f->run,
                    option_of(f, client, IPPROTO_TCP, TCP_NODELAY) == 1 &&
                        option_of(f, client, SOL_SOCKET, SO_KEEPALIVE) == (v->options.keepalive.idle > 0),
                    "option", "the client's socket did not inherit what it should");
}

/* -- Visits -- */

static struct visit *visit_of(struct forwarder *f, const struct pair *pair)
{
    for (size_t i = 0; i < f->visit_count; i++)
        if (f->visits[i].live && f->visits[i].pair == pair)
            return &f->visits[i];
    return NULL;
}

/* Those of a client's address are counted while there is a limit for them: not those from before a reload set it. */
static unsigned count_live(const struct forwarder *f, const struct rule *rule, const struct sockaddr_in *client)
{
    unsigned count = 0;

    for (size_t i = 0; i < f->visit_count; i++) {
        const struct visit *v = &f->visits[i];
        count +=
            v->live && (rule == NULL || v->rule == rule) &&
            (client == NULL || (v->client.sin_addr.s_addr == client->sin_addr.s_addr && v->options.max_per_source > 0));
    }
    return count;
}

/* Whether one more at this time is over the rate: of any number of visits in a row, the first second's may come at
 * once, and each other has to wait for its share of a second. */
static bool over_rate(const struct forwarder *f, const struct rule *rule, unsigned rate, uint64_t now)
{
    uint64_t count = 1;

    for (size_t i = f->visit_count; rate > 0 && i-- > 0 && f->visits[i].began >= f->applied;) {
        const struct visit *v = &f->visits[i];
        if (v->rule != rule || v->refused)
            continue;
        count++;
        if (count * (NS_PER_S / rate) > NS_PER_S + now - v->began)
            return true;
    }
    return false;
}

/* Why this client may not come, or NULL. `waits`: what a client waits for, where clients do. */
static const char *against(const struct forwarder *f, const struct rule *rule, const struct sockaddr_in *client,
                           bool *waits)
{
    const struct rule_options *options = &rule->plan->options;
    char text[64];

    asyncore_address_text((const struct sockaddr *)client, sizeof *client, text, sizeof text);
    *waits = false;
    if (f->denied != NULL && strncmp(text, f->denied, strlen(f->denied)) == 0 && text[strlen(f->denied)] == ':')
        return "its address is denied";
    if (options->max_per_source > 0 && client->sin_port != 0 && count_live(f, rule, client) >= options->max_per_source)
        return "its address has too many";
    *waits = true;
    if (options->max > 0 && count_live(f, rule, NULL) >= options->max)
        return "the rule has too many";
    if (count_live(f, NULL, NULL) >= f->max)
        return "there are too many";
    return over_rate(f, rule, options->rate, now_of(f)) ? "too many in a second" : NULL;
}

static struct visit *visit_new(struct forwarder *f, const struct rule *rule, const struct sockaddr *client)
{
    struct visit *v = &f->visits[f->visit_count];

    if (!oracle_that(f->run, f->visit_count < VISITS, "more", "more connections than clients"))
        return &f->visits[0];
    f->visit_count++;
    v->rule = rule;
    v->options = rule->plan->options;
    v->began = v->moved = now_of(f);
    if (client->sa_family == AF_INET)
        memcpy(&v->client, client, sizeof v->client);
    return v;
}

/* What is in force where the rule listens. */
static bool options_in_force(const struct forwarder *f, const struct rule *rule)
{
    const struct rule_options *have = &rule->plan->options;

    for (unsigned i = 0; i < f->config.rule_count; i++) {
        const struct rule_options *should = &f->config.rules[i].options;
        if (rule_is_at(rule, &f->config.rules[i].bind))
            return have->max == should->max && have->rate == should->rate && have->refuse == should->refuse &&
                   have->connect == should->connect && have->idle == should->idle && have->half == should->half &&
                   have->life == should->life && have->max_per_source == should->max_per_source;
    }
    return false;
}

/* `coming`: the rule has counted who is no visit yet. */
static void check_count(const struct forwarder *f, unsigned coming)
{
    unsigned count = count_live(f, NULL, NULL) + coming;

    oracle_that(f->run, service_connections(f->service) == count, "count", "%u connections are counted as %u", count,
                service_connections(f->service));
}

/* -- How pairs end -- */

static unsigned may_of(const char *end)
{
    static const struct {
        const char *end;
        unsigned may;
    } ends[] = {{"closed", MAY_BE_CLOSED},           {"client-reset", MAY_BE_RESET}, {"remote-reset", MAY_BE_RESET},
                {"connect-refused", MAY_BE_REFUSED}, {"connect-failed", MAY_FAIL},   {"connect-timeout", MAY_TIME_OUT},
                {"idle-timeout", MAY_TIME_OUT},      {"half-timeout", MAY_TIME_OUT}, {"life-timeout", MAY_TIME_OUT},
                {"no-address", MAY_BE_NAMELESS},     {"no-resources", MAY_LACK}};

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (strcmp(ends[i].end, end) == 0)
            return ends[i].may;
    return 0;
}

static void check_reason(const struct forwarder *f)
{
    static const char *const hard[] = {"no-resources", "connect-refused", "client-reset",
                                       "remote-reset", "connect-timeout", "no-address"};
    struct run *run = f->run;
    bool is_hard = false, drains = strcmp(f->end, "drain-deadline") == 0 && f->drain_at != 0;
    bool stops = strcmp(f->end, "stopped") == 0 && (f->stopping || f->drain_at != 0);

    for (size_t i = 0; i < sizeof hard / sizeof *hard; i++)
        is_hard |= strcmp(f->end, hard[i]) == 0;
    oracle_that(
        run, may_of(f->end) & f->reasons || drains || stops || (run->hard && is_hard) || run->config->script_count > 0,
        "reason", "a pair ended with \"%s\"", f->end);
}

/* One of the times that a pair has; `exact`: if it ends by that, then not before. */
static void check_time(const struct forwarder *f, const char *reason, uint64_t from, unsigned ms, bool exact)
{
    uint64_t now = now_of(f), due = from + ms * ASYNCORE_SIM_MS;

    if (ms == 0 || f->run->config->script_count > 0)
        return;
    if (strcmp(f->end, reason) == 0 && exact)
        oracle_due(f->run, reason, now, due, forwarder_slack(f->run));
    oracle_that(f->run, now <= due + forwarder_slack(f->run), "late", "%s, due at %llu ns: the pair ends by \"%s\"",
                reason, (unsigned long long)due, f->end);
}

static void check_times(const struct forwarder *f, const struct visit *v)
{
    const struct rule_options *options = &v->options;
    bool half = v->pair != NULL && (v->pair->client.flow.ended || v->pair->remote.flow.ended);

    if (oracle_excused(f->run))
        return;
    check_time(f, "life-timeout", v->began, options->life, true);
    if (f->drain_at != 0)
        check_time(f, "drain-deadline", f->drain_at, f->drain_ms, true);
    if (v->opened == 0) {
        /* Another pair may find out meanwhile that what this one would try next is dead. */
        check_time(f, "connect-timeout", v->began, options->connect,
                   v->pair != NULL && v->pair->plan->remote_count == 1 && is_tcp(&v->pair->remote_at));
        return;
    }
    check_time(f, "idle-timeout", v->moved, options->idle, true);
    if (half)
        check_time(f, "half-timeout", v->moved, options->half, true);
}

/* Of the only address it is told apart: it cannot have failed when what is missing is missing here. */
static void check_blame(const struct forwarder *f, const struct visit *v, const struct plan *plan)
{
    struct sockaddr_storage address;
    socklen_t length;
    bool single =
        plan->remote_count == 1 && asyncore_parse_address(remote_host(plan->remotes[0]), "80", &address, &length) == 0;

    oracle_that(f->run, !single || v->blamed == 0 || strcmp(f->end, "no-resources") != 0, "blame",
                "a remote is said to have failed, and it did not");
}

/* The one whose pair is not in the list any more. */
static struct visit *visit_ending(struct forwarder *f)
{
    for (size_t i = 0; i < f->visit_count; i++)
        if (f->visits[i].live && &f->visits[i] != f->coming && !forwarder_has(f, f->visits[i].pair))
            return &f->visits[i];
    return f->coming;
}

static void watched_end(struct plan *plan, void *source)
{
    struct forwarder *f = watched;
    struct visit *v = visit_ending(f);

    if (oracle_that(f->run, v != NULL, "count", "a pair has ended, and all are there")) {
        if (oracle_that(f->run, f->end != NULL || f->run->hard, "reason", "a pair ended, and the log has no line") &&
            f->end != NULL) {
            check_reason(f);
            check_times(f, v);
            check_blame(f, v, plan);
        }
        v->live = false;
        v->pair = NULL;
        v->ended = now_of(f);
        if (v == f->coming)
            f->coming = NULL;
    }
    f->end = NULL;
    plan_ended(plan, source);
}

static void watched_blame(const struct pair *pair)
{
    struct visit *v = visit_of(watched, pair);

    if (v == NULL)
        v = watched->coming;
    if (oracle_that(watched->run, v != NULL, "blame", "a pair that is gone says that its remote failed"))
        v->blamed = now_of(watched);
}

static void watched_line(struct log *log, const struct log_connection *line)
{
    watched->end = line->end;
    log_connection(log, line);
}

/* -- How pairs begin -- */

static int watched_start(const struct rule *rule, struct plan *plan, int fd, const struct sockaddr *client,
                         socklen_t length, void *source)
{
    struct forwarder *f = watched;
    struct sockaddr_in address = {.sin_family = AF_INET};
    const char *reason;
    bool waits;
    int r;

    if (client->sa_family == AF_INET)
        memcpy(&address, client, sizeof address);
    check_count(f, 1);
    reason = against(f, rule, &address, &waits);
    oracle_that(f->run, reason == NULL, "limit", "a client is served, and %s", reason);
    oracle_that(f->run, f->applying || options_in_force(f, rule), "option", "a pair has other options than its rule");
    f->coming = visit_new(f, rule, client);
    f->coming->live = true;
    plan->ended = watched_end;
    r = pair_start(plan, fd, client, length, source);
    if (f->coming != NULL)
        f->coming->pair = f->service->rules.pairs.first;
    f->coming = NULL;
    return r;
}

static void watched_refusal(const struct rule *rule, const struct sockaddr_storage *client, struct asyncore_map *map,
                            int fd)
{
    struct forwarder *f = watched;
    struct sockaddr_in address = {.sin_family = AF_INET};
    bool waits, again = rule->plan->options.rate > 0 && now_of(f) < f->applied + 2 * NS_PER_S;
    const char *reason;

    if (client->ss_family == AF_INET)
        memcpy(&address, client, sizeof address);
    reason = against(f, rule, &address, &waits);
    oracle_that(f->run, reason != NULL || f->run->hard || again, "refused", "a client is refused for nothing");
    oracle_that(f->run, !waits || rule->plan->options.refuse || f->stopping || f->applying || f->run->hard, "refused",
                "a client is refused that could wait: %s", reason);
    visit_new(f, rule, (const struct sockaddr *)client)->refused = true;
    client_reset(map, fd);
}

/* -- What flows -- */

/* Bytes in flight are in a buffer or a pipe, and neither is held without; who is dry or ended has none, who is stuck
 * has some. */
static bool agrees(const struct flow *flow, enum flow_state state)
{
    bool some = flow->count > 0;

    return some == (flow->buffer != NULL || flow->pipe != NULL) &&
           !(some && (state == FLOW_DRY || state == FLOW_ENDED)) && (some || state != FLOW_STUCK);
}

static enum flow_state watched_flow(struct move *move, enum flow_state (*fn)(struct move *))
{
    struct forwarder *f = watched;
    const struct pair *pair = move->in->data;
    const struct flow *flow = move->flow;
    struct visit *v = visit_of(f, pair);
    uint64_t bytes = flow->bytes, now;
    enum flow_state state;

    if (v == NULL) {
        oracle_fail(f->run, "flow", "bytes of a pair that is gone");
        return FLOW_DRY;
    }
    now = now_of(f);
    check_options(f, v, now);
    if (fn != flow_flush && flow->count > 0)
        oracle_fail(f->run, "flow", "it reads, and %u bytes are in flight", flow->count);
    state = fn(move);
    if (!agrees(flow, state))
        oracle_fail(f->run, "flow", "state %d, and %u bytes are in flight", state, flow->count);
    if (fn != flow_flush || flow->bytes > bytes)
        v->moved = now;
    if (pair->state == OPEN && v->opened == 0)
        v->opened = v->moved = now;
    if (flow == &pair->client.flow && flow->bytes > bytes && (bytes > 0 || flow->bytes > SMALL_SEND) && !v->delayed)
        v->delayed = v->delays = pair->state == OPEN;
    return state;
}

/* -- The forwarder -- */

/* Lines of connections say how they ended, and are looked at before; all other lines complain. */
static void log_text(void *arg, const char *text)
{
    if (strstr(text, " end=") == NULL)
        run_log(arg, "error", text);
}

static void drained_now(void *arg)
{
    struct forwarder *f = arg;

    f->drained++;
    oracle_that(f->run, count_live(f, NULL, NULL) == 0, "drain", "it is told as done, and pairs are left");
}

static int config_of(struct config *config, const char *const *lines)
{
    config_init(config, NULL, NULL, NULL);
    for (; *lines != NULL; lines++)
        if (config_line(config, "scenario", *lines) < 0) {
            config_free(config);
            return -ENOMEM;
        }
    return 0;
}

bool forwarder_apply(struct forwarder *f, const char *const *lines)
{
    struct config config;
    bool taken;

    if (config_of(&config, lines) < 0)
        return oracle_that(f->run, f->run->hard, "option", "a line is not understood") && false;
    f->applying = true;
    taken = service_apply(f->service, &config) == 0;
    f->applying = false;
    if (!taken) {
        config_free(&config);
        return false;
    }
    config_free(&f->config);
    f->config = config;
    f->applied = now_of(f);
    return true;
}

int forwarder_start(struct forwarder *f, struct asyncore_map *map, const char *const *lines)
{
    struct log_options log = {.line = log_text, .arg = f->run};
    struct service_options options = {.max = f->max, .drained = drained_now, .arg = f};
    int error;

    watched = f;
    config_init(&f->config, NULL, NULL, NULL);
    error = log_open(&f->log, map, &log);
    options.log = f->log;
    if (error == 0)
        error = service_new(&f->service, map, &options);
    if (error == 0 && !forwarder_apply(f, lines))
        error = -ENOMEM;
    return error;
}

void forwarder_free(struct forwarder *f)
{
    f->stopping = true;
    service_free(f->service);
    log_close(f->log);
    config_free(&f->config);
    f->service = NULL;
    f->log = NULL;
    f->config.rule_count = 0;
}

void forwarder_drain(struct forwarder *f, unsigned ms)
{
    bool again = f->drain_at != 0;

    f->stopping = true;
    f->drain_at = again ? f->drain_at : now_of(f);
    f->drain_ms = again ? 0 : ms;
    service_drain(f->service, ms);
    f->stopping = false;
    oracle_that(f->run, !(again || ms == 0) || count_live(f, NULL, NULL) == 0, "drain", "pairs are left at once");
}

void forwarder_pause(struct forwarder *f)
{
    for (const struct rule *rule = f->service->rules.first; rule != NULL; rule = rule->next)
        for (unsigned i = 0; i < rule->listener_count; i++)
            asyncore_want(&rule->listeners[i]->base, 0);
}

static void count_line(void *arg, const char *text)
{
    (void)text;
    ++*(unsigned *)arg;
}

void forwarder_look(struct forwarder *f)
{
    unsigned listeners = 0, lines = 0, pairs = 0;

    check_count(f, 0);
    for (const struct rule *rule = f->service->rules.first; rule != NULL; rule = rule->next) {
        bool waits = rule_full(rule) || rule_pending(rule) || asyncore_pending(&rule->token);
        oracle_that(f->run, rule->reads || waits || oracle_excused(f->run), "paused", "a listener rests for nothing");
        for (unsigned i = 0; i < rule->listener_count; i++, listeners++) {
            oracle_listens(f->run, &rule->listeners[i]->base);
            oracle_that(f->run, (asyncore_wanted(&rule->listeners[i]->base) == ASYNCORE_READ) == rule->reads, "paused",
                        "a listener does not want what its rule wants");
        }
    }
    service_announce(f->service, count_line, &lines);
    service_table(f->service, count_line, &pairs);
    oracle_that(f->run, lines == listeners && pairs == count_live(f, NULL, NULL), "count",
                "%u listeners, %u pairs are told of", lines, pairs);
}

const struct visit *forwarder_visit(const struct forwarder *f, const struct sockaddr_in *client)
{
    for (size_t i = f->visit_count; i-- > 0;)
        if (f->visits[i].client.sin_port == client->sin_port &&
            f->visits[i].client.sin_addr.s_addr == client->sin_addr.s_addr)
            return &f->visits[i];
    return NULL;
}

unsigned forwarder_pairs(const struct forwarder *f)
{
    return f->service->rules.pairs.count;
}

bool forwarder_has(const struct forwarder *f, const struct pair *pair)
{
    for (const struct pair *p = f->service->rules.pairs.first; p != NULL; p = p->next)
        if (p == pair)
            return true;
    return false;
}

void forwarder_check(struct forwarder *f)
{
    oracle_that(f->run, f->drain_at == 0 || f->drained == 1, "drain", "the end of the drain is told %u times",
                f->drained);
    oracle_that(f->run, count_live(f, NULL, NULL) == 0, "stuck", "a pair is left in the forwarder");
}
