/* pool.c: a stack of free buffers for each size, and one of open pipes.
 *
 * What comes back goes on top of its stack, so the next that asks gets memory that is warm; the stacks keep few, for
 * memory that nobody uses is the system's. Pipes stay open, all that ever were: an empty pipe holds no pages, and opening one takes three system calls;
 * one that comes back with bytes in it is closed. */
#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEPT_SMALL = 32, /* 512 KiB */
    KEPT_LARGE = 2,
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

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    free_all(&pool->small);
    free_all(&pool->large);
    for (int i = 0; i < PIPES; i++) {
        if (pool->pipes[i].open)
            asyncore_pipe_close(pool->map, &pool->pipes[i].pipe);
    }
    free(pool);
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
    if (lent->filled > 0) {
        asyncore_pipe_close(pool->map, lent);
        pipe->open = false;
    }
    pipe->next = pool->free_pipes;
    pool->free_pipes = pipe;
}
