/* limits.h: how many connections a source address has, and how many begin in a second. */
#ifndef PORTFORWARD_LIMITS_H
#define PORTFORWARD_LIMITS_H

#include <stdint.h>
#include <sys/socket.h>

/* Source addresses that have connections; zero it before its first use. An entry lives while its count is not 0, so
 * there are no more of them than connections. */
struct sources {
    void *tree;
};

struct source;

/* One connection more of this address. NULL: it has `max`, or there is no memory. */
struct source *source_take(struct sources *sources, const struct sockaddr *client, unsigned max);
void source_give(struct sources *sources, struct source *source); /* NULL is nothing */

/* A bucket of tokens, one a connection; it holds those of one second. Zero it before its first use. */
struct rate {
    uint64_t next; /* ns: when the bucket will be full again, plus the time of one token */
};

/* Nanoseconds until there is a token, 0: there is one. `now` as asyncore_now(). */
uint64_t rate_wait(const struct rate *rate, unsigned per_second, uint64_t now);
void rate_take(struct rate *rate, unsigned per_second, uint64_t now);

/* An IPv4 address that came as an IPv6 one (::ffff:192.0.2.1) becomes what it is. Other addresses are copied. */
socklen_t unmap_address(struct sockaddr_storage *to, const struct sockaddr *from, socklen_t length);

#endif
