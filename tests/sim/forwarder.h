/* forwarder.h: portforward in a simulated world, watched while it works. Whatever a scenario does with it, this must be
 * true at every moment, in any weather:
 *
 *     "limit"     no rule has more connections than it may, nor more of one address, nor more new ones a second
 *     "refused"   who was reset at once was denied or too many; where clients are to wait, they wait
 *     "paused"    a listener rests only while there is a reason, and something that will end it
 *     "early", "late"   timeouts, to a tick (and the time that a turn takes, if calls take time)
 *     "reason"    what the log says of a pair's end is one of the reasons that this world has
 *     "blame"     what the forwarder lacks is no failure of the remote's
 *     "flow"      what the parts of the data path promise each other
 *     "option"    sockets have the options that they should have by now
 *     "drain"     it ends when the last pair does, at its deadline at the latest, and that is told once
 *     "count"     it counts the pairs that there are
 *
 * A VISIT is a client that came, from its accept on; those of Unix sockets have no address. */
#ifndef SIM_FORWARDER_H
#define SIM_FORWARDER_H

#include "../../portforward/service.h"
#include "scenario.h"
#include <netinet/in.h>

enum {
    VISITS = 64,
    MAY_BE_CLOSED = 1 << 0, /* ways to end, for `reasons`; by chance and by hand there may be others */
    MAY_BE_RESET = 1 << 1,  /* by either end */
    MAY_BE_REFUSED = 1 << 2,
    MAY_FAIL = 1 << 3, /* connect: unreachable */
    MAY_TIME_OUT = 1 << 4,
    MAY_BE_NAMELESS = 1 << 5,
    MAY_LACK = 1 << 6 /* descriptors */
};

struct pair;
struct rule;

struct visit {
    const struct rule *rule;
    const struct pair *pair; /* NULL: it is not known, or gone */
    struct sockaddr_in client;
    struct rule_options options;
    bool refused, live;
    uint64_t blamed;      /* when its remote was said to have failed; 0: never */
    bool delays, delayed; /* the remote's Nagle delays should be off by now: to be looked at; they were */
    uint64_t began, opened, moved, ended; /* asyncore_now; opened 0: never */
};

struct forwarder {
    struct run *run;
    struct service *service;
    struct log *log;
    unsigned reasons;
    const char *denied; /* an address, or NULL */
    unsigned max;

    struct config config; /* in force */
    uint64_t applied;     /* since then */
    bool applying, stopping;
    struct visit visits[VISITS];
    size_t visit_count;
    struct visit *coming;
    const char *end;   /* the log's last reason */
    uint64_t drain_at; /* 0: not yet */
    unsigned drain_ms, drained;
};

/* Begins with these lines of a configuration, of which NULL is the last. 0, or an error, which is a failure unless
 * run->hard. Set run, reasons, denied and max before. */
int forwarder_start(struct forwarder *f, struct asyncore_map *map, const char *const *lines);

/* Takes other lines: whether they are in force now. */
bool forwarder_apply(struct forwarder *f, const char *const *lines);

void forwarder_drain(struct forwarder *f, unsigned ms);

/* Its listeners are not read from now on, as if it had much to do: clients gather in their queues. */
void forwarder_pause(struct forwarder *f);

/* Looks at what is between events: listeners, counts, the tables of pairs. */
void forwarder_look(struct forwarder *f);

/* The last visit from there, or NULL. */
const struct visit *forwarder_visit(const struct forwarder *f, const struct sockaddr_in *client);

/* Whether there is this pair; how many there are. */
unsigned forwarder_pairs(const struct forwarder *f);
bool forwarder_has(const struct forwarder *f, const struct pair *pair);

/* At the end: nobody is left. Afterwards it is freed. */
void forwarder_check(struct forwarder *f);
void forwarder_free(struct forwarder *f);

/* How much later than due a timer may come. */
uint64_t forwarder_slack(const struct run *run);

#endif
