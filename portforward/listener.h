/* listener.h: one socket that clients come to, made as a rule's options say. */
#ifndef PORTFORWARD_LISTENER_H
#define PORTFORWARD_LISTENER_H

#include <asyncore.h>

#include "config.h"

enum { LISTENERS_MAX = 2 }; /* of one bind address: "*" is two */

struct rule;

struct listener {
    struct asyncore_dispatcher base;
    struct rule *rule, *heir; /* whose it is; whose it will be when that rule stops */
    struct sockaddr_storage address;
    socklen_t length;
    const struct rule_options *options; /* while it is made */
    char *file;                         /* of a Unix socket that was bound here */
    dev_t device;
    ino_t inode;
};

/* Where `bind` listens, in numbers: two for "*". None: it is a name of /etc/hosts; bind(2) will tell. */
unsigned listener_addresses(const struct endpoint *bind, struct asyncore_address addresses[LISTENERS_MAX]);

/* The service manager's socket there takes clients of IPv4 as well as of IPv6: no rule's. */
enum { LISTENER_EDUAL = -6001 };

const char *listener_strerror(int error); /* that, and what asyncore_strerror() knows */

/* Makes a listener at `address`, or, if that is NULL, at the host and port of `bind`. */
int listener_open(struct listener **ret, struct asyncore_map *map, const struct asyncore_class *class_,
                  const struct endpoint *bind, const struct asyncore_address *address,
                  const struct rule_options *options);
void listener_close(struct listener *listener);

/* Options of sockets that are accepted from now on, the backlog, and the mode of the file. */
int listener_change(struct listener *listener, const struct rule_options *options);

/* The slot handle_socket of the listeners' class. */
int listener_made(struct asyncore_dispatcher *d, int fd);

/* "127.0.0.1:8080". */
void listener_text(const struct listener *listener, char text[128]);

#endif
