/* pool.c: a stack of free buffers for each size, and one of open pipes.
 *
 * What comes back goes on top of its stack, so the next that asks gets memory that is warm; the stacks keep few. Pipes
 * stay open meanwhile, for opening one takes three system calls, and an empty one holds no pages; one that comes back
 * with bytes in it is closed. When nothing was lent for a while, all that is free goes back to the system. */
#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEPT_SMALL = 32, /* 512 KiB */
    KEPT_LARGE = 2,
    REST_MS = 500,  /* without use, up to twice that, until it all goes */
};

struct pool_pipe {
    struct asyncore_pipe pipe;
    struct pool_pipe *next; /* free ones */
    bool open;
};

struct stack {
    char *buffers[KEPT_SMALL]; /* free ones */
    unsigned kept, kept_most;
    unsigned lent, lent_most;
};

struct pool {
    struct asyncore_map *map;
    struct stack small, large;
    struct asyncore_timer rest;
    bool used; /* since the timer last came */
    struct pool_pipe *free_pipes;
    struct pool_pipe pipes[PIPES];
};

int pool_new(struct pool **ret, struct asyncore_map *map)
{
    struct pool *pool = calloc(1, sizeof(*pool));

    if (!pool)
        return -ENOMEM;
    pool->map = map;
    pool->small = (struct stack){.kept_most = KEPT_SMALL, .lent_most = UINT_MAX};
    pool->large = (struct stack){.kept_most = KEPT_LARGE, .lent_most = LARGE_BUFFERS};
    for (int i = PIPES - 1; i >= 0; i--) {
        pool->pipes[i].next = pool->free_pipes;
        pool->free_pipes = &pool->pipes[i];
    }
    *ret = pool;
    return 0;
}

static void free_all(struct stack *stack)
{
    while (stack->kept > 0)
        free(stack->buffers[--stack->kept]);
}

static void close_pipe(struct pool *pool, struct pool_pipe *pipe)
{
    asyncore_pipe_close(pool->map, &pipe->pipe); /* of one that is not open: nothing */
    pipe->open = false;
}

static void free_what_rests(struct pool *pool)
{
    free_all(&pool->small);
    free_all(&pool->large);
    for (struct pool_pipe *pipe = pool->free_pipes; pipe; pipe = pipe->next)
        close_pipe(pool, pipe);
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    asyncore_cancel(&pool->rest);
    free_what_rests(pool);
    free(pool);
}

static void rested(struct asyncore_timer *timer, void *arg);

/* Something was lent or came back. Without memory for a timer nothing rests. */
static void in_use(struct pool *pool)
{
    pool->used = true;
    if (!asyncore_pending(&pool->rest) &&
        asyncore_call_later(pool->map, &pool->rest, REST_MS, rested, pool) == 0)
        asyncore_timer_set_background(&pool->rest, 1);
}

static void rested(struct asyncore_timer *timer, void *arg)
{
    struct pool *pool = arg;

    (void)timer;
    if (!pool->used) {
        free_what_rests(pool);
        return;
    }
    pool->used = false;
    if (asyncore_call_later(pool->map, &pool->rest, REST_MS, rested, pool) == 0)
        asyncore_timer_set_background(&pool->rest, 1);
}

/* The stack of a size, or NULL: any other size is the system's matter. */
static struct stack *stack_of(struct pool *pool, unsigned size)
{
    return size == SMALL_BUFFER ? &pool->small : size == LARGE_BUFFER ? &pool->large : NULL;
}

char *pool_peek(struct pool *pool)
{
    struct stack *stack = &pool->small;

    if (stack->kept == 0) {
        stack->buffers[0] = malloc(SMALL_BUFFER);
        if (!stack->buffers[0])
            return NULL;
        in_use(pool);
        stack->kept = 1;
    }
    return stack->buffers[stack->kept - 1];
}

char *pool_take(struct pool *pool, unsigned size)
{
    struct stack *stack = stack_of(pool, size);
    char *buffer;

    if (!stack)
        return malloc(size);
    if (stack->lent == stack->lent_most)
        return NULL;
    buffer = stack->kept > 0 ? stack->buffers[--stack->kept] : malloc(size);
    if (buffer)
        stack->lent++;
    return buffer;
}

void pool_give(struct pool *pool, char *buffer, unsigned size)
{
    struct stack *stack = stack_of(pool, size);

    if (!buffer)
        return;
    if (stack)
        stack->lent--;
    in_use(pool);
    if (stack && stack->kept < stack->kept_most)
        stack->buffers[stack->kept++] = buffer;
    else
        free(buffer);
}

struct asyncore_pipe *pool_take_pipe(struct pool *pool)
{
    struct pool_pipe *pipe = pool->free_pipes;

    if (!pipe)
        return NULL;
    if (!pipe->open) {
        memset(&pipe->pipe, 0, sizeof(pipe->pipe));
        if (asyncore_pipe_open(pool->map, &pipe->pipe, PIPE_SIZE) < 0)
            return NULL;
        pipe->open = true;
    }
    pool->free_pipes = pipe->next;
    return &pipe->pipe;
}

void pool_give_pipe(struct pool *pool, struct asyncore_pipe *lent)
{
    struct pool_pipe *pipe = (struct pool_pipe *)lent;

    if (!pipe)
        return;
    in_use(pool);
    if (lent->filled > 0)
        close_pipe(pool, pipe);
    pipe->next = pool->free_pipes;
    pool->free_pipes = pipe;
}
