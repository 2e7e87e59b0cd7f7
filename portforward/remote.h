/* remote.h: where clients are forwarded to: a name or address with its port, what it resolves to, and which of the
 * addresses failed lately.
 *
 * A name is looked up when the remote is made, and again when its TTL is over (5 s at least, 1 h at most) or, after a
 * failure, 5 s later; looking up holds nobody up. The last good addresses stay in use while the resolver is down; an
 * answer that the name does not exist empties them only if there were none: a wrong zone must not stop what works, and
 * is said in the log. Remotes are shared by all rules that name the same host and port, and outlive reloads. */
#ifndef PORTFORWARD_REMOTE_H
#define PORTFORWARD_REMOTE_H

#include <asyncore.h>
#include <stdbool.h>

#include "log.h"

enum {
    TTL_LEAST = 5,         /* s */
    TTL_MOST = 3600,       /* s */
    RETRY_FAILED = 5,      /* s: after a lookup that failed */
    FAILED_FOR = 10,       /* s: how long an address that failed is tried last */
    ADDRESSES_MAX = 64,    /* of one remote */
};

struct remotes; /* all of one map */
struct remote;

/* `changed` is called, from the loop, when a remote got its first answer of any kind (and so remote_pending() became
 * false). */
int remotes_new(struct remotes **ret, struct asyncore_map *map, struct log *log, void (*changed)(void *arg), void *arg);
void remotes_free(struct remotes *remotes); /* after every remote_put() */

/* The remote of host and port (the texts are copied), made if there is none. -ENOMEM, ASYNCORE_EPORT, ... */
int remote_get(struct remotes *remotes, const char *host, const char *port, struct remote **ret);
void remote_put(struct remote *remote);

/* Nothing is known yet: the first lookup is under way. Clients had better wait in the listener's queue. */
bool remote_pending(const struct remote *remote);
const char *remote_host(const struct remote *remote);
const char *remote_port(const struct remote *remote);
int remote_error(const struct remote *remote); /* why it has no address; 0 if it has any */

/* When a connection begins: now (asyncore_now), or just after what failed at this very moment, in the same turn. */
uint64_t remotes_start(struct remote *const *remote, unsigned count, uint64_t now);

/* The next address to try for a connection that began at `start` (remotes_start): in the order of the remotes and of
 * their addresses, but those that failed within FAILED_FOR come last, and those that failed since `start` not at all.
 * The first
 * `passed` of them are passed over. NULL: none is left. `left` gets how many more could follow. The address is gone
 * when the loop goes on. */
const struct asyncore_address *remotes_pick(struct remote *const *remote, unsigned count, uint64_t start, uint64_t now,
                                            unsigned passed, unsigned *left);

/* The address failed, by its own fault; it is marked wherever it stands in these remotes. */
void remotes_failed(struct remote *const *remote, unsigned count, const struct sockaddr *address, socklen_t length,
                    uint64_t now);

#endif
