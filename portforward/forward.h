/* forward.h: a TCP forwarder as an object in a map: a listener, and a pair of connections for each client.
 *
 *     struct forward forward;
 *     int error = forward_start(&forward, map, &options);    listens; the map's loop does the rest
 *     ...
 *     forward_stop(&forward);                                 before asyncore_map_free() */
#ifndef PORTFORWARD_FORWARD_H
#define PORTFORWARD_FORWARD_H

#include <asyncore.h>

/* Hosts are addresses or names. A local name is one of /etc/hosts; a remote one is looked up anew for every
 * client. The texts must stay as long as the forwarder runs. */
struct forward_options {
    const char *local_host, *local_port;
    const char *remote_host, *remote_port;
};

struct pair;

struct forward {
    struct asyncore_dispatcher listener;
    struct forward_options options;
    struct pair *pairs;
};

/* Listens from here on. A negative result is why it cannot; then nothing is left behind. */
int forward_start(struct forward *forward, struct asyncore_map *map, const struct forward_options *options);

/* Stops listening and resets what is connected. The struct is the caller's again, though the map frees the pairs
 * only in its next turn or with itself. Not within a handler of the forwarder's own. */
void forward_stop(struct forward *forward);

/* Where it listens, as text: the port that the kernel picked for port 0 included. Returns the text's length. */
int forward_address(const struct forward *forward, char *text, size_t size);

#endif
