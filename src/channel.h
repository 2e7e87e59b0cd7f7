/* channel.h: dispatchers as the library's files see them. See channel.c. */
#ifndef CHANNEL_H
#define CHANNEL_H

#include "map.h"
#include "watch.h"
#include <errno.h>

/* Bits of state_. */
enum {
    S_ADDED = 1u << 0, /* in the map: it is in map->all */
    S_CONNECTED = 1u << 1,
    S_CONNECTING = 1u << 2,
    S_ACCEPTING = 1u << 3,
    S_EOF = 1u << 4,      /* recv gave 0 */
    S_EOF_TOLD = 1u << 5, /* and handle_close was called for it */
    S_BROKEN = 1u << 6,   /* error_ is the socket's: nothing more can come of it */
    S_BROKEN_TOLD = 1u << 7,
    S_SEND_FAILED = 1u << 8, /* error_ is send's; what was received before it is still read */
    S_DONE = 1u << 9,        /* close_when_done has come to its end */
    S_BACKGROUND = 1u << 10,
    S_BORROWED = 1u << 11,
    S_DYING = 1u << 12,    /* closed, destroy to come */
    S_ASK_READ = 1u << 13, /* the class has readable */
    S_ASK_WRITE = 1u << 14,
    S_MORE = 1u << 15, /* more follows what is being sent: MSG_MORE itself */
    S_SAYS_WRITE = 1u << 16,
    S_BUFFERED = 1u << 17, /* a dispatcher_with_send */
    S_PAUSED = 1u << 18,   /* its queue is past the high mark */
    S_CLOSE_WHEN_SENT = 1u << 19,
    S_SAYS_READ = 1u << 20, /* what they said */
    S_REUSE = 1u << 21,     /* set_reuse_addr, for sockets still to be made */
    S_IDLE = 1u << 22,      /* has an idle timeout */
    S_RESTING = 1u << 23,   /* a listener without descriptors to give */
    S_COUNTED = 1u << 24,   /* in map->foreground */
    S_NO_SOCKET = 1u << 25, /* a file: no shutdown, no socket options */

    /* Why it is in map->pending. */
    S_READY = 1u << 26, /* asyncore_ready */
    S_FLUSH = 1u << 27, /* queued output has not been tried */
    S_TELL = 1u << 28,  /* something to settle outside its own handler */

    S_LOOKUP = 1u << 29,    /* connecting, and its name is looked up */
    S_DONE_TOLD = 1u << 30, /* handle_close was called for S_DONE */
    S_HELD = 1u << 31,      /* asyncore_ready, but it does not want to read */

    /* What its class is, and a new socket in the same struct keeps. */
    S_CLASS = S_BACKGROUND | S_ASK_READ | S_ASK_WRITE | S_BUFFERED | S_NO_SOCKET,
    S_ANY_PENDING = S_READY | S_FLUSH | S_TELL
};

/* A base class of the library: its defaults, and what goes with its struct when a channel is closed. */
struct class_root {
    const struct asyncore_class *own; /* what differs from dispatcher_defaults */
    size_t size;                      /* of that table: asynchat's is larger */
    uint32_t state;
    void (*release)(struct asyncore_dispatcher *d, bool closing); /* before its descriptor is closed; may be NULL */
};

/* What few channels need, taken when it is needed. */
struct extra {
    struct asyncore_timer idle_timer;
    uint64_t idle, last; /* ns */
    struct asyncore_lookup lookup;
    struct asyncore_address *addresses; /* connect: to be tried, from `next` on */
    size_t count, next;
    bool stands; /* connect said at once that it is connected: of a Unix socket, asking again would ask its listener */
};

/* Descriptors or memory ran out: it will pass. */
static inline bool exhausted(ssize_t error)
{
    return error < 0 && (error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM);
}

/* Every call of a virtual method. */
#define call(d, slot, ...) ((d)->class_->slot((d), ##__VA_ARGS__))

/* class.c */
int class_resolve(struct asyncore_map *map, const struct asyncore_class *cls, const struct class_root *root,
                  const struct asyncore_class **ret);
const struct class_root *class_root_of(const struct asyncore_dispatcher *d);
const struct asyncore_class *class_source_of(const struct asyncore_dispatcher *d);
void classes_clear(struct asyncore_map *map);
extern const struct class_root dispatcher_root;
extern const struct asyncore_class dispatcher_defaults;

/* channel.c: for the loop */
bool channel_settle(struct asyncore_map *map, struct asyncore_dispatcher *d, int result);
int default_event(struct asyncore_dispatcher *d, unsigned events);
void channel_serve_rare(struct asyncore_dispatcher *d, unsigned events);
void channels_ask(struct asyncore_map *map);
void channels_flush(struct asyncore_map *map);
void channels_deliver(struct asyncore_map *map);
void channels_reap(struct asyncore_map *map);
void channels_clear(struct asyncore_map *map);
void channels_dump(struct asyncore_map *map, void (*line)(void *arg, const char *text), void *arg);

/* channel.c: for the other classes */
int channel_init(struct asyncore_dispatcher *d, const struct asyncore_class *cls, const struct class_root *root,
                 struct asyncore_map *map);
int channel_attach(struct asyncore_dispatcher *d, int fd); /* fd joins the map as this channel's */
void channel_detach(struct asyncore_dispatcher *d, bool closing); /* and leaves it; closing: fd is closed at once */
int channel_take(struct asyncore_dispatcher *d, int fd);   /* set_socket and set_file */
void channel_pend(struct asyncore_dispatcher *d, uint32_t why);
void channel_interest(struct asyncore_dispatcher *d);
void channel_broken(struct asyncore_dispatcher *d, int error);
void channel_refused(struct asyncore_dispatcher *d, int error); /* by the engine */
void channel_enlist(struct asyncore_dispatcher *d);
void channel_rest(struct asyncore_dispatcher *d);
void channels_wake(struct asyncore_map *map);
int channel_usable(const struct asyncore_dispatcher *d); /* 0, -EBADF, -ECHILD */
int channel_extra(struct asyncore_dispatcher *d, struct extra **ret);
void channel_active(struct asyncore_dispatcher *d); /* for S_IDLE: bytes went by */

/* sock.c */
bool datagrams(struct asyncore_dispatcher *d);
int connect_event(struct asyncore_dispatcher *d, unsigned events);
void connect_forget(struct asyncore_dispatcher *d);
int default_accept(struct asyncore_dispatcher *d);
int default_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length);
ssize_t default_recv(struct asyncore_dispatcher *d, void *data, size_t size);
ssize_t default_send(struct asyncore_dispatcher *d, const void *data, size_t size);
ssize_t send_failed(struct asyncore_dispatcher *d, ssize_t error);
ssize_t recv_ended(struct asyncore_dispatcher *d, ssize_t n);           /* it gave 0, or an error */
ssize_t recv_refused(const struct asyncore_dispatcher *d, size_t size); /* what it says without being called */
int socket_unblock(struct asyncore_dispatcher *d);

/* send.c */
void buffered_flush(struct asyncore_dispatcher *d);

static inline struct asyncore_dispatcher_with_send *with_send(struct asyncore_dispatcher *d)
{
    return (struct asyncore_dispatcher_with_send *)d;
}

/* In its handle_socket. It may be closed there, but not opened again: whoever makes the socket would take the new one
 * for the old. */
static inline bool being_made(const struct asyncore_dispatcher *d)
{
    for (const struct making *m = d->map->making; m != NULL; m = m->outer)
        if (m->d == d)
            return true;
    return false;
}

static inline void begin(struct asyncore_dispatcher *d)
{
    d->map->serving = d;
    d->map->open = true;
}

/* After every handler: what its result and the records of the channel come to. Whether d is still open. */
HOT bool settle(struct asyncore_map *map, struct asyncore_dispatcher *d, int result)
{
    if (map->open && result >= 0 && !(d->state_ & (S_EOF | S_DONE | S_BROKEN)))
        return true;
    return channel_settle(map, d, result);
}

/* `events` are wanted, as far as the watch knows: reading alone needs no second look, whatever else does. */
HOT void channel_serve(struct asyncore_map *map, struct asyncore_dispatcher *d, unsigned events)
{
    map->serving = d;
    map->open = true;
    if (events == ASYNCORE_READ && !(d->state_ & (S_CONNECTING | S_ACCEPTING | S_ASK_READ)) &&
        d->class_->handle_event == default_event)
        settle(map, d, call(d, handle_read));
    else
        channel_serve_rare(d, events);
    map->serving = NULL;
}

/* What happened is told by settle() after d's handler, or else (it was closed, and opened again) from the pending list. */
static inline bool told_after_handler(const struct asyncore_dispatcher *d)
{
    return d->map->serving == d && d->map->open;
}

/* Whether the handler in hand may go on with d. */
static inline bool still_open(const struct asyncore_map *map, const struct asyncore_dispatcher *d)
{
    return map->serving == d ? map->open : (d->state_ & S_ADDED) != 0;
}

#endif
