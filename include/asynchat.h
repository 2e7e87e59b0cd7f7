/* asynchat.h: protocols with terminators, on a dispatcher that queues what it sends.
 *
 * Input is cut at a terminator: some bytes, a length, or none. What lies before it is given to
 * collect_incoming_data, in as many pieces as it comes, then found_terminator is called, which may set another
 * terminator for what follows. Output is a queue of data and producers (push, push_with_producer), sent as
 * the peer takes it: pushes of one handler go out together.
 *
 *     line:   asynchat_set_terminator(c, "\r\n", 2)
 *     block:  asynchat_set_terminator_length(c, n)
 *     stream: asynchat_set_terminator(c, NULL, 0)      everything is collected, nothing is found
 *
 * A peer that sends more than the limit (64 KiB) without the terminator fails with ASYNCHAT_ELIMIT. A peer that
 * does not read is no longer read from, past the high mark, until it does. */
#ifndef ASYNCHAT_H
#define ASYNCHAT_H

#include "asyncore.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 256 bytes for the life of the soname. */
struct asynchat {
    struct asyncore_dispatcher_with_send base;
    union {
        unsigned char bytes[16];
        unsigned char *heap;
    } terminator_;
    size_t length_;    /* of the terminator, or bytes still to come */
    size_t collected_; /* since the last terminator */
    size_t limit_;
    void *input_;
    uint32_t kind_;
    uint32_t flags_;
    void *reserved_[5];
};

/* 320 bytes for the life of the soname. */
struct asynchat_class {
    struct asyncore_class base; /* .base.parent: another asynchat_class's .base, or NULL */
    /* A piece of input, n > 0 bytes, gone after the call. Default: -ENOSYS. */
    int (*collect_incoming_data)(struct asynchat *c, const void *data, size_t n);
    /* The terminator came; it is not part of the data. Default: -ENOSYS. */
    int (*found_terminator)(struct asynchat *c);
    void (*reserved[6])(void);
};

#define asynchat_init(c, cls, map) asynchat_init_(c, cls, map, sizeof *(c), sizeof *(cls), ASYNCORE_ABI)
ASYNCORE_API int asynchat_init_(struct asynchat *c, const struct asynchat_class *cls, struct asyncore_map *map,
                                size_t size, size_t class_size, unsigned abi);

/* The parent's version of a slot: asynchat_super(c, &mine)->found_terminator(c). */
ASYNCORE_API const struct asynchat_class *asynchat_super(const struct asynchat *c, const struct asynchat_class *mine);

/* Until one is set there is none: everything is collected. The bytes are copied. A length of 0 is no
 * terminator, as in Python. get returns the length and, for bytes, lends them; *bytes is NULL otherwise. */
ASYNCORE_API int asynchat_set_terminator(struct asynchat *c, const void *bytes, size_t n);
ASYNCORE_API int asynchat_set_terminator_length(struct asynchat *c, size_t n);
ASYNCORE_API size_t asynchat_get_terminator(const struct asynchat *c, const void **bytes);

/* How much may be collected while waiting for a terminator of bytes; 0 is no bound. */
ASYNCORE_API void asynchat_set_limit(struct asynchat *c, size_t limit);

/* Queues a copy. 0; 1 past the high mark; -ENOBUFS past the limit, then nothing was taken; -EPIPE after
 * close_when_done or when the channel is closed. push_ref: as asyncore_send_ref. */
ASYNCORE_API int asynchat_push(struct asynchat *c, const void *data, size_t n);
ASYNCORE_API int asynchat_push_text(struct asynchat *c, const char *text);
ASYNCORE_API int asynchat_push_ref(struct asynchat *c, const void *data, size_t n, void (*release)(void *arg),
                                   void *arg);

/* Yields data when the queue has come to it. */
struct asynchat_producer {
    /* > 0: *data has so many bytes, which stay until the next call of more or release; 0: no more;
     * negative: the channel fails with it. */
    ssize_t (*more)(struct asynchat_producer *p, const void **data);
    void (*release)(
        struct asynchat_producer *p); /* done with it, or dropped; may be NULL. Calls none of the library. */
};
ASYNCORE_API int asynchat_push_with_producer(struct asynchat *c, struct asynchat_producer *p);

/* Yields lent memory in pieces; `piece` 0 is 512, as in Python. */
struct asynchat_simple_producer {
    struct asynchat_producer base;
    const unsigned char *data_;
    size_t left_, piece_;
};
ASYNCORE_API void asynchat_simple_producer_init(struct asynchat_simple_producer *p, const void *data, size_t n,
                                                size_t piece);

/* When all that was pushed is sent: handle_close, whose default closes. An override that does not, to read on until the
 * peer's end, gets it once more then. After the peer's end was told, the channel is closed without asking again. It never
 * fails for want of memory. */
ASYNCORE_API int asynchat_close_when_done(struct asynchat *c);

/* Forgets collected bytes of a terminator, queued input and queued output. */
ASYNCORE_API void asynchat_discard_buffers(struct asynchat *c);

/* Where the terminator begins in data, or -1; then *keep (may be NULL) is how many bytes at the end may be its
 * beginning, to be looked at again with what follows. */
ASYNCORE_API ssize_t asynchat_find(const void *data, size_t n, const void *terminator, size_t m, size_t *keep);

#ifdef __cplusplus
}
#endif
#endif
