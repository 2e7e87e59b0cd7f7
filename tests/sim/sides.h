/* sides.h: clients and servers on both sides of a forwarder. Their streams say themselves which they are, so that each
 * end finds its other end, and what came out at one can be held against what went in at the other. */
#ifndef SIM_SIDES_H
#define SIM_SIDES_H

#include "peer.h"

struct sides;

struct side {
    struct peer peer;
    struct sides *all;
    struct side *from; /* whose bytes come; NULL: not known yet */
    unsigned char head[8];
    struct sockaddr_in own; /* a client's address */
};

/* As many servers as clients: each is for one connection, in the order in which they come. */
struct sides {
    struct peer listener;
    struct side *clients, *servers;
    int count;
};

/* Peers without salts and plans. */
void sides_begin(struct run *run, struct sides *sides, int count);

/* Servers come to this port of this host. */
void sides_listen(struct run *run, struct sides *sides, const char *host, uint16_t port);

/* It sends all that it is to, ends with an end of stream, and reads everything. */
bool side_polite(const struct side *side);

/* What came is what the other end sent, and an end of stream came only where there was one and all bytes before it. */
void side_check(struct run *run, const struct side *side);

/* ... and all of it came, as between two that are polite. */
void side_check_whole(struct run *run, const struct side *side);

#endif
