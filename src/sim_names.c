/* sim_names.c: what name servers say (asyncore_sim_set_name), and /etc/hosts, which has the world's hosts and localhost.
 * A query waits in its host's list until its answer is due on the host's clock; the resolver's only event is that its
 * deadline is past. */
#include "address.h"
#include "sim.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TIMEOUT (5 * ASYNCORE_SIM_SECOND) /* of a name server that does not answer, by fault */

struct names {
    struct sim_host *host;
    struct names_client *client;
    link_t queries;
};

struct query {
    link_t link;
    void *query;
    const struct sim_name *name; /* NULL: nobody set it */
    uint64_t deadline;           /* on the host's clock */
    int family, error;
};

static struct sim_name *name_find(const struct asyncore_sim *world, const char *name)
{
    for (struct sim_name *n = world->names; n != NULL; n = n->next)
        if (strcasecmp(n->name, name) == 0)
            return n;
    return NULL;
}

static int addresses_parse(struct sim_name *name, const char *text, uint32_t ttl)
{
    struct os os;
    sim_os_fill(&os);
    name->count = 0;
    while (text != NULL && *text != '\0') {
        char one[64];
        size_t n = strcspn(text, ",");
        if (n >= sizeof one || name->count == sizeof name->addresses / sizeof *name->addresses)
            return -EINVAL;
        memcpy(one, text, n);
        one[n] = '\0';
        int result = address_numeric(one, &name->addresses[name->count], &os);
        if (result < 0)
            return result;
        name->addresses[name->count++].ttl = ttl;
        text += n + (text[n] == ',');
    }
    return 0;
}

int sim_set_name(struct asyncore_sim *world, const char *text, const char *addresses, uint32_t ttl, uint64_t delay,
                 int error)
{
    struct sim_name parsed = {.delay = delay, .error = addresses == NULL ? error : 0};
    int result = addresses_parse(&parsed, addresses, ttl);
    if (result < 0)
        return result;
    struct sim_name *name = name_find(world, text);
    if (name == NULL) {
        name = sim_alloc(sizeof *name);
        char *copy = strdup(text);
        if (name == NULL || copy == NULL) {
            free(name);
            free(copy);
            return -ENOMEM;
        }
        parsed.name = copy;
        parsed.next = world->names;
        world->names = name;
    } else {
        parsed.name = name->name;
        parsed.next = name->next;
    }
    *name = parsed;
    return 0;
}

void sim_names_clear(struct asyncore_sim *world)
{
    while (world->names != NULL) {
        struct sim_name *name = world->names;
        world->names = name->next;
        free(name->name);
        free(name);
    }
}

/* -- /etc/hosts -- */

static size_t add_numeric(struct asyncore_address *addresses, size_t size, size_t count, const char *text, int family,
                          struct os *os)
{
    struct asyncore_address found;
    if (count == size || address_numeric(text, &found, os) < 0 ||
        (family != AF_UNSPEC && family != found.address.ss_family))
        return count;
    addresses[count] = found;
    return count + 1;
}

int sim_hosts(struct sim_host *here, const char *name, int family, struct asyncore_address *addresses, size_t size)
{
    size_t count = 0;
    if (strcasecmp(name, "localhost") == 0) {
        count = add_numeric(addresses, size, count, "127.0.0.1", family, &here->os);
        return (int)add_numeric(addresses, size, count, "::1", family, &here->os);
    }
    for (size_t i = 0; i < here->world->host_count; i++) {
        const struct sim_host *host = here->world->hosts[i];
        if (strcasecmp(host->name, name) != 0)
            continue;
        count = add_numeric(addresses, size, count, host->text4, family, &here->os);
        count = add_numeric(addresses, size, count, host->text6, family, &here->os);
    }
    return (int)count;
}

/* -- The resolver -- */

int sim_names_open(struct names **ret, struct names_client *client, struct sim_host *host)
{
    int error = sim_enter(host, ASYNCORE_SIM_NAMES_OPEN);
    struct names *names = error == 0 ? sim_alloc(sizeof *names) : NULL;
    if (names == NULL)
        return error != 0 ? error : -ENOMEM;
    names->host = host;
    names->client = client;
    list_init(&names->queries);
    *ret = names;
    return 0;
}

static void query_end(struct names *names, struct query *query, int error, const struct asyncore_address *addresses,
                      size_t count)
{
    void *user = query->query;
    list_unlink(&query->link);
    free(query);
    names->client->done(names->client, user, error, addresses, count);
}

void sim_names_close(struct names *names)
{
    while (!list_empty(&names->queries))
        query_end(names, owner_of(names->queries.next, struct query, link), ASYNCORE_ENAMESERVER, NULL, 0);
    free(names);
}

int sim_names_start(struct names *names, const char *host, int family, void *user)
{
    struct sim_host *here = names->host;
    int error = sim_enter(here, ASYNCORE_SIM_NAMES_START);
    struct query *query = error == 0 ? sim_alloc(sizeof *query) : NULL;
    sim_trace(here, "names_start %s = %d", host, error);
    if (query == NULL)
        return error != 0 ? error : -ENOMEM;
    query->query = user;
    query->name = name_find(here->world, host);
    query->family = family;
    query->deadline =
        here->os.now(&here->os) + (query->name != NULL ? query->name->delay : here->world->options.link.delay);
    if (sim_fault(here, NULL, ASYNCORE_SIM_NAMES)) {
        query->error = ASYNCORE_ENAMESERVER;
        query->deadline += TIMEOUT;
    }
    list_append(&names->queries, &query->link);
    return 0;
}

void sim_names_cancel(struct names *names, void *user)
{
    for (link_t *link = names->queries.next; link != &names->queries; link = link->next) {
        struct query *query = owner_of(link, struct query, link);
        if (query->query == user) {
            list_unlink(link);
            free(query);
            return;
        }
    }
}

static void answer(struct names *names, struct query *query)
{
    struct asyncore_address found[8];
    size_t count = 0;
    int error = query->error != 0 ? query->error : query->name == NULL ? ASYNCORE_ENONAME : query->name->error;
    for (size_t i = 0; error == 0 && i < query->name->count; i++)
        if (query->family == AF_UNSPEC || query->family == query->name->addresses[i].address.ss_family)
            found[count++] = query->name->addresses[i];
    if (error == 0 && count == 0)
        error = ASYNCORE_ENONAME;
    query_end(names, query, error, found, count);
}

void sim_names_event(struct names *names, int fd, unsigned events)
{
    uint64_t now = names->host->os.now(&names->host->os);
    link_t *next;
    (void)fd, (void)events;
    for (link_t *link = names->queries.next; link != &names->queries; link = next) {
        struct query *query = owner_of(link, struct query, link);
        next = link->next;
        if (query->deadline <= now)
            answer(names, query);
    }
}

uint64_t sim_names_deadline(struct names *names, uint64_t now)
{
    uint64_t first = 0;
    (void)now;
    for (link_t *link = names->queries.next; link != &names->queries; link = link->next) {
        const struct query *query = owner_of(link, struct query, link);
        if (first == 0 || query->deadline < first)
            first = query->deadline;
    }
    return first;
}
