/* pool.h: memory and pipes lent to flows while bytes are in them, and only then.
 *
 * Small buffers are as many as are asked for. Large ones and pipes are bounded: whoever gets none does with a small
 * buffer. A few that came back are kept for the next. */
#ifndef PORTFORWARD_POOL_H
#define PORTFORWARD_POOL_H

#include <asyncore.h>

enum {
    SMALL_BUFFER = 16 << 10,
    LARGE_BUFFER = 256 << 10,
    LARGE_BUFFERS = 64, /* 16 MiB: what large buffers may take in all */
    PIPE_SIZE = 256 << 10,
    PIPES = 32, /* of the 64 MiB that a user's pipes may take unprivileged (pipe-user-pages-soft, pipe(7)) an eighth */
};

struct pool;

int pool_new(struct pool **ret, struct asyncore_map *map);
void pool_free(struct pool *pool); /* after everything came back */

/* The small buffer that pool_take() would lend next, to be used and forgotten before anything else is asked of the
 * pool. NULL: no memory. */
char *pool_peek(struct pool *pool);

/* NULL: no memory, or, of the large size, none left. Other sizes than the two are possible, and simply malloc's. */
char *pool_take(struct pool *pool, unsigned size);
void pool_give(struct pool *pool, char *buffer, unsigned size);

/* An empty pipe; NULL: none left, or the system gives none. It may come back with bytes in it (they are dropped). */
struct asyncore_pipe *pool_take_pipe(struct pool *pool);
void pool_give_pipe(struct pool *pool, struct asyncore_pipe *pipe);

#endif
