/* access.h: which clients may connect. A pattern is an address, a CIDR block ("192.0.2.0/24", "2001:db8::/32") or
 * rinetd's glob of an IPv4 address ("192.0.2.*", "10.?.0.1"). */
#ifndef PORTFORWARD_ACCESS_H
#define PORTFORWARD_ACCESS_H

#include <stdbool.h>
#include <sys/socket.h>

enum { ACCESS_MAX = 65536 }; /* entries of one list */

struct access_entry;

struct access_list {
    struct access_entry *entries;
    unsigned count;
};

/* Adds a pattern. 0, -EINVAL: it is none, -ENOMEM, -E2BIG. */
int access_add(struct access_list *list, bool allow, const char *pattern);
void access_free(struct access_list *list);
int access_copy(struct access_list *to, const struct access_list *from);

/* May this client connect? Both lists count as one: a deny that matches wins; if there is any allow, one must match.
 * IPv4 clients of an IPv6 socket (::ffff:a.b.c.d) count as IPv4. Clients that have no address (Unix sockets) are let
 * in: the mode of the file is their gate. */
bool access_permits(const struct access_list *all, const struct access_list *rule, const struct sockaddr *client);

#endif
