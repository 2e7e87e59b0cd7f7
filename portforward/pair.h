/* pair.h: a client's connection, the one to a remote that belongs to it, and what flows between them. */
#ifndef PORTFORWARD_PAIR_H
#define PORTFORWARD_PAIR_H

#include <asyncore.h>
#include <stdbool.h>

#include "config.h"
#include "log.h"
#include "pool.h"
#include "remote.h"

/* Why a pair ended: a closed list. reason_text() is what the log says. */
enum reason {
    REASON_NONE,            /* it has not */
    REASON_CLOSED,          /* "closed": both ends of stream were passed on, nothing is missing */
    REASON_CLIENT_RESET,    /* "client-reset" */
    REASON_REMOTE_RESET,    /* "remote-reset" */
    REASON_CLIENT_LOST,     /* "client-lost": keepalive, retransmissions or the network gave it up */
    REASON_REMOTE_LOST,     /* "remote-lost" */
    REASON_REFUSED,         /* "connect-refused" */
    REASON_UNREACHABLE,     /* "connect-failed": any other error of connect */
    REASON_CONNECT_TIMEOUT, /* "connect-timeout" */
    REASON_NO_ADDRESS,      /* "no-address": the remote's name has none */
    REASON_IDLE_TIMEOUT,    /* "idle-timeout" */
    REASON_HALF_TIMEOUT,    /* "half-timeout" */
    REASON_LIFE_TIMEOUT,    /* "life-timeout" */
    REASON_DRAINED,         /* "drain-deadline" */
    REASON_STOPPED,         /* "stopped": the forwarder was told to stop at once */
    REASON_RESOURCES,       /* "no-resources": no descriptor, memory, or local port on our side */
    REASONS
};

const char *reason_text(enum reason reason);

struct pair;

/* All pairs of a map, and what they share. */
struct pairs {
    struct asyncore_map *map;
    struct pool *pool;
    struct log *log;
    struct pair *first; /* in no order */
    unsigned count;
};

/* How pairs are forwarded: a rule as it stood when they began. Shared; each pair has a reference until it is closed
 * (its memory, which the map frees later, refers to nothing of all this). */
struct plan {
    unsigned references;
    struct pairs *pairs;
    char name[RULE_NAME_SIZE + 128]; /* for the log */
    struct rule_options options;
    struct remote **remotes;
    unsigned remote_count;
    struct sockaddr_storage src; /* of `options.src` */
    socklen_t src_length;        /* 0: none */
    /* A pair of this plan is gone. `source` is what pair_start() was given. */
    void (*ended)(struct plan *plan, void *source);
    void (*destroy)(struct plan *plan); /* the last reference is gone */
    void *owner;
};

/* Takes the memory that pairs share, so that a client for whom there is none can still be reset. -ENOMEM. */
int pairs_init(struct pairs *pairs, struct asyncore_map *map, struct pool *pool, struct log *log);

void plan_put(struct plan *plan);

/* Begins to connect for the client that came; owns fd from here on, failure included. `source` comes back by ended(),
 * which is always called. 0, or why there was no pair (-ENOMEM): then the client was reset, and ended() was called. */
int pair_start(struct plan *plan, int fd, const struct sockaddr *client, socklen_t length, void *source);

/* A client that is not to be served: its connection is reset, and fd closed. */
void client_reset(struct asyncore_map *map, int fd);

/* Resets both ends, for this reason. Not within a handler of the pair's own. */
void pair_end(struct pair *pair, enum reason reason);
void pairs_end(struct pairs *pairs, enum reason reason); /* all of them */

/* One line about each pair, "rule=... client=... remote=... state=... up=... down=... ms=... idle-ms=...". */
void pairs_table(struct pairs *pairs, void (*line)(void *arg, const char *text), void *arg);

/* What one pair takes at most, in bytes, buffers in flight included but for the pool's bounded ones. */
size_t pair_memory(void);

#endif
