/* pair.h: one client's connection and the one to the remote that belongs to it. */
#ifndef PORTFORWARD_PAIR_H
#define PORTFORWARD_PAIR_H

#include "forward.h"

/* Begins to connect to the remote of the client that came. -ENOMEM: the client's fd was not taken over; every later
 * failure is the pair's, which resets it. */
int pair_start(struct forward *forward, int fd);

/* Both ends are told that it failed; the pair is gone from the forwarder's list. */
void pair_reset(struct pair *pair);

/* When the channel is closed its peer gets a reset, not an end of stream, and what was not sent yet is dropped. */
void reset_on_close(struct asyncore_dispatcher *d);

#endif
