/* peer.h: clients and servers that do not use the library, so that its mistakes are not made twice. They live on raw
 * hosts (src/sim.h) and are never struck by faults, but their connections are. A peer follows a plan: how fast it sends
 * and reads, and how it ends. What it did and saw stays in the struct for the oracles.
 *
 * After `total` bytes a peer does what plan.end says; after reading `enough` bytes, if that is set, it does what
 * plan.enough_end says. It is done when both directions have ended, or at the first error. */
#ifndef SIM_PEER_H
#define SIM_PEER_H

#include "scenario.h"
#include <netinet/in.h>

enum {
    PEER_BUFFER = 16384
};

enum peer_end {
    PEER_SHUTS, /* shutdown(SHUT_WR), and reads on */
    PEER_WAITS, /* does nothing, and reads on until the other side ends; then it closes */
    PEER_CLOSES,
    PEER_RESETS
};

struct peer;

/* What is sent and what becomes of what is read. Without them: the stream of `salt`, and a count. */
struct peer_class {
    void (*connected)(struct peer *peer);
    /* At most `size` bytes of what comes at peer->sent; 0: nothing now (peer_touch() when there is). */
    size_t (*output)(struct peer *peer, unsigned char *data, size_t size);
    void (*input)(struct peer *peer, const unsigned char *data, size_t size); /* at peer->received */
    void (*done)(struct peer *peer);
};

struct peer_plan {
    uint64_t start;                  /* when it connects */
    uint64_t total;                  /* bytes to send */
    size_t send_piece, read_piece;   /* at most so many in one call; 0: PEER_BUFFER */
    uint64_t send_pause, read_pause; /* between two such calls */
    uint64_t read_start;             /* reads nothing before */
    enum peer_end end;
    uint64_t end_pause; /* after the last byte */
    uint64_t enough;    /* 0: it reads all */
    enum peer_end enough_end;
};

/* Some read in small pieces, and some have enough before the end of `total` bytes. */
void peer_plan_reading(struct peer_plan *plan, struct random *random, size_t total);

/* What is measured: nobody sends less than all, and nobody leaves. */
void peer_plan_full(struct peer_plan *plan);

enum peer_state {
    PEER_PLANNED,
    PEER_CONNECTING,
    PEER_OPEN,
    PEER_DONE
};

struct peer {
    const struct peer_class *class_;
    struct peer_plan plan;
    char name[32];
    uint64_t salt; /* of what it sends */
    void *owner;

    enum peer_state state;
    uint64_t sent, received;
    uint64_t opened, ended; /* when */
    bool sent_end, got_end; /* the streams' ends; a plain close counts as an end sent */
    bool rude;              /* it has reset the connection, or closed it before it had read all */
    int error;              /* what connect, send or recv said: a reset, mostly */

    struct peer_host *host;
    struct sockaddr_storage to;
    socklen_t to_length;
    int fd;
    bool send_failed;
    size_t appetite; /* of the socket lately: more need not be composed */
    uint64_t next_send, next_read;
    struct peer *next;
    struct peer *(*accepted)(struct peer *listener); /* a listener has it */
    size_t accepts;
};

/* A raw host; made at its first naming. */
struct peer_host *peer_host(struct run *run, const char *name);
struct run *peer_run(const struct peer *peer);

/* A client: set plan, class_, salt and owner first. */
void peer_connect(struct peer *peer, struct peer_host *host, const char *name, const char *to, uint16_t port);

/* A server: accepted() gives the peer for each client, set up but for its name, or NULL to close it at once. */
void peer_listen(struct peer *listener, struct peer_host *host, uint16_t port,
                 struct peer *(*accepted)(struct peer *listener));
void peer_close_listener(struct peer *listener);

/* A client's own address, once it is connected. */
void peer_address(const struct peer *peer, struct sockaddr_in *address);

/* There is something to send now, or something else changed: looks at the peer again. */
void peer_touch(struct peer *peer);

/* Ends it at once. */
void peer_end(struct peer *peer, enum peer_end how);

#endif
