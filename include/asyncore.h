/* asyncore.h: sockets by the thousand, one thread, no callbacks to learn but handlers.
 *
 * A channel is one socket, pipe or descriptor with its handlers; a map is the set of channels that one
 * loop serves. asyncore_loop() asks what every channel wants, waits until some of it is ready, and calls
 * handle_read, handle_write, handle_accept, ... of the channels concerned. That is all there is to it.
 *
 * CLASSES. A class is a const table of functions (struct asyncore_class), an instance is your own struct
 * with the base struct as its first member, and a NULL slot is the parent's. A class must outlive every
 * map that it was used in.
 *
 * RESULTS. Functions return 0 or a count, or a negative error: a negated errno value, or one of enum
 * asyncore_error_code; asyncore_strerror() knows both. Outputs are untouched on failure. "Nothing yet" is -EAGAIN
 * and the end of a stream is 0: they are never confused.
 *
 * HANDLERS return 0, or a negative error to say that the channel failed: the loop then calls handle_error.
 * A positive result is ignored and -EAGAIN means that nothing happened, so "return asyncore_recv(...)" is
 * always right. No function below ever calls one of your handlers (but handle_socket, where a socket is made): what
 * happens inside a handler is recorded and delivered by the loop afterwards.
 *
 * MEMORY. You own the memory of channels, timers and lookups. A handler ends its own channel with
 * asyncore_close(), and frees it in `destroy`, which the loop calls once, later. Everybody else uses
 * asyncore_fini(): when it returns the library has forgotten the channel and the memory is yours.
 *
 * THREADS. One map, one thread at a time; functions marked "any thread" are the exceptions. After fork()
 * the child may call asyncore_after_fork() or exec; everything else there is -ECHILD.
 *
 * MAPS. Wherever a map is asked for, NULL is the default map, made at its first use and belonging to the
 * thread that used it first (-EPERM for any other).
 *
 * UNITS. Times are milliseconds, unless the name says otherwise; sizes are bytes. */
#ifndef ASYNCORE_H
#define ASYNCORE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASYNCORE_VERSION "0.1.0"
#define ASYNCORE_ABI     1u /* moves with the soname */

#if defined(__GNUC__)
#define ASYNCORE_API                 __attribute__((visibility("default")))
#define ASYNCORE_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define ASYNCORE_API
#define ASYNCORE_PRINTF(text, first)
#endif

/* What a channel may want and what may have happened: the kernel's POLL bits (poll(2)). ERROR and HANGUP
 * come unasked with any other; a channel that wants ERROR alone is told once of a reset or a hang-up. */
enum {
    ASYNCORE_READ = 0x001,
    ASYNCORE_EXPT = 0x002, /* exceptional: TCP's urgent byte */
    ASYNCORE_WRITE = 0x004,
    ASYNCORE_ERROR = 0x008,
    ASYNCORE_HANGUP = 0x010
};

/* The library's own errors; they lie below every errno (Linux: 1 to 4095). */
enum asyncore_error_code {
    ASYNCORE_ENONAME = -5001,     /* the name does not exist, or has no address of the family */
    ASYNCORE_ENAMESERVER = -5002, /* no name server answered; worth another try later */
    ASYNCORE_EHOST = -5003,       /* the text is no address, and a name is not allowed here */
    ASYNCORE_EPORT = -5004,       /* the text is no port from 0 to 65535 */
    ASYNCHAT_ELIMIT = -5010       /* the peer sent more than the limit without a terminator */
};

struct asyncore_map;
struct asyncore_dispatcher;
struct asyncore_timer;

/* -- Classes -- */

/* 256 bytes for the life of the soname. Every slot may be NULL: then it is the parent's. */
struct asyncore_class {
    const char *name;                    /* for logs; never NULL in a class of yours */
    const struct asyncore_class *parent; /* your own base class; NULL: the class of the init function */

    /* Handlers, in the order in which one channel gets them in one turn. */
    int (*handle_connect)(struct asyncore_dispatcher *d); /* once, before the first read or write; default: nothing */
    int (*handle_expt)(struct asyncore_dispatcher *d);    /* an urgent byte: wanted if this is set; default: logs */
    int (*handle_read)(struct asyncore_dispatcher *d);   /* bytes, the end, or an error: recv tells which */
    int (*handle_write)(struct asyncore_dispatcher *d);  /* room to send */
    int (*handle_accept)(struct asyncore_dispatcher *d); /* a listener: default accepts and calls handle_accepted */
    /* A client came. Owns fd from here on, failure included; refuses it with asyncore_close_fd (after close(2), a socket
     * that got its number is taken for the client until this returns). `address` is gone after the call. A negative
     * result is that client's failure, not the listener's: it is logged. After asyncore_want(d, 0) in here no other
     * comes until READ is wanted again. Default: closes fd. */
    int (*handle_accepted)(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length);
    /* The stream ended, or the connection was lost (asyncore_error() tells which: 0 is a clean end). At most
     * once for an end and once for an error, never after close. Default: closes; with_send and async_chat
     * first send what is queued when it was a clean end. An override may go on writing (half-close). */
    int (*handle_close)(struct asyncore_dispatcher *d);
    /* A handler returned `error`, connect or the idle timeout failed. Default: logs and calls handle_close.
     * ECONNRESET, ENOTCONN, ESHUTDOWN, ECONNABORTED, EPIPE and EBADF go to handle_close directly. */
    int (*handle_error)(struct asyncore_dispatcher *d, int error);

    /* Predicates: nonzero is yes. A class that defines one is asked in every turn, and the answer may depend
     * on anything (but time: that needs a timer). A class that defines neither uses asyncore_want(). */
    int (*readable)(struct asyncore_dispatcher *d);
    int (*writable)(struct asyncore_dispatcher *d);

    /* All events of a turn in one call, instead of the order above; the default is that order. */
    int (*handle_event)(struct asyncore_dispatcher *d, unsigned events);
    /* A socket was made for this channel, and is neither bound nor connected: set its options. Called for every
     * address that connect tries; a negative result ends the attempt. It may close the channel, but not connect or
     * open it again (-EBUSY). Default: nothing. */
    int (*handle_socket)(struct asyncore_dispatcher *d, int fd);

    /* Transport: what asyncore_recv and asyncore_send do. > 0 bytes, 0 end of stream (recv), -EAGAIN, -errno. */
    ssize_t (*recv)(struct asyncore_dispatcher *d, void *data, size_t size);
    ssize_t (*send)(struct asyncore_dispatcher *d, const void *data, size_t size);

    void (*log)(struct asyncore_dispatcher *d, const char *message);
    void (*log_info)(struct asyncore_dispatcher *d, const char *message, const char *type);

    /* After close(), once, from the loop or asyncore_map_free(): free the channel here. Default: nothing. */
    void (*destroy)(struct asyncore_dispatcher *d);

    void (*reserved[13])(void);
};

/* A ready-made `destroy`: free(d), for channels from malloc whose base is their first member. */
ASYNCORE_API void asyncore_destroy_free(struct asyncore_dispatcher *d);

/* The parent's version of a slot: asyncore_super(d, &mine)->handle_close(d). Every slot of the result is set. */
ASYNCORE_API const struct asyncore_class *asyncore_super(const struct asyncore_dispatcher *d,
                                                         const struct asyncore_class *mine);

/* -- Maps and the loop -- */

/* Zero in any member means the default. */
struct asyncore_map_options {
    const char *engine;        /* "epoll", "poll", "select"; default: $ASYNCORE_ENGINE, else epoll */
    const char *name_servers;  /* "127.0.0.1:5353,[::1]:53"; default: the system's */
    unsigned accepts_per_turn; /* at most; 64: a storm of clients must not starve the connected ones */
    unsigned timers_per_turn;  /* 1024: nor may timers that come due all at once */
    unsigned accept_pause;     /* 100 ms: how long a listener rests when descriptors or memory ran out */
    void *reserved[8];
};

/* Makes a map. -EINVAL: no such engine. */
#define asyncore_map_new(ret, options)                                                                                 \
    asyncore_map_new_(ret, options, sizeof(struct asyncore_map_options), ASYNCORE_ABI)
ASYNCORE_API int asyncore_map_new_(struct asyncore_map **ret, const struct asyncore_map_options *options, size_t size,
                                   unsigned abi);

/* Closes and destroys what is in the map, forgets timers and lookups (they are not called), frees it.
 * -EBUSY within a turn. NULL frees the default map; the next use makes a new one. */
ASYNCORE_API int asyncore_map_free(struct asyncore_map *map);

/* Serves the map. `timeout` bounds the wait of a turn, -1 is no bound; `count` is a number of turns, 0 or
 * less is no bound. Returns 0 when no foreground channel, timer or lookup is left, 1 on asyncore_stop() or
 * when the turns are done, a negative error when waiting failed. -EBUSY within a turn, -ECHILD after fork,
 * -EINVAL if the map has bare watches (they are their host's to serve). */
ASYNCORE_API int asyncore_loop(struct asyncore_map *map, int timeout, int count);

/* One turn by hand. Returns how many events were served, or a negative error as asyncore_loop(). */
ASYNCORE_API int asyncore_poll(struct asyncore_map *map, int timeout);

/* Any thread. Ends asyncore_loop() after the turn in hand; before a loop, the next loop at once. */
ASYNCORE_API int asyncore_stop(struct asyncore_map *map);

/* Closes every channel of the map; their destroy runs at the end of the turn, or in the next. */
ASYNCORE_API int asyncore_close_all(struct asyncore_map *map);

/* CLOCK_MONOTONIC in nanoseconds, read at most once a turn; 0 without a map. */
ASYNCORE_API uint64_t asyncore_now(struct asyncore_map *map);

/* A descriptor that is readable when asyncore_poll(map, 0) has work: a map inside another loop. The map
 * owns it. -ENOTSUP on the engines select and poll. */
ASYNCORE_API int asyncore_map_fd(struct asyncore_map *map);

/* The name of the map's engine. */
ASYNCORE_API const char *asyncore_map_engine(struct asyncore_map *map);

/* The state of a map, for debugging: `line` is called with one line of text after the other, and must call nothing
 * of the library. */
ASYNCORE_API int asyncore_dump(struct asyncore_map *map, void (*line)(void *arg, const char *text), void *arg);

/* In a child that fork() made: a new kernel set and wake-up for the inherited channels; the parent loses
 * nothing. Lookups in flight end in ASYNCORE_ENAMESERVER. */
ASYNCORE_API int asyncore_after_fork(struct asyncore_map *map);

/* Where log and log_info go; `type` is "log", "info", "warning" or "error". None by default. */
typedef void (*asyncore_log_fn)(void *arg, const char *type, const char *message);
ASYNCORE_API int asyncore_set_log(struct asyncore_map *map, asyncore_log_fn log, void *arg);
ASYNCORE_API void asyncore_log_stderr(void *arg, const char *type, const char *message); /* "type: message" */

ASYNCORE_API const char *asyncore_strerror(int error); /* error: negative; the text is static */
ASYNCORE_API const char *asyncore_features(void);      /* "epoll poll select c-ares": what this build has */
ASYNCORE_API const char *asyncore_version(void);

/* -- dispatcher -- */

struct asyncore_link_ { /* private: a place in one of the map's lists */
    struct asyncore_link_ *next, *prev;
};

/* 128 bytes for the life of the soname. ro: read only; members that end in _ are private. */
struct asyncore_dispatcher {
    const struct asyncore_class *class_; /* with every slot resolved */
    struct asyncore_map *map;            /* ro */
    void *data;                          /* yours */
    int fd;                              /* ro: -1 when there is none */
    uint32_t state_;
    int error_;
    uint16_t want_;
    uint8_t type_, family_;
    struct asyncore_link_ all_, pending_, asked_;
    void *extra_;
    uint32_t clients_, round_; /* a listener's */
    void *reserved_[3];
};

/* Every init is first of all: the struct may hold anything before. It takes no socket yet. -EINVAL: the
 * program was compiled against another version's structs. */
#define asyncore_dispatcher_init(d, cls, map)                                                                          \
    asyncore_dispatcher_init_(d, cls, map, sizeof *(d), sizeof *(cls), ASYNCORE_ABI)
ASYNCORE_API int asyncore_dispatcher_init_(struct asyncore_dispatcher *d, const struct asyncore_class *cls,
                                           struct asyncore_map *map, size_t size, size_t class_size, unsigned abi);

/* Makes a socket (non-blocking, close-on-exec) and adds the channel to its map. AF_UNSPEC: when the address
 * is known, in bind or connect. -EEXIST if the channel has one already. */
ASYNCORE_API int asyncore_create_socket(struct asyncore_dispatcher *d, int family, int type);

/* Takes over a descriptor, as handle_accepted gets it, and adds the channel: it counts as connected. On
 * failure fd is closed and so is the channel (its destroy will run): nothing is left to do. -EEXIST: that
 * descriptor is in the map already; then it is not closed, for it has another owner, but the channel is. Or the
 * channel has a socket, which it keeps; then fd is closed. */
ASYNCORE_API int asyncore_set_socket(struct asyncore_dispatcher *d, int fd);

/* Closes a descriptor that handle_accepted was given and no channel took over. */
ASYNCORE_API int asyncore_close_fd(struct asyncore_map *map, int fd);

/* The descriptor is somebody else's: close() forgets it and does not close it. */
ASYNCORE_API void asyncore_set_borrowed(struct asyncore_dispatcher *d);

/* Out of the map with the descriptor left open, and into a map again (NULL: the one that it was in). A channel may do so
 * in its own handler; closed before that returns, it is destroyed by the map that called the handler. */
ASYNCORE_API int asyncore_add_channel(struct asyncore_dispatcher *d, struct asyncore_map *map);
ASYNCORE_API int asyncore_del_channel(struct asyncore_dispatcher *d);

/* A background channel does not keep asyncore_loop() running. */
ASYNCORE_API void asyncore_set_background(struct asyncore_dispatcher *d, int on);

ASYNCORE_API int asyncore_set_reuse_addr(struct asyncore_dispatcher *d);

/* Binds. host: a numeric address, a name of /etc/hosts, "" or "*" for any, "unix:/path", "unix:@abstract";
 * port: a number, ignored for unix. ASYNCORE_EHOST, ASYNCORE_EPORT, -EADDRINUSE, ... */
ASYNCORE_API int asyncore_bind(struct asyncore_dispatcher *d, const char *host, const char *port);
ASYNCORE_API int asyncore_bind_sockaddr(struct asyncore_dispatcher *d, const struct sockaddr *address,
                                        socklen_t length);
ASYNCORE_API int asyncore_listen(struct asyncore_dispatcher *d, int backlog);

/* A client's descriptor (non-blocking, close-on-exec), -EAGAIN when none waits. address may be NULL.
 * EMFILE, ENFILE, ENOBUFS and ENOMEM make the listener rest by themselves. */
ASYNCORE_API int asyncore_accept(struct asyncore_dispatcher *d, struct sockaddr_storage *address, socklen_t *length);

/* Connects. A name is looked up without blocking; each of its addresses is tried in turn, with a new socket
 * each; the last error is reported. 0: under way, handle_connect or handle_error will tell, even where the
 * kernel knows at once. Negative: the arguments are wrong, and nothing was begun. host as for bind. */
ASYNCORE_API int asyncore_connect(struct asyncore_dispatcher *d, const char *host, const char *port);
ASYNCORE_API int asyncore_connect_sockaddr(struct asyncore_dispatcher *d, const struct sockaddr *address,
                                           socklen_t length);

/* recv: > 0 bytes, 0 the end of the stream, -EAGAIN nothing yet, or an error. The end is latched: read
 * interest is dropped and handle_close called after your handler. recv_view lends the map's buffer (64 KiB)
 * until the handler returns or calls recv_view again; sending that memory takes no copy where none is needed. */
ASYNCORE_API ssize_t asyncore_recv(struct asyncore_dispatcher *d, void *data, size_t size);
ASYNCORE_API ssize_t asyncore_recv_view(struct asyncore_dispatcher *d, const void **data);

/* send: a dispatcher gives the kernel's count, or -EAGAIN. On with_send and async_chat all of it is taken
 * and sent as the peer takes it: 0, or 1 when the queue is past its high mark; -ENOBUFS when nothing was
 * taken because it would pass the limit. Before handle_connect: -ENOTCONN, with_send queues. */
ASYNCORE_API ssize_t asyncore_send(struct asyncore_dispatcher *d, const void *data, size_t size);

/* Datagrams. recvfrom's 0 is an empty datagram. */
ASYNCORE_API ssize_t asyncore_sendto(struct asyncore_dispatcher *d, const void *data, size_t size,
                                     const struct sockaddr *address, socklen_t length);
ASYNCORE_API ssize_t asyncore_recvfrom(struct asyncore_dispatcher *d, void *data, size_t size,
                                       struct sockaddr_storage *address, socklen_t *length);

/* how: SHUT_RD, SHUT_WR, SHUT_RDWR. A datagram channel whose reading is shut down (-ENOTCONN: though not connected)
 * wants to read no more, whatever its class says; recv gives 0, and no end is told. Nor does a listener then; one of
 * TCP may listen again. */
ASYNCORE_API int asyncore_shutdown(struct asyncore_dispatcher *d, int how);
ASYNCORE_API int asyncore_setsockopt(struct asyncore_dispatcher *d, int level, int option, const void *value,
                                     socklen_t length);
ASYNCORE_API int asyncore_getsockopt(struct asyncore_dispatcher *d, int level, int option, void *value,
                                     socklen_t *length);
ASYNCORE_API int asyncore_sockname(struct asyncore_dispatcher *d, struct sockaddr_storage *address, socklen_t *length);
ASYNCORE_API int asyncore_peername(struct asyncore_dispatcher *d, struct sockaddr_storage *address, socklen_t *length);

/* What the channel wants from now on: ASYNCORE_READ | ASYNCORE_WRITE | ASYNCORE_EXPT | ASYNCORE_ERROR, or 0.
 * A new channel wants READ. Brought to the kernel once, before the next wait. Where the class has one
 * predicate, this rules the other direction only; with_send and async_chat see to WRITE themselves. */
ASYNCORE_API int asyncore_want(struct asyncore_dispatcher *d, unsigned events);
ASYNCORE_API unsigned asyncore_wanted(const struct asyncore_dispatcher *d);

/* handle_read will be called though the kernel has nothing: for a transport that still holds bytes. */
ASYNCORE_API int asyncore_ready(struct asyncore_dispatcher *d);

/* handle_error(d, -ETIMEDOUT) when the channel neither read nor wrote a byte for so long, connecting and
 * looking up included. 0: never (the default). */
ASYNCORE_API int asyncore_set_idle_timeout(struct asyncore_dispatcher *d, unsigned milliseconds);

/* The error that the channel failed with, or 0; and whether it is connected, connecting, accepting. */
ASYNCORE_API int asyncore_error(const struct asyncore_dispatcher *d);
ASYNCORE_API int asyncore_connected(const struct asyncore_dispatcher *d);
ASYNCORE_API int asyncore_connecting(const struct asyncore_dispatcher *d);
ASYNCORE_API int asyncore_accepting(const struct asyncore_dispatcher *d);

/* close: from this call on no handler of the channel runs, not even for events of the turn in hand; the
 * descriptor is closed, and destroy follows at the end of the turn. Closing twice is nothing. A class
 * without destroy may create_socket again.
 * fini: for everybody but the channel's own handlers (-EBUSY there): closes, forgets, and calls no destroy. */
ASYNCORE_API int asyncore_close(struct asyncore_dispatcher *d);
ASYNCORE_API int asyncore_fini(struct asyncore_dispatcher *d);

ASYNCORE_API void asyncore_log(struct asyncore_dispatcher *d, const char *format, ...) ASYNCORE_PRINTF(2, 3);
ASYNCORE_API void asyncore_log_info(struct asyncore_dispatcher *d, const char *type, const char *format, ...)
    ASYNCORE_PRINTF(3, 4);

/* -- Splicing: bytes from one socket to another through a pipe of the kernel's, past the program (splice(2)) -- */

struct asyncore_pipe { /* 32 bytes; zero it before its first use */
    int read_, write_;
    uint32_t size;   /* ro: what the kernel granted, a page for each of its slots; 0: it is not open */
    uint32_t filled; /* ro: bytes in it: a slot holds part of one segment, a byte of it or several pages */
    void *reserved_[2];
};

/* Makes a pipe. `size` is a wish, 0 for none: past what the system or the user may have (pipe(7)) the kernel gives
 * less, or two pages. It takes two descriptors, and pages only while bytes are in it, and belongs to no channel: a few
 * pipes that are lent while bytes are on their way serve many. -EMFILE, -ENFILE; -ENOSYS: there is no splicing here;
 * -EEXIST: it is open. */
ASYNCORE_API int asyncore_pipe_open(struct asyncore_map *map, struct asyncore_pipe *pipe, size_t size);

/* Closes it, and bytes in it are lost. A pipe that is not open: nothing. */
ASYNCORE_API void asyncore_pipe_close(struct asyncore_map *map, struct asyncore_pipe *pipe);

/* Moves at most `size` bytes, and waits for nothing.
 * direction ASYNCORE_READ, from the socket into the pipe, in place of asyncore_recv:
 *     > 0       so many bytes more are in the pipe
 *     0         the end of the stream, which is latched as recv does it
 *     -EAGAIN   the pipe is empty, and the kernel found nothing to splice. If the socket is readable all the same, ask
 *               asyncore_recv: it is an urgent byte, for one (which recv gives with SO_OOBINLINE, or passes over)
 *     -ENOBUFS  the pipe holds bytes, and took no more: it is full, or the socket empty, which the kernel does not tell
 *               apart. Empty the pipe, then ask again. Small segments fill a pipe long before `filled` is `size`,
 *               large ones long after
 * direction ASYNCORE_WRITE, from the pipe into the socket, in place of asyncore_send:
 *     > 0       so many bytes were taken
 *     0         the pipe is empty
 *     -EAGAIN   the socket takes nothing now
 * Both ways: -EINVAL, -ENOSYS: this kernel does not splice this socket, and the channel is as it was: use recv and
 * send from now on, and asyncore_pipe_read for what is in the pipe. -ENOTSUP: the channel is not a plain dispatcher
 * with a stream socket: with_send and async_chat have a queue that must not be overtaken, and a class with a recv or
 * send of its own (TLS) must not be passed by. -EBADF: the channel has no socket, or the pipe is not open. -EINVAL,
 * too: another direction, or ASYNCORE_READ of no bytes. All others are the socket's and latched as those of recv and
 * send. A handler returns -EAGAIN of these at the most: the others would fail its channel.
 *
 * The kernel raises SIGPIPE where asyncore_send would not: a program that splices ignores it. A socket that was handed
 * in (set_socket) is made non-blocking at its first splice and stays so. */
ASYNCORE_API ssize_t asyncore_splice(struct asyncore_dispatcher *d, struct asyncore_pipe *pipe, size_t size,
                                     unsigned direction);

/* Bytes out of the pipe into memory, where a socket does not take them: > 0 bytes, 0 when it is empty, -EBADF. */
ASYNCORE_API ssize_t asyncore_pipe_read(struct asyncore_map *map, struct asyncore_pipe *pipe, void *data, size_t size);

/* -- dispatcher_with_send -- */

/* 160 bytes for the life of the soname. */
struct asyncore_dispatcher_with_send {
    struct asyncore_dispatcher base;
    void *head_, *tail_;
    size_t queued_;
    void *marks_;
};

#define asyncore_dispatcher_with_send_init(s, cls, map)                                                                \
    asyncore_dispatcher_with_send_init_(s, cls, map, sizeof *(s), sizeof *(cls), ASYNCORE_ABI)
ASYNCORE_API int asyncore_dispatcher_with_send_init_(struct asyncore_dispatcher_with_send *s,
                                                     const struct asyncore_class *cls, struct asyncore_map *map,
                                                     size_t size, size_t class_size, unsigned abi);

/* Past `high` queued bytes the channel stops reading until `low`; past `limit` nothing more is taken.
 * Defaults: 128 KiB, 256 KiB, 16 MiB. -EINVAL unless low < high <= limit. */
ASYNCORE_API int asyncore_set_marks(struct asyncore_dispatcher_with_send *s, size_t low, size_t high, size_t limit);
ASYNCORE_API size_t asyncore_queued(const struct asyncore_dispatcher_with_send *s); /* bytes not yet sent */

/* As asyncore_send, without a copy: `data` must stay until release(arg) is called (may be NULL), when it was
 * sent or dropped. On failure it is not called. release runs in the library: it must call none of it. */
ASYNCORE_API ssize_t asyncore_send_ref(struct asyncore_dispatcher_with_send *s, const void *data, size_t size,
                                       void (*release)(void *arg), void *arg);

/* -- file_dispatcher: pipes, FIFOs, terminals, regular files (always ready) -- */

struct asyncore_file_dispatcher { /* 144 bytes */
    struct asyncore_dispatcher base;
    int flags_;
    int reserved_[3];
};

#define asyncore_file_dispatcher_init(f, cls, map)                                                                     \
    asyncore_file_dispatcher_init_(f, cls, map, sizeof *(f), sizeof *(cls), ASYNCORE_ABI)
ASYNCORE_API int asyncore_file_dispatcher_init_(struct asyncore_file_dispatcher *f, const struct asyncore_class *cls,
                                                struct asyncore_map *map, size_t size, size_t class_size, unsigned abi);

/* As set_socket, for a descriptor that is no socket. Its flags (O_NONBLOCK) are restored when it is closed. */
ASYNCORE_API int asyncore_set_file(struct asyncore_file_dispatcher *f, int fd);

/* -- Timers -- */

typedef void (*asyncore_timer_fn)(struct asyncore_timer *timer, void *arg);

struct asyncore_timer { /* 80 bytes; zero it before its first use */
    struct asyncore_map *map_;
    asyncore_timer_fn fn_;
    void *arg_;
    uint64_t deadline_, period_, order_; /* nanoseconds */
    size_t place_;
    uint32_t flags_;
    void *reserved_[2];
};

/* Calls fn(timer, arg) from the loop after, and never before, so many milliseconds, once or again and again
 * (every: without drift; times that passed unserved are left out). A pending timer is set anew, which takes no memory:
 * it cannot fail. One that comes again is pending while fn runs. Timers run in the order of their deadlines, equal ones
 * in the order of these calls. fn may set, cancel and free its timer. */
ASYNCORE_API int asyncore_call_later(struct asyncore_map *map, struct asyncore_timer *timer, uint64_t milliseconds,
                                     asyncore_timer_fn fn, void *arg);
ASYNCORE_API int asyncore_call_every(struct asyncore_map *map, struct asyncore_timer *timer, uint64_t milliseconds,
                                     asyncore_timer_fn fn, void *arg);
ASYNCORE_API void asyncore_cancel(struct asyncore_timer *timer); /* not pending: nothing */
ASYNCORE_API int asyncore_pending(const struct asyncore_timer *timer);
ASYNCORE_API void asyncore_timer_set_background(struct asyncore_timer *timer, int on);

/* Any thread: fn(arg) will be called once by the loop, in the order of these calls. */
ASYNCORE_API int asyncore_call_soon_threadsafe(struct asyncore_map *map, void (*fn)(void *arg), void *arg);
/* Any thread, and signal handlers: the wait in progress, or else the next one, ends at once. */
ASYNCORE_API int asyncore_wakeup(struct asyncore_map *map);

/* -- Signals as channels -- */

struct asyncore_signal { /* 160 bytes */
    struct asyncore_dispatcher base;
    void (*fn_)(struct asyncore_signal *signal, int number, void *arg);
    void *arg_;
    int number_;
    int was_blocked_;
    void *reserved_;
};

/* fn(signal, number, arg) is called from the loop when the signal came. It is blocked for the calling thread
 * until the channel is closed (start threads afterwards: they inherit that). A channel like any other: close
 * or fini it, and set it to the background if it should not keep the loop. */
#define asyncore_signal_init(signal, map, number, fn, arg)                                                             \
    asyncore_signal_init_(signal, map, number, fn, arg, sizeof *(signal), ASYNCORE_ABI)
ASYNCORE_API int asyncore_signal_init_(struct asyncore_signal *signal, struct asyncore_map *map, int number,
                                       void (*fn)(struct asyncore_signal *signal, int number, void *arg), void *arg,
                                       size_t size, unsigned abi);

/* -- Names and addresses -- */

struct asyncore_address {
    struct sockaddr_storage address;
    socklen_t length;
    uint32_t ttl; /* seconds; UINT32_MAX: for ever (numeric, /etc/hosts) */
};

struct asyncore_lookup;
/* error 0: `count` addresses in the order to try them in, gone after the call. */
typedef void (*asyncore_lookup_fn)(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses,
                                   size_t count, void *arg);

struct asyncore_lookup { /* 96 bytes; zero it before its first use */
    struct asyncore_map *map_;
    asyncore_lookup_fn fn_;
    void *arg_, *query_, *result_;
    size_t count_;
    struct asyncore_link_ link_;
    int error_;
    uint16_t port_;
    uint16_t flags_;
    void *reserved_[3];
};

/* Looks host up without blocking and calls fn from the loop, never from within this call. family: AF_UNSPEC,
 * AF_INET or AF_INET6. -EALREADY if the lookup is in flight, -EINVAL without fn. Cancelled: fn is not called. Without c-ares
 * (asyncore_features) only numeric addresses and /etc/hosts are known. */
ASYNCORE_API int asyncore_resolve(struct asyncore_map *map, struct asyncore_lookup *lookup, const char *host,
                                  const char *port, int family, asyncore_lookup_fn fn, void *arg);
ASYNCORE_API void asyncore_resolve_cancel(struct asyncore_lookup *lookup);

/* Text to address without any lookup ("" or "*": any IPv4 address; unix:...), and back as "192.0.2.1:80",
 * "[::1]:80", "unix:/path". text returns its length, cut to size; size 128 holds any of them. */
ASYNCORE_API int asyncore_parse_address(const char *host, const char *port, struct sockaddr_storage *address,
                                        socklen_t *length);
ASYNCORE_API int asyncore_address_text(const struct sockaddr *address, socklen_t length, char *text, size_t size);

/* -- Bare watches: for embedders and bindings that have their own objects and their own order of calls -- */

struct asyncore_event {
    void *owner;
    int fd;
    uint32_t events; /* POLL bits as the kernel gave them, ERROR and HANGUP included */
    uint32_t serial; /* of this registration: another one of the same descriptor has another */
    uint32_t reserved;
};

/* A watch is a descriptor in a map with an owner, any pointer of yours. Other threads may call these while
 * the map's thread waits: the change is queued, the wait ends at once, and faults go unreported.
 * add: -EEXIST, -EBADF; want 0 leaves the kernel's set and keeps the watch. del before closing fd, always.
 * check: 1 while the descriptor is still the open file that was added, 0 when it was closed or is another. */
ASYNCORE_API int asyncore_watch_add(struct asyncore_map *map, int fd, unsigned want, void *owner);
ASYNCORE_API int asyncore_watch_want(struct asyncore_map *map, int fd, unsigned want);
ASYNCORE_API int asyncore_watch_del(struct asyncore_map *map, int fd);
ASYNCORE_API int asyncore_watch_check(struct asyncore_map *map, int fd);

/* Brings changes to the kernel, waits no longer than timeout (-1: no bound) and the nearest timer, and returns
 * how many of `ready` were filled, 0 when a timer is due or somebody woke the map. Calls no code of yours, so it may
 * be called within a handler. Channels among the ready are served by asyncore_poll(map, 0). */
ASYNCORE_API int asyncore_map_wait(struct asyncore_map *map, int timeout, struct asyncore_event *ready, int size);
ASYNCORE_API int64_t asyncore_next_timer(struct asyncore_map *map); /* ms until the next is due, 0 due, -1 none (or after fork) */
ASYNCORE_API int asyncore_run_timers(struct asyncore_map *map);     /* runs what is due and call_soon: how many */

#ifdef __cplusplus
}
#endif
#endif
