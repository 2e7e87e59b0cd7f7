/* remote.c: names and their addresses.
 *
 * A remote is numeric, and then has its one address from the beginning, or a name. A name has a timer that is always
 * pending, so that setting it anew takes no memory, and a lookup that is under way or not:
 *
 *     pending --first answer, of any kind--> known --the timer: a lookup--> known ...
 *
 * A good answer takes the place of the addresses before it; those that stay keep the time that they failed. A failed
 * one, memory that is short included, leaves them. `error` is how the last lookup ended; the log hears when that
 * changes, and when the addresses do, but not of addresses that only come in another order.
 *
 * A lookup under way keeps asyncore_loop() running, its timer does not. So a program that ends its loop by having
 * nothing left waits for an answer, seconds at most; one that ends it by asyncore_stop() and then lets go of its
 * remotes does not: the last remote_put() cancels.
 *
 * Remotes are found in a table of chains by host and port. */
#include "remote.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAILED_FOR_NS (FAILED_FOR * UINT64_C(1000000000))

enum {
    CHAINS = 1024,        /* a configuration has 131,072 remotes at most */
    LOGGED_ADDRESSES = 4, /* more are a number */
};

struct target {
    struct asyncore_address address;
    uint64_t until; /* it is tried last; FAILED_FOR after its last failure, 0: it never failed */
};

struct remote {
    struct remotes *all;
    struct remote *next, **place; /* in its chain */
    unsigned references;
    unsigned count;
    struct target *targets;
    int error; /* of the last lookup */
    bool pending;
    struct asyncore_lookup lookup;
    struct asyncore_timer timer;
    const char *port; /* behind the host */
    char host[];
};

struct remotes {
    struct asyncore_map *map;
    struct log *log;
    void (*changed)(void *arg);
    void *arg;
    uint64_t failed_at; /* the last address: no two failures have one time */
    struct remote *chains[CHAINS];
};

static struct target *target_find(struct target *targets, unsigned count, const void *address, socklen_t length)
{
    for (unsigned i = 0; i < count; i++)
        if (targets[i].address.length == length && memcmp(&targets[i].address.address, address, length) == 0)
            return &targets[i];
    return NULL;
}

/* Takes an answer's addresses, each once. 0: they are those of before, in whatever order; 1: others; -ENOMEM. */
static int adopt(struct remote *remote, const struct asyncore_address *addresses, size_t count)
{
    struct target *targets = malloc((count < ADDRESSES_MAX ? count : ADDRESSES_MAX) * sizeof *targets);
    unsigned taken = 0, stayed = 0;
    bool others;

    if (targets == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count && taken < ADDRESSES_MAX; i++) {
        const struct asyncore_address *address = &addresses[i];
        if (target_find(targets, taken, &address->address, address->length) != NULL)
            continue;
        struct target *old = target_find(remote->targets, remote->count, &address->address, address->length);
        targets[taken++] = (struct target){*address, old != NULL ? old->until : 0};
        stayed += old != NULL;
    }
    others = stayed != taken || taken != remote->count;
    free(remote->targets);
    remote->targets = targets;
    remote->count = taken;
    return others;
}

/* Seconds that an answer is good for: of the address that is first to expire, within bounds. */
static unsigned ttl_of(const struct asyncore_address *addresses, size_t count)
{
    unsigned ttl = TTL_MOST;

    for (size_t i = 0; i < count; i++)
        if (addresses[i].ttl < ttl)
            ttl = addresses[i].ttl;
    return ttl > TTL_LEAST ? ttl : TTL_LEAST;
}

/* -- What the log hears -- */

static void addresses_text(const struct remote *remote, char *text, size_t size)
{
    size_t used = 0;

    for (unsigned i = 0; i < remote->count && i < LOGGED_ADDRESSES; i++) {
        const struct asyncore_address *address = &remote->targets[i].address;
        char one[128];
        asyncore_address_text((const struct sockaddr *)&address->address, address->length, one, sizeof one);
        used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "", one);
    }
    if (remote->count > LOGGED_ADDRESSES)
        snprintf(text + used, size - used, " and %u more", remote->count - LOGGED_ADDRESSES);
}

/* The first answer is no news unless it is bad. */
static void log_good(const struct remote *remote, bool others)
{
    char text[LOGGED_ADDRESSES * 130 + 32];

    if (remote->error == 0 && (remote->pending || !others))
        return;
    addresses_text(remote, text, sizeof text);
    log_event(remote->all->log, LOG_PRIORITY_NOTICE, "%s:%s %s: %s", remote->host, remote->port,
              remote->error != 0 ? "is found" : "has changed", text);
}

static void log_bad(const struct remote *remote, int error)
{
    if (remote->error != error)
        log_event(remote->all->log, LOG_PRIORITY_WARNING, "%s:%s is not found: %s; %s", remote->host, remote->port,
                  asyncore_strerror(error),
                  remote->count > 0 ? "its last addresses stay in use" : "it has no address so far");
}

/* -- Looking up -- */

static void ask(struct asyncore_timer *timer, void *arg);

static int ask_after(struct remote *remote, unsigned seconds)
{
    return asyncore_call_every(remote->all->map, &remote->timer, seconds * UINT64_C(1000), ask, remote);
}

static void failed(struct remote *remote, int error)
{
    log_bad(remote, error);
    remote->error = error;
    remote->pending = false;
    ask_after(remote, RETRY_FAILED); /* cannot fail: it is pending */
}

static void found(struct remote *remote, bool others, unsigned ttl)
{
    log_good(remote, others);
    remote->error = 0;
    remote->pending = false;
    ask_after(remote, ttl); /* cannot fail: it is pending */
}

/* `changed` comes last: it may let go of the remote. */
static void answered(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses, size_t count,
                     void *arg)
{
    struct remote *remote = arg;
    struct remotes *all = remote->all;
    bool first = remote->pending;
    int others = error < 0 ? error : adopt(remote, addresses, count);

    (void)lookup;
    if (others < 0)
        failed(remote, others);
    else
        found(remote, others, ttl_of(addresses, count));
    if (first)
        all->changed(all->arg);
}

static int look_up(struct remote *remote)
{
    return asyncore_resolve(remote->all->map, &remote->lookup, remote->host, remote->port, AF_UNSPEC, answered, remote);
}

/* The timer comes again while a lookup takes longer than RETRY_FAILED: then there is nothing to do. */
static void ask(struct asyncore_timer *timer, void *arg)
{
    struct remote *remote = arg;
    int error = look_up(remote);

    (void)timer;
    if (error < 0 && error != -EALREADY)
        failed(remote, error);
}

/* -- A remote -- */

static struct remote **chain_of(struct remotes *all, const char *host, const char *port)
{
    uint32_t hash = 5381;

    for (; *host != '\0'; host++)
        hash = hash * 33 + (unsigned char)*host;
    for (; *port != '\0'; port++)
        hash = hash * 33 + (unsigned char)*port;
    return &all->chains[hash % CHAINS];
}

static struct remote *remote_new(struct remotes *all, const char *host, const char *port)
{
    size_t host_size = strlen(host) + 1, port_size = strlen(port) + 1;
    struct remote *remote = calloc(1, sizeof *remote + host_size + port_size);

    if (remote == NULL)
        return NULL;
    remote->all = all;
    remote->references = 1;
    remote->port = memcpy(remote->host + host_size, port, port_size);
    memcpy(remote->host, host, host_size);
    remote->place = chain_of(all, host, port);
    remote->next = *remote->place;
    if (remote->next != NULL)
        remote->next->place = &remote->next;
    *remote->place = remote;
    return remote;
}

static void remote_free(struct remote *remote)
{
    *remote->place = remote->next;
    if (remote->next != NULL)
        remote->next->place = remote->place;
    asyncore_resolve_cancel(&remote->lookup);
    asyncore_cancel(&remote->timer);
    free(remote->targets);
    free(remote);
}

/* The first lookup of a name. That there is no name server now is no reason to fail, but an answer. */
static int name_begin(struct remote *remote)
{
    int error;

    asyncore_timer_set_background(&remote->timer, 1);
    error = ask_after(remote, RETRY_FAILED);
    if (error < 0)
        return error;
    remote->pending = true;
    error = look_up(remote);
    if (error == ASYNCORE_ENAMESERVER) {
        failed(remote, error);
        return 0;
    }
    return error;
}

/* What needs no lookup has its address for good. "" and "*" are addresses to listen on. */
static int remote_begin(struct remote *remote)
{
    struct asyncore_address address = {.ttl = UINT32_MAX};
    int error;

    if (*remote->host == '\0' || strcmp(remote->host, "*") == 0)
        return ASYNCORE_EHOST;
    error = asyncore_parse_address(remote->host, remote->port, &address.address, &address.length);
    if (error == ASYNCORE_EHOST && strncmp(remote->host, "unix:", 5) != 0)
        return name_begin(remote);
    if (error == 0)
        error = adopt(remote, &address, 1);
    return error < 0 ? error : 0;
}

int remote_get(struct remotes *remotes, const char *host, const char *port, struct remote **ret)
{
    struct remote *remote = *chain_of(remotes, host, port);
    int error;

    while (remote != NULL && (strcmp(remote->host, host) != 0 || strcmp(remote->port, port) != 0))
        remote = remote->next;
    if (remote != NULL) {
        remote->references++;
        *ret = remote;
        return 0;
    }
    remote = remote_new(remotes, host, port);
    if (remote == NULL)
        return -ENOMEM;
    error = remote_begin(remote);
    if (error < 0)
        remote_free(remote);
    else
        *ret = remote;
    return error;
}

void remote_put(struct remote *remote)
{
    if (--remote->references == 0)
        remote_free(remote);
}

bool remote_pending(const struct remote *remote)
{
    return remote->pending;
}

const char *remote_host(const struct remote *remote)
{
    return remote->host;
}

const char *remote_port(const struct remote *remote)
{
    return remote->port;
}

int remote_error(const struct remote *remote)
{
    return remote->count > 0 ? 0 : remote->pending ? -EAGAIN : remote->error;
}

/* -- All of them -- */

int remotes_new(struct remotes **ret, struct asyncore_map *map, struct log *log, void (*changed)(void *arg), void *arg)
{
    struct remotes *remotes = calloc(1, sizeof *remotes);

    if (remotes == NULL)
        return -ENOMEM;
    remotes->map = map;
    remotes->log = log;
    remotes->changed = changed;
    remotes->arg = arg;
    *ret = remotes;
    return 0;
}

void remotes_free(struct remotes *remotes)
{
    if (remotes == NULL)
        return;
    for (unsigned i = 0; i < CHAINS; i++)
        while (remotes->chains[i] != NULL)
            remote_free(remotes->chains[i]);
    free(remotes);
}

/* -- Which address -- */

uint64_t remotes_start(struct remote *const *remote, unsigned count, uint64_t now)
{
    uint64_t failed_at = count > 0 ? remote[0]->all->failed_at : 0;

    return now > failed_at ? now : failed_at + 1;
}

const struct asyncore_address *remotes_pick(struct remote *const *remote, unsigned count, uint64_t start, uint64_t now,
                                            unsigned passed, unsigned *left)
{
    const struct target *picked = NULL;
    unsigned found = 0;

    for (int lately = 0; lately <= 1; lately++) {
        for (unsigned i = 0; i < count; i++) {
            const struct target *end = remote[i]->targets + remote[i]->count;
            for (const struct target *t = remote[i]->targets; t < end; t++) {
                if (t->until >= start + FAILED_FOR_NS || (t->until > now) != lately)
                    continue;
                if (found++ == passed)
                    picked = t;
            }
        }
    }
    *left = picked != NULL ? found - passed - 1 : 0;
    return picked != NULL ? &picked->address : NULL;
}

void remotes_failed(struct remote *const *remote, unsigned count, const struct sockaddr *address, socklen_t length,
                    uint64_t now)
{
    uint64_t at = remotes_start(remote, count, now);

    for (unsigned i = 0; i < count; i++) {
        struct target *t = target_find(remote[i]->targets, remote[i]->count, address, length);
        if (t == NULL)
            continue;
        t->until = at + FAILED_FOR_NS;
        remote[i]->all->failed_at = at;
    }
}
