/* flow.h: what flows one way between the two ends of a pair. */
#ifndef PORTFORWARD_FLOW_H
#define PORTFORWARD_FLOW_H

#include <asyncore.h>
#include <stdbool.h>

#include "config.h"
#include "pool.h"

/* Zeroed: an empty flow. Bytes in flight are in the buffer or in the pipe, never in both; neither is held without. */
struct flow {
    char *buffer;               /* lent by the pool; or NULL */
    struct asyncore_pipe *pipe; /* lent by the pool; or NULL */
    unsigned start, count;      /* bytes in flight: in the buffer from `start` on, or in the pipe */
    unsigned size;              /* of the buffer */
    unsigned streak;            /* bytes moved lately in large pieces: what makes it bulk */
    bool no_splice;             /* the kernel refused: it copies for good */
    bool ended;                 /* recv said so */
    bool shut;                  /* and that was passed on */
    uint64_t bytes;             /* delivered */
};

/* What became of a flow. A failed channel's error is with it: FLOW_IN_FAILED and FLOW_OUT_FAILED set *error. */
enum flow_state {
    FLOW_DRY,       /* nothing in flight, nothing more to be had now */
    FLOW_STUCK,     /* bytes are in flight, and out takes no more */
    FLOW_ENDED,     /* the end of the stream, nothing in flight */
    FLOW_IN_FAILED, /* nothing in flight */
    FLOW_OUT_FAILED
};

/* A flow and where it goes, for the length of a call. */
struct move {
    struct flow *flow;
    struct asyncore_dispatcher *in, *out;
    struct pool *pool;
    enum data_path path;
    int error;
};

/* Sends what is in flight. FLOW_DRY, FLOW_STUCK or FLOW_OUT_FAILED. */
enum flow_state flow_flush(struct move *move);

/* Reads and sends, until a read comes up short, out is full, or the turn's share is used. For a flow with nothing in
 * flight. */
enum flow_state flow_move(struct move *move);

/* Reads once, and sends nothing: FLOW_STUCK then has the bytes. */
enum flow_state flow_fill(struct move *move);

/* Drops what is in flight. */
void flow_drop(struct flow *flow, struct pool *pool);

#endif
