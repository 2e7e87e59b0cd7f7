/* resolve.c: lookups. Numeric hosts and those of /etc/hosts are answered at once, other names by the resolver of the
 * os layer; either way a lookup ends in map->answered, and its function is called from the loop. The resolver is
 * opened at the first name; its descriptors are watches of the map, its deadline a timer in the background. A lookup
 * in flight keeps the loop. */
#include "address.h"
#include "map.h"
#include "watch.h"
#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct asyncore_lookup) == 96, "part of the ABI");

enum {
    LOOKUP_IDLE,
    LOOKUP_ASKED,
    LOOKUP_ANSWERED
};

static void answer(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses, size_t count)
{
    struct asyncore_map *map = lookup->map_;
    if (error == 0 && count == 0)
        error = ASYNCORE_ENONAME;
    if (error == 0) {
        lookup->result_ = map_alloc(map, count * sizeof *addresses);
        if (lookup->result_ == NULL)
            error = -ENOMEM;
    }
    if (error == 0) {
        memcpy(lookup->result_, addresses, count * sizeof *addresses);
        lookup->count_ = count;
        for (size_t i = 0; i < count; i++)
            address_set_port((struct asyncore_address *)lookup->result_ + i, lookup->port_);
    }
    lookup->error_ = error;
    lookup->flags_ = LOOKUP_ANSWERED;
    list_unlink(&lookup->link_);
    list_append(&map->answered, &lookup->link_);
    map->work |= WORK_ANSWERED;
    map_touched(map);
}

/* -- The resolver's side -- */

static void names_watch(struct names_client *client, int fd, unsigned events)
{
    struct asyncore_map *map = owner_of(client, struct asyncore_map, names_client);
    struct watch *w = watch_at(map, fd);
    bool watched = w != NULL && w->kind == WATCH_NAMES;
    if (events == 0 && watched)
        watch_del(map, fd);
    else if (events != 0 && watched)
        watch_want(map, fd, events);
    else if (events != 0)
        watch_add(map, fd, WATCH_NAMES, NULL, events); /* refused: the query then ends by its deadline */
    map_touched(map);
}

static void names_done(struct names_client *client, void *query, int error, const struct asyncore_address *addresses,
                       size_t count)
{
    (void)client;
    answer(query, error, addresses, count);
}

static void deadline_past(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    names_event(arg, -1, 0);
}

static void deadline_set(struct asyncore_map *map)
{
    uint64_t now = map->os->now(map->os), deadline = map->os->names_deadline(map->names, now);
    if (deadline == 0)
        asyncore_cancel(&map->names_timer);
    else
        timer_set_ns(map, &map->names_timer, deadline > now ? deadline - now : 0, 0, deadline_past, map);
}

void names_event(struct asyncore_map *map, int fd, unsigned events)
{
    if (map->names == NULL)
        return;
    map->os->names_event(map->names, fd, events);
    deadline_set(map);
}

static int names_ask(struct asyncore_map *map, struct asyncore_lookup *lookup, const char *host, int family)
{
    int result = 0;
    if (map->names == NULL) {
        map->names_client = (struct names_client){names_watch, names_done};
        asyncore_timer_set_background(&map->names_timer, 1);
        result = map->os->names_open(&map->names, &map->names_client, map->options.name_servers, map->os);
    }
    if (result == 0)
        result = map->os->names_start(map->names, host, family, lookup);
    if (result == 0)
        deadline_set(map);
    return result;
}

static void names_close(struct asyncore_map *map)
{
    struct names *names = map->names;
    asyncore_cancel(&map->names_timer);
    map->names = NULL;
    if (names != NULL)
        map->os->names_close(names);
}

void names_restart(struct asyncore_map *map)
{
    names_close(map);
}

/* -- The user's side -- */

/* What needs no waiting: a numeric host, or one of /etc/hosts. Whether it was answered. */
static bool known(struct asyncore_map *map, struct asyncore_lookup *lookup, const char *host, int family)
{
    struct asyncore_address found[8];
    int count = 1;
    if (address_numeric(host, found, map->os) == 0) {
        if (family != AF_UNSPEC && found[0].address.ss_family != family)
            count = 0; /* and no name server knows it better */
        answer(lookup, 0, found, (size_t)count);
        return true;
    }
    count = map->os->hosts(host, family, found, 8, map->os);
    if (count > 0 || map->os->names_open == NULL) {
        answer(lookup, count < 0 ? count : 0, found, count < 0 ? 0 : (size_t)count);
        return true;
    }
    return false;
}

static int begin(struct asyncore_map *map, struct asyncore_lookup *lookup, const char *host, int family)
{
    int result = 0;
    list_append(&map->lookups, &lookup->link_);
    lookup->flags_ = LOOKUP_ASKED;
    map->foreground++;
    if (!known(map, lookup, host, family))
        result = names_ask(map, lookup, host, family);
    if (result < 0)
        asyncore_resolve_cancel(lookup);
    return result;
}

int asyncore_resolve(struct asyncore_map *map, struct asyncore_lookup *lookup, const char *host, const char *port,
                     int family, asyncore_lookup_fn fn, void *arg)
{
    uint16_t number;
    int result = map_get(&map);
    if (result == 0)
        result = address_port(port, &number);
    if (result < 0)
        return result;
    if (host == NULL || *host == '\0' || strlen(host) > 255 || strncmp(host, "unix:", 5) == 0)
        return ASYNCORE_EHOST;
    if (fn == NULL)
        return -EINVAL;
    if (lookup->flags_ != LOOKUP_IDLE)
        return -EALREADY;
    *lookup = (struct asyncore_lookup){.map_ = map, .fn_ = fn, .arg_ = arg, .port_ = number};
    return begin(map, lookup, host, family);
}

static void finish(struct asyncore_lookup *lookup)
{
    lookup->map_->foreground--;
    list_unlink(&lookup->link_);
    lookup->flags_ = LOOKUP_IDLE;
}

void asyncore_resolve_cancel(struct asyncore_lookup *lookup)
{
    struct asyncore_map *map = lookup->map_;
    if (lookup->flags_ == LOOKUP_IDLE)
        return;
    if (lookup->flags_ == LOOKUP_ASKED && map->names != NULL)
        map->os->names_cancel(map->names, lookup);
    finish(lookup);
    map_release(map, lookup->result_);
    lookup->result_ = NULL;
}

/* Those that were answered before this began. fn may free the lookup, or begin it anew. */
void lookups_deliver(struct asyncore_map *map)
{
    link_t todo;
    list_take(&map->answered, &todo);
    while (!list_empty(&todo)) {
        struct asyncore_lookup *lookup = owner_of(todo.next, struct asyncore_lookup, link_);
        struct asyncore_address *addresses = lookup->result_;
        finish(lookup);
        lookup->result_ = NULL;
        lookup->fn_(lookup, lookup->error_, addresses, lookup->count_, lookup->arg_);
        map_release(map, addresses);
    }
}

void lookups_clear(struct asyncore_map *map)
{
    names_close(map); /* moves those in flight to answered */
    link_t *lists[] = {&map->lookups, &map->answered};
    for (int i = 0; i < 2; i++)
        while (!list_empty(lists[i]))
            asyncore_resolve_cancel(owner_of(lists[i]->next, struct asyncore_lookup, link_));
}
