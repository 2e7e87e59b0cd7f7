/* queue.h: what a channel still has to send. See queue.c. */
#ifndef QUEUE_H
#define QUEUE_H

#include "asynchat.h"
#include "channel.h"

#define LIMIT_DEFAULT (16u << 20)

struct marks {
    size_t low, high, limit;
};

const struct marks *queue_marks(const struct asyncore_dispatcher_with_send *s);
int queue_copy(struct asyncore_dispatcher_with_send *s, const void *data, size_t size);
int queue_ref(struct asyncore_dispatcher_with_send *s, const void *data, size_t size, void (*release)(void *arg),
              void *arg);
int queue_view(struct asyncore_dispatcher_with_send *s, const void *data, size_t size); /* of the map's view buffer */
int queue_producer(struct asyncore_dispatcher_with_send *s, struct asynchat_producer *p);
void queue_end(struct asyncore_dispatcher_with_send *s);
bool queue_ended(const struct asyncore_dispatcher_with_send *s);
void queue_drop(struct asyncore_dispatcher_with_send *s);

/* Sends what the kernel takes. 0, -EAGAIN when it takes no more now, -ECANCELED when a producer put an end to it, or
 * the error of a send. Producers are asked only if `ask`; *ended is set when the end was reached. */
int queue_send(struct asyncore_dispatcher_with_send *s, bool ask, bool *ended);

/* send.c, for async_chat too */
int may_queue(struct asyncore_dispatcher_with_send *s,
              size_t size);                                 /* 0 when so many bytes may be queued, else why not */
int queue_changed(struct asyncore_dispatcher_with_send *s); /* 1 past the high mark, else 0 */
int with_send_write(struct asyncore_dispatcher *d);
int with_send_close(struct asyncore_dispatcher *d);
void with_send_release(struct asyncore_dispatcher *d, bool closing);

#endif
