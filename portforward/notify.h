/* notify.h: what systemd tells a service and wants to be told: sockets that it listens on already (LISTEN_FDS,
 * sd_listen_fds(3)), and READY=1 and the like (NOTIFY_SOCKET, sd_notify(3)). Without systemd all of it is nothing. */
#ifndef PORTFORWARD_NOTIFY_H
#define PORTFORWARD_NOTIFY_H

#include <sys/socket.h>

/* Reads LISTEN_PID and LISTEN_FDS once, unsets them, and sets close-on-exec on the descriptors. The number of sockets,
 * 0 if none is for this process. */
int notify_listen_fds(void);

/* A listening stream socket among them that is bound to this address; each is given once, and is the caller's then
 * (asyncore_set_socket, asyncore_listen). -1: there is none. -EINVAL: the address is covered by a socket for any IPv6
 * address that takes IPv4 as well. Such a one is never given: systemd.socket(5) BindIPv6Only=ipv6-only makes it right.
 * */
int notify_take(const struct sockaddr *address, socklen_t length);

/* Closes those that nobody took; `unused` is called with the address of each, as text. */
void notify_close_unused(void (*unused)(void *arg, const char *address), void *arg);

/* Sends a state such as "READY=1" or "RELOADING=1\nMONOTONIC_USEC=..."; never blocks, fails silently. */
void notify_send(const char *state);
void notify_reloading(void); /* RELOADING=1 with the time that systemd wants with it */

#endif
